//! One step of the leader: what changed in, transactions out. No I/O, no clock of its own.
//!
//! ```text
//!   changes ─► brake ─► core decides ─► plans ─► packed into transactions, each with
//!                                                fence, cluster's mod revision, event
//! ```
//!
//! Crash points, and why each is harmless:
//! - after deciding, before writing: nothing happened; the next leader decides from the store.
//! - between two transactions of a step: each is whole by itself (a move off a lost machine, a
//!   proof with the new placement, the last proof with the unit's record).
//! - after the order to leave, before the proof: the departing entry is in the store; whoever leads
//!   waits for its proof.
//! - after the tokens were reserved: the rest of the block is skipped by the next leader.
//! - a transaction whose outcome is not known: nothing is decided before a fenced write of
//!   `cluster` makes it fail should it still be under way (every transaction compares that
//!   record's mod revision).

mod ready;

use std::{cell::Cell, collections::BTreeMap, mem, time::Duration};

use flotilla_registry::{
    keys::Key,
    records::{Cluster, ClusterSettings, EventChange, EventRecord, Record as _},
    store::{Compare, Operation, Revision},
};
use flotilla_units::UnitName;
use jiff::Timestamp;

pub use ready::Ready;

use super::{
    ahead::Ahead,
    backlog::Backlog,
    batch::{Transaction, Warm, pack},
    news::News,
    plan::{Plan, Planning},
    ranges::Leaving,
    rollouts::Rollouts,
    settling::Settling,
    texts::Texts,
    tokens::{LOW, Tokens},
};
use crate::{
    brake::{Brake, BrakeChange, Picture},
    model::{Decided, Decisions, Model, by_unit},
    orders::RebalanceOrder,
    reader::{Rebalanced, foresee_rebalance, hosts},
    state::{Changes, ClusterState, Kept, Life, NameSet},
};

/// The most decisions of one step. A hundred thousand: a fifth of a second. Of so many the placements wait in the
/// [`Backlog`] for the rest of the order.
pub const DECISIONS_MAX: usize = 100_000;

/// How many units a new leader looks at in a step. Fifty thousand: a tenth of a second, in which nobody else can
/// look at the state.
const LOOKED_MAX: usize = 50_000;

/// How long a unit whose decision could not be carried out as things are waits for the next try.
/// A second: nothing is known to have changed, so there is no hurry, and at rest nothing is tried.
pub const RETRY: Duration = Duration::from_secs(1);

/// How long a unit waits whose transaction the store refused for what it is. Half a minute: it will be
/// refused again unless something changes, and everything else goes on meanwhile.
pub const REFUSED_RETRY: Duration = Duration::from_secs(30);

/// How many old events one transaction collects. Five: with the fence, the cluster's record and the
/// event they fit beside [`TXN_OPERATIONS_MAX`](flotilla_registry::store::TXN_OPERATIONS_MAX)
/// operations, and each transaction writes only one.
const EVENTS_COLLECTED: usize = 5;

/// How many events more than may be kept wait for a transaction of the leader to go with. A thousand: a few
/// hundred kilobytes, and hours of an operator's commands; past it they get one of their own.
const EVENTS_LEFT_MAX: usize = 1_000;

/// How many old events a transaction collects that does nothing else.
const EVENTS_COLLECTED_ALONE: usize = 100;

/// Now, as the leader is told.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Since some moment, never going back.
    pub mono: Duration,
    /// For people to read.
    pub wall: Timestamp,
}

/// What a leader remembers between steps. A new one starts without it.
#[derive(Debug)]
pub struct Memory {
    fence: Compare,
    /// Units that this term has not looked at yet.
    unseen: Vec<UnitName>,
    term: String,
    sequence: u64,
    tokens: Tokens,
    /// The hold that this term began with, until it is told.
    inherited: Option<BrakeChange>,
    warm: Warm,
    /// Units to look at, with the decisions about them that are not written yet.
    todo: Decisions,
    /// Such decisions of units that are looked at for the first time in this step.
    kept: Decisions,
    retry_at: Option<Duration>,
    /// Placements of large orders.
    backlog: Backlog,
    /// Machines that have yet to take up what was written of such orders.
    ahead: Ahead,
    /// What happens although nobody orders it.
    news: News,
    /// Told by a transaction that did not happen, and still to be told.
    untold: Vec<EventChange>,
    /// Machines changed since the brake looked last.
    machines_changed: bool,
    /// Ranges of instances that are being destroyed.
    leaving: Leaving,
    /// New texts on their way.
    rollouts: Rollouts,
    /// Units that move, on their way to be ready.
    settling: Settling,
    /// Texts that are nobody's.
    texts: Texts,
    /// Units of transactions that the store refused: each gets one of its own, to tell whose fault it is.
    alone: NameSet,
    /// Units whose own transaction the store refused, with when they are tried again, and why.
    aside: BTreeMap<UnitName, (Duration, String)>,
    /// A user's word to even machines out, for the next step.
    pub rebalance: Option<Asked>,
    /// The last such word that was followed.
    rebalanced: Option<Asked>,
    /// Who ended a mass-loss hold, for the next step.
    pub released: Option<Released>,
}

/// What a step found to do.
#[derive(Debug, Default)]
pub struct Step {
    /// What to write, in order.
    pub transactions: Vec<Ready>,
    /// When to step again although nothing changes.
    pub wake_at: Option<Duration>,
    /// There is more to do at once.
    pub more: bool,
    /// What changed at the mass-loss brake.
    pub brake: Option<BrakeChange>,
    /// Why nothing is decided, if nothing is.
    pub standstill: Option<String>,
    /// What evening machines out moves, if that was ordered.
    pub rebalanced: Option<Rebalanced>,
}

/// A user's word to even machines out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    budget: usize,
    /// Who.
    pub by: String,
    /// By which request.
    pub request: Option<String>,
}

impl From<&RebalanceOrder> for Asked {
    fn from(order: &RebalanceOrder) -> Self {
        Self { budget: order.budget, by: order.by.clone(), request: order.request.clone() }
    }
}

/// Who ended a mass-loss hold, and by which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// The operator.
    pub by: String,
    /// The request.
    pub request: Option<String>,
}

impl Memory {
    /// Starts a term, in the middle of a mass-loss hold perhaps, with what was told before it.
    #[must_use]
    pub fn new(
        fence: Compare,
        term: &str,
        elected_with: &Cluster,
        hold: Option<BrakeChange>,
        news: News,
    ) -> Self {
        Self {
            fence,
            unseen: Vec::new(),
            term: term.to_owned(),
            sequence: 0,
            tokens: Tokens::above(elected_with),
            inherited: hold,
            warm: Warm::default(),
            todo: Decisions::default(),
            kept: Decisions::default(),
            retry_at: None,
            backlog: Backlog::default(),
            ahead: Ahead::default(),
            news,
            untold: Vec::new(),
            machines_changed: false,
            leaving: Leaving::default(),
            rollouts: Rollouts::default(),
            settling: Settling::default(),
            texts: Texts::default(),
            alone: NameSet::default(),
            rebalance: None,
            rebalanced: None,
            released: None,
            aside: BTreeMap::new(),
        }
    }

    /// Has everything looked at once: what was begun before this term is gone on with.
    #[must_use]
    pub fn with_unseen(self, units: NameSet) -> Self {
        Self { unseen: units.into_iter().collect(), ..self }
    }

    /// Adds to what changed the next of what was never looked at; tells whether there is more. What the core has to
    /// decide does not wait for it.
    pub fn look_on(&mut self, changes: &mut Changes) -> bool {
        let rest = self.unseen.len().saturating_sub(LOOKED_MAX);
        for unit in self.unseen.drain(rest..) {
            changes.reported.remove(&unit);
            // One that did not change meanwhile keeps what was decided: the core holds it as done, and would not
            // decide it again.
            if !changes.units.contains(&unit)
                && let Some(decided) = self.todo.remove(&unit)
            {
                self.kept.insert(unit.clone(), decided);
            }
            changes.units.insert(unit);
        }
        !self.unseen.is_empty()
    }

    /// Notes that a transaction was acknowledged.
    pub fn wrote(&mut self, of: &Transaction, now: Duration) {
        self.warm.wrote(&of.buckets, now);
        for unit in &of.units {
            self.alone.remove(unit);
            self.aside.remove(unit);
        }
    }

    /// Notes that the store refused a transaction for what it is: its units are tried one by one, and
    /// the one that it is about is put aside.
    pub fn refused(
        &mut self,
        state: &ClusterState,
        model: &mut Model,
        of: &Transaction,
        why: &str,
        now: Duration,
    ) {
        if of.units.len() == 1 {
            let aside = |unit: &UnitName| (unit.clone(), (now + REFUSED_RETRY, why.to_owned()));
            self.aside.extend(of.units.iter().map(aside));
        } else {
            self.alone.extend(of.units.iter().cloned());
        }
        self.failed(state, model, of);
    }

    /// Says what the store refuses, if it refuses something.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let (unit, (_, why)) = self.aside.iter().next()?;
        Some(format!("nothing is written about {} unit(s), such as {unit}: {why}", self.aside.len()))
    }

    /// Takes up what was put aside long enough ago, and leaves the rest for later.
    fn take_up(&mut self, state: &ClusterState, model: &mut Model, now: Duration) {
        let due = self.aside.iter().filter(|(_, (until, _))| *until <= now);
        let units: NameSet = due.map(|(unit, _)| unit.clone()).collect();
        self.todo.retain(|unit, _| !self.aside.contains_key(unit) || units.contains(unit));
        self.todo.extend(units.iter().map(|unit| (unit.clone(), Decided::default())));
        // What the core took as done meanwhile is not.
        model.sync(state, &Changes { units, ..Changes::default() });
    }

    /// Notes that a transaction did not happen: its units are decided anew.
    pub fn failed(&mut self, state: &ClusterState, model: &mut Model, of: &Transaction) {
        let changes = Changes { units: of.units.clone(), ..Changes::default() };
        model.sync(state, &changes);
        if of.units.is_empty() {
            self.untold.extend(of.changes.iter().cloned());
        }
        self.todo.extend(of.units.iter().map(|unit| (unit.clone(), Decided::default())));
    }

    /// Gives up the rest of the reserved tokens: a transaction of unknown outcome may have them.
    pub fn skip_tokens(&mut self, cluster: &Cluster) {
        self.tokens.skip(cluster);
    }
}

/// Decides what to write now.
///
/// `changes` is all that changed in the state since the last step, already told to the model.
/// `release` is an operator's word to end a mass-loss hold.
pub fn step(
    state: &ClusterState,
    model: &mut Model,
    brake: &mut Brake,
    memory: &mut Memory,
    changes: Changes,
    now: Now,
    release: bool,
) -> Step {
    // Remembered through a standstill: the brake looks before anything is decided after it.
    memory.machines_changed |= !changes.machines.is_empty();
    memory.news.look(state, &changes, now);
    memory.texts.note(state.revision(), now.mono);
    memory.rollouts.note(state, changes.all_units());
    memory.settling.note(state, model, &changes.units, now.mono);
    for unit in changes.units {
        // What was decided before the change is decided anew: the core was told of the change.
        let decided = memory.kept.remove(&unit).unwrap_or_default();
        memory.todo.insert(unit, decided);
    }
    let mut out = Step::default();
    let (cluster, cluster_at) = match standstill(state) {
        Ok(found) => found,
        Err(why) => {
            out.standstill = Some(why);
            return out;
        }
    };
    let mut transactions = Vec::new();
    let machines_changed = mem::take(&mut memory.machines_changed);
    let inherited = memory.inherited.take();
    if machines_changed || release || brake.ends_at().is_some_and(|at| at <= now.mono) {
        out.brake = look_at_losses(state, model, brake, memory, now.mono, release);
    }
    out.brake = out.brake.or(inherited);
    let settled = memory.settling.settle(model, now.mono);
    memory.todo.extend(settled.iter().map(|unit| (unit.clone(), Decided::default())));
    model.sync(state, &Changes { units: settled, ..Changes::default() });
    let look = memory.rollouts.look(state, model, now.mono, brake.holds());
    memory.untold.extend(look.changes);
    memory.todo.extend(look.units.iter().map(|unit| (unit.clone(), Decided::default())));
    model.sync(state, &Changes { units: look.units, ..Changes::default() });
    memory.untold.extend(out.brake.map(|change| {
        let released = memory.released.take().filter(|_| change == BrakeChange::Released);
        let by = released.as_ref().map(|released| format!("by {}: ", released.by)).unwrap_or_default();
        EventChange {
            kind: change.kind().to_owned(),
            why: Some(by + &change.why()),
            request: released.and_then(|released| released.request),
            ..EventChange::default()
        }
    }));
    memory.untold.extend(memory.news.take(now.mono));
    if !memory.untold.is_empty() {
        let changes = mem::take(&mut memory.untold);
        transactions.push(Transaction { changes, ..Transaction::default() });
    }
    memory.take_up(state, model, now.mono);
    let (mut limited, mut held_back, mut turn) = (false, false, Vec::new());
    if !memory.backlog.is_full() {
        let decisions = model.decide(DECISIONS_MAX);
        limited = decisions.len() >= DECISIONS_MAX;
        let waits = |unit: &UnitName| memory.aside.get(unit).is_some_and(|(until, _)| *until > now.mono);
        let mut decided = by_unit(decisions);
        decided.retain(|unit, _| !waits(unit));
        memory.todo.extend(memory.backlog.put(decided));
    }
    // Written by machine, once all of a large order is decided.
    if !limited || memory.backlog.is_full() {
        memory.ahead.settle(state, now.mono);
        turn = memory.backlog.take(model, &mut memory.ahead, now.mono);
        held_back = memory.ahead.room() == 0;
        // The last word about a unit counts.
        turn.retain(|(unit, decided)| match memory.todo.get_mut(unit) {
            Some(todo) => {
                todo.clone_from(decided);
                false
            }
            None => true,
        });
    }
    if let Some(asked) = memory.rebalance.take() {
        memory.rebalanced = Some(asked.clone());
        let Asked { budget, by, request } = asked;
        // Foreseen first, by the same code: what it leads to is part of the answer.
        let core = model.core().clone();
        out.rebalanced = Some(foresee_rebalance(core, budget, state.revision(), hosts(state)));
        memory.todo.extend(by_unit(model.rebalance(budget)));
        let why = Some(format!("by {by}, of up to {budget} units"));
        let kind = "rebalance-ordered".to_owned();
        memory.untold.push(EventChange { kind, why, request, ..EventChange::default() });
    }

    let before = memory.tokens.clone();
    let (plans, unplanned) = plan_all(state, model, memory, turn, &cluster, brake.holds(), now);
    // The same decisions again would be dropped again: those wait for their retry.
    out.more = (limited && !plans.is_empty()) || (!memory.backlog.is_empty() && !held_back);
    let ahead = memory.ahead.wake_at().filter(|_| !memory.backlog.is_empty());
    let takes_tokens = memory.tokens != before || !unplanned.is_empty();
    if takes_tokens && before.left(&cluster) < LOW {
        // The next block first, by itself; the units stay to do, with their decisions.
        memory.tokens = before;
        memory.todo = unplanned;
        memory.todo.extend(plans.into_iter().map(|(plan, decided)| (plan.unit, decided)));
        let key = state.keys().spell(&Key::Cluster);
        let value = Tokens::reserve(&cluster).encode();
        transactions.push(Transaction {
            then: vec![Operation::Put { key, value, lease: None }],
            ..Transaction::default()
        });
        out.more = true;
    } else {
        let name = |(plan, decided): (Plan, Decided)| ((plan.unit.clone(), decided), plan);
        let (decided, plans): (Decisions, Vec<Plan>) = plans.into_iter().map(name).unzip();
        let batch = pack(state, plans, &memory.alone, &memory.warm, now.mono);
        out.more |= !unplanned.is_empty() || (!batch.waiting.is_empty() && batch.cool_at.is_none());
        memory.todo = unplanned;
        memory.todo.extend(decided.into_iter().filter(|(unit, _)| batch.waiting.contains(unit)));
        out.more |= !batch.waiting.is_empty() && !batch.transactions.is_empty();
        out.wake_at = batch.cool_at;
        transactions.extend(batch.transactions);
    }
    let ends = brake.ends_at();
    let aside = memory.aside.values().map(|(until, _)| *until).filter(|until| *until > now.mono).min();
    let (rollouts, settling) = (memory.rollouts.wake_at(), memory.settling.wake_at());
    let times = [out.wake_at, ends, memory.retry_at, aside, memory.news.due(), rollouts, settling, ahead];
    out.wake_at = times.into_iter().flatten().min();
    memory.texts.collect(state, &mut transactions);
    let mut old = old_events(state, now.wall, transactions.len() * EVENTS_COLLECTED);
    let mut each = EVENTS_COLLECTED;
    if transactions.is_empty() && state.events().len() > events_max(state) + EVENTS_LEFT_MAX {
        // Others write events too, which need not lead to anything that the leader writes.
        each = EVENTS_COLLECTED_ALONE;
        old = old_events(state, now.wall, each);
        transactions.push(Transaction::default());
    }
    let mut old = old.chunks(each);
    out.transactions = (transactions.into_iter())
        .map(|of| memory.ready(state, cluster_at, of, now, old.next().unwrap_or_default()))
        .collect();
    out
}

/// Returns the cluster's record, or why nothing may be decided.
fn standstill(state: &ClusterState) -> Result<(Cluster, Revision), String> {
    if let Some(went_back) = state.went_back() {
        return Err(went_back.to_string());
    }
    let Some(kept) = state.cluster() else { return Err("the cluster's record is not there".to_owned()) };
    match (kept.record(), kept.unreadable()) {
        (Some(cluster), _) => Ok(((**cluster).clone(), kept.mod_revision())),
        (None, error) => Err(error.map(ToString::to_string).unwrap_or_default()),
    }
}

/// Plans every unit that there is something to do about, and those of a large order whose turn it is. Returns the plans, with the decisions they
/// come from, and the units for which the tokens ran out.
#[allow(clippy::type_complexity, reason = "both halves are taken apart at once by the one caller")]
fn plan_all(
    state: &ClusterState,
    model: &mut Model,
    memory: &mut Memory,
    turn: Vec<(UnitName, Decided)>,
    cluster: &Cluster,
    held: bool,
    now: Now,
) -> (Vec<(Plan, Decided)>, Decisions) {
    let todo = mem::take(&mut memory.todo);
    let turns = model.turns();
    let asked = memory.rebalanced.as_ref();
    let (tokens, open) = (&mut memory.tokens, Cell::default());
    let mut planning = Planning { state, cluster, tokens, held, now: now.wall, turns, asked, open };
    let (mut plans, mut unplanned) = (Vec::new(), Decisions::default());
    let mut dropped = NameSet::default();
    for (unit, decided) in todo.into_iter().chain(turn) {
        if decided.is_empty() && state.has_nothing_to_write(&unit) {
            continue;
        }
        let (of_unit, complete) = planning.unit(&unit, &decided);
        let is_nothing = of_unit.iter().all(Plan::is_empty);
        if !complete {
            unplanned.insert(unit.clone(), decided.clone());
        } else if is_nothing && !decided.is_empty() {
            dropped.insert(unit);
        }
        plans.extend(of_unit.into_iter().filter(|plan| !plan.is_empty()).map(|plan| (plan, decided.clone())));
    }
    let waits = |template: &UnitName| memory.aside.get(template).is_some_and(|(until, _)| *until > now.mono);
    let ends = memory.leaving.plan(state, held, waits);
    plans.extend(ends.into_iter().map(|plan| (plan, Decided::default())));
    // The core took as done what is not: it is told the truth, and asked again a little later.
    memory.retry_at = (!dropped.is_empty()).then_some(now.mono + RETRY);
    model.sync(state, &Changes { units: dropped, ..Changes::default() });
    (plans, unplanned)
}

/// Lets the brake judge the losses, and tells the core what changes with it.
fn look_at_losses(
    state: &ClusterState,
    model: &mut Model,
    brake: &mut Brake,
    memory: &mut Memory,
    now: Duration,
    release: bool,
) -> Option<BrakeChange> {
    let change = brake.update(&Picture { state, model }, now, release)?;
    model.hold(brake.holds());
    let concerned = state.machines().iter().filter(|(_, machine)| machine.life() == Life::Lost);
    let mut changes = Changes::default();
    for (id, machine) in concerned {
        changes.machines.insert(*id);
        changes.units.extend(machine.entries().map(|entry| entry.unit.clone()));
    }
    model.sync(state, &changes);
    for unit in changes.units {
        memory.todo.insert(unit, Decided::default());
    }
    Some(change)
}

/// Returns what operators set; `None` while it cannot be read, when nothing is to follow from it.
pub fn settings(state: &ClusterState) -> Option<ClusterSettings> {
    match state.settings() {
        None => Some(ClusterSettings::default()),
        Some(kept) => kept.record().map(|settings| (**settings).clone()),
    }
}

/// Returns how many events may be kept.
fn events_max(state: &ClusterState) -> usize {
    settings(state).map_or(usize::MAX - EVENTS_LEFT_MAX, |settings| settings.events_max)
}

/// Returns the oldest events that are too old or too many, so many at most.
fn old_events(state: &ClusterState, now: Timestamp, most: usize) -> Vec<String> {
    let Some(settings) = settings(state) else { return Vec::new() };
    let too_many = state.events().len().saturating_sub(settings.events_max);
    let kept = i64::try_from(settings.events_kept_s).unwrap_or(i64::MAX);
    let is_old = |record: &Kept<EventRecord>| {
        record.record().is_some_and(|record| now.duration_since(record.at).as_secs() > kept)
    };
    let old = state.events().values().enumerate();
    old.take_while(|(at, event)| *at < too_many || is_old(&event.record))
        .take(most)
        .map(|(_, event)| event.key.clone())
        .collect()
}
