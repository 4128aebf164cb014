//! `flotctl apply` and `flotctl diff`: a folder of unit files becomes what the cluster has.

mod carry_out;
mod differ;

use std::{collections::BTreeMap, path::PathBuf};

use flotilla_api::unit::Unit;
use flotilla_units::UnitName;
use serde::Serialize;
use tokio::time::Instant;

use super::all_pages;
use crate::{
    args::{Output, WaitOptions},
    connection::Cluster,
    exit::{Exit, Failure},
    folder::{
        self, Folder,
        difference::{Known, Step, difference},
    },
    paint, print, text,
};

/// Makes the cluster have what a folder says.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,

    /// Destroy what an apply of this set made and the folder does not have any more
    #[arg(long)]
    prune: bool,

    /// Say what would be done, with the machines that the engine would choose, and do nothing
    #[arg(long)]
    plan: bool,

    /// Leave what runs as it is: a changed text is used from a unit's next start on
    #[arg(long)]
    no_restart: bool,

    #[command(flatten)]
    wait: WaitOptions,
}

/// Tells how a folder and the cluster differ.
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    source: Source,

    /// Count what `apply --prune` would destroy
    #[arg(long)]
    prune: bool,

    /// Exit with 1 if they differ
    #[arg(long)]
    exit_code: bool,
}

/// Which folder.
#[derive(Debug, clap::Args)]
struct Source {
    /// A folder of unit files, with drop-ins and perhaps a flotilla.toml
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    folder: PathBuf,

    /// The name under which is remembered what an apply made [default: flotilla.toml's, else the folder's]
    #[arg(long, value_name = "NAME")]
    set: Option<String>,
}

/// What is to be done, and what is known of the units that it is about.
struct Work {
    folder: Folder,
    steps: BTreeMap<UnitName, Step>,
    units: BTreeMap<UnitName, Unit>,
}

/// One step, as it is printed.
#[derive(Debug, Serialize)]
struct Row<'a> {
    unit: &'a UnitName,
    change: &'static str,
    detail: String,
}

/// Runs `apply`, whose time began at `begun`.
pub(crate) async fn run(
    cluster: &Cluster,
    args: &Args,
    output: Output,
    begun: Instant,
) -> anyhow::Result<Exit> {
    let work = compare(cluster, &args.source, args.prune).await?;
    if args.plan {
        return carry_out::foresee(cluster, &work, output).await;
    }
    if output != Output::Json {
        tell(&work)?;
    }
    carry_out::carry_out(cluster, &work, args, output, begun).await
}

/// Runs `diff`.
pub(crate) async fn run_diff(cluster: &Cluster, args: &DiffArgs, output: Output) -> anyhow::Result<Exit> {
    let work = compare(cluster, &args.source, args.prune).await?;
    if output == Output::Json {
        print::json(&rows(&work))?;
    } else {
        tell(&work)?;
        differ::print(cluster, &work).await?;
    }
    Ok(if args.exit_code && !work.steps.is_empty() { Exit::Failed } else { Exit::Done })
}

/// Reads the folder and what the cluster has of it. Nothing is asked of the cluster before the folder
/// makes sense.
async fn compare(cluster: &Cluster, source: &Source, prune: bool) -> anyhow::Result<Work> {
    let folder = folder::read(&source.folder, source.set.as_deref())?;
    for path in &folder.ignored {
        print::tell(format_args!(
            "{} is no unit file, and is left out",
            text::one_line(&path.display().to_string())
        ));
    }
    let all = all_pages(cluster, &[], async |client, query| client.units(query).await).await?;
    let units: BTreeMap<UnitName, Unit> = all.into_iter().map(|unit| (unit.name.clone(), unit)).collect();
    let known: BTreeMap<UnitName, Known> = units
        .iter()
        .map(|(name, unit)| {
            let known = Known {
                hash: unit.hash,
                target: unit.target,
                set: unit.set.clone(),
                deleting: unit.deleting,
            };
            (name.clone(), known)
        })
        .collect();
    let steps = difference(&folder, &known, prune)
        .map_err(|conflict| Failure::error(Exit::Failed, conflict.to_string()))?;
    Ok(Work { folder, steps, units })
}

/// Prints the steps, and counts them.
fn tell(work: &Work) -> anyhow::Result<()> {
    let rows = rows(work);
    if rows.is_empty() {
        print::line(format_args!("nothing to do: the cluster has what {} says", work.folder.set))?;
        return Ok(());
    }
    let (names, changes) = (widest(rows.iter().map(|row| row.unit.as_str())), "retarget".len());
    for row in &rows {
        let change = format!("{:<changes$}", row.change);
        let change = match row.change {
            "create" => paint::good(&change).to_string(),
            "remove" => paint::bad(&change).to_string(),
            _ => change,
        };
        print::line(format_args!("{:<names$}  {change}  {}", row.unit.as_str(), row.detail))?;
    }
    Ok(())
}

fn widest<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(str::len).max().unwrap_or(0)
}

fn rows(work: &Work) -> Vec<Row<'_>> {
    work.steps.iter().map(|(unit, step)| row(work, unit, step)).collect()
}

fn row<'a>(work: &Work, unit: &'a UnitName, step: &Step) -> Row<'a> {
    let (change, detail) = match step {
        Step::Create { .. } if unit.is_template() => ("create", "template".to_owned()),
        Step::Create { target } => ("create", target.to_string()),
        Step::Update { from, target } => {
            let short = |hash: Option<flotilla_units::ContentHash>| {
                hash.map_or_else(|| "no text".to_owned(), |hash| hash.short())
            };
            let to = work.folder.files.get(unit).map(folder::File::hash);
            let target = target.map(|(from, to)| format!(", {from} -> {to}")).unwrap_or_default();
            let instances = work.units.values().filter(|it| it.template.as_ref() == Some(unit)).count();
            let follow = match instances {
                0 => String::new(),
                1 => ", 1 instance follows".to_owned(),
                many => format!(", {many} instances follow"),
            };
            ("update", format!("{} -> {}{target}{follow}", short(*from), short(to)))
        }
        Step::Retarget { from, to } => ("retarget", format!("{from} -> {to}")),
        Step::Remove => ("remove", "not in the folder any more".to_owned()),
    };
    Row { unit, change, detail }
}
