//! `flotctl plan`: what would come of starting units, foreseen by the engine from the live state.

use std::{collections::BTreeSet, fs, io::Write as _, path::Path};

use anyhow::Context as _;
use flotilla_api::{
    plan::{PlanOutcome, PlanRequest, PlanUnit, PlannedChange, PlannedMove, PlannedPlace, PlannedUnit},
    unit::Target,
};

use super::rebalance::place;
use crate::{args::Output, connection::Cluster, exit::Exit, paint, print, sources, text};

/// Says what would be placed where, and changes nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Unit files, and names of units that the cluster has or whose template is named; the file of a name is
    /// looked for in the current folder too
    #[arg(value_name = "FILE|UNIT", required = true, add = crate::complete::units_and_files())]
    units: Vec<String>,
}

/// Runs the command. The exit status is 5 when one of the units would be nowhere.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<Exit> {
    let request = request(&args.units)?;
    let plan = cluster.read(async |client| client.plan(&request).await).await?;
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
    let named = sources::named(words)?;
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
        for against in against(unit) {
            writeln!(out, "{against}")?;
        }
    }
    for it in &plan.moves {
        writeln!(out, "{}", moved(it))?;
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
    let whereto = whereto(unit).map(|place| format!("  {place}")).unwrap_or_default();
    format!("{change:9} {}{whereto}", unit.unit)
}

/// Says where a unit would be, or why it would be nowhere, if it should be somewhere.
pub(super) fn whereto(unit: &PlannedUnit) -> Option<String> {
    if let Some(why) = &unit.unplaced {
        return Some(format!("{}: {}", paint::bad("nowhere"), text::one_line(why)));
    }
    let places: Vec<String> = unit.machines.iter().map(place).collect();
    let stays = unit.machines.iter().all(|place| place.here);
    let verb = if stays { "stays on" } else { "on" };
    (!places.is_empty()).then(|| format!("{verb} {}", places.join(", ")))
}

/// Says of a unit that would be nowhere what speaks against each machine, a line each.
pub(super) fn against(unit: &PlannedUnit) -> impl Iterator<Item = String> {
    let width = unit.rejected.iter().map(|machine| machine.host.len()).max().unwrap_or(0);
    unit.rejected.iter().map(move |machine| {
        let (host, rule) = (text::one_line(&machine.host), machine.rule.as_deref().unwrap_or("no"));
        let reason = text::one_line(machine.reason.as_deref().unwrap_or_default()).into_owned();
        format!("  {host:width$}  {}: {reason}", paint::pending(rule))
    })
}

/// Says how a unit that was not asked about would move.
pub(super) fn moved(it: &PlannedMove) -> String {
    let list = |places: &BTreeSet<PlannedPlace>| places.iter().map(place).collect::<Vec<_>>().join(", ");
    match (it.from.is_empty(), it.to.is_empty()) {
        (false, false) => format!("{} moves from {} to {}", it.unit, list(&it.from), list(&it.to)),
        (false, true) => format!("{} leaves {}", it.unit, list(&it.from)),
        _ => format!("{} comes to {}", it.unit, list(&it.to)),
    }
}
