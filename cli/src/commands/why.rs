//! `flotctl why`: what the engine says about a unit's place.

use std::io::Write as _;

use flotilla_api::why::Why;

use super::{Missing, find};
use crate::{args::Output, connection::Cluster, exit::Exit, paint, print, text};

/// Says why a unit is where it is, or nowhere.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Units, names or globs
    #[arg(value_name = "UNIT", required = true, add = crate::complete::units())]
    units: Vec<String>,

    #[command(flatten)]
    missing: Missing,
}

/// Runs the command. The exit status is 5 when a unit that should be on a machine can be on none.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<Exit> {
    let found = find(cluster, &args.units, args.missing).await?;
    let mut exit = found.end();
    let mut answers = Vec::new();
    for unit in &found.into_units() {
        if unit.unplaced.is_some() {
            exit = Exit::CannotBePlaced;
        }
        answers.push(cluster.read(async |client| client.why(unit.name.as_str()).await).await?);
    }
    if output == Output::Json {
        print::json(&answers)?;
        return Ok(exit);
    }
    for why in &answers {
        describe(why)?;
    }
    Ok(exit)
}

fn describe(why: &Why) -> anyhow::Result<()> {
    let mut out = print::out();
    writeln!(out, "{}: {}", why.unit, text::one_line(&why.summary))?;
    let width = why.machines.iter().map(|machine| machine.host.len()).max().unwrap_or(0);
    for machine in &why.machines {
        let host = text::one_line(&machine.host);
        match (machine.placed, machine.eligible) {
            (true, _) => writeln!(out, "  {host:width$}  {}", paint::good("here"))?,
            (false, true) => writeln!(out, "  {host:width$}  could run here")?,
            (false, false) => {
                let rule = machine.rule.as_deref().unwrap_or("no");
                let reason = machine.reason.as_deref().unwrap_or_default();
                writeln!(out, "  {host:width$}  {}: {}", paint::pending(rule), text::one_line(reason))?;
            }
        }
    }
    Ok(())
}
