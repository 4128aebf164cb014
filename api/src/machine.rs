//! Machines, and what users say of them.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Its metadata: its configuration's, and over it what users said while it runs. Beneath both are
    /// its facts, which `MachineMetadata=` sees too.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Where its metadata comes from.
    #[serde(default)]
    pub origin: MetadataOrigin,
    /// What it found out about itself.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// What it has to give.
    #[serde(default)]
    pub capacity: Amounts,
    /// What its units reserve of that, those that are leaving included.
    #[serde(default)]
    pub reserved: Amounts,
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
    /// An operator vouches that it is off.
    #[serde(default)]
    pub fenced: bool,
    /// Why nothing new is placed here, in whatever way that came to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<String>,
    /// When what users said of it was last written, for `If-Match`; zero where nobody said anything.
    #[serde(default)]
    pub revision: i64,
    /// Its engine has one of the cluster's seats.
    #[serde(default)]
    pub seat: bool,
    /// Its engine leads.
    #[serde(default)]
    pub leader: bool,
}

/// Where a machine's metadata comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MetadataOrigin {
    /// What its configuration says.
    #[serde(default)]
    pub configured: BTreeMap<String, String>,
    /// What users said while it runs.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Keys that users took away.
    #[serde(default)]
    pub unset: BTreeSet<String>,
}

/// Amounts of what machines have and units reserve.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Amounts {
    /// Processors, in thousandths.
    #[serde(default)]
    pub cpu_milli: u64,
    /// Memory in bytes.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Counted resources by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub named: BTreeMap<String, u64>,
    /// Ports; machines have all of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ports: BTreeSet<u16>,
}

/// Changes of a machine's metadata, all of them or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MetadataPatch {
    /// Keys with the values that they are to have, whatever the machine itself says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Keys to take away, also where the machine itself says them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unset: BTreeSet<String>,
    /// Keys that are to be as the machine itself says again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub reset: BTreeSet<String>,
}

/// What became of an order about a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MachineOutcome {
    /// The machine.
    #[schema(value_type = String)]
    pub machine: MachineId,
    /// Its host name, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whether anything was written; `false` when it was so already.
    pub changed: bool,
    /// When what users said of it was last written: a watch from here on shows what comes of it.
    pub revision: i64,
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
