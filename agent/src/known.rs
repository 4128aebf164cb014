//! Which units of the machine are flotilla's: those that it has here, and those that it had.
//!
//! The owner loop says which come and go, the keeper remembers those that went. What the machine
//! shows to others (journals, states) is about these and nothing else: who may read flotilla's
//! units may not for that reason read the machine's own.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, PoisonError, RwLock},
};

use flotilla_units::UnitName;

/// How many units that left are remembered. A thousand names are some 30 kB in the agent's memory,
/// and months of an ordinary machine; the one that left first is forgotten first.
const HAD_MAX: usize = 1_000;

/// The names of the units that are, or were, flotilla's on this machine. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Known(Arc<RwLock<Names>>);

#[derive(Debug, Default)]
struct Names {
    here: BTreeSet<UnitName>,
    /// Those that left, the last one last.
    had: VecDeque<UnitName>,
}

impl Known {
    /// Remembers units that were here earlier.
    #[must_use]
    pub fn remember(had: impl IntoIterator<Item = UnitName>) -> Self {
        let known = Self::default();
        known.change(|names| had.into_iter().for_each(|unit| names.went(unit)));
        known
    }

    /// Tells whether flotilla has, or had, a unit here.
    #[must_use]
    pub fn has(&self, unit: &UnitName) -> bool {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        names.here.contains(unit) || names.had.contains(unit)
    }

    /// Notes that flotilla has a unit here.
    pub fn came(&self, unit: &UnitName) {
        self.change(|names| _ = names.here.insert(unit.clone()));
    }

    /// Notes that nothing is left of a unit.
    pub(crate) fn went(&self, unit: &UnitName) {
        self.change(|names| {
            names.here.remove(unit);
            names.went(unit.clone());
        });
    }

    /// Returns the units that were here and are not any more, the first to be forgotten first.
    pub(crate) fn had(&self) -> Vec<UnitName> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        names.had.iter().filter(|unit| !names.here.contains(*unit)).cloned().collect()
    }

    fn change(&self, change: impl FnOnce(&mut Names)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Names {
    fn went(&mut self, unit: UnitName) {
        self.had.retain(|had| *had != unit);
        self.had.push_back(unit);
        if self.had.len() > HAD_MAX {
            self.had.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: usize) -> UnitName {
        format!("u{n}.service").parse().unwrap()
    }

    #[test]
    fn a_unit_is_known_from_its_coming_and_long_after_its_going() {
        let known = Known::remember([name(1)]);
        assert!(known.has(&name(1)) && !known.has(&name(2)));
        known.came(&name(2));
        known.came(&name(1));
        assert!(known.has(&name(2)) && known.had().is_empty());
        known.went(&name(2));
        assert_eq!(known.had(), [name(2)]);
        assert!(known.has(&name(2)));
        (10..10 + HAD_MAX).for_each(|n| known.went(&name(n)));
        assert!(!known.has(&name(2)), "the first that left is forgotten");
        assert!(known.has(&name(1)), "what is here is not");
        assert_eq!(known.had().len(), HAD_MAX);
    }
}
