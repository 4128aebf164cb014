//! The fencing token.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The fencing token of a placement or ordered restart: positive, the epoch in the 15 bits below
/// the sign and a counter in the 48 below it, so that it fits a signed 64-bit column anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub i64);

impl Token {
    /// Returns the token with this epoch and counter; `None` when either is out of its bits.
    #[must_use]
    pub const fn new(epoch: u16, counter: u64) -> Option<Self> {
        if epoch >> 15 != 0 || counter >> 48 != 0 {
            return None;
        }
        Some(Self(((epoch as i64) << 48) | counter as i64))
    }

    /// Returns the epoch.
    #[must_use]
    pub const fn epoch(self) -> u16 {
        ((self.0 >> 48) & 0x7fff) as u16
    }

    /// Returns the counter.
    #[must_use]
    pub const fn counter(self) -> u64 {
        (self.0 & 0xffff_ffff_ffff) as u64
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Token {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}
