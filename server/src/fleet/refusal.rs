//! How fleet's API says no: a status code, and a body that repeats it with a message.

use axum::{
    Json,
    body::{Body, to_bytes},
    extract::Request,
    http::{
        HeaderValue, StatusCode,
        header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, SERVER},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use flotilla_api::error::{ErrorBody, ErrorKind};

use super::{
    Takes, is_fleets,
    schema::{ErrorAnswer, ErrorEntity},
};
use crate::error::ApiError;

/// Who answers. Clients of fleet are told whose API it is, people whose work.
const SERVER_NAME: HeaderValue =
    HeaderValue::from_static(concat!("fleetd/1.0.0 (flotillad/", env!("CARGO_PKG_VERSION"), ")"));

/// The most bytes of a refusal of ours that are read to be said in fleet's shape. One finding per line of
/// a unit file is the longest there is, and their number is bounded.
const REFUSAL_BYTES_MAX: usize = 1 << 20;

/// An answer that is not a success.
#[derive(Debug)]
pub(super) enum Refusal {
    /// In fleet's words.
    Fleets { status: StatusCode, message: String },
    /// In ours; [`speak`] puts it into fleet's shape.
    Ours(ApiError),
}

/// Marks an answer that has fleet's shape already.
#[derive(Debug, Clone, Copy)]
struct Shaped;

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self::Fleets { status, message: message.into() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn nothing_here() -> Self {
        Self::not_found("")
    }

    pub(super) fn wrong_method((allowed, message): Takes) -> Response {
        let refusal = Self::new(StatusCode::METHOD_NOT_ALLOWED, message);
        ([(ALLOW, HeaderValue::from_static(allowed))], refusal).into_response()
    }
}

impl<E: Into<ApiError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Ours(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Ours(error) => error.into_response(),
            Self::Fleets { status, message } => {
                let mut response = (status, answer(status, message)).into_response();
                response.extensions_mut().insert(Shaped);
                response
            }
        }
    }
}

fn answer(status: StatusCode, message: String) -> Json<ErrorAnswer> {
    Json(ErrorAnswer { error: ErrorEntity { code: status.as_u16(), message } })
}

/// Gives every answer on fleet's paths fleet's header, and those that are not successes its shape: also
/// what was refused before a route was asked, or by another machine.
pub(crate) async fn speak(request: Request, next: Next) -> Response {
    if !is_fleets(request.uri().path()) {
        return next.run(request).await;
    }
    let mut response = next.run(request).await;
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    if refused && response.extensions().get::<Shaped>().is_none() {
        response = shape(response).await;
    }
    response.headers_mut().insert(SERVER, SERVER_NAME);
    response
}

async fn shape(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, REFUSAL_BYTES_MAX).await.unwrap_or_default();
    if is_shaped(&bytes) {
        return Response::from_parts(parts, Body::from(bytes));
    }
    let message = match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(body) => {
            if body.kind == ErrorKind::InvalidUnit {
                parts.status = StatusCode::BAD_REQUEST;
            }
            body.to_string()
        }
        Err(_) => String::from_utf8_lossy(&bytes).into_owned(),
    };
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(CONTENT_TYPE);
    (parts.status, parts.headers, parts.extensions, answer(parts.status, message)).into_response()
}

/// Tells whether a seat has given a refusal fleet's shape already.
fn is_shaped(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(bytes).is_ok_and(|value| value["error"]["code"].is_u64())
}
