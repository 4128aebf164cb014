//! A session: a lease that is kept alive, and that tells its holder when it may be lost.
//!
//! Owns the keep-alive task. Never writes a key: who holds a session puts its keys
//! under [`Session::lease`]. The agent (its machine's life), the leader and the
//! seats each hold one.
//!
//! ```text
//!             a renewal failed                  the lease has ended, or
//!   ┌──────┐ ───────────────► ┌───────────┐     no answer for a whole TTL   ┌──────┐
//!   │ Held │                  │ Uncertain │ ──────────────────────────────► │ Lost │
//!   └──────┘ ◄─────────────── └───────────┘                                 └──────┘
//!       │     a renewal answered                                                ▲
//!       └── the lease has ended, or the session was dropped, detached, revoked ─┘
//! ```
//!
//! Time is counted from *before* a renewal was sent: the store counts from when it
//! handled it, which is later, so a session is lost here before it is lost there.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use crate::{
    store::{CALL_TIMEOUT, LeaseId, Store, StoreError},
    timing::Timing,
};

/// How a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// The last renewal was answered.
    Held {
        /// When that renewal was sent.
        renewed_at: Instant,
        /// What it gave, counted from then.
        ttl: Duration,
    },
    /// A renewal failed since; the lease may still be there.
    Uncertain {
        /// When the last renewal that was answered was sent.
        renewed_at: Instant,
        /// What it gave, counted from then.
        ttl: Duration,
    },
    /// The lease has ended, or has to be taken for ended. It stays so.
    Lost(LostReason),
}

/// Why a session is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostReason {
    /// The store said that the lease does not exist: its keys are gone.
    Ended,
    /// No renewal was answered for a whole TTL: its keys may be gone. A store that comes back may
    /// still have the lease ([`Session::adopt`] tells).
    NoAnswer,
    /// The holder dropped, detached or revoked the session.
    Released,
}

/// A lease that is kept alive as long as this value exists.
///
/// # Cancellation
/// Dropping it is [`Session::detach`]: renewing stops, and the lease runs out by itself.
#[derive(Debug)]
pub struct Session {
    /// Whose lease it is, for the log.
    of: &'static str,
    store: Arc<dyn Store>,
    timing: Timing,
    handle: SessionHandle,
    _stop: DropGuard,
}

/// Tells how a session is, to those who do not hold it.
#[derive(Debug, Clone)]
pub struct SessionHandle {
    lease: LeaseId,
    state: watch::Receiver<SessionState>,
}

/// Why a session's keys were not handed over to another lease.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError<E> {
    /// No other lease was granted.
    #[error("the store granted no lease of {ttl:?} to hand over to; the session goes on with the old one")]
    Grant {
        /// What was asked for.
        ttl: Duration,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// The keys were not moved.
    #[error(
        "the keys of lease {from:?} were not moved to lease {to:?}; the session goes on with the old one"
    )]
    Move {
        /// The lease that they are under.
        from: LeaseId,
        /// The lease that was granted for them.
        to: LeaseId,
        /// What the caller's move said.
        #[source]
        source: E,
    },
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ended => "the lease has ended",
            Self::NoAnswer => "the store did not answer for the time of a whole lease",
            Self::Released => "the session was given up",
        })
    }
}

impl SessionState {
    /// Returns until when the lease is held for certain; `None` once it is lost.
    #[must_use]
    pub fn held_until(&self) -> Option<Instant> {
        match *self {
            Self::Held { renewed_at, ttl } | Self::Uncertain { renewed_at, ttl } => Some(renewed_at + ttl),
            Self::Lost(_) => None,
        }
    }

    /// Returns the state as it has to be taken at a time: a lease whose time has run out is lost,
    /// also when the keep-alive task had no chance to say so (the process was frozen).
    #[must_use]
    pub fn at(self, now: Instant) -> Self {
        match self.held_until() {
            Some(until) if until <= now => Self::Lost(LostReason::NoAnswer),
            _ => self,
        }
    }
}

impl SessionHandle {
    /// Returns the session's lease.
    #[must_use]
    pub const fn lease(&self) -> LeaseId {
        self.lease
    }

    /// Returns how the session is now.
    #[must_use]
    pub fn state(&self) -> SessionState {
        self.state.borrow().at(Instant::now())
    }

    /// Waits until the session is lost, and tells why.
    ///
    /// # Cancellation
    /// Nothing is lost by dropping it.
    pub async fn lost(&self) -> LostReason {
        let mut state = self.state.clone();
        loop {
            let now = *state.borrow_and_update();
            let until = match now.held_until() {
                Some(until) => until,
                None => return now.lost_reason(),
            };
            tokio::select! {
                biased;
                changed = state.changed() => if changed.is_err() {
                    return LostReason::Released;
                },
                () = sleep_until(until) => return LostReason::NoAnswer,
            }
        }
    }

    /// Waits for the next change of the state, and returns it. Renewals change it too. Returns the
    /// last state at once, again and again, when the session is lost.
    pub async fn changed(&mut self) -> SessionState {
        if self.state.changed().await.is_err() {
            return SessionState::Lost(self.state.borrow().lost_reason());
        }
        self.state.borrow_and_update().at(Instant::now())
    }
}

impl SessionState {
    const fn lost_reason(&self) -> LostReason {
        match self {
            Self::Lost(why) => *why,
            Self::Held { .. } | Self::Uncertain { .. } => LostReason::Released,
        }
    }
}

impl Session {
    /// Grants a lease and keeps it alive; the log names it by whom it is of.
    ///
    /// # Errors
    /// What the store said; a lease whose grant was not answered runs out by itself.
    pub async fn open(
        of: &'static str,
        store: Arc<dyn Store>,
        ttl: Duration,
        timing: &Timing,
    ) -> Result<Self, StoreError> {
        let sent = Instant::now();
        let (lease, granted) = store.lease_grant(ttl).await?;
        debug!(of, ?lease, ?granted, "lease granted");
        Ok(Self::start(of, store, lease, sent, granted, timing))
    }

    /// Goes on with a lease that exists already: an agent that was started again, or a store that
    /// came back.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`] if it has ended meanwhile; else what the store said.
    pub async fn adopt(
        of: &'static str,
        store: Arc<dyn Store>,
        lease: LeaseId,
        timing: &Timing,
    ) -> Result<Self, StoreError> {
        let sent = Instant::now();
        let ttl = store.lease_keep_alive(lease, CALL_TIMEOUT).await?;
        if ttl.is_zero() {
            return Err(StoreError::LeaseNotFound(lease));
        }
        debug!(of, ?lease, ?ttl, "lease adopted");
        Ok(Self::start(of, store, lease, sent, ttl, timing))
    }

    fn start(
        of: &'static str,
        store: Arc<dyn Store>,
        lease: LeaseId,
        sent: Instant,
        ttl: Duration,
        timing: &Timing,
    ) -> Self {
        let (states, state) = watch::channel(SessionState::Held { renewed_at: sent, ttl });
        let stop = CancellationToken::new();
        let keep_alive = KeepAlive { of, store: store.clone(), lease, timing: timing.clone(), states };
        let stopped = stop.clone();
        tokio::spawn(async move {
            let states = keep_alive.states.clone();
            let why = stopped.run_until_cancelled_owned(keep_alive.run(sent, ttl)).await;
            states.send_replace(SessionState::Lost(why.unwrap_or(LostReason::Released)));
        });
        Self {
            of,
            store,
            timing: timing.clone(),
            handle: SessionHandle { lease, state },
            _stop: stop.drop_guard(),
        }
    }

    /// Returns the lease.
    #[must_use]
    pub const fn lease(&self) -> LeaseId {
        self.handle.lease
    }

    /// Returns how the session is now.
    #[must_use]
    pub fn state(&self) -> SessionState {
        self.handle.state()
    }

    /// Waits until the session is lost, and tells why.
    pub async fn lost(&self) -> LostReason {
        self.handle.lost().await
    }

    /// Returns a handle for others; it tells [`LostReason::Released`] when this value goes.
    #[must_use]
    pub fn handle(&self) -> SessionHandle {
        self.handle.clone()
    }

    /// Goes on with a new lease of another length, once `move_keys` has put every key of the old
    /// lease under it; then the old lease is revoked, with whatever was left under it.
    ///
    /// # Guarantees
    /// On an error the session is as it was. Handles made before tell [`LostReason::Released`]
    /// after a success.
    ///
    /// # Assumptions
    /// `move_keys` gets the new lease and what was granted. When it fails, no key has moved: it
    /// resolves an unknown outcome by reading. (A key that did move all the same would end with
    /// the new lease, which is left to run out, not revoked.)
    ///
    /// # Errors
    /// No lease was granted, or the keys were not moved.
    pub async fn hand_over<F, R, E>(&mut self, ttl: Duration, move_keys: F) -> Result<(), HandOverError<E>>
    where
        F: FnOnce(LeaseId, Duration) -> R + Send,
        R: Future<Output = Result<(), E>> + Send,
    {
        let sent = Instant::now();
        let (lease, granted) =
            self.store.lease_grant(ttl).await.map_err(|source| HandOverError::Grant { ttl, source })?;
        // Kept alive from now on: the caller's move may take longer than the lease.
        let new = Self::start(self.of, self.store.clone(), lease, sent, granted, &self.timing);
        let from = self.lease();
        move_keys(lease, granted).await.map_err(|source| HandOverError::Move { from, to: lease, source })?;
        let old = std::mem::replace(self, new);
        if let Err(error) = old.revoke().await {
            // Nobody renews it any more, so it runs out by itself.
            warn!(of = self.of, lease = ?from, %error, "the lease handed over from was not revoked");
        }
        Ok(())
    }

    /// Ends the lease now: its keys are gone when this returns.
    ///
    /// # Errors
    /// What the store said; the lease is not renewed any more and runs out by itself.
    pub async fn revoke(self) -> Result<(), StoreError> {
        let Self { store, handle, _stop, .. } = self;
        drop(_stop);
        store.lease_revoke(handle.lease).await
    }

    /// Stops renewing and leaves the lease, with its keys, to run out; returns it.
    pub fn detach(self) -> LeaseId {
        self.lease()
    }
}

/// The task's side of a session.
struct KeepAlive {
    of: &'static str,
    store: Arc<dyn Store>,
    lease: LeaseId,
    timing: Timing,
    states: watch::Sender<SessionState>,
}

impl KeepAlive {
    /// Renews until the lease is lost.
    async fn run(self, mut renewed_at: Instant, mut ttl: Duration) -> LostReason {
        let mut due = renewed_at + self.timing.renewal_phase(ttl);
        let mut failed = false;
        loop {
            let deadline = renewed_at + ttl;
            sleep_until(due.min(deadline)).await;
            let sent = Instant::now();
            if sent >= deadline {
                return LostReason::NoAnswer;
            }
            let renewal = self.store.lease_keep_alive(self.lease, self.timing.renewal_timeout(ttl));
            let answer = timeout_at(deadline, renewal).await;
            // An answer after the deadline comes too late: others were told that it is lost.
            if Instant::now() >= deadline && !matches!(answer, Ok(Err(StoreError::LeaseNotFound(_)))) {
                return LostReason::NoAnswer;
            }
            match answer {
                Ok(Ok(remaining)) if !remaining.is_zero() => {
                    (renewed_at, ttl) = (sent, remaining);
                    // Whose renewals failed together would go on together.
                    due = sent
                        + if std::mem::take(&mut failed) {
                            self.timing.renewal_phase(ttl)
                        } else {
                            self.timing.renewal_interval(ttl)
                        };
                    self.states.send_replace(SessionState::Held { renewed_at, ttl });
                }
                Ok(Ok(_) | Err(StoreError::LeaseNotFound(_))) => return LostReason::Ended,
                Err(_) => return LostReason::NoAnswer,
                Ok(Err(error)) => {
                    let left = (renewed_at + ttl).saturating_duration_since(Instant::now());
                    warn!(
                        of = self.of, lease = ?self.lease, %error, seconds = left.as_secs_f32(),
                        "the lease was not renewed and is tried again; it ends in so many seconds"
                    );
                    failed = true;
                    due = Instant::now() + self.timing.renewal_retry(ttl);
                    self.states.send_replace(SessionState::Uncertain { renewed_at, ttl });
                }
            }
        }
    }
}
