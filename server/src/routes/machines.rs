//! Machines, and what one machine says of its own units.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, Request, State},
    response::{IntoResponse, Response},
};
use flotilla_api::{
    error::ErrorBody,
    machine::Machine,
    page::{ListQuery, Page},
    unit::UnitStatus,
};
use flotilla_units::{Glob, MachineId, SourceName};
use serde::Deserialize;

use crate::{error::ApiError, forward, identity::User, node::Node, routes::status, rows};

/// Lists machines.
#[utoipa::path(get, path = "/v1/machines", params(ListQuery), responses(
    (status = OK, body = Page<Machine>),
    (status = SERVICE_UNAVAILABLE, body = ErrorBody),
))]
pub(super) async fn list_machines(
    State(node): State<Arc<Node>>,
    _user: User,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Machine>>, ApiError> {
    let reader = node.seat()?;
    let patterns = patterns(query.pattern.as_deref())?;
    let cluster = reader.cluster();
    let page = reader.machines();
    let matches = |machine: &Machine| {
        let names = [machine.host.as_deref().unwrap_or_default(), &machine.id.to_string()].map(str::to_owned);
        patterns.is_empty()
            || patterns.iter().any(|pattern| names.iter().any(|name| pattern.matches(name)))
            || patterns.iter().any(|pattern| names[1].starts_with(pattern.as_str()))
    };
    let items = page.rows.into_iter().map(|row| rows::machine(row, &cluster)).filter(matches).collect();
    Ok(Json(Page { items, revision: page.revision.0, next: None }))
}

fn patterns(text: Option<&str>) -> Result<Vec<Glob>, ApiError> {
    let words = text.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(|word| word.parse::<Glob>().map_err(|e| ApiError::bad_request(e.to_string()))).collect()
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
    responses((status = OK, body = UnitStatus), (status = NOT_FOUND, body = ErrorBody)))]
pub(super) async fn machine_status(
    State(node): State<Arc<Node>>,
    user: User,
    Path((id, unit)): Path<(String, String)>,
    Query(query): Query<StatusQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let id: MachineId = id.parse().map_err(|e| ApiError::bad_request(format!("{e}")))?;
    if id != node.machine {
        return forward::request_to_machine(&node, id, &user, request).await;
    }
    let unit = SourceName::mangle(&unit)?;
    Ok(Json(status::of_this_machine(&node, unit.runtime(), query.lines).await?).into_response())
}
