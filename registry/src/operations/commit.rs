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
//! Several requests are carried out together: what one of them cannot have does not keep the others
//! from being written, and what one asks of several units is split only where it does not fit into a transaction.
//! Who goes along with whom is in `lanes`, what is asked in `request`, what is read in `look`, what fits
//! into a transaction in `chunk`.

mod chunk;
mod look;
mod request;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use flotilla_units::{UnitName, UnitRange};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::{
    events,
    keys::Key,
    records::{EventChange, EventRecord, Record as _, VERSION},
    store::{Compare, KeyRange, Operation, Revision, StoreError, Txn},
    timing::{Backoff, Timing},
};

use self::chunk::{Chunk, Packing};
pub(super) use self::request::{Done, Request};
use super::{
    Asker, Bulk, Core, OperationError, Operations, RangeWritten, Word, Written,
    interval::{Part, RangeOrder},
    lanes::{self, Ticket},
    plan::Wish,
};

/// How often an operation is planned anew because others changed the same units, without getting
/// anything done itself. Each time somebody else got on, so sixteen is a store under a storm of writes
/// to one unit.
const ATTEMPTS_MAX: u32 = 16;

/// What a transaction does. The first number is that of the request which asked for it.
#[derive(Debug, Default)]
struct Effects {
    /// What each unit is afterwards; when it was written is not known before.
    units: Vec<(u64, Written)>,
    /// What becomes of an interval, up to which number.
    interval: Option<(u64, u64, Vec<Part>)>,
}

/// A transaction that was sent and not answered.
struct Pending {
    event: String,
    effects: Effects,
}

/// Requests that are carried out together.
pub(super) struct Errand<'a> {
    core: &'a Arc<Core>,
    asked: BTreeMap<u64, Ticket>,
    /// How many requests there have been: each has a number.
    count: u64,
    pending: Vec<Pending>,
    /// When the guards of templates were last written, as far as this attempt knows.
    guards: BTreeMap<UnitName, Revision>,
    last_error: Option<StoreError>,
    /// Until when it is tried to find out what became of those that were not answered.
    resolve_by: Option<Instant>,
    silence: Backoff,
    /// Others were faster; how long to wait for them to get on.
    rivalry: Option<Backoff>,
}

impl Operations {
    /// Does to each unit what is wished of it; answers in the order of the names.
    pub(super) async fn carry_out(
        &self,
        wishes: BTreeMap<UnitName, Wish>,
        whole: bool,
        asker: Asker<'_>,
    ) -> Result<Bulk, OperationError> {
        if wishes.is_empty() {
            return Ok(Bulk { written: Vec::new(), transactions: 0 });
        }
        let request = Request::about(wishes, whole, asker);
        let Done { written, transactions, .. } = lanes::carry_out(&self.core, &self.tasks, request).await?;
        Ok(Bulk { written, transactions })
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
        let request = Request::about_range(range, order, asker);
        let Done { written, parts, transactions } =
            lanes::carry_out(&self.core, &self.tasks, request).await?;
        Ok(RangeWritten { template: range.template().clone(), parts, own: written, transactions })
    }
}

impl<'a> Errand<'a> {
    /// Makes one without requests.
    pub(super) fn new(core: &'a Arc<Core>) -> Self {
        Self {
            core,
            asked: BTreeMap::new(),
            count: 0,
            pending: Vec::new(),
            guards: BTreeMap::new(),
            last_error: None,
            resolve_by: None,
            silence: core.timing.backoff(),
            rivalry: None,
        }
    }

    /// Takes a request in.
    pub(super) fn take(&mut self, ticket: Ticket) {
        self.asked.insert(self.count, ticket);
        self.count += 1;
    }

    /// Tells whether it has nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }

    /// Tells whether it can take requests in: not while it is not known what became of others.
    pub(super) fn takes_more(&self) -> bool {
        self.pending.is_empty()
    }

    /// Returns what is still asked.
    pub(super) fn requests(&self) -> impl Iterator<Item = &Request> {
        self.asked.values().map(|asked| &asked.request)
    }

    /// Gets on with all requests, and answers those that are done or cannot be.
    pub(super) async fn turn(&mut self) {
        for asked in self.asked.values_mut() {
            asked.request.before.0 = asked.request.progress();
        }
        let attempted = self.attempt().await;
        self.answer_done();
        match attempted {
            Ok(outrun) => {
                self.settle();
                match outrun {
                    false => self.rivalry = None,
                    true => sleep(self.rivalry.get_or_insert_with(Timing::rivalry).next_wait()).await,
                }
            }
            // Nothing is in doubt: the callers had better know now.
            Err(error) if self.pending.is_empty() => self.give_up(&OperationError::Store(error)),
            Err(error) if error.is_transient() => {
                let by = Instant::now() + self.core.timing.resolve_timeout;
                if Instant::now() >= *self.resolve_by.get_or_insert(by) {
                    self.give_up(&OperationError::Store(error));
                    return;
                }
                warn!(%error, "looking whether a change of units took effect");
                self.last_error = Some(error);
                sleep(self.silence.next_wait()).await;
            }
            Err(error) => self.give_up(&OperationError::Store(error)),
        }
    }

    /// Answers the requests that are done.
    fn answer_done(&mut self) {
        let done = self.asked.iter().filter(|(_, asked)| asked.request.is_done()).map(|(number, _)| *number);
        for number in done.collect::<Vec<_>>() {
            let Some(Ticket { request, answer }) = self.asked.remove(&number) else { continue };
            // Who does not listen any more does not want to know.
            let _unheard = answer.send(Ok(request.answer()));
        }
    }

    /// Answers the requests that others kept from getting on too often.
    fn settle(&mut self) {
        let mut outrun = Vec::new();
        for (number, Ticket { request, .. }) in &mut self.asked {
            let (progress, attempts) = request.before;
            let attempts = if request.progress() > progress { 0 } else { attempts + 1 };
            request.before.1 = attempts;
            if attempts == ATTEMPTS_MAX {
                outrun.push(*number);
            }
        }
        for number in outrun {
            self.fail(number, OperationError::Contended { attempts: ATTEMPTS_MAX });
        }
        if self.pending.is_empty() {
            self.resolve_by = None;
            self.silence.reset();
        }
    }

    /// Answers all requests with what went wrong, and forgets what was in doubt.
    fn give_up(&mut self, error: &OperationError) {
        for number in self.asked.keys().copied().collect::<Vec<_>>() {
            self.fail(number, error.clone());
        }
        self.pending.clear();
        (self.resolve_by, self.last_error) = (None, None);
        self.silence.reset();
    }

    /// Answers a request with what went wrong.
    fn fail(&mut self, number: u64, error: OperationError) {
        let Some(Ticket { request, answer }) = self.asked.remove(&number) else { return };
        let (mut units, mut ranges) = (Vec::new(), false);
        for Pending { effects, .. } in &self.pending {
            let of = effects.units.iter().filter(|(of, _)| *of == number).map(|(_, written)| &written.unit);
            units.extend(of.filter(|unit| request.wishes().contains_key(*unit)).cloned());
            ranges |= effects.interval.as_ref().is_some_and(|(of, ..)| *of == number);
        }
        let in_doubt = (ranges || !units.is_empty()).then(|| (units, self.last_error.clone()));
        // Who does not listen any more does not want to know.
        let _unheard = answer.send(Err(request.explain(error, in_doubt)));
    }

    /// Reads, plans and writes once. What is done is no longer wished for. True if somebody was faster.
    async fn attempt(&mut self) -> Result<bool, StoreError> {
        self.look_for_own().await?;
        let sight = self.look().await?;
        self.asked.values_mut().for_each(|asked| asked.request.forget_unmeant(&sight));
        if self.resolve().await? {
            // The records were read before these were known to be done.
            return Ok(false);
        }
        let said = sight.ranges.iter().filter_map(|(template, said)| Some((template, said.as_ref().ok()?)));
        self.guards = said.map(|(template, said)| (template.clone(), said.seen())).collect();
        let at = Timestamp::now();
        let core = Arc::clone(self.core);
        let mut packing = Packing::new(core.registry.keys(), &sight, self.pending.len());
        let mut refused = Vec::new();
        // Ranges last: what is asked of single units is planned from what was read.
        for ranges in [false, true] {
            let those = self.asked.iter_mut().filter(|(_, it)| it.request.range().is_some() == ranges);
            for (number, asked) in those {
                let packed = asked.request.pack(*number, &sight, &mut packing, at);
                refused.extend(packed.err().map(|error| (*number, error)));
            }
        }
        for (number, error) in refused {
            self.fail(number, error);
        }
        for chunk in packing.finish() {
            // Somebody was faster: the next attempt plans the rest anew.
            if !self.write(chunk).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Finds out which of the transactions that were not answered took effect; true if any did.
    async fn resolve(&mut self) -> Result<bool, StoreError> {
        let (mut at, mut any) = (0, false);
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
                any = true;
            }
        }
        Ok(any)
    }

    /// Writes a chunk; false if a record was not as seen any more.
    async fn write(&mut self, mut chunk: Chunk) -> Result<bool, StoreError> {
        let core = Arc::clone(self.core);
        let sequence = core.sequence.fetch_add(1, Ordering::Relaxed);
        let event = core.registry.keys().spell(&Key::Event { writer: core.writer.clone(), sequence });
        let record = self.event(std::mem::take(&mut chunk.changes));
        let rewrites = chunk.rewrites();
        let (mut when, mut then, effects) = chunk.into_operations(core.registry.keys(), &self.guards);
        let instead = EventRecord { changes: Vec::new(), ..record.clone() }.encode();
        for Pending { event, .. } in &self.pending {
            when.push(Compare::Absent(event.clone()));
            then.push(Operation::Put { key: event.clone(), value: instead.clone(), lease: None });
        }
        when.push(Compare::Absent(event.clone()));
        then.push(Operation::Put { key: event.clone(), value: record.encode(), lease: None });
        match core.registry.store().txn(Txn { when, then, or_else: Vec::new() }).await {
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
                Err(error)
            }
        }
    }

    /// Makes the event of a transaction. Who asked stands with it where it was one request, else with each change.
    fn event(&self, changes: Vec<(u64, EventChange)>) -> EventRecord {
        let asker = |number: u64| self.asked.get(&number).map(|asked| asked.request.asker());
        let first = changes.first().and_then(|(number, _)| asker(*number));
        let first = first.unwrap_or(Asker { by: "", request: None });
        let is_one = changes.iter().all(|(number, _)| asker(*number).is_none_or(|asker| asker == first));
        let told = |(number, change): (u64, EventChange)| match asker(number).filter(|_| !is_one) {
            Some(asker) => EventChange {
                by: (asker.by != first.by).then(|| asker.by.to_owned()),
                request: asker.request.map(str::to_owned),
                ..change
            },
            None => change,
        };
        EventRecord {
            v: VERSION,
            at: Timestamp::now(),
            by: first.by.to_owned(),
            request: first.request.filter(|_| is_one).map(str::to_owned),
            changes: changes.into_iter().map(told).collect(),
        }
    }

    fn finish_written(&mut self, effects: Effects, revision: Revision) {
        let mut last = None;
        for (number, written) in effects.units {
            let Some(Ticket { request, .. }) = self.asked.get_mut(&number) else { continue };
            if last.replace(number) != Some(number) {
                request.count_transaction();
            }
            request.finish(Written { revision, ..written });
        }
        if let Some((number, to, parts)) = effects.interval
            && let Some(Ticket { request, .. }) = self.asked.get_mut(&number)
        {
            if last != Some(number) {
                request.count_transaction();
            }
            request.finish_interval(to, parts, Some(revision));
        }
    }

    async fn txn(&self, txn: Txn) -> Result<crate::store::TxnResponse, StoreError> {
        self.core.registry.store().txn(txn).await
    }

    fn unit_key(&self, name: &UnitName) -> String {
        self.core.registry.keys().spell(&Key::Unit(name.clone()))
    }
}
