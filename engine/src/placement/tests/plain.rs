//! The rules once more, as plainly as they can be said: every unit against every machine and every
//! other unit. What the core keeps in indexes is compared with this.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_registry::records::Departure;
use flotilla_units::Glob;

use super::*;

/// The facts, as they would be read from the store.
#[derive(Debug, Default, Clone)]
pub(super) struct Plain {
    pub(super) machines: BTreeMap<MachineId, MachineView>,
    pub(super) units: BTreeMap<UnitName, PlainUnit>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct PlainUnit {
    /// What it asks for, and whether it is wanted.
    pub(super) known: Option<(Arc<UnitRequirements>, Wanted)>,
    pub(super) destroyed: bool,
    pub(super) placed: BTreeSet<MachineId>,
    pub(super) departing: BTreeSet<MachineId>,
}

fn hits(globs: &BTreeSet<Glob>, name: &UnitName) -> bool {
    globs.iter().any(|glob| glob.matches(name.as_str()))
}

impl Plain {
    pub(super) fn asks(&self, unit: &UnitName) -> Arc<UnitRequirements> {
        let known = self.units.get(unit).and_then(|unit| unit.known.clone());
        known.map(|(requirements, _)| requirements).unwrap_or_default()
    }

    pub(super) fn is_wanted(&self, unit: &UnitName) -> bool {
        let Some(unit) = self.units.get(unit) else { return false };
        !unit.destroyed && matches!(unit.known, Some((_, Wanted::Placed)))
    }

    pub(super) fn forget(&mut self) {
        self.units.retain(|_, unit| {
            !unit.placed.is_empty() || !unit.departing.is_empty() || (unit.known.is_some() && !unit.destroyed)
        });
    }

    pub(super) fn live(&self, unit: &UnitName) -> Vec<MachineId> {
        let placed = self.units.get(unit).map(|unit| unit.placed.clone()).unwrap_or_default();
        placed.into_iter().filter(|id| self.machines.contains_key(id)).collect()
    }

    pub(super) fn load(&self, machine: MachineId) -> u32 {
        let entries = |u: &PlainUnit| {
            u32::from(u.placed.contains(&machine)) + u32::from(u.departing.contains(&machine))
        };
        self.units.values().map(entries).sum()
    }

    /// Why a unit may not be on a machine.
    pub(super) fn refusals(&self, unit: &UnitName, machine: MachineId) -> Vec<Reason> {
        let (it, view, mut out) = (self.asks(unit), &self.machines[&machine], Vec::new());
        if view.draining {
            out.push(Reason::Draining);
        } else if !view.schedulable {
            out.push(Reason::NotSchedulable);
        }
        let other = it.machine.clone().filter(|wanted| !wanted.names(&machine, &view.host));
        out.extend(other.map(|wanted| Reason::MachineId { wanted }));
        for wanted in &it.metadata {
            let found = view.metadata.get(&wanted.key).cloned();
            if !wanted.meets(found.as_deref()) {
                out.push(Reason::Metadata { wanted: wanted.clone(), found });
            }
        }
        for leader in &it.machine_of {
            let leader = &name(leader.literal().unwrap());
            let is = match self.units.get(leader) {
                None => LeaderIs::Unknown,
                Some(unit) if unit.placed.contains(&machine) => continue,
                Some(_) if !self.live(leader).is_empty() => LeaderIs::Elsewhere,
                Some(_) if self.is_wanted(leader) => LeaderIs::Unplaced,
                Some(unit) if unit.known.is_none() && !unit.destroyed => LeaderIs::Unknown,
                Some(_) => LeaderIs::Inactive,
            };
            out.push(Reason::MachineOf { leader: leader.clone(), is });
        }
        if self.units[unit].departing.contains(&machine) {
            out.push(Reason::StillDeparting);
        }
        out.extend(
            self.opponents(unit, machine, true).first().map(|with| Reason::Conflict { with: with.clone() }),
        );
        out.extend(self.pushers(unit, machine).first().map(|by| Reason::Replaced { by: by.clone() }));
        out
    }

    /// Units on a machine that conflict with one, by name.
    fn opponents(&self, unit: &UnitName, machine: MachineId, departing: bool) -> Vec<UnitName> {
        let it = self.asks(unit);
        let there =
            |u: &PlainUnit| u.placed.contains(&machine) || (departing && u.departing.contains(&machine));
        let others = self.units.iter().filter(|(other, u)| *other != unit && there(u));
        let conflicts =
            |other: &UnitName| hits(&it.conflicts, other) || hits(&self.asks(other).conflicts, unit);
        others.map(|(other, _)| other.clone()).filter(conflicts).collect()
    }

    fn pushers(&self, unit: &UnitName, machine: MachineId) -> Vec<UnitName> {
        let it = self.asks(unit);
        let others = self.units.iter().filter(|(other, u)| *other != unit && u.placed.contains(&machine));
        let pushes = |other: &UnitName| hits(&self.asks(other).replaces, unit) && !hits(&it.replaces, other);
        others.map(|(other, _)| other.clone()).filter(pushes).collect()
    }

    /// Why a unit may not stay on a living machine, if it may not.
    pub(super) fn must_leave(&self, unit: &UnitName, machine: MachineId) -> Option<Departure> {
        let it = &self.units[unit];
        if it.destroyed {
            return Some(Departure::Destroyed);
        }
        let (asks, wanted) = it.known.as_ref()?;
        if *wanted == Wanted::Nowhere {
            return Some(Departure::Unloaded);
        }
        if self.machines.get(&machine)?.draining {
            return Some(Departure::Drained);
        }
        let broken = |reason: &Reason| match reason {
            Reason::MachineId { .. } | Reason::Metadata { .. } => true,
            Reason::MachineOf { is, .. } => *is != LeaderIs::Unknown,
            _ => false,
        };
        let precedence = |name: &UnitName| {
            let it = self.asks(name);
            (it.global, it.machine.is_none() && it.machine_of.is_empty(), name.clone())
        };
        let loses = self
            .opponents(unit, machine, false)
            .iter()
            .any(|other| self.is_wanted(other) && precedence(other) < precedence(unit));
        if self.refusals(unit, machine).iter().any(broken) {
            Some(Departure::Requirements)
        } else if !self.pushers(unit, machine).is_empty() {
            Some(Departure::Replaced)
        } else if loses {
            Some(Departure::Requirements)
        } else {
            (!asks.global && self.live(unit).len() > 1).then_some(Departure::MachineLost)
        }
    }
}
