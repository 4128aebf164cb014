//! Machines lost and found again, one and many.

use std::time::Duration;

use flotilla_registry::store::faults::Link;

use crate::{Cluster, id, unit};

#[tokio::test(start_paused = true)]
async fn a_killed_machines_units_run_elsewhere_within_its_lease_plus_two_seconds() {
    let mut cluster = Cluster::start(1, 3).await;
    cluster.running(&["a.service", "b.service", "c.service"]).await;
    let on = cluster.runs_on("a.service").unwrap();
    let others: Vec<_> = ["b.service", "c.service"].map(|name| (name, cluster.token(name))).into();
    cluster.machine(on).kill();
    let took = cluster
        .until("it runs elsewhere", |cluster| cluster.runs_on("a.service").is_some_and(|now| now != on))
        .await;
    assert!(took <= Duration::from_secs(12), "{took:?}");
    for (name, token) in others {
        assert_eq!(cluster.token(name), token, "{name} was not touched");
    }
    assert!(cluster.told("machine-lost"));
    assert_eq!(cluster.checker.departing(&unit("a.service")), [id(on)], "kept until it is proven gone");
    cluster.boot(on, &[]);
    cluster
        .until("it is proven gone", |cluster| cluster.checker.departing(&unit("a.service")).is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn after_a_partition_only_the_newest_runs() {
    let mut cluster = Cluster::start(1, 3).await;
    cluster.running(&["a.service"]).await;
    let on = cluster.runs_on("a.service").unwrap();
    cluster.link(on).set_link(Link::Cut);
    cluster
        .until("it runs elsewhere", |cluster| cluster.runs_on("a.service").is_some_and(|now| now != on))
        .await;
    assert!(cluster.machine(on).runs(&unit("a.service")), "cut off, it runs on");
    cluster.link(on).set_link(Link::Up);
    cluster.until("the old one stopped", |cluster| !cluster.machine(on).runs(&unit("a.service"))).await;
    cluster.until("it is dropped", |cluster| cluster.checker.departing(&unit("a.service")).is_empty()).await;
    assert!(cluster.runs_on("a.service").is_some_and(|now| now != on));
}

#[tokio::test(start_paused = true)]
async fn a_unit_with_nowhere_to_go_waits_for_its_machine_and_goes_on_there() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.launch("a.service", &format!("MachineID={}", id(1))).await;
    cluster.until("it runs", |cluster| cluster.runs_on("a.service") == Some(1)).await;
    let token = cluster.token("a.service");
    cluster.link(1).set_link(Link::Cut);
    cluster.pass(Duration::from_secs(40)).await;
    assert_eq!(cluster.checker.active(&unit("a.service")), [id(1)]);
    cluster.link(1).set_link(Link::Up);
    cluster.until("it is back", |cluster| cluster.runs_on("a.service") == Some(1)).await;
    assert_eq!(cluster.token("a.service"), token, "it was never touched");
}

#[tokio::test(start_paused = true)]
async fn a_destroyed_unit_of_a_lost_machine_is_released_and_still_stopped_later() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.launch("a.service", &format!("MachineID={}", id(1))).await;
    cluster.until("it runs", |cluster| cluster.runs_on("a.service") == Some(1)).await;
    cluster.link(1).set_link(Link::Cut);
    cluster.operations.destroy(&[unit("a.service")], "test").await.unwrap();
    cluster.pass(Duration::from_secs(5)).await;
    assert!(cluster.checker.state.units().contains_key(&unit("a.service")), "the lease may live still");
    cluster
        .until("its name is free", |cluster| !cluster.checker.state.units().contains_key(&unit("a.service")))
        .await;
    assert_eq!(cluster.checker.departing(&unit("a.service")), [id(1)], "the order stays");
    cluster.link(1).set_link(Link::Up);
    cluster.until("it is dropped", |cluster| cluster.checker.departing(&unit("a.service")).is_empty()).await;
    assert!(!cluster.machine(1).runs(&unit("a.service")));
}
