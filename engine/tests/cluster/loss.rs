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

async fn six_of_which_three_vanish(mut cluster: Cluster) -> Cluster {
    cluster.running(&["a.service", "b.service", "c.service", "d.service", "e.service", "f.service"]).await;
    for n in 1..=3 {
        cluster.link(n).set_link(Link::Cut);
    }
    cluster.until("it holds", |cluster| cluster.told("mass-loss-hold")).await;
    cluster
}

#[tokio::test(start_paused = true)]
async fn many_machines_lost_at_once_are_waited_for() {
    let mut cluster = six_of_which_three_vanish(Cluster::start(1, 6).await).await;
    // Those whose leases ended before the third's may have been replaced; nothing after it is.
    let moved = cluster.checker.lost_moves;
    assert!(moved <= 2, "{moved}");
    assert!(cluster.reader().cluster().engine.hold.is_some());
    cluster.running(&["new.service"]).await;
    cluster.pass(Duration::from_secs(280)).await;
    assert_eq!(cluster.checker.lost_moves, moved, "held");
    cluster.pass(Duration::from_secs(30)).await;
    assert!(cluster.told("mass-loss-over"));
    assert_eq!(cluster.checker.lost_moves, 3, "all three units went on at the end of the hold");
    assert_eq!(cluster.reader().cluster().engine.hold, None);
}

#[tokio::test(start_paused = true)]
async fn a_word_said_before_the_term_ends_no_hold_of_it() {
    let mut cluster = Cluster::start(2, 6).await;
    let leader = cluster.leader().unwrap();
    cluster.host(1 - leader).engine.hold_release().release();
    cluster.host(leader).stop.cancel();
    cluster.until("the other leads", |cluster| cluster.leader() == Some(1 - leader)).await;
    let mut cluster = six_of_which_three_vanish(cluster).await;
    cluster.pass(Duration::from_secs(60)).await;
    assert!(!cluster.told("mass-loss-over"));
}

#[tokio::test(start_paused = true)]
async fn leases_that_end_one_after_another_count_together() {
    let mut cluster = Cluster::start(1, 9).await;
    let names: Vec<String> = (0..18).map(|n| format!("u{n}.service")).collect();
    cluster.running(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let tokens = |cluster: &Cluster, on: &[usize]| -> Vec<_> {
        let there = names.iter().filter(|name| on.contains(&cluster.runs_on(name).unwrap()));
        there.map(|name| (name.clone(), cluster.token(name))).collect()
    };
    let of_the_first_two = tokens(&cluster, &[1, 2]);
    let of_the_others = tokens(&cluster, &[3, 4, 5]);
    // A switch cuts five machines off; their renewals were spread, and so are the ends.
    for n in 1..=5 {
        cluster.link(n).set_link(Link::Cut);
    }
    for n in 1..=5 {
        cluster.end_lease(n).await;
        cluster.pass(Duration::from_millis(700)).await;
    }
    assert!(cluster.told("mass-loss-hold"));
    assert!(cluster.reader().cluster().engine.hold.is_some());
    cluster.pass(Duration::from_secs(120)).await;
    assert_eq!((of_the_first_two.len(), of_the_others.len()), (4, 6));
    for (name, token) in of_the_others {
        assert_eq!(cluster.token(&name), token, "{name}: from the third on it holds");
    }
    for (name, token) in of_the_first_two {
        assert_ne!(cluster.token(&name), token, "{name}: two machines are not a mass");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_ends_at_recovery_and_on_a_word() {
    let mut cluster = six_of_which_three_vanish(Cluster::start(1, 6).await).await;
    let moved = cluster.checker.lost_moves;
    for n in 1..=3 {
        cluster.link(n).set_link(Link::Up);
    }
    cluster.until("it goes on", |cluster| cluster.told("mass-loss-over")).await;
    cluster.pass(Duration::from_secs(30)).await;
    assert!(cluster.checker.lost_moves - moved <= 2, "at most those not back at that moment");

    let mut cluster = six_of_which_three_vanish(Cluster::start(1, 6).await).await;
    cluster.pass(Duration::from_secs(10)).await;
    let leader = cluster.leader().unwrap();
    cluster.host(leader).engine.hold_release().release();
    cluster.until("all run", |cluster| cluster.checker.lost_moves == 3).await;
}
