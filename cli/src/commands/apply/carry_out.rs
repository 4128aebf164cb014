//! Gives the cluster what a folder says, and waits until it is true.

use flotilla_api::{
    action::{Action, BulkOutcome, BulkUnit, BulkWrite, UnitOutcome},
    plan::PlanOutcome,
    unit::{Target, Unit},
};
use flotilla_units::UnitName;
use tokio::time::{Instant, timeout_at};

use super::{Args, Work, report};
use crate::{
    args::Output,
    commands::change,
    connection::Cluster,
    exit::{Exit, Failure},
    folder::difference::Step,
    order::{Expected, Waiting},
    print,
};

/// Writes all steps, and waits until every unit of the folder is as it should be, also where nothing was
/// to be done: what an earlier apply left failed is not well because it was written.
pub(super) async fn carry_out(
    cluster: &Cluster,
    work: &Work,
    foreseen: &PlanOutcome,
    args: &Args,
    output: Output,
    begun: Instant,
) -> anyhow::Result<Exit> {
    let end = begun + args.wait.timeout();
    let written = if work.steps.is_empty() { None } else { Some(write(cluster, work, args, end).await?) };
    let revision = written.as_ref().map(|written| written.revision);
    if args.wait.no_block {
        if output == Output::Json {
            print::json(&report::document(work, foreseen, revision, Vec::new()))?;
        } else {
            report::ordered(work)?;
        }
        return Ok(Exit::Done);
    }
    let outcomes = written.map(|written| written.units).unwrap_or_default();
    let mut waiting = expected(work, args.no_restart, &outcomes);
    let timed_out = !change::watch(cluster, revision, &mut waiting, output, end).await?;
    let (exit, mut reports) = change::reports(cluster, &waiting, timed_out, output).await;
    if output == Output::Json {
        print::json(&report::document(work, foreseen, revision, reports))?;
    } else {
        // Nobody needs to be told that what is as it was is well.
        reports.retain(|report| waiting.is_touched(&report.unit) || !report.is_done());
        change::print_reports(cluster, &reports).await?;
    }
    Ok(exit)
}

async fn write(cluster: &Cluster, work: &Work, args: &Args, end: Instant) -> anyhow::Result<BulkOutcome> {
    let write = BulkWrite { units: orders(work, args), whole: false };
    let give = async { anyhow::Ok(cluster.client().bulk(&write).await?) };
    timeout_at(end, give).await.map_err(|_| {
        let why = "the time ran out before the cluster acknowledged the changes; the same apply again does what \
                   is left of them";
        Failure::error(Exit::TimedOut, why)
    })?
}

/// What is asked of the cluster, each unit only if it is as it was seen: whoever changed it meanwhile
/// is not overruled unseen.
fn orders(work: &Work, args: &Args) -> Vec<BulkUnit> {
    let order = |(unit, step): (&UnitName, &Step)| {
        let text = match step {
            Step::Create { .. } | Step::Update { .. } => {
                work.folder.files.get(unit).map(|file| file.text.clone())
            }
            Step::Retarget { .. } | Step::TakeOver | Step::Remove => None,
        };
        let seen = work.units.get(unit);
        let take_over = args.source.take_over && seen.is_some() && *step != Step::Remove;
        let creates = matches!(step, Step::Create { .. });
        BulkUnit {
            name: unit.to_string(),
            replace: text.is_some() && seen.is_some(),
            no_restart: text.is_some() && args.no_restart,
            text,
            action: action(unit, step),
            create: creates,
            set: (creates || take_over).then(|| work.folder.set.clone()),
            take_over,
            if_match: Some(seen.map_or(0, |unit| unit.revision)),
        }
    };
    work.steps.iter().map(order).collect()
}

/// What is to become of a unit besides its text.
pub(super) fn action(unit: &UnitName, step: &Step) -> Option<Action> {
    let target = match step {
        Step::Remove => return Some(Action::Destroy),
        Step::Create { .. } if unit.is_template() => return None,
        Step::Create { target } => *target,
        Step::Retarget { to, .. } | Step::Update { target: Some((_, to)), .. } => *to,
        Step::Update { target: None, .. } | Step::TakeOver => return None,
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

/// What is to be true: of what was written, of the instances that follow a template's new text, and of all
/// the rest of the folder.
fn expected(work: &Work, no_restart: bool, written: &[UnitOutcome]) -> Waiting {
    let of_steps = written.iter().filter_map(|outcome| {
        let step = work.steps.get(&outcome.unit)?;
        let wanted = work.folder.targets.get(&outcome.unit).copied();
        let ordered = action(&outcome.unit, step);
        let expected = Expected::of(ordered.or(wanted.map(action_for))?, outcome);
        let updated = is_updated(work, &outcome.unit, step) && !no_restart;
        let touched = *step != Step::TakeOver;
        let expected = Expected { ordered: ordered.is_some(), touched, updated, ..expected };
        Some((outcome.unit.clone(), expected))
    });
    let rest = work.units.values().filter(|unit| !work.steps.contains_key(&unit.name) && !unit.deleting);
    let rest = rest.filter_map(|unit| {
        let follows = !no_restart && follows(work, &unit.name);
        if !follows && !work.folder.targets.contains_key(&unit.name) {
            return None;
        }
        Some((unit.name.clone(), as_it_should_be(unit, follows, no_restart)))
    });
    of_steps.chain(rest).collect()
}

fn as_it_should_be(unit: &Unit, follows: bool, no_restart: bool) -> Expected {
    Expected {
        action: action_for(unit.target),
        ordered: false,
        touched: follows,
        // What was said to be left until its next start is not waited for.
        updated: follows || !(no_restart || unit.next_start),
        generation: unit.generation,
        run: unit.run,
    }
}

/// Tells whether an instance follows a template that gets another text, although nothing was ordered of it.
pub(super) fn follows(work: &Work, unit: &UnitName) -> bool {
    let known = work.units.get(unit).filter(|unit| !unit.own_text && !unit.deleting);
    let template = known.and_then(|unit| work.steps.get(unit.template.as_ref()?));
    matches!(template, Some(Step::Update { .. })) && !work.steps.contains_key(unit)
}

/// Tells whether a unit, or the template that it follows, gets another text.
fn is_updated(work: &Work, unit: &UnitName, step: &Step) -> bool {
    let template = unit.template().and_then(|template| work.steps.get(&template));
    [Some(step), template].into_iter().flatten().any(|step| matches!(step, Step::Update { .. }))
}
