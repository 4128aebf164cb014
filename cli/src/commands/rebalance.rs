//! `flotctl rebalance`: evens machines out, within a budget, and waits until the moves are done.

use std::{io::Write as _, time::Duration};

use flotilla_api::plan::{PlannedPlace, Rebalance, RebalanceOutcome};
use flotilla_units::UnitName;
use serde::Serialize;
use tokio::time::Instant;

use super::change;
use crate::{
    args::{Output, bounded_span},
    connection::Cluster,
    exit::Exit,
    order::{Verdict, Waiting},
    paint, print, text,
};

/// Moves units from machines with much to machines with little; each runs there before it stops here.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Say what would move where, and do nothing; what is done unless --apply is given
    #[arg(long, conflicts_with = "apply")]
    plan: bool,

    /// Do it, and wait until the units have moved; the moves go on when the wait is interrupted
    #[arg(long)]
    apply: bool,

    /// The most units to move
    #[arg(long, value_name = "N", default_value_t = 10)]
    budget: u32,

    /// With --apply: do not wait until the units have moved
    #[arg(long)]
    no_block: bool,

    /// With --apply: how long to wait in all, for example 90s or 5min
    #[arg(long, value_name = "SPAN", default_value = "5min", value_parser = bounded_span)]
    timeout: Duration,
}

/// What is printed with `-o json` once the moves are done, or the time is over.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    outcome: &'a RebalanceOutcome,
    /// Units that have moved.
    moved: Vec<&'a UnitName>,
    /// Units that have not.
    remaining: Vec<Remaining<'a>>,
}

#[derive(Serialize)]
struct Remaining<'a> {
    unit: &'a UnitName,
    why: String,
}

/// Runs the command. The exit status is 5 when a unit stays where it was.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<Exit> {
    let end = Instant::now() + args.timeout;
    let order = Rebalance { budget: args.budget, apply: args.apply };
    let outcome = cluster.client().rebalance(&order).await?;
    let waits = args.apply && !args.no_block;
    if output != Output::Json {
        describe(&outcome, waits)?;
    } else if !waits {
        print::json(&outcome)?;
    }
    if !waits {
        return Ok(Exit::Done);
    }
    let moves = outcome.moves.iter().map(|it| {
        let from = it.from.iter().map(|place| place.machine).collect();
        (it.unit.clone(), from)
    });
    let mut waiting = Waiting::for_moves(moves);
    let _in_time = change::watch(cluster, Some(outcome.revision), &mut waiting, output, end).await?;
    finish(&outcome, &waiting, output)
}

/// Says what became of each unit, and returns the exit status: that of the worst.
fn finish(outcome: &RebalanceOutcome, waiting: &Waiting, output: Output) -> anyhow::Result<Exit> {
    let mut worst = Exit::Done;
    let (mut moved, mut remaining) = (Vec::new(), Vec::new());
    for (unit, verdict) in waiting.verdicts() {
        let (exit, why) = match verdict {
            Verdict::Done(text) => {
                moved.push(unit);
                if output != Output::Json {
                    print::line(format_args!("{unit} {}", text::one_line(&text)))?;
                }
                continue;
            }
            Verdict::Pending(why) | Verdict::Held(why) => (Exit::TimedOut, why),
            Verdict::CannotBePlaced(why) => (Exit::CannotBePlaced, why),
            Verdict::Failed { why, .. } => (Exit::Failed, why),
        };
        worst = worst.max(exit);
        if output != Output::Json {
            let what = if exit == Exit::TimedOut { "has not moved in time:" } else { "has not moved:" };
            print::tell(format_args!("{unit} {} {}", paint::bad(what), text::one_line(&why)));
        }
        remaining.push(Remaining { unit, why });
    }
    if output == Output::Json {
        print::json(&Report { outcome, moved, remaining })?;
    }
    Ok(worst)
}

fn describe(outcome: &RebalanceOutcome, waits: bool) -> anyhow::Result<()> {
    let mut out = print::out();
    if outcome.moves.is_empty() {
        writeln!(out, "nothing to move: no move would make the machines more even")?;
        return Ok(());
    }
    for it in &outcome.moves {
        let names = |places: &mut dyn Iterator<Item = &PlannedPlace>| {
            places.map(place).collect::<Vec<_>>().join(", ")
        };
        let (from, to) = (names(&mut it.from.iter()), names(&mut it.to.iter()));
        writeln!(out, "{} moves from {from} to {to}", it.unit)?;
    }
    for machine in &outcome.machines {
        let host = machine
            .host
            .as_deref()
            .map_or_else(|| machine.machine.short(), |host| text::one_line(host).into_owned());
        let (before, after) = (machine.units_before, machine.units_after);
        writeln!(out, "{}", paint::dim(format!("{host}: {before} units, then {after}")))?;
    }
    let said = match (outcome.applied, waits) {
        (true, true) => return Ok(()),
        (true, false) => "the moves have begun; `flotctl list-units` shows them",
        (false, _) => "nothing was done; `flotctl rebalance --apply` does it",
    };
    writeln!(out, "{}", paint::dim(said))?;
    Ok(())
}

/// Names a machine as people know it.
pub(super) fn place(place: &PlannedPlace) -> String {
    place.host.as_deref().map_or_else(|| place.machine.short(), |host| text::one_line(host).into_owned())
}
