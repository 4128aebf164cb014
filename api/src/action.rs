//! What users do to units.

use flotilla_units::{MachineId, UnitName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Units to submit, all of them or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// The units.
    pub units: Vec<SubmitUnit>,
    /// Take the place of other texts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// With `replace`: what runs is left as it is until it is started anew for another reason.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_restart: bool,
    /// The set of unit files that the units are made, or replaced, by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
}

/// One unit to submit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitUnit {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// An order about units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// What to do.
    pub action: Action,
    /// Which units: names, or globs over the units that the cluster knows. A name without a type
    /// is a service. An instance of a known template need not be known itself.
    pub units: Vec<String>,
    /// Say what would be done, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Texts and orders for many units at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkWrite {
    /// The units, each once.
    pub units: Vec<BulkUnit>,
    /// All in one transaction: refused if there are too many for one.
    #[serde(default)]
    pub whole: bool,
}

/// What a bulk write asks of one unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkUnit {
    /// Its name.
    pub name: String,
    /// The text that it is to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The text may take the place of another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// With `replace`: what runs is left as it is until it is started anew for another reason.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_restart: bool,
    /// The set of unit files that the unit is remembered to be made by, if it is made now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// With `set`: it becomes that set's also where it is there already, and what runs is not touched by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub take_over: bool,
    /// An instance that is not there is made by its template also where the action is `unload`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub create: bool,
    /// What to do to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Only if it is at this revision still (its `revision`, or its `ETag`); zero: only if it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<i64>,
}

/// What became of a bulk write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BulkOutcome {
    /// The store's revision at which the last of it was written.
    pub revision: i64,
    /// How many transactions it took; with more than one, others may have seen a part of it.
    pub transactions: u64,
    /// One per unit, in the order of their names.
    pub units: Vec<UnitOutcome>,
}

/// What a unit is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutUnit {
    /// Its text, in place of another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What runs is left as it is until it is started anew for another reason.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_restart: bool,
    /// What is wanted of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<crate::unit::Target>,
}

/// What can be done to units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// On no machine.
    Unload,
    /// On a machine, not started (or stopped, when it was).
    Load,
    /// Stopped, and still on its machine.
    Stop,
    /// Running; a unit that should run and does not is started anew.
    Start,
    /// Started anew, wherever it is.
    Restart,
    /// Stopped and forgotten.
    Destroy,
}

/// What became of an order or a submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// The store's revision at which the last of it was written: a watch from here on shows what
    /// comes of it.
    pub revision: i64,
    /// One per unit, in the order of their names.
    pub units: Vec<UnitOutcome>,
}

/// What became of one unit of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitOutcome {
    /// The unit.
    #[schema(value_type = String)]
    pub unit: UnitName,
    /// Whether anything was written; `false` when it was so already.
    pub changed: bool,
    /// The unit's generation afterwards.
    pub generation: u64,
    /// The unit's run afterwards.
    pub run: u64,
    /// The machine whose own it was, where its files from before are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub adopted_from: Option<MachineId>,
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Unload => "unload",
            Self::Load => "load",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Restart => "restart",
            Self::Destroy => "destroy",
        })
    }
}
