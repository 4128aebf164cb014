//! The TLS listener among peers that have no certificate and no haste.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use flotilla_api::client::Client;
use flotilla_server::serve_tls;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{certificates, free};

/// More than there are places for handshakes.
const SILENT: usize = 300;

/// How long a request may take among them: less than a silent peer keeps its place.
const LIMIT: Duration = Duration::from_secs(4);

/// Connects from another address of this computer and says nothing.
async fn silent(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test]
async fn an_address_that_never_finishes_a_handshake_delays_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (files, identity) = certificates(folder.path());
    let address = free();
    let stop = CancellationToken::new();
    let router = Router::new().route("/", get(|| async { "here" }));
    tokio::spawn(serve_tls(address, &files, router, stop.clone()).await.unwrap());
    let mut waiting = Vec::new();
    for _ in 0..SILENT {
        waiting.push(timeout(LIMIT, silent(address)).await.unwrap());
    }
    let client = Client::new(format!("https://{address}").parse().unwrap(), Some(&identity)).unwrap();
    let asked = client.forward(Default::default(), "/", Default::default(), "");
    let answer = timeout(LIMIT, asked).await.expect("an answer in time").unwrap();
    assert_eq!(answer.text().await.unwrap(), "here");
    assert_eq!(waiting.len(), SILENT);
    stop.cancel();
}
