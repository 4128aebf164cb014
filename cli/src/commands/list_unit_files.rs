//! `flotctl list-unit-files`: what the cluster has been given.

use flotilla_api::{
    page::UnitsQuery,
    unit::{Unit, Versions},
};

use super::pages::each_page;
use crate::{
    args::Output,
    connection::Cluster,
    order,
    table::{Column, JsonList, ListOptions, Shown, Table, Tabled},
};

/// Lists the unit files that the cluster has.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Globs over unit names
    #[arg(value_name = "PATTERN", add = crate::complete::unit_files())]
    patterns: Vec<String>,

    #[command(flatten)]
    pub(super) list: ListOptions<Unit>,
}

impl Tabled for Unit {
    // The values of fleet's five first, in its order: scripts read them by their place.
    const COLUMNS: &'static [Column<Self>] = &[
        Column { name: "unit", shown: Shown::Always, text: |unit, _| unit.name.to_string() },
        Column { name: "hash", shown: Shown::Always, text: hash },
        Column { name: "target", shown: Shown::Always, text: |unit, _| unit.target.to_string() },
        Column { name: "state", shown: Shown::Always, text: |unit, _| unit.current.to_string() },
        Column { name: "machines", shown: Shown::Always, text: |unit, _| machines(unit) },
        Column { name: "updated", shown: Shown::Always, text: |unit, _| updated(unit) },
        Column {
            name: "global",
            shown: Shown::Wide,
            text: |unit, _| if unit.global { "yes" } else { "no" }.to_owned(),
        },
        Column { name: "by", shown: Shown::Wide, text: |unit, _| unit.by.clone() },
        // fleetctl's names for the target, its machine and the description.
        Column { name: "dstate", shown: Shown::Asked, text: |unit, _| unit.target.to_string() },
        Column { name: "tmachine", shown: Shown::Asked, text: |unit, _| machines(unit) },
        Column {
            name: "desc",
            shown: Shown::Asked,
            text: |unit, _| unit.description.clone().unwrap_or_default(),
        },
        Column { name: "generation", shown: Shown::Asked, text: |unit, _| unit.generation.to_string() },
        Column {
            name: "description",
            shown: Shown::Wide,
            text: |unit, _| unit.description.clone().unwrap_or_default(),
        },
    ];
}

/// Runs the command.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<()> {
    let pattern = (!args.patterns.is_empty()).then(|| args.patterns.join(","));
    let query = UnitsQuery { pattern, ..UnitsQuery::default() };
    if output == Output::Json {
        let mut list = JsonList::default();
        each_page(cluster, query, |units: Vec<Unit>| Ok(list.add(&units)?)).await?;
        return Ok(list.end()?);
    }
    let mut table = Table::new(&args.list, output);
    each_page(cluster, query, |units: Vec<Unit>| Ok(table.add(&units)?)).await?;
    Ok(table.end()?)
}

/// Says how many placements, or instances, have the text: nothing where there is none, and why not all
/// have it where that is so.
fn updated(unit: &Unit) -> String {
    let Versions { updated, all } = unit.versions;
    match (&unit.rollout, all) {
        (_, 0) => String::new(),
        (None, _) => format!("{updated}/{all}"),
        (Some(rollout), _) => {
            let why = rollout.split_once("; ").map_or("", |(_, why)| why);
            format!("{updated}/{all} {why}").trim_end().to_owned()
        }
    }
}

fn hash(unit: &Unit, full: bool) -> String {
    unit.hash.map(|hash| if full { hash.to_string() } else { hash.short() }).unwrap_or_default()
}

fn machines(unit: &Unit) -> String {
    let hosts: Vec<String> =
        unit.placements.iter().filter(|p| p.departing.is_none()).map(order::machine).collect();
    match hosts.len() {
        0..=3 => hosts.join(","),
        more => format!("{more} machines"),
    }
}
