//! `flotctl apply` and `flotctl diff`: a folder of unit files becomes what the cluster has.

mod carry_out;
mod differ;
mod foresee;
mod report;

use std::{collections::BTreeMap, path::PathBuf};

use flotilla_api::unit::Unit;
use flotilla_units::{UnitFile, UnitName};
use tokio::time::Instant;

use super::{all_pages, submit};
use crate::{
    args::{Output, WaitOptions},
    connection::Cluster,
    exit::{Exit, Failure},
    folder::{
        self, Folder,
        difference::{Known, May, Step, difference},
    },
    print, text,
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

    /// Exit with 7 if they differ
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

    /// Make this set's what another set's apply, or somebody by hand, made
    #[arg(long)]
    take_over: bool,
}

/// What is to be done, and what is known of the units that it is about.
struct Work {
    folder: Folder,
    steps: BTreeMap<UnitName, Step>,
    units: BTreeMap<UnitName, Unit>,
}

/// Runs `apply`, whose time began at `begun`.
pub(crate) async fn run(
    cluster: &Cluster,
    args: &Args,
    output: Output,
    begun: Instant,
) -> anyhow::Result<Exit> {
    let work = compare(cluster, &args.source, args.prune).await?;
    let foreseen = foresee::foresee(cluster, &work).await?;
    if args.plan {
        report::print(&work, &foreseen, output)?;
        let nowhere = foreseen.units.iter().any(|unit| unit.unplaced.is_some());
        return Ok(if nowhere { Exit::CannotBePlaced } else { Exit::Done });
    }
    if output != Output::Json {
        report::print(&work, &foreseen, output)?;
    }
    carry_out::carry_out(cluster, &work, &foreseen, args, output, begun).await
}

/// Runs `diff`.
pub(crate) async fn run_diff(cluster: &Cluster, args: &DiffArgs, output: Output) -> anyhow::Result<Exit> {
    let work = compare(cluster, &args.source, args.prune).await?;
    report::print(&work, &foresee::foresee(cluster, &work).await?, output)?;
    if output != Output::Json {
        differ::print(cluster, &work).await?;
    }
    Ok(if args.exit_code && !work.steps.is_empty() { Exit::Differs } else { Exit::Done })
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
    if prune {
        let exit = if folder.set_is_named { Exit::Failed } else { Exit::Usage };
        folder.may_prune(&source.folder).map_err(|why| Failure::error(exit, why.to_string()))?;
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
                own_text: unit.own_text,
                deleting: unit.deleting,
            };
            (name.clone(), known)
        })
        .collect();
    let steps = difference(&folder, &known, May { prune, take_over: source.take_over })
        .map_err(|conflict| Failure::error(Exit::Failed, conflict.to_string()))?;
    for (name, step) in &steps {
        let gives_text = matches!(step, Step::Create { .. } | Step::Update { .. });
        let file = folder.files.get(name).filter(|_| gives_text);
        if let Some(Ok(file)) = file.map(|it| UnitFile::parse(name.as_str(), it.text.as_bytes())) {
            submit::tell_without_effect(name, &file);
        }
    }
    Ok(Work { folder, steps, units })
}
