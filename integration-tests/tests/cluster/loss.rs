//! A machine dies: its units run elsewhere, and nothing else notices.

use std::time::Instant;

use flotilla_integration_tests::{Cluster, Invocations, LIMIT, eventually};
use flotilla_lab::Machine;

use crate::{GRACE, MACHINE_LEASE, alone, placing, why};

/// Those of the thirty that may run on any machine.
fn may_move(unit: &str) -> bool {
    ["plain", "hello@", "either@"].iter().any(|kind| unit.starts_with(kind))
}

/// What runs on other machines than one.
fn elsewhere(invocations: &Invocations, machine: &Machine) -> Invocations {
    let others = invocations.iter().filter(|((host, _), _)| host != machine.name());
    others.map(|(place, invocation)| (place.clone(), invocation.clone())).collect()
}

/// Says whether everything of an earlier look runs on as it was; other units may have come.
fn runs_on(before: &Invocations, now: &Invocations) -> Result<(), String> {
    let changed: Vec<_> = before.iter().filter(|(place, was)| now.get(*place) != Some(*was)).collect();
    if changed.is_empty() { Ok(()) } else { Err(format!("{changed:?} changed")) }
}

#[test]
fn units_of_every_kind_are_placed_and_survive_their_machines() {
    let _alone = alone();
    let cluster = Cluster::up("survive", 3, 1).unwrap();
    let [m1, ..] = cluster.machines() else { panic!("three machines") };
    placing::start_all(&cluster, m1);
    placing::replace_one(&cluster, m1);
    why::each_machine_has_its_reason(&cluster, m1);
    let leader = cluster.leader().unwrap().unwrap();
    let follower = cluster.machines().iter().find(|machine| machine.id() != leader.id()).unwrap();
    lose(&cluster, follower, "a machine");
    let leader = cluster.leader().unwrap().unwrap();
    lose(&cluster, leader, "the leader's machine");
}

/// Takes a machine's power away and gives it back.
fn lose(cluster: &Cluster, victim: &Machine, what: &str) {
    let asked = cluster.machines().iter().find(|machine| machine.id() != victim.id()).unwrap();
    let placed = cluster.wait_active(asked, "*", 30).unwrap();
    let on_victim = |unit: &str| placed[unit].iter().any(|host| host == victim.name());
    let moving: Vec<&String> = placed.keys().filter(|unit| may_move(unit) && on_victim(unit)).collect();
    assert!(!moving.is_empty(), "{} runs nothing that may move", victim.name());
    let before = elsewhere(&cluster.invocations().unwrap(), victim);

    let begun = Instant::now();
    victim.kill().unwrap();
    eventually(MACHINE_LEASE + GRACE + LIMIT, "its units to be active elsewhere", || {
        let active = [&"plain*", &"hello@*", &"either@*"].map(|pattern| cluster.active(asked, pattern));
        let active = active.into_iter().collect::<Result<Vec<_>, _>>()?;
        let left = |hosts: &Vec<String>| !hosts.iter().any(|host| host == victim.name());
        let moved = |unit: &&String| active.iter().any(|found| found.get(*unit).is_some_and(left));
        Ok(moving.iter().all(moved).then_some(()))
    })
    .unwrap();
    let took = begun.elapsed();
    println!("measured: {} units of {what} active elsewhere after {} ms", moving.len(), took.as_millis());
    assert!(took < MACHINE_LEASE + GRACE, "{took:?}");
    runs_on(&before, &cluster.invocations().unwrap()).unwrap();
    for unit in cluster.units(asked, "*").unwrap() {
        let bound = ["web@", "announce@", "db@"].iter().any(|kind| unit.name.as_str().starts_with(kind));
        if bound && on_victim(unit.name.as_str()) {
            // No other machine may have it: it waits for this one.
            let lost = unit.placements.iter().all(|placement| !placement.machine_alive);
            assert!(lost, "{} is where it may not be: {unit:?}", unit.name);
        }
    }

    let before = cluster.invocations().unwrap();
    victim.boot().unwrap();
    cluster.wait_for_machines(asked, 3).unwrap();
    // What had no other place is back, and what has moved stays where it is.
    eventually(LIMIT, "all thirty units to be active", || {
        Ok((cluster.active(asked, "*")?.values().flatten().count() == 33).then_some(()))
    })
    .unwrap();
    runs_on(&before, &cluster.invocations().unwrap()).unwrap();
}
