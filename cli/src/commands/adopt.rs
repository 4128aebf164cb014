//! `flotctl adopt`: units of a machine's own become the cluster's, without a restart.

use std::path::Path;

use flotilla_api::{
    action::Action,
    adopt::{Adopt, Adopted, AdoptedUnit},
};
use tokio::time::{Instant, timeout_at};

use super::change;
use crate::{
    args::{Output, WaitOptions},
    connection::Cluster,
    exit::{Exit, Failure},
    order::Waiting,
    print,
    selector::mangle,
    text,
};

/// Takes over services that run from a machine's own files, without a restart.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The files are moved to /var/lib/flotilla/adopted/UNIT/files on the machine. To undo it, \
destroy the unit, and put them back: cp -a /var/lib/flotilla/adopted/UNIT/files/. / && systemctl daemon-reload"
)]
pub(crate) struct Args {
    /// Host name, id, or the beginning of an id that no other machine has
    #[arg(value_name = "MACHINE", add = crate::complete::machines())]
    machine: String,

    /// Services that run on it; all of them are taken over, or none
    #[arg(value_name = "UNIT", required = true)]
    units: Vec<String>,

    /// Show what would be moved and what the text would be, and change nothing
    #[arg(long)]
    plan: bool,

    #[command(flatten)]
    wait: WaitOptions,
}

/// Runs the command, whose time began at `begun`.
pub(crate) async fn run(
    cluster: &Cluster,
    args: &Args,
    output: Output,
    begun: Instant,
) -> anyhow::Result<Exit> {
    let end = begun + args.wait.timeout();
    if let Some(path) = args.units.iter().find(|unit| Path::new(unit).is_absolute()) {
        let why = format!("`{path}` is a path; name the unit, as systemctl on {} does", args.machine);
        return Err(Failure::error(Exit::Usage, why));
    }
    let units = args.units.iter().map(|unit| mangle(unit)).collect();
    let order = Adopt { units, dry_run: args.plan };
    let asked = timeout_at(end, cluster.client().adopt(&args.machine, &order)).await.map_err(|_| {
        let why = "the time ran out before it was acknowledged; `flotctl list-unit-files` shows whether the units \
                   are the cluster's now";
        Failure::error(Exit::TimedOut, why)
    })?;
    let adopted = asked?;
    if output == Output::Json && (args.plan || args.wait.no_block) {
        print::json(&adopted)?;
        return Ok(Exit::Done);
    }
    if output != Output::Json {
        adopted.units.iter().try_for_each(|unit| tell(&adopted, unit, args.plan))?;
    }
    if args.plan || args.wait.no_block {
        return Ok(Exit::Done);
    }
    let outcome = adopted.outcome();
    change::until_true(cluster, &outcome, Waiting::new(Action::Start, &outcome.units), output, end).await
}

fn tell(adopted: &Adopted, unit: &AdoptedUnit, plan: bool) -> anyhow::Result<()> {
    let host = adopted.host.clone().unwrap_or_else(|| adopted.machine.short());
    let (host, found) = (text::one_line(&host), &unit.found);
    let (would, are) = if plan { ("would be ", "would be") } else { ("", "are") };
    print::line(format_args!("{} {would}adopted from {host}:", found.unit))?;
    for path in &found.moves {
        print::line(format_args!("  moved away  {}", text::one_line(path)))?;
    }
    for path in &found.stays {
        print::line(format_args!("  overridden  {}", text::one_line(path)))?;
    }
    for path in &found.shared {
        print::line(format_args!("  left there  {} (applies on {host} only)", text::one_line(path)))?;
    }
    print::line(format_args!("  its files {are} in {} on {host}", text::one_line(&found.kept)))?;
    if plan {
        found.text.lines().try_for_each(|line| print::line(format_args!("  | {}", text::one_line(line))))?;
    }
    Ok(())
}
