//! The cluster as a whole.

use std::sync::Arc;

use axum::{Json, extract::State};
use flotilla_api::{cluster::ClusterStatus, error::ErrorBody};

use crate::{error::ApiError, identity::User, node::Node, rows};

/// Says how the cluster is.
#[utoipa::path(get, path = "/v1/cluster", responses(
    (status = OK, body = ClusterStatus),
    (status = SERVICE_UNAVAILABLE, body = ErrorBody),
))]
pub(super) async fn cluster(
    State(node): State<Arc<Node>>,
    _user: User,
) -> Result<Json<ClusterStatus>, ApiError> {
    let store = node.operations.registry().store().status().await.map_err(|e| e.to_string());
    Ok(Json(rows::cluster(node.seat()?.cluster(), store)))
}
