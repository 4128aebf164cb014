//! Listeners: the unix socket, TCP with mutual TLS, and loopback without any.

mod connections;
mod handshakes;
mod pages;
mod reader;

use std::{
    io,
    net::SocketAddr,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::{FileTypeExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use axum::Router;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use self::{
    connections::{Peers, serve},
    handshakes::{HANDSHAKES_MAX, accept_all},
};
use crate::{Peer, TlsError, TlsFiles};

/// How long to wait after a failed accept: as a rule the process is out of descriptors, and some
/// come free.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// When a silent connection is asked whether its other end lives, how often, and how many times without an answer:
/// it is given up after two minutes, by when its machine is lost anyway.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_COUNT: u32 = 4;

/// How long what was sent may go unacknowledged, in milliseconds. Five minutes: the kernel would try for a quarter of
/// an hour, and a reader that only pauses is to be spared.
const UNACKNOWLEDGED_MS: u32 = 5 * 60 * 1_000;

/// Who may open the unix socket: its owner, root, and its group.
const SOCKET_MODE: u32 = 0o660;

/// Why a listener could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address or path is taken, or not this machine's.
    #[error("cannot listen on {address}")]
    Bind {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process answers there.
    #[error("another process listens on {0}; is flotillad running already?")]
    Taken(String),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Not a loopback address.
    #[error("{0} is not a loopback address, and only there may the API be served without TLS")]
    NotLoopback(SocketAddr),
}

/// Serves the API on a unix socket until `stop` is cancelled. A stale socket file is replaced.
///
/// # Errors
/// The socket cannot be made.
pub async fn serve_unix(
    path: &Path,
    group: Option<u32>,
    router: Router,
    stop: CancellationToken,
) -> Result<impl Future<Output = io::Result<()>> + use<>, BindError> {
    let bind_error = |source| BindError::Bind { address: format!("unix://{}", path.display()), source };
    if UnixStream::connect(path).await.is_ok() {
        return Err(BindError::Taken(format!("unix://{}", path.display())));
    }
    let stale = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if stale {
        std::fs::remove_file(path).map_err(bind_error)?;
    }
    let listener = UnixListener::bind(path).map_err(bind_error)?;
    // Between bind and chmod only root can connect: the folder is root's.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(bind_error)?;
    if let Some(group) = group {
        std::os::unix::fs::chown(path, None, Some(group)).map_err(bind_error)?;
    }
    let path: PathBuf = path.to_owned();
    let serving = serve(UnixPeers(listener), router, stop);
    Ok(async move {
        let result = serving.await;
        let _gone_already = std::fs::remove_file(&path);
        result
    })
}

/// Serves the API on TCP with mutual TLS until `stop` is cancelled.
///
/// # Errors
/// The certificates cannot be used, or the address cannot be listened on.
pub async fn serve_tls(
    address: SocketAddr,
    files: &TlsFiles,
    router: Router,
    stop: CancellationToken,
) -> Result<impl Future<Output = io::Result<()>> + use<>, BindError> {
    let acceptor = TlsAcceptor::from(files.server_config()?);
    let listener = bind(address).await?;
    let (sender, ready) = mpsc::channel(HANDSHAKES_MAX);
    let accepting = accept_all(listener, acceptor, sender, stop.clone());
    let serving = serve(TlsPeers(ready), router, stop);
    Ok(async move {
        let ((), result) = tokio::join!(accepting, serving);
        result
    })
}

/// Serves the API on loopback to everybody on this machine until `stop` is cancelled; for old fleet
/// clients and tests. The caller warns about it. A page in a browser is not answered.
///
/// # Errors
/// The address is not loopback, or cannot be listened on.
pub async fn serve_insecure_loopback(
    address: SocketAddr,
    router: Router,
    stop: CancellationToken,
) -> Result<impl Future<Output = io::Result<()>> + use<>, BindError> {
    if !address.ip().is_loopback() {
        return Err(BindError::NotLoopback(address));
    }
    let listener = bind(address).await?;
    let router = router.layer(axum::middleware::from_fn(pages::keep_out));
    // What is refused on fleet's paths is said in fleet's words here too.
    let router = router.layer(axum::middleware::from_fn(crate::fleet::speak));
    Ok(serve(PlainPeers(listener), router, stop))
}

async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| BindError::Bind { address: address.to_string(), source })
}

struct UnixPeers(UnixListener);

struct PlainPeers(TcpListener);

struct TlsPeers(mpsc::Receiver<(TlsStream<TcpStream>, Peer)>);

impl Peers for UnixPeers {
    type Io = UnixStream;

    async fn accept(&mut self) -> (UnixStream, Peer) {
        loop {
            match self.0.accept().await {
                Ok((stream, _)) => match stream.peer_cred() {
                    Ok(credentials) => return (stream, Peer::of_uid(credentials.uid())),
                    Err(e) => tracing::warn!(error = %e, "a peer without credentials was turned away"),
                },
                Err(e) => retry(&e).await,
            }
        }
    }

    fn socket(io: &Self::Io) -> BorrowedFd<'_> {
        io.as_fd()
    }
}

impl Peers for PlainPeers {
    type Io = TcpStream;

    async fn accept(&mut self) -> (TcpStream, Peer) {
        loop {
            match self.0.accept().await {
                Ok((stream, _)) => {
                    tune(&stream);
                    return (stream, Peer::Anonymous);
                }
                Err(e) => retry(&e).await,
            }
        }
    }

    fn socket(io: &Self::Io) -> BorrowedFd<'_> {
        io.as_fd()
    }
}

impl Peers for TlsPeers {
    type Io = TlsStream<TcpStream>;

    async fn accept(&mut self) -> (TlsStream<TcpStream>, Peer) {
        match self.0.recv().await {
            Some(peer) => peer,
            // The accepting task has ended, so the server is stopping and nobody else will come.
            None => std::future::pending().await,
        }
    }

    fn socket(io: &Self::Io) -> BorrowedFd<'_> {
        io.get_ref().0.as_fd()
    }
}

/// Sets how a connection is kept: small answers at once, and none for ever whose other end has died. Streams and
/// sessions may be silent for hours, and a machine that loses power closes nothing.
fn tune(stream: &TcpStream) {
    use rustix::net::sockopt;
    let _without_it_only_slower = stream.set_nodelay(true);
    let set = sockopt::set_socket_keepalive(stream, true)
        .and_then(|()| sockopt::set_tcp_keepidle(stream, KEEPALIVE_AFTER))
        .and_then(|()| sockopt::set_tcp_keepintvl(stream, KEEPALIVE_EVERY))
        .and_then(|()| sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT))
        .and_then(|()| sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS));
    if let Err(error) = set {
        tracing::debug!(%error, "a connection is kept with the kernel's defaults");
    }
}

async fn retry(error: &io::Error) {
    // Too many open files, of this process or of the machine.
    let full = matches!(error.raw_os_error(), Some(23 | 24));
    let hint = if full { "; raise LimitNOFILE= of flotillad.service" } else { "" };
    tracing::warn!(%error, "a connection could not be accepted{hint}");
    tokio::time::sleep(ACCEPT_RETRY).await;
}
