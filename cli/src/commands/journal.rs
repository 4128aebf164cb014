//! `flotctl journal`: journals of units, merged from all machines.
//!
//! The stream is read by position, never from "now": a lost connection is made
//! again and goes on with the very next line.

use std::{io::Write as _, time::Duration};

use flotilla_api::{
    client::{Client, ClientError},
    error::ErrorKind,
    journal::{JournalLine, JournalQuery, Position},
};

use jiff::Timestamp;

use super::mangle;
use crate::{args::Output, connection::Cluster, paint, print, text};

/// How long to wait before a lost connection is made again.
const RECONNECT_AFTER: Duration = Duration::from_millis(250);

/// How often in a row a connection is made again without a line in between. Two minutes' worth: an
/// operator who watches a restart wants it to go on by itself, a script an error in the end.
const RECONNECTS_MAX: u32 = 480;

/// Shows journals of units.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Units, names or globs
    #[arg(value_name = "UNIT", required = true, add = crate::complete::units())]
    units: Vec<String>,

    /// Go on with new lines as they are written
    #[arg(long, short)]
    follow: bool,

    /// How many of the newest lines to begin with [default: 10 with --follow, else all]
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<u32>,

    /// Only lines since this time: 2026-11-22 14:00, 14:00, -5min, today
    #[arg(long, short = 'S', value_name = "TIME", value_parser = crate::time::since)]
    since: Option<Timestamp>,

    /// Only lines of this priority and graver: 0 to 7 or emerg to debug
    #[arg(long, short, value_name = "PRIORITY", value_parser = crate::time::priority)]
    priority: Option<u8>,

    /// Only lines that match this regular expression
    #[arg(long, short, value_name = "REGEX")]
    grep: Option<String>,

    /// How long to hold lines back to put those of different machines in order of time
    #[arg(long, value_name = "SPAN", default_value = "500ms", value_parser = crate::args::bounded_span)]
    hold: Duration,
}

/// Runs the command.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<()> {
    let units: Vec<String> = args.units.iter().map(|unit| mangle(unit)).collect();
    let lines = args.lines.or(if args.follow && args.since.is_none() { Some(10) } else { None });
    let query = JournalQuery {
        units: units.join(","),
        follow: args.follow,
        lines,
        since: args.since,
        priority: args.priority,
        grep: args.grep.clone(),
        hold_ms: Some(u64::try_from(args.hold.as_millis()).unwrap_or(u64::MAX)),
    };
    let mut position = Position::default();
    let mut failures = 0;
    loop {
        match follow(cluster.client(), &query, &mut position, &mut failures, output).await? {
            End::Over => return Ok(()),
            End::Lost(e) => {
                failures += 1;
                if failures > RECONNECTS_MAX || (failures > 1 && position.0.is_empty()) {
                    return Err(e.into());
                }
                let all_tried = cluster.move_on();
                if failures == 1 {
                    print::tell(paint::dim(format!("-- {e}; going on where it was lost --")));
                }
                if all_tried {
                    tokio::time::sleep(RECONNECT_AFTER).await;
                }
            }
        }
    }
}

/// How a connection ended.
enum End {
    Over,
    Lost(ClientError),
}

async fn follow(
    client: &Client,
    query: &JournalQuery,
    position: &mut Position,
    failures: &mut u32,
    output: Output,
) -> anyhow::Result<End> {
    let lost = |e: ClientError| match e.kind() {
        Some(ErrorKind::Unavailable) => Ok(End::Lost(e)),
        _ if e.is_unreachable() => Ok(End::Lost(e)),
        _ => Err(anyhow::Error::new(e)),
    };
    let mut stream =
        match client.journal(query, Some(&*position).filter(|position| !position.0.is_empty())).await {
            Ok(stream) => stream,
            Err(e) => return lost(e),
        };
    loop {
        match stream.next().await {
            Ok(Some(event)) => {
                show(&event.data, output)?;
                // Only now: a line that was not printed is asked for again.
                position.0.insert(event.data.machine, event.data.cursor);
                *failures = 0;
            }
            Ok(None) => return Ok(End::Over),
            Err(e) => return lost(e),
        }
    }
}

fn show(line: &JournalLine, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return Ok(print::json_line(line)?);
    }
    let mut out = print::out();
    let prefix = format!(
        "{} {}:",
        paint::dim(text::journal_time(line.realtime_us)),
        paint::source(text::one_line(&format!("{}/{}", line.unit, line.host)))
    );
    for part in text::lines(&line.message) {
        match line.priority {
            Some(0..=3) => writeln!(out, "{prefix} {}", paint::bad(part))?,
            Some(4) => writeln!(out, "{prefix} {}", paint::pending(part))?,
            _ => writeln!(out, "{prefix} {part}")?,
        }
    }
    // Line by line: whoever pipes this into a program waits for the line, not for a full buffer.
    out.flush()?;
    Ok(())
}
