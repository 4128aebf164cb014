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
    filter,
    identity::User,
    node::Node,
    rows,
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
    let wanted = filter::Units::read(query.pattern.as_deref(), &query.filter())?;
    let last = stream::last_revision(&headers)?;
    // Whoever goes on is not shown what was before: this seat may be behind the one that was lost.
    if let Some(after) = query.after.map(Revision).max(last) {
        match reached(&reader, after).await {
            // A seat that follows the store and does not get there has another store before it, one that was
            // restored: what the client knows is begun anew.
            Err(_) if Some(after) == last && reader.cluster().engine.behind.is_none() => {
                return Ok(answer(node, reader, wanted, None));
            }
            reached => reached?,
        }
    }
    Ok(answer(node, reader, wanted, last))
}

fn answer(node: Arc<Node>, reader: StateReader, wanted: filter::Units, last: Option<Revision>) -> Response {
    let watch = Watch { node, reader, wanted, hidden: BTreeSet::new() };
    stream::answer(|feed| watch.run(feed, last))
}

/// Waits until the seat has reached a revision.
pub(super) async fn reached(reader: &StateReader, after: Revision) -> Result<(), ApiError> {
    match tokio::time::timeout(REACH_TIMEOUT, reader.reached(after)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(lost)) => Err(ApiError::unavailable(lost.to_string())),
        Err(_) => {
            let (at, after) = (reader.revision().0, after.0);
            Err(ApiError::unavailable(format!("this seat is at revision {at} and has not reached {after}")))
        }
    }
}

struct Watch {
    node: Arc<Node>,
    reader: StateReader,
    wanted: filter::Units,
    /// Units that are not what is asked for, and that the reader knows nothing of. Of one that is not in
    /// here it may know from an earlier connection.
    hidden: BTreeSet<UnitName>,
}

impl Watch {
    async fn run(mut self, feed: Feed, last: Option<Revision>) -> Result<(), Gone> {
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
                    let wanted = &self.wanted;
                    let units = delta.units.into_iter().filter(|name| wanted.names(name)).collect();
                    self.tell(&feed, units, delta.revision).await?;
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
    async fn list(&mut self, feed: &Feed) -> Result<Revision, Gone> {
        feed.say(None, &WatchEvent::Reset).await?;
        let mut first = None;
        let names = self.wanted.stretches();
        let mut after: Option<UnitName> = None;
        loop {
            let page = self.reader.units(&names, after.as_ref(), PAGE_MAX, |name| self.wanted.names(name));
            // Later pages may be newer; what changed between them is told again, and is the same.
            let revision = *first.get_or_insert(page.revision);
            for row in page.rows {
                let unit = Box::new(rows::unit(&self.reader, row));
                if self.wanted.select(&unit) {
                    self.hidden.remove(&unit.name);
                    feed.say(None, &WatchEvent::Unit { unit }).await?;
                } else {
                    self.hidden.insert(unit.name);
                }
            }
            after = page.next;
            if after.is_none() {
                feed.say(Some(revision.0.to_string()), &WatchEvent::Synced { revision: revision.0 }).await?;
                return Ok(revision);
            }
        }
    }

    async fn tell(&mut self, feed: &Feed, names: BTreeSet<UnitName>, at: Revision) -> Result<(), Gone> {
        // One is held back: only the last carries the id, and a client that loses the connection in between
        // gets the whole revision again.
        let mut held: Option<WatchEvent> = None;
        for name in names {
            let Some(event) = self.event(name) else { continue };
            if let Some(before) = held.replace(event) {
                feed.say(None, &before).await?;
            }
        }
        if let Some(last) = held {
            feed.say(Some(at.0.to_string()), &last).await?;
        }
        Ok(())
    }

    /// Says how a unit is now; nothing where the reader knows nothing of it and need not.
    fn event(&mut self, name: UnitName) -> Option<WatchEvent> {
        let row = self.reader.unit(&name).0;
        let there = row.is_some();
        let unit = row.map(|row| Box::new(rows::unit(&self.reader, row)));
        if let Some(unit) = unit.filter(|unit| self.wanted.select(unit)) {
            self.hidden.remove(&name);
            return Some(WatchEvent::Unit { unit });
        }
        let was_hidden = if there { !self.hidden.insert(name.clone()) } else { self.hidden.remove(&name) };
        (!was_hidden).then_some(WatchEvent::Gone { name })
    }
}
