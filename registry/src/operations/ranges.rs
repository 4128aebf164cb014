//! The ranges of one template: covered, split, merged. Pure.
//!
//! Owns the rule that the ranges of a template never overlap, and that a change of a part of one
//! leaves what is outside as it was. The plans of orders call it; what it says is written in
//! transactions that compare and rewrite the template's guard.

use std::{collections::BTreeMap, ops::RangeInclusive};

use flotilla_units::RANGE_MAX;

use crate::{records::RangeRecord, store::Revision};

/// The most ranges of one template. Two thousand: half a megabyte, which every order about an
/// instance without a record of its own reads, and which fits into one answer of the store.
pub(super) const RANGES_MAX: usize = 2_000;

/// The ranges of one template, by their first instance. They never overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(BTreeMap<u64, Piece>);

/// One range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its last instance.
    pub to: u64,
    pub record: RangeRecord,
    /// When its key was last written, as seen; zero if it is not written yet.
    pub written: Revision,
}

/// What has to be written to get from some ranges to others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub deletes: Vec<(u64, u64)>,
    pub puts: Vec<(u64, u64, RangeRecord)>,
}

impl Ranges {
    /// There are none.
    pub(super) const fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// Takes in a stored range; false, and nothing changes, when it overlaps another or is none.
    pub(super) fn insert(&mut self, from: u64, piece: Piece) -> bool {
        let fits =
            from <= piece.to && self.0.range(..=piece.to).next_back().is_none_or(|(_, it)| it.to < from);
        if fits {
            self.0.insert(from, piece);
        }
        fits
    }

    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns them, ascending, with the first instance of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Piece)> {
        self.0.iter().map(|(from, piece)| (*from, piece))
    }

    /// Returns the one that an instance is in.
    pub(super) fn at(&self, number: u64) -> Option<&Piece> {
        let (_, piece) = self.0.range(..=number).next_back()?;
        (piece.to >= number).then_some(piece)
    }

    /// Takes an instance out of its range.
    pub(super) fn take_out(&mut self, number: u64) {
        self.rewrite(number, number, |_, _| None);
    }

    /// Changes what is said of the instances `from` to `to`: `change` is asked once for each part of
    /// them that one range covers, and once for each part that none does, ascending; `None` takes the
    /// part out. What is outside stays as it is; equal neighbours become one.
    pub(super) fn rewrite(
        &mut self,
        from: u64,
        to: u64,
        mut change: impl FnMut(RangeInclusive<u64>, Option<&Piece>) -> Option<RangeRecord>,
    ) {
        self.cut(from);
        if let Some(after) = to.checked_add(1) {
            self.cut(after);
        }
        let mut next = Some(from);
        while let Some(start) = next.filter(|start| *start <= to) {
            let old = self.0.get(&start);
            let end = match old {
                Some(piece) => piece.to,
                None => self.0.range(start..=to).next().map_or(to, |(following, _)| following - 1),
            };
            match change(start..=end, old) {
                None => drop(self.0.remove(&start)),
                Some(record) if old.is_none_or(|old| old.record != record) => {
                    self.0.insert(start, Piece { to: end, record, written: Revision(0) });
                }
                Some(_) => {}
            }
            next = end.checked_add(1);
        }
        self.merge(from, to);
    }

    /// Makes a range begin at an instance, if one covers it.
    fn cut(&mut self, at: u64) {
        if let Some((_, piece)) = self.0.range_mut(..at).next_back()
            && piece.to >= at
        {
            let rest = piece.clone();
            piece.to = at - 1;
            self.0.insert(at, rest);
        }
    }

    /// Makes one of equal neighbours within and beside `from` to `to`.
    fn merge(&mut self, from: u64, to: u64) {
        let first = self.0.range(..from).next_back().map_or(from, |(start, _)| *start);
        let starts: Vec<u64> = self.0.range(first..=to.saturating_add(1)).map(|(start, _)| *start).collect();
        let mut starts = starts.into_iter();
        let Some(mut left) = starts.next() else { return };
        for right in starts {
            let both = self.0.get(&left).zip(self.0.get(&right));
            match both.and_then(|(one, other)| joined(left, one, right, other)) {
                Some(piece) => {
                    self.0.remove(&right);
                    self.0.insert(left, piece);
                }
                None => left = right,
            }
        }
    }

    /// Returns what has to be written to get from here to `new`.
    pub(super) fn difference(&self, new: &Self) -> Difference {
        let mut difference = Difference::default();
        for (from, piece) in self.iter() {
            if new.0.get(&from).is_none_or(|it| it.to != piece.to) {
                difference.deletes.push((from, piece.to));
            }
        }
        for (from, piece) in new.iter() {
            if self.0.get(&from).is_none_or(|it| it.to != piece.to || it.record != piece.record) {
                difference.puts.push((from, piece.to, piece.record.clone()));
            }
        }
        difference
    }
}

/// Makes one of two neighbours if they say the same. One that is being destroyed stays by itself, so
/// that it can go when its own instances are gone.
fn joined(left: u64, one: &Piece, right: u64, other: &Piece) -> Option<Piece> {
    if one.to.checked_add(1) != Some(right) || other.to - left >= RANGE_MAX {
        return None;
    }
    if one.record == other.record {
        return Some(Piece { to: other.to, ..one.clone() });
    }
    let (a, b) = (&one.record, &other.record);
    let is_same = (a.target, a.run) == (b.target, b.run) && !a.deleting && !b.deleting;
    let newest = if b.at > a.at { b } else { a };
    let generation = a.generation.max(b.generation);
    let record = RangeRecord { generation, ..newest.clone() };
    is_same.then_some(Piece { to: other.to, record, written: Revision(0) })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::records::{Target, VERSION};

    fn record(run: u64, deleting: bool) -> RangeRecord {
        let (target, by, at) = (Target::Launched, "test".to_owned(), Timestamp::UNIX_EPOCH);
        RangeRecord { v: VERSION, target, generation: 1, run, by, at, deleting }
    }

    fn ranges(parts: &[(u64, u64, u64)]) -> Ranges {
        let mut ranges = Ranges::default();
        for &(from, to, run) in parts {
            ranges.rewrite(from, to, |_, _| Some(record(run, false)));
        }
        ranges
    }

    fn parts(ranges: &Ranges) -> Vec<(u64, u64, u64)> {
        ranges.iter().map(|(from, piece)| (from, piece.to, piece.record.run)).collect()
    }

    #[test]
    fn a_change_in_the_middle_leaves_three() {
        let mut web = ranges(&[(1, 100, 1)]);
        let before = web.clone();
        web.rewrite(10, 20, |_, old| Some(record(old.map_or(0, |it| it.record.run) + 1, false)));
        assert_eq!(parts(&web), [(1, 9, 1), (10, 20, 2), (21, 100, 1)]);
        let difference = before.difference(&web);
        assert_eq!((difference.deletes, difference.puts.len()), (vec![(1, 100)], 3));
        web.take_out(15);
        assert_eq!(parts(&web), [(1, 9, 1), (10, 14, 2), (16, 20, 2), (21, 100, 1)]);
        assert!(web.at(15).is_none() && web.at(101).is_none() && web.at(0).is_none());
        assert_eq!(web.at(16).map(|it| it.to), Some(20));
        web.rewrite(10, 20, |_, _| Some(record(1, false)));
        assert_eq!(parts(&web), [(1, 100, 1)], "equal neighbours are one again");
    }

    #[test]
    fn what_leaves_everything_as_it_is_writes_nothing() {
        let web = ranges(&[(1, 100, 1), (u64::MAX - 3, u64::MAX, 5)]);
        let mut same = web.clone();
        same.rewrite(10, 20, |_, old| old.map(|it| it.record.clone()));
        same.rewrite(0, u64::MAX, |_, old| old.map(|it| it.record.clone()));
        same.take_out(0);
        assert_eq!(web, same);
        assert_eq!(web.difference(&same), Difference::default());
    }

    #[test]
    fn what_is_being_destroyed_and_what_is_too_large_stays_apart() {
        let mut web = ranges(&[(1, 10, 1)]);
        web.rewrite(11, 20, |_, _| Some(record(1, true)));
        assert_eq!(web.len(), 2);
        let mut large = ranges(&[(1, RANGE_MAX, 1)]);
        large.rewrite(RANGE_MAX + 1, RANGE_MAX + 1, |_, _| Some(record(1, false)));
        assert_eq!(large.len(), 2);
    }

    #[test]
    fn overlapping_ranges_are_not_taken_in() {
        let piece = |to| Piece { to, record: record(1, false), written: Revision(1) };
        let mut web = ranges(&[(10, 20, 1)]);
        for (from, to) in [(1, 10), (20, 30), (12, 13), (1, 30), (25, 24)] {
            assert!(!web.insert(from, piece(to)), "{from}-{to}");
        }
        assert!(web.insert(1, piece(9)) && web.insert(21, piece(21)));
    }

    /// What is said of each number below 40.
    type Model = BTreeMap<u64, u64>;

    fn modelled(ranges: &Ranges) -> Model {
        (0..40).filter_map(|number| Some((number, ranges.at(number)?.record.run))).collect()
    }

    proptest! {
        /// Any orders in any sequence: the ranges never overlap, say what a plain map says, and what is
        /// outside of an order is as before. The difference leads from one to the next.
        #[test]
        fn ranges_are_as_their_model(orders in prop::collection::vec((0..30_u64, 0..8_u64, 0..4_u8), 1..40)) {
            let (mut ranges, mut model) = (Ranges::default(), Model::new());
            for (from, more, kind) in orders {
                let (to, before) = (from + more, ranges.clone());
                let said = |old: Option<u64>| match kind {
                    0 => None,
                    1 => Some(1),
                    2 => Some(old.unwrap_or(0) + 1),
                    _ => old,
                };
                let mut asked = Vec::new();
                ranges.rewrite(from, to, |part, old| {
                    asked.extend(part);
                    said(old.map(|it| it.record.run)).map(|run| record(run, false))
                });
                prop_assert_eq!(asked, (from..=to).collect::<Vec<_>>(), "each part once, in order");
                for number in from..=to {
                    match said(model.get(&number).copied()) {
                        Some(run) => model.insert(number, run),
                        None => model.remove(&number),
                    };
                }
                prop_assert_eq!(modelled(&ranges), model.clone());
                let pieces = parts(&ranges);
                for pair in pieces.windows(2) {
                    prop_assert!(pair[0].1 < pair[1].0, "{:?} overlap", pair);
                    let equal = pair[0].1 + 1 == pair[1].0 && pair[0].2 == pair[1].2;
                    prop_assert!(!equal, "{:?} are not merged", pair);
                }
                let difference = before.difference(&ranges);
                let mut written: BTreeMap<(u64, u64), RangeRecord> =
                    before.iter().map(|(from, it)| ((from, it.to), it.record.clone())).collect();
                for key in &difference.deletes {
                    prop_assert!(written.remove(key).is_some());
                }
                for (from, to, record) in difference.puts {
                    prop_assert!(!difference.deletes.contains(&(from, to)), "a key is written once");
                    written.insert((from, to), record);
                }
                let now = ranges.iter().map(|(from, it)| ((from, it.to), it.record.clone())).collect();
                prop_assert_eq!(written, now);
                prop_assert!(difference.deletes.len() <= 10 + usize::try_from(more).unwrap_or(0));
            }
        }
    }
}
