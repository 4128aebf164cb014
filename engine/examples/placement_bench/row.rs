//! Measures one row in a process of its own, and prints its samples.

use std::{
    fs,
    hint::black_box,
    io::{Write, stdout},
    time::{Duration, Instant},
};

use crate::{
    samples::{Measured, Row, Sample},
    workloads::{Event, Failed, Kind, Workload},
};

/// The word by which the table starts this process.
pub const COMMAND: &str = "row";

/// How often a cluster is filled from empty at least: a median wants three.
const RUNS_LEAST: u32 = 3;

/// How often at most; small clusters are filled in less than a millisecond.
const RUNS_MOST: u32 = 101;

/// Within this time a cluster is filled more often than it has to be.
const RUNS_WITHIN: Duration = Duration::from_millis(400);

/// Measures the row that the words name and prints a line for each sample.
pub fn run(words: &[String]) -> Result<(), Failed> {
    let [kind, machines, units] = words else {
        return Err(format!("{COMMAND} takes a kind, a number of machines and one of units").into());
    };
    let kind = Kind::ALL.into_iter().find(|it| it.to_string() == *kind).ok_or("no such kind of units")?;
    let (machines, units) = (machines.parse()?, units.parse()?);
    let workload = Workload::new(kind, machines, units)?;
    let row = Row { kind: kind.to_string(), machines, units };
    let mut samples = from_empty(&workload)?;
    samples.extend(events(&workload)?);
    let mut out = stdout().lock();
    for (nth, measured) in samples {
        serde_json::to_writer(&mut out, &Sample { row: row.clone(), nth, measured })?;
        writeln!(out)?;
    }
    Ok(())
}

fn from_empty(workload: &Workload) -> Result<Vec<(u32, Measured)>, Failed> {
    let mut samples = Vec::new();
    let mut took = Duration::ZERO;
    for nth in 0..RUNS_MOST {
        if nth >= RUNS_LEAST && took >= RUNS_WITHIN {
            break;
        }
        let mut core = workload.empty();
        let before = memory("VmRSS:")?;
        let start = Instant::now();
        workload.tell(&mut core);
        let told = start.elapsed();
        black_box(workload.place(&mut core)?);
        let all = start.elapsed();
        took += all;
        if nth == 0 {
            let bytes = memory("VmHWM:")?.saturating_sub(before);
            samples.push((nth, Measured::Memory { bytes }));
        }
        samples.push((nth, Measured::FromEmpty { told_ns: nanos(told), decided_ns: nanos(all - told) }));
    }
    Ok(samples)
}

fn events(workload: &Workload) -> Result<Vec<(u32, Measured)>, Failed> {
    let mut samples = Vec::new();
    let mut full = workload.full()?;
    for event in Event::ALL {
        for nth in 0..workload.most(event) {
            let (took, decisions) = workload.happen(event, &mut full, |carry_out| {
                let start = Instant::now();
                carry_out();
                start.elapsed()
            })?;
            let measured =
                Measured::Event { event: event.to_string(), ns: nanos(took), decisions: decisions as u64 };
            samples.push((nth, measured));
        }
    }
    Ok(samples)
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// One of the amounts of memory that the kernel tells of this process, in bytes.
fn memory(which: &str) -> Result<u64, Failed> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(which));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).ok_or("the kernel tells no memory")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}
