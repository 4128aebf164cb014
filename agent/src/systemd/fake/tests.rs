use tokio::time::{Instant, advance};

use super::*;

const TEXT: &str = "[Service]\nExecStart=/bin/sleep infinity\n";

fn name(text: &str) -> UnitName {
    text.parse().unwrap()
}

fn evidence(token: i64, run: u64) -> Evidence {
    Evidence {
        token: Token(token),
        run,
        hash: ContentHash::of(TEXT.as_bytes()),
        started: false,
        loaded: false,
    }
}

async fn state(fake: &FakeSystemd, unit: &UnitName) -> (String, String) {
    let state = fake.get(unit).await.unwrap().unwrap().state;
    (state.active, state.result)
}

#[tokio::test(start_paused = true)]
async fn a_unit_starts_runs_and_stops() {
    let (fake, unit) = (FakeSystemd::new(1), name("a.service"));
    fake.install(&unit, TEXT).await.unwrap();
    let before = Instant::now();
    assert_eq!(fake.start(&unit, &evidence(7, 1)).await.unwrap(), JobResult::Done);
    assert_eq!(before.elapsed(), Duration::from_millis(5));
    fake.mark_started(&unit).await.unwrap();
    let present = fake.get(&unit).await.unwrap().unwrap();
    assert_eq!((present.state.active.as_str(), present.state.cgroup_empty), ("active", false));
    assert!(present.evidence.unwrap().started);
    assert_eq!(fake.stop(&unit).await.unwrap(), JobResult::Done);
    assert_eq!(state(&fake, &unit).await.0, "inactive");
    assert_eq!(fake.starts_of(&unit, Token(7), 1), 1);
    assert_eq!(fake.stops().len(), 1);
    fake.remove(&unit).await.unwrap();
    assert_eq!(fake.get(&unit).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_second_start_joins_the_first_and_other_evidence_is_refused() {
    let (fake, unit) = (FakeSystemd::new(1), name("a.service"));
    fake.install(&unit, TEXT).await.unwrap();
    let (e7, e8) = (evidence(7, 1), evidence(8, 1));
    let (one, two) = tokio::join!(fake.start(&unit, &e7), fake.start(&unit, &e7));
    assert_eq!((one.unwrap(), two.unwrap()), (JobResult::Done, JobResult::Done));
    assert_eq!(fake.starts().len(), 1);
    assert!(matches!(fake.start(&unit, &e8).await, Err(SystemdError::StillLoaded(_))));
    assert!(matches!(fake.install(&unit, "[Service]\n").await, Err(SystemdError::StillLoaded(_))));
    assert_eq!(fake.look()[0].evidence.as_ref().unwrap().token, Token(7));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_start_goes_on() {
    let (fake, unit) = (FakeSystemd::new(1), name("a.service"));
    fake.install(&unit, TEXT).await.unwrap();
    let e7 = evidence(7, 1);
    let start = fake.start(&unit, &e7);
    assert!(tokio::time::timeout(Duration::from_millis(1), start).await.is_err());
    assert_eq!(state(&fake, &unit).await.0, "activating");
    advance(Duration::from_millis(10)).await;
    tokio::task::yield_now().await;
    assert_eq!(state(&fake, &unit).await.0, "active");
}

#[tokio::test(start_paused = true)]
async fn failures_oneshots_and_restarts() {
    let fake = FakeSystemd::new(1);
    let [bad, once, late, loops] = ["bad", "once", "late", "loops"].map(|n| name(&format!("{n}.service")));
    fake.behave(&bad, Behaviour::fails(203));
    fake.behave(&once, Behaviour::oneshot(Duration::from_secs(3)));
    fake.behave(&late, Behaviour::fails_after(Duration::from_secs(10), 1));
    fake.behave(
        &loops,
        Behaviour { ends: Some((Duration::from_secs(4), Exit::Restarted)), ..Behaviour::default() },
    );
    let mut results = Vec::new();
    for unit in [&bad, &once, &late, &loops] {
        fake.install(unit, TEXT).await.unwrap();
        results.push(fake.start(unit, &evidence(1, 1)).await.unwrap());
    }
    assert_eq!(results, [JobResult::Failed, JobResult::Done, JobResult::Done, JobResult::Done]);
    let failed = fake.get(&bad).await.unwrap().unwrap().state;
    assert_eq!((failed.active.as_str(), failed.exit_status), ("failed", Some(203)));
    assert_eq!(state(&fake, &once).await, ("inactive".to_owned(), String::new()));
    sleep(Duration::from_secs(11)).await;
    assert_eq!(state(&fake, &late).await, ("failed".to_owned(), "exit-code".to_owned()));
    let looping = fake.get(&loops).await.unwrap().unwrap().state;
    assert!(looping.restarts >= 2, "{looping:?}");
    assert_eq!(fake.starts_of(&loops, Token(1), 1), 1);
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_ignores_stop_is_killed_and_one_that_survives_is_not_gone() {
    let fake = FakeSystemd::new(1);
    let (deaf, stuck) = (name("deaf.service"), name("stuck.service"));
    let after = Duration::from_secs(90);
    fake.behave(&deaf, Behaviour { stop: OnStop::Ignores(after), ..Behaviour::default() });
    fake.behave(&stuck, Behaviour { stop: OnStop::Survives(after), ..Behaviour::default() });
    for unit in [&deaf, &stuck] {
        fake.install(unit, TEXT).await.unwrap();
        fake.start(unit, &evidence(1, 1)).await.unwrap();
    }
    let before = Instant::now();
    assert_eq!(fake.stop(&deaf).await.unwrap(), JobResult::Done);
    assert_eq!(before.elapsed(), after);
    assert_eq!(state(&fake, &deaf).await.0, "inactive");
    fake.stop(&stuck).await.unwrap();
    assert!(!fake.get(&stuck).await.unwrap().unwrap().state.cgroup_empty);
    assert!(fake.is_running(&stuck));
    assert!(matches!(fake.remove(&stuck).await, Err(SystemdError::StillLoaded(_))));
}

#[tokio::test(start_paused = true)]
async fn a_stop_cancels_a_start_that_hangs() {
    let (fake, unit) = (FakeSystemd::new(1), name("a.service"));
    fake.behave(&unit, Behaviour { start: OnStart::Hangs, ..Behaviour::default() });
    fake.install(&unit, TEXT).await.unwrap();
    let e7 = evidence(7, 1);
    let stop = async {
        sleep(Duration::from_secs(60)).await;
        fake.stop(&unit).await
    };
    let (started, stopped) = tokio::join!(fake.start(&unit, &e7), stop);
    assert_eq!((started.unwrap(), stopped.unwrap()), (JobResult::Canceled, JobResult::Done));
}

#[tokio::test(start_paused = true)]
async fn foreign_units_full_disks_and_silence_are_told() {
    let (fake, unit, own) = (FakeSystemd::new(1), name("a.service"), name("own.service"));
    fake.add_local_unit(&own);
    assert!(matches!(fake.install(&own, TEXT).await, Err(SystemdError::Foreign { .. })));
    assert_eq!(fake.stop(&own).await.unwrap(), JobResult::Done, "nothing of flotilla's runs under its name");
    fake.set_disk_full(true);
    assert!(matches!(fake.install(&unit, TEXT).await, Err(SystemdError::File { .. })));
    assert_eq!(fake.get(&unit).await.unwrap(), None);
    fake.set_disk_full(false);
    fake.set_answering(false);
    let before = Instant::now();
    assert!(matches!(fake.list().await, Err(SystemdError::NoAnswer { seconds: 25, .. })));
    assert_eq!(before.elapsed(), Duration::from_secs(25));
}

#[tokio::test(start_paused = true)]
async fn a_reboot_takes_evidence_and_units_and_tells_everything() {
    let (fake, unit) = (FakeSystemd::new(1), name("a.service"));
    fake.install(&unit, TEXT).await.unwrap();
    fake.start(&unit, &evidence(7, 1)).await.unwrap();
    fake.reboot();
    assert!(fake.list().await.unwrap().is_empty());
    assert_eq!(fake.stops().last().unwrap().by, Cause::Reboot);
    let mut changes = fake.changes().await.unwrap();
    assert_eq!(changes.recv().await, Some(Change::Everything));
}

#[tokio::test(start_paused = true)]
async fn changes_tell_of_local_stops() {
    let (fake, unit) = (FakeSystemd::new(1), name("a.service"));
    fake.install(&unit, TEXT).await.unwrap();
    fake.start(&unit, &evidence(7, 1)).await.unwrap();
    let mut changes = fake.changes().await.unwrap();
    assert_eq!(changes.recv().await, Some(Change::Unit(unit.clone())));
    fake.stop_locally(&unit);
    assert_eq!(changes.recv().await, Some(Change::Unit(unit.clone())));
    assert_eq!(fake.stops().last().unwrap().by, Cause::Local);
}

#[tokio::test(start_paused = true)]
async fn history_outlives_what_systemd_forgets() {
    let fake = FakeSystemd::new(1);
    let (once, stopped) = (name("once.service"), name("stopped.service"));
    fake.behave(&once, Behaviour::oneshot(Duration::from_secs(1)));
    for unit in [&once, &stopped] {
        fake.install(unit, TEXT).await.unwrap();
        assert_eq!(fake.history(unit).await.unwrap(), History::default());
        fake.start(unit, &evidence(1, 1)).await.unwrap();
        let started = History { start: Some(JobResult::Done), stopped_by_job: false };
        assert_eq!(fake.history(unit).await.unwrap(), started);
    }
    fake.stop_locally(&stopped);
    assert!(fake.history(&stopped).await.unwrap().stopped_by_job);
    fake.start(&stopped, &evidence(1, 2)).await.unwrap();
    assert!(!fake.history(&stopped).await.unwrap().stopped_by_job);
}
