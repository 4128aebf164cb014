//! Journals, streamed.

use std::sync::Arc;

use axum::{
    extract::{Path, Query, Request, State},
    http::HeaderMap,
    response::Response,
};
use flotilla_api::{
    error::ErrorBody,
    journal::{JournalEvent, JournalQuery, Position},
};
use flotilla_units::MachineId;

use crate::{
    error::ApiError,
    forward,
    identity::User,
    journal::{self, Wanted},
    node::Node,
    stream,
};

/// Streams journals of units, merged from all machines, as server-sent events.
#[utoipa::path(get, path = "/v1/journal", params(JournalQuery), responses(
    (status = OK, body = JournalEvent, content_type = "text/event-stream"),
    (status = BAD_REQUEST, body = ErrorBody),
    (status = NOT_FOUND, body = ErrorBody),
))]
pub(super) async fn journal(
    State(node): State<Arc<Node>>,
    user: User,
    Query(query): Query<JournalQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let reader = node.seat()?;
    let wanted = Wanted::read(query)?;
    let position = position(&headers)?;
    // Whoever goes on may be about to hear the last words of a unit that is gone.
    if position.is_none() {
        wanted.are_known(&reader)?;
    }
    Ok(stream::answer(|feed| journal::merged(node, reader, user, wanted, position, feed)))
}

/// Streams journals of units on one machine as server-sent events.
#[utoipa::path(get, path = "/v1/machines/{id}/journal", params(("id" = String, Path), JournalQuery), responses(
    (status = OK, body = JournalEvent, content_type = "text/event-stream"),
    (status = NOT_FOUND, body = ErrorBody),
    (status = SERVICE_UNAVAILABLE, body = ErrorBody, description = "its machine or the store does not answer"),
))]
pub(super) async fn machine_journal(
    State(node): State<Arc<Node>>,
    user: User,
    Path(id): Path<String>,
    Query(query): Query<JournalQuery>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let id: MachineId = id.parse().map_err(|e| ApiError::bad_request(format!("{e}")))?;
    if id != node.machine {
        return forward::request_to_machine(&node, id, &user, request).await;
    }
    let wanted = Wanted::read(query)?;
    let after = journal::cursor_of(&node, position(&headers)?.as_ref());
    Ok(stream::answer(|feed| journal::this_machine(node, wanted, after, feed)))
}

fn position(headers: &HeaderMap) -> Result<Option<Position>, ApiError> {
    let Some(id) = headers.get("last-event-id") else { return Ok(None) };
    let id = id.to_str().map_err(|_| ApiError::bad_request("last-event-id is not text"))?;
    id.parse().map(Some).map_err(ApiError::bad_request)
}
