//! What is asked of units, and by whom.
//!
//! The words that callers of [`Operations`](super::Operations) use. Nothing here reads or decides.

use std::{collections::BTreeSet, ops::RangeInclusive};

use flotilla_units::{MachineId, UnitName};

use crate::{
    records::{Rollout, Target, UnitRecord, Without},
    store::Revision,
};

use super::OperationError;

/// Who asks, and by which request; both stand in the event of what comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker<'a> {
    /// The user's name.
    pub by: &'a str,
    /// The request's id, where there is one.
    pub request: Option<&'a str>,
}

impl<'a> From<&'a str> for Asker<'a> {
    fn from(by: &'a str) -> Self {
        Self { by, request: None }
    }
}

/// Everything that one write asks of one unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitOrder {
    /// The text that it is to have.
    pub text: Option<NewText>,
    /// What is to become of it.
    pub word: Option<Word>,
    /// Only if its record was last written at this revision; zero means that it is not there.
    pub expected: Option<Revision>,
    /// Only if it is in the cluster: what was destroyed meanwhile is not made anew by it.
    pub must_exist: bool,
    /// A run that is to be raised though its target is wanted already is raised from this one only: where
    /// somebody else was faster, once is enough.
    pub seen_run: Option<u64>,
    /// An instance that is not there is made by its template, also where nothing is wanted of it.
    pub create: bool,
    /// The set of unit files that it is remembered to be made by, should it be made now.
    pub set: Option<String>,
    /// It becomes the set's also where it is there already. What runs is not touched by it.
    pub take_over: bool,
    /// It is not in the cluster yet, runs on this machine as the machine's own, and is taken over.
    pub adopt: Option<MachineId>,
}

/// A unit's text, checked by whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewText {
    /// The text.
    pub text: String,
    /// It may take the place of another text.
    pub replace: bool,
    /// How those that run get to know of it. Said with `replace`, it is taken in also where the text is
    /// the same.
    pub rollout: Rollout,
    /// An instance may have it for itself, and does not follow its template from then on.
    pub own: bool,
}

/// What is to become of a unit, or of every instance of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// What is wanted of it.
    Target {
        /// The target.
        target: Target,
        /// Though it is wanted already: started anew, or if it is to be loaded, stopped anew.
        raise_run: bool,
    },
    /// It is to go, and its record with it.
    Destroy,
}

/// What became of a write about several units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bulk {
    /// What became of each, in the order of their names.
    pub written: Vec<Written>,
    /// How many transactions it took. With more than one, others may have seen a part of it.
    pub transactions: usize,
}

/// What became of one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The unit.
    pub unit: UnitName,
    /// What was done.
    pub effect: Effect,
    /// When its record was last written: whoever waits for the effect watches from here.
    pub revision: Revision,
    /// Its generation afterwards.
    pub generation: u64,
    /// Its run afterwards.
    pub run: u64,
    /// The machine whose own it was, if it was adopted.
    pub adopted_from: Option<MachineId>,
}

/// What became of a range of instances. It has one entry for all of which the same became, however many those
/// are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeWritten {
    /// The template.
    pub template: UnitName,
    /// What became of instances that a range speaks for, ascending.
    pub parts: Vec<RangePart>,
    /// What became of those with a record of their own, in the order of their names.
    pub own: Vec<Written>,
    /// How many transactions it took.
    pub transactions: usize,
}

/// What became of consecutive instances, but for those of them that have a record of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangePart {
    /// The instances.
    pub instances: RangeInclusive<u64>,
    /// Those of them that are not there.
    pub without: Without,
    /// What was done.
    pub effect: Effect,
    /// When what is said of them was last written.
    pub revision: Revision,
    /// The generation of each afterwards.
    pub generation: u64,
    /// The run of each afterwards.
    pub run: u64,
}

/// What was done to a unit's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It did not exist before.
    Created,
    /// It is another than before.
    Changed,
    /// It was as asked already.
    Unchanged,
}

impl Word {
    /// Tells whether it makes the run of what had `before` as its target grow.
    pub(super) fn raises(self, before: Target) -> bool {
        match self {
            Self::Target { target: Target::Launched, raise_run } => before != Target::Launched || raise_run,
            // What something else started is to be stopped anew; what flotilla started, is stopped anyway.
            Self::Target { target: Target::Loaded, raise_run } => before == Target::Loaded && raise_run,
            Self::Target { target: Target::Inactive, .. } | Self::Destroy => false,
        }
    }
}

impl Word {
    /// The same, but a run is raised only where the target becomes another.
    pub(super) const fn without_raising(self) -> Self {
        match self {
            Self::Target { target, .. } => Self::Target { target, raise_run: false },
            Self::Destroy => self,
        }
    }
}

impl NewText {
    /// A text for a unit that has none yet, or the same.
    #[must_use]
    pub fn first(text: impl Into<String>) -> Self {
        Self { text: text.into(), replace: false, rollout: Rollout::default(), own: false }
    }

    /// A text that takes the place of any other.
    #[must_use]
    pub fn replacing(text: impl Into<String>) -> Self {
        Self { replace: true, ..Self::first(text) }
    }
}

impl UnitOrder {
    /// Gives the unit a text.
    #[must_use]
    pub fn submit(text: NewText) -> Self {
        Self { text: Some(text), ..Self::default() }
    }

    /// Takes a unit over that runs on a machine as the machine's own: its text is given, and it is launched.
    #[must_use]
    pub fn adopt(text: NewText, from: MachineId) -> Self {
        let word = Word::Target { target: Target::Launched, raise_run: false };
        Self { text: Some(text), adopt: Some(from), ..Self::word(word) }
    }

    /// Makes an instance by its template, with a target.
    #[must_use]
    pub fn instance(target: Target) -> Self {
        Self { create: true, ..Self::word(Word::Target { target, raise_run: false }) }
    }

    /// Says what is to become of the unit.
    #[must_use]
    pub fn word(word: Word) -> Self {
        Self { word: Some(word), ..Self::default() }
    }

    /// Refuses what contradicts itself.
    pub(super) fn check(&self, unit: &UnitName) -> Result<(), OperationError> {
        match (&self.text, self.word) {
            (Some(_), Some(Word::Destroy)) => Err(OperationError::Contradictory(unit.clone())),
            (_, Some(Word::Destroy)) if self.take_over => Err(OperationError::Contradictory(unit.clone())),
            _ => Ok(()),
        }
    }
}

impl RangeWritten {
    /// Returns how many instances it is about: those that are there.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.sum(|_| true)
    }

    /// Returns how many of them are other than before.
    #[must_use]
    pub fn changed(&self) -> u64 {
        self.sum(|effect| effect != Effect::Unchanged)
    }

    fn sum(&self, counts: impl Fn(Effect) -> bool) -> u64 {
        let own = self.own_numbers();
        let parts = self.parts.iter().filter(|part| counts(part.effect)).map(|part| {
            let RangePart { instances, without, .. } = part;
            let own = own.range(instances.clone()).filter(|number| !without.has(**number)).count() as u64;
            instances.end() - instances.start() + 1 - without.count(instances.clone()) - own
        });
        parts.sum::<u64>() + self.own.iter().filter(|written| counts(written.effect)).count() as u64
    }

    /// Returns when the last of it was written.
    #[must_use]
    pub fn revision(&self) -> Revision {
        let revisions = self.parts.iter().map(|part| part.revision);
        revisions.chain(self.own.iter().map(|written| written.revision)).max().unwrap_or(Revision(0))
    }

    /// Says of each instance what became of it, those with a record of their own last.
    pub fn each(&self) -> impl Iterator<Item = Written> {
        let own = self.own_numbers();
        let said =
            self.parts.iter().flat_map(|part| part.instances.clone().map(move |number| (part, number)));
        let said = said.filter(move |(part, number)| !own.contains(number) && !part.without.has(*number));
        let said = said.filter_map(|(part, number)| {
            let RangePart { effect, revision, generation, run, .. } = *part;
            let unit = self.template.with_number(number).ok()?;
            Some(Written { revision, generation, run, ..Written::of(&unit, effect, None) })
        });
        said.chain(self.own.iter().cloned())
    }

    fn own_numbers(&self) -> BTreeSet<u64> {
        self.own.iter().filter_map(|written| written.unit.number()).collect()
    }
}

impl Written {
    /// Says what a record is afterwards, of which it is not known yet when it was written.
    pub(super) fn of(unit: &UnitName, effect: Effect, record: Option<&UnitRecord>) -> Self {
        Self {
            unit: unit.clone(),
            effect,
            revision: Revision(0),
            generation: record.map_or(0, |record| record.generation),
            run: record.map_or(0, |record| record.run),
            adopted_from: record.and_then(|record| record.adopted).map(|adopted| adopted.from),
        }
    }
}
