//! Takes single keys of a revision into the cluster state, and notes what they change.

use std::sync::Arc;

use flotilla_registry::{
    keys::{Bucket, Key},
    records::{
        MachineRecord, MachineSettings, ManifestBucket, ManifestEntry, ReportBucket, ReportHead, UnitRecord,
        UnitReport,
    },
    store::KeyValue,
};
use flotilla_units::{ContentHash, MachineId, UnitName};

use super::{
    Changes, ClusterState, Content, Event, Machine, NameSet,
    kept::{Kept, is_unreadable, readable},
    ranges::RangeKey,
};

impl ClusterState {
    pub(super) fn put(&mut self, kv: &KeyValue, changes: &mut Changes) {
        match self.keys.read(&kv.key) {
            Some(Key::Cluster) => self.cluster = Some(Kept::read(kv)),
            Some(Key::Settings) => self.settings = Some(Kept::read(kv)),
            Some(Key::Leader) => self.leader = Some(Kept::read(kv)),
            Some(Key::Seat(number)) => {
                self.seats.insert(number, Kept::read(kv));
            }
            Some(Key::Content(hash)) => {
                self.contents.insert(hash, Content::read(hash, &kv.value, kv.mod_revision));
                self.touch_text(hash);
                self.touch_users(hash, changes);
            }
            Some(Key::Unit(name)) => self.set_unit(&name, Some(Kept::read(kv)), changes),
            Some(Key::Machine(id)) => self.set_record(id, Some(Kept::read(kv)), changes),
            Some(Key::MachineSettings(id)) => self.set_settings(id, Some(Kept::read(kv)), changes),
            Some(Key::Manifest(id, bucket)) => {
                let kept = Kept::read_as(kv, |record| self.share_names_of_entries(id, bucket, record));
                self.set_manifest(id, bucket, Some(kept), changes);
            }
            Some(Key::ReportHead(id)) => self.set_head(id, Some(Kept::read(kv)), changes),
            Some(Key::Report(id, bucket)) => {
                let kept = Kept::read_as(kv, |record| self.share_names_of_reports(id, bucket, record));
                self.set_report(id, bucket, Some(kept), changes);
            }
            Some(Key::Event { .. }) => {
                let record = Kept::read(kv);
                self.forget_event(&kv.key);
                self.event_revisions.insert(kv.key.clone(), kv.mod_revision);
                self.events.insert(kv.mod_revision, Event { key: kv.key.clone(), record });
            }
            Some(Key::RangeGuard(template)) => self.set_guard(template, Some(Kept::read(kv))),
            Some(Key::Range { template, from, to }) => {
                self.set_range(RangeKey { template, from, to }, Some(Kept::read(kv)));
            }
            // A key that this version does not know is a newer one's.
            None => {}
        }
    }

    pub(super) fn delete(&mut self, key: &str, changes: &mut Changes) {
        match self.keys.read(key) {
            Some(Key::Cluster) => self.cluster = None,
            Some(Key::Settings) => self.settings = None,
            Some(Key::Leader) => self.leader = None,
            Some(Key::Seat(number)) => {
                self.seats.remove(&number);
            }
            Some(Key::Content(hash)) => {
                self.contents.remove(&hash);
                self.touch_text(hash);
                self.touch_users(hash, changes);
            }
            Some(Key::Unit(name)) => self.set_unit(&name, None, changes),
            Some(Key::Machine(id)) => self.set_record(id, None, changes),
            Some(Key::MachineSettings(id)) => self.set_settings(id, None, changes),
            Some(Key::Manifest(id, bucket)) => self.set_manifest(id, bucket, None, changes),
            Some(Key::ReportHead(id)) => self.set_head(id, None, changes),
            Some(Key::Report(id, bucket)) => self.set_report(id, bucket, None, changes),
            Some(Key::Event { .. }) => {
                let of = self.event_revisions.get(key).copied().unwrap_or_default();
                self.events_gone = self.events_gone.max(of);
                self.forget_event(key);
            }
            Some(Key::RangeGuard(template)) => self.set_guard(template, None),
            Some(Key::Range { template, from, to }) => self.set_range(RangeKey { template, from, to }, None),
            None => {}
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
        self.note_readable(name, kept.as_ref());
        if is_unreadable(kept.as_ref()) {
            self.unreadable.insert(name.clone());
        } else {
            self.unreadable.remove(name);
        }
        if was != is {
            was.into_iter().chain(is).for_each(|hash| self.touch_text(hash));
            if let Some(hash) = was
                && let Some(users) = self.content_users.get_mut(&hash)
            {
                users.remove(name);
                if users.is_empty() {
                    self.content_users.remove(&hash);
                }
            }
            if name.is_instance() {
                match is {
                    Some(_) => drop(self.texted.insert(name.clone())),
                    None => drop(self.texted.remove(name)),
                }
            }
            if let Some(hash) = is {
                self.content_users.entry(hash).or_default().insert(name.clone());
            }
        }
        match kept {
            Some(kept) => self.units.insert(name, kept),
            None => {
                // Its template's record may have waited for it.
                changes.units.extend(name.template());
                self.orphan(name);
                self.units.remove(name);
            }
        }
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
        self.tally.replace(old.as_ref(), slot.as_ref());
        let (old, new) = (readable(old.as_ref()).cloned(), readable(slot.as_ref()).cloned());
        let units = |bucket| -> &[UnitReport] { of_bucket(bucket, |it: &ReportBucket| &it.units) };
        let (old, new) = (units(&old), units(&new));
        let mut look = |report: &UnitReport| {
            let decided = self.is_decided_by_reports(&report.unit);
            note(if decided { &mut changes.units } else { &mut changes.reported }, &report.unit);
        };
        each_only(old, new, &mut look);
        each_only(new, old, &mut look);
        self.drop_if_nothing(id);
    }

    /// Tells whether something may have to be decided about a unit because its machine reports something of it: it
    /// leaves, moves, or is being taken over, or where it is to be is not known for sure.
    fn is_decided_by_reports(&self, unit: &UnitName) -> bool {
        let Some(id) = self.units.only_home(unit) else { return true };
        let Some(machine) = self.machines.get(&id) else { return true };
        let mut entries = machine.entries_of(unit);
        let stays = |entry: &ManifestEntry| entry.stays() && !entry.adopt;
        !entries.next().is_some_and(stays) || entries.next().is_some()
    }

    /// Lets the entries of a bucket have their names together with everything else that has them.
    fn share_names_of_entries(&self, id: MachineId, bucket: Bucket, record: &mut ManifestBucket) {
        let old = self.machines.get(&id).and_then(|machine| readable(machine.manifest_bucket(bucket)));
        let old = old.map_or(&[][..], |old| &old.entries);
        for entry in &mut record.entries {
            let before = old.iter().map(|old| &old.unit).find(|old| **old == entry.unit);
            if let Some(known) = before.or_else(|| self.units.known(&entry.unit)) {
                entry.unit = known.clone();
            }
        }
    }

    /// As the entries: of what is reported as good as all stands in the same bucket of the manifest.
    fn share_names_of_reports(&self, id: MachineId, bucket: Bucket, record: &mut ReportBucket) {
        let manifest = self.machines.get(&id).and_then(|machine| readable(machine.manifest_bucket(bucket)));
        let manifest = manifest.map_or(&[][..], |manifest| &manifest.entries);
        for report in &mut record.units {
            let ordered = manifest.iter().map(|entry| &entry.unit).find(|unit| **unit == report.unit);
            if let Some(known) = ordered.or_else(|| self.units.known(&report.unit)) {
                report.unit = known.clone();
            }
        }
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
        let (old, new) = (readable(old.as_ref()).cloned(), readable(slot.as_ref()).cloned());
        let entries = |bucket| -> &[ManifestEntry] { of_bucket(bucket, |it: &ManifestBucket| &it.entries) };
        let (old, new) = (entries(&old), entries(&new));
        // What stays the same is not counted anew.
        each_only(old, new, |entry| {
            self.units.clear(&entry.unit, id);
            self.count_version(entry, false);
            note(&mut changes.units, &entry.unit);
        });
        each_only(new, old, |entry| {
            self.count_version(entry, true);
            note(&mut changes.units, &entry.unit);
        });
        // Of a unit with several entries here one may have gone and another stayed.
        new.iter().for_each(|entry| self.units.place(&entry.unit, id));
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
}

impl ClusterState {
    /// Counts an entry that came or went among those of its text, and of its family.
    fn count_version(&mut self, entry: &ManifestEntry, came: bool) {
        self.count_text(entry.hash, came);
        if !entry.stays() {
            return;
        }
        let unit = &entry.unit;
        let known = unit.on_template(|template| self.versions.contains_key(template));
        let of_family = match known {
            Some(true) => unit.on_template(|template| self.versions.get_mut(template)).flatten(),
            _ => Some(self.versions.entry(Self::family(unit)).or_default()),
        };
        let Some(of_family) = of_family else { return };
        let count = of_family.entry(entry.hash).or_default();
        *count = if came { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            of_family.remove(&entry.hash);
            if of_family.is_empty() {
                self.versions.remove(&Self::family(unit));
            }
        }
    }
}

/// Returns what a bucket has; nothing, if it is not there or cannot be read.
fn of_bucket<B, T>(bucket: &Option<Arc<B>>, all: impl Fn(&B) -> &Vec<T>) -> &[T] {
    bucket.as_ref().map_or(&[], |bucket| all(bucket))
}

/// Notes a unit; its name is copied only if it is news.
fn note(units: &mut NameSet, unit: &UnitName) {
    if !units.contains(unit) {
        units.insert(unit.clone());
    }
}

/// Looks at what only the first of two buckets says. Both are in order, so that as a rule the same stands at the same
/// place.
fn each_only<T: PartialEq>(one: &[T], other: &[T], mut look: impl FnMut(&T)) {
    for (at, item) in one.iter().enumerate() {
        if other.get(at) != Some(item) && !other.contains(item) {
            look(item);
        }
    }
}
