//! fleet's word for what has become of a unit: `inactive`, `loaded` or `launched`, and on which machine.
//!
//! `launched` says that systemd was asked to start it, and nothing about whether it runs: the states of
//! systemd say that.

use flotilla_engine::{PlacementRow, UnitRow, state::Life};
use flotilla_registry::records::{Target, UnitReport};
use flotilla_units::MachineId;

/// What has become of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Current {
    pub(super) state: Target,
    pub(super) machine: Option<MachineId>,
}

/// Says what is wanted of a unit; of one that is being destroyed nothing is.
pub(super) fn wanted(row: &UnitRow) -> Option<Target> {
    row.record.as_ref().map(|record| if record.deleting { Target::Inactive } else { record.target })
}

/// Returns fleet's word for a target.
pub(super) const fn word(target: Target) -> &'static str {
    match target {
        Target::Inactive => "inactive",
        Target::Loaded => "loaded",
        Target::Launched => "launched",
    }
}

/// Says what has become of a unit; nothing of a global one, which is on many machines.
///
/// A unit that is to be nowhere is `inactive` only when it has left: who waits for that waits until it
/// has stopped. fleet said so as soon as it had asked.
pub(super) fn current(row: &UnitRow) -> Option<Current> {
    if row.global {
        return None;
    }
    let staying = row.placements.iter().find(|placement| placement.departing.is_none());
    if let Some(placement) = staying {
        return Some(Current { state: state(placement), machine: Some(placement.machine) });
    }
    let nowhere = Current { state: Target::Inactive, machine: None };
    if wanted(row) != Some(Target::Inactive) {
        return Some(nowhere);
    }
    let mut leaving = row.placements.iter().filter(|placement| placement.life != Life::Lost);
    let there = leaving.find_map(|placement| {
        let report = placement.report.as_ref().filter(|report| !report.gone)?;
        let state = if is_at_rest(report) { Target::Loaded } else { Target::Launched };
        Some(Current { state, machine: Some(placement.machine) })
    });
    Some(there.unwrap_or(nowhere))
}

fn state(placement: &PlacementRow) -> Target {
    let Some(report) = placement.report.as_ref().filter(|report| is_there(report)) else {
        return Target::Inactive;
    };
    let started = report.token == Some(placement.token) && report.run > 0;
    let launched = match placement.target {
        // The run that is ordered, not one before: the state that systemd shows may be that one's.
        Target::Launched => started && report.run >= placement.run,
        // It is being stopped.
        _ => started && !is_at_rest(report),
    };
    if launched { Target::Launched } else { Target::Loaded }
}

/// Tells whether systemd has the unit's file.
fn is_there(report: &UnitReport) -> bool {
    !matches!(report.load.as_str(), "" | "not-found")
}

fn is_at_rest(report: &UnitReport) -> bool {
    matches!(report.active.as_str(), "inactive" | "failed" | "")
}
