//! Connections: accepts them, and lets the routes answer on each until it ends.
//!
//! Whoever has said everything may shut its own side before it has read a word: `printf .. | nc -N`, and
//! `flotctl fd-forward` when its input ends. Such a client is answered all the same. axum's own loop
//! cannot be told so: it drops the connection with the request that it is about. Whether somebody still
//! reads is asked by [`super::reader`]; who may ask for what is for the routes to say.

use std::{convert::Infallible, io, os::fd::BorrowedFd, pin::pin, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::reader::Reader;
use crate::Peer;

/// How long requests under way may take after the order to stop. A request's own limit is longer,
/// but whoever stops a daemon waits for it.
const GRACE: Duration = Duration::from_secs(1);

/// How long a client may take to ask: from the connection, or the answer before, to the last of a request's headers.
/// Two minutes: clients close a connection that they do not use after 90 s, and so never one that they are about to.
const HEADERS_WITHIN: Duration = Duration::from_secs(120);

/// Where connections come from.
pub(super) trait Peers: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next one, and says whose it is. What comes while nobody waits is not lost.
    fn accept(&mut self) -> impl Future<Output = (Self::Io, Peer)> + Send;

    /// The socket below a connection.
    fn socket(io: &Self::Io) -> BorrowedFd<'_>;
}

/// Serves until `stop` is cancelled; after it what is under way has [`GRACE`] to end.
pub(super) async fn serve<P: Peers>(mut peers: P, router: Router, stop: CancellationToken) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (io, peer) = peers.accept() => {
                connections.spawn(converse::<P>(io, peer, router.clone(), stop.clone()));
            }
            Some(_ended) = connections.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    drop(peers);
    // Streams never end by themselves, so grace has an end.
    let ended = async { while connections.join_next().await.is_some() {} };
    let _cut_off = timeout(GRACE, ended).await;
    Ok(())
}

/// Answers what one client asks, one request after the other.
async fn converse<P: Peers>(io: P::Io, peer: Peer, router: Router, stop: CancellationToken) {
    let reader = Reader::of(P::socket(&io));
    let service = service_fn(move |request: Request<Incoming>| {
        let (router, reader) = (router.clone(), reader.clone());
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        async move { Ok::<_, Infallible>(reader.heeded(router.oneshot(request).await?)) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
    let mut connection =
        pin!(http.half_close(true).serve_connection(TokioIo::new(io), service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "a connection ended");
    }
}
