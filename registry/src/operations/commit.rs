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
//!
//! What is read is in `look`, what fits into a transaction in `chunk`.

mod chunk;
mod look;

use std::{collections::BTreeMap, sync::atomic::Ordering};

use flotilla_units::{UnitName, UnitRange};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::{
    events,
    keys::Key,
    records::{EventRecord, Record as _, VERSION},
    store::{Compare, KeyRange, Operation, Revision, StoreError, Txn},
};

use self::chunk::{Chunk, Packing};
use super::{
    Asker, Bulk, Effect, OperationError, Operations, Word, Written,
    interval::{self, Part},
    plan::{Wish, plan},
};

/// How often an operation is planned anew because others changed the same units, without getting
/// anything done itself. Each time somebody else got on, so sixteen is a store under a storm of writes
/// to one unit.
const ATTEMPTS_MAX: u32 = 16;

/// What a transaction does.
#[derive(Debug, Default)]
struct Effects {
    /// What each unit is afterwards; when it was written is not known before.
    units: Vec<Written>,
    /// What becomes of the interval, up to which number.
    interval: Option<(u64, Vec<Part>)>,
}

/// A transaction that was sent and not answered.
struct Pending {
    event: String,
    effects: Effects,
}

/// A range of instances that is still to be ordered.
struct Interval {
    range: UnitRange,
    word: Word,
    /// A part of it was ordered already.
    begun: bool,
}

/// An operation under way.
struct Errand<'a> {
    operations: &'a Operations,
    asker: Asker<'a>,
    wishes: BTreeMap<UnitName, Wish>,
    interval: Option<Interval>,
    total: usize,
    /// All is to be written in one transaction.
    whole: bool,
    transactions: usize,
    done: BTreeMap<UnitName, Written>,
    pending: Vec<Pending>,
    /// When the guards of templates were last written, as far as this attempt knows.
    guards: BTreeMap<UnitName, Revision>,
    last_error: Option<StoreError>,
}

impl Operations {
    /// Does to each unit what is wished of it; answers in the order of the names.
    pub(super) async fn carry_out(
        &self,
        wishes: BTreeMap<UnitName, Wish>,
        whole: bool,
        asker: Asker<'_>,
    ) -> Result<Bulk, OperationError> {
        let total = wishes.len();
        Errand { wishes, total, whole, ..Errand::new(self, asker) }.finish_all().await
    }

    /// Does the same to each unit; answers in the order of the names.
    pub(super) async fn carry_out_each(
        &self,
        units: &[UnitName],
        word: Word,
        asker: Asker<'_>,
    ) -> Result<Vec<Written>, OperationError> {
        let wishes = units.iter().map(|name| (name.clone(), word.into())).collect();
        Ok(self.carry_out(wishes, false, asker).await?.written)
    }

    /// Does to each instance of a range what is wished of all; answers in the order of the names.
    pub(super) async fn carry_out_in(
        &self,
        range: &UnitRange,
        word: Word,
        asker: Asker<'_>,
    ) -> Result<Vec<Written>, OperationError> {
        let total = usize::try_from(range.to() - range.from()).unwrap_or(usize::MAX).saturating_add(1);
        let interval = Some(Interval { range: range.clone(), word, begun: false });
        Ok(Errand { interval, total, ..Errand::new(self, asker) }.finish_all().await?.written)
    }
}

impl<'a> Errand<'a> {
    const fn new(operations: &'a Operations, asker: Asker<'a>) -> Self {
        Self {
            operations,
            asker,
            wishes: BTreeMap::new(),
            interval: None,
            total: 0,
            whole: false,
            transactions: 0,
            done: BTreeMap::new(),
            pending: Vec::new(),
            guards: BTreeMap::new(),
            last_error: None,
        }
    }

    async fn finish_all(mut self) -> Result<Bulk, OperationError> {
        match self.run().await {
            Ok(()) => {
                let written = self.done.into_values().collect();
                Ok(Bulk { written, transactions: self.transactions })
            }
            Err(error) => Err(self.explain(error)),
        }
    }

    async fn run(&mut self) -> Result<(), OperationError> {
        let mut backoff = self.operations.timing.backoff();
        let mut attempts = 0;
        let mut resolve_by: Option<Instant> = None;
        while !self.wishes.is_empty() || self.interval.is_some() {
            if attempts == ATTEMPTS_MAX {
                return Err(OperationError::Contended { attempts });
            }
            let done = self.done.len();
            match self.attempt().await {
                Ok(()) if self.done.len() > done => attempts = 0,
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
        let (own, looked) = self.look_for_own().await?;
        if let Some(interval) = &self.interval {
            let more = own.iter().filter(|name| !self.done.contains_key(*name));
            self.wishes.extend(more.map(|name| (name.clone(), interval.word.into())));
        }
        let sight = self.look().await?;
        if self.interval.is_some() {
            // One that has gone since it was found is not to come back.
            self.wishes.retain(|name, _| sight.units.contains_key(name));
        }
        let done = self.done.len();
        self.resolve().await?;
        if self.done.len() > done {
            // The records were read before these were known to be done.
            return Ok(());
        }
        let said = sight.ranges.iter().filter_map(|(template, said)| Some((template, said.as_ref().ok()?)));
        self.guards = said.map(|(template, said)| (template.clone(), said.seen())).collect();
        let at = Timestamp::now();
        let mut steps = plan(&sight, &self.wishes, self.asker, at)?;
        // Texts first: in whatever transactions it comes, no instance is there before its template.
        steps.sort_by_key(|step| step.write.as_ref().is_some_and(|write| write.content.is_none()));
        let keys = self.operations.registry.keys();
        let mut packing = Packing::new(keys, &sight, self.pending.len());
        if let Some(Interval { range, word, begun }) = &self.interval {
            match interval::plan(&sight, range, *word, &own, self.asker, at) {
                Ok(plan) if plan.ranges.is_none() => self.finish_interval(plan.to, plan.parts, None),
                Ok(plan) => packing.add_interval(plan, range.template(), looked),
                // There is nothing in the rest of it.
                Err(OperationError::NoSuchInstances(_)) if *begun => self.interval = None,
                Err(error) => return Err(error),
            }
        }
        for step in steps {
            if step.write.is_none() {
                self.finish(step.written.clone());
            }
            packing.add(step);
        }
        let chunks = packing.finish();
        if self.whole && chunks.len() > 1 {
            return Err(OperationError::TooManyAtOnce { units: self.total });
        }
        for chunk in chunks {
            // Somebody was faster: the next attempt plans the rest anew.
            if !self.write(chunk).await? {
                break;
            }
        }
        Ok(())
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
            let record = EventRecord::from_kv(kv);
            if !record.as_ref().is_ok_and(|record| record.changes.is_empty()) {
                if let Ok(record) = &record {
                    events::tell_log(record, kv.mod_revision);
                }
                self.finish_written(effects, kv.mod_revision);
            }
        }
        Ok(())
    }

    /// Writes a chunk; false if a record was not as seen any more.
    async fn write(&mut self, mut chunk: Chunk) -> Result<bool, OperationError> {
        let operations = self.operations;
        let sequence = operations.sequence.fetch_add(1, Ordering::Relaxed);
        let event =
            operations.registry.keys().spell(&Key::Event { writer: operations.writer.clone(), sequence });
        let record = EventRecord {
            v: VERSION,
            at: Timestamp::now(),
            by: self.asker.by.to_owned(),
            request: self.asker.request.map(str::to_owned),
            changes: std::mem::take(&mut chunk.changes),
        };
        let rewrites = chunk.rewrites();
        let (mut when, mut then, effects) = chunk.into_operations(operations.registry.keys(), &self.guards);
        let instead = EventRecord { changes: Vec::new(), ..record.clone() }.encode();
        for Pending { event, .. } in &self.pending {
            when.push(Compare::Absent(event.clone()));
            then.push(Operation::Put { key: event.clone(), value: instead.clone(), lease: None });
        }
        when.push(Compare::Absent(event.clone()));
        then.push(Operation::Put { key: event.clone(), value: record.encode(), lease: None });
        match operations.registry.store().txn(Txn { when, then, or_else: Vec::new() }).await {
            Ok(answer) if answer.succeeded => {
                // None of those can come any more.
                self.pending.clear();
                self.guards.extend(rewrites.into_iter().map(|template| (template, answer.revision)));
                events::tell_log(&record, answer.revision);
                self.finish_written(effects, answer.revision);
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

    fn finish(&mut self, written: Written) {
        if self.wishes.remove(&written.unit).is_some() {
            self.done.insert(written.unit.clone(), written);
        }
    }

    fn finish_written(&mut self, effects: Effects, revision: Revision) {
        self.transactions += 1;
        for written in effects.units {
            self.finish(Written { revision, ..written });
        }
        if let Some((to, parts)) = effects.interval {
            self.finish_interval(to, parts, Some(revision));
        }
    }

    /// Notes that the interval is as asked up to a number, since a revision or since what was seen.
    fn finish_interval(&mut self, to: u64, parts: Vec<Part>, revision: Option<Revision>) {
        let Some(Interval { range, word, .. }) = self.interval.take() else { return };
        for part in parts {
            let names = part.instances.filter_map(|number| range.template().with_number(number).ok());
            for unit in names.filter(|unit| !self.wishes.contains_key(unit)) {
                let revision = revision.filter(|_| part.effect != Effect::Unchanged).unwrap_or(part.seen);
                let Part { effect, generation, run, .. } = part;
                let written = Written { revision, generation, run, ..Written::of(&unit, effect, None) };
                self.done.entry(unit).or_insert(written);
            }
        }
        let rest = to
            .checked_add(1)
            .and_then(|from| UnitRange::new(range.template().clone(), from, range.to()).ok());
        self.interval = rest.map(|range| Interval { range, word, begun: true });
    }

    async fn txn(&self, txn: Txn) -> Result<crate::store::TxnResponse, OperationError> {
        self.operations.registry.store().txn(txn).await.map_err(OperationError::Store)
    }

    fn unit_key(&self, name: &UnitName) -> String {
        self.operations.registry.keys().spell(&Key::Unit(name.clone()))
    }

    /// Says what became of the whole when it could not be finished.
    fn explain(self, error: OperationError) -> OperationError {
        let mut in_doubt = Vec::new();
        for Pending { effects, .. } in self.pending {
            let units = effects.units.into_iter().map(|written| written.unit);
            in_doubt.extend(units.filter(|unit| self.wishes.contains_key(unit)));
            if let Some((interval, (_, parts))) = self.interval.as_ref().zip(effects.interval) {
                let numbers = parts.into_iter().flat_map(|part| part.instances);
                in_doubt
                    .extend(numbers.filter_map(|number| interval.range.template().with_number(number).ok()));
            }
        }
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
