use flotilla_api::unit::UnitState;
use jiff::Timestamp;

use super::*;

fn state(active: &str, sub: &str) -> UnitState {
    UnitState {
        load: "loaded".to_owned(),
        active: active.to_owned(),
        sub: sub.to_owned(),
        since: None,
        token: Some(7),
        run: 2,
        hash: None,
        invocation: None,
        result: None,
        exit_status: None,
        restarts: 0,
        stray: false,
        starting: false,
        stopped_locally: false,
        problem: None,
    }
}

fn unit(states: &[UnitState]) -> Unit {
    let place = |state: &UnitState| Placement {
        machine: "113f16a7a0f84c4c8a3f9e3b2f4d6c01".parse().expect("valid"),
        host: Some("m1".to_owned()),
        machine_alive: true,
        token: 7,
        run: 2,
        departing: None,
        moving: None,
        hash: None,
        current: Target::Launched,
        state: Some(state.clone()),
    };
    Unit {
        name: "a.service".parse().expect("valid"),
        target: Target::Launched,
        revision: 9,
        generation: 3,
        run: 2,
        hash: None,
        template: None,
        description: None,
        global: false,
        deleting: false,
        by: "tester".to_owned(),
        at: Timestamp::UNIX_EPOCH,
        placements: states.iter().map(place).collect(),
        unplaced: None,
        current: Target::Launched,
        reason: None,
        versions: flotilla_api::unit::Versions::default(),
        rollout: None,
        set: None,
        own_text: false,
        next_start: false,
    }
}

/// Judges an order of the third generation and the second run.
fn judge(action: Action, unit: &Unit) -> Verdict {
    super::judge(&expected(action), unit)
}

const fn expected(action: Action) -> Expected {
    Expected { action, ordered: true, touched: true, updated: false, generation: 3, run: 2 }
}

fn start(unit: &Unit) -> Verdict {
    judge(Action::Start, unit)
}

fn exited_with_3() -> Verdict {
    Verdict::Failed {
        machine: "m1".to_owned(),
        why: "result exit-code, exit status 3".to_owned(),
        result: Some("exit-code".to_owned()),
        exit_status: Some(3),
    }
}

#[test]
fn a_start_is_done_when_this_run_of_this_placement_is_active() {
    assert_eq!(start(&unit(&[state("active", "running")])), Verdict::Done("active on m1".to_owned()));
    assert!(matches!(start(&unit(&[state("activating", "start")])), Verdict::Pending(_)));
    let mut earlier = state("active", "running");
    earlier.run = 1;
    assert!(matches!(start(&unit(&[earlier])), Verdict::Pending(_)), "an earlier run proves nothing");
    let mut other = state("active", "running");
    other.token = Some(6);
    assert!(matches!(start(&unit(&[other])), Verdict::Pending(_)), "nor an earlier placement");
    let later = Expected { generation: 4, ..expected(Action::Start) };
    assert_eq!(super::judge(&later, &unit(&[state("active", "running")])), {
        Verdict::Pending("waiting for the engine".to_owned())
    });
}

#[test]
fn a_start_that_is_queued_is_not_finished() {
    let queued = UnitState { starting: true, ..state("activating", "queued") };
    assert_eq!(start(&unit(&[queued])), Verdict::Pending("activating on m1".to_owned()));
    let not_begun = UnitState { starting: true, ..state("inactive", "dead") };
    assert_eq!(start(&unit(&[not_begun])), Verdict::Pending("starting on m1".to_owned()));
    assert_eq!(start(&unit(&[state("inactive", "dead")])), Verdict::Done("finished on m1".to_owned()));
    let tried = UnitState {
        starting: true,
        problem: Some("its start job ended in `dependency`".to_owned()),
        ..state("inactive", "dead")
    };
    assert!(matches!(start(&unit(&[tried])), Verdict::Failed { .. }));
}

#[test]
fn a_replaced_unit_is_waited_for_until_it_has_its_new_text() {
    let mut behind = unit(&[state("active", "running")]);
    behind.hash = Some(flotilla_units::ContentHash::of(b"new"));
    behind.reason = Some("web@1.service is updated first".to_owned());
    let outcome =
        [UnitOutcome { unit: behind.name.clone(), changed: true, generation: 3, run: 2, adopted_from: None }];
    let mut waiting = Waiting::new(Action::Start, &outcome);
    assert!(matches!(waiting.see(&behind), Some((Verdict::Done(_), true))), "nobody asked for it");
    let mut waiting = Waiting::new(Action::Start, &outcome).until_updated(true);
    let pending = "to be updated: web@1.service is updated first".to_owned();
    assert_eq!(waiting.see(&behind), Some((&Verdict::Pending(pending.clone()), true)));
    // How it is with its old text is no news of the new one.
    behind.placements[0].state = Some(state("failed", "failed"));
    assert_eq!(waiting.see(&behind), None);
    behind.placements[0].state = Some(state("active", "running"));
    behind.placements[0].hash = behind.hash;
    assert!(matches!(waiting.see(&behind), Some((Verdict::Done(_), true))));
}

#[test]
fn a_unit_that_died_says_how() {
    let mut dead = state("failed", "failed");
    (dead.result, dead.exit_status) = (Some("exit-code".to_owned()), Some(3));
    assert_eq!(start(&unit(std::slice::from_ref(&dead))), exited_with_3());
    dead.problem = Some("its start job ended in `failed`".to_owned());
    let Verdict::Failed { why, exit_status, .. } = start(&unit(std::slice::from_ref(&dead))) else {
        panic!("it died")
    };
    assert_eq!(why, "result exit-code, exit status 3; its start job ended in `failed`");
    assert_eq!(exit_status, Some(3));
    dead.problem = None;
    (dead.active, dead.sub) = ("activating".to_owned(), "auto-restart".to_owned());
    assert_eq!(start(&unit(&[dead])), exited_with_3());
    assert_eq!(
        start(&unit(&[state("inactive", "dead")])),
        Verdict::Done("finished on m1".to_owned()),
        "a oneshot that succeeded"
    );
}

#[test]
fn the_worst_placement_of_a_global_unit_counts() {
    let mixed = unit(&[state("active", "running"), state("activating", "start")]);
    assert!(matches!(start(&mixed), Verdict::Pending(_)));
    let mixed = unit(&[state("active", "running"), state("failed", "failed")]);
    assert!(matches!(start(&mixed), Verdict::Failed { .. }));
}

#[test]
fn a_unit_on_no_machine_says_why() {
    let mut nowhere = unit(&[]);
    assert!(matches!(start(&nowhere), Verdict::Pending(_)));
    nowhere.unplaced = Some("no machine has zone=b".to_owned());
    assert_eq!(start(&nowhere), Verdict::CannotBePlaced("no machine has zone=b".to_owned()));
}

#[test]
fn what_is_on_no_machine_is_stopped() {
    let stop = |unit: &Unit| judge(Action::Stop, unit);
    let not_running = Verdict::Done("not running".to_owned());
    let mut nowhere = unit(&[]);
    assert_eq!(stop(&nowhere), not_running, "it waited for a place");
    nowhere.unplaced = Some("no machine has zone=b".to_owned());
    assert_eq!(stop(&nowhere), not_running, "it had no possible place");
    nowhere.target = Target::Inactive;
    assert_eq!(stop(&nowhere), not_running, "it was never loaded");
    let unloaded = Verdict::failed(String::new(), "it was unloaded meanwhile");
    assert_eq!(judge(Action::Load, &nowhere), unloaded);

    let mut moving = unit(&[state("active", "running")]);
    moving.placements[0].departing = Some("moved".to_owned());
    assert_eq!(stop(&moving), Verdict::Pending("stopping on m1".to_owned()));
    moving.placements[0].machine_alive = false;
    assert_eq!(stop(&moving), not_running, "nobody can say more of a lost machine");
}

#[test]
fn nobody_waits_for_a_machine_that_is_lost() {
    let lose = |unit: &mut Unit, n: usize| {
        (unit.placements[n].machine_alive, unit.placements[n].state) = (false, None);
    };
    let running = state("active", "running");
    let mut global = unit(&[running.clone(), running.clone()]);
    lose(&mut global, 1);
    global.placements[1].host = Some("m2".to_owned());
    assert_eq!(start(&global), Verdict::Done("active on m1; m2 is lost".to_owned()));
    global.placements[1].departing = Some("its machine was lost".to_owned());
    assert_eq!(start(&global), Verdict::Done("active on m1".to_owned()), "it has moved");

    let mut bound = unit(&[running]);
    lose(&mut bound, 0);
    for action in [Action::Start, Action::Load, Action::Restart] {
        let judge = |unit: &Unit| judge(action, unit);
        bound.unplaced = None;
        assert_eq!(judge(&bound), Verdict::Pending("waiting to be placed".to_owned()), "it may move");
        bound.unplaced = Some("m1 is lost; 2 machines: no".to_owned());
        assert_eq!(judge(&bound), Verdict::CannotBePlaced("m1 is lost; 2 machines: no".to_owned()));
    }
    let done = |action, unit: &Unit| match judge(action, unit) {
        Verdict::Done(text) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(done(Action::Stop, &bound), "not running; m1 is lost");
    let mut destroyed = bound.clone();
    destroyed.generation = 0;
    assert_eq!(done(Action::Destroy, &destroyed), "destroyed; m1 is lost", "its record has gone");
    bound.target = Target::Inactive;
    let order = Verdict::Pending("waiting for the engine".to_owned());
    assert_eq!(judge(Action::Unload, &bound), order, "the engine has not heard of it");
    bound.placements[0].departing = Some("unloaded".to_owned());
    assert_eq!(done(Action::Unload, &bound), "unloaded; m1 is lost");
}

#[test]
fn stopping_and_leaving() {
    let running = unit(&[state("active", "running")]);
    let stopped = unit(&[state("inactive", "dead")]);
    assert!(matches!(judge(Action::Stop, &running), Verdict::Pending(_)));
    assert_eq!(judge(Action::Stop, &stopped), Verdict::Done("loaded on m1".to_owned()));
    assert!(matches!(judge(Action::Unload, &stopped), Verdict::Pending(_)));
    assert_eq!(judge(Action::Unload, &unit(&[])), Verdict::Done("unloaded".to_owned()));
    assert!(matches!(judge(Action::Destroy, &unit(&[])), Verdict::Pending(_)));
    let outcome = UnitOutcome {
        unit: "a.service".parse().expect("valid"),
        changed: true,
        generation: 3,
        run: 2,
        adopted_from: None,
    };
    let mut waiting = Waiting::new(Action::Destroy, &[outcome]);
    assert_eq!(waiting.pending(), 1);
    waiting.gone(&"a.service".parse().expect("valid"));
    assert_eq!((waiting.pending(), waiting.len()), (0, 1));
}

/// Of what nothing was ordered, it is looked at whether it is as it should be.
#[test]
fn what_stands_is_judged_by_what_it_should_be() {
    let stands = |action, unit: &Unit| {
        super::judge(&Expected { ordered: false, touched: false, ..expected(action) }, unit)
    };
    let running = unit(&[state("active", "running")]);
    assert_eq!(stands(Action::Load, &running), Verdict::Done("loaded on m1".to_owned()), "its timer runs it");
    let mut broken = running.clone();
    broken.placements[0].state.as_mut().unwrap().problem = Some("refused".to_owned());
    assert_eq!(stands(Action::Load, &broken), Verdict::failed("m1".to_owned(), "refused"));
    let mut dead = state("failed", "failed");
    (dead.result, dead.exit_status) = (Some("exit-code".to_owned()), Some(3));
    assert_eq!(stands(Action::Start, &unit(&[dead])), exited_with_3());
    let mut stopped = state("inactive", "dead");
    stopped.stopped_locally = true;
    let why = "it was stopped on the machine itself";
    assert_eq!(stands(Action::Start, &unit(&[stopped])), Verdict::failed("m1".to_owned(), why));
    assert_eq!(stands(Action::Unload, &unit(&[])), Verdict::Done("unloaded".to_owned()));
}

#[test]
fn only_what_changes_a_waited_unit_is_news() {
    let outcome = UnitOutcome {
        unit: "a.service".parse().unwrap(),
        changed: true,
        generation: 3,
        run: 2,
        adopted_from: None,
    };
    let mut waiting = Waiting::new(Action::Start, std::slice::from_ref(&outcome));
    let mut running = unit(&[state("active", "running")]);
    assert!(matches!(waiting.see(&running), Some((_, true))));
    running.versions.all = 9;
    assert_eq!(waiting.see(&running), None, "something else of its template");
    running.placements[0].state.as_mut().unwrap().restarts = 1;
    assert!(matches!(waiting.see(&running), Some((Verdict::Done(_), true))), "it died and is up again");
    let mut nowhere = unit(&[]);
    nowhere.unplaced = Some("1 GiB is free".to_owned());
    assert!(matches!(waiting.see(&nowhere), Some((_, true))));
    nowhere.unplaced = Some("2 GiB is free".to_owned());
    assert!(matches!(waiting.see(&nowhere), Some((Verdict::CannotBePlaced(_), false))));
    let mut other = running;
    other.name = "other.service".parse().unwrap();
    assert_eq!(waiting.see(&other), None);
}

/// One at a time: what comes after the one that failed is not waited for.
#[test]
fn a_text_that_fails_is_not_waited_for_elsewhere() {
    let named = |name: &str, active: &str| {
        let mut unit = unit(&[state(active, "running")]);
        unit.name = name.parse().unwrap();
        unit.template = unit.name.template();
        unit.hash = Some(flotilla_units::ContentHash::of(b"new"));
        unit
    };
    let (mut first, second) = (named("web@1.service", "failed"), named("web@2.service", "active"));
    let mut waiting: Waiting = [&first, &second]
        .map(|unit| (unit.name.clone(), Expected { updated: true, ..expected(Action::Start) }))
        .into_iter()
        .collect();
    waiting.see(&first);
    waiting.see(&second);
    assert_eq!(waiting.pending(), 2, "it failed with its old text");
    first.placements[0].hash = first.hash;
    assert!(matches!(waiting.see(&first), Some((Verdict::Failed { .. }, true))));
    assert_eq!(waiting.pending(), 0);
    let verdicts: Vec<Verdict> = waiting.verdicts().map(|(_, verdict)| verdict).collect();
    assert!(matches!(&verdicts[..], [Verdict::Failed { .. }, Verdict::Held(_)]), "{verdicts:?}");
}
