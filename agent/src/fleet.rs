//! The owner loop: which units there are, what each is ordered, and what they told.
//!
//! It owns every unit's task and waits for nothing but messages, so no unit and no store can hold
//! it up; its turns are what the daemon's watchdog is fed from.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use flotilla_registry::{keys::Keys, records::ManifestEntry, store::Revision, stream};
use flotilla_units::{MachineId, UnitName};
use futures_util::FutureExt as _;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{self, JoinSet},
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use crate::{
    agent::Settings,
    board::Board,
    contents::Contents,
    known::Known,
    manifest::Manifest,
    publisher::Registration,
    reconcile::Gate,
    systemd::{Change, Present, Systemd},
    unit::{Orders, Told, UnitTask},
};

/// The longest time between two turns of the loop. Two seconds: a fifth of the shortest watchdog
/// that makes sense.
const TURN: Duration = Duration::from_secs(2);

/// How long after the agent's start units are started from memory although the machine is not
/// registered or the store was not heard. A minute: a store that boots at the same time as its
/// machines is there by then.
const START_FROM_MEMORY_AFTER: Duration = Duration::from_secs(60);

/// How many unit tasks may wait with something to tell.
const TOLD_QUEUE: usize = 1_024;

/// What the owner loop hears.
#[derive(Debug)]
pub(crate) enum News {
    /// The manifest changed.
    Manifest(stream::Change),
    /// The store went back.
    WentBack(String),
    /// An operator accepted it.
    Accepted,
    /// This is everything on the machine.
    Present(Vec<Present>),
    /// Something on the machine may have changed.
    Systemd(Change),
}

/// The owner loop's state.
pub(crate) struct Fleet {
    keys: Keys,
    machine: MachineId,
    systemd: Arc<dyn Systemd>,
    contents: Arc<Contents>,
    clock: Instant,
    /// Since when the store is waited for: the start, or an operator's word that accepted another one.
    waits_since: Instant,
    seed: u64,
    manifest: Manifest,
    /// The manifest was read from the store, by this agent.
    heard: bool,
    /// An operator accepted a store that went back, and its manifest has not been read yet.
    accepted: bool,
    /// What is on the machine was read.
    adopted: bool,
    gate: Gate,
    units: BTreeMap<UnitName, Slot>,
    tasks: JoinSet<()>,
    names: HashMap<task::Id, UnitName>,
    told: mpsc::Sender<Told>,
    hear_told: Option<mpsc::Receiver<Told>>,
    /// The newest revision that somebody waits for: it did more than take back what was carried out.
    ordered: Revision,
    /// The first revision that each unit has orders of and has not taken up.
    pending: BTreeMap<UnitName, Revision>,
    /// Units that have told nothing yet.
    untold: BTreeSet<UnitName>,
    board: watch::Sender<Board>,
    manifests: watch::Sender<Manifest>,
    frozen: watch::Sender<Option<String>>,
    registration: watch::Receiver<Registration>,
    ready: watch::Sender<bool>,
    progress: watch::Sender<u64>,
    asked: Arc<Notify>,
    known: Known,
}

/// The loop's end of a unit's task.
struct Slot {
    orders: watch::Sender<Orders>,
    bell: Arc<Notify>,
}

impl Fleet {
    /// Makes the loop of a machine.
    pub(crate) fn new(
        settings: &Settings,
        keys: Keys,
        systemd: Arc<dyn Systemd>,
        contents: Arc<Contents>,
        clock: Instant,
    ) -> Self {
        let (told, hear_told) = mpsc::channel(TOLD_QUEUE);
        let pending = Registration::Pending(String::new());
        Self {
            keys,
            machine: settings.machine,
            systemd,
            contents,
            clock,
            waits_since: clock,
            seed: settings.seed,
            manifest: Manifest::default(),
            heard: false,
            accepted: false,
            adopted: false,
            gate: Gate::Closed("the agent has just started".to_owned()),
            units: BTreeMap::new(),
            tasks: JoinSet::new(),
            names: HashMap::new(),
            told,
            hear_told: Some(hear_told),
            ordered: Revision::default(),
            pending: BTreeMap::new(),
            untold: BTreeSet::new(),
            board: watch::Sender::default(),
            manifests: watch::Sender::default(),
            frozen: watch::Sender::default(),
            registration: watch::channel(pending).1,
            ready: watch::Sender::default(),
            progress: watch::Sender::default(),
            asked: Arc::default(),
            known: Known::default(),
        }
    }

    /// Sets where the loop puts what it knows, and how it hears of the registration.
    pub(crate) fn with_outlets(
        self,
        board: watch::Sender<Board>,
        manifests: watch::Sender<Manifest>,
        frozen: watch::Sender<Option<String>>,
        registration: watch::Receiver<Registration>,
    ) -> Self {
        Self { board, manifests, frozen, registration, ..self }
    }

    /// Sets what the daemon watches, and how it asks for a turn.
    pub(crate) fn with_signals(
        self,
        ready: watch::Sender<bool>,
        progress: watch::Sender<u64>,
        asked: Arc<Notify>,
    ) -> Self {
        Self { ready, progress, asked, ..self }
    }

    /// Sets where the loop says which units are flotilla's.
    pub(crate) fn with_known(self, known: Known) -> Self {
        Self { known, ..self }
    }

    /// Runs until nobody sends news any more.
    pub(crate) async fn run(mut self, remembered: Manifest, mut news: mpsc::Receiver<News>) {
        self.manifest = remembered;
        let Some(mut told) = self.hear_told.take() else { return };
        let mut turn = interval(TURN);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut registration = self.registration.clone();
        let mut frozen = self.frozen.subscribe();
        let asked = self.asked.clone();
        let mut heard = Vec::new();
        loop {
            self.progress.send_modify(|turns| *turns += 1);
            tokio::select! {
                // All that waits: a hundred units that start together are one turn, and wake the publisher once.
                _ = told.recv_many(&mut heard, TOLD_QUEUE) => self.hear(heard.drain(..)),
                item = news.recv() => match item {
                    Some(item) => self.take(item),
                    None => return,
                },
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                Ok(()) = registration.changed() => {}
                Ok(()) = frozen.changed() => {}
                () = asked.notified() => {}
                // What opens the gate may be that time has passed.
                _ = turn.tick(), if self.gate != Gate::Open => {}
            }
            self.set_gate();
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Manifest(change) => self.take_manifest(change),
            News::WentBack(why) => {
                error!(why, "the store went back: nothing is started or stopped");
                self.frozen.send_replace(Some(why));
            }
            // With nothing frozen, its manifest has been read already, or there was none to accept.
            News::Accepted if self.frozen.borrow().is_none() => {}
            News::Accepted => self.begin_anew(),
            News::Present(present) => self.adopt(present),
            News::Systemd(Change::Everything) => self.units.values().for_each(|slot| slot.bell.notify_one()),
            News::Systemd(Change::Unit(unit)) => match self.units.get(&unit) {
                Some(slot) => slot.bell.notify_one(),
                None if self.adopted => {
                    let orders = self.orders(self.manifest.orders(&unit));
                    self.add(&unit, orders, None);
                }
                None => {}
            },
        }
    }

    /// Forgets what was heard of a store that went back and was accepted: it may count from a lower
    /// revision, and what it orders is not known before its manifest is read.
    fn begin_anew(&mut self) {
        (self.heard, self.accepted) = (false, true);
        self.waits_since = Instant::now();
        self.board.send_modify(|board| board.seen = Revision::default());
        self.frozen.send_replace(None);
    }

    /// Takes what is on the machine: each unit gets its task, which touches nothing that agrees.
    fn adopt(&mut self, present: Vec<Present>) {
        if self.adopted {
            // Systemd was lost and found again; the tasks that are there read for themselves.
            self.units.values().for_each(|slot| slot.bell.notify_one());
        }
        let mut there: BTreeMap<_, _> = present.into_iter().map(|p| (p.unit.clone(), p)).collect();
        let mut names = self.manifest.units();
        names.extend(there.keys().cloned());
        for (unit, entries) in self.manifest.orders_of(&names) {
            if !self.units.contains_key(&unit) {
                let (seen, orders) = (there.remove(&unit), self.orders(entries));
                self.untold.insert(unit.clone());
                self.add(&unit, orders, Some(seen));
            }
        }
        if !self.adopted {
            info!(units = self.units.len(), "adopted what is on the machine");
            self.adopted = true;
            self.ready.send_replace(true);
            self.complete();
        }
    }

    fn take_manifest(&mut self, change: stream::Change) {
        let reset = matches!(change, stream::Change::Reset { .. });
        if reset && self.frozen.borrow().is_some() {
            // Only an operator's word brings one.
            self.begin_anew();
        }
        let anew = reset && std::mem::take(&mut self.accepted);
        let mut applied = self.manifest.apply(&self.keys, self.machine, change);
        for error in &applied.errors {
            error!(%error, "a part of the manifest cannot be read; what it said before stays in force: mend or delete it in etcd");
        }
        self.heard |= reset;
        // A unit that leaves is proven gone by a `seen` at or after its bucket, whatever that was written for.
        let leaves = || self.manifest.entries().any(|entry| entry.departing.is_some());
        if reset || applied.gives || leaves() {
            self.ordered = self.manifest.revision();
        }
        if anew {
            // The revisions that anybody had orders of were the other store's.
            self.pending.clear();
            applied.units.extend(self.units.keys().cloned());
        }
        self.order(&applied.units);
        if reset {
            self.contents.name_all(self.manifest.contents());
            let contents = self.contents.clone();
            drop(task::spawn_blocking(move || contents.sweep()));
        }
        self.manifests.send_replace(self.manifest.clone());
        self.set_seen();
    }

    /// Gives units their present orders.
    fn order(&mut self, units: &BTreeSet<UnitName>) {
        if !self.adopted {
            return;
        }
        for (unit, entries) in self.manifest.orders_of(units) {
            let orders = self.orders(entries);
            self.pending.entry(unit.clone()).or_insert(orders.revision);
            match self.units.get(&unit) {
                Some(slot) => drop(slot.orders.send_replace(orders)),
                None => self.add(&unit, orders, None),
            }
        }
    }

    fn orders(&self, entries: Vec<ManifestEntry>) -> Orders {
        Orders {
            entries: entries.into(),
            revision: self.manifest.revision(),
            manifest_known: self.manifest.is_known(),
            gate: self.gate.clone(),
        }
    }

    /// Starts a unit's task. `seen` is what the machine has of it, if that was just read.
    fn add(&mut self, unit: &UnitName, orders: Orders, seen: Option<Option<Present>>) {
        // Before anything is done, so that its first words are the unit's.
        self.known.came(unit);
        self.pending.entry(unit.clone()).or_insert(orders.revision);
        let orders = watch::Sender::new(orders);
        let slot = Slot { orders, bell: Arc::new(Notify::new()) };
        self.spawn(unit, &slot, seen);
        self.units.insert(unit.clone(), slot);
    }

    fn spawn(&mut self, unit: &UnitName, slot: &Slot, seen: Option<Option<Present>>) {
        // Neighbours fail together; they do not come back together.
        let name = unit.as_str().bytes().fold(self.seed, |s, b| s.wrapping_mul(31).wrapping_add(b.into()));
        let task = UnitTask {
            unit: unit.clone(),
            systemd: self.systemd.clone(),
            contents: self.contents.clone(),
            orders: slot.orders.subscribe(),
            bell: slot.bell.clone(),
            out: self.told.clone(),
            clock: self.clock,
            seed: name,
        };
        let id = self.tasks.spawn(task.run(seen)).id();
        self.names.insert(id, unit.clone());
    }

    /// Takes note of a task that ended: nothing is left to do for its unit, or it panicked.
    fn ended(&mut self, ended: Result<(task::Id, ()), task::JoinError>) {
        let id = ended.as_ref().map_or_else(task::JoinError::id, |(id, ())| *id);
        let Some(unit) = self.names.remove(&id) else { return };
        let Some(slot) = self.units.remove(&unit) else { return };
        let rung = slot.bell.notified().now_or_never().is_some();
        if let Err(panic) = &ended {
            error!(%unit, %panic, "the unit's task ended unexpectedly; it starts anew");
        }
        if ended.is_err() || rung || !slot.orders.borrow().entries.is_empty() {
            self.spawn(&unit, &slot, None);
            self.units.insert(unit, slot);
            return;
        }
        self.known.went(&unit);
        // Nothing is ordered and nothing is there: that is taken up, also behind a gate.
        self.pending.remove(&unit);
        self.set_seen();
    }

    fn hear(&mut self, told: impl Iterator<Item = Told>) {
        let (mut first, mut taken_up) = (false, false);
        self.board.send_if_modified(|board| {
            let mut news = false;
            for told in told {
                let latest = self.units.get(&told.unit).map(|slot| slot.orders.borrow().revision);
                let is_latest = told.taken_up.is_some() && told.taken_up >= latest;
                taken_up |= is_latest && self.pending.remove(&told.unit).is_some();
                first |= self.untold.remove(&told.unit);
                news |= board.put(told.unit, told.reports);
            }
            news
        });
        if first {
            self.complete();
        }
        if taken_up {
            self.set_seen();
        }
    }

    /// Says that the report is a whole one, once every unit that was there has told.
    fn complete(&self) {
        if self.adopted && self.untold.is_empty() {
            self.board.send_if_modified(|board| !std::mem::replace(&mut board.complete, true));
        }
    }

    /// Raises `seen` to the revision up to which every order has been taken up.
    fn set_seen(&self) {
        if self.gate != Gate::Open || !self.heard {
            return;
        }
        let read = self.manifest.read_up_to();
        let taken_up = self.pending.values().min().map_or(read, |first| Revision(first.0 - 1).min(read));
        self.board.send_if_modified(|board| {
            let orders = board.seen < self.ordered;
            board.raise_seen(taken_up, orders)
        });
    }

    /// Opens or shuts the gate, and tells every unit.
    fn set_gate(&mut self) {
        let (registered, occupied) = match &*self.registration.borrow() {
            Registration::Registered { .. } => (true, None),
            Registration::Occupied { why, until } if Instant::now() < *until => (false, Some(why.clone())),
            _ => (false, None),
        };
        let mut from_memory = false;
        let gate = match &*self.frozen.borrow() {
            Some(why) => Gate::Frozen(why.clone()),
            None if self.accepted => Gate::Closed("the accepted store has not been read yet".to_owned()),
            None if self.gate == Gate::Open => return,
            None if self.heard && registered => Gate::Open,
            // Not from memory either: the store was asked, and who is registered may run the same units.
            None if occupied.is_some() => Gate::Closed(occupied.unwrap_or_default()),
            None if self.waits_since.elapsed() >= START_FROM_MEMORY_AFTER => {
                from_memory = true;
                Gate::Open
            }
            None if self.heard => Gate::Closed("the machine is not registered yet".to_owned()),
            None => Gate::Closed("the store has not been heard yet".to_owned()),
        };
        if gate == self.gate || !self.adopted {
            return;
        }
        if from_memory {
            let lacking =
                if self.heard { "the machine is not registered" } else { "the store was not heard" };
            warn!(
                lacking,
                seconds = START_FROM_MEMORY_AFTER.as_secs(),
                "starting units from the last known manifest"
            );
        }
        self.gate = gate;
        let units = self.units.keys().cloned().collect();
        self.order(&units);
        self.set_seen();
    }
}
