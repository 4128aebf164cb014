//! Which flotillad this is and how it is.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use flotilla_api::{cluster::Version, error::ErrorKind};

use crate::{
    StateLabels,
    error::{ApiError, chain},
    node::Node,
};

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
    let mut not_ready = node.health.borrow().not_ready.clone();
    not_ready.extend(engine_not_ready(&node).await);
    if not_ready.is_empty() {
        return "ready\n".into_response();
    }
    let text = not_ready.iter().map(|line| format!("{line}\n")).collect::<String>();
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// Returns what keeps the engine that runs here from its part, if one runs and something does.
///
/// One that waits because others have seats is well. One that has none for want of a store is not,
/// and the store is asked there and then; while it has a seat its state follows the store anyway.
/// Where nobody has a seat, nobody takes orders.
async fn engine_not_ready(node: &Node) -> Option<String> {
    node.hold.as_ref()?;
    if let Some(reader) = node.reader() {
        return reader.standstill().map(|why| format!("engine: {why}"));
    }
    match node.operations.registry().seats().await {
        Err(error) => {
            Some(format!("engine: it has no seat, and the store does not answer: {}", chain(&error)))
        }
        Ok(seats) => {
            let others = seats.found.values().any(|seat| seat.record.machine != node.machine);
            let unreadable = !seats.unreadable.is_empty();
            (!others && !unreadable).then(|| "engine: neither it nor any other has a seat yet".to_owned())
        }
    }
}

/// Counters and gauges for Prometheus.
#[utoipa::path(get, path = "/metrics", responses(
    (status = OK, body = String, content_type = "application/openmetrics-text"),
))]
pub(crate) async fn metrics(State(node): State<Arc<Node>>) -> Result<Response, ApiError> {
    let gauges = &node.metrics.gauges;
    let reader = node.reader();
    gauges.seat.set(i64::from(reader.is_some()));
    let leads = reader.as_ref().is_some_and(|reader| reader.leads());
    gauges.leader.set(i64::from(leads));
    // What a seat that was lost knew is not told any more.
    gauges.cluster_units.clear();
    if let Some(reader) = reader {
        gauges.revision.set(reader.revision().0);
        for (active, count) in reader.tally().counts() {
            let gauge = gauges.cluster_units.get_or_create(&StateLabels { active });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        gauges.units.set(i64::try_from(reader.units_on(node.machine).len()).unwrap_or(i64::MAX));
    }
    let text = node.metrics.text().map_err(|e| ApiError::new(ErrorKind::Internal, e.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
