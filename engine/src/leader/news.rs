//! What happens although nobody orders it: who leads, machines that come and go, units that fail and
//! recover.
//!
//! Owns what of it was told, and when it is told again. The leader looks at every change and gets
//! events to write; a new leader reads from the events what the one before it told, so that nothing is
//! told twice and nothing that happened between two leaders is missed.
//!
//! ```text
//!   failed, or being started again by systemd     ┌────────┐
//!  ┌───────┐ ───────────────────────────────────► │ failed │  each change told, but of a unit on a
//!  │ sound │                                      └────────┘  machine at most a few an hour: then
//!  └───────┘ ◄─────────────────────────────────── active      what it is when the next is free
//! ```
//!
//! The cost is bounded: whatever happens is written at most once a second, and at rest nothing is. What
//! waits for that second is told with the time at which it was seen: who puts it in order beside what
//! others did meanwhile sees it where it happened.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use flotilla_registry::{
    records::{EventChange, Target, UnitReport},
    store::Revision,
};
use flotilla_units::{MachineId, UnitName};
use jiff::Timestamp;

use super::{cause, step::Now};
use crate::state::{Changes, ClusterState, Kept, Life, Machine, Placed};

/// How many changes of a unit's health on one machine are told within [`WINDOW`]. Six: three failures
/// and three recoveries, which is as much as anybody reads of a crash loop.
const TOLD_MAX: usize = 6;

/// For how long [`TOLD_MAX`] counts. An hour: a unit that fails for ever costs 144 changes a day.
const WINDOW: Duration = Duration::from_secs(3_600);

/// How long news wait for others to be written with them, after some were written. A second: the first
/// goes at once, and a storm of failures costs one write a second.
const TOGETHER: Duration = Duration::from_secs(1);

/// The most news of one event. Five hundred: some 200 kB at most, well within a transaction.
const NEWS_MAX: usize = 500;

/// What was told, and what is to be told. A new leader makes it from the state.
#[derive(Debug, Default)]
pub struct News {
    machines: BTreeMap<MachineId, Life>,
    health: BTreeMap<UnitName, BTreeMap<MachineId, Health>>,
    /// Units to look at again, with when.
    later: BTreeMap<UnitName, Duration>,
    pending: VecDeque<EventChange>,
    /// When news were written last.
    written: Option<Duration>,
}

/// How a unit is on one machine, as far as it was told.
#[derive(Debug, Default)]
struct Health {
    failed: bool,
    /// When something was told within [`WINDOW`].
    told: VecDeque<Duration>,
    /// How many changes were not told since.
    untold: u32,
}

impl News {
    /// Begins a term: everything that was told before is known, and that there is a new leader is news.
    #[must_use]
    pub fn of_term(state: &ClusterState, kept: Duration, now: Timestamp) -> Self {
        let mut news = Self::default();
        let mut led: Option<(Revision, MachineId)> = None;
        for (at, event) in state.events() {
            for change in event.record.record().into_iter().flat_map(|record| &record.changes) {
                let Some(id) = change.machine else { continue };
                match (change.kind.as_str(), change.unit.is_some()) {
                    ("leader-elected", false) => led = Some((*at, id)),
                    ("machine-joined" | "machine-returned", false) => news.knows(id, Life::Present),
                    ("machine-stopped", false) => news.knows(id, Life::Stopped),
                    ("machine-lost", false) => news.knows(id, Life::Lost),
                    ("failed", true) => change.units().for_each(|it| news.health_of(it, id).failed = true),
                    ("recovered", true) => {
                        change.units().for_each(|it| news.health_of(it, id).failed = false);
                    }
                    _ => {}
                }
            }
        }
        // What is not told any more because its event was collected is no news either.
        let fresh = state.events().is_empty();
        for (id, machine) in state.machines() {
            let since = machine.record.as_ref().map(Kept::create_revision);
            let old = led.map_or(!fresh, |(at, _)| since.is_none_or(|since| since <= at));
            if old && !news.machines.contains_key(id) {
                news.knows(*id, if since.is_some() { Life::Present } else { Life::Lost });
            }
            let long_ago = |report: &&UnitReport| {
                let kept = i64::try_from(kept.as_secs()).unwrap_or(i64::MAX);
                report.since.is_some_and(|since| now.duration_since(since).as_secs() >= kept)
            };
            for report in machine.reports().filter(|report| is_failed(report)).filter(long_ago) {
                news.health_of(&report.unit, *id).failed = true;
            }
        }
        if let Some(leader) = state.leader().and_then(Kept::record) {
            let why = match led {
                Some((_, before)) if before == leader.machine => "it leads again".to_owned(),
                Some((_, before)) => format!("after {}", cause::host(state, before)),
                None => "it leads".to_owned(),
            };
            news.tell(now, "leader-elected", None, leader.machine, why);
        }
        news
    }

    fn knows(&mut self, id: MachineId, life: Life) {
        self.machines.insert(id, life);
    }

    fn health_of(&mut self, unit: &UnitName, id: MachineId) -> &mut Health {
        self.health.entry(unit.clone()).or_default().entry(id).or_default()
    }

    /// Looks at what changed.
    pub fn look(&mut self, state: &ClusterState, changes: &Changes, now: Now) {
        for id in &changes.machines {
            self.look_at_machine(*id, state.machines().get(id), now.wall);
        }
        let due: BTreeSet<UnitName> =
            self.later.iter().filter(|(_, at)| **at <= now.mono).map(|(unit, _)| unit.clone()).collect();
        let again =
            due.iter().filter(|unit| !changes.units.contains(*unit) && !changes.reported.contains(*unit));
        for unit in changes.all_units().chain(again) {
            self.later.remove(unit);
            self.look_at_unit(state, unit, now);
        }
    }

    /// Returns when there is something to write, or to look at, although nothing changes.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        let write =
            (!self.pending.is_empty()).then(|| self.written.map_or(Duration::ZERO, |at| at + TOGETHER));
        self.later.values().copied().chain(write).min()
    }

    /// Returns what is to be written now.
    pub fn take(&mut self, now: Duration) -> Vec<EventChange> {
        if self.pending.is_empty() || self.written.is_some_and(|at| at + TOGETHER > now) {
            return Vec::new();
        }
        self.written = Some(now);
        self.pending.drain(..self.pending.len().min(NEWS_MAX)).collect()
    }

    fn tell(&mut self, at: Timestamp, kind: &str, unit: Option<&UnitName>, machine: MachineId, why: String) {
        self.pending.push_back(EventChange {
            kind: kind.to_owned(),
            unit: unit.cloned(),
            machine: Some(machine),
            why: Some(why),
            at: Some(at),
            ..EventChange::default()
        });
    }

    fn look_at_machine(&mut self, id: MachineId, machine: Option<&Machine>, now: Timestamp) {
        let life = machine.map_or(Life::Lost, Machine::life);
        let before = self.machines.get(&id).copied();
        let (kind, why) = match (before, life) {
            (_, Life::Unknown) => return,
            (before, life) if before == Some(life) => return,
            (None, Life::Lost) => return,
            (None, Life::Present) => ("machine-joined", "it is part of the cluster"),
            (Some(Life::Stopped), Life::Present) => ("machine-returned", "its flotillad runs again"),
            (_, Life::Present) => ("machine-returned", "it is back"),
            (_, Life::Stopped) => ("machine-stopped", "its flotillad was stopped in order; its units run on"),
            (_, Life::Lost) => ("machine-lost", "its lease has ended"),
        };
        self.machines.insert(id, life);
        self.tell(now, kind, None, id, why.to_owned());
    }

    fn look_at_unit(&mut self, state: &ClusterState, unit: &UnitName, now: Now) {
        let placed = state.placed(unit);
        let staying = || placed.iter().filter(|placed| placed.entry.departing.is_none());
        if let Some(known) = self.health.get_mut(unit) {
            known.retain(|id, health| {
                health.told.retain(|at| *at + WINDOW > now.mono);
                let here = staying().any(|placed| placed.machine == *id);
                here && (health.failed || health.untold > 0 || !health.told.is_empty())
            });
            if known.is_empty() {
                self.health.remove(unit);
            }
        }
        for placed in staying() {
            self.look_at_placed(state, unit, placed, now);
        }
    }

    fn look_at_placed(&mut self, state: &ClusterState, unit: &UnitName, placed: &Placed<'_>, now: Now) {
        let current = |report: &&UnitReport| report.token == Some(placed.entry.token);
        let Some(report) = state.report_of(placed).filter(current) else { return };
        if placed.entry.target != Target::Launched {
            return;
        }
        let failed = is_failed(report);
        let known = self.health.get(unit).and_then(|machines| machines.get(&placed.machine));
        if failed == known.is_some_and(|health| health.failed) || !(failed || is_sound(report, placed)) {
            return;
        }
        let health = self.health_of(unit, placed.machine);
        if let Some(first) = health.told.front().filter(|_| health.told.len() >= TOLD_MAX) {
            let at = *first + WINDOW;
            health.untold = health.untold.saturating_add(1);
            self.later.insert(unit.clone(), at);
            return;
        }
        health.failed = failed;
        health.told.push_back(now.mono);
        let mut why = in_words(report, failed);
        if std::mem::take(&mut health.untold) > 0 {
            why.push_str("; it failed more often than was told");
        }
        let kind = if failed { "failed" } else { "recovered" };
        self.tell(now.wall, kind, Some(unit), placed.machine, why);
    }
}

/// Tells whether a unit that should run has failed: for good, or until systemd starts it again.
fn is_failed(report: &UnitReport) -> bool {
    let stuck = report.problem.is_some() && report.active == "inactive" && !report.stopped_locally;
    report.active == "failed" || report.sub.starts_with("auto-restart") || stuck
}

/// Tells whether a unit is as it should be: it runs, or was started and is done.
fn is_sound(report: &UnitReport, placed: &Placed<'_>) -> bool {
    match report.active.as_str() {
        "active" | "reloading" | "refreshing" => true,
        "inactive" => {
            report.run >= placed.entry.run
                && report.result.is_none()
                && !report.stopped_locally
                && !report.starting
        }
        _ => false,
    }
}

fn in_words(report: &UnitReport, failed: bool) -> String {
    if !failed {
        return if report.active == "inactive" { "it is done".to_owned() } else { "it runs".to_owned() };
    }
    let mut parts = Vec::new();
    parts.extend(report.result.as_ref().map(|result| format!("result {result}")));
    parts.extend(report.exit_status.map(|status| format!("exit status {status}")));
    parts.extend(report.problem.clone());
    if report.restarts > 0 {
        parts.push(format!("systemd has restarted it {} times", report.restarts));
    }
    if report.sub.starts_with("auto-restart") {
        parts.push("systemd starts it again".to_owned());
    }
    if parts.is_empty() { "systemd says so".to_owned() } else { parts.join(", ") }
}
