//! The metadata keys that units are spread over: each machine's value as a number, and how many instances of a
//! template there are for each.
//!
//! Kept with every entry that comes or goes, so that who is spread over a few zones costs no look at the machines.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::{Placement, bits::Slot, model::Machine, patterns::PatternIx};

/// A key's number.
pub(super) type KeyIx = usize;

/// How many values a key may have beside twice as many as there are machines, before those that no machine has any
/// more are forgotten.
const STALE_AT_MOST: usize = 64;

/// Every key that a class spreads over, or ever did: there are as many as unit files name.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    by_name: FxHashMap<Box<str>, KeyIx>,
    all: Vec<Key>,
}

#[derive(Debug, Clone, Default)]
struct Key {
    numbers: FxHashMap<Box<str>, u32>,
    /// By slot. A machine without the key is like one whose value is empty.
    of: Vec<u32>,
}

impl Key {
    fn set(&mut self, slot: Slot, value: &str) {
        let number = match self.numbers.get(value) {
            Some(number) => *number,
            None => {
                let number = self.numbers.len() as u32;
                self.numbers.insert(value.into(), number);
                number
            }
        };
        if self.of.len() <= slot as usize {
            self.of.resize(slot as usize + 1, 0);
        }
        self.of[slot as usize] = number;
    }
}

impl Keys {
    pub(super) const fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns the number of a machine's value.
    pub(super) fn value(&self, key: KeyIx, slot: Slot) -> u32 {
        self.all[key].of.get(slot as usize).copied().unwrap_or(0)
    }

    /// Returns how many values a key has.
    pub(super) fn values(&self, key: KeyIx) -> usize {
        self.all[key].numbers.len()
    }

    /// Notes what a machine's metadata is; `None` when it is dead.
    pub(super) fn set_machine(&mut self, slot: Slot, metadata: Option<&BTreeMap<String, String>>) {
        for (name, key) in &self.by_name {
            let value = metadata.and_then(|metadata| metadata.get(&**name));
            self.all[*key].set(slot, value.map_or("", String::as_str));
        }
    }

    /// Tells whether a key has many values that no machine has.
    pub(super) fn is_stale(&self, machines: usize) -> bool {
        self.all.iter().any(|key| key.numbers.len() > 2 * machines + STALE_AT_MOST)
    }

    /// Numbers the values of every machine anew.
    pub(super) fn renumber(&mut self, machines: &[Machine]) {
        for key in &mut self.all {
            // Number 0 is the empty one.
            *key = Key { numbers: FxHashMap::from_iter([(Box::from(""), 0)]), of: Vec::new() };
        }
        for (slot, machine) in (0..).zip(machines) {
            self.set_machine(slot, machine.view.as_ref().map(|view| &view.metadata));
        }
    }
}

impl Placement {
    /// Returns the number of a key, giving it one.
    pub(super) fn use_key(&mut self, name: &str) -> KeyIx {
        if let Some(key) = self.keys.by_name.get(name) {
            return *key;
        }
        let key = self.keys.len();
        self.keys.all.push(Key::default());
        self.keys.by_name.insert(name.into(), key);
        self.renumber_keys();
        key
    }

    /// Numbers all values anew, and counts all instances.
    pub(super) fn renumber_keys(&mut self) {
        self.rankings.clear();
        self.keys.renumber(&self.machines);
        let counted =
            (0..).zip(self.patterns.counted()).filter_map(|(pattern, counts)| counts.then_some(pattern));
        counted.collect::<Vec<_>>().into_iter().for_each(|pattern| self.recount(pattern));
    }

    /// Counts the instances that a pattern matches for each value.
    pub(super) fn recount(&mut self, pattern: PatternIx) {
        let it = self.patterns.get_mut(pattern);
        it.values.clear();
        if it.counted > 0 {
            let placed: Vec<(Slot, u32)> = it.placed.any().iter().map(|s| (s, it.placed.count(s))).collect();
            placed.into_iter().for_each(|(slot, count)| self.count_value(pattern, slot, count, true));
        }
    }

    /// Notes that instances which a pattern matches have come to a machine, or gone.
    pub(super) fn count_value(&mut self, pattern: PatternIx, slot: Slot, count: u32, add: bool) {
        let it = self.patterns.get_mut(pattern);
        if it.counted == 0 || self.keys.len() == 0 || self.machines[slot as usize].view.is_none() {
            return;
        }
        it.values.resize_with(self.keys.len(), Vec::new);
        for (key, counts) in it.values.iter_mut().enumerate() {
            let value = self.keys.value(key, slot) as usize;
            if counts.len() <= value {
                counts.resize(value + 1, 0);
            }
            counts[value] = if add { counts[value] + count } else { counts[value] - count };
        }
    }

    /// Notes that all on a machine come to have its values, or have them no more.
    pub(super) fn count_values_on(&mut self, slot: Slot, add: bool) {
        if self.keys.len() == 0 || !self.lives(slot) {
            return;
        }
        for unit in self.machine(slot).units.iter().copied().collect::<Vec<_>>() {
            let matched = self.unit(unit).matched;
            for index in 0..self.patterns.matches(matched).len() {
                let pattern = self.patterns.matches(matched)[index];
                self.count_value(pattern, slot, 1, add);
            }
        }
    }
}
