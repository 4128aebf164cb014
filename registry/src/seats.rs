//! Who is hot: the few machines whose engines hold the cluster's state.
//!
//! Owns `engine/seats/<n>`. A seat is no licence to write anything: two engines that
//! both believe to have one do no harm. A machine takes at most one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::StreamExt as _;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::{
    held_key::{HeldKey, KeyLost},
    keys::{Key, Keys},
    records::{Record as _, SeatRecord},
    session::{Session, SessionHandle, SessionState},
    store::{
        Compare, KeyValue, LeaseId, Operation, RangeRequest, Revision, Store, StoreError, Txn, WatchEvent,
        WatchMessage,
    },
    timing::Timing,
};

/// An engine that would take a seat.
#[derive(Debug)]
pub struct SeatSeeker {
    store: Arc<dyn Store>,
    keys: Keys,
    record: SeatRecord,
    timing: Timing,
    /// This process has not looked yet: a seat of its machine and boot is then from the process before it.
    fresh: AtomicBool,
    /// The session of the seat that it took last.
    last: Mutex<Option<SessionHandle>>,
}

/// A seat, held.
///
/// # Cancellation
/// Dropping it stops renewing: it is free when its lease has run out. [`Seat::leave`] frees it at
/// once.
#[derive(Debug)]
pub struct Seat {
    held: HeldKey,
    number: u8,
}

impl SeatSeeker {
    /// Makes a seeker; `record` is what others read in the seat.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, keys: Keys, record: SeatRecord, timing: Timing) -> Self {
        Self { store, keys, record, timing, fresh: AtomicBool::new(true), last: Mutex::new(None) }
    }

    /// Waits until this engine has a seat: the first that is free. A seat of the same machine's and boot's
    /// process before this one is taken over at once, and so is one that this seeker took and lost: a
    /// store that was away for longer than a lease gives every lease its whole time again.
    ///
    /// A store that cannot be reached is waited for.
    ///
    /// # Cancellation
    /// Dropping it leaves at most a seat that nobody renews.
    ///
    /// # Errors
    /// The store refuses for a reason that waiting does not mend.
    pub async fn take(&self) -> Result<Seat, StoreError> {
        let mut backoff = self.timing.backoff();
        loop {
            match self.try_once().await {
                Ok(Some(seat)) => return Ok(seat),
                Ok(None) => backoff.reset(),
                Err(error)
                    if error.is_transient()
                        || matches!(error, StoreError::LeaseNotFound(_) | StoreError::Compacted { .. }) =>
                {
                    let wait = backoff.next_wait();
                    warn!(%error, ?wait, "taking a seat was interrupted");
                    sleep(wait).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_once(&self) -> Result<Option<Seat>, StoreError> {
        let range = self.keys.all_of("engine/seats");
        let answer = self.store.range(RangeRequest::all(range.clone())).await?;
        let taken: BTreeMap<u8, &KeyValue> = answer
            .kvs
            .iter()
            .filter_map(|kv| match self.keys.read(&kv.key) {
                Some(Key::Seat(number)) => Some((number, kv)),
                _ => None,
            })
            .collect();
        let fresh = self.fresh.swap(false, Ordering::Relaxed);
        let own = taken.iter().find(|(_, kv)| {
            // A seat that cannot be read is somebody's all the same.
            SeatRecord::from_kv(kv).is_ok_and(|record| record.machine == self.record.machine)
        });
        // A living machine that has this one's id has another boot.
        let before = |kv| SeatRecord::from_kv(kv).is_ok_and(|seat| seat.boot_id == self.record.boot_id);
        match own {
            Some((&number, kv)) if fresh && before(kv) || self.has_lost(kv.lease) => {
                return self.claim(number, Some(kv.mod_revision)).await;
            }
            // Another process of this machine has one: at most one, so wait for it to go.
            Some(_) => {}
            None => {
                if let Some(free) = (0..self.timing.seats).find(|number| !taken.contains_key(number)) {
                    return self.claim(free, None).await;
                }
            }
        }
        debug!(seats = taken.len(), "no seat is free");
        let mut watch = self.store.watch(range, Revision(answer.revision.0 + 1)).await?;
        while let Some(message) = watch.next().await {
            if let WatchMessage::Events { events, .. } = message?
                && events.iter().any(|event| matches!(event, WatchEvent::Delete { .. }))
            {
                return Ok(None);
            }
        }
        Err(StoreError::WatchEnded("it ended without a word".to_owned()))
    }

    /// Tells whether a lease is that of the seat that this seeker took last, and has lost.
    fn has_lost(&self, lease: Option<LeaseId>) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().is_some_and(|session| {
            Some(session.lease()) == lease && matches!(session.state(), SessionState::Lost(_))
        })
    }

    /// Claims a seat that is free, or was last written at a revision; `None` if somebody was faster.
    async fn claim(&self, number: u8, over: Option<Revision>) -> Result<Option<Seat>, StoreError> {
        let session =
            Session::open("the seat", self.store.clone(), self.timing.seat_lease, &self.timing).await?;
        let key = self.keys.spell(&Key::Seat(number));
        let as_seen = match over {
            Some(revision) => Compare::ModRevision(key.clone(), revision),
            None => Compare::Absent(key.clone()),
        };
        let lease = session.lease();
        let put = Operation::Put { key: key.clone(), value: self.record.encode(), lease: Some(lease) };
        let answer = self.store.txn(Txn { when: vec![as_seen], then: vec![put], or_else: Vec::new() }).await;
        let seat = match answer {
            Ok(answer) if !answer.succeeded => None,
            // The key as it is now, also when the outcome is not known: only this claim's is under
            // its lease.
            Ok(_) | Err(StoreError::OutcomeUnknown { .. }) => {
                let read = RangeRequest::all(crate::store::KeyRange::key(&*key));
                self.store.range(read).await?.kvs.into_iter().find(|kv| kv.lease == Some(lease))
            }
            Err(error) => return Err(error),
        };
        let Some(kv) = seat else {
            // Ends the lease, so that a transaction still under way can only fail.
            session.revoke().await?;
            return Ok(None);
        };
        info!(seat = number, "this engine has a seat");
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.handle());
        let (created, written) = (kv.create_revision, kv.mod_revision);
        let held = HeldKey::new(self.store.clone(), session, key, created, written, &self.timing);
        Ok(Some(Seat { held, number }))
    }
}

impl Seat {
    /// Returns its number.
    #[must_use]
    pub const fn number(&self) -> u8 {
        self.number
    }

    /// Waits until the seat is lost, and tells why.
    ///
    /// # Cancellation
    /// Nothing is lost by dropping it.
    pub async fn lost(&self) -> KeyLost {
        self.held.lost().await
    }

    /// Leaves the seat, so that another engine can take it at once.
    ///
    /// # Errors
    /// What the store said; the seat is then free when its lease has run out.
    pub async fn leave(self) -> Result<(), StoreError> {
        self.held.release().await
    }
}
