//! Clients that shut their side once they have said everything, and those that go away, on each listener.

use std::{
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    response::{
        IntoResponse as _,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use flotilla_server::{TlsFiles, serve_insecure_loopback, serve_tls, serve_unix};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;

use crate::{certificates, free};

/// How long what has to come may take: a stream with nothing to tell shows only every 20 s that it lives.
const LIMIT: Duration = Duration::from_secs(10);

/// How long a client that has said everything is left alone with its question. A server that drops it has
/// done so at once.
const WHILE: Duration = Duration::from_millis(300);

trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// What the routes are told and tell.
struct Routes {
    /// Lets `/slow` answer.
    go: Option<oneshot::Sender<()>>,
    /// Where `/events` tells from; it is closed when nobody listens any more.
    events: mpsc::Sender<Event>,
    router: Router,
}

fn routes() -> Routes {
    let (go, gone) = oneshot::channel::<()>();
    let (sender, events) = mpsc::channel(4);
    let (gone, events) = (Arc::new(Mutex::new(Some(gone))), Arc::new(Mutex::new(Some(events))));
    let slow = move |body: Bytes| async move {
        let gone = gone.lock().unwrap().take().unwrap();
        gone.await.unwrap();
        format!("{} bytes", body.len())
    };
    let tell = move || async move {
        let events = ReceiverStream::new(events.lock().unwrap().take().unwrap());
        Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::new()).into_response()
    };
    let router = Router::new().route("/slow", post(slow)).route("/events", get(tell));
    Routes { go: Some(go), events: sender, router }
}

/// A server on one of the listeners, and a client's connection to it.
async fn connected(
    listener: &str,
    folder: &Path,
    router: Router,
) -> (Box<dyn Connection>, CancellationToken) {
    let stop = CancellationToken::new();
    let connection: Box<dyn Connection> = match listener {
        "unix" => {
            let path = folder.join("api.sock");
            tokio::spawn(serve_unix(&path, None, router, stop.clone()).await.unwrap());
            Box::new(UnixStream::connect(&path).await.unwrap())
        }
        "loopback" => {
            let address = free();
            tokio::spawn(serve_insecure_loopback(address, router, stop.clone()).await.unwrap());
            Box::new(TcpStream::connect(address).await.unwrap())
        }
        _ => {
            let (address, (files, _)) = (free(), certificates(folder));
            tokio::spawn(serve_tls(address, &files, router, stop.clone()).await.unwrap());
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client(&files)));
            let stream = TcpStream::connect(address).await.unwrap();
            Box::new(connector.connect("127.0.0.1".try_into().unwrap(), stream).await.unwrap())
        }
    };
    (connection, stop)
}

fn client(files: &TlsFiles) -> ClientConfig {
    let certificate = |path: &Path| CertificateDer::from_pem_file(path).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&files.ca)).unwrap();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    config.with_client_auth_cert(vec![certificate(&files.certificate)], key).unwrap()
}

const LISTENERS: [&str; 3] = ["unix", "loopback", "tls"];

#[tokio::test]
async fn whoever_has_said_everything_is_answered() {
    for listener in LISTENERS {
        let folder = tempfile::tempdir().unwrap();
        let mut routes = routes();
        let (mut connection, stop) = connected(listener, folder.path(), routes.router).await;
        let question = "POST /slow HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\nsome";
        connection.write_all(question.as_bytes()).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = String::new();
        let early = timeout(WHILE, connection.read_to_string(&mut answer)).await;
        assert!(early.is_err(), "{listener}: the connection ended before it was answered: {answer:?}");
        routes.go.take().unwrap().send(()).unwrap();
        let read = timeout(LIMIT, connection.read_to_string(&mut answer)).await;
        read.unwrap_or_else(|_| panic!("{listener}: the connection goes on: {answer:?}")).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{listener}: {answer:?}");
        assert!(answer.ends_with("4 bytes"), "{listener}: {answer:?}");
        stop.cancel();
    }
}

#[tokio::test]
async fn whoever_has_said_everything_is_told_what_happens_until_it_goes() {
    for listener in LISTENERS {
        let folder = tempfile::tempdir().unwrap();
        let routes = routes();
        let (mut connection, stop) = connected(listener, folder.path(), routes.router).await;
        connection.write_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        connection.shutdown().await.unwrap();
        for event in ["one", "two"] {
            sleep(WHILE).await;
            routes.events.send(Event::default().data(event)).await.unwrap();
            let (mut told, line) = (String::new(), format!("data: {event}\n\n"));
            while !told.contains(&line) {
                let mut chunk = [0; 1024];
                let count = timeout(LIMIT, connection.read(&mut chunk)).await.unwrap().unwrap();
                assert_ne!(count, 0, "{listener}: the stream ended after {told:?}");
                told.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
            }
        }
        drop(connection);
        let gone = timeout(LIMIT, routes.events.closed()).await;
        assert!(gone.is_ok(), "{listener}: nobody noticed that the client has gone");
        stop.cancel();
    }
}

#[tokio::test]
async fn whoever_goes_is_noticed_soon_though_nothing_happens() {
    for listener in LISTENERS {
        let folder = tempfile::tempdir().unwrap();
        let routes = routes();
        let (mut connection, stop) = connected(listener, folder.path(), routes.router).await;
        connection.write_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        connection.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        drop(connection);
        let gone = timeout(LIMIT, routes.events.closed()).await;
        assert!(gone.is_ok(), "{listener}: nobody noticed that the client has gone");
        stop.cancel();
    }
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_one_after_the_other() {
    for listener in LISTENERS {
        let folder = tempfile::tempdir().unwrap();
        let router = Router::new().route("/", get(|| async { "here" }));
        let (mut connection, stop) = connected(listener, folder.path(), router).await;
        let question = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        connection.write_all(question.repeat(3).as_bytes()).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = String::new();
        timeout(LIMIT, connection.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer.matches("\r\n\r\nhere").count(), 3, "{listener}: {answer:?}");
        stop.cancel();
    }
}
