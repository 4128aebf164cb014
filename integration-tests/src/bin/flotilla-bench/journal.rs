//! How late the lines of a followed journal are, beside `journalctl --follow` on one machine.

use std::{
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
    let rate = merged.len() as f64 / MEASURED.as_secs_f64();
    let mut table = Table::new("a followed journal, ten units on 3 machines");
    let ms = |value: f64| format!("{value:.0} ms");
    let p50 = (quantile(&merged, 0.5), P50_MOST, "ms");
    table.at_most("lag, p50 (systemd: journalctl of one machine)", p50, ms(quantile(&alone, 0.5)));
    table.row("lag, p99", ms(quantile(&merged, 0.99)), ms(quantile(&alone, 0.99)));
    let alone = alone.len() as f64 / MEASURED.as_secs_f64();
    table.row("lines in a second", format!("{rate:.0}"), format!("{alone:.0}"));
    Ok(table)
}

/// A process that prints lines of the journal as JSON.
struct Follower {
    child: Child,
    lags: mpsc::Receiver<f64>,
}

impl Follower {
    /// Starts it; `stamp` is the field with journald's time, microseconds since 1970.
    fn start(mut command: Command, stamp: &'static str) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("following a journal")?;
        let output = BufReader::new(child.stdout.take().context("a pipe has two ends")?);
        let (tell, lags) = mpsc::channel();
        let counts_from = Instant::now() + WARMING_UP;
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let Some(written) = written(&line, stamp) else { continue };
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let lag = now.as_micros() as f64 - written;
                if Instant::now() >= counts_from && tell.send(lag / 1000.0).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lags })
    }

    /// Ends it; gives the lags in milliseconds, sorted.
    fn end(mut self) -> Result<Vec<f64>> {
        self.child.kill().context("ending a follower")?;
        self.child.wait().context("ending a follower")?;
        let mut lags: Vec<f64> = self.lags.iter().collect();
        ensure!(!lags.is_empty(), "a follower heard nothing");
        lags.sort_by(f64::total_cmp);
        Ok(lags)
    }
}

/// When a line was written, by journald's stamp; none if a counter did not write it.
fn written(line: &str, stamp: &str) -> Option<f64> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let identifier = line.get("identifier").or_else(|| line.get("SYSLOG_IDENTIFIER"))?;
    (identifier == "perl").then_some(())?;
    let stamp = line.get(stamp)?;
    // journalctl prints all its numbers as strings.
    stamp.as_f64().or_else(|| stamp.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_readers_are_understood() {
        let ours = r#"{"identifier":"perl","realtime_us":1500000,"message":"1"}"#;
        let theirs = r#"{"SYSLOG_IDENTIFIER":"perl","__REALTIME_TIMESTAMP":"1500000"}"#;
        assert_eq!(written(ours, "realtime_us"), Some(1_500_000.0));
        assert_eq!(written(theirs, "__REALTIME_TIMESTAMP"), Some(1_500_000.0));
        assert_eq!(written(r#"{"identifier":"systemd","realtime_us":1}"#, "realtime_us"), None);
    }
}
