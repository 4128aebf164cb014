//! Units of a machine's own that become the cluster's.

use flotilla_units::{MachineId, UnitName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::action::{Outcome, UnitOutcome};

/// Units of a machine's own that are asked about, or to be taken over, all of them or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Adopt {
    /// Their names. A name without a type is a service.
    pub units: Vec<String>,
    /// Say what would be done, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A unit of a machine's own that can be taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OwnUnit {
    /// Its name.
    #[schema(value_type = String)]
    pub unit: UnitName,
    /// Its text in the cluster: its file, and behind it each of its drop-ins in systemd's order.
    pub text: String,
    /// The file that systemd has it from.
    pub fragment: String,
    /// What is moved out of systemd's sight: its file, its drop-ins, the links that enable it.
    pub moves: Vec<String>,
    /// The folder on its machine that they are moved to.
    pub kept: String,
    /// A package's files of it, which stay and are overridden.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stays: Vec<String>,
    /// Drop-ins that it shares with other units of the machine: they apply on, and only there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<String>,
}

/// What became of units that are taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Adopted {
    /// The store's revision at which it was written: a watch from here on shows what comes of it.
    pub revision: i64,
    /// The machine whose own they were.
    #[schema(value_type = String)]
    pub machine: MachineId,
    /// Its host name, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// One per unit, in the order of their names.
    pub units: Vec<AdoptedUnit>,
}

/// What became of one unit that is taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdoptedUnit {
    /// What was found on its machine.
    #[serde(flatten)]
    pub found: OwnUnit,
    /// The unit's generation afterwards; zero if nothing was to be done.
    pub generation: u64,
    /// The unit's run afterwards.
    pub run: u64,
}

impl Adopted {
    /// Returns what became of it as of any order.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let unit = |unit: &AdoptedUnit| UnitOutcome {
            unit: unit.found.unit.clone(),
            changed: true,
            generation: unit.generation,
            run: unit.run,
            adopted_from: Some(self.machine),
        };
        Outcome { revision: self.revision, units: self.units.iter().map(unit).collect() }
    }
}
