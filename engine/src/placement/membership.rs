//! How units come into classes and leave them, and what a class takes into use.

use std::sync::Arc;

use flotilla_units::{Glob, Is, PreferTerm, Preference, Selector, UnitName, UnitRequirements};

use super::{
    Placement,
    classes::{Class, ClassIx, SelectorIx, meets},
    model::{UnitIx, machines_with},
    patterns::{PatternIx, beginning, siblings_of},
};

impl Placement {
    /// Returns the class of these requirements with one unit more in it.
    pub(super) fn join_class(&mut self, requirements: &Arc<UnitRequirements>) -> ClassIx {
        let class = match &self.last_class {
            Some((last, class)) if Arc::ptr_eq(last, requirements) => *class,
            _ => {
                let known = self.classes.find(requirements);
                let class = known.unwrap_or_else(|| self.make_class(requirements));
                self.last_class = Some((requirements.clone(), class));
                class
            }
        };
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
        self.last_class.take_if(|(_, last)| *last == class);
        self.rankings.forget(class);
        let gone = self.classes.remove(class);
        gone.used_selectors().for_each(|selector| self.selectors.release(selector));
        for pattern in &gone.follows {
            self.patterns.get_mut(*pattern).followers.retain(|follower| *follower != class);
        }
        gone.used_patterns().for_each(|pattern| self.give_back(pattern));
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
        class.selectors = it.metadata.iter().map(|wanted| self.use_selector(wanted)).collect();
        let has = |key: &String| Selector { key: key.clone(), is: Is::Present };
        class.spread = it.spread.iter().map(|key| self.use_selector(&has(key))).collect();
        class.conflicts = it.conflicts.iter().map(|glob| self.use_pattern(glob)).collect();
        class.replaces = it.replaces.iter().map(|glob| self.use_pattern(glob)).collect();
        for glob in &it.machine_of {
            match glob.literal().and_then(|name| name.parse::<UnitName>().ok()) {
                Some(leader) => class.leaders.push(self.intern(&leader)),
                None => class.follows.push(self.use_pattern(glob)),
            }
        }
        for Preference { weight, term } in &it.prefer {
            let weight = i32::from(*weight);
            match term {
                PreferTerm::Metadata(wanted) => class.wishes.likes.push((weight, self.use_selector(wanted))),
                PreferTerm::MachineOf(glob) => class.wishes.near.push((weight, self.use_pattern(glob))),
                PreferTerm::Spread(key) => class.wishes.spread.push((weight, key.clone())),
            }
        }
        let wished = class.wishes.spread.iter().map(|(weight, key)| (key.as_str(), *weight));
        let spread = it.spread.iter().map(|key| (key.as_str(), 0)).chain(wished);
        class.keys = spread.map(|(key, weight)| (self.use_key(key), weight)).collect();
        class.reserve = self.resources.amount(&it.reserve);
        class.ranked = !class.reserve.is_empty() || !it.prefer.is_empty() || !it.spread.is_empty();
        class.counts_siblings =
            it.max_per_machine.is_some() || !it.spread.is_empty() || !class.wishes.spread.is_empty();
        let (leaders, follows) = (class.leaders.clone(), class.follows.clone());
        let ix = self.classes.add(class);
        for pattern in follows {
            self.patterns.get_mut(pattern).followers.push(ix);
        }
        for leader in leaders {
            self.followers.entry(leader).or_default().push(ix);
            self.units[leader as usize].leads = true;
            self.refresh(leader);
        }
        ix
    }

    /// A new selector asks every machine once; from then on it is kept.
    fn use_selector(&mut self, wanted: &Selector) -> SelectorIx {
        let machines = &self.machines;
        self.selectors.acquire(wanted, || machines_with(machines, |view| meets(&view.metadata, wanted)))
    }

    /// Has a unit know where the others of its template are, or not any more.
    pub(super) fn count_siblings(&mut self, unit: UnitIx, counts: bool) {
        let it = self.unit(unit);
        if it.siblings.is_some() == counts {
            return;
        }
        let name = it.name.clone();
        let siblings = if counts { self.use_siblings(&name) } else { None };
        if let Some(pattern) = siblings {
            let it = self.patterns.get_mut(pattern);
            it.counted += 1;
            if it.counted == 1 {
                self.recount(pattern);
            }
        }
        if let Some(before) = std::mem::replace(&mut self.units[unit as usize].siblings, siblings) {
            self.patterns.get_mut(before).counted -= 1;
            self.give_back(before);
        }
    }

    /// Adds or takes away what a unit says of how many of its template a machine may have.
    pub(super) fn cap_siblings(&mut self, unit: UnitIx, add: bool) {
        let it = self.unit(unit);
        let cap = it.siblings.zip(self.classes.get(it.class).requirements.max_per_machine);
        let Some((pattern, most)) = cap else { return };
        let of = self.patterns.get_mut(pattern);
        let before = of.cap();
        let users = of.caps.entry(most).or_default();
        *users = if add { *users + 1 } else { *users - 1 };
        if *users == 0 {
            of.caps.remove(&most);
        }
        if of.cap() != before {
            for other in self.matched_by(pattern) {
                self.touch_placed(other);
            }
            self.wake_waiters(pattern);
        }
    }

    fn give_back(&mut self, pattern: PatternIx) {
        if self.patterns.release(pattern) {
            self.rematch_all(pattern);
            self.patterns.retire(pattern);
        }
    }

    fn use_siblings(&mut self, name: &UnitName) -> Option<PatternIx> {
        if let Some(pattern) = self.patterns.acquire_last_siblings(name) {
            return Some(pattern);
        }
        let pattern = self.use_pattern(&siblings_of(name)?);
        self.patterns.last_siblings = Some((name.clone(), pattern));
        Some(pattern)
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
        self.matched_by(pattern).into_iter().for_each(|unit| self.rematch(unit));
    }

    fn matched_by(&self, pattern: PatternIx) -> Vec<UnitIx> {
        let glob = self.patterns.get(pattern).glob.clone();
        match glob.literal() {
            Some(name) => self.by_name.get(name, &self.units).into_iter().collect(),
            None => {
                let begin = beginning(&glob);
                let begun = self.stems.beginning_with(begin);
                begun.filter(|unit| glob.matches(self.unit(*unit).name.as_str())).collect()
            }
        }
    }
}
