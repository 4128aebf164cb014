//! Evening machines out, by a user's word and within a budget.
//!
//! A unit is moved only if that makes the machines more even and nothing worse: the one that it leaves keeps
//! more than the one that it goes to then has, in dominant share for a unit that reserves, else in number of
//! units; no wish that is met is given up, and nothing that is spread comes closer together. Each unit is
//! moved once at most, with all that have to be with it, and starts elsewhere before it stops. The units
//! that a move leaves behind do not count any more: they are as good as gone.

use std::cmp::Reverse;

use flotilla_registry::records::Departure;
use flotilla_units::{MachineId, UnitName};
use rustc_hash::FxHashSet;

use super::{Decision, Placement, bits::Slot, model::UnitIx};

impl Placement {
    /// Moves up to `budget` units from machines with much to machines with little. The model takes each move
    /// as begun.
    ///
    /// # Guarantees
    /// Asked when nothing else is to be decided, equal facts give equal moves; each makes the machines more
    /// even, so it ends.
    #[must_use]
    pub fn rebalance(&mut self, budget: usize) -> Vec<Decision> {
        self.settle();
        let mut moved = FxHashSet::default();
        let mut out = Vec::new();
        while let Some((units, from, to)) = self.evening_move(budget - out.len(), &moved) {
            for unit in units {
                moved.insert(unit);
                self.start_move(unit, from, to, Departure::Rebalanced, &mut out);
            }
        }
        out
    }

    /// Takes all that is under way, and all that is decided, as come true, and decides on until there is nothing
    /// left: what has to leave is gone, and what is started elsewhere is ready there. Returns the decisions.
    #[must_use]
    pub fn come_true(&mut self) -> Vec<Decision> {
        let mut all = Vec::new();
        for _ in 0..ROUNDS_MAX {
            self.finish_what_is_under_way();
            let decisions = self.decide(usize::MAX);
            if decisions.is_empty() {
                break;
            }
            all.extend(decisions);
        }
        all
    }

    fn finish_what_is_under_way(&mut self) {
        let leaving =
            self.machines.iter().flat_map(|machine| machine.leaving.iter().map(|unit| (*unit, machine.id)));
        let mut gone: Vec<(UnitName, MachineId)> =
            leaving.map(|(unit, id)| (self.unit(unit).name.clone(), id)).collect();
        gone.sort_unstable();
        for (unit, machine) in gone {
            self.clear_departing(&unit, machine);
        }
        let moving = self.machines.iter().flat_map(|machine| &machine.moving);
        let started = moving.flat_map(|unit| self.unit(*unit).placed.iter().map(|slot| (*unit, slot)));
        let mut started: Vec<(UnitName, MachineId)> =
            started.map(|(unit, slot)| (self.unit(unit).name.clone(), self.machine(slot).id)).collect();
        started.sort_unstable();
        for (unit, machine) in started {
            self.set_ready(&unit, machine);
        }
    }

    /// Imagines that a machine is drained.
    pub fn drain(&mut self, id: MachineId) {
        let view = self.by_id.get(&id).and_then(|slot| self.machine(*slot).view.clone());
        if let Some(mut view) = view {
            view.draining = true;
            self.set_machine(id, view);
        }
    }

    /// Returns the machines that live, by id.
    pub fn living_machines(&self) -> impl Iterator<Item = MachineId> {
        self.living.keys().copied()
    }

    /// Returns the first move that makes the machines more even: off the fullest machine, of the first unit by
    /// name.
    fn evening_move(&self, left: usize, moved: &FxHashSet<UnitIx>) -> Option<(Vec<UnitIx>, Slot, Slot)> {
        let lives = self.living.values().copied();
        let mut sources: Vec<Slot> = lives
            .filter(|slot| !self.machine(*slot).drains() && !self.machine(*slot).units.is_empty())
            .collect();
        sources.sort_by_cached_key(|slot| (Reverse(self.fullness(*slot)), self.machine(*slot).id));
        sources.into_iter().find_map(|from| {
            let mut units: Vec<UnitIx> = self.machine(from).units.iter().copied().collect();
            units.retain(|unit| !moved.contains(unit) && self.is_movable(*unit, from));
            units.sort_by(|a, b| self.unit(*a).name.cmp(&self.unit(*b).name));
            // Equal units have equal answers.
            let mut asked = FxHashSet::default();
            units.into_iter().find_map(|unit| {
                let it = self.unit(unit);
                let alone = !self.classes.get(it.class).is_tied() && !self.may_be_followed(unit);
                if alone && !asked.insert((it.class, it.matched)) {
                    return None;
                }
                let (units, to) = self.way_out(unit, from)?;
                let fits = units.len() <= left && !units.iter().any(|unit| moved.contains(unit));
                (fits && self.evens(&units, from, to)).then_some((units, from, to))
            })
        })
    }

    /// How full a machine is with what stays there: dominant share, then units.
    fn fullness(&self, slot: Slot) -> (u32, usize) {
        let machine = self.machine(slot);
        let units: Vec<UnitIx> = machine.units.iter().copied().collect();
        (machine.used.share_of(&self.ask_of(&units)), units.len())
    }

    /// Tells whether units that go from one machine to another make these two more even, and nothing worse.
    fn evens(&self, units: &[UnitIx], from: Slot, to: Slot) -> bool {
        let wishes = |slot: Slot| -> i32 { units.iter().map(|unit| self.wishes_met(*unit, slot)).sum() };
        if wishes(to) < wishes(from) || units.iter().any(|unit| self.crowds(*unit, from, to)) {
            return false;
        }
        let mine = self.ask_of(units);
        if mine.is_empty() {
            return self.machine(to).units.len() + units.len() < self.machine(from).units.len();
        }
        let there: Vec<UnitIx> = self.machine(to).units.iter().chain(units).copied().collect();
        self.machine(to).used.share_of(&self.ask_of(&there)) < self.fullness(from).0
    }

    /// Tells whether an instance would come to more of its template than it leaves, by what it is spread over.
    fn crowds(&self, unit: UnitIx, from: Slot, to: Slot) -> bool {
        let others = self.siblings_placed(unit);
        let count = |key: &str, slot: Slot| -> u32 {
            let value = self.value_of(slot, key);
            others.iter().filter(|(at, _)| self.value_of(*at, key) == value).map(|(_, count)| count).sum()
        };
        let mut keys = self.spread_keys(unit);
        keys.any(|(key, _)| {
            self.value_of(from, key) != self.value_of(to, key) && count(key, to) > count(key, from)
        })
    }
}

/// How often it is decided anew before it is said how things are. A thousand: each round is a step that some unit
/// waits for, such as the next of a chain of `MachineOf=`.
const ROUNDS_MAX: usize = 1_000;
