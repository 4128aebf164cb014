//! Evening machines out, by a user's word and within a budget.
//!
//! A unit is moved only if that makes the machines more even and nothing worse: the one that it leaves keeps
//! more than the one that it goes to then has, in dominant share where the move changes that, else in number of
//! units; no wish that is met is given up, nothing that is spread comes closer together, and nobody is pushed
//! off a machine. Each unit is
//! moved once at most, with all that have to be with it, and starts elsewhere before it stops. The units
//! that a move leaves behind do not count any more: they are as good as gone.

use std::cmp::Reverse;

use flotilla_registry::records::Departure;
use flotilla_units::{MachineId, UnitName};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Decision, Placement, bits::Slot, going::Going, model::UnitIx};

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
        while out.len() < budget {
            let found = self.evening_move(budget - out.len(), &moved);
            let Some((units, from, to)) = found else { break };
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
    ///
    /// What was asked in vain for one machine is not asked for a less full one, so where all is even this
    /// costs a look at each unit of those that are fuller than the emptiest, and a search for each kind of unit.
    fn evening_move(&self, left: usize, moved: &FxHashSet<UnitIx>) -> Option<(Vec<UnitIx>, Slot, Slot)> {
        let lives = self.living.values().copied();
        let mut sources: Vec<Slot> = lives
            .filter(|slot| !self.machine(*slot).drains() && !self.machine(*slot).units.is_empty())
            .collect();
        let fullness: FxHashMap<Slot, (u32, usize)> = sources
            .iter()
            .chain(&self.open.iter().collect::<Vec<_>>())
            .map(|slot| (*slot, self.fullness(*slot)))
            .collect();
        let open = || self.open.iter().filter_map(|slot| fullness.get(&slot));
        let least = (open().map(|it| it.0).min()?, open().map(|it| it.1).min()?);
        sources.retain(|slot| fullness[slot].0 > least.0 || fullness[slot].1 > least.1 + 1);
        sources.sort_by_cached_key(|slot| (Reverse(fullness[slot]), self.machine(*slot).id));
        let mut vain = FxHashSet::default();
        sources.into_iter().find_map(|from| {
            let kind = |unit: UnitIx| {
                let it = self.unit(unit);
                let alone = !self.classes.get(it.class).is_tied() && !self.may_be_followed(unit);
                alone.then_some((it.class, it.matched))
            };
            let mut units: Vec<UnitIx> = self.machine(from).units.iter().copied().collect();
            let asked =
                |unit: UnitIx, vain: &FxHashSet<_>| kind(unit).is_some_and(|kind| vain.contains(&kind));
            units
                .retain(|unit| !moved.contains(unit) && !asked(*unit, &vain) && self.is_movable(*unit, from));
            units.sort_by(|a, b| self.unit(*a).name.cmp(&self.unit(*b).name));
            // Equal units have equal answers.
            let mut here = FxHashSet::default();
            units.into_iter().find_map(|unit| {
                let kind = kind(unit);
                if kind.is_some_and(|kind| vain.contains(&kind) || !here.insert(kind)) {
                    return None;
                }
                let way = self.way_out(unit, from);
                let Some((units, to)) = way.filter(|(units, to)| self.is_fuller(units, from, *to)) else {
                    vain.extend(kind);
                    return None;
                };
                let fits = units.len() <= left && !units.iter().any(|unit| moved.contains(unit));
                (fits && self.worsens_nothing(&units, from, to)).then_some((units, from, to))
            })
        })
    }

    /// How full a machine is with what stays there: dominant share, then units.
    fn fullness(&self, slot: Slot) -> (u32, usize) {
        let machine = self.machine(slot);
        let units: Vec<UnitIx> = machine.units.iter().copied().collect();
        (machine.used.share_of(&self.ask_of(&units)), units.len())
    }

    /// Tells whether a machine keeps more than another has once units went there from it.
    fn is_fuller(&self, units: &[UnitIx], from: Slot, to: Slot) -> bool {
        let evens_numbers = self.machine(to).units.len() + units.len() < self.machine(from).units.len();
        if self.ask_of(units).is_empty() {
            return evens_numbers;
        }
        let share = |slot: Slot, units: &[UnitIx]| self.machine(slot).used.share_of(&self.ask_of(units));
        let stay: Vec<UnitIx> =
            self.machine(from).units.iter().copied().filter(|unit| !units.contains(unit)).collect();
        let there: Vec<UnitIx> = self.machine(to).units.iter().chain(units).copied().collect();
        let before = (self.fullness(from).0, self.fullness(to).0);
        let after = (share(from, &stay), share(to, &there));
        // Shares come first and numbers only where they are as before: else one would undo the other for ever.
        if after == before { evens_numbers } else { after.0.max(after.1) < before.0 }
    }

    /// Tells whether one that stays may be there only as long as one of these units is: it would have to move too,
    /// beside the budget and without being started elsewhere first.
    fn strands(&self, units: &[UnitIx], from: Slot) -> bool {
        let going = Going::of(self, units);
        let mut staying = self.machine(from).units.iter().copied().filter(|unit| !units.contains(unit));
        units.iter().any(|unit| self.may_be_followed(*unit))
            && staying.any(|other| self.loses(other, &going, from))
    }

    /// Tells whether units that go from one machine to another lose no wish, come no closer together,
    /// and leave or push nobody out of their place.
    fn worsens_nothing(&self, units: &[UnitIx], from: Slot, to: Slot) -> bool {
        let wishes = |slot: Slot| -> i32 { units.iter().map(|unit| self.wishes_met(*unit, slot)).sum() };
        let crowds = units.iter().any(|unit| self.crowds(*unit, from, to));
        wishes(to) >= wishes(from) && !crowds && !self.would_push(units, to) && !self.strands(units, from)
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
