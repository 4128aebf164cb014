//! How units come into classes and leave them, and what a class takes into use.

use std::{ops::Bound, sync::Arc};

use flotilla_units::{Glob, UnitName, UnitRequirements};

use super::{
    Placement,
    classes::{Class, ClassIx, meets},
    model::UnitIx,
    patterns::{PatternIx, beginning},
};

impl Placement {
    /// Returns the class of these requirements with one unit more in it.
    pub(super) fn join_class(&mut self, requirements: &Arc<UnitRequirements>) -> ClassIx {
        let class = match self.classes.find(requirements, self.last_class) {
            Some(class) => class,
            None => self.make_class(requirements),
        };
        self.last_class = class;
        self.classes.get_mut(class).units += 1;
        class
    }

    /// Takes one unit out of a class; the last one takes the class with it.
    pub(super) fn leave_class(&mut self, class: ClassIx) {
        if class == 0 {
            return;
        }
        let it = self.classes.get_mut(class);
        it.units -= 1;
        if it.units > 0 {
            return;
        }
        if self.last_class == class {
            self.last_class = 0;
        }
        let gone = self.classes.remove(class);
        gone.selectors.iter().for_each(|selector| self.selectors.release(*selector));
        for pattern in gone.conflicts.into_iter().chain(gone.replaces) {
            if self.patterns.release(pattern) {
                self.rematch_all(pattern);
                self.patterns.retire(pattern);
            }
        }
        for leader in gone.leaders {
            if let Some(followers) = self.followers.get_mut(&leader) {
                followers.retain(|follower| *follower != class);
                if followers.is_empty() {
                    self.followers.remove(&leader);
                    self.units[leader as usize].leads = false;
                    self.refresh(leader);
                    self.forget(leader);
                }
            }
        }
    }

    fn make_class(&mut self, requirements: &Arc<UnitRequirements>) -> ClassIx {
        let it = &**requirements;
        let mut class = Class { requirements: requirements.clone(), ..Class::default() };
        for wanted in &it.metadata {
            // A new selector asks every machine once; from then on it is kept.
            let machines = self.machines_with(|view| meets(&view.metadata, wanted));
            class.selectors.push(self.selectors.acquire(wanted, || machines));
        }
        class.conflicts = it.conflicts.iter().map(|glob| self.use_pattern(glob)).collect();
        class.replaces = it.replaces.iter().map(|glob| self.use_pattern(glob)).collect();
        let names = it.machine_of.iter().filter_map(|glob| glob.literal()?.parse().ok());
        let names: Vec<UnitName> = names.collect();
        class.leaders = names.iter().map(|name| self.intern(name)).collect();
        let leaders = class.leaders.clone();
        let ix = self.classes.add(class);
        for leader in leaders {
            self.followers.entry(leader).or_default().push(ix);
            self.units[leader as usize].leads = true;
            self.refresh(leader);
        }
        ix
    }

    fn use_pattern(&mut self, glob: &Glob) -> PatternIx {
        let (pattern, new) = self.patterns.acquire(glob);
        if new {
            self.rematch_all(pattern);
        }
        pattern
    }

    /// Tells the units that a pattern matches that it came or went.
    fn rematch_all(&mut self, pattern: PatternIx) {
        let glob = self.patterns.get(pattern).glob.clone();
        let units: Vec<UnitIx> = match glob.literal() {
            Some(name) => self.by_name.get(name).copied().into_iter().collect(),
            None => {
                let begin = beginning(&glob);
                self.sorted
                    .range::<str, _>((Bound::Included(begin), Bound::Unbounded))
                    .take_while(|(name, _)| name.as_str().starts_with(begin))
                    .filter(|(name, _)| glob.matches(name.as_str()))
                    .map(|(_, unit)| *unit)
                    .collect()
            }
        };
        units.into_iter().for_each(|unit| self.rematch(unit));
    }
}
