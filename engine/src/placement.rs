//! Who runs what: the pure placement core.
//!
//! Owns the model of machines and units, and where each unit is or is meant to be. The leader loop
//! tells it what changed, one call for each fact, and asks it to [decide](Placement::decide); the API
//! asks it to [explain](Placement::explain). It never sees a clock, a socket or a random number, and
//! never writes: equal facts give equal decisions, in whatever order they were told.
//!
//! The rules, in one place:
//!
//! - A unit that can stay, stays. Only an order, a broken requirement, a drain, the loss of its machine, a
//!   unit with `Replaces=` or one that preempts it moves it, and a rebalance by a user's word. A reservation
//!   that grows in place breaks nothing: it is counted, and shown.
//! - Nothing is reserved twice: what is placed, moves or departs holds what its unit asks for now.
//! - A unit that reserves nothing goes to the machine with the fewest units (departing ones count) that may
//!   have it, one that reserves to the one with the lowest dominant share once it is there, then the fewest
//!   units. Before that come the values of `Spread=` with the fewest instances, then the wishes of `Prefer=`
//!   that are met. Ties go to the lowest machine id.
//! - Of those that wait the highest priority is placed first. `Preempt=` pushes lower priorities away where
//!   nothing but room is missing and nothing else helps.
//! - A move by a drain or a rebalance starts first: [`Decision::Move`], then, once told by
//!   [`Placement::set_ready`], [`Decision::Depart`]. A unit that no other machine takes stays.
//! - Every other move has two phases the other way round: [`Decision::Depart`], then, once told by
//!   [`Placement::clear_departing`] that the unit is proven gone or by [`Placement::remove_machine`] that the
//!   machine is dead, [`Decision::Place`] elsewhere.
//! - A unit on a dead machine keeps that placement until another machine can take it: the `Depart`
//!   with `MachineLost` comes together with the `Place`. If its machine returns first, it stays.
//! - What the core was never told of is left alone: a placement of a unit that nobody has set counts
//!   for load and conflicts, and does not move.

mod batch;
mod bits;
mod brief;
mod bundle;
mod by_name;
mod classes;
mod decide;
mod entries;
mod explain;
mod going;
mod keys;
mod levels;
mod membership;
mod model;
mod moves;
mod patterns;
mod preempt;
mod ranking;
mod rankings;
mod rebalance;
mod room;
mod rules;
mod setbacks;
mod stems;
mod view;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flotilla_registry::records::Departure;
use flotilla_units::{MachineId, UnitName, UnitRequirements};
use rustc_hash::{FxHashMap, FxHashSet};

pub use explain::{Explanation, LeaderIs, Reason, Standing, Verdict};
pub use room::Resource;
pub use view::{Decision, MachineView, UnitView, Wanted};

use batch::Batch;
pub(crate) use batch::GroupIx;
use bits::{Bits, Slot};
use by_name::ByName;
use classes::{ClassIx, Classes, Selectors};
use keys::Keys;
use levels::Levels;
use model::{Entry, Machine, Status, Unit, UnitIx};
use patterns::{MatchIx, Patterns};
use rankings::Rankings;
use room::Names;
use rules::Precedence;
use setbacks::Setbacks;
use stems::Stems;

/// The model of machines and units, and the decisions about them.
///
/// Names and ids are interned, units with equal requirements share a class, and who may go where is a
/// set of machines: the cost of a decision does not grow with the number of units, and with the number of
/// machines only by a bit for each.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    machines: Vec<Machine>,
    by_id: FxHashMap<MachineId, Slot>,
    /// The machines that live, by id and by host name in lower case.
    living: BTreeMap<MachineId, Slot>,
    by_host: FxHashMap<String, Vec<Slot>>,
    /// The names of what machines have to give.
    resources: Names,
    /// A slot was given out of the order of machine ids.
    disordered: bool,
    /// The machines that may get units, and the same by load.
    open: Bits,
    levels: Levels,
    units: Vec<Unit>,
    free_units: Vec<UnitIx>,
    by_name: ByName,
    stems: Stems,
    /// The global units that are wanted.
    globals: FxHashSet<UnitIx>,
    classes: Classes,
    /// The class that was asked for last, by what: instances of a template come one after the other.
    last_class: Option<(Arc<UnitRequirements>, ClassIx)>,
    /// The classes that name a unit in `MachineOf=`.
    followers: FxHashMap<UnitIx, Vec<ClassIx>>,
    selectors: Selectors,
    keys: Keys,
    patterns: Patterns,
    rankings: Rankings,
    batch: Batch,
    /// Grows with everything that may let a unit go where it could not.
    age: u64,
    /// Units that move, or are on a machine that is drained: they are asked in each `decide`.
    restless: FxHashSet<UnitIx>,
    /// Those of them that have to find a place elsewhere.
    shift: BTreeSet<(i16, Precedence, UnitIx)>,
    /// What did not work out of moves.
    setbacks: Setbacks,
    /// Kinds of unit that found none in this `decide`.
    hopeless: FxHashSet<(ClassIx, MatchIx)>,
    /// Groups that are stuck and may push others away.
    preemptors: FxHashSet<GroupIx>,
}

impl Placement {
    /// Makes an empty model.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells that a machine lives, and what it is like.
    pub fn set_machine(&mut self, id: MachineId, machine: MachineView) {
        self.change_machine(id, Some(machine));
    }

    /// Tells that a machine is dead: its units are to be placed again, and what departs from it stands
    /// in nobody's way.
    pub fn remove_machine(&mut self, id: MachineId) {
        if self.by_id.contains_key(&id) {
            self.change_machine(id, None);
        }
    }

    /// Tells what a unit asks for and whether it belongs on a machine.
    pub fn set_unit(&mut self, name: &UnitName, unit: UnitView) {
        let class = self.join_class(&unit.requirements);
        let ix = self.intern(name);
        let status = match unit.wanted {
            Wanted::Nowhere => Status::Inactive,
            Wanted::Placed => Status::Wanted,
            Wanted::AsIs => Status::Kept,
        };
        let it = &mut self.units[ix as usize];
        if (it.class, it.status) == (class, status) {
            return self.leave_class(class);
        }
        it.status = status;
        self.reclass(ix, class);
        self.touch_placed(ix);
        self.leader_changed(ix);
    }

    /// Tells that a unit is destroyed: what is placed of it leaves, and it is forgotten with the last
    /// of its entries. A unit that was never set becomes one that was destroyed.
    pub fn remove_unit(&mut self, name: &UnitName) {
        let Some(ix) = self.find(name) else { return };
        self.units[ix as usize].status = Status::Destroyed;
        self.refresh(ix);
        self.touch_placed(ix);
        self.leader_changed(ix);
        self.forget(ix);
    }

    /// Tells that a manifest has an entry of the unit that is not departing. Saying it again, or after
    /// the `Place` that led to it, changes nothing.
    pub fn set_placed(&mut self, name: &UnitName, machine: MachineId) {
        let (unit, slot) = (self.intern(name), self.slot_of(machine));
        if self.enter(unit, slot, Entry::Placed) {
            self.refresh(unit);
            self.touch(unit);
            self.leader_changed(unit);
        }
    }

    /// Tells that a manifest has no such entry (any more).
    pub fn clear_placed(&mut self, name: &UnitName, machine: MachineId) {
        self.clear(name, machine, Entry::Placed);
    }

    /// Tells that a manifest has an entry of the unit that becomes a departing one once the unit is ready
    /// elsewhere. The placement that it was has to be cleared too.
    pub fn set_moving(&mut self, name: &UnitName, machine: MachineId, why: Departure) {
        let (unit, slot) = (self.intern(name), self.slot_of(machine));
        let news = self.enter(unit, slot, Entry::Moving);
        if self.units[unit as usize].moves_for.replace(why) != Some(why) || news {
            self.refresh(unit);
            self.touch(unit);
            self.leader_changed(unit);
        }
    }

    /// Tells that a manifest has no such entry (any more).
    pub fn clear_moving(&mut self, name: &UnitName, machine: MachineId) {
        self.clear(name, machine, Entry::Moving);
    }

    /// Tells that a unit is ready where it is placed. Only of those that are moving it has to be told.
    pub fn set_ready(&mut self, name: &UnitName, machine: MachineId) {
        self.change_ready(name, machine, true);
    }

    /// Tells that it is not (any more).
    pub fn clear_ready(&mut self, name: &UnitName, machine: MachineId) {
        self.change_ready(name, machine, false);
    }

    /// Tells whether a unit does not get ready by itself where it is placed, for as long as nothing changes. Only
    /// of those that are moving it has to be told: the move is taken back.
    pub fn set_failing(&mut self, name: &UnitName, machine: MachineId, fails: bool) {
        let Some(unit) = self.find(name) else { return };
        let Some(slot) = self.by_id.get(&machine).copied() else { return };
        if self.setbacks.set_failed(unit, slot, fails && self.unit(unit).placed.contains(slot)) {
            self.touch(unit);
        }
    }

    /// Tells that a manifest has a departing entry of the unit. The placement that it was, if it was
    /// one, has to be cleared too.
    pub fn set_departing(&mut self, name: &UnitName, machine: MachineId) {
        let (unit, slot) = (self.intern(name), self.slot_of(machine));
        if self.enter(unit, slot, Entry::Departing) {
            self.refresh(unit);
        }
    }

    /// Tells that a manifest has no departing entry of the unit (any more): it is proven gone.
    pub fn clear_departing(&mut self, name: &UnitName, machine: MachineId) {
        self.clear(name, machine, Entry::Departing);
    }

    /// Decides what to write next; empty when there is nothing to do. The model takes each decision as
    /// done.
    ///
    /// `limit` is where it stops, after what belongs together: a move off a dead machine is two decisions,
    /// and units tied by `MachineOf=` come in one piece. What it leaves over is put in order again by the
    /// next call, which looks once at each kind of unit: a limit should be in the hundreds or more.
    ///
    /// # Guarantees
    /// Called until it is empty, it ends, and then every unit that is wanted and has no machine has a
    /// [reason](Placement::explain) for each. Departures are decided before anything is placed.
    #[must_use]
    pub fn decide(&mut self, limit: usize) -> Vec<Decision> {
        self.decide_some(limit)
    }

    /// Explains why a unit is where it is, and for each machine why it is not there.
    #[must_use]
    pub fn explain(&self, name: &UnitName) -> Explanation {
        self.explain_unit(name)
    }

    /// Tells whether a unit is on no machine that lives, and one that does can take it now.
    #[must_use]
    pub fn has_room(&self, name: &UnitName) -> bool {
        let unit = self.find(name);
        unit.is_some_and(|unit| matches!(self.standing(unit), Standing::Placeable(_)))
    }

    /// Explains what would become of a unit if it were set like this. The model is changed and changed
    /// back; nothing is decided.
    #[must_use]
    pub fn what_if(&mut self, name: &UnitName, unit: UnitView) -> Explanation {
        let before = self.find(name).map(|ix| {
            let it = self.unit(ix);
            (it.status, self.classes.get(it.class).requirements.clone())
        });
        let setbacks = self.setbacks.clone();
        self.set_unit(name, unit);
        let answer = self.explain_unit(name);
        let (status, requirements) = before.unwrap_or((Status::Unknown, Default::default()));
        let class = self.join_class(&requirements);
        let ix = self.intern(name);
        self.units[ix as usize].status = status;
        self.reclass(ix, class);
        self.touch_placed(ix);
        self.leader_changed(ix);
        self.setbacks = setbacks;
        self.forget(ix);
        answer
    }

    /// Returns where a unit is placed, dead machines included, by machine id.
    #[must_use]
    pub fn placed_on(&self, name: &UnitName) -> Vec<MachineId> {
        let unit = self.find(name).map(|ix| self.unit(ix));
        let slots = unit.into_iter().flat_map(|unit| unit.placed.iter());
        let mut ids: Vec<MachineId> = slots.map(|slot| self.machine(slot).id).collect();
        ids.sort_unstable();
        ids
    }

    /// Tells whether a unit is placed on a machine.
    #[must_use]
    pub fn is_placed_on(&self, name: &UnitName, machine: MachineId) -> bool {
        let (unit, slot) = (self.find(name), self.by_id.get(&machine));
        unit.zip(slot).is_some_and(|(unit, slot)| self.unit(unit).placed.contains(*slot))
    }

    /// Returns how many units a machine has, departing ones included.
    #[must_use]
    pub fn load(&self, machine: MachineId) -> u32 {
        self.by_id.get(&machine).map_or(0, |slot| self.machine(*slot).load)
    }

    /// Returns how many units, not counting global ones, are wanted, not departing, and have no machine.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.batch.waiting
    }

    /// Returns where a unit is only until it is ready elsewhere, by machine id.
    #[must_use]
    pub fn moving_on(&self, name: &UnitName) -> Vec<MachineId> {
        let unit = self.find(name).map(|ix| self.unit(ix));
        let slots = unit.into_iter().flat_map(|unit| unit.moving.iter());
        let mut ids: Vec<MachineId> = slots.map(|slot| self.machine(slot).id).collect();
        ids.sort_unstable();
        ids
    }

    /// Returns the share of a machine that is reserved, of that resource of which it is most, in millionths.
    #[must_use]
    pub fn dominant_share(&self, machine: MachineId) -> u64 {
        let slot = self.by_id.get(&machine);
        let share = slot.map_or(0, |slot| self.machine(*slot).used.share());
        u64::from(share) * 1_000_000 / u64::from(room::WHOLE)
    }

    fn change_ready(&mut self, name: &UnitName, machine: MachineId, ready: bool) {
        let Some(unit) = self.find(name) else { return };
        let Some(slot) = self.by_id.get(&machine).copied() else { return };
        let it = &mut self.units[unit as usize];
        let news =
            if ready { it.placed.contains(slot) && it.ready.insert(slot) } else { it.ready.remove(slot) };
        if news {
            self.touch(unit);
        }
    }

    fn clear(&mut self, name: &UnitName, machine: MachineId, entry: Entry) {
        let (Some(unit), Some(slot)) = (self.find(name), self.by_id.get(&machine).copied()) else {
            return;
        };
        if self.exit(unit, slot, entry) {
            self.refresh(unit);
            self.touch(unit);
            self.leader_changed(unit);
            self.forget(unit);
        }
    }

    fn touch_placed(&mut self, unit: UnitIx) {
        let it = self.unit(unit);
        if !it.placed.is_empty() || !it.moving.is_empty() {
            self.touch(unit);
        }
    }
}
