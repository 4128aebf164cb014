//! What was measured: one sample a line, in JSON, between the lines that every benchmark writes
//! (`flotilla_figures::line`).
//!
//! Fields of every `sample`:
//!
//! - `kind`: the kind of units (`unconstrained`, `metadata`, `conflicts`, `spread-reserving`)
//! - `machines`, `units`: the size of the cluster
//! - `nth`: which of several equal samples this is, from 0
//! - `what`: what was measured, and with it
//!   - `from-empty`: `told_ns` for telling the core of all units, `decided_ns` for placing them, in nanoseconds
//!   - `event`: `event` (`unit-added`, `machine-lost`, `hundredth-lost`, `metadata-changed`), `ns` from the fact to the
//!     last decision that follows from it, `decisions` how many did: two for a unit that goes elsewhere
//!   - `memory`: `bytes` that the process had more at its peak than before the first unit was told

use std::fmt;

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    #[serde(flatten)]
    pub row: Row,
    pub nth: u32,
    #[serde(flatten)]
    pub measured: Measured,
}

/// A kind of units in a cluster of a size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub kind: String,
    pub machines: u32,
    pub units: u32,
}

/// What was measured of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Measured {
    FromEmpty { told_ns: u64, decided_ns: u64 },
    Event { event: String, ns: u64, decisions: u64 },
    Memory { bytes: u64 },
}

/// The middle of some samples, with the least and the most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}x{}", self.kind, self.machines, self.units)
    }
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, least, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of(std::iter::empty()), None);
        let of = |values: &[f64]| Spread::of(values.iter().copied()).unwrap();
        assert_eq!(of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, least: 1.0, most: 3.0 });
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }

    #[test]
    fn a_line_says_what_it_is() {
        let row = Row { kind: "metadata".into(), machines: 100, units: 1_000 };
        let measured = Measured::Event { event: "unit-added".into(), ns: 12, decisions: 1 };
        let sample = Sample { row, nth: 3, measured };
        let line = serde_json::to_string(&sample).unwrap();
        assert_eq!(
            line,
            r#"{"kind":"metadata","machines":100,"units":1000,"nth":3,"what":"event","event":"unit-added","ns":12,"decisions":1}"#
        );
        assert_eq!(serde_json::from_str::<Sample>(&line).unwrap(), sample);
    }
}
