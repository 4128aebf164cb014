//! A store inside the process: on disk for a single machine, in memory for simulations.
//!
//! One synchronous state machine (`state`) behind a lock answers everything; on disk, a journal thread
//! makes each change durable before anybody hears of it. It behaves as etcd does, down to its limits
//! and the two-second floor of leases, so that what works here works there. Leases run on tokio's
//! clock: with paused time a simulation decides when they end, and equal calls give equal answers.
//!
//! It never talks to the network. `flotillad --dev` and tests make one; nothing else does.

mod disk;
mod hub;
mod journal;
mod keyspace;
mod leases;
mod state;

use std::{
    fmt,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::Stream;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};

use self::{
    disk::Disk,
    hub::{Hub, WatchId},
    journal::{Committed, Journal},
    state::{Change, State},
};
use super::{
    CALL_TIMEOUT, KeyRange, LeaseId, LeaseStatus, RangeRequest, RangeResponse, Revision, Store, StoreError,
    StoreStatus, Txn, TxnResponse, WatchMessage, WatchStream, check,
};

/// How long `close` waits for the last commit and for the file to be released.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A store inside the process. Dropping it ends its watches and, on disk, its journal thread.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    /// Ends when the journal thread has; absent in memory.
    thread: Option<tokio::sync::watch::Receiver<()>>,
}

/// A store's whole content at one moment, history included.
#[derive(Debug, Clone)]
pub struct Snapshot(State);

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    /// Wakes the journal thread.
    work: Condvar,
    /// Wakes the task that ends leases.
    deadline: Notify,
}

#[derive(Debug)]
struct Inner {
    state: State,
    hub: Hub,
    /// The newest revision that is durable; in memory, the newest.
    published: Revision,
    journal: Option<Journal>,
    /// Whether the task that ends leases runs.
    ticking: bool,
    closed: bool,
}

impl EmbeddedStore {
    /// Returns an empty store in memory.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { shared: Shared::new(State::new(), None), thread: None }
    }

    /// Returns a store in memory with the content of a snapshot, as if an operator had restored a backup
    /// now: every lease has its full time again, revisions go on from the snapshot's, and lease ids
    /// granted since are not granted again.
    #[must_use]
    pub fn from_snapshot(snapshot: &Snapshot) -> Self {
        let state = snapshot.0.clone().rearmed(Instant::now());
        Self { shared: Shared::new(state, None), thread: None }
    }

    /// Opens the store in a file, or creates it.
    ///
    /// # Guarantees
    /// A write that was acknowledged is there after a crash, with its revisions and its lease; every
    /// lease has its full time again. History before the newest revision is gone.
    ///
    /// # Errors
    /// The file cannot be read or written, is in use by another process, or is not flotilla's.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path: PathBuf = path.into();
        let file = path.clone();
        let now = Instant::now();
        let (state, disk) = tokio::task::spawn_blocking(move || {
            let disk = Disk::open(&file)?;
            Ok::<_, StoreError>((disk.load(now)?, disk))
        })
        .await
        .map_err(|error| StoreError::Other(format!("opening {} failed: {error}", path.display())))??;
        let shared = Shared::new(state, Some(Journal::new(path)));
        let (ended, thread) = tokio::sync::watch::channel(());
        let own = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("store-journal".into())
            .spawn(move || {
                journal::run(&own, disk);
                drop(ended);
            })
            .map_err(|error| StoreError::Other(format!("cannot start the store's thread: {error}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Returns the whole content as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.shared.lock().state.clone())
    }

    /// Finishes what is queued, releases the file and ends the watches. Later calls fail.
    ///
    /// # Errors
    /// The disk did not finish within [`CALL_TIMEOUT`].
    pub async fn close(&self) -> Result<(), StoreError> {
        self.shared.close();
        let Some(mut thread) = self.thread.clone() else { return Ok(()) };
        let ended = async { while thread.changed().await.is_ok() {} };
        timeout(CLOSE_TIMEOUT, ended).await.map_err(|_| {
            StoreError::Other(format!("the store's file was not released in {} s", CLOSE_TIMEOUT.as_secs()))
        })
    }

    /// Applies something to the state, then has its changes made durable and published.
    fn apply<T>(
        &self,
        work: impl FnOnce(&mut State, Instant, &mut Vec<Change>) -> Result<T, StoreError>,
    ) -> Result<(T, Option<Committed>), StoreError> {
        self.shared.apply(work)
    }

    async fn write<T>(
        &self,
        what: &str,
        work: impl FnOnce(&mut State, Instant, &mut Vec<Change>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (answer, committed) = self.apply(work)?;
        let unknown = || StoreError::OutcomeUnknown { what: what.into() };
        match committed {
            None => Ok(answer),
            Some(committed) => match timeout(CALL_TIMEOUT, committed).await {
                Ok(Ok(outcome)) => outcome.map(|()| answer),
                Ok(Err(_)) | Err(_) => Err(unknown()),
            },
        }
    }

    async fn read<T>(
        &self,
        work: impl FnOnce(&mut State, Instant, &mut Vec<Change>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (answer, committed) = self.apply(work)?;
        let Some(committed) = committed else { return Ok(answer) };
        match timeout(CALL_TIMEOUT, committed).await {
            // What this read saw beyond the disk may be gone again: say what the disk said.
            Ok(Ok(outcome)) => outcome.map(|()| answer),
            Ok(Err(_)) | Err(_) => Err(StoreError::Unreachable {
                endpoints: self.shared.path().map_or_else(String::new, |path| path.display().to_string()),
                why: format!("the disk did not finish writing in {} s", CALL_TIMEOUT.as_secs()),
            }),
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.read(|state, _, _| state.range(&request)).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        self.write("a transaction", |state, _, changes| state.txn(txn, changes)).await
    }

    async fn watch(&self, range: KeyRange, from: Revision) -> Result<WatchStream, StoreError> {
        check::range(&range)?;
        self.read(|_, _, _| Ok(())).await?;
        let id = {
            let mut guard = self.shared.lock();
            let inner = &mut *guard;
            if inner.closed {
                return Err(closed());
            }
            inner.hub.add(range, from.max(Revision(1)), inner.state.keyspace(), inner.published)
        };
        Ok(Box::pin(Watching { shared: Arc::clone(&self.shared), id }))
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<(LeaseId, Duration), StoreError> {
        self.write("the grant of a lease", |state, now, changes| Ok(state.grant(ttl, now, changes))).await
    }

    async fn lease_keep_alive(&self, lease: LeaseId, _timeout: Duration) -> Result<Duration, StoreError> {
        // Nothing is written, so there is nothing to wait for.
        self.apply(|state, now, _| state.renew(lease, now)).map(|(left, _)| left)
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.write("the end of a lease", |state, _, changes| {
            state.revoke(lease, changes);
            Ok(())
        })
        .await
    }

    async fn lease_status(&self, lease: LeaseId) -> Result<Option<LeaseStatus>, StoreError> {
        self.read(|state, now, _| Ok(state.lease_status(lease, now))).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        check::compaction(revision)?;
        self.read(|state, _, _| state.compact(revision)).await?;
        let mut wake = Vec::new();
        {
            let mut inner = self.shared.lock();
            let published = inner.published;
            inner.hub.progress(published, &mut wake);
        }
        wake.into_iter().for_each(Waker::wake);
        Ok(())
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        let revision = self.read(|state, _, _| Ok(state.keyspace().revision())).await?;
        let path = self.shared.path();
        let kind = if path.is_some() { "on disk" } else { "in memory" };
        Ok(StoreStatus {
            version: format!("embedded {} ({kind})", env!("CARGO_PKG_VERSION")),
            size_bytes: path.map_or(0, |path| Disk::size_bytes(&path)),
            quota_bytes: None,
            revision,
        })
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.shared.lock();
        formatter
            .debug_struct("EmbeddedStore")
            .field("path", &inner.journal.as_ref().map(|journal| &journal.path))
            .field("revision", &inner.published)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn new(state: State, journal: Option<Journal>) -> Arc<Self> {
        let published = state.keyspace().revision();
        let inner = Inner { state, hub: Hub::default(), published, journal, ticking: false, closed: false };
        Arc::new(Self { inner: Mutex::new(inner), work: Condvar::new(), deadline: Notify::new() })
    }

    /// A panic while the lock was held leaves a state that is whole: every change is applied by code that
    /// cannot fail half-way.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self) -> Option<PathBuf> {
        self.lock().journal.as_ref().map(|journal| journal.path.clone())
    }

    fn apply<T>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut State, Instant, &mut Vec<Change>) -> Result<T, StoreError>,
    ) -> Result<(T, Option<Committed>), StoreError> {
        let mut wake = Vec::new();
        let mut guard = self.lock();
        let inner = &mut *guard;
        if inner.closed {
            return Err(closed());
        }
        inner.journal.as_ref().map_or(Ok(()), Journal::check)?;
        let now = Instant::now();
        let soonest = inner.state.next_deadline();
        let mut changes = Vec::new();
        // Leases that are over end first, so that no answer depends on when the ticking task runs.
        inner.state.expire(now, &mut changes);
        let answer = work(&mut inner.state, now, &mut changes);
        let committed = match &mut inner.journal {
            Some(journal) => {
                let committed = journal.queue(changes);
                self.work.notify_one();
                committed
            }
            None => {
                for change in &changes {
                    inner.publish(change, &mut wake);
                }
                None
            }
        };
        self.tick(inner, soonest);
        drop(guard);
        wake.into_iter().for_each(Waker::wake);
        Ok((answer?, committed))
    }

    /// Sees to it that somebody ends the next lease in time.
    fn tick(self: &Arc<Self>, inner: &mut Inner, before: Option<Instant>) {
        let next = inner.state.next_deadline();
        if next.is_none() {
            return;
        }
        if !inner.ticking {
            inner.ticking = true;
            tokio::spawn(end_leases(Arc::clone(self)));
        } else if before.is_none_or(|before| next < Some(before)) {
            self.deadline.notify_one();
        }
    }

    fn close(&self) {
        let mut wake = Vec::new();
        {
            let mut inner = self.lock();
            inner.closed = true;
            inner.hub.end_all(&StoreError::WatchEnded("the store was closed".into()), &mut wake);
        }
        self.work.notify_all();
        self.deadline.notify_one();
        wake.into_iter().for_each(Waker::wake);
    }
}

impl Inner {
    /// Tells the watches of a change that is durable.
    fn publish(&mut self, change: &Change, wake: &mut Vec<Waker>) {
        if let Change::Revision(revision, changes) = change {
            self.published = *revision;
            self.hub.publish(*revision, changes, wake);
        }
    }
}

fn closed() -> StoreError {
    StoreError::Other("the store was closed".into())
}

/// Ends leases when their time is up, until there is none left or the store is closed.
async fn end_leases(shared: Arc<Shared>) {
    loop {
        // Every call ends what is due; this one asks for nothing else. A store that is closed or
        // cannot write ends no leases, and the next call that works starts this task anew.
        if shared.apply(|_, _, _| Ok(())).is_err() {
            shared.lock().ticking = false;
            return;
        }
        let deadline = {
            let mut inner = shared.lock();
            let next = inner.state.next_deadline();
            inner.ticking = next.is_some();
            next
        };
        let Some(deadline) = deadline else { return };
        tokio::select! {
            () = sleep_until(deadline) => {}
            () = shared.deadline.notified() => {}
        }
    }
}

/// One watch, as its reader sees it.
struct Watching {
    shared: Arc<Shared>,
    id: WatchId,
}

impl Stream for Watching {
    type Item = Result<WatchMessage, StoreError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut guard = self.shared.lock();
        let inner = &mut *guard;
        inner.hub.poll(self.id, inner.state.keyspace(), inner.published, context)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.shared.lock().hub.remove(self.id);
    }
}
