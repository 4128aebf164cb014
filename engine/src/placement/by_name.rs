//! Units by their names: a table of numbers beside the units, which have the names.
//!
//! With a million units a table that has the names too is five times as large, and has to look at every one of
//! them whenever it grows.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use super::model::{Unit, UnitIx};

/// The numbers of all units that are known.
#[derive(Debug, Clone, Default)]
pub(super) struct ByName {
    /// Each with part of its name's hash.
    table: HashTable<(u32, UnitIx)>,
}

impl ByName {
    pub(super) fn get(&self, name: &str, units: &[Unit]) -> Option<UnitIx> {
        let part = part_of(name);
        let is_it =
            |(other, unit): &(u32, UnitIx)| *other == part && units[*unit as usize].name.as_str() == name;
        self.table.find(hash_of(part), is_it).map(|(_, unit)| *unit)
    }

    /// Adds a unit that is not there.
    pub(super) fn insert(&mut self, name: &str, unit: UnitIx) {
        let part = part_of(name);
        self.table.insert_unique(hash_of(part), (part, unit), |(part, _)| hash_of(*part));
    }

    /// Takes a unit out; tells whether it was there.
    pub(super) fn remove(&mut self, name: &str, unit: UnitIx) -> bool {
        let found = self.table.find_entry(hash_of(part_of(name)), |(_, other)| *other == unit);
        found.map(|entry| entry.remove()).is_ok()
    }

    #[cfg(test)]
    pub(super) fn units(&self) -> impl Iterator<Item = UnitIx> {
        self.table.iter().map(|(_, unit)| *unit)
    }
}

fn part_of(name: &str) -> u32 {
    let hash = FxBuildHasher.hash_one(name);
    (hash ^ (hash >> 32)) as u32
}

/// Spreads the part over 64 bits, of which the table uses both ends: 2^64 over the golden ratio, made odd.
const fn hash_of(part: u32) -> u64 {
    (part as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
