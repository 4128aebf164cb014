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
use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    error::ApiError,
    filter,
    identity::User,
    node::Node,
    rows,
    stream::{self, Feed, Gone},
};

/// The kind of what is told in the place of events that are not kept any more.
const COLLECTED: &str = "events-collected";

/// How many events are shown unless asked otherwise: a screen or two.
const LINES: u32 = 50;

/// Streams what happened in the cluster as server-sent events. Whoever goes on (`Last-Event-ID`) from before the
/// oldest that is kept is told so by an event of the kind `events-collected`.
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
    let last = stream::last_revision(&headers)?;
    // Before answering: whoever has the answer hears of everything that happens from then on.
    let (now, doorbell) = (reader.revision(), reader.changed());
    let events = Events { node, reader, wanted, now, doorbell };
    Ok(stream::answer(|feed| events.run(feed, query, last)))
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
                self.newest(&feed, lines.map(|lines| lines as usize)).await?
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

    /// Tells the newest of the events that there were, or all of them, and returns the revision up to which.
    async fn newest(&self, feed: &Feed, lines: Option<usize>) -> Result<Revision, Gone> {
        let (mut at, mut skip) = match lines {
            Some(lines) => self.begin(lines).await,
            None => (Revision(0), 0),
        };
        'pages: loop {
            let page = self.reader.events_after(at);
            let more = page.len() == PAGE_MAX;
            for (of, record) in page {
                if of > self.now {
                    break 'pages;
                }
                tell(feed, self.selected(of, &record).skip(skip)).await?;
                (at, skip) = (of, 0);
            }
            if !more {
                break;
            }
        }
        // Whoever has seen nothing yet goes on from here after a lost connection.
        feed.mark(self.now.0.to_string()).await?;
        Ok(self.now)
    }

    /// Finds where the newest that are asked for begin: after which revision, and how many of the next one's
    /// are left out. Only counted, so that however many there are, no more than a page is held.
    async fn begin(&self, lines: usize) -> (Revision, usize) {
        let (mut until, mut count) = (self.now, 0);
        if lines == 0 {
            return (until, 0);
        }
        loop {
            let page = self.reader.events_until(until);
            for (of, record) in &page {
                count += self.selected(*of, record).count();
                if count >= lines {
                    return (Revision(of.0 - 1), count - lines);
                }
            }
            match page.last() {
                Some((of, _)) if page.len() == PAGE_MAX => until = Revision(of.0 - 1),
                _ => return (Revision(0), 0),
            }
            tokio::task::yield_now().await;
        }
    }

    /// Tells every event after a revision, page by page, and returns the revision of the last. Whoever was
    /// away for longer than events are kept is told so.
    async fn newer(&self, feed: &Feed, mut at: Revision) -> Result<Revision, Gone> {
        loop {
            let gone = self.reader.events_gone();
            if at < gone {
                feed.say(Some(gone.0.to_string()), &collected(at, gone)).await?;
                at = gone;
            }
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

/// Says that there may have been events that nobody can be told any more, whatever is asked for.
fn collected(after: Revision, upto: Revision) -> Event {
    let (after, upto) = (after.0, upto.0);
    Event {
        at: Timestamp::now(),
        revision: upto,
        by: "engine".to_owned(),
        request: None,
        kind: COLLECTED.to_owned(),
        unit: None,
        machine: None,
        host: None,
        why: Some(format!(
            "events after revision {after} and up to {upto} may be missing here: events of that time are not kept \
             any more (`flotctl cluster settings` says for how long they are)"
        )),
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
