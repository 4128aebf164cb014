//! Which units, machines and events a reader wants to see, beyond their names.
//!
//! Filters are read from a query once, and hold for a list, each of its pages, and a watch alike.

use std::collections::BTreeSet;

use flotilla_api::{
    machine::{Machine, MachineState},
    page::{MachinesQuery, UnitFilter},
    unit::{Placement, Target, Unit},
    watch::{Event, EventsQuery},
};
use flotilla_engine::Names;
use flotilla_units::{Glob, MachineId, Selector as MetadataTerm, UnitFile, UnitName};
use jiff::Timestamp;

use crate::{
    error::ApiError,
    select::{Selector, any_selects, stretches},
};

/// How a unit is that nobody reports anything of.
const NOT_THERE: [&str; 3] = ["inactive", "dead", "unknown"];

/// The shortest beginning of a machine's id that names it: four digits, as people type.
const PREFIX_MIN: usize = 4;

/// Machines, by host name or id: globs, or the beginning of an id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machines(Vec<Glob>);

/// Which units.
#[derive(Debug, Clone, Default)]
pub(crate) struct Units {
    names: Vec<Selector>,
    machines: Machines,
    load: Vec<String>,
    active: Vec<String>,
    sub: Vec<String>,
    state: Vec<String>,
    kinds: Vec<String>,
    targets: Vec<Target>,
    templates: Vec<Selector>,
    failed: bool,
    unplaced: bool,
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub(crate) struct Events {
    names: Vec<Selector>,
    machines: Machines,
    kinds: Vec<Glob>,
    since: Option<Timestamp>,
}

/// Which machines of a list.
#[derive(Debug, Clone, Default)]
pub(crate) struct MachineList {
    names: Machines,
    states: Vec<MachineState>,
    metadata: BTreeSet<MetadataTerm>,
}

impl MachineList {
    /// Reads a query.
    ///
    /// # Errors
    /// A glob, a state or a term of metadata that is none.
    pub(crate) fn read(query: &MachinesQuery) -> Result<Self, ApiError> {
        let state = |word: &str| match word {
            "alive" => Ok(MachineState::Alive),
            "stopped" => Ok(MachineState::Stopped),
            "lost" => Ok(MachineState::Lost),
            _ => Err(ApiError::bad_request(format!(
                "`{word}` is not a machine's state; expected alive, stopped or lost"
            ))),
        };
        Ok(Self {
            names: Machines::read(query.pattern.as_deref())?,
            states: words(query.state.as_deref()).map(state).collect::<Result<_, _>>()?,
            metadata: query.selector.as_deref().map(metadata).transpose()?.unwrap_or_default(),
        })
    }

    /// Tells whether a machine is wanted.
    pub(crate) fn select(&self, machine: &Machine) -> bool {
        self.names.select(machine.id, machine.host.as_deref())
            && (self.states.is_empty() || self.states.contains(&machine.state))
            && self
                .metadata
                .iter()
                .all(|term| term.meets(machine.metadata.get(&term.key).map(String::as_str)))
    }
}

/// Reads a selector as `MachineMetadata=` has it, by the same code.
fn metadata(text: &str) -> Result<BTreeSet<MetadataTerm>, ApiError> {
    let refuse = |why: String| ApiError::bad_request(format!("the selector `{text}` makes no sense: {why}"));
    if text.contains(char::is_control) {
        return Err(refuse("it has to be one line".to_owned()));
    }
    let file = format!("[Service]\nExecStart=/bin/true\n[X-Flotilla]\nMachineMetadata={text}\n");
    let file = UnitFile::parse("selector", file.as_bytes()).map_err(|e| refuse(e.to_string()))?;
    let name = "selector.service".parse::<UnitName>()?;
    let requirements = file.requirements().map_err(|e| refuse(e.to_string()))?;
    let requirements = requirements.for_unit(&name).map_err(|e| refuse(e.to_string()))?;
    Ok(requirements.metadata.clone())
}

/// Splits a list that is separated by commas.
pub(crate) fn words(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn owned(text: Option<&str>) -> Vec<String> {
    words(text).map(str::to_owned).collect()
}

fn globs(text: Option<&str>) -> Result<Vec<Glob>, ApiError> {
    Glob::split_list(text.unwrap_or_default())
        .map(|word| word.parse().map_err(|e| ApiError::bad_request(format!("`{word}`: {e}"))))
        .collect()
}

impl Machines {
    /// Reads a list that is separated by commas.
    pub(crate) fn read(text: Option<&str>) -> Result<Self, ApiError> {
        Ok(Self(globs(text)?))
    }

    /// Tells whether every machine is wanted.
    pub(crate) fn all(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells whether a machine is wanted.
    pub(crate) fn select(&self, id: MachineId, host: Option<&str>) -> bool {
        let id = id.to_string();
        let is = |glob: &Glob| {
            let begins = glob.as_str().len() >= PREFIX_MIN && id.starts_with(glob.as_str());
            begins || glob.matches(&id) || host.is_some_and(|host| glob.matches(host))
        };
        self.all() || self.0.iter().any(is)
    }
}

impl Units {
    /// Reads names and a filter.
    ///
    /// # Errors
    /// A glob or a target that is none.
    pub(crate) fn read(pattern: Option<&str>, filter: &UnitFilter) -> Result<Self, ApiError> {
        let target = |word: &str| match word {
            "inactive" => Ok(Target::Inactive),
            "loaded" => Ok(Target::Loaded),
            "launched" => Ok(Target::Launched),
            _ => Err(ApiError::bad_request(format!(
                "`{word}` is not a target; expected inactive, loaded or launched"
            ))),
        };
        Ok(Self {
            names: Selector::read_list(pattern)?,
            machines: Machines::read(filter.machine.as_deref())?,
            load: owned(filter.load.as_deref()),
            active: owned(filter.active.as_deref()),
            sub: owned(filter.sub.as_deref()),
            state: owned(filter.state.as_deref()),
            kinds: owned(filter.kind.as_deref()),
            targets: words(filter.target.as_deref()).map(target).collect::<Result<_, _>>()?,
            templates: Selector::read_list(filter.template.as_deref())?,
            failed: filter.failed,
            unplaced: filter.unplaced,
        })
    }

    /// Returns where the names stand of units that may be wanted.
    pub(crate) fn stretches(&self) -> Names {
        stretches(&self.names)
    }

    /// Tells whether a unit may be wanted, by its name alone.
    pub(crate) fn names(&self, unit: &UnitName) -> bool {
        let kind = unit.as_str().rsplit_once('.').map_or("", |(_, kind)| kind);
        any_selects(&self.names, unit)
            && (self.kinds.is_empty() || self.kinds.iter().any(|it| it == kind))
            && (self.templates.is_empty()
                || unit.template().is_some_and(|template| any_selects(&self.templates, &template)))
    }

    /// Tells whether a unit is wanted, its name being so.
    pub(crate) fn select(&self, unit: &Unit) -> bool {
        (self.targets.is_empty() || self.targets.contains(&unit.target))
            && (!self.unplaced || unit.unplaced.is_some())
            && self.has_wanted_place(unit)
    }

    /// Tells whether a unit is wanted for one of its places, or for having none.
    fn has_wanted_place(&self, unit: &Unit) -> bool {
        if unit.placements.is_empty() {
            return self.machines.all() && !self.failed && self.is_wanted(NOT_THERE);
        }
        unit.placements.iter().any(|placement| {
            self.machines.select(placement.machine, placement.host.as_deref())
                && (!self.failed || states(placement)[0] == "failed")
                && self.is_wanted(states(placement))
        })
    }

    fn is_wanted(&self, [active, sub, load]: [&str; 3]) -> bool {
        let among = |wanted: &[String], is: &[&str]| {
            wanted.is_empty() || wanted.iter().any(|wanted| is.contains(&wanted.as_str()))
        };
        among(&self.active, &[active])
            && among(&self.sub, &[sub])
            && among(&self.load, &[load])
            && among(&self.state, &[active, sub, load])
    }
}

/// Returns how a unit is in one place: active, sub and load state.
fn states(placement: &Placement) -> [&str; 3] {
    match placement.state.as_ref() {
        _ if !placement.machine_alive => ["unknown"; 3],
        Some(state) => [&state.active, &state.sub, &state.load],
        None => NOT_THERE,
    }
}

impl Events {
    /// Reads a query.
    ///
    /// # Errors
    /// A glob that is none.
    pub(crate) fn read(query: &EventsQuery) -> Result<Self, ApiError> {
        Ok(Self {
            names: Selector::read_list(query.pattern.as_deref())?,
            machines: Machines::read(query.machine.as_deref())?,
            kinds: globs(query.kind.as_deref())?,
            since: query.since,
        })
    }

    /// Tells whether an event is wanted.
    pub(crate) fn select(&self, event: &Event) -> bool {
        let unit = || event.unit.as_ref().is_some_and(|unit| any_selects(&self.names, unit));
        let machine = || event.machine.is_some_and(|id| self.machines.select(id, event.host.as_deref()));
        self.since.is_none_or(|since| event.at >= since)
            && (self.names.is_empty() || unit())
            && (self.machines.all() || machine())
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind.matches(&event.kind)))
    }
}
