//! Completion of names that the cluster knows: units, machines, and units on machines.
//!
//! A shell asks while somebody holds the tab key: the answer comes at once or is empty,
//! and never is an error.

use std::{
    ffi::{OsStr, OsString},
    time::Duration,
};

use clap::FromArgMatches as _;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _};
use flotilla_api::{client::Client, machine::Machine, page::ListQuery, unit::Unit};

use crate::{
    args::{self, Cli, Global},
    connection::connect,
    order,
};

/// How long the shell may wait for names. A prompt that hangs is worse than one without names.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The most names to offer.
const NAMES_MAX: usize = 200;

/// Completes units of the cluster that can be on a machine, and `UNIT@MACHINE`.
pub(crate) fn units() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| named(current, |unit| !unit.name.is_template()))
}

/// Completes units of the cluster, templates too.
pub(crate) fn unit_files() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| named(current, |_| true))
}

/// Completes units of the cluster, the beginnings of instances of its templates, then files.
pub(crate) fn units_and_files() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let mut candidates = named(current, |_| true);
        candidates.extend(PathCompleter::file().complete(current));
        candidates
    })
}

/// Completes files.
pub(crate) fn files() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| PathCompleter::file().complete(current))
}

/// Completes units and host names of machines.
pub(crate) fn units_and_machines() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let mut candidates = hosts(current);
        candidates.extend(named(current, |unit| !unit.name.is_template()));
        candidates
    })
}

/// Completes host names of machines.
pub(crate) fn machines() -> ArgValueCompleter {
    ArgValueCompleter::new(hosts)
}

fn hosts(current: &OsStr) -> Vec<CompletionCandidate> {
    let machines = ask(current, async |client, query| client.machines(query).await.ok());
    let candidate = |machine: Machine| {
        let state = format!("{}, {}", machine.id.short(), machine.state);
        machine.host.map(|host| CompletionCandidate::new(host).help(Some(state.into())))
    };
    machines.into_iter().flat_map(|page| page.items).filter_map(candidate).collect()
}

fn named(current: &OsStr, wanted: impl Fn(&Unit) -> bool) -> Vec<CompletionCandidate> {
    if let Some(rows) = on_machines(current) {
        return rows;
    }
    let page = ask(current, async |client, query| client.units(query).await.ok());
    let units = page.into_iter().flat_map(|page| page.items).filter(wanted);
    units
        .map(|unit| {
            // A shell shows it on the line; what others wrote must not command the terminal.
            let help = unit.description.as_deref().map(crate::text::one_line);
            let help = help.map(|text| text.into_owned().into());
            CompletionCandidate::new(unit.name.as_str()).help(help)
        })
        .collect()
}

/// Completes the machine of `UNIT@MACHINE`, once a whole unit stands before it.
fn on_machines(current: &OsStr) -> Option<Vec<CompletionCandidate>> {
    let (unit, begun) = current.to_str()?.rsplit_once('@')?;
    let name: flotilla_units::UnitName = unit.parse().ok()?;
    let page = ask_for(name.to_string(), async |client, query| client.units(query).await.ok())?;
    let unit = page.items.into_iter().find(|unit| unit.name == name)?;
    let hosts = unit.placements.iter().map(order::machine).filter(|host| host.starts_with(begun));
    Some(hosts.map(|host| CompletionCandidate::new(format!("{name}@{host}"))).collect())
}

/// Asks the cluster for what begins so; whatever goes wrong, there is nothing to offer and nobody to
/// tell.
fn ask<T>(current: &OsStr, page: impl AsyncFn(&Client, &ListQuery) -> Option<T>) -> Option<T> {
    ask_for(format!("{}*", flotilla_units::Glob::escape(current.to_str()?)), page)
}

fn ask_for<T>(pattern: String, page: impl AsyncFn(&Client, &ListQuery) -> Option<T>) -> Option<T> {
    let global = global(std::env::args_os())?;
    // ssh may ask for a password, and takes longer than anybody holds a key.
    if global.ssh.tunnel.is_some() {
        return None;
    }
    let query = ListQuery { pattern: Some(pattern), from: None, limit: Some(NAMES_MAX) };
    at_once(async { page(connect(&global).await.ok()?.client(), &query).await })
}

/// Returns what comes in time, and waits for nothing else: a name server that does not answer holds a thread
/// of the runtime for many seconds, which nobody waits to end.
fn at_once<T>(ask: impl Future<Output = Option<T>>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let answer = runtime.block_on(async { tokio::time::timeout(TIMEOUT, ask).await.ok().flatten() });
    runtime.shutdown_background();
    answer
}

/// Returns the options that say which cluster it is: those of the environment, and of the line that is
/// being completed those that are whole.
fn global(line: impl Iterator<Item = OsString>) -> Option<Global> {
    // fleetctl's names of the same are as good.
    const NAMES: [&str; 8] = [
        "--endpoint",
        "--config",
        "--ca",
        "--ca-file",
        "--certificate",
        "--cert-file",
        "--key",
        "--key-file",
    ];
    let mut words = vec![OsString::from("flotctl")];
    // Before `--` stands how the shell calls; the line itself begins with the program.
    let mut line = line.skip_while(|word| word != "--").skip(2).peekable();
    while let Some(word) = line.next() {
        let Some(text) = word.to_str() else { continue };
        let is_whole = |name: &&str| text.strip_prefix(*name).is_some_and(|rest| rest.starts_with('='));
        if NAMES.iter().any(is_whole) || text.starts_with("--tunnel") {
            words.push(word);
        } else if NAMES.contains(&text)
            && let Some(value) = line.next_if(|value| !value.is_empty())
        {
            words.extend([word, value]);
        }
    }
    words.push("list-units".into());
    let matches = args::command().try_get_matches_from(words).ok()?;
    Some(Cli::from_arg_matches(&matches).ok()?.global)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_which_cluster_it_is() {
        let endpoints = |line: &str| {
            let words = line.split(' ').map(OsString::from);
            global(words).map(|global| global.endpoint).unwrap_or_default()
        };
        assert_eq!(endpoints("flotctl -- flotctl --endpoint https://a:7400 start x"), ["https://a:7400"]);
        assert_eq!(endpoints("flotctl -- flotctl start --endpoint=/run/x x --nonsense"), ["/run/x"]);
        assert_eq!(endpoints("flotctl -- flotctl start --endpoint"), Vec::<String>::new(), "not whole yet");
        for (ca, certificate, key) in
            [("--ca", "--certificate", "--key"), ("--ca-file", "--cert-file", "--key-file")]
        {
            for between in ["=", " "] {
                let line = format!(
                    "flotctl -- flotctl {ca}{between}ca.pem {certificate}{between}c.pem {key}{between}k.pem start"
                );
                let read = global(line.split(' ').map(OsString::from)).expect("a line");
                let files = [read.ca, read.certificate, read.key].map(|path| path.unwrap_or_default());
                assert_eq!(files, ["ca.pem", "c.pem", "k.pem"].map(std::path::PathBuf::from), "{line}");
            }
        }
    }

    #[test]
    fn whatever_holds_a_thread_holds_no_prompt() {
        let begun = std::time::Instant::now();
        // As a resolver that does not answer; longer than the test takes.
        let (_sender, nothing) = std::sync::mpsc::channel::<()>();
        let held =
            async { tokio::task::spawn_blocking(move || nothing.recv_timeout(TIMEOUT * 20)).await.ok() };
        assert_eq!(at_once(held), None);
        assert!(begun.elapsed() < TIMEOUT * 10, "{:?}", begun.elapsed());
    }
}
