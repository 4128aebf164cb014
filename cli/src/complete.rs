//! Completion of names that the cluster knows: units and machines.

use std::{ffi::OsStr, time::Duration};

use clap::Parser as _;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _};
use flotilla_api::{client::Client, page::ListQuery};

use crate::{args::Cli, connection::connect};

/// How long the shell may wait for names. A prompt that hangs is worse than one without names.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The most names to offer.
const NAMES_MAX: usize = 200;

/// Completes units of the cluster, then files.
pub(crate) fn units() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let mut candidates = names(current).unwrap_or_default();
        candidates.extend(PathCompleter::file().complete(current));
        candidates
    })
}

/// Completes host names of machines.
pub(crate) fn machines() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let hosts = ask(current, async |client, query| client.machines(query).await.ok());
        let hosts = hosts.into_iter().flat_map(|page| page.items).filter_map(|machine| machine.host);
        hosts.map(CompletionCandidate::new).collect()
    })
}

fn names(current: &OsStr) -> Option<Vec<CompletionCandidate>> {
    let page = ask(current, async |client, query| client.units(query).await.ok())?;
    Some(page.items.into_iter().map(|unit| CompletionCandidate::new(unit.name.as_str())).collect())
}

/// Asks the cluster for what begins so; whatever goes wrong, there is nothing to offer and nobody to
/// tell.
fn ask<T>(current: &OsStr, page: impl AsyncFn(&Client, &ListQuery) -> Option<T>) -> Option<T> {
    // The line being completed is not parsed here, so only the environment and the configuration
    // file say which cluster it is.
    let cli = Cli::try_parse_from(["flotctl", "list-units"]).ok()?;
    let pattern = format!("{}*", flotilla_units::Glob::escape(current.to_str()?));
    let query = ListQuery { pattern: Some(pattern), from: None, limit: Some(NAMES_MAX) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async {
        let ask = async { page(connect(&cli.global).await.ok()?.client(), &query).await };
        tokio::time::timeout(TIMEOUT, ask).await.ok().flatten()
    })
}
