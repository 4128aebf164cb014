//! What the README and the guide say of the command line holds: every command in them is taken,
//! every option that the guide of flotctl names is one, and every variable is in it.

mod tests_named;

use std::collections::BTreeSet;

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

use crate::args::Cli;

const PAGES: [(&str, &str); 11] = [
    ("README.md", include_str!("../../README.md")),
    ("docs/guide/flotctl.md", GUIDE),
    ("docs/getting-started.md", include_str!("../../docs/getting-started.md")),
    ("docs/apply.md", include_str!("../../docs/apply.md")),
    ("docs/operations.md", include_str!("../../docs/operations.md")),
    ("docs/coming-from-fleet.md", include_str!("../../docs/coming-from-fleet.md")),
    ("docs/unit-file.md", include_str!("../../docs/unit-file.md")),
    ("docs/guide/configuration.md", include_str!("../../docs/guide/configuration.md")),
    ("docs/guide/security.md", include_str!("../../docs/guide/security.md")),
    ("docs/guide/troubleshooting.md", include_str!("../../docs/guide/troubleshooting.md")),
    ("docs/roadmap.md", include_str!("../../docs/roadmap.md")),
];

const GUIDE: &str = include_str!("../../docs/guide/flotctl.md");

/// What a piece of a page in backquotes may lack, and a line that is to be typed may not.
const UNFINISHED: [ErrorKind; 3] = [
    ErrorKind::MissingRequiredArgument,
    ErrorKind::MissingSubcommand,
    ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
];

/// Splits a line into commands, and these into words, as a shell does, as far as these pages quote. A comment
/// ends the line, and what a command's output goes to ends the command.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![vec![String::new()]];
    let (mut quote, mut redirected) = (None, false);
    for c in line.chars() {
        let words = commands.last_mut().unwrap();
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '#') => break,
            (None, '|' | ';' | '&') => {
                commands.push(vec![String::new()]);
                redirected = false;
            }
            (None, '>') => redirected = true,
            (None, ' ') => words.push(String::new()),
            (_, c) if !redirected => words.last_mut().unwrap().push(c),
            _ => {}
        }
    }
    commands.iter_mut().for_each(|words| words.retain(|word| !word.is_empty()));
    commands.retain(|words| !words.is_empty());
    commands
}

/// Returns the first command of a line.
fn words(line: &str) -> Vec<String> {
    commands(line).swap_remove(0)
}

/// Returns what stands between backquotes on a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Tells what is wrong with a command, if it is refused.
fn refused(words: &[String], may_lack: &[ErrorKind]) -> Option<String> {
    match Cli::try_parse_from(words) {
        Ok(_) => None,
        Err(e) if [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion].contains(&e.kind()) => None,
        Err(e) if may_lack.contains(&e.kind()) => None,
        Err(e) => Some(e.to_string()),
    }
}

#[test]
fn every_command_of_a_line_is_looked_at() {
    let line = "flotctl diff 'a;b' >x || flotctl apply --prune shop/; cat y & flotctl status # flotctl none";
    let read: Vec<String> = commands(line).iter().map(|words| words.join(" ")).collect();
    assert_eq!(read, ["flotctl diff a;b", "flotctl apply --prune shop/", "cat y", "flotctl status"]);
}

#[test]
fn every_command_of_the_documents_is_taken() {
    let (mut typed, mut told) = (0, 0);
    for (page, text) in PAGES {
        let mut fenced = false;
        for (number, line) in text.lines().enumerate() {
            let place = format!("{page}:{}: {line}", number + 1);
            if line.starts_with("```") {
                fenced = !fenced;
            } else if let Some(command) = line.strip_prefix("$ ").filter(|_| fenced) {
                for words in commands(command).iter().filter(|words| words[0] == "flotctl") {
                    typed += 1;
                    assert_eq!(refused(words, &[]), None, "{place}");
                }
            } else if !fenced {
                for command in quoted(line).filter(|text| text.starts_with("flotctl ")) {
                    told += 1;
                    // A word that stands for any command.
                    let command = command.replace("COMMAND", "start");
                    assert_eq!(refused(&words(&command), &UNFINISHED), None, "{place}");
                }
            }
        }
    }
    assert!(typed > 10 && told > 20, "{typed} and {told}");
}

#[test]
fn every_command_of_the_guides_tables_is_one() {
    let mut count = 0;
    for line in GUIDE.lines().filter(|line| line.starts_with("| `")) {
        let cell = line[2..].split(" | ").next().unwrap();
        for text in quoted(cell) {
            // `[-f]` may be left out, and of `bash\|zsh` the first does.
            let text = text.split("\\|").next().unwrap().replace(['[', ']'], "");
            count += 1;
            let mut command = words(&format!("flotctl {text}"));
            // `UNIT..` stands for something.
            command.retain(|word| !word.starts_with(|c: char| c.is_ascii_uppercase()));
            assert_eq!(refused(&command, &UNFINISHED), None, "{line}");
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn every_option_of_the_guide_is_one() {
    let mut options = BTreeSet::from(["help".to_owned(), "version".to_owned()]);
    let mut variables = BTreeSet::new();
    let mut rest = vec![Cli::command()];
    while let Some(command) = rest.pop() {
        for argument in command.get_arguments() {
            options.extend(argument.get_long().map(str::to_owned));
            variables.extend(argument.get_env().map(|name| name.to_string_lossy().into_owned()));
        }
        rest.extend(command.get_subcommands().cloned());
    }
    let mut count = 0;
    for text in GUIDE.lines().flat_map(quoted) {
        let is_part = |c: char| c.is_ascii_lowercase() || c == '-';
        for word in text
            .split(|c| !is_part(c))
            .filter_map(|word| word.strip_prefix("--"))
            .filter(|word| !word.is_empty())
        {
            count += 1;
            assert!(options.contains(word), "--{word} in `{text}`");
        }
    }
    assert!(count > 10, "{count}");
    for variable in variables {
        assert!(GUIDE.contains(&variable), "{variable} is not in docs/guide/flotctl.md");
    }
}
