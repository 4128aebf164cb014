//! Why a unit is where it is, or nowhere.

use flotilla_units::{MachineId, UnitName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a unit is where it is, or nowhere; said by the code that decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// The unit.
    #[schema(value_type = String)]
    pub unit: UnitName,
    /// In one line.
    pub summary: String,
    /// Whether it is on a machine, or on as many as it should be.
    pub placed: bool,
    /// What the engine says of each machine.
    pub machines: Vec<WhyMachine>,
}

/// What the engine says of a unit on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhyMachine {
    /// The machine.
    #[schema(value_type = String)]
    pub machine: MachineId,
    /// Its host name.
    pub host: String,
    /// Whether the unit may run there.
    pub eligible: bool,
    /// Whether it is placed there.
    pub placed: bool,
    /// The rule that speaks against it, for example `MachineMetadata`; absent when it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// In words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
