//! Which flotillad this is and how it is.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use flotilla_api::{cluster::Version, error::ErrorKind};

use crate::{error::ApiError, node::Node};

/// Says which flotillad answers.
#[utoipa::path(get, path = "/v1/version", responses((status = OK, body = Version)))]
pub(super) async fn version(State(node): State<Arc<Node>>) -> Json<Version> {
    Json(Version { version: node.version.to_owned(), machine: node.machine, host: node.host.clone() })
}

/// Says that the daemon answers at all.
#[utoipa::path(get, path = "/healthz", responses((status = OK, body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Says whether the daemon takes part in its cluster, and if not, what keeps it.
#[utoipa::path(get, path = "/readyz", responses(
    (status = OK, body = String),
    (status = SERVICE_UNAVAILABLE, body = String, description = "one line for each thing in the way"),
))]
pub(super) async fn readyz(State(node): State<Arc<Node>>) -> Response {
    let health = node.health.borrow().clone();
    if health.not_ready.is_empty() {
        return "ready\n".into_response();
    }
    let text = health.not_ready.iter().map(|line| format!("{line}\n")).collect::<String>();
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// Counters and gauges for Prometheus.
#[utoipa::path(get, path = "/metrics", responses((status = OK, body = String)))]
pub(super) async fn metrics(State(node): State<Arc<Node>>) -> Result<Response, ApiError> {
    let gauges = &node.metrics.gauges;
    let reader = node.reader();
    gauges.seat.set(i64::from(reader.is_some()));
    let leads = reader.as_ref().is_some_and(|reader| reader.cluster().engine.leads);
    gauges.leader.set(i64::from(leads));
    if let Some(reader) = reader {
        gauges.revision.set(reader.revision().0);
        gauges.units.set(i64::try_from(reader.units_on(node.machine).len()).unwrap_or(i64::MAX));
    }
    let text = node.metrics.text().map_err(|e| ApiError::new(ErrorKind::Internal, e.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
