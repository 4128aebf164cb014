//! Keeps pages in a browser out of the listener that asks for no proof.
//!
//! A browser on the machine is a process of the machine, and what it asks for is said by any page that
//! somebody looks at. It may send simple requests to any address, and after its name was made to point to
//! this machine it may read the answers too. So nobody is answered who says that a page asks, or who asks a
//! name that is not this machine's own. The socket and TLS need nothing of this: no page has a way there.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{
        HeaderName,
        header::{HOST, ORIGIN},
    },
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use flotilla_api::error::ErrorKind;

use crate::error::ApiError;

/// What browsers say of where a request comes from; `none` where somebody typed the address.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Answers programs.
pub(super) async fn keep_out(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let of_page = headers.contains_key(ORIGIN) || headers.get(FETCH_SITE).is_some_and(|site| site != "none");
    let host = headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
    let names = host.into_iter().chain(request.uri().host());
    if of_page || names.into_iter().any(|name| !is_own(name)) {
        let why = "without TLS only programs of this machine are answered: no page of a browser, and by no \
                   name but localhost or an address";
        return ApiError::new(ErrorKind::Forbidden, why).into_response();
    }
    next.run(request).await
}

/// Tells whether nobody else can make this name, with or without a port, point anywhere.
fn is_own(host: &str) -> bool {
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_pointed_elsewhere_is_our_own() {
        for own in
            ["localhost", "LocalHost:80", "127.0.0.1", "127.0.0.1:49153", "[::1]", "[::1]:49153", "10.0.0.1"]
        {
            assert!(is_own(own), "{own}");
        }
        for foreign in ["", "example.com", "localhost.example.com:80", "127.0.0.1.example.com", "[x]:1", "::"]
        {
            assert!(!is_own(foreign), "{foreign}");
        }
    }
}
