//! The machine's registration and its report, over a store with faults, under virtual time.

#![allow(clippy::expect_used, clippy::panic, reason = "tests say what must hold in the shortest way")]

#[path = "machine/machine.rs"]
#[allow(dead_code, reason = "each test target uses a part of it")]
mod machine;

use std::{sync::Arc, time::Duration};

use flotilla_agent::keep_registration;
use flotilla_registry::{
    keys::{Bucket, Key},
    records::{MachineRecord, Record as _, ReportBucket, ReportHead},
    store::{KeyRange, Operation, Txn, embedded::EmbeddedStore, faults::Link},
    timing::Timing,
};
use machine::{Machine, entry, pass, unit};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Tells whether the machine's registration was left by an orderly stop, with its report.
async fn was_stopped(machine: &Machine) -> bool {
    let said = machine.record().await.is_some_and(|r| r.stopped && r.lease_ttl_s == 300);
    said && machine.is("web.service", 1, "active").await
}

async fn nonce(machine: &Machine) -> Option<String> {
    machine.record().await.map(|record| record.nonce)
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_the_agent_registers_is_an_orderly_one() {
    let machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    let agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    let incarnation = nonce(&machine).await;
    drop(agent);
    machine.faults.slow(Duration::from_millis(400), Duration::from_millis(400));
    for step in 0..40 {
        // Killed in what it does, and stopped soon after it was started again: at every point of it.
        let killed = machine.start();
        sleep(Duration::from_millis(step * 97 % 2_500)).await;
        drop(killed);
        let agent = machine.start();
        sleep(Duration::from_millis(step * 75)).await;
        agent.stop().await.expect("in order");
        assert!(was_stopped(&machine).await, "stopped {} ms after its start", step * 75);
        pass(200).await;
        assert_eq!(nonce(&machine).await, incarnation, "its keys live on");
        // Stopped, and stopped again right after the next start.
        let agent = machine.start();
        sleep(Duration::from_millis(step * 75)).await;
        agent.stop().await.expect("in order");
        assert!(was_stopped(&machine).await, "stopped again {} ms after its start", step * 75);
    }
    assert_eq!(machine.starts("web.service").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_whose_first_write_came_late_is_an_orderly_one() {
    let machine = Machine::new().await;
    for step in 1..20 {
        machine.order(&[entry("web.service", 1, step)]).await;
        let agent = machine.start();
        within!(20, machine.report("web.service", 1).await.is_some_and(|r| r.run == step));
        // The report of the next run arrives only while the stop is written.
        machine.faults.late_writes(1, Duration::ZERO);
        machine.faults.slow(Duration::from_millis(400), Duration::from_millis(400));
        machine.order(&[entry("web.service", 1, step + 1)]).await;
        sleep(Duration::from_millis(3_400 + step * 100)).await;
        agent.stop().await.expect("in order");
        machine.faults.slow(Duration::ZERO, Duration::ZERO);
        assert!(was_stopped(&machine).await, "step {step}: {:?}", machine.record().await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_kept_while_systemd_is_silent() {
    let machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    let agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    let incarnation = nonce(&machine).await;
    drop(agent);
    machine.systemd.set_answering(false);
    let agent = machine.start();
    for _ in 0..40 {
        pass(1).await;
        assert_eq!(nonce(&machine).await, incarnation, "its lease ended");
    }
    assert!(!agent.is_registered(), "nothing is known of what runs here yet");
    // A stop leaves the report as it is: this agent has none of its own.
    let report = machine.report("web.service", 1).await;
    agent.stop().await.expect("in order");
    assert!(was_stopped(&machine).await && machine.report("web.service", 1).await == report);
    let agent = machine.start();
    pass(30).await;
    machine.systemd.set_answering(true);
    within!(60, agent.is_registered());
    let record = machine.record().await.expect("registered");
    assert!(!record.stopped && record.lease_ttl_s == 10 && Some(record.nonce) == incarnation);
    assert_eq!(machine.starts("web.service").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_restored_backup_is_accepted_once() {
    let store = Arc::new(EmbeddedStore::in_memory());
    let machine = Machine::on(store.clone()).await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    let agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    pass(5).await;
    let (incarnation, backup) = (nonce(&machine).await, store.snapshot());
    for run in 2..10 {
        machine.order(&[entry("web.service", 1, run)]).await;
        within!(5, machine.report("web.service", 1).await.is_some_and(|r| r.run == run));
    }
    machine.faults.restore(&backup);
    within!(60, agent.outlook.frozen.borrow().is_some());
    pass(5).await;
    assert_eq!(nonce(&machine).await, incarnation, "its lease is kept");
    let invocation = machine.invocation("web.service");
    agent.outlook.witness.accept();
    within!(30, agent.outlook.frozen.borrow().is_none());
    for _ in 0..600 {
        sleep(Duration::from_millis(100)).await;
        assert!(agent.outlook.frozen.borrow().is_none(), "{:?}", agent.outlook.frozen.borrow());
    }
    assert!(agent.is_registered());
    assert_eq!(nonce(&machine).await, incarnation);
    assert_eq!(machine.report("web.service", 1).await.map(|r| r.run), Some(9), "what really runs");
    let order = machine.order(&[entry("web.service", 1, 1), entry("new.service", 3, 1)]).await;
    within!(5, machine.is("new.service", 3, "active").await);
    within!(5, machine.head().await.is_some_and(|head| head.seen >= order));
    assert_eq!(machine.invocation("web.service"), invocation);
}

#[tokio::test(start_paused = true)]
async fn an_own_late_write_is_no_store_that_went_back() {
    let machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    let agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    let incarnation = nonce(&machine).await;
    // Longer than the read that looks for the outcome takes, and the write after it.
    machine.faults.slow(Duration::from_millis(400), Duration::from_millis(400));
    for run in 2..40 {
        machine.faults.late_writes(1, Duration::from_secs(1));
        let order = machine.order(&[entry("web.service", 1, run)]).await;
        within!(30, machine.report("web.service", 1).await.is_some_and(|r| r.run == run));
        within!(30, machine.head().await.is_some_and(|head| head.seen >= order));
        assert!(agent.outlook.frozen.borrow().is_none(), "{:?}", agent.outlook.frozen.borrow());
        pass(10).await;
    }
    assert_eq!(nonce(&machine).await, incarnation);
}

/// The record that a restarted agent writes is the one that is there already, so that it tells nothing
/// of whether the write arrived.
#[tokio::test(start_paused = true)]
async fn a_late_write_of_a_restart_is_no_store_that_went_back() {
    let machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    let first = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    drop(first);
    machine.faults.slow(Duration::from_millis(400), Duration::from_millis(400));
    for run in 2..40 {
        machine.faults.late_writes(1, Duration::from_secs(2));
        let agent = machine.start();
        within!(30, agent.is_registered());
        machine.order(&[entry("web.service", 1, run)]).await;
        within!(30, machine.report("web.service", 1).await.is_some_and(|r| r.run == run));
        assert!(agent.outlook.frozen.borrow().is_none(), "{:?}", agent.outlook.frozen.borrow());
        drop(agent);
    }
}

/// Reads the report's head and whether a unit is in the report, at one moment.
async fn head_and(machine: &Machine, name: &str, token: i64) -> Option<(ReportHead, bool)> {
    let keys = [Key::ReportHead(machine.id), Key::Report(machine.id, Bucket::of(&unit(name)))];
    let then = keys.iter().map(|key| Operation::Get(KeyRange::key(machine.keys.spell(key)))).collect();
    let answer = machine.faults.store().txn(Txn { then, ..Txn::default() }).await.expect("read");
    let mut values = answer.gets.into_iter().filter_map(|kvs| kvs.into_iter().next());
    let head = ReportHead::decode("head", &values.next()?.value).expect("a record");
    let bucket = ReportBucket::decode("bucket", &values.next()?.value).expect("a record");
    let there = |report: &flotilla_registry::records::UnitReport| {
        report.unit == unit(name) && report.token.is_some_and(|t| t.0 == token)
    };
    Some((head, bucket.units.iter().any(there)))
}

#[tokio::test(start_paused = true)]
async fn the_head_vouches_for_no_bucket_that_is_not_written() {
    let machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    let _agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    for step in 0..25_u64 {
        let other = format!("other-{step}.service");
        assert_ne!(Bucket::of(&unit("web.service")), Bucket::of(&unit("other-0.service")));
        let (token, run) = (10 + step as i64, 2 + step);
        machine.faults.lose_replies(1);
        machine.faults.slow(Duration::from_millis(400), Duration::from_millis(400));
        machine.order(&[entry("web.service", 1, run)]).await;
        // While the outcome of the report's write is looked for, another unit has something to tell.
        sleep(Duration::from_millis(5_000 + step * 50)).await;
        let order = machine.order(&[entry("web.service", 1, run), entry(&other, token, 1)]).await;
        loop {
            sleep(Duration::from_millis(5)).await;
            let Some((head, there)) = head_and(&machine, &other, token).await else { continue };
            if head.seen >= order {
                assert!(there, "step {step}: the order is seen, and its unit not reported");
                break;
            }
        }
        machine.faults.slow(Duration::ZERO, Duration::ZERO);
        pass(5).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_a_machine_starts_nothing_while_the_original_is_only_stopped() {
    let machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    let agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    agent.stop().await.expect("in order");
    let twin = Machine::over(machine.store.clone(), machine.faults.clone(), 2, "beta");
    let copy = twin.start();
    pass(100).await;
    assert!(twin.starts("web.service").is_empty(), "it runs on the original");
    // Not either when the store goes away meanwhile: the original's registration may still live.
    machine.faults.set_link(Link::Cut);
    pass(100).await;
    assert!(twin.starts("web.service").is_empty(), "it runs on the original");
    machine.faults.set_link(Link::Up);
    pass(60).await;
    assert!(twin.starts("web.service").is_empty(), "it runs on the original");
    let agent = machine.start();
    within!(5, agent.is_registered());
    let ended = tokio::time::timeout(Duration::from_secs(60), copy.task).await.expect("it ends");
    assert!(ended.expect("no panic").is_err(), "refused");
    assert!(twin.starts("web.service").is_empty() && agent.is_registered());
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_copy_was_registered_takes_part_once_that_has_ended() {
    let machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    let agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    agent.stop().await.expect("in order");
    let twin = Machine::over(machine.store.clone(), machine.faults.clone(), 2, "beta");
    let copy = twin.start();
    pass(295).await;
    assert!(twin.starts("web.service").is_empty());
    within!(20, copy.is_registered());
    within!(5, twin.starts("web.service").len() == 1);
}

#[tokio::test(start_paused = true)]
async fn a_registration_is_kept_before_there_is_a_systemd() {
    let machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    let agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    let incarnation = nonce(&machine).await;
    drop(agent);
    let stop = CancellationToken::new();
    let kept = {
        let (settings, store) = (machine.settings(), machine.store.clone());
        let (keys, stop) = (machine.keys.clone(), stop.clone());
        tokio::spawn(async move { keep_registration(&settings, &store, &keys, stop).await })
    };
    pass(60).await;
    assert_eq!(nonce(&machine).await, incarnation, "its lease ended");
    assert!(machine.record().await.is_some_and(|record| !record.stopped));
    stop.cancel();
    kept.await.expect("no panic").expect("in order");
    assert!(was_stopped(&machine).await);
    assert_eq!(nonce(&machine).await, incarnation);
}

#[tokio::test(start_paused = true)]
async fn a_large_cluster_takes_the_longer_lease_at_the_next_grant() {
    let machine = Machine::new().await;
    machine.order(&[]).await;
    let agent = machine.start();
    within!(5, agent.is_registered());
    let record = machine.record().await.expect("registered");
    assert_eq!(record.lease_ttl_s, 10);
    let other = |n: u64| {
        // Of random ids as many begin with each digit.
        let key = Key::Machine(format!("{:x}{n:031x}", n % 16).parse().expect("an id"));
        (key, MachineRecord { nonce: n.to_string(), ..record.clone() }.encode())
    };
    machine.put((1..=16).map(other).collect()).await;
    // A cluster of more than five machines is a large one here.
    let timing = Timing { large_cluster_machines: 5, ..Timing::default() };
    let settings = || flotilla_agent::Settings { timing: timing.clone(), ..machine.settings() };
    agent.stop().await.expect("in order");
    let agent = machine.start_with(settings());
    within!(5, agent.is_registered());
    assert_eq!(machine.record().await.map(|record| record.lease_ttl_s), Some(30));
    machine.faults.store().lease_revoke(machine.record().await.expect("there").lease).await.expect("revoked");
    within!(30, machine.record().await.is_none());
    within!(30, machine.record().await.is_some());
    assert_eq!(machine.record().await.map(|record| record.lease_ttl_s), Some(30));
}
