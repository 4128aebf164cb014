//! The placement core, kept in step with the cluster state.
//!
//! Owns the [`Placement`] and tells it what the state says, one fact at a time. Every seat keeps
//! one: it answers `why`, and the seat that becomes leader decides at once. It never writes and
//! never judges a decision; the leader's planning does.
//!
//! What the core takes as done (a decision) and what the state says can differ for a moment. Each
//! [`Model::sync`] of a unit puts the state's word back, so a decision that was not carried out is
//! simply taken anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flotilla_registry::records::Departure;
use flotilla_units::{MachineId, UnitName, UnitRequirements};
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::{
    placement::{Decision, Explanation, MachineView, Placement, Reason, UnitView, Wanted},
    state::{Changes, ClusterState, Homes, Life, Machine, NameSet, Placed, Readiness, Wish},
};

/// Entries that may get their owner's new text now.
pub(crate) type Turns = BTreeSet<(UnitName, MachineId)>;

/// The placement core and what it was told.
#[derive(Debug, Default)]
pub struct Model {
    core: Placement,
    /// Where the core believes units to be departing.
    departing: FxHashMap<UnitName, BTreeSet<MachineId>>,
    /// The mass-loss brake holds: machines that are away are taken for closed, not for dead.
    held: bool,
    /// The turns that the leader gave.
    turns: Turns,
    /// Where units that move have been ready for long enough.
    settled: BTreeSet<(UnitName, MachineId)>,
    /// The core may hold what a leader decided or said, and the state does not show.
    ahead: bool,
}

impl Model {
    /// Makes the core agree with the state about everything that changed.
    pub fn sync(&mut self, state: &ClusterState, changes: &Changes) {
        for id in &changes.machines {
            self.sync_machine(*id, state.machines().get(id));
        }
        for unit in &changes.units {
            self.sync_unit(state, unit);
        }
    }

    /// Makes the core agree with the state about everything, for a new term. Only where an earlier one has decided
    /// something it differs in more than what the brake says of machines that are away.
    pub(crate) fn take_office(&mut self, state: &ClusterState, held: bool) {
        self.hold(held);
        self.clear_turns();
        if std::mem::take(&mut self.ahead) {
            return self.sync(state, &state.everything());
        }
        let machines = state.machines().iter();
        let lost = machines.filter(|(_, machine)| machine.life() == Life::Lost);
        let units = lost.flat_map(|(_, machine)| machine.entries().map(|entry| entry.unit.clone())).collect();
        let machines = state.machines().keys().copied().collect();
        self.sync(state, &Changes { units, machines, ..Changes::default() });
    }

    /// Takes in whether the mass-loss brake holds; the machines and units that it is about have to
    /// be told again by [`Model::sync`].
    pub const fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Returns the entries that may get their owner's new text now.
    pub(crate) const fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Takes turns away and gives others; returns the units for which that makes a difference: they have
    /// to be told again by [`Model::sync`].
    pub(crate) fn change_turns(&mut self, old: Turns, new: Turns) -> NameSet {
        self.ahead |= !new.is_empty();
        let changed = old.symmetric_difference(&new).map(|(unit, _)| unit.clone()).collect();
        self.turns.retain(|turn| !old.contains(turn));
        self.turns.extend(new);
        changed
    }

    /// Takes all turns away, and what has settled: the leader's term is over. Everything has to be told again.
    pub(crate) fn clear_turns(&mut self) {
        self.turns.clear();
        self.settled.clear();
    }

    /// Takes in that a unit that moves has been ready for long enough where it goes; it has to be told again by
    /// [`Model::sync`].
    pub(crate) fn settle(&mut self, unit: &UnitName, machine: MachineId) {
        self.ahead = true;
        self.settled.insert((unit.clone(), machine));
    }

    /// Takes in that it is not ready there any more, or moves no more.
    pub(crate) fn unsettle(&mut self, unit: &UnitName, machine: MachineId) {
        self.settled.remove(&(unit.clone(), machine));
    }

    /// Tells whether any machine could have a unit if it asked for this.
    pub(crate) fn fits(&mut self, unit: &UnitName, requirements: Arc<UnitRequirements>) -> bool {
        // A machine that gets nothing new keeps what it has.
        let here = self.core.placed_on(unit);
        let closed = |reason: &Reason| matches!(reason, Reason::NotSchedulable | Reason::Draining);
        let explanation = self.explain_if(unit, requirements);
        explanation.machines.iter().any(|verdict| {
            let mut reasons = verdict.reasons.iter();
            reasons.all(|reason| closed(reason) && here.contains(&verdict.machine))
        })
    }

    /// Asks the core what would become of a unit if it asked for this. Nothing is changed by it.
    pub(crate) fn explain_if(&mut self, unit: &UnitName, requirements: Arc<UnitRequirements>) -> Explanation {
        self.core.what_if(unit, UnitView { requirements, wanted: Wanted::Placed })
    }

    /// Returns every rule that would keep a unit from a machine if it asked for this; `None` if the machine
    /// does not live.
    pub(crate) fn refusals(
        &mut self,
        unit: &UnitName,
        requirements: Arc<UnitRequirements>,
        machine: MachineId,
    ) -> Option<Vec<Reason>> {
        let told = self.core.what_if(unit, UnitView { requirements, wanted: Wanted::Placed });
        told.machines.into_iter().find(|verdict| verdict.machine == machine).map(|verdict| verdict.reasons)
    }

    /// Asks the core what to write next.
    pub fn decide(&mut self, limit: usize) -> Vec<Decision> {
        let decisions = self.core.decide(limit);
        self.ahead |= !decisions.is_empty();
        for decision in &decisions {
            if let Decision::Depart { unit, machine, .. } = decision {
                self.departing.entry(unit.clone()).or_default().insert(*machine);
            }
        }
        decisions
    }

    /// Returns the core, to foresee with a copy of it.
    #[must_use]
    pub const fn core(&self) -> &Placement {
        &self.core
    }

    /// Tells the core something by itself.
    #[cfg(test)]
    pub(crate) const fn core_mut(&mut self) -> &mut Placement {
        self.ahead = true;
        &mut self.core
    }

    /// Has the core even machines out.
    pub fn rebalance(&mut self, budget: usize) -> Vec<Decision> {
        self.ahead = true;
        self.core.rebalance(budget)
    }

    /// Asks the core why a unit is where it is.
    #[must_use]
    pub fn explain(&self, unit: &UnitName) -> Explanation {
        self.core.explain(unit)
    }

    /// Tells whether a unit is on no machine that lives, and one that does can take it now. Asked while
    /// the brake holds, the answer is no: machines that are away are taken for closed then.
    #[must_use]
    pub fn has_room(&self, unit: &UnitName) -> bool {
        self.core.has_room(unit)
    }

    fn sync_machine(&mut self, id: MachineId, machine: Option<&Machine>) {
        let Some(machine) = machine else { return self.core.remove_machine(id) };
        if machine.life() == Life::Lost && !self.held {
            return self.core.remove_machine(id);
        }
        let closed = machine.closed().is_some();
        let view = MachineView {
            host: machine.known().map_or_else(|| id.short(), |record| record.host.clone()),
            metadata: machine.metadata(),
            schedulable: !closed,
            // Where nobody hears the order to stop, what is started elsewhere would run twice until somebody does.
            draining: machine.life() == Life::Present && machine.draining(),
            capacity: machine.known().map(|record| record.capacity.clone()).unwrap_or_default(),
        };
        self.core.set_machine(id, view);
    }

    fn sync_unit(&mut self, state: &ClusterState, unit: &UnitName) {
        let entries = state.placed(unit);
        let (mut placed, mut moving, mut departing) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        for entry in &entries {
            match (entry.entry.departing, entry.entry.moving) {
                (None, None) => drop(placed.insert(entry.machine)),
                (None, Some(why)) => drop(moving.insert(entry.machine, why)),
                (Some(_), _) if !entry.proven_gone => drop(departing.insert(entry.machine)),
                (Some(_), _) => {}
            }
        }
        // Each entry of a global unit stands for itself.
        if !moving.is_empty()
            && matches!(state.wish(unit), Wish::Wanted(wanted) if wanted.requirements.global)
        {
            placed.extend(std::mem::take(&mut moving).into_keys());
        }
        // A machine can have a new entry beside an older departing one only for a moment that the
        // leader never makes; should it be so, the core is told of the one that runs.
        departing.retain(|id| !placed.contains(id) && !moving.contains_key(id));
        moving.retain(|id, _| !placed.contains(id));
        for id in self.core.placed_on(unit) {
            if !placed.contains(&id) {
                self.core.clear_placed(unit, id);
            }
        }
        for id in self.core.moving_on(unit) {
            if !moving.contains_key(&id) {
                self.core.clear_moving(unit, id);
            }
        }
        let before = self.departing.remove(unit).unwrap_or_default();
        for id in before.difference(&departing) {
            self.core.clear_departing(unit, *id);
        }
        for id in &placed {
            self.core.set_placed(unit, *id);
        }
        for (id, why) in &moving {
            self.core.set_moving(unit, *id, *why);
        }
        for id in &departing {
            self.core.set_departing(unit, *id);
        }
        if !moving.is_empty() {
            self.sync_ready(state, unit, &entries);
        }
        if !departing.is_empty() {
            self.departing.insert(unit.clone(), departing);
        }
        self.sync_wish(state, unit, &entries);
    }

    /// Of a unit that moves: whether it is ready where it goes, or does not get there by itself.
    fn sync_ready(&mut self, state: &ClusterState, unit: &UnitName, entries: &[Placed<'_>]) {
        for entry in entries.iter().filter(|entry| entry.entry.stays()) {
            let readiness = state.readiness_to_leave_for(entries, entry);
            self.core.set_failing(unit, entry.machine, matches!(readiness, Readiness::Failed(_)));
            if readiness == Readiness::Ready && self.settled.contains(&(unit.clone(), entry.machine)) {
                self.core.set_ready(unit, entry.machine);
            } else {
                self.core.clear_ready(unit, entry.machine);
            }
        }
    }

    fn sync_wish(&mut self, state: &ClusterState, unit: &UnitName, entries: &[Placed<'_>]) {
        let placed = entries.iter().any(|entry| entry.entry.departing.is_none());
        // What the unit asks for while its record does not tell: what its entry's content says.
        let by_entry = || {
            let hash = entries.iter().map(|placed| placed.entry.hash).next_back();
            hash.and_then(|hash| state.requirements_of(unit, hash)).unwrap_or_default()
        };
        let view = |requirements, wanted| UnitView { requirements, wanted };
        match state.wish(unit) {
            Wish::Gone { deleting: true } => self.core.remove_unit(unit),
            Wish::Gone { deleting: false } => {
                self.core.set_unit(unit, view(by_entry(), Wanted::Nowhere));
            }
            Wish::Wanted(wanted) if placed || state.hidden_entry(unit).is_none() => {
                // The planning would refuse to start it elsewhere, and the core would offer that for ever.
                let unreleased = entries.iter().any(|entry| state.is_unreleased(entry));
                let runs = |entry: &Placed<'_>| entry.entry.departing.is_none() && entry.life != Life::Lost;
                let kept = unreleased && !wanted.requirements.global && !entries.iter().any(runs);
                let wish = if kept { Wanted::AsIs } else { Wanted::Placed };
                let requirements = self.asks(state, unit, &wanted, entries);
                self.core.set_unit(unit, view(requirements, wish));
            }
            // Nothing can be decided about it. It keeps what it has, and still counts for its
            // neighbours: whoever is to be with it waits with it.
            _ if placed => self.core.set_unit(unit, view(by_entry(), Wanted::AsIs)),
            _ => self.core.remove_unit(unit),
        }
    }
}

impl Model {
    /// Returns what a unit asks of machines: what the text of its entry says, as long as it waits for its
    /// turn to get another. It is what the planning starts elsewhere, too.
    fn asks(
        &self,
        state: &ClusterState,
        unit: &UnitName,
        wanted: &crate::state::Wanted,
        entries: &[Placed<'_>],
    ) -> Arc<UnitRequirements> {
        let has_turn = |machine| self.turns.contains(&(unit.clone(), machine));
        let before = state.as_before(unit, wanted, entries, has_turn);
        before.map_or_else(|| Arc::clone(&wanted.requirements), |before| before.requirements)
    }
}

/// The decisions about some units, in no order that means anything.
pub(crate) type Decisions = FxHashMap<UnitName, Decided>;

/// A unit's decisions, by machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Decided {
    /// Where it is to get an entry.
    pub place: Homes,
    /// Where its entry is to become a departing one, with the decision.
    pub depart: BTreeMap<MachineId, Decision>,
    /// Where its entry is to become a moving one once it has the new one, and why.
    pub moving: Option<(MachineId, Departure)>,
    /// Where its moving entry is to become one that stays.
    pub stay: Option<MachineId>,
}

impl Decided {
    /// A place, and nothing else.
    pub(crate) fn placed(machine: MachineId) -> Self {
        Self { place: Homes::On(machine), ..Self::default() }
    }

    /// Returns the one place that it gets, if that is all.
    pub(crate) fn only_place(&self) -> Option<MachineId> {
        let alone = self.depart.is_empty() && self.moving.is_none() && self.stay.is_none();
        self.place.only().filter(|_| alone)
    }

    /// Tells whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.place.is_empty() && self.depart.is_empty() && self.moving.is_none() && self.stay.is_none()
    }
}

/// Sorts decisions by unit.
pub(crate) fn by_unit(decisions: Vec<Decision>) -> Decisions {
    let mut units = Decisions::with_capacity_and_hasher(decisions.len(), FxBuildHasher);
    for decision in decisions {
        let unit = units.entry(decision.unit().clone()).or_default();
        match &decision {
            Decision::Place { machine, .. } => {
                unit.place.insert(*machine);
            }
            Decision::Depart { machine, .. } => {
                unit.depart.insert(*machine, decision);
            }
            Decision::Move { from, to, why, .. } => {
                unit.place.insert(*to);
                unit.moving = Some((*from, *why));
            }
            Decision::Stay { machine, .. } => unit.stay = Some(*machine),
        }
    }
    units
}
