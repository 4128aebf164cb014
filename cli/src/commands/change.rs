//! `flotctl start`, `stop`, `load`, `restart`, `unload`, `destroy`: orders, and the wait
//! until they have come true (`wait.rs`), and what became of each unit (`report.rs`).

mod known;
mod ranges;
mod replace;
mod report;
mod wait;

use flotilla_api::action::{Action, Order, Outcome};
use tokio::time::{Instant, timeout_at};

use super::{
    Missing, end_missing,
    submit::{self, Replacing},
};
use crate::{
    args::{Output, WaitOptions},
    connection::Cluster,
    exit::{Exit, Failure},
    fleetctl::Signing,
    order::Waiting,
    print,
    selector::{Selector, mangle},
    sources::{self, Named},
};

pub(super) use report::{Report, print as print_reports, reports};

/// Changes units, which may be created by it, and waits until it is true.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Names, ranges ('web@{1..1000}'), globs over the cluster's units, or unit files to submit first; the file of
    /// a name, or its template's, is looked for in the current folder too
    #[arg(value_name = "UNIT", required = true, add = crate::complete::units_and_files())]
    units: Vec<String>,

    #[command(flatten)]
    replacing: Replacing,

    #[command(flatten)]
    wait: WaitOptions,

    #[command(flatten)]
    signing: Signing,
}

/// Changes units that there are and waits until it is true.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names, ranges ('web@{1..1000}'), or globs over the cluster's units
    #[arg(value_name = "UNIT", required = true, add = crate::complete::unit_files())]
    units: Vec<String>,

    #[command(flatten)]
    wait: WaitOptions,

    #[command(flatten)]
    missing: Missing,
}

/// What is asked, by either.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    units: &'a [String],
    wait: &'a WaitOptions,
    missing: Missing,
    replacing: Replacing,
}

impl Asked<'_> {
    /// Returns how long to wait.
    pub(crate) fn timeout(&self) -> std::time::Duration {
        self.wait.timeout()
    }
}

impl Create {
    /// Returns what is asked, unless it cannot be meant.
    pub(crate) fn asked(&self) -> anyhow::Result<Asked<'_>> {
        self.signing.check()?;
        Ok(Asked {
            units: &self.units,
            wait: &self.wait,
            missing: Missing::default(),
            replacing: self.replacing,
        })
    }
}

impl Args {
    /// Returns what is asked.
    pub(crate) fn asked(&self) -> Asked<'_> {
        Asked { units: &self.units, wait: &self.wait, missing: self.missing, replacing: Replacing::default() }
    }
}

/// Runs the command, whose time began at `begun`.
pub(crate) async fn run(
    cluster: &Cluster,
    action: Action,
    asked: &Asked<'_>,
    output: Output,
    begun: Instant,
) -> anyhow::Result<Exit> {
    let end = begun + asked.timeout();
    let sources::Ranges { ranges, files, others } = sources::ranges(asked.units)?;
    everywhere(action, &others)?;
    let mut named = match action {
        Action::Start | Action::Load => {
            let named = sources::named(&others)?;
            Named { files: named.files.into_iter().chain(files).collect(), ..named }
        }
        _ => Named { units: others.iter().map(|unit| mangle(unit)).collect(), ..Named::default() },
    };
    named.files.sort();
    named.files.dedup();
    let updates = asked.replacing.replace && !asked.replacing.no_restart && !named.files.is_empty();
    let give = async {
        if asked.replacing.replace && !named.files.is_empty() {
            return replace::replace(cluster, action, named, asked.replacing.no_restart).await;
        }
        if !named.files.is_empty() {
            submit::submit(cluster.client(), &named.files, asked.replacing).await?;
        }
        if named.units.is_empty() {
            return Ok((Outcome { revision: 0, units: Vec::new() }, Vec::new()));
        }
        let order = Order { action, units: named.units, dry_run: false };
        known::order(cluster, order, asked.missing).await
    };
    let (outcome, missing) = timeout_at(end, give).await.map_err(|_| {
        let why = "the time ran out before the order was acknowledged; whether it stands is not known: \
                   `flotctl list-unit-files` shows what is wanted of its units";
        Failure::error(Exit::TimedOut, why)
    })??;
    let exit = if !ranges.is_empty() {
        let alone = others.is_empty();
        ranges::run(cluster, action, &ranges, asked, (outcome.clone(), alone), output, end).await?
    } else if asked.wait.no_block {
        no_block(action, &outcome, output)?
    } else {
        let waiting = Waiting::new(action, &outcome.units).until_updated(updates);
        until_true(cluster, &outcome, waiting, output, end).await?
    };
    if action == Action::Destroy && output != Output::Json {
        tell_kept(&outcome);
    }
    Ok(exit.max(end_missing(&missing)))
}

/// Waits until what an order says is true, and prints what became of each unit.
pub(super) async fn until_true(
    cluster: &Cluster,
    outcome: &Outcome,
    mut waiting: Waiting,
    output: Output,
    end: Instant,
) -> anyhow::Result<Exit> {
    let timed_out = !watch(cluster, Some(outcome.revision), &mut waiting, output, end).await?;
    let (exit, reports) = reports(cluster, &waiting, timed_out, output).await;
    if output == Output::Json {
        print::json(&reports)?;
    } else {
        report::print(cluster, &reports).await?;
    }
    Ok(exit)
}

/// Watches units until they are as they should be; false when the time ran out first. `after` is the revision
/// of the order, where there was one.
pub(super) async fn watch(
    cluster: &Cluster,
    after: Option<i64>,
    waiting: &mut Waiting,
    output: Output,
    end: Instant,
) -> anyhow::Result<bool> {
    if waiting.len() == 0 {
        // Nothing that was named is there.
        return Ok(true);
    }
    wait::Wait::new(cluster, after, waiting, output).run(waiting, end).await
}

/// Says where the files of units are that were a machine's own before they were the cluster's.
fn tell_kept(outcome: &Outcome) {
    for unit in &outcome.units {
        if let Some(machine) = unit.adopted_from {
            print::tell(format_args!(
                "{name} was adopted from machine {}; its files from then are there in \
                 /var/lib/flotilla/adopted/{name}",
                machine.short(),
                name = unit.unit,
            ));
        }
    }
}

/// Refuses a machine beside a unit: an order is about a unit wherever it is.
fn everywhere(action: Action, words: &[String]) -> anyhow::Result<()> {
    let selectors = words.iter().map(|word| Selector::read(word));
    match selectors.into_iter().find(|selector| selector.machine.is_some()) {
        None => Ok(()),
        Some(Selector { unit, machine }) => {
            let machine = machine.unwrap_or_default();
            let why = format!(
                "{action} is about {unit} wherever it is, not on {machine} alone; leave @{machine} out"
            );
            Err(Failure::error(Exit::Usage, why))
        }
    }
}

fn no_block(action: Action, outcome: &Outcome, output: Output) -> anyhow::Result<Exit> {
    if output == Output::Json {
        print::json(outcome)?;
        return Ok(Exit::Done);
    }
    for unit in &outcome.units {
        print::line(format_args!("{} {action} ordered", unit.unit))?;
    }
    Ok(Exit::Done)
}
