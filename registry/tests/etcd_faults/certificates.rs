//! TLS with client certificates: good ones, wrong ones, expired ones, none.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use flotilla_registry::store::{
    KeyRange, RangeRequest, StoreError,
    etcd::{EtcdConfig, EtcdStore, EtcdTls, Pem},
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::{
    server::{Server, ServerTls},
    suite::{Subject, all_of, put, read, write},
};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, name: &str, expired: bool) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        if expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

struct Cluster {
    server: Server,
    ours: Authority,
    folder: tempfile::TempDir,
}

async fn start(server_expired: bool) -> Cluster {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    let (certificate, key) = ours.issue("etcd", server_expired);
    let file = |name: &str, text: &str| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let tls = ServerTls {
        certificate: &file("etcd.pem", &certificate),
        key: &file("etcd.key", &key),
        client_ca: &file("ca.pem", &ours.pem),
    };
    let server = Server::start_with(&[], Some(tls)).await;
    Cluster { server, ours, folder }
}

fn bytes(pem: &str) -> Pem {
    Pem::Bytes(pem.as_bytes().to_vec())
}

fn store(server: &Server, ca: &str, identity: Option<(String, String)>) -> Subject {
    let identity = identity.map(|(certificate, key)| (bytes(&certificate), bytes(&key)));
    let tls = Some(EtcdTls { ca: bytes(ca), identity });
    let config = EtcdConfig { endpoints: vec![server.url()], tls, user: None };
    Arc::new(EtcdStore::connect(config).unwrap())
}

async fn refusal(store: &Subject) -> String {
    match store.range(RangeRequest::all(KeyRange::key("a"))).await {
        Err(StoreError::Unauthenticated(why)) => why,
        other => panic!("expected Unauthenticated, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates() {
    let cluster = start(false).await;
    let (server, ours) = (&cluster.server, &cluster.ours);
    let others = Authority::new("others");

    let good = store(server, &ours.pem, Some(ours.issue("machine", false)));
    write(&good, "a", "1").await;
    assert!(read(&good, "a").await.is_some());
    let (lease, _) = good.lease_grant(Duration::from_secs(10)).await.unwrap();
    good.lease_keep_alive(lease, Duration::from_secs(2)).await.unwrap();

    let why = refusal(&store(server, &others.pem, Some(ours.issue("machine", false)))).await;
    assert!(why.contains("not signed by the configured authority"), "{why}");
    let why = refusal(&store(server, &ours.pem, Some(ours.issue("machine", true)))).await;
    assert!(why.contains("expired on") && why.contains("2021"), "{why}");
    let why = refusal(&store(server, &ours.pem, Some(others.issue("machine", false)))).await;
    assert!(why.contains("trusted-ca-file"), "{why}");
    // The same for a store whose first call writes: refused, not "outcome unknown".
    let expired = store(server, &ours.pem, Some(ours.issue("machine", true)));
    let refused = expired.txn(all_of([put("a", "2")])).await;
    assert!(matches!(refused, Err(StoreError::Unauthenticated(_))), "{refused:?}");
    let why = refusal(&store(server, &ours.pem, None)).await;
    assert!(why.contains("wants a client certificate"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_server_certificate() {
    let cluster = start(true).await;
    let identity = cluster.ours.issue("machine", false);
    let why = refusal(&store(&cluster.server, &cluster.ours.pem, Some(identity))).await;
    assert!(why.contains("etcd's own certificate has expired"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_file_is_taken_up() {
    let cluster = start(false).await;
    let (path, key_path) = (cluster.folder.path().join("me.pem"), cluster.folder.path().join("me.key"));
    let install = |(certificate, key): (String, String)| {
        fs::write(&path, certificate).unwrap();
        fs::write(&key_path, key).unwrap();
    };
    install(cluster.ours.issue("machine", true));
    let tls = Some(EtcdTls {
        ca: Pem::File(cluster.folder.path().join("ca.pem")),
        identity: Some((Pem::File(path.clone()), Pem::File(key_path.clone()))),
    });
    let config = EtcdConfig { endpoints: vec![cluster.server.url()], tls, user: None };
    let store: Subject = Arc::new(EtcdStore::connect(config).unwrap());
    let why = refusal(&store).await;
    assert!(why.contains("me.pem expired on"), "{why}");
    install(cluster.ours.issue("machine", false));
    write(&store, "a", "1").await;
}

#[test]
fn configurations_that_can_never_work() {
    let ours = Authority::new("ours");
    let missing = Pem::File("/no/such/ca.pem".into());
    let tls = |ca: Pem| Some(EtcdTls { ca, identity: None });
    let refused = |endpoints: &[&str], tls: Option<EtcdTls>| {
        let endpoints = endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect();
        EtcdStore::connect(EtcdConfig { endpoints, tls, user: None }).unwrap_err().to_string()
    };
    for (error, expected) in [
        (refused(&[], None), "no etcd endpoint"),
        (refused(&["10.0.0.1:2379"], None), "no scheme"),
        (refused(&["https://10.0.0.1:2379"], None), "no CA certificate"),
        (refused(&["http://10.0.0.1:2379"], tls(bytes(&ours.pem))), "not https"),
        (refused(&["https://10.0.0.1:2379"], tls(missing)), "/no/such/ca.pem"),
        (refused(&["https://10.0.0.1:2379"], tls(bytes("nonsense"))), "not a certificate"),
    ] {
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
}
