//! The cluster state and the placement core, as the brake looks at them.

use std::time::Duration;

use flotilla_units::MachineId;

use super::{Brake, Noticed, Surroundings};
use crate::{
    model::Model,
    state::{ClusterState, Life, Machine},
};

/// A seat's picture of the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// The store.
    pub state: &'a ClusterState,
    /// What the core makes of it.
    pub model: &'a Model,
}

impl Picture<'_> {
    /// Tells the brake which of these machines are away.
    pub fn tell<'a>(
        &self,
        brake: &mut Brake,
        machines: impl IntoIterator<Item = &'a MachineId>,
        noticed: Noticed,
        now: Duration,
    ) {
        for id in machines {
            match self.state.machines().get(id) {
                Some(machine) if machine.life() == Life::Lost => {
                    brake.away(*id, self.has_units_to_move(machine), noticed, now);
                }
                _ => brake.not_away(*id),
            }
        }
    }

    /// Tells whether a machine's loss may move a unit: global units stay with their machine.
    fn has_units_to_move(&self, machine: &Machine) -> bool {
        let staying = machine.entries().filter(|entry| entry.departing.is_none());
        staying.map(|entry| self.state.requirements_of(&entry.unit, entry.hash)).any(|requirements| {
            // What cannot be read may be one that moves.
            requirements.is_none_or(|requirements| !requirements.global)
        })
    }
}

impl Surroundings for Picture<'_> {
    fn living(&self) -> usize {
        let lives = |machine: &&Machine| {
            machine.life() != Life::Lost && machine.entries().any(|entry| entry.departing.is_none())
        };
        self.state.machines().values().filter(lives).count()
    }

    fn takes_units(&self) -> bool {
        self.state.machines().values().any(|machine| machine.closed().is_none())
    }

    fn would_move(&self, machine: MachineId) -> bool {
        let entries = self.state.machines().get(&machine).into_iter().flat_map(Machine::entries);
        entries.filter(|entry| entry.departing.is_none()).any(|entry| {
            let requirements = self.state.requirements_of(&entry.unit, entry.hash);
            requirements.is_none_or(|requirements| !requirements.global) && self.model.has_room(&entry.unit)
        })
    }
}
