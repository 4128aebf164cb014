//! What happened in the cluster and why.

use std::sync::Arc;

use axum::{
    extract::{Query, State},
    http::HeaderMap,
    response::Response,
};
use flotilla_api::{
    error::ErrorBody,
    watch::{Event, EventsQuery},
};
use flotilla_engine::{PAGE_MAX, StateReader};
use flotilla_registry::{records::EventRecord, store::Revision};
use tokio::sync::watch;

use crate::{
    error::ApiError,
    filter,
    identity::User,
    node::Node,
    rows,
    stream::{self, Feed, Gone},
};

/// How many events are shown unless asked otherwise: a screen or two.
const LINES: u32 = 50;

/// Streams what happened in the cluster as server-sent events.
#[utoipa::path(get, path = "/v1/events", params(EventsQuery), responses(
    (status = OK, body = Event, content_type = "text/event-stream"),
    (status = BAD_REQUEST, body = ErrorBody),
))]
pub(super) async fn events(
    State(node): State<Arc<Node>>,
    _user: User,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let reader = node.seat()?;
    let wanted = filter::Events::read(&query)?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    // Before answering: whoever has the answer hears of everything that happens from then on.
    let (now, doorbell) = (reader.revision(), reader.changed());
    let events = Events { node, reader, wanted, now, doorbell };
    Ok(stream::answer(|feed| events.run(feed, query, last.map(Revision))))
}

struct Events {
    node: Arc<Node>,
    reader: StateReader,
    wanted: filter::Events,
    /// What the seat had reached when it was asked.
    now: Revision,
    doorbell: watch::Receiver<Revision>,
}

impl Events {
    async fn run(mut self, feed: Feed, query: EventsQuery, last: Option<Revision>) -> Result<(), Gone> {
        let mut at = match last {
            Some(last) => last,
            None => {
                let lines = query.lines.or_else(|| query.since.is_none().then_some(LINES));
                self.newest(&feed, lines.map_or(usize::MAX, |lines| lines as usize)).await?
            }
        };
        loop {
            at = self.newer(&feed, at).await?;
            if !query.follow {
                return Ok(());
            }
            let seated = tokio::select! {
                rung = self.doorbell.changed() => rung.is_ok(),
                () = self.node.unseated(&self.reader) => false,
            };
            if !seated {
                self.node.end_unseated(&feed).await;
                return Ok(());
            }
        }
    }

    /// Tells the newest of the events that there were, and returns the revision up to which.
    async fn newest(&self, feed: &Feed, lines: usize) -> Result<Revision, Gone> {
        // Counted without the hosts of old records, which only the reader knows: at worst one too many.
        let count = |record: &EventRecord| self.wanted.count(record);
        let records = self.reader.events(self.now, lines, count);
        let events: Vec<Event> =
            records.iter().rev().flat_map(|(of, record)| self.selected(*of, record)).collect();
        let skip = events.len().saturating_sub(lines);
        tell(feed, events.into_iter().skip(skip)).await?;
        // Whoever has seen nothing yet goes on from here after a lost connection.
        feed.mark(self.now.0.to_string()).await?;
        Ok(self.now)
    }

    /// Tells every event after a revision, page by page, and returns the revision of the last.
    async fn newer(&self, feed: &Feed, mut at: Revision) -> Result<Revision, Gone> {
        loop {
            let page = self.reader.events_after(at);
            let more = page.len() == PAGE_MAX;
            for (of, record) in page {
                tell(feed, self.selected(of, &record)).await?;
                at = of;
            }
            if !more {
                return Ok(at);
            }
        }
    }

    /// Returns the events of a record that were asked for.
    fn selected(&self, of: Revision, record: &EventRecord) -> impl Iterator<Item = Event> + use<'_> {
        rows::events(&self.reader, of, record).into_iter().filter(|event| self.wanted.select(event))
    }
}

/// Tells events in order. Only the last one of a revision carries its id: a client that loses the
/// connection in between gets the whole revision again.
async fn tell(feed: &Feed, events: impl Iterator<Item = Event>) -> Result<(), Gone> {
    let mut events = events.peekable();
    while let Some(event) = events.next() {
        let whole = events.peek().is_none_or(|next| next.revision != event.revision);
        feed.say(whole.then(|| event.revision.to_string()), &event).await?;
    }
    Ok(())
}
