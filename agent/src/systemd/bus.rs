//! The machine's real systemd, over D-Bus.
//!
//! [`DbusSystemd`] owns the connections ([`link`]), the files below `/run/flotilla`
//! ([`files`](super::files)) and the number of jobs outstanding ([`window`]). It decides nothing
//! about what should run, and it never reads a state by polling: it asks when it is asked.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use flotilla_units::{ContentHash, MachineId, UnitName, UnitType};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use self::{
    calls::Calls,
    door::Door,
    installs::Installs,
    jobs::Ended,
    link::{Link, Shared},
    proxy::ManagerProxy,
    reload::Reloads,
    unread::Unread,
    window::Windows,
};
use super::{
    Change, Evidence, History, JobResult, Layout, Present, Pulled, Systemd, SystemdError, UnitState,
    files::{Files, OnDisk, foreign},
    ledger::Ledger,
};

mod ask;
mod calls;
mod dependents;
mod door;
mod error;
mod history;
mod installs;
mod jobs;
mod link;
mod proxy;
mod reload;
mod session;
mod status;
mod takeover;
mod told;
pub(super) mod unit;
mod unread;
mod usage;
mod window;

use error::is_no_such;
use unit::Properties;

/// The longest that one call may take. It is what libdbus and sd-bus have always waited, so a
/// systemd that is merely busy is not given up.
const METHOD_TIMEOUT: Duration = Duration::from_secs(25);

/// Units read at a time when all are: enough to keep systemd busy, and few enough to leave room
/// among the calls for orders.
const READS: usize = 32;

/// How long a job may take before it counts as one that lasts: most starts take some milliseconds.
const LASTS: Duration = Duration::from_secs(1);

/// How often the end of a job is made sure of while no signal tells it. Signals are not lost on a
/// connection that lives, so this is for faults only.
const JOB_CHECK: Duration = Duration::from_secs(5);

/// How long the signal of a job that is over is waited for. It is on its way; on a busy machine with
/// hundreds of others before it.
const SIGNAL_WITHIN: Duration = Duration::from_secs(2);

/// How long an inactive unit is given to be forgotten by systemd, which does so between events.
/// One that stays longer is referred to by another unit.
const COLLECTED_WITHIN: Duration = Duration::from_millis(250);

/// The machine's systemd, over its bus.
pub struct DbusSystemd {
    layout: Layout,
    files: Files,
    shared: Arc<Shared>,
    link: Link,
    door: Door,
    windows: Windows,
    reloads: Arc<Reloads>,
    unread: Unread,
    installs: Installs,
    groups: usage::Groups,
    readers: history::Readers,
    /// Held by whoever reads a status.
    reading: tokio::sync::Mutex<()>,
}

impl fmt::Debug for DbusSystemd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DbusSystemd").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl DbusSystemd {
    /// Connects to systemd's bus and makes flotilla's directories.
    ///
    /// # Errors
    /// The bus cannot be reached, or the directories cannot be made.
    pub async fn open(layout: Layout, machine: MachineId) -> Result<Self, SystemdError> {
        let files = Files::new(layout.clone(), machine);
        files.prepare()?;
        let shared = Arc::new(Shared::default());
        for unit in files.names()? {
            shared.add(&unit);
        }
        let link = Link::open(layout.bus.clone(), shared.clone()).await?;
        let (address, live) = (layout.bus.clone(), link.live.clone());
        let door = Door { address, live, calls: Calls::default(), shared: shared.clone() };
        let reloads = Arc::new(Reloads::default());
        let unread = Unread::open(files.clone(), door.clone(), reloads.clone());
        let this = Self {
            layout,
            files,
            shared,
            link,
            door,
            windows: Windows::default(),
            reloads,
            unread,
            installs: Installs::default(),
            groups: usage::Groups::default(),
            readers: history::Readers::default(),
            reading: tokio::sync::Mutex::default(),
        };
        this.settle_ledgers().await?;
        Ok(this)
    }

    /// Returns how often systemd was told to read all unit files again: the expensive thing that is
    /// only done for a unit that another one keeps loaded, and for the links of `[Install]`.
    #[must_use]
    pub fn reloads(&self) -> u64 {
        self.reloads.done()
    }

    /// Asks which version of systemd runs, as it writes it: `252.38-1~deb12u1`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn version(&self) -> Result<String, SystemdError> {
        self.call("Version", "", |manager| async move { manager.version().await }).await
    }

    /// Returns when nobody looks after the connections any more, which is a mistake in flotillad:
    /// from then on nothing is heard of systemd and every call fails.
    pub async fn abandoned(&self) {
        let mut live = self.link.live.clone();
        while live.changed().await.is_ok() {}
    }

    pub(super) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Makes one call on the manager.
    ///
    /// Dropped before its turn it sends nothing; dropped later it is carried to its end.
    async fn call<T, F>(
        &self,
        call: &'static str,
        unit: &str,
        f: impl Fn(ManagerProxy<'static>) -> F + Send,
    ) -> Result<T, SystemdError>
    where
        T: Send,
        F: Future<Output = zbus::Result<T>> + Send + 'static,
    {
        self.door.call(call, unit, f).await
    }

    /// Makes a call about one unit, by its name.
    async fn call_unit<T, F>(
        &self,
        call: &'static str,
        unit: &UnitName,
        f: impl Fn(ManagerProxy<'static>, String) -> F + Send + Sync,
    ) -> Result<T, SystemdError>
    where
        T: Send,
        F: Future<Output = zbus::Result<T>> + Send + 'static,
    {
        self.call(call, unit.as_str(), |m| f(m, unit.to_string())).await
    }

    /// Asks for a job and waits until it has ended.
    async fn job(&self, unit: &UnitName, starts: bool) -> Result<JobResult, SystemdError> {
        let window = if starts { &self.windows.starts } else { &self.windows.stops };
        let mut place = window.enter().await;
        let job = if starts { self.ask_start(unit).await } else { self.ask_stop(unit).await }?;
        let mut ended = self.shared.jobs.wait(&job);
        let mut pause = LASTS;
        loop {
            tokio::select! {
                biased;
                told = &mut ended => if let Ok(Ended::With(result)) = told {
                    return Ok(result);
                },
                () = sleep(pause) => if let Some(place) = &mut place {
                    place.lasts();
                },
            }
            pause = JOB_CHECK;
            if !self.is_under_way(unit, &job).await? {
                // The signal comes by another connection, and may be a little behind.
                let told = async { if ended.is_terminated() { None } else { (&mut ended).await.ok() } };
                return match timeout(SIGNAL_WITHIN, told).await {
                    Ok(Some(Ended::With(result))) => Ok(result),
                    _ => {
                        // What was told of the unit may be as old.
                        self.shared.doubt(unit);
                        self.outcome(unit, starts).await
                    }
                };
            }
            if ended.is_terminated() {
                ended = self.shared.jobs.wait(&job);
            }
        }
    }

    async fn ask_start(&self, unit: &UnitName) -> Result<String, SystemdError> {
        let asked =
            self.call_unit("StartUnit", unit, |m, name| async move { m.start_unit(&name, "replace").await });
        Ok(asked.await?.to_string())
    }

    async fn ask_stop(&self, unit: &UnitName) -> Result<String, SystemdError> {
        let asked =
            self.call_unit("StopUnit", unit, |m, name| async move { m.stop_unit(&name, "replace").await });
        Ok(asked.await?.to_string())
    }

    async fn is_under_way(&self, unit: &UnitName, job: &str) -> Result<bool, SystemdError> {
        let Some(id) = job.rsplit('/').next().and_then(|id| id.parse().ok()) else { return Ok(false) };
        match self.call("GetJob", unit.as_str(), |m| async move { m.get_job(id).await }).await {
            Ok(_) => Ok(true),
            Err(e) if is_no_such(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Works out how a job ended whose signal was lost.
    async fn outcome(&self, unit: &UnitName, starts: bool) -> Result<JobResult, SystemdError> {
        let unknown = JobResult::Other("unknown".to_owned());
        let active = self.properties(unit).await?.map_or_else(|| "inactive".to_owned(), |p| p.active());
        Ok(match (starts, active.as_str()) {
            (true, "active" | "reloading") | (false, "inactive" | "failed") => JobResult::Done,
            (true, "failed") => JobResult::Failed,
            (true, "inactive") => self.history(unit).await?.start.unwrap_or(unknown),
            _ => unknown,
        })
    }

    async fn reset_failed(&self, unit: &UnitName) -> Result<(), SystemdError> {
        let asked = self
            .call_unit("ResetFailedUnit", unit, |m, name| async move { m.reset_failed_unit(&name).await });
        match asked.await {
            Err(e) if !is_no_such(&e) => Err(e),
            _ => Ok(()),
        }
    }

    /// Waits for systemd to forget a unit that is at rest; returns whether it did.
    async fn is_collected(&self, unit: &UnitName) -> Result<bool, SystemdError> {
        let (began, mut pause) = (Instant::now(), Duration::from_millis(1));
        loop {
            match self.call_unit("GetUnit", unit, |m, name| async move { m.get_unit(&name).await }).await {
                Ok(_) if began.elapsed() > COLLECTED_WITHIN => return Ok(false),
                Ok(_) => sleep(pause).await,
                Err(e) if is_no_such(&e) => return Ok(true),
                Err(e) => return Err(e),
            }
            pause *= 2;
        }
    }

    /// Brings a unit to where its files may change; returns whether systemd still has it loaded,
    /// ended, because another unit refers to it or processes are left of it.
    async fn release(&self, unit: &UnitName, loaded: &Properties) -> Result<bool, SystemdError> {
        match loaded.active().as_str() {
            // A start that waits for another unit would still find it loaded, and begin.
            _ if loaded.has_job() => return Err(still_loaded(unit)),
            "failed" => self.reset_failed(unit).await?,
            "inactive" => {}
            _ => return Err(still_loaded(unit)),
        }
        Ok(!self.is_collected(unit).await?)
    }

    /// Refuses a unit that systemd has loaded from a file that is not ours.
    fn refuse_foreign(&self, unit: &UnitName, fragment: &str) -> Result<(), SystemdError> {
        let ours = fragment.is_empty() || self.files.is_ours(unit, fragment);
        if ours || Ledger::of(unit, &self.layout).overrides(fragment.as_ref()) {
            return Ok(());
        }
        Err(foreign(unit, fragment.as_ref()))
    }

    /// Returns whether a unit became the machine's own, and is at rest.
    ///
    /// While it runs that is an error: its processes may be those that flotilla started, and have in
    /// any case its token in their environment, so that it is not gone; and whoever made it the
    /// machine's own means it to be stopped by nobody else.
    fn is_hidden(&self, unit: &UnitName, loaded: &Properties) -> Result<bool, SystemdError> {
        let Err(SystemdError::Foreign { unit, path }) =
            self.refuse_foreign(unit, &loaded.text("FragmentPath"))
        else {
            return Ok(false);
        };
        if loaded.state(&self.layout).at_rest() { Ok(true) } else { Err(SystemdError::Hidden { unit, path }) }
    }

    async fn reload(&self) -> Result<(), SystemdError> {
        self.reloads.coalesced(self.call("Reload", "all units", |m| async move { m.reload().await })).await
    }

    async fn present(&self, unit: &UnitName, is_loaded: bool) -> Result<Option<Present>, SystemdError> {
        let disk = self.files.read(unit)?;
        if disk.file.is_none() && disk.evidence.is_none() {
            return Ok(None);
        }
        if let Some(mut state) = self.shared.running(unit, &self.layout) {
            state.fragment = disk.file.map(|_| self.link_of(unit)).unwrap_or_default();
            return Ok(Some(self.with_state(unit, disk, state)));
        }
        let loaded = if is_loaded { self.properties(unit).await? } else { None };
        let state = loaded.map_or_else(|| self.unloaded(unit, &disk), |loaded| loaded.state(&self.layout));
        Ok(Some(self.with_state(unit, disk, state)))
    }

    /// Puts together what is on the disk and what systemd says.
    fn with_state(&self, unit: &UnitName, disk: OnDisk, state: UnitState) -> Present {
        let OnDisk { file, evidence, mut pulled, .. } = disk;
        // It was started since, by whomever: the next to stop it may be a person.
        let is_other = |it: &mut Pulled| state.invocation.as_ref().is_some_and(|now| *now != it.invocation);
        if !state.has_ended() && pulled.take_if(is_other).is_some() {
            // At the worst it is found again.
            let _ = self.files.forget_pulled(unit);
        }
        Present { unit: unit.clone(), evidence, file, state, pulled }
    }

    /// Writes a unit's files, and notes whose links became others with them.
    fn write_files(&self, unit: &UnitName, text: &str) -> Result<(), SystemdError> {
        let changed = self.files.link_changes(unit, Some(text))?;
        self.unread.note(&self.files, &changed)?;
        self.files.install(unit, text)?;
        self.unread.note(&self.files, &changed)
    }

    /// Tells whether there is nothing of a service here yet, so that no file of its is changed by
    /// writing one. Units of other types may be there without a file, as mounts are.
    fn is_new(&self, unit: &UnitName) -> Result<bool, SystemdError> {
        let disk = self.files.read(unit)?;
        Ok(unit.unit_type() == UnitType::Service && disk.file.is_none() && disk.evidence.is_none())
    }

    /// What a unit is that systemd has not loaded.
    fn unloaded(&self, unit: &UnitName, disk: &OnDisk) -> UnitState {
        unit::unloaded(disk.file.is_some(), self.link_of(unit))
    }

    /// Where systemd finds a unit's file.
    fn link_of(&self, unit: &UnitName) -> String {
        self.layout.links.join(unit.as_str()).display().to_string()
    }

    /// Makes sure that starting the unit starts what its file says; returns `None` when it is to be
    /// started, and otherwise how the start that this one repeats has ended.
    async fn ready_to_start(
        &self,
        unit: &UnitName,
        evidence: &Evidence,
    ) -> Result<Option<JobResult>, SystemdError> {
        let Some(loaded) = self.properties(unit).await? else { return Ok(None) };
        self.refuse_foreign(unit, &loaded.text("FragmentPath"))?;
        let before = self.files.read(unit)?.evidence;
        let same = before.is_some_and(|e| !e.loaded && (e.token, e.run) == (evidence.token, evidence.run));
        match loaded.active().as_str() {
            "active" | "reloading" if same => return Ok(Some(JobResult::Done)),
            "activating" if same => return self.job(unit, true).await.map(Some),
            // Processes left of it (`KillMode=process`) do not keep systemd from starting it either.
            "inactive" | "failed" => {}
            _ => return Err(still_loaded(unit)),
        }
        if loaded.active() == "failed" {
            // Also forgets how often it was started lately: the caller's back-off counts.
            self.reset_failed(unit).await?;
        }
        if self.needs_reload(unit).await? && !self.is_collected(unit).await? {
            self.reload().await?;
        }
        Ok(None)
    }
}

fn still_loaded(unit: &UnitName) -> SystemdError {
    SystemdError::StillLoaded(unit.to_string())
}

#[async_trait]
impl Systemd for DbusSystemd {
    async fn list(&self) -> Result<Vec<Present>, SystemdError> {
        let names = self.files.names()?;
        let rows = self.call("ListUnits", "all units", |m| async move { m.list_units().await }).await?;
        let loaded: std::collections::HashSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        names.iter().for_each(|unit| self.shared.add(unit));
        let reads: Vec<_> =
            names.iter().map(|unit| self.present(unit, loaded.contains(unit.as_str()))).collect();
        let all: Vec<Option<Present>> = stream::iter(reads).buffered(READS).try_collect().await?;
        Ok(all.into_iter().flatten().collect())
    }

    async fn get(&self, unit: &UnitName) -> Result<Option<Present>, SystemdError> {
        self.present(unit, true).await
    }

    async fn install(&self, unit: &UnitName, text: &str) -> Result<Option<Present>, SystemdError> {
        self.files.refuse_foreign(unit)?;
        if self.files.is_installed(unit, text)? {
            return self.get(unit).await;
        }
        let under_way = self.installs.begin();
        if self.is_new(unit)? {
            self.shared.add(unit);
            self.write_files(unit, text)?;
            let file = Some(ContentHash::of(text.as_bytes()));
            let disk = OnDisk { file, evidence: None, at: None, pulled: None };
            let state = self.unloaded(unit, &disk);
            return Ok(Some(self.with_state(unit, disk, state)));
        }
        self.shared.add(unit);
        self.shared.doubt(unit);
        let kept_loaded = match self.properties(unit).await? {
            Some(loaded) => {
                self.refuse_foreign(unit, &loaded.text("FragmentPath"))?;
                self.release(unit, &loaded).await?
            }
            None => false,
        };
        self.write_files(unit, text)?;
        drop(under_way);
        if kept_loaded {
            self.reload().await?;
            return self.get(unit).await;
        }
        // systemd has just said that it has not loaded it.
        let disk = self.files.read(unit)?;
        let state = self.unloaded(unit, &disk);
        Ok(Some(self.with_state(unit, disk, state)))
    }

    async fn prepare(
        &self,
        unit: &UnitName,
        text: Option<&str>,
        evidence: &Evidence,
    ) -> Result<(), SystemdError> {
        self.files.refuse_foreign(unit)?;
        let added =
            text.map(|text| self.files.link_changes(unit, Some(text))).transpose()?.unwrap_or_default();
        self.unread.note(&self.files, &added)?;
        self.files.make_room(unit, text, evidence)?;
        self.unread.note(&self.files, &added)
    }

    async fn start(&self, unit: &UnitName, evidence: &Evidence) -> Result<JobResult, SystemdError> {
        self.installs.settled().await;
        self.files.refuse_foreign(unit)?;
        if let Some(result) = self.ready_to_start(unit, evidence).await? {
            return Ok(result);
        }
        let left = self.files.links_left(unit)?;
        if !left.is_empty() {
            self.unread.note(&self.files, &left)?;
            self.files.drop_links_left(unit)?;
            self.unread.note(&self.files, &left)?;
        }
        // What wants others is started with them.
        self.unread.read_of(unit).await?;
        self.shared.add(unit);
        self.files.write_evidence(unit, evidence)?;
        let result = self.job(unit, true).await?;
        if result == JobResult::Done {
            self.files.forget_pulled(unit)?;
        }
        Ok(result)
    }

    async fn mark_started(&self, unit: &UnitName) -> Result<(), SystemdError> {
        self.files.mark_started(unit)?;
        self.ring_dependents(unit);
        Ok(())
    }

    async fn mark_loaded(&self, unit: &UnitName, evidence: &Evidence) -> Result<(), SystemdError> {
        self.files.mark_loaded(unit, evidence)?;
        self.ring_dependents(unit);
        Ok(())
    }

    async fn adopt(&self, unit: &UnitName, hash: ContentHash) -> Result<(), SystemdError> {
        self.files.adopt(unit, hash)
    }

    async fn take_over(&self, unit: &UnitName, text: &str, evidence: &Evidence) -> Result<(), SystemdError> {
        self.take_unit_over(unit, text, evidence).await
    }

    async fn let_go(&self, unit: &UnitName) -> Result<(), SystemdError> {
        self.let_unit_go(unit).await
    }

    async fn stop(&self, unit: &UnitName) -> Result<JobResult, SystemdError> {
        let Some(fragment) = self.fragment(unit).await? else { return Ok(JobResult::Done) };
        if self.refuse_foreign(unit, &fragment).is_err() {
            match self.properties(unit).await? {
                Some(loaded) if !self.is_hidden(unit, &loaded)? => {}
                _ => return Ok(JobResult::Done),
            }
        }
        self.note_dependents(unit).await;
        // Also one that is inactive: its start may be queued behind another unit's. At rest a stop
        // job ends at once.
        let result = match self.job(unit, false).await {
            Err(e) if is_no_such(&e) => JobResult::Done,
            other => other?,
        };
        match self.properties(unit).await? {
            Some(after) if after.active() == "failed" && after.cgroup_empty(&self.layout) => {
                self.reset_failed(unit).await?;
            }
            _ => {}
        }
        Ok(result)
    }

    async fn remove(&self, unit: &UnitName) -> Result<(), SystemdError> {
        if let Some(loaded) = self.properties(unit).await?
            // A unit at rest that is another's now is left alone; what we had of it goes.
            && !self.is_hidden(unit, &loaded)?
        {
            if !loaded.cgroup_empty(&self.layout) {
                return Err(still_loaded(unit));
            }
            self.release(unit, &loaded).await?;
        }
        // Nothing tells afterwards that it was taken over whole.
        if self.files.read(unit)?.evidence.is_some() {
            self.settle_ledger(unit).await?;
        }
        let changed = self.files.link_changes(unit, None)?;
        self.unread.note(&self.files, &changed)?;
        self.files.remove(unit)?;
        self.shared.forget(unit);
        self.ring_dependents(unit);
        self.unread.note(&self.files, &changed)?;
        // Whoever wants it would start it from systemd's memory, although it is gone.
        if changed.is_empty() { Ok(()) } else { self.unread.read_all().await }
    }

    async fn history(&self, unit: &UnitName) -> Result<History, SystemdError> {
        let disk = self.files.read(unit)?;
        let Some(since) = disk.at else { return Ok(History::default()) };
        // What was taken over was started before there was any evidence of it.
        let before = disk.evidence.filter(|evidence| evidence.started).map(|_| JobResult::Done);
        let before = History { start: before, stopped_by_job: false };
        history::read(&self.readers, unit, since, before, self.layout.user).await
    }

    async fn changes(&self) -> Result<mpsc::Receiver<Change>, SystemdError> {
        Ok(self.shared.outbox.reader())
    }
}
