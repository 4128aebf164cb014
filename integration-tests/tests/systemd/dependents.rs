//! What systemd stops with a unit, on a real systemd: noted before, found by the next agent, started again.

use flotilla_agent::systemd::{Change, JobResult, Present, Systemd as _, Then};
use flotilla_integration_tests::SLEEPER;

use crate::machine::{evidence, get, hear, in_machine, name, open, run, shell};

fn then(present: &Present) -> Option<(String, Then)> {
    present.pulled.as_ref().map(|it| (it.by.to_string(), it.then))
}

#[test]
fn what_needs_a_unit_is_noted_when_that_is_stopped_and_starts_again_with_it() {
    let test = "dependents::what_needs_a_unit_is_noted_when_that_is_stopped_and_starts_again_with_it";
    in_machine(test, async {
        let systemd = open().await;
        let db = name("db.service");
        let rows = [
            ("bound.service", "BindsTo=db.service"),
            ("requires.service", "Requires=db.service"),
            ("part.service", "PartOf=db.service"),
            ("far.service", "BindsTo=own.service"),
            ("wants.service", "Wants=db.service"),
        ];
        // One that is the machine's own is between two of flotilla's.
        shell(&format!(
            "printf '[Unit]\nRequires=db.service\nAfter=db.service\n{SLEEPER}' > /etc/systemd/system/own.service; \
             systemctl daemon-reload"
        ));
        assert_eq!(run(&systemd, &db, SLEEPER, 1).await, JobResult::Done);
        systemd.mark_started(&db).await.unwrap();
        let text = |needs: &str| format!("[Unit]\n{needs}\nAfter=db.service own.service\n{SLEEPER}");
        for (n, (unit, needs)) in (10..).zip(rows) {
            let unit = name(unit);
            assert_eq!(run(&systemd, &unit, &text(needs), n).await, JobResult::Done);
            systemd.mark_started(&unit).await.unwrap();
            assert_eq!(then(&get(&systemd, &unit).await), None);
        }
        assert_eq!(systemd.stop(&db).await.unwrap(), JobResult::Done);
        // As an agent that was killed right after it.
        let again = open().await;
        let waits = Some(("db.service".to_owned(), Then::Waits));
        for (unit, needs) in rows {
            let present = get(&again, &name(unit)).await;
            let wants = needs.starts_with("Wants");
            let expected = if wants { ("active", None) } else { ("inactive", waits.clone()) };
            assert_eq!((present.state.active.as_str(), then(&present)), expected, "{unit}");
        }
        let mut changes = again.changes().await.unwrap();
        assert_eq!(again.start(&db, &evidence(2, SLEEPER)).await.unwrap(), JobResult::Done);
        assert_eq!(
            then(&get(&again, &name(rows[0].0)).await),
            waits,
            "until it is known that it has started"
        );
        again.mark_started(&db).await.unwrap();
        hear(&mut changes, &Change::Unit(name("part.service"))).await;
        for (n, (unit, needs)) in (10..).zip(rows).take(4) {
            let unit = name(unit);
            let starts = Some(("db.service".to_owned(), Then::Starts));
            assert_eq!(then(&get(&again, &unit).await), starts, "{unit}");
            assert_eq!(again.start(&unit, &evidence(n, &text(needs))).await.unwrap(), JobResult::Done);
            let present = get(&again, &unit).await;
            assert_eq!((present.state.active.as_str(), then(&present)), ("active", None));
            assert!(present.evidence.unwrap().started, "its token and run are what they were");
        }
        // Of what a person stops nothing is noted, nor of what a person has started since.
        shell("systemctl stop part.service");
        assert_eq!(then(&get(&again, &name("part.service")).await), None);
        again.stop(&db).await.unwrap();
        shell("systemctl start bound.service");
        assert_eq!(then(&get(&again, &name("bound.service")).await), None);
        shell("systemctl stop bound.service");
        assert_eq!(then(&get(&again, &name("bound.service")).await), None);
        again.stop(&db).await.unwrap();
        again.remove(&db).await.unwrap();
        let stays = Some(("db.service".to_owned(), Then::Stays));
        assert_eq!(then(&get(&again, &name("requires.service")).await), stays);
    });
}

/// More often than is read of, and with more to say than that.
#[test]
fn the_history_of_what_started_often_is_read_from_its_end() {
    in_machine("dependents::the_history_of_what_started_often_is_read_from_its_end", async {
        let (systemd, often) = (open().await, name("often.service"));
        let text = "[Service]\nType=oneshot\nStartLimitBurst=0\nExecStart=/bin/sh -c 'seq 50'\n";
        run(&systemd, &often, text, 1).await;
        shell(
            "for n in $(seq 60); do systemctl start often.service || exit 1; done; journalctl --sync || true",
        );
        let told = systemd.history(&often).await.unwrap();
        assert_eq!((told.start, told.stopped_by_job), (Some(JobResult::Done), false));
        // Of many at once, as by an agent that has just started.
        let all = futures_util::future::join_all((0..40).map(|_| systemd.history(&often))).await;
        assert!(all.into_iter().all(|told| told.unwrap().start == Some(JobResult::Done)));
    });
}
