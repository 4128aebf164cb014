//! The API: always on the unix socket, on TCP where the configuration says so.

use std::{fs, sync::Arc};

use anyhow::{Context as _, bail};
use flotilla_agent::{Known, Outlook, Registration, journal::Journalctl};
use flotilla_engine::{HoldRelease, StateReader};
use flotilla_registry::{operations::Operations, reads::Registry, timing::Timing, witness::SharedWitness};
use flotilla_server::{Health, Metrics, Node, Peers, Sessions, TlsFiles};
use tokio::sync::watch;
use tracing::{info, warn};

use super::Shared;
use crate::{config::TlsConfig, tasks::Tasks};

/// Who may open the socket besides root, as the distribution's package makes it.
const GROUP: &str = "flotilla";

/// What the engine's role leaves to the API.
pub(crate) struct SeatHere {
    /// Its state, while it has a seat.
    pub(crate) readers: watch::Receiver<Option<StateReader>>,
    /// Ends a hold, where there is an engine.
    pub(crate) hold: Option<HoldRelease>,
    /// What this daemon has seen of the store.
    pub(crate) witness: SharedWitness,
}

/// Starts to serve.
///
/// # Errors
/// A certificate cannot be used, or is another machine's; an address cannot be listened on.
pub(crate) async fn start(
    shared: &Shared,
    agent: Option<Outlook>,
    seat: SeatHere,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    let config = &shared.config;
    let files = config.api.tls.as_ref().map(files);
    if let Some(files) = &files {
        let issued_for = files.machine()?;
        if issued_for != config.machine {
            bail!(
                "{} was issued for machine {issued_for}, and this is {}; issue one for it, or write \
                 `machine-id = \"{issued_for}\"` to the configuration",
                files.certificate.display(),
                config.machine
            );
        }
    }
    // Until the agent has said a word it is not registered.
    let not_ready: Vec<String> =
        agent.iter().map(|_| "not registered: it has just started".to_owned()).collect();
    let (health, metrics) = (watch::Sender::new(Health { not_ready }), Metrics::default());
    if let Some(systemd) = shared.systemd.clone() {
        metrics.counter("systemd_reloads", "Reloads of systemd asked for; each stalls it", move || {
            systemd.reloads()
        });
    }
    let known = agent.as_ref().map_or_else(Known::default, |outlook| outlook.known.clone());
    let registry = Registry::new(Arc::clone(&shared.store), config.keys.clone());
    let node = Arc::new(Node {
        machine: config.machine,
        host: shared.host(),
        version: env!("CARGO_PKG_VERSION"),
        operations: Operations::new(registry, Timing::default()),
        readers: seat.readers,
        hold: seat.hold,
        witness: seat.witness,
        journal: Arc::new(Journalctl::new(config.user.is_some(), known.clone())),
        known,
        status: shared.systemd.clone().map(|systemd| systemd as _),
        usage: shared.systemd.clone().map(|systemd| systemd as _),
        sessions: shared.systemd.clone().map(|systemd| Sessions::new(systemd)),
        adoption: shared.systemd.clone().map(|systemd| systemd as _),
        peers: files.as_ref().map_or_else(|| Ok(Peers::new(None)), Peers::with)?,
        metrics: metrics.clone(),
        health: health.subscribe(),
    });
    if let Some(outlook) = agent {
        tasks.spawn("the account of health", tell_health(outlook, health, metrics, shared.stop.clone()));
    }
    listen(shared, files.as_ref(), &node, tasks).await
}

async fn listen(
    shared: &Shared,
    files: Option<&TlsFiles>,
    node: &Arc<Node>,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    let api = &shared.config.api;
    let router = flotilla_server::router(Arc::clone(node));
    if let Some(folder) = api.socket.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let group = group_id(&groups, GROUP).filter(|_| shared.config.user.is_none());
    let serving =
        flotilla_server::serve_unix(&api.socket, group, router.clone(), shared.stop.clone()).await?;
    tasks.spawn("the API", async move { serving.await.context("the API's socket failed") });
    info!(socket = %api.socket.display(), "the API answers");
    for address in api.listen.iter().copied() {
        let (router, stop) = (router.clone(), shared.stop.clone());
        if api.insecure_loopback && address.ip().is_loopback() {
            warn!(
                %address,
                "insecure-loopback is on: every process of this machine is root through this address"
            );
            let serving = flotilla_server::serve_insecure_loopback(address, router, stop).await?;
            tasks
                .spawn("the API", async move { serving.await.context("the API's loopback listener failed") });
        } else if let Some(files) = files {
            let serving = flotilla_server::serve_tls(address, files, router, stop).await?;
            tasks.spawn("the API", async move { serving.await.context("the API's listener failed") });
            info!(%address, "the API answers with TLS");
        }
    }
    Ok(())
}

fn files(tls: &TlsConfig) -> TlsFiles {
    TlsFiles { ca: tls.ca.clone(), certificate: tls.certificate.clone(), key: tls.key.clone() }
}

/// Finds a group's number in the text of group(5).
fn group_id(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Keeps health and gauges in step with the agent, until the daemon stops.
async fn tell_health(
    mut outlook: Outlook,
    health: watch::Sender<Health>,
    metrics: Metrics,
    stop: tokio_util::sync::CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let mut not_ready = Vec::new();
        let registered = match &*outlook.registration.borrow_and_update() {
            Registration::Registered { .. } => true,
            Registration::Pending(why) | Registration::Occupied { why, .. } => {
                not_ready.push(format!("not registered: {why}"));
                false
            }
        };
        let frozen = outlook.frozen.borrow_and_update().clone();
        metrics.gauges.registered.set(i64::from(registered));
        metrics.gauges.frozen.set(i64::from(frozen.is_some()));
        not_ready.extend(frozen.map(|why| format!("frozen: {why}")));
        health.send_replace(Health { not_ready });
        let ended = tokio::select! {
            changed = outlook.registration.changed() => changed.is_err(),
            changed = outlook.frozen.changed() => changed.is_err(),
            () = stop.cancelled() => true,
        };
        if ended {
            // The agent's own task says why it ended; this one only waits for the order to stop.
            stop.cancelled().await;
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        let groups = "root:x:0:\nflotilla:x:995:ada\n";
        assert_eq!(group_id(groups, "flotilla"), Some(995));
        assert_eq!(group_id(groups, "docker"), None);
    }
}
