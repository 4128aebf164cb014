//! What `systemctl status` shows of one unit, as plain values.
//!
//! The agent reads it when somebody asks, and keeps none of it. The server prints it and asks
//! another machine's agent for it through the API.

use async_trait::async_trait;
use flotilla_units::UnitName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::systemd::SystemdError;

/// One unit on one machine, in the words of systemctl(1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitStatus {
    /// Its runtime name.
    pub name: String,
    /// `Description=`.
    pub description: String,
    /// `LoadState`: `loaded`, `not-found`, `bad-setting`, ...
    pub load: String,
    /// Why it could not be loaded.
    pub load_error: Option<String>,
    /// The file it was loaded from.
    pub path: String,
    /// Its drop-ins.
    pub drop_ins: Vec<String>,
    /// `Documentation=`.
    pub documentation: Vec<String>,
    /// `ActiveState`.
    pub active: String,
    /// `SubState`.
    pub sub: String,
    /// When it became so.
    pub since: Option<Timestamp>,
    /// `InvocationID`, 32 hexadecimal digits.
    pub invocation: Option<String>,
    /// Its main process, while it runs.
    pub main: Option<Process>,
    /// What it said last through `sd_notify` (`STATUS=`).
    pub status_text: Option<String>,
    /// How many threads and processes it has.
    pub tasks: Option<u64>,
    /// The memory it takes, in bytes.
    pub memory_bytes: Option<u64>,
    /// The processor time it took since it started, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Its control group.
    pub cgroup: String,
    /// The processes in its control group, and in those below it.
    pub processes: Vec<Process>,
    /// `Result`, for example `exit-code`; empty for types that have none.
    pub result: String,
    /// How its main process ended last.
    pub exit: Option<Exit>,
    /// How often systemd restarted it by itself.
    pub restarts: u32,
}

/// One process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its command line, or its name in brackets when it has none.
    pub command: String,
    /// Where it is below the unit's control group; empty for the group itself.
    pub group: String,
}

/// How a main process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// `exited`, `killed` or `dumped`.
    pub how: String,
    /// Its exit status, or the number of the signal.
    pub status: i32,
}

/// Where the status of this machine's units comes from.
#[async_trait]
pub trait StatusSource: std::fmt::Debug + Send + Sync + 'static {
    /// Returns what is known of a unit; a unit that systemd has not loaded is `inactive`, and one
    /// that this machine has no file of is `not-found`.
    ///
    /// # Errors
    /// systemd does not answer.
    async fn status(&self, unit: &UnitName) -> Result<UnitStatus, SystemdError>;
}
