//! Decides what an operation writes, from the records as they are. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flotilla_units::{ContentHash, MachineId, UnitName};
use jiff::Timestamp;

use crate::{
    reads::Stored,
    records::{Adoption, EventChange, RangeRecord, RecordError, Rollout, Target, UnitRecord, VERSION},
    store::Revision,
};

use super::{
    Asker, CONTENT_BYTES_MAX, Effect, OperationError, UnitOrder, Word, Written,
    interval::Said,
    ranges::{Piece, RANGES_MAX},
};

/// What is asked of one unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub text: Option<Text>,
    pub word: Option<Word>,
    /// When its record must have been written last.
    pub expected: Option<Revision>,
    /// It has to be in the cluster.
    pub must_exist: bool,
    /// The run that `word` raises, where it raises one of a target that is wanted already.
    pub seen_run: Option<u64>,
    /// An instance is made also where nothing is wanted of it.
    pub create: bool,
    /// The set that a unit which is made now is of.
    pub set: Option<String>,
    /// The unit becomes the set's also where it is there.
    pub take_over: bool,
    /// It is new, and taken over from this machine.
    pub adopt: Option<MachineId>,
}

/// A text with its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub hash: ContentHash,
    pub text: Arc<[u8]>,
    replace: bool,
    rollout: Rollout,
    own: bool,
}

/// The records that a plan is made from.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// Of every unit asked about and every template of one; absent ones are not in it.
    pub units: BTreeMap<UnitName, Result<Stored<UnitRecord>, RecordError>>,
    /// The texts that units have and that are missing in the store, or are not what their hash says.
    pub missing: BTreeSet<ContentHash>,
    /// What is said of many instances of a template, of every template of a numbered instance that is
    /// asked about, and of every template that is.
    pub ranges: BTreeMap<UnitName, Result<Said, RecordError>>,
    /// The instances with a record of their own, not yet being destroyed, of every template that is to be destroyed.
    pub instances: BTreeMap<UnitName, Vec<UnitName>>,
}

/// What becomes of one unit.
#[derive(Debug)]
pub(super) struct Step {
    /// What it is afterwards, and when the record was last written, as seen; zero if it is absent.
    pub written: Written,
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
    /// The template whose ranges must be as seen.
    pub guard: Option<UnitName>,
    /// The number that is taken out of these ranges.
    pub take_out: Option<u64>,
    pub changes: Vec<EventChange>,
}

/// Decides on all units at once.
///
/// # Errors
/// The first unit, by name, that cannot be done.
pub(super) fn plan(
    sight: &Sight,
    wishes: &BTreeMap<UnitName, Wish>,
    asker: Asker<'_>,
    at: Timestamp,
) -> Result<Vec<Step>, OperationError> {
    wishes
        .iter()
        .map(|(name, wish)| {
            let existing = sight.get(name)?;
            let said = sight.said_of(name)?;
            let inherited = said.filter(|_| existing.is_none());
            let before = existing.cloned().or_else(|| inherited.map(|piece| inherit(name, piece)));
            if let Some(expected) = wish.expected {
                let found = before.as_ref().map_or(Revision(0), |stored| stored.written);
                if found != expected {
                    return Err(OperationError::RevisionDiffers { unit: name.clone(), expected, found });
                }
            }
            if wish.must_exist && before.is_none() {
                return Err(OperationError::NoSuchUnit(name.clone()));
            }
            let write = match (wish.adopt, &before) {
                (Some(from), Some(before)) if is_adopted(&before.record, from, wish) => None,
                (Some(_), Some(_)) => return Err(OperationError::NameTaken(name.clone())),
                _ => all_of(sight, wishes, name, wish, (existing, before.as_ref()))?,
            };
            let write = take_over(name, wish, before.as_ref(), write);
            let effect = match (&write, &before) {
                (None, _) => Effect::Unchanged,
                (Some(_), None) => Effect::Created,
                (Some(_), Some(_)) => Effect::Changed,
            };
            let write = write.map(|mut write| {
                if let Some(from) = wish.adopt {
                    write.record.adopted = Some(Adoption::from(from));
                    write.changes =
                        vec![EventChange { machine: Some(from), ..change("adopted", name, None) }];
                }
                write.record.generation += 1;
                asker.by.clone_into(&mut write.record.by);
                write.record.at = at;
                if before.is_none() {
                    write.record.set.clone_from(&wish.set);
                }
                // The plan rests on what its range says, or on none being there.
                if existing.is_none() && name.number().is_some() {
                    write.guard = name.template();
                }
                // Whatever came of a destroyed instance's own record, no range speaks for it any more.
                if wish.destroys() && said.is_some_and(|piece| !piece.record.deleting) {
                    (write.guard, write.take_out) = (name.template(), name.number());
                }
                write
            });
            if let Some((template, _)) = write.as_ref().and_then(|it| it.guard.as_ref().zip(it.take_out))
                && sight.said(template)?.ranges.len() >= RANGES_MAX
            {
                return Err(OperationError::TooScattered(template.clone()));
            }
            // What is as asked already is so since its record, or its range's, was written.
            let of = if write.is_some() { existing } else { before.as_ref() };
            let seen = of.map_or(Revision(0), |stored| stored.written);
            let after = write.as_ref().map(|write| &write.record).or(before.as_ref().map(|it| &it.record));
            let written = Written { revision: seen, ..Written::of(name, effect, after) };
            Ok(Step { written, write })
        })
        .collect()
}

/// Makes a unit that there is the set's, if it is to be.
fn take_over(
    name: &UnitName,
    wish: &Wish,
    before: Option<&Stored<UnitRecord>>,
    write: Option<Write>,
) -> Option<Write> {
    let (Some(set), Some(before)) = (wish.set.as_ref().filter(|_| wish.take_over), before) else {
        return write;
    };
    if before.record.set.as_ref() == Some(set) || before.record.deleting {
        return write;
    }
    let from = before.record.set.as_ref().map(|owner| format!("from the set `{owner}` "));
    let why = format!("{}to the set `{set}`", from.unwrap_or_default());
    let change = change("set-changed", name, Some(why));
    let mut write = match write {
        None => Write::new(before.record.clone(), change),
        Some(mut write) => {
            write.changes.push(change);
            write
        }
    };
    write.record.set = Some(set.clone());
    Some(write)
}

/// Tells whether a unit was taken over already as it is wished.
fn is_adopted(record: &UnitRecord, from: MachineId, wish: &Wish) -> bool {
    let adopted = record.adopted.is_some_and(|adopted| adopted.from == from);
    adopted && !record.deleting && record.current.is_some() && record.current == wish.hash()
}

/// Decides on all that is asked of one unit: its text first, then what is to become of it. `existing` is
/// its own record, `before` also what a range says of it.
fn all_of(
    sight: &Sight,
    wishes: &BTreeMap<UnitName, Wish>,
    name: &UnitName,
    wish: &Wish,
    (existing, before): (Option<&Stored<UnitRecord>>, Option<&Stored<UnitRecord>>),
) -> Result<Option<Write>, OperationError> {
    let with_text = match &wish.text {
        Some(text) => submit(sight, name, before, text)?,
        None => None,
    };
    let Some(word) = wish.word else {
        return match before {
            // Only whose it is.
            _ if wish.text.is_some() => Ok(with_text),
            None => Err(OperationError::NoSuchUnit(name.clone())),
            Some(stored) if stored.record.deleting => Err(OperationError::BeingDestroyed(name.clone())),
            Some(_) => Ok(None),
        };
    };
    let is_raised = before.is_some_and(|stored| wish.seen_run.is_some_and(|run| run != stored.record.run));
    let word = if is_raised { word.without_raising() } else { word };
    let submitted = with_text.as_ref().map(|write| {
        let written = existing.map_or(Revision(0), |stored| stored.written);
        Stored { record: write.record.clone(), created: written, written, lease: None }
    });
    let now = submitted.as_ref().or(before);
    let ordered = match word {
        Word::Target { target, .. } => set_target(sight, wishes, name, now, target, word)?,
        Word::Destroy => destroy(sight, wishes, name, now)?,
    };
    Ok(match (with_text, ordered) {
        (Some(text), Some(mut write)) => {
            write.content = text.content;
            write.changes.splice(0..0, text.changes);
            Some(write)
        }
        (text, ordered) => ordered.or(text),
    })
}

impl From<&UnitOrder> for Wish {
    fn from(order: &UnitOrder) -> Self {
        let text = order.text.as_ref().map(|new| Text {
            hash: ContentHash::of(new.text.as_bytes()),
            text: Arc::from(new.text.as_bytes()),
            replace: new.replace,
            rollout: new.rollout,
            own: new.own,
        });
        Self {
            text,
            word: order.word,
            expected: order.expected,
            must_exist: order.must_exist,
            seen_run: order.seen_run,
            create: order.create,
            set: order.set.clone(),
            take_over: order.take_over,
            adopt: order.adopt,
        }
    }
}

impl From<Word> for Wish {
    fn from(word: Word) -> Self {
        Self { word: Some(word), ..Self::default() }
    }
}

impl Wish {
    /// Returns the hash of the text that it gives.
    pub(super) fn hash(&self) -> Option<ContentHash> {
        self.text.as_ref().map(|text| text.hash)
    }

    /// Tells whether it destroys its unit.
    pub(super) fn destroys(&self) -> bool {
        self.word == Some(Word::Destroy)
    }
}

impl Write {
    fn new(record: UnitRecord, change: EventChange) -> Self {
        Self { record, content: None, template: None, guard: None, take_out: None, changes: vec![change] }
    }
}

impl Sight {
    fn get(&self, name: &UnitName) -> Result<Option<&Stored<UnitRecord>>, OperationError> {
        match self.units.get(name) {
            None => Ok(None),
            Some(Ok(stored)) => Ok(Some(stored)),
            Some(Err(error)) => Err(OperationError::Unreadable(error.clone())),
        }
    }

    /// Returns what is said of many instances of a template.
    pub(super) fn said(&self, template: &UnitName) -> Result<&Said, OperationError> {
        static NOTHING: Said = Said::nothing();
        match self.ranges.get(template) {
            None => Ok(&NOTHING),
            Some(Ok(said)) => Ok(said),
            Some(Err(error)) => Err(OperationError::Unreadable(error.clone())),
        }
    }

    /// Returns what a range says of a unit, if one does.
    fn said_of(&self, unit: &UnitName) -> Result<Option<&Piece>, OperationError> {
        match unit.template().zip(unit.number()) {
            Some((template, number)) => Ok(self.said(&template)?.ranges.at(number)),
            None => Ok(None),
        }
    }
}

/// Returns the record that an instance would have if what its range says were said of it alone.
fn inherit(name: &UnitName, piece: &Piece) -> Stored<UnitRecord> {
    let RangeRecord { target, generation, run, deleting, .. } = piece.record;
    let record = UnitRecord { target, generation, run, deleting, ..new_record(name) };
    Stored { record, created: piece.written, written: piece.written, lease: None }
}

fn submit(
    sight: &Sight,
    name: &UnitName,
    existing: Option<&Stored<UnitRecord>>,
    new: &Text,
) -> Result<Option<Write>, OperationError> {
    let has_own = existing.is_some_and(|stored| stored.record.current.is_some());
    if let Some(template) = name.template().filter(|_| !new.own && !has_own) {
        return Err(OperationError::InstanceSubmitted { instance: name.clone(), template });
    }
    if new.text.len() > CONTENT_BYTES_MAX {
        return Err(OperationError::TooLarge { unit: name.clone(), bytes: new.text.len() });
    }
    let made = |record: UnitRecord| UnitRecord { current: Some(new.hash), rollout: new.rollout, ..record };
    let (change, record) = match existing {
        None => (change("submitted", name, None), made(new_record(name))),
        Some(stored) => match stored.record.current {
            _ if stored.record.deleting => return Err(OperationError::BeingDestroyed(name.clone())),
            Some(current) if current != new.hash && !new.replace => {
                let submitted = new.hash;
                return Err(OperationError::ContentDiffers { unit: name.clone(), current, submitted });
            }
            Some(current) if current != new.hash => {
                let mut why = format!("from {} to {}", current.short(), new.hash.short());
                if new.rollout == Rollout::NextStart {
                    why.push_str("; what runs is left as it is until its next start");
                }
                (change("replaced", name, Some(why)), made(stored.record.clone()))
            }
            None if name.is_instance() => {
                let why = "it has a text of its own, and no longer its template's".to_owned();
                (change("replaced", name, Some(why)), made(stored.record.clone()))
            }
            Some(_) if !sight.missing.contains(&new.hash) => {
                if !new.replace || new.rollout == stored.record.rollout {
                    return Ok(None);
                }
                let why = match new.rollout {
                    Rollout::OneByOne => "what runs gets it now",
                    Rollout::NextStart => "what runs is left as it is until its next start",
                };
                let record = UnitRecord { rollout: new.rollout, ..stored.record.clone() };
                let change = change("rollout-changed", name, Some(why.to_owned()));
                return Ok(Some(Write::new(record, change)));
            }
            // The unit is there and its text is not: this is how it is put back.
            _ => {
                let record = UnitRecord { current: Some(new.hash), ..stored.record.clone() };
                (change("text-restored", name, None), record)
            }
        },
    };
    // Written also when the cluster has the same text: its collection compares when it was last
    // written, and so cannot take it away at this very moment.
    let content = Some((new.hash, new.text.clone()));
    Ok(Some(Write { content, ..Write::new(record, change) }))
}

fn set_target(
    sight: &Sight,
    wishes: &BTreeMap<UnitName, Wish>,
    name: &UnitName,
    existing: Option<&Stored<UnitRecord>>,
    target: Target,
    word: Word,
) -> Result<Option<Write>, OperationError> {
    if name.is_template() && target != Target::Inactive {
        return Err(OperationError::TemplateStarted(name.clone()));
    }
    if existing.is_some_and(|stored| stored.record.deleting) {
        return Err(OperationError::BeingDestroyed(name.clone()));
    }
    // One with a text of its own needs no template.
    let own = existing.is_some_and(|stored| stored.record.current.is_some());
    let make = existing.is_none() && wishes.get(name).is_some_and(|wish| wish.create);
    let template = match name.template().filter(|_| !own) {
        Some(template) if target != Target::Inactive || make => {
            Some(usable(sight, Some(wishes), name, template)?)
        }
        _ => None,
    };
    let mut record = match existing {
        Some(stored) => stored.record.clone(),
        // Who wants nothing of an instance does not make one.
        None if template.is_some() => new_record(name),
        None => return Err(OperationError::NoSuchUnit(name.clone())),
    };
    let before = record.target;
    let raises = word.raises(before);
    if existing.is_some() && before == target && !raises {
        return Ok(None);
    }
    record.target = target;
    record.run += u64::from(raises);
    let change = match target {
        Target::Inactive if existing.is_none() => change("created", name, None),
        Target::Launched if before == target => change("restart-ordered", name, None),
        Target::Loaded if before == target && raises => {
            change("stop-ordered", name, Some("it runs, though it is only to be loaded".to_owned()))
        }
        _ => change("target-changed", name, Some(format!("from {before} to {target}"))),
    };
    Ok(Some(Write { template, ..Write::new(record, change) }))
}

/// Returns an instance's template, if instances of it may be made, and when it was last written; zero if
/// it is written now.
pub(super) fn usable(
    sight: &Sight,
    wishes: Option<&BTreeMap<UnitName, Wish>>,
    instance: &UnitName,
    template: UnitName,
) -> Result<(UnitName, Revision), OperationError> {
    // Its text may come with the same write.
    let wish = wishes.and_then(|wishes| wishes.get(&template));
    if wish.is_some_and(Wish::destroys) {
        return Err(OperationError::BeingDestroyed(template));
    }
    match sight.get(&template)? {
        None if wish.is_some_and(|wish| wish.text.is_some()) => Ok((template, Revision(0))),
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
    if name.is_template() {
        in_use(sight, wishes, name)?;
    }
    let record = UnitRecord { deleting: true, ..stored.record.clone() };
    // No range of a template is made while it is being destroyed.
    let guard = name.is_template().then(|| name.clone());
    Ok(Some(Write { guard, ..Write::new(record, change("destroy-ordered", name, None)) }))
}

/// Refuses to destroy a template of which instances stay.
fn in_use(
    sight: &Sight,
    wishes: &BTreeMap<UnitName, Wish>,
    template: &UnitName,
) -> Result<(), OperationError> {
    let own = sight.instances.get(template).into_iter().flatten();
    let goes = |it: &UnitName| wishes.get(it).is_some_and(Wish::destroys);
    let staying: Vec<&UnitName> = own.filter(|&it| !goes(it)).collect();
    let going = wishes.keys().filter(|unit| goes(unit) && unit.template().as_ref() == Some(template));
    let others = going.chain(staying.iter().copied()).filter_map(UnitName::number).collect();
    let (more, said) = said_to_stay(sight, template, &others)?;
    match staying.first().copied().cloned().or(said) {
        None => Ok(()),
        Some(example) => {
            let (template, instances) = (template.clone(), staying.len() + more);
            Err(OperationError::TemplateInUse { template, instances, example })
        }
    }
}

/// Counts the instances that only a range speaks for and that are not in `others`, with an example.
fn said_to_stay(
    sight: &Sight,
    template: &UnitName,
    others: &BTreeSet<u64>,
) -> Result<(usize, Option<UnitName>), OperationError> {
    let (mut count, mut example) = (0, None);
    for (from, piece) in sight.said(template)?.ranges.iter().filter(|(_, piece)| !piece.record.deleting) {
        let without = &piece.record.without;
        let others_of = others.range(from..=piece.to).filter(|number| !without.has(**number)).count();
        count += usize::try_from(piece.len(from)).unwrap_or(usize::MAX).saturating_sub(others_of);
        let staying = || (from..=piece.to).find(|number| !others.contains(number) && !without.has(*number));
        example = example.or_else(staying);
    }
    Ok((count, example.and_then(|number| template.with_number(number).ok())))
}

/// Returns the record of a unit that is new; its generation is one too low, as of every record
/// that is about to be written.
fn new_record(name: &UnitName) -> UnitRecord {
    UnitRecord {
        v: VERSION,
        runtime: name.clone(),
        current: None,
        rollout: Rollout::default(),
        set: None,
        adopted: None,
        target: Target::Inactive,
        generation: 0,
        run: 0,
        by: String::new(),
        at: Timestamp::UNIX_EPOCH,
        deleting: false,
    }
}

fn change(kind: &str, unit: &UnitName, why: Option<String>) -> EventChange {
    EventChange { kind: kind.to_owned(), unit: Some(unit.clone()), why, ..EventChange::default() }
}
