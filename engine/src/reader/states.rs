//! What machines report of units, as one list.

use std::ops::Bound;

use flotilla_registry::records::UnitReport;
use flotilla_units::{ContentHash, MachineId, UnitName};

use super::{PAGE_MAX, StateReader};
use crate::state::{ClusterState, Life, Placed};

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
            (None, None) => self.all_states(state, query.skip, limit),
        }
    }

    /// Lists them of all units: from where the page before ended, or else counting those that are left out.
    fn all_states(&self, state: &ClusterState, skip: usize, limit: usize) -> Vec<StateRow> {
        let book = &self.shared.starts.states;
        let begun = book.find(skip);
        let (from, mut skipped) = match &begun {
            Some((unit, _)) => (Bound::Included(unit.clone()), 0),
            None => (Bound::Unbounded, skip),
        };
        let mut page = Vec::new();
        for unit in state.units().range((from, Bound::Unbounded)).map(|(unit, _)| unit) {
            let reports = reports_of(state, unit, None);
            let given = begun.as_ref().filter(|(begun, _)| begun == unit).map_or(0, |(_, given)| *given);
            let first = reports.len().min(given.max(skipped));
            skipped = skipped.saturating_sub(first);
            let end = reports.len().min(first + limit - page.len());
            page.extend(reports[first..end].iter().map(|it| row(unit, it)));
            if page.len() == limit {
                book.note(skip + limit, (unit.clone(), end));
                break;
            }
        }
        page
    }
}

fn rows_of(state: &ClusterState, unit: &UnitName, only: Option<MachineId>) -> Vec<StateRow> {
    reports_of(state, unit, only).iter().map(|it| row(unit, it)).collect()
}

fn row(unit: &UnitName, (placed, report): &(Placed<'_>, &UnitReport)) -> StateRow {
    StateRow {
        unit: unit.clone(),
        machine: placed.machine,
        ordered: placed.entry.hash,
        report: (*report).clone(),
    }
}

/// Returns what living machines report of a unit, one for each machine.
fn reports_of<'a>(
    state: &'a ClusterState,
    unit: &'a UnitName,
    only: Option<MachineId>,
) -> Vec<(Placed<'a>, &'a UnitReport)> {
    let mut reports: Vec<(Placed<'_>, &UnitReport)> = Vec::new();
    // By machine and then token, so the last one of a machine is the one ordered last.
    for placed in state.placed(unit) {
        let left_out = placed.life == Life::Lost || only.is_some_and(|only| only != placed.machine);
        let Some(report) = state.report_of(&placed).filter(|report| !left_out && !report.gone) else {
            continue;
        };
        reports.pop_if(|(before, _)| before.machine == placed.machine);
        reports.push((placed, report));
    }
    reports
}
