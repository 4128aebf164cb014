//! What a daemon does, one module per role.
//!
//! To add a role: a module here with a `start` that takes [`Shared`] and the [`Tasks`] to run in, a
//! switch in [`Roles`](crate::config::Roles), and a call in [`start`].

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use flotilla_agent::{
    Facts, Identity, keep_registration,
    systemd::{DbusSystemd, Layout, SystemdError},
};
use flotilla_engine::{StateReader, state::Life};
use flotilla_registry::{
    store::Store,
    witness::{SharedWitness, Witness},
};
use flotilla_units::MachineId;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    config::{Config, StoreConfig},
    tasks::Tasks,
};

mod agent;
mod api;
mod engine;

/// How long a systemd that does not answer is waited for by a machine that is registered. Fifty seconds:
/// with the 25 s that the last attempt may take it is below the 90 s that a service has to start.
const SYSTEMD_WITHIN: Duration = Duration::from_secs(50);

/// How long until it is tried again. A second: that is how long systemd waits to start flotillad anew.
const SYSTEMD_AGAIN: Duration = Duration::from_secs(1);

/// What every role works with.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    /// This machine's systemd, where this daemon is its agent: an engine has nothing to ask it.
    pub(crate) systemd: Option<Arc<DbusSystemd>>,
    /// What the machine found out about itself.
    pub(crate) facts: Facts,
    /// Cancelled for an orderly stop.
    pub(crate) stop: CancellationToken,
}

/// What the roles tell the daemon of themselves.
#[derive(Debug, Default)]
pub(crate) struct Running {
    /// The agent's, where this daemon is one.
    pub(crate) agent: Option<flotilla_agent::Outlook>,
    /// Tells whether the engine goes on, where this daemon has one.
    pub(crate) engine: Option<Pulse>,
    /// What has to be there before orders are taken, where this machine is a cluster by itself: no
    /// other takes them meanwhile.
    pub(crate) alone: Option<Alone>,
}

/// Tells whether a loop goes on: one that does answers with a turn when it is asked. At rest nobody else
/// wakes it.
#[derive(Debug)]
pub(crate) struct Pulse {
    pub(crate) asked: Arc<Notify>,
    /// Grows with every turn.
    pub(crate) progress: watch::Receiver<u64>,
}

/// A machine that is a cluster by itself, and the engine on it.
#[derive(Debug)]
pub(crate) struct Alone {
    machine: MachineId,
    readers: watch::Receiver<Option<StateReader>>,
}

impl Alone {
    /// Waits until the engine has a seat and has seen its machine: orders are taken from then on.
    pub(crate) async fn takes_orders(&mut self) {
        loop {
            let reader = self.readers.borrow_and_update().clone();
            if let Some(reader) = reader
                && self.is_seen_by(&reader).await
            {
                return;
            }
            if self.readers.changed().await.is_err() {
                // The engine has ended, and the daemon is about to.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until a seat has seen the machine; `false` if the seat is lost before.
    async fn is_seen_by(&self, reader: &StateReader) -> bool {
        let mut rung = reader.changed();
        loop {
            if reader.machine(self.machine).is_some_and(|row| row.life == Life::Present) {
                return true;
            }
            if rung.changed().await.is_err() {
                return false;
            }
        }
    }
}

impl Shared {
    /// Opens what every role works with; `None` if it is stopped before there is a systemd.
    ///
    /// Where an agent of this boot is registered, that is kept alive from the first moment on, and a
    /// systemd that does not answer is waited for.
    ///
    /// # Errors
    /// There is no systemd to talk to, or the store's configuration can never work.
    pub(crate) async fn open(config: &Config, stop: CancellationToken) -> anyhow::Result<Option<Self>> {
        let store = crate::stores::open(&config.store).await?;
        let mut facts = Facts::read(Path::new("/"));
        let registered = config.roles.agent && Identity::read(&config.run).is_some();
        let kept = async {
            if !registered {
                stop.cancelled().await;
                return Ok(());
            }
            let host = config.name.clone().unwrap_or_else(|| facts.host.clone());
            keep_registration(&agent::settings(config, &facts, host), &store, &config.keys, stop.clone())
                .await
        };
        let opened = async {
            // An engine alone has nothing to ask it.
            Ok::<_, anyhow::Error>(match config.roles.agent {
                true => Some(Arc::new(open_systemd(config, registered).await?)),
                false => None,
            })
        };
        let systemd = tokio::select! {
            systemd = opened => systemd?,
            kept = kept => return kept.context("the agent ended").map(|()| None),
        };
        if let Some(systemd) = &systemd {
            match systemd.version().await {
                Ok(version) => drop(facts.facts.insert("systemd".to_owned(), version)),
                Err(error) => {
                    warn!(%error, "systemd does not say its version; this machine is published without it");
                }
            }
        }
        Ok(Some(Self { systemd, store, facts, config: config.clone(), stop }))
    }

    /// Returns the machine's name.
    pub(crate) fn host(&self) -> String {
        self.config.name.clone().unwrap_or_else(|| self.facts.host.clone())
    }
}

/// Opens this machine's systemd, and waits for it if `waits`.
async fn open_systemd(config: &Config, waits: bool) -> anyhow::Result<DbusSystemd> {
    let layout = match &config.user {
        None => Layout::system(),
        Some(user) => Layout::user(&user.runtime, &user.home),
    };
    let layout = Layout { run: config.run.clone(), adopted: config.state.join("adopted"), ..layout };
    let begun = Instant::now();
    loop {
        let error = match DbusSystemd::open(layout.clone(), config.machine).await {
            Ok(systemd) => return Ok(systemd),
            Err(error) => error,
        };
        let what = match error {
            SystemdError::File { .. } => "flotilla's directories cannot be used",
            _ if waits && begun.elapsed() < SYSTEMD_WITHIN => {
                warn!(%error, "this machine's systemd cannot be reached and is tried again; its registration is kept, and its units run on");
                sleep(SYSTEMD_AGAIN).await;
                continue;
            }
            _ => "this machine's systemd cannot be reached",
        };
        return Err(anyhow::Error::new(error).context(what));
    }
}

async fn look_after(systemd: Arc<DbusSystemd>, stop: CancellationToken) -> anyhow::Result<()> {
    match stop.run_until_cancelled(systemd.abandoned()).await {
        None => Ok(()),
        Some(()) => anyhow::bail!("the task that looks after the connections to systemd ended unexpectedly"),
    }
}

/// Starts every role that is switched on, and the API of whatever runs. A role that ends with an
/// error ends the daemon.
///
/// # Errors
/// A role cannot start.
pub(crate) async fn start(shared: &Shared, tasks: &mut Tasks) -> anyhow::Result<Running> {
    let mut running = Running::default();
    if let Some(systemd) = &shared.systemd {
        tasks.spawn("the connections to systemd", look_after(Arc::clone(systemd), shared.stop.clone()));
        running.agent = Some(agent::start(shared, Arc::clone(systemd), tasks));
    }
    let witness = running.agent.as_ref().map(|outlook| outlook.witness.clone());
    let witness = witness.unwrap_or_else(|| SharedWitness::new(Witness::default()));
    let (readers, hold) = if shared.config.roles.engine {
        let engine = engine::start(shared, witness.clone(), tasks);
        running.engine = Some(engine.pulse);
        let alone = shared.config.roles.agent && matches!(shared.config.store, StoreConfig::Embedded(_));
        running.alone =
            alone.then(|| Alone { machine: shared.config.machine, readers: engine.readers.clone() });
        (engine.readers, Some(engine.hold))
    } else {
        (watch::Sender::new(None).subscribe(), None)
    };
    let seat = api::SeatHere { readers, hold, witness };
    api::start(shared, running.agent.clone(), seat, tasks).await?;
    Ok(running)
}

#[cfg(test)]
mod tests;
