//! Sessions: commands in units, and shells on machines.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use flotilla_api::{
    error::ErrorBody,
    session::{ALIVE_EVERY, CHUNK_BYTES, PROTOCOL},
};
use flotilla_units::MachineId;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy},
    time::timeout,
};

use crate::{error::ApiError, forward, identity::Operator, node::Node, session};

/// How long a client may take to go on after the answer: its connection is there already.
const UPGRADED_WITHIN: Duration = Duration::from_secs(10);

/// How long a client may be silent, which says that it is there every [`ALIVE_EVERY`], before its relayed session
/// ends. Eight times that: one that is only stopped for a moment goes on, and one that is gone, or that neither
/// speaks nor reads, holds two connections no longer.
const SILENT_FOR: Duration = ALIVE_EVERY.saturating_mul(8);

/// Opens a session on a machine: the connection speaks frames from then on, and the first says what is to
/// be run.
#[utoipa::path(post, path = "/v1/machines/{id}/sessions", params(("id" = String, Path)), responses(
    (status = SWITCHING_PROTOCOLS, description = "from now on the connection speaks flotilla-session/1"),
    (status = BAD_REQUEST, body = ErrorBody),
    (status = FORBIDDEN, body = ErrorBody, description = "neither a user's certificate nor root on the socket"),
    (status = NOT_FOUND, body = ErrorBody),
    (status = SERVICE_UNAVAILABLE, body = ErrorBody, description = "its machine or the store does not answer"),
))]
pub(super) async fn open_session(
    State(node): State<Arc<Node>>,
    operator: Operator,
    Path(id): Path<String>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let id: MachineId = id.parse().map_err(|e| ApiError::bad_request(format!("{e}")))?;
    let (path, hops) = (request.uri().path().to_owned(), forward::hops(&request));
    let asks = asks_for_sessions(request.headers());
    let upgrade = request.extensions_mut().remove::<OnUpgrade>().filter(|_| asks);
    let far = match id == node.machine {
        false => Some(forward::for_session(&node, id, &operator, hops).await?),
        true if node.sessions.is_none() => return Err(session::no_agent(&node)),
        true => None,
    };
    let upgrade = upgrade.ok_or_else(|| {
        let headers = format!("Connection: upgrade and Upgrade: {PROTOCOL}");
        ApiError::bad_request(format!("a session begins with the headers {headers}"))
    })?;
    let far = match far {
        Some((client, headers)) => Some(client.forward_session(&path, headers).await?),
        None => None,
    };
    tokio::spawn(async move {
        let Ok(Ok(near)) = timeout(UPGRADED_WITHIN, upgrade).await else { return };
        let near = TokioIo::new(near);
        match far {
            Some(far) => relay(near, far).await,
            None => session::serve(&node, &operator, near).await,
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}

fn asks_for_sessions(headers: &HeaderMap) -> bool {
    let asked = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    asked.is_some_and(|asked| asked.eq_ignore_ascii_case(PROTOCOL))
}

/// Carries bytes between the client and the machine that has the session. Either of them that goes
/// ends it: each says with a frame what it does not send any more.
///
/// A client that does not read keeps what is said to it from being sent, so it is by its silence that it is known
/// to be gone.
async fn relay(near: impl AsyncRead + AsyncWrite, far: impl AsyncRead + AsyncWrite) {
    let (mut from_near, mut to_near) = tokio::io::split(near);
    let (mut from_far, mut to_far) = tokio::io::split(far);
    tokio::select! {
        () = hear(&mut from_near, &mut to_far) => {}
        _ended = copy(&mut from_far, &mut to_near) => {
            if to_near.shutdown().await.is_ok() {
                session::linger(&mut from_near).await;
            }
        }
    }
}

/// Passes on what a client says, until it has said its last or nothing for too long.
async fn hear(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) {
    let mut said = vec![0; CHUNK_BYTES];
    while let Ok(Ok(count @ 1..)) = timeout(SILENT_FOR, from.read(&mut said)).await {
        if to.write_all(&said[..count]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_neither_reads_nor_speaks_ends_the_relay() {
        let (near, mut client) = tokio::io::duplex(16);
        let (far, mut machine) = tokio::io::duplex(16);
        let relaying = tokio::spawn(relay(near, far));
        // More than the client's end holds, and nobody reads it.
        machine.write_all(&[0; 16]).await.expect("written");
        for _ in 0..10 {
            tokio::time::sleep(ALIVE_EVERY).await;
            client.write_all(b"alive").await.expect("heard");
            machine.read_exact(&mut [0; 5]).await.expect("passed on");
        }
        assert!(!relaying.is_finished(), "it says that it is there");
        let began = tokio::time::Instant::now();
        relaying.await.expect("it ends");
        assert!(began.elapsed() <= SILENT_FOR, "{:?}", began.elapsed());
    }

    #[test]
    fn only_our_own_protocol_is_upgraded_to() {
        let asks = |protocol: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
            asks_for_sessions(&headers)
        };
        assert!(asks(PROTOCOL) && asks("Flotilla-Session/1"));
        assert!(!asks("websocket") && !asks("flotilla-session/2"));
        assert!(!asks_for_sessions(&HeaderMap::new()));
    }
}
