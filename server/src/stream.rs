//! Streams of server-sent events, fed by a task through a bounded channel.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use flotilla_api::error::ErrorBody;
use flotilla_registry::store::Revision;
use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::error::ApiError;

/// How many events wait for a slow reader before its feed waits for it.
const QUEUE: usize = 64;

/// How many bytes wait for a slow reader: a single event may be the row of a global unit with thousands of
/// machines. Eight megabytes: more than such a row has, so that one as a rule fits.
const QUEUE_BYTES: u32 = 8 << 20;

/// How often a stream that has nothing to say shows that it lives: proxies cut idle connections
/// after a minute or so.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

/// Where a client says what it has read.
const LAST_EVENT_ID: &str = "last-event-id";

/// The feeding end of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    events: mpsc::Sender<Waiting>,
    /// What is left of [`QUEUE_BYTES`].
    room: Arc<Semaphore>,
}

/// An event that waits for its reader, with the room that it takes.
type Waiting = (Event, Option<OwnedSemaphorePermit>);

/// The reader has gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gone;

impl Feed {
    /// Says something, under an id to go on from; waits while the reader is behind.
    pub(crate) async fn say(&self, id: Option<String>, data: &(impl Serialize + Sync)) -> Result<(), Gone> {
        self.send(Event::default(), id, data).await
    }

    /// Says something of another kind than the stream's own.
    pub(crate) async fn tell(
        &self,
        kind: &str,
        id: Option<String>,
        data: &(impl Serialize + Sync),
    ) -> Result<(), Gone> {
        self.send(Event::default().event(kind), id, data).await
    }

    /// Tells from where to go on, with nothing to say.
    pub(crate) async fn mark(&self, id: String) -> Result<(), Gone> {
        self.events.send((Event::default().id(id), None)).await.map_err(|_| Gone)
    }

    async fn send(
        &self,
        event: Event,
        id: Option<String>,
        data: &(impl Serialize + Sync),
    ) -> Result<(), Gone> {
        // The wire's types are strings, numbers and maps with string keys: they always serialize.
        let data = serde_json::to_string(data).unwrap_or_default();
        // One that is larger than all the room goes alone.
        let bytes = u32::try_from(data.len()).unwrap_or(QUEUE_BYTES).min(QUEUE_BYTES);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await.map_err(|_| Gone)?;
        let mut event = event.data(data);
        // axum panics at an id with a line break in it. Without an id the event itself still comes.
        if let Some(id) = id.filter(|id| !id.contains(char::is_control)) {
            event = event.id(id);
        }
        self.events.send((event, Some(room))).await.map_err(|_| Gone)
    }

    /// Ends with an error that the client reports as the API's word.
    pub(crate) async fn fail(&self, error: &ErrorBody) {
        let json = serde_json::to_string(error).unwrap_or_default();
        let error = Event::default().event("error").data(json);
        let _reader_has_gone = self.events.send((error, None)).await;
    }

    /// Waits until the reader has gone.
    pub(crate) async fn gone(&self) {
        self.events.closed().await;
    }
}

/// Reads from which revision a client goes on: the id of the last event that it has read.
///
/// # Errors
/// It is no revision.
pub(crate) fn last_revision(headers: &HeaderMap) -> Result<Option<Revision>, ApiError> {
    let Some(id) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let revision = id.to_str().ok().and_then(|id| id.trim().parse().ok()).filter(|revision| *revision >= 0);
    revision.map(|revision| Some(Revision(revision))).ok_or_else(|| {
        ApiError::bad_request("Last-Event-ID is not a revision; send the id of the last event that was read")
    })
}

/// Answers with a stream that `feed` fills. The feed ends when it returns, or when its reader goes.
pub(crate) fn answer<F>(feed: impl FnOnce(Feed) -> F) -> Response
where
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    let (feed_end, receiver) = queue();
    let gone = feed_end.clone();
    let feeding = feed(feed_end);
    tokio::spawn(async move {
        // Dropping the feed is how it learns that nobody reads any more, whatever it waits for.
        tokio::select! {
            _ended = feeding => {}
            () = gone.gone() => {}
        }
    });
    let events = ReceiverStream::new(receiver).map(|(event, _room)| Ok::<_, Infallible>(event));
    Sse::new(events).keep_alive(KeepAlive::new().interval(SIGN_OF_LIFE)).into_response()
}

fn queue() -> (Feed, mpsc::Receiver<Waiting>) {
    let (events, receiver) = mpsc::channel(QUEUE);
    (Feed { events, room: Arc::new(Semaphore::new(QUEUE_BYTES as usize)) }, receiver)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_a_slow_reader_is_bounded_in_bytes_too() {
        let (feed, mut events) = queue();
        let large = "x".repeat(QUEUE_BYTES as usize);
        feed.say(None, &large).await.expect("one that is larger than the room goes alone");
        let held = timeout(SIGN_OF_LIFE, feed.say(None, &"small")).await;
        assert!(held.is_err(), "there is no room");
        drop(events.recv().await);
        timeout(SIGN_OF_LIFE, feed.say(None, &"small")).await.expect("there is room").expect("heard");
        for _ in 1..QUEUE {
            timeout(SIGN_OF_LIFE, feed.say(None, &"small")).await.expect("there is room").expect("heard");
        }
    }
}
