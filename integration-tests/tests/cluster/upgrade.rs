//! flotillad goes away and comes back, in every way, on every machine: its units do not notice.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use flotilla_integration_tests::{Cluster, LIMIT, another_build, eventually, is_upgraded, replaced};
use flotilla_lab::Machine;

use crate::{SLEEPER, UNITS, alone, start_instances, write_units};

/// What is done to flotillad on a machine; after each it is up again, or starting.
const WAYS: [(&str, &str); 4] = [
    ("stopped", "systemctl stop flotillad && systemctl start flotillad"),
    ("killed", "systemctl kill --signal=SIGKILL --kill-who=main flotillad"),
    ("restarted", "systemctl restart flotillad"),
    // The new program has been put into place before.
    ("upgraded", "systemctl restart flotillad"),
];

#[test]
fn flotillad_stopped_killed_restarted_and_upgraded_under_load_touches_no_unit() {
    let _alone = alone();
    let cluster = Cluster::up("upgrade", 3, 1).unwrap();
    let m1 = cluster.machine("m1").unwrap();
    start_instances(&cluster, m1, "still", SLEEPER.to_owned(), 30);
    for machine in cluster.machines() {
        write_units(machine, &[("load@.service", SLEEPER.to_owned())]);
    }
    cluster.ask(m1, &["submit", &format!("{UNITS}/load@.service")]).unwrap();
    let before = cluster.invocations().unwrap();
    assert_eq!(before.len(), 30);

    let folder = tempfile::tempdir().unwrap();
    let new = another_build("flotillad", folder.path()).unwrap();
    let (over, started) = (AtomicBool::new(false), AtomicUsize::new(0));
    let first_seen = thread::scope(|scope| {
        let load = scope.spawn(|| load(&cluster, &over, &started));
        for machine in cluster.machines() {
            for (what, line) in WAYS {
                if what == "upgraded" {
                    machine.install(&new).unwrap();
                }
                disturb(&cluster, machine, what, line);
                assert_eq!(is_upgraded(machine, &new).is_ok(), what == "upgraded", "after: {what}");
            }
        }
        // And once more when all are up again: the load has met every way on every machine.
        let so_far = started.load(Ordering::Relaxed);
        let more = eventually(LIMIT, "one more unit", || {
            Ok((started.load(Ordering::Relaxed) > so_far).then_some(()))
        });
        over.store(true, Ordering::Relaxed);
        more.unwrap();
        load.join().unwrap()
    });
    let after = cluster.invocations().unwrap();
    for (place, invocation) in before.iter().chain(&first_seen) {
        assert_eq!(after.get(place), Some(invocation), "{place:?} was started anew");
    }
    println!("measured: {} units were started meanwhile", first_seen.len());
    assert_eq!(after.len(), before.len() + first_seen.len(), "nothing runs twice");
}

/// Does something to flotillad on a machine and waits until the machine is back.
fn disturb(cluster: &Cluster, machine: &Machine, what: &str, line: &str) {
    let begun = Instant::now();
    let systemctl = |words: &[&str]| machine.run(&[&["systemctl"], words].concat());
    replaced(systemctl, || machine.shell(line).map(|_| ())).unwrap();
    cluster.wait_for_machines(machine, 3).unwrap();
    println!(
        "measured: flotillad {what} on {}: back after {} ms",
        machine.name(),
        begun.elapsed().as_millis()
    );
}

/// Starts one unit after the other, each by whichever machine answers, until it is over. Returns
/// the invocation that each had when it was first active, by machine and unit.
fn load(cluster: &Cluster, over: &AtomicBool, started: &AtomicUsize) -> BTreeMap<(String, String), String> {
    let mut seen = BTreeMap::new();
    let mut machines = cluster.machines().iter().cycle();
    for n in 1.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("load@{n}.service");
        eventually(LIMIT, format_args!("{name} to start"), || {
            let machine = machines.next().unwrap();
            let output = cluster.flotctl(machine, &["start", "--timeout=10s", &name])?;
            Ok(output.status.success().then_some(()))
        })
        .unwrap();
        let now = cluster.invocations().unwrap();
        seen.extend(now.into_iter().filter(|((_, unit), _)| *unit == name));
        started.fetch_add(1, Ordering::Relaxed);
    }
    seen
}
