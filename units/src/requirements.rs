//! What a unit asks of the machine that it runs on.
//!
//! Owns the options of the `[X-Flotilla]` section as typed values. It never
//! looks at machines or at other units: the engine does.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Glob, MachineId, UnitName};

/// What happens to a unit whose machine is cut off from the cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnPartition {
    /// It keeps running there, and another is started elsewhere once the machine's lease has ended.
    #[default]
    Replace,
}

/// What one unit asks for, with specifiers expanded.
///
/// Units whose values are equal can run on the same machines: they are one class for placement.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitRequirements {
    /// It runs on this machine only.
    pub machine_id: Option<MachineId>,
    /// It runs where all of these units are.
    pub machine_of: BTreeSet<UnitName>,
    /// The machine has, for each of these keys, one of the values.
    pub metadata: BTreeMap<String, BTreeSet<String>>,
    /// No other unit that one of these matches is on the machine. It holds in either direction, and
    /// never between a unit and itself.
    pub conflicts: BTreeSet<Glob>,
    /// Other units that one of these matches leave the machine for it.
    pub replaces: BTreeSet<Glob>,
    /// It runs on every machine that it may run on.
    pub global: bool,
    /// What happens when its machine is cut off.
    pub on_partition: OnPartition,
}
