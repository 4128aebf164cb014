//! Where the log goes: to the journal with its fields when systemd started us, else to stderr.

mod journal;

use std::path::Path;

use anyhow::Context as _;
use journal::Journal;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Starts logging what the filter lets through.
///
/// # Errors
/// The filter cannot be understood.
pub(crate) fn start(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| {
        format!("`{filter}` is no log filter; write a level, or for example info,flotilla_agent=debug")
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    // Set by systemd when our stderr is the journal.
    if std::env::var_os("JOURNAL_STREAM").is_some()
        && Path::new(journal::SOCKET).exists()
        && let Ok(journal) = Journal::open(journal::SOCKET.into())
    {
        registry.with(journal).init();
    } else {
        registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr)).init();
    }
    Ok(())
}
