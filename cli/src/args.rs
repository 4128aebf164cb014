//! The command line: options that every command has, and the commands.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};

use crate::commands;

/// Runs systemd units on many machines as if they were one.
#[derive(Debug, Parser)]
#[command(name = "flotctl", version, propagate_version = false)]
#[command(after_help = "Exit status: 0 done; 1 failed; 2 usage; 3 unit not active; 4 no such unit or \
machine; 5 cannot be placed; 6 cluster unreachable; 124 timed out.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command has.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Options of every command")]
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
    #[arg(long, global = true, env = "FLOTCTL_CA", hide_env_values = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// Your certificate, for https
    #[arg(long, global = true, env = "FLOTCTL_CERTIFICATE", hide_env_values = true, value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,

    /// Your certificate's private key, for https
    #[arg(long, global = true, env = "FLOTCTL_KEY", hide_env_values = true, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,

    /// Configuration file [default: ~/.config/flotilla/flotctl.toml, then /etc/flotilla/flotctl.toml]
    #[arg(long, global = true, env = "FLOTCTL_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// How to print
    #[arg(long, short, global = true, value_enum, default_value_t)]
    pub(crate) output: Output,
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
}

/// Options of the commands that change something and wait until it is true.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WaitOptions {
    /// Do not wait until it is true
    #[arg(long)]
    pub(crate) no_block: bool,

    /// How long to wait in all, for example 90s or 5min
    #[arg(long, value_name = "SPAN", default_value = "90s", value_parser = bounded_span)]
    pub(crate) timeout: Duration,
}

/// The longest time to wait for anything, ten years: for ever, and no clock overflows.
const SPAN_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

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
    Load(commands::change::Args),
    /// Start units, and wait until they run
    Start(commands::change::Args),
    /// Stop units, and leave them where they are
    Stop(commands::change::Args),
    /// Start units anew
    Restart(commands::change::Args),
    /// Stop units and take them off their machines
    Unload(commands::change::Args),
    /// Stop units and forget them
    Destroy(commands::change::Args),
    /// Print unit files
    Cat(commands::cat::Args),
    /// Show how units are, from wherever they run
    Status(commands::status::Args),
    /// Show journals of units, merged from all machines
    Journal(commands::journal::Args),
    /// Say why a unit is where it is, or nowhere
    Why(commands::why::Args),
    /// Show what happened in the cluster
    Events(commands::events::Args),
    /// Make a cluster, or show how it is
    Cluster(commands::cluster::Args),
    /// Make certificate authorities and issue certificates
    Ca(commands::ca::Args),
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

    /// The whole help text, so that every change of it is seen in review.
    #[test]
    fn the_help_text_is_the_reviewed_one() {
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut text = String::new();
        let mut rest = vec![command];
        while let Some(mut command) = rest.pop() {
            let name = command.get_bin_name().unwrap_or("flotctl").to_owned();
            text.push_str(&format!("$ {name} --help\n{}\n", command.render_long_help()));
            let mut below: Vec<_> =
                command.get_subcommands().filter(|c| c.get_name() != "help").cloned().collect();
            below.reverse();
            rest.extend(below);
        }
        insta::assert_snapshot!(text);
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
