//! What this machine's units take of it, as the kernel counts it.
//!
//! Read from control groups and `/proc` when somebody asks, and at no other time. Figures are counters and
//! amounts; what becomes of two of them over time is for whoever shows it.

use std::{fmt, fs, path::Path};

use async_trait::async_trait;
use flotilla_units::UnitName;

use crate::systemd::SystemdError;

/// How many times a second `/proc/stat` counts: what Linux shows to programs, whatever it counts in itself.
const TICKS_PER_SECOND: u64 = 100;

/// What is taken at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// When, in nanoseconds of a clock that only this machine has and that is never set.
    pub clock_ns: u64,
    /// The machine as a whole.
    pub machine: MachineUsage,
    /// Each unit that has a control group now.
    pub units: Vec<UnitUsage>,
}

/// What is taken of a machine. What the kernel does not tell is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MachineUsage {
    /// Processors that are on.
    pub cpus: u32,
    /// The time that they were busy since the boot, all together, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Memory that is not available to be taken, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// All memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// The load average of the last minute.
    pub load: Option<f64>,
}

/// What one unit takes. What the kernel does not count for it is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitUsage {
    /// The unit's runtime name.
    pub unit: UnitName,
    /// Processor time since it started, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// Bytes read from disks since it started.
    pub read_bytes: Option<u64>,
    /// Bytes written to disks since it started.
    pub written_bytes: Option<u64>,
}

/// Where the figures of this machine come from.
#[async_trait]
pub trait UsageSource: fmt::Debug + Send + Sync + 'static {
    /// Reads them.
    ///
    /// # Errors
    /// systemd does not say where a unit's control group is.
    async fn usage(&self) -> Result<Usage, SystemdError>;
}

impl MachineUsage {
    /// Reads what a proc(5) at `proc` tells.
    pub(crate) fn read(proc: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(proc.join(name)).unwrap_or_default();
        let (cpus, cpu_ns) = processors(&text("stat"));
        let (memory_used_bytes, memory_bytes) = memory(&text("meminfo"));
        let load = text("loadavg").split(' ').next().and_then(|load| load.parse().ok());
        Self { cpus, cpu_ns, memory_used_bytes, memory_bytes, load }
    }
}

/// Reads how many processors there are, and how long they were busy.
fn processors(stat: &str) -> (u32, Option<u64>) {
    let of = |line: &str| line.starts_with("cpu") && !line.starts_with("cpu ");
    let cpus = u32::try_from(stat.lines().filter(|line| of(line)).count()).unwrap_or(u32::MAX);
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let ticks: Vec<u64> = all.unwrap_or_default().split_whitespace().filter_map(|n| n.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are counted in user already.
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|&at| ticks.get(at)).sum();
    (cpus, (!ticks.is_empty()).then(|| busy.saturating_mul(1_000_000_000 / TICKS_PER_SECOND)))
}

/// Reads how much memory is used, and how much there is.
fn memory(meminfo: &str) -> (Option<u64>, Option<u64>) {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1_024)
    };
    let total = field("MemTotal");
    (total.zip(field("MemAvailable")).map(|(total, free)| total.saturating_sub(free)), total)
}

/// Adds what `io.stat` counts for each disk: bytes read, bytes written.
pub(crate) fn transferred(io_stat: &str) -> (u64, u64) {
    let sum = |name: &str| {
        let fields = io_stat.split_whitespace().filter_map(|field| field.strip_prefix(name));
        fields.filter_map(|number| number.parse::<u64>().ok()).sum()
    };
    (sum("rbytes="), sum("wbytes="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_read() {
        let proc = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(proc.path().join(name), text).unwrap();
        assert_eq!(MachineUsage::read(proc.path()), MachineUsage::default());
        write("stat", "cpu  10 1 5 1000 50 2 3 4 9 9\ncpu0 5 0 0 0\ncpu1 5 0 0 0\nintr 1\n");
        write("meminfo", "MemTotal:        2048 kB\nMemFree: 1 kB\nMemAvailable:    1024 kB\n");
        write("loadavg", "0.25 0.10 0.05 1/100 4242\n");
        let expected = MachineUsage {
            cpus: 2,
            cpu_ns: Some(250_000_000),
            memory_used_bytes: Some(1 << 20),
            memory_bytes: Some(2 << 20),
            load: Some(0.25),
        };
        assert_eq!(MachineUsage::read(proc.path()), expected);
    }

    #[test]
    fn disks_are_added_up() {
        let text = "8:0 rbytes=100 wbytes=7 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2 rios=1\n";
        assert_eq!(transferred(text), (101, 9));
        assert_eq!(transferred(""), (0, 0));
    }
}
