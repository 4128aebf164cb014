//! The cluster as a whole.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use flotilla_api::{cluster::ClusterStatus, error::ErrorBody};

use crate::{error::ApiError, forward, identity::User, node::Node, rows};

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
    user: User,
    request: Request,
) -> Result<Response, ApiError> {
    let by = user.may_write()?.to_owned();
    let leader = node.seat()?.cluster().leader.map(|leader| leader.machine);
    let leader = leader.ok_or_else(|| ApiError::unavailable("no engine leads, so nothing is held"))?;
    if leader != node.machine {
        return forward::request_to_machine(&node, leader, &user, request).await;
    }
    let hold = node.hold.as_ref().ok_or_else(|| ApiError::unavailable("no engine runs here any more"))?;
    tracing::warn!(by, "an operator ends the mass-loss hold");
    hold.release();
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Accepts, for the flotillad that answers, a store that was restored or wiped: it goes on from what
/// the store says now.
#[utoipa::path(post, path = "/v1/accept-store", responses(
    (status = NO_CONTENT, description = "the daemon goes on"),
    (status = FORBIDDEN, body = ErrorBody),
))]
pub(super) async fn accept_store(State(node): State<Arc<Node>>, user: User) -> Result<StatusCode, ApiError> {
    let by = user.may_write()?;
    tracing::warn!(by, "an operator accepts the store as it is");
    node.witness.accept();
    Ok(StatusCode::NO_CONTENT)
}
