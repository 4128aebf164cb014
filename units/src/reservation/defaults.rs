//! What a unit reserves by what it already tells systemd.

use super::Reservation;
use crate::{UnitFile, amount};

/// The sections that take limits: those of the types that have processes.
const SECTIONS: [&str; 6] = ["Service", "Socket", "Mount", "Swap", "Slice", "Scope"];

/// A limit as systemd would read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// So many bytes.
    Bytes(u64),
    /// None, or a part of a machine that is not yet known.
    Open,
}

/// Reads the default reservation: `CPUQuota=`, and `MemoryMax=` or else `MemoryHigh=`. Values that systemd
/// would skip are skipped.
pub fn defaults(file: &UnitFile) -> Reservation {
    let (mut max, mut high, mut cpu) = (Limit::Open, Limit::Open, 0);
    for a in file.assignments().filter(|a| SECTIONS.contains(&a.section)) {
        match a.key {
            "MemoryMax" => max = memory(a.value).unwrap_or(max),
            "MemoryHigh" => high = memory(a.value).unwrap_or(high),
            "CPUQuota" => cpu = quota(a.value).unwrap_or(cpu),
            _ => {}
        }
    }
    let memory_bytes = match (max, high) {
        (Limit::Bytes(bytes), _) | (Limit::Open, Limit::Bytes(bytes)) => bytes,
        (Limit::Open, Limit::Open) => 0,
    };
    Reservation { cpu_milli: cpu, memory_bytes, ..Reservation::default() }
}

/// systemd's `config_parse_memory_limit`; `None` for what it would skip.
fn memory(text: &str) -> Option<Limit> {
    if text.is_empty() || text == "infinity" {
        return Some(Limit::Open);
    }
    if text.ends_with(['%', '‰', '‱']) {
        return amount::permyriad(text).filter(|it| *it <= 10_000).map(|_| Limit::Open);
    }
    amount::size(text).filter(|bytes| *bytes > 0).map(Limit::Bytes)
}

/// systemd's `config_parse_cpu_quota`, in thousandths of a processor; an empty one takes it away.
fn quota(text: &str) -> Option<u64> {
    if text.is_empty() {
        return Some(0);
    }
    amount::permyriad(text).filter(|it| *it > 0).map(|it| it.div_ceil(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &str) -> (u64, u64) {
        let text = format!("[Service]\n{lines}");
        let it = defaults(&UnitFile::parse("a.service", text.as_bytes()).unwrap());
        (it.cpu_milli, it.memory_bytes)
    }

    #[test]
    fn what_systemd_limits_is_reserved() {
        const M: u64 = 1 << 20;
        for (lines, want) in [
            ("", (0, 0)),
            ("CPUQuota=150%\nMemoryMax=512M\n", (1500, 512 * M)),
            ("CPUQuota=12.55%\n", (126, 0)),
            ("MemoryHigh=256M\n", (0, 256 * M)),
            ("MemoryHigh=256M\nMemoryMax=512M\n", (0, 512 * M)),
            ("MemoryMax=infinity\nMemoryHigh=256M\n", (0, 256 * M)),
            // A part of a machine, or none at all.
            ("MemoryMax=50%\n", (0, 0)),
            ("MemoryMax=infinity\n", (0, 0)),
            // The last one holds, and an empty one takes away.
            ("MemoryMax=1G\nMemoryMax=1M\n", (0, M)),
            ("MemoryMax=1G\nMemoryMax=50%\n", (0, 0)),
            ("MemoryMax=1G\nMemoryMax=\nCPUQuota=5%\nCPUQuota=\n", (0, 0)),
            // systemd warns and goes on.
            ("MemoryMax=1M\nMemoryMax=lots\nMemoryMax=0\nMemoryMax=150%\n", (0, M)),
            ("CPUQuota=20%\nCPUQuota=1.5\nCPUQuota=0%\n", (200, 0)),
            ("MemoryMin=1G\nMemoryLow=1G\nMemorySwapMax=1G\n", (0, 0)),
        ] {
            assert_eq!(of(lines), want, "{lines}");
        }
    }

    #[test]
    fn only_sections_with_processes_have_limits() {
        for (section, want) in
            [("Socket", 1), ("Mount", 1), ("Swap", 1), ("Slice", 1), ("Unit", 0), ("Timer", 0)]
        {
            let file = UnitFile::parse("a", format!("[{section}]\nMemoryMax=1\n").as_bytes()).unwrap();
            assert_eq!(defaults(&file).memory_bytes, want, "{section}");
        }
    }
}
