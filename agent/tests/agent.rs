//! The agent over a store with faults and a fake systemd, under virtual time.

#![allow(clippy::expect_used, clippy::panic, reason = "tests say what must hold in the shortest way")]

#[path = "machine/machine.rs"]
mod machine;

use std::time::Duration;

use flotilla_agent::{
    AgentError, RegistrationError, hand_back,
    systemd::fake::{Behaviour, Exit, OnStart},
};
use flotilla_registry::{
    keys::{Bucket, Key},
    records::{ManifestEntry, Target},
    store::{Revision, embedded::EmbeddedStore, faults::Link},
};
use flotilla_units::ContentHash;
use machine::{Machine, departing, entry, pass, text, unit};
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn a_unit_in_the_manifest_runs_and_is_reported() {
    let machine = Machine::new().await;
    let order = machine.order(&[entry("web.service", 1, 1)]).await;
    let agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    let report = machine.report("web.service", 1).await.expect("there");
    assert_eq!((report.run, report.hash), (1, Some(ContentHash::of(text("a").as_bytes()))));
    within!(1, machine.head().await.is_some_and(|head| head.seen >= order));
    let record = machine.record().await.expect("registered");
    assert_eq!(machine.head().await.expect("there").incarnation, record.nonce);
    assert!(agent.is_registered() && !record.stopped);
}

#[tokio::test(start_paused = true)]
async fn a_placement_is_reported_at_once_and_the_rest_together() {
    let machine = Machine::new().await;
    machine.order(&[]).await;
    let agent = machine.start();
    within!(5, agent.is_registered());
    pass(1).await;
    let begun = tokio::time::Instant::now();
    machine.order(&[entry("web.service", 1, 1)]).await;
    within!(1, machine.is("web.service", 1, "active").await);
    assert!(begun.elapsed() < Duration::from_millis(30), "{:?}", begun.elapsed());
    pass(1).await;
    let calls = machine.faults.calls();
    let many: Vec<_> = (0..100).map(|n| entry(&format!("web@{n}.service"), 2 + n, 1)).collect();
    let order = machine.order(&many).await;
    within!(2, machine.head().await.is_some_and(|head| head.seen >= order));
    for n in 0..100 {
        within!(2, machine.is(&format!("web@{n}.service"), 2 + n, "active").await);
    }
    let spent = machine.faults.calls() - calls;
    assert!(spent < 20, "{spent} calls of the store for 100 units");
}

#[tokio::test(start_paused = true)]
async fn an_idle_machine_writes_nothing() {
    let machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    let _agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    pass(5).await;
    let revision = machine.faults.store().status().await.expect("status").revision;
    pass(60).await;
    assert_eq!(machine.faults.store().status().await.expect("status").revision, revision);
}

#[tokio::test(start_paused = true)]
async fn killed_stopped_and_restarted_agents_touch_nothing() {
    let machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1), entry("job.service", 2, 1)]).await;
    machine.systemd.behave(&unit("job.service"), Behaviour::oneshot(Duration::from_millis(50)));
    let agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    within!(5, machine.starts("job.service").len() == 1);
    pass(1).await;
    let (invocation, incarnation) = (machine.invocation("web.service"), machine.record().await);
    drop(agent);
    pass(3).await;
    let agent = machine.start();
    within!(5, agent.is_registered());
    pass(2).await;
    assert_eq!(
        machine.record().await.map(|r| r.nonce),
        incarnation.clone().map(|r| r.nonce),
        "same incarnation"
    );
    agent.stop().await.expect("in order");
    let stopped = machine.record().await.expect("its keys live on");
    assert!(stopped.stopped && stopped.lease_ttl_s == 300);
    assert!(machine.is("web.service", 1, "active").await);
    pass(200).await;
    let agent = machine.start();
    within!(5, agent.is_registered());
    pass(30).await;
    let back = machine.record().await.expect("registered");
    assert!(
        !back.stopped
            && back.lease_ttl_s == 10
            && Some(&back.nonce) == incarnation.as_ref().map(|r| &r.nonce)
    );
    assert_eq!(machine.invocation("web.service"), invocation);
    assert_eq!((machine.starts("web.service").len(), machine.starts("job.service").len()), (1, 1));
    assert!(machine.systemd.stops().iter().all(|s| s.unit == unit("job.service")), "nothing was stopped");
}

#[tokio::test(start_paused = true)]
async fn a_higher_run_restarts_and_a_newer_placement_brings_its_content() {
    let machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    let _agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    machine.order(&[entry("web.service", 1, 2)]).await;
    within!(5, machine.report("web.service", 1).await.is_some_and(|r| r.run == 2 && r.active == "active"));
    let b = ContentHash::of(text("b").as_bytes());
    machine.order(&[ManifestEntry { hash: b, ..entry("web.service", 5, 2) }]).await;
    within!(
        5,
        machine.report("web.service", 5).await.is_some_and(|r| r.hash == Some(b) && r.active == "active")
    );
    assert_eq!(machine.starts("web.service"), [(1, 1), (1, 2), (5, 2)]);
}

/// A content under the same token and run runs as the one before it: nobody is disturbed, whatever
/// happens to the agent meanwhile.
#[tokio::test(start_paused = true)]
async fn a_content_that_runs_alike_is_taken_over_without_a_restart() {
    let mut machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    let agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    let invocation = machine.invocation("web.service");
    let (a, b) = (ContentHash::of(text("a").as_bytes()), ContentHash::of(text("b").as_bytes()));
    let alike = ManifestEntry { hash: b, ..entry("web.service", 1, 1) };
    machine.order(std::slice::from_ref(&alike)).await;
    within!(
        5,
        machine.report("web.service", 1).await.is_some_and(|r| r.hash == Some(b) && r.active == "active")
    );
    drop(agent);
    pass(2).await;
    let agent = machine.start();
    within!(5, agent.is_registered());
    pass(5).await;
    assert_eq!(machine.report("web.service", 1).await.expect("there").hash, Some(b));
    assert_eq!((machine.invocation("web.service"), machine.starts("web.service").len()), (invocation, 1));
    assert!(machine.systemd.stops().is_empty());
    assert_eq!(machine.systemd.look()[0].file, Some(a), "the file that it runs from");
    machine
        .order(&[ManifestEntry { run: 2, token: flotilla_registry::records::Token(2), ..alike.clone() }])
        .await;
    within!(5, machine.is("web.service", 2, "active").await);
    assert_eq!(machine.systemd.look()[0].file, Some(b), "the next start's");
    drop(agent);
    machine.reboot();
    let _agent = machine.start();
    within!(
        20,
        machine.systemd.look().first().is_some_and(|it| it.file == Some(b) && it.state.active == "active")
    );
}

#[tokio::test(start_paused = true)]
async fn a_departing_unit_is_stopped_and_proven_gone_also_after_a_reboot() {
    let mut machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1), entry("db.service", 2, 1)]).await;
    let agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await && machine.is("db.service", 2, "active").await);
    let order = machine.order(&[departing("web.service", 1), entry("db.service", 2, 1)]).await;
    within!(5, machine.is_gone("web.service", 1, order).await);
    assert!(!machine.systemd.is_running(&unit("web.service")));
    assert!(machine.systemd.is_running(&unit("db.service")));
    drop(agent);
    machine.reboot();
    let _agent = machine.start();
    within!(30, machine.starts("db.service").len() == 2);
    within!(30, machine.is_gone("web.service", 1, order).await);
    assert_eq!(machine.starts("web.service").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_in_flight_is_overtaken_by_its_departure() {
    let machine = Machine::new().await;
    let hangs = Behaviour { start: OnStart::Hangs, ..Behaviour::default() };
    machine.systemd.behave(&unit("web.service"), hangs);
    machine.order(&[entry("web.service", 1, 1)]).await;
    let _agent = machine.start();
    within!(5, machine.is("web.service", 1, "activating").await);
    let order = machine.order(&[departing("web.service", 1)]).await;
    within!(2, machine.is_gone("web.service", 1, order).await);
    assert!(!machine.systemd.is_running(&unit("web.service")));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_still_queued_is_taken_back_before_its_unit_is_reported_gone() {
    let machine = Machine::new().await;
    let queued = Behaviour { waits: Duration::from_secs(60), ..Behaviour::default() };
    machine.systemd.behave(&unit("web.service"), queued);
    machine.order(&[entry("web.service", 1, 1)]).await;
    let agent = machine.start();
    within!(5, machine.systemd.look().iter().any(|p| p.state.job));
    assert!(machine.is("web.service", 1, "inactive").await);
    // Another agent finds the job and did not queue it.
    drop(agent);
    let _agent = machine.start();
    within!(5, machine.is("web.service", 1, "inactive").await);
    let order = machine.order(&[departing("web.service", 1)]).await;
    within!(2, machine.is_gone("web.service", 1, order).await);
    assert!(machine.systemd.look().iter().all(|p| !p.state.job), "gone, and still queued");
    pass(120).await;
    assert!(machine.starts("web.service").is_empty(), "it was started although it was gone");
}

#[tokio::test(start_paused = true)]
async fn one_unit_that_hangs_delays_no_other_and_not_seen() {
    let machine = Machine::new().await;
    machine
        .systemd
        .behave(&unit("slow.service"), Behaviour { start: OnStart::Hangs, ..Behaviour::default() });
    let order = machine.order(&[entry("slow.service", 1, 1), entry("web.service", 2, 1)]).await;
    let _agent = machine.start();
    within!(5, machine.is("web.service", 2, "active").await);
    within!(1, machine.head().await.is_some_and(|head| head.seen >= order));
}

#[tokio::test(start_paused = true)]
async fn a_failing_start_is_tried_again_and_shown_until_it_succeeds() {
    let machine = Machine::new().await;
    let fails = Behaviour { start: OnStart::Fails(3), ..Behaviour::default() };
    machine.systemd.behave(&unit("web.service"), fails);
    machine.order(&[entry("web.service", 1, 1)]).await;
    let agent = machine.start();
    within!(30, machine.starts("web.service").len() >= 4);
    let report = machine.report("web.service", 1).await.expect("reported");
    assert_eq!((report.result.as_deref(), report.exit_status), (Some("exit-code"), Some(3)), "{report:?}");
    assert!(report.problem.is_some_and(|p| p.contains("`failed`")));
    drop(agent);
    let tried = machine.starts("web.service").len();
    let _agent = machine.start();
    within!(70, machine.starts("web.service").len() > tried);
    machine.systemd.behave(&unit("web.service"), Behaviour::default());
    within!(90, machine.is("web.service", 1, "active").await);
    within!(1, machine.report("web.service", 1).await.is_some_and(|r| r.problem.is_none()));
}

#[tokio::test(start_paused = true)]
async fn local_hands_are_respected() {
    let machine = Machine::new().await;
    machine.systemd.add_local_unit(&unit("ssh.service"));
    machine.order(&[entry("web.service", 1, 1), entry("ssh.service", 2, 1)]).await;
    let _agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    within!(
        5,
        machine
            .report("ssh.service", 2)
            .await
            .is_some_and(|r| r.problem.is_some_and(|p| p.contains("Rename")))
    );
    machine.systemd.stop_locally(&unit("web.service"));
    within!(5, machine.report("web.service", 1).await.is_some_and(|r| r.stopped_locally));
    pass(120).await;
    assert_eq!(machine.starts("web.service").len(), 1, "it stays stopped");
    machine.order(&[entry("web.service", 1, 2)]).await;
    within!(5, machine.is("web.service", 1, "active").await);
    machine.systemd.end(&unit("web.service"), Exit::Failed(1));
    within!(5, machine.is("web.service", 1, "failed").await);
    pass(120).await;
    assert_eq!(machine.starts("web.service").len(), 2, "systemd's Restart= decides");
}

#[tokio::test(start_paused = true)]
async fn loaded_units_have_a_file_and_strays_are_left_alone() {
    let machine = Machine::new().await;
    let loaded = ManifestEntry { target: Target::Loaded, ..entry("web.service", 1, 1) };
    machine.order(&[loaded.clone(), entry("db.service", 2, 1)]).await;
    let _agent = machine.start();
    within!(5, machine.report("web.service", 1).await.is_some_and(|r| r.hash == Some(loaded.hash)));
    within!(5, machine.is("db.service", 2, "active").await);
    assert!(machine.starts("web.service").is_empty());
    machine.order(&[loaded]).await;
    within!(5, machine.report("db.service", 2).await.is_some_and(|r| r.stray && r.active == "active"));
    pass(60).await;
    assert!(machine.systemd.is_running(&unit("db.service")));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_changes_nothing_and_a_lost_lease_registers_anew() {
    let machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    let agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    let first = machine.record().await.expect("registered");
    machine.faults.set_link(Link::Cut);
    pass(60).await;
    assert!(machine.record().await.is_none(), "its lease ended");
    machine.order(&[entry("web.service", 1, 1), entry("db.service", 2, 1)]).await;
    machine.faults.set_link(Link::Up);
    within!(20, machine.record().await.is_some_and(|r| r.nonce != first.nonce));
    within!(10, machine.is("db.service", 2, "active").await && machine.is("web.service", 1, "active").await);
    assert_eq!(machine.starts("web.service").len(), 1);
    assert!(agent.is_registered());
}

#[tokio::test(start_paused = true)]
async fn an_order_heard_while_the_machine_registers_again_is_seen() {
    let machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    let _agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    // Half of a call's time it is on its way there, half on its way back: some of these orders come
    // while the whole report is on its way.
    machine.faults.slow(Duration::from_millis(400), Duration::from_millis(400));
    for step in 0..30 {
        let lease = machine.record().await.expect("registered").lease;
        machine.faults.store().lease_revoke(lease).await.expect("revoked");
        within!(10, machine.record().await.is_none());
        sleep(Duration::from_millis(step * 150)).await;
        let order = machine.order(&[entry("web.service", 1, 1)]).await;
        within!(20, machine.head().await.is_some_and(|head| head.seen >= order));
    }
    assert_eq!(machine.starts("web.service").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn lost_replies_are_resolved_by_reading() {
    let machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    machine.faults.lose_replies(3);
    let _agent = machine.start();
    within!(60, machine.is("web.service", 1, "active").await);
    let incarnation = machine.record().await.expect("registered").nonce;
    machine.faults.lose_replies(2);
    let order = machine.order(&[departing("web.service", 1)]).await;
    within!(60, machine.is_gone("web.service", 1, order).await);
    assert_eq!(machine.record().await.expect("registered").nonce, incarnation);
}

#[tokio::test(start_paused = true)]
async fn after_a_boot_without_the_store_units_start_from_memory() {
    let mut machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    let agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    pass(5).await;
    drop(agent);
    machine.reboot();
    machine.faults.set_link(Link::Hung);
    let begun = tokio::time::Instant::now();
    let agent = machine.start();
    within!(90, machine.starts("web.service").len() == 2);
    assert!(begun.elapsed() >= Duration::from_secs(60), "{:?}", begun.elapsed());
    machine.faults.set_link(Link::Up);
    within!(60, agent.is_registered());
    within!(10, machine.is("web.service", 1, "active").await);
    assert_eq!(machine.starts("web.service").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_freezes_everything() {
    let machine = Machine::new().await;
    machine.systemd.behave(&unit("bad.service"), Behaviour::fails(1));
    let old = [entry("web.service", 1, 1), departing("db.service", 2), entry("bad.service", 4, 1)];
    for _ in 0..50 {
        // The store counts further than the one that takes its place will for long.
        machine.order(&old).await;
    }
    // A store that was wiped.
    let backup = EmbeddedStore::in_memory().snapshot();
    let agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    let invocation = machine.invocation("web.service");
    machine.faults.restore(&backup);
    within!(60, agent.outlook.frozen.borrow().is_some());
    machine.order(&[departing("web.service", 1), entry("new.service", 3, 1)]).await;
    pass(120).await;
    assert_eq!(machine.invocation("web.service"), invocation, "nothing is stopped");
    assert!(machine.starts("new.service").is_empty(), "nothing is started");
    let tried = machine.starts("bad.service").len();
    assert!(tried > 0);
    machine.faults.slow(Duration::from_secs(3), Duration::from_secs(3));
    agent.outlook.witness.accept();
    pass(2).await;
    assert_eq!(machine.starts("bad.service").len(), tried, "the old store's orders count no more");
    machine.faults.slow(Duration::ZERO, Duration::ZERO);
    for content in ["a", "b"] {
        let text = text(content);
        let key = Key::Content(ContentHash::of(text.as_bytes()));
        machine.put(vec![(key, text.into_bytes())]).await;
    }
    within!(60, machine.is("new.service", 3, "active").await);
    within!(60, !machine.systemd.is_running(&unit("web.service")));
    assert_eq!(machine.starts("bad.service").len(), tried);
    let head = machine.head().await.expect("registered");
    let now = machine.put(vec![]).await;
    assert!(head.seen > Revision(0) && head.seen <= now, "{head:?} at {now:?}");
    let order = machine.order(&[departing("web.service", 1)]).await;
    within!(5, machine.is_gone("web.service", 1, order).await);
}

#[tokio::test(start_paused = true)]
async fn two_machines_with_one_id_are_told_apart() {
    let machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    let agent = machine.start();
    within!(5, agent.is_registered());
    let twin = Machine::over(machine.store.clone(), machine.faults.clone(), 2, "beta");
    let error = twin.start().task.await.expect("no panic").expect_err("refused");
    assert!(matches!(error, AgentError::Registration(RegistrationError::Duplicate { .. })), "{error}");
    let said = error.to_string();
    assert!(
        said.contains("alpha") && said.contains("beta") && said.contains("systemd-machine-id-setup"),
        "{said}"
    );
    assert!(twin.starts("web.service").is_empty(), "it started nothing");
    assert!(agent.is_registered());
}

#[tokio::test(start_paused = true)]
async fn a_crashed_machine_waits_for_its_old_lease_and_one_shut_down_does_not() {
    let mut machine = Machine::new().await;
    machine.order(&[entry("web.service", 1, 1)]).await;
    let agent = machine.start();
    within!(5, agent.is_registered());
    let first = machine.record().await.expect("registered").nonce;
    drop(agent);
    machine.reboot();
    let begun = tokio::time::Instant::now();
    let agent = machine.start();
    within!(15, agent.is_registered());
    assert!(begun.elapsed() > Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_ne!(machine.record().await.expect("registered").nonce, first);
    agent.stop().await.expect("in order");
    let store = machine.faults.store();
    let given = hand_back(&*store, &machine.keys, machine.id, &machine.run_folder()).await.expect("asked");
    assert!(given && machine.record().await.is_none());
    machine.reboot();
    let begun = tokio::time::Instant::now();
    let agent = machine.start();
    within!(5, agent.is_registered());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_manifest_stops_nothing_and_holds_seen_back() {
    let machine = Machine::new().await;
    let order = machine.order(&[entry("web.service", 1, 1)]).await;
    let _agent = machine.start();
    within!(5, machine.is("web.service", 1, "active").await);
    let key = Key::Manifest(machine.id, Bucket::of(&unit("web.service")));
    let broken: Revision = machine.put(vec![(key, b"{ not json".to_vec())]).await;
    pass(10).await;
    let head = machine.head().await.expect("there");
    assert!(head.seen >= order && head.seen < broken, "{head:?}");
    assert!(machine.systemd.is_running(&unit("web.service")));
}
