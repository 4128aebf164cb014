//! `flotctl plan`: what would come of starting units, foreseen by the engine from the live state.

use std::{fs, io::Write as _, path::Path};

use anyhow::Context as _;
use flotilla_api::{
    plan::{PlanOutcome, PlanRequest, PlanUnit, PlannedChange, PlannedUnit},
    unit::Target,
};

use super::{change, rebalance::place};
use crate::{args::Output, connection::Cluster, exit::Exit, paint, print, text};

/// Says what would be placed where, and changes nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Unit files, and names of units that the cluster has or whose template is named
    #[arg(value_name = "FILE|UNIT", required = true, add = crate::complete::units())]
    units: Vec<String>,
}

/// Runs the command. The exit status is 5 when one of the units would be nowhere.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<Exit> {
    foresee(cluster, &request(&args.units)?, output).await
}

/// Prints what the engine foresees, with the exit status 5 when one of the units would be nowhere.
pub(super) async fn foresee(
    cluster: &Cluster,
    request: &PlanRequest,
    output: Output,
) -> anyhow::Result<Exit> {
    let plan = cluster.read(async |client| client.plan(request).await).await?;
    let nowhere = plan.units.iter().any(|unit| unit.unplaced.is_some());
    if output == Output::Json {
        print::json(&plan)?;
    } else {
        describe(&plan)?;
    }
    Ok(if nowhere { Exit::CannotBePlaced } else { Exit::Done })
}

/// Makes a request of files, which would be given to the cluster, and units, which would be started.
fn request(words: &[String]) -> anyhow::Result<PlanRequest> {
    let named = change::named(words)?;
    let mut units: Vec<PlanUnit> = Vec::new();
    for file in &named.files {
        let (name, text) = read(file)?;
        units.push(PlanUnit { name, text: Some(text), ..PlanUnit::default() });
    }
    for name in named.units {
        if name.contains("@.") {
            continue;
        }
        match units.iter_mut().find(|unit| unit.name == name) {
            Some(unit) => unit.target = Some(Target::Launched),
            None => units.push(PlanUnit { name, target: Some(Target::Launched), ..PlanUnit::default() }),
        }
    }
    Ok(PlanRequest { units })
}

fn read(file: &Path) -> anyhow::Result<(String, String)> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok((name, text))
}

fn describe(plan: &PlanOutcome) -> anyhow::Result<()> {
    let mut out = print::out();
    for unit in &plan.units {
        writeln!(out, "{}", line(unit))?;
        let width = unit.rejected.iter().map(|machine| machine.host.len()).max().unwrap_or(0);
        for machine in &unit.rejected {
            let (host, rule) = (text::one_line(&machine.host), machine.rule.as_deref().unwrap_or("no"));
            let reason = text::one_line(machine.reason.as_deref().unwrap_or_default()).into_owned();
            writeln!(out, "  {host:width$}  {}: {reason}", paint::pending(rule))?;
        }
    }
    for it in &plan.moves {
        let list =
            |places: &std::collections::BTreeSet<_>| places.iter().map(place).collect::<Vec<_>>().join(", ");
        match (it.from.is_empty(), it.to.is_empty()) {
            (false, false) => writeln!(out, "{} moves from {} to {}", it.unit, list(&it.from), list(&it.to))?,
            (false, true) => writeln!(out, "{} leaves {}", it.unit, list(&it.from))?,
            _ => writeln!(out, "{} comes to {}", it.unit, list(&it.to))?,
        }
    }
    Ok(())
}

/// Says in one line what would become of a unit.
fn line(unit: &PlannedUnit) -> String {
    let change = match unit.change {
        PlannedChange::Create => "create",
        PlannedChange::Update => "update",
        PlannedChange::Retarget => "retarget",
        PlannedChange::Unchanged => "unchanged",
        PlannedChange::Destroy => "destroy",
    };
    if let Some(why) = &unit.unplaced {
        return format!("{change:9} {}  {}: {}", unit.unit, paint::bad("nowhere"), text::one_line(why));
    }
    let places: Vec<String> = unit.machines.iter().map(place).collect();
    if places.is_empty() {
        return format!("{change:9} {}", unit.unit);
    }
    let stays = unit.machines.iter().all(|place| place.here);
    let verb = if stays { "stays on" } else { "on" };
    format!("{change:9} {}  {verb} {}", unit.unit, places.join(", "))
}
