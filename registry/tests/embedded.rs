//! The embedded store, in memory and on disk, against the conformance suite.

use std::{sync::Arc, time::Duration};

use flotilla_registry::store::{
    KeyRange, Operation, RangeRequest, Revision, Store, StoreError, Txn, WatchMessage,
    embedded::EmbeddedStore,
};
use futures_util::StreamExt;

fn put(key: &str, value: &str) -> Txn {
    let operation = Operation::Put { key: key.into(), value: value.into(), lease: None };
    Txn { then: vec![operation], ..Txn::default() }
}

#[tokio::test(start_paused = true)]
async fn a_lease_in_memory_ends_on_the_paused_clock() {
    let store = EmbeddedStore::in_memory();
    let (lease, granted) = store.lease_grant(Duration::from_secs(1)).await.unwrap();
    assert_eq!(granted, Duration::from_secs(2), "etcd's floor");
    let operation = Operation::Put { key: "a".into(), value: b"1".to_vec(), lease: Some(lease) };
    let written = store.txn(Txn { then: vec![operation], ..Txn::default() }).await.unwrap();
    let mut watch = store.watch(KeyRange::key("a"), Revision(written.revision.0 + 1)).await.unwrap();
    let before = tokio::time::Instant::now();
    let message = watch.next().await.unwrap().unwrap();
    assert!(matches!(message, WatchMessage::Events { revision, .. } if revision.0 == written.revision.0 + 1));
    assert!(before.elapsed() >= granted && before.elapsed() < granted + Duration::from_millis(10));
    assert!(matches!(
        store.lease_keep_alive(lease, Duration::from_secs(1)).await,
        Err(StoreError::LeaseNotFound(id)) if id == lease
    ));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = EmbeddedStore::open(&path).await.unwrap();
    store.txn(put("a", "1")).await.unwrap();
    store.txn(put("a", "2")).await.unwrap();
    let (lease, granted) = store.lease_grant(Duration::from_secs(60)).await.unwrap();
    let operation = Operation::Put { key: "b".into(), value: b"3".to_vec(), lease: Some(lease) };
    store.txn(Txn { then: vec![operation], ..Txn::default() }).await.unwrap();
    let before = store.range(RangeRequest::all(KeyRange::prefix("a"))).await.unwrap();
    let leased = store.range(RangeRequest::all(KeyRange::key("b"))).await.unwrap();
    let second = EmbeddedStore::open(&path).await.unwrap_err().to_string();
    assert!(second.contains("in use"), "{second}");
    store.close().await.unwrap();

    let store = EmbeddedStore::open(&path).await.unwrap();
    let after = store.range(RangeRequest::all(KeyRange::prefix("a"))).await.unwrap();
    assert_eq!((&after.kvs, after.revision), (&before.kvs, before.revision));
    assert_eq!(store.range(RangeRequest::all(KeyRange::key("b"))).await.unwrap().kvs, leased.kvs);
    let status = store.lease_status(lease).await.unwrap().unwrap();
    assert_eq!(status.granted, granted);
    store.lease_revoke(lease).await.unwrap();
    assert!(store.range(RangeRequest::all(KeyRange::key("b"))).await.unwrap().kvs.is_empty());
    let (next, _) = store.lease_grant(Duration::from_secs(60)).await.unwrap();
    assert!(next > lease, "lease ids are never granted twice");
}

#[tokio::test]
async fn many_writers_share_commits() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(folder.path().join("store")).await.unwrap());
    let mut watch = store.watch(KeyRange::prefix("k/"), Revision(1)).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for index in 0..200 {
        let store = Arc::clone(&store);
        writers.spawn(async move { store.txn(put(&format!("k/{index}"), "v")).await.unwrap().revision });
    }
    let mut revisions = writers.join_all().await;
    revisions.sort_unstable();
    for expected in revisions {
        let message = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.unwrap();
        assert!(matches!(message, Some(Ok(WatchMessage::Events { revision, .. })) if revision == expected));
    }
}
