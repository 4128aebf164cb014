//! Carries plans out: reads, plans, writes in transactions, and finds out what became of them.
//!
//! ```text
//!  ┌──────┐     ┌──────┐     ┌───────┐ all written
//!  │ Read │ ──► │ Plan │ ──► │ Write │ ───────────► done
//!  └──────┘     └──────┘     └───────┘
//!     ▲                        │   somebody was faster, or no answer came
//!     └────────────────────────┘
//! ```
//!
//! A transaction compares every record that it was planned from, and writes an event
//! under a key that no other ever uses. So when its outcome is not known, the event
//! tells. The event is looked for *after* the records: seen absent, the records are
//! from before. A transaction also compares that its own event and those of the ones
//! in doubt before it are absent, and writes them all, the others without changes: so
//! at most one of them ever takes effect. The records alone would not do: a unit that
//! was created, destroyed and collected is absent as before.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};

use flotilla_units::{ContentHash, UnitName};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::{
    keys::Key,
    reads::Stored,
    records::{EventRecord, Record as _, UnitRecord, VERSION},
    store::{
        Compare, KeyRange, KeyValue, Operation, RangeRequest, Revision, StoreError, TXN_BYTES_MAX,
        TXN_OPERATIONS_MAX, Txn,
    },
    windows,
};

use super::{
    Effect, OperationError, Operations, Written,
    plan::{Sight, Step, Wish, Write, plan},
};

/// How often an operation is planned anew because others changed the same units. Each time somebody
/// else got on, so sixteen is a store under a storm of writes to one unit.
const ATTEMPTS_MAX: u32 = 16;

/// One transaction's worth of steps.
#[derive(Debug, Default)]
struct Chunk {
    steps: Vec<Step>,
    when: BTreeMap<String, Compare>,
    contents: BTreeMap<ContentHash, Operation>,
    puts: Vec<Operation>,
    bytes: usize,
}

/// A transaction that was sent and not answered.
struct Pending {
    event: String,
    effects: Vec<(UnitName, Effect)>,
}

/// An operation under way.
struct Errand<'a> {
    operations: &'a Operations,
    by: &'a str,
    wishes: BTreeMap<UnitName, Wish>,
    total: usize,
    done: BTreeMap<UnitName, Written>,
    pending: Vec<Pending>,
    last_error: Option<StoreError>,
}

impl Operations {
    /// Does to each unit what is wished of it; answers in the order of the names.
    pub(super) async fn carry_out(
        &self,
        wishes: BTreeMap<UnitName, Wish>,
        by: &str,
    ) -> Result<Vec<Written>, OperationError> {
        let total = wishes.len();
        let (done, pending, last_error) = (BTreeMap::new(), Vec::new(), None);
        let mut errand = Errand { operations: self, by, wishes, total, done, pending, last_error };
        match errand.run().await {
            Ok(()) => Ok(errand.done.into_values().collect()),
            Err(error) => Err(errand.explain(error)),
        }
    }
}

impl Errand<'_> {
    async fn run(&mut self) -> Result<(), OperationError> {
        let mut backoff = self.operations.timing.backoff();
        let mut attempts = 0;
        let mut resolve_by: Option<Instant> = None;
        while !self.wishes.is_empty() {
            if attempts == ATTEMPTS_MAX {
                return Err(OperationError::Contended { attempts });
            }
            match self.attempt().await {
                Ok(()) => attempts += 1,
                // Nothing is in doubt: the caller had better know now.
                Err(error) if self.pending.is_empty() => return Err(error),
                Err(OperationError::Store(error)) if error.is_transient() => {
                    let by = Instant::now() + self.operations.timing.resolve_timeout;
                    if Instant::now() >= *resolve_by.get_or_insert(by) {
                        return Err(OperationError::Store(error));
                    }
                    warn!(%error, "looking whether a change of units took effect");
                    self.last_error = Some(error);
                    sleep(backoff.next_wait()).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads, plans and writes once. Units that are done are no longer wished for.
    async fn attempt(&mut self) -> Result<(), OperationError> {
        let sight = self.look().await?;
        let wished = self.wishes.len();
        self.resolve().await?;
        if self.wishes.len() < wished {
            // The records were read before these were known to be done.
            return Ok(());
        }
        let steps = plan(&sight, &self.wishes, self.by, Timestamp::now())?;
        let mut chunks = vec![Chunk::default()];
        for step in steps {
            let Some(write) = &step.write else {
                self.finish(&step.unit, step.effect, step.seen);
                continue;
            };
            let parts = self.parts(&step, write);
            match chunks.last_mut() {
                Some(chunk) if chunk.has_room_for(&parts, self.pending.len()) => chunk.add(step, parts),
                _ => {
                    let mut chunk = Chunk::default();
                    chunk.add(step, parts);
                    chunks.push(chunk);
                }
            }
        }
        for chunk in chunks.into_iter().filter(|chunk| !chunk.steps.is_empty()) {
            // Somebody was faster: the next attempt plans the rest anew.
            if !self.write(chunk).await? {
                break;
            }
        }
        Ok(())
    }

    /// Reads the records that the wishes are about.
    async fn look(&self) -> Result<Sight, OperationError> {
        let mut names: BTreeSet<UnitName> = self.wishes.keys().cloned().collect();
        names.extend(self.wishes.keys().filter_map(UnitName::template));
        let names: Vec<UnitName> = names.into_iter().collect();
        let mut sight = Sight::default();
        for some in names.chunks(TXN_OPERATIONS_MAX) {
            let gets = some.iter().map(|name| Operation::Get(KeyRange::key(self.unit_key(name))));
            let answer = self.txn(Txn { then: gets.collect(), ..Txn::default() }).await?;
            for (name, kv) in some.iter().zip(answer.gets.iter().map(|kvs| kvs.first())) {
                if let Some(kv) = kv {
                    sight.units.insert(name.clone(), Stored::from_kv(kv));
                }
            }
        }
        sight.missing = self.missing(&sight).await?;
        let destroyed = self.wishes.iter().filter(|(_, wish)| **wish == Wish::Destroy);
        for template in destroyed.map(|(name, _)| name).filter(|name| name.is_template()) {
            sight.instances.insert(template.clone(), self.instances(template).await?);
        }
        Ok(sight)
    }

    /// Finds the texts that are submitted again and are not in the store as they should be. One by one:
    /// two may be more than an answer can carry.
    async fn missing(&self, sight: &Sight) -> Result<BTreeSet<ContentHash>, OperationError> {
        let submitted = self.wishes.iter().filter_map(|(name, wish)| match wish {
            Wish::Submit { hash, .. } => Some((name, *hash)),
            _ => None,
        });
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

    /// Reads which instances of a template there are and not yet being destroyed.
    async fn instances(&self, template: &UnitName) -> Result<Vec<UnitName>, OperationError> {
        let store = &**self.operations.registry.store();
        let keys = self.operations.registry.keys();
        let own = KeyRange::key(self.unit_key(template));
        let now = store.range(RangeRequest::all(own)).await.map_err(OperationError::Store)?.revision;
        let units = keys.all_of("units").start;
        let range = KeyRange::prefix(format!("{units}{}@", template.prefix()));
        let kvs = windows::read(store, range, now).await.map_err(OperationError::Store)?;
        let instance = |kv: &KeyValue| match keys.read(&kv.key) {
            Some(Key::Unit(name)) if name.template().as_ref() == Some(template) => {
                // One that cannot be read may well be alive.
                let leaving = UnitRecord::from_kv(kv).is_ok_and(|record| record.deleting);
                (!leaving).then_some(name)
            }
            _ => None,
        };
        Ok(kvs.iter().filter_map(instance).collect())
    }

    /// Finds out which of the transactions that were not answered took effect.
    async fn resolve(&mut self) -> Result<(), OperationError> {
        let mut at = 0;
        while let Some(Pending { event, .. }) = self.pending.get(at) {
            let get = Operation::Get(KeyRange::key(&**event));
            let answer = self.txn(Txn { then: vec![get], ..Txn::default() }).await?;
            let Some(kv) = answer.gets.first().and_then(|kvs| kvs.first()) else {
                // It can still come, until another is written in its place.
                at += 1;
                continue;
            };
            let effects = self.pending.remove(at).effects;
            // One without changes was written by a later transaction, in its place.
            if !EventRecord::from_kv(kv).is_ok_and(|record| record.changes.is_empty()) {
                for (unit, effect) in effects {
                    self.finish(&unit, effect, kv.mod_revision);
                }
            }
        }
        Ok(())
    }

    /// Writes a chunk; false if a record was not as seen any more.
    async fn write(&mut self, chunk: Chunk) -> Result<bool, OperationError> {
        let operations = self.operations;
        let sequence = operations.sequence.fetch_add(1, Ordering::Relaxed);
        let event =
            operations.registry.keys().spell(&Key::Event { writer: operations.writer.clone(), sequence });
        let changes = chunk.steps.iter().filter_map(|step| Some(step.write.as_ref()?.change.clone()));
        let record = EventRecord {
            v: VERSION,
            at: Timestamp::now(),
            by: self.by.to_owned(),
            changes: changes.collect(),
        };
        let mut then: Vec<Operation> = chunk.contents.into_values().chain(chunk.puts).collect();
        let mut when: Vec<Compare> = chunk.when.into_values().collect();
        let instead = EventRecord { changes: Vec::new(), ..record.clone() }.encode();
        for Pending { event, .. } in &self.pending {
            when.push(Compare::Absent(event.clone()));
            then.push(Operation::Put { key: event.clone(), value: instead.clone(), lease: None });
        }
        when.push(Compare::Absent(event.clone()));
        then.push(Operation::Put { key: event.clone(), value: record.encode(), lease: None });
        let effects: Vec<_> = chunk.steps.into_iter().map(|step| (step.unit, step.effect)).collect();
        match operations.registry.store().txn(Txn { when, then, or_else: Vec::new() }).await {
            Ok(answer) if answer.succeeded => {
                // None of those can come any more.
                self.pending.clear();
                for (unit, effect) in effects {
                    self.finish(&unit, effect, answer.revision);
                }
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(error) => {
                if matches!(error, StoreError::OutcomeUnknown { .. }) {
                    self.pending.push(Pending { event, effects });
                }
                Err(OperationError::Store(error))
            }
        }
    }

    fn finish(&mut self, unit: &UnitName, effect: Effect, revision: Revision) {
        if self.wishes.remove(unit).is_some() {
            self.done.insert(unit.clone(), Written { unit: unit.clone(), effect, revision });
        }
    }

    async fn txn(&self, txn: Txn) -> Result<crate::store::TxnResponse, OperationError> {
        self.operations.registry.store().txn(txn).await.map_err(OperationError::Store)
    }

    fn unit_key(&self, name: &UnitName) -> String {
        self.operations.registry.keys().spell(&Key::Unit(name.clone()))
    }

    /// Returns what a step adds to its transaction.
    fn parts(&self, step: &Step, write: &Write) -> Parts {
        let key = self.unit_key(&step.unit);
        let seen = |key: &String, seen: Revision| match seen {
            Revision(0) => Compare::Absent(key.clone()),
            seen => Compare::ModRevision(key.clone(), seen),
        };
        let mut when = vec![(key.clone(), seen(&key, step.seen))];
        if let Some((template, written)) = &write.template {
            let key = self.unit_key(template);
            when.push((key.clone(), seen(&key, *written)));
        }
        let content = write.content.as_ref().map(|(hash, text)| {
            let key = self.operations.registry.keys().spell(&Key::Content(*hash));
            (*hash, Operation::Put { key, value: text.to_vec(), lease: None })
        });
        Parts { when, content, put: Operation::Put { key, value: write.record.encode(), lease: None } }
    }

    /// Says what became of the whole when it could not be finished.
    fn explain(self, error: OperationError) -> OperationError {
        let in_doubt: Vec<UnitName> = self
            .pending
            .into_iter()
            .flat_map(|pending| pending.effects)
            .map(|(unit, _)| unit)
            .filter(|unit| self.wishes.contains_key(unit))
            .collect();
        let error = match error {
            OperationError::Store(source) if !in_doubt.is_empty() => {
                OperationError::OutcomeUnknown { units: in_doubt, source }
            }
            error => match self.last_error {
                Some(source) if !in_doubt.is_empty() => {
                    OperationError::OutcomeUnknown { units: in_doubt, source }
                }
                _ => error,
            },
        };
        let written: Vec<Written> =
            self.done.into_values().filter(|written| written.effect != Effect::Unchanged).collect();
        if written.is_empty() {
            return error;
        }
        OperationError::Incomplete { written, total: self.total, source: Box::new(error) }
    }
}

/// What one step adds to a transaction.
struct Parts {
    when: Vec<(String, Compare)>,
    content: Option<(ContentHash, Operation)>,
    put: Operation,
}

impl Parts {
    fn bytes(&self) -> usize {
        let put = |operation: &Operation| match operation {
            Operation::Put { key, value, .. } => key.len() + value.len(),
            _ => 0,
        };
        let when: usize = self.when.iter().map(|(key, _)| key.len()).sum();
        // The event names the unit and its change: its key and 200 bytes are more than that.
        2 * when + put(&self.put) + self.content.as_ref().map_or(0, |(_, content)| put(content)) + 200
    }
}

impl Chunk {
    /// Tells whether a step fits beside what is said of transactions in doubt. The event is one of the
    /// operations that the store leaves free.
    fn has_room_for(&self, parts: &Parts, in_doubt: usize) -> bool {
        let most = TXN_OPERATIONS_MAX.saturating_sub(in_doubt);
        let operations = self.puts.len() + self.contents.len() + 1 + usize::from(parts.content.is_some());
        operations < most
            && self.when.len() + parts.when.len() <= most
            && self.bytes + parts.bytes() <= TXN_BYTES_MAX
    }

    fn add(&mut self, step: Step, parts: Parts) {
        self.bytes += parts.bytes();
        self.when.extend(parts.when);
        self.contents.extend(parts.content);
        self.puts.push(parts.put);
        self.steps.push(step);
    }
}
