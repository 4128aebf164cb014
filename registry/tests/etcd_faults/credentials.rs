//! Users and passwords.

use std::{sync::Arc, time::Duration};

use etcd_client::{Client, Permission};
use flotilla_registry::store::{
    KeyRange, RangeRequest, Revision, StoreError,
    etcd::{EtcdConfig, EtcdStore},
};

use crate::{
    server::Server,
    suite::{Subject, all_of, changes, put, read, write},
};

fn store_as(server: &Server, user: Option<(&str, &str)>) -> Subject {
    let user = user.map(|(name, password)| (name.to_owned(), password.to_owned()));
    let config = EtcdConfig { endpoints: vec![server.url()], user, ..EtcdConfig::default() };
    Arc::new(EtcdStore::connect(config).unwrap())
}

async fn refusal(store: &Subject) -> String {
    match store.range(RangeRequest::all(KeyRange::key("/flotilla/a"))).await {
        Err(StoreError::Unauthenticated(why)) => why,
        other => panic!("expected Unauthenticated, got {other:?}"),
    }
}

/// A server with a `root`, and a user `flotilla` that may use `/flotilla/` only.
async fn with_users() -> Server {
    let server = Server::start().await;
    let client = Client::connect([server.url()], None).await.unwrap();
    let mut auth = client.auth_client();
    auth.user_add("root", "root", None).await.unwrap();
    auth.user_grant_role("root", "root").await.unwrap();
    auth.role_add("flotilla").await.unwrap();
    let permission = Permission::read_write("/flotilla/").with_prefix();
    auth.role_grant_permission("flotilla", permission).await.unwrap();
    auth.user_add("flotilla", "secret", None).await.unwrap();
    auth.user_grant_role("flotilla", "flotilla").await.unwrap();
    auth.auth_enable().await.unwrap();
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_passwords() {
    let mut server = with_users().await;
    let store = store_as(&server, Some(("flotilla", "secret")));
    let written = write(&store, "/flotilla/a", "1").await;

    let why = refusal(&store_as(&server, Some(("flotilla", "wrong")))).await;
    assert!(why.contains("password is wrong"), "{why}");
    let why = refusal(&store_as(&server, None)).await;
    assert!(why.contains("none is configured"), "{why}");
    match store.txn(all_of([put("/elsewhere", "1")])).await {
        Err(StoreError::Unauthenticated(why)) => assert!(why.contains("may not do this"), "{why}"),
        other => panic!("{other:?}"),
    }
    match store.watch(KeyRange::key("/elsewhere"), Revision(1)).await {
        Err(StoreError::Unauthenticated(why)) => assert!(why.contains("watch"), "{why}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("a watch without permission"),
    }

    // A restart forgets every session; the store signs in again by itself, for watches too.
    server.kill();
    server.restart().await;
    let mut watch = store.watch(KeyRange::prefix("/flotilla/"), written).await.unwrap();
    assert_eq!(changes(&mut watch).await.0, written);
    assert!(read(&store, "/flotilla/a").await.is_some());
    let (lease, _) = store.lease_grant(Duration::from_secs(10)).await.unwrap();
    store.lease_keep_alive(lease, Duration::from_secs(2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_where_authentication_is_off() {
    let server = Server::start().await;
    let why = refusal(&store_as(&server, Some(("flotilla", "secret")))).await;
    assert!(why.contains("authentication is off"), "{why}");
}
