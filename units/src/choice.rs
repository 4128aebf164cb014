//! Which machine a unit names with `MachineID=`.

use std::fmt;

use crate::MachineId;

/// A machine as a unit file names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MachineChoice {
    /// By its whole id.
    Id(MachineId),
    /// By how its id begins: at least eight lower-case hexadecimal digits. A host of this name is meant too.
    Prefix(String),
    /// By its host name, in lower case.
    Host(String),
}

impl MachineChoice {
    /// Tells whether a machine is one that is named. Where several are, none is meant: who asks has to
    /// look at all.
    #[must_use]
    pub fn names(&self, id: &MachineId, host: &str) -> bool {
        match self {
            Self::Id(it) => it == id,
            Self::Prefix(begin) => id.to_string().starts_with(begin) || host.eq_ignore_ascii_case(begin),
            Self::Host(it) => host.eq_ignore_ascii_case(it),
        }
    }
}

impl From<MachineId> for MachineChoice {
    fn from(id: MachineId) -> Self {
        Self::Id(id)
    }
}

impl fmt::Display for MachineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Prefix(text) | Self::Host(text) => f.pad(text),
        }
    }
}
