//! When an order has come true: what a unit's state says about it. Pure.

use std::collections::BTreeMap;

use flotilla_api::{
    action::{Action, UnitOutcome},
    unit::{Placement, Target, Unit, UnitState},
};
use flotilla_units::UnitName;

/// What a unit's state says about an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has come true.
    Done(String),
    /// It may still come true; what is being waited for.
    Pending(String),
    /// The unit died, or could not be started, on this machine.
    Failed {
        /// Host name or id.
        machine: String,
        /// In one line.
        why: String,
        /// systemd's `Result`, where it is known.
        result: Option<String>,
        /// The main process's exit status or the signal that ended it, where it is known.
        exit_status: Option<i32>,
    },
    /// No machine may run it.
    CannotBePlaced(String),
}

/// The units of an order that is being waited for.
#[derive(Debug)]
pub(crate) struct Waiting {
    action: Action,
    units: BTreeMap<UnitName, Waited>,
    /// It has come true only with the text that the units have now.
    updated: bool,
}

#[derive(Debug)]
struct Waited {
    generation: u64,
    run: u64,
    verdict: Verdict,
}

impl Verdict {
    fn failed(machine: String, why: impl Into<String>) -> Self {
        Self::Failed { machine, why: why.into(), result: None, exit_status: None }
    }
}

impl Waiting {
    /// Begins to wait for an order's outcome.
    pub(crate) fn new(action: Action, units: &[UnitOutcome]) -> Self {
        let wait = |unit: &UnitOutcome| {
            let verdict = Verdict::Pending("waiting for the engine".to_owned());
            (unit.unit.clone(), Waited { generation: unit.generation, run: unit.run, verdict })
        };
        Self { action, units: units.iter().map(wait).collect(), updated: false }
    }

    /// Waits also until the units run the texts that they have now, if those were replaced.
    pub(crate) fn until_updated(self, updated: bool) -> Self {
        Self { updated, ..self }
    }

    /// Takes in a unit's state. Returns its verdict if that changed.
    pub(crate) fn see(&mut self, unit: &Unit) -> Option<&Verdict> {
        let (action, updated) = (self.action, self.updated);
        let waited = self.units.get_mut(&unit.name)?;
        let verdict = match judge(action, unit, waited.generation, waited.run) {
            Verdict::Done(_) if updated && is_behind(unit) => Verdict::Pending(match &unit.reason {
                Some(why) => format!("to be updated: {why}"),
                None => "to be updated".to_owned(),
            }),
            verdict => verdict,
        };
        if verdict == waited.verdict {
            return None;
        }
        waited.verdict = verdict;
        Some(&waited.verdict)
    }

    /// Takes in that a unit is gone.
    pub(crate) fn gone(&mut self, name: &UnitName) -> Option<&Verdict> {
        let waited = self.units.get_mut(name)?;
        waited.verdict = match self.action {
            Action::Destroy => Verdict::Done("destroyed".to_owned()),
            _ => Verdict::failed(String::new(), "it was destroyed meanwhile"),
        };
        Some(&waited.verdict)
    }

    /// Takes in that a unit was not among everything that there is.
    pub(crate) fn absent(&mut self, seen: impl Fn(&UnitName) -> bool) -> Vec<UnitName> {
        let names: Vec<UnitName> = self.units.keys().filter(|name| !seen(name)).cloned().collect();
        for name in &names {
            self.gone(name);
        }
        names
    }

    /// Returns what was ordered.
    pub(crate) const fn action(&self) -> Action {
        self.action
    }

    /// Returns the verdicts, by name.
    pub(crate) fn verdicts(&self) -> impl Iterator<Item = (&UnitName, &Verdict)> {
        self.units.iter().map(|(name, waited)| (name, &waited.verdict))
    }

    /// Counts the units that are still being waited for.
    pub(crate) fn pending(&self) -> usize {
        self.units.values().filter(|waited| matches!(waited.verdict, Verdict::Pending(_))).count()
    }

    /// Counts all units.
    pub(crate) fn len(&self) -> usize {
        self.units.len()
    }
}

/// Judges one unit.
fn judge(action: Action, unit: &Unit, generation: u64, run: u64) -> Verdict {
    // Its record has gone: what a lost machine may still have of it is stopped when that is back.
    let alive = || unit.placements.iter().any(|placement| placement.machine_alive);
    if action == Action::Destroy && unit.generation == 0 && !alive() {
        return Verdict::Done(format!("destroyed{}", missing(unit, |_| true)));
    }
    if unit.generation < generation {
        return Verdict::Pending("waiting for the engine".to_owned());
    }
    match action {
        Action::Destroy => leaving(unit),
        Action::Unload => unloaded(unit),
        Action::Load => placed(unit, stopped),
        Action::Stop if !unit.placements.iter().any(stays) => leftover(unit),
        Action::Stop => placed(unit, stopped),
        Action::Start | Action::Restart => placed(unit, |placement| started(placement, run)),
    }
}

/// Tells whether a unit still has an older text on a machine that lives.
fn is_behind(unit: &Unit) -> bool {
    unit.placements.iter().any(|placement| stays(placement) && placement.hash != unit.hash)
}

/// Tells whether a placement is one by which an order is judged: of a lost machine nothing will be heard,
/// and what it has goes elsewhere or waits for it.
const fn stays(placement: &Placement) -> bool {
    placement.machine_alive && placement.departing.is_none()
}

/// Names the machines that are lost and that an order is for all the same: it reaches them when they are
/// back.
fn missing(unit: &Unit, wanted: impl Fn(&Placement) -> bool) -> String {
    let lost = unit.placements.iter().filter(|placement| !placement.machine_alive && wanted(placement));
    lost.map(|placement| format!("; {} is lost", machine(placement))).collect()
}

/// Judges a unit that is to leave its machines. One that is lost is told when it is back: nobody waits
/// for that.
fn unloaded(unit: &Unit) -> Verdict {
    let told = |placement: &Placement| placement.departing.is_some() && !placement.machine_alive;
    if unit.placements.iter().all(told) {
        return Verdict::Done(format!("unloaded{}", missing(unit, |_| true)));
    }
    leaving(unit)
}

fn leaving(unit: &Unit) -> Verdict {
    let stopping = unit.placements.iter().filter(|placement| placement.machine_alive);
    let machines: Vec<String> = stopping.map(machine).collect();
    Verdict::Pending(match machines.as_slice() {
        [] => "waiting for the engine".to_owned(),
        machines => format!("stopping on {}", machines.join(", ")),
    })
}

/// Judges a unit that is to be stopped and stays on no machine: what is on none does not run, and why
/// it is on none is not what was asked. It may still run where it is leaving.
fn leftover(unit: &Unit) -> Verdict {
    let runs = |p: &&Placement| {
        let ended = |active: &str| matches!(active, "inactive" | "failed");
        p.machine_alive && p.state.as_ref().is_some_and(|state| !ended(&state.active))
    };
    match unit.placements.iter().find(runs) {
        Some(placement) => Verdict::Pending(format!("stopping on {}", machine(placement))),
        None => Verdict::Done(format!("not running{}", missing(unit, |p| p.departing.is_none()))),
    }
}

/// Judges a unit by each of its placements on machines that live: the worst of them counts.
fn placed(unit: &Unit, judge: impl Fn(&Placement) -> Verdict) -> Verdict {
    let staying: Vec<&Placement> = unit.placements.iter().filter(|placement| stays(placement)).collect();
    if staying.is_empty() {
        return match &unit.unplaced {
            _ if unit.target == Target::Inactive => {
                Verdict::failed(String::new(), "it was unloaded meanwhile")
            }
            Some(why) => Verdict::CannotBePlaced(why.clone()),
            None => Verdict::Pending("waiting to be placed".to_owned()),
        };
    }
    let mut done = Vec::new();
    let mut pending = None;
    for verdict in staying.into_iter().map(judge) {
        match verdict {
            Verdict::Done(text) => done.push(text),
            Verdict::Pending(text) => pending = Some(text),
            failed => return failed,
        }
    }
    let done = || done.join("; ") + &missing(unit, |placement| placement.departing.is_none());
    pending.map_or_else(|| Verdict::Done(done()), Verdict::Pending)
}

fn stopped(placement: &Placement) -> Verdict {
    let on = machine(placement);
    match placement
        .state
        .as_ref()
        .filter(|state| state.token == Some(placement.token) || state.token.is_none())
    {
        Some(state) if matches!(state.active.as_str(), "inactive" | "failed") => {
            Verdict::Done(format!("loaded on {on}"))
        }
        Some(state) => Verdict::Pending(format!("{} on {on}", state.active)),
        None => Verdict::Pending(format!("waiting for {on}")),
    }
}

fn started(placement: &Placement, run: u64) -> Verdict {
    let on = machine(placement);
    let current = placement.state.as_ref().filter(|_| placement.run >= run);
    let Some(state) = current else { return Verdict::Pending(format!("waiting for {on}")) };
    let this = state.token == Some(placement.token) && state.run >= run;
    if let Some(problem) = state.problem.as_ref().filter(|_| state.active != "active" || !this) {
        // How the start job ended says less than how the unit did.
        let is_dead = this && state.active == "failed" && state.result.is_some();
        return if is_dead { died(on, state, Some(problem.as_str())) } else { Verdict::failed(on, problem) };
    }
    if !this {
        return Verdict::Pending(format!("waiting for {on}"));
    }
    let died = |on: String| died(on, state, None);
    match (state.active.as_str(), state.sub.as_str()) {
        ("active", "exited") => Verdict::Done(format!("finished on {on}")),
        ("active" | "reloading", _) => Verdict::Done(format!("active on {on}")),
        // Between two tries of systemd's own Restart=: it has died already.
        ("failed", _) | ("activating", "auto-restart" | "auto-restart-queued") => died(on),
        // A oneshot without RemainAfterExit= is inactive once it has succeeded.
        ("inactive", _) if state.result.is_none() => Verdict::Done(format!("finished on {on}")),
        ("inactive", _) => died(on),
        (active, _) => Verdict::Pending(format!("{active} on {on}")),
    }
}

fn died(machine: String, state: &UnitState, problem: Option<&str>) -> Verdict {
    let death = death(state.result.as_deref(), state.exit_status);
    let why = problem.map_or_else(|| death.clone(), |problem| format!("{death}; {problem}"));
    Verdict::Failed { machine, why, result: state.result.clone(), exit_status: state.exit_status }
}

/// Says how a unit died, as systemctl would.
pub(crate) fn death(result: Option<&str>, exit_status: Option<i32>) -> String {
    let result = result.unwrap_or("unknown");
    match exit_status {
        Some(status) if result == "exit-code" => format!("result {result}, exit status {status}"),
        Some(status) if result == "signal" || result == "core-dump" => {
            format!("result {result}, killed by signal {status}")
        }
        _ => format!("result {result}"),
    }
}

/// Names a placement's machine.
pub(crate) fn machine(placement: &Placement) -> String {
    placement.host.clone().unwrap_or_else(|| placement.machine.short())
}

#[cfg(test)]
mod tests {
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
        }
    }

    fn start(unit: &Unit) -> Verdict {
        judge(Action::Start, unit, 3, 2)
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
        assert_eq!(judge(Action::Start, &unit(&[state("active", "running")]), 4, 2), {
            Verdict::Pending("waiting for the engine".to_owned())
        });
    }

    #[test]
    fn a_replaced_unit_is_waited_for_until_it_has_its_new_text() {
        let mut behind = unit(&[state("active", "running")]);
        behind.hash = Some(flotilla_units::ContentHash::of(b"new"));
        behind.reason = Some("web@1.service is updated first".to_owned());
        let outcome = [UnitOutcome {
            unit: behind.name.clone(),
            changed: true,
            generation: 3,
            run: 2,
            adopted_from: None,
        }];
        let mut waiting = Waiting::new(Action::Start, &outcome);
        assert!(matches!(waiting.see(&behind), Some(Verdict::Done(_))), "nobody asked for it");
        let mut waiting = Waiting::new(Action::Start, &outcome).until_updated(true);
        let pending = "to be updated: web@1.service is updated first".to_owned();
        assert_eq!(waiting.see(&behind), Some(&Verdict::Pending(pending)));
        behind.placements[0].hash = behind.hash;
        assert!(matches!(waiting.see(&behind), Some(Verdict::Done(_))));
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
        let stop = |unit: &Unit| judge(Action::Stop, unit, 3, 2);
        let not_running = Verdict::Done("not running".to_owned());
        let mut nowhere = unit(&[]);
        assert_eq!(stop(&nowhere), not_running, "it waited for a place");
        nowhere.unplaced = Some("no machine has zone=b".to_owned());
        assert_eq!(stop(&nowhere), not_running, "it had no possible place");
        nowhere.target = Target::Inactive;
        assert_eq!(stop(&nowhere), not_running, "it was never loaded");
        let unloaded = Verdict::failed(String::new(), "it was unloaded meanwhile");
        assert_eq!(judge(Action::Load, &nowhere, 3, 2), unloaded);

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
            let judge = |unit: &Unit| judge(action, unit, 3, 2);
            bound.unplaced = None;
            assert_eq!(judge(&bound), Verdict::Pending("waiting to be placed".to_owned()), "it may move");
            bound.unplaced = Some("m1 is lost; 2 machines: no".to_owned());
            assert_eq!(judge(&bound), Verdict::CannotBePlaced("m1 is lost; 2 machines: no".to_owned()));
        }
        let done = |action, unit: &Unit| match judge(action, unit, 3, 2) {
            Verdict::Done(text) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(done(Action::Stop, &bound), "not running; m1 is lost");
        let mut destroyed = bound.clone();
        destroyed.generation = 0;
        assert_eq!(done(Action::Destroy, &destroyed), "destroyed; m1 is lost", "its record has gone");
        bound.target = Target::Inactive;
        let order = Verdict::Pending("waiting for the engine".to_owned());
        assert_eq!(judge(Action::Unload, &bound, 3, 2), order, "the engine has not heard of it");
        bound.placements[0].departing = Some("unloaded".to_owned());
        assert_eq!(done(Action::Unload, &bound), "unloaded; m1 is lost");
    }

    #[test]
    fn stopping_and_leaving() {
        let running = unit(&[state("active", "running")]);
        let stopped = unit(&[state("inactive", "dead")]);
        assert!(matches!(judge(Action::Stop, &running, 3, 2), Verdict::Pending(_)));
        assert_eq!(judge(Action::Stop, &stopped, 3, 2), Verdict::Done("loaded on m1".to_owned()));
        assert!(matches!(judge(Action::Unload, &stopped, 3, 2), Verdict::Pending(_)));
        assert_eq!(judge(Action::Unload, &unit(&[]), 3, 2), Verdict::Done("unloaded".to_owned()));
        assert!(matches!(judge(Action::Destroy, &unit(&[]), 3, 2), Verdict::Pending(_)));
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
}
