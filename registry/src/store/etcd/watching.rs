//! One etcd watch as a stream of whole revisions.
//!
//! All watches of a process are streams of the one connection to their endpoint, and they end together
//! when its member gives no sign of life (`life`; HTTP/2 pings, which may not be frequent, are the
//! second line). No task runs for a watch: it is read when its reader asks, and dropping it ends it at
//! the server.

use std::{collections::VecDeque, sync::Arc};

use etcd_client::{EventType, WatchResponse, WatchStream as EtcdStream};
use futures_util::{
    future::{BoxFuture, FutureExt as _},
    stream,
};

use super::{
    super::{Revision, StoreError, WatchEvent, WatchMessage, WatchStream},
    convert,
    endpoints::Link,
    failure::{Failure, Subject, classify, classify_cancel},
    life::{Life, Quiet},
};

/// A watch that etcd has created.
struct Watching {
    stream: EtcdStream,
    life: Arc<Life>,
    /// Ends, with the reason, when the member is gone.
    vigil: BoxFuture<'static, String>,
    ready: VecDeque<WatchMessage>,
    /// Changes of the fragments seen so far of a response that etcd has split.
    fragments: Vec<WatchEvent>,
    /// The next revision to be delivered; what `Compacted` names.
    next: Revision,
    ended: bool,
}

/// Returns a created watch as a stream.
pub(super) fn stream(stream: EtcdStream, from: Revision, link: Link, quiet: Arc<Quiet>) -> WatchStream {
    let life = Arc::clone(&link.life);
    let vigil = async move { link.life.gone_while_watched(&link.client, &quiet).await }.boxed();
    let (ready, fragments) = (VecDeque::new(), Vec::new());
    let watching = Watching { stream, life, vigil, ready, fragments, next: from, ended: false };
    Box::pin(stream::unfold(watching, |mut watching| async move {
        let message = watching.next().await?;
        Some((message, watching))
    }))
}

impl Watching {
    async fn next(&mut self) -> Option<Result<WatchMessage, StoreError>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                let (WatchMessage::Events { revision, .. } | WatchMessage::Progress(revision)) = &message;
                self.next = Revision(revision.0 + 1);
                return Some(Ok(message));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.receive().await {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }

    async fn receive(&mut self) -> Result<(), StoreError> {
        let message = tokio::select! {
            biased;
            message = self.stream.message() => message,
            why = &mut self.vigil => return Err(StoreError::WatchEnded(why)),
        };
        let response = match message {
            Ok(Some(response)) => response,
            Ok(None) => return Err(StoreError::WatchEnded("etcd closed the stream".into())),
            Err(error) => {
                return Err(match classify(&error, Subject::default()) {
                    Failure::NotDone { why, .. } | Failure::Unanswered(why) => StoreError::WatchEnded(why),
                    Failure::Refused(error) => error,
                });
            }
        };
        self.life.hear();
        if let Some(error) = refusal(&response, self.next) {
            return Err(error);
        }
        self.take(response)
    }

    fn take(&mut self, response: WatchResponse) -> Result<(), StoreError> {
        let revision = convert::revision(response.header());
        let (created, fragment) = (response.created(), response.0.fragment);
        let silent = response.0.events.is_empty() && self.fragments.is_empty();
        for event in response.0.events {
            let Some(kv) = event.kv else { continue };
            // The accessor of the client panics on a type it does not know.
            self.fragments.extend(match event.r#type {
                kind if kind == EventType::Put as i32 => convert::key_value(kv).map(WatchEvent::Put),
                kind if kind == EventType::Delete as i32 => {
                    let revision = Revision(kv.mod_revision);
                    convert::key(kv.key).map(|key| WatchEvent::Delete { revision, key })
                }
                kind => return Err(StoreError::Other(format!("etcd sent a change of unknown kind {kind}"))),
            });
        }
        if fragment {
            return Ok(());
        }
        let events = std::mem::take(&mut self.fragments);
        if silent && !created {
            self.ready.push_back(WatchMessage::Progress(revision));
        }
        for event in events {
            let at = match &event {
                WatchEvent::Put(kv) => kv.mod_revision,
                WatchEvent::Delete { revision, .. } => *revision,
            };
            match self.ready.back_mut() {
                Some(WatchMessage::Events { revision, events }) if *revision == at => events.push(event),
                _ => self.ready.push_back(WatchMessage::Events { revision: at, events: vec![event] }),
            }
        }
        Ok(())
    }
}

/// Returns why etcd refuses or ends a watch with this response, if it does. A compaction is told by
/// its revision; etcd gives no reason in words then.
pub(super) fn refusal(response: &WatchResponse, next: Revision) -> Option<StoreError> {
    if response.compact_revision() != 0 {
        let oldest = Revision(response.compact_revision());
        return Some(StoreError::Compacted { wanted: next, oldest });
    }
    response.canceled().then(|| classify_cancel(response.cancel_reason()))
}
