//! The cluster as a whole.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use flotilla_api::{cluster::ClusterStatus, error::ErrorBody};
use flotilla_registry::records::EventChange;

use crate::{
    asked::Asked,
    error::{ApiError, chain},
    forward,
    identity::User,
    node::Node,
    rows,
};

/// Says how the cluster is.
#[utoipa::path(get, path = "/v1/cluster", responses(
    (status = OK, body = ClusterStatus),
))]
pub(super) async fn cluster(
    State(node): State<Arc<Node>>,
    _user: User,
) -> Result<Json<ClusterStatus>, ApiError> {
    let store = node.operations.registry().store().status().await.map_err(|e| e.to_string());
    Ok(Json(rows::cluster(node.seat()?.cluster(), store)))
}

/// Ends a mass-loss hold: what is lost is lost, and its units may start elsewhere.
#[utoipa::path(post, path = "/v1/cluster/release-hold", responses(
    (status = NO_CONTENT, description = "the leader goes on"),
    (status = FORBIDDEN, body = ErrorBody),
))]
pub(super) async fn release_hold(
    State(node): State<Arc<Node>>,
    asked: Asked,
    request: Request,
) -> Result<Response, ApiError> {
    let by = asked.asker()?;
    asked.condition.refuse("a hold has no revision")?;
    let leader = node.seat()?.cluster().leader.map(|leader| leader.machine);
    let leader = leader.ok_or_else(|| ApiError::unavailable("no engine leads, so nothing is held"))?;
    if leader != node.machine {
        return forward::request_to_machine(&node, leader, asked.user(), request).await;
    }
    let hold = node.hold.as_ref().ok_or_else(|| ApiError::unavailable("no engine runs here any more"))?;
    tracing::warn!(by = by.by, "an operator ends the mass-loss hold");
    hold.release(by.by, by.request);
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Accepts, for the flotillad that answers, a store that was restored or wiped: it goes on from what
/// the store says now. An event says who did.
#[utoipa::path(post, path = "/v1/accept-store", responses(
    (status = NO_CONTENT, description = "the daemon goes on"),
    (status = FORBIDDEN, body = ErrorBody),
))]
pub(super) async fn accept_store(
    State(node): State<Arc<Node>>,
    asked: Asked,
) -> Result<StatusCode, ApiError> {
    let by = asked.asker()?;
    asked.condition.refuse("the store is accepted as it is")?;
    tracing::warn!(by = by.by, "an operator accepts the store as it is");
    node.witness.accept();
    let change = EventChange {
        kind: "store-accepted".to_owned(),
        machine: Some(node.machine),
        host: Some(node.host.clone()),
        why: Some(format!("flotillad on {} goes on from what the store says", node.host)),
        ..EventChange::default()
    };
    // It is accepted with or without an event: what waits for it waits no longer.
    if let Err(error) = node.operations.note(by, vec![change]).await {
        tracing::warn!(error = chain(&error), "that the store was accepted is not among the events");
    }
    Ok(StatusCode::NO_CONTENT)
}
