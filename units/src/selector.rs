//! What a machine's metadata has to be: one term of `MachineMetadata=`.
//!
//! Owns the terms and their meaning, for unit files and for whoever lists machines by the same words.

mod parse;

use std::{cmp::Ordering, collections::BTreeSet, fmt};

use crate::compare_versions;

pub use parse::SelectorError;
pub(crate) use parse::{key, term};

/// A condition on one key of a machine's metadata.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// The key.
    pub key: String,
    /// What its value has to be.
    pub is: Is,
}

/// What the value of a key has to be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Is {
    /// One of these: `k=v`, `k in (v, w)`.
    OneOf(BTreeSet<String>),
    /// None of these: `k!=v`, `k not in (v, w)`. A machine without the key meets it.
    NotOneOf(BTreeSet<String>),
    /// Before or after this number or version: `k<v`, `k<=v`, `k>=v`, `k>v`.
    Compare(Comparison, String),
    /// Anything, but there: `k`.
    Present,
    /// Not there: `!k`.
    Absent,
}

/// How two values are compared, by [`compare_versions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>=`
    AtLeast,
    /// `>`
    Greater,
}

impl Selector {
    /// Tells whether a machine meets it whose metadata has this value for the key, or `None`.
    #[must_use]
    pub fn meets(&self, value: Option<&str>) -> bool {
        match (&self.is, value) {
            (Is::OneOf(these), Some(value)) => these.contains(value),
            (Is::NotOneOf(these), Some(value)) => !these.contains(value),
            (Is::Compare(how, than), Some(value)) => how.holds(compare_versions(value, than)),
            (Is::Present, value) => value.is_some(),
            (Is::Absent, value) => value.is_none(),
            (Is::NotOneOf(_), None) => true,
            (Is::OneOf(_) | Is::Compare(..), None) => false,
        }
    }
}

impl Comparison {
    /// Tells whether it holds between two values that are ordered so.
    #[must_use]
    pub const fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::AtLeast => order.is_ge(),
            Self::Greater => order.is_gt(),
        }
    }

    /// Returns the sign, for example `<=`.
    #[must_use]
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::AtLeast => ">=",
            Self::Greater => ">",
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.sign())
    }
}

/// As it is written in a unit file: `zone=a`, `zone in (a, b)`, `os.version>=12`, `!gpu`.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let (one, several, these) = match &self.is {
            Is::OneOf(these) => ("=", "in", these),
            Is::NotOneOf(these) => ("!=", "not in", these),
            Is::Compare(how, than) => return write!(f, "{key}{how}{than}"),
            Is::Present => return f.write_str(key),
            Is::Absent => return write!(f, "!{key}"),
        };
        match these.first() {
            Some(only) if these.len() == 1 => write!(f, "{key}{one}{only}"),
            _ => {
                let these: Vec<&str> = these.iter().map(String::as_str).collect();
                write!(f, "{key} {several} ({})", these.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests;
