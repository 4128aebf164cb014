//! The key-value service underneath the registry, shaped like etcd v3.
//!
//! [`Store`] is the one door to it. `etcd` serves every cluster of more than one
//! machine; `embedded` serves a single machine and simulations. Both pass the
//! same conformance suite, so nothing above this module knows which one it has.

mod check;
pub mod embedded;
pub mod etcd;
pub mod faults;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

/// The longest time any call other than a lease renewal may take.
///
/// A healthy etcd answers in milliseconds; a slow disk makes it seconds. Past
/// five the caller is better served by an error that it can act on.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The most operations (and the most compares) of one transaction.
///
/// etcd refuses more than 128 of either (`--max-txn-ops`); eight are left for the
/// leader, absence, event and `cluster` operations that a transaction carries.
pub const TXN_OPERATIONS_MAX: usize = 120;

/// The most bytes of keys and values in one transaction.
///
/// etcd refuses requests over 1.5 MiB (`--max-request-bytes`); the rest is
/// headroom for encoding.
pub const TXN_BYTES_MAX: usize = 1_400_000;

/// A point in the store's history; it grows by one with each write transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub i64);

/// A lease's identity. Zero is no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub i64);

/// One key with its value and history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The whole key, prefix included.
    pub key: String,
    /// The value; JSON for everything flotilla writes.
    pub value: Arc<[u8]>,
    /// When the key was last created.
    pub create_revision: Revision,
    /// When the key was last written.
    pub mod_revision: Revision,
    /// How often it was written since it was created; 1 at creation.
    pub version: i64,
    /// The lease that it ends with.
    pub lease: Option<LeaseId>,
}

/// Half-open interval of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key in the range.
    pub start: String,
    /// The first key after the range; `None` for the single key `start`.
    pub end: Option<String>,
}

/// A read of a range.
#[derive(Debug, Clone)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// As of which revision; `None` reads the newest, linearizably.
    pub revision: Option<Revision>,
    /// The most keys to return; `None` for all. Ask for bounded key windows rather than
    /// limits: with a limit etcd 3.4 walks all remaining keys for every page.
    pub limit: Option<usize>,
    /// Leave the values out.
    pub keys_only: bool,
}

/// The answer to a [`RangeRequest`].
#[derive(Debug, Clone)]
pub struct RangeResponse {
    /// The keys, ascending.
    pub kvs: Vec<KeyValue>,
    /// The store's revision when it answered (not the one asked for).
    pub revision: Revision,
    /// Whether `limit` cut the answer.
    pub more: bool,
    /// How many keys there are in the range, whatever `limit` left of them.
    pub count: usize,
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key was last written at this revision.
    ModRevision(String, Revision),
    /// The key was last created at this revision; a key that is absent has revision zero.
    CreateRevision(String, Revision),
    /// The key does not exist.
    Absent(String),
    /// The key exists.
    Present(String),
    /// No key that is in the range now was written after this revision. Keys that were deleted since
    /// are not seen.
    Unwritten(KeyRange, Revision),
}

impl Compare {
    /// Returns the key that it is about; of a range, the first that could be in it.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::ModRevision(key, _)
            | Self::CreateRevision(key, _)
            | Self::Absent(key)
            | Self::Present(key)
            | Self::Unwritten(KeyRange { start: key, .. }, _) => key,
        }
    }
}

/// A write, or a read, of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Writes a key.
    Put {
        /// The whole key.
        key: String,
        /// The value.
        value: Vec<u8>,
        /// The lease the key ends with.
        lease: Option<LeaseId>,
    },
    /// Removes the keys of a range.
    Delete(KeyRange),
    /// Reads a single key or a range, after the operations before it.
    Get(KeyRange),
}

/// All operations of `then` at once if every compare holds, else those of `or_else`.
#[derive(Debug, Clone, Default)]
pub struct Txn {
    /// The conditions; with none, `then` always runs.
    pub when: Vec<Compare>,
    /// What is done if all hold. A key may be written at most once.
    pub then: Vec<Operation>,
    /// What is done if one does not hold; reads, as a rule.
    pub or_else: Vec<Operation>,
}

/// What a transaction did.
#[derive(Debug, Clone)]
pub struct TxnResponse {
    /// Whether all compares held.
    pub succeeded: bool,
    /// The revision of the writes, or the store's revision if there were none.
    pub revision: Revision,
    /// The keys of every `Get`, in the order of the operations that ran.
    pub gets: Vec<Vec<KeyValue>>,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// The key was written.
    Put(KeyValue),
    /// The key was removed or its lease ended.
    Delete {
        /// The whole key.
        key: String,
        /// When.
        revision: Revision,
    },
}

/// What a watch says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchMessage {
    /// All changes of one revision in the watched range, never split over messages.
    Events {
        /// The revision.
        revision: Revision,
        /// Its changes.
        events: Vec<WatchEvent>,
    },
    /// Everything up to this revision has been delivered; nothing changed in the range.
    Progress(Revision),
}

/// A running watch: dropping it ends it. After an `Err` it ends.
pub type WatchStream = BoxStream<'static, Result<WatchMessage, StoreError>>;

/// What a lease has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseStatus {
    /// What was granted.
    pub granted: Duration,
    /// What remains.
    pub remaining: Duration,
    /// The term of the store's own leader in which this was told: a new leader gives every lease its whole
    /// time again. Zero where there is none but the one process.
    pub term: u64,
}

/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStatus {
    /// Its name and version, for example `etcd 3.4.23`.
    pub version: String,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Bytes it may use, where it says so.
    pub quota_bytes: Option<u64>,
    /// The newest revision that the answering member knows; a member that lags knows less. The
    /// linearizable one is that of a range read.
    pub revision: Revision,
}

/// Why a call did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No endpoint could be reached; the call had no effect.
    #[error("the store cannot be reached at {endpoints}: {why}")]
    Unreachable {
        /// Every endpoint that was tried.
        endpoints: String,
        /// What the last of them said.
        why: String,
    },
    /// The call was sent, and no answer came. It may or may not have had its effect: resolve by
    /// reading, never by repeating.
    #[error("the store did not answer {what} in time; whether it took effect is not known")]
    OutcomeUnknown {
        /// Which call.
        what: String,
    },
    /// The history asked for is gone.
    #[error("revision {wanted:?} is compacted; the oldest kept is {oldest:?}")]
    Compacted {
        /// What was asked for.
        wanted: Revision,
        /// What is left, where the store says so (zero otherwise).
        oldest: Revision,
    },
    /// The lease has ended or never was.
    #[error("lease {0:?} does not exist")]
    LeaseNotFound(LeaseId),
    /// The credentials were refused (certificate, user, password, token).
    #[error("the store refused the credentials: {0}")]
    Unauthenticated(String),
    /// The store is out of its quota: etcd's NOSPACE alarm.
    #[error("the store is full: {0}")]
    NoSpace(String),
    /// The request can never succeed as it is (too large, too many operations, a key twice).
    #[error("the store refused the request: {0}")]
    Invalid(String),
    /// The watch ended and has to be made again.
    #[error("the watch ended: {0}")]
    WatchEnded(String),
    /// Anything else, said by the store or the disk below it.
    #[error("the store failed: {0}")]
    Other(String),
}

impl StoreError {
    /// Tells whether trying again later can succeed without anybody changing anything.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::OutcomeUnknown { .. } | Self::WatchEnded(_))
    }
}

/// A key-value service with revisions, transactions, watches and leases.
///
/// # Guarantees
/// Reads without a revision are linearizable. A transaction is atomic and gets one revision. A
/// watch delivers every change of its range exactly once, in order, whole revisions at a time, or
/// ends with an error. A key with a lease is removed when the lease ends and not earlier.
///
/// # Errors
/// Every call ends within [`CALL_TIMEOUT`] (a watch: the call that makes it, and it ends by itself
/// when the store goes silent). [`StoreError::OutcomeUnknown`] is returned only by calls that write.
///
/// # Cancellation
/// Dropping a future leaves the outcome of a write unknown.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Reads a range of keys.
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError>;

    /// Runs a transaction. It is never repeated by the store's own doing.
    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError>;

    /// Watches a range from a revision on (inclusive), which may be in the past or the future.
    async fn watch(&self, range: KeyRange, from: Revision) -> Result<WatchStream, StoreError>;

    /// Grants a lease; whole seconds, at least one. The store may grant more than was asked.
    async fn lease_grant(&self, ttl: Duration) -> Result<(LeaseId, Duration), StoreError>;

    /// Renews a lease and returns its new remaining time. `timeout` bounds the whole call; other
    /// endpoints are tried within it.
    async fn lease_keep_alive(&self, lease: LeaseId, timeout: Duration) -> Result<Duration, StoreError>;

    /// Ends a lease and removes its keys. A lease that is gone already is not an error.
    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Tells what a lease has left; `None` when it has ended.
    async fn lease_status(&self, lease: LeaseId) -> Result<Option<LeaseStatus>, StoreError>;

    /// Forgets history before a revision.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// Has the store give up what a burst of writes left behind that slows it down, where it keeps such. For a
    /// moment in which nobody writes: during others' writes it does nothing.
    async fn unwind(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Tells how the store is.
    async fn status(&self) -> Result<StoreStatus, StoreError>;
}

impl KeyRange {
    /// Returns the range of a single key.
    #[must_use]
    pub fn key(key: impl Into<String>) -> Self {
        Self { start: key.into(), end: None }
    }

    /// Returns the range of every key that starts with `prefix`, which must not be empty and must
    /// end in an ASCII character (flotilla's prefixes end in `/`).
    #[must_use]
    pub fn prefix(prefix: impl Into<String>) -> Self {
        let start = prefix.into();
        let mut end = start.clone();
        // The last character of every prefix is ASCII, so its successor is a valid character.
        if let Some(last) = end.pop() {
            end.push(char::from_u32(last as u32 + 1).unwrap_or(char::MAX));
        }
        Self { start, end: Some(end) }
    }

    /// Returns the range from `start` up to but without `end`.
    #[must_use]
    pub fn between(start: impl Into<String>, end: impl Into<String>) -> Self {
        Self { start: start.into(), end: Some(end.into()) }
    }

    /// Tells whether a key lies in the range.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        match &self.end {
            None => key == self.start,
            Some(end) => key >= self.start.as_str() && key < end.as_str(),
        }
    }
}

impl RangeRequest {
    /// Returns a linearizable read of everything in a range.
    #[must_use]
    pub const fn all(range: KeyRange) -> Self {
        Self { range, revision: None, limit: None, keys_only: false }
    }

    /// Returns a linearizable count of the keys in a range, with at most one of them, without its value.
    #[must_use]
    pub const fn count(mut self) -> Self {
        (self.limit, self.keys_only) = (Some(1), true);
        self
    }

    /// Returns the same read as of a revision.
    #[must_use]
    pub const fn at(mut self, revision: Revision) -> Self {
        self.revision = Some(revision);
        self
    }
}
