//! Corrupted records, deposed leaders, lost replies, stores that went back.

use std::time::Duration;

use flotilla_engine::SeatLost;
use flotilla_registry::{
    keys::{Bucket, Key},
    records::{ManifestBucket, Record as _, Target, Token},
    store::{CALL_TIMEOUT, Revision, Store as _, faults::Link},
};
use tokio::time::{sleep, timeout};

use crate::{Cluster, id, unit};

#[tokio::test(start_paused = true)]
async fn a_corrupted_unit_record_is_left_as_it_is_and_hurts_nobody_else() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.running(&["a.service", "b.service"]).await;
    let (on, token) = (cluster.runs_on("a.service"), cluster.token("a.service"));
    cluster.put(&Key::Unit(unit("a.service")), b"{\"v\":1,\"oops".to_vec()).await;
    cluster.put(&Key::Unit(unit("z.service")), b"{\"v\":99}".to_vec()).await;
    cluster.target("b.service", Target::Inactive, false).await;
    cluster.running(&["c.service"]).await;
    cluster.until("b is gone", |cluster| cluster.checker.state.placed(&unit("b.service")).is_empty()).await;
    assert_eq!((cluster.runs_on("a.service"), cluster.token("a.service")), (on, token));
    let (row, _) = cluster.reader().unit(&unit("a.service"));
    assert!(row.unwrap().problem.unwrap().contains("cannot be read"));
    let (row, _) = cluster.reader().unit(&unit("z.service"));
    assert!(row.unwrap().problem.unwrap().contains("version 99"));
    assert_eq!(cluster.reader().cluster().problems.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_follows_an_unreadable_unit_stays_with_it_also_on_a_lost_machine() {
    let mut cluster = Cluster::start(1, 3).await;
    cluster.running(&["leader.service"]).await;
    cluster.launch("follower.service", "MachineOf=leader.service").await;
    cluster.until("both run", |cluster| cluster.runs_on("follower.service").is_some()).await;
    let key = Key::Unit(unit("leader.service"));
    let good = cluster.value(&key).await;
    cluster.put(&key, b"{\"v\":99}".to_vec()).await;
    let on = cluster.runs_on("leader.service").unwrap();
    cluster.machine(on).kill();
    let lost = |cluster: &Cluster| cluster.checker.state.machines()[&id(on)].record.is_none();
    cluster.until("its lease has ended", lost).await;
    let writes = cluster.checker.writes;
    cluster.pass(Duration::from_secs(30)).await;
    assert_eq!(cluster.checker.writes, writes, "nothing flaps");
    assert_eq!(cluster.checker.active(&unit("follower.service")), [id(on)]);
    cluster.put(&key, good).await;
    cluster
        .until("both run elsewhere", |cluster| {
            let now = cluster.runs_on("follower.service");
            now.is_some_and(|now| now != on) && now == cluster.runs_on("leader.service")
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_corrupted_manifest_bucket_never_leads_to_a_second_placement() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.running(&["a.service"]).await;
    let on = cluster.runs_on("a.service").unwrap();
    let key = Key::Manifest(id(on), Bucket::of(&unit("a.service")));
    let good = cluster.value(&key).await;
    // The checker holds that entries do not vanish; this is a vandal's doing, so it is not asked.
    cluster.put(&key, b"garbage".to_vec()).await;
    let reader = cluster.reader();
    sleep(Duration::from_secs(30)).await;
    let (row, _) = reader.unit(&unit("a.service"));
    assert!(row.unwrap().placements.is_empty(), "it is not placed a second time");
    let why = reader.why(&unit("a.service"));
    assert!(why.problem.as_ref().is_some_and(|why| why.contains("manifest cannot be read")), "{why:?}");
    cluster.launch("new.service", "").await;
    sleep(Duration::from_secs(5)).await;
    let (row, _) = reader.unit(&unit("new.service"));
    assert_eq!(row.unwrap().placements.len(), 1, "others go on, on the other machine");
    cluster.put(&key, good).await;
    sleep(Duration::from_secs(5)).await;
    let (row, _) = reader.unit(&unit("a.service"));
    assert_eq!(row.unwrap().placements[0].machine, id(on));
}

#[tokio::test(start_paused = true)]
async fn content_that_makes_no_sense_has_its_reason() {
    let mut cluster = Cluster::start(1, 1).await;
    cluster.running(&["a.service"]).await;
    cluster.submit("b.service", "").await;
    let hash = cluster.checker.state.units().get("a.service").unwrap().record().unwrap().current.unwrap();
    cluster.checker.missing.insert(hash);
    cluster.delete(&Key::Content(hash)).await;
    cluster.submit("c.service", "MachineMetadata=other=1").await;
    cluster.pass(Duration::from_secs(5)).await;
    assert_eq!(cluster.runs_on("a.service"), Some(1), "what runs is left");
    let (row, _) = cluster.reader().unit(&unit("a.service"));
    assert!(row.unwrap().problem.unwrap().contains("not in the store"));
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_cannot_write() {
    let mut cluster = Cluster::start(2, 2).await;
    cluster.running(&["a.service"]).await;
    let old = cluster.leader().unwrap();
    // It does not hear that it is deposed: its calls hang, and what it sent may arrive.
    cluster.host(old).faults.set_link(Link::Hung);
    cluster.launch("b.service", "").await;
    cluster.until("another leads", |cluster| cluster.leader().is_some_and(|now| now != old)).await;
    cluster.host(old).faults.set_link(Link::Up);
    cluster.running(&["c.service", "d.service"]).await;
    cluster.until("b runs", |cluster| cluster.runs_on("b.service").is_some()).await;
    cluster.pass(Duration::from_secs(30)).await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_the_store_refuses_keeps_nothing_else_from_being_written() {
    let mut cluster = Cluster::start(1, 2).await;
    let leader = cluster.leader().unwrap();
    cluster.host(leader).faults.refuse(Some("\"bad.service\""));
    let names: Vec<String> = (0..20).map(|n| format!("u{n}.service")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).chain(["bad.service"]).collect();
    let units: Vec<_> = names.iter().map(|name| (unit(name), crate::service(""))).collect();
    cluster.operations.submit(&units, "test").await.unwrap();
    let all: Vec<_> = names.iter().map(|name| unit(name)).collect();
    cluster.operations.set_target(&all, Target::Launched, true, "test").await.unwrap();
    let good = |cluster: &Cluster| names[..20].iter().all(|name| cluster.runs_on(name).is_some());
    let took = cluster.until("the others run", good).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    let trouble = |cluster: &Cluster| cluster.reader().cluster().engine.trouble;
    assert!(trouble(&cluster).is_some_and(|why| why.contains("bad.service")), "{:?}", trouble(&cluster));
    let calls = cluster.host(leader).faults.calls();
    cluster.pass(Duration::from_secs(20)).await;
    let made = cluster.host(leader).faults.calls() - calls;
    assert!(made < 100, "{made} calls: leases are renewed, and nothing else happens");
    cluster.host(leader).faults.refuse(None);
    cluster.until("it is tried again", |cluster| cluster.runs_on("bad.service").is_some()).await;
    assert_eq!(trouble(&cluster), None);
}

#[tokio::test(start_paused = true)]
async fn what_kept_a_seat_that_does_not_lead_is_told_while_it_does_and_not_for_ever() {
    let mut cluster = Cluster::start(2, 1).await;
    let other = 1 - cluster.leader().unwrap();
    let told = |cluster: &Cluster| {
        let engine = cluster.host(other).engine.reader().unwrap().cluster().engine;
        assert!(!engine.leads);
        engine.behind.or(engine.trouble)
    };
    cluster.host(other).faults.set_link(Link::Cut);
    cluster.until("it is told", |cluster| told(cluster).is_some()).await;
    cluster.host(other).faults.set_link(Link::Up);
    // Nothing happens in the cluster that would tell it so.
    cluster.until("it is taken back", |cluster| told(cluster).is_none()).await;

    // Its campaign fails, and then another leads again.
    let old = cluster.leader().unwrap();
    cluster.host(other).faults.refuse(Some(&id(900 + other).to_string()));
    cluster.host(old).faults.set_link(Link::Cut);
    let reader = cluster.host(other).engine.reader().unwrap();
    let trouble = || reader.cluster().engine.trouble;
    cluster.until("the campaign fails", |_| trouble().is_some()).await;
    cluster.host(old).faults.set_link(Link::Up);
    cluster.until("the old one leads again", |cluster| cluster.leader() == Some(old)).await;
    cluster.until("that is no trouble any more", |_| trouble().is_none()).await;
    assert!(!reader.cluster().engine.leads);
}

#[tokio::test(start_paused = true)]
async fn an_operator_accepts_a_store_whose_cluster_record_was_deleted_under_the_leader() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.running(&["a.service"]).await;
    let before = cluster.token("a.service").unwrap();
    // The checker holds that the store does not go back, so it is not asked from here on.
    cluster.delete(&Key::Cluster).await;
    sleep(Duration::from_secs(3)).await;
    let reader = cluster.reader();
    let problems = reader.cluster().problems;
    assert!(problems.iter().any(|problem| problem.contains("went back")), "{problems:?}");
    cluster.launch("b.service", "").await;
    sleep(Duration::from_secs(30)).await;
    let waits = reader.unit(&unit("b.service")).0.is_none_or(|row| row.placements.is_empty());
    assert!(waits, "for an operator's word");
    cluster.host(0).witness.accept();
    sleep(Duration::from_secs(3)).await;
    let row = cluster.reader().cluster();
    assert!(row.problems.is_empty() && row.engine.standstill.is_none(), "{row:?}");
    let placement = reader.unit(&unit("b.service")).0.unwrap().placements.remove(0);
    assert!(placement.token.0 > before, "in a new epoch: {:?} after {before}", placement.token);
    assert_eq!(reader.unit(&unit("a.service")).0.unwrap().placements[0].token.0, before, "untouched");
}

#[tokio::test(start_paused = true)]
async fn an_operator_accepts_a_store_with_a_token_that_nobody_reserved() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.running(&["a.service"]).await;
    let on = cluster.runs_on("a.service").unwrap();
    let key = Key::Manifest(id(on), Bucket::of(&unit("a.service")));
    let mut bucket = ManifestBucket::decode("", &cluster.value(&key).await).unwrap();
    bucket.entries[0].token = Token::new(1, 1 << 40).unwrap();
    cluster.put(&key, bucket.encode()).await;
    sleep(Duration::from_secs(3)).await;
    let reader = cluster.reader();
    let problems = reader.cluster().problems;
    assert!(problems.iter().any(|problem| problem.contains("went back")), "{problems:?}");
    cluster.host(0).witness.accept();
    cluster.launch("b.service", "").await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(reader.unit(&unit("b.service")).0.unwrap().placements.len(), 1);
    assert!(reader.cluster().problems.is_empty());
}

#[tokio::test(start_paused = true)]
async fn whoever_reads_from_a_seat_hears_that_it_is_lost() {
    let mut cluster = Cluster::start(2, 2).await;
    cluster.running(&["a.service"]).await;
    let host = cluster.host(0);
    let reader = host.engine.reader().unwrap();
    let mut doorbell = reader.changed();
    let far = Revision(reader.revision().0 + 1_000_000);
    host.faults.set_link(Link::Cut);
    let watching = async { while doorbell.changed().await.is_ok() {} };
    let lost = async { tokio::join!(reader.reached(far), watching) };
    let (reached, ()) = timeout(Duration::from_secs(15), lost).await.expect("its lease is ten seconds");
    assert_eq!(reached, Err(SeatLost));
    assert!(host.engine.reader().is_none());
    assert!(reader.changed().changed().await.is_err(), "also who comes late");
    cluster.host(0).faults.set_link(Link::Up);
    cluster.running(&["b.service"]).await;
    cluster.until("it has a seat again", |cluster| cluster.host(0).engine.reader().is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn lost_replies_are_resolved_by_reading() {
    let mut cluster = Cluster::start(1, 3).await;
    cluster.running(&["a.service"]).await;
    for round in 0..5 {
        let leader = cluster.leader().unwrap();
        let name = format!("r{round}.service");
        cluster.submit(&name, "").await;
        cluster.host(leader).faults.lose_replies(1 + round % 2);
        cluster.target(&name, Target::Launched, true).await;
        cluster.until("it runs", |cluster| cluster.runs_on(&name).is_some()).await;
        let running = (1..=3).filter(|n| cluster.machine(*n).runs(&unit(&name))).count();
        assert_eq!(running, 1, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_decided_from_a_state_older_than_the_leaders_own_last_write() {
    let mut cluster = Cluster::start(1, 3).await;
    cluster.running(&["a.service"]).await;
    cluster.submit("b.service", "").await;
    let faults = cluster.host(0).faults.clone();
    faults.late_writes(1, Duration::from_secs(2));
    cluster.target("b.service", Target::Launched, true).await;
    cluster.pass(Duration::from_millis(100)).await;
    faults.stall_watches(true);
    // Past the time-out of the write and the barrier that follows it, which keeps it from coming late.
    cluster.pass(CALL_TIMEOUT + Duration::from_millis(300)).await;
    let (tried, seen) = (faults.transactions(), cluster.reader().revision());
    let there = cluster.store.status().await.unwrap().revision;
    assert!(seen < there, "the leader has not seen its barrier: {seen:?} of {there:?}");
    cluster.pass(Duration::from_secs(60)).await;
    assert_eq!(faults.transactions(), tried, "it waits for its own write, however long that takes");
    faults.stall_watches(false);
    cluster.until("it is placed", |cluster| cluster.runs_on("b.service").is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn the_leader_freezes_when_the_store_went_back() {
    let mut cluster = Cluster::start(1, 2).await;
    cluster.running(&["a.service"]).await;
    let backup = cluster.store.snapshot();
    cluster.running(&["b.service", "c.service"]).await;
    let restored = cluster.host(0).faults.restore(&backup);
    let before = flotilla_registry::store::Store::status(&*restored).await.unwrap().revision;
    let reader = cluster.reader();
    sleep(Duration::from_secs(3)).await;
    let status = reader.cluster();
    assert!(status.problems.iter().any(|problem| problem.contains("went back")), "{status:?}");
    // Whatever is asked of the restored store, nothing is decided.
    let registry = flotilla_registry::reads::Registry::new(restored.clone(), cluster.keys.clone());
    let operations = flotilla_registry::operations::Operations::new(registry, Default::default());
    operations.set_target(&[unit("a.service")], Target::Inactive, false, "test").await.unwrap();
    sleep(Duration::from_secs(3)).await;
    let kvs = flotilla_registry::store::Store::range(
        &*restored,
        flotilla_registry::store::RangeRequest::all(cluster.keys.all_of("manifests")),
    )
    .await
    .unwrap()
    .kvs;
    assert!(kvs.iter().all(|kv| kv.mod_revision <= before), "no manifest was written");
}
