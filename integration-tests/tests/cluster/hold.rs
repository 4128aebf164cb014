//! Three of five machines die at once: nothing more moves until an operator says so.

use std::time::{Duration, Instant};

use flotilla_integration_tests::{Cluster, LIMIT, eventually};
use flotilla_lab::Machine;

use crate::{GRACE, MACHINE_LEASE, SLEEPER, alone, problems, start_instances};

/// Three on each machine.
const UNITS: usize = 15;

/// How soon after the operator's word all has to run: a lease would have passed in that time, and the
/// five minutes of the hold would not.
const GOES_ON_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn a_mass_loss_is_held_until_an_operator_says_to_go_on() {
    let _alone = alone();
    let cluster = Cluster::up("hold", 5, 1).unwrap();
    let m1 = cluster.machine("m1").unwrap();
    start_instances(&cluster, m1, "still", SLEEPER.to_owned(), UNITS);
    // The leader stays: what another one knows of a hold is the engine's own tests' to show.
    let leader = cluster.leader().unwrap().unwrap();
    let (lost, left): (Vec<&Machine>, Vec<&Machine>) = {
        let mut others: Vec<&Machine> =
            cluster.machines().iter().filter(|machine| machine.id() != leader.id()).collect();
        let left = vec![leader, others.remove(0)];
        (others, left)
    };
    let before = cluster.invocations().unwrap();
    assert_eq!(before.len(), UNITS);
    let runs_on = |found: &flotilla_integration_tests::Invocations| {
        let left = |host: &str| left.iter().any(|machine| machine.name() == host);
        before.iter().filter(|((host, _), _)| left(host)).all(|(place, was)| found.get(place) == Some(was))
    };

    lost.iter().try_for_each(|machine| machine.kill()).unwrap();
    let held = || {
        let problems = problems(&cluster, leader)?;
        Ok(problems.into_iter().find(|problem| problem.contains("vanished within")))
    };
    let said = eventually(MACHINE_LEASE + GRACE + LIMIT, "the hold to be told", held).unwrap();
    assert!(said.starts_with("3 of 5 machines"), "{said}");
    // Longer than it takes to move all of them, and than a lease.
    leader.run(&["sleep", &(MACHINE_LEASE + GRACE).as_secs().to_string()]).unwrap();
    let now = cluster.invocations().unwrap();
    // Those of the first two whose leases ended have moved.
    assert!(now.len() < UNITS, "all of them moved: {now:?}");
    assert!(runs_on(&now), "{now:?}");
    assert_eq!(held().unwrap().as_ref(), Some(&said), "it holds on");

    // Any machine carries the word to the leader.
    let begun = Instant::now();
    cluster.ask(left[1], &["cluster", "release-hold"]).unwrap();
    let all = cluster.wait_active(left[1], "still@*", UNITS).unwrap();
    let took = begun.elapsed();
    println!("measured: {UNITS} units active {} ms after the hold was released", took.as_millis());
    assert!(took < GOES_ON_WITHIN, "{took:?}");
    let there = |hosts: &Vec<String>| left.iter().any(|machine| *hosts == [machine.name()]);
    assert!(all.values().all(there), "{all:?}");
    assert!(runs_on(&cluster.invocations().unwrap()));
    assert_eq!(held().unwrap(), None);
    let events = cluster.ask(leader, &["events"]).unwrap();
    assert!(events.contains("an operator said to go on"), "{events}");
}
