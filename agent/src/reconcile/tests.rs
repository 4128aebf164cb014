use flotilla_registry::records::{Departure, Word};

use super::*;
use crate::systemd::{History, Pulled, Then, UnitState};

fn unit() -> UnitName {
    "web.service".parse().expect("valid")
}

fn hash(text: &str) -> ContentHash {
    ContentHash::of(text.as_bytes())
}

fn order(token: i64, run: u64) -> ManifestEntry {
    ManifestEntry {
        unit: unit(),
        runtime: None,
        hash: hash("a"),
        target: Target::Launched,
        run,
        token: Token(token),
        departing: None,
        moving: None,
        adopt: false,
    }
}

fn loaded(token: i64) -> ManifestEntry {
    ManifestEntry { target: Target::Loaded, ..order(token, 1) }
}

fn departing(token: i64) -> ManifestEntry {
    ManifestEntry { departing: Some(Departure::Unloaded), ..order(token, 1) }
}

fn state(active: &str) -> UnitState {
    let idle = matches!(active, "inactive" | "failed");
    let invocation = (active != "inactive").then(|| "aa".repeat(16));
    UnitState { active: active.to_owned(), cgroup_empty: idle, invocation, ..UnitState::not_loaded() }
}

fn under(token: i64, run: u64, started: bool, active: &str) -> Present {
    let evidence = Evidence { token: Token(token), run, hash: hash("a"), started, loaded: false };
    Present {
        unit: unit(),
        evidence: Some(evidence),
        file: Some(hash("a")),
        state: state(active),
        pulled: None,
    }
}

fn bare(active: &str) -> Present {
    Present { unit: unit(), evidence: None, file: Some(hash("a")), state: state(active), pulled: None }
}

fn decide(orders: &[ManifestEntry], present: Option<&Present>, attempts: &Attempts) -> Decision {
    decide_at(orders, present, attempts, &Gate::Open, Duration::ZERO)
}

fn decide_at(
    orders: &[ManifestEntry],
    present: Option<&Present>,
    attempts: &Attempts,
    gate: &Gate,
    now: Duration,
) -> Decision {
    reconcile(&Situation { unit: &unit(), orders, manifest_known: true, present, attempts, gate, now })
}

/// What has only been loaded under this token and run, and is nevertheless so.
fn loaded_as(token: i64, run: u64, active: &str) -> Present {
    let mut present = under(token, run, false, active);
    present.evidence = present.evidence.map(|evidence| Evidence { loaded: true, ..evidence });
    present
}

fn prepare(token: i64, run: u64, text: Option<&str>) -> Next {
    let evidence = Evidence { token: Token(token), run, hash: hash("a"), started: false, loaded: false };
    let text = text.map(hash);
    let hash = text.unwrap_or(evidence.hash);
    Next::Do(Step::Prepare { text, evidence: Evidence { hash, ..evidence } })
}

fn start(token: i64, run: u64) -> Next {
    let evidence = Evidence { token: Token(token), run, hash: hash("a"), started: false, loaded: false };
    Next::Do(Step::Start(evidence))
}

/// Attempts in which these steps were taken and ended so.
fn after(steps: &[(Step, Outcome)]) -> Attempts {
    let mut attempts = Attempts::default();
    for (step, outcome) in steps {
        attempts.begin(step);
        attempts.end(step, outcome.clone(), Duration::ZERO, 7);
    }
    attempts
}

fn stopped() -> Attempts {
    after(&[(Step::Stop, Outcome::Job(JobResult::Done))])
}

fn mark_loaded(token: i64) -> Next {
    let Some(evidence) = loaded_as(token, 1, "inactive").evidence else { unreachable!() };
    Next::Do(Step::MarkLoaded(evidence))
}

fn told(start: Option<JobResult>, stopped_by_job: bool) -> Attempts {
    after(&[(Step::AskHistory, Outcome::History(History { start, stopped_by_job }))])
}

#[test]
fn every_standing_has_its_next_step() {
    use Next::{Do, Settled};
    let fresh = Attempts::default();
    let install = || Do(Step::Install(hash("a")));
    let changed = ManifestEntry { hash: hash("b"), ..order(1, 2) };
    let rows: Vec<(&str, Vec<ManifestEntry>, Option<Present>, Next)> = vec![
        ("new", vec![order(1, 1)], None, install()),
        ("file there", vec![order(1, 1)], Some(bare("inactive")), start(1, 1)),
        ("adopted", vec![order(1, 1)], Some(under(1, 1, true, "active")), Settled),
        ("adopted while it fails", vec![order(1, 1)], Some(under(1, 1, true, "failed")), Settled),
        ("systemd restarts it", vec![order(1, 1)], Some(under(1, 1, true, "activating")), Settled),
        ("crashed, active", vec![order(1, 1)], Some(under(1, 1, false, "active")), Do(Step::MarkStarted)),
        ("crashed, starting", vec![order(1, 1)], Some(under(1, 1, false, "activating")), Settled),
        ("crashed, nothing", vec![order(1, 1)], Some(under(1, 1, false, "inactive")), Do(Step::AskHistory)),
        ("crashed, failed", vec![order(1, 1)], Some(under(1, 1, false, "failed")), Do(Step::AskHistory)),
        ("newer run, active", vec![order(1, 2)], Some(under(1, 1, true, "active")), prepare(1, 2, None)),
        (
            "newer run and content, active",
            vec![changed.clone()],
            Some(under(1, 1, true, "active")),
            prepare(1, 2, Some("b")),
        ),
        ("newer run, failed", vec![order(1, 2)], Some(under(1, 1, true, "failed")), Do(Step::Stop)),
        ("newer run, ended", vec![order(1, 2)], Some(under(1, 1, true, "inactive")), start(1, 2)),
        (
            "newer run and content",
            vec![changed],
            Some(under(1, 1, true, "inactive")),
            Do(Step::Install(hash("b"))),
        ),
        ("newer token", vec![order(2, 1)], Some(under(1, 1, true, "active")), prepare(2, 1, None)),
        ("older token", vec![order(1, 1)], Some(under(2, 1, true, "active")), Settled),
        ("older run", vec![order(1, 1)], Some(under(1, 2, true, "active")), Settled),
        ("load", vec![loaded(1)], None, install()),
        ("file there, to be loaded", vec![loaded(1)], Some(bare("inactive")), mark_loaded(1)),
        ("loaded", vec![loaded(1)], Some(loaded_as(1, 1, "inactive")), Settled),
        ("loaded, and triggered", vec![loaded(1)], Some(loaded_as(1, 1, "activating")), Settled),
        ("loaded anew, and triggered", vec![loaded(2)], Some(loaded_as(1, 1, "active")), Do(Step::Stop)),
        ("loaded, now launched", vec![order(2, 2)], Some(loaded_as(1, 1, "inactive")), start(2, 2)),
        ("triggered, now launched", vec![order(2, 2)], Some(loaded_as(1, 1, "active")), prepare(2, 2, None)),
        ("no longer launched", vec![loaded(1)], Some(under(1, 1, true, "active")), Do(Step::Stop)),
        ("departing", vec![departing(1)], Some(under(1, 1, true, "active")), Do(Step::Stop)),
        ("departing, ended", vec![departing(1)], Some(under(1, 1, true, "inactive")), Do(Step::Stop)),
        ("departing, never here", vec![departing(1)], None, Settled),
        ("departing, an older runs", vec![departing(2)], Some(under(1, 1, true, "active")), Do(Step::Stop)),
        ("another's departure", vec![departing(1)], Some(under(2, 1, true, "active")), Settled),
        (
            "left and comes back",
            vec![departing(1), order(2, 1)],
            Some(under(1, 1, true, "active")),
            Do(Step::Stop),
        ),
        ("stray", vec![], Some(under(1, 1, true, "active")), Settled),
    ];
    for (what, orders, present, next) in rows {
        assert_eq!(decide(&orders, present.as_ref(), &fresh).next, next, "{what}");
    }
}

#[test]
fn the_journal_decides_what_became_of_a_start() {
    let orders = [order(1, 1)];
    let gone = under(1, 1, false, "inactive");
    let failed = under(1, 1, false, "failed");
    let mark = Next::Do(Step::MarkStarted);
    assert_eq!(decide(&orders, Some(&gone), &told(Some(JobResult::Done), false)).next, mark);
    assert_eq!(decide(&orders, Some(&gone), &told(None, false)).next, start(1, 1));
    assert_eq!(decide(&orders, Some(&failed), &told(Some(JobResult::Failed), false)).next, start(1, 1));
    let silent = after(&[(Step::AskHistory, Outcome::Error("no journal".to_owned()))]);
    assert_eq!(decide(&orders, Some(&failed), &silent).next, mark, "a trace of a run counts");
    assert!(
        matches!(decide(&orders, Some(&gone), &silent).next, Next::Wait(_)),
        "asked again, never guessed"
    );
}

#[test]
fn a_failed_start_is_tried_again_with_back_off_and_shown() {
    let orders = [order(1, 1)];
    let present = Present {
        state: UnitState { result: "exit-code".to_owned(), exit_status: Some(3), ..state("failed") },
        ..under(1, 1, false, "failed")
    };
    let step =
        Step::Start(Evidence { token: Token(1), run: 1, hash: hash("a"), started: false, loaded: false });
    let mut attempts = Attempts::default();
    let mut now = Duration::ZERO;
    let mut waits = Vec::new();
    for _ in 0..9 {
        attempts.begin(&step);
        attempts.end(&step, Outcome::Job(JobResult::Failed), now, 42);
        let decision = decide_at(&orders, Some(&present), &attempts, &Gate::Open, now);
        let Next::Wait(until) = decision.next else { panic!("{:?}", decision.next) };
        waits.push((until - now).as_millis());
        now = until;
        let decision = decide_at(&orders, Some(&present), &attempts, &Gate::Open, now);
        assert_eq!(decision.next, start(1, 1));
        let report = &decision.reports[0];
        assert_eq!((report.result.as_deref(), report.exit_status), (Some("exit-code"), Some(3)));
        assert!(report.problem.as_deref().is_some_and(|p| p.contains("`failed`")), "{report:?}");
    }
    for (n, wait) in waits.iter().enumerate() {
        let whole = (1_000 << n).min(60_000);
        assert!(*wait >= whole / 2 && *wait <= whole, "{n}: {wait} of {whole}");
    }
}

#[test]
fn gone_takes_a_stop_of_the_agents_own() {
    let orders = [departing(1)];
    let gone =
        |present: Option<&Present>, attempts: &Attempts| decide(&orders, present, attempts).reports[0].gone;
    let fresh = Attempts::default();
    assert!(gone(None, &fresh), "nothing of it since the machine booted");
    assert!(!gone(Some(&under(1, 1, true, "active")), &fresh));
    assert!(!gone(Some(&under(1, 1, false, "inactive")), &fresh), "a start job may still be queued");
    assert!(!gone(Some(&under(1, 1, true, "inactive")), &stopped()), "its files are still there");
    assert!(gone(None, &stopped()));
    let replaced = [departing(1), order(2, 1)];
    let here = under(1, 1, true, "inactive");
    assert!(decide(&replaced, Some(&here), &stopped()).reports[0].gone, "its files are the newer one's now");
    assert!(!gone(Some(&under(1, 1, true, "deactivating")), &stopped()));
    let mut clinging = under(1, 1, true, "failed");
    clinging.state.cgroup_empty = false;
    assert!(!gone(Some(&clinging), &stopped()), "a process is left");
    assert!(gone(Some(&under(2, 1, true, "active")), &fresh), "what runs is another placement");
    let mut in_flight = Attempts::default();
    in_flight.begin(&Step::Start(Evidence {
        token: Token(1),
        run: 1,
        hash: hash("a"),
        started: false,
        loaded: false,
    }));
    assert!(!gone(None, &in_flight) && !gone(Some(&bare("inactive")), &in_flight));
    assert_eq!(
        decide(&orders, Some(&under(1, 1, true, "inactive")), &stopped()).next,
        Next::Do(Step::Remove)
    );
}

#[test]
fn a_unit_stopped_by_hand_stays_so_and_is_reported() {
    let orders = [order(1, 1)];
    let present = under(1, 1, true, "inactive");
    assert_eq!(decide(&orders, Some(&present), &Attempts::default()).next, Next::Do(Step::AskHistory));
    let by_hand = decide(&orders, Some(&present), &told(Some(JobResult::Done), true));
    assert_eq!((by_hand.next, by_hand.reports[0].stopped_locally), (Next::Settled, true));
    let ended = decide(&orders, Some(&present), &told(Some(JobResult::Done), false));
    assert_eq!((ended.next, ended.reports[0].stopped_locally), (Next::Settled, false), "a oneshot that ran");
}

#[test]
fn what_was_stopped_with_another_is_started_again_once_that_has_and_is_not_told_as_stopped_by_hand() {
    let orders = [order(1, 1)];
    let by_hand = told(Some(JobResult::Done), true);
    let pulled = |active: &str, then| {
        let by = "db.service".parse().expect("valid");
        Present {
            pulled: Some(Pulled { by, then, invocation: "aa".repeat(16) }),
            ..under(1, 1, true, active)
        }
    };
    let settled = Next::Settled;
    for attempts in [&Attempts::default(), &by_hand] {
        for active in ["inactive", "failed"] {
            let decided = |then| decide(&orders, Some(&pulled(active, then)), attempts);
            let (waits, starts, stays) = (decided(Then::Waits), decided(Then::Starts), decided(Then::Stays));
            assert_eq!(
                (waits.next, starts.next, stays.next),
                (settled.clone(), start(1, 1), settled.clone())
            );
            let told = [&waits.reports[0], &starts.reports[0], &stays.reports[0]]
                .map(|it| (it.stopped_locally, it.starting, it.problem.is_some()));
            assert_eq!(told, [(false, true, false), (false, true, false), (false, false, true)]);
        }
        let runs = decide(&orders, Some(&pulled("active", Then::Waits)), attempts);
        assert_eq!(runs.next, Next::Settled, "it is not stopped yet");
    }
    // Orders of its own go first.
    assert_eq!(decide(&[order(1, 2)], Some(&pulled("inactive", Then::Waits)), &by_hand).next, start(1, 2));
    assert_eq!(
        decide(&[departing(1)], Some(&pulled("inactive", Then::Starts)), &by_hand).next,
        Next::Do(Step::Stop)
    );
    let loaded = decide(&[loaded(1)], Some(&pulled("inactive", Then::Starts)), &by_hand);
    assert_eq!((loaded.next, loaded.reports[0].problem.as_deref()), (mark_loaded(1), None));
    // A start that fails is tried again.
    let mut attempts = Attempts::default();
    let step = Step::Start(evidence(&orders[0]));
    attempts.begin(&step);
    attempts.end(&step, Outcome::Job(JobResult::Failed), Duration::ZERO, 7);
    let next = decide(&orders, Some(&pulled("failed", Then::Starts)), &attempts).next;
    assert!(matches!(next, Next::Wait(_)), "{next:?}");
}

/// While its start waits for another unit's, or has not been asked for after a crash, it looks to systemd as if it
/// had run to its end.
#[test]
fn a_start_that_has_not_been_carried_out_is_told_from_one_that_is_over() {
    let report = |orders: &[ManifestEntry], present: &Present| {
        let report = decide(orders, Some(present), &Attempts::default()).reports.remove(0);
        (report.active, report.sub, report.run, report.starting)
    };
    let is = |active: &str, sub: &str, starting| (Word::from(active), Word::from(sub), 1, starting);
    let orders = [order(1, 1)];
    for active in ["inactive", "failed"] {
        let mut queued = under(1, 1, false, active);
        queued.state.job = true;
        assert_eq!(report(&orders, &queued), is("activating", "queued", true));
    }
    assert_eq!(report(&orders, &under(1, 1, false, "inactive")), is("inactive", "dead", true));
    assert_eq!(report(&orders, &under(1, 1, true, "inactive")), is("inactive", "dead", false));
    assert_eq!(report(&orders, &loaded_as(1, 1, "inactive")), is("inactive", "dead", true));
    assert_eq!(report(&[loaded(1)], &loaded_as(1, 1, "inactive")), is("inactive", "dead", false));
    // Agents that do not tell are believed as before.
    let mut told = decide(&orders, Some(&under(1, 1, false, "inactive")), &Attempts::default()).reports;
    let text = serde_json::to_string(&told[0]).expect("JSON");
    assert!(text.contains("\"starting\":true"), "{text}");
    let old: flotilla_registry::records::UnitReport =
        serde_json::from_str(&text.replace(",\"starting\":true", "")).expect("a report");
    told[0].starting = false;
    assert_eq!(old, told[0]);
}

/// Whoever waits for a stop is told that it has come true once it has, also where the order has a token of its
/// own because it was given twice, or after somebody else started the unit.
#[test]
fn what_an_order_has_yet_to_stop_is_not_reported_as_stopped() {
    let reported = |orders: &[ManifestEntry], present: &Present| {
        let report = decide(orders, Some(present), &Attempts::default()).reports.remove(0);
        (report.token.map(|token| token.0), report.run, report.active)
    };
    let is = |token, run, active: &str| (Some(token), run, Word::from(active));
    for active in ["active", "deactivating", "failed"] {
        let older = under(1, 1, true, active);
        assert_eq!(
            reported(&[loaded(2)], &older),
            is(2, 0, active),
            "of the run before: none of this order's"
        );
        assert_eq!(reported(&[order(2, 2)], &older), is(2, 0, active));
        assert_eq!(reported(&[order(2, 1), departing(1)], &older), is(2, 0, "inactive"), "it is the other's");
        assert_eq!(
            reported(&[loaded(1)], &under(2, 1, true, active)),
            is(1, 0, "inactive"),
            "of a newer one"
        );
    }
}

#[test]
fn strays_are_reported_and_left_alone() {
    let present = under(1, 1, true, "active");
    let decision = decide(&[], Some(&present), &Attempts::default());
    assert!(decision.reports[0].stray && decision.reports[0].token == Some(Token(1)));
    let situation = Situation {
        unit: &unit(),
        orders: &[],
        manifest_known: false,
        present: Some(&present),
        attempts: &Attempts::default(),
        gate: &Gate::Open,
        now: Duration::ZERO,
    };
    assert!(!reconcile(&situation).reports[0].stray, "no manifest: no word yet");
}

#[test]
fn gates_hold_everything_that_changes_what_runs() {
    let frozen = Gate::Frozen("the store went back".to_owned());
    for (orders, present) in [
        (vec![order(1, 1)], None),
        (vec![departing(1)], Some(under(1, 1, true, "active"))),
        (vec![loaded(1)], Some(under(1, 1, true, "active"))),
        (vec![order(1, 2)], Some(under(1, 1, true, "active"))),
    ] {
        let decision = decide_at(&orders, present.as_ref(), &Attempts::default(), &frozen, Duration::ZERO);
        assert_eq!(decision.next, Next::Settled, "{orders:?}");
        assert_eq!(decision.reports[0].problem.as_deref(), Some("the store went back"));
    }
    let adopted = under(1, 1, true, "active");
    let decision = decide_at(&[order(1, 1)], Some(&adopted), &Attempts::default(), &frozen, Duration::ZERO);
    assert_eq!(decision.reports[0].problem, None, "nothing is held back");
}

#[test]
fn nothing_is_stopped_for_a_start_that_cannot_be_prepared() {
    let (orders, runs) = ([order(1, 2)], under(1, 1, true, "active"));
    let Next::Do(step) = prepare(1, 2, None) else { unreachable!() };
    let prepared = after(&[(step.clone(), Outcome::Done)]);
    assert_eq!(decide(&orders, Some(&runs), &prepared).next, Next::Do(Step::Stop));
    let full = after(&[(step, Outcome::Error("no space".to_owned()))]);
    let decision = decide(&orders, Some(&runs), &full);
    assert!(matches!(decision.next, Next::Wait(_)), "{:?}", decision.next);
    assert_eq!((decision.reports[0].run, decision.reports[0].problem.as_deref()), (1, Some("no space")));
    assert_eq!(
        decide(&orders, Some(&runs), &prepared.for_new_orders()).next,
        prepare(1, 2, None),
        "new orders may need something else"
    );
}

#[test]
fn what_a_stop_leaves_behind_holds_up_its_end_and_not_its_new_start() {
    let mut clinging = under(1, 1, true, "inactive");
    clinging.state.cgroup_empty = false;
    assert_eq!(decide(&[order(1, 2)], Some(&clinging), &Attempts::default()).next, Next::Do(Step::Stop));
    assert_eq!(decide(&[order(1, 2)], Some(&clinging), &stopped()).next, start(1, 2));
    assert_eq!(decide(&[loaded(1)], Some(&clinging), &stopped()).next, mark_loaded(1));
    let leaving = &decide(&[departing(1)], Some(&clinging), &stopped()).reports[0];
    assert!(
        !leaving.gone && leaving.problem.as_deref().is_some_and(|p| p.contains("KillMode")),
        "{leaving:?}"
    );
}

#[test]
fn a_unit_to_be_loaded_is_stopped_once() {
    let again = under(1, 1, true, "active");
    assert_eq!(decide(&[loaded(1)], Some(&again), &Attempts::default()).next, Next::Do(Step::Stop));
    assert_eq!(decide(&[loaded(1)], Some(&again), &stopped()).next, mark_loaded(1), "a socket was quick");
}

#[test]
fn a_content_that_runs_alike_is_adopted_and_its_file_comes_when_the_unit_is_at_rest() {
    let alike = [ManifestEntry { hash: hash("b"), ..order(1, 1) }];
    let adopt = Next::Do(Step::Adopt(hash("b")));
    let adopted = |active: &str| {
        let mut present = under(1, 1, true, active);
        present.evidence = present.evidence.map(|evidence| Evidence { hash: hash("b"), ..evidence });
        present
    };
    for active in ["active", "activating", "failed", "inactive"] {
        assert_eq!(
            decide(&alike, Some(&under(1, 1, true, active)), &Attempts::default()).next,
            adopt,
            "{active}"
        );
    }
    let runs = decide(&alike, Some(&adopted("active")), &Attempts::default());
    assert_eq!((runs.next, runs.reports[0].hash), (Next::Settled, Some(hash("b"))), "its file stays");
    let failed = decide(&alike, Some(&adopted("failed")), &Attempts::default());
    assert_eq!(failed.next, Next::Settled, "what became of it stays to be seen");
    let ended = told(Some(JobResult::Done), false);
    let install = Next::Do(Step::Install(hash("b")));
    assert_eq!(decide(&alike, Some(&adopted("inactive")), &ended).next, install);
    let anew = [ManifestEntry { run: 2, ..alike[0].clone() }];
    let Next::Do(Step::Prepare { text, .. }) =
        decide(&anew, Some(&adopted("active")), &Attempts::default()).next
    else {
        panic!("it is started anew")
    };
    assert_eq!(text, Some(hash("b")), "its file comes with the next start");
    // A start that failed is tried again with the newer file.
    let failed = after(&[(
        Step::Start(Evidence { token: Token(1), run: 1, hash: hash("a"), started: false, loaded: false }),
        Outcome::Job(JobResult::Failed),
    )]);
    assert_eq!(decide(&alike, Some(&under(1, 1, false, "failed")), &failed).next, install);
}

#[test]
fn what_something_else_started_keeps_its_file_until_it_is_at_rest() {
    let alike = [ManifestEntry { hash: hash("b"), ..loaded(1) }];
    let fresh = Attempts::default();
    let mut note = loaded_as(1, 1, "active");
    note.evidence = note.evidence.map(|evidence| Evidence { hash: hash("b"), ..evidence });
    let Some(evidence) = note.evidence.clone() else { unreachable!() };
    let mark = Next::Do(Step::MarkLoaded(evidence));
    assert_eq!(decide(&alike, Some(&loaded_as(1, 1, "active")), &fresh).next, mark);
    assert_eq!(decide(&alike, Some(&note), &fresh).next, Next::Settled);
    let install = Next::Do(Step::Install(hash("b")));
    assert_eq!(decide(&alike, Some(&loaded_as(1, 1, "inactive")), &fresh).next, install);
    // An order to stop anew is another run.
    let stop = [ManifestEntry { run: 2, ..loaded(2) }];
    assert_eq!(decide(&stop, Some(&note), &fresh).next, Next::Do(Step::Stop));
}

#[test]
fn nothing_is_done_in_a_circle() {
    let orders = [departing(1)];
    let mut clinging = under(1, 1, true, "failed");
    clinging.state.cgroup_empty = false;
    let done = (Step::Stop, Outcome::Job(JobResult::Done));
    assert_eq!(
        decide(&orders, Some(&clinging), &after(std::slice::from_ref(&done))).next,
        Next::Do(Step::Stop)
    );
    let twice = decide(&orders, Some(&clinging), &after(&[done.clone(), done]));
    assert!(matches!(twice.next, Next::Wait(_)));
    assert!(twice.reports[0].problem.is_some());
}

#[test]
fn what_the_machine_has_as_its_own_is_taken_over_before_anything_else() {
    let adopt = |order: ManifestEntry| ManifestEntry { adopt: true, ..order };
    let take_over = |token| {
        let evidence =
            Evidence { token: Token(token), run: 1, hash: hash("a"), started: false, loaded: false };
        Next::Do(Step::TakeOver(evidence))
    };
    let (fresh, looked) = (Attempts::default(), |next: Next| match next {
        Next::Do(step) => after(&[(step, Outcome::Done)]),
        _ => Attempts::default(),
    });
    let next = |orders: &[ManifestEntry], present: Option<&Present>, attempts: &Attempts| {
        decide(orders, present, attempts).next
    };
    // Also what a restart was ordered of meanwhile, what is to be stopped, and what was begun by another agent.
    for order in [order(1, 1), order(1, 3), loaded(1)] {
        for present in [None, Some(bare("active"))] {
            assert_eq!(next(&[adopt(order.clone())], present.as_ref(), &fresh), take_over(1));
        }
    }
    assert_eq!(next(&[adopt(order(1, 1))], Some(&under(1, 1, true, "active")), &fresh), Next::Settled);
    assert_eq!(next(&[adopt(order(1, 3))], Some(&under(1, 1, true, "active")), &fresh), prepare(1, 3, None));
    assert_eq!(next(&[adopt(loaded(1))], Some(&under(1, 1, true, "active")), &fresh), Next::Do(Step::Stop));
    // Where there was nothing to take, or it had ended, it is started like any other.
    let orders = [adopt(order(1, 1))];
    assert_eq!(next(&orders, None, &looked(take_over(1))), Next::Do(Step::Install(hash("a"))));
    assert_eq!(next(&orders, Some(&bare("inactive")), &looked(take_over(1))), start(1, 1));
    // Ordered to leave before that, it is given back, and not gone before.
    let leaves = [adopt(departing(1))];
    for present in [None, Some(bare("active"))] {
        let decision = decide(&leaves, present.as_ref(), &fresh);
        assert_eq!(decision.next, Next::Do(Step::LetGo));
        assert!(!decision.reports[0].gone);
    }
    let let_go = looked(Next::Do(Step::LetGo));
    let decision = decide(&leaves, None, &let_go);
    assert!(decision.next == Next::Settled && decision.reports[0].gone);
    assert_eq!(
        next(&leaves, Some(&bare("active")), &let_go),
        Next::Do(Step::Stop),
        "it was flotilla's already"
    );
    assert_eq!(next(&leaves, Some(&under(1, 1, true, "active")), &fresh), Next::Do(Step::Stop));
    // It is told why it is not taken over.
    let failed =
        after(&[(Step::TakeOver(evidence(&orders[0])), Outcome::Error("its files are others".to_owned()))]);
    let decision = decide(&orders, None, &failed);
    assert!(matches!(decision.next, Next::Wait(_)));
    assert_eq!(decision.reports[0].problem.as_deref(), Some("its files are others"));
}
