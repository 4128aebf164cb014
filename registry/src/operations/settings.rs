//! What operators set for the whole cluster; the only writer of `settings`.
//!
//! A setting is in force for every engine from the revision at which it was written, whoever leads. It is
//! in the store and not in a machine's file because machines lead in turn, and their files may differ.

use std::{ops::RangeInclusive, sync::atomic::Ordering};

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::{
    events,
    keys::Key,
    reads::Stored,
    records::{ClusterSettings, EventChange, EventRecord, Record as _, RecordError, VERSION},
    store::{Compare, KeyRange, Operation, Revision, StoreError, Txn},
};

use super::{Asker, Operations};

/// How long events may be kept, in seconds: a minute, for tests, to ninety days, more than which is what a
/// journal is for.
pub const EVENTS_KEPT_S: RangeInclusive<u64> = 60..=90 * 24 * 3_600;

/// How many event records may be kept: a hundred, a moment of a busy cluster, to a hundred thousand, which
/// each seat holds in some 100 MB of memory.
pub const EVENTS_MAX: RangeInclusive<usize> = 100..=100_000;

/// How often a change is tried anew because others changed the settings.
const ATTEMPTS_MAX: u32 = 16;

/// What is to be set; what is not said stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SettingsOrder {
    /// How long events are kept, in seconds.
    pub events_kept_s: Option<u64>,
    /// How many event records are kept.
    pub events_max: Option<usize>,
    /// Only if they were last written at this revision; zero means never.
    pub expected: Option<Revision>,
}

/// Why nothing was set.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SettingsError {
    /// Events cannot be kept so long.
    #[error("events cannot be kept for {0} s; expected 60 s to 7776000 s (90 days)")]
    EventsKept(u64),
    /// So many events cannot be kept.
    #[error("{0} events cannot be kept; expected 100 to 100000")]
    EventsMax(usize),
    /// They were changed since the asker looked.
    #[error("the settings are at revision {}, not at {} as asked for; look at them and decide again", found.0, expected.0)]
    RevisionDiffers {
        /// The revision that was asked for.
        expected: Revision,
        /// When they were last written; zero if never.
        found: Revision,
    },
    /// What is stored cannot be understood; nothing was changed.
    #[error("the settings cannot be read, so they are left alone; mend or delete them in the store")]
    Unreadable(#[source] RecordError),
    /// Others kept changing them.
    #[error("others changed the settings {0} times meanwhile; try again")]
    Contended(u32),
    /// The store failed.
    #[error("the store failed, and it is not known whether it took the change; look at the settings")]
    Store(#[source] StoreError),
}

impl Operations {
    /// Reads the settings that are in force, and when they were written; zero if never.
    ///
    /// # Errors
    /// The store failed, or the record cannot be understood.
    pub async fn settings(&self) -> Result<(ClusterSettings, Revision), SettingsError> {
        let get = Operation::Get(KeyRange::key(self.core.registry.keys().spell(&Key::Settings)));
        let txn = Txn { then: vec![get], ..Txn::default() };
        let answer = self.core.registry.store().txn(txn).await.map_err(SettingsError::Store)?;
        match answer.gets.first().and_then(|kvs| kvs.first()) {
            None => Ok((ClusterSettings::default(), Revision(0))),
            Some(kv) => {
                let stored = Stored::from_kv(kv).map_err(SettingsError::Unreadable)?;
                Ok((stored.record, stored.written))
            }
        }
    }

    /// Changes settings, in one transaction with its event. What is set already changes nothing, so a
    /// change of unknown outcome is simply asked for again.
    ///
    /// # Errors
    /// A value is out of bounds, or they were changed since the revision that was asked for; else what
    /// the store said.
    pub async fn configure(
        &self,
        order: SettingsOrder,
        by: impl Into<Asker<'_>>,
    ) -> Result<(ClusterSettings, Revision), SettingsError> {
        if let Some(kept) = order.events_kept_s.filter(|kept| !EVENTS_KEPT_S.contains(kept)) {
            return Err(SettingsError::EventsKept(kept));
        }
        if let Some(max) = order.events_max.filter(|max| !EVENTS_MAX.contains(max)) {
            return Err(SettingsError::EventsMax(max));
        }
        let asker = by.into();
        let mut backoff = self.core.timing.backoff();
        let until = Instant::now() + self.core.timing.resolve_timeout;
        let mut in_doubt = false;
        for _ in 0..ATTEMPTS_MAX {
            let done = async {
                let (before, written) = self.settings().await?;
                let after = ClusterSettings {
                    events_kept_s: order.events_kept_s.unwrap_or(before.events_kept_s),
                    events_max: order.events_max.unwrap_or(before.events_max),
                    ..before.clone()
                };
                if in_doubt && after == before {
                    return Ok(Some((after, written)));
                }
                if let Some(expected) = order.expected.filter(|expected| *expected != written) {
                    return Err(SettingsError::RevisionDiffers { expected, found: written });
                }
                if after == before {
                    return Ok(Some((after, written)));
                }
                self.write_settings(&before, after, written, asker).await
            };
            match done.await {
                Ok(Some(done)) => return Ok(done),
                Ok(None) => {}
                Err(SettingsError::Store(error)) if error.is_transient() && Instant::now() < until => {
                    in_doubt |= matches!(error, StoreError::OutcomeUnknown { .. });
                    sleep(backoff.next_wait()).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(SettingsError::Contended(ATTEMPTS_MAX))
    }

    /// Writes settings; `None` if somebody was faster.
    async fn write_settings(
        &self,
        before: &ClusterSettings,
        after: ClusterSettings,
        written: Revision,
        asker: Asker<'_>,
    ) -> Result<Option<(ClusterSettings, Revision)>, SettingsError> {
        let keys = self.core.registry.keys();
        let (key, sequence) =
            (keys.spell(&Key::Settings), self.core.sequence.fetch_add(1, Ordering::Relaxed));
        let event = keys.spell(&Key::Event { writer: self.core.writer.clone(), sequence });
        let record = EventRecord {
            v: VERSION,
            at: Timestamp::now(),
            by: asker.by.to_owned(),
            request: asker.request.map(str::to_owned),
            changes: vec![EventChange {
                kind: "settings-changed".to_owned(),
                why: Some(told(before, &after)),
                ..EventChange::default()
            }],
        };
        let unchanged = match written {
            Revision(0) => Compare::Absent(key.clone()),
            written => Compare::ModRevision(key.clone(), written),
        };
        let txn = Txn {
            when: vec![unchanged, Compare::Absent(event.clone())],
            then: vec![
                Operation::Put { key, value: after.encode(), lease: None },
                Operation::Put { key: event, value: record.encode(), lease: None },
            ],
            or_else: Vec::new(),
        };
        let answer = self.core.registry.store().txn(txn).await.map_err(SettingsError::Store)?;
        if answer.succeeded {
            events::tell_log(&record, answer.revision);
        }
        Ok(answer.succeeded.then_some((after, answer.revision)))
    }
}

/// Puts what is different into words.
fn told(before: &ClusterSettings, after: &ClusterSettings) -> String {
    let mut words = Vec::new();
    if before.events_kept_s != after.events_kept_s {
        words.push(format!("events are kept for {} s, not {} s", after.events_kept_s, before.events_kept_s));
    }
    if before.events_max != after.events_max {
        words.push(format!("at most {} events are kept, not {}", after.events_max, before.events_max));
    }
    words.join("; ")
}
