//! Which request: its id, and the log's line about it.
//!
//! Every request has an id: its client's (`X-Request-Id`), or one that is made where it arrives first. It
//! goes along when the request is forwarded, comes back with the answer, stands in the events of what
//! the request changed and in the log of every flotillad that took part in it.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderName, HeaderValue, Method, request::Parts},
    middleware::Next,
    response::Response,
};
use flotilla_api::REQUEST_ID;
use flotilla_registry::new_id;

use crate::identity::User;

/// The longest id that is taken from a client, in bytes: a UUID has 36, a trace's id 55.
const ID_BYTES_MAX: usize = 128;

/// How many digits of a random id are used: 64 bits, enough to tell the requests of years apart.
const ID_DIGITS: usize = 16;

/// A request's id.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(Arc<str>);

impl RequestId {
    /// Returns the id of a request, or makes one where nobody has.
    pub(crate) fn of(parts: &Parts) -> Arc<str> {
        parts.extensions.get::<Self>().map_or_else(|| make().into(), |id| Arc::clone(&id.0))
    }
}

/// Gives a request its id, and logs what became of it: changes always, reads for whoever debugs.
pub(crate) async fn name(mut request: Request, next: Next) -> Response {
    let header = HeaderName::from_static(REQUEST_ID);
    let given = request.headers().get(&header).and_then(|id| id.to_str().ok()).filter(|id| is_id(id));
    let id: Arc<str> = given.map_or_else(|| make().into(), Arc::from);
    // Of letters, digits and a few signs, so it is a header's value.
    let value = HeaderValue::from_str(&id).ok();
    if let Some(value) = &value {
        request.headers_mut().insert(&header, value.clone());
    }
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
    let (method, uri, began) = (request.method().clone(), request.uri().clone(), Instant::now());
    let (mut parts, body) = request.into_parts();
    let user = User::from_request_parts(&mut parts, &()).await.ok();
    let mut response = next.run(Request::from_parts(parts, body)).await;
    if let Some(value) = value {
        response.headers_mut().insert(header, value);
    }
    let by = user.as_ref().and_then(User::name);
    // Without the query: it may be long, and the path says what was asked.
    let (path, status) = (uri.path(), response.status().as_u16());
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    if matches!(method, Method::GET | Method::HEAD | Method::OPTIONS) {
        tracing::debug!(request = %id, by, %method, path, status, took_ms, "answered");
    } else {
        tracing::info!(request = %id, by, %method, path, status, took_ms, "answered");
    }
    response
}

fn is_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
    !text.is_empty() && text.len() <= ID_BYTES_MAX && text.bytes().all(plain)
}

fn make() -> String {
    let mut id = new_id();
    id.truncate(ID_DIGITS);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_words() {
        for good in ["7", "0f8e-1", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", &make()] {
            assert!(is_id(good), "{good}");
        }
        for bad in ["", "a b", "a\nb", "ä", "\"", &"a".repeat(129)] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
