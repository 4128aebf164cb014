//! What happens between two steps of a unit: agents killed, disks filled, processes left behind, and
//! other hands on the machine.

#![allow(
    clippy::expect_used,
    clippy::panic,
    dead_code,
    reason = "tests say what must hold in the shortest way; the machine has more than this test needs"
)]

#[path = "machine/machine.rs"]
mod machine;

use std::time::Duration;

use flotilla_agent::systemd::fake::{Behaviour, Exit, OnStop};
use flotilla_registry::records::{ManifestEntry, Target};
use flotilla_units::ContentHash;
use machine::{Machine, departing, entry, pass, unit};
use tokio::time::sleep;

const WEB: &str = "web.service";

fn loaded(token: i64, run: u64) -> ManifestEntry {
    ManifestEntry { target: Target::Loaded, ..entry(WEB, token, run) }
}

async fn problem(machine: &Machine, token: i64) -> String {
    machine.report(WEB, token).await.and_then(|report| report.problem).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_unit_is_gone_only_when_its_files_are() {
    let machine = Machine::new().await;
    machine
        .systemd
        .behave(&unit(WEB), Behaviour { lingers: Duration::from_millis(500), ..Behaviour::default() });
    machine.order(&[entry(WEB, 1, 1)]).await;
    let agent = machine.start();
    within!(5, machine.is(WEB, 1, "active").await);
    let order = machine.order(&[departing(WEB, 1)]).await;
    within!(5, machine.is(WEB, 1, "inactive").await);
    sleep(Duration::from_millis(200)).await;
    assert!(!machine.is_gone(WEB, 1, order).await, "the engine would forget it, and nobody remove its files");
    // Killed in the middle of their removal.
    drop(agent);
    pass(2).await;
    let _agent = machine.start();
    within!(20, machine.is_gone(WEB, 1, order).await);
    assert!(machine.systemd.look().is_empty(), "{:?}", machine.systemd.look());
}

#[tokio::test(start_paused = true)]
async fn processes_that_outlive_a_stop_do_not_keep_their_unit_down() {
    let machine = Machine::new().await;
    let leaves = Behaviour { stop: OnStop::LeavesBehind(Duration::from_millis(2)), ..Behaviour::default() };
    machine.systemd.behave(&unit(WEB), leaves);
    machine.order(&[entry(WEB, 1, 1)]).await;
    let _agent = machine.start();
    within!(5, machine.is(WEB, 1, "active").await);
    machine.order(&[entry(WEB, 1, 2)]).await;
    within!(5, machine.report(WEB, 1).await.is_some_and(|r| r.run == 2 && r.active == "active"));
    let order = machine.order(&[departing(WEB, 1)]).await;
    within!(5, problem(&machine, 1).await.contains("left processes behind"));
    pass(120).await;
    assert!(!machine.is_gone(WEB, 1, order).await && machine.systemd.is_running(&unit(WEB)));
    machine.systemd.end(&unit(WEB), Exit::Clean);
    within!(70, machine.is_gone(WEB, 1, order).await);
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_cannot_be_prepared_stops_nothing() {
    let machine = Machine::new().await;
    machine.order(&[entry(WEB, 1, 1)]).await;
    let _agent = machine.start();
    within!(5, machine.is(WEB, 1, "active").await);
    let invocation = machine.invocation(WEB);
    machine.systemd.set_disk_full(true);
    machine.order(&[entry(WEB, 1, 2)]).await;
    within!(5, problem(&machine, 1).await.contains("cannot write /run/flotilla/env"));
    pass(120).await;
    assert_eq!(machine.invocation(WEB), invocation);
    machine.systemd.set_disk_full(false);
    within!(70, machine.starts(WEB) == [(1, 1), (1, 2)]);
    within!(5, machine.is(WEB, 1, "active").await);
    let invocation = machine.invocation(WEB);
    let hash = ContentHash::of(b"nobody has this text");
    machine.order(&[ManifestEntry { hash, ..entry(WEB, 2, 3) }]).await;
    within!(5, problem(&machine, 2).await.contains("is not in the store"));
    pass(120).await;
    assert_eq!(machine.invocation(WEB), invocation);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_up_after_the_stop_keeps_nothing_down() {
    let machine = Machine::new().await;
    let slow = Behaviour { stop: OnStop::Stops(Duration::from_secs(2)), ..Behaviour::default() };
    machine.systemd.behave(&unit(WEB), slow);
    machine.order(&[entry(WEB, 1, 1)]).await;
    let _agent = machine.start();
    within!(5, machine.is(WEB, 1, "active").await);
    machine.order(&[entry(WEB, 1, 2)]).await;
    within!(1, machine.is(WEB, 1, "deactivating").await);
    machine.systemd.set_disk_full(true);
    within!(5, machine.starts(WEB) == [(1, 1), (1, 2)]);
    assert!(machine.systemd.is_running(&unit(WEB)));
}

#[tokio::test(start_paused = true)]
async fn what_a_timer_starts_of_a_loaded_unit_runs_on() {
    let machine = Machine::new().await;
    machine.order(&[entry(WEB, 1, 1)]).await;
    let agent = machine.start();
    within!(5, machine.is(WEB, 1, "active").await);
    machine.order(&[loaded(1, 1)]).await;
    within!(5, machine.is(WEB, 1, "inactive").await);
    pass(1).await;
    machine.systemd.start_locally(&unit(WEB));
    within!(5, machine.is(WEB, 1, "active").await);
    let triggered = machine.invocation(WEB);
    pass(60).await;
    drop(agent);
    let _agent = machine.start();
    pass(60).await;
    assert_eq!(machine.invocation(WEB), triggered, "neither it nor a new agent stopped it");
    machine.order(&[loaded(2, 2)]).await;
    within!(5, machine.is(WEB, 2, "inactive").await);
    assert!(!machine.systemd.is_running(&unit(WEB)), "a new order not to run stops it once");
    machine.systemd.start_locally(&unit(WEB));
    machine.order(&[entry(WEB, 3, 3)]).await;
    within!(5, machine.is(WEB, 3, "active").await);
    assert_eq!(machine.starts(WEB), [(1, 1), (3, 3)]);
    let order = machine.order(&[departing(WEB, 3)]).await;
    within!(5, machine.is_gone(WEB, 3, order).await);
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_became_the_machines_own_leaves_once_it_is_at_rest() {
    let machine = Machine::new().await;
    machine.order(&[entry(WEB, 1, 1)]).await;
    let _agent = machine.start();
    within!(5, machine.is(WEB, 1, "active").await);
    machine.systemd.add_local_unit(&unit(WEB));
    let order = machine.order(&[departing(WEB, 1)]).await;
    within!(5, problem(&machine, 1).await.contains("systemctl stop web.service"));
    pass(120).await;
    assert!(!machine.is_gone(WEB, 1, order).await && machine.systemd.is_running(&unit(WEB)));
    machine.systemd.stop_locally(&unit(WEB));
    within!(70, machine.is_gone(WEB, 1, order).await);
    assert!(machine.systemd.look().is_empty());
}

fn adopted(token: i64, run: u64) -> ManifestEntry {
    ManifestEntry { adopt: true, ..entry(WEB, token, run) }
}

#[tokio::test(start_paused = true)]
async fn a_unit_of_the_machines_own_is_taken_over_as_it_runs_and_is_then_like_any_other() {
    let mut machine = Machine::new().await;
    let runs = machine.systemd.add_running_local_unit(&unit(WEB), &machine::text("a"));
    machine.order(&[adopted(1, 1)]).await;
    let _agent = machine.start();
    within!(5, machine.is(WEB, 1, "active").await);
    let report = machine.report(WEB, 1).await.expect("a report");
    assert_eq!((report.invocation, report.run, report.problem), (Some(runs.as_str().into()), 1, None));
    assert!(machine.starts(WEB).is_empty() && !machine.systemd.is_local(&unit(WEB)));
    // Stopped by hand it stays so, and is reported; started again it has its token.
    machine.systemd.stop_locally(&unit(WEB));
    within!(5, machine.report(WEB, 1).await.is_some_and(|report| report.stopped_locally));
    machine.order(&[adopted(1, 2)]).await;
    within!(5, machine.is(WEB, 1, "active").await);
    assert_eq!(machine.starts(WEB), [(1, 2)]);
    machine.reboot();
    let _agent = machine.start();
    within!(5, machine.starts(WEB) == [(1, 2), (1, 2)]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_killed_at_any_moment_of_it_ends_with_the_same_process_taken_over() {
    for killed_after_ms in (0..400).step_by(20) {
        let machine = Machine::new().await;
        let slow = Behaviour { lingers: Duration::from_millis(100), ..Behaviour::default() };
        machine.systemd.behave(&unit(WEB), slow);
        let runs = machine.systemd.add_running_local_unit(&unit(WEB), &machine::text("a"));
        machine.order(&[adopted(1, 1)]).await;
        let agent = machine.start();
        sleep(Duration::from_millis(killed_after_ms)).await;
        drop(agent);
        let _agent = machine.start();
        within!(30, machine.is(WEB, 1, "active").await);
        assert_eq!(machine.invocation(WEB), Some(runs), "killed after {killed_after_ms} ms");
        assert!(machine.starts(WEB).is_empty() && machine.systemd.stops().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn ordered_to_leave_in_the_middle_it_is_given_back_or_stopped_and_never_half_of_both() {
    let (mut given_back, mut stopped) = (0, 0);
    for left_after_ms in (0..400).step_by(20) {
        let machine = Machine::new().await;
        let slow = Behaviour { lingers: Duration::from_millis(100), ..Behaviour::default() };
        machine.systemd.behave(&unit(WEB), slow);
        machine.systemd.add_running_local_unit(&unit(WEB), &machine::text("a"));
        machine.order(&[adopted(1, 1)]).await;
        let agent = machine.start();
        sleep(Duration::from_millis(left_after_ms)).await;
        drop(agent);
        let order = machine.order(&[ManifestEntry { adopt: true, ..departing(WEB, 1) }]).await;
        let _agent = machine.start();
        within!(30, machine.is_gone(WEB, 1, order).await);
        let (runs, local) = (machine.systemd.is_running(&unit(WEB)), machine.systemd.is_local(&unit(WEB)));
        assert_eq!(runs, local, "left after {left_after_ms} ms");
        assert!(machine.systemd.look().is_empty());
        given_back += usize::from(local);
        stopped += usize::from(!local);
    }
    assert!(given_back > 0 && stopped > 0, "{given_back} {stopped}");
}

#[tokio::test(start_paused = true)]
async fn another_text_is_not_taken_over_and_runs_on() {
    let machine = Machine::new().await;
    machine.systemd.add_running_local_unit(&unit(WEB), &machine::text("b"));
    machine.order(&[adopted(1, 1)]).await;
    let _agent = machine.start();
    within!(5, problem(&machine, 1).await.contains("its files are others"));
    pass(120).await;
    assert!(machine.systemd.is_running(&unit(WEB)) && machine.systemd.is_local(&unit(WEB)));
    let order = machine.order(&[ManifestEntry { adopt: true, ..departing(WEB, 1) }]).await;
    within!(5, machine.is_gone(WEB, 1, order).await);
    assert!(machine.systemd.is_running(&unit(WEB)) && machine.systemd.is_local(&unit(WEB)));
}

/// What is bound to it, and what is bound to that; an agent may be killed at any time meanwhile.
#[tokio::test(start_paused = true)]
async fn what_an_ordered_restart_stopped_with_it_is_started_again() {
    for killed_after in [None, Some(0), Some(2), Some(4), Some(6), Some(9), Some(12), Some(20)] {
        let machine = Machine::new().await;
        let (side, far) = ("side.service", "far.service");
        machine.systemd.bind(&unit(side), &unit(WEB));
        machine.systemd.bind(&unit(far), &unit(side));
        let orders = |run| [entry(WEB, 1, run), entry(side, 2, 1), entry(far, 3, 1)];
        let agent = machine.start();
        machine.order(&orders(1)).await;
        for (name, token) in [(WEB, 1), (side, 2), (far, 3)] {
            within!(5, machine.is(name, token, "active").await);
        }
        let before = [side, far].map(|name| machine.invocation(name));
        machine.order(&orders(2)).await;
        let mut agent = Some(agent);
        if let Some(ms) = killed_after {
            sleep(Duration::from_millis(ms)).await;
            drop(agent.take());
            pass(2).await;
            agent = Some(machine.start());
        }
        within!(20, machine.report(WEB, 1).await.is_some_and(|it| it.run == 2 && it.active == "active"));
        for (n, name) in [side, far].into_iter().enumerate() {
            within!(20, machine.invocation(name).is_some_and(|now| Some(now) != before[n]));
            within!(5, machine.is(name, n as i64 + 2, "active").await);
            assert_eq!(machine.starts(name), [(n as i64 + 2, 1); 2], "{killed_after:?}");
        }
        // What is stopped by hand after that is, and told so.
        machine.systemd.stop_locally(&unit(side));
        within!(5, machine.report(side, 2).await.is_some_and(|it| it.stopped_locally));
        pass(60).await;
        assert_eq!(machine.starts(side).len(), 2);
        drop(agent);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_stopped_with_another_says_so_and_starts_when_that_does() {
    let machine = Machine::new().await;
    let side = "side.service";
    machine.systemd.bind(&unit(side), &unit(WEB));
    let _agent = machine.start();
    machine.order(&[entry(WEB, 1, 1), entry(side, 2, 1)]).await;
    within!(5, machine.is(side, 2, "active").await && machine.is(WEB, 1, "active").await);
    machine.order(&[loaded(1, 2), entry(side, 2, 1)]).await;
    let problem = async || machine.report(side, 2).await.and_then(|it| it.problem).unwrap_or_default();
    within!(5, problem().await.contains(WEB));
    let report = machine.report(side, 2).await.expect("a report");
    assert!(!report.stopped_locally && report.active == "inactive", "{report:?}");
    machine.order(&[entry(WEB, 1, 3), entry(side, 2, 1)]).await;
    within!(5, machine.is(side, 2, "active").await);
    assert_eq!((problem().await.as_str(), machine.starts(side).len()), ("", 2));
}
