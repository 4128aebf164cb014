//! What is read of processes and units, from outside of what is measured.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use flotilla_lab::{Lab, Machine};
use jiff::civil::DateTime;

/// Ticks of a process's time in a second, on every architecture that Debian has.
const TICKS: f64 = 100.0;

/// Bytes of a page, on the architectures that the lab boots.
const PAGE: f64 = 4096.0;

/// Seconds of the processor that each kind of process has used, over all machines.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    pub etcd: f64,
    pub flotillad: f64,
    pub init: f64,
    pub bus: f64,
}

/// One process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Process {
    /// Seconds of the processor.
    pub cpu: f64,
    /// Resident memory, MiB.
    pub memory: f64,
}

impl Cpu {
    /// Reads all of them.
    pub fn read(lab: &Lab) -> Result<Self> {
        let mut sum = Self { etcd: counter(lab, "process_cpu_seconds_total")?, ..Self::default() };
        for machine in lab.machines() {
            let [init, flotillad, bus] = processes(machine)?;
            sum.init += init.cpu;
            sum.flotillad += flotillad.cpu;
            sum.bus += bus.cpu;
        }
        Ok(sum)
    }

    /// What was used since `before`, in milliseconds for each of `units`.
    pub fn per_unit(self, before: Self, units: usize) -> String {
        let each = |now: f64, before: f64| (now - before) * 1000.0 / units as f64;
        format!(
            "etcd {:.2}, flotillad {:.2}, PID 1 {:.2}, dbus {:.2} ms",
            each(self.etcd, before.etcd),
            each(self.flotillad, before.flotillad),
            each(self.init, before.init),
            each(self.bus, before.bus)
        )
    }
}

/// A machine's PID 1, flotillad and bus; all zero for one that does not run.
pub fn processes(machine: &Machine) -> Result<[Process; 3]> {
    let line = "for pid in 1 $(systemctl show --property=MainPID --value flotillad dbus); do \
                if [ $pid = 0 ]; then echo; else cat /proc/$pid/stat; fi; done";
    let text = machine.shell(line)?;
    let none = Process { cpu: 0.0, memory: 0.0 };
    let read = |line: &str| if line.is_empty() { Some(none) } else { process(line) };
    let found: Option<Vec<Process>> = text.lines().map(read).collect();
    let found = found.and_then(|found| <[Process; 3]>::try_from(found).ok());
    found.with_context(|| format!("not the three processes of {}: {text}", machine.name()))
}

/// Reads a line of /proc/PID/stat; see proc(5).
fn process(line: &str) -> Option<Process> {
    // The name is in parentheses and may hold anything; the state is the third field.
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(Process { cpu: (field(14)? + field(15)?) / TICKS, memory: field(24)? * PAGE / f64::from(1 << 20) })
}

/// The sum of a counter over all etcd members.
pub fn counter(lab: &Lab, name: &str) -> Result<f64> {
    let mut sum = 0.0;
    for member in lab.members() {
        let metrics = member.metrics()?;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.with_context(|| format!("{} counts no {name}", member.name()))?;
        sum += value.trim().parse::<f64>().with_context(|| format!("{name} is {value:?}"))?;
    }
    Ok(sum)
}

/// When the units of a pattern became active on a machine, microseconds since 1970, by systemd's
/// own clock, which is the same on all machines of the lab. Those that are not active are left out.
pub fn active_since(machine: &Machine, pattern: &str) -> Result<BTreeMap<String, i64>> {
    let properties = "--property=Id,ActiveState,ActiveEnterTimestamp";
    let text = machine.run(&["systemctl", "show", "--timestamp=us+utc", properties, "--", pattern])?;
    let mut found = BTreeMap::new();
    for block in text.split("\n\n") {
        let value = |key: &str| block.lines().find_map(|line| line.strip_prefix(key));
        if let (Some(unit), Some("active"), Some(since)) =
            (value("Id="), value("ActiveState="), value("ActiveEnterTimestamp="))
        {
            found.insert(unit.to_owned(), timestamp(since)?);
        }
    }
    Ok(found)
}

/// Reads `Sun 2026-11-22 21:26:15.123456 UTC`.
fn timestamp(text: &str) -> Result<i64> {
    let written = text.split_once(' ').and_then(|(_, rest)| rest.strip_suffix(" UTC"));
    let written = written.with_context(|| format!("{text:?} is not systemd's way to write a time"))?;
    let time: DateTime = written.parse().with_context(|| format!("{written:?} is no time"))?;
    Ok(time.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp().as_microsecond())
}

/// Reads bash's `$EPOCHREALTIME`, to microseconds since 1970.
pub fn epoch(text: &str) -> Result<i64> {
    text.trim().replace('.', "").parse().with_context(|| format!("{text:?} is no time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_are_read_alike() {
        assert_eq!(timestamp("Thu 1970-01-01 00:00:01.500000 UTC").unwrap(), 1_500_000);
        assert_eq!(epoch("1.500000\n").unwrap(), 1_500_000);
        assert!(timestamp("n/a").is_err() && epoch("").is_err());
    }

    #[test]
    fn a_process_may_be_called_anything() {
        let line = "7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 99 1000 256 1";
        assert_eq!(process(line), Some(Process { cpu: 2.0, memory: 1.0 }));
        assert_eq!(process("7 (a) S 1"), None);
    }
}
