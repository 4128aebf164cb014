//! The cluster state: a typed picture of the whole store at one revision.
//!
//! Owns the maps and the indexes over them. It is fed by the registry's list-then-watch, whole
//! revisions at a time, so what it shows was true in the store at [`ClusterState::revision`]. A
//! record that is corrupted, or that a newer daemon wrote, is kept as unreadable: it is shown, and
//! nothing is decided from it; it never counts as absent.
//!
//! It never writes, never waits and never looks at a clock. The seat feeds it; the leader's step
//! and the API's readers read it.
//!
//! Cost: a change costs what it changes (a bucket holds a handful of entries, a range as many
//! instances as it has), except two rare ones, which walk all units: a template's own record, which
//! walks its instances, and a manifest bucket that becomes unreadable or readable again.

mod content;
mod homes;
mod intake;
mod kept;
mod machine;
mod ranges;
mod recovery;
mod rollout;
mod tally;
mod units;
mod unused;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use flotilla_registry::{
    keys::{Bucket, Key, Keys},
    records::{
        Cluster, ClusterSettings, EventRecord, LeaderRecord, ManifestEntry, RecordError, SeatRecord,
        UnitReport,
    },
    store::{KeyValue, Revision, WatchEvent},
    witness::WentBack,
};
use flotilla_units::{ContentHash, MachineId, OnPartition, UnitName};
use rustc_hash::{FxHashMap, FxHashSet};

pub use content::{Content, ContentError};
pub(crate) use homes::Homes;
pub use kept::Kept;
pub use machine::{Life, Machine};
pub use ranges::RangeKey;
pub use rollout::{Behind, InFlight, Readiness, Rollout};
pub use tally::{ACTIVE_STATES, Tally};
pub use units::Units;
pub use unused::UnusedText;
pub use wanted::{Obstacle, Wanted, Wish};

use kept::readable;
use ranges::Ranges;
use unused::Unused;

/// The whole store at one revision.
#[derive(Debug)]
pub struct ClusterState {
    keys: Keys,
    revision: Revision,
    cluster: Option<Kept<Cluster>>,
    settings: Option<Kept<ClusterSettings>>,
    leader: Option<Kept<LeaderRecord>>,
    seats: BTreeMap<u8, Kept<SeatRecord>>,
    /// Records of units, what ranges say of instances without one, and which machines' manifests have an entry
    /// that can be read.
    units: Units,
    /// Units whose own record cannot be read.
    unreadable: BTreeSet<UnitName>,
    ranges: Ranges,
    contents: FxHashMap<ContentHash, Content>,
    /// Which units name a content as their current one.
    content_users: FxHashMap<ContentHash, BTreeSet<UnitName>>,
    /// The instances among them: as a rule an instance has its template's.
    texted: FxHashSet<UnitName>,
    unused: Unused,
    machines: BTreeMap<MachineId, Machine>,
    /// How many entries that stay have which text, by whose text it is.
    versions: FxHashMap<UnitName, BTreeMap<ContentHash, usize>>,
    tally: Tally,
    /// Which machines' manifests have a bucket that cannot be read.
    hidden: BTreeMap<Bucket, BTreeSet<MachineId>>,
    events: BTreeMap<Revision, Event>,
    event_revisions: FxHashMap<String, Revision>,
    /// Up to here events may have been collected.
    events_gone: Revision,
    /// The store was seen to have gone back: why.
    went_back: Option<WentBack>,
}

/// An event record with its key.
#[derive(Debug, Clone)]
pub struct Event {
    /// The key.
    pub key: String,
    /// The record.
    pub record: Kept<EventRecord>,
}

/// One entry of a unit, with the machine that it is for.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'a> {
    /// Which machine.
    pub machine: MachineId,
    /// Whether that machine takes part.
    pub life: Life,
    /// The entry.
    pub entry: &'a ManifestEntry,
    /// The machine proved that the departing entry's unit is gone.
    pub proven_gone: bool,
}

/// Some units, each once, in no order that means anything.
pub type NameSet = FxHashSet<UnitName>;

/// What is different after a revision was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Units of which something changed: record, content, entries, report, or their machine's life.
    pub units: NameSet,
    /// Units of which nothing changed but what their machine reports, and of which nothing is to be decided by that:
    /// they stay where they are. None of them is in `units`.
    pub reported: NameSet,
    /// Machines of which the record, the settings or the readability changed.
    pub machines: BTreeSet<MachineId>,
}

impl Changes {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        if !self.reported.is_empty() {
            for unit in &other.units {
                self.reported.remove(unit);
            }
        }
        self.units.extend(other.units.iter().cloned());
        let reported = other.reported.iter().filter(|unit| !self.units.contains(*unit));
        self.reported.extend(reported.cloned());
        self.machines.extend(&other.machines);
    }

    /// Keeps units that something else changed of out of those that were only reported of.
    fn settle(&mut self) {
        if !self.reported.is_empty() && !self.units.is_empty() {
            let units = &self.units;
            self.reported.retain(|unit| !units.contains(unit));
        }
    }

    /// Returns every unit of which anything changed.
    pub fn all_units(&self) -> impl Iterator<Item = &UnitName> {
        self.units.iter().chain(&self.reported)
    }

    /// Returns of how many units and machines something changed.
    #[must_use]
    pub fn names(&self) -> usize {
        self.units.len() + self.reported.len() + self.machines.len()
    }

    /// Tells whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.reported.is_empty() && self.machines.is_empty()
    }
}

impl ClusterState {
    /// Makes the picture of an empty store at revision zero.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        Self {
            keys,
            revision: Revision(0),
            cluster: None,
            settings: None,
            leader: None,
            seats: BTreeMap::new(),
            units: Units::default(),
            unreadable: BTreeSet::new(),
            ranges: Ranges::default(),
            contents: FxHashMap::default(),
            content_users: FxHashMap::default(),
            texted: FxHashSet::default(),
            unused: Unused::default(),
            machines: BTreeMap::new(),
            versions: FxHashMap::default(),
            tally: Tally::default(),
            hidden: BTreeMap::new(),
            events: BTreeMap::new(),
            event_revisions: FxHashMap::default(),
            events_gone: Revision(0),
            went_back: None,
        }
    }

    /// Replaces everything by a listing, and tells what is different: all of the old and the new.
    pub fn reset(&mut self, revision: Revision, kvs: &[KeyValue]) -> Changes {
        let mut changes = self.everything();
        let fresh = Self::new(self.keys.clone());
        let old = std::mem::replace(self, fresh);
        for kv in kvs {
            self.put(kv, &mut Changes::default());
        }
        self.settle(&mut Changes::default());
        self.settle_texts(revision);
        for (id, machine) in &mut self.machines {
            if machine.former.is_none() {
                machine.former = old.machines.get(id).and_then(|old| old.former.clone());
            }
        }
        self.revision = revision;
        // What was collected before this listing left no trace.
        self.events_gone = self.events.keys().next().map_or(revision, |first| Revision(first.0 - 1));
        self.check_all_tokens();
        changes.add(&self.everything());
        changes
    }

    /// Applies all changes of one revision.
    pub fn apply(&mut self, revision: Revision, events: &[WatchEvent]) -> Changes {
        let mut changes = Changes::default();
        let cluster = self.cluster.clone();
        let mut buckets = Vec::new();
        for event in events {
            if let WatchEvent::Put(kv) = event
                && let Some(Key::Manifest(id, bucket)) = self.keys.read(&kv.key)
            {
                buckets.push((id, bucket));
            }
            match event {
                WatchEvent::Put(kv) => self.put(kv, &mut changes),
                WatchEvent::Delete { key, .. } => self.delete(key, &mut changes),
            }
        }
        self.settle(&mut changes);
        self.revision = self.revision.max(revision);
        self.settle_texts(self.revision);
        self.check_for_going_back(cluster.as_ref());
        self.check_for_recovery(cluster.as_ref());
        for (id, bucket) in buckets {
            self.check_tokens(id, bucket);
        }
        changes.settle();
        changes
    }

    /// Notes that nothing changed up to a revision.
    pub fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// Notes that the store went back (a restore or a wipe). It stays noted until the next
    /// [`ClusterState::reset`], which comes when an operator has accepted the store; a token that nobody
    /// reserved, until the next leader's higher epoch.
    pub fn note_went_back(&mut self, why: WentBack) {
        self.went_back.get_or_insert(why);
    }

    /// Returns why nothing may be decided any more, if the store went back.
    #[must_use]
    pub const fn went_back(&self) -> Option<&WentBack> {
        self.went_back.as_ref()
    }

    /// Returns the revision that the picture is of.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Returns how keys are spelt.
    #[must_use]
    pub const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Returns the cluster's own record.
    #[must_use]
    pub const fn cluster(&self) -> Option<&Kept<Cluster>> {
        self.cluster.as_ref()
    }

    /// Returns what operators set for the whole cluster, if they ever did.
    #[must_use]
    pub const fn settings(&self) -> Option<&Kept<ClusterSettings>> {
        self.settings.as_ref()
    }

    /// Returns who leads.
    #[must_use]
    pub const fn leader(&self) -> Option<&Kept<LeaderRecord>> {
        self.leader.as_ref()
    }

    /// Returns who is hot.
    #[must_use]
    pub const fn seats(&self) -> &BTreeMap<u8, Kept<SeatRecord>> {
        &self.seats
    }

    /// Returns all units, templates and instances that only a range speaks for included.
    #[must_use]
    pub const fn units(&self) -> &Units {
        &self.units
    }

    /// Returns why units' own records cannot be read, by name.
    pub fn unreadable_units(&self) -> impl Iterator<Item = &Arc<RecordError>> {
        self.unreadable.iter().filter_map(|name| self.units.get(name)?.unreadable())
    }

    /// Returns how many units are in which state, as machines report them.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Returns everything known under machine ids, machines that are away included.
    #[must_use]
    pub const fn machines(&self) -> &BTreeMap<MachineId, Machine> {
        &self.machines
    }

    /// Returns a unit's text.
    #[must_use]
    pub fn content(&self, hash: &ContentHash) -> Option<&Content> {
        self.contents.get(hash)
    }

    /// Returns the event records, oldest first.
    #[must_use]
    pub const fn events(&self) -> &BTreeMap<Revision, Event> {
        &self.events
    }

    /// Returns the revision up to which events may have been collected: after it, all that were are here.
    #[must_use]
    pub const fn events_gone(&self) -> Revision {
        self.events_gone
    }

    /// Returns all entries of a unit that can be read, by machine and then token.
    #[must_use]
    pub fn placed<'a>(&'a self, unit: &'a UnitName) -> Vec<Placed<'a>> {
        let machines = self.units.homes(unit);
        machines
            .filter_map(|id| self.machines.get(&id).map(|machine| (id, machine)))
            .flat_map(|(id, machine)| {
                let life = machine.life();
                machine.entries_of(unit).map(move |entry| Placed {
                    machine: id,
                    life,
                    entry,
                    proven_gone: entry.departing.is_some() && machine.proves_gone(unit, entry.token),
                })
            })
            .collect()
    }

    /// Tells whether nothing at all is to be written about a unit as long as nothing is decided about it: it has no
    /// entries, and its record is not to go.
    pub(crate) fn has_nothing_to_write(&self, unit: &UnitName) -> bool {
        let leaves = || self.units.get(unit).and_then(Kept::record).is_some_and(|record| record.deleting);
        !self.units.has_home(unit) && !leaves()
    }

    /// Tells whether the unit of an entry on a lost machine may not run elsewhere all the same: its
    /// partition policy asks for more than a lease's end, or cannot be read and might.
    #[must_use]
    pub fn is_unreleased(&self, placed: &Placed<'_>) -> bool {
        let requirements = self.requirements_of(&placed.entry.unit, placed.entry.hash);
        let policy = requirements.map(|requirements| requirements.on_partition);
        placed.life == Life::Lost && policy != Some(OnPartition::Replace)
    }

    /// Returns what an entry's machine says of it, if it speaks of that very token.
    #[must_use]
    pub fn report_of(&self, placed: &Placed<'_>) -> Option<&UnitReport> {
        let machine = self.machines.get(&placed.machine)?;
        machine
            .reports_of(&placed.entry.unit)
            .into_iter()
            .find(|report| report.token.is_none_or(|token| token == placed.entry.token))
    }

    /// Returns why a unit might be on a machine although no entry shows it: a manifest bucket that
    /// cannot be read, and that was written after the unit came to be.
    #[must_use]
    pub fn hidden_entry(&self, unit: &UnitName) -> Option<String> {
        if self.hidden.is_empty() {
            return None;
        }
        let bucket = Bucket::of(unit);
        let created = self.came_to_be(unit)?;
        let hiding = self.hidden.get(&bucket)?.iter().filter_map(|id| self.machines.get(id)?.hides(bucket));
        hiding.filter(|kept| created <= kept.mod_revision()).find_map(|kept| {
            let error = kept.unreadable()?;
            Some(format!("it may be on a machine whose manifest cannot be read: {error}"))
        })
    }

    /// Returns the instances of a template, by a record of their own or a range's.
    pub fn instances<'a>(&'a self, template: &'a UnitName) -> impl Iterator<Item = &'a UnitName> {
        let stem = template.as_str().split_inclusive('@').next().unwrap_or_default();
        // Names sort by their text, so all instances stand together behind the stem.
        let from: Option<UnitName> = template.is_template().then(|| template.clone());
        from.into_iter().flat_map(move |from| {
            self.instances_behind(stem, &from)
                .filter(move |name| name.template().is_some_and(|t| t == *template))
                .collect::<Vec<_>>()
        })
    }

    fn instances_behind<'a>(
        &'a self,
        stem: &'a str,
        template: &UnitName,
    ) -> impl Iterator<Item = &'a UnitName> {
        // `web@.service` sorts among `web@-x.service` and `web@1.service`, so both sides are walked.
        let before = self.units.names((Bound::Unbounded, Bound::Excluded(template.clone()))).rev();
        let after = self.units.names((Bound::Excluded(template.clone()), Bound::Unbounded));
        let same = move |name: &&'a UnitName| name.as_str().starts_with(stem);
        before.take_while(same).chain(after.take_while(same))
    }

    /// Returns the names of everything there is: what a new leader looks at.
    #[must_use]
    pub fn everything(&self) -> Changes {
        let units = self.units.all_names().cloned().collect();
        Changes { units, machines: self.machines.keys().copied().collect(), ..Changes::default() }
    }
}
