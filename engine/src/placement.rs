//! Who runs what: the pure placement core.
//!
//! Owns the model of machines and units, and where each unit is or is meant to be. The leader loop
//! tells it what changed, one call for each fact, and asks it to [decide](Placement::decide); the API
//! asks it to [explain](Placement::explain). It never sees a clock, a socket or a random number, and
//! never writes: equal facts give equal decisions, in whatever order they were told.
//!
//! The rules, in one place:
//!
//! - A unit that can stay, stays. Only an order, a broken requirement, a drain, the loss of its machine
//!   or a unit with `Replaces=` moves it. Nothing is rebalanced.
//! - A unit goes to the machine with the fewest units (departing ones count) that may have it; ties go
//!   to the lowest machine id.
//! - A move has two phases: [`Decision::Depart`], then, once told by [`Placement::clear_departing`]
//!   that the unit is proven gone or by [`Placement::remove_machine`] that the machine is dead,
//!   [`Decision::Place`] elsewhere.
//! - A unit on a dead machine keeps that placement until another machine can take it: the `Depart`
//!   with `MachineLost` comes together with the `Place`. If its machine returns first, it stays.
//! - What the core was never told of is left alone: a placement of a unit that nobody has set counts
//!   for load and conflicts, and does not move.

mod explain;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use flotilla_registry::records::Departure;
use flotilla_units::{MachineId, UnitName, UnitRequirements};

pub use explain::{Explanation, LeaderIs, Reason, Standing, Verdict};
pub use view::{Decision, MachineView, UnitView, Wanted};

/// The model of machines and units, and the decisions about them.
#[derive(Debug, Default)]
pub struct Placement {
    machines: BTreeMap<MachineId, MachineView>,
    units: BTreeMap<UnitName, Unit>,
}

#[derive(Debug, Default, Clone)]
struct Unit {
    view: Option<UnitView>,
    destroyed: bool,
    placed: BTreeSet<MachineId>,
    departing: BTreeSet<MachineId>,
}

impl Placement {
    /// Makes an empty model.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells that a machine lives, and what it is like.
    pub fn set_machine(&mut self, id: MachineId, machine: MachineView) {
        self.machines.insert(id, machine);
    }

    /// Tells that a machine is dead: its units are to be placed again, and what departs from it stands
    /// in nobody's way.
    pub fn remove_machine(&mut self, id: MachineId) {
        self.machines.remove(&id);
    }

    /// Tells what a unit asks for and whether it belongs on a machine.
    pub fn set_unit(&mut self, name: &UnitName, unit: UnitView) {
        let entry = self.units.entry(name.clone()).or_default();
        (entry.view, entry.destroyed) = (Some(unit), false);
    }

    /// Tells that a unit is destroyed: what is placed of it leaves, and it is forgotten with the last
    /// of its entries.
    pub fn remove_unit(&mut self, name: &UnitName) {
        if let Some(unit) = self.units.get_mut(name) {
            unit.destroyed = true;
        }
        self.forget(name);
    }

    /// Tells that a manifest has an entry of the unit that is not departing. Saying it again, or after
    /// the `Place` that led to it, changes nothing.
    pub fn set_placed(&mut self, name: &UnitName, machine: MachineId) {
        self.units.entry(name.clone()).or_default().placed.insert(machine);
    }

    /// Tells that a manifest has no such entry (any more).
    pub fn clear_placed(&mut self, name: &UnitName, machine: MachineId) {
        if let Some(unit) = self.units.get_mut(name) {
            unit.placed.remove(&machine);
        }
        self.forget(name);
    }

    /// Tells that a manifest has a departing entry of the unit. The placement that it was, if it was
    /// one, has to be cleared too.
    pub fn set_departing(&mut self, name: &UnitName, machine: MachineId) {
        self.units.entry(name.clone()).or_default().departing.insert(machine);
    }

    /// Tells that a manifest has no departing entry of the unit (any more): it is proven gone.
    pub fn clear_departing(&mut self, name: &UnitName, machine: MachineId) {
        if let Some(unit) = self.units.get_mut(name) {
            unit.departing.remove(&machine);
        }
        self.forget(name);
    }

    /// Decides what to write next, at most `limit` decisions (a move off a dead machine, which is two,
    /// is never cut in half); empty when there is nothing to do. The model takes each as done.
    pub fn decide(&mut self, limit: usize) -> Vec<Decision> {
        let mut out = Vec::new();
        let names: Vec<UnitName> = self.units.keys().cloned().collect();
        for name in &names {
            for machine in self.units[name].placed.clone() {
                if out.len() < limit
                    && let Some((why, reason)) = self.must_leave(name, machine)
                {
                    self.depart(name, machine, why, reason, &mut out);
                }
            }
        }
        let mut order: Vec<(u8, UnitName)> =
            names.into_iter().map(|name| (self.phase(&name), name)).collect();
        order.sort();
        let mut placed_one = true;
        while std::mem::take(&mut placed_one) {
            for (_, name) in &order {
                while out.len() < limit
                    && let Some(machine) = self.next_machine(name)
                {
                    let lost: Vec<MachineId> = self.units[name].placed.iter().copied().collect();
                    if !self.requirements(name).global {
                        for dead in lost {
                            self.depart(name, dead, Departure::MachineLost, None, &mut out);
                        }
                    }
                    self.set_placed(name, machine);
                    out.push(Decision::Place { unit: name.clone(), machine });
                    placed_one = true;
                }
            }
        }
        if out.is_empty() || out.len() >= limit {
            return out;
        }
        out.extend(self.decide(limit - out.len()));
        out
    }

    /// Explains why a unit is where it is, and for each machine why it is not there.
    #[must_use]
    pub fn explain(&self, name: &UnitName) -> Explanation {
        let Some(unit) = self.units.get(name) else {
            return Explanation { unit: name.clone(), standing: Standing::Unknown, machines: Vec::new() };
        };
        let verdict = |(id, machine): (&MachineId, &MachineView)| Verdict {
            machine: *id,
            host: machine.host.clone(),
            load: self.load(*id),
            here: unit.placed.contains(id),
            reasons: self.refusals(name, *id),
        };
        let machines = self.machines.iter().map(verdict).collect();
        let living = |ids: &BTreeSet<MachineId>| {
            ids.iter().copied().filter(|m| self.machines.contains_key(m)).collect()
        };
        let (placed, departing): (Vec<_>, Vec<_>) = (living(&unit.placed), living(&unit.departing));
        let standing = if !placed.is_empty() {
            Standing::Placed(placed)
        } else if !departing.is_empty() {
            Standing::Departing(departing)
        } else if !self.is_wanted(name) {
            Standing::NotWanted
        } else {
            self.next_machine(name).map_or(Standing::Unplaceable, Standing::Placeable)
        };
        Explanation { unit: name.clone(), standing, machines }
    }

    /// Explains what would become of a unit if it were set like this, without setting it.
    #[must_use]
    pub fn what_if(&mut self, name: &UnitName, unit: UnitView) -> Explanation {
        let before = self.units.get(name).cloned();
        self.set_unit(name, unit);
        let answer = self.explain(name);
        match before {
            Some(before) => drop(self.units.insert(name.clone(), before)),
            None => drop(self.units.remove(name)),
        }
        answer
    }

    /// Returns where a unit is placed, dead machines included, by machine id.
    #[must_use]
    pub fn placed_on(&self, name: &UnitName) -> Vec<MachineId> {
        self.units.get(name).map(|unit| unit.placed.iter().copied().collect()).unwrap_or_default()
    }

    /// Returns how many units a machine has, departing ones included.
    #[must_use]
    pub fn load(&self, machine: MachineId) -> u32 {
        let on = |unit: &&Unit| unit.placed.contains(&machine) || unit.departing.contains(&machine);
        u32::try_from(self.units.values().filter(on).count()).unwrap_or(u32::MAX)
    }

    fn forget(&mut self, name: &UnitName) {
        let gone = |unit: &Unit| unit.destroyed || unit.view.is_none();
        if self.units.get(name).is_some_and(|u| gone(u) && u.placed.is_empty() && u.departing.is_empty()) {
            self.units.remove(name);
        }
    }

    fn requirements(&self, name: &UnitName) -> UnitRequirements {
        let view = self.units.get(name).and_then(|unit| unit.view.as_ref());
        view.map(|view| (*view.requirements).clone()).unwrap_or_default()
    }

    fn is_wanted(&self, name: &UnitName) -> bool {
        let wanted = |unit: &Unit| unit.view.as_ref().is_some_and(|v| v.wanted == Wanted::Placed);
        self.units.get(name).is_some_and(|unit| wanted(unit) && !unit.destroyed)
    }

    /// Who is placed first, and stays when two cannot: lower wins.
    fn phase(&self, name: &UnitName) -> u8 {
        let it = self.requirements(name);
        let leads = self.units.values().filter_map(|u| u.view.as_ref());
        match it {
            _ if it.global => 5,
            _ if it.machine_id.is_some() => 0,
            _ if leads.into_iter().any(|view| view.requirements.machine_of.contains(name)) => 1,
            _ if !it.machine_of.is_empty() => 2,
            _ if !it.conflicts.is_empty() => 3,
            _ => 4,
        }
    }

    fn depart(
        &mut self,
        name: &UnitName,
        machine: MachineId,
        why: Departure,
        reason: Option<Reason>,
        out: &mut Vec<Decision>,
    ) {
        self.set_departing(name, machine);
        self.clear_placed(name, machine);
        out.push(Decision::Depart { unit: name.clone(), machine, why, reason });
    }

    fn must_leave(&self, name: &UnitName, machine: MachineId) -> Option<(Departure, Option<Reason>)> {
        let unit = self.units.get(name)?;
        if unit.destroyed {
            return Some((Departure::Destroyed, None));
        }
        if unit.view.as_ref()?.wanted == Wanted::Nowhere {
            return Some((Departure::Unloaded, None));
        }
        if self.machines.get(&machine)?.draining {
            return Some((Departure::Drained, None));
        }
        let key = |name: &UnitName| (self.phase(name), name.clone());
        self.refusals(name, machine).into_iter().find_map(|reason| match &reason {
            Reason::NotSchedulable | Reason::Draining | Reason::StillDeparting => None,
            Reason::MachineOf { is: LeaderIs::Unknown, .. } => None,
            Reason::Replaced { .. } => Some((Departure::Replaced, Some(reason))),
            Reason::Conflict { with } => {
                let loses = self.units[with].placed.contains(&machine) && key(with) < key(name);
                loses.then_some((Departure::Requirements, Some(reason)))
            }
            _ => Some((Departure::Requirements, Some(reason))),
        })
    }

    fn next_machine(&self, name: &UnitName) -> Option<MachineId> {
        let unit = self.units.get(name)?;
        let lives = |id: &MachineId| self.machines.contains_key(id);
        let busy = unit.placed.iter().any(lives) || unit.departing.iter().any(lives);
        if !self.is_wanted(name) || (busy && !self.requirements(name).global) {
            return None;
        }
        let mut machines: Vec<MachineId> = self.machines.keys().copied().collect();
        machines.sort_by_key(|id| (self.load(*id), *id));
        machines.into_iter().find(|id| !unit.placed.contains(id) && self.refusals(name, *id).is_empty())
    }

    fn refusals(&self, name: &UnitName, machine: MachineId) -> Vec<Reason> {
        let (it, mut out) = (self.requirements(name), Vec::new());
        let Some(view) = self.machines.get(&machine) else { return out };
        if view.draining {
            out.push(Reason::Draining);
        } else if !view.schedulable {
            out.push(Reason::NotSchedulable);
        }
        out.extend(it.machine_id.filter(|id| *id != machine).map(|wanted| Reason::MachineId { wanted }));
        for (key, wanted) in &it.metadata {
            let found = view.metadata.get(key);
            if !found.is_some_and(|value| wanted.contains(value)) {
                let (key, wanted) = (key.clone(), wanted.clone());
                out.push(Reason::Metadata { key, wanted, found: found.cloned() });
            }
        }
        for leader in &it.machine_of {
            let is = match self.units.get(leader) {
                None => LeaderIs::Unknown,
                Some(unit) if unit.placed.contains(&machine) => continue,
                Some(unit) if !unit.placed.is_empty() => LeaderIs::Elsewhere,
                Some(_) if !self.is_wanted(leader) => LeaderIs::Inactive,
                Some(_) => LeaderIs::Unplaced,
            };
            out.push(Reason::MachineOf { leader: leader.clone(), is });
        }
        if self.units[name].departing.contains(&machine) {
            out.push(Reason::StillDeparting);
        }
        for (other, unit) in self.units.iter().filter(|(other, _)| *other != name) {
            let theirs = self.requirements(other);
            let hits = |globs: &BTreeSet<flotilla_units::Glob>, name: &UnitName| {
                globs.iter().any(|glob| glob.matches(name.as_str()))
            };
            let placed = unit.placed.contains(&machine);
            if (placed || unit.departing.contains(&machine))
                && (hits(&it.conflicts, other) || hits(&theirs.conflicts, name))
            {
                out.push(Reason::Conflict { with: other.clone() });
            }
            if placed && hits(&theirs.replaces, name) && !hits(&it.replaces, other) {
                out.push(Reason::Replaced { by: other.clone() });
            }
        }
        out
    }
}
