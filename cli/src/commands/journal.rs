//! `flotctl journal`: journals of units, merged from all machines.
//!
//! The stream is read by position, never from "now": a lost connection is made
//! again and goes on with the very next line.

use std::{collections::HashSet, io::Write as _, time::Duration};

use flotilla_api::{
    client::{Client, ClientError},
    error::ErrorKind,
    journal::{JournalEvent, JournalLine, JournalNotice, JournalQuery, Position},
};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{Found, Missing, end_missing, find, status::short_lines};
use crate::{
    args::Output,
    connection::Cluster,
    exit::{self, Exit, Failure},
    paint, print,
    selector::Selector,
    text,
};

/// How long to wait before a lost connection is made again.
const RECONNECT_AFTER: Duration = Duration::from_millis(250);

/// How often in a row a connection is made again without a line in between. Two minutes' worth: an
/// operator who watches a restart wants it to go on by itself, a script an error in the end.
const RECONNECTS_MAX: u32 = 480;

/// How long a connection has to live so that those before it that were lost do not count any more.
const LIVED: Duration = Duration::from_secs(10);

/// How far this computer's clock may be ahead of a machine's: what a machine wrote since the journal
/// was first read is asked for from so long before. A few lines too many are better than one too few.
const CLOCKS_APART: Duration = Duration::from_secs(5);

/// Shows journals of units.
#[derive(Debug, clap::Args)]
#[command(after_help = "Besides table, wide and json, --output takes journalctl's short, short-iso, \
short-precise, short-unix and cat.")]
pub(crate) struct Args {
    /// Units, names or globs; UNIT@MACHINE means it on that machine only
    #[arg(value_name = "UNIT", required = true, add = crate::complete::units())]
    units: Vec<String>,

    /// Go on with new lines as they are written
    #[arg(long, short)]
    follow: bool,

    /// How many of each machine's newest lines to begin with [default: 10 with --follow, else all]
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(..=i64::from(JournalQuery::LINES_MAX)))]
    lines: Option<u32>,

    /// Only lines since this time: 2026-11-22 14:00, 14:00, -5min, today
    #[arg(long, short = 'S', value_name = "TIME", value_parser = crate::time::since)]
    since: Option<Timestamp>,

    /// Only lines of the run that each unit is in now, or was in last
    #[arg(long)]
    this_run: bool,

    /// Only lines of this priority and graver: 0 to 7 or emerg to debug
    #[arg(long, short, value_name = "PRIORITY", value_parser = crate::time::priority)]
    priority: Option<u8>,

    /// Only lines that match this regular expression
    #[arg(long, short, value_name = "REGEX")]
    grep: Option<String>,

    /// How long to hold lines back to put those of different machines in order of time
    #[arg(long, value_name = "SPAN", default_value = "500ms", value_parser = crate::args::bounded_span)]
    hold: Duration,

    #[command(flatten)]
    missing: Missing,

    /// Of fleetctl, which went there by ssh; taken, and without effect
    #[arg(long, hide = true)]
    sudo: bool,

    /// The same
    #[arg(long, hide = true, value_name = "PORT")]
    ssh_port: Option<u16>,
}

/// Runs the command.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<Exit> {
    let selectors: Vec<Selector> = args.units.iter().map(|unit| Selector::read(unit)).collect();
    let units: Vec<&str> = selectors.iter().map(|selector| selector.unit.as_str()).collect();
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
    let mut reading = Reading {
        query,
        position: Position::default(),
        began: None,
        lacks: false,
        found: None,
        runs: None,
        output,
    };
    // What is there is asked for only where more than the names is wanted of it.
    if args.this_run || selectors.iter().any(|selector| selector.machine.is_some()) {
        reading.narrow(&selectors, find(cluster, &args.units, args.missing).await?);
    }
    if args.this_run {
        reading.runs = reading.found.as_ref().map(runs).transpose()?;
    }
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let read = match reading.read(cluster.client()).await {
            Err(e) if exit::of(&e) == Exit::NoSuch && reading.found.is_none() => {
                reading.narrow(&selectors, find(cluster, &args.units, args.missing).await?);
                if reading.query.units.is_empty() {
                    return Ok(Exit::Done);
                }
                continue;
            }
            read => read?,
        };
        let lost = match read {
            End::Over if !args.follow => {
                reading.whole()?;
                return Ok(reading.found.map_or(Exit::Done, |found| end_missing(&found.missing)));
            }
            // Somebody stopped the flotillad that was asked; another has the rest.
            End::Over => "the stream ended".to_owned(),
            End::Lost(e) if failures >= RECONNECTS_MAX => return Err(e.into()),
            // A cluster that never answered is told at once.
            End::Lost(e) if failures > 0 && reading.began.is_none() => return Err(e.into()),
            End::Lost(e) => e.to_string(),
        };
        failures = if begun.elapsed() >= LIVED { 1 } else { failures + 1 };
        let all_tried = cluster.move_on();
        if failures == 1 {
            print::tell(paint::dim(format!("-- {lost}; going on where it was lost --")));
        }
        if all_tried {
            tokio::time::sleep(RECONNECT_AFTER).await;
        }
    }
}

/// Returns the invocations that units are in, or were in last, on each of their machines.
fn runs(found: &Found) -> anyhow::Result<HashSet<String>> {
    let placements = found.units.iter().flat_map(|picked| {
        picked.unit.placements.iter().filter(|placement| picked.is_on(&placement.machine.to_string()))
    });
    let states = placements.filter_map(|placement| placement.state.as_ref());
    let runs: HashSet<String> = states.filter_map(|state| state.invocation.clone()).collect();
    if runs.is_empty() {
        let why = "none of these units has run where it is; without --this-run, older lines are shown too";
        return Err(Failure::error(Exit::NotActive, why));
    }
    Ok(runs)
}

/// How a connection ended.
enum End {
    Over,
    Lost(ClientError),
}

/// How far the journal is read.
struct Reading {
    query: JournalQuery,
    position: Position,
    /// When the first connection was made.
    began: Option<Timestamp>,
    /// Something was said to be missing.
    lacks: bool,
    /// What there is of what was named, where that was asked.
    found: Option<Found>,
    /// Only lines of these invocations are wanted.
    runs: Option<HashSet<String>>,
    output: Output,
}

impl Reading {
    /// Leaves out what is not there, and machines that are not meant. A pattern stays: what it is to
    /// match may come.
    fn narrow(&mut self, selectors: &[Selector], found: Found) {
        let is_there = |selector: &&Selector| {
            !selector.is_name() || found.units.iter().any(|picked| selector.selects(&picked.unit.name))
        };
        let units: Vec<&str> =
            selectors.iter().filter(is_there).map(|selector| selector.unit.as_str()).collect();
        self.query.units = units.join(",");
        self.found = Some(found);
    }

    /// Tells whether a line of this unit on this machine is meant.
    fn is_meant(&self, unit: &str, machine: &str) -> bool {
        let units = self.found.as_ref().map(|found| found.units.as_slice()).unwrap_or_default();
        let named = units.iter().find(|picked| picked.unit.name.as_str() == unit);
        named.is_none_or(|picked| picked.is_on(machine))
    }

    /// Tells whether anything that is meant may be on this machine.
    fn is_asked(&self, machine: &str) -> bool {
        let units = self.found.as_ref().map(|found| found.units.as_slice()).unwrap_or_default();
        let all_narrowed = !units.is_empty() && units.iter().all(|picked| picked.is_narrowed());
        !all_narrowed || units.iter().any(|picked| picked.is_on(machine))
    }

    /// Makes a connection and prints what comes.
    async fn read(&mut self, client: &Client) -> anyhow::Result<End> {
        let now = Timestamp::now();
        let position = Some(&self.position).filter(|position| !position.0.is_empty());
        let mut stream = match client.journal(&self.next(), position).await {
            Ok(stream) => stream,
            Err(e) => return lost(e),
        };
        self.began.get_or_insert(now);
        loop {
            match stream.next().await {
                Ok(Some(event)) => self.take(event.data)?,
                Ok(None) => return Ok(End::Over),
                Err(e) => return lost(e),
            }
        }
    }

    /// What the next connection asks for. A machine without a position, from the second on, is one
    /// that has not been heard yet: of it, everything since the first is wanted, however much.
    fn next(&self) -> JournalQuery {
        match self.began {
            Some(began) if self.query.follow => JournalQuery {
                lines: None,
                since: self.query.since.or_else(|| began.checked_sub(CLOCKS_APART).ok()),
                ..self.query.clone()
            },
            _ => self.query.clone(),
        }
    }

    fn take(&mut self, event: JournalEvent) -> anyhow::Result<()> {
        match event {
            JournalEvent::Line(line) => {
                let is_of =
                    |runs: &HashSet<String>| line.invocation.as_ref().is_some_and(|run| runs.contains(run));
                let is_meant = self.is_meant(&line.unit, &line.machine);
                if is_meant && self.runs.as_ref().is_none_or(is_of) {
                    show(&line, self.output)?;
                }
                // Only now: a line that was not printed is asked for again.
                self.position.0.insert(line.machine, line.cursor);
            }
            JournalEvent::Position(at) => drop(self.position.0.insert(at.machine, at.cursor)),
            JournalEvent::Notice(JournalNotice { machine: Some(machine), .. })
                if !self.is_asked(&machine) => {}
            JournalEvent::Notice(JournalNotice { host, machine, reason }) => {
                self.lacks = true;
                let whose = host.or(machine).map(|whose| format!("{whose}: ")).unwrap_or_default();
                let text = format!("-- {whose}{reason} --");
                print::tell(paint::pending(text::one_line(&text)));
            }
        }
        Ok(())
    }

    /// Ends a journal that was read to its end.
    fn whole(&self) -> anyhow::Result<()> {
        if self.lacks {
            return Err(Failure::error(
                Exit::Failed,
                "the journal is not complete; what is missing is said above",
            ));
        }
        Ok(())
    }
}

fn lost(error: ClientError) -> anyhow::Result<End> {
    let is_lost = error.kind() == Some(ErrorKind::Unavailable) || error.is_unreachable();
    if is_lost { Ok(End::Lost(error)) } else { Err(anyhow::Error::new(error)) }
}

/// Writes an entry as journalctl does in one of its forms.
fn as_journalctl(line: &JournalLine, output: Output) -> Vec<String> {
    let time = match output {
        Output::Cat => return text::lines(&line.message).map(Into::into).collect(),
        Output::ShortIso => text::journal_time_as("%Y-%m-%dT%H:%M:%S%z", line.realtime_us),
        Output::ShortPrecise => text::journal_time_as("%b %d %H:%M:%S%.6f", line.realtime_us),
        Output::ShortUnix => format!("{}.{:06}", line.realtime_us / 1_000_000, line.realtime_us % 1_000_000),
        _ => text::journal_time(line.realtime_us),
    };
    short_lines(line, &time).collect()
}

fn show(line: &JournalLine, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return Ok(print::json_line(line)?);
    }
    let mut out = print::out();
    if output.is_of_journals() {
        for part in as_journalctl(line, output) {
            writeln!(out, "{part}")?;
        }
        return Ok(out.flush()?);
    }
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
