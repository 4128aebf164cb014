//! Orders about very many units, and how far they have come, as server-sent events.
//!
//! A range is one word, however many instances it has, on the way there and back: nothing here has a field for
//! each of a million.

use flotilla_units::{UnitName, UnitRange};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::action::{Action, UnitOutcome};

/// An order about units and ranges of instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkOrder {
    /// What to do.
    pub action: Action,
    /// Which units: names, and ranges of a template's instances, `web@{1..1000000}.service`. No patterns: `POST
    /// /v1/orders` takes them.
    pub units: Vec<String>,
}

/// How far an order about many units is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum BulkEvent {
    /// Some of it is written, or was so already: all of these units or, should the store fail, none.
    Written {
        /// How many of the order's units were gone through so far.
        position: u64,
        /// How many there are.
        total: u64,
        /// How many of these are there.
        units: u64,
        /// How many of these are other than before.
        changed: u64,
        /// How many transactions it took.
        transactions: u64,
        /// When the last of these was written.
        revision: i64,
        /// What became of instances by ranges.
        ranges: Vec<RangeOutcome>,
        /// What became of single units; of more than a thousand it is not told.
        outcomes: Vec<UnitOutcome>,
    },
    /// All of it is.
    Done {
        /// A tally, or a watch, from here on shows what comes of it.
        revision: i64,
    },
}

/// What became of consecutive instances, but for those of them that are named beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RangeOutcome {
    /// The instances.
    #[schema(value_type = String)]
    pub range: UnitRange,
    /// Whether anything was written; `false` when it was so already.
    pub changed: bool,
    /// The generation of each afterwards.
    pub generation: u64,
    /// The run of each afterwards.
    pub run: u64,
}

/// What to count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TallyQuery {
    /// Ranges of instances, separated by commas.
    pub ranges: String,
    /// What was ordered of them.
    #[param(inline)]
    pub action: Action,
    /// Do not begin before the answering seat has reached this revision of the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
}

/// How far the instances of ranges are on the way to what was ordered of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tally {
    /// The store's revision that it shows.
    pub revision: i64,
    /// How many there are; where they are destroyed, those that are gone included.
    pub total: u64,
    /// How many are as ordered.
    pub done: u64,
    /// How many are on their way.
    pub pending: u64,
    /// How many have died, could not be started, or were ordered otherwise meanwhile.
    pub failed: u64,
    /// How many no machine may run.
    pub unplaced: u64,
    /// Some of those that are not as ordered: failed ones first, then unplaced, then pending ones, at most ten of
    /// each.
    #[schema(value_type = Vec<String>)]
    pub examples: Vec<UnitName>,
}
