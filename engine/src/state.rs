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
//! Cost: a change costs what it changes (a bucket holds a handful of entries), except two rare
//! ones, which walk all units: a template's own record, which walks its instances, and a manifest
//! bucket that becomes unreadable or readable again.

mod content;
mod kept;
mod machine;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use flotilla_registry::{
    keys::{Bucket, Key, Keys},
    records::{
        Cluster, EventRecord, LeaderRecord, MachineRecord, MachineSettings, ManifestBucket, ManifestEntry,
        ReportBucket, ReportHead, SeatRecord, UnitRecord, UnitReport,
    },
    store::{KeyValue, Revision, WatchEvent},
    witness::{WentBack, WentBackReason, Witness, check_token},
};
use flotilla_units::{ContentHash, MachineId, OnPartition, UnitName};

pub use content::{Content, ContentError};
pub use kept::Kept;
pub use machine::{Life, Machine};
pub use wanted::{Obstacle, Wanted, Wish};

use kept::{is_unreadable, readable};

/// The whole store at one revision.
#[derive(Debug)]
pub struct ClusterState {
    keys: Keys,
    revision: Revision,
    cluster: Option<Kept<Cluster>>,
    leader: Option<Kept<LeaderRecord>>,
    seats: BTreeMap<u8, Kept<SeatRecord>>,
    units: BTreeMap<UnitName, Kept<UnitRecord>>,
    contents: HashMap<ContentHash, Content>,
    /// Which units name a content as their current one.
    content_users: HashMap<ContentHash, BTreeSet<UnitName>>,
    machines: BTreeMap<MachineId, Machine>,
    /// Which machines' manifests have an entry of a unit that can be read.
    entries: HashMap<UnitName, BTreeSet<MachineId>>,
    /// Which machines' manifests have a bucket that cannot be read.
    hidden: BTreeMap<Bucket, BTreeSet<MachineId>>,
    events: BTreeMap<Revision, Event>,
    event_revisions: HashMap<String, Revision>,
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

/// What is different after a revision was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Units of which something changed: record, content, entries, report, or their machine's life.
    pub units: BTreeSet<UnitName>,
    /// Machines of which the record, the settings or the readability changed.
    pub machines: BTreeSet<MachineId>,
}

impl Changes {
    /// Adds another's.
    pub fn extend(&mut self, other: Self) {
        self.units.extend(other.units);
        self.machines.extend(other.machines);
    }

    /// Tells whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && self.machines.is_empty()
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
            leader: None,
            seats: BTreeMap::new(),
            units: BTreeMap::new(),
            contents: HashMap::new(),
            content_users: HashMap::new(),
            machines: BTreeMap::new(),
            entries: HashMap::new(),
            hidden: BTreeMap::new(),
            events: BTreeMap::new(),
            event_revisions: HashMap::new(),
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
        for (id, machine) in &mut self.machines {
            if machine.former.is_none() {
                machine.former = old.machines.get(id).and_then(|old| old.former.clone());
            }
        }
        self.revision = revision;
        self.check_all_tokens();
        changes.extend(self.everything());
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
        self.revision = self.revision.max(revision);
        self.check_for_going_back(cluster.as_ref());
        self.check_for_recovery(cluster.as_ref());
        for (id, bucket) in buckets {
            self.check_tokens(id, bucket);
        }
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

    /// Returns all unit records, templates included.
    #[must_use]
    pub const fn units(&self) -> &BTreeMap<UnitName, Kept<UnitRecord>> {
        &self.units
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

    /// Returns all entries of a unit that can be read, by machine and then token.
    #[must_use]
    pub fn placed<'a>(&'a self, unit: &'a UnitName) -> Vec<Placed<'a>> {
        let machines = self.entries.get(unit).into_iter().flatten();
        machines
            .filter_map(|id| self.machines.get(id).map(|machine| (*id, machine)))
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
        let bucket = Bucket::of(unit);
        let created = self.units.get(unit)?.create_revision();
        let hiding = self.hidden.get(&bucket)?.iter().filter_map(|id| self.machines.get(id)?.hides(bucket));
        hiding.filter(|kept| created <= kept.mod_revision()).find_map(|kept| {
            let error = kept.unreadable()?;
            Some(format!("it may be on a machine whose manifest cannot be read: {error}"))
        })
    }

    /// Returns the instances of a template that have a record.
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
        let before = self.units.range((Bound::Unbounded, Bound::Excluded(template.clone()))).rev();
        let after = self.units.range((Bound::Excluded(template.clone()), Bound::Unbounded));
        let same = move |(name, _): &(&'a UnitName, &Kept<UnitRecord>)| name.as_str().starts_with(stem);
        before.take_while(same).chain(after.take_while(same)).map(|(name, _)| name)
    }

    /// Returns the names of everything there is: what a new leader looks at.
    #[must_use]
    pub fn everything(&self) -> Changes {
        let mut units: BTreeSet<_> = self.units.keys().cloned().collect();
        units.extend(self.entries.keys().cloned());
        Changes { units, machines: self.machines.keys().copied().collect() }
    }

    fn put(&mut self, kv: &KeyValue, changes: &mut Changes) {
        match self.keys.read(&kv.key) {
            Some(Key::Cluster) => self.cluster = Some(Kept::read(kv)),
            Some(Key::Leader) => self.leader = Some(Kept::read(kv)),
            Some(Key::Seat(number)) => {
                self.seats.insert(number, Kept::read(kv));
            }
            Some(Key::Content(hash)) => {
                self.contents.insert(hash, Content::read(hash, &kv.value));
                self.touch_users(hash, changes);
            }
            Some(Key::Unit(name)) => self.set_unit(&name, Some(Kept::read(kv)), changes),
            Some(Key::Machine(id)) => self.set_record(id, Some(Kept::read(kv)), changes),
            Some(Key::MachineSettings(id)) => self.set_settings(id, Some(Kept::read(kv)), changes),
            Some(Key::Manifest(id, bucket)) => self.set_manifest(id, bucket, Some(Kept::read(kv)), changes),
            Some(Key::ReportHead(id)) => self.set_head(id, Some(Kept::read(kv)), changes),
            Some(Key::Report(id, bucket)) => self.set_report(id, bucket, Some(Kept::read(kv)), changes),
            Some(Key::Event { .. }) => {
                let record = Kept::read(kv);
                self.forget_event(&kv.key);
                self.event_revisions.insert(kv.key.clone(), kv.mod_revision);
                self.events.insert(kv.mod_revision, Event { key: kv.key.clone(), record });
            }
            // Ranges are not placed yet; a key that this version does not know is a newer one's.
            Some(Key::RangeGuard(_) | Key::Range { .. }) | None => {}
        }
    }

    fn delete(&mut self, key: &str, changes: &mut Changes) {
        match self.keys.read(key) {
            Some(Key::Cluster) => self.cluster = None,
            Some(Key::Leader) => self.leader = None,
            Some(Key::Seat(number)) => {
                self.seats.remove(&number);
            }
            Some(Key::Content(hash)) => {
                self.contents.remove(&hash);
                self.touch_users(hash, changes);
            }
            Some(Key::Unit(name)) => self.set_unit(&name, None, changes),
            Some(Key::Machine(id)) => self.set_record(id, None, changes),
            Some(Key::MachineSettings(id)) => self.set_settings(id, None, changes),
            Some(Key::Manifest(id, bucket)) => self.set_manifest(id, bucket, None, changes),
            Some(Key::ReportHead(id)) => self.set_head(id, None, changes),
            Some(Key::Report(id, bucket)) => self.set_report(id, bucket, None, changes),
            Some(Key::Event { .. }) => self.forget_event(key),
            Some(Key::RangeGuard(_) | Key::Range { .. }) | None => {}
        }
    }

    fn forget_event(&mut self, key: &str) {
        if let Some(revision) = self.event_revisions.remove(key) {
            self.events.remove(&revision);
        }
    }

    fn touch_users(&self, hash: ContentHash, changes: &mut Changes) {
        for user in self.content_users.get(&hash).into_iter().flatten() {
            changes.units.extend(self.instances(user).cloned());
            changes.units.insert(user.clone());
        }
    }

    fn set_unit(&mut self, name: &UnitName, kept: Option<Kept<UnitRecord>>, changes: &mut Changes) {
        let content = |kept: Option<&Kept<UnitRecord>>| readable(kept).and_then(|record| record.current);
        let was = content(self.units.get(name));
        let is = content(kept.as_ref());
        if was != is {
            if let Some(hash) = was
                && let Some(users) = self.content_users.get_mut(&hash)
            {
                users.remove(name);
                if users.is_empty() {
                    self.content_users.remove(&hash);
                }
            }
            if let Some(hash) = is {
                self.content_users.entry(hash).or_default().insert(name.clone());
            }
        }
        match kept {
            Some(kept) => self.units.insert(name.clone(), kept),
            None => {
                // Its template's record may have waited for it.
                changes.units.extend(name.template());
                self.units.remove(name)
            }
        };
        if name.is_template() {
            changes.units.extend(self.instances(name).cloned());
        }
        changes.units.insert(name.clone());
    }

    fn set_record(&mut self, id: MachineId, kept: Option<Kept<MachineRecord>>, changes: &mut Changes) {
        self.change_machine(id, changes, |machine| {
            if let Some(record) = readable(kept.as_ref()) {
                machine.former = Some(Arc::clone(record));
            }
            machine.record = kept;
        });
    }

    fn set_settings(&mut self, id: MachineId, kept: Option<Kept<MachineSettings>>, changes: &mut Changes) {
        self.change_machine(id, changes, |machine| machine.settings = kept);
    }

    fn set_head(&mut self, id: MachineId, kept: Option<Kept<ReportHead>>, changes: &mut Changes) {
        let machine = self.machines.entry(id).or_default();
        let before = machine.life();
        machine.head = kept;
        if machine.life() == before {
            // Only what waits for proof can be touched by a head.
            let departing = machine.entries().filter(|entry| entry.departing.is_some());
            changes.units.extend(departing.map(|entry| entry.unit.clone()));
        } else {
            changes.machines.insert(id);
            changes.units.extend(machine.entries().map(|entry| entry.unit.clone()));
        }
        self.drop_if_nothing(id);
    }

    fn change_machine(&mut self, id: MachineId, changes: &mut Changes, change: impl FnOnce(&mut Machine)) {
        let machine = self.machines.entry(id).or_default();
        let before = machine.life();
        change(machine);
        changes.machines.insert(id);
        if machine.life() != before {
            changes.units.extend(machine.entries().map(|entry| entry.unit.clone()));
        }
        self.drop_if_nothing(id);
    }

    fn drop_if_nothing(&mut self, id: MachineId) {
        if self.machines.get(&id).is_some_and(Machine::is_nothing) {
            self.machines.remove(&id);
        }
    }

    fn set_report(
        &mut self,
        id: MachineId,
        bucket: Bucket,
        kept: Option<Kept<ReportBucket>>,
        changes: &mut Changes,
    ) {
        let machine = self.machines.entry(id).or_default();
        let slot = &mut machine.report[bucket.number() as usize];
        let old = std::mem::replace(slot, kept);
        let units = |kept: Option<&Kept<ReportBucket>>| -> Vec<UnitReport> {
            readable(kept).map(|bucket| bucket.units.clone()).unwrap_or_default()
        };
        let (old, new) = (units(old.as_ref()), units(slot.as_ref()));
        changes.units.extend(different(&old, &new, |report| &report.unit));
        self.drop_if_nothing(id);
    }

    fn set_manifest(
        &mut self,
        id: MachineId,
        bucket: Bucket,
        kept: Option<Kept<ManifestBucket>>,
        changes: &mut Changes,
    ) {
        let machine = self.machines.entry(id).or_default();
        let slot = &mut machine.manifest[bucket.number() as usize];
        let old = std::mem::replace(slot, kept);
        let was_hidden = is_unreadable(old.as_ref());
        let is_hidden = is_unreadable(slot.as_ref());
        let entries = |kept: Option<&Kept<ManifestBucket>>| -> Vec<ManifestEntry> {
            readable(kept).map(|bucket| bucket.entries.clone()).unwrap_or_default()
        };
        let (old, new) = (entries(old.as_ref()), entries(slot.as_ref()));
        for entry in &old {
            if let Some(machines) = self.entries.get_mut(&entry.unit) {
                machines.remove(&id);
                if machines.is_empty() {
                    self.entries.remove(&entry.unit);
                }
            }
        }
        for entry in &new {
            self.entries.entry(entry.unit.clone()).or_default().insert(id);
        }
        changes.units.extend(different(&old, &new, |entry| &entry.unit));
        if was_hidden || is_hidden {
            let hidden = self.hidden.entry(bucket).or_default();
            if is_hidden {
                hidden.insert(id)
            } else {
                hidden.remove(&id)
            };
            self.hidden.retain(|_, machines| !machines.is_empty());
            changes.machines.insert(id);
            changes.units.extend(self.units.keys().filter(|name| Bucket::of(name) == bucket).cloned());
        }
        self.drop_if_nothing(id);
    }

    /// Compares the cluster's record with the one before, within one watch. Between watches the
    /// stream does.
    fn check_for_going_back(&mut self, before: Option<&Kept<Cluster>>) {
        let Some(before) = readable(before) else { return };
        if is_unreadable(self.cluster.as_ref()) {
            return;
        }
        let mut witness = Witness::default();
        witness.observe(self.revision, Some(before));
        let now = readable(self.cluster.as_ref()).map(Arc::as_ref);
        if let Err(went_back) = witness.check(self.revision, now) {
            self.note_went_back(went_back);
        }
    }

    /// After an operator accepted the store, the next leader raises the epoch: tokens that the former
    /// one cannot have reserved are in order then.
    fn check_for_recovery(&mut self, before: Option<&Kept<Cluster>>) {
        let epoch = |kept: Option<&Kept<Cluster>>| readable(kept).map(|cluster| cluster.epoch);
        let by_token = matches!(self.went_back, Some(WentBack(WentBackReason::Token { .. })));
        if by_token && epoch(before) < epoch(self.cluster.as_ref()) {
            self.went_back = None;
            self.check_all_tokens();
        }
    }

    fn check_all_tokens(&mut self) {
        let machines: Vec<MachineId> = self.machines.keys().copied().collect();
        for (id, bucket) in machines.iter().flat_map(|id| Bucket::all().map(move |bucket| (*id, bucket))) {
            self.check_tokens(id, bucket);
        }
    }

    /// Compares the tokens in a machine's bucket with the mark up to which they are reserved.
    fn check_tokens(&mut self, id: MachineId, bucket: Bucket) {
        let Some(cluster) = readable(self.cluster.as_ref()) else { return };
        let kept = self.machines.get(&id).and_then(|machine| machine.manifest_bucket(bucket));
        let mut entries = readable(kept).into_iter().flat_map(|bucket| &bucket.entries);
        if let Some(went_back) = entries.find_map(|entry| check_token(entry.token, cluster).err()) {
            self.note_went_back(went_back);
        }
    }
}

/// Returns the units of which two sorted buckets say different things.
fn different<T: PartialEq>(old: &[T], new: &[T], unit: impl Fn(&T) -> &UnitName) -> BTreeSet<UnitName> {
    let only = |a: &[T], b: &[T]| -> Vec<UnitName> {
        a.iter().filter(|item| !b.contains(item)).map(|item| unit(item).clone()).collect()
    };
    only(old, new).into_iter().chain(only(new, old)).collect()
}
