//! A store that fails as told: for simulations and tests of what runs over a store.
//!
//! [`FaultyStore`] stands in front of any store; its [`Faults`] handle, held by the test, decides what
//! the callers meet. Every choice comes from one seeded generator and every wait from tokio's clock,
//! so that under paused time a seed gives the same run again. Nothing in a daemon makes one.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::Stream;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    CALL_TIMEOUT, KeyRange, LeaseId, LeaseStatus, Operation, RangeRequest, RangeResponse, Revision, Store,
    StoreError, StoreStatus, Txn, TxnResponse, WatchMessage, WatchStream,
    embedded::{EmbeddedStore, Snapshot},
};

/// How long a watch may be silent before it ends by itself, as over etcd: keep-alive pings every 5 s
/// with 3 s for the answer, and some slack.
const WATCH_SILENCE: Duration = Duration::from_secs(9);

/// How the way to the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Link {
    /// Calls go through.
    #[default]
    Up,
    /// Every call is refused at once without effect; watches have ended.
    Cut,
    /// Calls get no answer and time out. A write has its effect or not, by the seed. Watches stay
    /// silent and end after some nine seconds.
    Hung,
}

/// A store with faults in front of it.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    faults: Faults,
}

/// The handle that decides what the callers of a [`FaultyStore`] meet. Clones share everything.
#[derive(Clone)]
pub struct Faults {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Counts changes of the link and of the store behind it, for the watches.
    changed: watch::Sender<Situation>,
}

struct Inner {
    store: Arc<dyn Store>,
    random: SmallRng,
    slow: (Duration, Duration),
    lose_replies: u32,
    refuse: Option<String>,
    /// How many writes come late, and how late at most.
    late: (u32, Duration),
    calls: u64,
    transactions: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Situation {
    link: Link,
    /// Raised when every running watch has to end.
    generation: u64,
    /// When the link hung.
    since: Option<Instant>,
    /// Whether watches are silent although the link is up.
    stalled: bool,
}

impl FaultyStore {
    /// Returns a store in front of another, without faults yet, and the handle to them.
    pub fn new(store: Arc<dyn Store>, seed: u64) -> (Self, Faults) {
        let inner = Inner {
            store,
            random: SmallRng::seed_from_u64(seed),
            slow: (Duration::ZERO, Duration::ZERO),
            lose_replies: 0,
            refuse: None,
            late: (0, Duration::ZERO),
            calls: 0,
            transactions: 0,
        };
        let shared = Shared { inner: Mutex::new(inner), changed: watch::Sender::new(Situation::default()) };
        let faults = Faults { shared: Arc::new(shared) };
        (Self { faults: faults.clone() }, faults)
    }
}

impl Faults {
    /// Sets how the way to the store is from now on.
    pub fn set_link(&self, link: Link) {
        let now = Instant::now();
        self.shared.changed.send_modify(|situation| {
            situation.link = link;
            situation.since = (link == Link::Hung).then_some(now);
            if link == Link::Cut {
                situation.generation += 1;
            }
        });
    }

    /// Returns how the way to the store is.
    #[must_use]
    pub fn link(&self) -> Link {
        self.shared.changed.borrow().link
    }

    /// Delays every call by a time between the two, chosen by the seed; zero ends it.
    pub fn slow(&self, least: Duration, most: Duration) {
        self.lock().slow = (least, most.max(least));
    }

    /// Loses the replies of the next `count` transactions: each has its effect, and its caller waits
    /// for the time-out.
    pub fn lose_replies(&self, count: u32) {
        self.lock().lose_replies = count;
    }

    /// Holds the next `count` transactions that write up on their way: the caller waits for the time-out,
    /// and up to `most` after it, chosen by the seed, the transaction reaches the store after all.
    pub fn late_writes(&self, count: u32, most: Duration) {
        self.lock().late = (count, most);
    }

    /// Refuses every transaction that writes a value with this text in it, as a store does with one that
    /// it can never carry out; `None` ends it.
    pub fn refuse(&self, text: Option<&str>) {
        self.lock().refuse = text.map(ToOwned::to_owned);
    }

    /// Ends every running watch, as a reconnect does.
    pub fn end_watches(&self) {
        self.shared.changed.send_modify(|situation| situation.generation += 1);
    }

    /// Keeps watches silent, but alive, while everything else goes through: a server that is slow to serve
    /// its watchers.
    pub fn stall_watches(&self, stalled: bool) {
        self.shared.changed.send_modify(|situation| situation.stalled = stalled);
    }

    /// Compacts the store behind the faults up to its newest revision, whatever the link is.
    ///
    /// # Errors
    /// What the store says; that it is compacted there already is not an error.
    pub async fn compact(&self) -> Result<Revision, StoreError> {
        let store = self.store();
        let revision = store.status().await?.revision;
        match store.compact(revision).await {
            Ok(()) | Err(StoreError::Compacted { .. }) => Ok(revision),
            Err(error) => Err(error),
        }
    }

    /// Puts an older content behind the faults, as an operator who restores a backup does. Every watch
    /// ends. Returns the store that serves it.
    pub fn restore(&self, snapshot: &Snapshot) -> Arc<EmbeddedStore> {
        let store = Arc::new(EmbeddedStore::from_snapshot(snapshot));
        self.replace(Arc::clone(&store) as Arc<dyn Store>);
        store
    }

    /// Puts another store behind the faults. Every watch ends.
    pub fn replace(&self, store: Arc<dyn Store>) {
        let old = std::mem::replace(&mut self.lock().store, store);
        self.end_watches();
        drop(old);
    }

    /// Returns the store behind the faults, for a test that looks at what is really there.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.lock().store)
    }

    /// Returns how many calls were made so far, for tests that an idle caller makes none.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Returns how many of them were transactions.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.lock().transactions
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn situation(&self) -> Situation {
        *self.shared.changed.borrow()
    }

    /// Counts the call and returns the store and how long the call is delayed.
    fn enter(&self) -> (Arc<dyn Store>, Duration) {
        let mut inner = self.lock();
        inner.calls += 1;
        let (least, most) = inner.slow;
        let spread = u64::try_from((most - least).as_micros()).unwrap_or(u64::MAX);
        let extra = if spread == 0 { 0 } else { inner.random.random_range(0..=spread) };
        (Arc::clone(&inner.store), least + Duration::from_micros(extra))
    }

    fn refuses(&self, txn: &Txn) -> bool {
        let refused = self.lock().refuse.clone();
        let writes = |text: &str| {
            txn.then.iter().any(|operation| match operation {
                Operation::Put { value, .. } => value.windows(text.len()).any(|part| part == text.as_bytes()),
                _ => false,
            })
        };
        refused.is_some_and(|text| writes(&text))
    }

    /// Tells how long a transaction is on its way, if it is one that comes late.
    fn comes_late(&self, txn: &Txn) -> Option<Duration> {
        let writes = |operation: &Operation| !matches!(operation, Operation::Get(_));
        if self.link() == Link::Cut || !txn.then.iter().chain(&txn.or_else).any(writes) {
            return None;
        }
        let mut inner = self.lock();
        let (count, most) = inner.late;
        inner.late.0 = count.checked_sub(1)?;
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Some(CALL_TIMEOUT + Duration::from_micros(inner.random.random_range(0..=most)))
    }

    fn toss(&self) -> bool {
        self.lock().random.random_bool(0.5)
    }

    fn loses_reply(&self) -> bool {
        let mut inner = self.lock();
        let loses = inner.lose_replies > 0;
        inner.lose_replies = inner.lose_replies.saturating_sub(1);
        loses
    }

    /// Makes a call that only reads, within `limit`.
    async fn read<T, F, Call>(&self, limit: Duration, call: Call) -> Result<T, StoreError>
    where
        Call: FnOnce(Arc<dyn Store>) -> F + Send,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let (store, delay) = self.enter();
        match self.situation().link {
            Link::Cut => Err(unreachable("connection refused")),
            Link::Hung => {
                sleep(limit).await;
                Err(unreachable("no answer in time"))
            }
            Link::Up if delay >= limit => {
                sleep(limit).await;
                Err(unreachable("no answer in time"))
            }
            Link::Up => {
                wait(delay).await;
                if self.situation().link == Link::Cut {
                    return Err(unreachable("connection lost"));
                }
                call(store).await
            }
        }
    }

    /// Makes a call that writes.
    async fn write<T, F, Call>(&self, what: &str, loses_reply: bool, call: Call) -> Result<T, StoreError>
    where
        Call: FnOnce(Arc<dyn Store>) -> F + Send,
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let (store, delay) = self.enter();
        let unknown = || StoreError::OutcomeUnknown { what: what.into() };
        match self.situation().link {
            Link::Cut => Err(unreachable("connection refused")),
            Link::Hung => {
                // A request that was under way when the store hung is done when it goes on; which
                // one that is, the seed decides.
                if self.toss() {
                    drop(call(store).await);
                }
                sleep(CALL_TIMEOUT).await;
                Err(unknown())
            }
            Link::Up if loses_reply || delay >= CALL_TIMEOUT => {
                drop(call(store).await);
                sleep(CALL_TIMEOUT).await;
                Err(unknown())
            }
            Link::Up => {
                // Half the delay on the way there, half on the way back.
                wait(delay / 2).await;
                if self.situation().link == Link::Cut {
                    return Err(unknown());
                }
                let answer = call(store).await;
                wait(delay / 2).await;
                if self.situation().link == Link::Cut { Err(unknown()) } else { answer }
            }
        }
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        self.faults.read(CALL_TIMEOUT, |store| async move { store.range(request).await }).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        self.faults.lock().transactions += 1;
        if self.faults.refuses(&txn) {
            return Err(StoreError::Invalid("a simulated refusal".into()));
        }
        if let Some(after) = self.faults.comes_late(&txn) {
            let (store, _) = self.faults.enter();
            tokio::spawn(async move {
                sleep(after).await;
                drop(store.txn(txn).await);
            });
            sleep(CALL_TIMEOUT).await;
            return Err(StoreError::OutcomeUnknown { what: "a transaction".into() });
        }
        let loses = self.faults.loses_reply();
        self.faults.write("a transaction", loses, |store| async move { store.txn(txn).await }).await
    }

    async fn watch(&self, range: KeyRange, from: Revision) -> Result<WatchStream, StoreError> {
        let generation = self.faults.situation().generation;
        let inner =
            self.faults.read(CALL_TIMEOUT, |store| async move { store.watch(range, from).await }).await?;
        let watch = FaultyWatch::new(inner, self.faults.shared.changed.subscribe(), generation);
        Ok(Box::pin(watch))
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<(LeaseId, Duration), StoreError> {
        self.faults
            .write("the grant of a lease", false, |store| async move { store.lease_grant(ttl).await })
            .await
    }

    async fn lease_keep_alive(&self, lease: LeaseId, timeout: Duration) -> Result<Duration, StoreError> {
        let call = |store: Arc<dyn Store>| async move { store.lease_keep_alive(lease, timeout).await };
        if self.faults.link() == Link::Hung && self.faults.toss() {
            // The renewal arrived although nobody will hear of it: the lease may live on.
            drop(call(self.faults.store()).await);
        }
        self.faults.read(timeout, call).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.faults
            .write("the end of a lease", false, |store| async move { store.lease_revoke(lease).await })
            .await
    }

    async fn lease_status(&self, lease: LeaseId) -> Result<Option<LeaseStatus>, StoreError> {
        self.faults.read(CALL_TIMEOUT, |store| async move { store.lease_status(lease).await }).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.faults.write("a compaction", false, |store| async move { store.compact(revision).await }).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.faults.read(CALL_TIMEOUT, |store| async move { store.status().await }).await
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Faults").field("link", &self.link()).finish_non_exhaustive()
    }
}

/// A watch that falls silent with the link and ends with it.
struct FaultyWatch {
    inner: Option<WatchStream>,
    /// Resolves when the link changed; handed back the receiver to look at and to wait on again.
    change: Pin<Box<dyn Future<Output = Option<watch::Receiver<Situation>>> + Send>>,
    situation: Situation,
    generation: u64,
    silence: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl FaultyWatch {
    fn new(inner: WatchStream, mut changed: watch::Receiver<Situation>, generation: u64) -> Self {
        let situation = *changed.borrow_and_update();
        let mut watch =
            Self { inner: Some(inner), change: next_change(changed), situation, generation, silence: None };
        watch.follow();
        watch
    }

    fn follow(&mut self) {
        self.silence = self.situation.since.map(|since| {
            let end = sleep_until(since + WATCH_SILENCE);
            Box::pin(end) as Pin<Box<dyn Future<Output = ()> + Send>>
        });
    }

    fn end(&mut self, why: &str) -> Poll<Option<Result<WatchMessage, StoreError>>> {
        self.inner = None;
        Poll::Ready(Some(Err(StoreError::WatchEnded(why.into()))))
    }
}

impl Stream for FaultyWatch {
    type Item = Result<WatchMessage, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.inner.is_none() {
            return Poll::Ready(None);
        }
        while let Poll::Ready(changed) = this.change.as_mut().poll(context) {
            let Some(mut changed) = changed else { return this.end("the store is gone") };
            this.situation = *changed.borrow_and_update();
            this.change = next_change(changed);
            this.follow();
        }
        if this.situation.generation != this.generation {
            return this.end("the connection was lost");
        }
        if let Some(silence) = &mut this.silence {
            return match silence.as_mut().poll(context) {
                Poll::Ready(()) => this.end("the store fell silent"),
                Poll::Pending => Poll::Pending,
            };
        }
        match &mut this.inner {
            // The end of the stall is a change of the situation, which wakes it.
            Some(_) if this.situation.stalled => Poll::Pending,
            Some(inner) => inner.as_mut().poll_next(context),
            None => Poll::Ready(None),
        }
    }
}

fn next_change(
    mut changed: watch::Receiver<Situation>,
) -> Pin<Box<dyn Future<Output = Option<watch::Receiver<Situation>>> + Send>> {
    Box::pin(async move { changed.changed().await.is_ok().then_some(changed) })
}

/// Sleeps, but not for nothing: even an empty sleep gives others a turn and would change the order
/// of a simulation without delays.
async fn wait(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

fn unreachable(why: &str) -> StoreError {
    StoreError::Unreachable { endpoints: "the simulated store".into(), why: why.into() }
}
