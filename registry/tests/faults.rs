//! The faults that simulations inject, each seen from the caller's side.

// Helpers of tests are tests: they say what must hold in the shortest way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "conformance/suite.rs"]
#[allow(dead_code, unused_macros, unused_imports)]
mod suite;

use std::{sync::Arc, time::Duration};

use flotilla_registry::store::{
    CALL_TIMEOUT, KeyRange, RangeRequest, Revision, StoreError,
    embedded::EmbeddedStore,
    faults::{Faults, FaultyStore, Link},
};
use futures_util::StreamExt;
use suite::{Subject, all_of, changes, end_of, put, put_leased, read, revision, write};
use tokio::time::Instant;

fn faulty(seed: u64) -> (Subject, Faults, Arc<EmbeddedStore>) {
    let inner = Arc::new(EmbeddedStore::in_memory());
    let (store, faults) = FaultyStore::new(Arc::clone(&inner) as Subject, seed);
    (Arc::new(store), faults, inner)
}

#[tokio::test(start_paused = true)]
async fn a_cut_refuses_without_effect_and_ends_watches() {
    let (store, faults, _) = faulty(1);
    let before = write(&store, "a", "1").await;
    let mut watch = store.watch(KeyRange::key("a"), before).await.unwrap();
    changes(&mut watch).await;
    faults.set_link(Link::Cut);
    let refused = store.txn(all_of([put("a", "2")])).await;
    assert!(matches!(refused, Err(StoreError::Unreachable { .. })), "{refused:?}");
    let refused = store.range(RangeRequest::all(KeyRange::key("a"))).await;
    assert!(matches!(refused, Err(StoreError::Unreachable { .. })));
    assert!(matches!(end_of(&mut watch).await, StoreError::WatchEnded(_)));
    faults.set_link(Link::Up);
    assert_eq!(read(&store, "a").await.unwrap().mod_revision, before);
}

#[tokio::test(start_paused = true)]
async fn a_hang_leaves_outcomes_unknown_by_the_seed() {
    let mut patterns = Vec::new();
    for seed in [7, 7, 8, 9] {
        let (store, faults, _) = faulty(seed);
        let mut watch = store.watch(KeyRange::prefix("k/"), Revision(1)).await.unwrap();
        faults.set_link(Link::Hung);
        let start = Instant::now();
        let silent = end_of(&mut watch).await;
        assert!(matches!(silent, StoreError::WatchEnded(_)));
        assert!(start.elapsed() > Duration::from_secs(7) && start.elapsed() < Duration::from_secs(11));
        for index in 0..16 {
            let start = Instant::now();
            let lost = store.txn(all_of([put(&format!("k/{index}"), "")])).await;
            assert!(matches!(lost, Err(StoreError::OutcomeUnknown { .. })), "{lost:?}");
            assert!(start.elapsed() <= CALL_TIMEOUT + Duration::from_millis(10));
        }
        let start = Instant::now();
        let lost = store.range(RangeRequest::all(KeyRange::prefix("k/"))).await;
        assert!(matches!(lost, Err(StoreError::Unreachable { .. })), "a read has no outcome: {lost:?}");
        assert!(start.elapsed() >= CALL_TIMEOUT);
        faults.set_link(Link::Up);
        let kvs = store.range(RangeRequest::all(KeyRange::prefix("k/"))).await.unwrap().kvs;
        assert!(!kvs.is_empty() && kvs.len() < 16, "some were applied, some not: {}", kvs.len());
        patterns.push(kvs.into_iter().map(|kv| kv.key).collect::<Vec<_>>());
    }
    assert_eq!(patterns[0], patterns[1], "one seed, one run");
    assert!(patterns[1..].windows(2).any(|pair| pair[0] != pair[1]), "other seeds, other runs");
}

#[tokio::test(start_paused = true)]
async fn a_hang_that_passes_loses_no_event() {
    let (store, faults, inner) = faulty(1);
    let mut watch = store.watch(KeyRange::key("a"), Revision(1)).await.unwrap();
    faults.set_link(Link::Hung);
    let behind: Subject = inner;
    let written = write(&behind, "a", "1").await;
    let silent = tokio::time::timeout(Duration::from_secs(5), watch.next()).await;
    assert!(silent.is_err(), "nothing arrives while it hangs");
    faults.set_link(Link::Up);
    assert_eq!(changes(&mut watch).await.0, written);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_has_its_effect() {
    let (store, faults, _) = faulty(1);
    faults.lose_replies(1);
    let lost = store.txn(all_of([put("a", "1")])).await;
    assert!(matches!(lost, Err(StoreError::OutcomeUnknown { .. })));
    assert_eq!(&*read(&store, "a").await.unwrap().value, b"1");
    store.txn(all_of([put("a", "2")])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_late_write_arrives_after_its_caller_gave_up() {
    let (store, faults, _) = faulty(1);
    faults.late_writes(1, Duration::from_secs(3));
    // A read is none.
    assert_eq!(read(&store, "a").await, None);
    let lost = store.txn(all_of([put("a", "1")])).await;
    assert!(matches!(lost, Err(StoreError::OutcomeUnknown { .. })));
    assert_eq!(read(&store, "a").await, None, "it is on its way");
    store.txn(all_of([put("a", "2")])).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(&*read(&store, "a").await.unwrap().value, b"1", "it came last");
}

#[tokio::test(start_paused = true)]
async fn slow_calls_take_their_time_and_time_out_beyond_the_limit() {
    let (store, faults, _) = faulty(3);
    faults.slow(Duration::from_secs(1), Duration::from_secs(2));
    let start = Instant::now();
    write(&store, "a", "1").await;
    assert!(start.elapsed() >= Duration::from_secs(1) && start.elapsed() <= Duration::from_millis(2_010));
    faults.slow(Duration::from_secs(60), Duration::from_secs(60));
    let start = Instant::now();
    let lost = store.txn(all_of([put("a", "2")])).await;
    assert!(matches!(lost, Err(StoreError::OutcomeUnknown { .. })));
    assert!(start.elapsed() <= CALL_TIMEOUT + Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_restore_goes_back_and_ends_watches() {
    let (store, faults, inner) = faulty(1);
    let (lease, _) = store.lease_grant(Duration::from_secs(10)).await.unwrap();
    let old = store.txn(all_of([put_leased("a", "1", lease)])).await.unwrap().revision;
    let snapshot = inner.snapshot();
    let newer = write(&store, "a", "2").await;
    let mut watch = store.watch(KeyRange::key("a"), newer).await.unwrap();
    faults.restore(&snapshot);
    assert!(matches!(end_of(&mut watch).await, StoreError::WatchEnded(_)));
    assert_eq!(revision(&store).await, old);
    assert_eq!(&*read(&store, "a").await.unwrap().value, b"1");
    store.lease_keep_alive(lease, Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_compaction_behind_the_back_is_met_by_late_watches() {
    let (store, faults, _) = faulty(1);
    let first = write(&store, "a", "1").await;
    write(&store, "a", "2").await;
    let compacted = faults.compact().await.unwrap();
    assert_eq!(compacted, revision(&store).await);
    let mut late = store.watch(KeyRange::key("a"), first).await.unwrap();
    assert!(matches!(end_of(&mut late).await, StoreError::Compacted { wanted, .. } if wanted == first));
}
