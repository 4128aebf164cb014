//! Decides what an operation writes, from the records as they are. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flotilla_units::{ContentHash, UnitName};
use jiff::Timestamp;

use crate::{
    reads::Stored,
    records::{EventChange, RecordError, Target, UnitRecord, VERSION},
    store::Revision,
};

use super::{CONTENT_BYTES_MAX, Effect, OperationError};

/// What is asked of one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Submit { hash: ContentHash, text: Arc<[u8]> },
    Target { target: Target, raise_run: bool },
    Destroy,
}

/// The records that a plan is made from.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// Of every unit asked about and every template of one; absent ones are not in it.
    pub units: BTreeMap<UnitName, Result<Stored<UnitRecord>, RecordError>>,
    /// The texts that units have and that are missing in the store, or are not what their hash says.
    pub missing: BTreeSet<ContentHash>,
    /// The instances, not yet being destroyed, of every template that is to be destroyed.
    pub instances: BTreeMap<UnitName, Vec<UnitName>>,
}

/// What becomes of one unit.
#[derive(Debug)]
pub(super) struct Step {
    pub unit: UnitName,
    pub effect: Effect,
    /// When the record was last written, as seen; zero if it is absent.
    pub seen: Revision,
    /// `None` when it is as asked already.
    pub write: Option<Write>,
}

/// One unit's part of a transaction.
#[derive(Debug)]
pub(super) struct Write {
    pub record: UnitRecord,
    pub content: Option<(ContentHash, Arc<[u8]>)>,
    /// The template that must be as seen, and when it was last written.
    pub template: Option<(UnitName, Revision)>,
    pub change: EventChange,
}

/// Decides on all units at once.
///
/// # Errors
/// The first unit, by name, that cannot be done.
pub(super) fn plan(
    sight: &Sight,
    wishes: &BTreeMap<UnitName, Wish>,
    by: &str,
    at: Timestamp,
) -> Result<Vec<Step>, OperationError> {
    wishes
        .iter()
        .map(|(name, wish)| {
            let existing = sight.get(name)?;
            let write = match wish {
                Wish::Submit { hash, text } => submit(sight, name, existing, *hash, text)?,
                Wish::Target { target, raise_run } => set_target(sight, name, existing, *target, *raise_run)?,
                Wish::Destroy => destroy(sight, wishes, name, existing)?,
            };
            let effect = match (&write, existing) {
                (None, _) => Effect::Unchanged,
                (Some(_), None) => Effect::Created,
                (Some(_), Some(_)) => Effect::Changed,
            };
            let write = write.map(|mut write| {
                write.record.generation += 1;
                by.clone_into(&mut write.record.by);
                write.record.at = at;
                write
            });
            let seen = existing.map_or(Revision(0), |stored| stored.written);
            Ok(Step { unit: name.clone(), effect, seen, write })
        })
        .collect()
}

impl Sight {
    fn get(&self, name: &UnitName) -> Result<Option<&Stored<UnitRecord>>, OperationError> {
        match self.units.get(name) {
            None => Ok(None),
            Some(Ok(stored)) => Ok(Some(stored)),
            Some(Err(error)) => Err(OperationError::Unreadable(error.clone())),
        }
    }
}

fn submit(
    sight: &Sight,
    name: &UnitName,
    existing: Option<&Stored<UnitRecord>>,
    hash: ContentHash,
    text: &Arc<[u8]>,
) -> Result<Option<Write>, OperationError> {
    if let Some(template) = name.template() {
        return Err(OperationError::InstanceSubmitted { instance: name.clone(), template });
    }
    if text.len() > CONTENT_BYTES_MAX {
        return Err(OperationError::TooLarge { unit: name.clone(), bytes: text.len() });
    }
    let (kind, record) = match existing {
        None => ("submitted", new_record(name)),
        Some(stored) => match stored.record.current {
            _ if stored.record.deleting => return Err(OperationError::BeingDestroyed(name.clone())),
            Some(current) if current != hash => {
                return Err(OperationError::ContentDiffers { unit: name.clone(), current, submitted: hash });
            }
            Some(_) if !sight.missing.contains(&hash) => return Ok(None),
            // The unit is there and its text is not: this is how it is put back.
            _ => ("text-restored", stored.record.clone()),
        },
    };
    let record = UnitRecord { current: Some(hash), ..record };
    // Written also when the cluster has the same text: its collection compares when it was last
    // written, and so cannot take it away at this very moment.
    let content = Some((hash, text.clone()));
    Ok(Some(Write { record, content, template: None, change: change(kind, name, None) }))
}

fn set_target(
    sight: &Sight,
    name: &UnitName,
    existing: Option<&Stored<UnitRecord>>,
    target: Target,
    raise_run: bool,
) -> Result<Option<Write>, OperationError> {
    if name.is_template() && target != Target::Inactive {
        return Err(OperationError::TemplateStarted(name.clone()));
    }
    if existing.is_some_and(|stored| stored.record.deleting) {
        return Err(OperationError::BeingDestroyed(name.clone()));
    }
    let template = match name.template() {
        Some(template) if target != Target::Inactive => Some(usable(sight, name, template)?),
        _ => None,
    };
    let mut record = match existing {
        Some(stored) => stored.record.clone(),
        // Who wants nothing of an instance does not make one.
        None if template.is_some() => new_record(name),
        None => return Err(OperationError::NoSuchUnit(name.clone())),
    };
    let before = record.target;
    let starts = target == Target::Launched && (before != Target::Launched || raise_run);
    if existing.is_some() && before == target && !starts {
        return Ok(None);
    }
    record.target = target;
    if starts {
        record.run += 1;
    }
    let change = if before == target && starts {
        change("restart-ordered", name, None)
    } else {
        change("target-changed", name, Some(format!("from {before} to {target}")))
    };
    Ok(Some(Write { record, content: None, template, change }))
}

/// Returns an instance's template, if instances of it may be made, and when it was last written.
fn usable(
    sight: &Sight,
    instance: &UnitName,
    template: UnitName,
) -> Result<(UnitName, Revision), OperationError> {
    match sight.get(&template)? {
        None => Err(OperationError::MissingTemplate { instance: instance.clone(), template }),
        Some(stored) if stored.record.deleting => Err(OperationError::BeingDestroyed(template)),
        Some(stored) => Ok((template, stored.written)),
    }
}

fn destroy(
    sight: &Sight,
    wishes: &BTreeMap<UnitName, Wish>,
    name: &UnitName,
    existing: Option<&Stored<UnitRecord>>,
) -> Result<Option<Write>, OperationError> {
    let Some(stored) = existing else { return Err(OperationError::NoSuchUnit(name.clone())) };
    if stored.record.deleting {
        return Ok(None);
    }
    let staying: Vec<_> =
        sight.instances.get(name).into_iter().flatten().filter(|&it| !wishes.contains_key(it)).collect();
    if let Some(&example) = staying.first() {
        return Err(OperationError::TemplateInUse {
            template: name.clone(),
            instances: staying.len(),
            example: example.clone(),
        });
    }
    let record = UnitRecord { deleting: true, ..stored.record.clone() };
    Ok(Some(Write { record, content: None, template: None, change: change("destroy-ordered", name, None) }))
}

/// Returns the record of a unit that is new; its generation is one too low, as of every record
/// that is about to be written.
fn new_record(name: &UnitName) -> UnitRecord {
    UnitRecord {
        v: VERSION,
        runtime: name.clone(),
        current: None,
        staged: None,
        target: Target::Inactive,
        generation: 0,
        run: 0,
        by: String::new(),
        at: Timestamp::UNIX_EPOCH,
        deleting: false,
    }
}

fn change(kind: &str, unit: &UnitName, why: Option<String>) -> EventChange {
    EventChange { kind: kind.to_owned(), unit: Some(unit.clone()), machine: None, why }
}
