//! That every command has a row and every option was tried, by what `--help` lists.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Row, world::World};

/// What clap adds to every command.
const OF_CLAP: [&str; 3] = ["help", "--help", "--version"];

/// The heading of the options that every command takes.
const GLOBAL: &str = "Options of every command:";

/// What a command's `--help` lists.
#[derive(Debug, Default)]
struct Help {
    commands: Vec<String>,
    /// The command does nothing by itself.
    needs_command: bool,
    /// Long and short name of each option.
    options: Vec<(String, Option<String>)>,
    global: Vec<(String, Option<String>)>,
}

/// Fails when a command has no row, a row has no command, or an option was not tried.
pub fn check(world: &World, rows: &[Row]) {
    let mut helps = BTreeMap::new();
    read_all(world, Vec::new(), &mut helps);
    let runnable: BTreeSet<String> =
        helps.iter().filter(|(_, help)| !help.needs_command).map(|(path, _)| path.join(" ")).collect();
    let shown: BTreeSet<String> = rows.iter().map(|(command, _)| (*command).to_owned()).collect();
    assert_eq!(runnable, shown, "the commands of `flotctl --help`, and those that have a row here");

    let mut tried: BTreeMap<Vec<String>, BTreeSet<String>> = BTreeMap::new();
    let mut anywhere = BTreeSet::new();
    for words in world.asked() {
        let depth = (0..=words.len()).rev().find(|depth| helps.contains_key(&words[..*depth])).unwrap_or(0);
        let options = words.iter().filter(|word| word.starts_with('-'));
        let options: Vec<String> =
            options.map(|word| word.split('=').next().unwrap_or(word).to_owned()).collect();
        anywhere.extend(options.clone());
        tried.entry(words[..depth].to_vec()).or_default().extend(options);
    }
    for (path, help) in helps.iter().filter(|(_, help)| !help.needs_command) {
        let tried = tried.get(path).unwrap_or_else(|| panic!("{path:?} was not run"));
        let missing: Vec<_> = help.options.iter().filter(|option| !has(tried, option)).collect();
        assert!(missing.is_empty(), "options of {path:?} that no row tries: {missing:?}");
    }
    let global = &helps[&Vec::new()].global;
    assert!(global.len() >= 6, "{global:?}");
    let missing: Vec<_> = global.iter().filter(|option| !has(&anywhere, option)).collect();
    assert!(missing.is_empty(), "options of every command that no row tries: {missing:?}");
}

fn has(tried: &BTreeSet<String>, (long, short): &(String, Option<String>)) -> bool {
    tried.contains(long) || short.as_ref().is_some_and(|short| tried.contains(short))
}

fn read_all(world: &World, path: Vec<String>, found: &mut BTreeMap<Vec<String>, Help>) {
    let mut words: Vec<&str> = vec!["flotctl"];
    words.extend(path.iter().map(String::as_str));
    words.push("--help");
    let help = read(&world.machine().run(&words).unwrap());
    for command in &help.commands {
        read_all(world, [&path[..], std::slice::from_ref(command)].concat(), found);
    }
    found.insert(path, help);
}

/// Reads headings at the margin, names two spaces in, and skips what explains them further in.
fn read(text: &str) -> Help {
    let mut help = Help::default();
    let mut heading = "";
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if let Some(usage) = line.strip_prefix("Usage: ") {
            help.needs_command = usage.ends_with("<COMMAND>");
        } else if !line.starts_with(' ') {
            heading = line;
        } else if heading == "Commands:" {
            let name = line.strip_prefix("  ").filter(|line| !line.starts_with(' '));
            let name = name.and_then(|line| line.split(' ').next()).filter(|name| !OF_CLAP.contains(name));
            help.commands.extend(name.map(str::to_owned));
        } else if heading.starts_with("Options") && line.len() - line.trim_start().len() <= 6 {
            // `--name[=<VALUE>]` is a name with a value that may be left out.
            let names = line.split([' ', ',', '[']).filter(|word| word.starts_with('-'));
            let (long, short): (Vec<&str>, Vec<&str>) = names.partition(|name| name.starts_with("--"));
            let Some(long) = long.first().filter(|long| !OF_CLAP.contains(long)) else { continue };
            let option = ((*long).to_owned(), short.first().map(|short| (*short).to_owned()));
            if heading == GLOBAL { help.global.push(option) } else { help.options.push(option) }
        }
    }
    help
}
