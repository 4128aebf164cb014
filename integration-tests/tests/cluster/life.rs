//! A unit's life on real machines, as `flotctl history` and the engine's journal tell it.

use flotilla_api::{
    action::{BulkUnit, BulkWrite},
    client::Client,
    watch::Event,
};
use flotilla_integration_tests::{Cluster, LIMIT, eventually};
use flotilla_lab::Machine;
use serde::Deserialize;

use crate::{GRACE, MACHINE_LEASE, UNITS, alone, sleeper, write_units};

#[derive(Deserialize)]
struct History {
    events: Vec<Event>,
}

/// Returns what happened to a unit: kind, host and reason.
fn history(cluster: &Cluster, asked: &Machine, unit: &str) -> Vec<(String, String, String)> {
    let history: History = cluster.json(asked, &["history", unit]).unwrap();
    let told = |event: Event| (event.kind, event.host.unwrap_or_default(), event.why.unwrap_or_default());
    history.events.into_iter().map(told).collect()
}

/// Gives a unit another text, as any program may.
fn replace(machine: &Machine, unit: &str, text: String) {
    let bus = machine.bus_address().unwrap();
    let root = bus.trim_start_matches("unix:path=").trim_end_matches("/run/dbus/system_bus_socket");
    let endpoint = format!("unix://{root}/run/flotilla/api.sock").parse().unwrap();
    let unit = BulkUnit { name: unit.to_owned(), text: Some(text), replace: true, ..BulkUnit::default() };
    let write = BulkWrite { units: vec![unit], whole: true };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { Client::new(endpoint, None).unwrap().bulk(&write).await }).unwrap();
}

#[test]
fn a_units_life_is_told_as_it_happened() {
    let _alone = alone();
    let cluster = Cluster::up("life", 3, 1).unwrap();
    let [m1, ..] = cluster.machines() else { panic!("three machines") };
    let unit = "nap.service";
    write_units(m1, &[(unit, sleeper(""))]);
    cluster.ask(m1, &["start", &format!("{UNITS}/{unit}")]).unwrap();
    let placed = cluster.wait_active(m1, unit, 1).unwrap();
    let host = placed[unit][0].clone();
    let victim = cluster.machines().iter().find(|machine| machine.name() == host).unwrap();
    let asked = cluster.machines().iter().find(|machine| machine.name() != host).unwrap();

    // It dies, with all that ran on it.
    victim.kill().unwrap();
    let elsewhere = eventually(MACHINE_LEASE + GRACE + LIMIT, "it to run elsewhere", || {
        let now = cluster.active(asked, unit)?;
        Ok(now.get(unit).and_then(|hosts| hosts.iter().find(|now| **now != host).cloned()))
    })
    .unwrap();
    // Its main process is killed: systemd says that it failed, and start makes it run again.
    let home = cluster.machines().iter().find(|machine| machine.name() == elsewhere).unwrap();
    home.run(&["systemctl", "kill", "--signal=SIGKILL", unit]).unwrap();
    let has = |kind: &str| history(&cluster, asked, unit).iter().any(|(told, ..)| told == kind);
    let until = |kind: &str| eventually(LIMIT, kind, || Ok(has(kind).then_some(()))).unwrap();
    until("failed");
    cluster.ask(asked, &["start", unit]).unwrap();
    until("recovered");
    // A comment more would be taken in without a restart.
    replace(asked, unit, sleeper("").replace("[Service]\n", "[Service]\nEnvironment=TEXT=another\n"));
    until("updated");
    cluster.wait_active(asked, unit, 1).unwrap();
    cluster.ask(asked, &["destroy", unit]).unwrap();
    until("destroyed");

    let told = history(&cluster, asked, unit);
    let kinds: Vec<&str> = told.iter().map(|(kind, ..)| kind.as_str()).collect();
    let life = [
        "submitted",
        "target-changed",
        "placed",
        "machine-lost",
        "failed",
        "restart-ordered",
        "restarted",
        "recovered",
        "replaced",
        "updated",
        "destroy-ordered",
        "departing",
        "destroyed",
    ];
    // In this order, whatever else is told in between.
    let mut rest = kinds.iter();
    for kind in life {
        assert!(rest.any(|told| *told == kind), "no {kind} in its place in {told:?}");
    }
    let of = |kind: &str, host: &str| told.iter().find(|(told, on, _)| told == kind && on == host).cloned();
    let (.., why) = of("placed", &host).unwrap();
    assert_eq!(why, "started by root");
    let (.., why) = of("placed", &elsewhere).unwrap();
    assert_eq!(why, format!("{host} was lost"));
    let (.., why) = of("failed", &elsewhere).unwrap();
    assert!(why.contains("signal"), "{why}");
    let (.., why) = of("updated", &elsewhere).unwrap();
    assert!(why.starts_with("updated from ") && why.ends_with(" by root"), "{why}");
    let text = cluster.ask(asked, &["history", unit]).unwrap();
    assert!(text.contains(&format!("placed on {elsewhere}: {host} was lost (engine)")), "{text}");

    // Whoever led wrote it to its journal, with fields; whoever was asked, what was ordered.
    let leader = cluster.leader().unwrap().unwrap();
    let lines = |machine: &Machine, field: &str| {
        machine.run(&["journalctl", "--output=json", &format!("FLOTILLA_UNIT={unit}"), field]).unwrap()
    };
    let destroyed = lines(leader, "FLOTILLA_EVENT=destroyed");
    assert!(destroyed.contains("\"FLOTILLA_BY\":\"engine\""), "{destroyed}");
    assert!(destroyed.contains("\"FLOTILLA_WHY\":\"destroyed by root\""), "{destroyed}");
    let ordered = cluster.machines().iter().filter(|machine| machine.name() != host);
    let ordered: String = ordered.map(|machine| lines(machine, "FLOTILLA_EVENT=destroy-ordered")).collect();
    assert!(ordered.contains("FLOTILLA_REQUEST"), "by its request: {ordered}");

    // Nothing is written once all is told.
    let count = history(&cluster, asked, unit).len();
    asked.run(&["sleep", "3"]).unwrap();
    assert_eq!(history(&cluster, asked, unit).len(), count);
}
