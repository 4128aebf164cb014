//! Watching units.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    extract::{Query, State},
    http::HeaderMap,
    response::Response,
};
use flotilla_api::{
    error::ErrorBody,
    watch::{WatchEvent, WatchQuery},
};
use flotilla_engine::{PAGE_MAX, StateReader};
use flotilla_registry::store::Revision;
use flotilla_units::UnitName;

use crate::{
    error::ApiError,
    identity::User,
    node::Node,
    rows,
    select::{Selector, any_selects},
    stream::{self, Feed, Gone},
};

/// How long a watch waits for the seat to reach the revision that was asked for.
const REACH_TIMEOUT: Duration = Duration::from_secs(10);

/// Watches units as server-sent events: everything that matches, then each change.
#[utoipa::path(get, path = "/v1/watch", params(WatchQuery), responses(
    (status = OK, body = WatchEvent, content_type = "text/event-stream"),
    (status = BAD_REQUEST, body = ErrorBody),
))]
pub(super) async fn watch(
    State(node): State<Arc<Node>>,
    _user: User,
    Query(query): Query<WatchQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let reader = node.seat()?;
    let selectors = Selector::read_list(query.pattern.as_deref())?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let last = last.map(str::parse).transpose().map_err(|_| {
        ApiError::bad_request("last-event-id is not a revision; send the id of the last event that was read")
    })?;
    if let Some(after) = query.after {
        let reached = tokio::time::timeout(REACH_TIMEOUT, reader.reached(Revision(after))).await;
        match reached {
            Ok(Ok(())) => {}
            Ok(Err(lost)) => return Err(ApiError::unavailable(lost.to_string())),
            Err(_) => {
                let at = reader.revision().0;
                let message = format!("this seat is at revision {at} and has not reached {after}");
                return Err(ApiError::unavailable(message));
            }
        }
    }
    let watch = Watch { node, reader, selectors };
    Ok(stream::answer(|feed| watch.run(feed, last.map(Revision))))
}

struct Watch {
    node: Arc<Node>,
    reader: StateReader,
    selectors: Vec<Selector>,
}

impl Watch {
    async fn run(self, feed: Feed, last: Option<Revision>) -> Result<(), Gone> {
        let mut doorbell = self.reader.changed();
        let mut at = match last {
            Some(at) => at,
            None => self.list(&feed).await?,
        };
        loop {
            // Marked before reading, so that a change in between rings again.
            doorbell.borrow_and_update();
            at = match self.reader.since(at) {
                Ok(delta) => {
                    let units = delta.units.into_iter().filter(|name| any_selects(&self.selectors, name));
                    self.tell(&feed, units.collect(), delta.revision).await?;
                    delta.revision
                }
                Err(_too_old) => self.list(&feed).await?,
            };
            let seated = tokio::select! {
                rung = doorbell.changed() => rung.is_ok(),
                () = self.node.unseated(&self.reader) => false,
            };
            if !seated {
                self.node.end_unseated(&feed).await;
                return Ok(());
            }
        }
    }

    /// Says everything, and returns the revision from which changes have to be told.
    async fn list(&self, feed: &Feed) -> Result<Revision, Gone> {
        feed.say(None, &WatchEvent::Reset).await?;
        let mut first = None;
        let mut after: Option<UnitName> = None;
        loop {
            let selects = |name: &UnitName| any_selects(&self.selectors, name);
            let page = self.reader.units(after.as_ref(), PAGE_MAX, selects);
            // Later pages may be newer; what changed between them is told again, and is the same.
            let revision = *first.get_or_insert(page.revision);
            for row in page.rows {
                let unit = Box::new(rows::unit(&self.reader, row));
                feed.say(None, &WatchEvent::Unit { unit }).await?;
            }
            after = page.next;
            if after.is_none() {
                feed.say(Some(revision.0.to_string()), &WatchEvent::Synced { revision: revision.0 }).await?;
                return Ok(revision);
            }
        }
    }

    async fn tell(&self, feed: &Feed, names: BTreeSet<UnitName>, at: Revision) -> Result<(), Gone> {
        let last = names.len();
        for (i, name) in names.into_iter().enumerate() {
            let event = match self.reader.unit(&name).0 {
                Some(row) => WatchEvent::Unit { unit: Box::new(rows::unit(&self.reader, row)) },
                None => WatchEvent::Gone { name },
            };
            // Only the last one carries the id: a client that loses the connection in between gets
            // the whole revision again.
            feed.say((i + 1 == last).then(|| at.0.to_string()), &event).await?;
        }
        Ok(())
    }
}
