//! `Preempt=`: making room by pushing units of lower priority off a machine.
//!
//! Only for a unit that nothing else helps: no machine can take it, on one of them only room is missing, and
//! what leaves there already will not give enough. Those pushed away have a strictly lower priority, so that
//! this ends; they stop first, since there is no room for both. Who has to be with somebody is not pushed
//! away under a unit of higher priority that needs it there.
//!
//! The lowest priorities go first, then those that help most; who turns out not to be needed is spared. Of
//! several machines that is taken whose highest victim is lowest, then where the fewest have to go.

use std::cmp::Reverse;

use flotilla_registry::records::Departure;
use rustc_hash::FxHashSet;

use super::{
    Decision, Placement, Reason,
    batch::GroupIx,
    bits::{Bits, Slot},
    going::Going,
    model::{Status, UnitIx},
    room::Usage,
};

impl Placement {
    /// Pushes units away for those of a group, of which this is the first, if they may.
    pub(super) fn make_room(&mut self, group: GroupIx, unit: UnitIx, limit: usize, out: &mut Vec<Decision>) {
        if !self.may_push(unit) {
            return;
        }
        let waiting = self.batch.waiting_in(group);
        let set = self.candidates_but_room(unit);
        while out.len() < limit && self.coming(unit, &set, waiting) < waiting {
            let best = set.iter().filter_map(|slot| {
                let victims = self.victims(unit, slot)?;
                let highest = victims.iter().map(|victim| self.priority(*victim)).max()?;
                Some((highest, victims.len(), self.machine(slot).id, slot, victims))
            });
            let Some((.., slot, victims)) = best.min() else { return };
            self.push_away(unit, slot, &victims, out);
        }
    }

    /// Pushes units away for a global one, on each machine where it misses only room.
    pub(super) fn make_room_everywhere(&mut self, unit: UnitIx, limit: usize, out: &mut Vec<Decision>) {
        if !self.may_push(unit) {
            return;
        }
        let mut set = self.candidates_but_room(unit);
        self.unit(unit).placed.iter().for_each(|slot| set.clear(slot));
        for slot in set.iter() {
            let mut only = Bits::default();
            only.set(slot);
            if out.len() < limit
                && self.coming(unit, &only, 1) == 0
                && let Some(victims) = self.victims(unit, slot)
            {
                self.push_away(unit, slot, &victims, out);
            }
        }
    }

    fn may_push(&self, unit: UnitIx) -> bool {
        let class = self.classes.get(self.unit(unit).class);
        class.requirements.preempt && !class.reserve.is_empty()
    }

    fn push_away(&mut self, unit: UnitIx, slot: Slot, victims: &[UnitIx], out: &mut Vec<Decision>) {
        for victim in victims {
            let reason = Reason::Preempted { by: self.unit(unit).name.clone() };
            self.depart(*victim, slot, Departure::Preempted, Some(reason), out);
        }
    }

    /// How many such units the machines of a set will take once all that leaves them is gone; `most` at most.
    pub(super) fn coming(&self, unit: UnitIx, set: &Bits, most: u64) -> u64 {
        let reserve = &self.classes.get(self.unit(unit).class).reserve;
        let mut sum = 0;
        for slot in set.iter() {
            sum += self.used_by_staying(slot).times(reserve, most);
            if sum >= most {
                return most;
            }
        }
        sum
    }

    fn used_by_staying(&self, slot: Slot) -> Usage {
        let machine = self.machine(slot);
        let mut used = machine.used.clone();
        for leaving in &machine.leaving {
            used.sub(&self.classes.get(self.unit(*leaving).class).reserve);
        }
        used
    }

    /// Returns whom a unit would push off a machine; `None` when that would not help.
    fn victims(&self, unit: UnitIx, slot: Slot) -> Option<Vec<UnitIx>> {
        let ask = &self.classes.get(self.unit(unit).class).reserve;
        let mut used = self.used_by_staying(slot);
        let spared = self.followed_by(unit, slot);
        let tied = self.tied_there(slot);
        let mut going = Going::default();
        let may = |victim: &UnitIx| {
            !spared.contains(victim) && self.adds_weaker(&mut Going::default(), *victim, &tied, unit, slot)
        };
        let mut weaker: Vec<UnitIx> = self.machine(slot).units.iter().copied().filter(may).collect();
        weaker.sort_by_cached_key(|victim| {
            let helps = used.helped_by(&self.classes.get(self.unit(*victim).class).reserve, ask);
            (self.priority(*victim), Reverse(helps), self.unit(*victim).name.clone())
        });
        let mut chosen = Vec::new();
        for victim in weaker {
            if used.fits(ask) {
                break;
            }
            let reserve = &self.classes.get(self.unit(victim).class).reserve;
            // Two may go, each without the other, whom somebody follows that is not weaker.
            if used.helped_by(reserve, ask) > 0 && self.adds_weaker(&mut going, victim, &tied, unit, slot) {
                used.sub(reserve);
                chosen.push(victim);
            }
        }
        if !used.fits(ask) || chosen.is_empty() {
            return None;
        }
        // The last chosen have the highest priority: they are spared first.
        for at in (0..chosen.len()).rev() {
            let reserve = &self.classes.get(self.unit(chosen[at]).class).reserve;
            used.add(reserve);
            if used.fits(ask) {
                chosen.remove(at);
            } else {
                used.sub(reserve);
            }
        }
        Some(chosen)
    }

    /// Adds a unit to those that go, if it and everybody who would have to go with it then may be pushed away for
    /// another; tells whether. `tied` are all on the machine that have to be with somebody.
    fn adds_weaker(
        &self,
        going: &mut Going,
        victim: UnitIx,
        tied: &[UnitIx],
        by: UnitIx,
        slot: Slot,
    ) -> bool {
        let priority = self.priority(by);
        let asks = |unit: UnitIx| &self.classes.get(self.unit(unit).class).requirements;
        let may = |unit: &UnitIx| {
            self.unit(*unit).status == Status::Wanted
                && asks(*unit).priority < priority
                && !asks(*unit).sticky
        };
        let before = going.units.len();
        going.add(self, victim);
        self.add_following(going, before, tied, slot);
        let all = going.units[before..].iter().all(may);
        if !all {
            going.truncate(self, before);
        }
        all
    }

    /// All on a machine without whom a unit could not be there.
    fn followed_by(&self, unit: UnitIx, slot: Slot) -> FxHashSet<UnitIx> {
        let (mut all, mut seen) = (vec![unit], FxHashSet::default());
        while let Some(one) = all.pop() {
            let class = self.classes.get(self.unit(one).class);
            let here = self.machine(slot).units.iter().copied();
            let follows = |other: &UnitIx| {
                class.leaders.contains(other) || class.follows.iter().any(|p| self.is_matched(*other, *p))
            };
            if class.is_tied() {
                all.extend(here.filter(follows).filter(|other| seen.insert(*other)));
            }
        }
        seen
    }
}
