//! What an operation reads before it plans.

use std::collections::BTreeSet;

use flotilla_units::{ContentHash, UnitName, UnitRange};
use futures_util::future;

use crate::{
    keys::{Key, Keys},
    reads::Stored,
    records::{Record as _, RecordError, UnitRecord},
    store::{KeyRange, KeyValue, Operation, RangeRequest, Revision, StoreError, TXN_OPERATIONS_MAX, Txn},
    windows,
};

use super::{
    super::{interval::Said, plan::Sight, ranges::Piece},
    Errand,
    request::Request,
};

/// How many ranges are looked at for records of their own at the same time. Sixteen: enough for the store to be
/// busy, and few beside what others ask of it.
const OWN_READS_AT_ONCE: usize = 16;

/// A read that is one of many in a transaction.
enum Get {
    Unit(UnitName),
    Ranges(UnitName),
}

impl Errand<'_> {
    /// Reads the records that all wishes, and the intervals, are about.
    pub(super) async fn look(&self) -> Result<Sight, StoreError> {
        let of_ranges = || self.requests().filter_map(Request::range).map(UnitRange::template).cloned();
        let wishes = || self.requests().flat_map(Request::wishes);
        let mut names: BTreeSet<UnitName> = wishes().map(|(name, _)| name.clone()).collect();
        names.extend(wishes().filter_map(|(name, _)| name.template()));
        names.extend(of_ranges());
        let mut templates: BTreeSet<UnitName> = of_ranges().collect();
        let numbered = wishes().filter(|(name, _)| name.number().is_some());
        templates.extend(numbered.filter_map(|(name, _)| name.template()));
        let destroyed = || wishes().filter(|(_, wish)| wish.destroys()).map(|(name, _)| name);
        templates.extend(destroyed().filter(|name| name.is_template()).cloned());
        let gets: Vec<Get> =
            names.into_iter().map(Get::Unit).chain(templates.into_iter().map(Get::Ranges)).collect();
        let keys = self.core.registry.keys();
        let mut sight = Sight::default();
        for some in gets.chunks(TXN_OPERATIONS_MAX) {
            let then = some.iter().map(|get| match get {
                Get::Unit(name) => Operation::Get(KeyRange::key(self.unit_key(name))),
                Get::Ranges(template) => Operation::Get(keys.ranges_of(template)),
            });
            let answer = self.txn(Txn { then: then.collect(), ..Txn::default() }).await?;
            for (get, kvs) in some.iter().zip(&answer.gets) {
                match get {
                    Get::Unit(name) => {
                        let stored = kvs.first().map(|kv| (name.clone(), Stored::from_kv(kv)));
                        sight.units.extend(stored);
                    }
                    Get::Ranges(template) => drop(sight.ranges.insert(template.clone(), said(keys, kvs))),
                }
            }
        }
        sight.missing = self.missing(&sight).await?;
        for template in destroyed().filter(|name| name.is_template()) {
            sight.instances.insert(template.clone(), self.instances(template).await?);
        }
        Ok(sight)
    }

    /// Finds the instances of all intervals that have a record of their own, and notes when it looked.
    pub(super) async fn look_for_own(&mut self) -> Result<(), StoreError> {
        let ranges = self.asked.iter().filter_map(|(number, asked)| Some((*number, asked.request.range()?)));
        let ranges: Vec<(u64, UnitRange)> = ranges.map(|(number, range)| (number, range.clone())).collect();
        let Some((_, first)) = ranges.first() else { return Ok(()) };
        let now = self.now(first.template()).await?;
        for some in ranges.chunks(OWN_READS_AT_ONCE) {
            let found = some.iter().map(|(number, range)| async { (*number, self.own(range, now).await) });
            let found = future::join_all(found).await;
            for (number, found) in found {
                let (own, keys) = found?;
                if let Some(asked) = self.asked.get_mut(&number) {
                    asked.request.found_own(own, (keys, now));
                }
            }
        }
        Ok(())
    }

    /// Finds the instances of a range that have a record of their own, and where their keys are.
    async fn own(
        &self,
        range: &UnitRange,
        now: Revision,
    ) -> Result<(BTreeSet<UnitName>, Vec<KeyRange>), StoreError> {
        let (store, keys) = (&**self.core.registry.store(), self.core.registry.keys());
        let within = keys.instances_between(range.template(), range.from(), range.to());
        let mut own = BTreeSet::new();
        for some in &within {
            let take = |kvs: Vec<KeyValue>| {
                let names = kvs.iter().filter_map(|kv| match keys.read(&kv.key) {
                    Some(Key::Unit(name)) if range.contains(&name) => Some(name),
                    _ => None,
                });
                own.extend(names);
            };
            windows::each_key(store, some.clone(), now, take).await?;
        }
        Ok((own, within))
    }

    /// Finds the texts that are submitted again and are not in the store as they should be. One by one:
    /// two may be more than an answer can carry.
    async fn missing(&self, sight: &Sight) -> Result<BTreeSet<ContentHash>, StoreError> {
        let wishes = self.requests().flat_map(Request::wishes);
        let submitted = wishes.filter_map(|(name, wish)| Some((name, wish.hash()?)));
        let current = |name| sight.units.get(name).and_then(|stored| stored.as_ref().ok()?.record.current);
        let again: BTreeSet<ContentHash> =
            submitted.filter(|(name, hash)| current(*name) == Some(*hash)).map(|(_, hash)| hash).collect();
        let (store, keys) = (self.core.registry.store(), self.core.registry.keys());
        let mut missing = BTreeSet::new();
        for hash in again {
            let range = KeyRange::key(keys.spell(&Key::Content(hash)));
            let kvs = store.range(RangeRequest::all(range)).await?.kvs;
            if kvs.first().is_none_or(|kv| ContentHash::of(&kv.value) != hash) {
                missing.insert(hash);
            }
        }
        Ok(missing)
    }

    /// Reads which instances of a template have a record of their own, follow it and are not yet being destroyed.
    async fn instances(&self, template: &UnitName) -> Result<Vec<UnitName>, StoreError> {
        let (kvs, _) = self.records(template).await?;
        let keys = self.core.registry.keys();
        let instance = |kv: &KeyValue| match keys.read(&kv.key) {
            Some(Key::Unit(name)) if name.template().as_ref() == Some(template) => {
                // One that cannot be read may well be alive; one with a text of its own does without.
                let without = |record: UnitRecord| record.deleting || record.current.is_some();
                let needless = UnitRecord::from_kv(kv).is_ok_and(without);
                (!needless).then_some(name)
            }
            _ => None,
        };
        Ok(kvs.iter().filter_map(instance).collect())
    }

    /// Reads the records of a template's instances, and of some others, as of one revision.
    async fn records(&self, template: &UnitName) -> Result<(Vec<KeyValue>, Revision), StoreError> {
        let store = &**self.core.registry.store();
        let now = self.now(template).await?;
        let range = self.core.registry.keys().instances_of(template);
        Ok((windows::read(store, range, now).await?, now))
    }

    /// Returns the store's revision.
    async fn now(&self, template: &UnitName) -> Result<Revision, StoreError> {
        let own = KeyRange::key(self.unit_key(template));
        let answer = self.core.registry.store().range(RangeRequest::all(own)).await;
        Ok(answer?.revision)
    }
}

/// Reads what is said of many instances of a template.
fn said(keys: &Keys, kvs: &[KeyValue]) -> Result<Said, RecordError> {
    let mut said = Said::nothing();
    for kv in kvs {
        match keys.read(&kv.key) {
            Some(Key::RangeGuard(_)) => said.guard = Some(Stored::from_kv(kv)?),
            Some(Key::Range { from, to, .. }) => {
                let Stored { record, written, .. } = Stored::from_kv(kv)?;
                if !said.ranges.insert(from, Piece { to, record, written }) {
                    let why = "it overlaps another range of the template".to_owned();
                    return Err(RecordError::Corrupted { key: kv.key.clone(), why });
                }
            }
            _ => {}
        }
    }
    Ok(said)
}
