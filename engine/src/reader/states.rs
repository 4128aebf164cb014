//! What machines report of units, as one list.

use flotilla_registry::records::UnitReport;
use flotilla_units::{ContentHash, MachineId, UnitName};

use super::{PAGE_MAX, StateReader};
use crate::state::{ClusterState, Life};

/// What a living machine reports of a unit that its manifest names.
#[derive(Debug, Clone)]
pub struct StateRow {
    /// The unit.
    pub unit: UnitName,
    /// The machine.
    pub machine: MachineId,
    /// The content that is ordered there.
    pub ordered: ContentHash,
    /// What the machine says.
    pub report: UnitReport,
}

/// Which rows are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct StateQuery<'a> {
    /// Only this unit's.
    pub unit: Option<&'a UnitName>,
    /// Only this machine's.
    pub machine: Option<MachineId>,
    /// How many rows to leave out first.
    pub skip: usize,
    /// How many at most, and never more than [`PAGE_MAX`].
    pub limit: usize,
}

impl StateReader {
    /// Lists what living machines report, by unit and then machine. A unit that leaves one machine and
    /// comes to the same again has one row there: that of what is ordered last.
    #[must_use]
    pub fn states(&self, query: StateQuery<'_>) -> Vec<StateRow> {
        let hot = self.shared.read();
        let state = &hot.state;
        let limit = query.limit.min(PAGE_MAX);
        let rows = |unit: &UnitName| rows_of(state, unit, query.machine);
        match (query.unit, query.machine) {
            (Some(unit), _) => rows(unit).into_iter().skip(query.skip).take(limit).collect(),
            (None, Some(machine)) => {
                let entries = state.machines().get(&machine).into_iter().flat_map(|it| it.entries());
                let named: std::collections::BTreeSet<&UnitName> = entries.map(|entry| &entry.unit).collect();
                named.into_iter().flat_map(rows).skip(query.skip).take(limit).collect()
            }
            (None, None) => state.units().keys().flat_map(rows).skip(query.skip).take(limit).collect(),
        }
    }
}

fn rows_of(state: &ClusterState, unit: &UnitName, only: Option<MachineId>) -> Vec<StateRow> {
    let mut rows: Vec<StateRow> = Vec::new();
    // By machine and then token, so the last one of a machine is the one ordered last.
    for placed in state.placed(unit) {
        let left_out = placed.life == Life::Lost || only.is_some_and(|only| only != placed.machine);
        let Some(report) = state.report_of(&placed).filter(|report| !left_out && !report.gone) else {
            continue;
        };
        rows.pop_if(|row| row.machine == placed.machine);
        rows.push(StateRow {
            unit: unit.clone(),
            machine: placed.machine,
            ordered: placed.entry.hash,
            report: report.clone(),
        });
    }
    rows
}
