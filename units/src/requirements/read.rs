//! From the lines of our section to values with their places.

use super::options::{Opt, option_names};
use crate::{
    ProblemKind, UnitFile,
    problem::Found,
    specifier,
    suggest::nearest,
    syntax::Stored,
    words::{Escapes, is_blank, split_words},
};

/// Our section's two spellings, equal in everything.
pub const SECTIONS: [&str; 2] = ["X-Flotilla", "X-Fleet"];

/// How many values the section may have: placing a unit looks at each of them, so this bounds what one
/// unit costs everybody. Patterns make do with few.
pub const MAX_VALUES: usize = 256;

/// One value of an option, with its specifiers.
#[derive(Debug)]
pub struct Entry {
    pub option: Opt,
    pub text: String,
    /// At which byte of the file it begins.
    pub at: usize,
    /// It has a specifier other than `%%`.
    pub depends_on_name: bool,
    /// How old the option's spelling is; the newest is 0.
    age: u8,
}

/// Collects the values of our section, after resets.
pub fn collect(file: &UnitFile, found: &mut Found) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let parsed = file.parsed();
    for stored in &parsed.assignments {
        let section = parsed.sections[stored.section].0.as_str();
        if !SECTIONS.contains(&section) {
            continue;
        }
        let Some((option, age)) = Opt::of(&stored.key) else {
            let suggestion = nearest(&stored.key, option_names()).map(str::to_owned);
            let option = stored.key.to_string();
            found.at(
                stored.at,
                ProblemKind::UnknownOption { section: section.to_owned(), option, suggestion },
            );
            continue;
        };
        if stored.value.is_empty() {
            entries.retain(|e| e.option != option);
            continue;
        }
        for (mut text, at) in values(option, stored, found) {
            // Here it is a unit, as in systemd's CPUQuota=, and nothing is left that it could begin.
            if option == Opt::ReserveCpu && text.ends_with('%') && !text.ends_with("%%") {
                text.push('%');
            }
            match specifier::depends_on_name(&text) {
                Ok(_) if entries.len() >= MAX_VALUES => {
                    found.at(at, ProblemKind::TooManyValues);
                    return entries;
                }
                Ok(depends_on_name) => entries.push(Entry { option, text, at, depends_on_name, age }),
                Err(percent) => {
                    let sign: String = text[percent..].chars().take(2).collect();
                    let why = format!("`{sign}` is not %n, %N, %p or %i; a percent sign is written %%");
                    found.at(at, bad(option, &text, why));
                }
            }
        }
    }
    // As in fleet: of the spellings of MachineID the newest that is there counts, and only that; files for
    // several versions of fleet have more than one. Those of other options add up.
    let ages = entries.iter().filter(|e| e.option == Opt::MachineId).map(|e| e.age);
    let newest = ages.min().unwrap_or_default();
    entries.retain(|e| e.option != Opt::MachineId || e.age == newest);
    entries
}

/// Takes one assignment apart into values with their places.
fn values(option: Opt, stored: &Stored, found: &mut Found) -> Vec<(String, usize)> {
    let value = &*stored.value;
    let several = match option {
        Opt::MachineOf | Opt::Conflicts | Opt::Replaces | Opt::Spread | Opt::Reserve | Opt::ReservePort => {
            true
        }
        // As fleet did: only quotes make several of one line, since a value may have blanks. Single
        // quotes are systemd's too, where a word begins with one: within a word they are apostrophes.
        Opt::MachineMetadata => {
            let mut words = value.split(is_blank);
            value.contains('"') || words.any(|word| word.starts_with('\''))
        }
        _ => value.starts_with(['"', '\'']),
    };
    if !several {
        return vec![(value.to_owned(), stored.text_at(0))];
    }
    match split_words(value, Escapes::Keep) {
        Ok(words) => words.into_iter().map(|w| (w.text, stored.text_at(w.at))).collect(),
        Err(e) => {
            found.at(stored.text_at(e.at), bad(option, value, e.why.to_owned()));
            Vec::new()
        }
    }
}

/// Says that an option does not take a value.
pub fn bad(option: Opt, value: &str, why: String) -> ProblemKind {
    // A value may be as long as the file.
    let value = value.chars().take(80).collect();
    ProblemKind::BadValue { option: option.name(), value, why }
}
