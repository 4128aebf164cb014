//! What a daemon does, one module per role.
//!
//! To add a role: a module here with a `start` that takes [`Shared`] and a [`JoinSet`] to run in, a
//! switch in [`Roles`](crate::config::Roles), and a call in [`start`].

use std::sync::Arc;

use flotilla_registry::store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

mod agent;

/// What every role works with.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    /// Cancelled for an orderly stop.
    pub(crate) stop: CancellationToken,
}

/// What the roles tell the daemon of themselves.
#[derive(Debug, Default)]
pub(crate) struct Running {
    /// The agent's, where this daemon is one.
    pub(crate) agent: Option<flotilla_agent::Outlook>,
}

/// Starts every role that is switched on. A role that ends with an error ends the daemon.
///
/// # Errors
/// A role cannot start.
pub(crate) async fn start(
    shared: &Shared,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Running> {
    let mut running = Running::default();
    if shared.config.roles.agent {
        running.agent = Some(agent::start(shared, tasks).await?);
    }
    Ok(running)
}
