//! What a unit would rather have: `Prefer=`.

use std::fmt;

use crate::{Glob, Selector};

/// A wish: it never keeps a unit from a machine, it only decides between those that can take it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Preference {
    /// How much it counts, -100 to 100 and not 0; below 0 the unit would rather not.
    pub weight: i8,
    /// What is wished for.
    pub term: PreferTerm,
}

/// What a unit would rather have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PreferTerm {
    /// A machine whose metadata meets this.
    Metadata(Selector),
    /// A machine that has another unit which this matches.
    MachineOf(Glob),
    /// A machine whose value of this key has few instances of the unit's template.
    Spread(String),
}

impl fmt::Display for PreferTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata(selector) => selector.fmt(f),
            Self::MachineOf(glob) => write!(f, "MachineOf={}", glob.literal().unwrap_or(glob.as_str())),
            Self::Spread(key) => write!(f, "Spread={key}"),
        }
    }
}

impl fmt::Display for Preference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.weight, self.term)
    }
}
