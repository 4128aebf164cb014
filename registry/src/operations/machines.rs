//! What users say of machines while they run: metadata, cordon, drain; the only writer of
//! `machine-settings/`.
//!
//! A machine need not be known: what is said of it holds when it comes, and stays when it goes. All
//! machines of one order are written in one transaction, which compares what it was planned from and
//! has an event. An order whose outcome is not known is resolved as in `commit`: the event tells, and
//! whatever is written next makes a late arrival fail.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use flotilla_units::MachineId;
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::{
    events,
    keys::Key,
    reads::Stored,
    records::{EventChange, EventRecord, MachineSettings, Record as _, RecordError, VERSION},
    store::{Compare, KeyRange, Operation, Revision, StoreError, Txn},
};

use super::{Asker, Effect, Operations};

/// The most machines of one order. Fifty: each is compared and written, beside an event and those of
/// attempts in doubt, within the 128 operations of a transaction.
pub const MACHINES_MAX: usize = 50;

/// The most keys of metadata that users may set on one machine: a record of some 300 kB at worst.
pub const KEYS_MAX: usize = 256;

/// The longest key and the longest value, in bytes: words that people type, and a whole path.
const KEY_BYTES_MAX: usize = 256;
const VALUE_BYTES_MAX: usize = 1_024;

/// How often an order is planned anew because others changed the same machines: as often as for units.
const ATTEMPTS_MAX: u32 = 16;

/// What is asked of one machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineOrder {
    /// What becomes of keys of its metadata.
    pub metadata: BTreeMap<String, MetadataChange>,
    /// What else is to become of it.
    pub word: Option<MachineWord>,
    /// Only if its settings were last written at this revision; zero means that there are none.
    pub expected: Option<Revision>,
    /// Its host name, where the asker knows it: for the event.
    pub host: Option<String>,
}

/// What becomes of a key of a machine's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataChange {
    /// It has this value, whatever the machine itself says.
    Set(String),
    /// The machine is without it, also where the machine itself says it.
    Unset,
    /// It is as the machine itself says again.
    Reset,
}

impl MetadataChange {
    /// Refuses what could never be said of any machine.
    ///
    /// # Errors
    /// The key or the value makes no sense, or is too long.
    pub fn check(&self, key: &str) -> Result<(), MachineError> {
        let odd = |c: char| c.is_whitespace() || c.is_control() || "=!<>(),\"'".contains(c);
        if key.is_empty() || key.len() > KEY_BYTES_MAX || key.contains(odd) {
            return Err(MachineError::Key(key.to_owned()));
        }
        match self {
            Self::Set(value)
                if value.is_empty() || value.len() > VALUE_BYTES_MAX || value.contains(char::is_control) =>
            {
                Err(MachineError::Value(key.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// What is to become of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineWord {
    /// Nothing new comes to it.
    Cordon,
    /// It takes new units again; a drain ends with it.
    Uncordon,
    /// Everything that can leaves.
    Drain,
    /// What has not left stays; a cordon goes on.
    EndDrain,
}

/// What became of one machine's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineWritten {
    /// The machine.
    pub machine: MachineId,
    /// What was done.
    pub effect: Effect,
    /// When its settings were last written: whoever waits for the effect watches from here.
    pub revision: Revision,
}

/// Why something was not done about machines.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MachineError {
    /// A key that nothing could ask for.
    #[error(
        "`{0}` cannot be a key of metadata; expected a word without blanks and none of `= ! < > ( ) , \" '`, at most \
         {KEY_BYTES_MAX} bytes"
    )]
    Key(String),
    /// A value that nothing could ask for.
    #[error(
        "the metadata `{0}` cannot have that value; expected a text in one line, not empty and at most \
         {VALUE_BYTES_MAX} bytes; to take the key away, unset it"
    )]
    Value(String),
    /// Too much metadata.
    #[error("machine {} would have {keys} keys of metadata set by users; there may be {KEYS_MAX}", machine.short())]
    TooManyKeys {
        /// The machine.
        machine: MachineId,
        /// How many there would be.
        keys: usize,
    },
    /// Too many machines at once.
    #[error(
        "the order is about {0} machines; at most {MACHINES_MAX} are written at once, so give several orders"
    )]
    TooManyMachines(usize),
    /// The settings were changed since the asker looked.
    #[error(
        "the settings of machine {} are at revision {}, not at {} as asked for; look at them and decide again",
        machine.short(), found.0, expected.0
    )]
    RevisionDiffers {
        /// The machine.
        machine: MachineId,
        /// The revision that was asked for.
        expected: Revision,
        /// When they were last written; zero if there are none.
        found: Revision,
    },
    /// What is stored cannot be understood; nothing was changed.
    #[error(
        "the machine's settings cannot be read, so they are left alone; mend or delete them in the store"
    )]
    Unreadable(#[source] RecordError),
    /// Others kept changing the same machines.
    #[error("others changed the same machines {attempts} times meanwhile; try again")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// The store stopped answering in the middle.
    #[error(
        "it is not known whether the machines' settings were changed, because the store stopped answering; look at \
         `flotctl list-machines` before trying again"
    )]
    OutcomeUnknown(#[source] StoreError),
    /// The store failed, and did not take the change.
    #[error("the store failed and did not take the change")]
    Store(#[source] StoreError),
}

/// The settings that a plan is made from; absent ones are not in it.
type Sight = BTreeMap<MachineId, Stored<MachineSettings>>;

/// What becomes of one machine's settings.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    machine: MachineId,
    effect: Effect,
    seen: Revision,
    /// `None` when they are as asked already.
    write: Option<(MachineSettings, EventChange)>,
}

/// An order under way.
struct Errand<'a> {
    operations: &'a Operations,
    orders: &'a BTreeMap<MachineId, MachineOrder>,
    asker: Asker<'a>,
    /// The events of transactions that were sent and not answered, with what each was to do.
    pending: Vec<(String, Vec<MachineWritten>)>,
}

impl From<MachineWord> for MachineOrder {
    fn from(word: MachineWord) -> Self {
        Self { word: Some(word), ..Self::default() }
    }
}

impl Operations {
    /// Does to each machine's settings what is asked of them.
    ///
    /// # Guarantees
    /// All is checked before anything is written, and written in one transaction with one event. What is
    /// as asked already is not written.
    ///
    /// # Errors
    /// What is asked cannot be, or the settings were changed since the revision that was asked for; else
    /// what the store said.
    pub async fn order_machines(
        &self,
        orders: &BTreeMap<MachineId, MachineOrder>,
        by: impl Into<Asker<'_>>,
    ) -> Result<Vec<MachineWritten>, MachineError> {
        check(orders)?;
        Errand { operations: self, orders, asker: by.into(), pending: Vec::new() }.run().await
    }
}

impl Errand<'_> {
    async fn run(mut self) -> Result<Vec<MachineWritten>, MachineError> {
        let timing = &self.operations.core.timing;
        let mut backoff = timing.backoff();
        let mut resolve_by = None;
        let mut attempts = 0;
        while attempts < ATTEMPTS_MAX {
            match self.attempt().await {
                Ok(Some(written)) => return Ok(written),
                Ok(None) => attempts += 1,
                Err(error) if self.pending.is_empty() => return Err(error),
                Err(MachineError::Store(error)) if error.is_transient() => {
                    if Instant::now() >= *resolve_by.get_or_insert(Instant::now() + timing.resolve_timeout) {
                        return Err(MachineError::OutcomeUnknown(error));
                    }
                    sleep(backoff.next_wait()).await;
                }
                Err(MachineError::Store(error)) => return Err(MachineError::OutcomeUnknown(error)),
                Err(error) => return Err(error),
            }
        }
        Err(MachineError::Contended { attempts })
    }

    /// Reads, plans and writes once; `None` if somebody was faster.
    async fn attempt(&mut self) -> Result<Option<Vec<MachineWritten>>, MachineError> {
        let sight = self.look().await?;
        if let Some(written) = self.resolve().await? {
            return Ok(Some(written));
        }
        let steps = plan(&sight, self.orders)?;
        let (mut when, mut then, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        for step in &steps {
            let Some((settings, change)) = &step.write else { continue };
            let key = self.spell(&Key::MachineSettings(step.machine));
            when.push(match step.seen {
                Revision(0) => Compare::Absent(key.clone()),
                seen => Compare::ModRevision(key.clone(), seen),
            });
            // Settings that say nothing are none.
            then.push(match *settings == nothing() {
                true => Operation::Delete(KeyRange::key(key)),
                false => Operation::Put { key, value: settings.encode(), lease: None },
            });
            changes.push(change.clone());
        }
        let done = |revision: Option<Revision>| -> Vec<MachineWritten> {
            let written = |step: &Step| MachineWritten {
                machine: step.machine,
                effect: step.effect,
                revision: revision.filter(|_| step.write.is_some()).unwrap_or(step.seen),
            };
            steps.iter().map(written).collect()
        };
        if changes.is_empty() {
            return Ok(Some(done(None)));
        }
        let (event, record) = self.dress(&mut when, &mut then, changes);
        let answer = self.operations.core.registry.store().txn(Txn { when, then, or_else: Vec::new() }).await;
        match answer {
            Ok(answer) if answer.succeeded => {
                events::tell_log(&record, answer.revision);
                Ok(Some(done(Some(answer.revision))))
            }
            Ok(_) => Ok(None),
            Err(error) => {
                if matches!(error, StoreError::OutcomeUnknown { .. }) {
                    self.pending.push((event, done(None)));
                }
                Err(MachineError::Store(error))
            }
        }
    }

    /// Adds the event, and takes the place of those in doubt; returns the event with its key.
    fn dress(
        &self,
        when: &mut Vec<Compare>,
        then: &mut Vec<Operation>,
        changes: Vec<EventChange>,
    ) -> (String, EventRecord) {
        let operations = self.operations;
        let sequence = operations.core.sequence.fetch_add(1, Ordering::Relaxed);
        let event = self.spell(&Key::Event { writer: operations.core.writer.clone(), sequence });
        let record = EventRecord {
            v: VERSION,
            at: Timestamp::now(),
            by: self.asker.by.to_owned(),
            request: self.asker.request.map(str::to_owned),
            changes,
        };
        let instead = EventRecord { changes: Vec::new(), ..record.clone() };
        let others = self.pending.iter().map(|(event, _)| (event, &instead));
        for (key, record) in others.chain([(&event, &record)]) {
            when.push(Compare::Absent(key.clone()));
            then.push(Operation::Put { key: key.clone(), value: record.encode(), lease: None });
        }
        (event, record)
    }

    async fn look(&self) -> Result<Sight, MachineError> {
        let keys = self.orders.keys().map(|id| self.spell(&Key::MachineSettings(*id)));
        let then = keys.map(|key| Operation::Get(KeyRange::key(key))).collect();
        let answer = self.txn(Txn { then, ..Txn::default() }).await?;
        let mut sight = Sight::new();
        for (id, kvs) in self.orders.keys().zip(&answer.gets) {
            if let Some(kv) = kvs.first() {
                sight.insert(*id, Stored::from_kv(kv).map_err(MachineError::Unreadable)?);
            }
        }
        Ok(sight)
    }

    /// Finds out whether one of the transactions that were not answered took effect.
    async fn resolve(&self) -> Result<Option<Vec<MachineWritten>>, MachineError> {
        for (event, written) in &self.pending {
            let get = Operation::Get(KeyRange::key(&**event));
            let answer = self.txn(Txn { then: vec![get], ..Txn::default() }).await?;
            let found = answer.gets.first().and_then(|kvs| kvs.first());
            if let Some(kv) = found.filter(|kv| {
                // One without changes was written by a later transaction, in its place.
                EventRecord::from_kv(kv).is_ok_and(|record| !record.changes.is_empty())
            }) {
                let at = |it: &MachineWritten| MachineWritten {
                    revision: if it.effect == Effect::Unchanged { it.revision } else { kv.mod_revision },
                    ..it.clone()
                };
                return Ok(Some(written.iter().map(at).collect()));
            }
        }
        Ok(None)
    }

    async fn txn(&self, txn: Txn) -> Result<crate::store::TxnResponse, MachineError> {
        self.operations.core.registry.store().txn(txn).await.map_err(MachineError::Store)
    }

    fn spell(&self, key: &Key) -> String {
        self.operations.core.registry.keys().spell(key)
    }
}

/// Refuses what could never be.
fn check(orders: &BTreeMap<MachineId, MachineOrder>) -> Result<(), MachineError> {
    if orders.len() > MACHINES_MAX {
        return Err(MachineError::TooManyMachines(orders.len()));
    }
    orders.values().flat_map(|order| &order.metadata).try_for_each(|(key, change)| change.check(key))
}

/// Decides what is written about each machine.
fn plan(sight: &Sight, orders: &BTreeMap<MachineId, MachineOrder>) -> Result<Vec<Step>, MachineError> {
    let step = |(machine, order): (&MachineId, &MachineOrder)| {
        let machine = *machine;
        let existing = sight.get(&machine);
        let seen = existing.map_or(Revision(0), |stored| stored.written);
        if let Some(expected) = order.expected.filter(|expected| *expected != seen) {
            return Err(MachineError::RevisionDiffers { machine, expected, found: seen });
        }
        let before = existing.map_or_else(nothing, |stored| stored.record.clone());
        let after = changed(before.clone(), order);
        if after.metadata.len() > KEYS_MAX {
            return Err(MachineError::TooManyKeys { machine, keys: after.metadata.len() });
        }
        if after == before {
            return Ok(Step { machine, effect: Effect::Unchanged, seen, write: None });
        }
        let effect = if existing.is_some() { Effect::Changed } else { Effect::Created };
        let change = EventChange { host: order.host.clone(), ..told(machine, &before, &after) };
        Ok(Step { machine, effect, seen, write: Some((after, change)) })
    };
    orders.iter().map(step).collect()
}

fn nothing() -> MachineSettings {
    MachineSettings { v: VERSION, ..MachineSettings::default() }
}

fn changed(mut settings: MachineSettings, order: &MachineOrder) -> MachineSettings {
    for (key, change) in &order.metadata {
        match change {
            MetadataChange::Set(value) => settings.metadata.insert(key.clone(), Some(value.clone())),
            MetadataChange::Unset => settings.metadata.insert(key.clone(), None),
            MetadataChange::Reset => settings.metadata.remove(key),
        };
    }
    match order.word {
        None => {}
        Some(MachineWord::Cordon) => settings.cordoned = true,
        Some(MachineWord::Uncordon) => (settings.cordoned, settings.draining) = (false, false),
        Some(MachineWord::Drain) => settings.draining = true,
        Some(MachineWord::EndDrain) => settings.draining = false,
    }
    settings
}

/// Puts what is different into words.
fn told(machine: MachineId, before: &MachineSettings, after: &MachineSettings) -> EventChange {
    let mut kinds = Vec::new();
    if before.draining != after.draining {
        kinds.push(if after.draining { "drain-ordered" } else { "drain-ended" });
    }
    if before.cordoned != after.cordoned {
        kinds.push(if after.cordoned { "cordoned" } else { "uncordoned" });
    }
    let mut words: Vec<String> = Vec::new();
    for (key, value) in &after.metadata {
        match value {
            _ if before.metadata.get(key) == Some(value) => {}
            Some(value) => words.push(format!("{key}={value}")),
            None => words.push(format!("{key} is unset")),
        }
    }
    let gone = before.metadata.keys().filter(|key| !after.metadata.contains_key(*key));
    words.extend(gone.map(|key| format!("{key} is as the machine itself says")));
    let kind = kinds.first().copied().unwrap_or("metadata-changed");
    words.extend(kinds.iter().skip(1).map(|kind| (*kind).to_owned()));
    let why = (!words.is_empty()).then(|| words.join(", "));
    EventChange { kind: kind.to_owned(), machine: Some(machine), why, ..EventChange::default() }
}
