//! The options of our section, by name.

/// An option of our section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opt {
    MachineId,
    MachineOf,
    MachineMetadata,
    Conflicts,
    Global,
    Replaces,
    Prefer,
    Spread,
    MaxPerMachine,
    Sticky,
    ReserveCpu,
    ReserveMemory,
    Reserve,
    ReservePort,
    Priority,
    Preempt,
    OnPartition,
}

/// How many options there are.
const COUNT: usize = 17;

impl Opt {
    pub const ALL: [Self; COUNT] = [
        Self::MachineId,
        Self::MachineOf,
        Self::MachineMetadata,
        Self::Conflicts,
        Self::Global,
        Self::Replaces,
        Self::Prefer,
        Self::Spread,
        Self::MaxPerMachine,
        Self::Sticky,
        Self::ReserveCpu,
        Self::ReserveMemory,
        Self::Reserve,
        Self::ReservePort,
        Self::Priority,
        Self::Preempt,
        Self::OnPartition,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::MachineId => "MachineID",
            Self::MachineOf => "MachineOf",
            Self::MachineMetadata => "MachineMetadata",
            Self::Conflicts => "Conflicts",
            Self::Global => "Global",
            Self::Replaces => "Replaces",
            Self::Prefer => "Prefer",
            Self::Spread => "Spread",
            Self::MaxPerMachine => "MaxPerMachine",
            Self::Sticky => "Sticky",
            Self::ReserveCpu => "ReserveCPU",
            Self::ReserveMemory => "ReserveMemory",
            Self::Reserve => "Reserve",
            Self::ReservePort => "ReservePort",
            Self::Priority => "Priority",
            Self::Preempt => "Preempt",
            Self::OnPartition => "OnPartition",
        }
    }

    /// Finds an option by its name, or by a spelling that fleet had before 0.8 and went on reading. With
    /// it comes the age of the spelling: the newest is 0.
    pub fn of(key: &str) -> Option<(Self, u8)> {
        match key {
            "X-ConditionMachineID" => Some((Self::MachineId, 1)),
            "X-ConditionMachineBootID" => Some((Self::MachineId, 2)),
            "X-ConditionMachineOf" => Some((Self::MachineOf, 1)),
            "X-ConditionMachineMetadata" => Some((Self::MachineMetadata, 1)),
            "X-Conflicts" => Some((Self::Conflicts, 1)),
            _ => Self::ALL.into_iter().find(|o| o.name() == key).map(|o| (o, 0)),
        }
    }

    /// Tells whether its values are numbers: what stands in for an instance when a template is checked is
    /// none, so these wait for an instance.
    pub const fn is_numeric(self) -> bool {
        matches!(
            self,
            Self::MaxPerMachine
                | Self::ReserveCpu
                | Self::ReserveMemory
                | Self::Reserve
                | Self::ReservePort
                | Self::Priority
        )
    }
}

/// Returns the names of all options of `[X-Flotilla]`, in the order in which they are documented.
#[must_use]
pub fn option_names() -> [&'static str; COUNT] {
    Opt::ALL.map(Opt::name)
}
