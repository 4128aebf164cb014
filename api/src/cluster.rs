//! The cluster as a whole.

use flotilla_units::MachineId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The cluster as a whole, as the answering seat sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterStatus {
    /// The cluster's id; absent before its first leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Raised by every recovery.
    pub epoch: u16,
    /// The store's revision that the seat has reached.
    pub revision: i64,
    /// Who leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub leader: Option<MachineId>,
    /// Who is hot.
    #[schema(value_type = Vec<String>)]
    pub seats: Vec<MachineId>,
    /// Machines whose lease lives.
    pub machines_alive: u64,
    /// Machines that have a manifest and no living lease.
    pub machines_lost: u64,
    /// Units known.
    pub units: u64,
    /// The store's name and version.
    pub store: String,
    /// Bytes that the store takes on disk.
    pub store_size_bytes: u64,
    /// Bytes that it may take, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_quota_bytes: Option<u64>,
    /// What needs an operator, one line each: held placements, a store that went back, records
    /// that cannot be read.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// Which flotillad answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Its version.
    pub version: String,
    /// The machine it runs on.
    #[schema(value_type = String)]
    pub machine: MachineId,
    /// That machine's host name.
    pub host: String,
}

/// What operators set for the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterSettings {
    /// How long events are kept, in seconds.
    pub events_kept_s: u64,
    /// How many event records are kept at most: one for each transaction, about some hundred units.
    pub events_max: u64,
    /// When they were written last; zero if never.
    pub revision: i64,
}

/// What is to be set for the whole cluster; what is not said stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsChange {
    /// How long events are kept, in seconds: 60 to 7776000 (90 days).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_kept_s: Option<u64>,
    /// How many event records are kept at most: 100 to 100000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_max: Option<u64>,
}
