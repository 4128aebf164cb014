//! What has to be known of a computer to judge a figure that was measured on it.

use std::{fs, path::Path, process::Command};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a run was done with. What could not be found out is empty, and the page says "unknown".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// When the run began, in UTC.
    #[serde(default)]
    pub at: String,
    /// The commit that was measured; with `+` if files were changed since.
    #[serde(default)]
    pub commit: String,
    /// What the processor calls itself.
    #[serde(default)]
    pub processor: String,
    /// How many of its cores may be used.
    #[serde(default)]
    pub cores: usize,
    /// MiB of memory.
    #[serde(default)]
    pub memory: u64,
    /// The kernel's release.
    #[serde(default)]
    pub kernel: String,
    /// The version of etcd, of a run that had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<String>,
    /// The load average of the minute before the run: what else the computer did.
    #[serde(default)]
    pub load: f64,
}

impl Facts {
    /// Finds out what can be found out; call it before anything is measured.
    pub fn gather(etcd: Option<&Path>) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            at: Timestamp::now().strftime("%Y-%m-%d %H:%M:%S").to_string(),
            commit: commit(),
            processor: field(&read("/proc/cpuinfo"), "model name")
                .unwrap_or_else(|| std::env::consts::ARCH.into()),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            memory: kib(&read("/proc/meminfo"), "MemTotal").map_or(0, |kib| kib / 1024),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            etcd: etcd.and_then(etcd_version),
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|word| word.parse().ok())
                .unwrap_or_default(),
        }
    }
}

/// Reads `key : value` as /proc/cpuinfo has it.
fn field(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.split_once(':'));
    value.map(|(_, value)| value.trim().to_owned())
}

fn kib(text: &str, key: &str) -> Option<u64> {
    field(text, key)?.split_whitespace().next()?.parse().ok()
}

/// What git calls the sources. The samples and the page made of them do not count as changed sources: a series of runs
/// adds to them while it goes on.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(["-C", env!("CARGO_MANIFEST_DIR"), "-c", "safe.directory=*"])
            .args(arguments)
            .output();
        let output = output.ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else { return String::new() };
    let changed = git(&["status", "--porcelain", "--", ":/", ":(exclude,top)docs/performance*"]);
    if changed.is_some_and(|changed| !changed.is_empty()) { commit + "+" } else { commit }
}

/// The number in `etcd Version: 3.4.23`.
fn etcd_version(program: &Path) -> Option<String> {
    // An architecture that etcd was not tested on has to be named.
    let output =
        Command::new(program).arg("--version").env("ETCD_UNSUPPORTED_ARCH", "arm64").output().ok()?;
    field(&String::from_utf8_lossy(&output.stdout), "etcd Version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_the_kernel_writes_them() {
        let text = "processor\t: 0\nmodel name\t: A Processor @ 2.00GHz\nMemTotal:       24576000 kB\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A Processor @ 2.00GHz"));
        assert_eq!(kib(text, "MemTotal"), Some(24_576_000));
        assert_eq!(field(text, "nothing"), None);
    }

    #[test]
    fn what_is_found_out_here_can_be_read_back() {
        let facts = Facts::gather(None);
        assert!(facts.cores > 0 && facts.memory > 0 && !facts.at.is_empty());
        let text = serde_json::to_string(&facts).unwrap();
        assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), facts);
    }
}
