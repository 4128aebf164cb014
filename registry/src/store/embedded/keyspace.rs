//! Keys with their history: what a range held at a revision, and what changed when.
//!
//! Pure and synchronous. Knows nothing of leases' time, of watchers or of the disk; `state` writes
//! to it, everything reads from it.

use std::{
    collections::{BTreeMap, btree_map},
    ops::Bound,
    sync::Arc,
};

use super::super::{
    KeyRange, KeyValue, LeaseId, RangeRequest, RangeResponse, Revision, StoreError, WatchEvent,
};

/// How many revisions are kept when nobody compacts.
///
/// The leader compacts the store; this bounds memory (some 100 MB at 1 kB a change) where no leader
/// runs. Compaction is done at twice the number, so that its cost is spread.
const HISTORY_REVISIONS: i64 = 100_000;

/// The revision of a store that was never written, as in etcd.
const FIRST_REVISION: Revision = Revision(1);

/// All changes of one revision.
pub(super) type Changes = Arc<[WatchEvent]>;

/// The keys and their history.
#[derive(Debug, Clone)]
pub(super) struct Keyspace {
    /// Every version of every key since the last compaction, ascending.
    keys: BTreeMap<String, Vec<Version>>,
    /// What changed, by revision, from `compacted` on.
    log: BTreeMap<Revision, Changes>,
    revision: Revision,
    compacted: Revision,
}

/// A key as of a revision; `None` when it was deleted by it.
#[derive(Debug, Clone)]
struct Version {
    revision: Revision,
    kv: Option<KeyValue>,
}

impl Keyspace {
    /// Returns an empty key space.
    pub(super) const fn new() -> Self {
        Self { keys: BTreeMap::new(), log: BTreeMap::new(), revision: FIRST_REVISION, compacted: Revision(0) }
    }

    /// Returns a key space with these keys at this revision and no history before it.
    pub(super) fn restored(revision: Revision, kvs: impl IntoIterator<Item = KeyValue>) -> Self {
        let keys = kvs
            .into_iter()
            .map(|kv| (kv.key.clone(), vec![Version { revision: kv.mod_revision, kv: Some(kv) }]))
            .collect();
        // Of a store that was never written nothing is missing.
        let compacted = if revision == FIRST_REVISION { Revision(0) } else { revision };
        Self { keys, log: BTreeMap::new(), revision, compacted }
    }

    /// Returns the newest revision.
    pub(super) const fn revision(&self) -> Revision {
        self.revision
    }

    /// Returns a key as it is now.
    pub(super) fn get(&self, key: &str) -> Option<&KeyValue> {
        self.keys.get(key)?.last()?.kv.as_ref()
    }

    /// Returns the keys of a range as they are now.
    pub(super) fn current(&self, range: &KeyRange) -> impl Iterator<Item = &KeyValue> {
        self.select(range).filter_map(|(_, versions)| versions.last()?.kv.as_ref())
    }

    /// Reads a range.
    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        let at = request.revision.unwrap_or(self.revision);
        if at > self.revision {
            return Err(StoreError::Invalid(format!(
                "revision {} has not happened yet; the store is at {}",
                at.0, self.revision.0
            )));
        }
        if at < self.compacted {
            return Err(StoreError::Compacted { wanted: at, oldest: self.compacted });
        }
        let limit = request.limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let mut kvs = Vec::new();
        let mut count = 0;
        for kv in self.select(&request.range).filter_map(|(_, versions)| as_of(versions, at)) {
            count += 1;
            if kvs.len() == limit {
                continue;
            }
            let mut kv = kv.clone();
            if request.keys_only {
                kv.value = Arc::from([]);
            }
            kvs.push(kv);
        }
        let more = count > kvs.len();
        Ok(RangeResponse { kvs, revision: self.revision, more, count })
    }

    /// Writes a key in the revision that is being made, and returns what it was before.
    pub(super) fn put(
        &mut self,
        revision: Revision,
        key: String,
        value: Arc<[u8]>,
        lease: Option<LeaseId>,
        events: &mut Vec<WatchEvent>,
    ) -> Option<KeyValue> {
        let previous = self.get(&key).cloned();
        let kv = KeyValue {
            key: key.clone(),
            value,
            create_revision: previous.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: previous.as_ref().map_or(1, |kv| kv.version + 1),
            lease,
        };
        events.push(WatchEvent::Put(kv.clone()));
        self.keys.entry(key).or_default().push(Version { revision, kv: Some(kv) });
        previous
    }

    /// Deletes a key in the revision that is being made, and returns what it was.
    pub(super) fn delete(
        &mut self,
        revision: Revision,
        key: &str,
        events: &mut Vec<WatchEvent>,
    ) -> Option<KeyValue> {
        let versions = self.keys.get_mut(key)?;
        let previous = versions.last()?.kv.clone()?;
        versions.push(Version { revision, kv: None });
        events.push(WatchEvent::Delete { key: key.to_owned(), revision });
        Some(previous)
    }

    /// Ends the revision that is being made: it becomes the newest.
    pub(super) fn seal(&mut self, revision: Revision, events: Vec<WatchEvent>) -> Changes {
        let changes: Changes = events.into();
        self.log.insert(revision, Arc::clone(&changes));
        self.revision = revision;
        if revision.0 - self.compacted.0 >= 2 * HISTORY_REVISIONS {
            self.forget(Revision(revision.0 - HISTORY_REVISIONS));
        }
        changes
    }

    /// Forgets what was before a revision.
    pub(super) fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        if revision > self.revision {
            return Err(StoreError::Invalid(format!(
                "revision {} has not happened yet; the store is at {}",
                revision.0, self.revision.0
            )));
        }
        if revision <= self.compacted {
            return Err(StoreError::Compacted { wanted: revision, oldest: self.compacted });
        }
        self.forget(revision);
        Ok(())
    }

    /// Returns the changes of every revision from `from` to `to`, both inclusive, that touched
    /// anything, or `Compacted` when some of them are gone.
    pub(super) fn changes(
        &self,
        from: Revision,
        to: Revision,
    ) -> Result<impl Iterator<Item = (Revision, &Changes)>, StoreError> {
        if from < self.compacted {
            return Err(StoreError::Compacted { wanted: from, oldest: self.compacted });
        }
        let end = Bound::Included(to.max(from));
        Ok(self
            .log
            .range((Bound::Included(from), end))
            .filter(move |(revision, _)| **revision <= to)
            .map(|(revision, changes)| (*revision, changes)))
    }

    fn forget(&mut self, revision: Revision) {
        let kept = self.log.split_off(&revision);
        let mut gone = std::mem::replace(&mut self.log, kept);
        // The revision itself stays readable, and what it changed stays watchable; keys whose
        // history ends with it are cleaned here all the same.
        if let Some(changes) = self.log.get(&revision) {
            gone.insert(revision, Arc::clone(changes));
        }
        for key in gone.values().flat_map(|changes| changes.iter()).map(changed_key) {
            if let btree_map::Entry::Occupied(mut entry) = self.keys.entry(key.to_owned()) {
                let versions = entry.get_mut();
                let after = versions.partition_point(|version| version.revision <= revision);
                if let Some(last) = after.checked_sub(1) {
                    let dead = versions[last].kv.is_none();
                    versions.drain(..if dead { after } else { last });
                }
                if versions.is_empty() {
                    entry.remove();
                }
            }
        }
        self.compacted = revision;
    }

    fn select(&self, range: &KeyRange) -> btree_map::Range<'_, String, Vec<Version>> {
        let end = match &range.end {
            None => Bound::Included(range.start.as_str()),
            // `check` refused what is not above the start; an empty interval would panic here.
            Some(end) if *end > range.start => Bound::Excluded(end.as_str()),
            Some(_) => Bound::Included(range.start.as_str()),
        };
        self.keys.range::<str, _>((Bound::Included(range.start.as_str()), end))
    }
}

/// Returns the key that an event is about.
pub(super) fn changed_key(event: &WatchEvent) -> &str {
    match event {
        WatchEvent::Put(kv) => &kv.key,
        WatchEvent::Delete { key, .. } => key,
    }
}

fn as_of(versions: &[Version], revision: Revision) -> Option<&KeyValue> {
    let after = versions.partition_point(|version| version.revision <= revision);
    versions.get(after.checked_sub(1)?)?.kv.as_ref()
}
