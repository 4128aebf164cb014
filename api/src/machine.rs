//! Machines.

use std::collections::BTreeMap;

use flotilla_units::MachineId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One machine of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Machine {
    /// Its id (`/etc/machine-id`).
    #[schema(value_type = String)]
    pub id: MachineId,
    /// Its host name; the last one known for a machine that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// How it is.
    pub state: MachineState,
    /// Its addresses, the one to show first.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Where its API answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// Its metadata, as the engine sees it.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// What it found out about itself.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// Processors, in thousandths.
    #[serde(default)]
    pub cpu_milli: u64,
    /// Memory in bytes.
    #[serde(default)]
    pub memory_bytes: u64,
    /// The flotillad's version.
    #[serde(default)]
    pub version: String,
    /// How many units are placed on it, those that are leaving included.
    pub units: u64,
    /// Nothing new is placed here.
    #[serde(default)]
    pub cordoned: bool,
    /// Everything that can leaves.
    #[serde(default)]
    pub draining: bool,
    /// Its engine has one of the cluster's seats.
    #[serde(default)]
    pub seat: bool,
    /// Its engine leads.
    #[serde(default)]
    pub leader: bool,
}

/// How a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MachineState {
    /// Its lease lives.
    Alive,
    /// Its flotillad was stopped in order; its units run on.
    Stopped,
    /// Its lease has ended, and it still has a manifest.
    Lost,
}

impl std::fmt::Display for MachineState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Alive => "alive",
            Self::Stopped => "stopped",
            Self::Lost => "lost",
        })
    }
}
