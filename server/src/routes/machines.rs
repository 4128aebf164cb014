//! Machines, and what one machine says of its own units.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, Request, State},
    http::header::ETAG,
    response::{IntoResponse, Response},
};
use flotilla_api::{
    error::ErrorBody,
    machine::Machine,
    page::{MachinesQuery, PAGE_ITEMS_MAX, Page},
    unit::UnitStatus,
};
use flotilla_engine::{NoSuchMachine, PAGE_MAX};
use flotilla_units::{MachineId, SourceName};
use serde::Deserialize;

use super::fields;
use crate::{error::ApiError, filter, forward, identity::User, node::Node, routes::status, rows};

/// Lists machines, one page, by id.
#[utoipa::path(get, path = "/v1/machines", params(MachinesQuery), responses(
    (status = OK, body = Page<Machine>),
    (status = BAD_REQUEST, body = ErrorBody),
))]
pub(super) async fn list_machines(
    State(node): State<Arc<Node>>,
    _user: User,
    Query(query): Query<MachinesQuery>,
) -> Result<Response, ApiError> {
    let reader = node.seat()?;
    let wanted = filter::MachineList::read(&query)?;
    let fields = fields::read::<Machine>(query.fields.as_deref(), "id", &[])?;
    let from: Option<MachineId> = query.from.as_deref().map(id).transpose()?;
    let limit = query.limit.unwrap_or(PAGE_ITEMS_MAX).min(PAGE_MAX);
    let cluster = reader.cluster();
    let page = reader.machines(from, limit, |row| wanted.select(&rows::machine(row.clone(), &cluster)));
    let items = page.rows.into_iter().map(|row| rows::machine(row, &cluster)).collect();
    let page = Page { items, revision: page.revision.0, next: page.next.map(|id| id.to_string()) };
    Ok(fields::answer(page, fields.as_ref()))
}

/// Shows a machine, by its id, the beginning of it or its host name.
#[utoipa::path(get, path = "/v1/machines/{id}", params(("id" = String, Path)), responses(
    (status = OK, body = Machine),
    (status = NOT_FOUND, body = ErrorBody),
    (status = CONFLICT, body = ErrorBody, description = "several machines are named so"),
))]
pub(super) async fn get_machine(
    State(node): State<Arc<Node>>,
    _user: User,
    Path(word): Path<String>,
) -> Result<Response, ApiError> {
    let reader = node.seat()?;
    let id = reader.find_machine(&word)?;
    let row = reader.machine(id).ok_or(NoSuchMachine::Unknown(word))?;
    let etag = format!("\"{}\"", row.settings_at.0);
    Ok(([(ETAG, etag)], Json(rows::machine(row, &reader.cluster()))).into_response())
}

fn id(text: &str) -> Result<MachineId, ApiError> {
    text.parse().map_err(|e| ApiError::bad_request(format!("{e}")))
}

/// How much journal comes with a status.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StatusQuery {
    /// How many of its newest journal lines to add.
    #[serde(default)]
    pub(super) lines: u32,
}

/// Shows what `systemctl status` would show of a unit on one machine.
#[utoipa::path(get, path = "/v1/machines/{id}/units/{unit}/status",
    params(("id" = String, Path), ("unit" = String, Path), StatusQuery),
    responses(
        (status = OK, body = UnitStatus),
        (status = NOT_FOUND, body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, body = ErrorBody, description = "its machine or the store does not answer"),
    ))]
pub(super) async fn machine_status(
    State(node): State<Arc<Node>>,
    user: User,
    Path((id, unit)): Path<(String, String)>,
    Query(query): Query<StatusQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let id = self::id(&id)?;
    if id != node.machine {
        return forward::request_to_machine(&node, id, &user, request).await;
    }
    let unit = SourceName::mangle(&unit)?;
    Ok(Json(status::of_this_machine(&node, unit.runtime(), query.lines).await?).into_response())
}
