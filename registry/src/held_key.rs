//! A key that is held under a session, and that tells its holder when it is lost.
//!
//! Owns the session and a task that watches the key. The leader and the seats are
//! each a held key; who may create one, and with what else, is theirs to say.

use std::sync::Arc;

use futures_util::StreamExt as _;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use crate::{
    session::{LostReason, Session},
    store::{
        Compare, KeyRange, Operation, RangeRequest, Revision, Store, StoreError, Txn, WatchEvent,
        WatchMessage,
    },
    timing::Timing,
};

/// Why a key is not held any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyLost {
    /// Its session is lost.
    #[error("its session is lost: {0}")]
    Session(LostReason),
    /// Somebody removed or replaced it.
    #[error("its key was removed or replaced by somebody else")]
    Taken,
}

/// A key under a session.
#[derive(Debug)]
pub(crate) struct HeldKey {
    store: Arc<dyn Store>,
    session: Session,
    key: String,
    created: Revision,
    written: Revision,
    lost: watch::Receiver<Option<KeyLost>>,
    _stop: DropGuard,
}

impl HeldKey {
    /// Takes over a key that was last written at `written`, under the session, and created at
    /// `created`.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        session: Session,
        key: String,
        created: Revision,
        written: Revision,
        timing: &Timing,
    ) -> Self {
        let (tell, lost) = watch::channel(None);
        let stop = CancellationToken::new();
        let (stopped, handle) = (stop.clone(), session.handle());
        let taken = taken(store.clone(), key.clone(), written, timing.clone());
        tokio::spawn(stopped.run_until_cancelled_owned(async move {
            let why = tokio::select! {
                why = handle.lost() => KeyLost::Session(why),
                () = taken => KeyLost::Taken,
            };
            tell.send_replace(Some(why));
        }));
        Self { store, session, key, created, written, lost, _stop: stop.drop_guard() }
    }

    /// Returns the revision that the key was created at.
    pub(crate) const fn created(&self) -> Revision {
        self.created
    }

    /// Returns the session that the key is under.
    pub(crate) const fn session(&self) -> &Session {
        &self.session
    }

    /// Returns the condition that the key is still the one held.
    pub(crate) fn fence(&self) -> Compare {
        Compare::CreateRevision(self.key.clone(), self.created)
    }

    /// Waits until the key is lost.
    pub(crate) async fn lost(&self) -> KeyLost {
        let mut lost = self.lost.clone();
        match lost.wait_for(Option::is_some).await {
            Ok(why) => why.unwrap_or(KeyLost::Taken),
            // The task ends without a word only when this value goes.
            Err(_) => KeyLost::Session(LostReason::Released),
        }
    }

    /// Removes the key if it is still the one held, and ends its lease.
    pub(crate) async fn release(self) -> Result<(), StoreError> {
        let Self { store, session, key, written, _stop, .. } = self;
        drop(_stop);
        let removed = store
            .txn(Txn {
                when: vec![Compare::ModRevision(key.clone(), written)],
                then: vec![Operation::Delete(KeyRange::key(key))],
                or_else: Vec::new(),
            })
            .await;
        // Removes the key too, should the transaction not have.
        session.revoke().await.and(removed.map(|_| ()))
    }
}

/// Waits until a key is removed or written again.
async fn taken(store: Arc<dyn Store>, key: String, written: Revision, timing: Timing) {
    let mut backoff = timing.backoff();
    let mut from = Revision(written.0 + 1);
    loop {
        let error = match watch_once(&*store, &key, from).await {
            Ok(()) => return,
            // History is gone: the key itself tells whether it is the same.
            Err(StoreError::Compacted { .. }) => match look(&*store, &key).await {
                Ok((found, now)) if found == Some(written) => {
                    from = Revision(now.0 + 1);
                    continue;
                }
                Ok(_) => return,
                Err(error) => error,
            },
            Err(error) => error,
        };
        debug!(key, %error, "the watch of a held key is made again");
        sleep(backoff.next_wait()).await;
    }
}

/// Returns when a key was last written, if it is there, and the store's revision.
async fn look(store: &dyn Store, key: &str) -> Result<(Option<Revision>, Revision), StoreError> {
    let answer = store.range(RangeRequest::all(KeyRange::key(key))).await?;
    Ok((answer.kvs.first().map(|kv| kv.mod_revision), answer.revision))
}

/// Waits for a change of a key from a revision on.
async fn watch_once(store: &dyn Store, key: &str, from: Revision) -> Result<(), StoreError> {
    let mut messages = store.watch(KeyRange::key(key), from).await?;
    while let Some(message) = messages.next().await {
        if let WatchMessage::Events { events, .. } = message? {
            let removed = events.iter().any(|event| matches!(event, WatchEvent::Delete { .. }));
            warn!(
                key,
                removed,
                "the key was removed or replaced; this engine gives up what it stands for, its seat or the lead"
            );
            return Ok(());
        }
    }
    Err(StoreError::WatchEnded("it ended without a word".to_owned()))
}
