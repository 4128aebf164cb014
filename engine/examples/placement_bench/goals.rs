//! The goals of issue 4 for the placement core, and what was reached.

use crate::workloads::Kind;

/// The sizes of the table: machines and units.
pub const SIZES: [(u32, u32); 8] = [
    // Not of the table, as (100, 10,000): as many units for each machine as in the largest, to compare the
    // cost with.
    (10, 1_000),
    (100, 1_000),
    (100, 10_000),
    (1_000, 10_000),
    (1_000, 100_000),
    (5_000, 50_000),
    (5_000, 100_000),
    (10_000, 1_000_000),
];

/// Between which sizes the cost of one placement may grow, and how many times at most. Both have 100 units for each
/// machine, so that it is the number of machines that makes the difference.
pub const GROWTH: ((u32, u32), (u32, u32), f64) = ((100, 10_000), (10_000, 1_000_000), 2.0);

/// Returns how many placements a second a row has to reach, if the issue says.
pub fn rate(kind: &str, machines: u32, units: u32) -> Option<f64> {
    let kind = Kind::ALL.into_iter().find(|it| it.to_string() == kind)?;
    match (kind, machines, units) {
        (Kind::Unconstrained, 1_000, 100_000) => Some(1_000_000.0),
        (Kind::Metadata, 5_000, 50_000..=100_000) => Some(500_000.0),
        (Kind::Conflicts | Kind::SpreadReserving, 10_000, _) => Some(200_000.0),
        _ => None,
    }
}

/// A goal beside what was reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Goal {
    /// What it is about.
    pub row: String,
    /// What was reached, over the goal; of what may be at most so much, the goal over what was reached. One or
    /// more is good.
    pub ratio: f64,
}

impl Goal {
    pub fn at_least(row: impl Into<String>, reached: f64, goal: f64) -> Self {
        Self { row: row.into(), ratio: reached / goal }
    }

    pub fn at_most(row: impl Into<String>, reached: f64, goal: f64) -> Self {
        Self { row: row.into(), ratio: goal / reached }
    }

    /// What is no number is missed too.
    pub fn is_met(&self) -> bool {
        self.ratio >= 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_at_its_bound() {
        assert!(Goal::at_least("a", 10.0, 10.0).is_met());
        assert!(!Goal::at_least("a", 9.9, 10.0).is_met());
        assert!(Goal::at_most("a", 2.0, 2.0).is_met());
        assert!(!Goal::at_most("a", 2.1, 2.0).is_met());
        assert!(!Goal::at_most("a", f64::NAN, 2.0).is_met());
    }

    #[test]
    fn every_goal_is_about_a_row_of_the_table() {
        let rows = SIZES.iter().flat_map(|(m, u)| Kind::ALL.map(|kind| rate(&kind.to_string(), *m, *u)));
        assert_eq!(rows.flatten().count(), 5);
        assert!(SIZES.contains(&GROWTH.0) && SIZES.contains(&GROWTH.1));
    }
}
