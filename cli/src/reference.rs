//! docs/commands.md, made of the command line itself: every command with its arguments and
//! options. The page is committed, and a test compares it with what is made now.

use std::{fmt::Write as _, fs, path::Path};

use clap::{Arg, ArgAction, Command, CommandFactory as _};

use crate::args::{COMMON_OPTIONS, Cli};

const INTRODUCTION: &str = "\
# The commands of flotctl

Every command with its arguments and options, made of the same text as `--help`; what they are for is told in [the \
guide](guide/flotctl.md), and what became of fleetctl's in [Coming from fleet](coming-from-fleet.md). Do not edit this page: \
`UPDATE_DOCS=1 cargo test -p flotctl --bin flotctl reference` writes it.

A command may be shortened as long as no other begins so. The exit status is 0 when all is done, 1 when something failed, 2 \
for a wrong command line, 3 when a unit is not active, 4 when there is no such unit or machine, 5 when a unit cannot be placed, \
6 when the cluster cannot be reached, 124 when it took too long; of several the worst counts.
";

/// Writes the whole page.
fn page() -> String {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut text = INTRODUCTION.to_owned();
    text.push_str("\n| command | what it does |\n| --- | --- |\n");
    let commands = all(&command);
    for command in &commands {
        let name = command.get_bin_name().unwrap_or_default();
        let anchor = name.replace(' ', "-");
        let _ = writeln!(text, "| [`{name}`](#{anchor}) | {} |", cell(&about(command)));
    }
    text.push_str("\n## Options of every command\n\n");
    arguments(&mut text, &command, |argument| argument.get_help_heading() == Some(COMMON_OPTIONS));
    for command in &commands {
        section(&mut text, command);
    }
    text
}

/// Returns the commands that do something, in the order of the help.
fn all(command: &Command) -> Vec<Command> {
    let mut found = Vec::new();
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        if !below.is_subcommand_required_set() {
            found.push(below.clone());
        }
        found.extend(all(below));
    }
    found
}

fn section(text: &mut String, command: &Command) {
    let name = command.get_bin_name().unwrap_or_default();
    let _ = writeln!(text, "\n## {name}\n\n{}.\n", about(command));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").replace("\n       ", "\n");
    let _ = writeln!(text, "```text\n{usage}\n```\n");
    let own = |argument: &Arg| {
        argument.get_help_heading() != Some(COMMON_OPTIONS) && argument.get_id().as_str() != "help"
    };
    arguments(text, command, own);
    if let Some(more) = command.get_after_help() {
        let _ = writeln!(text, "\n{}", plain(&more.to_string()));
    }
}

/// Writes a table of those arguments and options that are wanted.
fn arguments(text: &mut String, command: &Command, wanted: impl Fn(&Arg) -> bool) {
    let shown: Vec<&Arg> =
        command.get_arguments().filter(|argument| !argument.is_hide_set() && wanted(argument)).collect();
    if shown.is_empty() {
        text.push_str("It has no options of its own.\n");
        return;
    }
    text.push_str("| argument | meaning |\n| --- | --- |\n");
    for argument in shown {
        let help = argument.get_long_help().or_else(|| argument.get_help());
        let mut help = plain(&help.map(ToString::to_string).unwrap_or_default());
        let values: Vec<String> = argument
            .get_possible_values()
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        if argument.get_action().takes_values() && !values.is_empty() {
            let _ = write!(help, ": {}", values.join(", "));
        }
        let defaults: Vec<_> =
            argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if argument.get_action().takes_values() && !defaults.is_empty() {
            let _ = write!(help, " (default: `{}`)", defaults.join(","));
        }
        if let Some(variable) = argument.get_env() {
            let _ = write!(help, "; `{}`", variable.to_string_lossy());
        }
        let _ = writeln!(text, "| {} | {} |", spelling(argument), cell(&help));
    }
}

/// Says how an argument is written.
fn spelling(argument: &Arg) -> String {
    let name = argument.get_value_names().and_then(<[_]>::first).map(ToString::to_string).unwrap_or_default();
    let more = if matches!(argument.get_action(), ArgAction::Append) && argument.is_positional() {
        ".."
    } else {
        ""
    };
    if argument.is_positional() {
        return cell(&format!("`{name}{more}`"));
    }
    let value = match (argument.get_action().takes_values(), argument.is_require_equals_set()) {
        (false, _) => String::new(),
        (true, true) => format!("[={name}]"),
        (true, false) => format!(" {name}"),
    };
    let short = argument.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let long = argument.get_long().map(|long| format!("`--{long}{value}`")).unwrap_or_default();
    cell(&format!("{short}{long}"))
}

fn about(command: &Command) -> String {
    plain(&command.get_about().map(ToString::to_string).unwrap_or_default())
}

/// One line, without what Markdown would take for something.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('<', "\\<").replace('*', "\\*")
}

/// A cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[test]
fn the_committed_page_is_the_command_lines() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md");
    let made = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &made).expect("written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == made,
        "docs/commands.md is stale; run `UPDATE_DOCS=1 cargo test -p flotctl --bin flotctl reference` and commit it"
    );
}

#[test]
fn every_command_is_in_it() {
    let page = page();
    for command in ["start", "list-machines", "cluster init", "ca issue user", "ssh", "fd-forward"] {
        assert!(page.contains(&format!("\n## flotctl {command}\n")), "{command}");
    }
    assert!(!page.contains("flotctl verify") && !page.contains("--sign"), "what is hidden is not shown");
}
