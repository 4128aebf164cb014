//! The agent's systemd and journal against real ones: PID 1, dbus-daemon and journald of a lab
//! machine.
//!
//! Each test is its own machine. The test's program runs twice: on the host it boots the machine
//! and runs itself in there, for this one test; in the machine, where `/run` and the bus are the
//! machine's, it does what the test says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "systemd/adopting.rs"]
mod adopting;
#[path = "systemd/dependents.rs"]
mod dependents;
#[path = "systemd/machine.rs"]
mod machine;
#[path = "systemd/wanted.rs"]
mod wanted;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use flotilla_agent::{
    Known,
    journal::{JournalError, Journalctl, LogSource as _, Query},
    status::StatusSource as _,
    systemd::{Change, DbusSystemd, JobResult, Layout, Systemd as _, SystemdError},
};
use flotilla_integration_tests::{LIMIT, SLEEPER};
use flotilla_registry::records::Token;
use flotilla_units::{ContentHash, UnitName};
use futures_util::{StreamExt as _, future::join_all};
use tokio::time::{sleep, timeout};

use machine::{environment, eventually, evidence, get, hear, in_machine, kill_all, name, open, run, shell};

/// How often the journal's reader is killed while it reads.
const KILLS: usize = 5;

macro_rules! machine_tests {
    ($($(#[$doc:meta])* async fn $name:ident() $body:block)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            in_machine(stringify!($name), async $body);
        }
    )*};
}

machine_tests! {
    /// Plain units, instances of different texts side by side, and escaped names.
    async fn new_units_start_without_reload_and_carry_their_evidence() {
        let systemd = open().await;
        let units = ["a.service", "w@1.service", "w@2.service", "a\\x2db.service", "0-9:x_y.service"].map(name);
        for (token, unit) in (7..).zip(&units) {
            let text = format!("[Unit]\nDescription=number {token}\n{SLEEPER}");
            assert_eq!(run(&systemd, unit, &text, token).await, JobResult::Done);
            systemd.mark_started(unit).await.unwrap();
            let present = get(&systemd, unit).await;
            assert_eq!((present.state.active.as_str(), present.state.cgroup_empty), ("active", false));
            assert_eq!(present.state.invocation.unwrap().len(), 32);
            assert_eq!(present.file, Some(ContentHash::of(text.as_bytes())));
            let environment = environment(&systemd, unit).await;
            assert!(environment.contains(&format!("FLOTILLA_TOKEN={token}\nFLOTILLA_RUN=1\n")), "{environment}");
            assert!(environment.contains(&format!("FLOTILLA_UNIT={unit}\n")), "{environment}");
            let status = systemd.status(unit).await.unwrap();
            assert_eq!(status.description, format!("number {token}"));
            assert_eq!(status.processes.len(), 1, "{status:?}");
            assert!(status.main.unwrap().command.contains("sleep infinity"));
        }
        assert_eq!(systemd.reloads(), 0);
        // Another agent finds the same.
        let again = open().await;
        let found = again.list().await.unwrap();
        assert_eq!(found.len(), units.len());
        assert!(found.iter().all(|p| p.evidence.as_ref().unwrap().started && p.state.active == "active"));
        // Starting again under the same token does nothing; under another one it is refused.
        let before = get(&again, &units[0]).await.state.invocation;
        let text = format!("[Unit]\nDescription=number 7\n{SLEEPER}");
        assert_eq!(again.start(&units[0], &evidence(7, &text)).await.unwrap(), JobResult::Done);
        assert!(matches!(again.start(&units[0], &evidence(99, &text)).await, Err(SystemdError::StillLoaded(_))));
        assert_eq!(get(&again, &units[0]).await.state.invocation, before);
        for unit in &units {
            assert_eq!(again.stop(unit).await.unwrap(), JobResult::Done);
            again.remove(unit).await.unwrap();
            assert_eq!(again.get(unit).await.unwrap(), None);
        }
        let left = shell("find /run/flotilla/units /run/flotilla/env /run/flotilla/started /run/systemd/system -not -type d");
        assert_eq!(left, "");
    }

    async fn failures_conditions_and_oneshots_are_told_apart() {
        let systemd = open().await;
        let bad = name("bad.service");
        for _ in 0..8 {
            // More often than StartLimitBurst= allows within its interval.
            assert_eq!(run(&systemd, &bad, "[Service]\nType=exec\nExecStart=/bin/none\n", 1).await, JobResult::Failed);
            let state = get(&systemd, &bad).await.state;
            assert_eq!((state.active.as_str(), state.result.as_str(), state.exit_status), ("failed", "exit-code", Some(203)));
        }
        let exits = name("exits.service");
        assert_eq!(run(&systemd, &exits, "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'exit 7'\n", 1).await, JobResult::Failed);
        assert_eq!(get(&systemd, &exits).await.state.exit_status, Some(7));
        // From the journal, which has it a moment later.
        eventually("the history", async || systemd.history(&exits).await.unwrap().start == Some(JobResult::Failed)).await;
        let once = name("once.service");
        assert_eq!(run(&systemd, &once, "[Service]\nType=oneshot\nExecStart=/bin/true\n", 1).await, JobResult::Done);
        let state = get(&systemd, &once).await.state;
        assert_eq!((state.active.as_str(), state.cgroup_empty), ("inactive", true));
        let unmet = name("unmet.service");
        let text = format!("[Unit]\nConditionPathExists=/none\n{SLEEPER}");
        // As `systemctl start`: there was nothing to do, and it was done.
        assert_eq!(run(&systemd, &unmet, &text, 1).await, JobResult::Done);
        assert_eq!(get(&systemd, &unmet).await.state.active, "inactive");
        // A failed unit's file may change at once.
        assert_eq!(run(&systemd, &bad, SLEEPER, 2).await, JobResult::Done);
    }

    async fn stop_runs_exec_stop_and_processes_that_stay_are_seen() {
        let systemd = open().await;
        let unit = name("polite.service");
        let text = format!("{SLEEPER}ExecStop=/bin/sh -c 'sleep 0.5; echo stopped > /run/stopped'\n");
        run(&systemd, &unit, &text, 1).await;
        assert_eq!(systemd.stop(&unit).await.unwrap(), JobResult::Done);
        assert_eq!(fs::read_to_string("/run/stopped").unwrap(), "stopped\n");
        let stays = name("stays.service");
        let text = "[Service]\nKillMode=process\nExecStart=/bin/sh -c 'setsid sleep 300 & exec sleep infinity'\n";
        run(&systemd, &stays, text, 1).await;
        eventually("both processes", async || systemd.status(&stays).await.unwrap().processes.len() == 2).await;
        systemd.stop(&stays).await.unwrap();
        let state = get(&systemd, &stays).await.state;
        assert!(!state.cgroup_empty, "{state:?}");
        assert!(matches!(systemd.remove(&stays).await, Err(SystemdError::StillLoaded(_))));
        // As `systemctl restart` starts it anew, so does flotilla, also from another text.
        assert_eq!(systemd.start(&stays, &evidence(2, text)).await.unwrap(), JobResult::Done);
        systemd.stop(&stays).await.unwrap();
        assert_eq!(run(&systemd, &stays, SLEEPER, 3).await, JobResult::Done);
        // That one's stop ends all of them.
        systemd.stop(&stays).await.unwrap();
        assert!(get(&systemd, &stays).await.state.at_rest());
        systemd.remove(&stays).await.unwrap();
    }

    /// A start that waits for another unit's leaves its unit inactive, for as long as that takes.
    async fn a_stop_takes_back_a_start_that_waits_for_another_unit() {
        let systemd = Arc::new(open().await);
        let (db, web) = (name("db.service"), name("web.service"));
        systemd.install(&db, "[Service]\nType=oneshot\nExecStart=/bin/sleep 4\n").await.unwrap();
        let text = "[Unit]\nAfter=db.service\n[Service]\nExecStart=/bin/sh -c 'echo >/run/web; sleep infinity'\n";
        systemd.install(&web, text).await.unwrap();
        let start = |unit: &UnitName| {
            let (systemd, unit) = (systemd.clone(), unit.clone());
            tokio::spawn(async move { systemd.start(&unit, &evidence(1, SLEEPER)).await })
        };
        let slow = start(&db);
        eventually("db's start", async || get(&systemd, &db).await.state.active == "activating").await;
        let queued = start(&web);
        eventually("web's job", async || get(&systemd, &web).await.state.job).await;
        let state = get(&systemd, &web).await.state;
        assert_eq!((state.active.as_str(), state.at_rest()), ("inactive", false));
        assert!(matches!(systemd.remove(&web).await, Err(SystemdError::StillLoaded(_))));
        assert!(matches!(systemd.install(&web, SLEEPER).await, Err(SystemdError::StillLoaded(_))));
        // As an agent that was killed meanwhile.
        queued.abort();
        let again = open().await;
        assert_eq!(again.stop(&web).await.unwrap(), JobResult::Done);
        assert!(get(&again, &web).await.state.at_rest());
        again.remove(&web).await.unwrap();
        assert_eq!(slow.await.unwrap().unwrap(), JobResult::Done);
        eventually("no job", async || shell("systemctl list-jobs --no-legend").is_empty()).await;
        assert!(!Path::new("/run/web").exists(), "it was started although it had been stopped");
    }

    async fn a_file_changes_only_at_rest() {
        let systemd = open().await;
        let unit = name("a.service");
        let (old, new) = (format!("{SLEEPER}Environment=V=old\n"), format!("{SLEEPER}Environment=V=new\n"));
        run(&systemd, &unit, &old, 1).await;
        assert!(matches!(systemd.install(&unit, &new).await, Err(SystemdError::StillLoaded(_))));
        assert_eq!(get(&systemd, &unit).await.file, Some(ContentHash::of(old.as_bytes())));
        systemd.stop(&unit).await.unwrap();
        assert_eq!(run(&systemd, &unit, &new, 2).await, JobResult::Done);
        assert!(environment(&systemd, &unit).await.contains("V=new"));
        assert_eq!(systemd.reloads(), 0);
        // One that a running unit refers to stays loaded, and its new text is taken all the same.
        let friend = name("friend.service");
        assert_eq!(run(&systemd, &friend, &format!("[Unit]\nWants=late.service\nAfter=a.service late.service\n{SLEEPER}"), 1).await, JobResult::Done);
        systemd.stop(&unit).await.unwrap();
        assert_eq!(run(&systemd, &unit, &old, 3).await, JobResult::Done);
        let environment = environment(&systemd, &unit).await;
        assert!(environment.contains("V=old") && environment.contains("FLOTILLA_TOKEN=3"), "{environment}");
        assert_eq!(systemd.reloads(), 1);
        // One that was referred to before it had a file.
        assert_eq!(run(&systemd, &name("late.service"), SLEEPER, 1).await, JobResult::Done);
        assert_eq!(get(&systemd, &friend).await.state.active, "active");
    }

    async fn units_of_the_machines_own_are_refused() {
        let systemd = open().await;
        shell("printf '[Service]\nExecStart=/bin/sleep infinity\n' > /etc/systemd/system/own.service; \
               cp /etc/systemd/system/own.service /etc/systemd/system/own@.service; \
               ln -s /dev/null /etc/systemd/system/masked.service; systemctl daemon-reload; \
               systemctl start own.service own@1.service; systemd-run --unit=transient sleep infinity");
        for unit in ["own.service", "own@1.service", "own@2.service", "masked.service", "transient.service", "dbus.service"] {
            let unit = name(unit);
            assert!(matches!(systemd.install(&unit, SLEEPER).await, Err(SystemdError::Foreign { .. })), "{unit}");
            assert!(matches!(systemd.start(&unit, &evidence(1, SLEEPER)).await, Err(SystemdError::Foreign { .. })), "{unit}");
            if unit.as_str() != "own@2.service" && unit.as_str() != "masked.service" {
                assert!(matches!(systemd.stop(&unit).await, Err(SystemdError::Hidden { .. })), "{unit}");
                assert_eq!(shell(&format!("systemctl is-active {unit}")), "active\n");
            }
            assert_eq!(systemd.get(&unit).await.unwrap(), None);
        }
        // A service that runs although its file is gone is nobody's to adopt.
        shell("rm /etc/systemd/system/own.service; systemctl daemon-reload");
        let orphan = name("own.service");
        let before = shell("systemctl show --value --property=InvocationID own.service");
        systemd.install(&orphan, SLEEPER).await.unwrap();
        assert!(matches!(systemd.start(&orphan, &evidence(1, SLEEPER)).await, Err(SystemdError::StillLoaded(_))));
        assert_eq!(shell("systemctl show --value --property=InvocationID own.service"), before);
        let nothing = Layout { bus: "unix:path=/run/none".to_owned(), ..Layout::system() };
        let refused = DbusSystemd::open(nothing, "0123456789abcdef0123456789abcdef".parse().unwrap()).await;
        assert!(matches!(refused, Err(SystemdError::NoBus { .. })));
    }

    async fn a_full_disk_is_told_and_leaves_nothing_half_written() {
        shell("mkdir -p /run/flotilla && mount -t tmpfs -o size=256k tmpfs /run/flotilla");
        let systemd = open().await;
        let unit = name("a.service");
        run(&systemd, &unit, SLEEPER, 7).await;
        shell("dd if=/dev/zero of=/run/flotilla/full bs=4k 2>/dev/null || true");
        let other = name("b.service");
        assert!(matches!(systemd.install(&other, SLEEPER).await, Err(SystemdError::File { .. })));
        assert_eq!(systemd.get(&other).await.unwrap(), None);
        // Another agent takes over what runs.
        let systemd = open().await;
        assert_eq!(systemd.list().await.unwrap().len(), 1);
        let longer = format!("{SLEEPER}# {}\n", "x".repeat(9_000));
        for text in [None, Some(longer.as_str())] {
            let refused = systemd.prepare(&unit, text, &evidence(8, &longer)).await;
            assert!(matches!(refused, Err(SystemdError::File { .. })), "so nobody stops it: {refused:?}");
        }
        let present = get(&systemd, &unit).await;
        assert_eq!((present.evidence.unwrap().token, present.state.active.as_str()), (Token(7), "active"));
        // What was prepared before the disk is full is started on a full disk.
        fs::remove_file("/run/flotilla/full").unwrap();
        systemd.prepare(&unit, Some(&longer), &evidence(8, &longer)).await.unwrap();
        shell("dd if=/dev/zero of=/run/flotilla/full bs=4k 2>/dev/null || true");
        systemd.stop(&unit).await.unwrap();
        assert_eq!(run(&systemd, &unit, &longer, 8).await, JobResult::Done);
        assert_eq!(get(&systemd, &unit).await.evidence.unwrap().token, Token(8));
    }

    async fn a_unit_that_became_the_machines_own_is_removed_once_it_is_at_rest() {
        let systemd = open().await;
        let (kept, undone) = (name("kept.service"), name("undone.service"));
        for unit in [&kept, &undone] {
            run(&systemd, unit, SLEEPER, 1).await;
            // As `systemctl edit --full` does.
            shell(&format!("cp /run/systemd/system/{unit} /etc/systemd/system/{unit}"));
        }
        shell("systemctl daemon-reload");
        for unit in [&kept, &undone] {
            assert!(matches!(systemd.stop(unit).await, Err(SystemdError::Hidden { .. })), "{unit}");
            assert!(matches!(systemd.remove(unit).await, Err(SystemdError::Hidden { .. })), "{unit}");
            assert_eq!(get(&systemd, unit).await.state.active, "active");
        }
        // What one would try first does not.
        shell("systemctl revert kept.service");
        assert!(Path::new("/etc/systemd/system/kept.service").exists());
        assert!(!Path::new("/run/systemd/system/kept.service.d").exists());
        // Either of what the error says helps.
        shell("systemctl stop kept.service; rm /etc/systemd/system/undone.service; systemctl daemon-reload");
        for unit in [&kept, &undone] {
            assert_eq!(systemd.stop(unit).await.unwrap(), JobResult::Done);
            systemd.remove(unit).await.unwrap();
            assert_eq!(systemd.get(unit).await.unwrap(), None);
        }
        assert_eq!(shell("systemctl show --value --property=FragmentPath kept.service"), "/etc/systemd/system/kept.service\n");
        assert_eq!(shell("systemctl show --value --property=LoadState undone.service"), "not-found\n");
    }

    async fn what_else_starts_a_loaded_unit_gives_it_its_token() {
        let (systemd, unit) = (open().await, name("a.service"));
        systemd.install(&unit, SLEEPER).await.unwrap();
        systemd.mark_loaded(&unit, &evidence(7, SLEEPER)).await.unwrap();
        shell("systemctl start a.service");
        assert!(environment(&systemd, &unit).await.contains("FLOTILLA_TOKEN=7"));
        assert!(get(&systemd, &unit).await.evidence.is_some_and(|e| e.loaded && !e.started));
        assert!(matches!(systemd.start(&unit, &evidence(7, SLEEPER)).await, Err(SystemdError::StillLoaded(_))));
    }

    async fn a_target_starts_what_install_says_and_nothing_is_left_after_it() {
        wanted::what_install_says_is_linked_read_and_taken_back().await;
    }

    async fn history_tells_what_systemd_forgot() {
        let systemd = open().await;
        let (once, stopped, never) = (name("once.service"), name("stopped.service"), name("never.service"));
        run(&systemd, &once, "[Service]\nType=oneshot\nExecStart=/bin/true\n", 1).await;
        run(&systemd, &stopped, SLEEPER, 1).await;
        systemd.install(&never, SLEEPER).await.unwrap();
        eventually("the start of once", async || systemd.history(&once).await.unwrap().start == Some(JobResult::Done)).await;
        assert!(!systemd.history(&once).await.unwrap().stopped_by_job);
        shell("systemctl stop stopped.service");
        eventually("the stop", async || systemd.history(&stopped).await.unwrap().stopped_by_job).await;
        systemd.start(&stopped, &evidence(2, SLEEPER)).await.unwrap();
        eventually("the second start", async || systemd.history(&stopped).await.unwrap().start.is_some()).await;
        assert!(!systemd.history(&stopped).await.unwrap().stopped_by_job, "what was before the evidence does not count");
        assert_eq!(systemd.history(&never).await.unwrap(), flotilla_agent::systemd::History::default());
    }

    async fn changes_are_told_and_other_units_are_not() {
        let systemd = open().await;
        let (unit, crash) = (name("a.service"), name("crash.service"));
        let mut changes = systemd.changes().await.unwrap();
        run(&systemd, &unit, SLEEPER, 1).await;
        hear(&mut changes, &Change::Unit(unit.clone())).await;
        shell("systemd-run --unit=other true");
        shell("systemctl stop a.service");
        eventually("the stop", async || {
            let told = timeout(LIMIT, changes.recv()).await.unwrap();
            assert_eq!(told, Some(Change::Unit(unit.clone())));
            get(&systemd, &unit).await.state.active == "inactive"
        }).await;
        run(&systemd, &crash, "[Service]\nExecStart=/bin/sh -c 'sleep 1; exit 3'\n", 1).await;
        eventually("the crash", async || {
            timeout(LIMIT, changes.recv()).await.unwrap().unwrap();
            get(&systemd, &crash).await.state.active == "failed"
        }).await;
        assert_eq!(get(&systemd, &crash).await.state.exit_status, Some(3));
    }

    /// systemd keeps in memory what another unit refers to, also what has no file yet.
    async fn a_unit_that_another_one_waited_for_starts_from_its_first_file() {
        let systemd = open().await;
        let (first, late) = (name("first.service"), name("late.service"));
        let text = "[Unit]\nAfter=late.service\nWants=late.service\n[Service]\nExecStart=/bin/sleep infinity\n";
        run(&systemd, &first, text, 1).await;
        assert_eq!(shell("systemctl show --property=LoadState --value late.service").trim(), "not-found");
        run(&systemd, &late, SLEEPER, 7).await;
        assert!(environment(&systemd, &late).await.contains("FLOTILLA_TOKEN=7"));
        assert_eq!(systemd.reloads(), 0);
    }

    /// One hears what systemd tells by itself, the other has just come and asks.
    async fn what_is_told_of_a_service_is_what_systemd_answers() {
        let systemd = open().await;
        let (plain, again, exited) = (name("plain.service"), name("again.service"), name("exited.service"));
        run(&systemd, &plain, SLEEPER, 1).await;
        let text = "[Service]\nRestart=on-failure\nRestartSec=0\n\
            ExecStart=/bin/sh -c 'test -e /run/once || { touch /run/once; exit 3; }; exec sleep infinity'\n";
        run(&systemd, &again, text, 2).await;
        run(&systemd, &exited, "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n", 3).await;
        eventually("the second start", async || get(&systemd, &again).await.state.restarts == 1).await;
        for unit in [&plain, &again, &exited] {
            eventually("both to say the same", async || {
                let (mut told, mut asked) = (get(&systemd, unit).await, get(&open().await, unit).await);
                // Looked at only of a unit at rest.
                (told.state.cgroup_empty, asked.state.cgroup_empty) = (false, false);
                told == asked && told.state.active == "active"
            }).await;
        }
    }

    /// systemd alone starts 300 to 420 such units a second on an idle machine.
    async fn three_hundred_units_start_and_stop_at_once() {
        let systemd = open().await;
        let units: Vec<UnitName> = (0..300).map(|n| name(&format!("u{n}.service"))).collect();
        for unit in &units {
            systemd.install(unit, SLEEPER).await.unwrap();
        }
        let wanted = evidence(1, SLEEPER);
        let began = Instant::now();
        let results = join_all(units.iter().map(|unit| systemd.start(unit, &wanted))).await;
        let started = began.elapsed();
        assert!(results.into_iter().all(|result| result.unwrap() == JobResult::Done));
        let began = Instant::now();
        assert!(systemd.list().await.unwrap().iter().all(|present| present.state.active == "active"));
        let listed = began.elapsed();
        let began = Instant::now();
        let results = join_all(units.iter().map(|unit| systemd.stop(unit))).await;
        let stopped = began.elapsed();
        assert!(results.into_iter().all(|result| result.unwrap() == JobResult::Done));
        assert_eq!(systemd.reloads(), 0);
        // The same units by systemctl, which asks for all at once: systemd's own rate here and now.
        let began = Instant::now();
        shell("systemctl start $(seq -f 'u%g.service' 0 299)");
        let alone = began.elapsed();
        let rate = |took: Duration| 300.0 / took.as_secs_f64();
        println!(
            "measured: 300 units: {:.0} starts/s (systemctl: {:.0}/s), {:.0} stops/s, list {listed:.0?}",
            rate(started), rate(alone), rate(stopped)
        );
    }

    /// A hundred units that never get ready hold up neither starts nor stops of others.
    async fn slow_starts_hold_up_nobody() {
        let systemd = open().await;
        let slow: Vec<UnitName> = (0..110).map(|n| name(&format!("slow{n}.service"))).collect();
        let text = format!("{SLEEPER}Type=notify\n");
        let wanted = evidence(1, &text);
        for unit in &slow {
            systemd.install(unit, &text).await.unwrap();
        }
        // What a stop takes here and now when nothing else is going on.
        let calm = name("calm.service");
        run(&systemd, &calm, SLEEPER, 1).await;
        let began = Instant::now();
        systemd.stop(&calm).await.unwrap();
        let calm = began.elapsed();
        let starting = async || {
            let all = systemd.list().await.unwrap();
            all.iter().filter(|present| present.state.active == "activating").count()
        };
        let starts = join_all(slow.iter().map(|unit| systemd.start(unit, &wanted)));
        let others = async {
            let quick = name("quick.service");
            eventually("all starts to be under way", async || starting().await == slow.len()).await;
            let began = Instant::now();
            assert_eq!(systemd.stop(&slow[0]).await.unwrap(), JobResult::Done);
            let stopped = began.elapsed();
            assert_eq!(run(&systemd, &quick, SLEEPER, 1).await, JobResult::Done);
            println!(
                "measured: beside 110 slow starts: stop {stopped:.0?} (alone: {calm:.0?}), start {:.0?}",
                began.elapsed() - stopped
            );
            // Neither waited for a place: that of one that is slow is free when its start has ended.
            assert_eq!(starting().await, slow.len() - 1, "the slow ones are where they were");
            assert!(stopped < calm * 10 + Duration::from_secs(1), "{stopped:?}, alone {calm:?}");
            join_all(slow[1..].iter().map(|unit| systemd.stop(unit))).await;
        };
        let (results, ()) = timeout(LIMIT, async { tokio::join!(starts, others) }).await.unwrap();
        let others: Vec<_> = results.into_iter().filter(|r| !matches!(r, Ok(JobResult::Canceled))).collect();
        assert!(others.is_empty(), "{others:?}"); // every start was taken back
    }

    /// The bus allows 128 replies to be waited for, whether or not anybody still does.
    async fn reads_that_were_given_up_leave_room_for_a_start() {
        let systemd = open().await;
        let (unit, rests, late) = (name("a.service"), name("rests.service"), name("late.service"));
        run(&systemd, &unit, SLEEPER, 1).await;
        for unit in [&rests, &late] {
            systemd.install(unit, SLEEPER).await.unwrap();
        }
        // As long as its generators run, systemd answers nobody.
        shell("cd /run/systemd; mkdir -p system-generators; printf '#!/bin/sh\\ntouch /run/stuck; sleep 4\\n' \
               > system-generators/slow; chmod +x system-generators/slow; systemctl daemon-reload >/dev/null 2>&1 &");
        eventually("the generator", async || Path::new("/run/stuck").exists()).await;
        for _ in 0..3 {
            let glance = || timeout(Duration::from_millis(50), systemd.get(&rests));
            let given_up = join_all((0..100).map(|_| glance())).await;
            assert!(given_up.iter().all(Result::is_err), "systemd was to be stuck");
        }
        let runs = timeout(Duration::from_millis(50), systemd.get(&unit)).await.expect("of what runs it is not asked");
        assert_eq!(runs.unwrap().unwrap().state.active, "active");
        assert_eq!(systemd.start(&late, &evidence(1, SLEEPER)).await.unwrap(), JobResult::Done);
        let read = join_all((0..300).map(|_| systemd.get(&rests))).await;
        assert!(read.into_iter().all(|present| present.unwrap().unwrap().state.active == "inactive"));
    }

    async fn a_new_pid_1_is_noticed_and_jobs_go_on() {
        let systemd = open().await;
        let (unit, slow) = (name("a.service"), name("slow.service"));
        run(&systemd, &unit, SLEEPER, 1).await;
        let before = get(&systemd, &unit).await.state.invocation;
        let text = "[Service]\nType=oneshot\nExecStart=/bin/sleep 2\n";
        systemd.install(&slow, text).await.unwrap();
        let mut changes = systemd.changes().await.unwrap();
        let wanted = evidence(1, text);
        let reexec = async {
            sleep(Duration::from_millis(300)).await;
            shell("systemctl daemon-reexec");
            hear(&mut changes, &Change::Everything).await;
        };
        let (started, ()) = timeout(LIMIT, async { tokio::join!(systemd.start(&slow, &wanted), reexec) }).await.unwrap();
        assert_eq!(started.unwrap(), JobResult::Done);
        assert_eq!(get(&systemd, &unit).await.state.invocation, before);
        // Signals come again.
        shell("systemctl stop a.service");
        hear(&mut changes, &Change::Unit(unit.clone())).await;
        eventually("the stop", async || get(&systemd, &unit).await.state.active == "inactive").await;
    }

    async fn a_bus_that_restarts_is_found_again() {
        let systemd = open().await;
        let unit = name("a.service");
        run(&systemd, &unit, SLEEPER, 1).await;
        let before = get(&systemd, &unit).await.state.invocation;
        let mut changes = systemd.changes().await.unwrap();
        shell("systemctl kill --signal=SIGKILL dbus.service; sleep 1; systemctl start dbus.service");
        hear(&mut changes, &Change::Everything).await;
        eventually("systemd on the new bus", async || systemd.list().await.is_ok()).await;
        assert_eq!(get(&systemd, &unit).await.state.invocation, before);
        let other = name("b.service");
        assert_eq!(run(&systemd, &other, SLEEPER, 1).await, JobResult::Done);
        while changes.try_recv().is_ok() {}
        shell("systemctl stop b.service");
        hear(&mut changes, &Change::Unit(other.clone())).await;
    }

    async fn the_journal_loses_nothing_when_journalctl_is_killed() {
        let systemd = open().await;
        let units = ["j@1.service", "j@2.service"].map(name);
        let known = Known::remember(units.clone());
        let text = "[Service]\nExecStart=/bin/bash -c 'until [ -e /run/enough ]; do echo $$((++i)); sleep 0.005; done; \
                    echo end; exec sleep infinity'\n";
        let query = Query { globs: vec!["j@*".parse().unwrap()], follow: true, ..Query::default() };
        let mut lines = Journalctl::new(false, known.clone()).follow(Query { grep: None, lines: Some(0), ..query });
        for unit in &units {
            run(&systemd, unit, text, 1).await;
        }
        let read = Arc::new(AtomicUsize::new(0));
        let so_far = read.clone();
        let killing = async move {
            for _ in 0..KILLS {
                sleep(Duration::from_millis(400)).await;
                // One that has brought something: who kills them all before is not worth going on for.
                let before = so_far.load(Ordering::Relaxed);
                eventually("another line", async || so_far.load(Ordering::Relaxed) > before).await;
                eventually("a journalctl to kill", async || kill_all("journalctl") > 0).await;
            }
            sleep(Duration::from_millis(400)).await;
            fs::write("/run/enough", "").unwrap();
        };
        let (mut next, mut ended) = ([1_u32, 1], 0);
        let mut lags = Vec::new();
        let reading = async {
            while ended < units.len() {
                let entry = lines.next().await.unwrap().unwrap();
                read.fetch_add(1, Ordering::Relaxed);
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
                lags.push(now.saturating_sub(Duration::from_micros(entry.realtime_us)));
                let at = units.iter().position(|unit| *unit == entry.unit).unwrap();
                let text = entry.message.to_text();
                ended += usize::from(text == "end");
                if let Ok(number) = text.parse::<u32>() {
                    assert_eq!(number, next[at], "of {}", entry.unit);
                    next[at] += 1;
                }
            }
        };
        let (all_read, ()) = tokio::join!(timeout(LIMIT, reading), killing);
        all_read.unwrap_or_else(|_| panic!("the last lines never came"));
        lags.sort();
        println!("measured: journal lag with {KILLS} kills: p50 {:.0?}, max {:.0?}", lags[lags.len() / 2], lags.last().unwrap());
        // By name, from a cursor: exactly what comes behind it.
        let all = Query { units: units.to_vec(), ..Query::default() };
        let entries: Vec<_> = Journalctl::new(false, known.clone()).follow(all.clone()).map(Result::unwrap).collect().await;
        let from_start: Vec<_> = entries.iter().filter(|e| e.unit == units[0]).collect();
        assert!(from_start.iter().any(|e| e.message.to_text().starts_with("Started")), "PID 1's words are the unit's");
        let cursors = units.iter().map(|unit| (unit.clone(), entries.iter().rev().filter(|e| e.unit == *unit).nth(3).unwrap().cursor.clone()));
        let rest: Vec<_> = Journalctl::new(false, known.clone()).follow(Query { cursors: cursors.collect(), ..all }).map(Result::unwrap).collect().await;
        assert_eq!(rest.len(), 6);
        assert_eq!(rest.iter().map(|e| &e.unit).collect::<BTreeSet<_>>().len(), 2);
        assert!(Path::new("/run/flotilla/env/j@1.service").exists());
    }

    async fn the_journal_is_searched() {
        let systemd = open().await;
        let unit = name("s.service");
        let text = "[Service]\nType=oneshot\nExecStart=/bin/bash -c 'for i in $$(seq 20); do echo word-$$((i %% 2))-$$i; done'\n";
        assert_eq!(run(&systemd, &unit, text, 1).await, JobResult::Done);
        let journal = Journalctl::new(false, Known::remember([unit.clone()]));
        let query = |grep: &str, lines| Query {
            units: vec![unit.clone()],
            grep: Some(grep.to_owned()),
            lines,
            ..Query::default()
        };
        let texts = async |query: Query| {
            let entries: Vec<_> = journal.follow(query).map(Result::unwrap).collect().await;
            entries.iter().map(|entry| entry.message.to_text().into_owned()).collect::<Vec<_>>()
        };
        // The last line of a process that has ended may come a moment later.
        eventually("all lines", async || texts(query("word-0-", None)).await.len() == 10).await;
        assert_eq!(texts(query("word-1-", Some(3))).await, ["word-1-15", "word-1-17", "word-1-19"]);
        assert!(texts(query("no such word", None)).await.is_empty());
        assert!(texts(query("no such word", Some(10))).await.is_empty());
        let bad = journal.follow(query("(", None)).next().await.unwrap().unwrap_err();
        assert!(matches!(&bad, JournalError::Pattern { .. }), "{bad}");
        // From the journal's end on, whoever wrote its last line.
        shell("logger something else");
        let end = journal.end().await.unwrap().unwrap();
        assert!(texts(Query { after: Some(end.clone()), ..query("word", None) }).await.is_empty());
        let mut rest = journal.follow(Query { after: Some(end), follow: true, ..query("word-0-", None) });
        run(&systemd, &unit, text, 2).await;
        let next = timeout(LIMIT, rest.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(next.message.to_text(), "word-0-2");
    }
}
