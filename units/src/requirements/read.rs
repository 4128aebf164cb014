//! From the lines of our section to typed requirements.

use std::collections::{BTreeMap, BTreeSet};

use super::{OnPartition, UnitRequirements};
use crate::{
    Glob, Is, MachineId, ProblemKind, Selector, UnitFile, UnitName,
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

/// The options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opt {
    MachineId,
    MachineOf,
    MachineMetadata,
    Conflicts,
    Global,
    Replaces,
    OnPartition,
}

impl Opt {
    const ALL: [Self; 7] = [
        Self::MachineId,
        Self::MachineOf,
        Self::MachineMetadata,
        Self::Conflicts,
        Self::Global,
        Self::Replaces,
        Self::OnPartition,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::MachineId => "MachineID",
            Self::MachineOf => "MachineOf",
            Self::MachineMetadata => "MachineMetadata",
            Self::Conflicts => "Conflicts",
            Self::Global => "Global",
            Self::Replaces => "Replaces",
            Self::OnPartition => "OnPartition",
        }
    }

    /// Finds an option by its name or by the spelling that fleet had before 0.8 and went on reading.
    fn of(key: &str) -> Option<Self> {
        match key {
            "X-ConditionMachineID" => Some(Self::MachineId),
            "X-ConditionMachineOf" => Some(Self::MachineOf),
            "X-ConditionMachineMetadata" => Some(Self::MachineMetadata),
            "X-Conflicts" => Some(Self::Conflicts),
            _ => Self::ALL.into_iter().find(|o| o.name() == key),
        }
    }
}

/// Returns the options' names, for messages.
pub fn names() -> String {
    Opt::ALL.map(Opt::name).join(", ")
}

/// One value of an option, with its specifiers.
#[derive(Debug)]
pub struct Entry {
    option: Opt,
    text: String,
    /// At which byte of the file it begins.
    at: usize,
    /// It has a specifier other than `%%`.
    pub depends_on_name: bool,
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
        let Some(option) = Opt::of(&stored.key) else {
            let suggestion = nearest(&stored.key, Opt::ALL.map(Opt::name)).map(str::to_owned);
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
        for (text, at) in values(option, stored, found) {
            match specifier::depends_on_name(&text) {
                Ok(_) if entries.len() >= MAX_VALUES => {
                    found.at(at, ProblemKind::TooManyValues);
                    return entries;
                }
                Ok(depends_on_name) => entries.push(Entry { option, text, at, depends_on_name }),
                Err(percent) => {
                    let sign: String = text[percent..].chars().take(2).collect();
                    let why = format!("`{sign}` is not %n, %N, %p or %i; a percent sign is written %%");
                    found.at(at, bad(option, &text, why));
                }
            }
        }
    }
    entries
}

/// Takes one assignment apart into values with their places.
fn values(option: Opt, stored: &Stored, found: &mut Found) -> Vec<(String, usize)> {
    let value = &*stored.value;
    let several = match option {
        Opt::MachineOf | Opt::Conflicts | Opt::Replaces => true,
        // As fleet did: only quotes make several of one line, since a value may have blanks. Single
        // quotes are systemd's too, where a word begins with one: within a word they are apostrophes.
        Opt::MachineMetadata => {
            let mut words = value.split(is_blank);
            value.contains('"') || words.any(|word| word.starts_with('\''))
        }
        Opt::MachineId | Opt::Global | Opt::OnPartition => false,
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

fn bad(option: Opt, value: &str, why: String) -> ProblemKind {
    // A value may be as long as the file.
    let value = value.chars().take(80).collect();
    ProblemKind::BadValue { option: option.name(), value, why }
}

/// Says that a unit cannot be placed by where it is itself.
pub fn own_machine(unit: &UnitName) -> ProblemKind {
    bad(Opt::MachineOf, unit.as_str(), "that is the unit itself; expected another unit".into())
}

/// Turns entries into typed values for a unit. Without a unit, what depends on its name is left out.
pub fn expand(entries: &[Entry], unit: Option<&UnitName>, found: &mut Found) -> UnitRequirements {
    let mut out = UnitRequirements::default();
    let (mut peers, mut values) = (Vec::new(), BTreeMap::new());
    for entry in entries {
        let literally = |insert: &str| match entry.option {
            Opt::Conflicts | Opt::Replaces => Glob::escape(insert),
            _ => insert.to_owned(),
        };
        let text = match unit {
            Some(unit) => specifier::expand(&entry.text, unit, literally),
            None if entry.depends_on_name => continue,
            None => entry.text.replace("%%", "%"),
        };
        if let Err(kind) = take(entry, &text, unit, &mut out, &mut peers, &mut values) {
            found.at(entry.at, kind);
        }
    }
    contradictions(entries, &out, &peers, found);
    out.machine_of = peers.iter().map(|(_, peer)| Glob::from(peer)).collect();
    out.metadata = values.into_iter().map(|(key, values)| Selector { key, is: Is::OneOf(values) }).collect();
    out
}

/// Adds one expanded value.
fn take(
    entry: &Entry,
    text: &str,
    unit: Option<&UnitName>,
    out: &mut UnitRequirements,
    peers: &mut Vec<(usize, UnitName)>,
    values: &mut BTreeMap<String, BTreeSet<String>>,
) -> Result<(), ProblemKind> {
    let option = entry.option;
    let refuse = |why: String| bad(option, text, why);
    let glob = || text.parse::<Glob>().map_err(|error| ProblemKind::BadGlob { option: option.name(), error });
    match option {
        Opt::MachineId => {
            let id: MachineId = text.parse().map_err(|_| {
                refuse(
                    "expected the 32 lower-case hexadecimal digits of /etc/machine-id, not all zero; \
                     `flotctl list-machines --full` shows them"
                        .into(),
                )
            })?;
            if out.machine.replace(id.into()).is_some_and(|other| other != id.into()) {
                return Err(refuse("another machine is named above, and no machine is both".into()));
            }
        }
        Opt::MachineOf => {
            let peer: UnitName =
                text.parse().map_err(|error| ProblemKind::BadName { option: option.name(), error })?;
            if peer.is_template() {
                return Err(refuse("a template runs nowhere; expected one of its instances".into()));
            }
            if unit == Some(&peer) {
                return Err(own_machine(&peer));
            }
            peers.push((entry.at, peer));
        }
        Opt::MachineMetadata => {
            let (key, value) = metadata(text).map_err(refuse)?;
            values.entry(key).or_default().insert(value);
        }
        Opt::Conflicts => drop(out.conflicts.insert(glob()?)),
        Opt::Replaces => drop(out.replaces.insert(glob()?)),
        Opt::Global => {
            out.global = boolean(text)
                .ok_or_else(|| refuse("expected one of 1 yes y true t on, 0 no n false f off".into()))?;
        }
        Opt::OnPartition => out.on_partition = on_partition(text)?,
    }
    Ok(())
}

/// Reads `key=value`. fleet let a line with two `=` pass and then asked for nothing at all, which ran
/// units on machines that they were kept from.
fn metadata(text: &str) -> Result<(String, String), String> {
    let words: Vec<&str> = text.split(is_blank).filter(|w| !w.is_empty()).collect();
    if words.len() > 1 && words.iter().filter(|w| w.contains('=')).count() > 1 {
        let quoted: Vec<String> = words.iter().map(|w| format!("\"{w}\"")).collect();
        return Err(format!("several on one line are quoted one by one: {}", quoted.join(" ")));
    }
    match text.split_once('=').map(|(k, v)| (k.trim_matches(is_blank), v.trim_matches(is_blank))) {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.into(), value.into())),
        _ => Err("expected key=value, for example disk=ssd".into()),
    }
}

/// systemd's `parse_boolean`.
fn boolean(text: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|w| w.eq_ignore_ascii_case(text));
    if is(&["1", "yes", "y", "true", "t", "on"]) {
        Some(true)
    } else if is(&["0", "no", "n", "false", "f", "off"]) {
        Some(false)
    } else {
        None
    }
}

fn on_partition(text: &str) -> Result<OnPartition, ProblemKind> {
    let option = Opt::OnPartition;
    match text {
        "replace" => Ok(OnPartition::Replace),
        "stop" | "wait" => Err(ProblemKind::NotAvailable {
            option: option.name(),
            value: text.to_owned(),
            expected: "`replace`",
        }),
        _ => Err(bad(option, text, "expected `replace`".into())),
    }
}

/// Finds options that do not go together: those that fleet refused, except MachineID with Conflicts,
/// which it refused without need.
fn contradictions(entries: &[Entry], out: &UnitRequirements, peers: &[(usize, UnitName)], found: &mut Found) {
    let has = |option| match option {
        Opt::MachineId => out.machine.is_some(),
        Opt::MachineOf => !peers.is_empty(),
        Opt::Conflicts => !out.conflicts.is_empty(),
        Opt::Replaces => !out.replaces.is_empty(),
        Opt::Global => out.global,
        Opt::MachineMetadata | Opt::OnPartition => false,
    };
    let pairs = [
        (Opt::MachineId, Opt::MachineOf, "the machine is either named or found by its units"),
        (Opt::MachineId, Opt::Global, "a global unit runs on every machine"),
        (Opt::MachineId, Opt::Replaces, "it could never move to where the units that it replaces are"),
        (Opt::Global, Opt::MachineOf, "a global unit runs on every machine, not where another unit is"),
        (Opt::Global, Opt::Replaces, "replaced units would have no machine left to move to"),
        (Opt::Conflicts, Opt::Replaces, "one keeps away from other units, the other goes where they are"),
    ];
    for (a, b, why) in pairs.into_iter().filter(|(a, b, _)| has(*a) && has(*b)) {
        let first = |option| entries.iter().find(|e| e.option == option).map_or(0, |e| e.at);
        let (first, second, at) = if first(a) < first(b) { (a, b, first(b)) } else { (b, a, first(a)) };
        let kind =
            ProblemKind::Contradiction { first: first.name(), second: second.name(), why: why.to_owned() };
        found.at(at, kind);
    }
    for (at, peer) in peers {
        let matching = |globs: &BTreeSet<Glob>| globs.iter().find(|g| g.matches(peer.as_str())).cloned();
        for (option, globs) in [(Opt::Conflicts, &out.conflicts), (Opt::Replaces, &out.replaces)] {
            if let Some(glob) = matching(globs) {
                let why = format!("`{peer}` has to be on the machine, and `{glob}` keeps it away");
                let (first, second) = (Opt::MachineOf.name(), option.name());
                found.at(*at, ProblemKind::Contradiction { first, second, why });
            }
        }
    }
}
