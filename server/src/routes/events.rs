//! What happened in the cluster and why.

use std::sync::Arc;

use axum::{
    extract::{Query, State},
    http::HeaderMap,
    response::Response,
};
use flotilla_api::{
    error::{ErrorBody, ErrorKind},
    watch::{Event, EventsQuery},
};
use flotilla_engine::{PAGE_MAX, StateReader};
use flotilla_registry::store::Revision;

use crate::{
    error::ApiError,
    identity::User,
    node::Node,
    rows,
    select::{Selector, any_selects},
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
    let selectors = Selector::read_list(query.pattern.as_deref())?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    Ok(stream::answer(|feed| run(feed, reader, selectors, query, last.map(Revision))))
}

async fn run(
    feed: Feed,
    reader: StateReader,
    selectors: Vec<Selector>,
    query: EventsQuery,
    last: Option<Revision>,
) -> Result<(), Gone> {
    let mut doorbell = reader.changed();
    let mut shown = last;
    loop {
        doorbell.borrow_and_update();
        let after = shown;
        let events = newer(&reader, &selectors, after);
        let skip = match after {
            Some(_) => 0,
            None => events.len().saturating_sub(query.lines.unwrap_or(LINES) as usize),
        };
        for event in events.into_iter().skip(skip) {
            feed.say(Some(event.revision.to_string()), &event).await?;
        }
        shown = Some(reader.revision());
        if !query.follow {
            return Ok(());
        }
        if doorbell.changed().await.is_err() {
            let message = "this machine has given up its seat; ask again".to_owned();
            feed.fail(&ErrorBody { kind: ErrorKind::Unavailable, message, details: Vec::new() }).await;
            return Ok(());
        }
    }
}

/// Returns the events after a revision, oldest first.
fn newer(reader: &StateReader, selectors: &[Selector], after: Option<Revision>) -> Vec<Event> {
    let records = reader.events(PAGE_MAX);
    let newer = records.iter().rev().filter(|(at, _)| after.is_none_or(|after| *at > after));
    newer
        .flat_map(|(at, record)| rows::events(reader, *at, record))
        .filter(|event| match &event.unit {
            Some(unit) => any_selects(selectors, unit),
            None => selectors.is_empty(),
        })
        .collect()
}
