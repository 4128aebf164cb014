//! What the core is told and what it answers: the types at its edge.

use std::{collections::BTreeMap, fmt, sync::Arc};

use flotilla_registry::records::Departure;
use flotilla_units::{MachineId, UnitName, UnitRequirements};

use super::Reason;

/// A machine, as far as placement is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineView {
    /// Its host name, for explanations.
    pub host: String,
    /// Its metadata, with what was set at run time already merged in.
    pub metadata: BTreeMap<String, String>,
    /// Whether it may get new units. `false` for a cordoned machine, and for one whose agent was
    /// stopped or is held: its units stay where they are.
    pub schedulable: bool,
    /// Whether its units have to leave. It gets no new ones either, whatever `schedulable` says.
    pub draining: bool,
}

/// A unit, as far as placement is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitView {
    /// What it asks for. Instances of a template should share one `Arc`: telling that two units are
    /// equal then costs nothing.
    pub requirements: Arc<UnitRequirements>,
    /// Whether it belongs on a machine.
    pub wanted: Wanted,
}

/// Whether a unit belongs on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Its target is `inactive`: what is placed of it leaves.
    Nowhere,
    /// Its target is `loaded` or `launched`.
    Placed,
    /// Nobody can tell, or nothing may be done about it now: it stays where it is, as it is, and goes
    /// nowhere. For its neighbours it counts as what it asks for says.
    AsIs,
}

/// One thing to write. The model already has it; when the write fails, say so with
/// [`Placement::clear_placed`](super::Placement::clear_placed) for a `Place`, and with `clear_departing`
/// and `set_placed` for a `Depart`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The unit gets an entry in the machine's manifest, with a token of its own.
    Place {
        /// The unit.
        unit: UnitName,
        /// The machine.
        machine: MachineId,
    },
    /// The unit's entry in the machine's manifest becomes a departing one.
    Depart {
        /// The unit.
        unit: UnitName,
        /// The machine.
        machine: MachineId,
        /// What kind of end this is. With [`Departure::MachineLost`] the same answer places the unit
        /// elsewhere, in the decision after this one: both belong in one transaction.
        why: Departure,
        /// Which requirement is broken or which unit replaces it, where it is about one.
        reason: Option<Reason>,
    },
}

impl Decision {
    /// Returns the unit.
    #[must_use]
    pub const fn unit(&self) -> &UnitName {
        match self {
            Self::Place { unit, .. } | Self::Depart { unit, .. } => unit,
        }
    }

    /// Returns the machine.
    #[must_use]
    pub const fn machine(&self) -> MachineId {
        match self {
            Self::Place { machine, .. } | Self::Depart { machine, .. } => *machine,
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place { unit, machine } => write!(f, "{unit} is placed on {}", machine.short()),
            Self::Depart { unit, machine, why, reason } => {
                let why = match why {
                    Departure::Unloaded => "it was unloaded",
                    Departure::Destroyed => "it was destroyed",
                    Departure::Requirements => "its requirements are no longer met",
                    Departure::Drained => "the machine is drained",
                    Departure::Replaced => "another unit replaces it",
                    Departure::MachineLost => "the machine was lost",
                    Departure::Updated => "its content changed",
                    Departure::Rebalanced => "machines are evened out",
                    Departure::Preempted => "a unit of higher priority needs the room",
                    Departure::TakenBack => "its move was taken back",
                };
                write!(f, "{unit} leaves {}: {why}", machine.short())?;
                reason.as_ref().map_or(Ok(()), |reason| write!(f, " ({reason})"))
            }
        }
    }
}
