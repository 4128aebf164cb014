//! What a unit asks of the machine that it runs on.
//!
//! Owns the options of the `[X-Flotilla]` section (`[X-Fleet]` is its exact
//! synonym) as typed values. It never looks at machines or at other units: the
//! engine does.

mod contradictions;
mod expand;
mod options;
mod read;
mod values;

use std::{collections::BTreeSet, fmt, sync::Arc};

use crate::{
    Glob, MachineChoice, Preference, ProblemKind, Reservation, Selector, UnitName, problem::Found,
    reservation,
};
use read::Entry;

pub(crate) use expand::Subject;
pub use options::option_names;
pub use read::MAX_VALUES;
pub(crate) use read::SECTIONS;

/// What happens to a unit whose machine is cut off from the cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnPartition {
    /// It keeps running there, and another is started elsewhere once the machine's lease has ended.
    #[default]
    Replace,
}

/// What one unit asks for, with specifiers expanded.
///
/// Units whose values are equal can run on the same machines: they are one class for placement.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitRequirements {
    /// It runs on this machine only.
    pub machine: Option<MachineChoice>,
    /// It runs where, for each of these, another unit that it matches is. A pattern without wildcards
    /// ([`Glob::literal`]) is the name of one unit.
    pub machine_of: BTreeSet<Glob>,
    /// The machine's metadata meets all of these.
    pub metadata: BTreeSet<Selector>,
    /// No other unit that one of these matches is on the machine. It holds in either direction, and
    /// never between a unit and itself.
    pub conflicts: BTreeSet<Glob>,
    /// Other units that one of these matches leave the machine for it.
    pub replaces: BTreeSet<Glob>,
    /// It runs on every machine that it may run on.
    pub global: bool,
    /// What happens when its machine is cut off.
    pub on_partition: OnPartition,
    /// What decides between machines that could all take it.
    pub prefer: BTreeSet<Preference>,
    /// The machine has each of these keys, and instances of the unit's template are spread over the
    /// values. Plain units have none.
    pub spread: BTreeSet<String>,
    /// How many units of its template a machine may have, at least 1. Plain units have none.
    pub max_per_machine: Option<u32>,
    /// Once placed it waits for its machine, whatever happens to that.
    pub sticky: bool,
    /// What it keeps for itself.
    pub reserve: Reservation,
    /// Who is placed first, and whom others may push away: -1000 to 1000, more is first.
    pub priority: i16,
    /// It may push units of lower priority off a machine, where nothing else makes room.
    pub preempt: bool,
}

/// What a unit file asks for, as it is written: specifiers are not yet expanded, so that a template's
/// instances share it. Clones share everything.
#[derive(Debug, Clone)]
pub struct Requirements(Arc<Written>);

#[derive(Debug)]
struct Written {
    entries: Vec<Entry>,
    /// What is reserved where the entries say nothing.
    defaults: Reservation,
    /// The typed values, when no specifier makes them depend on the unit's name.
    expanded: Option<Arc<UnitRequirements>>,
}

/// Why the requirements of a file make no sense for a unit of a certain name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequirementsError {
    /// The unit.
    pub unit: UnitName,
    /// What is wrong, at least one.
    pub problems: Vec<ProblemKind>,
}

impl Requirements {
    /// Tells whether specifiers make the requirements differ from unit to unit. If not, all instances
    /// of a template ask for the same, and [`Requirements::for_unit`] returns the same `Arc` to all.
    #[must_use]
    pub fn depends_on_name(&self) -> bool {
        self.0.expanded.is_none()
    }

    /// Returns what the unit of this name asks for: a plain unit, or an instance of the template whose
    /// file this is.
    ///
    /// # Errors
    /// An expanded value is not what its option takes, or contradicts another.
    pub fn for_unit(&self, unit: &UnitName) -> Result<Arc<UnitRequirements>, RequirementsError> {
        let refuse = |problems| RequirementsError { unit: unit.clone(), problems };
        if let Some(shared) = &self.0.expanded {
            let problems: Vec<_> =
                contradictions::misplaced(shared, unit).into_iter().map(|(_, kind)| kind).collect();
            return if problems.is_empty() { Ok(shared.clone()) } else { Err(refuse(problems)) };
        }
        let mut found = Found::default();
        let Written { entries, defaults, .. } = &*self.0;
        let expanded = expand::expand(entries, defaults, Subject::Unit(unit), &mut found);
        if found.is_empty() { Ok(Arc::new(expanded)) } else { Err(refuse(found.into_kinds())) }
    }

    /// Reads the section of a file, and checks it as far as the subject is known.
    pub(crate) fn read(file: &crate::UnitFile, subject: Subject<'_>, found: &mut Found) -> Self {
        let entries = read::collect(file, found);
        let defaults = reservation::defaults(file);
        let expanded = expand::expand(&entries, &defaults, subject, found);
        let depends = entries.iter().any(|e| e.depends_on_name);
        let expanded = (!depends).then(|| Arc::new(expanded));
        Self(Arc::new(Written { entries, defaults, expanded }))
    }
}

impl fmt::Display for RequirementsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the requirements of {} make no sense", self.unit)?;
        self.problems.iter().enumerate().try_for_each(|(n, p)| {
            let before = if n == 0 { ": " } else { "; " };
            write!(f, "{before}{p}")
        })
    }
}

impl std::error::Error for RequirementsError {}

#[cfg(test)]
mod tests;
