//! The state of the fake systemd and its transitions; no time passes and nothing waits in here.
//!
//! ```text
//!            begin_start                 finish (Runs)
//! inactive ───(queued)──▶ activating ─────────────────▶ active
//!  (not      ▲                │ finish (Fails)            │ begin_stop        │ end
//!  loaded)   │ settle         ▼                           ▼                   │
//!            ├──────────── failed ◀──── (timeout) ── deactivating             │
//!            └────────────────────────────────────────────┴───────────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

use flotilla_registry::records::Token;
use flotilla_units::{ContentHash, UnitName};
use jiff::{SignedDuration, Timestamp};
use tokio::{sync::oneshot, time::Instant};

use super::behaviour::{Behaviour, Cause, Exit, Job, OnStart, OnStop, Start, Stop};
use crate::systemd::{Evidence, History, JobResult, Outbox, Present, Pulled, Then, UnitState};

/// Everything the machine is.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) number: u64,
    pub(super) boot: u64,
    pub(super) answers: bool,
    pub(super) disk_full: bool,
    pub(super) units: BTreeMap<UnitName, Unit>,
    /// Units of the machine's own, with their paths.
    pub(super) local: BTreeMap<UnitName, String>,
    /// What those of them run with that can be taken over.
    pub(super) local_texts: BTreeMap<UnitName, ContentHash>,
    /// Units whose taking over has begun: as the ledger, it survives a reboot.
    pub(super) taking: BTreeSet<UnitName>,
    /// Which other units stop with one.
    pub(super) bound: BTreeMap<UnitName, BTreeSet<UnitName>>,
    pub(super) behaviours: BTreeMap<UnitName, Behaviour>,
    pub(super) default_behaviour: Behaviour,
    pub(super) starts: Vec<Start>,
    pub(super) stops: Vec<Stop>,
    pub(super) outbox: Outbox,
    born: Instant,
    invocations: u64,
}

/// One unit: what is below `/run/flotilla`, and what the manager knows.
#[derive(Debug, Default)]
pub(super) struct Unit {
    pub(super) file: Option<ContentHash>,
    pub(super) evidence: Option<Evidence>,
    pub(super) loaded: Option<Loaded>,
    /// Room was made for its next start.
    pub(super) has_room: bool,
    /// What the journal tells since the evidence was written.
    pub(super) history: History,
    /// A stop of that unit, which had this token and run, stopped what this one ran as.
    pulled: Option<PulledBy>,
}

/// Another unit whose stop stopped one.
#[derive(Debug)]
struct PulledBy {
    by: UnitName,
    /// Under what that one ran then.
    was: Option<(Token, u64)>,
    /// What this one ran as.
    invocation: String,
}

/// What the manager knows of a unit that is loaded.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) active: &'static str,
    pub(super) sub: &'static str,
    since: Timestamp,
    pub(super) invocation: String,
    result: &'static str,
    exit_status: Option<i32>,
    restarts: u32,
    pub(super) cgroup_empty: bool,
    pub(super) job: Option<Job>,
    /// Changes whenever a transition makes planned ones void.
    pub(super) serial: u64,
}

impl Machine {
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            boot: 0,
            answers: true,
            disk_full: false,
            units: BTreeMap::new(),
            local: BTreeMap::new(),
            local_texts: BTreeMap::new(),
            taking: BTreeSet::new(),
            bound: BTreeMap::new(),
            behaviours: BTreeMap::new(),
            default_behaviour: Behaviour::default(),
            starts: Vec::new(),
            stops: Vec::new(),
            outbox: Outbox::default(),
            born: Instant::now(),
            invocations: 0,
        }
    }

    pub(super) fn behaviour(&self, unit: &UnitName) -> Behaviour {
        self.behaviours.get(unit).unwrap_or(&self.default_behaviour).clone()
    }

    pub(super) fn loaded(&mut self, unit: &UnitName) -> Option<&mut Loaded> {
        self.units.get_mut(unit)?.loaded.as_mut()
    }

    /// Begins a start job; returns the serial that its end has to find unchanged.
    pub(super) fn begin_start(
        &mut self,
        unit: &UnitName,
        by: Cause,
        waiting: Option<oneshot::Sender<JobResult>>,
    ) -> u64 {
        let (serial, now) = (self.next(), self.now());
        let entry = self.units.entry(unit.clone()).or_default();
        entry.loaded = Some(Loaded {
            active: "inactive",
            sub: "dead",
            since: now,
            invocation: String::new(),
            result: "success",
            exit_status: None,
            restarts: entry.loaded.as_ref().map_or(0, |l| l.restarts + u32::from(by == Cause::Itself)),
            cgroup_empty: true,
            job: Some(Job { starts: true, waiting: waiting.into_iter().collect() }),
            serial,
        });
        if self.behaviour(unit).waits.is_zero() {
            self.begin_processes(unit, serial, by);
        }
        serial
    }

    /// Begins the unit's processes: the turn of its start job has come.
    pub(super) fn begin_processes(&mut self, unit: &UnitName, serial: u64, by: Cause) {
        let invocation = format!("{:016x}{serial:016x}", self.number);
        let (now, behaviour, boot) = (self.now(), self.behaviour(unit), self.boot);
        let Some(entry) = self.units.get_mut(unit) else { return };
        let Some(loaded) = entry.loaded.as_mut().filter(|l| l.serial == serial) else { return };
        (loaded.active, loaded.sub, loaded.since) = ("activating", "start", now);
        (loaded.invocation, loaded.cgroup_empty) = (invocation.clone(), false);
        // A dependency that fails keeps the unit's own processes from ever beginning.
        if let (Some(evidence), true) = (&entry.evidence, behaviour.start != OnStart::DependencyFails) {
            self.starts.push(Start {
                at: Instant::now(),
                boot,
                unit: unit.clone(),
                token: evidence.token,
                run: evidence.run,
                hash: evidence.hash,
                invocation,
                by,
            });
        }
        self.outbox.unit(unit);
    }

    /// Ends the start job of this serial; returns what the unit does from then on, if it runs.
    pub(super) fn finish_start(&mut self, unit: &UnitName, serial: u64) -> Option<Behaviour> {
        let behaviour = self.behaviour(unit);
        let now = self.now();
        self.loaded(unit).filter(|l| l.serial == serial)?;
        if let (Some(entry), Some(result)) = (self.units.get_mut(unit), behaviour.start.result()) {
            entry.history = History { start: Some(result), stopped_by_job: false };
        }
        if let (Some(entry), Some(JobResult::Done)) = (self.units.get_mut(unit), behaviour.start.result()) {
            entry.pulled = None;
        }
        let loaded = self.loaded(unit)?;
        loaded.since = now;
        match behaviour.start {
            OnStart::Runs => {
                (loaded.active, loaded.sub) = ("active", "running");
                loaded.end_job(JobResult::Done);
            }
            OnStart::Completes => {
                loaded.end_job(JobResult::Done);
                self.settle(unit, Cause::Itself, None);
                return None;
            }
            OnStart::Fails(status) => {
                loaded.end_job(JobResult::Failed);
                self.settle(unit, Cause::Itself, Some(("exit-code", Some(status))));
                return None;
            }
            OnStart::DependencyFails => {
                loaded.end_job(JobResult::Dependency);
                if let Some(entry) = self.units.get_mut(unit) {
                    entry.loaded = None;
                }
                self.outbox.unit(unit);
                return None;
            }
            OnStart::Hangs => return None,
        }
        self.outbox.unit(unit);
        Some(behaviour)
    }

    /// Ends a unit by itself.
    pub(super) fn end(&mut self, unit: &UnitName, serial: u64, exit: Exit) -> bool {
        if self.loaded(unit).is_none_or(|l| l.serial != serial) {
            return false;
        }
        match exit {
            Exit::Clean => self.settle(unit, Cause::Itself, None),
            Exit::Failed(status) => self.settle(unit, Cause::Itself, Some(("exit-code", Some(status)))),
            Exit::Restarted => self.note_stop(unit, Cause::Itself),
        }
        true
    }

    /// Begins a stop job of a unit that is loaded and not failed. One whose start is still queued
    /// takes no time: the start is taken back.
    pub(super) fn begin_stop(&mut self, unit: &UnitName, waiting: oneshot::Sender<JobResult>) -> Option<u64> {
        let serial = self.next();
        let now = self.now();
        let loaded = self.loaded(unit)?;
        if loaded.active == "inactive" {
            self.settle(unit, Cause::Agent, None);
            return None;
        }
        loaded.end_job(JobResult::Canceled);
        (loaded.active, loaded.sub, loaded.since) = ("deactivating", "stop-sigterm", now);
        loaded.job = Some(Job { starts: false, waiting: vec![waiting] });
        loaded.serial = serial;
        self.outbox.unit(unit);
        Some(serial)
    }

    /// Stops what stops with a unit, as systemd does when it is told to stop that one.
    pub(super) fn stop_bound_to(&mut self, unit: &UnitName) {
        let was = self.units.get(unit).and_then(|it| it.evidence.as_ref()).map(|it| (it.token, it.run));
        self.stop_bound(unit, unit, was);
    }

    fn stop_bound(&mut self, to: &UnitName, by: &UnitName, was: Option<(Token, u64)>) {
        for other in self.bound.get(to).cloned().unwrap_or_default() {
            let Some(entry) = self.units.get_mut(&other) else { continue };
            let Some(loaded) = entry.loaded.as_ref().filter(|it| it.active == "active") else { continue };
            if entry.evidence.as_ref().is_some_and(|evidence| evidence.started) {
                entry.pulled = Some(PulledBy { by: by.clone(), was, invocation: loaded.invocation.clone() });
            }
            self.note_stop_job(&other);
            self.settle(&other, Cause::Agent, None);
            self.stop_bound(&other, by, was);
        }
    }

    /// Tells of the units that were stopped with one.
    pub(super) fn ring_bound_to(&mut self, unit: &UnitName) {
        let is_by = |it: &Unit| it.pulled.as_ref().is_some_and(|pulled| pulled.by == *unit);
        let units = self.units.iter().filter(|(_, it)| is_by(it));
        units.for_each(|(unit, _)| self.outbox.unit(unit));
    }

    fn pulled(&self, entry: &Unit) -> Option<Pulled> {
        let PulledBy { by, was, invocation } = entry.pulled.as_ref()?;
        entry.evidence.as_ref().filter(|evidence| evidence.started)?;
        let then = match self.units.get(by).and_then(|it| it.evidence.as_ref()) {
            None => Then::Stays,
            Some(now) if now.loaded => Then::Stays,
            Some(now) if now.started && Some((now.token, now.run)) != *was => Then::Starts,
            Some(_) => Then::Waits,
        };
        Some(Pulled { by: by.clone(), then, invocation: invocation.clone() })
    }

    /// Ends the stop job of this serial.
    pub(super) fn finish_stop(&mut self, unit: &UnitName, serial: u64) {
        let on_stop = self.behaviour(unit).stop;
        let Some(loaded) = self.loaded(unit).filter(|l| l.serial == serial) else { return };
        let waiting = loaded.job.take();
        self.note_stop_job(unit);
        match on_stop {
            OnStop::Stops(_) => self.settle(unit, Cause::Agent, None),
            OnStop::LeavesBehind(_) => {
                self.note_stop(unit, Cause::Agent);
                let now = self.now();
                if let Some(loaded) = self.loaded(unit) {
                    (loaded.active, loaded.sub, loaded.since) = ("inactive", "dead", now);
                }
                self.outbox.unit(unit);
            }
            OnStop::Ignores(_) => self.settle(unit, Cause::Agent, Some(("timeout", None))),
            OnStop::Survives(_) => {
                self.settle(unit, Cause::Agent, Some(("timeout", None)));
                if let Some(loaded) = self.loaded(unit) {
                    loaded.cgroup_empty = false;
                }
            }
        }
        for waiting in waiting.map(|job| job.waiting).unwrap_or_default() {
            // Whoever asked may have gone.
            let _ = waiting.send(JobResult::Done);
        }
    }

    /// Brings a unit to rest: failed and still loaded with a result, forgotten without one.
    pub(super) fn settle(&mut self, unit: &UnitName, by: Cause, failed: Option<(&'static str, Option<i32>)>) {
        self.note_stop(unit, by);
        let (serial, now) = (self.next(), self.now());
        let Some(entry) = self.units.get_mut(unit) else { return };
        let Some(loaded) = &mut entry.loaded else { return };
        loaded.end_job(JobResult::Canceled);
        match failed {
            Some((result, exit_status)) => {
                (loaded.active, loaded.sub, loaded.since) = ("failed", "failed", now);
                (loaded.result, loaded.exit_status) = (result, exit_status);
                (loaded.cgroup_empty, loaded.serial) = (true, serial);
            }
            None => entry.loaded = None,
        }
        self.outbox.unit(unit);
    }

    /// Lets a unit of the machine's own run.
    pub(super) fn run_local(&mut self, unit: &UnitName, hash: ContentHash) -> String {
        self.local_texts.insert(unit.clone(), hash);
        let (serial, now) = (self.next(), self.now());
        let invocation = format!("{:016x}{serial:016x}", self.number);
        self.units.entry(unit.clone()).or_default().loaded = Some(Loaded {
            active: "active",
            sub: "running",
            since: now,
            invocation: invocation.clone(),
            result: "success",
            exit_status: None,
            restarts: 0,
            cgroup_empty: false,
            job: None,
            serial,
        });
        invocation
    }

    /// Takes away everything that does not survive a reboot.
    pub(super) fn reboot(&mut self) {
        let names: Vec<UnitName> = self.units.keys().cloned().collect();
        for unit in &names {
            self.note_stop(unit, Cause::Reboot);
        }
        self.units.clear();
        self.boot += 1;
        self.outbox.everything();
    }

    pub(super) fn present(&self, unit: &UnitName) -> Option<Present> {
        let entry = self.units.get(unit).filter(|u| u.file.is_some() || u.evidence.is_some())?;
        let state = match &entry.loaded {
            Some(loaded) => UnitState {
                load: "loaded".to_owned(),
                active: loaded.active.to_owned(),
                sub: loaded.sub.to_owned(),
                since: Some(loaded.since),
                invocation: Some(loaded.invocation.clone()).filter(|id| !id.is_empty()),
                result: loaded.result.to_owned(),
                exit_status: loaded.exit_status,
                restarts: loaded.restarts,
                fragment: fragment(unit),
                cgroup_empty: loaded.cgroup_empty,
                job: loaded.job.is_some(),
            },
            None => unloaded(unit, entry.file.is_some()),
        };
        let pulled = self.pulled(entry);
        Some(Present {
            unit: unit.clone(),
            evidence: entry.evidence.clone(),
            file: entry.file,
            state,
            pulled,
        })
    }

    /// Notes what PID 1 writes into the journal when a stop job has ended.
    pub(super) fn note_stop_job(&mut self, unit: &UnitName) {
        if let Some(entry) = self.units.get_mut(unit) {
            entry.history.stopped_by_job = entry.history.start.is_some();
        }
    }

    fn note_stop(&mut self, unit: &UnitName, by: Cause) {
        let Some(entry) = self.units.get(unit) else { return };
        let (Some(loaded), Some(evidence)) = (&entry.loaded, &entry.evidence) else { return };
        if !matches!(loaded.active, "inactive" | "failed") {
            self.stops.push(Stop {
                at: Instant::now(),
                unit: unit.clone(),
                invocation: loaded.invocation.clone(),
                token: evidence.token,
                by,
            });
        }
    }

    fn next(&mut self) -> u64 {
        self.invocations += 1;
        self.invocations
    }

    /// The runtime's clock as a time of day, counted from a fixed day so that runs are equal.
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.born.elapsed()).unwrap_or(SignedDuration::MAX);
        Timestamp::UNIX_EPOCH
            .checked_add(SignedDuration::from_hours(500_000))
            .and_then(|start| start.checked_add(passed))
            .unwrap_or(Timestamp::MAX)
    }
}

impl Loaded {
    /// Tells whether systemd would start it again.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.active, "inactive" | "failed") && self.job.is_none()
    }

    fn end_job(&mut self, result: JobResult) {
        for waiting in self.job.take().map(|job| job.waiting).unwrap_or_default() {
            // Whoever asked may have gone: the job goes on without it.
            let _ = waiting.send(result.clone());
        }
    }
}

fn fragment(unit: &UnitName) -> String {
    format!("/run/systemd/system/{unit}")
}

fn unloaded(unit: &UnitName, has_file: bool) -> UnitState {
    UnitState {
        load: if has_file { "loaded" } else { "not-found" }.to_owned(),
        active: "inactive".to_owned(),
        sub: "dead".to_owned(),
        since: None,
        invocation: None,
        result: String::new(),
        exit_status: None,
        restarts: 0,
        fragment: if has_file { fragment(unit) } else { String::new() },
        cgroup_empty: true,
        job: false,
    }
}
