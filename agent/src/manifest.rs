//! What this machine should have, as far as it could be read.
//!
//! A bucket that cannot be read (corrupted, or written by a newer engine) keeps the content it had:
//! nothing is stopped because something could not be read. `seen` then stays below it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flotilla_registry::{
    keys::{Bucket, Key, Keys},
    records::{ManifestBucket, ManifestEntry, Record as _, RecordError},
    store::{KeyValue, Revision, WatchEvent},
    stream::Change,
};
use flotilla_units::{ContentHash, MachineId, UnitName};
use serde::{Deserialize, Serialize};

/// A machine's manifest. Clones share its entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Manifest {
    buckets: BTreeMap<Bucket, Arc<[ManifestEntry]>>,
    /// Everything up to here is in `buckets`, except what is `unreadable`.
    revision: Revision,
    /// Since which revision a bucket cannot be read.
    #[serde(skip)]
    unreadable: BTreeMap<Bucket, Revision>,
}

/// What a change did to a manifest.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// The runtime names whose entries are others now.
    pub(crate) units: BTreeSet<UnitName>,
    /// Entries were added or changed, not only taken away.
    pub(crate) gives: bool,
    /// What could not be read.
    pub(crate) errors: Vec<RecordError>,
}

impl Manifest {
    /// Takes a change in.
    pub(crate) fn apply(&mut self, keys: &Keys, machine: MachineId, change: Change) -> Applied {
        let mut applied = Applied::default();
        match change {
            Change::Progress(revision) => self.revision = self.revision.max(revision),
            Change::Reset { kvs, revision } => {
                let there: BTreeSet<_> =
                    kvs.iter().filter_map(|kv| bucket_of(keys, machine, &kv.key)).collect();
                for bucket in Bucket::all().filter(|b| !there.contains(b)) {
                    self.replace(bucket, None, &mut applied);
                }
                self.unreadable.clear();
                for kv in &kvs {
                    self.read(keys, machine, kv, &mut applied);
                }
                self.revision = revision;
            }
            Change::Changes { revision, events } => {
                for event in events {
                    match event {
                        WatchEvent::Put(kv) => self.read(keys, machine, &kv, &mut applied),
                        WatchEvent::Delete { key, .. } => {
                            if let Some(bucket) = bucket_of(keys, machine, &key) {
                                self.replace(bucket, None, &mut applied);
                            }
                        }
                    }
                }
                self.revision = revision;
            }
        }
        applied
    }

    /// Returns every entry of a runtime name, across buckets.
    pub(crate) fn orders(&self, unit: &UnitName) -> Vec<ManifestEntry> {
        self.entries().filter(|e| e.runtime() == unit).cloned().collect()
    }

    /// Returns the same of several, with one look at all entries.
    pub(crate) fn orders_of(&self, units: &BTreeSet<UnitName>) -> BTreeMap<UnitName, Vec<ManifestEntry>> {
        let mut orders: BTreeMap<_, Vec<_>> = units.iter().map(|unit| (unit.clone(), Vec::new())).collect();
        for entry in self.entries() {
            if let Some(orders) = orders.get_mut(entry.runtime()) {
                orders.push(entry.clone());
            }
        }
        orders
    }

    /// Returns every entry.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &ManifestEntry> {
        self.buckets.values().flat_map(|entries| entries.iter())
    }

    /// Returns every runtime name that has an entry.
    pub(crate) fn units(&self) -> BTreeSet<UnitName> {
        self.entries().map(|e| e.runtime().clone()).collect()
    }

    /// Returns every content that an entry names.
    pub(crate) fn contents(&self) -> BTreeSet<ContentHash> {
        self.entries().map(|e| e.hash).collect()
    }

    /// Tells whether there is any bucket: without one there is no word yet.
    pub(crate) fn is_known(&self) -> bool {
        !self.buckets.is_empty()
    }

    /// Returns the revision of the newest change taken in.
    pub(crate) const fn revision(&self) -> Revision {
        self.revision
    }

    /// Returns the revision up to which everything was read.
    pub(crate) fn read_up_to(&self) -> Revision {
        self.unreadable.values().min().map_or(self.revision, |r| Revision(r.0 - 1))
    }

    fn read(&mut self, keys: &Keys, machine: MachineId, kv: &KeyValue, applied: &mut Applied) {
        let Some(bucket) = bucket_of(keys, machine, &kv.key) else { return };
        match ManifestBucket::from_kv(kv) {
            Ok(read) => self.replace(bucket, Some(read.entries), applied),
            Err(error) => {
                self.unreadable.entry(bucket).or_insert(kv.mod_revision);
                applied.errors.push(error);
            }
        }
    }

    fn replace(&mut self, bucket: Bucket, entries: Option<Vec<ManifestEntry>>, applied: &mut Applied) {
        self.unreadable.remove(&bucket);
        let entries: Option<Arc<[ManifestEntry]>> = entries.map(Arc::from);
        let old = match &entries {
            Some(entries) => self.buckets.insert(bucket, Arc::clone(entries)),
            None => self.buckets.remove(&bucket),
        };
        let (old, new) = (old.unwrap_or_default(), entries.unwrap_or_default());
        let given = new.iter().filter(|e| !old.contains(e));
        applied.gives |= given.clone().next().is_some();
        let differing = old.iter().filter(|e| !new.contains(e)).chain(given);
        applied.units.extend(differing.map(|e| e.runtime().clone()));
    }
}

fn bucket_of(keys: &Keys, machine: MachineId, key: &str) -> Option<Bucket> {
    match keys.read(key)? {
        Key::Manifest(id, bucket) if id == machine => Some(bucket),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use flotilla_registry::records::{Target, Token};

    use super::*;

    fn machine() -> MachineId {
        "113f16a7a0f84c4c8a3f9e3b2f4d6c01".parse().expect("valid")
    }

    fn entry(unit: &str) -> ManifestEntry {
        let hash = ContentHash::of(b"a");
        let (target, run, token) = (Target::Launched, 1, Token(1));
        ManifestEntry {
            unit: unit.parse().expect("valid"),
            runtime: None,
            hash,
            target,
            run,
            token,
            departing: None,
            moving: None,
            adopt: false,
        }
    }

    fn kv(unit: &str, revision: i64, value: Option<&[u8]>) -> KeyValue {
        let entry = entry(unit);
        let key = Keys::default().spell(&Key::Manifest(machine(), Bucket::of(&entry.unit)));
        let encoded = ManifestBucket { v: 1, entries: vec![entry] }.encode();
        let revision = Revision(revision);
        KeyValue {
            key,
            value: Arc::from(value.unwrap_or(&encoded)),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: None,
        }
    }

    #[test]
    fn an_unreadable_bucket_keeps_what_it_said_and_holds_seen_back() {
        let (keys, unit) = (Keys::default(), "web@1.service".parse().expect("valid"));
        let mut manifest = Manifest::default();
        let reset = |kvs, revision| Change::Reset { kvs, revision: Revision(revision) };
        manifest.apply(&keys, machine(), reset(vec![kv("web@1.service", 3, None)], 5));
        assert_eq!((manifest.orders(&unit).len(), manifest.read_up_to()), (1, Revision(5)));
        let broken = WatchEvent::Put(kv("web@1.service", 7, Some(b"{")));
        let applied =
            manifest.apply(&keys, machine(), Change::Changes { revision: Revision(7), events: vec![broken] });
        assert_eq!((applied.errors.len(), applied.units.len()), (1, 0));
        manifest.apply(&keys, machine(), Change::Progress(Revision(9)));
        assert_eq!((manifest.orders(&unit).len(), manifest.read_up_to()), (1, Revision(6)));
        // A newer engine's record is left alone in the same way, also by a reset.
        let applied =
            manifest.apply(&keys, machine(), reset(vec![kv("web@1.service", 10, Some(b"{\"v\":9}"))], 11));
        assert!(applied.units.is_empty() && manifest.orders(&unit).len() == 1);
        let applied = manifest.apply(&keys, machine(), reset(vec![], 12));
        assert!(
            applied.units.contains(&unit) && !manifest.is_known() && manifest.read_up_to() == Revision(12)
        );
    }
}
