//! What one caller asks of units, and what became of it so far.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_units::{UnitName, UnitRange};
use jiff::Timestamp;

use crate::{
    reads::Stored,
    records::UnitRecord,
    store::{KeyRange, Revision, StoreError, TXN_OPERATIONS_MAX},
};

use super::{
    super::{
        Asker, Effect, OperationError, RangePart, Written,
        interval::{self, Part, RangeOrder},
        plan::{Sight, Wish, plan},
    },
    chunk::{IntervalStep, Packing},
};

/// What a caller is told in the end.
#[derive(Debug)]
pub(in super::super) struct Done {
    pub written: Vec<Written>,
    pub parts: Vec<RangePart>,
    pub transactions: usize,
}

/// A range of instances that is still to be ordered.
#[derive(Debug)]
struct Interval {
    range: UnitRange,
    order: RangeOrder,
    /// A part of it was ordered already.
    begun: bool,
    /// Its instances that have a record of their own.
    own: BTreeSet<UnitName>,
    /// Where the keys of such records are, and when they were looked for.
    looked: (Vec<KeyRange>, Revision),
}

/// What one caller asks.
#[derive(Debug)]
pub(in super::super) struct Request {
    by: String,
    id: Option<String>,
    wishes: BTreeMap<UnitName, Wish>,
    interval: Option<Interval>,
    /// The range, if it is about one.
    whole_range: Option<UnitRange>,
    total: usize,
    /// All is to be written in one transaction.
    whole: bool,
    transactions: usize,
    done: BTreeMap<UnitName, Written>,
    /// What became of the interval so far.
    parts: Vec<RangePart>,
    /// Grows with everything that gets done.
    progress: u64,
    /// How far it was when the attempt under way began, and how many before that got nothing of it done.
    pub(super) before: (u64, u32),
}

impl Request {
    /// Something is asked of each of several units.
    pub(in super::super) fn about(wishes: BTreeMap<UnitName, Wish>, whole: bool, asker: Asker<'_>) -> Self {
        Self {
            by: asker.by.to_owned(),
            id: asker.request.map(str::to_owned),
            total: wishes.len(),
            wishes,
            interval: None,
            whole_range: None,
            whole,
            transactions: 0,
            done: BTreeMap::new(),
            parts: Vec::new(),
            progress: 0,
            before: (0, 0),
        }
    }

    /// The same is asked of each instance of a range.
    pub(in super::super) fn about_range(range: &UnitRange, order: RangeOrder, asker: Asker<'_>) -> Self {
        let (own, looked) = (BTreeSet::new(), (Vec::new(), Revision(0)));
        let interval = Interval { range: range.clone(), order, begun: false, own, looked };
        Self {
            total: usize::try_from(range.len()).unwrap_or(usize::MAX),
            interval: Some(interval),
            whole_range: Some(range.clone()),
            ..Self::about(BTreeMap::new(), false, asker)
        }
    }

    /// Returns who asks.
    pub(super) fn asker(&self) -> Asker<'_> {
        Asker { by: &self.by, request: self.id.as_deref() }
    }

    /// Returns what is still wished for.
    pub(in super::super) const fn wishes(&self) -> &BTreeMap<UnitName, Wish> {
        &self.wishes
    }

    /// Returns the instances that are still to be ordered as a range.
    pub(in super::super) fn range(&self) -> Option<&UnitRange> {
        self.interval.as_ref().map(|interval| &interval.range)
    }

    /// Tells whether it is to be planned with no other: because of its size, or because what others ask
    /// could depend on it.
    pub(in super::super) fn is_alone(&self) -> bool {
        let large = self.wishes.len() >= TXN_OPERATIONS_MAX && self.interval.is_none();
        large || self.wishes.iter().any(|(name, wish)| wish.text.is_some() || name.is_template())
    }

    /// Returns how far it is.
    pub(super) const fn progress(&self) -> u64 {
        self.progress
    }

    /// Tells whether nothing of it is left.
    pub(super) fn is_done(&self) -> bool {
        self.wishes.is_empty() && self.interval.is_none()
    }

    /// Takes in which instances of its range have a record of their own: each is ordered by itself.
    pub(super) fn found_own(&mut self, own: BTreeSet<UnitName>, looked: (Vec<KeyRange>, Revision)) {
        let Some(interval) = &mut self.interval else { return };
        let more = own.iter().filter(|name| !self.done.contains_key(*name));
        self.wishes.extend(more.map(|name| (name.clone(), interval.order.word.into())));
        (interval.own, interval.looked) = (own, looked);
    }

    /// Forgets the own records of a range's instances that are not meant.
    pub(super) fn forget_unmeant(&mut self, sight: &Sight) {
        let Some(interval) = &self.interval else { return };
        // One that has gone since it was found is not to come back.
        let only_running = interval.order.only_running;
        let is_meant = |stored: &Result<Stored<UnitRecord>, _>| {
            let record = stored.as_ref().ok().map(|stored| &stored.record);
            !only_running || record.is_none_or(|it| !interval::rests(it.target, it.deleting))
        };
        self.wishes.retain(|name, _| sight.units.get(name).is_some_and(is_meant));
    }

    /// Plans what is left of it, and packs that beside what others ask.
    pub(super) fn pack(
        &mut self,
        number: u64,
        sight: &Sight,
        packing: &mut Packing<'_>,
        at: Timestamp,
    ) -> Result<(), OperationError> {
        let mut steps = plan(sight, &self.wishes, self.asker(), at)?;
        // Texts first: in whatever transactions it comes, no instance is there before its template.
        steps.sort_by_key(|step| step.write.as_ref().is_some_and(|write| write.content.is_none()));
        if let Some(Interval { range, order, begun, own, looked }) = &self.interval {
            let ranges = packing.ranges_of(sight, range.template())?;
            match interval::plan(sight, ranges, range, *order, own, self.asker(), at) {
                // It rests on what others asked at the same time, and when that is written is not known yet.
                Ok(plan) if plan.is_to_come() => return Ok(()),
                Ok(plan) if plan.ranges.is_none() => self.finish_interval(plan.to, plan.parts, None),
                Ok(plan) => {
                    let template = range.template().clone();
                    packing.add_interval(IntervalStep { number, plan, template, looked: looked.clone() });
                }
                // There is nothing in the rest of it.
                Err(OperationError::NoSuchInstances(_)) if *begun => self.interval = None,
                Err(error) => return Err(error),
            }
        }
        for step in steps.extract_if(.., |step| step.write.is_none()) {
            self.finish(step.written);
        }
        match packing.add(number, steps, self.whole) {
            true => Ok(()),
            false => Err(OperationError::TooManyAtOnce { units: self.total }),
        }
    }

    /// Notes that a transaction did a part of it.
    pub(super) const fn count_transaction(&mut self) {
        self.transactions += 1;
    }

    /// Notes what a unit is.
    pub(super) fn finish(&mut self, written: Written) {
        if self.wishes.remove(&written.unit).is_some() {
            self.progress += 1;
            self.done.insert(written.unit.clone(), written);
        }
    }

    /// Notes that the interval is as asked up to a number, since a revision or since what was seen.
    pub(super) fn finish_interval(&mut self, to: u64, parts: Vec<Part>, revision: Option<Revision>) {
        let Some(Interval { range, order, .. }) = self.interval.take() else { return };
        self.progress += 1;
        self.parts.extend(parts.into_iter().map(|part| {
            let Part { instances, without, effect, seen, generation, run } = part;
            let revision = revision.filter(|_| effect != Effect::Unchanged).unwrap_or(seen);
            RangePart { instances, without, effect, revision, generation, run }
        }));
        let rest = to
            .checked_add(1)
            .and_then(|from| UnitRange::new(range.template().clone(), from, range.to()).ok());
        self.interval = rest.map(|range| {
            let (own, looked) = (BTreeSet::new(), (Vec::new(), Revision(0)));
            Interval { range, order, begun: true, own, looked }
        });
    }

    /// Returns what became of it.
    pub(super) fn answer(self) -> Done {
        let written = self.done.into_values().collect();
        Done { written, parts: self.parts, transactions: self.transactions }
    }

    /// Says what became of the whole when it could not be finished. `in_doubt` are the units of which a
    /// transaction was not answered, and what the store said then.
    pub(super) fn explain(
        self,
        error: OperationError,
        in_doubt: Option<(Vec<UnitName>, Option<StoreError>)>,
    ) -> OperationError {
        let source = match (error, in_doubt) {
            (OperationError::Store(source), Some((units, _))) => Ok((units, source)),
            (_, Some((units, Some(source)))) => Ok((units, source)),
            (error, _) => Err(error),
        };
        let is_written = |effect| effect != Effect::Unchanged;
        if let Some(range) = self.whole_range {
            let error = match source {
                Ok((_, source)) => OperationError::RangeUnknown { range: range.clone(), source },
                Err(error) => error,
            };
            let parts = self.parts.iter().filter(|part| is_written(part.effect));
            let said: u64 = parts
                .map(|RangePart { instances, without, .. }| {
                    instances.end() - instances.start() + 1 - without.count(instances.clone())
                })
                .sum();
            let own = self.done.values().filter(|written| is_written(written.effect)).count() as u64;
            return match said + own {
                0 => error,
                done => OperationError::RangeIncomplete { range, done, source: Box::new(error) },
            };
        }
        let error = match source {
            Ok((units, source)) => OperationError::OutcomeUnknown { units, source },
            Err(error) => error,
        };
        let written: Vec<Written> = self.done.into_values().filter(|it| is_written(it.effect)).collect();
        if written.is_empty() {
            return error;
        }
        OperationError::Incomplete { written, total: self.total, source: Box::new(error) }
    }
}
