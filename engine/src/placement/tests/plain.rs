//! The rules once more, as plainly as they can be said: every unit against every machine and every
//! other unit. What the core keeps in indexes is compared with this.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_registry::records::Departure;
use flotilla_units::{Glob, PreferTerm, Reservation};

use super::*;

/// The facts, as they would be read from the store.
#[derive(Debug, Default, Clone)]
pub(super) struct Plain {
    pub(super) machines: BTreeMap<MachineId, MachineView>,
    pub(super) units: BTreeMap<UnitName, PlainUnit>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct PlainUnit {
    /// What it asks for, and whether it is wanted.
    pub(super) known: Option<(Arc<UnitRequirements>, Wanted)>,
    pub(super) destroyed: bool,
    pub(super) placed: BTreeSet<MachineId>,
    pub(super) moving: BTreeSet<MachineId>,
    pub(super) moves_for: Option<Departure>,
    pub(super) departing: BTreeSet<MachineId>,
    pub(super) ready: BTreeSet<MachineId>,
}

/// What decides between machines, the lesser the better.
pub(super) type Worth = (Vec<u32>, i32, u64, u32, MachineId);

impl PlainUnit {
    pub(super) fn home(&self, machine: MachineId) -> bool {
        self.placed.contains(&machine) || self.moving.contains(&machine)
    }

    fn entries(&self, machine: MachineId) -> u32 {
        let all = [&self.placed, &self.moving, &self.departing];
        all.into_iter().map(|homes| u32::from(homes.contains(&machine))).sum()
    }
}

fn hits(globs: &BTreeSet<Glob>, name: &UnitName) -> bool {
    globs.iter().any(|glob| glob.matches(name.as_str()))
}

fn hits_any(glob: &Glob, names: &[UnitName]) -> bool {
    names.iter().any(|name| glob.matches(name.as_str()))
}

fn is_sibling(one: &UnitName, other: &UnitName) -> bool {
    one != other && one.template().is_some() && one.template() == other.template()
}

impl Plain {
    pub(super) fn asks(&self, unit: &UnitName) -> Arc<UnitRequirements> {
        let known = self.units.get(unit).and_then(|unit| unit.known.clone());
        known.map(|(requirements, _)| requirements).unwrap_or_default()
    }

    pub(super) fn is_wanted(&self, unit: &UnitName) -> bool {
        let Some(unit) = self.units.get(unit) else { return false };
        !unit.destroyed && matches!(unit.known, Some((_, Wanted::Placed)))
    }

    pub(super) fn forget(&mut self) {
        self.units.retain(|_, unit| {
            let entries = [&unit.placed, &unit.moving, &unit.departing];
            entries.iter().any(|homes| !homes.is_empty()) || (unit.known.is_some() && !unit.destroyed)
        });
    }

    pub(super) fn lives(&self, machine: &MachineId) -> bool {
        self.machines.contains_key(machine)
    }

    pub(super) fn drains(&self, machine: &MachineId) -> bool {
        self.machines.get(machine).is_some_and(|view| view.draining)
    }

    /// The living machines where a unit stays.
    pub(super) fn live(&self, unit: &UnitName) -> Vec<MachineId> {
        let placed = self.units.get(unit).map(|unit| unit.placed.clone()).unwrap_or_default();
        placed.into_iter().filter(|id| self.lives(id)).collect()
    }

    /// Tells whether a unit that is not global has nothing on a machine that lives, and may be placed.
    pub(super) fn is_free(&self, unit: &UnitName) -> bool {
        let it = &self.units[unit];
        let mut all = it.placed.iter().chain(&it.moving).chain(&it.departing);
        let sticks = self.asks(unit).sticky && !it.placed.is_empty();
        !sticks && !all.any(|id| self.lives(id))
    }

    pub(super) fn load(&self, machine: MachineId) -> u32 {
        self.units.values().map(|unit| unit.entries(machine)).sum()
    }

    /// What is reserved on a machine, by all but one unit.
    fn reserved(&self, machine: MachineId, but: Option<&UnitName>) -> Reservation {
        let mut sum = Reservation::default();
        for (unit, it) in self.units.iter().filter(|(unit, _)| Some(*unit) != but) {
            let asks = self.asks(unit).reserve.clone();
            for _ in 0..it.entries(machine) {
                sum.cpu_milli += asks.cpu_milli;
                sum.memory_bytes += asks.memory_bytes;
                asks.named.iter().for_each(|(name, n)| *sum.named.entry(name.clone()).or_default() += n);
                sum.ports.extend(&asks.ports);
            }
        }
        sum
    }

    fn lacks(&self, unit: &UnitName, machine: MachineId) -> Vec<Reason> {
        let (asks, has) = (self.asks(unit), &self.machines[&machine].capacity);
        let used = self.reserved(machine, Some(unit));
        let mut out = Vec::new();
        let mut look = |resource, asked: u64, used: u64, all: u64| {
            if asked > 0 && used + asked > all {
                out.push(Reason::Room { resource, asked, free: all.saturating_sub(used), all });
            }
        };
        let wanted = &asks.reserve;
        look(Resource::Cpu, wanted.cpu_milli, used.cpu_milli, has.cpu_milli);
        look(Resource::Memory, wanted.memory_bytes, used.memory_bytes, has.memory_bytes);
        for (name, asked) in &wanted.named {
            let count = |of: &BTreeMap<String, u64>| of.get(name).copied().unwrap_or(0);
            look(Resource::Named(name.clone()), *asked, count(&used.named), count(&has.named));
        }
        for port in wanted.ports.intersection(&used.ports) {
            let holds = |other: &&UnitName| {
                *other != unit
                    && self.units[*other].entries(machine) > 0
                    && self.asks(other).reserve.ports.contains(port)
            };
            let by = self.units.keys().find(holds).unwrap().clone();
            out.push(Reason::Port { port: *port, by });
        }
        out
    }

    /// How many others of its template have something on a machine.
    fn siblings(&self, unit: &UnitName, machine: MachineId) -> u32 {
        let others = self.units.iter().filter(|(other, _)| is_sibling(unit, other));
        others.map(|(_, it)| it.entries(machine)).sum()
    }

    /// How many of its template a machine may have: the least that any of them asks for.
    fn cap(&self, unit: &UnitName) -> Option<u32> {
        let all = self.units.keys().filter(|other| *other == unit || is_sibling(unit, other));
        all.filter(|other| other.template().is_some()).filter_map(|it| self.asks(it).max_per_machine).min()
    }

    fn is_followed_there(&self, unit: &UnitName, glob: &Glob, there: impl Fn(&PlainUnit) -> bool) -> bool {
        self.units.iter().any(|(other, it)| other != unit && glob.matches(other.as_str()) && there(it))
    }

    /// Why a unit may not be on a machine.
    pub(super) fn refusals(&self, unit: &UnitName, machine: MachineId) -> Vec<Reason> {
        let (it, view, mut out) = (self.asks(unit), &self.machines[&machine], Vec::new());
        if view.draining {
            out.push(Reason::Draining);
        } else if !view.schedulable {
            out.push(Reason::NotSchedulable);
        }
        if let Some(wanted) = &it.machine {
            let named = self.machines.iter().filter(|(id, view)| wanted.names(id, &view.host));
            let named: BTreeSet<MachineId> = named.map(|(id, _)| *id).collect();
            if named != BTreeSet::from([machine]) {
                let shared = if named.contains(&machine) { named } else { BTreeSet::new() };
                out.push(Reason::MachineId { wanted: wanted.clone(), shared });
            }
        }
        for wanted in &it.metadata {
            let found = view.metadata.get(&wanted.key).cloned();
            if !wanted.meets(found.as_deref()) {
                out.push(Reason::Metadata { wanted: wanted.clone(), found });
            }
        }
        let missing = it.spread.iter().filter(|key| !view.metadata.contains_key(*key));
        out.extend(missing.map(|key| Reason::Spread { key: key.clone() }));
        for leader in it.machine_of.iter().filter_map(|glob| glob.literal()) {
            let leader = &name(leader);
            let is = match self.units.get(leader) {
                None => LeaderIs::Unknown,
                Some(unit) if unit.placed.contains(&machine) => continue,
                Some(_) if !self.live(leader).is_empty() => LeaderIs::Elsewhere,
                Some(_) if self.is_wanted(leader) => LeaderIs::Unplaced,
                Some(unit) if unit.known.is_none() && !unit.destroyed => LeaderIs::Unknown,
                Some(_) => LeaderIs::Inactive,
            };
            out.push(Reason::MachineOf { leader: leader.clone(), is });
        }
        for pattern in it.machine_of.iter().filter(|glob| glob.literal().is_none()) {
            if !self.is_followed_there(unit, pattern, |it| it.placed.contains(&machine)) {
                out.push(Reason::MachineOfAny { pattern: pattern.clone() });
            }
        }
        let own = &self.units[unit];
        if own.departing.contains(&machine) || own.moving.contains(&machine) {
            out.push(Reason::StillDeparting);
        }
        out.extend(
            self.opponents(unit, machine, true).first().map(|with| Reason::Conflict { with: with.clone() }),
        );
        if let Some(most) = self.cap(unit) {
            let has = self.siblings(unit, machine);
            if has >= most {
                out.push(Reason::MaxPerMachine { has, most });
            }
        }
        out.extend(self.lacks(unit, machine));
        out.extend(self.pushers(unit, machine).first().map(|by| Reason::Replaced { by: by.clone() }));
        out
    }

    /// Returns a machine that a unit, which waits, and all whom it follows and who wait too could go to together.
    pub(super) fn could_go(&self, unit: &UnitName) -> Option<MachineId> {
        let mut all = vec![unit.clone()];
        let mut next = 0;
        while let Some(one) = all.get(next).cloned() {
            next += 1;
            for leader in self.asks(&one).machine_of.iter().filter_map(|glob| glob.literal()) {
                let leader = name(leader);
                if !self.live(&leader).is_empty() || all.contains(&leader) {
                    continue;
                }
                let waits = self.is_wanted(&leader) && self.is_free(&leader) && !self.asks(&leader).global;
                if !waits {
                    return None;
                }
                all.push(leader);
            }
        }
        self.machines.keys().copied().find(|id| {
            let mut then = self.clone();
            for (_, it) in then.units.iter_mut().filter(|(unit, _)| all.contains(unit)) {
                it.placed.insert(*id);
            }
            all.iter().all(|one| then.refusals(one, *id).is_empty())
        })
    }

    /// Returns a machine that a unit could be started on to leave another, with all who are tied to it there by
    /// name. Nothing is said of those that patterns tie.
    pub(super) fn could_leave(&self, unit: &UnitName, from: MachineId) -> Option<MachineId> {
        let mut all = vec![unit.clone()];
        let mut next = 0;
        while let Some(one) = all.get(next).cloned() {
            next += 1;
            let by_pattern =
                |globs: &BTreeSet<Glob>| globs.iter().any(|g| g.literal().is_none() && hits_any(g, &all));
            let tied = self.asks(&one).machine_of.iter().any(|glob| glob.literal().is_none())
                || self.units.keys().any(|other| by_pattern(&self.asks(other).machine_of));
            if tied || !self.is_movable(&one, from) {
                return None;
            }
            let others = self.units.iter().filter(|(_, it)| it.placed.contains(&from));
            let names = |one: &UnitName, other: &UnitName| {
                self.asks(one).machine_of.iter().any(|glob| glob.literal() == Some(other.as_str()))
            };
            for (other, _) in others.filter(|(other, _)| names(other, &one) || names(&one, other)) {
                if !all.contains(other) && !self.asks(other).global {
                    all.push(other.clone());
                }
            }
        }
        self.machines.keys().copied().filter(|id| *id != from).find(|id| {
            let mut then = self.clone();
            for (_, it) in then.units.iter_mut().filter(|(unit, _)| all.contains(unit)) {
                it.placed = [*id].into();
                it.moving = [from].into();
            }
            all.iter().all(|one| then.refusals(one, *id).is_empty())
        })
    }

    /// Units on a machine that conflict with one, by name.
    fn opponents(&self, unit: &UnitName, machine: MachineId, leaving: bool) -> Vec<UnitName> {
        let it = self.asks(unit);
        let there = |u: &PlainUnit| u.placed.contains(&machine) || (leaving && u.entries(machine) > 0);
        let others = self.units.iter().filter(|(other, u)| *other != unit && there(u));
        let conflicts =
            |other: &UnitName| hits(&it.conflicts, other) || hits(&self.asks(other).conflicts, unit);
        others.map(|(other, _)| other.clone()).filter(conflicts).collect()
    }

    fn pushers(&self, unit: &UnitName, machine: MachineId) -> Vec<UnitName> {
        let it = self.asks(unit);
        let others = self.units.iter().filter(|(other, u)| *other != unit && u.placed.contains(&machine));
        let pushes = |other: &UnitName| hits(&self.asks(other).replaces, unit) && !hits(&it.replaces, other);
        others.map(|(other, _)| other.clone()).filter(pushes).collect()
    }

    /// Tells whether somebody who is not ready elsewhere may be on a machine only as long as this unit is.
    pub(super) fn is_needed(&self, unit: &UnitName, machine: MachineId) -> bool {
        self.units.iter().any(|(other, it)| {
            let runs = !it.destroyed && !matches!(it.known, None | Some((_, Wanted::Nowhere)));
            let ready = it.moving.contains(&machine) && it.ready.iter().any(|id| self.lives(id));
            let needs = |glob: &Glob| match glob.literal() {
                Some(leader) => leader == unit.as_str(),
                None => {
                    glob.matches(unit.as_str())
                        && !self.units.iter().any(|(third, it)| {
                            third != other
                                && third != unit
                                && glob.matches(third.as_str())
                                && it.home(machine)
                        })
                }
            };
            other != unit
                && runs
                && !ready
                && it.home(machine)
                && self.asks(other).machine_of.iter().any(needs)
        })
    }

    /// Why a unit may not stay on a living machine, if it may not.
    pub(super) fn must_leave(&self, unit: &UnitName, machine: MachineId) -> Option<Departure> {
        let it = &self.units[unit];
        if it.destroyed {
            return Some(Departure::Destroyed);
        }
        let (asks, wanted) = it.known.as_ref()?;
        match wanted {
            Wanted::Nowhere => return Some(Departure::Unloaded),
            Wanted::AsIs => return None,
            Wanted::Placed => {}
        }
        let view = self.machines.get(&machine)?;
        if view.draining && asks.global && !self.is_needed(unit, machine) {
            return Some(Departure::Drained);
        }
        let broken = |reason: &Reason| match reason {
            Reason::MachineId { wanted, .. } => !wanted.names(&machine, &view.host),
            Reason::Metadata { .. } | Reason::Spread { .. } => true,
            Reason::MachineOf { leader, is } => {
                *is != LeaderIs::Unknown && !self.units.get(leader).is_some_and(|it| it.home(machine))
            }
            Reason::MachineOfAny { pattern } => !self.is_followed_there(unit, pattern, |it| it.home(machine)),
            _ => false,
        };
        if self.refusals(unit, machine).iter().any(broken) {
            return Some(Departure::Requirements);
        }
        if it.moving.contains(&machine) {
            return None;
        }
        let precedence = |name: &UnitName| {
            let it = self.asks(name);
            (it.global, it.machine.is_none() && it.machine_of.is_empty(), name.clone())
        };
        let first = |other: &UnitName| self.is_wanted(other) && precedence(other) < precedence(unit);
        let loses = self.opponents(unit, machine, false).iter().any(&first);
        let before = self
            .units
            .iter()
            .filter(|(other, it)| is_sibling(unit, other) && it.placed.contains(&machine) && first(other));
        let before = before.count();
        let own = asks.max_per_machine.filter(|_| unit.template().is_some());
        let crowded = own.is_some_and(|most| before >= most as usize);
        if !self.pushers(unit, machine).is_empty() {
            Some(Departure::Replaced)
        } else if loses || crowded {
            Some(Departure::Requirements)
        } else {
            (!asks.global && self.live(unit).len() > 1).then_some(Departure::MachineLost)
        }
    }

    /// Tells whether a unit may be started elsewhere before it leaves a machine.
    pub(super) fn is_movable(&self, unit: &UnitName, from: MachineId) -> bool {
        let (it, asks) = (&self.units[unit], self.asks(unit));
        let elsewhere = it.placed.iter().chain(&it.departing).any(|id| *id != from && self.lives(id));
        self.is_wanted(unit)
            && !asks.global
            && !asks.sticky
            && it.moving.is_empty()
            && !elsewhere
            && !it.departing.contains(&from)
            && self.must_leave(unit, from).is_none_or(|why| why == Departure::Replaced)
    }

    /// What decides between machines for a unit, of which these can take it.
    pub(super) fn worth(&self, unit: &UnitName, machine: MachineId, among: &[MachineId]) -> Worth {
        let asks = self.asks(unit);
        let value = |id: &MachineId, key: &str| {
            self.machines.get(id).and_then(|view| view.metadata.get(key).cloned()).unwrap_or_default()
        };
        let instances = |id: &MachineId, key: &str| {
            let here = value(id, key);
            let siblings = self.units.iter().filter(|(other, _)| is_sibling(unit, other));
            let homes = siblings.flat_map(|(_, it)| &it.placed).filter(|id| self.lives(id));
            u32::try_from(homes.filter(|id| value(id, key) == here).count()).unwrap()
        };
        let spread = asks.spread.iter().map(|key| instances(&machine, key)).collect();
        let met = asks.prefer.iter().filter(|wish| match &wish.term {
            PreferTerm::Metadata(selector) => {
                selector.meets(self.machines[&machine].metadata.get(&selector.key).map(String::as_str))
            }
            PreferTerm::MachineOf(glob) => {
                self.is_followed_there(unit, glob, |it| it.placed.contains(&machine))
            }
            PreferTerm::Spread(key) => {
                among.iter().all(|other| instances(&machine, key) <= instances(other, key))
            }
        });
        let wishes: i32 = met.map(|wish| i32::from(wish.weight)).sum();
        let share = if asks.reserve.is_empty() { 0 } else { self.share_with(unit, machine) };
        (spread, -wishes, share, self.load(machine), machine)
    }

    /// The dominant share of a machine with a unit there, in 2^20ths.
    fn share_with(&self, unit: &UnitName, machine: MachineId) -> u64 {
        let (asks, has) = (self.asks(unit), &self.machines[&machine].capacity);
        let used = self.reserved(machine, None);
        let share = |used: u64, all: u64| match (used, all) {
            (0, _) => 0,
            (_, 0) => u64::from(u32::MAX),
            (used, all) => (used << 20) / all,
        };
        let names = has.named.keys().chain(used.named.keys()).chain(asks.reserve.named.keys());
        let of = |named: &BTreeMap<String, u64>, name: &String| named.get(name).copied().unwrap_or(0);
        names
            .map(|name| share(of(&used.named, name) + of(&asks.reserve.named, name), of(&has.named, name)))
            .chain([share(used.cpu_milli + asks.reserve.cpu_milli, has.cpu_milli)])
            .chain([share(used.memory_bytes + asks.reserve.memory_bytes, has.memory_bytes)])
            .max()
            .unwrap_or(0)
    }
}
