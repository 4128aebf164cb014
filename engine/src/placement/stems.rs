//! Names by their stem: to find the units that a pattern matches without asking each.
//!
//! The stem of an instance is all up to its `@`, that of another name the name itself. What begins with a text that
//! has an `@` has one stem, so that a pattern over instances of a template costs a look at those and no others, and a
//! new instance costs no search in an order of all names.

use std::{collections::BTreeSet, ops::Bound};

use rustc_hash::FxHashMap;

use super::model::UnitIx;

/// The units by the stems of their names.
#[derive(Debug, Clone, Default)]
pub(super) struct Stems {
    units: FxHashMap<Box<str>, Vec<UnitIx>>,
    order: BTreeSet<Box<str>>,
}

impl Stems {
    /// Adds a unit; returns its place among those with its stem.
    pub(super) fn insert(&mut self, name: &str, unit: UnitIx) -> u32 {
        let stem = stem(name);
        if let Some(units) = self.units.get_mut(stem) {
            units.push(unit);
            return units.len() as u32 - 1;
        }
        self.units.insert(stem.into(), vec![unit]);
        self.order.insert(stem.into());
        0
    }

    /// Takes a unit out; returns another one that has its place now.
    pub(super) fn remove(&mut self, name: &str, at: u32) -> Option<UnitIx> {
        let stem = stem(name);
        let units = self.units.get_mut(stem)?;
        units.swap_remove(at as usize);
        if units.is_empty() {
            self.units.remove(stem);
            self.order.remove(stem);
            return None;
        }
        units.get(at as usize).copied()
    }

    /// Returns the units whose names may begin with a text; all of those that do are among them.
    pub(super) fn beginning_with<'a>(&'a self, begin: &'a str) -> impl Iterator<Item = UnitIx> + 'a {
        let one = begin.contains('@').then(|| self.units.get(stem(begin))).flatten();
        let range = (Bound::Included(begin), Bound::Unbounded);
        let stems = self.order.range::<str, _>(range).take_while(move |stem| stem.starts_with(begin));
        // Where there is an `@` this finds at most the stem that was looked up already.
        let several = if begin.contains('@') { None } else { Some(stems) };
        let several = several.into_iter().flatten().filter_map(|stem| self.units.get(stem));
        one.into_iter().chain(several).flatten().copied()
    }
}

/// Returns the stem of a name, or of the beginning of one that has an `@`.
pub(super) fn stem(name: &str) -> &str {
    name.find('@').map_or(name, |at| &name[..=at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(stems: &Stems, begin: &str) -> Vec<UnitIx> {
        let mut found: Vec<UnitIx> = stems.beginning_with(begin).collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn all_that_may_begin_so_are_found() {
        let mut stems = Stems::default();
        let names = ["web@1.service", "web@2.service", "web.service", "webs@1.service", "db.service"];
        for (unit, name) in (0..).zip(names) {
            stems.insert(name, unit);
        }
        assert_eq!(found(&stems, "web@"), [0, 1]);
        assert_eq!(found(&stems, "web@2"), [0, 1]);
        assert_eq!(found(&stems, "web"), [0, 1, 2, 3]);
        assert_eq!(found(&stems, "web.s"), [2]);
        assert_eq!(found(&stems, ""), [0, 1, 2, 3, 4]);
        assert_eq!(found(&stems, "x"), [0; 0]);
    }

    #[test]
    fn whoever_takes_the_place_of_one_that_goes_is_named() {
        let mut stems = Stems::default();
        let places = [stems.insert("a@1.service", 7), stems.insert("a@2.service", 8)];
        assert_eq!(places, [0, 1]);
        assert_eq!(stems.remove("a@1.service", 0), Some(8));
        assert_eq!(found(&stems, "a@"), [8]);
        assert_eq!(stems.remove("a@2.service", 0), None);
        assert_eq!(found(&stems, ""), [0; 0]);
    }
}
