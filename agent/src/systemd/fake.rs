//! A systemd in memory, for simulations and for tests of what is above [`Systemd`].
//!
//! [`FakeSystemd`] is the machine: it outlives the agents that a test runs on it, as PID 1
//! outlives flotillad. It is not only for this crate's tests (the simulated clusters of
//! integration-tests use it too), which is why it is public; no daemon ever makes one. It spends
//! tokio's time, so under a paused clock a run is the same every time.
//!
//! What it copies of the real one: a start job in flight is joined by a second start and cancelled
//! by a stop, also while it is queued and the unit still inactive; a unit that ended well is forgotten and one that failed stays loaded; evidence,
//! files and states go with a reboot; a unit's file changes only while it is not loaded. What it
//! leaves out: the text of units (they do what their [`Behaviour`] says) and dependencies.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use flotilla_registry::records::Token;
use flotilla_units::{ContentHash, UnitName};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

use self::machine::{Machine, Unit};
use super::{Change, Evidence, History, JobResult, Present, Systemd, SystemdError};

mod behaviour;
mod machine;
#[cfg(test)]
mod tests;

pub use behaviour::{Behaviour, Cause, Exit, OnStart, OnStop, Start, Stop};

/// How long the fake keeps a caller waiting while systemd does not answer, in seconds: the method
/// timeout of the real one.
const NO_ANSWER_SECONDS: u64 = 25;

/// A machine's systemd in memory. Clones are the same machine.
#[derive(Debug, Clone)]
pub struct FakeSystemd(Arc<Mutex<Machine>>);

impl FakeSystemd {
    /// Returns a machine that has just booted; machines of different numbers never give out the
    /// same `InvocationID`.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(Arc::new(Mutex::new(Machine::new(number))))
    }

    /// Sets what a unit does from its next transition on.
    pub fn behave(&self, unit: &UnitName, behaviour: Behaviour) {
        self.machine(|m| m.behaviours.insert(unit.clone(), behaviour));
    }

    /// Sets what all units do that [`behave`](Self::behave) says nothing of.
    pub fn behave_by_default(&self, behaviour: Behaviour) {
        self.machine(|m| m.default_behaviour = behaviour);
    }

    /// Puts a unit of the machine's own there, which flotilla did not write.
    pub fn add_local_unit(&self, unit: &UnitName) {
        self.machine(|m| m.local.insert(unit.clone(), format!("/etc/systemd/system/{unit}")));
    }

    /// Puts a unit of the machine's own there that runs with this text; returns its `InvocationID`.
    pub fn add_running_local_unit(&self, unit: &UnitName, text: &str) -> String {
        self.add_local_unit(unit);
        let hash = ContentHash::of(text.as_bytes());
        self.machine(|m| m.run_local(unit, hash))
    }

    /// Returns whether a unit of this name is the machine's own.
    #[must_use]
    pub fn is_local(&self, unit: &UnitName) -> bool {
        self.machine(|m| m.local.contains_key(unit))
    }

    /// Takes a unit of the machine's own away.
    pub fn remove_local_unit(&self, unit: &UnitName) {
        self.machine(|m| m.local.remove(unit));
    }

    /// Has a unit stop whenever another one is stopped, as `BindsTo=` does.
    pub fn bind(&self, unit: &UnitName, to: &UnitName) {
        self.machine(|m| m.bound.entry(to.clone()).or_default().insert(unit.clone()));
    }

    /// Sets whether systemd answers. While it does not, every call fails after 25 seconds; its
    /// units run on.
    pub fn set_answering(&self, answers: bool) {
        self.machine(|m| {
            if answers && !m.answers {
                m.outbox.everything();
            }
            m.answers = answers;
        });
    }

    /// Sets whether the file system below `/run/flotilla` is full.
    pub fn set_disk_full(&self, full: bool) {
        self.machine(|m| m.disk_full = full);
    }

    /// Takes away everything that does not survive a reboot: units, files, evidence. The test ends
    /// the agent before it, and starts another after it.
    pub fn reboot(&self) {
        self.machine(Machine::reboot);
    }

    /// Stops a unit as `systemctl stop` does, at once.
    pub fn stop_locally(&self, unit: &UnitName) {
        self.machine(|m| {
            m.note_stop_job(unit);
            m.settle(unit, Cause::Local, None);
        });
    }

    /// Starts a unit as `systemctl start` does, under the evidence that is there.
    pub fn start_locally(&self, unit: &UnitName) {
        let serial = self.machine(|m| m.begin_start(unit, Cause::Local, None));
        self.carry_out_start(unit, serial, Cause::Local);
    }

    /// Ends a unit that runs, as if by itself.
    pub fn end(&self, unit: &UnitName, exit: Exit) {
        if let Some(serial) = self.machine(|m| m.loaded(unit).map(|l| l.serial)) {
            self.carry_out_end(unit, serial, exit);
        }
    }

    /// Writes evidence and file as if an earlier agent had done so, without starting anything.
    pub fn plant(&self, unit: &UnitName, text: Option<&str>, evidence: Option<Evidence>) {
        self.machine(|m| {
            let entry = m.units.entry(unit.clone()).or_default();
            entry.file = text.map(|t| ContentHash::of(t.as_bytes()));
            entry.evidence = evidence;
            entry.history = History::default();
        });
    }

    /// Makes signals be lost: the reader of changes is told to read everything.
    pub fn lose_signals(&self) {
        self.machine(|m| m.outbox.everything());
    }

    /// Returns every time that a unit's processes were begun, oldest first.
    #[must_use]
    pub fn starts(&self) -> Vec<Start> {
        self.machine(|m| m.starts.clone())
    }

    /// Returns how often this unit's processes were begun under this token and run, restarts by
    /// systemd itself apart: more than once per boot is what an agent must never do after a start
    /// that ended in `done`.
    #[must_use]
    pub fn starts_of(&self, unit: &UnitName, token: Token, run: u64) -> usize {
        self.machine(|m| {
            m.starts
                .iter()
                .filter(|s| s.unit == *unit && s.token == token && s.run == run && s.by != Cause::Itself)
                .count()
        })
    }

    /// Returns every time that a unit's processes ended, oldest first.
    #[must_use]
    pub fn stops(&self) -> Vec<Stop> {
        self.machine(|m| m.stops.clone())
    }

    /// Returns what is on the machine, without asking the manager and without waiting.
    #[must_use]
    pub fn look(&self) -> Vec<Present> {
        self.machine(|m| m.units.keys().filter_map(|unit| m.present(unit)).collect())
    }

    /// Returns whether any process of this unit is there.
    #[must_use]
    pub fn is_running(&self, unit: &UnitName) -> bool {
        self.machine(|m| m.loaded(unit).is_some_and(|l| !l.cgroup_empty))
    }

    fn machine<T>(&self, f: impl FnOnce(&mut Machine) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn answer(&self, call: &'static str) -> Result<(), SystemdError> {
        if self.machine(|m| m.answers) {
            return Ok(());
        }
        sleep(Duration::from_secs(NO_ANSWER_SECONDS)).await;
        Err(SystemdError::NoAnswer { call, seconds: NO_ANSWER_SECONDS })
    }

    fn refuse_foreign(&self, unit: &UnitName) -> Result<(), SystemdError> {
        match self.machine(|m| m.local.get(unit).cloned()) {
            Some(path) => Err(SystemdError::Foreign { unit: unit.to_string(), path }),
            None => Ok(()),
        }
    }

    /// Tells whether a unit became the machine's own and is at rest; while it runs that is an error.
    fn is_hidden(&self, unit: &UnitName) -> Result<bool, SystemdError> {
        let Err(SystemdError::Foreign { unit: name, path }) = self.refuse_foreign(unit) else {
            return Ok(false);
        };
        let runs = self.machine(|m| m.present(unit).is_some_and(|p| !p.state.at_rest()));
        if runs { Err(SystemdError::Hidden { unit: name, path }) } else { Ok(true) }
    }

    fn refuse_full_disk(&self, unit: &UnitName, path: String) -> Result<(), SystemdError> {
        if !self.machine(|m| m.disk_full && !m.units.get(unit).is_some_and(|u| u.has_room)) {
            return Ok(());
        }
        let source = io::Error::from(io::ErrorKind::StorageFull);
        Err(SystemdError::File { action: "cannot write", path, source })
    }

    /// Lets a start job take its time, whether or not anybody still waits for it.
    fn carry_out_start(&self, unit: &UnitName, serial: u64, by: Cause) {
        let (fake, unit) = (self.clone(), unit.clone());
        let Behaviour { waits, start_takes, .. } = self.machine(|m| m.behaviour(&unit));
        tokio::spawn(async move {
            if !waits.is_zero() {
                sleep(waits).await;
                fake.machine(|m| m.begin_processes(&unit, serial, by));
            }
            sleep(start_takes).await;
            let Some(behaviour) = fake.machine(|m| m.finish_start(&unit, serial)) else { return };
            if let Some((time, exit)) = behaviour.ends {
                sleep(time).await;
                fake.carry_out_end(&unit, serial, exit);
            }
        });
    }

    fn carry_out_end(&self, unit: &UnitName, serial: u64, exit: Exit) {
        if self.machine(|m| m.end(unit, serial, exit)) && exit == Exit::Restarted {
            let serial = self.machine(|m| m.begin_start(unit, Cause::Itself, None));
            self.carry_out_start(unit, serial, Cause::Itself);
        }
    }

    fn carry_out_stop(&self, unit: &UnitName, serial: u64) {
        let (fake, unit) = (self.clone(), unit.clone());
        let takes = match self.machine(|m| m.behaviour(&unit)).stop {
            OnStop::Stops(time)
            | OnStop::Ignores(time)
            | OnStop::Survives(time)
            | OnStop::LeavesBehind(time) => time,
        };
        tokio::spawn(async move {
            sleep(takes).await;
            fake.machine(|m| m.finish_stop(&unit, serial));
        });
    }
}

/// What a call does that needs a job.
enum Needed {
    /// Nothing: this is how it ended.
    Nothing(JobResult),
    /// A job under way already does it.
    Joined,
    /// A job of this serial was begun.
    Begun(u64),
}

#[async_trait]
impl Systemd for FakeSystemd {
    async fn list(&self) -> Result<Vec<Present>, SystemdError> {
        self.answer("ListUnitsByNames").await?;
        Ok(self.look())
    }

    async fn get(&self, unit: &UnitName) -> Result<Option<Present>, SystemdError> {
        self.answer("GetAll").await?;
        Ok(self.machine(|m| m.present(unit)))
    }

    async fn install(&self, unit: &UnitName, text: &str) -> Result<Option<Present>, SystemdError> {
        self.answer("GetUnit").await?;
        self.refuse_foreign(unit)?;
        let hash = ContentHash::of(text.as_bytes());
        let ready = self.machine(|m| {
            let entry = m.units.entry(unit.clone()).or_default();
            if entry.file == Some(hash) {
                return Ok(true);
            }
            match &entry.loaded {
                Some(loaded) if !loaded.has_ended() => {
                    return Err(SystemdError::StillLoaded(unit.to_string()));
                }
                Some(loaded) if !loaded.cgroup_empty => {}
                _ => entry.loaded = None,
            }
            Ok(false)
        })?;
        if !ready {
            self.refuse_full_disk(unit, format!("/run/flotilla/units/{unit}"))?;
            self.machine(|m| m.units.entry(unit.clone()).or_default().file = Some(hash));
        }
        Ok(self.machine(|m| m.present(unit)))
    }

    async fn prepare(
        &self,
        unit: &UnitName,
        _text: Option<&str>,
        _evidence: &Evidence,
    ) -> Result<(), SystemdError> {
        self.refuse_foreign(unit)?;
        self.refuse_full_disk(unit, format!("/run/flotilla/env/{unit}"))?;
        self.machine(|m| m.units.entry(unit.clone()).or_default().has_room = true);
        Ok(())
    }

    async fn start(&self, unit: &UnitName, evidence: &Evidence) -> Result<JobResult, SystemdError> {
        self.answer("StartUnit").await?;
        self.refuse_foreign(unit)?;
        let path = format!("/run/flotilla/env/{unit}");
        let (sender, ended) = oneshot::channel();
        let mut sender = Some(sender);
        if !self.machine(|m| m.units.get(unit).is_some_and(|u| u.file.is_some())) {
            return Err(SystemdError::Refused {
                call: "StartUnit",
                unit: unit.to_string(),
                why: format!("org.freedesktop.systemd1.NoSuchUnit: Unit {unit} not found."),
            });
        }
        let same = |u: &Unit| {
            let before = u.evidence.as_ref().filter(|e| !e.loaded);
            before.is_some_and(|e| (e.token, e.run) == (evidence.token, evidence.run))
        };
        let needed = self.machine(|m| {
            let entry = m.units.entry(unit.clone()).or_default();
            let same = same(entry);
            match &mut entry.loaded {
                Some(loaded) if !loaded.has_ended() => {
                    if !same || loaded.active == "deactivating" {
                        return Err(SystemdError::StillLoaded(unit.to_string()));
                    }
                    match &mut loaded.job {
                        Some(job) if job.starts => job.waiting.extend(sender.take()),
                        _ => return Ok(Some(Needed::Nothing(JobResult::Done))),
                    }
                    Ok(Some(Needed::Joined))
                }
                _ => Ok(None),
            }
        })?;
        let needed = match needed {
            Some(needed) => needed,
            None => {
                self.refuse_full_disk(unit, path)?;
                Needed::Begun(self.machine(|m| {
                    let entry = m.units.entry(unit.clone()).or_default();
                    // The mark names token and run, and stays with these.
                    let started = same(entry) && entry.evidence.as_ref().is_some_and(|e| e.started);
                    entry.evidence = Some(Evidence { started, ..evidence.clone() });
                    entry.has_room = false;
                    entry.history = History::default();
                    m.begin_start(unit, Cause::Agent, sender.take())
                }))
            }
        };
        self.wait(unit, needed, ended, true).await
    }

    async fn mark_started(&self, unit: &UnitName) -> Result<(), SystemdError> {
        self.refuse_full_disk(unit, format!("/run/flotilla/started/{unit}"))?;
        self.machine(|m| {
            if let Some(evidence) = m.units.get_mut(unit).and_then(|u| u.evidence.as_mut()) {
                evidence.started = true;
            }
            m.ring_bound_to(unit);
        });
        Ok(())
    }

    async fn mark_loaded(&self, unit: &UnitName, evidence: &Evidence) -> Result<(), SystemdError> {
        self.refuse_full_disk(unit, format!("/run/flotilla/env/{unit}"))?;
        self.machine(|m| {
            let entry = m.units.entry(unit.clone()).or_default();
            entry.evidence = Some(Evidence { started: false, loaded: true, ..evidence.clone() });
            entry.history = History::default();
            m.ring_bound_to(unit);
        });
        Ok(())
    }

    async fn adopt(&self, unit: &UnitName, hash: ContentHash) -> Result<(), SystemdError> {
        self.refuse_full_disk(unit, format!("/run/flotilla/env/{unit}"))?;
        self.machine(|m| {
            if let Some(evidence) = m.units.get_mut(unit).and_then(|entry| entry.evidence.as_mut()) {
                evidence.hash = hash;
            }
        });
        Ok(())
    }

    async fn take_over(&self, unit: &UnitName, text: &str, evidence: &Evidence) -> Result<(), SystemdError> {
        self.answer("GetAll").await?;
        let (hash, lingers) = (ContentHash::of(text.as_bytes()), self.machine(|m| m.behaviour(unit).lingers));
        if !self.machine(|m| m.taking.contains(unit)) {
            match self.machine(|m| m.local.contains_key(unit).then(|| m.local_texts.get(unit).copied())) {
                None => return Ok(()),
                Some(there) if there != Some(hash) => {
                    let why = "its files are others".to_owned();
                    return Err(SystemdError::NotTaken { unit: unit.to_string(), why });
                }
                Some(_) => drop(self.machine(|m| m.taking.insert(unit.clone()))),
            }
        }
        // An agent may be killed after each of these.
        sleep(lingers).await;
        self.refuse_full_disk(unit, format!("/run/flotilla/units/{unit}"))?;
        self.machine(|m| m.units.entry(unit.clone()).or_default().file = Some(hash));
        sleep(lingers).await;
        self.answer("Reload").await?;
        self.machine(|m| m.local.remove(unit));
        sleep(lingers).await;
        self.machine(|m| {
            let entry = m.units.entry(unit.clone()).or_default();
            if entry.loaded.as_ref().is_some_and(|loaded| !loaded.has_ended()) {
                entry.evidence = Some(Evidence { started: true, ..evidence.clone() });
                entry.history = History { start: Some(JobResult::Done), stopped_by_job: false };
            }
            m.taking.remove(unit);
        });
        Ok(())
    }

    async fn let_go(&self, unit: &UnitName) -> Result<(), SystemdError> {
        self.answer("GetAll").await?;
        self.machine(|m| {
            if m.taking.remove(unit)
                && m.local.contains_key(unit)
                && let Some(entry) = m.units.get_mut(unit)
            {
                entry.file = None;
            }
        });
        Ok(())
    }

    async fn stop(&self, unit: &UnitName) -> Result<JobResult, SystemdError> {
        self.answer("StopUnit").await?;
        if self.is_hidden(unit)? {
            return Ok(JobResult::Done);
        }
        let (sender, ended) = oneshot::channel();
        self.machine(|m| m.stop_bound_to(unit));
        let needed = self.machine(|m| match m.loaded(unit) {
            None => Needed::Nothing(JobResult::Done),
            Some(loaded) if loaded.has_ended() => Needed::Nothing(JobResult::Done),
            Some(loaded) => match &mut loaded.job {
                Some(job) if !job.starts => {
                    job.waiting.push(sender);
                    Needed::Joined
                }
                _ => m.begin_stop(unit, sender).map_or(Needed::Nothing(JobResult::Done), Needed::Begun),
            },
        });
        let result = self.wait(unit, needed, ended, false).await?;
        // As `systemctl reset-failed`, which does nothing to a unit with processes left.
        self.machine(|m| {
            if let Some(entry) = m.units.get_mut(unit)
                && entry.loaded.as_ref().is_some_and(|l| l.active == "failed" && l.cgroup_empty)
            {
                entry.loaded = None;
                m.outbox.unit(unit);
            }
        });
        Ok(result)
    }

    async fn remove(&self, unit: &UnitName) -> Result<(), SystemdError> {
        self.answer("GetUnit").await?;
        // Where an agent may be killed: before anything is removed.
        sleep(self.machine(|m| m.behaviour(unit)).lingers).await;
        self.is_hidden(unit)?;
        self.machine(|m| match m.units.get(unit) {
            Some(entry) if entry.loaded.as_ref().is_some_and(|l| !l.has_ended() || !l.cgroup_empty) => {
                Err(SystemdError::StillLoaded(unit.to_string()))
            }
            Some(_) => {
                m.units.remove(unit);
                m.outbox.unit(unit);
                m.ring_bound_to(unit);
                Ok(())
            }
            None => Ok(()),
        })
    }

    async fn history(&self, unit: &UnitName) -> Result<History, SystemdError> {
        Ok(self.machine(|m| m.units.get(unit).map(|u| u.history.clone()).unwrap_or_default()))
    }

    async fn changes(&self) -> Result<mpsc::Receiver<Change>, SystemdError> {
        self.answer("Subscribe").await?;
        Ok(self.machine(|m| m.outbox.reader()))
    }
}

impl FakeSystemd {
    async fn wait(
        &self,
        unit: &UnitName,
        needed: Needed,
        ended: oneshot::Receiver<JobResult>,
        starts: bool,
    ) -> Result<JobResult, SystemdError> {
        let call = if starts { "StartUnit" } else { "StopUnit" };
        match needed {
            Needed::Nothing(result) => return Ok(result),
            Needed::Begun(serial) if starts => self.carry_out_start(unit, serial, Cause::Agent),
            Needed::Begun(serial) => self.carry_out_stop(unit, serial),
            Needed::Joined => {}
        }
        // The sender goes only with the machine's state: it went down under the caller.
        ended.await.map_err(|_| SystemdError::NoAnswer { call, seconds: 0 })
    }
}
