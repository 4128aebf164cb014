//! Moves that start first: a unit is started elsewhere, and leaves once it is ready there.
//!
//! ```text
//!            Move: entry there, this one moving          ready there, and nobody here needs it: Depart
//!   placed ────────────────────────────────────► moving ──────────────────────────────────────► departing
//!     ▲                                             │
//!     └─────────────────────────────────────────────┘
//!       Stay: the new place is lost or refused before it is ready, or the machine is drained no longer, or who
//!       has to be with it finds no way from here
//! ```
//!
//! A unit leaves a drained machine with all those there that have to be with it, to a machine that takes all of
//! them. One that no machine takes stays, and is asked again each time.

use flotilla_registry::records::Departure;
use flotilla_units::OnPartition;
use rustc_hash::FxHashMap;

use super::{
    Decision, Placement, Reason,
    bits::{Bits, Slot},
    going::Going,
    model::{Entry, Status, UnitIx},
    rules::Stay,
};

/// Which units leave a machine by themselves, as far as it was asked.
type Asked = FxHashMap<UnitIx, bool>;

/// Of how many units it is asked whether they leave by themselves, for one that is to leave; the others go with it.
/// Each may lead to the next.
const ASKED_MOST: usize = 64;

/// The next step of a move that is under way.
pub(super) enum Due {
    /// It is ready elsewhere: it leaves here.
    Finish(Vec<Slot>),
    /// It stays where it was, and what was started elsewhere leaves; `held` by those who have to be with it.
    Return { to: Slot, leaves: Vec<(Slot, Departure, Option<Reason>)>, held: bool },
}

impl Placement {
    /// Returns the next step of a unit's move.
    pub(super) fn due(&self, unit: UnitIx) -> Option<Due> {
        let it = self.unit(unit);
        if it.moving.is_empty() || it.status != Status::Wanted {
            return None;
        }
        if self.classes.get(it.class).requirements.global {
            return it.moving.iter().next().map(|to| Due::Return { to, leaves: Vec::new(), held: false });
        }
        let must_go = |slot: Slot| matches!(self.stays(unit, slot), Stay::No(..));
        if self.spare_home(unit).is_some() {
            return None;
        }
        let home = it.placed.iter().find(|slot| self.lives(*slot));
        if let Some(home) = home
            && it.ready.contains(home)
            && !must_go(home)
        {
            let done = it.moving.iter().filter(|slot| !self.lives(*slot) || !self.is_needed(unit, *slot));
            let done: Vec<Slot> = done.collect();
            if !done.is_empty() {
                return Some(Due::Finish(done));
            }
            // Ready in both places for ever otherwise, since whoever needs it here does not follow.
            let stuck = |slot: &Slot| self.lives(*slot) && !must_go(*slot) && self.is_held_back(unit, *slot);
            let to = it.moving.iter().find(stuck)?;
            let leaves = vec![(home, Departure::TakenBack, None)];
            return Some(Due::Return { to, leaves, held: true });
        }
        let to = it.moving.iter().find(|slot| self.lives(*slot) && !must_go(*slot))?;
        let leaves = match home {
            None => it.placed.iter().map(|slot| (slot, Departure::MachineLost, None)).collect(),
            Some(home) => match self.stays(unit, home) {
                Stay::No(why, reason) => vec![(home, why, reason)],
                _ if self.setbacks.fails(unit, home) => vec![(home, Departure::TakenBack, None)],
                _ if self.machine(home).drains() => vec![(home, Departure::Drained, None)],
                _ if it.moves_for == Some(Departure::Drained) && !self.machine(to).drains() => {
                    vec![(home, Departure::TakenBack, None)]
                }
                _ => return None,
            },
        };
        Some(Due::Return { to, leaves, held: false })
    }

    /// Takes the next step of a move.
    pub(super) fn go_on(&mut self, unit: UnitIx, due: Due, out: &mut Vec<Decision>) {
        match due {
            Due::Finish(slots) => {
                let why = self.unit(unit).moves_for.unwrap_or(Departure::Drained);
                slots.into_iter().for_each(|slot| self.depart(unit, slot, why, None, out));
            }
            Due::Return { to, leaves, held } => {
                if held {
                    self.hold_back(unit, to);
                }
                for (slot, why, reason) in leaves {
                    if self.setbacks.fails(unit, slot) {
                        self.setbacks.avoid(unit, slot);
                    }
                    self.depart(unit, slot, why, reason, out);
                }
                self.turn(unit, to, Entry::Moving, Entry::Placed);
                self.refresh(unit);
                self.touch(unit);
                self.leader_changed(unit);
                let (unit, machine) = (self.unit(unit).name.clone(), self.machine(to).id);
                out.push(Decision::Stay { unit, machine });
            }
        }
    }

    /// Tells whether somebody on a machine still has to be with this unit there, and is not yet ready
    /// elsewhere.
    pub(super) fn is_needed(&self, unit: UnitIx, slot: Slot) -> bool {
        let machine = self.machine(slot);
        let mut here = machine.units.iter().chain(&machine.moving).copied();
        self.may_be_followed(unit)
            && here.any(|other| {
                let it = self.unit(other);
                let ready = it.moving.contains(slot) && it.ready.iter().any(|slot| self.lives(slot));
                self.is_at_work(other) && !ready && self.needs(other, unit, slot)
            })
    }

    /// Tells whether a unit is to be where it is.
    pub(super) fn is_at_work(&self, unit: UnitIx) -> bool {
        matches!(self.unit(unit).status, Status::Wanted | Status::Kept)
    }

    pub(super) fn may_be_followed(&self, unit: UnitIx) -> bool {
        let it = self.unit(unit);
        let followed = |pattern: &u32| !self.patterns.get(*pattern).followers.is_empty();
        it.leads || self.patterns.matches(it.matched).iter().any(followed)
    }

    /// Tells whether a unit may be on a machine only as long as another is.
    pub(super) fn needs(&self, unit: UnitIx, leader: UnitIx, slot: Slot) -> bool {
        let class = self.classes.get(self.unit(unit).class);
        let by_pattern =
            |pattern: &u32| self.is_matched(leader, *pattern) && self.others_home(unit, *pattern, slot) <= 1;
        unit != leader && (class.leaders.contains(&leader) || class.follows.iter().any(by_pattern))
    }

    /// Notes whether a unit has to be asked each time: it moves, or its machine is drained.
    pub(super) fn note_restless(&mut self, unit: UnitIx) {
        let it = self.unit(unit);
        let drained = |slot: Slot| self.machine(slot).drains();
        let leaves = it.status == Status::Wanted && it.placed.iter().any(drained);
        let moves = !it.moving.is_empty();
        if leaves || moves {
            self.restless.insert(unit);
        } else if self.restless.remove(&unit) {
            self.setbacks.try_again(unit);
        }
        if leaves && !moves && !self.globals.contains(&unit) {
            let order = (-self.priority(unit), self.precedence(unit), unit);
            self.shift.insert(order);
        }
    }

    /// Starts a unit elsewhere, with all that have to be with it, if a machine takes them.
    pub(super) fn move_away(&mut self, unit: UnitIx, out: &mut Vec<Decision>) {
        let it = self.unit(unit);
        let Some(from) = it.placed.iter().find(|slot| self.machine(*slot).drains()) else { return };
        let alone =
            !self.classes.get(it.class).is_tied() && !self.may_be_followed(unit) && it.departing.is_empty();
        let kind = (it.class, it.matched);
        if alone && self.hopeless.contains(&kind) {
            return;
        }
        let Some((units, to)) = self.way_out(unit, from) else {
            if alone && self.is_movable(unit, from) {
                self.hopeless.insert(kind);
            }
            return;
        };
        for unit in units {
            self.start_move(unit, from, to, Departure::Drained, out);
        }
    }

    /// Takes a move as begun.
    pub(super) fn start_move(
        &mut self,
        unit: UnitIx,
        from: Slot,
        to: Slot,
        why: Departure,
        out: &mut Vec<Decision>,
    ) {
        self.turn(unit, from, Entry::Placed, Entry::Moving);
        self.units[unit as usize].moves_for = Some(why);
        self.enter(unit, to, Entry::Placed);
        self.refresh(unit);
        self.touch(unit);
        self.leader_changed(unit);
        let (from, to) = (self.machine(from).id, self.machine(to).id);
        out.push(Decision::Move { unit: self.unit(unit).name.clone(), from, to, why });
    }

    /// Returns where a unit could be started to leave a machine, with all that have to go with it.
    pub(super) fn way_out(&self, unit: UnitIx, from: Slot) -> Option<(Vec<UnitIx>, Slot)> {
        self.way_out_asking(unit, from, &mut FxHashMap::default())
    }

    fn way_out_asking(&self, unit: UnitIx, from: Slot, asked: &mut Asked) -> Option<(Vec<UnitIx>, Slot)> {
        let units = self.tied_asking(unit, from, asked)?;
        let mut set = self.room_for(&units);
        set.clear(from);
        self.setbacks.leave_out(&units, &mut set);
        // Who has to leave pushes others away only where nothing else takes it.
        let mut calm = set.clone();
        set.iter().filter(|slot| self.would_push(&units, *slot)).for_each(|slot| calm.clear(slot));
        let to = self.best(&units, if calm.is_empty() { &set } else { &calm })?;
        Some((units, to))
    }

    /// Tells whether one of these units would push somebody off a machine with its `Replaces=`.
    pub(super) fn would_push(&self, units: &[UnitIx], slot: Slot) -> bool {
        let replaces = |unit: &&UnitIx| !self.classes.get(self.unit(**unit).class).replaces.is_empty();
        let there = &self.machine(slot).units;
        units.iter().filter(replaces).any(|unit| there.iter().any(|other| self.pushes(*unit, *other)))
    }

    /// Tells whether a unit may be started elsewhere before it leaves a machine.
    pub(super) fn is_movable(&self, unit: UnitIx, from: Slot) -> bool {
        let it = self.unit(unit);
        let asks = &self.classes.get(it.class).requirements;
        it.status == Status::Wanted
            && !asks.global
            && !asks.sticky
            && asks.on_partition == OnPartition::Replace
            && it.moving.is_empty()
            && it.placed.contains(from)
            && it.placed.iter().chain(it.departing.iter()).all(|slot| slot == from || !self.lives(slot))
            && !it.departing.contains(from)
            && !matches!(self.stays(unit, from), Stay::No(..))
    }

    /// Returns a unit with all on its machine that have to go where it goes; `None` when one of them cannot.
    pub(super) fn tied(&self, unit: UnitIx, from: Slot) -> Option<Vec<UnitIx>> {
        self.tied_asking(unit, from, &mut FxHashMap::default())
    }

    fn tied_asking(&self, unit: UnitIx, from: Slot, asked: &mut Asked) -> Option<Vec<UnitIx>> {
        let mut going = Going::of(self, &[unit]);
        let mut tied = None;
        let mut next = 0;
        while let Some(one) = going.units.get(next).copied() {
            next += 1;
            if !self.is_movable(one, from) {
                return None;
            }
            let mut with = self.leaders_there(one, from);
            if self.may_be_followed(one) {
                let tied = tied.get_or_insert_with(|| self.tied_there(from));
                let left = tied.iter().copied();
                let mut left: Vec<UnitIx> = left
                    .filter(|other| !going.contains(*other) && self.loses(*other, &going, from))
                    .collect();
                left.sort_by(|a, b| self.unit(*a).name.cmp(&self.unit(*b).name));
                with.extend(left.into_iter().filter(|other| !self.goes_alone(*other, from, asked)));
            }
            with.sort_by(|a, b| self.unit(*a).name.cmp(&self.unit(*b).name));
            for other in with {
                going.add(self, other);
            }
        }
        Some(going.units)
    }

    /// Those on its machine that a unit has to stay with: its leaders, and where it finds nobody else that its
    /// pattern matches, the first that it does.
    fn leaders_there(&self, unit: UnitIx, from: Slot) -> Vec<UnitIx> {
        let class = self.classes.get(self.unit(unit).class);
        let moves = |other: &UnitIx| !self.globals.contains(other) && self.unit(*other).placed.contains(from);
        let mut leaders: Vec<UnitIx> = class.leaders.iter().copied().filter(moves).collect();
        if !class.follows.is_empty() && !self.finds_others(unit, from) {
            for pattern in &class.follows {
                let there = self.machine(from).units.iter().copied().filter(moves);
                let matched = there.filter(|other| *other != unit && self.is_matched(*other, *pattern));
                leaders.extend(matched.min_by_key(|other| &self.unit(*other).name));
            }
        }
        leaders
    }

    /// Tells whether a unit that follows patterns finds a place by those that run elsewhere.
    fn finds_others(&self, unit: UnitIx, from: Slot) -> bool {
        let class = self.classes.get(self.unit(unit).class);
        let mut elsewhere =
            if class.leaders.is_empty() { self.candidates(unit, &[]) } else { Bits::default() };
        elsewhere.clear(from);
        !elsewhere.is_empty()
    }

    /// Tells whether a unit leaves a machine by itself once those are gone that it follows there: it finds others
    /// elsewhere, and nobody who has to be with it holds it back.
    fn goes_alone(&self, unit: UnitIx, from: Slot, asked: &mut Asked) -> bool {
        if let Some(known) = asked.get(&unit) {
            return *known;
        }
        if asked.len() >= ASKED_MOST || self.setbacks.holds_back(unit) || !self.finds_others(unit, from) {
            return false;
        }
        // Whoever needs this answer for its own takes it for one that does: two that follow each other's kind may
        // both find others. Where that comes to nothing it is noted (`setbacks`).
        asked.insert(unit, true);
        let alone = self.way_out_asking(unit, from, asked).is_some();
        asked.insert(unit, alone);
        alone
    }
}
