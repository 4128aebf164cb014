//! Keeps the machine registered, and the board in the store.
//!
//! The first change on a quiet board is written at once if somebody waits for it; what follows
//! goes together, 100 ms later. A write that fails is resolved by reading; a lease that is lost is
//! followed by another registration, while every unit runs on.

use std::{collections::BTreeSet, time::Duration};

use flotilla_registry::{
    keys::{Bucket, Key},
    records::{Record as _, ReportHead, VERSION},
    store::{Compare, Operation, Revision, StoreError, TXN_BYTES_MAX, Txn},
    witness::check_own_record,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    board::Board,
    registration::{Registered, Registrar, RegistrationError},
};

/// How long changes are gathered after the first. 100 ms: nobody notices it, and 300 units that
/// start together cost ten writes instead of 300.
const COALESCE: Duration = Duration::from_millis(100);

/// How long the orderly stop may take: two calls of the store, then the lease runs out by itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

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

/// What has to be written, and what the store has.
struct Writing {
    registered: Registered,
    unwritten: BTreeSet<Bucket>,
    seen: Revision,
    /// The store's answer to a write was not heard, so its own keys may be ahead of what is known.
    unsure: bool,
}

impl Publisher {
    /// Runs until the agent stops in order, or must not run at all.
    ///
    /// # Errors
    /// Another machine has the same id.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), RegistrationError> {
        let mut board = self.board.subscribe();
        loop {
            // A machine without a whole report is unknown, not empty.
            let registering = async {
                // The senders are part of this task: they cannot be gone.
                let _ = board.wait_for(|b| b.complete).await;
                let _ = self.frozen.subscribe().wait_for(Option::is_none).await;
                self.register().await
            };
            let registered = match stop.run_until_cancelled(registering).await {
                None => return Ok(()),
                Some(registered) => registered?,
            };
            let incarnation = registered.record.nonce.clone();
            self.registration
                .send_replace(Registration::Registered { incarnation, created: registered.created });
            // What the board says of it by now may be newer, and has to follow.
            let seen = registered.seen;
            let mut writing = Writing { registered, unwritten: BTreeSet::new(), seen, unsure: false };
            match stop.run_until_cancelled(self.write(&mut writing, &mut board)).await {
                None => {
                    self.stop(writing.registered).await;
                    return Ok(());
                }
                Some(why) => {
                    warn!(
                        why,
                        "the machine's registration was lost; its units run on, and it registers again"
                    );
                    self.registration.send_replace(Registration::Pending(why));
                }
            }
        }
    }

    /// Registers, however long it takes.
    async fn register(&self) -> Result<Registered, RegistrationError> {
        let mut backoff = self.registrar.timing.backoff();
        loop {
            match self.registrar.register(&self.board).await {
                Err(error @ RegistrationError::Duplicate { .. }) => {
                    error!(%error, "this machine must not take part");
                    return Err(error);
                }
                Err(error) => {
                    let why = with_source(&error);
                    warn!(why, "the machine is not registered yet");
                    self.registration.send_replace(Registration::Pending(why));
                    sleep(backoff.next_wait()).await;
                }
                Ok(registered) => return Ok(registered),
            }
        }
    }

    /// Copies the board into the store until the registration is lost; returns why it is.
    async fn write(&self, writing: &mut Writing, board: &mut watch::Receiver<Board>) -> String {
        let lost = writing.registered.session.handle();
        let mut backoff = self.registrar.timing.backoff();
        let mut last = Instant::now();
        let mut due: Option<Instant> = None;
        let mut frozen = self.frozen.subscribe();
        board.mark_changed();
        loop {
            let writable = frozen.borrow_and_update().is_none();
            tokio::select! {
                biased;
                why = lost.lost() => return why.to_string(),
                _ = frozen.changed() => {}
                _ = board.changed() => {
                    let prompt = board.borrow_and_update().prompt;
                    let now = Instant::now();
                    let time = if prompt { now.max(last + COALESCE) } else { now + COALESCE };
                    due = Some(due.map_or(time, |due| due.min(time)));
                }
                () = sleep_until(due.unwrap_or(last)), if writable && due.is_some() => {
                    due = None;
                    match self.flush(writing).await {
                        Ok(()) => backoff.reset(),
                        Err(RegistrationError::Overtaken(key)) => return format!("{key} is another's"),
                        Err(RegistrationError::WentBack(error)) => {
                            error!(%error, "the store went back; nothing is written to it until `flotctl cluster accept-store`");
                            self.frozen.send_replace(Some(error.to_string()));
                        }
                        Err(error) => {
                            let wait = backoff.next_wait();
                            warn!(
                                error = with_source(&error),
                                seconds = wait.as_secs_f32(),
                                "the report was not written and is tried again; units run on"
                            );
                            due = Some(Instant::now() + wait);
                        }
                    }
                    last = Instant::now();
                }
            }
        }
    }

    /// Writes what changed: buckets first, the head with the last of them.
    async fn flush(&self, writing: &mut Writing) -> Result<(), RegistrationError> {
        let mut changed = BTreeSet::new();
        self.board.send_if_modified(|board| {
            changed = board.take_changed();
            false
        });
        writing.unwritten.append(&mut changed);
        if writing.unsure {
            self.registrar.resolve(&mut writing.registered).await?;
            writing.unsure = false;
        }
        let (buckets, head) = {
            let board = self.board.borrow();
            let of = |b: &Bucket| (*b, board.bucket(*b).encode());
            let nonce = writing.registered.record.nonce.clone();
            let head = ReportHead { v: VERSION, incarnation: nonce, seen: board.seen };
            (writing.unwritten.iter().map(of).collect::<Vec<_>>(), head)
        };
        let mut chunk: Vec<(Bucket, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        for (bucket, value) in buckets {
            if !chunk.is_empty() && bytes + value.len() > TXN_BYTES_MAX {
                self.send(writing, std::mem::take(&mut chunk), None).await?;
                bytes = 0;
            }
            bytes += value.len();
            chunk.push((bucket, value));
        }
        let head = (head.seen != writing.seen).then_some(head);
        if !chunk.is_empty() || head.is_some() {
            self.send(writing, chunk, head).await?;
        }
        Ok(())
    }

    async fn send(
        &self,
        writing: &mut Writing,
        buckets: Vec<(Bucket, Vec<u8>)>,
        head: Option<ReportHead>,
    ) -> Result<(), RegistrationError> {
        let (registrar, registered) = (&self.registrar, &mut writing.registered);
        let lease = registered.session.lease();
        let mut txn = Txn {
            when: vec![Compare::CreateRevision(registrar.machine_key(), registered.created)],
            ..Txn::default()
        };
        let mut add = |key: Key, value: Vec<u8>, at: Option<Revision>| {
            let (compare, put) = registrar.put(registrar.keys.spell(&key), value, lease, at);
            txn.when.push(compare);
            txn.then.push(put);
        };
        for (bucket, value) in &buckets {
            let at = registered.acknowledged.buckets.get(bucket).copied();
            add(Key::Report(registrar.machine, *bucket), value.clone(), at);
        }
        if let Some(head) = &head {
            add(Key::ReportHead(registrar.machine), head.encode(), registered.acknowledged.head);
        }
        txn.or_else.push(Operation::Get(registrar.keys.report_of(registrar.machine)));
        match registrar.store.txn(txn).await {
            Ok(response) if response.succeeded => {
                for (bucket, _) in &buckets {
                    writing.unwritten.remove(bucket);
                    registered.acknowledged.buckets.insert(*bucket, response.revision);
                }
                if let Some(head) = head {
                    registered.acknowledged.head = Some(response.revision);
                    writing.seen = head.seen;
                }
                Ok(())
            }
            Ok(_) => {
                // Nobody else writes these keys: either the incarnation ended, or the store went back.
                let acknowledged = registered.acknowledged.clone();
                registrar.resolve(registered).await?;
                for (bucket, at) in acknowledged.buckets {
                    let now = registered.acknowledged.buckets.get(&bucket).copied().unwrap_or_default();
                    let key = registrar.keys.spell(&Key::Report(registrar.machine, bucket));
                    check_own_record(&key, at, now)?;
                }
                Err(RegistrationError::Overtaken(registrar.keys.spell(&Key::ReportHead(registrar.machine))))
            }
            Err(error) => {
                writing.unsure |= matches!(error, StoreError::OutcomeUnknown { .. });
                Err(error.into())
            }
        }
    }

    /// Says that flotillad was stopped in order, under a lease that gives it time to come back.
    async fn stop(&self, mut registered: Registered) {
        let ttl = self.registrar.timing.orderly_stop_lease;
        let handing = async {
            // A write may have been under way when the stop came.
            self.registrar.resolve(&mut registered).await?;
            self.registrar.hand_over(&mut registered, ttl, true, &self.board).await
        };
        match tokio::time::timeout(STOP_TIMEOUT, handing).await {
            Ok(Ok(())) => info!(seconds = ttl.as_secs(), "stopped in order; the machine is expected back"),
            Ok(Err(error)) => warn!(
                error = with_source(&error),
                "the orderly stop was not written; units move to other machines when the lease ends"
            ),
            Err(_) => warn!(
                "the store did not answer: the orderly stop was not written, and units move to other machines when the lease ends"
            ),
        }
        registered.session.detach();
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
