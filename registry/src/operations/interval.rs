//! Decides what an order about a range of instances writes, from the records as they are. Pure.
//!
//! What is said of the range is one record, whatever was said of its parts before; instances with a
//! record of their own are ordered one by one beside it, because their own record wins.

use std::{collections::BTreeSet, ops::RangeInclusive};

use flotilla_units::{RANGE_MAX, UnitName, UnitRange};
use jiff::Timestamp;

use crate::{
    reads::Stored,
    records::{EventChange, RangeGuard, RangeRecord, Target, VERSION, Without},
    store::Revision,
};

use super::{
    Asker, Effect, OperationError, Word,
    plan::{Sight, usable},
    ranges::{Piece, RANGES_MAX, Ranges},
};

/// The most parts, each of them a range or a gap between two, that one transaction changes. Forty: a
/// part is at most a key deleted and one written, and the guard, the event and what is left of the
/// ranges at both ends are within the 120 operations too.
const PARTS_MAX: usize = 40;

/// What is said of many instances of one template, as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub guard: Option<Stored<RangeGuard>>,
    pub ranges: Ranges,
}

/// What is asked of a range of instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RangeOrder {
    pub word: Word,
    /// Only of those that are to be on a machine: nothing is made by it, and nothing placed.
    pub only_running: bool,
}

/// Consecutive instances, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub instances: RangeInclusive<u64>,
    /// Those of them that are not there.
    pub without: Without,
    pub effect: Effect,
    /// When what is said of them was last written; zero if nothing is.
    pub seen: Revision,
    /// The generation of each afterwards.
    pub generation: u64,
    /// The run of each afterwards.
    pub run: u64,
}

/// What becomes of a range of instances, or of as much of it as one transaction can change.
#[derive(Debug)]
pub(super) struct IntervalPlan {
    /// How far it goes.
    pub to: u64,
    /// The template's ranges as they will be; `None` when all is as asked already.
    pub ranges: Option<Ranges>,
    /// The template that must be as seen, and when it was last written.
    pub template: Option<(UnitName, Revision)>,
    pub parts: Vec<Part>,
    pub change: EventChange,
}

impl IntervalPlan {
    /// Tells whether what it finds as asked is not written yet.
    pub(super) fn is_to_come(&self) -> bool {
        self.parts.iter().any(|part| part.effect == Effect::Unchanged && part.seen == Revision(0))
    }
}

impl Said {
    /// Nothing is said.
    pub(super) const fn nothing() -> Self {
        Self { guard: None, ranges: Ranges::none() }
    }

    /// Returns when the guard was last written; zero if there is none.
    pub(super) fn seen(&self) -> Revision {
        self.guard.as_ref().map_or(Revision(0), |guard| guard.written)
    }
}

/// Decides on a range of a template of which `ranges` are said. `own` are its instances that have a record of
/// their own.
///
/// # Errors
/// The range cannot be done, or nothing of it is there.
pub(super) fn plan(
    sight: &Sight,
    said: &Ranges,
    range: &UnitRange,
    order: RangeOrder,
    own: &BTreeSet<UnitName>,
    asker: Asker<'_>,
    at: Timestamp,
) -> Result<IntervalPlan, OperationError> {
    let RangeOrder { word, only_running } = order;
    let name = |number| range.template().with_number(number).unwrap_or_else(|_| range.template().clone());
    let template = match word {
        Word::Target { target, .. } if target != Target::Inactive && !only_running => {
            Some(usable(sight, None, &name(range.from()), range.template().clone())?)
        }
        _ => None,
    };
    let own: BTreeSet<u64> = own.iter().filter_map(UnitName::number).collect();
    let end = range.to().min(range.from().saturating_add(RANGE_MAX - 1));
    let speaks_for_itself = |part: &RangeInclusive<u64>| {
        let len = part.end() - part.start() + 1;
        own.range(part.clone()).count() as u64 == len
    };
    let (mut parts, mut refused, mut to) = (Vec::new(), None, end);
    let mut ranges = said.clone();
    ranges.rewrite(range.from(), end, |part, old| {
        let as_it_is = old.map(|old| old.record.clone());
        if parts.len() == PARTS_MAX {
            to = to.min(part.start().saturating_sub(1));
            return as_it_is;
        }
        let record = match said_next(old, order) {
            Ok(None) => return as_it_is,
            Ok(Some(_)) if old.is_none() && speaks_for_itself(&part) => return None,
            Ok(Some(record)) => record,
            Err(BeingDestroyed) => {
                refused.get_or_insert(*part.start());
                return as_it_is;
            }
        };
        let effect = match old {
            None => Effect::Created,
            Some(old) if old.record == record => Effect::Unchanged,
            Some(_) => Effect::Changed,
        };
        let generation = record.generation + u64::from(effect != Effect::Unchanged);
        let (seen, run) = (old.map_or(Revision(0), |old| old.written), record.run);
        let without = record.without.clone();
        parts.push(Part { instances: part, without, effect, seen, generation, run });
        if effect == Effect::Unchanged {
            return Some(record);
        }
        Some(RangeRecord { generation, by: asker.by.to_owned(), at, ..record })
    });
    ranges.heal();
    if let Some(number) = refused {
        return Err(OperationError::BeingDestroyed(name(number)));
    }
    if parts.is_empty() && own.is_empty() {
        return Err(OperationError::NoSuchInstances(range.clone()));
    }
    if ranges.len() > RANGES_MAX && ranges.len() > said.len() {
        return Err(OperationError::TooScattered(range.template().clone()));
    }
    let is_same = parts.iter().all(|part| part.effect == Effect::Unchanged);
    Ok(IntervalPlan {
        to,
        ranges: (!is_same).then_some(ranges),
        template,
        parts,
        change: change(range, to, order),
    })
}

/// It is on its way out: nothing can be asked of it.
struct BeingDestroyed;

/// Returns what is to be said of a part of which `old` is said; `None` when there is nothing to be
/// said of it. The generation is one too low if it is another than before.
fn said_next(old: Option<&Piece>, order: RangeOrder) -> Result<Option<RangeRecord>, BeingDestroyed> {
    let RangeOrder { word, only_running } = order;
    match (word, old.map(|old| &old.record)) {
        (Word::Target { .. }, None) if only_running => Ok(None),
        (Word::Target { .. }, Some(old)) if only_running && rests(old.target, old.deleting) => {
            Ok(Some(old.clone()))
        }
        // Who destroys instances, or wants nothing of them, does not make any.
        (Word::Destroy | Word::Target { target: Target::Inactive, .. }, None) => Ok(None),
        (Word::Destroy, Some(old)) => Ok(Some(RangeRecord { deleting: true, ..old.clone() })),
        (Word::Target { .. }, Some(old)) if old.deleting => Err(BeingDestroyed),
        (Word::Target { target, .. }, old) => {
            let mut record = old.cloned().unwrap_or_else(new_record);
            record.run += u64::from(word.raises(record.target));
            record.target = target;
            // Those that have gone are made anew with the others, as what these are.
            if target != Target::Inactive && !only_running {
                record.without = Without::default();
            }
            Ok(Some(record))
        }
    }
}

/// Tells whether it is to be on no machine, and stays.
pub(super) fn rests(target: Target, deleting: bool) -> bool {
    target == Target::Inactive && !deleting
}

fn new_record() -> RangeRecord {
    RangeRecord {
        v: VERSION,
        target: Target::Inactive,
        generation: 0,
        run: 0,
        by: String::new(),
        at: Timestamp::UNIX_EPOCH,
        deleting: false,
        without: Without::default(),
    }
}

fn change(range: &UnitRange, to: u64, order: RangeOrder) -> EventChange {
    let (kind, what) = match order.word {
        Word::Target { target: Target::Launched, raise_run: true } => {
            ("range-restart-ordered", "to be started anew".to_owned())
        }
        Word::Target { target, .. } => ("range-target-changed", format!("to {target}")),
        Word::Destroy => ("range-destroy-ordered", "to be destroyed".to_owned()),
    };
    let instances =
        UnitRange::new(range.template().clone(), range.from(), to).unwrap_or_else(|_| range.clone());
    let why = Some(format!("{instances} {what}"));
    EventChange { kind: kind.to_owned(), unit: Some(range.template().clone()), why, ..EventChange::default() }
}
