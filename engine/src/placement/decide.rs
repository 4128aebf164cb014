//! Deciding: who leaves, then who goes where.

use flotilla_registry::records::Departure;
use flotilla_units::UnitName;

use super::{
    Decision, Placement, Reason,
    batch::{GroupIx, Order, State},
    bits::{Bits, Slot},
    levels::Cursor,
    model::{Entry, Status, UnitIx},
    patterns::Waiter,
    rules::Stay,
};

impl Placement {
    pub(super) fn decide_some(&mut self, limit: usize) -> Vec<Decision> {
        self.settle();
        // What an earlier limit left over may be otherwise constrained by now.
        for (_, group) in std::mem::take(&mut self.batch.queue) {
            self.batch.set_state(group, State::Ready);
        }
        let mut out = Vec::new();
        while out.len() < limit {
            self.triage();
            if let Some((_, precedence, unit)) = self.batch.suspects.pop_first() {
                if self.precedence(unit) == precedence {
                    self.examine(unit, limit, &mut out);
                } else {
                    // It was noted before an earlier limit, and is another by now.
                    self.touch(unit);
                }
            } else if let Some(group) = self.next_group() {
                self.place_group(group, limit, &mut out);
            } else if let Some((name, unit)) = self.batch.globals.pop_first() {
                self.place_global(name, unit, limit, &mut out);
            } else {
                break;
            }
        }
        out
    }

    /// Looks at every unit about which something changed; most stay, and cost no more than this.
    fn triage(&mut self) {
        for unit in std::mem::take(&mut self.batch.touched) {
            self.units[unit as usize].touched = false;
            let mut worst = None;
            for slot in self.unit(unit).placed.iter() {
                match self.stays(unit, slot) {
                    Stay::Yes => {}
                    Stay::Contested => worst = worst.or(Some(true)),
                    Stay::No(..) => worst = Some(false),
                }
            }
            if self.spare_home(unit).is_some() {
                worst = Some(false);
            }
            if let Some(contested) = worst {
                self.batch.suspects.insert((contested, self.precedence(unit), unit));
            }
        }
    }

    /// A unit that is not global has one home; of several, the one with the highest machine id has to
    /// go.
    fn spare_home(&self, unit: UnitIx) -> Option<Slot> {
        let it = self.unit(unit);
        if it.status != Status::Wanted || self.classes.get(it.class).requirements.global {
            return None;
        }
        it.placed.iter().filter(|slot| self.lives(*slot)).skip(1).last()
    }

    /// Decides where a suspect has to leave, and has those looked at that have to leave for it.
    fn examine(&mut self, unit: UnitIx, limit: usize, out: &mut Vec<Decision>) {
        let homes: Vec<Slot> = self.unit(unit).placed.iter().collect();
        for slot in homes {
            if out.len() >= limit {
                self.touch(unit);
                return;
            }
            match self.stays(unit, slot) {
                Stay::Yes => {}
                Stay::No(why, reason) => self.depart(unit, slot, why, reason, out),
                Stay::Contested => {
                    if let Some((why, reason)) = self.meet(unit, slot) {
                        self.depart(unit, slot, why, Some(reason), out);
                    }
                }
            }
        }
        while out.len() < limit
            && let Some(slot) = self.spare_home(unit)
        {
            self.depart(unit, slot, Departure::MachineLost, None, out);
        }
        if self.spare_home(unit).is_some() {
            self.touch(unit);
        }
    }

    /// Compares a unit with those that it shares a machine with: says why it has to leave, or has those
    /// looked at that have to leave for it.
    fn meet(&mut self, unit: UnitIx, slot: Slot) -> Option<(Departure, Reason)> {
        if let Some(by) = self.pusher(unit, slot) {
            return Some((Departure::Replaced, Reason::Replaced { by: self.unit(by).name.clone() }));
        }
        let others = self.machine(slot).units.iter().copied();
        let met: Vec<UnitIx> =
            others.filter(|other| self.conflict(unit, *other) || self.pushes(unit, *other)).collect();
        let key = self.precedence(unit);
        // Those that leave on their own account are gone before anybody is compared. One that nobody has
        // set makes nobody leave: it may be its record that is missing.
        let winner = met
            .iter()
            .filter(|other| self.unit(**other).status == Status::Wanted && self.conflict(unit, **other))
            .map(|other| (self.precedence(*other), *other))
            .filter(|(theirs, _)| *theirs < key)
            .min();
        if let Some((_, with)) = winner {
            return Some((Departure::Requirements, Reason::Conflict { with: self.unit(with).name.clone() }));
        }
        met.into_iter().for_each(|other| self.touch(other));
        None
    }

    fn depart(
        &mut self,
        unit: UnitIx,
        slot: Slot,
        why: Departure,
        reason: Option<Reason>,
        out: &mut Vec<Decision>,
    ) {
        // In this order the unit never seems to be away: it counts on until it is proven gone.
        self.enter(unit, slot, Entry::Departing);
        self.exit(unit, slot, Entry::Placed);
        self.refresh(unit);
        self.leader_changed(unit);
        let (unit, machine) = (self.unit(unit).name.clone(), self.machine(slot).id);
        out.push(Decision::Depart { unit, machine, why, reason });
    }

    fn next_group(&mut self) -> Option<GroupIx> {
        for group in std::mem::take(&mut self.batch.ready) {
            match self.batch.first(&self.units, group) {
                None => self.batch.set_state(group, State::Idle),
                Some(first) => {
                    let order = self.order(group, first);
                    self.batch.set_state(group, State::Queued);
                    self.batch.queue.insert((order, group));
                }
            }
        }
        self.batch.queue.pop_first().map(|(_, group)| group)
    }

    fn order(&self, group: GroupIx, first: UnitIx) -> Order {
        let key = self.batch.group(group).key;
        let class = self.classes.get(key.class);
        let phase = if !class.replaces.is_empty() {
            // First, so that nobody is placed only to be pushed away again.
            0
        } else if class.requirements.machine.is_some() {
            1
        } else if !class.leaders.is_empty() {
            2
        } else if key.leads {
            3
        } else if !class.conflicts.is_empty() || key.matched != 0 {
            4
        } else {
            5
        };
        // How constrained they are only matters between several.
        let room = if phase >= 3 { self.candidates(first, &[]).count() } else { 0 };
        (phase, room, self.unit(first).name.clone())
    }

    fn place_group(&mut self, group: GroupIx, limit: usize, out: &mut Vec<Decision>) {
        let key = self.batch.group(group).key;
        let Some(first) = self.batch.first(&self.units, group) else {
            return self.batch.set_state(group, State::Idle);
        };
        if key.leads || !self.classes.get(key.class).leaders.is_empty() {
            return self.place_bundles(group, limit, out);
        }
        let mut set = self.candidates(first, &[]);
        let closes = key.matched != 0 || !self.classes.get(key.class).conflicts.is_empty();
        let mut cursor = Cursor::default();
        while let Some(unit) = self.batch.first(&self.units, group) {
            if out.len() >= limit {
                return self.batch.set_state(group, State::Ready);
            }
            let Some(slot) = self.levels.first(&set, &mut cursor) else {
                return self.stick(group, &[unit]);
            };
            self.place(unit, slot, out);
            if closes && self.is_blocked(unit, slot) {
                set.clear(slot);
            }
        }
        self.batch.set_state(group, State::Idle);
    }

    /// Lets a group wait until something changes that these units wait for.
    pub(super) fn stick(&mut self, group: GroupIx, units: &[UnitIx]) {
        self.batch.set_state(group, State::Stuck);
        units.iter().for_each(|unit| self.wait_for_patterns(*unit, Waiter::Group(group)));
    }

    fn wait_for_patterns(&mut self, unit: UnitIx, waiter: Waiter) {
        let it = self.unit(unit);
        let own = self.classes.get(it.class).conflicts.iter();
        let patterns: Vec<u32> = own.chain(self.patterns.matches(it.matched)).copied().collect();
        for pattern in patterns {
            self.patterns.get_mut(pattern).waiters.insert(waiter);
        }
    }

    pub(super) fn place(&mut self, unit: UnitIx, slot: Slot, out: &mut Vec<Decision>) {
        if !self.unit(unit).placed.is_empty() {
            // It waits, so all of these are dead.
            for dead in self.unit(unit).placed.iter().collect::<Vec<_>>() {
                self.depart(unit, dead, Departure::MachineLost, None, out);
            }
        }
        self.batch.unqueue(&mut self.units, unit);
        self.enter(unit, slot, Entry::Placed);
        self.leader_changed(unit);
        let it = &self.units[unit as usize];
        out.push(Decision::Place { unit: it.name.clone(), machine: self.machines[slot as usize].id });
        if !self.classes.get(it.class).replaces.is_empty() {
            self.touch(unit);
        }
    }

    fn place_global(&mut self, name: UnitName, unit: UnitIx, limit: usize, out: &mut Vec<Decision>) {
        // Another unit may have its number by now; that one has an entry of its own.
        if !self.globals.contains(&unit) || self.unit(unit).name != name {
            return;
        }
        for slot in self.missing(unit).iter() {
            if out.len() >= limit {
                self.batch.globals.insert((name, unit));
                return self.leader_changed(unit);
            }
            self.enter(unit, slot, Entry::Placed);
            out.push(Decision::Place { unit: name.clone(), machine: self.machine(slot).id });
        }
        self.leader_changed(unit);
        self.wait_for_patterns(unit, Waiter::Global(unit));
    }

    /// Returns the machines that a global unit should be on and is not.
    pub(super) fn missing(&self, unit: UnitIx) -> Bits {
        let mut set = self.candidates(unit, &[]);
        self.unit(unit).placed.iter().for_each(|slot| set.clear(slot));
        set
    }
}
