//! Where a unit was before it was the cluster's.

use flotilla_units::MachineId;
use serde::{Deserialize, Serialize};

/// The machine whose own unit a unit was.
///
/// It may be there and nowhere else until its agent has reported that it is taken over: then it is a unit
/// like any other. If its machine is lost before, it waits for it, since what runs there is not flotilla's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// Which machine.
    pub from: MachineId,
    /// It has been taken over. The leader notes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

impl Adoption {
    /// Says that a unit is to be taken over from a machine.
    #[must_use]
    pub const fn from(machine: MachineId) -> Self {
        Self { from: machine, done: false }
    }

    /// Returns the only machine where the unit may be, as long as it has not been taken over.
    #[must_use]
    pub fn only_on(self) -> Option<MachineId> {
        (!self.done).then_some(self.from)
    }
}
