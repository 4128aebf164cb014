//! Watching units and events as server-sent events.
//!
//! Each `data:` is a [`WatchEvent`] or an [`Event`], each `id:` the store's
//! revision it shows. A client that lost its connection sends the last id again
//! (`Last-Event-ID`); when that is too long ago the stream starts over with
//! [`WatchEvent::Reset`].

use flotilla_units::{MachineId, UnitName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{page::unit_query, unit::Unit};

/// What a watch of units says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum WatchEvent {
    /// Everything that matches follows as `Unit`, then `Synced`; forget what was before.
    Reset,
    /// A unit is new or changed.
    Unit {
        /// As it is now.
        unit: Box<Unit>,
    },
    /// A unit is gone.
    Gone {
        /// Which.
        #[schema(value_type = String)]
        name: UnitName,
    },
    /// What has been said so far is everything as of this revision.
    Synced {
        /// The store's revision.
        revision: i64,
    },
}

unit_query! {
    /// Which units to watch. One that no longer is what is asked for is `gone`.
    pub struct WatchQuery {
        /// Globs, separated by commas; everything when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub pattern: Option<String>,
        /// Do not begin before the answering seat has reached this revision of the store.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub after: Option<i64>,
    }
}

/// What happened in the cluster and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The store's revision.
    pub revision: i64,
    /// Who: `engine`, or the user that asked.
    pub by: String,
    /// The request that led to it, if one did: its `X-Request-Id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// What, in kebab case: `submitted`, `placed`, `departing`, `machine-lost`, ...
    pub kind: String,
    /// The unit, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub unit: Option<UnitName>,
    /// The machine, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub machine: Option<MachineId>,
    /// The machine's host name, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Only events about units that match one of these globs, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Only events about these machines: host names, ids or beginnings of ids, globs, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Only events of these kinds (`placed`, `machine-*`, ...), globs separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only events since this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Go on with events as they happen.
    #[serde(default)]
    pub follow: bool,
    /// How many of the newest events to begin with; all since `since` where that is given, else 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u32>,
}
