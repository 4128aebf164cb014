//! The command line: options that every command has, and the commands.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::{commands, fleetctl, ssh::SshOptions};

/// Runs systemd units on many machines as if they were one.
#[derive(Debug, Parser)]
#[command(name = "flotctl", version, propagate_version = false, disable_version_flag = true)]
// `list-m` is `list-machines`, as long as no other command begins so; also below `cluster` and others.
#[command(infer_subcommands = true)]
#[command(after_help = "Exit status: 0 done; 1 failed; 2 usage; 3 unit not active; 4 no such unit or \
machine; 5 cannot be placed; 6 cluster unreachable; 7 differs (diff --exit-code); 124 timed out.")]
pub(crate) struct Cli {
    /// Print version
    #[arg(long, short = 'V', short_alias = 'v', action = ArgAction::Version)]
    version: Option<bool>,

    #[command(flatten)]
    pub(crate) global: Global,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The heading of the options that every command has.
pub(crate) const COMMON_OPTIONS: &str = "Options of every command";

/// Options that every command has.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = COMMON_OPTIONS)]
pub(crate) struct Global {
    /// Where to ask: unix:///PATH or https://HOST:PORT (can be repeated; tried in order)
    #[arg(
        long,
        global = true,
        env = "FLOTCTL_ENDPOINT",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "URL"
    )]
    pub(crate) endpoint: Vec<String>,

    /// The cluster's certificate authority, for https
    #[arg(
        long,
        alias = "ca-file",
        global = true,
        env = "FLOTCTL_CA",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) ca: Option<PathBuf>,

    /// Your certificate, for https
    #[arg(
        long,
        alias = "cert-file",
        global = true,
        env = "FLOTCTL_CERTIFICATE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) certificate: Option<PathBuf>,

    /// Your certificate's private key, for https
    #[arg(
        long,
        alias = "key-file",
        global = true,
        env = "FLOTCTL_KEY",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) key: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) ssh: SshOptions,

    /// How long one request may take; what waits or follows has its own time [default: 15s]
    #[arg(
        long,
        global = true,
        env = "FLOTCTL_REQUEST_TIMEOUT",
        hide_env_values = true,
        value_name = "SPAN",
        value_parser = bounded_span
    )]
    pub(crate) request_timeout: Option<Duration>,

    /// Configuration file [default: ~/.config/flotilla/flotctl.toml, then /etc/flotilla/flotctl.toml]
    #[arg(long, global = true, env = "FLOTCTL_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// How to print
    #[arg(long, short, global = true, value_enum, default_value_t)]
    pub(crate) output: Output,

    /// Tell beside the output where it is asked, and as whom
    // Whatever stands in the variable but no, off, false, 0 and nothing means yes, as people set it.
    #[arg(
        long,
        global = true,
        env = "FLOTCTL_DEBUG",
        hide_env_values = true,
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub(crate) debug: bool,

    #[command(flatten)]
    pub(crate) fleetctl: fleetctl::Options,
}

/// How to print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Table,
    /// For people with wide screens
    Wide,
    /// For programs
    Json,
    /// A journal as journalctl's short form
    #[value(hide = true)]
    Short,
    /// The same, with the time as ISO 8601 has it
    #[value(hide = true)]
    ShortIso,
    /// The same, with microseconds
    #[value(hide = true)]
    ShortPrecise,
    /// The same, with seconds since 1970
    #[value(hide = true)]
    ShortUnix,
    /// The lines of a journal and nothing else
    #[value(hide = true)]
    Cat,
}

impl Output {
    /// Tells whether only a journal can be printed so.
    pub(crate) const fn is_of_journals(self) -> bool {
        matches!(self, Self::Short | Self::ShortIso | Self::ShortPrecise | Self::ShortUnix | Self::Cat)
    }
}

/// Options of the commands that change something and wait until it is true.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WaitOptions {
    /// Do not wait until it is true
    #[arg(long)]
    pub(crate) no_block: bool,

    /// How long to wait in all, for example 90s or 5min
    #[arg(long, value_name = "SPAN", default_value = "90s", value_parser = bounded_span)]
    timeout: Duration,

    /// fleetctl's way to say how long: this many times two seconds, and 0 for ever
    #[arg(long, hide = true, value_name = "N", allow_negative_numbers = true, conflicts_with = "timeout")]
    block_attempts: Option<i64>,
}

/// How long one of fleetctl's attempts took: it looked every 250 ms for so long.
const ATTEMPT: Duration = Duration::from_secs(2);

impl WaitOptions {
    /// Returns how long to wait.
    pub(crate) fn timeout(&self) -> Duration {
        match self.block_attempts.map(u32::try_from) {
            None => self.timeout,
            // Zero and less were for ever; more than there are numbers for is as good as that.
            Some(Err(_) | Ok(0)) => SPAN_MAX,
            Some(Ok(attempts)) => (ATTEMPT * attempts).min(SPAN_MAX),
        }
    }
}

/// The longest time to wait for anything, ten years: for ever, and no clock overflows.
const SPAN_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Returns the command line, which also reads those variables of fleetctl's whose own are not set.
pub(crate) fn command() -> clap::Command {
    fleetctl::with_old_variables(Cli::command(), |name| std::env::var_os(name))
}

/// Reads how long to wait.
pub(crate) fn bounded_span(text: &str) -> Result<Duration, String> {
    span(text).map(|span| span.min(SPAN_MAX))
}

/// Reads a span as systemd.time(7) writes it, as far as people type it: `90s`, `5 min`, `1h 30min`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let refuse = || format!("`{text}` is not a span, for example 90s");
    let mut seconds = 0.0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(refuse());
    }
    while !rest.is_empty() {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let (number, after) = (&rest[..rest.len() - number.len()], number.trim_start());
        rest = after.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &after[..after.len() - rest.len()] {
            "" if rest.is_empty() => 1.0,
            "s" | "sec" | "second" | "seconds" => 1.0,
            "ms" | "msec" => 0.001,
            "min" | "m" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hour" | "hours" => 3_600.0,
            "d" | "day" | "days" => 86_400.0,
            "w" | "week" | "weeks" => 604_800.0,
            other if number.is_empty() || other.is_empty() => return Err(refuse()),
            other => return Err(format!("`{other}` is not a unit of time; use ms, s, min, h, d or w")),
        };
        seconds += number.parse::<f64>().map_err(|_| refuse())? * unit;
        rest = rest.trim_start();
    }
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the machines of the cluster
    ListMachines(commands::list_machines::Args),
    /// List units and how they are, one line for each machine that has one
    ListUnits(commands::list_units::Args),
    /// List the unit files that the cluster has
    ListUnitFiles(commands::list_unit_files::Args),
    /// Give unit files to the cluster
    Submit(commands::submit::Args),
    /// Place units on machines without starting them
    Load(commands::change::Create),
    /// Start units, and wait until they run
    Start(commands::change::Create),
    /// Stop units, and leave them where they are
    Stop(commands::change::Args),
    /// Start units anew
    Restart(commands::change::Args),
    /// Stop units and take them off their machines
    Unload(commands::change::Args),
    /// Stop units and forget them
    Destroy(commands::change::Args),
    /// Take over services that run from a machine's own files, without a restart
    Adopt(commands::adopt::Args),
    /// Print unit files
    Cat(commands::cat::Args),
    /// Change a unit's file in an editor
    Edit(commands::edit::Args),
    /// Show how units are, from wherever they run
    Status(commands::status::Args),
    /// Show journals of units, merged from all machines
    Journal(commands::journal::Args),
    /// Say why a unit is where it is, or nowhere
    Why(commands::why::Args),
    /// Show what happened in the cluster
    Events(commands::events::Args),
    /// Set metadata of machines, keep units away from them, or take them off
    Machine(commands::machine::Args),
    /// Show the life of a unit: who ordered what, where it was placed and why, how it failed and moved
    History(commands::history::Args),
    /// Say what would be placed where, and change nothing
    Plan(commands::plan::Args),
    /// Say how a folder of unit files and the cluster differ
    Diff(commands::apply::DiffArgs),
    /// Make the cluster have what a folder of unit files says
    Apply(commands::apply::Args),
    /// Even machines out by moving units, within a budget
    Rebalance(commands::rebalance::Args),
    /// Run a command in a unit, as one of its processes
    Exec(commands::exec::ExecArgs),
    /// Open a shell on a machine
    Shell(commands::exec::ShellArgs),
    /// Show what units take of their machines
    Top(commands::top::Args),
    /// Make a cluster, or show how it is
    Cluster(commands::cluster::Args),
    /// Make certificate authorities and issue certificates
    Ca(commands::ca::Args),
    /// Log in, or run a command, on a machine or where a unit is, with the system's ssh
    Ssh(commands::ssh::Args),
    /// Join standard input and output to a unix socket of this machine
    FdForward(commands::fd_forward::Args),
    /// What became of fleetctl's check of signatures
    #[command(hide = true)]
    Verify(fleetctl::Anything),
    /// Print the versions of flotctl and of the cluster
    Version,
    /// Print a completion script for a shell
    Completion(commands::completion::Args),
    /// Write the manual pages
    Man(commands::man::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The whole help text, so that every change of it is seen in review. What all commands have is in
    /// it once.
    #[test]
    fn the_help_text_is_the_reviewed_one() {
        let mut command = Cli::command().term_width(100);
        command.build();
        let (mut text, mut of_all) = (String::new(), None);
        let mut rest = vec![command];
        while let Some(mut command) = rest.pop() {
            let name = command.get_bin_name().unwrap_or("flotctl").to_owned();
            let help = command.render_long_help().to_string();
            let section = section(&help, &format!("{COMMON_OPTIONS}:"));
            let shown = match &of_all {
                None => help.clone(),
                Some(of_all) => {
                    assert_eq!(section, of_all, "{name} has other options of every command");
                    help.replace(section, "(options of every command)\n")
                }
            };
            of_all.get_or_insert_with(|| section.to_owned());
            text.push_str(&format!("$ {name} --help\n{shown}\n"));
            let mut below: Vec<_> =
                command.get_subcommands().filter(|c| c.get_name() != "help").cloned().collect();
            below.reverse();
            rest.extend(below);
        }
        insta::assert_snapshot!(text);
    }

    /// Cuts a section out of a help text, from its heading to the next one's or the end.
    fn section<'a>(help: &'a str, heading: &str) -> &'a str {
        let begin = help.find(heading).unwrap_or_else(|| panic!("no {heading:?} in {help}"));
        let from = &help[begin..];
        let mut ends = from.match_indices("\n\n").map(|(at, _)| at + 1);
        let end = ends.find(|at| from[at + 1..].starts_with(|c: char| !c.is_whitespace()));
        &from[..end.unwrap_or(from.len())]
    }

    #[test]
    fn waits_are_bounded() {
        assert_eq!(bounded_span("5min"), Ok(Duration::from_secs(300)));
        assert_eq!(bounded_span("18000000000000000000"), Ok(SPAN_MAX));
    }

    #[test]
    fn spans_are_read() {
        assert_eq!(span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(span("1.5min"), Ok(Duration::from_secs(90)));
        assert_eq!(span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(span("1 hour"), Ok(Duration::from_secs(3_600)));
        assert_eq!(span("1h 30min"), Ok(Duration::from_secs(5_400)));
        assert!(span("").is_err() && span("h").is_err() && span("1 2").is_err());
        assert!(span("soon").is_err() && span("3 fortnights").is_err() && span("-1s").is_err());
    }
}
