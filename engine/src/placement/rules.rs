//! The rules: which machines may have a unit, and which units may stay.
//!
//! A unit's rules are a list of [`Gate`]s. Placing narrows a set of machines through all of them at
//! once; explaining asks them machine by machine. Both are the same gates.

use flotilla_registry::records::Departure;
use flotilla_units::{MachineChoice, UnitName};

use super::{
    LeaderIs, Placement, Reason,
    bits::{Bits, Homes, Slot, Tally},
    classes::Asked,
    model::{Status, UnitIx},
};

/// Who stays when two cannot, and who is placed first of equals: the lesser one.
pub(super) type Precedence = (bool, bool, UnitName);

/// One rule of one unit.
enum Gate<'a> {
    Machine { wanted: &'a MachineChoice, slot: Option<Slot> },
    Metadata(&'a Asked),
    Leader(UnitIx),
    Departing(&'a Homes),
    Conflicts(&'a Tally),
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
    fn gates<'a>(&'a self, unit: UnitIx, along: &'a [UnitIx]) -> impl Iterator<Item = Gate<'a>> {
        let it = self.unit(unit);
        let class = self.classes.get(it.class);
        let machine = class.requirements.machine.as_ref().map(|wanted| {
            let slot = match wanted {
                MachineChoice::Id(id) => self.by_id.get(id).copied(),
                MachineChoice::Prefix(_) | MachineChoice::Host(_) => None,
            };
            Gate::Machine { wanted, slot }
        });
        let selectors = class.selectors.iter().filter_map(|s| self.selectors.get(*s)).map(Gate::Metadata);
        let leaders = class.leaders.iter().filter(|leader| !along.contains(leader));
        let departing = (!it.departing.is_empty()).then_some(Gate::Departing(&it.departing));
        let own = class.conflicts.iter().map(|p| Gate::Conflicts(&self.patterns.get(*p).matched));
        let matched = self.patterns.matches(it.matched);
        let others = matched.iter().map(|p| Gate::Conflicts(&self.patterns.get(*p).conflicting));
        let replaced = matched.iter().map(|p| Gate::Replaced(&self.patterns.get(*p).replacing));
        machine
            .into_iter()
            .chain(selectors)
            .chain(leaders.map(|leader| Gate::Leader(*leader)))
            .chain(departing)
            .chain(own)
            .chain(others)
            .chain(replaced)
    }

    /// Leaves in a set the machines that a gate lets the unit through to.
    fn narrow(&self, unit: UnitIx, gate: &Gate<'_>, set: &mut Bits) {
        match gate {
            Gate::Machine { slot, .. } => slot.map_or(Homes::Nowhere, Homes::At).restrict(set),
            Gate::Metadata(selector) => set.keep(&selector.machines),
            Gate::Leader(leader) => self.unit(*leader).placed.restrict(set),
            Gate::Departing(homes) => homes.iter().for_each(|slot| set.clear(slot)),
            Gate::Conflicts(tally) => set.take_out(tally.any()),
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

    /// Returns the machines that may get a unit which none of them has.
    pub(super) fn candidates(&self, unit: UnitIx, along: &[UnitIx]) -> Bits {
        let mut set = self.open.clone();
        self.gates(unit, along).for_each(|gate| self.narrow(unit, &gate, &mut set));
        set
    }

    /// Tells whether a machine that just got a unit is closed to the next one of the same group.
    pub(super) fn is_blocked(&self, unit: UnitIx, slot: Slot) -> bool {
        let it = self.unit(unit);
        let own = &self.classes.get(it.class).conflicts;
        own.iter().any(|p| self.patterns.get(*p).matched.any().get(slot))
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
            if through.is_empty() {
                reasons.extend(self.reason(unit, slot, &gate));
            }
        }
        reasons.dedup();
        reasons
    }

    /// Says why a gate is closed. `None` when all that it met was the unit itself.
    fn reason(&self, unit: UnitIx, slot: Slot, gate: &Gate<'_>) -> Option<Reason> {
        Some(match gate {
            Gate::Machine { wanted, .. } => Reason::MachineId { wanted: (*wanted).clone() },
            Gate::Metadata(selector) => Reason::Metadata {
                wanted: selector.wanted.clone(),
                found: self.machine(slot).view.as_ref()?.metadata.get(&selector.wanted.key).cloned(),
            },
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
            Gate::Departing(_) => Reason::StillDeparting,
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
        if view.draining {
            return Stay::No(Departure::Drained, None);
        }
        for gate in self.gates(unit, &[]) {
            let open = match &gate {
                Gate::Machine { slot: wanted, .. } => *wanted == Some(slot),
                Gate::Metadata(selector) => selector.machines.get(slot),
                // Of a leader that nobody knows nothing is concluded: its record may just be missing.
                Gate::Leader(leader) => {
                    let it = self.unit(*leader);
                    it.placed.contains(slot) || (it.status == Status::Unknown && !self.is_live(*leader))
                }
                Gate::Departing(_) | Gate::Conflicts(_) | Gate::Replaced(_) => true,
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
        let own = u32::from(it.placed.contains(slot)) + u32::from(it.departing.contains(slot));
        let mine = |counts: bool| if counts { own } else { 0 };
        !class.replaces.is_empty()
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
        let there = machine.units.iter().chain(&machine.leaving).copied();
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
}
