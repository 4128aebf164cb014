//! `flotctl events`: what happened in the cluster and why.

use std::{io::Write as _, time::Duration};

use flotilla_api::watch::{Event, EventsQuery};
use jiff::Timestamp;

use crate::{args::Output, connection::Cluster, paint, print, selector::mangle, text};

/// How long to wait before a lost connection is made again.
const RECONNECT_AFTER: Duration = Duration::from_millis(500);

/// How often in a row a connection is made again without an event in between: two minutes' worth, as
/// for a journal.
const RECONNECTS_MAX: u32 = 240;

/// Shows what happened in the cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only events about these units, names or globs
    #[arg(value_name = "UNIT", add = crate::complete::unit_files())]
    units: Vec<String>,

    /// The same, as an option
    #[arg(long = "unit", short = 'u', value_name = "UNIT", add = crate::complete::unit_files())]
    more_units: Vec<String>,

    /// Only events about these machines: host names, beginnings of ids, or globs
    #[arg(long, short = 'm', value_delimiter = ',', value_name = "MACHINE", add = crate::complete::machines())]
    machine: Vec<String>,

    /// Only events of these kinds, for example placed, failed or 'machine-*'
    #[arg(long, short = 'k', value_delimiter = ',', value_name = "KIND")]
    kind: Vec<String>,

    /// Only events since this time: 2026-11-22 14:00, 14:00, -5min, today
    #[arg(long, short = 'S', value_name = "TIME", value_parser = crate::time::since)]
    since: Option<Timestamp>,

    /// Go on with events as they happen
    #[arg(long, short)]
    follow: bool,

    /// How many of the newest events to begin with [default: 50, with --since all since then]
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<u32>,
}

/// Runs the command.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<()> {
    let units = args.units.iter().chain(&args.more_units);
    let patterns: Vec<String> = units.map(|unit| mangle(unit)).collect();
    let list = |words: &[String]| (!words.is_empty()).then(|| words.join(","));
    let query = EventsQuery {
        pattern: list(&patterns),
        machine: list(&args.machine),
        kind: list(&args.kind),
        since: args.since,
        follow: args.follow,
        lines: args.lines,
    };
    let mut last: Option<String> = None;
    let mut failures = 0;
    loop {
        let lost = match cluster.client().events(&query, last.as_deref()).await {
            Ok(mut stream) => loop {
                let next = stream.next().await;
                // Also where nothing was said yet: it goes on from there.
                last = stream.last_id().map(ToOwned::to_owned).or(last);
                match next {
                    Ok(Some(event)) => {
                        show(&event.data, output)?;
                        failures = 0;
                    }
                    Ok(None) if args.follow => break None,
                    Ok(None) => return Ok(()),
                    Err(e) => break Some(e),
                }
            },
            Err(e) => Some(e),
        };
        failures += 1;
        if let Some(e) = lost
            && !(args.follow && e.is_unreachable() && last.is_some() && failures <= RECONNECTS_MAX)
        {
            return Err(e.into());
        }
        again(cluster).await;
    }
}

/// Turns to the next endpoint, and waits where there is none left to turn to.
async fn again(cluster: &Cluster) {
    if cluster.move_on() {
        tokio::time::sleep(RECONNECT_AFTER).await;
    }
}

fn show(event: &Event, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return Ok(print::json_line(event)?);
    }
    let what = event.unit.as_ref().map(|unit| format!(" {unit}")).unwrap_or_default();
    let machine = event.host.clone().or_else(|| event.machine.map(|id| id.short()));
    let machine = machine.map(|machine| format!(" on {machine}")).unwrap_or_default();
    let why = event.why.as_ref().map(|why| format!(": {}", text::one_line(why))).unwrap_or_default();
    let time = paint::dim(text::local(event.at));
    let mut out = print::out();
    let request = event.request.as_ref().map(|id| format!(", request {id}")).unwrap_or_default();
    let by = paint::dim(format!("({}{request})", text::one_line(&event.by)));
    writeln!(out, "{time} {}{what}{machine}{why} {by}", event.kind)?;
    Ok(out.flush()?)
}
