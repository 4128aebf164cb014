//! `flotctl list-units`: one line for each unit on each machine.

use flotilla_api::unit::{Placement, Unit};
use serde::Serialize;

use super::all_pages;
use crate::{
    args::Output,
    connection::Cluster,
    order, print,
    selector::Selector,
    table::{self, Column, ListOptions, Shown, Tabled},
    text,
};

/// Lists units and how they are.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Globs over unit names; UNIT@MACHINE means it on that machine only
    #[arg(value_name = "PATTERN", add = crate::complete::units())]
    patterns: Vec<String>,

    /// Only units whose active state is one of these
    #[arg(long, value_delimiter = ',', value_name = "STATES")]
    state: Vec<String>,

    #[command(flatten)]
    pub(super) list: ListOptions<Row>,
}

/// One line: a unit, and one of its placements.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    unit: Unit,
    #[serde(skip)]
    placement: Option<Placement>,
}

impl Tabled for Row {
    const COLUMNS: &'static [Column<Self>] = &[
        Column { name: "unit", shown: Shown::Always, text: |row, _| row.unit.name.to_string() },
        Column { name: "machine", shown: Shown::Always, text: machine },
        Column { name: "load", shown: Shown::Wide, text: |row, _| row.state(|s| s.load.clone()) },
        Column { name: "active", shown: Shown::Always, text: |row, _| row.active() },
        Column { name: "sub", shown: Shown::Always, text: |row, _| row.state(|s| s.sub.clone()) },
        Column { name: "target", shown: Shown::Wide, text: |row, _| row.unit.target.to_string() },
        Column { name: "since", shown: Shown::Wide, text: since },
        Column { name: "restarts", shown: Shown::Wide, text: |row, _| row.state(|s| s.restarts.to_string()) },
        Column {
            name: "result",
            shown: Shown::Wide,
            text: |row, _| row.state(|s| s.result.clone().unwrap_or_default()),
        },
        Column { name: "hash", shown: Shown::Asked, text: hash },
        Column { name: "run", shown: Shown::Asked, text: |row, _| row.state(|s| s.run.to_string()) },
        Column { name: "token", shown: Shown::Asked, text: token },
        Column {
            name: "invocation",
            shown: Shown::Asked,
            text: |row, _| row.state(|s| s.invocation.clone().unwrap_or_default()),
        },
        Column { name: "generation", shown: Shown::Asked, text: |row, _| row.unit.generation.to_string() },
        Column {
            name: "description",
            shown: Shown::Asked,
            text: |row, _| row.unit.description.clone().unwrap_or_default(),
        },
        Column { name: "note", shown: Shown::Always, text: |row, _| row.note() },
    ];
}

/// Runs the command.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<()> {
    let selectors: Vec<Selector> = args.patterns.iter().map(|pattern| Selector::read(pattern)).collect();
    let patterns: Vec<String> = selectors.iter().map(|selector| selector.unit.clone()).collect();
    let mut units: Vec<Unit> =
        all_pages(cluster, &patterns, async |client, query| client.units(query).await).await?;
    // A template runs nowhere; list-unit-files shows it.
    units.retain(|unit| !unit.name.is_template());
    let units: Vec<Unit> = units.into_iter().filter_map(|unit| narrowed(unit, &selectors)).collect();
    if output == Output::Json {
        let wanted = |unit: &Unit| rows(unit.clone()).any(|row| row.matches(&args.state));
        let units: Vec<Unit> = units.into_iter().filter(wanted).collect();
        return Ok(print::json(&units)?);
    }
    let rows: Vec<Row> = units.into_iter().flat_map(rows).filter(|row| row.matches(&args.state)).collect();
    table::show(&rows, &args.list, output)
}

/// Leaves only those machines of a unit that are meant, and nothing of one that is on none of them.
fn narrowed(mut unit: Unit, selectors: &[Selector]) -> Option<Unit> {
    let mut only = Vec::new();
    let mut meaning = selectors.iter().filter(|selector| selector.selects(&unit.name)).peekable();
    if meaning.peek().is_none() {
        return Some(unit);
    }
    for selector in meaning {
        match selector.machines(&unit) {
            Ok(None) => return Some(unit),
            Ok(Some(ids)) => only.extend(ids),
            Err(_) => {}
        }
    }
    unit.placements.retain(|placement| only.contains(&placement.machine));
    (!unit.placements.is_empty()).then_some(unit)
}

/// A unit that is on no machine has a line too, unless nobody wants it on one.
fn rows(unit: Unit) -> impl Iterator<Item = Row> {
    let mut placements: Vec<Option<Placement>> = unit.placements.iter().cloned().map(Some).collect();
    if placements.is_empty() {
        placements.push(None);
    }
    placements.into_iter().map(move |placement| Row { unit: unit.clone(), placement })
}

impl Row {
    fn state(&self, field: impl Fn(&flotilla_api::unit::UnitState) -> String) -> String {
        self.placement.as_ref().and_then(|p| p.state.as_ref()).map(field).unwrap_or_default()
    }

    fn active(&self) -> String {
        match &self.placement {
            Some(placement) if !placement.machine_alive => "unknown".to_owned(),
            Some(_) => self.state(|s| s.active.clone()),
            None => "inactive".to_owned(),
        }
    }

    fn matches(&self, states: &[String]) -> bool {
        states.is_empty() || states.contains(&self.active())
    }

    /// What is not as it should be, in a few words.
    fn note(&self) -> String {
        let why = self.unit.unplaced.as_ref().map(|why| format!("not placed: {why}"));
        let Some(placement) = &self.placement else { return why.unwrap_or_default() };
        let state = placement.state.as_ref();
        let mut notes = Vec::new();
        if !placement.machine_alive {
            notes.push("machine lost".to_owned());
        }
        if let Some(why) = &placement.departing {
            notes.push(format!("leaving: {why}"));
        }
        if state.is_some_and(|s| s.stray) {
            notes.push("stray".to_owned());
        }
        if state.is_some_and(|s| s.stopped_locally) {
            notes.push("stopped on the machine".to_owned());
        }
        if let Some(problem) = state.and_then(|s| s.problem.as_ref()) {
            notes.push(problem.clone());
        }
        // Where it stays, it lacks no place.
        notes.extend(why.filter(|_| !placement.machine_alive || placement.departing.is_some()));
        notes.join("; ")
    }
}

fn machine(row: &Row, full: bool) -> String {
    match &row.placement {
        Some(placement) if full => placement.machine.to_string(),
        Some(placement) => order::machine(placement),
        None => String::new(),
    }
}

fn since(row: &Row, _full: bool) -> String {
    let since = row.placement.as_ref().and_then(|p| p.state.as_ref()).and_then(|s| s.since);
    since.map(|at| text::ago(at, jiff::Timestamp::now())).unwrap_or_default()
}

fn hash(row: &Row, full: bool) -> String {
    row.unit.hash.map(|hash| if full { hash.to_string() } else { hash.short() }).unwrap_or_default()
}

fn token(row: &Row, _full: bool) -> String {
    row.placement.as_ref().map(|p| p.token.to_string()).unwrap_or_default()
}
