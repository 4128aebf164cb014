//! The thread that makes changes durable before anybody hears of them.
//!
//! Calls apply their changes to the state in memory, queue them here in the order of application and
//! wait. The thread takes everything that is queued, commits it as one transaction, publishes it to the
//! watches and answers the waiting calls: under load one fsync serves many. A read that may have
//! seen something not yet durable queues an empty entry and waits too.
//!
//! ```text
//!            commit failed                         reopened and reloaded
//! serving ------------------> failed (calls refused) -------------------> serving
//! ```
//! After a failed commit the memory is ahead of the disk, so it is thrown away and read again.

use std::{
    path::PathBuf,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    super::StoreError,
    Inner, Shared,
    disk::{CommitFailure, Disk},
    state::Change,
};

/// How long a failed file is left alone before it is opened again.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// The queue to the thread; part of what the store's lock guards.
#[derive(Debug)]
pub(super) struct Journal {
    /// The file.
    pub(super) path: PathBuf,
    queue: Vec<Entry>,
    committing: bool,
    failed: Option<StoreError>,
}

/// The outcome of a commit, for one waiting call.
pub(super) type Committed = oneshot::Receiver<Result<(), StoreError>>;

#[derive(Debug)]
struct Entry {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl Journal {
    /// Returns an empty journal of a file.
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, queue: Vec::new(), committing: false, failed: None }
    }

    /// Refuses everything while the file cannot be written.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Queues changes; `None` if there is nothing to wait for. One entry per waiting call, so the
    /// queue is as long as there are callers.
    pub(super) fn queue(&mut self, changes: Vec<Change>) -> Option<Committed> {
        if changes.is_empty() && self.queue.is_empty() && !self.committing {
            return None;
        }
        let (done, committed) = oneshot::channel();
        self.queue.push(Entry { changes, done });
        Some(committed)
    }
}

/// Commits until the store is closed. Runs on a thread of its own.
pub(super) fn run(shared: &Arc<Shared>, mut disk: Disk) {
    loop {
        let Some(batch) = next_batch(shared) else { return };
        match disk.commit(batch.iter().flat_map(|entry| &entry.changes)) {
            Ok(()) => publish(shared, batch),
            Err(failure) => {
                fail(shared, batch, &failure);
                // redb refuses a file that failed until it has been closed.
                let path = disk.path().to_owned();
                drop(disk);
                let Some(reopened) = reopen(shared, &path) else { return };
                disk = reopened;
            }
        }
    }
}

fn next_batch(shared: &Shared) -> Option<Vec<Entry>> {
    let mut inner = shared.lock();
    loop {
        let journal = inner.journal.as_mut()?;
        if !journal.queue.is_empty() {
            journal.committing = true;
            return Some(std::mem::take(&mut journal.queue));
        }
        if inner.closed {
            return None;
        }
        inner = shared.work.wait(inner).unwrap_or_else(PoisonError::into_inner);
    }
}

fn publish(shared: &Shared, batch: Vec<Entry>) {
    let mut wake = Vec::new();
    let mut inner = shared.lock();
    for change in batch.iter().flat_map(|entry| &entry.changes) {
        inner.publish(change, &mut wake);
    }
    if let Some(journal) = &mut inner.journal {
        journal.committing = false;
    }
    drop(inner);
    wake.into_iter().for_each(std::task::Waker::wake);
    for entry in batch {
        // A caller that gave up has dropped its end.
        let _ = entry.done.send(Ok(()));
    }
}

fn fail(shared: &Shared, batch: Vec<Entry>, failure: &CommitFailure) {
    tracing::error!(error = %failure.error, "the store's file cannot be written; reopening it");
    let mut wake = Vec::new();
    let mut inner = shared.lock();
    let mut refused = Vec::new();
    if let Some(journal) = &mut inner.journal {
        journal.committing = false;
        journal.failed = Some(failure.error.clone());
        refused = std::mem::take(&mut journal.queue);
    }
    inner.hub.end_all(&StoreError::WatchEnded(failure.error.to_string()), &mut wake);
    drop(inner);
    wake.into_iter().for_each(std::task::Waker::wake);
    for entry in batch {
        let unknown = !failure.certain && !entry.changes.is_empty();
        let error = if unknown {
            StoreError::OutcomeUnknown { what: "a write to the store's file".into() }
        } else {
            failure.error.clone()
        };
        let _ = entry.done.send(Err(error));
    }
    for entry in refused {
        let _ = entry.done.send(Err(failure.error.clone()));
    }
}

fn reopen(shared: &Shared, path: &std::path::Path) -> Option<Disk> {
    loop {
        let read = Disk::open(path).and_then(|disk| Ok((disk.load(Instant::now())?, disk)));
        let mut inner: MutexGuard<'_, Inner> = shared.lock();
        match read {
            Ok((state, disk)) => {
                inner.published = state.keyspace().revision();
                inner.state = state;
                if let Some(journal) = &mut inner.journal {
                    journal.failed = None;
                }
                return Some(disk);
            }
            Err(error) => {
                if let Some(journal) = &mut inner.journal {
                    journal.failed = Some(error);
                }
            }
        }
        if inner.closed {
            return None;
        }
        drop(shared.work.wait_timeout(inner, REOPEN_PAUSE).unwrap_or_else(PoisonError::into_inner));
    }
}
