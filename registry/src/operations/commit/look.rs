//! What an operation reads before it plans.

use std::collections::BTreeSet;

use flotilla_units::{ContentHash, UnitName};

use crate::{
    keys::{Key, Keys},
    reads::Stored,
    records::{Record as _, RecordError, UnitRecord},
    store::{KeyRange, KeyValue, Operation, RangeRequest, Revision, TXN_OPERATIONS_MAX, Txn},
    windows,
};

use super::{
    super::{OperationError, interval::Said, plan::Sight, ranges::Piece},
    Errand,
};

/// A read that is one of many in a transaction.
enum Get {
    Unit(UnitName),
    Ranges(UnitName),
}

impl Errand<'_> {
    /// Reads the records that the wishes, and the interval, are about.
    pub(super) async fn look(&self) -> Result<Sight, OperationError> {
        let interval = self.interval.as_ref().map(|interval| interval.range.template().clone());
        let mut names: BTreeSet<UnitName> = self.wishes.keys().cloned().collect();
        names.extend(self.wishes.keys().filter_map(UnitName::template));
        names.extend(interval.clone());
        let mut templates: BTreeSet<UnitName> = interval.into_iter().collect();
        templates
            .extend(self.wishes.keys().filter(|name| name.number().is_some()).filter_map(UnitName::template));
        let destroyed = || self.wishes.iter().filter(|(_, wish)| wish.destroys()).map(|(name, _)| name);
        templates.extend(destroyed().filter(|name| name.is_template()).cloned());
        let gets: Vec<Get> =
            names.into_iter().map(Get::Unit).chain(templates.into_iter().map(Get::Ranges)).collect();
        let keys = self.operations.registry.keys();
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

    /// Finds the instances of the interval that have a record of their own, and when it looked.
    pub(super) async fn look_for_own(&self) -> Result<(BTreeSet<UnitName>, Revision), OperationError> {
        let Some(interval) = &self.interval else { return Ok((BTreeSet::new(), Revision(0))) };
        let now = self.now(interval.range.template()).await?;
        let (store, keys) = (&**self.operations.registry.store(), self.operations.registry.keys());
        let (within, mut own) = (keys.instances_of(interval.range.template()), BTreeSet::new());
        let take = |kvs: Vec<KeyValue>| {
            let names = kvs.iter().filter_map(|kv| match keys.read(&kv.key) {
                Some(Key::Unit(name)) if interval.range.contains(&name) => Some(name),
                _ => None,
            });
            own.extend(names);
        };
        windows::each_key(store, within, now, take).await.map_err(OperationError::Store)?;
        Ok((own, now))
    }

    /// Finds the texts that are submitted again and are not in the store as they should be. One by one:
    /// two may be more than an answer can carry.
    async fn missing(&self, sight: &Sight) -> Result<BTreeSet<ContentHash>, OperationError> {
        let submitted = self.wishes.iter().filter_map(|(name, wish)| Some((name, wish.hash()?)));
        let current = |name| sight.units.get(name).and_then(|stored| stored.as_ref().ok()?.record.current);
        let again: BTreeSet<ContentHash> =
            submitted.filter(|(name, hash)| current(*name) == Some(*hash)).map(|(_, hash)| hash).collect();
        let (store, keys) = (self.operations.registry.store(), self.operations.registry.keys());
        let mut missing = BTreeSet::new();
        for hash in again {
            let range = KeyRange::key(keys.spell(&Key::Content(hash)));
            let kvs = store.range(RangeRequest::all(range)).await.map_err(OperationError::Store)?.kvs;
            if kvs.first().is_none_or(|kv| ContentHash::of(&kv.value) != hash) {
                missing.insert(hash);
            }
        }
        Ok(missing)
    }

    /// Reads which instances of a template have a record of their own, follow it and are not yet being destroyed.
    async fn instances(&self, template: &UnitName) -> Result<Vec<UnitName>, OperationError> {
        let (kvs, _) = self.records(template).await?;
        let keys = self.operations.registry.keys();
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
    async fn records(&self, template: &UnitName) -> Result<(Vec<KeyValue>, Revision), OperationError> {
        let store = &**self.operations.registry.store();
        let now = self.now(template).await?;
        let range = self.operations.registry.keys().instances_of(template);
        Ok((windows::read(store, range, now).await.map_err(OperationError::Store)?, now))
    }

    /// Returns the store's revision.
    async fn now(&self, template: &UnitName) -> Result<Revision, OperationError> {
        let own = KeyRange::key(self.unit_key(template));
        let answer = self.operations.registry.store().range(RangeRequest::all(own)).await;
        Ok(answer.map_err(OperationError::Store)?.revision)
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
