//! A hundred running units are destroyed by one command.
//!
//! How long it takes is printed here and judged by `cargo xtask bench destroy`: a test beside others on a
//! busy computer is no place for a figure.

use std::time::Instant;

use flotilla_integration_tests::{Cluster, LIMIT, SAYS_STOPPED, eventually};
use flotilla_lab::Machine;

use crate::{alone, start_instances};

#[test]
fn a_hundred_running_units_are_destroyed_and_each_is_stopped_once() {
    let _alone = alone();
    let cluster = Cluster::up("destroy", 3, 1).unwrap();
    let m1 = cluster.machine("m1").unwrap();
    let begun = Instant::now();
    start_instances(&cluster, m1, "gone", SAYS_STOPPED.to_owned(), 100);
    println!("measured: 100 instances started by one command in {} ms", begun.elapsed().as_millis());
    assert_eq!(cluster.wait_active(m1, "gone@*", 100).unwrap().len(), 100);
    assert_eq!(cluster.invocations().unwrap().len(), 100);

    let begun = Instant::now();
    cluster.ask(m1, &["destroy", "gone@*.service"]).unwrap();
    let took = begun.elapsed();
    println!("measured: 100 running units destroyed in {} ms", took.as_millis());
    let said = |machine: &Machine| machine.run(&["cat", "/run/stopped"]).unwrap().lines().count();
    let stopped: usize = cluster.machines().iter().map(said).sum();
    assert_eq!(stopped, 100, "every ExecStop= has run, once");
    for machine in cluster.machines() {
        let left = machine.run(&["ls", "/run/flotilla/units", "/run/flotilla/env"]).unwrap();
        assert!(!left.contains("gone@"), "a unit is gone only when its files are: {left}");
    }
    assert_eq!(cluster.invocations().unwrap().len(), 0);
    // The machine that is asked may hear of it later than the one that the order went to.
    eventually(LIMIT, "only the template to be left", || {
        let left = cluster.units(m1, "gone@*")?;
        Ok(left.iter().all(|unit| unit.name.is_template()).then_some(()))
    })
    .unwrap();
}
