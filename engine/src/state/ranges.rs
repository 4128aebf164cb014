//! Instances that a range speaks for: kept in step with the ranges and with records of their own.
//!
//! A range is made into units when it is seen, so that everything else (placement, lists, watches,
//! `why`) treats them as any unit; what they are made of is shared with the template. Their own
//! record wins, whichever came first. What a revision says of ranges is taken in as a whole, at its
//! end: a range that is split is deleted and written anew, and for the instances whose word stays
//! the same nothing has happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    ops::RangeInclusive,
    sync::Arc,
};

use flotilla_registry::{
    keys::Key,
    records::{RangeGuard, RangeRecord, RecordError, Rollout, UnitRecord},
    store::Revision,
};
use flotilla_units::{RANGE_MAX, UnitName};

use super::{Changes, ClusterState, Kept};

/// A template's ranges, by their bounds.
type Stored = BTreeMap<(u64, u64), Kept<RangeRecord>>;

/// All ranges there are, and what is not yet made of them.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    guards: BTreeMap<UnitName, Kept<RangeGuard>>,
    stored: BTreeMap<UnitName, Stored>,
    /// Those that are being destroyed.
    leaving: BTreeSet<RangeKey>,
    /// Templates of which ranges changed in this revision, with what they were before it.
    unsettled: BTreeMap<UnitName, Stored>,
    /// Instances whose own record went in this revision.
    orphans: BTreeSet<UnitName>,
}

/// Which range.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RangeKey {
    /// Of which template.
    pub template: UnitName,
    /// Its first instance.
    pub from: u64,
    /// Its last instance.
    pub to: u64,
}

impl RangeKey {
    /// Returns the store's key.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::Range { template: self.template.clone(), from: self.from, to: self.to }
    }
}

/// Consecutive instances of which the same is said.
#[derive(Debug, Clone)]
struct Span {
    from: u64,
    to: u64,
    said: Said,
    created: Revision,
    written: Revision,
}

type Said = Result<Arc<RangeRecord>, Arc<RecordError>>;

impl ClusterState {
    /// Returns the ranges that are being destroyed, each with when it was last written.
    pub fn leaving_ranges(&self) -> impl Iterator<Item = (&RangeKey, Revision)> {
        self.ranges.leaving.iter().filter_map(|range| {
            let kept = self.ranges.stored.get(&range.template)?.get(&(range.from, range.to))?;
            Some((range, kept.mod_revision()))
        })
    }

    /// Returns the guard of a template's ranges.
    #[must_use]
    pub fn range_guard(&self, template: &UnitName) -> Option<&Kept<RangeGuard>> {
        self.ranges.guards.get(template)
    }

    /// Tells whether there is any range of a template, also one that no instance can be made of.
    #[must_use]
    pub fn has_ranges(&self, template: &UnitName) -> bool {
        self.ranges.stored.contains_key(template)
    }

    /// Tells whether what every range says is known.
    pub(super) fn ranges_are_readable(&self) -> bool {
        self.ranges.stored.values().flat_map(|stored| stored.values()).all(|kept| kept.unreadable().is_none())
    }

    /// Returns what is wrong with ranges, for people.
    #[must_use]
    pub fn range_problems(&self) -> Vec<String> {
        let too_large = self.ranges.stored.iter().flat_map(|(template, stored)| {
            stored.keys().filter(|bounds| !is_range(**bounds)).map(move |(from, to)| {
                format!("the range {from} to {to} of {template} is none that flotilla makes; delete its key")
            })
        });
        let spans = self.ranges.stored.values().flat_map(spans);
        too_large.chain(spans.filter_map(|span| Some(span.said.err()?.to_string()))).collect()
    }

    /// Returns when a unit came to be, at the earliest. A range that is split is written anew, and an
    /// instance of it may get a record of its own, so the key that speaks for an instance may be younger
    /// than the instance; the guard of its template's ranges is not.
    pub(super) fn came_to_be(&self, unit: &UnitName) -> Option<Revision> {
        let created = self.units.get(unit)?.create_revision();
        let template = unit.number().and_then(|_| unit.template());
        let guard = template.and_then(|template| self.range_guard(&template));
        Some(guard.map_or(created, |guard| created.min(guard.create_revision())))
    }

    pub(super) fn set_guard(&mut self, template: UnitName, kept: Option<Kept<RangeGuard>>) {
        match kept {
            Some(kept) => self.ranges.guards.insert(template, kept),
            None => self.ranges.guards.remove(&template),
        };
    }

    /// Takes in a range; what it says of its instances follows with [`ClusterState::settle`].
    pub(super) fn set_range(&mut self, range: RangeKey, kept: Option<Kept<RangeRecord>>) {
        let Ranges { stored, leaving, unsettled, .. } = &mut self.ranges;
        let of_template = stored.entry(range.template.clone()).or_default();
        unsettled.entry(range.template.clone()).or_insert_with(|| of_template.clone());
        let leaves = kept.as_ref().and_then(Kept::record).is_some_and(|record| record.deleting);
        match kept {
            Some(kept) => of_template.insert((range.from, range.to), kept),
            None => of_template.remove(&(range.from, range.to)),
        };
        if of_template.is_empty() {
            stored.remove(&range.template);
        }
        if leaves {
            leaving.insert(range);
        } else {
            leaving.remove(&range);
        }
    }

    /// Notes that an instance has no record of its own any more: its range may speak for it.
    pub(super) fn orphan(&mut self, name: &UnitName) {
        if name.number().is_some() {
            self.ranges.orphans.insert(name.clone());
        }
    }

    /// Makes the instances agree with what is said of them, once a revision is taken in.
    pub(super) fn settle(&mut self, changes: &mut Changes) {
        for (template, before) in mem::take(&mut self.ranges.unsettled) {
            let before = spans(&before);
            let after = self.ranges.stored.get(&template).map(spans).unwrap_or_default();
            for difference in differences(&before, &after) {
                let kept = difference.new.map(|span| span.kept(&template));
                for (number, is_said) in difference.instances() {
                    if let Ok(name) = template.with_number(number) {
                        self.speak_for(&name, kept.as_ref().filter(|_| is_said), changes);
                    }
                }
            }
            // Its record may have waited for its ranges.
            changes.units.insert(template);
        }
        for name in mem::take(&mut self.ranges.orphans) {
            let Some(template) = name.template() else { continue };
            let spans = self.ranges.stored.get(&template).map(spans).unwrap_or_default();
            let span = name.number().and_then(|number| span_at(&spans, number));
            self.speak_for(&name, span.map(|span| span.kept(&template)).as_ref(), changes);
        }
    }

    /// Says of an instance without a record of its own what its range says.
    fn speak_for(&mut self, name: &UnitName, kept: Option<&Kept<UnitRecord>>, changes: &mut Changes) {
        if self.units.get(name).is_some_and(|kept| !kept.is_derived()) {
            return;
        }
        // A listing has told of its entry before.
        let name = &self.units.known(name).unwrap_or(name).clone();
        changes.units.insert(name.clone());
        match kept {
            None => self.units.remove(name),
            Some(kept) => self.units.insert(name, kept.clone()),
        }
    }
}

impl Span {
    /// Tells whether it says anything of an instance within its bounds.
    fn speaks_for(&self, number: u64) -> bool {
        self.said.as_ref().map_or(true, |said| !said.without.has(number))
    }

    /// Makes what stands for the records of its instances: one for all of them, however many those are.
    fn kept(&self, template: &UnitName) -> Kept<UnitRecord> {
        let record = self.said.as_ref().map(|said| Arc::new(inherit(template, said))).map_err(Arc::clone);
        Kept::derived(self.created, self.written, record)
    }
}

/// Returns the record that an instance would have if what its range says were said of it alone, but for the
/// name that systemd knows it by, which is its own.
fn inherit(template: &UnitName, said: &RangeRecord) -> UnitRecord {
    let RangeRecord { v, target, generation, run, by, at, deleting, without: _ } = said.clone();
    let (runtime, rollout) = (template.clone(), Rollout::default());
    UnitRecord {
        v,
        runtime,
        current: None,
        rollout,
        set: None,
        adopted: None,
        target,
        generation,
        run,
        by,
        at,
        deleting,
    }
}

/// Tells whether these are the bounds of a range: whoever writes others is not to fill the memory.
const fn is_range((from, to): (u64, u64)) -> bool {
    from <= to && to - from < RANGE_MAX
}

/// Returns what is said of which instances, ascending and without overlaps. Ranges that overlap say
/// nothing: all of their instances stay exactly as they are.
fn spans(stored: &Stored) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (&(from, to), kept) in stored.iter().filter(|(bounds, _)| is_range(**bounds)) {
        if let Some(last) = spans.last_mut().filter(|last| last.to >= from) {
            let why = "it overlaps another range of the template".to_owned();
            let key = format!("{from:020}-{to:020}");
            last.said = Err(Arc::new(RecordError::Corrupted { key, why }));
            last.to = last.to.max(to);
            continue;
        }
        let said = match (kept.record(), kept.unreadable()) {
            (_, Some(error)) => Err(Arc::clone(error)),
            (Some(record), None) => Ok(Arc::clone(record)),
            (None, None) => continue,
        };
        spans.push(Span { from, to, said, created: kept.create_revision(), written: kept.mod_revision() });
    }
    spans
}

/// Returns what speaks for an instance.
fn span_at(spans: &[Span], number: u64) -> Option<&Span> {
    span_around(spans, number).filter(|span| span.speaks_for(number))
}

/// Returns the one whose bounds an instance is in.
fn span_around(spans: &[Span], number: u64) -> Option<&Span> {
    let at = spans.partition_point(|span| span.to < number);
    spans.get(at).filter(|span| span.from <= number)
}

/// Instances of which something else may be said than before.
struct Difference<'a> {
    numbers: RangeInclusive<u64>,
    old: Option<&'a Span>,
    new: Option<&'a Span>,
    /// The same is said of them; only who has left the range is another.
    same_word: bool,
}

impl Difference<'_> {
    /// Returns those of which something else is said, and whether anything is said of each now.
    fn instances(&self) -> impl Iterator<Item = (u64, bool)> {
        self.numbers.clone().filter_map(|number| {
            let speaks = |span: Option<&Span>| span.is_some_and(|span| span.speaks_for(number));
            let (was_said, is_said) = (speaks(self.old), speaks(self.new));
            let is_same = if self.same_word { was_said == is_said } else { !was_said && !is_said };
            (!is_same).then_some((number, is_said))
        })
    }
}

/// Returns the instances of which something else is said than before.
fn differences<'a>(before: &'a [Span], after: &'a [Span]) -> Vec<Difference<'a>> {
    let ends = |span: &Span| [Some(span.from), span.to.checked_add(1)];
    let starts: BTreeSet<u64> = before.iter().chain(after).flat_map(ends).flatten().collect();
    let last = before.iter().chain(after).map(|span| span.to).max().unwrap_or(0);
    let nexts = starts.iter().skip(1).map(|next| next - 1).chain([last]);
    let mut all = Vec::new();
    for (from, to) in starts.iter().copied().zip(nexts) {
        let (old, new) = (span_around(before, from), span_around(after, from));
        let (is_same, same_word) = match (old.map(|span| &span.said), new.map(|span| &span.said)) {
            (None, None) => (true, true),
            (Some(Ok(old)), Some(Ok(new))) => (old == new, old.says_as(new)),
            _ => (false, false),
        };
        if !is_same {
            all.push(Difference { numbers: from..=to, old, new, same_word });
        }
    }
    all
}

#[cfg(test)]
mod tests;
