//! The facts: machines, units and where they are, and the indexes kept over them.
//!
//! Every fact goes through [`Placement::enter`] and [`Placement::exit`], which keep loads and tallies, and
//! [`Placement::refresh`], which keeps who waits for a machine. What might have to leave is only noted
//! ([`Placement::touch`]); looking at it is left to `decide`.

use flotilla_units::{MachineId, UnitName};
use rustc_hash::FxHashSet;

use super::{
    MachineView, Placement,
    batch::{GroupIx, GroupKey},
    bits::{Bits, Homes, Slot},
    classes::{ClassIx, meets},
    patterns::{MatchIx, PatternIx, Waiter},
};

/// A unit's number inside the core.
pub(super) type UnitIx = u32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Only named, by a `MachineOf=` or a manifest.
    Unknown,
    Inactive,
    Destroyed,
    Wanted,
    /// Left where it is, as it is.
    Kept,
}

#[derive(Debug)]
pub(super) struct Unit {
    pub(super) name: UnitName,
    pub(super) status: Status,
    pub(super) class: ClassIx,
    pub(super) matched: MatchIx,
    /// Dead machines included: it is there again when one returns.
    pub(super) placed: Homes,
    pub(super) departing: Homes,
    /// Where it waits for a machine.
    pub(super) group: Option<GroupIx>,
    /// A class names it in `MachineOf=`.
    pub(super) leads: bool,
    pub(super) touched: bool,
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) id: MachineId,
    /// `None`: dead, or never seen.
    pub(super) view: Option<MachineView>,
    pub(super) load: u32,
    pub(super) units: FxHashSet<UnitIx>,
    pub(super) leaving: FxHashSet<UnitIx>,
}

impl Machine {
    pub(super) fn is_open(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.schedulable && !view.draining)
    }
}

/// Which of a unit's entries on a machine is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Placed,
    Departing,
}

impl Placement {
    pub(super) fn unit(&self, unit: UnitIx) -> &Unit {
        &self.units[unit as usize]
    }

    pub(super) fn machine(&self, slot: Slot) -> &Machine {
        &self.machines[slot as usize]
    }

    pub(super) fn lives(&self, slot: Slot) -> bool {
        self.machine(slot).view.is_some()
    }

    /// Returns the unit's number, giving it one.
    pub(super) fn intern(&mut self, name: &UnitName) -> UnitIx {
        if let Some(unit) = self.by_name.get(name) {
            return *unit;
        }
        let unit = Unit {
            name: name.clone(),
            status: Status::Unknown,
            class: 0,
            matched: self.patterns.matching(name.as_str()),
            placed: Homes::Nowhere,
            departing: Homes::Nowhere,
            group: None,
            leads: false,
            touched: false,
        };
        let ix = match self.free_units.pop() {
            Some(ix) => {
                self.units[ix as usize] = unit;
                ix
            }
            None => {
                self.units.push(unit);
                self.units.len() as UnitIx - 1
            }
        };
        self.by_name.insert(name.clone(), ix);
        self.sorted.insert(name.clone(), ix);
        ix
    }

    /// Gives up what nobody knows, has or names any more.
    pub(super) fn forget(&mut self, unit: UnitIx) {
        let it = self.unit(unit);
        if !it.placed.is_empty() || !it.departing.is_empty() {
            return;
        }
        if it.status == Status::Destroyed {
            self.units[unit as usize].status = Status::Unknown;
            self.reclass(unit, 0);
            self.leader_changed(unit);
        }
        let it = self.unit(unit);
        if it.status == Status::Unknown && !it.leads {
            let name = it.name.clone();
            if self.by_name.remove(&name).is_some() {
                self.sorted.remove(&name);
                self.free_units.push(unit);
            }
        }
    }

    /// Returns the machine's slot, giving it one.
    pub(super) fn slot_of(&mut self, id: MachineId) -> Slot {
        if let Some(slot) = self.by_id.get(&id) {
            return *slot;
        }
        let slot = self.machines.len() as Slot;
        self.disordered |= self.machines.last().is_some_and(|last| last.id > id);
        self.by_id.insert(id, slot);
        let (units, leaving) = (FxHashSet::default(), FxHashSet::default());
        self.machines.push(Machine { id, view: None, load: 0, units, leaving });
        slot
    }

    /// Changes what a machine is, or that it is dead, and notes everything that this may concern.
    pub(super) fn change_machine(&mut self, id: MachineId, view: Option<MachineView>) {
        let slot = self.slot_of(id);
        let machine = &mut self.machines[slot as usize];
        if machine.view == view {
            return;
        }
        let before = std::mem::replace(&mut machine.view, view);
        let (open, load) = (machine.is_open(), machine.load);
        let lives_as_before = before.is_some() == machine.view.is_some();
        let here: Vec<UnitIx> = machine.units.iter().copied().collect();
        let leaving: Vec<UnitIx> = machine.leaving.iter().copied().collect();
        self.selectors.set_machine(slot, machine.view.as_ref().map(|view| &view.metadata));
        if open {
            self.levels.insert(slot, load);
            self.open.set(slot);
        } else {
            self.levels.remove(slot, load);
            self.open.clear(slot);
        }
        here.iter().for_each(|unit| self.touch(*unit));
        if !lives_as_before {
            here.iter().chain(&leaving).for_each(|unit| self.refresh(*unit));
            here.iter().for_each(|unit| self.leader_changed(*unit));
        }
        if open {
            self.wake_for(slot);
        }
    }

    /// Brings slots into the order of machine ids, and drops those of dead machines without units.
    pub(super) fn settle(&mut self) {
        if !std::mem::take(&mut self.disordered) {
            return;
        }
        let mut machines: Vec<(Slot, Machine)> = (0..).zip(std::mem::take(&mut self.machines)).collect();
        let mut new_of = vec![None; machines.len()];
        machines.retain(|(_, m)| m.view.is_some() || !m.units.is_empty() || !m.leaving.is_empty());
        machines.sort_by_key(|(_, machine)| machine.id);
        self.by_id.clear();
        (self.levels, self.open) = Default::default();
        for (new, (old, machine)) in (0..).zip(machines) {
            new_of[old as usize] = Some(new);
            self.by_id.insert(machine.id, new);
            if machine.is_open() {
                self.levels.insert(new, machine.load);
                self.open.set(new);
            }
            self.machines.push(machine);
        }
        self.selectors.renumber(&new_of);
        self.patterns.renumber(&new_of);
        for unit in &mut self.units {
            unit.placed.renumber(&new_of);
            unit.departing.renumber(&new_of);
        }
    }

    /// Notes an entry of a unit on a machine; tells whether it is news.
    pub(super) fn enter(&mut self, unit: UnitIx, slot: Slot, entry: Entry) -> bool {
        let it = &mut self.units[unit as usize];
        let machine = &mut self.machines[slot as usize];
        let (homes, there) = match entry {
            Entry::Placed => (&mut it.placed, &mut machine.units),
            Entry::Departing => (&mut it.departing, &mut machine.leaving),
        };
        if !homes.insert(slot) {
            return false;
        }
        there.insert(unit);
        machine.load += 1;
        if machine.is_open() {
            let load = machine.load;
            self.levels.remove(slot, load - 1);
            self.levels.insert(slot, load);
        }
        self.tally_matched(unit, slot, true);
        self.tally_owned(unit, slot, entry, true);
        true
    }

    /// Notes that an entry is gone; tells whether it is news.
    pub(super) fn exit(&mut self, unit: UnitIx, slot: Slot, entry: Entry) -> bool {
        let it = &mut self.units[unit as usize];
        let machine = &mut self.machines[slot as usize];
        let (homes, there) = match entry {
            Entry::Placed => (&mut it.placed, &mut machine.units),
            Entry::Departing => (&mut it.departing, &mut machine.leaving),
        };
        if !homes.remove(slot) {
            return false;
        }
        there.remove(&unit);
        machine.load -= 1;
        if machine.is_open() {
            let load = machine.load;
            self.levels.remove(slot, load + 1);
            self.levels.insert(slot, load);
        }
        self.tally_matched(unit, slot, false);
        self.tally_owned(unit, slot, entry, false);
        true
    }

    /// Every entry of a unit.
    fn entries(&self, unit: UnitIx) -> Vec<(Slot, Entry)> {
        let it = self.unit(unit);
        let placed = it.placed.iter().map(|slot| (slot, Entry::Placed));
        placed.chain(it.departing.iter().map(|slot| (slot, Entry::Departing))).collect()
    }

    fn tally_matched(&mut self, unit: UnitIx, slot: Slot, add: bool) {
        let matched = self.unit(unit).matched;
        for index in 0..self.patterns.matches(matched).len() {
            let pattern = self.patterns.matches(matched)[index];
            let tally = &mut self.patterns.get_mut(pattern).matched;
            if add {
                tally.add(slot);
            } else if tally.sub(slot) {
                self.wake_waiters(pattern);
            }
        }
    }

    fn tally_owned(&mut self, unit: UnitIx, slot: Slot, entry: Entry, add: bool) {
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
                if add {
                    tally.add(slot);
                } else if tally.sub(slot) {
                    self.wake_waiters(pattern);
                }
            }
        }
    }

    fn wake_waiters(&mut self, pattern: PatternIx) {
        for waiter in std::mem::take(&mut self.patterns.get_mut(pattern).waiters) {
            match waiter {
                Waiter::Group(group) => self.batch.wake(group),
                Waiter::Global(unit) => self.refresh(unit),
            }
        }
    }

    /// Notes that a machine can take more than before: groups that wait, and every global unit.
    fn wake_for(&mut self, slot: Slot) {
        let Some(view) = &self.machines[slot as usize].view else { return };
        let id = self.machines[slot as usize].id;
        let classes = &self.classes;
        let may = |key: &GroupKey| {
            let it = &classes.get(key.class).requirements;
            it.machine.as_ref().is_none_or(|wanted| wanted.names(&id, &view.host))
                && it.metadata.iter().all(|selector| meets(&view.metadata, selector))
        };
        self.batch.wake_if(may);
        for unit in self.globals.iter().copied().collect::<Vec<_>>() {
            self.refresh(unit);
        }
    }

    /// Notes that a unit on a machine may have to leave.
    pub(super) fn touch(&mut self, unit: UnitIx) {
        if !std::mem::replace(&mut self.units[unit as usize].touched, true) {
            self.batch.touched.push(unit);
        }
    }

    /// Notes that the followers of a unit may have to leave, or may come.
    pub(super) fn leader_changed(&mut self, leader: UnitIx) {
        if !self.unit(leader).leads {
            return;
        }
        for class in self.followers.get(&leader).cloned().unwrap_or_default() {
            let it = self.classes.get(class);
            let members: Vec<UnitIx> = it.members.iter().copied().collect();
            it.groups.iter().for_each(|group| self.batch.wake(*group));
            for member in members {
                self.touch(member);
                if self.globals.contains(&member) {
                    self.refresh(member);
                }
            }
        }
    }

    /// Puts a unit where it has to wait for a machine, or takes it out.
    pub(super) fn refresh(&mut self, unit: UnitIx) {
        let it = self.unit(unit);
        let wanted = it.status == Status::Wanted;
        if wanted && self.classes.get(it.class).requirements.global {
            let name = it.name.clone();
            self.globals.insert(unit);
            self.batch.globals.insert((name, unit));
            self.batch.unqueue(&mut self.units, unit);
            return;
        }
        let key = GroupKey { class: it.class, matched: it.matched, leads: it.leads };
        let busy = it.placed.iter().chain(it.departing.iter()).any(|slot| self.lives(slot));
        if !self.globals.is_empty() {
            self.globals.remove(&unit);
        }
        if wanted && !busy {
            if let Some(group) = self.batch.queue(&mut self.units, unit, key) {
                self.classes.get_mut(key.class).groups.push(group);
            }
        } else {
            self.batch.unqueue(&mut self.units, unit);
        }
    }

    /// Finds again which patterns match a unit.
    pub(super) fn rematch(&mut self, unit: UnitIx) {
        let matched = self.patterns.matching(self.units[unit as usize].name.as_str());
        if matched == self.unit(unit).matched {
            return;
        }
        let entries = self.entries(unit);
        entries.iter().for_each(|(slot, _)| self.tally_matched(unit, *slot, false));
        self.units[unit as usize].matched = matched;
        entries.iter().for_each(|(slot, _)| self.tally_matched(unit, *slot, true));
        self.refresh(unit);
    }

    /// Puts a unit into a class, which already counts it.
    pub(super) fn reclass(&mut self, unit: UnitIx, class: ClassIx) {
        let old = self.unit(unit).class;
        if old != class {
            let entries = self.entries(unit);
            entries.iter().for_each(|(slot, entry)| self.tally_owned(unit, *slot, *entry, false));
            self.units[unit as usize].class = class;
            entries.iter().for_each(|(slot, entry)| self.tally_owned(unit, *slot, *entry, true));
            self.classes.get_mut(old).members.remove(&unit);
            let new = self.classes.get_mut(class);
            if !new.leaders.is_empty() {
                new.members.insert(unit);
            }
        }
        self.leave_class(old);
        self.refresh(unit);
    }

    /// Returns every machine that lives and of whose metadata something holds.
    pub(super) fn machines_with(&self, holds: impl Fn(&MachineView) -> bool) -> Bits {
        let mut bits = Bits::default();
        for (slot, machine) in (0..).zip(&self.machines) {
            if machine.view.as_ref().is_some_and(&holds) {
                bits.set(slot);
            }
        }
        bits
    }
}
