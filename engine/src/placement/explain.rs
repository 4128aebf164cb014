//! Why a unit is where it is, and why it is not elsewhere: as values, printed at the edge.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use flotilla_units::{Glob, Is, MachineChoice, MachineId, Selector, UnitName};

use super::{
    Placement,
    bits::{Bits, Homes, Slot},
    model::{Status, UnitIx},
    room::Resource,
};

/// How many units or values one line of an [`Explanation`] names before it only counts: a screen is
/// 80 columns and unit names are about 20.
const NAMED_AT_MOST: usize = 3;

/// Why a unit may not be on a machine. The order is the one in which rules are asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The machine gets no new units: it is cordoned, stopped or held.
    NotSchedulable,
    /// The machine is drained.
    Draining,
    /// `MachineID=` names another machine.
    MachineId {
        /// The machine it names.
        wanted: MachineChoice,
        /// The machines that it names, this one among them, if it names several: then none is meant.
        shared: BTreeSet<MachineId>,
    },
    /// `MachineMetadata=` does not match.
    Metadata {
        /// What would do.
        wanted: Selector,
        /// What the machine has.
        found: Option<String>,
    },
    /// The machine does not have a key of `Spread=`.
    Spread {
        /// The key.
        key: String,
    },
    /// `MachineOf=` names a unit that is not on the machine.
    MachineOf {
        /// The unit it names.
        leader: UnitName,
        /// Where that unit is.
        is: LeaderIs,
    },
    /// No other unit that a pattern of `MachineOf=` matches is on the machine.
    MachineOfAny {
        /// The pattern.
        pattern: Glob,
    },
    /// The unit is still leaving this very machine.
    StillDeparting,
    /// `Conflicts=`, of this unit or of the one on the machine.
    Conflict {
        /// The unit on the machine.
        with: UnitName,
    },
    /// The machine has as many units of the template as `MaxPerMachine=` allows.
    MaxPerMachine {
        /// How many others it has.
        has: u32,
        /// How many it may have.
        most: u32,
    },
    /// Less is free than the unit reserves.
    Room {
        /// Of what.
        resource: Resource,
        /// How much the unit reserves.
        asked: u64,
        /// How much nobody else has reserved.
        free: u64,
        /// How much there is.
        all: u64,
    },
    /// Another unit on the machine reserves the port.
    Port {
        /// The port.
        port: u16,
        /// The unit on the machine.
        by: UnitName,
    },
    /// A unit on the machine has `Replaces=` with this one.
    Replaced {
        /// The unit on the machine.
        by: UnitName,
    },
    /// A unit of higher priority needs the room. Said of those that leave only.
    Preempted {
        /// The unit that comes.
        by: UnitName,
    },
}

/// Where the leader of a `MachineOf=` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaderIs {
    /// Nobody has submitted it.
    Unknown,
    /// It is not to run.
    Inactive,
    /// It has no machine yet.
    Unplaced,
    /// It is on another machine.
    Elsewhere,
}

/// Where a unit stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The core was never told of it.
    Unknown,
    /// It is not to run anywhere.
    NotWanted,
    /// It is on these machines.
    Placed(Vec<MachineId>),
    /// It is being started elsewhere, and leaves once it is ready there.
    Moving {
        /// Where it is until then.
        from: Vec<MachineId>,
        /// Where it is started.
        to: Vec<MachineId>,
    },
    /// It is on a machine that is drained, and no other can take it with those that have to be with it.
    Stranded {
        /// Where it is.
        on: Vec<MachineId>,
        /// Who has to go where it goes.
        with: Vec<UnitName>,
    },
    /// It is `Sticky=`, and waits for these machines, none of which lives.
    Sticks(Vec<MachineId>),
    /// It goes nowhere before it is proven gone from these machines.
    Departing(Vec<MachineId>),
    /// Nothing is in its way: the next decision places it there.
    Placeable(MachineId),
    /// No machine can take it now; on these there is room once what leaves them is gone.
    Awaiting(Vec<MachineId>),
    /// No machine can take it.
    Unplaceable,
    /// It is left as it is, on these machines, of which none lives; on none, if there are none.
    Kept(Vec<MachineId>),
}

/// One machine's part in an [`Explanation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The machine.
    pub machine: MachineId,
    /// Its host name.
    pub host: String,
    /// How many units it has, departing ones included.
    pub load: u32,
    /// The unit is here.
    pub here: bool,
    /// Why the unit may not be here; empty when it may.
    pub reasons: Vec<Reason>,
}

/// Why a unit is where it is.
///
/// `Display` counts machines per rule, on one line: `2 machines: metadata zone=b does not match (a);
/// 1 machine: conflicts with web@1.service`. A machine counts for the first rule that it breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The unit.
    pub unit: UnitName,
    /// Where it stands.
    pub standing: Standing,
    /// Every living machine, by id.
    pub machines: Vec<Verdict>,
}

impl Explanation {
    /// Tells whether the unit has no machine and cannot get one as things are.
    #[must_use]
    pub const fn is_unplaceable(&self) -> bool {
        matches!(self.standing, Standing::Unplaceable)
    }

    /// Returns how many machines break each rule first, with the rule in words.
    #[must_use]
    pub fn counts(&self) -> Vec<(usize, String)> {
        // What a reason names (values, units) is collected, so that a thousand machines with a
        // thousand different conflicts are one line.
        let mut rules: BTreeMap<Reason, (usize, BTreeSet<String>)> = BTreeMap::new();
        for verdict in self.machines.iter().filter(|v| !v.here) {
            if let Some(reason) = verdict.reasons.first() {
                let (rule, named) = reason.split(&self.unit);
                let entry = rules.entry(rule).or_default();
                entry.0 += 1;
                entry.1.extend(named);
            }
        }
        rules.into_iter().map(|(rule, (count, named))| (count, rule.in_words(&some_of(&named)))).collect()
    }
}

impl Placement {
    pub(super) fn explain_unit(&self, name: &UnitName) -> Explanation {
        let ix = self.find(name);
        let known = ix.filter(|ix| {
            let it = self.unit(*ix);
            it.status != Status::Unknown || it.has_entries()
        });
        let Some(unit) = known else {
            return Explanation { unit: name.clone(), standing: Standing::Unknown, machines: Vec::new() };
        };
        let living = (0..).zip(&self.machines).filter_map(|(slot, m)| Some((slot, m, m.view.as_ref()?)));
        let mut machines: Vec<Verdict> = living
            .map(|(slot, machine, view)| Verdict {
                machine: machine.id,
                host: view.host.clone(),
                load: machine.load,
                here: self.unit(unit).placed.contains(slot),
                reasons: self.refusals(unit, slot),
            })
            .collect();
        machines.sort_by_key(|verdict| verdict.machine);
        Explanation { unit: name.clone(), standing: self.standing(unit), machines }
    }

    pub(super) fn standing(&self, unit: UnitIx) -> Standing {
        let it = self.unit(unit);
        let ids = |homes: &Homes, wanted: &dyn Fn(Slot) -> bool| {
            let slots = homes.iter().filter(|slot| wanted(*slot));
            let mut ids: Vec<MachineId> = slots.map(|slot| self.machine(slot).id).collect();
            ids.sort_unstable();
            ids
        };
        let living = |homes: &Homes| ids(homes, &|slot| self.lives(slot));
        let (placed, departing) = (living(&it.placed), living(&it.departing));
        let moving = living(&it.moving);
        let asks = &self.classes.get(it.class).requirements;
        if placed.is_empty() && !moving.is_empty() {
            return Standing::Placed(moving);
        } else if !placed.is_empty() && !moving.is_empty() {
            return Standing::Moving { from: moving, to: placed };
        } else if !placed.is_empty() {
            let drained = it.placed.iter().find(|slot| self.machine(*slot).drains());
            let waits = it.status == Status::Wanted && !asks.global && departing.is_empty();
            let stranded = drained.filter(|slot| waits && self.way_out(unit, *slot).is_none());
            let Some(slot) = stranded else { return Standing::Placed(placed) };
            let with = self.tied(unit, slot).unwrap_or_default().into_iter().skip(1);
            return Standing::Stranded {
                on: placed,
                with: with.map(|it| self.unit(it).name.clone()).collect(),
            };
        }
        if it.status == Status::Wanted && asks.sticky && !it.placed.is_empty() {
            return Standing::Sticks(ids(&it.placed, &|_| true));
        }
        if it.status == Status::Kept && departing.is_empty() {
            return Standing::Kept(ids(&it.placed, &|_| true));
        }
        let room = if it.status != Status::Wanted {
            return if departing.is_empty() { Standing::NotWanted } else { Standing::Departing(departing) };
        } else if self.globals.contains(&unit) {
            self.missing(unit)
        } else if departing.is_empty() {
            self.bundle_room(unit).1
        } else {
            return Standing::Departing(departing);
        };
        if let Some(slot) = self.best(&self.bundle_room(unit).0, &room) {
            return Standing::Placeable(self.machine(slot).id);
        }
        let room_to_come = if asks.preempt { self.candidates_but_room(unit) } else { Bits::default() };
        let mut coming: Vec<MachineId> = Vec::new();
        for slot in room_to_come.iter() {
            let mut only = Bits::default();
            only.set(slot);
            if self.coming(unit, &only, 1) > 0 {
                coming.push(self.machine(slot).id);
            }
        }
        coming.sort_unstable();
        if coming.is_empty() { Standing::Unplaceable } else { Standing::Awaiting(coming) }
    }
}

pub(super) fn some_of(named: &BTreeSet<String>) -> String {
    let mut text = named.iter().take(NAMED_AT_MOST).cloned().collect::<Vec<_>>().join(", ");
    if named.len() > NAMED_AT_MOST {
        text.push_str(&format!(" and {} more", named.len() - NAMED_AT_MOST));
    }
    text
}

impl Reason {
    /// Names the rule, in the words of unit files where it comes from one.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::NotSchedulable => "closed",
            Self::Draining => "draining",
            Self::MachineId { .. } => "MachineID",
            Self::Metadata { .. } => "MachineMetadata",
            Self::MachineOf { .. } => "MachineOf",
            Self::Spread { .. } => "Spread",
            Self::MachineOfAny { .. } => "MachineOf",
            Self::StillDeparting => "departing",
            Self::Conflict { .. } => "Conflicts",
            Self::MaxPerMachine { .. } => "MaxPerMachine",
            Self::Room { resource: Resource::Cpu, .. } => "ReserveCPU",
            Self::Room { resource: Resource::Memory, .. } => "ReserveMemory",
            Self::Room { .. } => "Reserve",
            Self::Port { .. } => "ReservePort",
            Self::Replaced { .. } => "Replaces",
            Self::Preempted { .. } => "Priority",
        }
    }

    /// Takes apart the rule, equal for machines that break the same one, and what it met there.
    /// `stand_in` is the name put where a name was taken out.
    pub(super) fn split(&self, stand_in: &UnitName) -> (Self, Option<String>) {
        match self {
            Self::Metadata { wanted, found } => (
                Self::Metadata { wanted: wanted.clone(), found: None },
                Some(found.clone().unwrap_or_else(|| "not set".to_owned())),
            ),
            Self::Conflict { with } => (Self::Conflict { with: stand_in.clone() }, Some(with.to_string())),
            Self::Replaced { by } => (Self::Replaced { by: stand_in.clone() }, Some(by.to_string())),
            Self::Preempted { by } => (Self::Preempted { by: stand_in.clone() }, Some(by.to_string())),
            Self::Port { port, by } => {
                (Self::Port { port: *port, by: stand_in.clone() }, Some(by.to_string()))
            }
            Self::Room { resource, asked, free, all } => (
                Self::Room { resource: resource.clone(), asked: *asked, free: 0, all: 0 },
                Some(resource.asked_and_free(*asked, *free, *all).1),
            ),
            other => (other.clone(), None),
        }
    }

    pub(super) fn in_words(&self, named: &str) -> String {
        match self {
            Self::NotSchedulable => "cordoned, stopped or held".to_owned(),
            Self::Draining => "draining".to_owned(),
            Self::MachineId { wanted, shared } if !shared.is_empty() => {
                let ids: Vec<String> = shared.iter().map(MachineId::to_string).collect();
                format!("{wanted} names {} machines: {}", ids.len(), ids.join(", "))
            }
            Self::MachineId { wanted: MachineChoice::Id(id), .. } => format!("not machine {}", id.short()),
            Self::MachineId { wanted, .. } => format!("not machine {wanted}"),
            Self::Metadata { wanted, .. } => {
                let wanted = match &wanted.is {
                    Is::OneOf(these) => {
                        let these: Vec<String> =
                            these.iter().map(|it| format!("{}={it}", wanted.key)).collect();
                        these.join(" or ")
                    }
                    _ => wanted.to_string(),
                };
                format!("metadata {wanted} does not match ({named})")
            }
            Self::MachineOf { leader, is } => match is {
                LeaderIs::Unknown => format!("{leader} is not known"),
                LeaderIs::Inactive => format!("{leader} is inactive"),
                LeaderIs::Unplaced => format!("{leader} is not placed"),
                LeaderIs::Elsewhere => format!("{leader} is not there"),
            },
            Self::Spread { key } => format!("has no {key} to spread over"),
            Self::MachineOfAny { pattern } => format!("no other unit that {pattern} matches is there"),
            Self::StillDeparting => "not yet gone from there".to_owned(),
            Self::Conflict { .. } => format!("conflicts with {named}"),
            Self::MaxPerMachine { most, .. } => format!("has {most} of its template, the most it may"),
            Self::Room { resource, asked, .. } => {
                format!("{} ({named})", resource.asked_and_free(*asked, 0, 0).0)
            }
            Self::Port { port, .. } => format!("port {port} is reserved by {named}"),
            Self::Replaced { .. } => format!("replaced by {named}"),
            Self::Preempted { .. } => format!("{named} needs the room"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = match self {
            Self::Metadata { found, .. } => found.clone().unwrap_or_else(|| "not set".to_owned()),
            Self::Conflict { with: other }
            | Self::Replaced { by: other }
            | Self::Preempted { by: other }
            | Self::Port { by: other, .. } => other.to_string(),
            Self::Room { resource, asked, free, all } => resource.asked_and_free(*asked, *free, *all).1,
            _ => String::new(),
        };
        f.write_str(&self.in_words(&named))
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |ids: &[MachineId]| {
            let hosts: BTreeSet<String> = ids
                .iter()
                .map(|id| match self.machines.iter().find(|v| v.machine == *id) {
                    Some(verdict) => verdict.host.clone(),
                    None => format!("{} (lost)", id.short()),
                })
                .collect();
            some_of(&hosts)
        };
        match &self.standing {
            Standing::Unknown => return write!(f, "{} is not known", self.unit),
            Standing::NotWanted => return write!(f, "{} is inactive", self.unit),
            Standing::Placed(ids) => write!(f, "{} is on {}", self.unit, on(ids))?,
            Standing::Moving { from, to } => {
                let (from, to) = (on(from), on(to));
                write!(
                    f,
                    "{} is being started on {to}, and leaves {from} once it is ready there",
                    self.unit
                )?;
            }
            Standing::Stranded { on: ids, with } => {
                write!(f, "{} stays on {}, which is drained: nothing else takes it", self.unit, on(ids))?;
                if !with.is_empty() {
                    let with: BTreeSet<String> = with.iter().map(ToString::to_string).collect();
                    write!(f, " together with {}", some_of(&with))?;
                }
            }
            Standing::Sticks(ids) => write!(f, "{} is sticky and waits for {}", self.unit, on(ids))?,
            Standing::Awaiting(ids) => write!(f, "{} waits for room on {}", self.unit, on(ids))?,
            Standing::Departing(ids) => {
                write!(f, "{} waits until it is gone from {}", self.unit, on(ids))?;
            }
            Standing::Placeable(id) => write!(f, "{} can go to {}", self.unit, on(&[*id]))?,
            Standing::Unplaceable => write!(f, "{} cannot be placed", self.unit)?,
            Standing::Kept(ids) if ids.is_empty() => write!(f, "{} goes nowhere for now", self.unit)?,
            Standing::Kept(ids) => write!(f, "{} is left on {}", self.unit, on(ids))?,
        }
        if self.machines.is_empty() {
            return f.write_str(": there are no machines");
        }
        for (i, (count, rule)) in self.counts().into_iter().enumerate() {
            let machines = if count == 1 { "machine" } else { "machines" };
            write!(f, "{}{count} {machines}: {rule}", if i == 0 { ": " } else { "; " })?;
        }
        Ok(())
    }
}
