//! Deciding: who leaves, then who goes where.

use flotilla_registry::records::Departure;

use super::{
    Decision, Placement, Reason,
    batch::{GlobalOrder, GroupIx, Order, State},
    bits::{Bits, Homes, Slot},
    levels::Cursor,
    model::{Entry, Status, UnitIx},
    patterns::Waiter,
    rankings::Kept,
    rules::Stay,
};

/// Which machine of a set the next unit of a group gets.
enum Choice {
    Lightest(Bits, Cursor),
    Ranked(Box<Kept>),
}

impl Placement {
    pub(super) fn decide_some(&mut self, limit: usize) -> Vec<Decision> {
        self.settle();
        // What an earlier limit left over may be otherwise constrained by now.
        for (_, group) in std::mem::take(&mut self.batch.queue) {
            self.batch.set_state(group, State::Ready);
        }
        // Nor is it known whether those who were to be looked at still leave by themselves.
        for (.., unit) in std::mem::take(&mut self.batch.suspects) {
            self.touch(unit);
        }
        self.ask_the_restless();
        self.batch.compared.clear();
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
                continue;
            }
            self.queue_ready();
            let group = self.batch.queue.first().map(|((priority, ..), _)| *priority);
            let global = self.batch.globals.first().map(|(priority, ..)| *priority);
            if global.is_some_and(|global| group.is_none_or(|group| global < group)) {
                if let Some(global) = self.batch.globals.pop_first() {
                    self.place_global(global, limit, &mut out);
                }
            } else if let Some((_, group)) = self.batch.queue.pop_first() {
                self.place_group(group, limit, &mut out);
            } else if let Some((_, _, unit)) = self.shift.pop_first() {
                self.move_away(unit, &mut out);
            } else {
                break;
            }
        }
        out
    }

    /// Those who may push others away, or wait to leave a machine, depend on so much that they are asked each
    /// time.
    fn ask_the_restless(&mut self) {
        self.shift.clear();
        self.hopeless.clear();
        for unit in self.restless.iter().copied().collect::<Vec<_>>() {
            self.touch(unit);
        }
        for group in std::mem::take(&mut self.preemptors) {
            self.batch.wake_by_routine(group);
        }
        let preempts = |unit: &UnitIx| self.classes.get(self.unit(*unit).class).requirements.preempt;
        for unit in self.globals.iter().copied().filter(preempts).collect::<Vec<_>>() {
            self.refresh(unit);
        }
    }

    /// Looks at every unit about which something changed; most stay, and cost no more than this.
    fn triage(&mut self) {
        for unit in std::mem::take(&mut self.batch.touched) {
            self.units[unit as usize].touched = false;
            let mut worst = None;
            let mut contested_on = Homes::Nowhere;
            for slot in self.unit(unit).placed.iter() {
                match self.stays(unit, slot) {
                    Stay::Yes => {}
                    Stay::Contested => {
                        worst = worst.or(Some(true));
                        contested_on.insert(slot);
                    }
                    Stay::No(..) => worst = Some(false),
                }
            }
            // Whom it meets is looked at beside it: who goes first is not left to who was touched.
            if !contested_on.is_empty() && self.batch.compared.insert(unit) {
                for slot in contested_on.iter() {
                    self.met(unit, slot).into_iter().for_each(|other| self.touch(other));
                }
            }
            let must_go = |slot: Slot| matches!(self.stays(unit, slot), Stay::No(..));
            let moving = self.unit(unit).moving.iter().any(must_go);
            if moving || self.spare_home(unit).is_some() || self.due(unit).is_some() {
                worst = Some(false);
            }
            self.note_restless(unit);
            if let Some(contested) = worst {
                self.batch.suspects.insert((contested, self.precedence(unit), unit));
            }
        }
    }

    /// A unit that is not global has one home; of several, the one with the highest machine id has to
    /// go.
    pub(super) fn spare_home(&self, unit: UnitIx) -> Option<Slot> {
        let it = self.unit(unit);
        if it.status != Status::Wanted || self.classes.get(it.class).requirements.global {
            return None;
        }
        it.placed.iter().filter(|slot| self.lives(*slot)).skip(1).last()
    }

    /// Decides where a suspect has to leave, and has those looked at that have to leave for it.
    fn examine(&mut self, unit: UnitIx, limit: usize, out: &mut Vec<Decision>) {
        if let Some(due) = self.due(unit) {
            self.go_on(unit, due, out);
        }
        let it = self.unit(unit);
        let homes: Vec<Slot> = it.placed.iter().chain(it.moving.iter()).collect();
        for slot in homes {
            if out.len() >= limit {
                self.touch(unit);
                return;
            }
            match self.stays(unit, slot) {
                Stay::Yes => {}
                Stay::No(why, reason) => self.depart(unit, slot, why, reason, out),
                // What leaves as soon as it can makes nobody leave before.
                Stay::Contested if self.unit(unit).moving.contains(slot) => {}
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
        if let Some(reason) = self.crowded_out(unit, slot) {
            return Some((Departure::Requirements, reason));
        }
        let key = self.precedence(unit);
        let met = self.met(unit, slot);
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

    /// Returns those on a machine that a unit may make leave, or conflicts with.
    fn met(&self, unit: UnitIx, slot: Slot) -> Vec<UnitIx> {
        let key = self.precedence(unit);
        let crowds = |other: UnitIx| {
            self.caps(unit).any(|(it, _)| self.is_matched(other, it)) && self.precedence(other) > key
        };
        let others = self.machine(slot).units.iter().copied();
        others
            .filter(|other| self.conflict(unit, *other) || self.pushes(unit, *other) || crowds(*other))
            .collect()
    }

    pub(super) fn depart(
        &mut self,
        unit: UnitIx,
        slot: Slot,
        why: Departure,
        reason: Option<Reason>,
        out: &mut Vec<Decision>,
    ) {
        // In this order the unit never seems to be away: it counts on until it is proven gone.
        let is_moving = !self.unit(unit).placed.contains(slot);
        let from = if is_moving { Entry::Moving } else { Entry::Placed };
        self.turn(unit, slot, from, Entry::Departing);
        self.refresh(unit);
        self.leader_changed(unit);
        if !self.unit(unit).moving.is_empty() {
            // Without its new place it stays where it was.
            self.touch(unit);
        }
        if self.machine(slot).drains() || !self.machine(slot).moving.is_empty() {
            // Whom it followed there may have waited for it.
            let machine = self.machine(slot);
            for other in machine.units.iter().chain(&machine.moving).copied().collect::<Vec<_>>() {
                self.touch(other);
            }
        }
        let (unit, machine) = (self.unit(unit).name.clone(), self.machine(slot).id);
        out.push(Decision::Depart { unit, machine, why, reason });
    }

    fn queue_ready(&mut self) {
        while let Some(group) = self.batch.ready.pop() {
            let by_routine = self.batch.by_routine.remove(&group);
            match self.batch.first(&self.units, group) {
                None => self.batch.set_state(group, State::Idle),
                Some(first) => {
                    let order = self.order(group, first);
                    self.batch.set_state(group, State::Queued);
                    self.batch.queue.insert((order, group));
                    if !by_routine {
                        self.wake_followers(group);
                    }
                }
            }
        }
    }

    /// Has those asked again that can go only together with units of a group: what was in the way of these was in
    /// theirs, and who is asked first is not left to who was woken.
    fn wake_followers(&mut self, group: GroupIx) {
        if !self.batch.group(group).key.leads {
            return;
        }
        let led = self.batch.members(&self.units, group).filter_map(|unit| self.followers.get(&unit));
        let groups = led.flatten().flat_map(|class| &self.classes.get(*class).groups);
        for other in groups.copied().collect::<Vec<_>>() {
            self.batch.wake_older(other, self.age);
        }
    }

    fn order(&mut self, group: GroupIx, first: UnitIx) -> Order {
        let key = self.batch.group(group).key;
        // One that is alone comes first however constrained it is.
        let alone =
            self.batch.queue.is_empty() && self.batch.ready.is_empty() && self.batch.globals.is_empty();
        let class = self.classes.get(key.class);
        let phase = if !class.replaces.is_empty() {
            // First, so that nobody is placed only to be pushed away again.
            0
        } else if !class.follows.is_empty() {
            // Behind those that it may follow, but for those that nothing keeps anywhere.
            5
        } else if class.requirements.machine.is_some() {
            1
        } else if !class.leaders.is_empty() {
            2
        } else if key.leads {
            3
        } else if !class.conflicts.is_empty() || key.matched != 0 {
            4
        } else {
            6
        };
        // How constrained they are only matters between several, and is not known of those that others lead.
        let priority = -class.requirements.priority;
        let compared = phase >= 3 && phase != 5 && (!alone || key.leads);
        let room = if compared { self.how_many_take(first) } else { 0 };
        (priority, phase, room, self.unit(first).name.clone())
    }

    fn place_group(&mut self, group: GroupIx, limit: usize, out: &mut Vec<Decision>) {
        let key = self.batch.group(group).key;
        let Some(first) = self.batch.first(&self.units, group) else {
            return self.batch.set_state(group, State::Idle);
        };
        if key.leads || !self.classes.get(key.class).leaders.is_empty() {
            return self.place_bundles(group, limit, out);
        }
        let class = self.classes.get(key.class);
        let closes = key.matched != 0 || !class.conflicts.is_empty();
        let mut choice = if class.ranked {
            Choice::Ranked(Box::new(self.ranking_for(key.class, first)))
        } else {
            Choice::Lightest(self.candidates(first, &[]), Cursor::default())
        };
        let stuck = loop {
            let Some(unit) = self.batch.first(&self.units, group) else { break None };
            if out.len() >= limit {
                break None;
            }
            let slot = match &mut choice {
                Choice::Lightest(set, cursor) => self.levels.first(set, cursor),
                Choice::Ranked(kept) => kept.ranking.best(),
            };
            let Some(slot) = slot else { break Some(unit) };
            self.place(unit, slot, out);
            let closed = closes && self.is_blocked(unit, slot);
            match &mut choice {
                Choice::Lightest(set, _) if closed => set.clear(slot),
                Choice::Lightest(..) => {}
                Choice::Ranked(kept) => kept.placed(self, slot, closed),
            }
        };
        if let Choice::Ranked(kept) = choice {
            self.rankings.keep(*kept);
        }
        match stuck {
            Some(unit) => {
                self.make_room(group, unit, limit, out);
                self.stick(group, &[unit]);
            }
            // What a limit left over goes on in the next call.
            None if self.batch.waiting_in(group) > 0 => self.batch.set_state(group, State::Ready),
            None => self.batch.set_state(group, State::Idle),
        }
    }

    /// Lets a group wait until something changes that these units wait for.
    pub(super) fn stick(&mut self, group: GroupIx, units: &[UnitIx]) {
        self.batch.stick(group, self.age);
        let class = self.batch.group(group).key.class;
        if self.classes.get(class).requirements.preempt {
            self.preemptors.insert(group);
        }
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
        let it = self.unit(unit);
        if !it.placed.is_empty() || !it.moving.is_empty() {
            // It waits, so all of these are dead.
            for dead in it.placed.iter().chain(it.moving.iter()).collect::<Vec<_>>() {
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

    fn place_global(&mut self, global: GlobalOrder, limit: usize, out: &mut Vec<Decision>) {
        let (priority, name, unit) = global;
        // Another unit may have its number by now, or it another priority; that has an entry of its own.
        let is_it = self.globals.contains(&unit) && self.unit(unit).name == name;
        if !is_it || -self.priority(unit) != priority {
            return;
        }
        for slot in self.missing(unit).iter() {
            if out.len() >= limit {
                self.batch.globals.insert((priority, name, unit));
                return self.leader_changed(unit);
            }
            self.enter(unit, slot, Entry::Placed);
            out.push(Decision::Place { unit: name.clone(), machine: self.machine(slot).id });
        }
        self.make_room_everywhere(unit, limit, out);
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
