//! Leases: how long each has left, and which keys end with it.
//!
//! Pure: time is handed in. `state` deletes the keys; nothing here does.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::super::{LeaseId, LeaseStatus};

/// The shortest lease, as etcd's with its default election time-out (1.5 s, rounded up).
const TTL_MIN: Duration = Duration::from_secs(2);

/// The longest lease: a hundred years, so that a deadline can always be computed.
const TTL_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How far lease ids jump when a snapshot is brought back, so that none granted after the snapshot
/// was made is ever granted again.
const RESTORE_JUMP: i64 = 1 << 32;

/// All leases.
#[derive(Debug, Clone)]
pub(super) struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
    deadlines: BTreeSet<(Instant, LeaseId)>,
    next: i64,
}

#[derive(Debug, Clone)]
struct Lease {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<String>,
}

impl Leases {
    /// Returns no leases.
    pub(super) const fn new() -> Self {
        Self { leases: BTreeMap::new(), deadlines: BTreeSet::new(), next: 1 }
    }

    /// Returns these leases, each with its full time from `now`.
    pub(super) fn restored(
        next: i64,
        ttls: impl IntoIterator<Item = (LeaseId, Duration)>,
        now: Instant,
    ) -> Self {
        let mut leases = Self { next, ..Self::new() };
        for (id, ttl) in ttls {
            leases.insert(id, ttl, now);
        }
        leases
    }

    /// Gives every lease its full time again, as a new etcd leader does, and never grants an id again
    /// that may have been granted after this copy was made.
    pub(super) fn rearm(&mut self, now: Instant) {
        self.next = self.next.saturating_add(RESTORE_JUMP);
        let ids: Vec<_> = self.leases.keys().copied().collect();
        for id in ids {
            self.renew(id, now);
        }
    }

    /// Grants a lease; returns its id and what was granted.
    pub(super) fn grant(&mut self, ttl: Duration, now: Instant) -> (LeaseId, Duration) {
        let id = LeaseId(self.next);
        self.next += 1;
        let whole = Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0));
        let granted = whole.clamp(TTL_MIN, TTL_MAX);
        self.insert(id, granted, now);
        (id, granted)
    }

    /// Renews a lease; returns its time, or `None` if there is none such.
    pub(super) fn renew(&mut self, id: LeaseId, now: Instant) -> Option<Duration> {
        let lease = self.leases.get_mut(&id)?;
        self.deadlines.remove(&(lease.deadline, id));
        lease.deadline = now + lease.ttl;
        self.deadlines.insert((lease.deadline, id));
        Some(lease.ttl)
    }

    /// Ends a lease; returns the keys that end with it, or `None` if there was none such.
    pub(super) fn end(&mut self, id: LeaseId) -> Option<BTreeSet<String>> {
        let lease = self.leases.remove(&id)?;
        self.deadlines.remove(&(lease.deadline, id));
        Some(lease.keys)
    }

    /// Returns what a lease has left.
    pub(super) fn status(&self, id: LeaseId, now: Instant) -> Option<LeaseStatus> {
        let lease = self.leases.get(&id)?;
        let remaining = lease.deadline.saturating_duration_since(now);
        Some(LeaseStatus { granted: lease.ttl, remaining, term: 0 })
    }

    /// Returns the first lease whose time is up.
    pub(super) fn due(&self, now: Instant) -> Option<LeaseId> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }

    /// Returns when the next lease ends.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Tells whether a lease exists.
    pub(super) fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// Ties a key to a lease.
    pub(super) fn attach(&mut self, id: LeaseId, key: &str) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.insert(key.to_owned());
        }
    }

    /// Unties a key from a lease.
    pub(super) fn detach(&mut self, id: LeaseId, key: &str) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    fn insert(&mut self, id: LeaseId, ttl: Duration, now: Instant) {
        let deadline = now + ttl;
        self.leases.insert(id, Lease { ttl, deadline, keys: BTreeSet::new() });
        self.deadlines.insert((deadline, id));
    }
}
