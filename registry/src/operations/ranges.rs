//! The ranges of one template: covered, split, merged. Pure.
//!
//! Owns the rule that the ranges of a template never overlap, and that a change of a part of one
//! leaves what is outside as it was; and the rule that they do not become ever more: who leaves a range by itself is
//! noted in it ([`Without`]), and where there are many pieces, gaps between equal ones are too. The plans of orders
//! call it; what it says is written in transactions that compare and rewrite the template's guard.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

use flotilla_units::RANGE_MAX;

use crate::{
    records::{BLOCK, RangeRecord, Without},
    store::Revision,
};

/// The most ranges of one template. Two thousand: half a megabyte, which every order about an
/// instance without a record of its own reads, and which fits into one answer of the store.
pub(super) const RANGES_MAX: usize = 2_000;

/// From how many ranges of a template on gaps between equal ones are closed. Sixty-four: as many are read at no
/// cost, and people can read them as they were said.
const HEALED_FROM: usize = 64;

/// How many gaps are closed by one order. Eight: three operations each, beside those of the order itself within
/// one transaction; and an order makes two more ranges at most, so there are never many for long.
const HEALED_AT_ONCE: usize = 8;

/// The ranges of one template, by their first instance. They never overlap, and copies are cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(BTreeMap<u64, Arc<Piece>>);

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
        let fits = fits && (piece.record.without.is_empty() || is_block(from, piece.to));
        if fits {
            self.0.insert(from, Arc::new(piece));
        }
        fits
    }

    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns them, ascending, with the first instance of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Piece)> {
        self.0.iter().map(|(from, piece)| (*from, &**piece))
    }

    /// Returns the one that speaks for an instance.
    pub(super) fn at(&self, number: u64) -> Option<&Piece> {
        let (_, piece) = self.0.range(..=number).next_back()?;
        (piece.to >= number && !piece.record.without.has(number)).then_some(piece)
    }

    /// Takes an instance out of its range. What the range says of the others was written when it was.
    pub(super) fn take_out(&mut self, number: u64) {
        let block = Without::block_of(number);
        self.cut(*block.start());
        if let Some(after) = block.end().checked_add(1) {
            self.cut(after);
        }
        let Some((from, piece)) = self.0.range_mut(..=number).next_back() else { return };
        if piece.to < number || piece.record.without.has(number) {
            return;
        }
        let from = *from;
        Arc::make_mut(piece).record.without.insert(number);
        self.drop_empty(from);
    }

    /// Closes gaps between ranges that say the same, some of them, where there are many.
    pub(super) fn heal(&mut self) {
        if self.len() < HEALED_FROM {
            return;
        }
        let starts: Vec<u64> = self.0.keys().copied().collect();
        let (mut starts, mut healed) = (starts.into_iter(), 0);
        let Some(mut left) = starts.next() else { return };
        for right in starts {
            match self.pair(left, right).and_then(|(one, other)| bridged(left, one, right, other)) {
                Some(piece) if healed < HEALED_AT_ONCE => {
                    self.0.remove(&right);
                    self.0.insert(left, Arc::new(piece));
                    healed += 1;
                }
                _ => left = right,
            }
        }
    }

    /// Changes what is said of the instances `from` to `to`: `change` is asked once for each part of
    /// them that one range covers, whomever it leaves out, and once for each part that none does, ascending; `None`
    /// takes the part out. What is outside stays as it is; equal neighbours become one.
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
            let old = self.0.get(&start).map(|piece| &**piece);
            let end = match old {
                Some(piece) => piece.to,
                None => self.0.range(start..=to).next().map_or(to, |(following, _)| following - 1),
            };
            match change(start..=end, old) {
                None => drop(self.0.remove(&start)),
                Some(record) if old.is_none_or(|old| old.record != record) => {
                    let piece = Piece { to: end, record, written: Revision(0) };
                    self.0.insert(start, Arc::new(piece));
                }
                Some(_) => {}
            }
            next = end.checked_add(1);
        }
        self.merge(from, to);
    }

    /// Makes a range begin at an instance, if one covers it.
    fn cut(&mut self, at: u64) {
        if let Some((from, piece)) = self.0.range_mut(..at).next_back()
            && piece.to >= at
        {
            let (from, mut rest) = (*from, Piece::clone(piece));
            let piece = Arc::make_mut(piece);
            piece.to = at - 1;
            piece.record.without.keep(&(from..=at - 1));
            rest.record.without.keep(&(at..=rest.to));
            self.0.insert(at, Arc::new(rest));
            self.drop_empty(from);
            self.drop_empty(at);
        }
    }

    /// Removes a range that speaks for nobody.
    fn drop_empty(&mut self, from: u64) {
        let speaks_for = |piece: &Arc<Piece>| piece.len(from) > 0;
        if !self.0.get(&from).is_none_or(speaks_for) {
            self.0.remove(&from);
        }
    }

    fn pair(&self, left: u64, right: u64) -> Option<(&Piece, &Piece)> {
        Some((self.0.get(&left)?, self.0.get(&right)?))
    }

    /// Makes one of equal neighbours within and beside `from` to `to`.
    fn merge(&mut self, from: u64, to: u64) {
        let first = self.0.range(..from).next_back().map_or(from, |(start, _)| *start);
        let starts: Vec<u64> = self.0.range(first..=to.saturating_add(1)).map(|(start, _)| *start).collect();
        let mut starts = starts.into_iter();
        let Some(mut left) = starts.next() else { return };
        for right in starts {
            match self.pair(left, right).and_then(|(one, other)| joined(left, one, right, other)) {
                Some(piece) => {
                    self.0.remove(&right);
                    self.0.insert(left, Arc::new(piece));
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
            if self.0.get(&from).is_none_or(|it| !it.is_stored_as(piece)) {
                difference.puts.push((from, piece.to, piece.record.clone()));
            }
        }
        difference
    }
}

impl Piece {
    /// Returns for how many instances it speaks.
    pub(super) fn len(&self, from: u64) -> u64 {
        self.to - from + 1 - self.record.without.count(from..=self.to)
    }

    fn is_stored_as(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || (self.to == other.to && self.record == other.record)
    }
}

/// Tells whether some numbers are within one block.
fn is_block(from: u64, to: u64) -> bool {
    from / BLOCK == to / BLOCK
}

/// Makes one of two neighbours if they say the same. One that is being destroyed stays by itself, so
/// that it can go when its own instances are gone.
fn joined(left: u64, one: &Piece, right: u64, other: &Piece) -> Option<Piece> {
    if one.to.checked_add(1) != Some(right) || other.to - left >= RANGE_MAX {
        return None;
    }
    let (a, b) = (&one.record, &other.record);
    if (!a.without.is_empty() || !b.without.is_empty()) && !is_block(left, other.to) {
        return None;
    }
    let mut without = a.without.clone();
    without.extend(&b.without);
    if a.says_as(b) {
        let record = RangeRecord { without, ..a.clone() };
        return Some(Piece { to: other.to, record, ..one.clone() });
    }
    let is_same = (a.target, a.run) == (b.target, b.run) && !a.deleting && !b.deleting;
    let newest = if b.at > a.at { b } else { a };
    let generation = a.generation.max(b.generation);
    let record = RangeRecord { generation, without, ..newest.clone() };
    is_same.then_some(Piece { to: other.to, record, written: Revision(0) })
}

/// Makes one of two ranges of a block that say the same: who is between them is left out.
fn bridged(left: u64, one: &Piece, right: u64, other: &Piece) -> Option<Piece> {
    if !is_block(left, other.to) {
        return None;
    }
    let mut one = one.clone();
    (one.to + 1..right).for_each(|number| one.record.without.insert(number));
    one.to = right - 1;
    joined(left, &one, right, other)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::records::{Target, VERSION};

    fn record(run: u64, deleting: bool) -> RangeRecord {
        let (target, by, at) = (Target::Launched, "test".to_owned(), Timestamp::UNIX_EPOCH);
        RangeRecord { v: VERSION, target, generation: 1, run, by, at, deleting, without: Without::default() }
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
        assert_eq!(parts(&web), [(1, 9, 1), (10, 20, 2), (21, 100, 1)], "it is noted in its range");
        assert!(web.at(15).is_none() && web.at(101).is_none() && web.at(0).is_none());
        assert_eq!(web.at(16).map(|it| it.to), Some(20));
        web.rewrite(10, 20, |_, _| Some(record(1, false)));
        assert_eq!(parts(&web), [(1, 100, 1)], "equal neighbours are one again");
        assert!(web.at(15).is_some());
    }

    /// Every second instance of a million is destroyed by itself: the ranges stay few and small.
    #[test]
    fn ranges_do_not_become_ever_more() {
        let mut web = Ranges::default();
        for from in (1..1_000_000).step_by(100_000) {
            web.rewrite(from, from + 99_999, |_, _| Some(record(1, false)));
        }
        let before = web.clone();
        (2..=1_000_000).step_by(2).for_each(|number| web.take_out(number));
        assert!((245..=256).contains(&web.len()), "{}", web.len());
        assert_eq!(web.iter().map(|(from, piece)| piece.len(from)).sum::<u64>(), 500_000);
        assert!(web.iter().all(|(_, piece)| crate::records::Record::encode(&piece.record).len() < 1_300));
        assert!(web.at(2).is_none() && web.at(3).is_some() && before.at(2).is_some());
        let mut one = web.clone();
        one.take_out(5);
        assert_eq!(web.difference(&one).puts.len() + web.difference(&one).deletes.len(), 1, "a key each");
        (1..=1_000_000).step_by(2).for_each(|number| web.take_out(number));
        assert_eq!(web, Ranges::none());
    }

    /// Every second instance is destroyed as a range of one: the gaps are closed as fast as they come.
    #[test]
    fn gaps_between_equal_ranges_are_closed_where_there_are_many() {
        let mut web = ranges(&[(1, 4_000, 1)]);
        let mut most = 0;
        for number in (2..4_000).step_by(2) {
            web.rewrite(number, number, |_, _| None);
            web.heal();
            most = most.max(web.len());
        }
        assert!(most <= HEALED_FROM + 2, "{most}");
        assert!((1..4_000).all(|number| web.at(number).is_some() == (number % 2 == 1)));
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

    /// What is said of each number around the end of a block.
    type Model = BTreeMap<u64, u64>;

    fn modelled(ranges: &Ranges) -> Model {
        let numbers = BLOCK - 20..BLOCK + 40;
        numbers.filter_map(|number| Some((number, ranges.at(number)?.record.run))).collect()
    }

    proptest! {
        /// Any orders in any sequence: the ranges never overlap, say what a plain map says, and what is
        /// outside of an order is as before. The difference leads from one to the next.
        #[test]
        fn ranges_are_as_their_model(orders in prop::collection::vec((0..30_u64, 0..8_u64, 0..5_u8), 1..40)) {
            let (mut ranges, mut model) = (Ranges::default(), Model::new());
            // Who is taken out leaves a range cut at the ends of its block.
            let taken = orders.iter().any(|(.., kind)| *kind == 4);
            for (from, more, kind) in orders {
                // Around the end of a block.
                let (from, to, before) = (from + BLOCK - 15, from + more + BLOCK - 15, ranges.clone());
                let said = |old: Option<u64>| match kind {
                    0 | 4 => None,
                    1 => Some(1),
                    2 => old.map(|run| run + 1),
                    _ => old,
                };
                let mut asked = Vec::new();
                if kind == 4 {
                    (from..=to).for_each(|number| ranges.take_out(number));
                    asked.extend(from..=to);
                } else {
                    ranges.rewrite(from, to, |part, old| {
                        asked.extend(part);
                        let run = said(old.map(|it| it.record.run))?;
                        let without = old.map(|it| it.record.without.clone()).filter(|_| kind != 1);
                        Some(RangeRecord { without: without.unwrap_or_default(), ..record(run, false) })
                    });
                }
                prop_assert_eq!(asked, (from..=to).collect::<Vec<_>>(), "each part once, in order");
                for (from, piece) in ranges.iter() {
                    let block = piece.record.without.is_empty() || is_block(from, piece.to);
                    prop_assert!(block && piece.len(from) > 0, "{}-{} {:?}", from, piece.to, piece);
                }
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
                    prop_assert!(!equal || taken, "{:?} are not merged", pair);
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
