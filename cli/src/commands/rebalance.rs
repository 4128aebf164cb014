//! `flotctl rebalance`: evens machines out, within a budget.

use std::io::Write as _;

use flotilla_api::plan::{PlannedPlace, Rebalance, RebalanceOutcome};

use crate::{args::Output, connection::Cluster, exit::Exit, paint, print, text};

/// Moves units from machines with much to machines with little; each runs there before it stops here.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Say what would move where, and do nothing; what is done unless --apply is given
    #[arg(long, conflicts_with = "apply")]
    plan: bool,

    /// Do it
    #[arg(long)]
    apply: bool,

    /// The most units to move
    #[arg(long, value_name = "N", default_value_t = 10)]
    budget: u32,
}

/// Runs the command.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<Exit> {
    let order = Rebalance { budget: args.budget, apply: args.apply };
    let outcome = cluster.client().rebalance(&order).await?;
    if output == Output::Json {
        print::json(&outcome)?;
        return Ok(Exit::Done);
    }
    describe(&outcome)?;
    Ok(Exit::Done)
}

fn describe(outcome: &RebalanceOutcome) -> anyhow::Result<()> {
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
    let said = if outcome.applied {
        "the moves have begun; `flotctl list-units` shows them".to_owned()
    } else {
        "nothing was done; `flotctl rebalance --apply` does it".to_owned()
    };
    writeln!(out, "{}", paint::dim(said))?;
    Ok(())
}

/// Names a machine as people know it.
pub(super) fn place(place: &PlannedPlace) -> String {
    place.host.as_deref().map_or_else(|| place.machine.short(), |host| text::one_line(host).into_owned())
}
