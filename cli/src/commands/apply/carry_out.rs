//! Gives the cluster what a folder says, and waits until it is true.

use std::collections::BTreeMap;

use flotilla_api::{
    action::{Action, BulkUnit, BulkWrite, Outcome, UnitOutcome},
    plan::{PlanRequest, PlanUnit},
    unit::Target,
};
use flotilla_units::UnitName;
use tokio::time::{Instant, timeout_at};

use super::{Args, Work};
use crate::{
    args::Output,
    commands::{change, plan},
    connection::Cluster,
    exit::{Exit, Failure},
    folder::difference::Step,
    order::Waiting,
    print,
};

/// Writes all steps, and waits until they have come true.
pub(super) async fn carry_out(
    cluster: &Cluster,
    work: &Work,
    args: &Args,
    output: Output,
    begun: Instant,
) -> anyhow::Result<Exit> {
    if work.steps.is_empty() {
        if output == Output::Json {
            print::json(&Vec::<UnitOutcome>::new())?;
        }
        return Ok(Exit::Done);
    }
    let end = begun + args.wait.timeout();
    let write = BulkWrite { units: orders(work, args.no_restart), whole: false };
    let give = async { anyhow::Ok(cluster.client().bulk(&write).await?) };
    let written = timeout_at(end, give).await.map_err(|_| {
        let why = "the time ran out before the cluster acknowledged the changes; the same apply again does what \
                   is left of them";
        Failure::error(Exit::TimedOut, why)
    })??;
    let outcome = Outcome { revision: written.revision, units: written.units };
    if args.wait.no_block {
        return change::no_block(Action::Start, &outcome, output);
    }
    let mut worst = Exit::Done;
    for ((action, updated), units) in by_action(work, args.no_restart, outcome.units) {
        let outcome = Outcome { revision: outcome.revision, units };
        let waiting = Waiting::new(action, &outcome.units).until_updated(updated);
        worst = worst.max(change::until_true(cluster, &outcome, waiting, output, end).await?);
    }
    Ok(worst)
}

/// What is asked of the cluster, each unit only if it is as it was seen: whoever changed it meanwhile
/// is not overruled unseen.
fn orders(work: &Work, no_restart: bool) -> Vec<BulkUnit> {
    let order = |(unit, step): (&UnitName, &Step)| {
        let text = match step {
            Step::Create { .. } | Step::Update { .. } => {
                work.folder.files.get(unit).map(|file| file.text.clone())
            }
            Step::Retarget { .. } | Step::Remove => None,
        };
        let seen = work.units.get(unit);
        BulkUnit {
            name: unit.to_string(),
            replace: text.is_some() && seen.is_some(),
            no_restart: text.is_some() && no_restart,
            text,
            action: action(unit, step),
            set: matches!(step, Step::Create { .. }).then(|| work.folder.set.clone()),
            if_match: Some(seen.map_or(0, |unit| unit.revision)),
        }
    };
    work.steps.iter().map(order).collect()
}

/// What is to become of a unit besides its text.
fn action(unit: &UnitName, step: &Step) -> Option<Action> {
    let target = match step {
        Step::Remove => return Some(Action::Destroy),
        Step::Create { .. } if unit.is_template() => return None,
        Step::Create { target } => *target,
        Step::Retarget { to, .. } | Step::Update { target: Some((_, to)), .. } => *to,
        Step::Update { target: None, .. } => return None,
    };
    Some(action_for(target))
}

const fn action_for(target: Target) -> Action {
    match target {
        Target::Inactive => Action::Unload,
        Target::Loaded => Action::Load,
        Target::Launched => Action::Start,
    }
}

/// Sorts what was written by what is waited for, and whether until it has its new text: an updated unit
/// is waited for until it is again what is wanted of it.
fn by_action(
    work: &Work,
    no_restart: bool,
    units: Vec<UnitOutcome>,
) -> BTreeMap<(Action, bool), Vec<UnitOutcome>> {
    let mut sorted: BTreeMap<(Action, bool), Vec<UnitOutcome>> = BTreeMap::new();
    for outcome in units {
        let Some(step) = work.steps.get(&outcome.unit) else { continue };
        let wanted = work.folder.targets.get(&outcome.unit).copied();
        let Some(action) = action(&outcome.unit, step).or(wanted.map(action_for)) else { continue };
        let updated = is_updated(work, &outcome.unit, step) && !no_restart;
        sorted.entry((action, updated)).or_default().push(outcome);
    }
    // Instances follow a template's new text although nothing was ordered of them.
    let followers = work.units.values().filter(|unit| {
        let template = unit.template.as_ref().and_then(|template| work.steps.get(template));
        !no_restart
            && !unit.deleting
            && matches!(template, Some(Step::Update { .. }))
            && !work.steps.contains_key(&unit.name)
    });
    for unit in followers {
        let outcome = UnitOutcome {
            unit: unit.name.clone(),
            changed: false,
            generation: unit.generation,
            run: unit.run,
            adopted_from: None,
        };
        sorted.entry((action_for(unit.target), true)).or_default().push(outcome);
    }
    sorted
}

/// Tells whether a unit, or the template that it follows, gets another text.
fn is_updated(work: &Work, unit: &UnitName, step: &Step) -> bool {
    let template = unit.template().and_then(|template| work.steps.get(&template));
    [Some(step), template].into_iter().flatten().any(|step| matches!(step, Step::Update { .. }))
}

/// Prints what would be done, and where the engine would place it.
pub(super) async fn foresee(cluster: &Cluster, work: &Work, output: Output) -> anyhow::Result<Exit> {
    let imagined = |(unit, step): (&UnitName, &Step)| {
        let target = match step {
            Step::Create { target } => Some(*target),
            Step::Update { target, .. } => target.map(|(_, to)| to),
            Step::Retarget { to, .. } => Some(*to),
            Step::Remove => None,
        };
        PlanUnit {
            name: unit.to_string(),
            text: work.folder.files.get(unit).filter(|_| *step != Step::Remove).map(|file| file.text.clone()),
            target: target.filter(|_| !unit.is_template()),
            destroy: *step == Step::Remove,
        }
    };
    let request = PlanRequest { units: work.steps.iter().map(imagined).collect() };
    if request.units.is_empty() {
        return super::tell(work).map(|()| Exit::Done);
    }
    plan::foresee(cluster, &request, output).await
}
