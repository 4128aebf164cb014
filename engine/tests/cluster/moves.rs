//! Two-phase moves, with the leader and the old machine failing in the middle.

use std::time::Duration;

use flotilla_registry::{
    records::{MachineSettings, VERSION},
    store::faults::Link,
};

use crate::{Cluster, id, unit};

fn drain() -> MachineSettings {
    MachineSettings { v: VERSION, draining: true, ..MachineSettings::default() }
}

#[tokio::test(start_paused = true)]
async fn a_move_waits_for_proof_however_long() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.running(&["a.service"]).await;
    let on = cluster.runs_on("a.service").unwrap();
    cluster.machine(on).stubborn.lock().unwrap().push(unit("a.service"));
    cluster.settings(on, &drain()).await;
    cluster.pass(Duration::from_secs(600)).await;
    assert_eq!(cluster.checker.departing(&unit("a.service")), [id(on)]);
    assert!(cluster.checker.active(&unit("a.service")).is_empty(), "it does not run twice");
}

#[tokio::test(start_paused = true)]
async fn a_leader_killed_in_the_middle_of_a_move_from_a_machine_cut_off() {
    let mut cluster = Cluster::start(3, 3).await;
    cluster.running(&["a.service"]).await;
    let on = cluster.runs_on("a.service").unwrap();
    let leader = cluster.leader().unwrap();
    // The old machine is cut off before the order reaches it, and the leader dies after giving it.
    cluster.link(on).set_link(Link::Cut);
    let cut = tokio::time::Instant::now();
    cluster.settings(on, &drain()).await;
    cluster.until("it departs", |cluster| cluster.checker.departing(&unit("a.service")) == [id(on)]).await;
    cluster.host(leader).faults.set_link(Link::Cut);
    let took =
        cluster.until("another leads", |cluster| cluster.leader().is_some_and(|now| now != leader)).await;
    assert!(took <= Duration::from_secs(6), "{took:?}");
    cluster
        .until("it runs elsewhere", |cluster| cluster.runs_on("a.service").is_some_and(|now| now != on))
        .await;
    // Its last renewal was at most 3.67 s before the cut, so its lease ended no earlier than this.
    assert!(cut.elapsed() >= Duration::from_secs(6), "{:?}", cut.elapsed());
    assert!(cluster.machine(on).runs(&unit("a.service")), "cut off, it runs on");
    cluster.host(leader).faults.set_link(Link::Up);
    cluster.link(on).set_link(Link::Up);
    cluster.until("only the newest runs", |cluster| !cluster.machine(on).runs(&unit("a.service"))).await;
    cluster.until("it is dropped", |cluster| cluster.checker.departing(&unit("a.service")).is_empty()).await;
    cluster.pass(Duration::from_secs(20)).await;
    assert_eq!((1..=3).filter(|n| cluster.machine(*n).runs(&unit("a.service"))).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn losing_the_lead_restarts_nothing() {
    let mut cluster = Cluster::start(3, 3).await;
    let names = ["a.service", "b.service", "c.service", "d.service"];
    cluster.running(&names).await;
    let tokens = names.map(|name| cluster.token(name));
    for _ in 0..2 {
        let leader = cluster.leader().unwrap();
        cluster.stop_engine(leader).await;
        let took = cluster.until("another leads", |cluster| cluster.leader().is_some()).await;
        assert!(took <= Duration::from_secs(1), "an orderly leader makes way at once: {took:?}");
    }
    cluster.pass(Duration::from_secs(20)).await;
    assert_eq!(names.map(|name| cluster.token(name)), tokens);
    cluster.running(&["new.service"]).await;
    assert!(cluster.token("new.service") > tokens.iter().copied().flatten().max());
}
