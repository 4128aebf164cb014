//! Lists in pages, each as of one revision, and which of what there is to list.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// How many items a page has unless asked otherwise, and the most it may have.
///
/// A unit is about 500 bytes of JSON: a full page is half a megabyte. So is a placement, and a global unit has one
/// for each machine: a page of units also ends, with fewer, once they have some 10,000 placements.
pub const PAGE_ITEMS_MAX: usize = 1_000;

/// Part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items, ascending by name.
    pub items: Vec<T>,
    /// The store's revision that they show.
    pub revision: i64,
    /// Where the next page starts; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Which part of which list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Globs, separated by commas; an item is listed when any of them matches its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The most items to return; at most [`PAGE_ITEMS_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Which units, beyond their names. Lists are separated by commas; one of each is enough, and all that is
/// given has to hold. What is said of states and machines holds for one place of the unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitFilter {
    /// Host names or ids of machines.
    pub machine: Option<String>,
    /// Load states.
    pub load: Option<String>,
    /// Active states.
    pub active: Option<String>,
    /// Sub states.
    pub sub: Option<String>,
    /// States of any of the three.
    pub state: Option<String>,
    /// Types of unit.
    pub kind: Option<String>,
    /// What is wanted of them.
    pub target: Option<String>,
    /// Their templates.
    pub template: Option<String>,
    /// Failed ones.
    pub failed: bool,
    /// Those that should be on a machine and cannot.
    pub unplaced: bool,
}

/// Makes a query that filters units, with fields of its own before.
macro_rules! unit_query {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$of:meta])* pub $field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[derive(
            Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::IntoParams,
        )]
        #[serde(deny_unknown_fields)]
        #[into_params(parameter_in = Query)]
        pub struct $name {
            $($(#[$of])* pub $field: $ty,)*
            /// Only units on these machines: host names, ids or beginnings of ids, globs, separated by commas.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub machine: Option<String>,
            /// Only units with one of these load states, separated by commas.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub load: Option<String>,
            /// Only units with one of these active states, separated by commas. A unit on no machine is
            /// `inactive`, one on a machine that is lost `unknown`.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub active: Option<String>,
            /// Only units with one of these sub states, separated by commas.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub sub: Option<String>,
            /// Only units of which the load, active or sub state is one of these, separated by commas.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub state: Option<String>,
            /// Only units of these types (`service`, `timer`, ...), separated by commas.
            #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
            pub kind: Option<String>,
            /// Only units of which this is wanted: `inactive`, `loaded`, `launched`, separated by commas.
            #[serde(default, alias = "desired", skip_serializing_if = "Option::is_none")]
            pub target: Option<String>,
            /// Only instances of these templates, names or globs separated by commas.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub template: Option<String>,
            /// Only units that have failed.
            #[serde(default, skip_serializing_if = "std::ops::Not::not")]
            pub failed: bool,
            /// Only units that should be on a machine and can be put on none.
            #[serde(default, skip_serializing_if = "std::ops::Not::not")]
            pub unplaced: bool,
        }

        impl $name {
            /// Returns the filter in it.
            #[must_use]
            pub fn filter(&self) -> $crate::page::UnitFilter {
                $crate::page::UnitFilter {
                    machine: self.machine.clone(),
                    load: self.load.clone(),
                    active: self.active.clone(),
                    sub: self.sub.clone(),
                    state: self.state.clone(),
                    kind: self.kind.clone(),
                    target: self.target.clone(),
                    template: self.template.clone(),
                    failed: self.failed,
                    unplaced: self.unplaced,
                }
            }
        }
    };
}
pub(crate) use unit_query;

unit_query! {
    /// Which part of the list of units.
    pub struct UnitsQuery {
        /// Globs, separated by commas; a unit is listed when any of them matches its name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub pattern: Option<String>,
        /// The `next` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub from: Option<String>,
        /// The most items to return; at most [`PAGE_ITEMS_MAX`]. A page may have fewer though more follow: it is
        /// `next` that says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limit: Option<usize>,
        /// The `revision` of the first page: a unit that could be in the list and has changed since is a
        /// conflict, so that the pages are one list as of that revision.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub revision: Option<i64>,
        /// Only these fields of each unit, separated by commas; its name is always there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub fields: Option<String>,
    }
}

/// Which part of the list of machines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MachinesQuery {
    /// Host names, ids, or beginnings of ids, globs, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The most items to return; at most [`PAGE_ITEMS_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// What their metadata has to meet, as `MachineMetadata=` has it: `disk=ssd "os.version>=12"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Only machines in one of these states: `alive`, `stopped`, `lost`, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Only these fields of each machine, separated by commas; its id is always there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<String>,
}

impl From<ListQuery> for UnitsQuery {
    fn from(ListQuery { pattern, from, limit }: ListQuery) -> Self {
        Self { pattern, from, limit, ..Self::default() }
    }
}
