//! Events that stand for themselves: something was done that changed no record, and that who did it is
//! to be known by.
//!
//! An event that belongs to a change is written with it, by `commit`; this is for the others.

use std::sync::atomic::Ordering;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::{Asker, OperationError, Operations};
use crate::{
    events::tell_log,
    keys::Key,
    records::{EventChange, EventRecord, Record as _, VERSION},
    store::{Compare, KeyRange, Operation, Revision, StoreError, Txn},
};

impl Operations {
    /// Writes an event, and returns when it is in the store.
    ///
    /// # Guarantees
    /// It is written once, however often the store did not answer.
    ///
    /// # Errors
    /// The store does not take it, or did not answer for so long that it is not known whether it did.
    pub async fn note(
        &self,
        asker: impl Into<Asker<'_>>,
        changes: Vec<EventChange>,
    ) -> Result<Revision, OperationError> {
        let Asker { by, request } = asker.into();
        let sequence = self.core.sequence.fetch_add(1, Ordering::Relaxed);
        let key = self.core.registry.keys().spell(&Key::Event { writer: self.core.writer.clone(), sequence });
        let (by, request) = (by.to_owned(), request.map(str::to_owned));
        let record = EventRecord { v: VERSION, at: Timestamp::now(), by, request, changes };
        let value = record.encode();
        let mut backoff = self.core.timing.backoff();
        let give_up = Instant::now() + self.core.timing.resolve_timeout;
        loop {
            // No other ever writes this key: if it is there, an attempt that was not answered wrote it.
            let txn = Txn {
                when: vec![Compare::Absent(key.clone())],
                then: vec![Operation::Put { key: key.clone(), value: value.clone(), lease: None }],
                or_else: vec![Operation::Get(KeyRange::key(&*key))],
            };
            let error = match self.core.registry.store().txn(txn).await {
                Ok(answer) => {
                    let written = answer.gets.first().and_then(|found| found.first());
                    let revision = written.map_or(answer.revision, |kv| kv.mod_revision);
                    tell_log(&record, revision);
                    return Ok(revision);
                }
                Err(error) => error,
            };
            let in_doubt = matches!(error, StoreError::OutcomeUnknown { .. });
            if !in_doubt || Instant::now() >= give_up {
                return Err(match in_doubt {
                    true => OperationError::OutcomeUnknown { units: Vec::new(), source: error },
                    false => OperationError::Store(error),
                });
            }
            sleep(backoff.next_wait()).await;
        }
    }
}
