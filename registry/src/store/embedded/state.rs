//! The whole store as a synchronous state machine: a request and a time in, an answer and changes out.
//!
//! It never waits, never reads a clock and never writes to disk. `EmbeddedStore` owns one behind a
//! lock; what it returns as [`Change`] goes to the journal and to the watchers.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    super::{
        Compare, KeyValue, LeaseId, LeaseStatus, Operation, RangeRequest, RangeResponse, Revision,
        StoreError, Txn, TxnResponse, check,
    },
    keyspace::{Changes, Keyspace},
    leases::Leases,
};

/// Something that has to be durable before anybody hears of it.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// A revision with all its changes.
    Revision(Revision, Changes),
    /// A lease was granted.
    Granted(LeaseId, Duration),
    /// A lease ended.
    Ended(LeaseId),
}

/// Keys, history and leases.
#[derive(Debug, Clone)]
pub(super) struct State {
    keyspace: Keyspace,
    leases: Leases,
}

impl State {
    /// Returns an empty store.
    pub(super) const fn new() -> Self {
        Self { keyspace: Keyspace::new(), leases: Leases::new() }
    }

    /// Returns a store as it was left, without history, every lease with its full time.
    pub(super) fn restored(
        revision: Revision,
        kvs: Vec<KeyValue>,
        next_lease: i64,
        leases: impl IntoIterator<Item = (LeaseId, Duration)>,
        now: Instant,
    ) -> Self {
        let mut leases = Leases::restored(next_lease, leases, now);
        for kv in &kvs {
            if let Some(lease) = kv.lease {
                leases.attach(lease, &kv.key);
            }
        }
        Self { keyspace: Keyspace::restored(revision, kvs), leases }
    }

    /// Returns the same store as one that was brought back from a snapshot now.
    pub(super) fn rearmed(mut self, now: Instant) -> Self {
        self.leases.rearm(now);
        self
    }

    /// Returns the keys with their history.
    pub(super) const fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// Returns when the next lease ends.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.leases.next_deadline()
    }

    /// Reads a range.
    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        check::range(&request.range)?;
        self.keyspace.range(request)
    }

    /// Runs a transaction: all of it or, with an error, nothing.
    pub(super) fn txn(&mut self, txn: Txn, changes: &mut Vec<Change>) -> Result<TxnResponse, StoreError> {
        check::txn(&txn)?;
        let succeeded = txn.when.iter().all(|compare| self.holds(compare));
        let operations = if succeeded { txn.then } else { txn.or_else };
        for operation in &operations {
            if let Operation::Put { lease: Some(lease), .. } = operation
                && !self.leases.contains(*lease)
            {
                return Err(StoreError::LeaseNotFound(*lease));
            }
        }
        let revision = Revision(self.keyspace.revision().0 + 1);
        let mut events = Vec::new();
        let mut gets = Vec::new();
        for operation in operations {
            match operation {
                Operation::Put { key, value, lease } => {
                    let previous =
                        self.keyspace.put(revision, key.clone(), Arc::from(value), lease, &mut events);
                    if let Some(old) = previous.and_then(|kv| kv.lease) {
                        self.leases.detach(old, &key);
                    }
                    if let Some(lease) = lease {
                        self.leases.attach(lease, &key);
                    }
                }
                Operation::Delete(range) => {
                    let keys: Vec<_> = self.keyspace.current(&range).map(|kv| kv.key.clone()).collect();
                    for key in keys {
                        let gone = self.keyspace.delete(revision, &key, &mut events);
                        if let Some(old) = gone.and_then(|kv| kv.lease) {
                            self.leases.detach(old, &key);
                        }
                    }
                }
                Operation::Get(range) => gets.push(self.keyspace.current(&range).cloned().collect()),
            }
        }
        self.seal(revision, events, changes);
        Ok(TxnResponse { succeeded, revision: self.keyspace.revision(), gets })
    }

    /// Grants a lease.
    pub(super) fn grant(
        &mut self,
        ttl: Duration,
        now: Instant,
        changes: &mut Vec<Change>,
    ) -> (LeaseId, Duration) {
        let (id, granted) = self.leases.grant(ttl, now);
        changes.push(Change::Granted(id, granted));
        (id, granted)
    }

    /// Renews a lease. Not a change: a lease has its full time again after a restart anyway.
    pub(super) fn renew(&mut self, lease: LeaseId, now: Instant) -> Result<Duration, StoreError> {
        self.leases.renew(lease, now).ok_or(StoreError::LeaseNotFound(lease))
    }

    /// Ends a lease and deletes its keys, all in one revision.
    pub(super) fn revoke(&mut self, lease: LeaseId, changes: &mut Vec<Change>) {
        let Some(keys) = self.leases.end(lease) else { return };
        changes.push(Change::Ended(lease));
        let revision = Revision(self.keyspace.revision().0 + 1);
        let mut events = Vec::new();
        for key in keys {
            self.keyspace.delete(revision, &key, &mut events);
        }
        self.seal(revision, events, changes);
    }

    /// Ends every lease whose time is up, in the order of their deadlines.
    pub(super) fn expire(&mut self, now: Instant, changes: &mut Vec<Change>) {
        while let Some(lease) = self.leases.due(now) {
            self.revoke(lease, changes);
        }
    }

    /// Tells what a lease has left.
    pub(super) fn lease_status(&self, lease: LeaseId, now: Instant) -> Option<LeaseStatus> {
        self.leases.status(lease, now)
    }

    /// Forgets history before a revision.
    pub(super) fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        self.keyspace.compact(revision)
    }

    fn seal(&mut self, revision: Revision, events: Vec<super::super::WatchEvent>, changes: &mut Vec<Change>) {
        if !events.is_empty() {
            changes.push(Change::Revision(revision, self.keyspace.seal(revision, events)));
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::ModRevision(key, revision) => {
                self.keyspace.get(key).map_or(Revision(0), |kv| kv.mod_revision) == *revision
            }
            Compare::CreateRevision(key, revision) => {
                self.keyspace.get(key).map_or(Revision(0), |kv| kv.create_revision) == *revision
            }
            Compare::Absent(key) => self.keyspace.get(key).is_none(),
            Compare::Present(key) => self.keyspace.get(key).is_some(),
            Compare::Unwritten(range, since) => {
                self.keyspace.current(range).all(|kv| kv.mod_revision <= *since)
            }
        }
    }
}
