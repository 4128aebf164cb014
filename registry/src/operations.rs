//! What users ask of the cluster: the only writers of `units/`, `contents/` and `machine-settings/`, but for
//! the end of a unit's record, and the note that one was taken over from a machine, which are the leader's.
//!
//! Each operation reads the records it is about, decides on all of them at once
//! (`plan`, pure), and writes in transactions that compare everything that was read
//! (`commit`), each with its event. The API calls these; the engine never does. They
//! check names and records; that a text is a valid unit file is checked before, by the
//! `units` crate.
//!
//! What is asked at the same time of one template and its instances, or of units of no template, is
//! planned from one look and written together (`lanes`).
//!
//! A range of instances (`ranges/`) is ordered as one (`interval`, pure, over `ranges`, pure): one
//! record speaks for all of them, except for those with a record of their own and those that were
//! destroyed one by one, which it notes. Two flotillads that change ranges of one template at once meet
//! at its guard, which both compare and rewrite: one plans anew. An order about an instance without a record
//! of its own compares the guard too. A record that is made while a range is being ordered is seen by the
//! order, because it compares that none was written since it looked.

mod commit;
mod events;
mod interval;
mod lanes;
mod machines;
mod order;
mod plan;
mod ranges;
mod settings;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
};

use flotilla_units::{ContentHash, UnitName, UnitRange};

use crate::{
    election::random_id,
    reads::Registry,
    records::{RecordError, Target},
    store::{Revision, StoreError, TXN_BYTES_MAX},
    timing::Timing,
};

pub use self::machines::{
    KEYS_MAX, MACHINES_MAX, MachineError, MachineOrder, MachineWord, MachineWritten, MetadataChange,
};
pub use self::order::{Asker, Bulk, Effect, NewText, RangePart, RangeWritten, UnitOrder, Word, Written};
pub use self::settings::{EVENTS_KEPT_S, EVENTS_MAX, SettingsError, SettingsOrder};

use self::{
    interval::RangeOrder,
    lanes::{Lanes, Tasks},
    plan::Wish,
    ranges::RANGES_MAX,
};

/// The most bytes of one unit's text: a transaction, less its record and event.
pub const CONTENT_BYTES_MAX: usize = TXN_BYTES_MAX - 16 * 1024;

/// What users ask of a cluster. What is asked at the same time is written together.
#[derive(Debug)]
pub struct Operations {
    core: Arc<Core>,
    tasks: Tasks,
}

/// What the tasks of the lanes share with who asks.
#[derive(Debug)]
struct Core {
    registry: Registry,
    timing: Timing,
    /// Names this process's events; random, so that no two ever write the same key.
    writer: String,
    sequence: AtomicU64,
    lanes: Lanes,
}

/// Why something was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OperationError {
    /// There is no such unit.
    #[error("there is no unit `{0}` in the cluster; submit its unit file first")]
    NoSuchUnit(UnitName),
    /// An instance's template is not there.
    #[error("there is no template `{template}` for `{instance}`; submit the template first")]
    MissingTemplate {
        /// The instance.
        instance: UnitName,
        /// Its template.
        template: UnitName,
    },
    /// A template cannot run itself.
    #[error(
        "`{0}` is a template and cannot run itself; name an instance: text between the `@` and the suffix"
    )]
    TemplateStarted(UnitName),
    /// An instance has no text of its own.
    #[error("`{instance}` is an instance and has no unit file of its own; submit its template `{template}`")]
    InstanceSubmitted {
        /// The instance.
        instance: UnitName,
        /// Its template.
        template: UnitName,
    },
    /// The unit exists with another text.
    #[error(
        "`{unit}` is in the cluster with another text ({}, not {}); replace it (`--replace`), or use another name",
        current.short(),
        submitted.short()
    )]
    ContentDiffers {
        /// The unit.
        unit: UnitName,
        /// The text that it has.
        current: ContentHash,
        /// The text that was submitted.
        submitted: ContentHash,
    },
    /// A unit is to be taken over, and the cluster has one of its name.
    #[error("the cluster has a unit `{0}` already; destroy or rename one of the two")]
    NameTaken(UnitName),
    /// The unit was changed since the asker looked.
    #[error(
        "`{unit}` is at revision {}, not at {} as asked for: {}; look at it and decide again",
        found.0,
        expected.0,
        if found.0 == 0 { "it is not there" } else { "it was changed meanwhile" }
    )]
    RevisionDiffers {
        /// The unit.
        unit: UnitName,
        /// The revision that was asked for.
        expected: Revision,
        /// When it was last written; zero if it is not there.
        found: Revision,
    },
    /// Two things are asked of a unit at once that cannot both be.
    #[error("`{0}` is asked to be two things by the same order; ask for one of them")]
    Contradictory(UnitName),
    /// All or none was asked for, and it is too much for one transaction.
    #[error(
        "what is asked of the {units} units does not fit into one transaction of the store; ask for less, or do \
         without \"all or none\""
    )]
    TooManyAtOnce {
        /// How many there are.
        units: usize,
    },
    /// The unit is on its way out.
    #[error(
        "`{0}` is being destroyed; its name is free once it is proven gone from every machine (`flotctl status` \
         tells where it still is)"
    )]
    BeingDestroyed(UnitName),
    /// A template has instances.
    #[error(
        "the template `{template}` has {instances} instance(s), for example `{example}`; destroy them first"
    )]
    TemplateInUse {
        /// The template.
        template: UnitName,
        /// How many instances there are.
        instances: usize,
        /// One of them.
        example: UnitName,
    },
    /// The text is too long.
    #[error("the unit file of `{unit}` has {bytes} bytes; the store takes up to {CONTENT_BYTES_MAX}")]
    TooLarge {
        /// The unit.
        unit: UnitName,
        /// Its length.
        bytes: usize,
    },
    /// No instance of a range exists.
    #[error("there is no instance `{0}` in the cluster; nothing was changed")]
    NoSuchInstances(UnitRange),
    /// A template's ranges are in too many pieces.
    #[error(
        "the instances of `{0}` are said in {RANGES_MAX} ranges, the most that there may be; an order about a \
         range of them that includes many makes one of them"
    )]
    TooScattered(UnitName),
    /// What is stored cannot be understood; nothing was changed.
    #[error(
        "a record that this is about cannot be read, so it is left alone; mend or delete it in the store"
    )]
    Unreadable(#[source] RecordError),
    /// Others kept changing the same units.
    #[error("others changed the same units {attempts} times meanwhile; try again")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// The store stopped answering in the middle.
    #[error(
        "it is not known whether the change of {} took effect, because the store stopped answering; look at their \
         status before trying again",
        names(units)
    )]
    OutcomeUnknown {
        /// The units that it is about.
        units: Vec<UnitName>,
        /// What the store said last.
        #[source]
        source: StoreError,
    },
    /// The store stopped answering in the middle of an order about a range.
    #[error(
        "it is not known whether the change of {range} took effect, because the store stopped answering; the same \
         again does what is missing"
    )]
    RangeUnknown {
        /// The range.
        range: UnitRange,
        /// What the store said last.
        #[source]
        source: StoreError,
    },
    /// Some instances of a range were written and the rest not.
    #[error("{done} instances of {range} were written and then it failed; the same again does the rest")]
    RangeIncomplete {
        /// The range.
        range: UnitRange,
        /// How many were written.
        done: u64,
        /// What kept the rest from being written.
        #[source]
        source: Box<Self>,
    },
    /// Some units were written and the rest not.
    #[error("{} of {total} units were written and then it failed; the same again does the rest", written.len())]
    Incomplete {
        /// Those that were written.
        written: Vec<Written>,
        /// How many there are.
        total: usize,
        /// What kept the rest from being written.
        #[source]
        source: Box<Self>,
    },
    /// flotillad ends.
    #[error("flotillad is ending, and it is not known whether the change took effect; ask another one")]
    Ended,
    /// The store failed, and did not take the change.
    #[error("the store failed and did not take the change")]
    Store(#[source] StoreError),
}

impl Operations {
    /// Makes the operations on a cluster; one for a whole process.
    #[must_use]
    pub fn new(registry: Registry, timing: Timing) -> Self {
        let writer = format!("api-{}", random_id());
        let (sequence, lanes) = (AtomicU64::new(0), Lanes::default());
        let core = Arc::new(Core { registry, timing, writer, sequence, lanes });
        Self { core, tasks: Tasks::default() }
    }

    /// Returns the typed reads of the same cluster.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.core.registry
    }

    /// Gives units to the cluster, with the text of each; templates too. They run nowhere yet.
    ///
    /// # Guarantees
    /// All are checked before the first is written, and up to about 60 are written in one transaction.
    /// The same text again changes nothing, unless the stored one is missing or is not what its hash
    /// says: then it is put back. A record is never without its text.
    ///
    /// # Errors
    /// A unit has another text already, is being destroyed, is an instance, or is too large; else
    /// what the store said.
    pub async fn submit(
        &self,
        units: &[(UnitName, String)],
        by: impl Into<Asker<'_>>,
    ) -> Result<Vec<Written>, OperationError> {
        let order = |(name, text): &(UnitName, String)| {
            (name.clone(), UnitOrder::submit(NewText::first(text.clone())))
        };
        let orders: Vec<_> = units.iter().map(order).collect();
        Ok(self.write(&orders, false, by).await?.written)
    }

    /// Does to each unit all that is asked of it: texts given and replaced, targets, runs, destroys.
    ///
    /// # Guarantees
    /// All are checked before the first is written. What fits into one transaction (some 60 units with
    /// new texts, or 119 without) is done at once or not at all; more is done in several, one after the
    /// other, unless `whole` asks for one: then it is refused. An instance may be ordered together with the
    /// text of its template. The text that a unit has already changes nothing.
    ///
    /// # Errors
    /// A unit cannot be done, or was changed since the revision that was asked for; else what the store
    /// said.
    pub async fn write(
        &self,
        orders: &[(UnitName, UnitOrder)],
        whole: bool,
        by: impl Into<Asker<'_>>,
    ) -> Result<Bulk, OperationError> {
        let mut wishes: BTreeMap<UnitName, Wish> = BTreeMap::new();
        for (name, order) in orders {
            order.check(name)?;
            let wish = Wish::from(order);
            match wishes.insert(name.clone(), wish.clone()) {
                Some(before) if before != wish => return Err(twice(name, &before, &wish)),
                _ => {}
            }
        }
        self.carry_out(wishes, whole, by.into()).await
    }

    /// Says what the user wants of units. Instances of a known template are created by it.
    ///
    /// A unit that becomes `launched` gets a new run. With `raise_run` one that has this target already
    /// gets one too: the caller says so when it is launched and not active, to have it started anew, or
    /// when it is loaded and runs, because something else started it, to have it stopped.
    ///
    /// # Guarantees
    /// As [`Operations::submit`], with up to 119 units in one transaction.
    ///
    /// # Errors
    /// There is no such unit or template, the unit is a template, or is being destroyed; else what
    /// the store said.
    pub async fn set_target(
        &self,
        units: &[UnitName],
        target: Target,
        raise_run: bool,
        by: impl Into<Asker<'_>>,
    ) -> Result<Vec<Written>, OperationError> {
        self.carry_out_each(units, Word::Target { target, raise_run }, by.into()).await
    }

    /// Says what the user wants of a range of instances. Those that are missing are created by it,
    /// unless nothing is wanted of them.
    ///
    /// # Guarantees
    /// As [`Operations::set_target`], for as many as [`flotilla_units::RANGE_MAX`] in one transaction as a
    /// rule: where the range was said in more than 40 parts before, or where more than some 100 instances have a
    /// record of their own, in several. What is answered is as large as there are parts, not as instances.
    ///
    /// # Errors
    /// There is no such template, or nothing is wanted and no instance is there, or one is being
    /// destroyed; else what the store said.
    pub async fn set_target_in(
        &self,
        range: &UnitRange,
        target: Target,
        raise_run: bool,
        by: impl Into<Asker<'_>>,
    ) -> Result<RangeWritten, OperationError> {
        let word = Word::Target { target, raise_run };
        self.carry_out_in(range, RangeOrder { word, only_running: false }, by.into()).await
    }

    /// Stops the instances of a range that are to run. What is on no machine stays so, and nothing is created.
    ///
    /// # Guarantees
    /// As [`Operations::set_target_in`].
    ///
    /// # Errors
    /// No instance is there, or one is being destroyed; else what the store said.
    pub async fn stop_in(
        &self,
        range: &UnitRange,
        by: impl Into<Asker<'_>>,
    ) -> Result<RangeWritten, OperationError> {
        let word = Word::Target { target: Target::Loaded, raise_run: false };
        self.carry_out_in(range, RangeOrder { word, only_running: true }, by.into()).await
    }

    /// Orders the instances of a range that are there to be destroyed.
    ///
    /// # Guarantees
    /// As [`Operations::set_target_in`]. Their names are free once all of them are proven gone.
    ///
    /// # Errors
    /// No instance is there; else what the store said.
    pub async fn destroy_in(
        &self,
        range: &UnitRange,
        by: impl Into<Asker<'_>>,
    ) -> Result<RangeWritten, OperationError> {
        self.carry_out_in(range, RangeOrder { word: Word::Destroy, only_running: false }, by.into()).await
    }

    /// Orders units to be started anew, wherever they are; a unit that was not launched is.
    ///
    /// # Guarantees
    /// As [`Operations::set_target`]; each unit's run grows by exactly one.
    ///
    /// # Errors
    /// As [`Operations::set_target`].
    pub async fn restart(
        &self,
        units: &[UnitName],
        by: impl Into<Asker<'_>>,
    ) -> Result<Vec<Written>, OperationError> {
        let word = Word::Target { target: Target::Launched, raise_run: true };
        self.carry_out_each(units, word, by.into()).await
    }

    /// Orders units to be destroyed. Their records stay, `deleting`, until the engine has proof that
    /// they are gone from every machine.
    ///
    /// # Guarantees
    /// As [`Operations::set_target`].
    ///
    /// # Errors
    /// There is no such unit, or it is a template whose instances are not destroyed with it; else
    /// what the store said.
    pub async fn destroy(
        &self,
        units: &[UnitName],
        by: impl Into<Asker<'_>>,
    ) -> Result<Vec<Written>, OperationError> {
        self.carry_out_each(units, Word::Destroy, by.into()).await
    }
}

/// Refuses a unit of which two different things are asked.
fn twice(unit: &UnitName, one: &Wish, other: &Wish) -> OperationError {
    match (one.hash(), other.hash()) {
        (Some(current), Some(submitted)) if current != submitted => {
            OperationError::ContentDiffers { unit: unit.clone(), current, submitted }
        }
        _ => OperationError::Contradictory(unit.clone()),
    }
}

/// Names up to three units; an event that stands for itself is about none.
fn names(units: &[UnitName]) -> String {
    if units.is_empty() {
        return "the events".to_owned();
    }
    let mut text = units.iter().take(3).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if units.len() > 3 {
        text.push_str(&format!(" and {} more", units.len() - 3));
    }
    text
}
