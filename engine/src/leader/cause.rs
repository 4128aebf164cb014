//! Why the engine decides what it decides, for people: who asked for it, or what happened.
//!
//! Pure. Planning asks for the cause of what it plans; the answer is made of the state alone: a record
//! was written in one transaction with the event that says who wrote it and by which request.

use std::sync::Arc;

use flotilla_registry::{
    records::{Departure, EventRecord, Target},
    store::Revision,
};
use flotilla_units::{ContentHash, MachineId, UnitName};
use jiff::Timestamp;

use super::plan::in_words;
use crate::state::{ClusterState, Kept, Machine, Placed};

/// After how long a unit that gets its place is said to have waited for it. Ten seconds: more than a
/// placement takes under load, less than anybody waits without wondering.
const WAITED_S: i64 = 10;

/// Why something is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cause {
    /// For people.
    pub why: String,
    /// The request that led to it, if one did.
    pub request: Option<String>,
}

impl Cause {
    const fn of(why: String) -> Self {
        Self { why, request: None }
    }

    /// Says who wants of a unit what is wanted of it now.
    pub fn ordered(state: &ClusterState, unit: &UnitName) -> Self {
        let Some(kept) = state.units().get(unit) else { return Self::of("nobody wants it".to_owned()) };
        let Some(record) = kept.record() else { return Self::of("its record cannot be read".to_owned()) };
        let event = written_with(state, kept.mod_revision());
        let again = event.is_some_and(|event| {
            let mut ordered = event.changes.iter().filter(|it| it.kind == "restart-ordered");
            ordered.any(|it| it.units().any(|it| it == unit))
        });
        let did = match record.target {
            _ if record.deleting => "destroyed",
            Target::Launched if again => "restarted",
            Target::Launched => "started",
            Target::Loaded => "loaded",
            Target::Inactive => "unloaded",
        };
        let request = event.and_then(|event| event.request_about(unit)).map(str::to_owned);
        Self { why: format!("{did} by {}", record.by), request }
    }

    /// Says who gave a unit the content that it is to run now.
    pub fn updated(state: &ClusterState, unit: &UnitName, from: ContentHash, to: ContentHash) -> Self {
        let own = state.units().get(unit).filter(|kept| kept.record().is_some_and(|it| it.current.is_some()));
        let template = || unit.template().and_then(|template| state.units().get(&template));
        let (whose, kept) = if own.is_some() { ("", own) } else { ("its template ", template()) };
        let (from, to) = (from.short(), to.short());
        let Some((kept, record)) = kept.and_then(|kept| Some((kept, kept.record()?))) else {
            return Self::of(format!("updated from {from} to {to}"));
        };
        let request = request_of(written_with(state, kept.mod_revision()));
        Self { why: format!("{whose}updated from {from} to {to} by {}", record.by), request }
    }

    /// Says why a unit gets a place on a machine now.
    pub fn placed(
        state: &ClusterState,
        unit: &UnitName,
        placed: &[Placed<'_>],
        target: MachineId,
        now: Timestamp,
    ) -> Self {
        // What it leaves, or has just left: the newest entry is the one that this one follows.
        let left = placed.iter().filter(|it| it.entry.departing.is_some() && it.machine != target);
        if let Some(left) = left.max_by_key(|it| it.entry.token)
            && let Some(why) = left.entry.departing
            && !matches!(why, Departure::Unloaded | Departure::Destroyed | Departure::Updated)
        {
            return Self::left(state, left.machine, why);
        }
        let ordered = Self::ordered(state, unit);
        let Some(kept) = state.units().get(unit) else { return ordered };
        let machine = state.machines().get(&target);
        let written = kept.mod_revision();
        if let Some(since) = machine.and_then(|it| it.record.as_ref()).map(Kept::create_revision)
            && since > written
        {
            return Self::of(format!("{} joined; {}", host(state, target), ordered.why));
        }
        if let Some((settings, by)) = machine.and_then(|machine| settings_by(state, machine))
            && settings > written
        {
            let request = request_of(written_with(state, settings));
            let why = format!("the settings of {} were changed{by}; {}", host(state, target), ordered.why);
            return Self { why, request };
        }
        let waited = kept.record().map_or(0, |record| now.duration_since(record.at).as_secs());
        if waited >= WAITED_S {
            return Self { why: format!("{}; it waited {waited} s for a place", ordered.why), ..ordered };
        }
        ordered
    }

    /// Says why a unit leaves, or left, a machine other than by a user's word about the unit.
    pub fn left(state: &ClusterState, machine: MachineId, why: Departure) -> Self {
        let host = host(state, machine);
        if why == Departure::MachineLost {
            return Self::of(format!("{host} was lost"));
        }
        let known = state.machines().get(&machine);
        let settings = known.and_then(|known| settings_by(state, known));
        let (by, request) = match settings.filter(|_| why == Departure::Drained) {
            Some((at, by)) => (by, request_of(written_with(state, at))),
            None => (String::new(), None),
        };
        Self { why: format!("it left {host}: {}{by}", in_words(why)), request }
    }

    /// Says why a unit is ordered off a machine.
    pub fn departs(state: &ClusterState, unit: &UnitName, machine: MachineId, why: Departure) -> Self {
        match why {
            Departure::Unloaded | Departure::Destroyed => Self::ordered(state, unit),
            Departure::MachineLost => Self::left(state, machine, why),
            Departure::Drained => {
                let known = state.machines().get(&machine);
                let settings = known.and_then(|known| settings_by(state, known));
                let (at, by) = settings.unwrap_or_default();
                let request = request_of(written_with(state, at));
                Self { why: format!("{}{by}", in_words(why)), request }
            }
            Departure::Requirements => {
                let changed = state.machines().get(&machine).and_then(|known| settings_by(state, known));
                let written = state.units().get(unit).map(Kept::mod_revision);
                // What was said of the machine after what was said of the unit.
                match changed.filter(|(at, _)| Some(*at) > written) {
                    Some((at, by)) => {
                        let request = request_of(written_with(state, at));
                        let host = host(state, machine);
                        Self { why: format!("{}, which was changed{by} ({host})", in_words(why)), request }
                    }
                    None => Self::of(in_words(why).to_owned()),
                }
            }
            why => Self::of(in_words(why).to_owned()),
        }
    }
}

/// Returns the host name of a machine, or what stands for it.
pub fn host(state: &ClusterState, machine: MachineId) -> String {
    let known = state.machines().get(&machine).and_then(Machine::known);
    known.map_or_else(|| machine.short(), |record| record.host.clone())
}

/// Returns when a machine's settings were written last, and by whom, as ` by NAME`.
fn settings_by(state: &ClusterState, machine: &Machine) -> Option<(Revision, String)> {
    let at = machine.settings.as_ref()?.mod_revision();
    let by = written_with(state, at).map_or_else(String::new, |event| format!(" by {}", event.by));
    Some((at, by))
}

/// Returns the event of the transaction that wrote something, if that is not too long ago.
fn written_with(state: &ClusterState, revision: Revision) -> Option<&Arc<EventRecord>> {
    state.events().get(&revision)?.record.record()
}

fn request_of(event: Option<&Arc<EventRecord>>) -> Option<String> {
    event.and_then(|event| event.request.clone())
}
