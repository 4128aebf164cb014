//! The agent's role: makes this machine agree with its manifest.

use std::{
    collections::BTreeSet,
    net::IpAddr,
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
pub(crate) fn settings(config: &Config, found: &Facts, host: String) -> Settings {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let addresses = addresses(config, found);
    let mut facts = found.facts.clone();
    facts.extend(addresses.first().map(|first| ("address".to_owned(), first.clone())));
    // The first of each kind too: a machine that is shown by its IPv4 address may have an IPv6 one.
    let first =
        |is: fn(&IpAddr) -> bool| addresses.iter().find(|it| it.parse::<IpAddr>().is_ok_and(|ip| is(&ip)));
    let kinds = [("address.ipv4", first(IpAddr::is_ipv4)), ("address.ipv6", first(IpAddr::is_ipv6))];
    facts.extend(kinds.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.clone()))));
    facts.insert("host".to_owned(), host.clone());
    facts.insert("flotilla".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    Settings {
        machine: config.machine,
        host,
        addresses,
        api: config.api.advertise.clone(),
        metadata: config.metadata.clone(),
        facts,
        capacity: config.resources.over(&found.capacity),
        boot_id: found.boot_id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        run: config.run.clone(),
        state: config.state.clone(),
        timing: Timing::default(),
        seed,
    }
}

/// Returns the machine's addresses, the one to show first first: what its configuration says, else
/// what it listens on, else the address that it uses towards the store; then all others that it has.
fn addresses(config: &Config, found: &Facts) -> Vec<String> {
    let listening = config.api.listen.iter().map(|address| address.ip());
    let listening = listening.filter(|ip| !ip.is_unspecified() && !ip.is_loopback());
    let mut all: Vec<IpAddr> = config.address.into_iter().chain(listening).collect();
    if all.is_empty()
        && let StoreConfig::Etcd(etcd) = &config.store
    {
        let peers = etcd.endpoints.iter().filter_map(|url| url.split_once("://"));
        let towards = peers.filter_map(|(_, rest)| address_towards(rest.trim_end_matches('/')));
        all.extend(towards.filter(|ip| !ip.is_loopback()).take(1));
    }
    all.extend(&found.addresses);
    let mut seen = BTreeSet::new();
    all.retain(|ip| seen.insert(ip.to_canonical()));
    all.into_iter().map(|ip| ip.to_canonical().to_string()).collect()
}
