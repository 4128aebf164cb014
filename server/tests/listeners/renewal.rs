//! A certificate that is renewed while the listener goes on.

use std::{fs, time::Duration};

use axum::{Router, routing::get};
use flotilla_api::client::Client;
use flotilla_server::serve_tls;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{free, renewable};

/// How long it may take until a renewed certificate is shown, on a busy computer.
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (files, identity, issue) = renewable(folder.path());
    let address = free();
    let stop = CancellationToken::new();
    let router = Router::new().route("/", get(|| async { "here" }));
    tokio::spawn(serve_tls(address, &files, router, stop.clone()).await.unwrap());
    // Each time a new connection, by whoever knows this machine as 127.0.0.1.
    let is_known = async || {
        let client = Client::new(format!("https://{address}").parse().unwrap(), Some(&identity)).unwrap();
        client.forward(Default::default(), "/", Default::default(), "").await.is_ok()
    };
    let becomes = async |known: bool| {
        while is_known().await != known {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(is_known().await);
    let renew = |name: &str| {
        let [certificate, key] = issue(name);
        // One after the other, as programs write them: for a moment they do not fit.
        fs::write(&files.certificate, certificate).unwrap();
        fs::write(&files.key, key).unwrap();
    };
    renew("127.0.0.9");
    timeout(LIMIT, becomes(false)).await.expect("the renewed one is shown");
    fs::write(&files.certificate, "nonsense").unwrap();
    renew("127.0.0.1");
    timeout(LIMIT, becomes(true)).await.expect("and the one after it");
    stop.cancel();
}
