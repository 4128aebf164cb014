//! What the core is told and what it answers: the types at its edge.

use std::{collections::BTreeMap, fmt, sync::Arc};

use flotilla_registry::records::{Capacity, Departure};
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
    /// What there is to reserve.
    pub capacity: Capacity,
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

/// One thing to write. The model already has it; when the write fails, say what is so with
/// [`Placement::set_placed`](super::Placement::set_placed) and its neighbours.
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
        /// elsewhere or takes a move back, in the decision after this one: both belong in one transaction.
        why: Departure,
        /// Which requirement is broken or which unit replaces it, where it is about one.
        reason: Option<Reason>,
    },
    /// The unit gets an entry in another machine's manifest, and the one that it has becomes a moving one:
    /// both belong in one transaction.
    Move {
        /// The unit.
        unit: UnitName,
        /// Where it is until it is ready elsewhere.
        from: MachineId,
        /// Where it is started.
        to: MachineId,
        /// Why it leaves.
        why: Departure,
    },
    /// The unit's moving entry becomes one that stays. Where another had been started, its departure is the
    /// decision before this one: both belong in one transaction.
    Stay {
        /// The unit.
        unit: UnitName,
        /// The machine.
        machine: MachineId,
    },
}

impl Decision {
    /// Returns the unit.
    #[must_use]
    pub const fn unit(&self) -> &UnitName {
        match self {
            Self::Place { unit, .. }
            | Self::Depart { unit, .. }
            | Self::Move { unit, .. }
            | Self::Stay { unit, .. } => unit,
        }
    }

    /// Returns the machine; of a move the one that the unit goes to.
    #[must_use]
    pub const fn machine(&self) -> MachineId {
        match self {
            Self::Place { machine, .. }
            | Self::Depart { machine, .. }
            | Self::Move { to: machine, .. }
            | Self::Stay { machine, .. } => *machine,
        }
    }
}

const fn departure_in_words(why: Departure) -> &'static str {
    match why {
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
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place { unit, machine } => write!(f, "{unit} is placed on {}", machine.short()),
            Self::Depart { unit, machine, why, reason } => {
                write!(f, "{unit} leaves {}: {}", machine.short(), departure_in_words(*why))?;
                reason.as_ref().map_or(Ok(()), |reason| write!(f, " ({reason})"))
            }
            Self::Move { unit, from, to, why } => {
                let (from, to) = (from.short(), to.short());
                write!(f, "{unit} moves from {from} to {to}: {}", departure_in_words(*why))
            }
            Self::Stay { unit, machine } => write!(f, "{unit} stays on {} after all", machine.short()),
        }
    }
}
