//! What is to be done, as it is printed: for people line by line, for programs as one document.

use std::{collections::BTreeMap, io::Write as _};

use flotilla_api::plan::{PlanOutcome, PlannedMove, PlannedPlace, PlannedUnit};
use flotilla_units::{ContentHash, UnitName};
use serde::Serialize;

use super::{
    super::{change, plan},
    Work,
};
use crate::{
    args::Output,
    folder::{self, difference::Step},
    paint, print,
};

/// The one document that `diff`, `apply --plan` and `apply` print for programs.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    /// Which set.
    set: &'a str,
    /// The store's revision at which the last step was written; absent when none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    /// What is done, and of an apply that waited also the other units of the folder, by name.
    units: Vec<Row<'a>>,
    /// Other units that would be elsewhere, by name.
    moves: &'a [PlannedMove],
}

/// One unit.
#[derive(Debug, Serialize)]
struct Row<'a> {
    unit: &'a UnitName,
    /// What is done to it; `none` to what is as wanted.
    change: &'static str,
    /// In words, for people.
    detail: String,
    /// Where it would be.
    #[serde(skip_serializing_if = "<[PlannedPlace]>::is_empty")]
    machines: &'a [PlannedPlace],
    /// Why it would be nowhere, if it should be somewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    unplaced: Option<&'a str>,
    /// What became of it, if that was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<change::Report>,
}

/// Makes the document, with when it was written and what became of units.
pub(super) fn document<'a>(
    work: &'a Work,
    foreseen: &'a PlanOutcome,
    revision: Option<i64>,
    became: Vec<change::Report>,
) -> Document<'a> {
    let mut rows: BTreeMap<&UnitName, Row<'_>> =
        work.steps.iter().map(|(unit, step)| (unit, row(work, foreseen, unit, step))).collect();
    for report in became {
        let name = work.folder.targets.keys().chain(work.steps.keys()).chain(work.units.keys());
        let Some(unit) = name.into_iter().find(|unit| **unit == report.unit) else { continue };
        let as_it_is = || {
            let change = if super::carry_out::follows(work, unit) { "follow" } else { "none" };
            Row { unit, change, detail: String::new(), machines: &[], unplaced: None, outcome: None }
        };
        rows.entry(unit).or_insert_with(as_it_is).outcome = Some(report);
    }
    Document { set: &work.folder.set, revision, units: rows.into_values().collect(), moves: &foreseen.moves }
}

/// Prints the steps, and where the engine would place what is to be done.
pub(super) fn print(work: &Work, foreseen: &PlanOutcome, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return Ok(print::json(&document(work, foreseen, None, Vec::new()))?);
    }
    if work.steps.is_empty() {
        print::line(format_args!("nothing to do: the cluster has what {} says", work.folder.set))?;
        return Ok(());
    }
    let names = work.steps.keys().map(|unit| unit.as_str().len()).max().unwrap_or(0);
    let changes = "take over".len();
    let mut out = print::out();
    for (unit, step) in &work.steps {
        let Row { change, detail, .. } = row(work, foreseen, unit, step);
        let padded = format!("{change:<changes$}");
        let change = match step {
            Step::Create { .. } => paint::good(&padded).to_string(),
            Step::Remove => paint::bad(&padded).to_string(),
            _ => padded,
        };
        let planned = planned(foreseen, unit);
        let place = planned.and_then(plan::whereto).map(|place| format!(", {place}")).unwrap_or_default();
        writeln!(out, "{:<names$}  {change}  {detail}{place}", unit.as_str())?;
        for against in planned.into_iter().flat_map(plan::against) {
            writeln!(out, "{against}")?;
        }
    }
    for it in &foreseen.moves {
        writeln!(out, "{}", plan::moved(it))?;
    }
    Ok(())
}

/// Says of each step what was ordered, without waiting for it.
pub(super) fn ordered(work: &Work) -> anyhow::Result<()> {
    for (unit, step) in &work.steps {
        let word = match super::carry_out::action(unit, step) {
            Some(action) => action.to_string(),
            None => change(step).to_owned(),
        };
        print::line(format_args!("{unit} {word} ordered"))?;
    }
    Ok(())
}

fn planned<'a>(foreseen: &'a PlanOutcome, unit: &UnitName) -> Option<&'a PlannedUnit> {
    let at = foreseen.units.binary_search_by(|planned| planned.unit.cmp(unit)).ok()?;
    foreseen.units.get(at)
}

const fn change(step: &Step) -> &'static str {
    match step {
        Step::Create { .. } => "create",
        Step::Update { .. } => "update",
        Step::Retarget { .. } => "retarget",
        Step::TakeOver => "take over",
        Step::Remove => "remove",
    }
}

fn row<'a>(work: &'a Work, foreseen: &'a PlanOutcome, unit: &'a UnitName, step: &Step) -> Row<'a> {
    let detail = match step {
        Step::Create { .. } if unit.is_template() => "template".to_owned(),
        Step::Create { target } => target.to_string(),
        Step::Update { from, target } => {
            let short =
                |hash: Option<ContentHash>| hash.map_or_else(|| "no text".to_owned(), |hash| hash.short());
            let to = work.folder.files.get(unit).map(folder::File::hash);
            let target = target.map(|(from, to)| format!(", {from} -> {to}")).unwrap_or_default();
            let follow = match work.units.values().filter(|it| follows_in(it, unit)).count() {
                0 => String::new(),
                1 => ", 1 instance follows".to_owned(),
                many => format!(", {many} instances follow"),
            };
            format!("{} -> {}{target}{follow}", short(*from), short(to))
        }
        Step::Retarget { from, to } => format!("{from} -> {to}"),
        Step::TakeOver => "as it is".to_owned(),
        Step::Remove => "not in the folder any more".to_owned(),
    };
    let owner = work.units.get(unit).and_then(|unit| unit.set.as_ref());
    let owner = match owner {
        Some(owner) if *owner != work.folder.set => format!(", from the set `{owner}`"),
        _ => String::new(),
    };
    let planned = planned(foreseen, unit);
    Row {
        unit,
        change: change(step),
        detail: detail + &owner,
        machines: planned.map_or(&[], |planned| &planned.machines),
        unplaced: planned.and_then(|planned| planned.unplaced.as_deref()),
        outcome: None,
    }
}

/// Tells whether a unit follows a template.
fn follows_in(unit: &flotilla_api::unit::Unit, template: &UnitName) -> bool {
    !unit.own_text && unit.template.as_ref() == Some(template)
}
