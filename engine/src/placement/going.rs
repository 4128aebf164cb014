//! Units that leave a machine together, and whom that leaves alone.
//!
//! Somebody who has to be with any unit that a pattern matches is alone once all of those that it matches go: what
//! no one of them takes away, all of them may. So those who go are counted by pattern, and whoever is alone then
//! is known by a look at its own patterns.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Placement, bits::Slot, model::UnitIx, patterns::PatternIx};

/// Units that leave a machine.
#[derive(Debug, Default)]
pub(super) struct Going {
    /// In the order in which they were taken in.
    pub(super) units: Vec<UnitIx>,
    all: FxHashSet<UnitIx>,
    /// How many of them each pattern matches.
    matched: FxHashMap<PatternIx, usize>,
}

impl Going {
    pub(super) fn of(core: &Placement, units: &[UnitIx]) -> Self {
        let mut going = Self::default();
        for unit in units {
            going.add(core, *unit);
        }
        going
    }

    pub(super) fn contains(&self, unit: UnitIx) -> bool {
        self.all.contains(&unit)
    }

    /// Takes a unit in; tells whether it was not.
    pub(super) fn add(&mut self, core: &Placement, unit: UnitIx) -> bool {
        if !self.all.insert(unit) {
            return false;
        }
        self.units.push(unit);
        for pattern in core.patterns.matches(core.unit(unit).matched) {
            *self.matched.entry(*pattern).or_default() += 1;
        }
        true
    }

    /// Leaves only so many, those that were taken in first.
    pub(super) fn truncate(&mut self, core: &Placement, count: usize) {
        for unit in self.units.drain(count.min(self.units.len())..) {
            self.all.remove(&unit);
            for pattern in core.patterns.matches(core.unit(unit).matched) {
                if let Some(count) = self.matched.get_mut(pattern) {
                    *count -= 1;
                }
            }
        }
    }

    /// How many of them but one unit a pattern matches.
    fn matched_but(&self, core: &Placement, pattern: PatternIx, unit: UnitIx) -> usize {
        let count = self.matched.get(&pattern).copied().unwrap_or(0);
        count - usize::from(self.contains(unit) && core.is_matched(unit, pattern))
    }
}

impl Placement {
    /// Tells whether a unit that stays on a machine would be without whom it has to be with there once these have
    /// left. Those that leave already are as good as gone.
    pub(super) fn loses(&self, unit: UnitIx, going: &Going, slot: Slot) -> bool {
        let class = self.classes.get(self.unit(unit).class);
        let lost = |pattern: &PatternIx| {
            let going = going.matched_but(self, *pattern, unit);
            going > 0 && self.others_placed(unit, *pattern, slot) as usize <= going
        };
        let led = |leader: &UnitIx| *leader != unit && going.contains(*leader);
        class.leaders.iter().any(led) || class.follows.iter().any(lost)
    }

    /// Returns those on a machine that have to be with somebody there.
    pub(super) fn tied_there(&self, slot: Slot) -> Vec<UnitIx> {
        let here = self.machine(slot).units.iter().copied();
        here.filter(|unit| self.classes.get(self.unit(*unit).class).is_tied()).collect()
    }

    /// Adds those to units that leave who may be there only as long as they are. `tied` are all on the machine that
    /// have to be with somebody.
    pub(super) fn add_following(&self, going: &mut Going, from: usize, tied: &[UnitIx], slot: Slot) {
        let mut next = from;
        while let Some(one) = going.units.get(next).copied() {
            next += 1;
            if !self.may_be_followed(one) {
                continue;
            }
            for other in tied {
                if !going.contains(*other) && self.loses(*other, going, slot) {
                    going.add(self, *other);
                }
            }
        }
    }
}
