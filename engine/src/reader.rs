//! What a seat answers: lists, single units and machines, `why`, and what changed since.
//!
//! Each answer is of one revision and says which. The server asks on behalf of users; the answers
//! are the engine's words, the wire's are `api`'s. Nothing here waits except
//! [`StateReader::changed`].

mod foresight;
mod glance;
mod lists;
mod machines;
mod names;
mod standing;
mod starts;
mod states;
mod tally;

use std::{ops::Bound, sync::Arc};

use flotilla_registry::{
    records::{
        Cluster, Departure, EventRecord, LeaderRecord, SeatRecord, Target, Token, UnitRecord, UnitReport,
    },
    store::Revision,
};
use flotilla_units::{ContentHash, MachineId, UnitName};
use tokio::sync::watch;

use crate::{
    brake::BrakeChange,
    hot::{EngineStatus, Hot, SeatLost, Shared},
    placement::Explanation,
    state::{ClusterState, Kept, Life, Tally, Wish},
};

pub use foresight::{
    CannotForesee, DrainRow, EvenedMachine, Foreseen, ForeseenMove, ForeseenUnit, Hosts, Imagined,
    LeavingStage, LeavingUnit, Rebalanced,
};
pub(crate) use foresight::{foresee_rebalance, hosts};
pub use glance::Glance;
pub use machines::{MachineRow, NoSuchMachine};
pub use names::Names;
pub(crate) use starts::Starts;
pub use states::{StateQuery, StateRow};
pub use tally::{Goal, Standing};

pub use standing::Versions;

use lists::Rows;

/// The most rows of one page. A thousand: half a megabyte on the wire, and a lock held for a
/// millisecond or two.
pub const PAGE_MAX: usize = 1_000;

/// With how many placements a page ends, however few units it has: the row of a global unit has one for each
/// machine. Ten thousand: 5 MB on the wire, and one unit more may be as large.
pub const PLACEMENTS_MAX: usize = 10_000;

/// How many machines are named that cannot have a unit with its new text. Three: one line.
const REFUSALS_NAMED: usize = 3;

/// A handle to read a seat's state with.
#[derive(Debug, Clone)]
pub struct StateReader {
    shared: Arc<Shared>,
}

/// Part of a list.
#[derive(Debug, Clone)]
pub struct Page<T, K> {
    /// The rows, ascending.
    pub rows: Vec<T>,
    /// What the state was of.
    pub revision: Revision,
    /// Where the next page starts after; `None` at the end.
    pub next: Option<K>,
}

/// A unit, for people.
#[derive(Debug, Clone)]
pub struct UnitRow {
    /// Its name.
    pub name: UnitName,
    /// Its record, or what its range says of it; `None` if it cannot be read, or if only entries are left
    /// of it.
    pub record: Option<Arc<UnitRecord>>,
    /// The content that it has, or that its template gives it.
    pub hash: Option<ContentHash>,
    /// `Description=` of that content.
    pub description: Option<String>,
    /// Whether it runs on every machine that it may run on.
    pub global: bool,
    /// Its entries, departing ones included, by machine and then token.
    pub placements: Vec<PlacementRow>,
    /// What is wrong with it: an unreadable record, content that is missing or makes no sense.
    pub problem: Option<String>,
    /// When its record, or its range's, was last written; zero if there is none.
    pub written: Revision,
    /// How many of its entries, or of a template's instances', have its text.
    pub versions: Versions,
    /// How far its text has come, for people, if it is not everywhere yet.
    pub rollout: Option<String>,
    /// Why it still has an older text somewhere, if it does.
    pub waits: Option<String>,
    /// What runs of it keeps an older text until its next start.
    pub next_start: bool,
}

/// One entry of a unit, with what its machine says of it.
#[derive(Debug, Clone)]
pub struct PlacementRow {
    /// Which machine.
    pub machine: MachineId,
    /// Its host name, where it is known.
    pub host: Option<String>,
    /// Whether it takes part.
    pub life: Life,
    /// The placement's token.
    pub token: Token,
    /// The run that is ordered.
    pub run: u64,
    /// The content that is ordered.
    pub hash: ContentHash,
    /// What is ordered; while departing, what it was.
    pub target: Target,
    /// Why it has to leave, if it has to.
    pub departing: Option<Departure>,
    /// Why it is there only until its unit is ready elsewhere, if it is.
    pub moving: Option<Departure>,
    /// What the machine says of it.
    pub report: Option<UnitReport>,
}

/// What changed in a span of revisions: the names of the rows to read anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// Up to which revision.
    pub revision: Revision,
    /// Units that changed, or went.
    pub units: Vec<UnitName>,
    /// Machines that changed, or went.
    pub machines: Vec<MachineId>,
}

/// What was asked for is too long ago (or not yet): list anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("changes after revision {} are not remembered; list anew and go on from that revision", .0.0)]
pub struct TooOld(pub Revision);

/// The cluster as a whole.
#[derive(Debug, Clone)]
pub struct ClusterRow {
    /// Its record; `None` if it is not there or cannot be read.
    pub cluster: Option<Arc<Cluster>>,
    /// What the state was of.
    pub revision: Revision,
    /// Who leads.
    pub leader: Option<Arc<LeaderRecord>>,
    /// Who is hot.
    pub seats: Vec<(u8, Arc<SeatRecord>)>,
    /// What this engine does and what keeps it from it.
    pub engine: EngineStatus,
    /// How many units there are, templates and instances that only a range speaks for included.
    pub units: usize,
    /// How many machines live.
    pub machines_alive: usize,
    /// How many machines with a manifest are away.
    pub machines_lost: usize,
    /// What is wrong, for people: a store that went back, records that cannot be read.
    pub problems: Vec<String>,
}

impl StateReader {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Tells whether both read the same seat's state: a seat that was lost and taken again is
    /// another.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Returns the revision that answers are of now.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.shared.read().state.revision()
    }

    /// Waits until the state has reached a revision, such as that of one's own write.
    ///
    /// # Errors
    /// The seat was lost before: the state will not change any more.
    pub async fn reached(&self, revision: Revision) -> Result<(), SeatLost> {
        self.shared.reached(revision).await
    }

    /// Returns a unit; `None` when nothing is known of it.
    #[must_use]
    pub fn unit(&self, name: &UnitName) -> (Option<UnitRow>, Revision) {
        let hot = self.shared.read();
        let state = &hot.state;
        let known = state.units().contains_key(name) || !state.placed(name).is_empty();
        (known.then(|| Rows::of(state).row(name)), state.revision())
    }

    /// Returns a unit's text.
    #[must_use]
    pub fn text(&self, hash: &ContentHash) -> Option<String> {
        let hot = self.shared.read();
        hot.state.content(hash)?.file().ok().map(|file| file.text().to_owned())
    }

    /// Returns the units that a machine's manifest names or its report speaks of, strays included.
    #[must_use]
    pub fn units_on(&self, id: MachineId) -> Vec<UnitName> {
        let hot = self.shared.read();
        let Some(machine) = hot.state.machines().get(&id) else { return Vec::new() };
        let named = machine.entries().map(|entry| &entry.unit);
        let reported = machine.reports().map(|report| &report.unit);
        let names: std::collections::BTreeSet<_> = named.chain(reported).cloned().collect();
        names.into_iter().collect()
    }

    /// Says why a unit is where it is, or is nowhere: first what is wrong with the unit itself,
    /// then, rule by rule, the machines.
    #[must_use]
    pub fn why(&self, unit: &UnitName) -> Why {
        let unfit = self.unfit(unit);
        let hot = self.shared.read();
        let row = Rows::of(&hot.state).row(unit);
        Why {
            lost: lost(&hot.state, unit),
            update: unfit.or(row.waits).or(row.rollout),
            problem: problem(&hot.state, unit).or_else(|| hot.state.hidden_entry(unit)),
            engine: hot.engine.standstill.clone().or_else(|| hot.engine.hold.clone()),
            explanation: hot.model.explain(unit),
            closed: closed(&hot),
            revision: hot.state.revision(),
        }
    }

    /// Says, for a list, why a unit that should be somewhere is on no machine but those that are lost, if it
    /// cannot be put on one as things are. [`StateReader::why`] says it machine by machine.
    #[must_use]
    pub fn unplaced(&self, unit: &UnitName) -> Option<Unplaced> {
        let hot = self.shared.read();
        let keeps = self.keeps(&hot, unit)?;
        Some(Unplaced { lost: lost(&hot.state, unit).into_iter().map(|(_, host)| host).collect(), keeps })
    }

    /// Says what keeps a unit from being placed, if something does.
    fn keeps(&self, hot: &Hot, unit: &UnitName) -> Option<Keeps> {
        let told = problem(&hot.state, unit)
            .or_else(|| hot.state.hidden_entry(unit))
            .or_else(|| hot.engine.standstill.clone().or_else(|| hot.engine.hold.clone()));
        if let Some(why) = told {
            return Some(Keeps::Word(why));
        }
        let rules = self.shared.brief(hot, unit)?;
        let none_lives = hot.model.core().living_machines().next().is_none();
        Some(if none_lives { Keeps::NoMachine } else { Keeps::Rules(rules) })
    }

    /// Says what keeps every machine from having a unit with the text that it is to get, if its turn has
    /// come and none can.
    fn unfit(&self, unit: &UnitName) -> Option<String> {
        let (wanted, old) = {
            let hot = self.shared.read();
            let rollout = hot.state.rollout(&hot.state.owner(unit))?;
            let next = rollout.next().filter(|next| next.unit == *unit && !next.same_place)?;
            let Wish::Wanted(wanted) = hot.state.wish(unit) else { return None };
            (wanted, next.hash)
        };
        let explanation = self.shared.write().model.explain_if(unit, wanted.requirements);
        let fits = explanation.machines.iter().any(|verdict| verdict.reasons.is_empty());
        let refusal = |verdict: &crate::placement::Verdict| {
            Some(format!("{}: {}", verdict.host, verdict.reasons.first()?))
        };
        let refusals: Vec<String> =
            explanation.machines.iter().filter_map(refusal).take(REFUSALS_NAMED).collect();
        (!fits).then(|| {
            let (old, new) = (old.short(), wanted.hash.short());
            format!("it keeps {old}, because no machine can have it with {new}: {}", refusals.join("; "))
        })
    }

    /// Returns what keeps this engine from deciding anything, if something does: the store went back,
    /// or it leads and its records do not allow it.
    #[must_use]
    pub fn standstill(&self) -> Option<String> {
        let hot = self.shared.read();
        let standstill = hot.engine.standstill.as_ref().filter(|_| hot.engine.leads);
        hot.state.went_back().map(ToString::to_string).or_else(|| standstill.cloned())
    }

    /// Tells whether the engine of this seat leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.shared.read().engine.leads
    }

    /// Returns how many units are in which of systemd's states, as their machines report them.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.shared.read().state.tally()
    }

    /// Describes the cluster as a whole.
    #[must_use]
    pub fn cluster(&self) -> ClusterRow {
        let hot = self.shared.read();
        let state = &hot.state;
        let lives = |life: Life| state.machines().values().filter(|m| m.life() == life).count();
        let lost = |m: &&crate::state::Machine| m.life() == Life::Lost && m.entries().next().is_some();
        let mut problems: Vec<String> = state.went_back().map(ToString::to_string).into_iter().collect();
        problems.extend(state.cluster().and_then(Kept::unreadable).map(ToString::to_string));
        problems.extend(state.range_problems());
        problems.extend(state.machines().values().flat_map(crate::state::Machine::unreadable));
        problems.extend(state.unreadable_units().take(PAGE_MAX).map(ToString::to_string));
        // The leader tells when it has acted on it; the others hold by what they saw.
        let mut engine = hot.engine.clone();
        if !engine.leads {
            engine.hold = hot.brake.holding().map(BrakeChange::why);
        }
        ClusterRow {
            cluster: state.cluster().and_then(Kept::record).cloned(),
            revision: state.revision(),
            leader: state.leader().and_then(Kept::record).cloned(),
            seats: state
                .seats()
                .iter()
                .filter_map(|(number, seat)| Some((*number, Arc::clone(seat.record()?))))
                .collect(),
            engine,
            units: state.units().len(),
            machines_alive: lives(Life::Present) + lives(Life::Stopped) + lives(Life::Unknown),
            machines_lost: state.machines().values().filter(lost).count(),
            problems,
        }
    }

    /// Returns the events up to a revision, newest first, at most [`PAGE_MAX`]: where there are so many, ask
    /// again before the last of them.
    #[must_use]
    pub fn events_until(&self, revision: Revision) -> Vec<(Revision, Arc<EventRecord>)> {
        let hot = self.shared.read();
        let older = hot.state.events().range(..=revision).rev();
        let readable = older.filter_map(|(at, event)| Some((*at, Arc::clone(event.record.record()?))));
        readable.take(PAGE_MAX).collect()
    }

    /// Returns the revision up to which events may have been collected.
    #[must_use]
    pub fn events_gone(&self) -> Revision {
        self.shared.read().state.events_gone()
    }

    /// Returns the events after a revision, oldest first, at most [`PAGE_MAX`]: where there are so
    /// many, ask again after the last of them.
    #[must_use]
    pub fn events_after(&self, revision: Revision) -> Vec<(Revision, Arc<EventRecord>)> {
        let hot = self.shared.read();
        let from = (Bound::Excluded(revision), Bound::Unbounded);
        let newer = hot.state.events().range(from);
        let readable = newer.filter_map(|(at, event)| Some((*at, Arc::clone(event.record.record()?))));
        readable.take(PAGE_MAX).collect()
    }

    /// Returns what changed after a revision.
    ///
    /// # Errors
    /// That is longer ago than this seat remembers.
    pub fn since(&self, revision: Revision) -> Result<Delta, TooOld> {
        let hot = self.shared.read();
        let (units, machines) = hot.since(revision).ok_or(TooOld(revision))?;
        Ok(Delta {
            revision: hot.state.revision(),
            units: units.into_iter().collect(),
            machines: machines.into_iter().collect(),
        })
    }

    /// Returns a doorbell that rings when the state has moved on; ask [`StateReader::since`] then. It
    /// fails when the seat is lost: this state will not change any more.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<Revision> {
        self.shared.subscribe()
    }
}

/// Why a unit is where it is, or is nowhere.
#[derive(Debug, Clone)]
pub struct Why {
    /// What is wrong with the unit itself.
    pub problem: Option<String>,
    /// What keeps the engine from deciding.
    pub engine: Option<String>,
    /// Why it does not have its newest text, or what its template's newest text waits for.
    pub update: Option<String>,
    /// The core's word: for each machine, each rule in the way.
    pub explanation: Explanation,
    /// For each machine that is closed to new units, why.
    pub closed: Vec<(MachineId, String)>,
    /// The lost machines where it has its place until another takes it, and their names.
    pub lost: Vec<(MachineId, String)>,
    /// What the state was of.
    pub revision: Revision,
}

/// Why a unit is on no machine that lives, in short.
#[derive(Debug, Clone)]
pub struct Unplaced {
    /// The lost machines where it has its place until another takes it, by name.
    pub lost: Vec<String>,
    /// What keeps it from being placed.
    pub keeps: Keeps,
}

/// What keeps a unit from being placed.
#[derive(Debug, Clone)]
pub enum Keeps {
    /// Something that is wrong with it, or with the cluster.
    Word(String),
    /// Rules, in words, with how many machines break each first; none where each would have it alone, but not
    /// with those that have to be with it.
    Rules(Arc<[(usize, String)]>),
    /// No machine lives.
    NoMachine,
}

fn closed(hot: &Hot) -> Vec<(MachineId, String)> {
    let machines = hot.state.machines().iter().filter(|(_, machine)| machine.life() != Life::Lost);
    machines.filter_map(|(id, machine)| Some((*id, machine.closed()?))).collect()
}

/// Returns the lost machines where a unit has its place until another takes it, with their names.
fn lost(state: &ClusterState, unit: &UnitName) -> Vec<(MachineId, String)> {
    let staying = state.placed(unit).into_iter().filter(|placed| placed.entry.departing.is_none());
    let named = staying.filter(|placed| placed.life == Life::Lost).map(|placed| {
        let record = state.machines().get(&placed.machine).and_then(|machine| machine.known());
        let host = record.map(|record| record.host.clone());
        (placed.machine, host.unwrap_or_else(|| placed.machine.short()))
    });
    named.collect()
}

fn problem(state: &ClusterState, unit: &UnitName) -> Option<String> {
    match state.wish(unit) {
        Wish::Unreadable(error) => Some(error.to_string()),
        Wish::Stuck(obstacle) => Some(obstacle.to_string()),
        Wish::Unknown | Wish::Gone { .. } | Wish::Wanted(_) => None,
    }
}
