//! Two-phase moves, with the leader and the old machine failing in the middle.

use std::time::Duration;

use flotilla_registry::{
    records::{MachineSettings, VERSION},
    store::faults::Link,
};
use flotilla_units::UnitName;

use crate::{Cluster, id, unit};

fn drain() -> MachineSettings {
    MachineSettings { v: VERSION, draining: true, ..MachineSettings::default() }
}

/// What a unit with this requirement has to leave a machine for.
const AT_HOME: &str = "MachineMetadata=!away";

fn away() -> MachineSettings {
    let metadata = [("away".to_owned(), Some("1".to_owned()))].into();
    MachineSettings { v: VERSION, metadata, ..MachineSettings::default() }
}

/// Nothing of it is anywhere but where it is to be.
fn has_left(cluster: &Cluster, unit: &UnitName) -> bool {
    cluster.checker.departing(unit).is_empty() && cluster.checker.moving(unit).is_empty()
}

async fn at_home(cluster: &mut Cluster, name: &str) -> usize {
    cluster.launch(name, AT_HOME).await;
    cluster.until("it runs", |cluster| cluster.runs_on(name).is_some()).await;
    cluster.runs_on(name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_move_waits_for_proof_however_long() {
    let mut cluster = Cluster::start(1, 2).await;
    let on = at_home(&mut cluster, "a.service").await;
    cluster.machine(on).stubborn.lock().unwrap().push(unit("a.service"));
    cluster.settings(on, &away()).await;
    cluster.pass(Duration::from_secs(600)).await;
    assert_eq!(cluster.checker.departing(&unit("a.service")), [id(on)]);
    assert!(cluster.checker.active(&unit("a.service")).is_empty(), "it does not run twice");
}

#[tokio::test(start_paused = true)]
async fn a_leader_killed_in_the_middle_of_a_move_from_a_machine_cut_off() {
    let mut cluster = Cluster::start(3, 3).await;
    let on = at_home(&mut cluster, "a.service").await;
    let leader = cluster.leader().unwrap();
    // The old machine is cut off before the order reaches it, and the leader dies after giving it.
    cluster.link(on).set_link(Link::Cut);
    let cut = tokio::time::Instant::now();
    cluster.settings(on, &away()).await;
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
async fn a_drained_unit_runs_elsewhere_before_it_stops() {
    let mut cluster = Cluster::start(3, 2).await;
    cluster.running(&["a.service"]).await;
    let (on, a) = (cluster.runs_on("a.service").unwrap(), unit("a.service"));
    let other = 3 - on;
    // The new machine is cut off: nothing tells that it is ready there, so it stays where it is.
    cluster.link(other).set_link(Link::Hung);
    cluster.settings(on, &drain()).await;
    cluster.until("it moves", |cluster| cluster.checker.moving(&a) == [id(on)]).await;
    assert_eq!(cluster.checker.active(&a), [id(other)]);
    cluster.pass(Duration::from_secs(2)).await;
    assert!(cluster.machine(on).runs(&a) && cluster.checker.departing(&a).is_empty());
    // Its lease ends: the move is taken back, under the token that it had.
    cluster.until("it stays", |cluster| cluster.checker.active(&a) == [id(on)]).await;
    assert!(cluster.checker.moving(&a).is_empty() && cluster.machine(on).runs(&a));
    cluster.link(other).set_link(Link::Up);
    cluster
        .until("it runs there only", |cluster| {
            cluster.runs_on("a.service") == Some(other) && has_left(cluster, &a)
        })
        .await;
    assert!(!cluster.machine(on).runs(&a));
}

/// systemd has its start queued there, behind another unit's.
#[tokio::test(start_paused = true)]
async fn what_runs_is_not_stopped_for_a_start_that_is_queued() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.running(&["a.service"]).await;
    let (on, a) = (cluster.runs_on("a.service").unwrap(), unit("a.service"));
    cluster.machine(3 - on).starts.lock().unwrap().wait = true;
    cluster.settings(on, &drain()).await;
    cluster.until("it moves", |cluster| cluster.checker.moving(&a) == [id(on)]).await;
    cluster.pass(Duration::from_secs(60)).await;
    assert!(cluster.machine(on).runs(&a) && cluster.checker.departing(&a).is_empty());
    cluster.machine(3 - on).starts.lock().unwrap().wait = false;
    // Its machine tells anew with its next order.
    cluster.launch("b.service", "").await;
    cluster.until("it has left", |cluster| has_left(cluster, &a) && !cluster.machine(on).runs(&a)).await;
}

/// A condition of its does not hold there, or it ends at once: systemd calls both a success.
#[tokio::test(start_paused = true)]
async fn what_runs_is_not_stopped_for_what_does_not() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.running(&["a.service"]).await;
    let (on, a) = (cluster.runs_on("a.service").unwrap(), unit("a.service"));
    let token = cluster.token("a.service");
    cluster.machine(3 - on).starts.lock().unwrap().end = true;
    cluster.settings(on, &drain()).await;
    cluster.until("it moves", |cluster| cluster.checker.moving(&a) == [id(on)]).await;
    cluster.until("it stays", |cluster| has_left(cluster, &a)).await;
    cluster.pass(Duration::from_secs(60)).await;
    assert!(cluster.machine(on).runs(&a) && has_left(&cluster, &a));
    assert_eq!((cluster.runs_on("a.service"), cluster.token("a.service")), (Some(on), token));
}

/// A plain service is active as soon as its process is there.
#[tokio::test(start_paused = true)]
async fn what_runs_is_not_stopped_for_what_dies_a_moment_after_its_start() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.running(&["a.service"]).await;
    let (on, a) = (cluster.runs_on("a.service").unwrap(), unit("a.service"));
    let token = cluster.token("a.service");
    cluster.machine(3 - on).starts.lock().unwrap().dies = Some(Duration::from_millis(150));
    cluster.settings(on, &drain()).await;
    cluster.until("it moves", |cluster| cluster.checker.moving(&a) == [id(on)]).await;
    cluster.until("it stays", |cluster| has_left(cluster, &a)).await;
    cluster.pass(Duration::from_secs(60)).await;
    assert!(cluster.machine(on).runs(&a) && has_left(&cluster, &a));
    assert_eq!((cluster.runs_on("a.service"), cluster.token("a.service")), (Some(on), token));
}

#[tokio::test(start_paused = true)]
async fn those_that_belong_together_leave_a_drained_machine_together() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.launch("db.service", "").await;
    cluster.launch("web.service", "MachineOf=db.service").await;
    cluster.launch("stay.service", "Sticky=yes").await;
    let names = ["db.service", "web.service", "stay.service"];
    cluster.until("all run", |cluster| names.iter().all(|name| cluster.runs_on(name).is_some())).await;
    let on = cluster.runs_on("db.service").unwrap();
    let sticky = cluster.runs_on("stay.service").unwrap();
    cluster.settings(on, &drain()).await;
    cluster.settings(sticky, &drain()).await;
    if sticky != on {
        cluster.settings(sticky, &MachineSettings { v: VERSION, ..MachineSettings::default() }).await;
    }
    cluster
        .until("both are on the other", |cluster| {
            ["db.service", "web.service"]
                .iter()
                .all(|name| cluster.runs_on(name) == Some(3 - on) && has_left(cluster, &unit(name)))
        })
        .await;
    assert_eq!(cluster.runs_on("stay.service"), Some(sticky));
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_ends_early_leaves_units_where_they_were() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.running(&["a.service"]).await;
    let (on, a) = (cluster.runs_on("a.service").unwrap(), unit("a.service"));
    let token = cluster.token("a.service");
    cluster.link(3 - on).set_link(Link::Hung);
    cluster.settings(on, &drain()).await;
    cluster.until("it moves", |cluster| cluster.checker.moving(&a) == [id(on)]).await;
    cluster.settings(on, &MachineSettings { v: VERSION, ..MachineSettings::default() }).await;
    cluster.until("it stays", |cluster| cluster.checker.active(&a) == [id(on)]).await;
    cluster.link(3 - on).set_link(Link::Up);
    cluster.until("nothing is left", |cluster| cluster.checker.departing(&a).is_empty()).await;
    assert_eq!((cluster.runs_on("a.service"), cluster.token("a.service")), (Some(on), token));
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
