//! What a seat holds: the cluster state, the placement model, the mass-loss brake, and what changed
//! lately.
//!
//! One writer (the seat's feed) and many readers share it behind a lock that is held for one
//! revision, one page or one step, and never across an await. Readers get owned rows and `Arc`s, so
//! nobody copies the state, however large it is.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use flotilla_registry::{
    keys::Keys,
    store::{KeyValue, Revision, WatchEvent},
    witness::WentBack,
};
use flotilla_units::{MachineId, UnitName};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task,
    time::Instant,
};

use crate::{
    brake::{self, Brake, Noticed, Picture},
    model::Model,
    orders::Orders,
    placement::GroupIx,
    reader::Starts,
    state::{Changes, ClusterState},
};

/// How many changes of units and machines are remembered for watchers. A hundred thousand names
/// are some 5 MB; a watcher further behind lists anew.
const RING_MAX: usize = 100_000;

/// The hot state with its doorbell.
#[derive(Debug)]
pub(crate) struct Shared {
    hot: RwLock<Hot>,
    /// Rung after every change, with the revision; `None` once the seat is lost. Readers hold on to
    /// this state as long as they like, so dropping it would tell them nothing.
    bell: Mutex<Option<watch::Sender<Revision>>>,
    /// How often the hot state was open to be changed.
    changes: AtomicU64,
    /// What lists say of units that wait, as of so many changes.
    briefs: Mutex<(u64, Briefs)>,
    /// Where pages of lists that are counted begin.
    pub starts: Starts,
    /// The turn to foresee something: each copies the placement model.
    foresight: Arc<Semaphore>,
    /// What users order of this engine while it leads.
    pub orders: Orders,
    /// When the engine started: the zero of its clock.
    started: Instant,
}

/// How many machines break each rule first, with the rule in words.
pub(crate) type Brief = Arc<[(usize, String)]>;

/// What is said of units that wait, by what they wait for.
type Briefs = HashMap<GroupIx, Option<Brief>>;

/// The seat that a state belonged to is lost: it shows what was, and will not change any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this engine has given up its seat; ask one that has a seat")]
pub struct SeatLost;

/// The hot state.
#[derive(Debug)]
pub(crate) struct Hot {
    /// The store's picture.
    pub state: ClusterState,
    /// The placement core beside it.
    pub model: Model,
    /// What is known of machines that are away. The leader judges when it steps, every other seat at
    /// once, so that whoever leads next goes on from there.
    pub brake: Brake,
    /// What changed since the leader looked last; nothing is collected while this engine does not lead.
    pub fresh: Changes,
    /// A listing has arrived: the picture is one.
    pub synced: bool,
    ring: Ring,
    /// What this engine does and what keeps it from it.
    pub engine: EngineStatus,
}

/// What this engine does, and what keeps it from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// It leads.
    pub leads: bool,
    /// The mass-loss brake holds: why, for people.
    pub hold: Option<String>,
    /// Nothing is decided: why.
    pub standstill: Option<String>,
    /// What keeps the state from following the store, while something does.
    pub behind: Option<String>,
    /// What the store said to this engine's campaign or to the leader's last write, if that failed.
    pub trouble: Option<String>,
}

#[derive(Debug, Default)]
struct Ring {
    changes: VecDeque<(Revision, Arc<Changes>)>,
    names: usize,
    /// Everything after this revision is in the ring.
    from: Revision,
}

impl Shared {
    pub fn new(keys: Keys, started: Instant) -> Self {
        let hot = Hot {
            state: ClusterState::new(keys),
            model: Model::default(),
            brake: Brake::default(),
            fresh: Changes::default(),
            synced: false,
            ring: Ring::default(),
            engine: EngineStatus::default(),
        };
        let bell = Mutex::new(Some(watch::Sender::new(Revision(0))));
        Self {
            hot: RwLock::new(hot),
            bell,
            changes: AtomicU64::new(0),
            briefs: Mutex::default(),
            starts: Starts::default(),
            foresight: Arc::new(Semaphore::new(1)),
            orders: Orders::default(),
            started,
        }
    }

    /// Returns the time on the engine's clock.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn read(&self) -> RwLockReadGuard<'_, Hot> {
        // A panic while it was written is a defect that has been reported; what is there is still
        // the best picture, and the next revision goes on from it.
        let hot = match self.hot.try_read() {
            Err(TryLockError::WouldBlock) => aside(|| self.hot.read()),
            Ok(hot) => Ok(hot),
            Err(TryLockError::Poisoned(poisoned)) => Err(poisoned),
        };
        hot.unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, Hot> {
        let hot = match self.hot.try_write() {
            Err(TryLockError::WouldBlock) => aside(|| self.hot.write()),
            Ok(hot) => Ok(hot),
            Err(TryLockError::Poisoned(poisoned)) => Err(poisoned),
        };
        let hot = hot.unwrap_or_else(PoisonError::into_inner);
        self.changes.fetch_add(1, Ordering::Relaxed);
        hot
    }

    /// Returns how many machines break each rule first, if no machine can take a unit. Units that wait for the
    /// same are asked for once, as long as nothing changes.
    pub fn brief(&self, hot: &Hot, unit: &UnitName) -> Option<Brief> {
        let ask = || hot.model.core().unplaceable(unit).map(Brief::from);
        let Some(alike) = hot.model.core().alike(unit) else { return ask() };
        // Nobody changes it while the caller reads it.
        let now = self.changes.load(Ordering::Relaxed);
        let known =
            |briefs: &(u64, Briefs)| (briefs.0 == now).then(|| briefs.1.get(&alike).cloned()).flatten();
        if let Some(known) = known(&self.briefs()) {
            return known;
        }
        let answer = ask();
        let mut briefs = self.briefs();
        if briefs.0 != now {
            *briefs = (now, Briefs::default());
        }
        briefs.1.insert(alike, answer.clone());
        answer
    }

    fn briefs(&self) -> MutexGuard<'_, (u64, Briefs)> {
        self.briefs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn to foresee something.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.foresight).acquire_owned().await.ok()
    }

    /// Returns the doorbell. It fails once the seat is lost.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        let bell = self.bell();
        bell.as_ref().map_or_else(|| watch::Sender::new(Revision(0)).subscribe(), watch::Sender::subscribe)
    }

    /// Notes that the seat is lost, and tells everybody who waits.
    pub fn close(&self) {
        drop(self.bell().take());
    }

    fn bell(&self) -> MutexGuard<'_, Option<watch::Sender<Revision>>> {
        self.bell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring<T>(&self, ring: impl FnOnce(&watch::Sender<Revision>) -> T) {
        if let Some(bell) = &*self.bell() {
            ring(bell);
        }
    }

    /// Replaces everything by a listing.
    pub fn reset(&self, revision: Revision, kvs: &[KeyValue]) {
        aside(|| self.list(revision, kvs));
    }

    fn list(&self, revision: Revision, kvs: &[KeyValue]) {
        let mut hot = self.write();
        let changes = hot.state.reset(revision, kvs);
        hot.take_in(&changes, Noticed::Listed, self.now());
        let Hot { fresh, synced, ring, engine, .. } = &mut *hot;
        if engine.leads {
            fresh.add(&changes);
        }
        *synced = true;
        *ring = Ring { from: revision, ..Ring::default() };
        drop(hot);
        self.ring(|bell| bell.send_replace(revision));
    }

    /// Applies one revision.
    pub fn apply(&self, revision: Revision, events: &[WatchEvent]) {
        let mut hot = self.write();
        let changes = Arc::new(hot.state.apply(revision, events));
        hot.take_in(&changes, Noticed::Now, self.now());
        hot.hear_of_holds(revision);
        let Hot { fresh, ring, engine, .. } = &mut *hot;
        ring.push(revision, &changes);
        if engine.leads {
            fresh.add(&changes);
        }
        drop(hot);
        self.ring(|bell| bell.send_replace(revision));
    }

    /// Notes that nothing changed up to a revision.
    pub fn advance(&self, revision: Revision) {
        self.write().state.advance(revision);
        let raise = |seen: &mut Revision| {
            let newer = revision > *seen;
            *seen = revision.max(*seen);
            newer
        };
        self.ring(|bell| bell.send_if_modified(raise));
    }

    /// Notes that the store went back.
    pub fn went_back(&self, why: WentBack) {
        self.write().state.note_went_back(why);
        self.ring(|bell| bell.send_modify(|_| {}));
    }

    /// Changes what is told of this engine.
    pub fn tell(&self, change: impl FnOnce(&mut EngineStatus)) {
        change(&mut self.write().engine);
    }

    /// Waits until the state has reached a revision.
    ///
    /// # Errors
    /// The seat was lost before.
    pub async fn reached(&self, revision: Revision) -> Result<(), SeatLost> {
        let mut bell = self.subscribe();
        loop {
            {
                let hot = self.read();
                if hot.synced && hot.state.revision() >= revision {
                    return Ok(());
                }
            }
            bell.changed().await.map_err(|_| SeatLost)?;
        }
    }
}

impl Hot {
    /// Makes the core and the brake agree with the state about everything that changed.
    fn take_in(&mut self, changes: &Changes, noticed: Noticed, now: Duration) {
        let Self { state, model, brake, engine, .. } = self;
        model.sync(state, changes);
        if changes.machines.is_empty() {
            return;
        }
        let picture = Picture { state, model };
        picture.tell(brake, &changes.machines, noticed, now);
        if !engine.leads {
            // Nobody is told: it is the leader's to say.
            brake.update(&picture, now, false);
        }
    }

    /// Notes that the leader ended a hold. It knows of an operator's word, which no other seat hears.
    fn hear_of_holds(&mut self, revision: Revision) {
        if self.engine.leads {
            return;
        }
        let event = self.state.events().get(&revision).and_then(|event| event.record.record());
        if event.is_some_and(|event| event.changes.iter().any(|change| change.kind == brake::OVER)) {
            self.brake.over();
        }
    }

    /// Returns the names of what changed after a revision; `None` when that is too long ago.
    pub fn since(&self, revision: Revision) -> Option<(BTreeSet<UnitName>, BTreeSet<MachineId>)> {
        if revision < self.ring.from || revision > self.state.revision() {
            return None;
        }
        let (mut units, mut machines) = (BTreeSet::new(), BTreeSet::new());
        for (_, changes) in self.ring.changes.iter().rev().take_while(|(at, _)| *at > revision) {
            units.extend(changes.all_units().cloned());
            machines.extend(&changes.machines);
        }
        Some((units, machines))
    }
}

impl Ring {
    fn push(&mut self, revision: Revision, changes: &Arc<Changes>) {
        if changes.is_empty() {
            return;
        }
        self.names += changes.names();
        self.changes.push_back((revision, Arc::clone(changes)));
        while self.names > RING_MAX {
            let Some((revision, changes)) = self.changes.pop_front() else { break };
            self.names -= changes.names();
            self.from = revision;
        }
    }
}

/// Does what may take seconds in a large cluster, or waits for it, and lets the tasks that share its thread go on
/// elsewhere: leases are renewed by such tasks, and a leader that looks at a million units loses its lead if it
/// keeps every thread of the runtime meanwhile. Simulations have one thread, and time that stands still.
pub(crate) fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => task::block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use flotilla_registry::keys::Key;

    use super::*;

    #[test]
    fn changes_are_collected_for_a_leader_only() {
        let shared = Shared::new(Keys::default(), Instant::now());
        let units = |from: i64| -> Vec<WatchEvent> {
            let unit = format!("u{from}.service").parse().expect("valid");
            let key = Keys::default().spell(&Key::Unit(unit));
            vec![WatchEvent::Delete { key, revision: Revision(from) }]
        };
        shared.reset(Revision(1), &[]);
        (2..10).for_each(|at| shared.apply(Revision(at), &units(at)));
        assert!(shared.read().fresh.is_empty());
        shared.tell(|engine| engine.leads = true);
        shared.apply(Revision(10), &units(10));
        assert_eq!(shared.read().fresh.units.len(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn who_waits_for_the_state_keeps_no_lease_from_being_renewed() {
        let shared = Arc::new(Shared::new(Keys::default(), Instant::now()));
        let (held, hold) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel::<()>());
        let writer = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                let _hot = shared.write();
                held.0.send(()).expect("waited for");
                hold.1.recv().expect("told");
            })
        };
        held.1.recv().expect("it has the state");
        let reader = Arc::clone(&shared);
        let waits = tokio::spawn(async move { reader.read().state.revision() });
        let renewals = tokio::spawn(async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let renewed = tokio::time::timeout(Duration::from_secs(20), renewals).await;
        assert!(renewed.is_ok() && !waits.is_finished(), "others go on while one waits");
        hold.0.send(()).expect("it holds");
        writer.join().expect("no panic");
        assert_eq!(waits.await.expect("no panic"), Revision(0));
    }
}
