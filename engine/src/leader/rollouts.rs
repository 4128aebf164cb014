//! Gives the turns of rollouts: which entries may get their owner's new text now.
//!
//! Whose turn it is follows from the state alone (`state/rollout`). What is kept here is only how long ago
//! an entry was last seen in flight, so that one that dies a moment after its start is noticed before the
//! next one follows; a new leader begins without it. Nothing is written here: the planning asks for the
//! turns that the model holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use flotilla_registry::records::EventChange;
use flotilla_units::{MachineId, UnitName};

use crate::{
    model::{Model, Turns},
    state::{ClusterState, NameSet, Rollout, Wish},
};

/// How long an entry has to be as it should be before the next one follows. A quarter of a second: of a
/// plain service systemd says that it is active when its process is there, and one that exits at once is
/// reported some tens of milliseconds later, on a busy machine a hundred.
pub(super) const SETTLE: Duration = Duration::from_millis(250);

/// After how long a rollout that something other than its own entries keeps from going on is looked at
/// again: a mass-loss hold, or no machine for its next unit. Five seconds: nothing waits for it, and it
/// costs a look at one template.
const BLOCKED_RETRY: Duration = Duration::from_secs(5);

/// The rollouts of a term.
#[derive(Debug, Default)]
pub(super) struct Rollouts {
    /// Owners of which something changed since they were looked at.
    fresh: BTreeSet<UnitName>,
    /// The one of them that was noted last.
    last: Option<UnitName>,
    open: BTreeMap<UnitName, Open>,
}

/// One owner's rollout.
#[derive(Debug, Default)]
struct Open {
    turns: Turns,
    /// When an entry was last seen in flight.
    in_flight: Option<Duration>,
    /// When it is to be looked at again although nothing changes.
    look_at: Option<Duration>,
    /// What was told of its halt.
    halted: Option<String>,
}

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Units whose turn came or went: they are to be told to the model, and planned.
    pub units: NameSet,
    /// What is to be told.
    pub changes: Vec<EventChange>,
}

impl Rollouts {
    /// Notes which units changed.
    pub(super) fn note<'a>(&mut self, state: &ClusterState, units: impl IntoIterator<Item = &'a UnitName>) {
        for unit in units {
            // Of many that change together most are instances of one template.
            if self.last.as_ref().is_some_and(|last| unit.is_instance_of(last)) && !state.has_own_text(unit) {
                continue;
            }
            let owner = state.owner(unit);
            // One that got, or lost, a text of its own was its template's concern before.
            self.last = unit.template();
            self.fresh.extend(self.last.clone());
            self.fresh.insert(owner);
        }
    }

    /// Returns when to look again although nothing changes.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.open.values().filter_map(|open| open.look_at).min()
    }

    /// Gives the model the turns as they are now. While the mass-loss brake holds nothing is started anew.
    pub(super) fn look(
        &mut self,
        state: &ClusterState,
        model: &mut Model,
        now: Duration,
        held: bool,
    ) -> Look {
        let due = self.open.iter().filter(|(_, open)| open.look_at.is_some_and(|at| at <= now));
        let due: Vec<UnitName> = due.map(|(owner, _)| owner.clone()).collect();
        self.fresh.extend(due);
        self.last = None;
        let mut look = Look::default();
        for owner in std::mem::take(&mut self.fresh) {
            let rollout = state.rollout(&owner);
            let Some(rollout) = rollout else {
                if let Some(open) = self.open.remove(&owner) {
                    look.units.extend(model.change_turns(open.turns, Turns::new()));
                }
                continue;
            };
            let open = self.open.entry(owner.clone()).or_default();
            let (turns, blocked) = open.turns_of(state, model, &rollout, now, held);
            look.units.extend(model.change_turns(std::mem::replace(&mut open.turns, turns.clone()), turns));
            let halted = rollout.halted().or(blocked);
            if halted.is_some() && halted != open.halted {
                look.changes.push(EventChange {
                    kind: "rollout-halted".to_owned(),
                    unit: Some(owner),
                    why: halted.clone(),
                    ..EventChange::default()
                });
            }
            open.halted = halted;
        }
        look
    }
}

impl Open {
    /// Returns whose turn it is, and why it is nobody's, where that is for long.
    fn turns_of(
        &mut self,
        state: &ClusterState,
        model: &mut Model,
        rollout: &Rollout,
        now: Duration,
        held: bool,
    ) -> (Turns, Option<String>) {
        let turn = |it: &crate::state::Behind| (it.unit.clone(), it.machine);
        let mut turns: Turns = rollout.quiet().map(turn).collect();
        self.look_at = None;
        if !rollout.in_flight.is_empty() {
            self.in_flight = Some(now);
        }
        let Some(next) = rollout.next() else { return (turns, None) };
        if held {
            self.look_at = Some(now + BLOCKED_RETRY);
            return (turns, None);
        }
        let settled = self.in_flight.map_or(now, |last| last + SETTLE);
        if settled > now {
            self.look_at = Some(settled);
            return (turns, None);
        }
        if !next.same_place && !fits(state, model, &next.unit) {
            self.look_at = Some(now + BLOCKED_RETRY);
            let why = format!("halted, because no machine can have {} with it", next.unit);
            return (turns, Some(why));
        }
        turns.insert(turn(next));
        (turns, None)
    }
}

/// Tells whether any machine can have a unit with the text that it is to get.
fn fits(state: &ClusterState, model: &mut Model, unit: &UnitName) -> bool {
    match state.wish(unit) {
        Wish::Wanted(wanted) => wanted.requirements.global || model.fits(unit, wanted.requirements),
        _ => true,
    }
}

/// Tells whether an entry has its turn.
pub(super) fn has_turn(turns: &Turns, unit: &UnitName, machine: MachineId) -> bool {
    turns.contains(&(unit.clone(), machine))
}
