//! Keeps the machine registered, and the board in the store.
//!
//! The first change on a quiet board is written at once if somebody waits for it; what follows
//! goes together, 100 ms later, and where ten or more units start together, 500 ms later if nothing
//! died meanwhile. A write that fails is resolved by reading; a lease that is lost is
//! followed by another registration, while every unit runs on. A registration that an earlier process
//! left is renewed from the first moment on, and an order to stop is an orderly stop at any time.

use std::time::Duration;

use flotilla_registry::store::{CALL_TIMEOUT, Revision, StoreError};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::{due::Due, report::Writing};
use crate::{
    board::Board,
    registration::{Claim, LOOK_AGAIN, Registered, Registrar, RegistrationError, longest},
};

mod due;
mod report;

/// How long the orderly stop may take: two calls of the store, then the lease runs out by itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a registration that is being written is let go on when the stop comes: one call of the
/// store. A write that was given up could arrive after the stop's own and undo it.
const WRITTEN_WITHIN: Duration = CALL_TIMEOUT;

/// Whether the cluster knows this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registration {
    /// Not, or not any more; for people, why.
    Pending(String),
    /// It does, under this incarnation.
    Registered {
        /// The nonce.
        incarnation: String,
        /// The machine key's create revision.
        created: Revision,
    },
    /// Another has this machine's id: a second machine, or this one before its boot. Its units may
    /// run, so none is started here before that registration has ended.
    Occupied {
        /// For people, whose it is.
        why: String,
        /// How long it may last if nobody renews it and the store does not tell.
        until: Instant,
    },
}

/// The task that writes.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) registrar: Registrar,
    pub(crate) board: watch::Sender<Board>,
    pub(crate) registration: watch::Sender<Registration>,
    /// Why nothing may be written: the store went back.
    pub(crate) frozen: watch::Sender<Option<String>>,
}

impl Publisher {
    /// Runs until the agent stops in order, or must not run at all.
    ///
    /// # Errors
    /// Another machine has the same id.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), RegistrationError> {
        let mut board = self.board.subscribe();
        loop {
            let Some(registered) = self.register(&stop).await? else {
                self.stop(None).await;
                return Ok(());
            };
            let incarnation = registered.record.nonce.clone();
            self.registration
                .send_replace(Registration::Registered { incarnation, created: registered.created });
            let mut writing = Writing::new(registered);
            match stop.run_until_cancelled(self.write(&mut writing, &mut board)).await {
                None => {
                    self.stop(Some(writing.registered)).await;
                    return Ok(());
                }
                Some(why) => {
                    warn!(why, "the machine's registration has to be made again; its units run on meanwhile");
                    self.registration.send_replace(Registration::Pending(why));
                }
            }
        }
    }

    /// Registers, however long it takes; `None` when the agent is to stop.
    async fn register(&self, stop: &CancellationToken) -> Result<Option<Registered>, RegistrationError> {
        let mut backoff = self.registrar.timing.backoff();
        loop {
            let error = match self.register_once(stop).await {
                Err(error @ RegistrationError::Duplicate { .. }) => {
                    error!(%error, "this machine must not take part");
                    return Err(error);
                }
                Err(error) => error,
                registered => return registered,
            };
            let why = with_source(&error);
            warn!(why, "the machine is not registered yet");
            self.registration.send_if_modified(|now| {
                // A store that is away says no more of the other.
                let pending = !matches!(now, Registration::Occupied { until, .. } if Instant::now() < *until);
                if pending {
                    *now = Registration::Pending(why);
                }
                pending
            });
            if stop.run_until_cancelled(sleep(backoff.next_wait())).await.is_none() {
                return Ok(None);
            }
        }
    }

    async fn register_once(&self, stop: &CancellationToken) -> Result<Option<Registered>, RegistrationError> {
        // Reads and renewals only, so a stop may come at any time.
        let Some(claimed) = stop.run_until_cancelled(self.claim()).await else { return Ok(None) };
        let claimed = claimed?;
        let mut board = self.board.subscribe();
        let whole = async {
            // A machine without a whole report is unknown, not empty.
            // The senders are part of this task: they cannot be gone.
            let _ = board.wait_for(|b| b.complete).await;
            let _ = self.frozen.subscribe().wait_for(Option::is_none).await;
        };
        let lost = async {
            match &claimed {
                Some(own) => own.session.lost().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(None),
            why = lost => return Err(RegistrationError::Lost(why)),
            () = whole => {}
        }
        let written = async {
            match claimed {
                Some(own) => self.registrar.take_up(own, &self.board).await,
                None => self.registrar.create(&self.board).await,
            }
        };
        let given_up = async {
            stop.cancelled().await;
            sleep(WRITTEN_WITHIN).await;
        };
        tokio::select! {
            registered = written => registered.map(Some),
            () = given_up => Ok(None),
        }
    }

    /// Returns this boot's registration, renewed from now on, or `None` once there is none at all.
    async fn claim(&self) -> Result<Option<Registered>, RegistrationError> {
        loop {
            match self.registrar.claim().await {
                Ok(Claim::Free) => return Ok(None),
                Ok(Claim::Own(own)) => return Ok(Some(*own)),
                Ok(Claim::Another(kv, other)) => {
                    let why = format!("waiting for the registration of {} to end", other.host);
                    let until = Instant::now() + longest(&other);
                    self.registration.send_replace(Registration::Occupied { why, until });
                    self.registrar.wait_for_end(&kv, &other).await?;
                }
                // Its keys are about to go.
                Err(RegistrationError::Store(StoreError::LeaseNotFound(_))) => sleep(LOOK_AGAIN).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Copies the board into the store until the machine has to be registered anew; returns why.
    async fn write(&self, writing: &mut Writing, board: &mut watch::Receiver<Board>) -> String {
        let lost = writing.registered.session.handle();
        let mut backoff = self.registrar.timing.backoff();
        let mut due = Due::new(Instant::now());
        let mut frozen = self.frozen.subscribe();
        board.mark_changed();
        loop {
            let writable = frozen.borrow_and_update().is_none();
            let at = due.at().filter(|_| writable);
            tokio::select! {
                biased;
                why = lost.lost() => return why.to_string(),
                // What was acknowledged is the other store's: what this one has is read, and all written.
                _ = frozen.changed() => if frozen.borrow_and_update().is_none() {
                    return "an operator accepted the store".to_owned();
                },
                _ = board.changed() => due.changed(&board.borrow_and_update(), Instant::now()),
                () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => {
                    match self.flush(writing).await {
                        Ok(()) => {
                            backoff.reset();
                            due.written(Instant::now());
                        }
                        Err(RegistrationError::Overtaken(key)) => return format!("{key} is another's"),
                        Err(RegistrationError::WentBack(error)) => {
                            error!(%error, "the store went back; nothing is written to it until `flotctl cluster accept-store`");
                            self.frozen.send_replace(Some(error.to_string()));
                            due.written(Instant::now());
                        }
                        Err(error) => {
                            let wait = backoff.next_wait();
                            warn!(
                                error = with_source(&error),
                                seconds = wait.as_secs_f32(),
                                "the report was not written and is tried again; units run on"
                            );
                            due.failed(Instant::now(), wait);
                        }
                    }
                }
            }
        }
    }

    /// Says that flotillad was stopped in order, under a lease that gives it time to come back: of what
    /// is registered, or of what an earlier process, or a write that was given up, has left in the store.
    async fn stop(&self, registered: Option<Registered>) {
        let ttl = self.registrar.timing.orderly_stop_lease;
        match tokio::time::timeout(STOP_TIMEOUT, self.say_stopped(registered, ttl)).await {
            Ok(Ok(true)) => info!(seconds = ttl.as_secs(), "stopped in order; the machine is expected back"),
            Ok(Ok(false)) => info!("stopped; the machine was not registered"),
            Ok(Err(error)) => warn!(
                error = with_source(&error),
                "the orderly stop was not written; units move to other machines when the lease ends"
            ),
            Err(_) => warn!(
                "the store did not answer: the orderly stop was not written, and units move to other machines when the lease ends"
            ),
        }
    }

    /// Returns whether there was a registration to say it of.
    async fn say_stopped(
        &self,
        registered: Option<Registered>,
        ttl: Duration,
    ) -> Result<bool, RegistrationError> {
        let mut own = match registered {
            Some(registered) => registered,
            None => match self.registrar.claim().await? {
                // Also one that says so already: a write that was given up may say otherwise yet, and
                // fails once this one is there.
                Claim::Own(own) => *own,
                Claim::Free | Claim::Another(..) => return Ok(false),
            },
        };
        loop {
            // A write may have been under way when the stop came, and may arrive even now.
            self.registrar.resolve(&mut own).await?;
            match self.registrar.hand_over(&mut own, ttl, true, &self.board).await {
                Err(RegistrationError::Overtaken(_)) => {}
                result => return result.map(|()| true),
            }
        }
    }
}

/// Returns an error's text with its causes'.
pub(crate) fn with_source(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
