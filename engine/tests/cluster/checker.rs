//! Watches the store and holds every revision against the invariants of design.md section 5.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_engine::state::{ClusterState, Life, Machine, Placed, Readiness, Wish};
use flotilla_registry::{
    keys::Keys,
    records::{Departure, ManifestEntry, Target, Token},
    store::{Revision, Store, WatchEvent, WatchMessage, WatchStream},
};
use flotilla_units::{ContentHash, MachineId, UnitName};
use futures_util::{FutureExt as _, StreamExt as _};

/// The checker, and its own picture of the store.
pub(crate) struct Checker {
    pub(crate) state: ClusterState,
    watch: WatchStream,
    /// The highest token that a unit ever had.
    highest: BTreeMap<UnitName, Token>,
    /// How many writes there were at all.
    pub(crate) writes: usize,
    /// Placements that were taken off lost machines.
    pub(crate) lost_moves: usize,
    /// The entry that was updated last, by whose text it is, and whether it was ready since.
    updated: BTreeMap<UnitName, ((UnitName, MachineId, Token), bool)>,
    /// How many entries got another text by being started anew.
    pub(crate) updates: usize,
    /// How many starts were ordered: each has a token of its own.
    pub(crate) tokens: usize,
    /// Texts that a test takes away itself.
    pub(crate) missing: BTreeSet<ContentHash>,
}

type Entries = BTreeMap<(UnitName, MachineId, Token), ManifestEntry>;

impl Checker {
    pub(crate) async fn new(store: &dyn Store) -> Self {
        let keys = Keys::default();
        let watch = store.watch(keys.everything(), Revision(1)).await.expect("a watch");
        Self {
            state: ClusterState::new(keys),
            watch,
            highest: BTreeMap::new(),
            writes: 0,
            lost_moves: 0,
            updated: BTreeMap::new(),
            updates: 0,
            tokens: 0,
            missing: BTreeSet::new(),
        }
    }

    /// Takes in everything that has happened, and checks it.
    pub(crate) fn catch_up(&mut self) {
        while let Some(message) = self.watch.next().now_or_never() {
            match message.expect("the watch goes on").expect("the store watches") {
                WatchMessage::Progress(_) => {}
                WatchMessage::Events { revision, events } => self.check(revision, &events),
            }
        }
    }

    pub(crate) fn active(&self, unit: &UnitName) -> Vec<MachineId> {
        let placed = self.state.placed(unit);
        placed.iter().filter(|p| p.entry.stays()).map(|p| p.machine).collect()
    }

    /// Where it is only until it is ready elsewhere.
    pub(crate) fn moving(&self, unit: &UnitName) -> Vec<MachineId> {
        let placed = self.state.placed(unit);
        placed.iter().filter(|p| p.entry.moving.is_some()).map(|p| p.machine).collect()
    }

    pub(crate) fn departing(&self, unit: &UnitName) -> Vec<MachineId> {
        let placed = self.state.placed(unit);
        placed.iter().filter(|p| p.entry.departing.is_some()).map(|p| p.machine).collect()
    }

    /// What is counted while it changes is what is there.
    fn check_tally(&self) {
        let reports = self.state.machines().values().flat_map(Machine::reports);
        let mut counted = BTreeMap::new();
        for report in reports {
            *counted.entry(report.active.as_str()).or_default() += 1;
        }
        let tally: BTreeMap<_, usize> = self.state.tally().counts().filter(|(_, count)| *count > 0).collect();
        assert_eq!(tally, counted);
    }

    fn check(&mut self, revision: Revision, events: &[WatchEvent]) {
        self.writes += events.len();
        let units = self.all_units();
        let before = self.entries(&units);
        let proven: BTreeSet<(UnitName, MachineId, Token)> = units
            .iter()
            .flat_map(|unit| self.state.placed(unit).into_iter().filter(|p| p.proven_gone).map(key_of))
            .collect();
        let is_ready = |it: &Placed<'_>| self.state.readiness(it) == Readiness::Ready;
        let ready: BTreeSet<UnitName> = units
            .iter()
            .filter(|unit| self.state.placed(unit).iter().any(|p| p.entry.stays() && is_ready(p)))
            .cloned()
            .collect();
        self.state.apply(revision, events);
        self.check_tally();
        assert_eq!(self.state.went_back(), None, "at {revision:?}");
        self.note_ready();
        self.check_texts(revision);
        let after = self.entries(&self.all_units());
        for (key, entry) in &after {
            let (unit, machine, token) = key;
            let (departing, moving) = (entry.departing, entry.moving);
            assert!(departing.is_none() || moving.is_none(), "{unit} both departs and moves at {revision:?}");
            match before.get(key).map(|before| (before.departing, before.moving)) {
                Some((None, _)) if departing == Some(Departure::MachineLost) => {
                    assert_eq!(self.state.machines()[machine].life(), Life::Lost, "{unit} at {revision:?}");
                    self.lost_moves += 1;
                }
                Some((Some(_), _)) => {
                    assert!(departing.is_some(), "{unit} came back to life at {revision:?}")
                }
                // It leaves for what it moves for only once it is ready elsewhere.
                Some((None, Some(why))) if departing == Some(why) => {
                    assert!(
                        ready.contains(unit),
                        "{unit} left {machine} before it was ready at {revision:?}"
                    );
                }
                // It moves only when it is started elsewhere, at the same revision.
                Some((None, None)) if moving.is_some() => {
                    let started = |other: &(UnitName, MachineId, Token)| {
                        other.0 == *unit && other.1 != *machine && !before.contains_key(other)
                    };
                    assert!(after.keys().any(started), "{unit} moves nowhere at {revision:?}");
                }
                Some((None, _)) => {}
                None => {
                    self.tokens += 1;
                    let highest = self.highest.insert(unit.clone(), *token);
                    assert!(highest < Some(*token), "{unit} got {token}, had {highest:?}, at {revision:?}");
                }
            }
        }
        for ((unit, machine, token), entry) in &before {
            let departing = entry.departing;
            let gone = !after.contains_key(&(unit.clone(), *machine, *token));
            // An entry that is replaced in place by one with a higher token is an update.
            let mut newer = after.iter().filter(|((u, m, t), _)| u == unit && m == machine && t > token);
            let newer = newer.next();
            if let (true, None, Some((key, newer))) = (gone, departing, newer) {
                self.check_update(entry, newer, key, revision);
            }
            let updated = newer.is_some();
            if gone && !(departing.is_none() && updated) {
                assert!(departing.is_some(), "{unit} on {machine} vanished at {revision:?}");
                let key = (unit.clone(), *machine, *token);
                assert!(proven.contains(&key), "{unit} on {machine} dropped without proof at {revision:?}");
            }
        }
        for unit in after.keys().map(|(unit, ..)| unit).collect::<BTreeSet<_>>() {
            let hashes = self.state.placed(unit).into_iter().map(|placed| placed.entry.hash);
            let mut asks = hashes.filter_map(|hash| self.state.requirements_of(unit, hash));
            let active = self.active(unit);
            assert!(
                asks.any(|asks| asks.global) || active.len() <= 1,
                "{unit} is on {active:?} at {revision:?}"
            );
        }
    }

    /// Whatever a unit or an entry has as its text is there.
    fn check_texts(&self, revision: Revision) {
        let records = self.state.units().iter();
        let current = records.filter_map(|(unit, kept)| Some((unit, kept.record()?.current?)));
        let entries = self.state.machines().values().flat_map(Machine::entries);
        for (unit, hash) in current.chain(entries.map(|entry| (&entry.unit, entry.hash))) {
            let is_there = self.state.content(&hash).is_some() || self.missing.contains(&hash);
            assert!(is_there, "{unit} has no text {hash} at {revision:?}");
        }
    }

    /// An entry got another token where it is: there has to be a reason, and with another text its turn.
    fn check_update(
        &mut self,
        old: &ManifestEntry,
        new: &ManifestEntry,
        key: &(UnitName, MachineId, Token),
        revision: Revision,
    ) {
        let (unit, alike) = (&new.unit, old.hash == new.hash || self.state.run_alike(old.hash, new.hash));
        assert!(old.run != new.run || !alike, "{unit} is started anew for nothing at {revision:?}");
        if (old.run, old.target) != (new.run, new.target) {
            return;
        }
        self.updates += 1;
        let last = self.updated.insert(self.state.owner(unit), (key.clone(), false));
        let Some(((last, machine, token), was_ready)) = last else { return };
        let placed = self.state.placed(&last);
        let on = placed.iter().find(|it| (it.machine, it.entry.token) == (machine, token));
        // Only of what runs everywhere those on lost machines are left out.
        let global = self.state.requirements_of(&last, new.hash).is_some_and(|asks| asks.global);
        let lost = |it: &Placed<'_>| it.life == Life::Lost && (global || it.entry.target != Target::Launched);
        let counts = |it: &Placed<'_>| it.entry.stays() && !lost(it) && it.entry.hash == new.hash;
        if on.is_some_and(counts) && matches!(self.state.wish(&last), Wish::Wanted(_)) {
            assert!(was_ready, "{unit} was updated before {last} was ready at {revision:?}");
        }
    }

    /// Notes which of the entries that were updated last are ready.
    fn note_ready(&mut self) {
        for ((unit, machine, token), was_ready) in self.updated.values_mut() {
            let placed = self.state.placed(unit);
            let on = placed.iter().find(|it| (it.machine, it.entry.token) == (*machine, *token));
            *was_ready |= on.is_some_and(|it| self.state.readiness(it) == Readiness::Ready);
        }
    }

    fn all_units(&self) -> BTreeSet<UnitName> {
        self.state.machines().values().flat_map(|m| m.entries().map(|entry| entry.unit.clone())).collect()
    }

    fn entries(&self, units: &BTreeSet<UnitName>) -> Entries {
        let placed = units.iter().flat_map(|unit| self.state.placed(unit));
        placed.map(|placed| (key_of(placed), placed.entry.clone())).collect()
    }
}

fn key_of(placed: Placed<'_>) -> (UnitName, MachineId, Token) {
    (placed.entry.unit.clone(), placed.machine, placed.entry.token)
}
