//! Moves that did not work out: where a unit does not get ready, and where it is not moved to again.
//!
//! A machine that was tried and did not get a unit ready is not tried again for that unit until something about
//! the machine changes, the unit asks for something else, or nothing has to be moved any more: whoever drains
//! again tries again. A unit that had to come back since somebody who has to be with it found no way after all goes
//! only together with it from then on, until another unit has left their machine or asks for something else.

use rustc_hash::FxHashMap;

use super::{
    Placement,
    bits::{Bits, Homes, Slot},
    model::UnitIx,
};

/// What did not work out, by unit; of most units there is nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Setbacks {
    /// Where a unit was told not to get ready by itself.
    failed: FxHashMap<UnitIx, Homes>,
    /// Where a move of it ended like that.
    avoided: FxHashMap<UnitIx, Homes>,
    /// Whose move was taken back because somebody who has to be with it found no way, and from where.
    held_back: FxHashMap<UnitIx, Slot>,
}

impl Setbacks {
    /// Notes whether a unit fails on a machine; tells whether that is news.
    pub(super) fn set_failed(&mut self, unit: UnitIx, slot: Slot, fails: bool) -> bool {
        if fails {
            return self.failed.entry(unit).or_insert(Homes::Nowhere).insert(slot);
        }
        let Some(homes) = self.failed.get_mut(&unit) else { return false };
        let news = homes.remove(slot);
        if homes.is_empty() {
            self.failed.remove(&unit);
        }
        news
    }

    pub(super) fn fails(&self, unit: UnitIx, slot: Slot) -> bool {
        self.failed.get(&unit).is_some_and(|homes| homes.contains(slot))
    }

    /// Notes that a unit is not moved to a machine again.
    pub(super) fn avoid(&mut self, unit: UnitIx, slot: Slot) {
        self.avoided.entry(unit).or_insert(Homes::Nowhere).insert(slot);
    }

    /// Tells whether a unit leaves its machine only together with all who have to be with it there.
    pub(super) fn holds_back(&self, unit: UnitIx) -> bool {
        self.held_back.contains_key(&unit)
    }

    /// Notes that somebody has left a machine, or asks for something else there: who was held back there may go.
    pub(super) fn let_go(&mut self, slot: Slot) {
        self.held_back.retain(|_, at| *at != slot);
    }

    /// Takes the machines out of a set that one of these units is not moved to again.
    pub(super) fn leave_out(&self, units: &[UnitIx], set: &mut Bits) {
        if !self.avoided.is_empty() {
            let homes = units.iter().filter_map(|unit| self.avoided.get(unit));
            homes.flat_map(Homes::iter).for_each(|slot| set.clear(slot));
        }
    }

    /// Forgets what was of a unit.
    pub(super) fn forget(&mut self, unit: UnitIx) {
        self.failed.remove(&unit);
        self.try_again(unit);
    }

    /// Forgets where a unit was not to be moved.
    pub(super) fn try_again(&mut self, unit: UnitIx) {
        self.avoided.remove(&unit);
        self.held_back.remove(&unit);
    }

    /// Forgets what was of a machine: it is another now.
    pub(super) fn forgive(&mut self, slot: Slot) {
        self.avoided.retain(|_, homes| {
            homes.remove(slot);
            !homes.is_empty()
        });
    }

    pub(super) fn renumber(&mut self, new_of: &[Option<Slot>]) {
        for homes in self.failed.values_mut().chain(self.avoided.values_mut()) {
            homes.renumber(new_of);
        }
        let moved = |slot: Slot| new_of.get(slot as usize).copied().flatten();
        self.held_back.retain(|_, slot| {
            let new = moved(*slot);
            *slot = new.unwrap_or(*slot);
            new.is_some()
        });
    }
}

impl Placement {
    /// Notes that a unit, and whoever has to be with it, leave a machine only together from now on.
    pub(super) fn hold_back(&mut self, unit: UnitIx, slot: Slot) {
        let held = self.machine(slot).units.iter().filter(|other| self.needs(**other, unit, slot)).copied();
        let held: Vec<UnitIx> = held.chain([unit]).collect();
        self.setbacks.held_back.extend(held.into_iter().map(|unit| (unit, slot)));
    }

    /// Tells whether somebody who has to be with a unit holds it back on a machine: it is not on its way, and
    /// finds no way from there.
    pub(super) fn is_held_back(&self, unit: UnitIx, slot: Slot) -> bool {
        let machine = self.machine(slot);
        self.may_be_followed(unit)
            && machine.units.iter().any(|other| {
                self.is_at_work(*other)
                    && self.needs(*other, unit, slot)
                    && (!machine.drains() || self.way_out(*other, slot).is_none())
            })
    }
}
