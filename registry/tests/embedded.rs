//! The embedded store, in memory and on disk, against the conformance suite; and what only it does.

// Helpers of tests are tests: they say what must hold in the shortest way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "conformance/model.rs"]
mod model;
#[path = "conformance/suite.rs"]
mod suite;

use std::{sync::Arc, time::Duration};

use flotilla_registry::store::{
    KeyRange, RangeRequest, Revision, Store, StoreError, WatchMessage, embedded::EmbeddedStore,
};
use futures_util::StreamExt;
use proptest::prelude::*;
use suite::{Subject, all_of, changes, end_of, put, put_leased, read, revision, write};

mod in_memory {
    use super::{Arc, EmbeddedStore, Subject};

    struct Running(Subject);

    impl Running {
        fn store(&self) -> Subject {
            Arc::clone(&self.0)
        }
    }

    async fn start() -> Running {
        Running(Arc::new(EmbeddedStore::in_memory()))
    }

    crate::suite::for_each_case!(start);
}

mod on_disk {
    use super::{Arc, EmbeddedStore, Subject};

    struct Running(Subject, #[allow(dead_code)] tempfile::TempDir);

    impl Running {
        fn store(&self) -> Subject {
            Arc::clone(&self.0)
        }
    }

    async fn start() -> Running {
        let folder = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(folder.path().join("store")).await.unwrap();
        Running(Arc::new(store), folder)
    }

    crate::suite::for_each_case!(start);
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_on_the_paused_clock() {
    let store: Subject = Arc::new(EmbeddedStore::in_memory());
    let (lease, granted) = store.lease_grant(Duration::from_secs(10)).await.unwrap();
    let written = store.txn(all_of([put_leased("a", "1", lease)])).await.unwrap();
    let mut watch = store.watch(KeyRange::key("a"), Revision(written.revision.0 + 1)).await.unwrap();
    let start = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(6)).await;
    store.lease_keep_alive(lease, Duration::from_secs(1)).await.unwrap();
    assert_eq!(changes(&mut watch).await.0.0, written.revision.0 + 1);
    let expected = Duration::from_secs(6) + granted;
    assert!(start.elapsed() >= expected && start.elapsed() < expected + Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_call_after_the_deadline_never_sees_the_key() {
    // However the tasks are scheduled: the call itself ends what is over.
    let store: Subject = Arc::new(EmbeddedStore::in_memory());
    let (lease, granted) = store.lease_grant(Duration::from_secs(5)).await.unwrap();
    store.txn(all_of([put_leased("a", "1", lease)])).await.unwrap();
    tokio::time::advance(granted - Duration::from_millis(1)).await;
    assert!(read(&store, "a").await.is_some());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(read(&store, "a").await.is_none());
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store: Subject = {
        let store = Arc::new(EmbeddedStore::open(&path).await.unwrap());
        let second = EmbeddedStore::open(&path).await.unwrap_err().to_string();
        assert!(second.contains("in use by another"), "{second}");
        let subject: Subject = Arc::clone(&store) as Subject;
        write(&subject, "a", "1").await;
        write(&subject, "a", "2").await;
        let (lease, _) = subject.lease_grant(Duration::from_secs(60)).await.unwrap();
        subject.txn(all_of([put_leased("b", "3", lease)])).await.unwrap();
        let (gone, _) = subject.lease_grant(Duration::from_secs(60)).await.unwrap();
        subject.txn(all_of([put_leased("c", "4", gone)])).await.unwrap();
        subject.lease_revoke(gone).await.unwrap();
        let range = KeyRange::between("a", "z");
        let before = subject.range(RangeRequest::all(range.clone())).await.unwrap();
        assert_eq!(before.kvs.len(), 2);
        store.close().await.unwrap();
        assert!(subject.range(RangeRequest::all(range.clone())).await.is_err());

        let store: Subject = Arc::new(EmbeddedStore::open(&path).await.unwrap());
        let after = store.range(RangeRequest::all(range)).await.unwrap();
        assert_eq!((&after.kvs, after.revision), (&before.kvs, before.revision));
        assert_eq!(store.lease_status(lease).await.unwrap().unwrap().granted, Duration::from_secs(60));
        assert_eq!(store.lease_status(gone).await.unwrap(), None);
        store.lease_revoke(lease).await.unwrap();
        assert!(read(&store, "b").await.is_none());
        let (next, _) = store.lease_grant(Duration::from_secs(60)).await.unwrap();
        assert!(next > gone, "lease ids are never granted twice");
        store
    };
    // History before the restart is gone and says so; what comes after is watched as ever.
    let now = revision(&store).await;
    let mut late = store.watch(KeyRange::key("a"), Revision(2)).await.unwrap();
    assert!(matches!(end_of(&mut late).await, StoreError::Compacted { .. }));
    let mut next = store.watch(KeyRange::key("a"), Revision(now.0 + 1)).await.unwrap();
    let written = write(&store, "a", "3").await;
    assert_eq!(changes(&mut next).await.0, written);
}

#[tokio::test]
async fn a_file_that_is_not_a_store_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    std::fs::write(&path, "not a store, and long enough to be read as one".repeat(200)).unwrap();
    let error = EmbeddedStore::open(&path).await.unwrap_err().to_string();
    assert!(error.contains("store"), "{error}");
    let error = EmbeddedStore::open(folder.path().join("no/such/folder")).await.unwrap_err().to_string();
    assert!(error.contains("no/such/folder"), "{error}");
}

#[tokio::test]
async fn closing_ends_watches() {
    let store = EmbeddedStore::in_memory();
    let mut watch = store.watch(KeyRange::key("a"), Revision(1)).await.unwrap();
    store.close().await.unwrap();
    assert!(matches!(end_of(&mut watch).await, StoreError::WatchEnded(_)));
    assert!(store.watch(KeyRange::key("a"), Revision(1)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_and_a_reader_that_never_sees_what_is_not_durable() {
    let folder = tempfile::tempdir().unwrap();
    let store: Subject = Arc::new(EmbeddedStore::open(folder.path().join("store")).await.unwrap());
    let mut watch = store.watch(KeyRange::prefix("k/"), Revision(1)).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for index in 0..200 {
        let store = Arc::clone(&store);
        writers.spawn(async move { write(&store, &format!("k/{index}"), "v").await });
    }
    let mut revisions = writers.join_all().await;
    revisions.sort_unstable();
    for expected in revisions {
        assert_eq!(changes(&mut watch).await.0, expected);
    }
}

#[tokio::test]
async fn a_slow_watcher_loses_nothing() {
    let store: Subject = Arc::new(EmbeddedStore::in_memory());
    let mut watch = store.watch(KeyRange::prefix("k"), Revision(1)).await.unwrap();
    // The first look makes it live; then it sleeps through more than any queue holds.
    assert!(futures_util::FutureExt::now_or_never(watch.next()).is_none());
    for _ in 0..5_000 {
        write(&store, "k", "v").await;
    }
    for expected in 2..5_002 {
        assert_eq!(changes(&mut watch).await.0, Revision(expected));
    }
}

#[tokio::test]
async fn an_idle_watcher_hears_of_a_compaction() {
    let store: Subject = Arc::new(EmbeddedStore::in_memory());
    let mut watch = store.watch(KeyRange::key("quiet"), Revision(1)).await.unwrap();
    assert!(futures_util::FutureExt::now_or_never(watch.next()).is_none());
    let last = write(&store, "loud", "1").await;
    store.compact(last).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap(), WatchMessage::Progress(last));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_brought_back_is_an_older_store() {
    let store = Arc::new(EmbeddedStore::in_memory());
    let subject: Subject = Arc::clone(&store) as Subject;
    let (lease, granted) = subject.lease_grant(Duration::from_secs(10)).await.unwrap();
    let kept = subject.txn(all_of([put_leased("a", "1", lease), put("b", "1")])).await.unwrap().revision;
    let snapshot = store.snapshot();
    write(&subject, "b", "2").await;
    let (later, _) = subject.lease_grant(Duration::from_secs(10)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(9)).await;

    let restored: Subject = Arc::new(EmbeddedStore::from_snapshot(&snapshot));
    assert_eq!(revision(&restored).await, kept);
    assert_eq!(&*read(&restored, "b").await.unwrap().value, b"1");
    assert_eq!(restored.lease_status(lease).await.unwrap().unwrap().remaining, granted, "in full again");
    let (fresh, _) = restored.lease_grant(Duration::from_secs(10)).await.unwrap();
    assert!(fresh > later);
    let mut watch = restored.watch(KeyRange::key("a"), Revision(kept.0 + 1)).await.unwrap();
    changes(&mut watch).await;
    assert!(read(&restored, "a").await.is_none(), "its leases end too");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_disk_give_the_same_answers(steps in model::steps(true)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("store");
            let mut memory = model::Run::new(Arc::new(EmbeddedStore::in_memory()));
            let mut file = Arc::new(EmbeddedStore::open(&path).await.unwrap());
            let mut disk = model::Run::new(Arc::clone(&file) as Subject);
            let mut oldest = Revision(1);
            for step in &steps {
                let expected = memory.step(step).await;
                if matches!(step, model::Step::Reopen) {
                    file.close().await.unwrap();
                    file = Arc::new(EmbeddedStore::open(&path).await.unwrap());
                    disk.store = Arc::clone(&file) as Subject;
                    oldest = revision(&disk.store).await;
                } else {
                    let answer = disk.step(step).await;
                    assert_eq!(answer, expected, "{step:?}");
                }
                if let model::Step::Compact(back) = step && expected == "compacted" {
                    oldest = Revision(revision(&disk.store).await.0 - back);
                }
            }
            let from = Revision(oldest.0 + 1);
            assert_eq!(disk.watched(from).await, memory.watched(from).await);
        });
    }
}
