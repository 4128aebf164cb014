//! What events say: who asked, what happened, and no more of it than anybody reads.

use std::time::Duration;

use flotilla_registry::{
    keys::{Bucket, Key},
    records::{
        ClusterSettings, EventChange, EventRecord, MachineSettings, Record as _, ReportBucket, VERSION,
    },
};

use crate::{Cluster, id, unit};

/// Everything told so far, oldest first.
fn told(cluster: &Cluster) -> Vec<EventChange> {
    let events = cluster.checker.state.events().values().filter_map(|event| event.record.record());
    events.flat_map(|record| record.changes.clone()).collect()
}

/// Why the last change of a kind was made, of a unit or of no unit.
fn why(cluster: &Cluster, kind: &str, name: Option<&str>) -> Option<String> {
    let name = name.map(unit);
    let found = told(cluster).into_iter().filter(|change| change.kind == kind && change.unit == name);
    found.last().and_then(|change| change.why)
}

/// Reports a unit failed, or running again, in its machine's place.
async fn report(cluster: &Cluster, on: usize, name: &str, failed: bool) {
    let key = Key::Report(id(on), Bucket::of(&unit(name)));
    let mut report = ReportBucket::decode("", &cluster.value(&key).await).unwrap();
    for of in report.units.iter_mut().filter(|of| of.unit == unit(name)) {
        of.active = (if failed { "failed" } else { "active" }).into();
        of.result = failed.then(|| "exit-code".into());
        of.exit_status = failed.then_some(7);
    }
    cluster.put(&key, report.encode()).await;
}

#[tokio::test(start_paused = true)]
async fn a_placement_says_who_asked_for_it_and_a_move_what_happened() {
    let mut cluster = Cluster::start(1, 3).await;
    cluster.running(&["a.service"]).await;
    assert_eq!(why(&cluster, "placed", Some("a.service")).as_deref(), Some("started by test"));
    let on = cluster.runs_on("a.service").unwrap();
    cluster.machine(on).kill();
    cluster
        .until("it runs elsewhere", |cluster| cluster.runs_on("a.service").is_some_and(|now| now != on))
        .await;
    let host = format!("host-{}", id(on).short());
    let lost = format!("{host} was lost");
    assert_eq!(why(&cluster, "placed", Some("a.service")), Some(lost.clone()));
    assert_eq!(why(&cluster, "machine-lost", Some("a.service")), Some(lost));
    assert_eq!(why(&cluster, "machine-lost", None).as_deref(), Some("its lease has ended"));
    let named = told(&cluster).into_iter().find(|change| change.kind == "machine-lost").unwrap();
    assert_eq!((named.machine, named.host), (Some(id(on)), Some(host)), "told also when it is forgotten");

    let on = cluster.runs_on("a.service").unwrap();
    let drain = MachineSettings { v: VERSION, draining: true, ..MachineSettings::default() };
    cluster.settings(on, &drain).await;
    cluster.until("it is drained", |cluster| cluster.runs_on("a.service").is_some_and(|now| now != on)).await;
    let why_placed = why(&cluster, "placed", Some("a.service")).unwrap();
    assert!(why_placed.contains("is drained"), "{why_placed}");

    cluster.update("a.service", "# only the text is another").await;
    cluster.until("it is updated", |cluster| cluster.told("updated")).await;
    let updated = why(&cluster, "updated", Some("a.service")).unwrap();
    assert!(updated.starts_with("updated from ") && updated.ends_with(" by test"), "{updated}");

    cluster.operations.destroy(&[unit("a.service")], "ada").await.unwrap();
    cluster.until("it is gone", |cluster| cluster.told("destroyed")).await;
    for kind in ["departing", "destroyed"] {
        assert_eq!(why(&cluster, kind, Some("a.service")).as_deref(), Some("destroyed by ada"), "{kind}");
    }
    let events = cluster.checker.state.events().values().filter_map(|event| event.record.record());
    for change in events.filter(|event| event.by == "engine").flat_map(|event| &event.changes) {
        assert!(change.why.is_some(), "{change:?} has no cause");
    }
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_waited_says_what_it_waited_for() {
    let mut cluster = Cluster::start(1, 1).await;
    cluster.launch("a.service", &format!("MachineID={}", id(2))).await;
    cluster.pass(Duration::from_secs(5)).await;
    cluster.boot(2, &[]);
    cluster.until("it runs", |cluster| cluster.runs_on("a.service") == Some(2)).await;
    let why = why(&cluster, "placed", Some("a.service")).unwrap();
    assert_eq!(why, format!("host-{} joined; started by test", id(2).short()));
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_once_and_a_crash_loop_costs_six_events_an_hour() {
    let mut cluster = Cluster::start(1, 1).await;
    cluster.running(&["a.service"]).await;
    report(&cluster, 1, "a.service", true).await;
    cluster.until("it is told", |cluster| cluster.told("failed")).await;
    let failed = why(&cluster, "failed", Some("a.service")).unwrap();
    assert_eq!(failed, "result exit-code, exit status 7");
    report(&cluster, 1, "a.service", false).await;
    cluster.until("it is told", |cluster| cluster.told("recovered")).await;
    let both = |cluster: &Cluster| cluster.times_told("failed") + cluster.times_told("recovered");
    for n in 0..40 {
        report(&cluster, 1, "a.service", n % 2 == 0).await;
        cluster.pass(Duration::from_secs(3)).await;
    }
    assert_eq!(both(&cluster), 6, "{:?}", told(&cluster));
    report(&cluster, 1, "a.service", true).await;
    cluster.pass(Duration::from_secs(3_700)).await;
    assert_eq!(both(&cluster), 7, "it is told how it is when there is room again");
    assert_eq!(cluster.times_told("failed"), 4);

    // Whoever leads next tells nothing again.
    cluster.engine();
    cluster.stop_engine(0).await;
    cluster.until("another leads", |cluster| cluster.leader() == Some(1)).await;
    cluster.pass(Duration::from_secs(5)).await;
    assert_eq!((both(&cluster), cluster.times_told("machine-joined")), (7, 1));
    assert_eq!(cluster.times_told("leader-elected"), 2);
    let elected = why(&cluster, "leader-elected", None).unwrap();
    assert!(elected.starts_with("after "), "{elected}");
}

/// Commands on machines write events that lead to nothing that the leader writes.
#[tokio::test(start_paused = true)]
async fn events_that_others_write_are_bounded_too() {
    let mut cluster = Cluster::start(1, 1).await;
    let settings = ClusterSettings { events_max: 100, ..ClusterSettings::default() };
    cluster.put(&Key::Settings, settings.encode()).await;
    let change = EventChange { kind: "exec".to_owned(), ..EventChange::default() };
    let record = EventRecord {
        v: VERSION,
        at: jiff::Timestamp::now(),
        by: "test".to_owned(),
        request: None,
        changes: vec![change],
    };
    for sequence in 1..=1_300 {
        cluster.put(&Key::Event { writer: "api-test".to_owned(), sequence }, record.encode()).await;
    }
    cluster.until("they are collected", |it| it.checker.state.events().len() <= 1_100).await;
    cluster.pass(Duration::from_secs(5)).await;
    let left = cluster.checker.state.events().len();
    assert!((1_000..=1_100).contains(&left), "{left}");
}
