//! What the store wants of one unit, resolved through template and content.

use std::{fmt, sync::Arc};

use flotilla_registry::records::{Adoption, RecordError, Rollout, Target, UnitRecord};
use flotilla_units::{ContentHash, MachineChoice, MachineId, UnitName, UnitRequirements};

use super::{ClusterState, ContentError, Kept, Life, Placed, readable};

/// What is wanted of a unit.
#[derive(Debug, Clone)]
pub enum Wish {
    /// There is no such unit. Entries without a unit are left as they are: absence orders nothing.
    Unknown,
    /// Its record cannot be read: it is left exactly as it is.
    Unreadable(Arc<RecordError>),
    /// It is to be on no machine.
    Gone {
        /// Its record is to go too, once each placement is proven gone.
        deleting: bool,
    },
    /// It is to be on a machine, and what it is cannot be told: it stays where it is, as it is, and
    /// is placed nowhere.
    Stuck(Obstacle),
    /// It is to be on a machine.
    Wanted(Wanted),
}

/// What is to be on a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The name that systemd knows it by.
    pub runtime: UnitName,
    /// The content.
    pub hash: ContentHash,
    /// [`Target::Loaded`] or [`Target::Launched`].
    pub target: Target,
    /// The run that was ordered last.
    pub run: u64,
    /// Where it may be.
    pub requirements: Arc<UnitRequirements>,
    /// It runs on a machine as the machine's own, the only one where it may be until it is taken over there.
    pub adopt: bool,
}

/// Why it cannot be told what a unit is.
#[derive(Debug, Clone)]
pub enum Obstacle {
    /// It is an instance, and its template has no record.
    TemplateMissing(UnitName),
    /// It is an instance, and its template's record cannot be read.
    TemplateUnreadable(Arc<RecordError>),
    /// Its record, or its template's, names no content.
    NoContent(UnitName),
    /// The content that it names is not in the store.
    ContentMissing(ContentHash),
    /// The content is there and is not a unit file that can be run.
    Content(ContentHash, ContentError),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TemplateMissing(name) => write!(f, "its template {name} is not in the cluster: submit it"),
            Self::TemplateUnreadable(error) => write!(f, "its template cannot be read: {error}"),
            Self::NoContent(name) => write!(f, "{name} has no content: submit its unit file again"),
            Self::ContentMissing(hash) => {
                write!(f, "its content {} is not in the store: submit the same file again", hash.short())
            }
            Self::Content(hash, error) => write!(f, "its content {} cannot be used: {error}", hash.short()),
        }
    }
}

impl ClusterState {
    /// Returns what is wanted of a unit.
    #[must_use]
    pub fn wish(&self, unit: &UnitName) -> Wish {
        let Some(kept) = self.units.get(unit) else { return Wish::Unknown };
        let record = match (kept.record(), kept.unreadable()) {
            (Some(record), _) => record,
            (None, Some(error)) => return Wish::Unreadable(Arc::clone(error)),
            (None, None) => return Wish::Unknown,
        };
        if record.deleting || record.target == Target::Inactive || unit.is_template() {
            return Wish::Gone { deleting: record.deleting };
        }
        match self.resolve(unit, record) {
            Ok((hash, requirements)) => {
                let only_on = record.adopted.and_then(Adoption::only_on);
                let requirements = match only_on {
                    None => requirements,
                    Some(machine) => only_there(&requirements, machine),
                };
                Wish::Wanted(Wanted {
                    // What a range says is one record for all of its instances, and has none of their names.
                    runtime: if kept.is_derived() { unit.clone() } else { record.runtime.clone() },
                    hash,
                    target: record.target,
                    run: record.run,
                    requirements,
                    adopt: only_on.is_some(),
                })
            }
            Err(obstacle) => Wish::Stuck(obstacle),
        }
    }

    /// Returns what is wanted of a unit as long as it waits for its turn to get another text: what its entry
    /// has. `None` if it does not wait, or if it cannot be told what that text asks for.
    ///
    /// Started anew elsewhere meanwhile it gets the text that it had: one that turns out to be bad must not be
    /// spread by the loss of a machine. Where the text is only to wait for the next start, this is the next start.
    /// What is on many machines cannot ask for two things: there the newer text counts at once.
    pub(crate) fn as_before(
        &self,
        unit: &UnitName,
        wanted: &Wanted,
        placed: &[Placed<'_>],
        has_turn: impl Fn(MachineId) -> bool,
    ) -> Option<Wanted> {
        let owner = || self.units.get(&self.owner(unit)).and_then(Kept::record);
        let next_start = || owner().is_some_and(|record| record.rollout == Rollout::NextStart);
        let leaves = |on: &Placed<'_>| {
            let drains = || self.machines.get(&on.machine).is_some_and(super::Machine::draining);
            on.life == Life::Lost || drains()
        };
        let waits = |on: &&Placed<'_>| {
            on.entry.stays()
                && on.entry.hash != wanted.hash
                && (on.entry.run, on.entry.target) == (wanted.run, wanted.target)
                && !has_turn(on.machine)
        };
        let on = placed.iter().filter(waits).max_by_key(|on| on.entry.token)?;
        let before = self.requirements_of(unit, on.entry.hash)?;
        if before.global || wanted.requirements.global || (leaves(on) && next_start()) {
            return None;
        }
        // Until it is taken over it may be nowhere else, whatever its text says.
        let requirements = match &wanted.requirements.machine {
            Some(MachineChoice::Id(machine)) if wanted.adopt => only_there(&before, *machine),
            _ => before,
        };
        let runtime = on.entry.runtime.clone().unwrap_or_else(|| unit.clone());
        Some(Wanted { runtime, hash: on.entry.hash, requirements, ..wanted.clone() })
    }

    /// Returns what a unit asks of machines when it runs a content, whatever its record says.
    #[must_use]
    pub fn requirements_of(&self, unit: &UnitName, hash: ContentHash) -> Option<Arc<UnitRequirements>> {
        self.contents.get(&hash)?.requirements(unit).ok()
    }

    /// Returns the content that a unit has, or that its template gives it.
    ///
    /// # Errors
    /// What stands in the way of knowing it.
    pub fn content_of(&self, unit: &UnitName, record: &UnitRecord) -> Result<ContentHash, Obstacle> {
        if let Some(hash) = record.current {
            return Ok(hash);
        }
        let Some(kept) = unit.on_template(|template| self.units.get(template)) else {
            return Err(Obstacle::NoContent(unit.clone()));
        };
        let template = || unit.template().unwrap_or_else(|| unit.clone());
        let kept = kept.ok_or_else(|| Obstacle::TemplateMissing(template()))?;
        if let Some(error) = kept.unreadable() {
            return Err(Obstacle::TemplateUnreadable(Arc::clone(error)));
        }
        readable(Some(kept)).and_then(|record| record.current).ok_or_else(|| Obstacle::NoContent(template()))
    }

    fn resolve(
        &self,
        unit: &UnitName,
        record: &UnitRecord,
    ) -> Result<(ContentHash, Arc<UnitRequirements>), Obstacle> {
        let hash = self.content_of(unit, record)?;
        let content = self.contents.get(&hash).ok_or(Obstacle::ContentMissing(hash))?;
        let requirements = content.requirements(unit).map_err(|error| Obstacle::Content(hash, error))?;
        Ok((hash, requirements))
    }
}

/// Returns what a unit asks for that may be on one machine only.
pub(crate) fn only_there(requirements: &UnitRequirements, machine: MachineId) -> Arc<UnitRequirements> {
    let machine = Some(MachineChoice::Id(machine));
    Arc::new(UnitRequirements { machine, ..requirements.clone() })
}
