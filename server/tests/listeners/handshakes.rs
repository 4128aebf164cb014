//! The TLS listener among peers that have no certificate and no haste.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{fs, net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use flotilla_api::client::{Client, Identity};
use flotilla_server::{TlsFiles, serve_tls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// More than there are places for handshakes.
const SILENT: usize = 300;

/// How long a request may take among them: less than a silent peer keeps its place.
const LIMIT: Duration = Duration::from_secs(4);

/// Makes an authority, and with it a machine's certificate for 127.0.0.1 that serves and asks.
fn certificates(folder: &std::path::Path) -> (TlsFiles, Identity) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate().unwrap();
    let ca = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let mut machine = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let urn = format!("urn:flotilla:machine:{:032x}", 1);
    machine.subject_alt_names.push(SanType::URI(urn.as_str().try_into().unwrap()));
    let own = KeyPair::generate().unwrap();
    let certificate = machine.signed_by(&own, &issuer).unwrap().pem();
    let files = ["ca.pem", "machine.pem", "machine-key.pem"].map(|name| folder.join(name));
    for (file, text) in files.iter().zip([ca, certificate, own.serialize_pem()]) {
        fs::write(file, text).unwrap();
    }
    let [ca, certificate, key] = files;
    let files = TlsFiles { ca, certificate, key };
    let identity = files.identity().unwrap();
    (files, identity)
}

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
    let address = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    };
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
