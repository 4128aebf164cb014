//! When an order has come true: what a unit's state says about it. Pure.

mod moved;

use std::collections::{BTreeMap, BTreeSet};

use flotilla_api::{
    action::{Action, UnitOutcome},
    unit::{Placement, Target, Unit, UnitState},
};
use flotilla_units::{MachineId, UnitName};

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
    /// It does not get its new text, because another of its template is not well with it.
    Held(String),
}

/// What is to be true of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    /// What was ordered, or would have made it what it is to be.
    pub(crate) action: Action,
    /// It was ordered. Of what was not, it is only looked at whether it is as it should be.
    pub(crate) ordered: bool,
    /// Something was done that may disturb it: it is watched for an early death.
    pub(crate) touched: bool,
    /// It has come true only with the text that the unit has now.
    pub(crate) updated: bool,
    /// Not before its record is of this generation.
    pub(crate) generation: u64,
    /// Not by an earlier run.
    pub(crate) run: u64,
}

/// Units that are being waited for.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    units: BTreeMap<UnitName, Waited>,
}

#[derive(Debug)]
struct Waited {
    expected: Expected,
    verdict: Verdict,
    /// It has an older text than it is to have.
    behind: bool,
    /// It is only to leave these machines, and to be well on another.
    moves_from: Option<BTreeSet<MachineId>>,
    /// Where it was seen last, and how.
    seen: Vec<Placement>,
}

impl Verdict {
    fn failed(machine: String, why: impl Into<String>) -> Self {
        Self::Failed { machine, why: why.into(), result: None, exit_status: None }
    }

    /// Tells whether it is other news than another verdict. The reasons why a unit cannot be placed change
    /// with whatever else goes on in the cluster.
    pub(crate) fn is_news_after(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::CannotBePlaced(_), Self::CannotBePlaced(_)) => false,
            (now, before) => now != before,
        }
    }
}

impl Expected {
    /// What an order is to come to, by the answer to it.
    pub(crate) fn of(action: Action, outcome: &UnitOutcome) -> Self {
        let UnitOutcome { generation, run, .. } = *outcome;
        Self { action, ordered: true, touched: true, updated: false, generation, run }
    }
}

impl Waiting {
    /// Begins to wait for an order's outcome.
    pub(crate) fn new(action: Action, units: &[UnitOutcome]) -> Self {
        units.iter().map(|unit| (unit.unit.clone(), Expected::of(action, unit))).collect()
    }

    /// Begins to wait for units that are moved off these machines.
    pub(crate) fn for_moves(moves: impl IntoIterator<Item = (UnitName, BTreeSet<MachineId>)>) -> Self {
        let (action, ordered, touched, updated) = (Action::Load, false, false, false);
        let nothing = Expected { action, ordered, touched, updated, generation: 0, run: 0 };
        let mut waiting = Self::default();
        for (unit, from) in moves {
            waiting.units.insert(unit, Waited { moves_from: Some(from), ..Waited::new(nothing.clone()) });
        }
        waiting
    }

    /// Waits also until the units run the texts that they have now, if those were replaced.
    pub(crate) fn until_updated(mut self, updated: bool) -> Self {
        self.units.values_mut().for_each(|waited| waited.expected.updated = updated);
        self
    }

    /// Takes in a unit's state. Returns its verdict if there is anything new of it, and whether that is news:
    /// another verdict, or of one that is as it should be, another state.
    pub(crate) fn see(&mut self, unit: &Unit) -> Option<(&Verdict, bool)> {
        let waited = self.units.get_mut(&unit.name)?;
        waited.behind = waited.expected.updated && is_behind(unit);
        let verdict = match &waited.moves_from {
            Some(from) => moved::judge(unit, from),
            None => judge(&waited.expected, unit),
        };
        let verdict = match verdict {
            // How it is with its old text says nothing of the new one.
            Verdict::Done(_) | Verdict::Failed { .. }
                if waited.behind && !fails_with_its_text(&waited.expected, unit) =>
            {
                Verdict::Pending(match &unit.reason {
                    Some(why) => format!("to be updated: {why}"),
                    None => "to be updated".to_owned(),
                })
            }
            verdict => verdict,
        };
        let moves = matches!(verdict, Verdict::Done(_)) && waited.seen != unit.placements;
        waited.seen.clone_from(&unit.placements);
        if moves && verdict == waited.verdict {
            return Some((&waited.verdict, true));
        }
        waited.become_(verdict)
    }

    /// Takes in that a unit is gone.
    pub(crate) fn gone(&mut self, name: &UnitName) -> Option<(&Verdict, bool)> {
        let waited = self.units.get_mut(name)?;
        waited.behind = false;
        let verdict = match waited.expected.action {
            Action::Destroy => Verdict::Done("destroyed".to_owned()),
            // One that was not even made is on no machine either.
            Action::Unload if !waited.expected.ordered => Verdict::Done("unloaded".to_owned()),
            _ => Verdict::failed(String::new(), "it was destroyed meanwhile"),
        };
        waited.become_(verdict)
    }

    /// Takes in that a unit was not among everything that there is. Tells whether that is news.
    pub(crate) fn absent(&mut self, seen: impl Fn(&UnitName) -> bool) -> bool {
        let names: Vec<UnitName> = self.units.keys().filter(|name| !seen(name)).cloned().collect();
        let mut news = false;
        for name in &names {
            news |= self.gone(name).is_some_and(|(_, news)| news);
        }
        news
    }

    /// Returns the verdicts, by name.
    pub(crate) fn verdicts(&self) -> impl Iterator<Item = (&UnitName, Verdict)> {
        self.units.iter().map(|(name, waited)| {
            let verdict = match &waited.verdict {
                Verdict::Pending(why) if self.is_held(name, waited) => Verdict::Held(why.clone()),
                verdict => verdict.clone(),
            };
            (name, verdict)
        })
    }

    /// Returns the names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &UnitName> {
        self.units.keys()
    }

    /// Tells whether something was done to a unit.
    pub(crate) fn is_touched(&self, unit: &UnitName) -> bool {
        self.units.get(unit).is_some_and(|waited| waited.expected.touched)
    }

    /// Tells whether one of them is up that may be gone in a moment.
    pub(crate) fn has_just_started(&self) -> bool {
        self.units.values().any(|waited| {
            let starts = matches!(waited.expected.action, Action::Start | Action::Restart);
            starts && waited.expected.touched && matches!(waited.verdict, Verdict::Done(_))
        })
    }

    /// Counts the units that are still being waited for.
    pub(crate) fn pending(&self) -> usize {
        let pending = |(name, waited): &(&UnitName, &Waited)| {
            matches!(waited.verdict, Verdict::Pending(_)) && !self.is_held(name, waited)
        };
        self.units.iter().filter(pending).count()
    }

    /// Counts all units.
    pub(crate) fn len(&self) -> usize {
        self.units.len()
    }

    /// Tells whether a unit waits for a text with which another of its template has failed: no other gets it
    /// before that one is well.
    fn is_held(&self, name: &UnitName, waited: &Waited) -> bool {
        let Some(template) = name.template().filter(|_| waited.behind) else { return false };
        self.units.iter().any(|(other, it)| {
            let failed = matches!(it.verdict, Verdict::Failed { .. });
            failed && it.expected.updated && other.template().as_ref() == Some(&template)
        })
    }
}

impl FromIterator<(UnitName, Expected)> for Waiting {
    fn from_iter<T: IntoIterator<Item = (UnitName, Expected)>>(units: T) -> Self {
        Self { units: units.into_iter().map(|(unit, expected)| (unit, Waited::new(expected))).collect() }
    }
}

impl Waited {
    fn new(expected: Expected) -> Self {
        let verdict = Verdict::Pending("waiting for the engine".to_owned());
        Self { expected, verdict, behind: false, moves_from: None, seen: Vec::new() }
    }

    fn become_(&mut self, verdict: Verdict) -> Option<(&Verdict, bool)> {
        if verdict == self.verdict {
            return None;
        }
        let news = verdict.is_news_after(&self.verdict);
        self.verdict = verdict;
        Some((&self.verdict, news))
    }
}

/// Judges one unit.
fn judge(expected: &Expected, unit: &Unit) -> Verdict {
    let Expected { action, generation, run, .. } = *expected;
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
        // A timer or a socket may be running it just now.
        Action::Load if !expected.ordered => placed(unit, held),
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

/// Tells whether a unit has failed where it has the text that it is to have: it gets no further with it.
fn fails_with_its_text(expected: &Expected, unit: &Unit) -> bool {
    let mut with = unit.clone();
    with.placements.retain(|placement| placement.hash == unit.hash);
    matches!(judge(expected, &with), Verdict::Failed { .. })
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

/// Judges a unit that is to be loaded and of which nothing was ordered: whatever runs it may run it.
fn held(placement: &Placement) -> Verdict {
    let on = machine(placement);
    match placement.state.as_ref().filter(|state| state.token.is_none_or(|token| token == placement.token)) {
        Some(UnitState { problem: Some(problem), .. }) => Verdict::failed(on, problem),
        Some(_) => Verdict::Done(format!("loaded on {on}")),
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
        ("inactive", _) if state.stopped_locally => {
            Verdict::failed(on, "it was stopped on the machine itself")
        }
        // Nothing of it has begun; before that it looks as if it were over.
        ("inactive", _) if state.starting => Verdict::Pending(format!("starting on {on}")),
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
mod tests;
