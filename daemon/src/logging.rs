//! Where the log goes: to the journal with its fields when systemd started us, else to stderr.

use anyhow::Context as _;
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
        && let Ok(journal) = tracing_journald::layer()
    {
        registry.with(journal.with_field_prefix(Some("FLOTILLA".to_owned()))).init();
    } else {
        registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr)).init();
    }
    Ok(())
}
