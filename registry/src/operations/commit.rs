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
    reads::Stored,
    records::{EventRecord, Record as _, UnitRecord, VERSION},
    store::{Compare, KeyRange, Operation, Revision, StoreError, Txn},
};

use self::chunk::{Chunk, Packing};
use super::{
    Asker, Bulk, Effect, OperationError, Operations, RangePart, RangeWritten, Word, Written,
    interval::{self, Part, RangeOrder},
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
    order: RangeOrder,
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
    /// What became of the interval so far.
    parts: Vec<RangePart>,
    /// Grows with everything that gets done.
    progress: u64,
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

    /// Does to each instance of a range what is wished of all.
    pub(super) async fn carry_out_in(
        &self,
        range: &UnitRange,
        order: RangeOrder,
        asker: Asker<'_>,
    ) -> Result<RangeWritten, OperationError> {
        let total = usize::try_from(range.len()).unwrap_or(usize::MAX);
        let interval = Some(Interval { range: range.clone(), order, begun: false });
        let mut errand = Errand { interval, total, ..Errand::new(self, asker) };
        match errand.run().await {
            Ok(()) => Ok(RangeWritten {
                template: range.template().clone(),
                parts: errand.parts,
                own: errand.done.into_values().collect(),
                transactions: errand.transactions,
            }),
            Err(error) => Err(errand.explain_in(range, error)),
        }
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
            parts: Vec::new(),
            progress: 0,
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
            let progress = self.progress;
            match self.attempt().await {
                Ok(()) if self.progress > progress => attempts = 0,
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
            self.wishes.extend(more.map(|name| (name.clone(), interval.order.word.into())));
        }
        let sight = self.look().await?;
        if let Some(interval) = &self.interval {
            // One that has gone since it was found is not to come back.
            let only_running = interval.order.only_running;
            let is_meant = |stored: &Result<Stored<UnitRecord>, _>| {
                let record = stored.as_ref().ok().map(|stored| &stored.record);
                !only_running || record.is_none_or(|it| !interval::rests(it.target, it.deleting))
            };
            self.wishes.retain(|name, _| sight.units.get(name).is_some_and(is_meant));
        }
        let progress = self.progress;
        self.resolve().await?;
        if self.progress > progress {
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
        if let Some(Interval { range, order, begun }) = &self.interval {
            match interval::plan(&sight, range, *order, &own, self.asker, at) {
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
            self.progress += 1;
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
        let Some(Interval { range, order, .. }) = self.interval.take() else { return };
        self.progress += 1;
        self.parts.extend(parts.into_iter().map(|part| {
            let Part { instances, effect, seen, generation, run } = part;
            let revision = revision.filter(|_| effect != Effect::Unchanged).unwrap_or(seen);
            RangePart { instances, effect, revision, generation, run }
        }));
        let rest = to
            .checked_add(1)
            .and_then(|from| UnitRange::new(range.template().clone(), from, range.to()).ok());
        self.interval = rest.map(|range| Interval { range, order, begun: true });
    }

    async fn txn(&self, txn: Txn) -> Result<crate::store::TxnResponse, OperationError> {
        self.operations.registry.store().txn(txn).await.map_err(OperationError::Store)
    }

    fn unit_key(&self, name: &UnitName) -> String {
        self.operations.registry.keys().spell(&Key::Unit(name.clone()))
    }

    /// Says what became of a range when it could not be finished.
    fn explain_in(self, range: &UnitRange, error: OperationError) -> OperationError {
        let is_written = |effect| effect != Effect::Unchanged;
        let parts = self.parts.iter().filter(|part| is_written(part.effect));
        let said: u64 = parts.map(|part| part.instances.end() - part.instances.start() + 1).sum();
        let own = self.done.values().filter(|written| is_written(written.effect)).count() as u64;
        let in_doubt = !self.pending.is_empty();
        let source = match error {
            OperationError::Store(source) if in_doubt => Ok(source),
            error => self.last_error.filter(|_| in_doubt).ok_or(error),
        };
        let error = match source {
            Ok(source) => OperationError::RangeUnknown { range: range.clone(), source },
            Err(error) => error,
        };
        match said + own {
            0 => error,
            done => OperationError::RangeIncomplete { range: range.clone(), done, source: Box::new(error) },
        }
    }

    /// Says what became of the whole when it could not be finished.
    fn explain(self, error: OperationError) -> OperationError {
        let mut in_doubt = Vec::new();
        for Pending { effects, .. } in self.pending {
            let units = effects.units.into_iter().map(|written| written.unit);
            in_doubt.extend(units.filter(|unit| self.wishes.contains_key(unit)));
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
