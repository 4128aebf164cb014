//! `flotillad handover`: gives the machine's lease up at shutdown, after its units have stopped.
//!
//! A service of its own (`flotilla-handover.service`), ordered before all units so that it stops
//! last; it needs nothing of the main daemon, which may have been stopped, or dead, for long. With
//! the lease gone the machine's units start elsewhere at once instead of after the lease.

use std::time::Duration;

use anyhow::Context as _;
use flotilla_agent::hand_back;
use tracing::info;

use crate::{config::Config, stores};

/// How long the shutdown is held up at most: the store may be on a machine that went down first.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Gives the lease up.
///
/// # Errors
/// The store cannot be asked in time; the lease runs out by itself.
pub(crate) async fn run(config: &Config) -> anyhow::Result<()> {
    let store = stores::open(&config.store).await?;
    let given = tokio::time::timeout(TIMEOUT, hand_back(&*store, &config.keys, config.machine, &config.run))
        .await
        .with_context(|| format!("the store did not answer within {} s", TIMEOUT.as_secs()))?
        .context("the machine's lease runs out by itself")?;
    if given {
        info!("the machine's lease was given up");
    } else {
        info!("the machine is not registered; there is nothing to give up");
    }
    Ok(())
}
