//! The agent's role: makes this machine agree with its manifest.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use flotilla_agent::{Agent, Facts, Outlook, Settings, address_towards, systemd::DbusSystemd};
use flotilla_registry::timing::Timing;

use super::Shared;
use crate::{
    config::{Config, StoreConfig},
    tasks::Tasks,
};

/// Starts the agent.
pub(crate) fn start(shared: &Shared, systemd: Arc<DbusSystemd>, tasks: &mut Tasks) -> Outlook {
    let store = Arc::clone(&shared.store);
    let settings = settings(&shared.config, &shared.facts, shared.host());
    let agent = Agent::new(settings, store, shared.config.keys.clone(), systemd);
    let (outlook, stop) = (agent.outlook(), shared.stop.clone());
    tasks.spawn("the agent", async move { agent.run(stop).await.context("the agent ended") });
    outlook
}

/// Returns what an agent is told.
pub(crate) fn settings(config: &Config, facts: &Facts, host: String) -> Settings {
    let facts = facts.clone();
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    Settings {
        machine: config.machine,
        host,
        addresses: addresses(config),
        api: config.api.advertise.clone(),
        metadata: config.metadata.clone(),
        facts: facts.facts,
        capacity: facts.capacity,
        boot_id: facts.boot_id,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        run: config.run.clone(),
        state: config.state.clone(),
        timing: Timing::default(),
        seed,
    }
}

/// Returns where others find this machine: what it listens on, else the address that it uses
/// towards the store.
fn addresses(config: &Config) -> Vec<String> {
    let listening = config.api.listen.iter().map(|address| address.ip()).filter(|ip| !ip.is_unspecified());
    let mut addresses: Vec<_> = listening.map(|ip| ip.to_string()).collect();
    if addresses.is_empty()
        && let StoreConfig::Etcd(etcd) = &config.store
    {
        let peers = etcd.endpoints.iter().filter_map(|url| url.split_once("://"));
        let towards = peers.filter_map(|(_, rest)| address_towards(rest.trim_end_matches('/')));
        addresses.extend(towards.filter(|ip| !ip.is_loopback()).take(1).map(|ip| ip.to_string()));
    }
    addresses
}
