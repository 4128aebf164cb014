//! What of a machine a unit keeps for itself.

mod defaults;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use defaults::defaults;

/// What a unit reserves on its machine. Nothing is reserved by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reservation {
    /// Thousandths of a processor.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Counted resources by the name that machines publish them under; none is 0.
    pub named: BTreeMap<String, u64>,
    /// Ports that no other unit on the machine may reserve.
    pub ports: BTreeSet<u16>,
}

impl Reservation {
    /// Tells whether nothing is reserved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cpu_milli == 0 && self.memory_bytes == 0 && self.named.is_empty() && self.ports.is_empty()
    }
}
