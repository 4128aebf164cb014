//! How late the lines of a followed journal are, beside `journalctl --follow` on one machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use flotilla_integration_tests::{COUNT, COUNT_AT, COUNTER};
use flotilla_lab::Lab;

use crate::{say, shell, start::quantile, table::Table};

/// How many units write, a hundred lines a second each, on three machines.
const WRITERS: usize = 10;

/// How long lines are heard before they count: the first are those that were there already.
const WARMING_UP: Duration = Duration::from_secs(5);

/// How long lines count. 20 s are 20,000 lines.
const MEASURED: Duration = Duration::from_secs(20);

/// The goal for half of the lines, in milliseconds, from journald's stamp to the printed line.
const P50_MOST: f64 = 300.0;

/// The goal for the rate, in lines a second: half of what ten units write, which a busy computer keeps
/// from writing all of it. A stream that stalls is not early because it says little.
const RATE_LEAST: f64 = 500.0;

/// Measures the merged journal of three machines, and the journal of one by systemd's own reader.
pub fn measure(lab: &Lab) -> Result<Table> {
    for machine in lab.machines() {
        machine.write_file(COUNT_AT, COUNT)?;
    }
    let first = lab.machine("m1")?;
    first.write_file("/root/count@.service", COUNTER)?;
    let units = format!("$(seq -f count@%g.service 1 {WRITERS})");
    shell(first, &format!("flotctl start /root/count@.service {units} >/dev/null"))?;
    say("ten units write a hundred lines a second each, on three machines");
    let merged = ["flotctl", "journal", "--follow", "--lines=0", "--output=json", "count@*"];
    let alone =
        ["journalctl", "--quiet", "--follow", "--lines=0", "--output=json", "--unit=count@*", "_COMM=perl"];
    // At the same time, so that whatever else the computer does disturbs both alike.
    let merged = Follower::start(first.command(&merged)?, "realtime_us")?;
    let alone = Follower::start(first.command(&alone)?, "__REALTIME_TIMESTAMP")?;
    shell(first, &format!("sleep {}", (WARMING_UP + MEASURED).as_secs()))?;
    let (merged, alone) = (merged.end()?, alone.end()?);
    shell(first, &format!("flotctl destroy {units} count@.service >/dev/null"))?;
    let mut table = Table::new("a followed journal, ten units on 3 machines");
    let ms = |value: f64| format!("{value:.0} ms");
    let (ours, theirs) = (lags(&merged), lags(&alone));
    let p50 = (quantile(&ours, 0.5), P50_MOST, "ms");
    table.at_most("lag, p50 (systemd: journalctl of one machine)", p50, ms(quantile(&theirs, 0.5)));
    table.row("lag, p99", ms(quantile(&ours, 0.99)), ms(quantile(&theirs, 0.99)));
    let rate = |lines: &[Line]| lines.len() as f64 / MEASURED.as_secs_f64();
    let alone_rate = format!("{:.0} lines/s", rate(&alone));
    table.at_least("lines in a second", (rate(&merged), RATE_LEAST, "lines/s"), alone_rate);
    let units: BTreeSet<&str> = merged.iter().map(|line| line.unit.as_str()).collect();
    table.at_least("units heard", (units.len() as f64, WRITERS as f64, "units"), String::new());
    let (ours, theirs) = (amiss(&merged), amiss(&alone));
    table.at_most(
        "lines lost, repeated or out of order",
        (ours as f64, 0.0, "lines"),
        format!("{theirs} lines"),
    );
    Ok(table)
}

/// A line of a counter, as a follower printed it.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    unit: String,
    /// What the counter had counted to.
    number: u64,
    /// From journald's stamp to the printed line, in milliseconds.
    lag: f64,
}

/// The lags, sorted.
fn lags(lines: &[Line]) -> Vec<f64> {
    let mut lags: Vec<f64> = lines.iter().map(|line| line.lag).collect();
    lags.sort_by(f64::total_cmp);
    lags
}

/// How many lines are not the ones that follow their unit's last: each lost one, and each that came
/// again or too late.
fn amiss(lines: &[Line]) -> u64 {
    let mut next: BTreeMap<&str, u64> = BTreeMap::new();
    let mut amiss = 0;
    for line in lines {
        let expected = next.entry(&line.unit).or_insert(line.number);
        // A line too early is as many lost ones; a line too late is one.
        amiss += line.number.checked_sub(*expected).unwrap_or(1);
        *expected = (*expected).max(line.number + 1);
    }
    amiss
}

/// A process that prints lines of the journal as JSON.
struct Follower {
    child: Child,
    lines: mpsc::Receiver<Line>,
}

impl Follower {
    /// Starts it; `stamp` is the field with journald's time, microseconds since 1970.
    fn start(mut command: Command, stamp: &'static str) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("following a journal")?;
        let output = BufReader::new(child.stdout.take().context("a pipe has two ends")?);
        let (tell, lines) = mpsc::channel();
        let counts_from = Instant::now() + WARMING_UP;
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let Some(line) = counted(&line, stamp, now.as_micros() as f64) else { continue };
                if Instant::now() >= counts_from && tell.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// Ends it; gives the lines that count, as they came.
    fn end(mut self) -> Result<Vec<Line>> {
        self.child.kill().context("ending a follower")?;
        self.child.wait().context("ending a follower")?;
        let lines: Vec<Line> = self.lines.iter().collect();
        ensure!(!lines.is_empty(), "a follower heard nothing");
        Ok(lines)
    }
}

/// Reads a line that was printed at a time in microseconds, with journald's stamp in the field `stamp`;
/// none if a counter did not write it.
fn counted(line: &str, stamp: &str, now: f64) -> Option<Line> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let field = |ours: &str, theirs: &str| line.get(ours).or_else(|| line.get(theirs));
    (field("identifier", "SYSLOG_IDENTIFIER")? == "perl").then_some(())?;
    let stamp = line.get(stamp)?;
    // journalctl prints all its numbers as strings.
    let written = stamp.as_f64().or_else(|| stamp.as_str()?.parse().ok())?;
    let unit = field("unit", "_SYSTEMD_UNIT")?.as_str()?.to_owned();
    let number = field("message", "MESSAGE")?.as_str()?.parse().ok()?;
    Some(Line { unit, number, lag: (now - written) / 1000.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_readers_are_understood() {
        let ours = r#"{"unit":"count@1.service","identifier":"perl","realtime_us":1500000,"message":"7"}"#;
        let theirs = r#"{"_SYSTEMD_UNIT":"count@1.service","SYSLOG_IDENTIFIER":"perl","MESSAGE":"7",
                         "__REALTIME_TIMESTAMP":"1500000"}"#;
        let line = Some(Line { unit: "count@1.service".to_owned(), number: 7, lag: 2.0 });
        assert_eq!(counted(ours, "realtime_us", 1_502_000.0), line);
        assert_eq!(counted(theirs, "__REALTIME_TIMESTAMP", 1_502_000.0), line);
        let systemd = r#"{"unit":"count@1.service","identifier":"systemd","realtime_us":1,"message":"7"}"#;
        assert_eq!(counted(systemd, "realtime_us", 1.0), None);
    }

    #[test]
    fn what_is_lost_repeated_or_late_is_counted() {
        let amiss = |numbers: &[(&str, u64)]| {
            let line =
                |(unit, number): &(&str, u64)| Line { unit: (*unit).to_owned(), number: *number, lag: 0.0 };
            super::amiss(&numbers.iter().map(line).collect::<Vec<_>>())
        };
        assert_eq!(amiss(&[("a", 5), ("b", 1), ("a", 6), ("b", 2), ("a", 7)]), 0);
        assert_eq!(amiss(&[("a", 5), ("a", 8), ("a", 9)]), 2, "lost");
        assert_eq!(amiss(&[("a", 5), ("a", 5), ("a", 6)]), 1, "repeated");
        assert_eq!(amiss(&[("a", 5), ("a", 7), ("a", 6), ("a", 8)]), 2, "one too early, one too late");
    }
}
