//! The listeners as their peers meet them: who never finishes a handshake, who has said everything, and who
//! has gone.
#![allow(missing_docs, clippy::unwrap_used)]

mod half_closed;
mod handshakes;
mod renewal;

use std::{fs, net::SocketAddr, path::Path};

use flotilla_api::client::Identity;
use flotilla_server::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

/// Makes an authority, and with it a machine's certificate for 127.0.0.1 that serves and asks.
fn certificates(folder: &Path) -> (TlsFiles, Identity) {
    let (files, identity, _) = renewable(folder);
    (files, identity)
}

/// As [`certificates`], with what issues another one for a name: the certificate and its key.
fn renewable(folder: &Path) -> (TlsFiles, Identity, impl Fn(&str) -> [String; 2]) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate().unwrap();
    let ca = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let issue = move |name: &str| {
        let mut machine = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let urn = format!("urn:flotilla:machine:{:032x}", 1);
        machine.subject_alt_names.push(SanType::URI(urn.as_str().try_into().unwrap()));
        let own = KeyPair::generate().unwrap();
        [machine.signed_by(&own, &issuer).unwrap().pem(), own.serialize_pem()]
    };
    let [certificate, own] = issue("127.0.0.1");
    let files = ["ca.pem", "machine.pem", "machine-key.pem"].map(|name| folder.join(name));
    for (file, text) in files.iter().zip([ca, certificate, own]) {
        fs::write(file, text).unwrap();
    }
    let [ca, certificate, key] = files;
    let files = TlsFiles { ca, certificate, key };
    let identity = files.identity().unwrap();
    (files, identity, issue)
}

/// An address that nobody listens on.
fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
