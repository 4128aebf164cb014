//! What would come of things, in the words of the wire.

use flotilla_api::{
    plan::{
        Drain, DrainStage, DrainUnit, PlanOutcome, PlannedChange, PlannedMove, PlannedPlace, PlannedUnit,
        RebalanceOutcome, RebalancedMachine,
    },
    why::WhyMachine,
};
use flotilla_engine::{
    DrainRow, Foreseen, ForeseenMove, ForeseenUnit, Hosts, LeavingStage, LeavingUnit, Rebalanced,
};
use flotilla_units::MachineId;

/// Writes what would come of what is imagined.
pub(crate) fn plan(foreseen: Foreseen) -> PlanOutcome {
    let hosts = &foreseen.hosts;
    PlanOutcome {
        revision: foreseen.revision.0,
        units: foreseen.units.into_iter().map(|unit| planned(unit, hosts)).collect(),
        moves: foreseen.moves.into_iter().map(|it| moved(it, hosts)).collect(),
    }
}

fn planned(unit: ForeseenUnit, hosts: &Hosts) -> PlannedUnit {
    let change = match () {
        () if unit.destroyed => PlannedChange::Destroy,
        () if unit.is_new => PlannedChange::Create,
        () if unit.has_new_text => PlannedChange::Update,
        () if unit.has_new_target => PlannedChange::Retarget,
        () => PlannedChange::Unchanged,
    };
    let machines = unit.after.iter().map(|id| {
        let here = unit.before.contains(id);
        PlannedPlace { here, ..place(*id, hosts) }
    });
    let machines = machines.collect();
    let (unplaced, rejected) = match unit.why {
        None => (None, Vec::new()),
        Some(why) => {
            let why = super::why(why);
            let against = why.machines.into_iter().filter(|machine| !machine.eligible);
            (Some(why.summary), against.collect::<Vec<WhyMachine>>())
        }
    };
    PlannedUnit { unit: unit.unit, change, target: super::target(unit.target), machines, unplaced, rejected }
}

fn place(machine: MachineId, hosts: &Hosts) -> PlannedPlace {
    PlannedPlace { machine, host: hosts.get(&machine).cloned(), here: false }
}

fn moved(it: ForeseenMove, hosts: &Hosts) -> PlannedMove {
    let places =
        |ids: std::collections::BTreeSet<MachineId>| ids.into_iter().map(|id| place(id, hosts)).collect();
    PlannedMove { unit: it.unit, from: places(it.from), to: places(it.to) }
}

/// Writes how far a machine's drain is.
pub(crate) fn drain(row: DrainRow) -> Drain {
    let hosts = &row.hosts;
    Drain {
        machine: row.machine,
        host: hosts.get(&row.machine).cloned(),
        draining: row.draining,
        revision: row.revision.0,
        units: row.units.into_iter().map(|unit| leaving(unit, hosts)).collect(),
    }
}

fn leaving(unit: LeavingUnit, hosts: &Hosts) -> DrainUnit {
    let stage = match unit.stage {
        LeavingStage::Stays => DrainStage::Stays,
        LeavingStage::Waiting => DrainStage::Waiting,
        LeavingStage::Starting => DrainStage::Starting,
        LeavingStage::Stopping => DrainStage::Stopping,
    };
    let why = match &unit.why {
        Some(_) if unit.sticky => Some("it is sticky: it leaves by order only".to_owned()),
        Some(explanation) => Some(super::counted(explanation)),
        None => (unit.global && stage == DrainStage::Waiting)
            .then(|| "it runs on every machine that may have it".to_owned()),
    };
    DrainUnit { unit: unit.unit, stage, to: unit.to.map(|id| place(id, hosts)), why }
}

/// Writes what evening machines out moves.
pub(crate) fn rebalance(row: Rebalanced, applied: bool) -> RebalanceOutcome {
    let hosts = &row.hosts;
    let machines = row.machines.iter().map(|it| RebalancedMachine {
        machine: it.machine,
        host: hosts.get(&it.machine).cloned(),
        units_before: u64::from(it.units.0),
        units_after: u64::from(it.units.1),
        share_before: it.share.0,
        share_after: it.share.1,
    });
    RebalanceOutcome {
        revision: row.revision.0,
        applied,
        machines: machines.collect(),
        moves: row.moves.into_iter().map(|it| moved(it, hosts)).collect(),
    }
}
