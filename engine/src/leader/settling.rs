//! Lets a unit run a moment where it was started before it is stopped where it was.
//!
//! Of a plain service systemd says that it is active when its process is there; one that exits at once is told
//! some tens of milliseconds later. A new leader waits the moment anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use flotilla_units::{MachineId, UnitName};

use super::rollouts::SETTLE;
use crate::{
    model::Model,
    state::{ClusterState, NameSet, Readiness},
};

/// Units that move and are ready where they go.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// Where, and since when.
    ready: BTreeMap<UnitName, (MachineId, Duration)>,
    /// Those of them that have been for long enough.
    settled: BTreeSet<UnitName>,
}

impl Settling {
    /// Notes which of these units are ready where they go.
    pub(super) fn note<'a>(
        &mut self,
        state: &ClusterState,
        model: &mut Model,
        units: impl IntoIterator<Item = &'a UnitName>,
        now: Duration,
    ) {
        for unit in units {
            let moves = !model.core().moving_on(unit).is_empty();
            let at = if moves { ready_at(state, unit) } else { None };
            let before = self.ready.get(unit).map(|(machine, _)| *machine);
            if at == before {
                continue;
            }
            if let Some((machine, _)) = self.ready.remove(unit)
                && self.settled.remove(unit)
            {
                model.unsettle(unit, machine);
            }
            self.ready.extend(at.map(|machine| (unit.clone(), (machine, now))));
        }
    }

    /// Tells the model of those that have been ready for long enough; returns them: they have to be told to it
    /// again.
    pub(super) fn settle(&mut self, model: &mut Model, now: Duration) -> NameSet {
        let due = self.waiting().filter(|(_, (_, since))| *since + SETTLE <= now);
        let due: Vec<(UnitName, MachineId)> =
            due.map(|(unit, (machine, _))| (unit.clone(), *machine)).collect();
        for (unit, machine) in &due {
            model.settle(unit, *machine);
        }
        let units: NameSet = due.into_iter().map(|(unit, _)| unit).collect();
        self.settled.extend(units.iter().cloned());
        units
    }

    /// Returns when to look again although nothing changes.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.waiting().map(|(_, (_, since))| *since + SETTLE).min()
    }

    fn waiting(&self) -> impl Iterator<Item = (&UnitName, &(MachineId, Duration))> {
        self.ready.iter().filter(|(unit, _)| !self.settled.contains(*unit))
    }
}

/// Returns where a unit that moves is ready.
fn ready_at(state: &ClusterState, unit: &UnitName) -> Option<MachineId> {
    let placed = state.placed(unit);
    let mut staying = placed.iter().filter(|on| on.entry.stays());
    let on = staying.find(|on| state.readiness_to_leave_for(&placed, on) == Readiness::Ready)?;
    Some(on.machine)
}
