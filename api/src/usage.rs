//! What units take of their machines, as `flotctl top` shows it.

use flotilla_units::{MachineId, UnitName};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// How long between two readings unless asked otherwise, in seconds: what people can follow.
pub const INTERVAL_USUAL: u32 = 2;

/// The shortest time between two readings, in seconds: reading costs the machine some milliseconds.
pub const INTERVAL_MIN: u32 = 1;

/// The longest, in seconds: past it a stream would be silent for longer than a connection may be.
pub const INTERVAL_MAX: u32 = 30;

/// What is taken of one machine at one moment. All times and bytes "since" count from a start, so what
/// goes on now is the difference of two readings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// The machine.
    #[schema(value_type = String)]
    pub machine: MachineId,
    /// Its host name.
    pub host: String,
    /// When, in nanoseconds of a clock that only this machine has and that is never set.
    pub clock_ns: u64,
    /// Processors that are on.
    pub cpus: u32,
    /// The time that they were busy since the boot, all together, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ns: Option<u64>,
    /// Memory that is not available to be taken, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_used_bytes: Option<u64>,
    /// All memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The load average of the last minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// flotilla's units on it that have a control group now.
    pub units: Vec<UnitUsage>,
}

/// What one unit takes. What its machine's kernel does not count is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitUsage {
    /// The unit.
    #[schema(value_type = String)]
    pub unit: UnitName,
    /// Processor time since it started, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ns: Option<u64>,
    /// Memory in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// Bytes read from disks since it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes: Option<u64>,
    /// Bytes written to disks since it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_bytes: Option<u64>,
}

/// How often to read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// Seconds between two readings, 1 to 30; 2 unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<u32>,
}
