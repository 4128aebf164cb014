//! `flotctl list-units`: one line for each unit on each machine.

use std::sync::Arc;

use flotilla_api::{
    client::ClientError,
    error::ErrorKind,
    lines::{self, LinesQuery},
    page::UnitsQuery,
    unit::{Placement, Target, Unit},
};
use flotilla_units::Glob;

use super::pages::{each_page, each_part};
use crate::{
    args::Output,
    connection::Cluster,
    machines::{self, Named},
    order,
    selector::{Selector, is_glob, machines_of},
    table::{Column, JsonList, ListOptions, Shown, Table, Tabled},
    text,
};

/// Lists units and how they are.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Globs over unit names; UNIT@MACHINE means it on that machine only
    #[arg(value_name = "PATTERN", add = crate::complete::units())]
    patterns: Vec<String>,

    #[command(flatten)]
    filter: Filter,

    #[command(flatten)]
    pub(super) list: ListOptions<Row>,
}

/// Which units, as systemctl's options say it. The cluster answers with those units; of one that is on
/// several machines, the lines that are meant are picked here.
#[derive(Debug, Clone, Default, clap::Args)]
struct Filter {
    /// Only units whose load, active or sub state is one of these
    #[arg(long, value_delimiter = ',', value_name = "STATES")]
    state: Vec<String>,

    /// Only units of these types: service, timer, ...
    #[arg(long = "type", short = 't', value_delimiter = ',', value_name = "TYPES")]
    kind: Vec<String>,

    /// Only units that have failed
    #[arg(long)]
    failed: bool,

    /// Only units on these machines: host names, beginnings of ids, or globs
    #[arg(long, short = 'M', value_delimiter = ',', value_name = "MACHINES", add = crate::complete::machines())]
    machine: Vec<String>,

    /// Only units that should be on a machine and can be put on none
    #[arg(long)]
    unplaced: bool,
}

impl Filter {
    /// Makes ids of the machines that are named, so that the cluster and this program mean the same ones.
    async fn resolved(&self, cluster: &Cluster) -> anyhow::Result<Self> {
        let mut machine = Vec::with_capacity(self.machine.len());
        for word in &self.machine {
            machine.push(match is_glob(word) {
                true => word.clone(),
                false => machines::find(cluster, word).await?.id.to_string(),
            });
        }
        Ok(Self { machine, ..self.clone() })
    }

    fn query(&self, patterns: &[String]) -> UnitsQuery {
        let list = |words: &[String]| (!words.is_empty()).then(|| words.join(","));
        UnitsQuery {
            pattern: list(patterns),
            state: list(&self.state),
            kind: list(&self.kind),
            failed: self.failed,
            machine: list(&self.machine),
            unplaced: self.unplaced,
            ..UnitsQuery::default()
        }
    }

    /// Tells whether a line of a unit that is meant is meant too.
    fn selects(&self, row: &Row) -> bool {
        let states = [row.active(), row.state(|s| s.sub.clone()), row.state(|s| s.load.clone())];
        let state = self.state.is_empty() || self.state.iter().any(|wanted| states.contains(wanted));
        let on = |placement: &Placement| {
            let (id, host) = (placement.machine.to_string(), placement.host.as_deref().unwrap_or_default());
            self.machine.iter().any(|word| {
                *word == id || word.parse::<Glob>().is_ok_and(|it| it.matches(host) || it.matches(&id))
            })
        };
        let machine = self.machine.is_empty() || row.placement().is_some_and(on);
        // A unit on no machine has no states but these: the cluster has looked at it.
        (state || row.placement().is_none()) && machine && (!self.failed || states[0] == "failed")
    }
}

/// What of a unit the columns show that are shown without being asked for.
const SHOWN: &str = "target,generation,run,by,at,hash,reason,unplaced,placements.machine,placements.host,\
                     placements.machine_alive,placements.token,placements.run,placements.hash,placements.departing,\
                     placements.state.load,placements.state.active,placements.state.sub,placements.state.stray,\
                     placements.state.stopped_locally,placements.state.problem";

/// One line: a unit, and one of its placements.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    unit: Arc<Unit>,
    /// Which of its placements; none if it has none.
    at: usize,
}

impl Tabled for Row {
    const COLUMNS: &'static [Column<Self>] = &[
        Column { name: "unit", shown: Shown::Always, text: |row, _| row.unit.name.to_string() },
        Column { name: "machine", shown: Shown::Always, text: machine },
        Column { name: "load", shown: Shown::Wide, text: |row, _| row.state(|s| s.load.clone()) },
        Column { name: "active", shown: Shown::Always, text: |row, _| row.active() },
        Column { name: "sub", shown: Shown::Always, text: |row, _| row.state(|s| s.sub.clone()) },
        Column { name: "target", shown: Shown::Wide, text: |row, _| row.unit.target.to_string() },
        Column { name: "current", shown: Shown::Wide, text: |row, _| row.current().to_string() },
        Column { name: "since", shown: Shown::Wide, text: since },
        Column { name: "restarts", shown: Shown::Wide, text: |row, _| row.state(|s| s.restarts.to_string()) },
        Column {
            name: "result",
            shown: Shown::Wide,
            text: |row, _| row.state(|s| s.result.clone().unwrap_or_default()),
        },
        Column {
            name: "status",
            shown: Shown::Wide,
            text: |row, _| row.state(|s| s.exit_status.map(|it| it.to_string()).unwrap_or_default()),
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
    let filter = args.filter.resolved(cluster).await?;
    let named = machines_of(cluster, &selectors).await?;
    let mut query = filter.query(&patterns);
    // A template runs nowhere; list-unit-files shows it.
    let meant = |units: Vec<Unit>| {
        let units = units.into_iter().filter(|unit| !unit.name.is_template());
        units.filter_map(|unit| narrowed(unit, &selectors, &named)).map(Arc::new)
    };
    if output == Output::Json {
        let mut list = JsonList::default();
        let wanted = |unit: &Arc<Unit>| rows(Arc::clone(unit)).any(|row| filter.selects(&row));
        let take = |units| {
            let units: Vec<Arc<Unit>> = meant(units).filter(wanted).collect();
            Ok(list.add(&units)?)
        };
        each_page(cluster, query, take).await?;
        return Ok(list.end()?);
    }
    let mut table = Table::new(&args.list, output);
    if output == Output::Table && args.list.fields.is_empty() {
        if let Some(query) = args.lines(&selectors) {
            match each_part(cluster, query, |part| Ok(table.add_lines(part)?)).await {
                Ok(()) => return Ok(table.end()?),
                // An older flotillad knows units only.
                Err(e) if is_unknown(&e) && table.is_new() => {}
                Err(e) => return Err(e),
            }
        }
        query.fields = Some(SHOWN.to_owned());
    }
    let take = |units| {
        let rows: Vec<Row> = meant(units).flat_map(rows).filter(|row| filter.selects(row)).collect();
        Ok(table.add(&rows)?)
    };
    each_page(cluster, query, take).await?;
    Ok(table.end()?)
}

/// Tells whether a flotillad knows nothing of what it was asked for.
fn is_unknown(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ClientError>().is_some_and(|error| {
        error.kind() == Some(ErrorKind::NotFound) || matches!(error, ClientError::Unexpected { .. })
    })
}

impl Args {
    /// Asks for nothing but lines, if they say all that is to be shown and the cluster can choose them.
    fn lines(&self, selectors: &[Selector]) -> Option<LinesQuery> {
        let Filter { state, kind, failed, machine, unplaced } = &self.filter;
        let by_more = !state.is_empty() || *failed || !machine.is_empty() || *unplaced;
        if by_more || self.list.full || selectors.iter().any(|selector| selector.machine.is_some()) {
            return None;
        }
        let list = |words: &[String]| (!words.is_empty()).then(|| words.join(","));
        let patterns: Vec<String> = selectors.iter().map(|selector| selector.unit.clone()).collect();
        Some(LinesQuery { pattern: list(&patterns), kind: list(kind), ..LinesQuery::default() })
    }
}

/// Leaves only those machines of a unit that are meant, and nothing of one that is on none of them.
fn narrowed(mut unit: Unit, selectors: &[Selector], named: &Named) -> Option<Unit> {
    let mut only = Vec::new();
    let mut meaning = selectors.iter().filter(|selector| selector.selects(&unit.name)).peekable();
    if meaning.peek().is_none() {
        return Some(unit);
    }
    for selector in meaning {
        match selector.machine(&unit, named) {
            Ok(None) => return Some(unit),
            Ok(Some(id)) => only.push(id),
            Err(_) => {}
        }
    }
    unit.placements.retain(|placement| only.contains(&placement.machine));
    (!unit.placements.is_empty()).then_some(unit)
}

/// A unit that is on no machine has a line too, unless nobody wants it on one.
fn rows(unit: Arc<Unit>) -> impl Iterator<Item = Row> {
    let lines = unit.placements.len().max(1);
    (0..lines).map(move |at| Row { unit: Arc::clone(&unit), at })
}

impl Row {
    fn placement(&self) -> Option<&Placement> {
        self.unit.placements.get(self.at)
    }

    fn state(&self, field: impl Fn(&flotilla_api::unit::UnitState) -> String) -> String {
        self.placement().and_then(|p| p.state.as_ref()).map(field).unwrap_or_default()
    }

    fn current(&self) -> Target {
        self.placement().map_or(self.unit.current, |placement| placement.current)
    }

    fn active(&self) -> String {
        lines::active(self.placement()).to_owned()
    }

    fn note(&self) -> String {
        lines::note(&self.unit, self.placement())
    }
}

fn machine(row: &Row, full: bool) -> String {
    match row.placement() {
        Some(placement) if full => placement.machine.to_string(),
        Some(placement) => order::machine(placement),
        None => String::new(),
    }
}

fn since(row: &Row, _full: bool) -> String {
    let since = row.placement().and_then(|p| p.state.as_ref()).and_then(|s| s.since);
    since.map(|at| text::ago(at, jiff::Timestamp::now())).unwrap_or_default()
}

fn hash(row: &Row, full: bool) -> String {
    row.unit.hash.map(|hash| if full { hash.to_string() } else { hash.short() }).unwrap_or_default()
}

fn token(row: &Row, _full: bool) -> String {
    row.placement().map(|p| p.token.to_string()).unwrap_or_default()
}
