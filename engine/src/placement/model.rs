//! The facts: machines, units and where they are, and the indexes kept over them.
//!
//! Every fact goes through [`Placement::enter`] and [`Placement::exit`] (`entries`), which keep loads and
//! tallies, and [`Placement::refresh`], which keeps who waits for a machine. What might have to leave is only noted
//! ([`Placement::touch`]); looking at it is left to `decide`.

use flotilla_registry::records::Departure;
use flotilla_units::{MachineChoice, MachineId, UnitName};
use rustc_hash::FxHashSet;

use super::{
    MachineView, Placement,
    batch::{GroupIx, GroupKey},
    bits::{Bits, Homes, Slot},
    classes::{ClassIx, meets},
    patterns::{MatchIx, PatternIx, Waiter},
    room::Usage,
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

#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub(super) name: UnitName,
    pub(super) status: Status,
    pub(super) class: ClassIx,
    pub(super) matched: MatchIx,
    /// Dead machines included: it is there again when one returns.
    pub(super) placed: Homes,
    /// Where it is until it is ready elsewhere, and why it leaves.
    pub(super) moving: Homes,
    pub(super) moves_for: Option<Departure>,
    pub(super) departing: Homes,
    /// Where it was told to be ready.
    pub(super) ready: Homes,
    /// The instances of its template, where its class counts them.
    pub(super) siblings: Option<PatternIx>,
    /// Where it waits for a machine.
    pub(super) group: Option<GroupIx>,
    /// A class names it in `MachineOf=`.
    pub(super) leads: bool,
    pub(super) touched: bool,
    /// Its place among the names with its stem.
    pub(super) at: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) id: MachineId,
    /// `None`: dead, or never seen.
    pub(super) view: Option<MachineView>,
    pub(super) load: u32,
    pub(super) used: Usage,
    pub(super) units: FxHashSet<UnitIx>,
    pub(super) moving: FxHashSet<UnitIx>,
    pub(super) leaving: FxHashSet<UnitIx>,
}

impl Machine {
    pub(super) fn is_open(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.schedulable && !view.draining)
    }

    pub(super) fn drains(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.draining)
    }

    /// Every unit that has an entry here.
    pub(super) fn all_units(&self) -> impl Iterator<Item = UnitIx> {
        self.units.iter().chain(&self.moving).chain(&self.leaving).copied()
    }
}

/// Which of a unit's entries on a machine is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Placed,
    Moving,
    Departing,
}

impl Unit {
    pub(super) const fn has_entries(&self) -> bool {
        !self.placed.is_empty() || !self.moving.is_empty() || !self.departing.is_empty()
    }
}

impl Placement {
    pub(super) fn unit(&self, unit: UnitIx) -> &Unit {
        &self.units[unit as usize]
    }

    /// Returns the unit's number if it has one.
    pub(super) fn find(&self, name: &UnitName) -> Option<UnitIx> {
        self.by_name.get(name.as_str(), &self.units)
    }

    pub(super) fn machine(&self, slot: Slot) -> &Machine {
        &self.machines[slot as usize]
    }

    pub(super) fn lives(&self, slot: Slot) -> bool {
        self.machine(slot).view.is_some()
    }

    /// Returns the unit's number, giving it one.
    pub(super) fn intern(&mut self, name: &UnitName) -> UnitIx {
        if let Some(unit) = self.find(name) {
            return unit;
        }
        let unit = Unit {
            name: name.clone(),
            status: Status::Unknown,
            class: 0,
            matched: self.patterns.matching(name.as_str()),
            placed: Homes::Nowhere,
            moving: Homes::Nowhere,
            moves_for: None,
            departing: Homes::Nowhere,
            ready: Homes::Nowhere,
            siblings: None,
            group: None,
            leads: false,
            touched: false,
            at: 0,
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
        self.by_name.insert(name.as_str(), ix);
        self.units[ix as usize].at = self.stems.insert(name.as_str(), ix);
        ix
    }

    /// Gives up what nobody knows, has or names any more.
    pub(super) fn forget(&mut self, unit: UnitIx) {
        let it = self.unit(unit);
        if it.has_entries() {
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
            if self.by_name.remove(name.as_str(), unit) {
                let at = self.unit(unit).at;
                if let Some(moved) = self.stems.remove(name.as_str(), at) {
                    self.units[moved as usize].at = at;
                }
                self.restless.remove(&unit);
                self.setbacks.forget(unit);
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
        self.machines.push(Machine {
            id,
            view: None,
            load: 0,
            used: Usage::default(),
            units: FxHashSet::default(),
            moving: FxHashSet::default(),
            leaving: FxHashSet::default(),
        });
        slot
    }

    /// Changes what a machine is, or that it is dead, and notes everything that this may concern.
    pub(super) fn change_machine(&mut self, id: MachineId, view: Option<MachineView>) {
        let slot = self.slot_of(id);
        let machine = &mut self.machines[slot as usize];
        if machine.view == view {
            return;
        }
        self.age += 1;
        let metadata = |view: &Option<MachineView>| view.as_ref().map(|view| view.metadata.clone());
        let (had, has) = (metadata(&machine.view), metadata(&view));
        if had != has {
            self.count_values_on(slot, false);
        }
        let machine = &mut self.machines[slot as usize];
        let before = std::mem::replace(&mut machine.view, view);
        self.setbacks.forgive(slot);
        let capacity = machine.view.as_ref().map(|view| view.capacity.clone()).unwrap_or_default();
        machine.used.set_capacity(&capacity, &mut self.resources);
        let (open, load) = (machine.is_open(), machine.load);
        let lives_as_before = before.is_some() == machine.view.is_some();
        let here: Vec<UnitIx> = machine.units.iter().chain(&machine.moving).copied().collect();
        let leaving: Vec<UnitIx> = machine.leaving.iter().copied().collect();
        let host = |view: Option<&MachineView>| view.map(|view| view.host.to_ascii_lowercase());
        let (was, is) = (host(before.as_ref()), host(machine.view.as_ref()));
        self.selectors.set_machine(slot, has.as_ref());
        self.rankings.note(slot, self.machines.len());
        if had != has {
            self.keys.set_machine(slot, has.as_ref());
            self.count_values_on(slot, true);
            // One that dies is closed to all; those that were ranked with other values have to be divided anew.
            if has.is_some() {
                self.rankings.clear();
            }
            if self.keys.is_stale(self.machines.len()) {
                self.renumber_keys();
            }
        }
        if open {
            self.levels.insert(slot, load);
            self.open.set(slot);
        } else {
            self.levels.remove(slot, load);
            self.open.clear(slot);
        }
        if was != is {
            self.rename(slot, was, is);
        }
        for unit in here.iter().copied() {
            self.touch(unit);
            // What it moves to, or away from, may be another now.
            if !self.unit(unit).moving.is_empty() {
                self.refresh(unit);
            }
        }
        if !lives_as_before {
            here.iter().chain(&leaving).for_each(|unit| self.refresh(*unit));
            // One that was leaving waits for a machine now: it may go with those that follow it.
            here.iter().chain(&leaving).for_each(|unit| self.leader_changed(*unit));
        }
        if open {
            self.wake_for(slot);
        }
    }

    /// Notes by which name a machine is known; `None` while it is dead. Whoever names machines otherwise
    /// than by their whole id may mean another one now.
    fn rename(&mut self, slot: Slot, was: Option<String>, is: Option<String>) {
        let id = self.machines[slot as usize].id;
        if let Some(was) = was
            && let Some(slots) = self.by_host.get_mut(&was)
        {
            slots.retain(|other| *other != slot);
            if slots.is_empty() {
                self.by_host.remove(&was);
            }
        }
        match is {
            Some(is) => {
                self.by_host.entry(is).or_default().push(slot);
                self.living.insert(id, slot);
            }
            None => drop(self.living.remove(&id)),
        }
        let classes = &self.classes;
        let by_id = |choice: &MachineChoice| matches!(choice, MachineChoice::Id(_));
        self.batch.wake_if(|key| {
            classes.get(key.class).requirements.machine.as_ref().is_some_and(|choice| !by_id(choice))
        });
    }

    /// Returns the machines that a `MachineID=` names; more than one is nobody.
    pub(super) fn named(&self, choice: &MachineChoice) -> Vec<Slot> {
        let by_host = |host: &str| self.by_host.get(&host.to_ascii_lowercase()).cloned().unwrap_or_default();
        match choice {
            MachineChoice::Id(id) => self.by_id.get(id).copied().into_iter().collect(),
            MachineChoice::Host(host) => by_host(host),
            MachineChoice::Prefix(begin) => {
                let mut slots = by_host(begin);
                // All zeros are no id, and nothing is before them.
                let first = format!("{begin:0<32}").parse::<MachineId>();
                let from = first.map_or_else(|_| self.living.range(..), |first| self.living.range(first..));
                slots.extend(
                    from.take_while(|(id, _)| id.to_string().starts_with(begin.as_str())).map(|(_, s)| *s),
                );
                slots.sort_unstable();
                slots.dedup();
                slots
            }
        }
    }

    /// Brings slots into the order of machine ids, and drops those of dead machines without units.
    pub(super) fn settle(&mut self) {
        if !std::mem::take(&mut self.disordered) {
            return;
        }
        let mut machines: Vec<(Slot, Machine)> = (0..).zip(std::mem::take(&mut self.machines)).collect();
        let mut new_of = vec![None; machines.len()];
        machines.retain(|(_, m)| m.view.is_some() || m.all_units().next().is_some());
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
            for homes in [&mut unit.placed, &mut unit.moving, &mut unit.departing, &mut unit.ready] {
                homes.renumber(&new_of);
            }
        }
        self.setbacks.renumber(&new_of);
        self.renumber_keys();
        let moved = |slot: &Slot| new_of[*slot as usize];
        self.by_host.values_mut().for_each(|slots| *slots = slots.iter().filter_map(moved).collect());
        self.living = self.living.iter().filter_map(|(id, slot)| Some((*id, moved(slot)?))).collect();
    }

    pub(super) fn wake_waiters(&mut self, pattern: PatternIx) {
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

    /// Notes that a machine has room for more than before.
    pub(super) fn wake_for_room(&mut self, slot: Slot) {
        let machine = &self.machines[slot as usize];
        if !machine.is_open() {
            return;
        }
        let classes = &self.classes;
        self.batch.wake_if(|key| {
            let reserve = &classes.get(key.class).reserve;
            !reserve.is_empty() && machine.used.fits(reserve)
        });
        let wants = |unit: &UnitIx| {
            let reserve = &classes.get(self.units[*unit as usize].class).reserve;
            let here = &self.units[*unit as usize].placed;
            !reserve.is_empty() && !here.contains(slot) && machine.used.fits(reserve)
        };
        for unit in self.globals.iter().copied().filter(wants).collect::<Vec<_>>() {
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
            self.leaders_changed(class);
        }
    }

    /// Notes that units of a class may have to leave, or may come, because of those that they follow.
    pub(super) fn leaders_changed(&mut self, class: ClassIx) {
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

    /// Puts a unit where it has to wait for a machine, or takes it out.
    pub(super) fn refresh(&mut self, unit: UnitIx) {
        self.age += 1;
        let it = self.unit(unit);
        let wanted = it.status == Status::Wanted;
        if wanted && self.classes.get(it.class).requirements.global {
            let order = (-self.priority(unit), it.name.clone(), unit);
            self.globals.insert(unit);
            self.batch.globals.insert(order);
            self.batch.unqueue(&mut self.units, unit);
            return;
        }
        let key = GroupKey { class: it.class, matched: it.matched, leads: it.leads };
        let sticks = self.classes.get(it.class).requirements.sticky && !it.placed.is_empty();
        let all = [&it.placed, &it.moving, &it.departing];
        let busy = sticks || all.into_iter().any(|homes| homes.iter().any(|slot| self.lives(slot)));
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
        entries.iter().for_each(|(slot, entry)| self.tally_matched(unit, *slot, *entry, false));
        self.units[unit as usize].matched = matched;
        entries.iter().for_each(|(slot, entry)| self.tally_matched(unit, *slot, *entry, true));
        self.refresh(unit);
    }

    /// Puts a unit into a class, which already counts it.
    pub(super) fn reclass(&mut self, unit: UnitIx, class: ClassIx) {
        let old = self.unit(unit).class;
        if old != class {
            let entries = self.entries(unit);
            entries.iter().for_each(|(slot, entry)| self.tally_owned(unit, *slot, *entry, false));
            self.cap_siblings(unit, false);
            self.setbacks.try_again(unit);
            entries.iter().for_each(|(slot, _)| self.setbacks.let_go(*slot));
            self.units[unit as usize].class = class;
            entries.iter().for_each(|(slot, entry)| self.tally_owned(unit, *slot, *entry, true));
            self.classes.get_mut(old).members.remove(&unit);
            let new = self.classes.get_mut(class);
            if new.is_tied() {
                new.members.insert(unit);
            }
            let counts = new.counts_siblings;
            self.count_siblings(unit, counts);
            self.cap_siblings(unit, true);
        }
        self.leave_class(old);
        self.refresh(unit);
    }
}

/// Returns every machine that lives and of whose metadata something holds.
pub(super) fn machines_with(machines: &[Machine], holds: impl Fn(&MachineView) -> bool) -> Bits {
    let mut bits = Bits::default();
    for (slot, machine) in (0..).zip(machines) {
        if machine.view.as_ref().is_some_and(&holds) {
            bits.set(slot);
        }
    }
    bits
}
