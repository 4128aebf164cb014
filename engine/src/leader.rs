//! The leader loop: the one writer of manifests.
//!
//! Owns the term: from the moment the lead is won to the moment it is lost or given up. It reads
//! the hot state, decides by the pure [`step`](step::step), writes, waits until the state shows
//! what was written, and sleeps until something changes. It never decides from a state older than
//! its own election or its own last write, and never repeats a write whose outcome it does not
//! know.
//!
//! ```text
//!            the state has reached                        something changed,
//!            the leader key                               a bucket cooled down
//!  elected ────────────────────────► ┌──────┐ ◄──────────────────────────────── ┌─────────┐
//!                                    │ Step │ ────────────────────────────────► │ Waiting │
//!          ┌───────────────────────► └──────┘          nothing to write         └─────────┘
//!          │  the state shows it        │ transactions
//!   ┌────────────┐                 ┌─────────┐ compare failed: the state catches up, decide anew
//!   │ Catching up│ ◄────────────── │ Writing │ refused: wait, decide anew
//!   └────────────┘   acknowledged  └─────────┘
//!          ▲                            │ outcome unknown
//!          │    fenced write of       ┌─────────┐
//!          └───────────────────────── │ Barrier │  late duplicates fail from here on
//!                `cluster`            └─────────┘
//! ```

mod ahead;
mod backlog;
mod batch;
mod burst;
mod cause;
mod compaction;
mod news;
mod plan;
mod ranges;
mod rollouts;
mod settling;
mod step;
mod texts;
mod tokens;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use flotilla_registry::{
    election::{KeyLost, Leadership},
    events,
    keys::Key,
    records::{Cluster, Record as _},
    store::{
        CALL_TIMEOUT, Compare, KeyRange, Operation, RangeRequest, Revision, Store, StoreError, Txn,
        TxnResponse,
    },
    timing::{Backoff, Timing},
};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

pub(crate) use self::step::Released;

use self::{
    burst::Burst,
    compaction::Compaction,
    news::News,
    step::{Asked, Memory, Now, Ready, Step, settings, step},
    tokens::Tokens,
};
use crate::{
    brake::BrakeChange,
    hot::{Hot, Shared, aside},
    orders::RebalanceOrder,
    reader::Rebalanced,
    state::Changes,
};

/// How long the state gets to show what a failed compare was about. A second: the watch delivers
/// in milliseconds, and deciding from an older state only fails the compare again.
const CATCH_UP: Duration = Duration::from_secs(1);

/// How many transactions of a step are under way at once. Eight: the store syncs its disk once for those that
/// come together, and takes eight in little more than the time of one.
const WRITES_MAX: usize = 8;

/// Why a term ended.
#[derive(Debug)]
pub(crate) enum TermEnd {
    /// The engine stops.
    Stopped,
    /// An operator accepted a store that went back: the next term starts from it, in a new epoch.
    Accepted,
    /// The lead is lost.
    Lost(Option<KeyLost>),
}

/// One term.
#[derive(Debug)]
pub(crate) struct Term<'a> {
    pub store: Arc<dyn Store>,
    pub shared: &'a Shared,
    pub leadership: &'a Leadership,
    pub timing: &'a Timing,
    /// The last word of an operator that ended a mass-loss hold.
    pub release: &'a watch::Sender<Option<Released>>,
}

/// What became of a step's writes.
enum Written {
    /// All are in the store, or there were none; the state has to reach this revision.
    Upto(Option<Revision>),
    /// Some are not: decide anew once the state shows what is there.
    Again {
        /// The last write of this leader's own: nothing is decided before the state has reached it.
        own: Option<Revision>,
        /// What somebody else wrote. The state gets a while to reach it, and no more: it may have been
        /// outside the cluster's keys.
        others: Option<Revision>,
        /// How long to wait besides.
        wait: Duration,
    },
    /// The leader key is not ours any more.
    Deposed,
}

/// Why a transaction of a step is not in the store, or not known to be; the worst of several counts.
enum Trouble {
    /// The leader key is not ours any more.
    Deposed,
    /// It may be, or may come late.
    Unknown(String),
    /// Somebody wrote meanwhile: the state has to reach this revision.
    Changed(Revision),
    /// The store did not take it.
    Refused(StoreError),
}

impl Trouble {
    /// Returns the worse of two.
    fn or(self, other: Option<Self>) -> Self {
        match (self, other) {
            (it, None) | (it @ Self::Deposed, _) | (_, Some(it @ Self::Deposed)) => it,
            (it @ Self::Unknown(_), _) | (_, Some(it @ Self::Unknown(_))) => it,
            (Self::Changed(one), Some(Self::Changed(other))) => Self::Changed(one.max(other)),
            (it @ Self::Changed(_), _) | (_, Some(it @ Self::Changed(_))) => it,
            (it, Some(Self::Refused(_))) => it,
        }
    }
}

impl Term<'_> {
    /// Leads until the lead is lost or the engine stops.
    ///
    /// `acceptances` changes when an operator accepts the store as it is; it was made before the election.
    pub async fn lead(self, stop: &CancellationToken, acceptances: &mut watch::Receiver<u64>) -> TermEnd {
        let end = tokio::select! {
            _ = acceptances.changed() => TermEnd::Accepted,
            () = stop.cancelled() => TermEnd::Stopped,
            why = self.leadership.lost() => TermEnd::Lost(Some(why)),
            () = self.run() => TermEnd::Lost(None),
        };
        let mut hot = self.shared.write();
        hot.engine.leads = false;
        self.shared.orders.clear();
        hot.fresh = Changes::default();
        hot.engine.hold = None;
        hot.engine.standstill = None;
        hot.engine.trouble = None;
        // The next leader holds by what it has seen; until then `why` sees the lost as they are.
        let Hot { state, model, .. } = &mut *hot;
        model.hold(false);
        let turns = model.turns().iter().map(|(unit, _)| unit.clone()).collect();
        model.clear_turns();
        let machines = state.machines().keys().copied().collect();
        model.sync(state, &Changes { machines, units: turns, ..Changes::default() });
        end
    }

    /// Returns when the leader key is known not to be ours.
    async fn run(&self) {
        self.reached(self.leadership.revision()).await;
        debug!(term = self.leadership.term(), "taking office");
        let mut memory = aside(|| self.take_office());
        let (mut compaction, mut burst) = (Compaction::default(), Burst::default());
        let mut backoff = self.timing.backoff();
        let mut bell = self.shared.subscribe();
        // What was said before this term was about another hold.
        let mut releases = self.release.subscribe();
        let mut orders = self.shared.orders.subscribe();
        let mut release = false;
        loop {
            bell.borrow_and_update();
            orders.borrow_and_update();
            let order = self.shared.orders.take();
            memory.rebalance = order.as_ref().map(Asked::from);
            let found = aside(|| self.step(&mut memory, release));
            release = false;
            memory.released = None;
            let written = self.write(&mut memory, &found).await;
            if let Some(order) = order {
                answer(order, &found, &written);
                // There may be another.
                orders.mark_changed();
            }
            let wait = match written {
                Written::Upto(revision) => {
                    backoff.reset();
                    if let Some(revision) = revision {
                        self.reached(revision).await;
                    }
                    None
                }
                Written::Again { own, others, wait } => {
                    if let Some(own) = own {
                        self.reached(own).await;
                    }
                    if let Some(others) = others {
                        let _ = timeout(CATCH_UP, self.reached(others)).await;
                    }
                    Some(wait)
                }
                Written::Deposed => return,
            };
            if let Some(wait) = wait {
                sleep(wait.max(Duration::from_millis(1))).await;
                continue;
            }
            self.compact(&mut compaction).await;
            if found.more || !found.transactions.is_empty() {
                // A step may have had nothing to await, and the loss of the lead has to be heard.
                tokio::task::yield_now().await;
                continue;
            }
            self.unwind(&mut burst);
            let wake_at = found.wake_at.into_iter().chain(burst.over_at()).min();
            let wake_at = wake_at.map(|at| Instant::now() + at.saturating_sub(self.shared.now()));
            tokio::select! {
                changed = bell.changed() => if changed.is_err() {
                    // The seat is lost: `stop` is cancelled.
                    std::future::pending::<()>().await;
                },
                _ = releases.changed() => {
                    release = true;
                    memory.released = releases.borrow_and_update().clone();
                }
                _ = orders.changed() => {}
                () = until(wake_at) => {}
            }
        }
    }

    /// Waits until the state has reached a revision; for ever, once the seat is lost: the term is then
    /// ended from outside.
    async fn reached(&self, revision: Revision) {
        if self.shared.reached(revision).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Starts from everything: what was decided before this term is not known to have been written.
    fn take_office(&self) -> Memory {
        let mut hot = self.shared.write();
        let Hot { state, model, brake, fresh, engine, .. } = &mut *hot;
        model.take_office(state, brake.holds());
        let Changes { units, machines, .. } = state.everything();
        *fresh = Changes { machines, ..Changes::default() };
        // What was ordered of an earlier term is not this one's.
        self.shared.orders.clear();
        engine.leads = true;
        let kept = settings(state).unwrap_or_default().events_kept_s;
        let news = News::of_term(state, Duration::from_secs(kept), Timestamp::now());
        let leadership = self.leadership;
        let (fence, term, cluster) = (leadership.fence(), leadership.term(), leadership.cluster());
        Memory::new(fence, term, cluster, brake.holding(), news).with_unseen(units)
    }

    fn step(&self, memory: &mut Memory, release: bool) -> Step {
        let now = Now { mono: self.shared.now(), wall: Timestamp::now() };
        let mut hot = self.shared.write();
        let Hot { state, model, brake, fresh, engine, .. } = &mut *hot;
        let mut changes = std::mem::take(fresh);
        let more = memory.look_on(&mut changes);
        let mut found = step(state, model, brake, memory, changes, now, release);
        found.more |= more;
        match &found.brake {
            Some(change @ BrakeChange::Tripped { .. }) => {
                error!("mass-loss hold: {}", change.why());
                engine.hold = Some(change.why());
            }
            Some(change) => {
                warn!("the mass-loss hold is over: {}", change.why());
                engine.hold = None;
            }
            None => {}
        }
        if engine.standstill != found.standstill {
            if let Some(why) = &found.standstill {
                error!("nothing is decided: {why}");
            }
            engine.standstill.clone_from(&found.standstill);
        }
        found
    }

    /// Writes what a step found. Transactions that write buckets share none of them, so several are under way at
    /// once; the others go alone.
    async fn write(&self, memory: &mut Memory, found: &Step) -> Written {
        let mut upto = None;
        let mut under_way = FuturesUnordered::new();
        let mut waiting = found.transactions.iter().peekable();
        let mut undone: Vec<&Ready> = Vec::new();
        let mut trouble: Option<Trouble> = None;
        loop {
            let room = |next: &&Ready, under_way: usize| {
                under_way == 0 || (under_way < WRITES_MAX && !next.of.buckets.is_empty())
            };
            // After a failure nothing more is sent: it was made from the same state, so it is made anew.
            while trouble.is_none()
                && let Some(ready) = waiting.next_if(|next| room(next, under_way.len()))
            {
                under_way.push(async move { (ready, call(self.store.txn(ready.txn.clone())).await) });
                if ready.of.buckets.is_empty() {
                    break;
                }
            }
            let Some((ready, answer)) = under_way.next().await else { break };
            let found = match answer {
                Ok(TxnResponse { succeeded: true, revision, .. }) => {
                    debug!(revision = revision.0, buckets = ready.of.buckets.len(), "written");
                    memory.wrote(&ready.of, self.shared.now());
                    if let Some(event) = &ready.event {
                        events::tell_log(event, revision);
                    }
                    upto = upto.max(Some(revision));
                    continue;
                }
                Ok(answer) => self.compare_failed(&answer),
                Err(StoreError::OutcomeUnknown { what }) => Trouble::Unknown(what),
                Err(StoreError::Invalid(why)) if !ready.of.units.is_empty() => {
                    // It is about what is in this one; the others touch other buckets.
                    error!(why, units = ready.of.units.len(), "the store refuses a write for what it is");
                    let mut hot = self.shared.write();
                    let Hot { state, model, .. } = &mut *hot;
                    memory.refused(state, model, &ready.of, &why, self.shared.now());
                    continue;
                }
                Err(error) => Trouble::Refused(error),
            };
            undone.push(ready);
            trouble = Some(found.or(trouble));
        }
        undone.extend(waiting);
        if let Some(trouble) = trouble {
            let again = self.after(trouble, memory, upto).await;
            let mut hot = self.shared.write();
            let Hot { state, model, .. } = &mut *hot;
            undone.iter().for_each(|ready| memory.failed(state, model, &ready.of));
            return again;
        }
        let refusal = memory.refusal();
        if upto.is_some() || refusal.is_some() {
            self.shared.tell(|engine| engine.trouble = refusal);
        }
        Written::Upto(upto)
    }

    /// Says how it goes on once no transaction is under way any more.
    async fn after(&self, trouble: Trouble, memory: &mut Memory, upto: Option<Revision>) -> Written {
        match trouble {
            Trouble::Deposed => Written::Deposed,
            Trouble::Unknown(what) => {
                warn!(what, "a write's outcome is not known; making sure that it cannot come late");
                match self.barrier(memory).await {
                    Some(revision) => {
                        Written::Again { own: upto.max(Some(revision)), others: None, wait: Duration::ZERO }
                    }
                    None => Written::Deposed,
                }
            }
            Trouble::Changed(revision) => {
                Written::Again { own: upto, others: Some(revision), wait: Duration::ZERO }
            }
            Trouble::Refused(error) => {
                warn!(%error, "placements were not written; they are decided anew in a moment");
                let text = error.to_string();
                self.shared.tell(|engine| engine.trouble = Some(text));
                Written::Again { own: upto, others: None, wait: self.timing.retry_max / 5 }
            }
        }
    }

    /// A compare failed: the answer brings the keys compared as they are now.
    fn compare_failed(&self, answer: &TxnResponse) -> Trouble {
        let Compare::CreateRevision(_, ours) = self.leadership.fence() else { return Trouble::Deposed };
        let leader = answer.gets.first().and_then(|kvs| kvs.first());
        if leader.is_none_or(|kv| kv.create_revision != ours) {
            return Trouble::Deposed;
        }
        debug!(revision = answer.revision.0, "somebody wrote meanwhile; deciding anew");
        let newest = answer.gets.iter().flatten().map(|kv| kv.mod_revision).max();
        Trouble::Changed(newest.unwrap_or(answer.revision))
    }

    /// Makes a transaction of unknown outcome fail if it is still under way: it compares the mod
    /// revision of `cluster`, which is written here. Returns the revision that the state has to
    /// reach before anything is decided, or `None` when the lead is lost.
    async fn barrier(&self, memory: &mut Memory) -> Option<Revision> {
        let mut backoff = self.timing.backoff();
        loop {
            match self.try_barrier().await {
                Ok(Some((cluster, revision))) => {
                    memory.skip_tokens(&cluster);
                    return Some(revision);
                }
                Ok(None) => return None,
                Err(error) => {
                    warn!(%error, "the outcome of the last write is still unknown; nothing is decided until it is known");
                    sleep(wait_of(&mut backoff)).await;
                }
            }
        }
    }

    /// Returns the record as it was before the barrier.
    async fn try_barrier(&self) -> Result<Option<(Cluster, Revision)>, StoreError> {
        let fence = self.leadership.fence();
        let (cluster_key, leader_key) = {
            let hot = self.shared.read();
            let spell = |key| hot.state.keys().spell(key);
            (spell(&Key::Cluster), spell(&Key::Leader))
        };
        let answer = call(self.store.range(RangeRequest::all(KeyRange::key(cluster_key.clone())))).await?;
        let kv = answer.kvs.first();
        let Some((kv, cluster)) = kv.and_then(|kv| Some((kv, Cluster::from_kv(kv).ok()?))) else {
            return Err(StoreError::Other("the cluster's record cannot be read".to_owned()));
        };
        let write = Txn {
            when: vec![fence, Compare::ModRevision(cluster_key.clone(), kv.mod_revision)],
            then: vec![Operation::Put {
                key: cluster_key,
                value: Tokens::reserve(&cluster).encode(),
                lease: None,
            }],
            or_else: vec![Operation::Get(KeyRange::key(leader_key))],
        };
        let answer = call(self.store.txn(write)).await?;
        if answer.succeeded {
            return Ok(Some((cluster, answer.revision)));
        }
        if matches!(self.compare_failed(&answer), Trouble::Deposed) {
            return Ok(None);
        }
        Err(StoreError::Other("the cluster's record was written meanwhile".to_owned()))
    }

    /// Tells the store once a burst of writes is over. No order waits for that.
    fn unwind(&self, burst: &mut Burst) {
        let revision = self.shared.read().state.revision();
        burst.see(revision, self.shared.now());
        if burst.is_over(self.shared.now()) {
            let store = Arc::clone(&self.store);
            drop(tokio::spawn(async move {
                if let Err(error) = store.unwind().await {
                    debug!(%error, "the store did not unwind; it is only slower for it, until the next time");
                }
            }));
        }
    }

    async fn compact(&self, compaction: &mut Compaction) {
        let revision = self.shared.read().state.revision();
        let Some(revision) = compaction.due(revision, self.shared.now()) else { return };
        match call(self.store.compact(revision)).await {
            Ok(()) => debug!(revision = revision.0, "compacted"),
            // It is tried again in a while; nothing depends on it.
            Err(error) => warn!(%error, "the store was not compacted"),
        }
    }
}

/// Bounds a call from the outside too: a store that breaks its promise must not stop the leader.
async fn call<T>(what: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match timeout(CALL_TIMEOUT + Duration::from_secs(1), what).await {
        Ok(answer) => answer,
        Err(_) => Err(StoreError::OutcomeUnknown { what: "a leader's call".to_owned() }),
    }
}

/// Tells whoever ordered it what became of evening machines out.
fn answer(order: RebalanceOrder, found: &Step, written: &Written) {
    let said = match (&found.rebalanced, written) {
        (Some(moved), Written::Upto(at)) => {
            Ok(Rebalanced { revision: at.unwrap_or(moved.revision), ..moved.clone() })
        }
        (Some(_), _) => Err("the store did not take the moves; ask again".to_owned()),
        (None, _) => {
            Err(found.standstill.clone().unwrap_or_else(|| "the leader was busy; ask again".to_owned()))
        }
    };
    // Nobody may wait for it any more, and the moves are told by events.
    let _heard = order.reply.send(said);
}

fn wait_of(backoff: &mut Backoff) -> Duration {
    backoff.next_wait()
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
