//! The entries of units on machines: every one that comes or goes passes here, and with it loads, what is
//! reserved, and who is where by each pattern.

use super::{
    Placement,
    bits::{Homes, Slot},
    model::{Entry, UnitIx},
    patterns::PatternIx,
};

impl Placement {
    /// Notes an entry of a unit on a machine; tells whether it is news.
    pub(super) fn enter(&mut self, unit: UnitIx, slot: Slot, entry: Entry) -> bool {
        if !self.homes_mut(unit, entry).insert(slot) {
            return false;
        }
        self.age += 1;
        let machine = &mut self.machines[slot as usize];
        match entry {
            Entry::Placed => machine.units.insert(unit),
            Entry::Moving => machine.moving.insert(unit),
            Entry::Departing => machine.leaving.insert(unit),
        };
        machine.load += 1;
        self.rankings.note(slot, self.machines.len());
        let machine = &self.machines[slot as usize];
        if machine.is_open() {
            let load = machine.load;
            self.levels.remove(slot, load - 1);
            self.levels.insert(slot, load);
        }
        self.tally_matched(unit, slot, entry, true);
        self.tally_owned(unit, slot, entry, true);
        true
    }

    /// Notes that an entry is gone; tells whether it is news.
    pub(super) fn exit(&mut self, unit: UnitIx, slot: Slot, entry: Entry) -> bool {
        if !self.homes_mut(unit, entry).remove(slot) {
            return false;
        }
        self.age += 1;
        if entry == Entry::Placed {
            self.units[unit as usize].ready.remove(slot);
            self.setbacks.set_failed(unit, slot, false);
        }
        if entry == Entry::Departing {
            self.setbacks.let_go(slot);
        }
        let machine = &mut self.machines[slot as usize];
        match entry {
            Entry::Placed => machine.units.remove(&unit),
            Entry::Moving => machine.moving.remove(&unit),
            Entry::Departing => machine.leaving.remove(&unit),
        };
        machine.load -= 1;
        self.rankings.note(slot, self.machines.len());
        let machine = &self.machines[slot as usize];
        if machine.is_open() {
            let load = machine.load;
            self.levels.remove(slot, load + 1);
            self.levels.insert(slot, load);
        }
        self.tally_matched(unit, slot, entry, false);
        self.tally_owned(unit, slot, entry, false);
        true
    }

    /// Makes one entry another, without ever being without.
    pub(super) fn turn(&mut self, unit: UnitIx, slot: Slot, from: Entry, into: Entry) {
        self.enter(unit, slot, into);
        self.exit(unit, slot, from);
    }

    fn homes_mut(&mut self, unit: UnitIx, entry: Entry) -> &mut Homes {
        let it = &mut self.units[unit as usize];
        match entry {
            Entry::Placed => &mut it.placed,
            Entry::Moving => &mut it.moving,
            Entry::Departing => &mut it.departing,
        }
    }

    /// Every entry of a unit.
    pub(super) fn entries(&self, unit: UnitIx) -> Vec<(Slot, Entry)> {
        let it = self.unit(unit);
        let placed = it.placed.iter().map(|slot| (slot, Entry::Placed));
        let moving = it.moving.iter().map(|slot| (slot, Entry::Moving));
        placed.chain(moving).chain(it.departing.iter().map(|slot| (slot, Entry::Departing))).collect()
    }

    /// How many entries a unit has on a machine: more than one only for a moment.
    pub(super) fn entries_on(&self, unit: UnitIx, slot: Slot) -> u32 {
        let it = self.unit(unit);
        [&it.placed, &it.moving, &it.departing].into_iter().map(|homes| u32::from(homes.contains(slot))).sum()
    }

    pub(super) fn tally_matched(&mut self, unit: UnitIx, slot: Slot, entry: Entry, add: bool) {
        let matched = self.unit(unit).matched;
        for index in 0..self.patterns.matches(matched).len() {
            let pattern = self.patterns.matches(matched)[index];
            self.tally(pattern, slot, entry, add);
        }
    }

    fn tally(&mut self, pattern: PatternIx, slot: Slot, entry: Entry, add: bool) {
        if entry == Entry::Placed {
            self.count_value(pattern, slot, 1, add);
        }
        let it = self.patterns.get_mut(pattern);
        if add {
            it.matched.add(slot);
            if entry != Entry::Departing {
                it.homes.add(slot);
            }
            let first = entry == Entry::Placed && !it.placed.any().get(slot);
            if entry == Entry::Placed {
                it.placed.add(slot);
            }
            if first && !it.followers.is_empty() {
                it.followers.clone().into_iter().for_each(|class| self.leaders_changed(class));
            }
            return;
        }
        if entry == Entry::Placed {
            it.placed.sub(slot);
        }
        let last = it.matched.sub(slot);
        // The one that remains may be the follower itself.
        let lonely = entry != Entry::Departing && (it.homes.sub(slot) || it.homes.count(slot) == 1);
        if lonely && !it.followers.is_empty() {
            self.touch_followers(pattern, slot);
        }
        if last || self.patterns.get(pattern).counted > 0 {
            self.wake_waiters(pattern);
        }
    }

    /// Notes that those on a machine that follow a pattern may have lost the last that it matches.
    fn touch_followers(&mut self, pattern: PatternIx, slot: Slot) {
        let follows = |unit: &UnitIx| self.classes.get(self.unit(*unit).class).follows.contains(&pattern);
        let machine = self.machine(slot);
        let here = machine.units.iter().chain(&machine.moving).copied();
        for unit in here.filter(follows).collect::<Vec<_>>() {
            self.touch(unit);
        }
    }

    pub(super) fn tally_owned(&mut self, unit: UnitIx, slot: Slot, entry: Entry, add: bool) {
        let class = self.classes.get(self.unit(unit).class);
        if !class.reserve.is_empty() {
            self.rankings.note(slot, self.machines.len());
            let used = &mut self.machines[slot as usize].used;
            if add {
                used.add(&class.reserve);
            } else {
                used.sub(&class.reserve);
                self.wake_for_room(slot);
            }
        }
        let class = self.classes.get(self.unit(unit).class);
        if class.conflicts.is_empty() && class.replaces.is_empty() {
            return;
        }
        let replaces = if entry == Entry::Placed { class.replaces.clone() } else { Vec::new() };
        let conflicts = class.conflicts.clone();
        for (patterns, replace) in [(conflicts, false), (replaces, true)] {
            for pattern in patterns {
                let it = self.patterns.get_mut(pattern);
                let tally = if replace { &mut it.replacing } else { &mut it.conflicting };
                // Those that remain and replace may be such that a unit and they let each other be.
                if add {
                    tally.add(slot);
                } else if tally.sub(slot) || replace {
                    self.wake_waiters(pattern);
                }
            }
        }
    }

    /// How many others that a pattern matches stay on a machine.
    pub(super) fn others_placed(&self, unit: UnitIx, pattern: PatternIx, slot: Slot) -> u32 {
        let it = self.unit(unit);
        let count = self.patterns.get(pattern).placed.count(slot);
        let own = it.placed.contains(slot) && self.patterns.matches(it.matched).contains(&pattern);
        count - u32::from(own)
    }

    /// How many others that a pattern matches are on a machine and not ordered to leave it.
    pub(super) fn others_home(&self, unit: UnitIx, pattern: PatternIx, slot: Slot) -> u32 {
        let it = self.unit(unit);
        let count = self.patterns.get(pattern).homes.count(slot);
        let matched = self.patterns.matches(it.matched).contains(&pattern);
        let own = u32::from(it.placed.contains(slot)) + u32::from(it.moving.contains(slot));
        count - if matched { own } else { 0 }
    }
}
