//! Machines, for people.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use flotilla_registry::{
    records::{MachineRecord, MachineSettings},
    store::Revision,
};
use flotilla_units::{MachineId, Reservation, UnitName, UnitRequirements};

use super::{PAGE_MAX, Page, StateReader};
use crate::state::{ClusterState, Kept, Life, Machine};

/// How many digits of an id name a machine that is only looked at: as many as filters take.
const DIGITS_TO_READ: usize = 4;

/// How many digits of an id name a machine that something is changed of: as many as `MachineID=` takes. Few
/// host names are eight hexadecimal digits.
const DIGITS_TO_CHANGE: usize = 8;

/// A machine, for people.
#[derive(Debug, Clone)]
pub struct MachineRow {
    /// Its id.
    pub id: MachineId,
    /// Whether it takes part.
    pub life: Life,
    /// Its record, or what it said last while this engine watched.
    pub record: Option<Arc<MachineRecord>>,
    /// Its configuration's metadata with what users said over it; its facts are not in it.
    pub metadata: BTreeMap<String, String>,
    /// What users said of it; `None` where nobody did, or it cannot be read.
    pub settings: Option<Arc<MachineSettings>>,
    /// When that was last written; zero where nobody said anything.
    pub settings_at: Revision,
    /// What the units in its manifest reserve, those that are leaving included.
    pub reserved: Reservation,
    /// Why nothing new is placed there, if so.
    pub closed: Option<String>,
    /// How many entries its manifest has, departing ones included.
    pub units: usize,
    /// Its records that cannot be read.
    pub problems: Vec<String>,
}

/// Why a word names no machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchMachine {
    /// None has this name, and no id begins so.
    #[error("there is no machine `{0}`; `flotctl list-machines` shows those that there are")]
    Unknown(String),
    /// It may be the beginning of an id, and is too short to be taken for one.
    #[error(
        "there is no machine with the host name `{word}`, and to be the beginning of an id it needs {digits} digits; \
         `flotctl list-machines -l` shows the ids"
    )]
    TooShort {
        /// What was asked for.
        word: String,
        /// How many digits name a machine.
        digits: usize,
    },
    /// Several do.
    #[error("`{word}` is {}; name one by its id", several(found))]
    Several {
        /// What was asked for.
        word: String,
        /// Two or more that it names, with their host names.
        found: Vec<(MachineId, String)>,
    },
}

impl StateReader {
    /// Lists machines that live, or whose manifest or settings are in the store: those that a filter
    /// lets through, after an id, at most `limit` (and [`PAGE_MAX`]).
    #[must_use]
    pub fn machines(
        &self,
        after: Option<MachineId>,
        limit: usize,
        lets_through: impl Fn(&MachineRow) -> bool,
    ) -> Page<MachineRow, MachineId> {
        let hot = self.shared.read();
        let state = &hot.state;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let machines = state.machines().range((from, Bound::Unbounded));
        let mut all = machines.map(|(id, it)| machine_row(state, *id, it)).filter(|row| lets_through(row));
        let limit = limit.clamp(1, PAGE_MAX);
        let rows: Vec<_> = all.by_ref().take(limit).collect();
        let next = if all.next().is_some() { rows.last().map(|row| row.id) } else { None };
        Page { rows, revision: state.revision(), next }
    }

    /// Returns a machine.
    #[must_use]
    pub fn machine(&self, id: MachineId) -> Option<MachineRow> {
        let hot = self.shared.read();
        hot.state.machines().get(&id).map(|machine| machine_row(&hot.state, id, machine))
    }

    /// Returns a machine's host name, where it is known.
    #[must_use]
    pub fn host(&self, id: MachineId) -> Option<String> {
        let hot = self.shared.read();
        hot.state.machines().get(&id)?.known().map(|record| record.host.clone())
    }

    /// Returns what would keep a unit that the cluster has not, with these requirements, from a machine, for
    /// people; nothing if it could be placed there now.
    #[must_use]
    pub fn refusals(&self, unit: &UnitName, asks: &UnitRequirements, machine: MachineId) -> Vec<String> {
        let mut hot = self.shared.write();
        if let Some(closed) = hot.state.machines().get(&machine).and_then(Machine::closed) {
            return vec![closed];
        }
        match hot.model.refusals(unit, Arc::new(asks.clone()), machine) {
            None => vec!["it is not alive".to_owned()],
            Some(reasons) => reasons.iter().map(ToString::to_string).collect(),
        }
    }

    /// Finds the machine that a person means: by its id, by its host name, or by how its id begins, in
    /// four digits or more. Of several with one name the one that lives is meant.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find_machine(&self, word: &str) -> Result<MachineId, NoSuchMachine> {
        self.find_machine_by(word, DIGITS_TO_READ)
    }

    /// As [`StateReader::find_machine`], for who changes something of it: `db` may be a host that has gone,
    /// and is not to be the machine whose id begins so. Only eight digits or more are the
    /// beginning of an id.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find_machine_to_change(&self, word: &str) -> Result<MachineId, NoSuchMachine> {
        self.find_machine_by(word, DIGITS_TO_CHANGE)
    }

    fn find_machine_by(&self, word: &str, digits: usize) -> Result<MachineId, NoSuchMachine> {
        let hot = self.shared.read();
        let machines = hot.state.machines();
        if let Some(id) = word.parse().ok().filter(|id: &MachineId| machines.contains_key(id)) {
            return Ok(id);
        }
        let host = |machine: &Machine| machine.known().map(|record| record.host.clone());
        let named = machines.iter().filter(|(_, machine)| host(machine).as_deref() == Some(word));
        let mut found: Vec<_> = named.collect();
        if found.iter().any(|(_, machine)| machine.life() != Life::Lost) {
            found.retain(|(_, machine)| machine.life() != Life::Lost);
        }
        if found.is_empty() && !word.is_empty() {
            let begin = word.to_ascii_lowercase();
            found = machines.iter().filter(|(id, _)| id.to_string().starts_with(&begin)).collect();
            if !found.is_empty() && begin.len() < digits {
                return Err(NoSuchMachine::TooShort { word: word.to_owned(), digits });
            }
        }
        match found.as_slice() {
            [] => Err(NoSuchMachine::Unknown(word.to_owned())),
            [(id, _)] => Ok(**id),
            several => {
                let told = several.iter().map(|(id, machine)| (**id, host(machine).unwrap_or_default()));
                Err(NoSuchMachine::Several { word: word.to_owned(), found: told.collect() })
            }
        }
    }
}

fn several(found: &[(MachineId, String)]) -> String {
    let told: Vec<String> = found.iter().take(3).map(|(id, host)| format!("{host} ({id})")).collect();
    let more = if found.len() > told.len() { ", and more" } else { "" };
    format!("more than one machine: {}{more}", told.join(", "))
}

fn machine_row(state: &ClusterState, id: MachineId, machine: &Machine) -> MachineRow {
    MachineRow {
        id,
        life: machine.life(),
        record: machine.known().cloned(),
        metadata: machine.given_metadata(),
        settings: machine.settings.as_ref().and_then(Kept::record).cloned(),
        settings_at: machine.settings.as_ref().map_or(Revision(0), Kept::mod_revision),
        reserved: reserved(state, machine),
        closed: machine.closed(),
        units: machine.entries().count(),
        problems: machine.unreadable(),
    }
}

/// Adds up what the units of a machine reserve.
fn reserved(state: &ClusterState, machine: &Machine) -> Reservation {
    let mut all = Reservation::default();
    let of_units = machine.entries().filter_map(|entry| state.requirements_of(&entry.unit, entry.hash));
    for requirements in of_units {
        let Reservation { cpu_milli, memory_bytes, named, ports } = &requirements.reserve;
        all.cpu_milli = all.cpu_milli.saturating_add(*cpu_milli);
        all.memory_bytes = all.memory_bytes.saturating_add(*memory_bytes);
        for (name, count) in named {
            let sum = all.named.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
        all.ports.extend(ports);
    }
    all
}
