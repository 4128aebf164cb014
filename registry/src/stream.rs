//! List-then-watch: what is in a range, and from then on every change, as one stream.
//!
//! Owns re-connecting, resuming, compaction and noticing a store that went back.
//! Keeps no cache: the consumer has one, and replaces it at every [`Change::Reset`].
//! The agent follows its manifest with it, a seat the whole cluster.
//!
//! ```text
//!                     nothing read yet                     all keys at one revision
//!  ┌───────┐ ────────────────────────► ┌──────┐ ──────────────────────────► ┌──────────┐
//!  │ Check │ ◄──────────────────────── │ List │           Reset             │ Watching │─┐
//!  └───────┘     error, compacted      └──────┘                             └──────────┘ │
//!   ▲  │  ▲  resume after the last revision delivered                         ▲   │  ▲   │
//!   │  │  └───────────────────────────────────────────────────────────────────┼───┘  └───┘
//!   │  │ went back              error (resumes), compacted (lists anew)       │    Changes,
//!   │  ▼                                                                      │    Progress
//!   │ ┌──────────┐     `Check` goes straight to `Watching` when it resumes ───┘
//!   └─│ WentBack │
//!     └──────────┘  left when an operator accepts the store (SharedWitness::accept)
//! ```
//!
//! An acceptance also ends `Watching`: after one, everything is listed anew.
//! Every `Check` reads the store's revision and the `cluster` record linearizably.
//! After an error it waits, from a tenth of a second to two, with jitter.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, future::pending, stream, stream::BoxStream};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{debug, info, warn};

use crate::{
    keys::{Key, Keys},
    records::{Cluster, Record as _, RecordError},
    store::{
        KeyRange, KeyValue, Operation, Revision, Store, StoreError, Txn, WatchEvent, WatchMessage,
        WatchStream,
    },
    timing::{Backoff, Timing},
    windows,
    witness::{SharedWitness, WentBack},
};

/// What a stream delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This is all there is; whatever the consumer had before is to be replaced by it, at once.
    Reset {
        /// The keys of the range, ascending.
        kvs: Vec<KeyValue>,
        /// As of when.
        revision: Revision,
    },
    /// All changes of one revision, in order.
    Changes {
        /// The revision.
        revision: Revision,
        /// The changes, of different keys.
        events: Vec<WatchEvent>,
    },
    /// All changes up to this revision have been delivered. Also the word that the stream goes on after an
    /// error, when there is no other.
    Progress(Revision),
}

/// What a stream reports besides; it goes on by itself unless said otherwise.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StreamError {
    /// The store failed; the stream tries again after the wait.
    #[error("the stream of `{from}` was interrupted, trying again in {} ms", wait.as_millis())]
    Store {
        /// The first key of the range.
        from: String,
        /// How long it waits.
        wait: Duration,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// The `cluster` record cannot be read, so it cannot be told whether the store went back; the
    /// stream tries again after the wait.
    #[error("the cluster record cannot be checked, trying again in {} ms", wait.as_millis())]
    Record {
        /// How long it waits.
        wait: Duration,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// The store went back. Nothing is delivered until an operator accepts it
    /// ([`SharedWitness::accept`]); then a [`Change::Reset`] follows.
    #[error(transparent)]
    WentBack(#[from] WentBack),
}

/// The stream; it never ends.
///
/// # Guarantees
/// After a `Reset` at revision r, every change of the range after r is delivered exactly once, in
/// order, whole revisions at a time, until the next `Reset`. Revisions never fall, except at the
/// `Reset` after an operator accepted a store that went back.
///
/// # Cancellation
/// Dropping a pending `next()` loses nothing. Dropping the stream ends it.
pub struct ChangeStream {
    changes: BoxStream<'static, Result<Change, StreamError>>,
}

impl ChangeStream {
    /// Streams a range of a cluster's keys.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        keys: &Keys,
        range: KeyRange,
        witness: SharedWitness,
        timing: &Timing,
    ) -> Self {
        let follower = Follower {
            store,
            cluster_key: keys.spell(&Key::Cluster),
            range,
            backoff: timing.backoff(),
            wait: Duration::ZERO,
            delivered: None,
            accepted: *witness.acceptances().borrow(),
            acceptances: witness.acceptances(),
            witness,
            interrupted: false,
            state: State::Check,
            watching_since: None,
            lasting: timing.retry_max,
        };
        let changes = stream::unfold(follower, |mut follower| async move {
            let item = follower.next().await;
            Some((item, follower))
        });
        Self { changes: changes.boxed() }
    }

    /// Waits for what is next. The same as `StreamExt::next`, without its `Option`: there is
    /// always something next.
    pub async fn next(&mut self) -> Result<Change, StreamError> {
        match self.changes.next().await {
            Some(item) => item,
            None => pending().await,
        }
    }
}

impl Stream for ChangeStream {
    type Item = Result<Change, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.changes.poll_next_unpin(cx)
    }
}

impl std::fmt::Debug for ChangeStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangeStream").finish_non_exhaustive()
    }
}

/// Where the machine is (the diagram is above).
enum State {
    Check,
    List { revision: Revision },
    Watching(WatchStream),
    WentBack,
}

struct Follower {
    store: Arc<dyn Store>,
    cluster_key: String,
    range: KeyRange,
    witness: SharedWitness,
    /// Changes when an operator accepts the store as it is.
    acceptances: watch::Receiver<u64>,
    /// How often one had when the store was checked last.
    accepted: u64,
    backoff: Backoff,
    /// How long to wait before the next step.
    wait: Duration,
    /// The revision up to which the consumer has everything; `None` before the first `Reset`.
    delivered: Option<Revision>,
    /// The consumer was told of an error, and not yet that it is over.
    interrupted: bool,
    state: State,
    /// Since when the state is `Watching`.
    watching_since: Option<Instant>,
    /// How long a watch has to last for the store to be well again.
    lasting: Duration,
}

impl Follower {
    /// Steps until there is something to deliver.
    async fn next(&mut self) -> Result<Change, StreamError> {
        loop {
            // A wait after an error comes before the next step, not before the error's delivery.
            if !self.wait.is_zero() {
                sleep(std::mem::take(&mut self.wait)).await;
            }
            let stepped = match &mut self.state {
                State::Check => self.check().await,
                State::List { revision } => {
                    let revision = *revision;
                    self.list(revision).await.map(Some)
                }
                // The consumer may have seen by itself that the store went back, so an acceptance
                // counts while all is well here too.
                State::Watching(watch) => tokio::select! {
                    biased;
                    () = accepted(&mut self.acceptances) => {
                        self.state = State::Check;
                        Ok(None)
                    }
                    message = watch.next() => match message {
                        Some(Ok(message)) => self.deliver(message).map(Some),
                        Some(Err(error)) => Err(error.into()),
                        None => Err(StoreError::WatchEnded("it ended without a word".to_owned()).into()),
                    }
                },
                State::WentBack => {
                    accepted(&mut self.acceptances).await;
                    self.state = State::Check;
                    Ok(None)
                }
            };
            match stepped {
                Ok(Some(change)) => return Ok(change),
                Ok(None) => {}
                Err(trouble) => {
                    if let Some(error) = self.fall_back(trouble) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Reads the store's revision and cluster record; then resumes the watch, or lists.
    async fn check(&mut self) -> Result<Option<Change>, Trouble> {
        // Marked as seen before the check, so that none is missed; what was delivered before one may
        // be of another store.
        let times = *self.acceptances.borrow_and_update();
        if std::mem::replace(&mut self.accepted, times) != times {
            self.delivered = None;
        }
        let before = self.witness.get();
        let get = Operation::Get(KeyRange::key(&*self.cluster_key));
        let answer = self.store.txn(Txn { then: vec![get], ..Txn::default() }).await?;
        let cluster = match answer.gets.first().and_then(|kvs| kvs.first()) {
            Some(kv) => Some(Cluster::from_kv(kv)?),
            None => None,
        };
        if let Err(went_back) = self.witness.check(&before, answer.revision, cluster.as_ref()) {
            return Err(Trouble::WentBack(went_back));
        }
        match self.delivered {
            None => {
                self.state = State::List { revision: answer.revision };
                Ok(None)
            }
            Some(delivered) => {
                let from = Revision(delivered.0 + 1);
                let watch = self.store.watch(self.range.clone(), from).await?;
                debug!(range = %self.range.start, from = from.0, "watching again");
                self.watching_since = Some(Instant::now());
                self.state = State::Watching(watch);
                let goes_on = std::mem::take(&mut self.interrupted);
                Ok(goes_on.then_some(Change::Progress(delivered)))
            }
        }
    }

    /// Reads all keys as of a revision and watches from the next one on.
    async fn list(&mut self, revision: Revision) -> Result<Change, Trouble> {
        let kvs = windows::read(&*self.store, self.range.clone(), revision).await?;
        let watch = self.store.watch(self.range.clone(), Revision(revision.0 + 1)).await?;
        debug!(range = %self.range.start, revision = revision.0, keys = kvs.len(), "read the keys; following changes");
        self.state = State::Watching(watch);
        self.watching_since = Some(Instant::now());
        self.delivered = Some(revision);
        self.interrupted = false;
        Ok(Change::Reset { kvs, revision })
    }

    fn deliver(&mut self, message: WatchMessage) -> Result<Change, Trouble> {
        self.backoff.reset();
        let (change, revision) = match message {
            WatchMessage::Events { revision, events } => (Change::Changes { revision, events }, revision),
            WatchMessage::Progress(revision) => (Change::Progress(revision), revision),
        };
        let events = match &change {
            Change::Changes { events, .. } => events.as_slice(),
            _ => &[],
        };
        let mut cluster = None;
        for event in events {
            match event {
                WatchEvent::Put(kv) if kv.key == self.cluster_key => cluster = Cluster::from_kv(kv).ok(),
                WatchEvent::Delete { key, .. } if *key == self.cluster_key => self.judge(revision, None)?,
                _ => {}
            }
        }
        if cluster.is_some() {
            self.judge(revision, cluster.as_ref())?;
        }
        self.delivered = self.delivered.max(Some(revision));
        self.witness.observe(revision, cluster.as_ref());
        Ok(change)
    }

    /// Compares a change of the cluster's record with what was seen, unless another task has seen more.
    fn judge(&self, revision: Revision, cluster: Option<&Cluster>) -> Result<(), Trouble> {
        let seen = self.witness.get();
        if revision < seen.revision {
            return Ok(());
        }
        seen.check(revision, cluster).map_err(Trouble::WentBack)
    }

    /// Goes back to `Check`; returns what the consumer is to be told.
    fn fall_back(&mut self, trouble: Trouble) -> Option<StreamError> {
        // A watch that was made proves nothing (it may end at once, over and over); one that
        // lasted does, also when nothing happened in its range.
        if self.watching_since.take().is_some_and(|since| since.elapsed() > self.lasting) {
            self.backoff.reset();
        }
        self.state = State::Check;
        match trouble {
            Trouble::Store(StoreError::Compacted { wanted, oldest }) => {
                // Not an error: whoever was away for long lists anew.
                info!(range = %self.range.start, wanted = wanted.0, oldest = oldest.0, "the history was compacted past the revision that was wanted; reading anew");
                self.delivered = None;
                // A store that compacts faster than it is listed is not asked without a pause.
                self.wait = self.backoff.next_wait();
                None
            }
            Trouble::Store(source) => {
                self.interrupted = true;
                self.wait = self.backoff.next_wait();
                let from = self.range.start.clone();
                Some(StreamError::Store { from, wait: self.wait, source })
            }
            Trouble::Record(source) => {
                self.interrupted = true;
                self.wait = self.backoff.next_wait();
                Some(StreamError::Record { wait: self.wait, source })
            }
            Trouble::WentBack(went_back) => {
                warn!(%went_back, "nothing is delivered until an operator accepts the store");
                self.state = State::WentBack;
                Some(StreamError::WentBack(went_back))
            }
        }
    }
}

/// Why a step did not succeed.
enum Trouble {
    Store(StoreError),
    Record(RecordError),
    WentBack(WentBack),
}

/// Waits until an operator accepts the store as it is. It stays marked as new for the check to come.
async fn accepted(acceptances: &mut watch::Receiver<u64>) {
    // The witness owns the sender and lives as long as the stream does.
    if acceptances.changed().await.is_err() {
        pending::<()>().await;
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<RecordError> for Trouble {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}
