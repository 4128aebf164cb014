//! Many machines lost at once, and few machines lost over the years.

use std::time::Duration;

use flotilla_registry::{records::MachineSettings, store::faults::Link};

use crate::{Cluster, id, unit};

async fn six_of_which_three_vanish(mut cluster: Cluster) -> Cluster {
    cluster.running(&["a.service", "b.service", "c.service", "d.service", "e.service", "f.service"]).await;
    // What leaves the first of them would else come to another that is cut off and whose lease has not ended
    // yet, and leave it too: a fourth move of three units, once in some dozens of times.
    let closed = MachineSettings { cordoned: true, ..MachineSettings::default() };
    for n in 1..=3 {
        cluster.settings(n, &closed).await;
    }
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
    cluster.host(1 - leader).engine.hold_release().release("ada", Some("r-1"));
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
    cluster.host(leader).engine.hold_release().release("ada", Some("r-1"));
    cluster.until("all run", |cluster| cluster.checker.lost_moves == 3).await;
    let events = cluster.checker.state.events().values().filter_map(|event| event.record.record());
    let mut over = events.flat_map(|record| &record.changes).filter(|it| it.kind == "mass-loss-over");
    let over = over.next_back().unwrap();
    assert_eq!(over.request.as_deref(), Some("r-1"));
    assert!(over.why.as_deref().unwrap().starts_with("by ada: "), "{over:?}");
}

/// Lets a machine die for good that has a unit which no other may have.
async fn dies_with_a_unit_of_its_own(cluster: &mut Cluster, n: usize) {
    let name = format!("own{n}.service");
    cluster.launch(&name, &format!("MachineID={}", id(n))).await;
    cluster.until("it runs", |cluster| cluster.runs_on(&name) == Some(n)).await;
    cluster.machine(n).kill();
    // Longer than losses count together.
    cluster.pass(Duration::from_secs(120)).await;
    assert_eq!(cluster.checker.active(&unit(&name)), [id(n)], "it waits for its machine");
}

/// A machine dies, and all of its units run elsewhere within its lease and two seconds.
async fn one_more_dies(cluster: &mut Cluster, n: usize, units: &[&str]) {
    let moving: Vec<&str> = units.iter().copied().filter(|name| cluster.runs_on(name) == Some(n)).collect();
    assert!(!moving.is_empty(), "{n} runs nothing");
    cluster.machine(n).kill();
    let moved = |cluster: &Cluster| moving.iter().all(|name| cluster.runs_on(name).is_some_and(|on| on != n));
    let took = cluster.until("they run elsewhere", moved).await;
    assert!(took <= Duration::from_secs(12), "{took:?}");
    assert!(!cluster.told("mass-loss-hold"));
}

const UNITS: [&str; 6] = ["a.service", "b.service", "c.service", "d.service", "e.service", "f.service"];

#[tokio::test(start_paused = true)]
async fn machines_long_dead_do_not_add_to_the_leaders() {
    let mut cluster = Cluster::start(2, 6).await;
    dies_with_a_unit_of_its_own(&mut cluster, 1).await;
    dies_with_a_unit_of_its_own(&mut cluster, 2).await;
    cluster.running(&UNITS).await;
    // The leader was on a machine that dies.
    let leader = cluster.leader().unwrap();
    cluster.host(leader).faults.set_link(Link::Cut);
    one_more_dies(&mut cluster, 3, &UNITS).await;
    assert_ne!(cluster.leader(), Some(leader));
}

#[tokio::test(start_paused = true)]
async fn machines_long_dead_do_not_count_for_a_seat_that_was_not_there() {
    let mut cluster = Cluster::start(1, 6).await;
    for n in 1..=3 {
        dies_with_a_unit_of_its_own(&mut cluster, n).await;
    }
    cluster.running(&UNITS).await;
    cluster.stop_engine(0).await;
    cluster.engine();
    cluster.until("it leads", |cluster| cluster.leader() == Some(1)).await;
    one_more_dies(&mut cluster, 4, &UNITS).await;
}

#[tokio::test(start_paused = true)]
async fn machines_that_vanish_while_no_engine_looks_are_waited_for() {
    let mut cluster = Cluster::start(1, 6).await;
    cluster.running(&UNITS).await;
    cluster.stop_engine(0).await;
    for n in 1..=3 {
        cluster.link(n).set_link(Link::Cut);
        cluster.end_lease(n).await;
    }
    cluster.engine();
    cluster.until("it holds", |cluster| cluster.told("mass-loss-hold")).await;
    cluster.pass(Duration::from_secs(60)).await;
    assert_eq!(cluster.checker.lost_moves, 0, "not one is moved");
    for n in 1..=3 {
        cluster.link(n).set_link(Link::Up);
    }
    cluster.until("it goes on", |cluster| cluster.told("mass-loss-over")).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_machine_after_a_power_cut_does_not_get_everything() {
    let mut cluster = Cluster::start(1, 6).await;
    cluster.running(&UNITS).await;
    cluster.stop_engine(0).await;
    for n in 1..=6 {
        cluster.link(n).set_link(Link::Cut);
        cluster.end_lease(n).await;
    }
    cluster.engine();
    cluster.until("it leads", |cluster| cluster.leader() == Some(1)).await;
    // Long after the engine, the machines have booted, one after another.
    cluster.pass(Duration::from_secs(200)).await;
    for n in 1..=6 {
        cluster.link(n).set_link(Link::Up);
        cluster.pass(Duration::from_secs(20)).await;
        assert!(cluster.checker.lost_moves <= 2, "with machine {n}: {}", cluster.checker.lost_moves);
    }
    cluster.until("all run", |cluster| UNITS.iter().all(|name| cluster.runs_on(name).is_some())).await;
}

#[tokio::test(start_paused = true)]
async fn a_hold_outlives_its_leader() {
    let mut cluster = six_of_which_three_vanish(Cluster::start(2, 6).await).await;
    let moved = cluster.checker.lost_moves;
    cluster.pass(Duration::from_secs(120)).await;
    for n in 0..2 {
        let status = cluster.host(n).engine.reader().unwrap().cluster();
        assert!(status.engine.hold.is_some(), "whichever is asked says so: {status:?}");
    }
    let leader = cluster.leader().unwrap();
    cluster.stop_engine(leader).await;
    cluster.until("the other leads", |cluster| cluster.leader() == Some(1 - leader)).await;
    cluster.until("it says so", |cluster| cluster.times_told("mass-loss-hold") == 2).await;
    assert!(cluster.reader().cluster().engine.hold.is_some());
    cluster.pass(Duration::from_secs(150)).await;
    assert_eq!((cluster.checker.lost_moves, cluster.times_told("mass-loss-over")), (moved, 0));
    cluster.pass(Duration::from_secs(60)).await;
    assert_eq!(cluster.checker.lost_moves, 3, "five minutes from when it began");
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_was_ended_is_not_taken_up_by_the_next_leader() {
    let mut cluster = six_of_which_three_vanish(Cluster::start(2, 6).await).await;
    let leader = cluster.leader().unwrap();
    cluster.host(leader).engine.hold_release().release("ada", Some("r-1"));
    cluster.until("all run", |cluster| cluster.checker.lost_moves == 3).await;
    cluster.stop_engine(leader).await;
    cluster.until("the other leads", |cluster| cluster.leader() == Some(1 - leader)).await;
    cluster.pass(Duration::from_secs(30)).await;
    assert_eq!(cluster.reader().cluster().engine.hold, None);
    assert_eq!(cluster.times_told("mass-loss-hold"), 1);
}
