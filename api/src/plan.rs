//! What would come of what is only imagined, foreseen by the engine's own code.

use std::collections::BTreeSet;

use flotilla_units::{MachineId, UnitName};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{unit::Target, why::WhyMachine};

/// Units to imagine, all at once, on top of what the cluster has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// The units.
    pub units: Vec<PlanUnit>,
}

/// One unit to imagine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanUnit {
    /// Its name; without a type it is a service.
    pub name: String,
    /// The text that it would have; absent to keep what it has. An instance takes its template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What would be wanted of it; absent to keep what is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// It would be destroyed.
    #[serde(default)]
    pub destroy: bool,
}

/// What would come of it. Everything that the engine would decide is taken as come true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanOutcome {
    /// The store's revision that it was foreseen from.
    pub revision: i64,
    /// The units that were asked about, by name.
    pub units: Vec<PlannedUnit>,
    /// Other units that would be elsewhere, by name.
    pub moves: Vec<PlannedMove>,
}

/// What would become of a unit that was asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedUnit {
    /// The unit.
    #[schema(value_type = String)]
    pub unit: UnitName,
    /// What would be done to it.
    pub change: PlannedChange,
    /// What would be wanted of it.
    pub target: Target,
    /// Where it would be.
    pub machines: Vec<PlannedPlace>,
    /// Why it would be nowhere, if it should be somewhere; in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unplaced: Option<String>,
    /// What the engine would say of each machine, where it would be nowhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<WhyMachine>,
}

/// What would be done to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlannedChange {
    /// The cluster does not have it.
    Create,
    /// Its text would be another, or its template's.
    Update,
    /// Its text would be the same, and something else would be wanted of it.
    Retarget,
    /// It is so already.
    Unchanged,
    /// It would be destroyed.
    Destroy,
}

/// A machine that a unit would be on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct PlannedPlace {
    /// The machine.
    #[schema(value_type = String)]
    pub machine: MachineId,
    /// Its host name, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// It is there already.
    #[serde(default)]
    pub here: bool,
}

/// A unit that would be elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedMove {
    /// The unit.
    #[schema(value_type = String)]
    pub unit: UnitName,
    /// The machines that it would leave.
    pub from: BTreeSet<PlannedPlace>,
    /// The machines that it would come to; none if no other can take it.
    pub to: BTreeSet<PlannedPlace>,
}

/// How far a machine's drain is, or what it would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drain {
    /// The machine.
    #[schema(value_type = String)]
    pub machine: MachineId,
    /// Its host name, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// It is being drained. If not, the rest says what a drain would do.
    pub draining: bool,
    /// The store's revision that it was foreseen from.
    pub revision: i64,
    /// The units that are on it, by name.
    pub units: Vec<DrainUnit>,
}

/// One unit on a machine that is drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainUnit {
    /// The unit.
    #[schema(value_type = String)]
    pub unit: UnitName,
    /// How far it is.
    pub stage: DrainStage,
    /// Where it is started, or would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<PlannedPlace>,
    /// Why it stays, or why it is nowhere afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How far a unit is that has to leave a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DrainStage {
    /// It is to leave.
    Waiting,
    /// It is being started elsewhere, and leaves once it is ready there.
    Starting,
    /// It has been told to leave, and is not yet proven gone.
    Stopping,
    /// It stays.
    Stays,
}

/// How long to wait for the state to answer from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AfterQuery {
    /// Do not answer before the seat has reached this revision of the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
}

/// An order to even machines out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rebalance {
    /// The most units that may be moved.
    pub budget: u32,
    /// Do it; otherwise only say what would be moved.
    #[serde(default)]
    pub apply: bool,
}

/// What is moved to even machines out, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RebalanceOutcome {
    /// The store's revision that it was decided from.
    pub revision: i64,
    /// It is being done.
    pub applied: bool,
    /// The moves, in their order.
    pub moves: Vec<PlannedMove>,
    /// The machines that take part, with how many units each has now and would have.
    pub machines: Vec<RebalancedMachine>,
}

/// A machine that takes part in evening out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RebalancedMachine {
    /// The machine.
    #[schema(value_type = String)]
    pub machine: MachineId,
    /// Its host name, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// How many units it has now, those that are leaving not counted.
    pub units_before: u64,
    /// How many it would have.
    pub units_after: u64,
    /// Its dominant share now, in parts of a million.
    pub share_before: u64,
    /// What that would be.
    pub share_after: u64,
}
