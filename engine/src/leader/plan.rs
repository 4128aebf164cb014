//! What is to be written for one unit: pure planning from the state and the core's decisions.
//!
//! The core says where units should be; this module says what that means for manifests that exist,
//! and holds what is safe to do against the state itself: it is the last to look before a write.
//!
//! ```text
//!                  place                     order to leave                  proof
//!   ┌──────────┐ ────────► ┌─────────────┐ ────────────────► ┌───────────┐ ───────► entry dropped,
//!   │ no entry │           │ entry       │                   │ departing │          in the same
//!   └──────────┘           │ hash run    │ machine lost and  │ (token    │          transaction
//!                          │ target token│ place elsewhere:  │  kept)    │          placed elsewhere
//!                          └─────────────┘ one transaction   └───────────┘          if a place is known
//!                             │       ▲    that compares
//!                             └───────┘    its absence
//!                   new hash or run: new token, in place; a hash that runs alike keeps the token
//! ```
//!
//! At every revision a unit that is not global has at most one entry that is neither departing nor
//! moving: an entry is added only where the state shows none, or in the transaction that makes the one
//! that is there moving (`moving`), or the one on a lost machine departing.

mod moving;

use std::{cell::Cell, collections::BTreeSet};

use flotilla_registry::{
    keys::Key,
    records::{Adoption, Cluster, Departure, EventChange, ManifestEntry, Token, UnitRecord},
    store::Revision,
};
use flotilla_units::{MachineId, UnitName};
use jiff::Timestamp;

use super::{cause::Cause, rollouts::has_turn, step::Asked, tokens::Tokens};
use crate::{
    model::{Decided, Turns},
    placement::{Decision, Reason},
    state::{ClusterState, Kept, Life, Placed, Wanted, Wish},
};

/// How many entries one plan for a unit with one place drops, or makes departing, at most; the rest
/// follow in the next step. Ten of each: only a unit that was on more machines has more.
const EDITS_MAX: usize = 10;

/// How many machines one plan needs to be absent. Ninety: with the edits, they are within the 120
/// operations of a transaction.
const ABSENT_MAX: usize = 90;

/// One change of one manifest bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A new entry.
    Add {
        /// Whose manifest.
        machine: MachineId,
        /// The entry.
        entry: ManifestEntry,
    },
    /// An entry in place of the one with a token.
    Replace {
        /// Whose manifest.
        machine: MachineId,
        /// The token of the entry that goes.
        token: Token,
        /// The entry that comes.
        entry: ManifestEntry,
    },
    /// An entry that was proven gone.
    Drop {
        /// Whose manifest.
        machine: MachineId,
        /// Its token.
        token: Token,
    },
}

/// Edits that belong together: all are written at one revision, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The unit that they are about.
    pub unit: UnitName,
    /// The edits, of buckets of this unit.
    pub edits: Vec<Edit>,
    /// Machines that have to be absent still when it is written.
    pub absent: BTreeSet<MachineId>,
    /// Records that go too, each if it is still at this revision: the unit's, its ranges' guard, a range.
    pub destroy: Vec<(Key, Revision)>,
    /// Its record as it is to become, if it is still at this revision: it was taken over from its machine.
    pub taken_over: Option<(UnitRecord, Revision)>,
    /// What is told about it.
    pub changes: Vec<EventChange>,
}

/// What planning looks at besides the state.
#[derive(Debug)]
pub struct Planning<'a> {
    /// The state.
    pub state: &'a ClusterState,
    /// Its cluster record.
    pub cluster: &'a Cluster,
    /// The tokens to give out.
    pub tokens: &'a mut Tokens,
    /// The mass-loss brake holds: nothing follows from a machine's absence.
    pub held: bool,
    /// Now, for people to read.
    pub now: Timestamp,
    /// The entries that may get another text now.
    pub turns: &'a Turns,
    /// Who had machines evened out last.
    pub asked: Option<&'a Asked>,
    /// The machine that was asked for last, and whether it may get anything new: those of one come one after the
    /// other.
    pub open: Cell<Option<(MachineId, bool)>>,
}

impl Edit {
    /// Returns whose manifest it changes.
    #[must_use]
    pub const fn machine(&self) -> MachineId {
        match self {
            Self::Add { machine, .. } | Self::Replace { machine, .. } | Self::Drop { machine, .. } => {
                *machine
            }
        }
    }
}

impl Plan {
    pub(super) fn new(unit: &UnitName) -> Self {
        Self {
            unit: unit.clone(),
            edits: Vec::new(),
            absent: BTreeSet::new(),
            destroy: Vec::new(),
            taken_over: None,
            changes: Vec::new(),
        }
    }

    /// Tells whether there is nothing to write.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.destroy.is_empty() && self.taken_over.is_none()
    }

    fn tell(&mut self, kind: &str, machine: Option<MachineId>, why: Option<String>) {
        let cause = why.map(|why| Cause { why, request: None });
        self.tell_because(kind, machine, cause);
    }

    fn tell_because(&mut self, kind: &str, machine: Option<MachineId>, cause: Option<Cause>) {
        let (why, request) = cause.map(|cause| (cause.why, cause.request)).unzip();
        let (kind, unit) = (kind.to_owned(), Some(self.unit.clone()));
        let request = request.flatten();
        self.changes.push(EventChange { kind, unit, machine, request, why, ..EventChange::default() });
    }

    fn drop_proven(&mut self, placed: &Placed<'_>) {
        self.edits.push(Edit::Drop { machine: placed.machine, token: placed.entry.token });
        self.tell("gone", Some(placed.machine), Some("its machine proved it".to_owned()));
    }

    fn depart(&mut self, placed: &Placed<'_>, why: Departure, cause: Cause) {
        let entry = ManifestEntry { departing: Some(why), moving: None, ..placed.entry.clone() };
        self.edits.push(Edit::Replace { machine: placed.machine, token: entry.token, entry });
        let kind = if why == Departure::MachineLost { "machine-lost" } else { "departing" };
        self.tell_because(kind, Some(placed.machine), Some(cause));
    }

    /// Asks for the machines of unproven entries to be absent still; false if they are too many.
    ///
    /// An entry that says that its machine was lost was written while it was: it is released already,
    /// and looked at again only where there is room.
    fn need_absent(&mut self, unproven: &[&Placed<'_>]) -> bool {
        let lost = |placed: &&Placed<'_>| placed.entry.departing == Some(Departure::MachineLost);
        let (released, others): (Vec<&Placed<'_>>, Vec<&Placed<'_>>) =
            unproven.iter().copied().partition(lost);
        if others.len() > ABSENT_MAX {
            return false;
        }
        self.absent.extend(others.iter().chain(&released).take(ABSENT_MAX).map(|placed| placed.machine));
        true
    }

    fn adds(&self) -> bool {
        self.edits.iter().any(|edit| matches!(edit, Edit::Add { .. }))
    }

    fn add(&mut self, machine: MachineId, wanted: &Wanted, token: Token, cause: Cause) {
        self.edits.push(Edit::Add { machine, entry: entry(&self.unit, wanted, token) });
        self.tell_because("placed", Some(machine), Some(cause));
    }
}

impl Planning<'_> {
    /// Plans everything that is to be written for a unit now; nothing if it is as it should be.
    ///
    /// The second value is false when the tokens ran out before all was planned.
    pub fn unit(&mut self, unit: &UnitName, decided: &Decided) -> (Vec<Plan>, bool) {
        let placed = self.state.placed(unit);
        match self.state.wish(unit) {
            Wish::Unreadable(_) => (Vec::new(), true),
            Wish::Unknown | Wish::Stuck(_) => (vec![self.only_proof(unit, &placed)], true),
            Wish::Gone { deleting } => (self.leave(unit, &placed, deleting), true),
            Wish::Wanted(wanted) if wanted.requirements.global => {
                self.global(unit, &placed, &wanted, decided)
            }
            Wish::Wanted(wanted) => self.single(unit, &placed, &wanted, decided),
        }
    }

    fn only_proof(&self, unit: &UnitName, placed: &[Placed<'_>]) -> Plan {
        let mut plan = Plan::new(unit);
        let proven = placed.iter().filter(|placed| placed.proven_gone);
        proven.take(EDITS_MAX).for_each(|placed| plan.drop_proven(placed));
        plan
    }

    /// A unit that is to be nowhere: every entry departs, every proven one goes, and with the last
    /// of them the record of a destroyed unit.
    fn leave(&self, unit: &UnitName, placed: &[Placed<'_>], deleting: bool) -> Vec<Plan> {
        let why = if deleting { Departure::Destroyed } else { Departure::Unloaded };
        let mut plans = Vec::new();
        let mut stays = false;
        for placed in placed {
            let mut plan = Plan::new(unit);
            if placed.entry.departing.is_none() {
                plan.depart(placed, why, Cause::departs(self.state, unit, placed.machine, why));
                stays = true;
            } else if placed.proven_gone {
                plan.drop_proven(placed);
            } else {
                stays |= !self.is_released(placed);
            }
            plans.push(plan);
        }
        // What may be in a bucket that cannot be read is not proven gone. A template's record goes after
        // the last of its instances, which may have been made while it was being destroyed. Those with a
        // text of their own do without it.
        let follows = |it: &UnitName| {
            let record = self.state.units().get(it).and_then(Kept::record);
            record.is_none_or(|record| record.current.is_none())
        };
        let has_instances = || self.state.instances(unit).any(follows) || self.state.has_ranges(unit);
        if !deleting || stays || self.state.hidden_entry(unit).is_some() || has_instances() {
            return plans;
        }
        let Some(record) = self.state.units().get(unit) else { return plans };
        if record.is_derived() {
            // Its range goes as a whole (`ranges`): what does not have to be waited for is noted.
            let released = |it: &&Placed<'_>| it.entry.departing.is_some() && !it.proven_gone;
            plans.extend(placed.iter().filter(released).filter_map(|placed| release(unit, placed)));
            return plans;
        }
        if plans.iter().filter(|plan| !plan.is_empty()).count() > 1 {
            // Many entries of a global unit need not fit into one transaction: they go first.
            return plans;
        }
        let mut last = plans.into_iter().find(|plan| !plan.is_empty()).unwrap_or_else(|| Plan::new(unit));
        let unproven: Vec<&Placed<'_>> = placed.iter().filter(|placed| !placed.proven_gone).collect();
        if !last.need_absent(&unproven) {
            return unproven.into_iter().filter_map(|placed| release(unit, placed)).collect();
        }
        last.destroy.push((Key::Unit(unit.clone()), record.mod_revision()));
        let guard = self.state.range_guard(unit).map(|guard| guard.mod_revision());
        last.destroy.extend(guard.map(|guard| (Key::RangeGuard(unit.clone()), guard)));
        last.tell_because("destroyed", None, Some(Cause::ordered(self.state, unit)));
        vec![last]
    }

    /// Tells whether an entry stands in nobody's way although it is not proven gone: its machine's
    /// lease has ended, and its unit's partition policy says that this is enough.
    fn is_released(&self, placed: &Placed<'_>) -> bool {
        placed.life == Life::Lost && !self.held && !self.state.is_unreleased(placed)
    }

    /// A unit that is to be on one machine.
    fn single(
        &mut self,
        unit: &UnitName,
        placed: &[Placed<'_>],
        wanted: &Wanted,
        decided: &Decided,
    ) -> (Vec<Plan>, bool) {
        let mut plan = self.only_proof(unit, placed);
        // Should there ever be several (a global unit that is no longer global), the newest stays.
        let mut active: Vec<&Placed<'_>> = placed.iter().filter(|p| p.entry.stays()).collect();
        active.sort_by_key(|placed| std::cmp::Reverse(placed.entry.token));
        for extra in active.iter().skip(1).take(EDITS_MAX) {
            let why = "it is on another machine too".to_owned();
            plan.depart(extra, Departure::Requirements, Cause { why, request: None });
        }
        if let Some(on) = active.iter().find(|on| wanted.adopt && self.is_taken_over(on)) {
            plan.taken_over = self.state.units().get(unit).and_then(note_taken_over);
            if plan.taken_over.is_some() {
                plan.tell("taken-over", Some(on.machine), Some("it runs on as it ran before".to_owned()));
            }
        }
        let target = decided.place.iter().next().filter(|id| self.may_take(unit, placed, *id));
        if let Some(planned) = self.go_on_moving(&mut plan, placed, wanted, decided, target) {
            return (vec![plan], planned);
        }
        let planned = match (active.first(), target) {
            (Some(on), Some(target)) if on.life == Life::Lost && on.machine != target => {
                self.move_off_lost(&mut plan, placed, on, target, wanted)
            }
            (Some(on), _) => self.keep_or_order_off(&mut plan, on, wanted, decided),
            (None, Some(target)) => self.start_on(&mut plan, placed, target, wanted),
            (None, None) => true,
        };
        (vec![plan], planned)
    }

    /// Tells whether a machine says that what runs there is what this entry orders: it noted its token.
    fn is_taken_over(&self, on: &Placed<'_>) -> bool {
        let report = self.state.report_of(on);
        report.is_some_and(|report| report.token == Some(on.entry.token) && report.run > 0)
    }

    fn move_off_lost(
        &mut self,
        plan: &mut Plan,
        placed: &[Placed<'_>],
        on: &Placed<'_>,
        target: MachineId,
        wanted: &Wanted,
    ) -> bool {
        if !self.is_released(on) {
            return true;
        }
        if !self.start_on(plan, placed, target, wanted) {
            return false;
        }
        if plan.adds() {
            plan.absent.insert(on.machine);
            let cause = Cause::left(self.state, on.machine, Departure::MachineLost);
            // What gave it its new place is the same loss.
            let placing = plan.changes.iter_mut().filter(|change| change.kind == "placed");
            placing.for_each(|change| {
                (change.why, change.request) = (Some(cause.why.clone()), cause.request.clone());
            });
            plan.depart(on, Departure::MachineLost, cause);
        }
        true
    }

    /// Adds an entry, unless an older one that is not proven gone may still run.
    fn start_on(
        &mut self,
        plan: &mut Plan,
        placed: &[Placed<'_>],
        target: MachineId,
        wanted: &Wanted,
    ) -> bool {
        let leaving = placed.iter().filter(|p| p.entry.departing.is_some() && !p.proven_gone);
        let leaving: Vec<&Placed<'_>> = leaving.collect();
        if leaving.iter().any(|placed| !self.is_released(placed)) {
            return true;
        }
        if placed.iter().all(|p| p.entry.departing.is_some()) && self.state.hidden_entry(&plan.unit).is_some()
        {
            return true;
        }
        if !plan.need_absent(&leaving) {
            return true;
        }
        let Some(token) = self.tokens.take(self.cluster) else { return false };
        let cause = Cause::placed(self.state, &plan.unit, placed, target, self.now);
        // The machine was chosen by what this text asks for.
        let before = self
            .state
            .as_before(&plan.unit, wanted, placed, |machine| has_turn(self.turns, &plan.unit, machine));
        plan.add(target, before.as_ref().unwrap_or(wanted), token, cause);
        true
    }

    /// Tells whether a machine can get a new entry of a unit now.
    fn may_take(&self, unit: &UnitName, placed: &[Placed<'_>], id: MachineId) -> bool {
        let look = || self.state.machines().get(&id).is_some_and(|machine| machine.closed().is_none());
        let open = match self.open.get() {
            Some((known, open)) if known == id => open,
            _ => look(),
        };
        self.open.set(Some((id, open)));
        let leaving = placed.iter().any(|p| p.machine == id && !p.proven_gone && p.entry.unit == *unit);
        open && !leaving
    }

    /// An entry that is there: it leaves if the core says so, or becomes what is wanted.
    fn keep_or_order_off(
        &mut self,
        plan: &mut Plan,
        on: &Placed<'_>,
        wanted: &Wanted,
        decided: &Decided,
    ) -> bool {
        if let Some(Decision::Depart { why, reason, .. }) = decided.depart.get(&on.machine)
            && *why != Departure::MachineLost
            && on.life != Life::Lost
            && self.state.machines().get(&on.machine).is_some_and(crate::state::Machine::is_legible)
        {
            self.order_off(plan, on, *why, reason.as_ref());
            return true;
        }
        let behind = on.entry.hash != wanted.hash;
        let same_order = (on.entry.run, on.entry.target) == (wanted.run, wanted.target);
        if behind && same_order && !has_turn(self.turns, &plan.unit, on.machine) {
            return true;
        }
        // What systemd runs alike keeps its token: nobody is started anew for it.
        let alike = behind && self.state.run_alike(on.entry.hash, wanted.hash);
        let same_start = (!behind || alike) && on.entry.run == wanted.run;
        // What was taken over is not written anew for that.
        let kept = ManifestEntry { adopt: on.entry.adopt, ..entry(&plan.unit, wanted, on.entry.token) };
        if same_start && *on.entry == kept {
            return true;
        }
        let token = if same_start {
            on.entry.token
        } else {
            match self.tokens.take(self.cluster) {
                Some(token) => token,
                None => return false,
            }
        };
        let kind = match (behind, same_start) {
            (true, false) => "updated",
            (true, true) => "updated-in-place",
            (false, false) => "restarted",
            (false, true) => "retargeted",
        };
        plan.edits.push(Edit::Replace {
            machine: on.machine,
            token: on.entry.token,
            entry: entry(&plan.unit, wanted, token),
        });
        let cause = match kind {
            "updated" | "updated-in-place" => {
                Cause::updated(self.state, &plan.unit, on.entry.hash, wanted.hash)
            }
            _ => Cause::ordered(self.state, &plan.unit),
        };
        plan.tell_because(kind, Some(on.machine), Some(cause));
        true
    }

    fn order_off(&self, plan: &mut Plan, on: &Placed<'_>, why: Departure, reason: Option<&Reason>) {
        let mut cause = Cause::departs(self.state, &plan.unit, on.machine, why);
        if let Some(reason) = reason {
            cause.why = format!("{}: {reason}", cause.why);
        }
        plan.depart(on, why, cause);
    }

    /// A unit that is to be on every machine that may have it: each entry stands for itself.
    fn global(
        &mut self,
        unit: &UnitName,
        placed: &[Placed<'_>],
        wanted: &Wanted,
        decided: &Decided,
    ) -> (Vec<Plan>, bool) {
        let mut plans = Vec::new();
        for placed in placed {
            let mut plan = Plan::new(unit);
            if placed.proven_gone {
                plan.drop_proven(placed);
            } else if placed.entry.departing.is_none()
                && !self.keep_or_order_off(&mut plan, placed, wanted, decided)
            {
                return (plans, false);
            }
            plans.push(plan);
        }
        let targets: Vec<MachineId> =
            decided.place.iter().filter(|id| self.may_take(unit, placed, *id)).collect();
        for target in targets {
            let mut plan = Plan::new(unit);
            // Proof and the new entry share a bucket, so they have to share a plan.
            if let Some(at) = plans.iter().position(|p: &Plan| p.edits.iter().any(|e| e.machine() == target))
            {
                plan = plans.swap_remove(at);
            }
            let Some(token) = self.tokens.take(self.cluster) else { return (plans, false) };
            let cause = Cause::placed(self.state, unit, placed, target, self.now);
            plan.add(target, wanted, token, cause);
            plans.push(plan);
        }
        (plans, true)
    }
}

/// Notes by itself that an entry is released, its machine being lost, where too many are for one plan.
fn release(unit: &UnitName, placed: &Placed<'_>) -> Option<Plan> {
    if placed.entry.departing == Some(Departure::MachineLost) {
        return None;
    }
    let mut plan = Plan::new(unit);
    plan.absent.insert(placed.machine);
    let cause = Cause { why: "its machine was lost".to_owned(), request: None };
    plan.depart(placed, Departure::MachineLost, cause);
    Some(plan)
}

fn entry(unit: &UnitName, wanted: &Wanted, token: Token) -> ManifestEntry {
    ManifestEntry {
        unit: unit.clone(),
        runtime: (wanted.runtime != *unit).then(|| wanted.runtime.clone()),
        hash: wanted.hash,
        target: wanted.target,
        run: wanted.run,
        token,
        departing: None,
        moving: None,
        adopt: wanted.adopt,
    }
}

/// Returns the record of a unit that was taken over, and its revision now. Nobody ordered anything, so its
/// generation stays.
fn note_taken_over(kept: &Kept<UnitRecord>) -> Option<(UnitRecord, Revision)> {
    let record = kept.record()?;
    let adopted = record.adopted.map(|adopted| Adoption { done: true, ..adopted });
    Some((UnitRecord { adopted, ..(**record).clone() }, kept.mod_revision()))
}

pub(super) const fn in_words(why: Departure) -> &'static str {
    match why {
        Departure::Unloaded => "it was unloaded",
        Departure::Destroyed => "it was destroyed",
        Departure::Requirements => "its machine no longer meets its requirements",
        Departure::Drained => "its machine is drained",
        Departure::Replaced => "another unit replaces it",
        Departure::MachineLost => "its machine was lost and it was started elsewhere",
        Departure::Updated => "its content changed",
        Departure::Rebalanced => "machines are evened out",
        Departure::Preempted => "a unit of higher priority needs the room",
        Departure::TakenBack => "its move was taken back",
    }
}
