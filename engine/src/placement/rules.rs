//! The rules: which machines may have a unit, and which units may stay.
//!
//! A unit's rules are a list of [`Gate`]s. Placing narrows a set of machines through all of them at
//! once; explaining asks them machine by machine. Both are the same gates.

use std::collections::BTreeSet;

use flotilla_registry::records::Departure;
use flotilla_units::{MachineChoice, UnitName};

use super::{
    LeaderIs, Placement, Reason,
    bits::{Bits, Slot, Tally},
    classes::Asked,
    model::{Status, UnitIx},
    patterns::PatternIx,
    room::Amount,
};

/// Who stays when two cannot, and who is placed first of equals: the lesser one.
pub(super) type Precedence = (bool, bool, UnitName);

/// One rule of one unit.
pub(super) enum Gate<'a> {
    Machine { wanted: &'a MachineChoice, slots: Vec<Slot> },
    Metadata(&'a Asked),
    Spread(&'a Asked),
    Leader(UnitIx),
    Follow(PatternIx),
    Leaving,
    Conflicts(&'a Tally),
    Most { siblings: PatternIx, most: u32 },
    Room(&'a Amount),
    Replaced(&'a Tally),
}

/// Whether a unit may stay on a machine that it is on.
pub(super) enum Stay {
    Yes,
    /// As far as it alone goes; whom else it meets there has to be looked at.
    Contested,
    No(Departure, Option<Reason>),
}

impl Placement {
    /// The rules of a unit, in the order of [`Reason`]. Those in `along` are placed together with it.
    pub(super) fn gates<'a>(&'a self, unit: UnitIx, along: &'a [UnitIx]) -> impl Iterator<Item = Gate<'a>> {
        let it = self.unit(unit);
        let class = self.classes.get(it.class);
        let wanted = class.requirements.machine.as_ref();
        let machine = wanted.map(|wanted| Gate::Machine { wanted, slots: self.named(wanted) });
        let selectors = class.selectors.iter().filter_map(|s| self.selectors.get(*s)).map(Gate::Metadata);
        let spread = class.spread.iter().filter_map(|s| self.selectors.get(*s)).map(Gate::Spread);
        let leaders = class.leaders.iter().filter(|leader| !along.contains(leader));
        let is_along = move |pattern: &PatternIx| {
            along.iter().any(|other| *other != unit && self.is_matched(*other, *pattern))
        };
        let follows = class.follows.iter().filter(move |pattern| !is_along(pattern));
        let leaving = (!it.departing.is_empty() || !it.moving.is_empty()).then_some(Gate::Leaving);
        let own = class.conflicts.iter().map(|p| Gate::Conflicts(&self.patterns.get(*p).matched));
        let matched = self.patterns.matches(it.matched);
        let others = matched.iter().map(|p| Gate::Conflicts(&self.patterns.get(*p).conflicting));
        let most = self.caps(unit).map(|(siblings, most)| Gate::Most { siblings, most });
        let room = (!class.reserve.is_empty()).then_some(Gate::Room(&class.reserve));
        let replaced = matched.iter().map(|p| Gate::Replaced(&self.patterns.get(*p).replacing));
        machine
            .into_iter()
            .chain(selectors)
            .chain(spread)
            .chain(leaders.map(|leader| Gate::Leader(*leader)))
            .chain(follows.map(|pattern| Gate::Follow(*pattern)))
            .chain(leaving)
            .chain(own)
            .chain(others)
            .chain(most)
            .chain(room)
            .chain(replaced)
    }

    pub(super) fn is_matched(&self, unit: UnitIx, pattern: PatternIx) -> bool {
        self.patterns.matches(self.unit(unit).matched).contains(&pattern)
    }

    /// Leaves in a set the machines that a gate lets the unit through to.
    pub(super) fn narrow(&self, unit: UnitIx, gate: &Gate<'_>, set: &mut Bits) {
        match gate {
            Gate::Machine { slots, .. } => {
                let mut only = Bits::default();
                if let [slot] = slots[..] {
                    only.set(slot);
                }
                set.keep(&only);
            }
            Gate::Metadata(selector) | Gate::Spread(selector) => set.keep(&selector.machines),
            Gate::Leader(leader) => self.unit(*leader).placed.restrict(set),
            Gate::Follow(pattern) => {
                set.keep(self.patterns.get(*pattern).placed.any());
                let own = self.unit(unit).placed.iter();
                own.filter(|slot| self.others_placed(unit, *pattern, *slot) == 0)
                    .for_each(|slot| set.clear(slot));
            }
            Gate::Leaving => {
                let it = self.unit(unit);
                it.departing.iter().chain(it.moving.iter()).for_each(|slot| set.clear(slot));
            }
            Gate::Conflicts(tally) => set.take_out(tally.any()),
            Gate::Most { siblings, most } => {
                for slot in self.patterns.get(*siblings).matched.any().iter() {
                    if self.siblings_on(unit, *siblings, slot) >= *most {
                        set.clear(slot);
                    }
                }
            }
            Gate::Room(amount) => {
                let own = self.entries(unit);
                let full = |slot: &Slot| !self.machine(*slot).used.fits(amount);
                for slot in set.iter().filter(full).collect::<Vec<_>>() {
                    if own.iter().all(|(here, _)| *here != slot) || !self.fits_beside(unit, slot) {
                        set.clear(slot);
                    }
                }
            }
            Gate::Replaced(tally) => {
                if self.classes.get(self.unit(unit).class).replaces.is_empty() {
                    set.take_out(tally.any());
                    return;
                }
                // It replaces others too: those that replace each other let each other be.
                for slot in tally.any().iter().filter(|slot| self.pusher(unit, *slot).is_some()) {
                    set.clear(slot);
                }
            }
        }
    }

    /// How many others of its template have an entry on a machine.
    fn siblings_on(&self, unit: UnitIx, siblings: PatternIx, slot: Slot) -> u32 {
        self.patterns.get(siblings).matched.count(slot) - self.entries_on(unit, slot)
    }

    /// What is reserved on a machine by all but the unit's own entries there.
    fn used_by_others(&self, unit: UnitIx, slot: Slot) -> super::room::Usage {
        let mut used = self.machine(slot).used.clone();
        let reserve = &self.classes.get(self.unit(unit).class).reserve;
        (0..self.entries_on(unit, slot)).for_each(|_| used.sub(reserve));
        used
    }

    /// Tells whether what a unit reserves fits beside the others on its own machine.
    fn fits_beside(&self, unit: UnitIx, slot: Slot) -> bool {
        self.used_by_others(unit, slot).fits(&self.classes.get(self.unit(unit).class).reserve)
    }

    /// Returns the machines that may get a unit which none of them has.
    pub(super) fn candidates(&self, unit: UnitIx, along: &[UnitIx]) -> Bits {
        let mut set = self.open.clone();
        self.gates(unit, along).for_each(|gate| self.narrow(unit, &gate, &mut set));
        set
    }

    /// Returns the machines that could get a unit if only they had the room.
    pub(super) fn candidates_but_room(&self, unit: UnitIx) -> Bits {
        let mut set = self.open.clone();
        let gates = self.gates(unit, &[]).filter(|gate| !matches!(gate, Gate::Room(_)));
        gates.for_each(|gate| self.narrow(unit, &gate, &mut set));
        set
    }

    /// Tells whether a machine that just got a unit is closed to the next one of the same group; whether it
    /// has the room is not asked.
    pub(super) fn is_blocked(&self, unit: UnitIx, slot: Slot) -> bool {
        let it = self.unit(unit);
        let own = &self.classes.get(it.class).conflicts;
        own.iter().any(|p| self.patterns.get(*p).matched.any().get(slot))
            || self.caps(unit).any(|(siblings, most)| self.patterns.get(siblings).matched.count(slot) >= most)
            || self.patterns.matches(it.matched).iter().any(|p| {
                let pattern = self.patterns.get(*p);
                pattern.conflicting.any().get(slot)
                    || (pattern.replacing.any().get(slot) && self.pusher(unit, slot).is_some())
            })
    }

    /// Returns every rule that keeps a unit from a living machine.
    pub(super) fn refusals(&self, unit: UnitIx, slot: Slot) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if let Some(view) = &self.machine(slot).view {
            if view.draining {
                reasons.push(Reason::Draining);
            } else if !view.schedulable {
                reasons.push(Reason::NotSchedulable);
            }
        }
        let mut only = Bits::default();
        only.set(slot);
        for gate in self.gates(unit, &[]) {
            let mut through = only.clone();
            self.narrow(unit, &gate, &mut through);
            if !through.is_empty() {
                continue;
            }
            match gate {
                Gate::Room(amount) => reasons.extend(self.lacking(unit, slot, amount)),
                gate => reasons.extend(self.reason(unit, slot, &gate)),
            }
        }
        reasons.dedup();
        reasons
    }

    /// Says what of a machine's room is missing for a unit.
    fn lacking(&self, unit: UnitIx, slot: Slot, amount: &Amount) -> Vec<Reason> {
        let used = self.used_by_others(unit, slot);
        let lacks = used.lacks(amount, &self.resources);
        let room =
            lacks.into_iter().map(|(resource, asked, free, all)| Reason::Room { resource, asked, free, all });
        let holder = |port: u16| {
            let holds = |other: &UnitIx| {
                *other != unit && self.classes.get(self.unit(*other).class).reserve.ports.contains(&port)
            };
            self.machine(slot).all_units().filter(holds).map(|other| &self.unit(other).name).min()
        };
        let ports =
            used.held(amount).filter_map(|port| Some(Reason::Port { port, by: holder(port)?.clone() }));
        room.chain(ports).collect()
    }

    /// Says why a gate is closed. `None` when all that it met was the unit itself.
    pub(super) fn reason(&self, unit: UnitIx, slot: Slot, gate: &Gate<'_>) -> Option<Reason> {
        Some(match gate {
            Gate::Machine { wanted, slots } => {
                let several = slots.len() > 1 && slots.contains(&slot);
                let ids = slots.iter().map(|slot| self.machine(*slot).id);
                Reason::MachineId {
                    wanted: (*wanted).clone(),
                    shared: if several { ids.collect() } else { BTreeSet::new() },
                }
            }
            Gate::Metadata(selector) => Reason::Metadata {
                wanted: selector.wanted.clone(),
                found: self.machine(slot).view.as_ref()?.metadata.get(&selector.wanted.key).cloned(),
            },
            Gate::Spread(selector) => Reason::Spread { key: selector.wanted.key.clone() },
            Gate::Follow(pattern) => {
                Reason::MachineOfAny { pattern: self.patterns.get(*pattern).glob.clone() }
            }
            Gate::Most { siblings, most } => {
                Reason::MaxPerMachine { has: self.siblings_on(unit, *siblings, slot), most: *most }
            }
            Gate::Room(amount) => return self.lacking(unit, slot, amount).into_iter().next(),
            Gate::Leader(leader) => {
                let it = self.unit(*leader);
                let is = match it.status {
                    _ if self.is_live(*leader) => LeaderIs::Elsewhere,
                    Status::Unknown => LeaderIs::Unknown,
                    Status::Wanted | Status::Kept => LeaderIs::Unplaced,
                    Status::Inactive | Status::Destroyed => LeaderIs::Inactive,
                };
                Reason::MachineOf { leader: it.name.clone(), is }
            }
            Gate::Leaving => Reason::StillDeparting,
            Gate::Conflicts(_) => {
                Reason::Conflict { with: self.unit(self.opponent(unit, slot)?).name.clone() }
            }
            Gate::Replaced(_) => Reason::Replaced { by: self.unit(self.pusher(unit, slot)?).name.clone() },
        })
    }

    /// Tells whether a unit may stay on a machine.
    pub(super) fn stays(&self, unit: UnitIx, slot: Slot) -> Stay {
        let it = self.unit(unit);
        match it.status {
            Status::Unknown | Status::Kept => return Stay::Yes,
            Status::Destroyed => return Stay::No(Departure::Destroyed, None),
            Status::Inactive => return Stay::No(Departure::Unloaded, None),
            Status::Wanted => {}
        }
        // On a dead machine it stays until another one takes it.
        let Some(view) = &self.machine(slot).view else { return Stay::Yes };
        let class = self.classes.get(it.class);
        // A global unit has nowhere to be started first; the others are moved (`moves`).
        if view.draining && class.requirements.global && !self.is_needed(unit, slot) {
            return Stay::No(Departure::Drained, None);
        }
        for gate in self.gates(unit, &[]) {
            let open = match &gate {
                Gate::Machine { wanted, .. } => wanted.names(&self.machine(slot).id, &view.host),
                Gate::Metadata(selector) | Gate::Spread(selector) => selector.machines.get(slot),
                // Of a leader that nobody knows nothing is concluded: its record may just be missing.
                Gate::Leader(leader) => {
                    let it = self.unit(*leader);
                    let home = it.placed.contains(slot) || it.moving.contains(slot);
                    home || (it.status == Status::Unknown && !self.is_live(*leader))
                }
                Gate::Follow(pattern) => self.others_home(unit, *pattern, slot) > 0,
                // What grew in place stays in place; it is counted, and shown.
                Gate::Leaving
                | Gate::Conflicts(_)
                | Gate::Most { .. }
                | Gate::Room(_)
                | Gate::Replaced(_) => true,
            };
            if !open {
                return Stay::No(Departure::Requirements, self.reason(unit, slot, &gate));
            }
        }
        if self.is_contested(unit, slot) { Stay::Contested } else { Stay::Yes }
    }

    /// Tells whether others on the machine may be in a unit's way, or it in theirs.
    fn is_contested(&self, unit: UnitIx, slot: Slot) -> bool {
        let it = self.unit(unit);
        let class = self.classes.get(it.class);
        let matched = self.patterns.matches(it.matched);
        let own = self.entries_on(unit, slot);
        let mine = |counts: bool| if counts { own } else { 0 };
        !class.replaces.is_empty()
            || self.is_crowded(unit, slot)
            || class
                .conflicts
                .iter()
                .any(|p| self.patterns.get(*p).matched.count(slot) > mine(matched.contains(p)))
            || matched.iter().any(|p| {
                let pattern = self.patterns.get(*p);
                pattern.conflicting.count(slot) > mine(class.conflicts.contains(p))
                    || pattern.replacing.count(slot) > 0
            })
    }

    /// How many of its template a machine may have: the pattern of its instances, and the number.
    pub(super) fn caps(&self, unit: UnitIx) -> impl Iterator<Item = (PatternIx, u32)> {
        let matched = self.patterns.matches(self.unit(unit).matched).iter();
        matched.filter_map(|pattern| Some((*pattern, self.patterns.get(*pattern).cap()?)))
    }

    /// How many of its template a unit itself wants on a machine at most. Another's wish keeps new ones away and
    /// makes none leave: each gets a new text in its turn.
    fn own_cap(&self, unit: UnitIx) -> Option<(PatternIx, u32)> {
        let it = self.unit(unit);
        it.siblings.zip(self.classes.get(it.class).requirements.max_per_machine)
    }

    /// Tells whether more of a unit's template are on a machine than any of them wants there.
    fn is_crowded(&self, unit: UnitIx, slot: Slot) -> bool {
        self.caps(unit).any(|(siblings, most)| self.patterns.get(siblings).matched.count(slot) > most)
    }

    /// Says why a unit has to make room for others of its template that have precedence.
    pub(super) fn crowded_out(&self, unit: UnitIx, slot: Slot) -> Option<Reason> {
        let key = self.precedence(unit);
        self.own_cap(unit).and_then(|(siblings, most)| {
            if self.patterns.get(siblings).matched.count(slot) <= most {
                return None;
            }
            let before = self.machine(slot).units.iter().filter(|other| {
                **other != unit
                    && self.is_matched(**other, siblings)
                    && self.unit(**other).status == Status::Wanted
                    && self.precedence(**other) < key
            });
            let has = u32::try_from(before.count()).unwrap_or(u32::MAX);
            (has >= most).then_some(Reason::MaxPerMachine { has, most })
        })
    }

    /// Tells whether two units may not share a machine.
    pub(super) fn conflict(&self, one: UnitIx, other: UnitIx) -> bool {
        let blocks = |one: UnitIx, other: UnitIx| {
            let own = &self.classes.get(self.unit(one).class).conflicts;
            let matched = self.patterns.matches(self.unit(other).matched);
            own.iter().any(|pattern| matched.contains(pattern))
        };
        one != other && (blocks(one, other) || blocks(other, one))
    }

    /// Tells whether the first pushes the second off its machine; those that would push each other do
    /// not.
    pub(super) fn pushes(&self, one: UnitIx, other: UnitIx) -> bool {
        let names = |one: UnitIx, other: UnitIx| {
            let own = &self.classes.get(self.unit(one).class).replaces;
            let matched = self.patterns.matches(self.unit(other).matched);
            own.iter().any(|pattern| matched.contains(pattern))
        };
        one != other && names(one, other) && !names(other, one)
    }

    /// Returns the first unit, placed or departing, that a unit may not share a machine with.
    fn opponent(&self, unit: UnitIx, slot: Slot) -> Option<UnitIx> {
        let machine = self.machine(slot);
        let there = machine.all_units();
        there.filter(|other| self.conflict(unit, *other)).min_by_key(|other| &self.unit(*other).name)
    }

    /// Returns the first unit on a machine that pushes a unit off it.
    pub(super) fn pusher(&self, unit: UnitIx, slot: Slot) -> Option<UnitIx> {
        let there = self.machine(slot).units.iter().copied();
        there.filter(|other| self.pushes(*other, unit)).min_by_key(|other| &self.unit(*other).name)
    }

    /// Tells whether a unit is placed on a machine that lives.
    pub(super) fn is_live(&self, unit: UnitIx) -> bool {
        self.unit(unit).placed.iter().any(|slot| self.lives(slot))
    }

    /// Units that are not global go before global ones, those tied to a machine or to other units before
    /// those that could go elsewhere, then names decide.
    pub(super) fn precedence(&self, unit: UnitIx) -> Precedence {
        let it = self.unit(unit);
        let asks = &self.classes.get(it.class).requirements;
        (asks.global, asks.machine.is_none() && asks.machine_of.is_empty(), it.name.clone())
    }

    /// Who is placed first, and whom others may push away.
    pub(super) fn priority(&self, unit: UnitIx) -> i16 {
        self.classes.get(self.unit(unit).class).requirements.priority
    }
}
