//! The routes, and the OpenAPI document made of them.

mod adopt;
mod bulk;
mod cluster;
mod cluster_settings;
mod document;
mod events;
mod fields;
mod health;
mod journal;
mod lines;
mod machines;
mod orders;
mod plan;
mod sessions;
mod settings;
mod status;
mod tally;
mod units;
mod usage;
mod watch;

use std::sync::Arc;

pub(crate) use health::metrics;
pub(crate) use orders::carry_out;
pub(crate) use units::no_such_unit;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request},
    http::{Method, StatusCode, Uri},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::get,
};
use utoipa::openapi::{Info, OpenApi};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::{self, ApiError},
    fleet, forward, metrics,
    node::Node,
    request,
};

/// Makes the API's router.
pub fn router(node: Arc<Node>) -> Router {
    let (anywhere, seat) = parts();
    let (seat, _) = seat.split_for_parts();
    let (anywhere, _) = anywhere.split_for_parts();
    let document = Json(openapi());
    seat.layer(from_fn_with_state(Arc::clone(&node), forward::to_seat))
        .merge(anywhere)
        .route("/openapi.json", get(async move || document.clone()))
        .merge(fleet::routes(&node))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(forward::BODY_BYTES_MAX))
        .layer(from_fn_with_state(Arc::clone(&node), metrics::count))
        .layer(from_fn(plain_refusals))
        .layer(from_fn(fleet::speak))
        .layer(from_fn(error::log_internal))
        .layer(from_fn(request::name))
        .with_state(node)
}

/// Returns the OpenAPI document of the API.
#[must_use]
pub fn openapi() -> OpenApi {
    let (anywhere, seat) = parts();
    let mut document = seat.into_openapi();
    document::needs_seat(&mut document);
    document.merge(anywhere.into_openapi());
    document::complete(&mut document);
    document.info = Info::new("flotilla", "v1");
    document.info.description = Some("systemd units on many machines as if they were one".to_owned());
    document
}

/// Returns the routes that any machine answers, and those that need a seat.
fn parts() -> (OpenApiRouter<Arc<Node>>, OpenApiRouter<Arc<Node>>) {
    let anywhere = OpenApiRouter::new()
        .routes(routes!(cluster::accept_store))
        .routes(routes!(health::version))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(machines::machine_status))
        .routes(routes!(adopt::survey))
        .routes(routes!(journal::machine_journal))
        .routes(routes!(sessions::open_session))
        .routes(routes!(usage::machine_usage));
    let seat = OpenApiRouter::new()
        .routes(routes!(cluster::cluster))
        .routes(routes!(cluster_settings::get_settings, cluster_settings::set_settings))
        .routes(routes!(cluster::release_hold))
        .routes(routes!(machines::list_machines))
        .routes(routes!(machines::get_machine))
        .routes(routes!(settings::change_metadata))
        .routes(routes!(settings::cordon, settings::uncordon))
        .routes(routes!(plan::get_drain, settings::drain, settings::end_drain))
        .routes(routes!(plan::plan))
        .routes(routes!(plan::rebalance))
        .routes(routes!(adopt::adopt))
        .routes(routes!(units::list_units, units::submit))
        .routes(routes!(lines::lines))
        .routes(routes!(units::get_unit, bulk::put_unit, bulk::delete_unit))
        .routes(routes!(bulk::bulk))
        .routes(routes!(units::get_content, units::put_content))
        .routes(routes!(units::get_why))
        .routes(routes!(status::unit_status))
        .routes(routes!(orders::order))
        .routes(routes!(orders::bulk::bulk_order))
        .routes(routes!(tally::tally))
        .routes(routes!(watch::watch))
        .routes(routes!(events::events))
        .routes(routes!(journal::journal));
    (anywhere, seat)
}

async fn nothing_here(uri: Uri) -> ApiError {
    ApiError::not_found(format!("there is nothing at {}; /openapi.json says what there is", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let why = format!("{} takes no {method}; /openapi.json says what it takes", uri.path());
    let mut response = ApiError::bad_request(why).into_response();
    // `Allow` says which; the router adds it.
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

/// Turns the framework's own refusals (bodies and queries that cannot be read), which are plain
/// text, into the API's form.
async fn plain_refusals(request: Request, next: Next) -> Response {
    use axum::{body::to_bytes, http::header::CONTENT_TYPE};
    use flotilla_api::error::ErrorKind;
    let response = next.run(request).await;
    let plain =
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !plain || !response.status().is_client_error() {
        return response;
    }
    let kind = match response.status().as_u16() {
        413 => ErrorKind::TooLarge,
        404 => ErrorKind::NotFound,
        _ => ErrorKind::BadRequest,
    };
    let text = to_bytes(response.into_body(), forward::BODY_BYTES_MAX).await.unwrap_or_default();
    ApiError::new(kind, String::from_utf8_lossy(&text).into_owned()).into_response()
}
