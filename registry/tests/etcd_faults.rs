//! What etcd and its client do when something is wrong, one case for each fact: dead, hanging and
//! restarted servers, full ones, large answers, wrong passwords and wrong certificates.

// Helpers of tests are tests: they say what must hold in the shortest way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "etcd_faults/certificates.rs"]
mod certificates;
#[path = "etcd_faults/credentials.rs"]
mod credentials;
#[path = "conformance/server.rs"]
mod server;
#[path = "etcd_faults/silence.rs"]
mod silence;
#[path = "conformance/suite.rs"]
#[allow(dead_code, unused_macros, unused_imports)]
mod suite;

use std::time::{Duration, Instant};

use flotilla_registry::store::{
    CALL_TIMEOUT, KeyRange, Operation, RangeRequest, Revision, StoreError, WatchMessage,
};
use futures_util::StreamExt;
use server::{Server, free_port, store_over};
use suite::{all_of, changes, end_of, put, put_leased, read, write};

/// What scheduling on a busy machine may add to a bound.
const SLACK: Duration = Duration::from_secs(2);

fn dead() -> String {
    format!("http://127.0.0.1:{}", free_port())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_endpoint_dead_fails_no_call() {
    let server = Server::start().await;
    for endpoints in [[dead(), server.url()], [server.url(), dead()]] {
        for _ in 0..10 {
            // A new store each time, as the endpoint it begins with is random.
            let store = store_over(endpoints.clone());
            let revision = write(&store, "a", "1").await;
            assert_eq!(read(&store, "a").await.unwrap().mod_revision, revision);
            let mut watch = store.watch(KeyRange::key("a"), revision).await.unwrap();
            assert_eq!(changes(&mut watch).await.0, revision);
            let (lease, _) = store.lease_grant(Duration::from_secs(10)).await.unwrap();
            store.lease_keep_alive(lease, Duration::from_secs(2)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn all_endpoints_dead_is_said_soon_and_surely() {
    let endpoints = [dead(), dead()];
    let store = store_over(endpoints.clone());
    let start = Instant::now();
    let refused = store.range(RangeRequest::all(KeyRange::key("a"))).await.unwrap_err();
    let StoreError::Unreachable { endpoints: tried, why } = &refused else { panic!("{refused:?}") };
    assert!(endpoints.iter().all(|endpoint| tried.contains(endpoint)), "{tried}");
    assert!(why.contains("refused"), "{why}");
    assert!(start.elapsed() < SLACK, "{:?}", start.elapsed());
    // A write that was never sent is known to have had no effect.
    let refused = store.txn(all_of([put("a", "1")])).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unreachable { .. }), "{refused:?}");
    let refused = store.watch(KeyRange::key("a"), Revision(1)).await.err().unwrap();
    assert!(matches!(refused, StoreError::Unreachable { .. }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_bounds_calls_and_ends_watches() {
    let server = Server::start().await;
    let store = server.store();
    let written = write(&store, "a", "1").await;
    let (lease, _) = store.lease_grant(Duration::from_secs(60)).await.unwrap();
    store.lease_keep_alive(lease, Duration::from_secs(2)).await.unwrap();
    let mut watch = store.watch(KeyRange::key("a"), written).await.unwrap();
    changes(&mut watch).await;

    server.freeze();
    let start = Instant::now();
    let (ended, lost, refused, renewed) = tokio::join!(
        async { (end_of(&mut watch).await, start.elapsed()) },
        async { (store.txn(all_of([put("a", "2")])).await, start.elapsed()) },
        async { (store.range(RangeRequest::all(KeyRange::key("a"))).await, start.elapsed()) },
        async { (store.lease_keep_alive(lease, Duration::from_secs(1)).await, start.elapsed()) },
    );
    assert!(matches!(ended.0, StoreError::WatchEnded(_)), "{:?}", ended.0);
    // By the ping: there is no other member for which it would be given up sooner.
    assert!(ended.1 < Duration::from_secs(20) + SLACK, "the watch ended after {:?}", ended.1);
    assert!(matches!(lost.0, Err(StoreError::OutcomeUnknown { .. })), "{:?}", lost.0);
    assert!(lost.1 < CALL_TIMEOUT + SLACK, "{:?}", lost.1);
    assert!(matches!(refused.0, Err(StoreError::Unreachable { .. })), "{:?}", refused.0);
    assert!(refused.1 < CALL_TIMEOUT + SLACK, "{:?}", refused.1);
    assert!(matches!(renewed.0, Err(StoreError::Unreachable { .. })), "{:?}", renewed.0);
    assert!(renewed.1 < Duration::from_secs(1) + SLACK, "{:?}", renewed.1);

    server.thaw();
    read(&store, "a").await.unwrap();
    store.lease_keep_alive(lease, Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_endpoint_serves_while_one_hangs() {
    let servers = Server::start_three().await;
    let store = store_over(servers.iter().map(Server::url));
    let (lease, _) = store.lease_grant(Duration::from_secs(60)).await.unwrap();
    write(&store, "a", "1").await;
    for frozen in &servers {
        frozen.freeze();
        let start = Instant::now();
        // Renewal and read each fit into one call's time, whichever member it is.
        store.lease_keep_alive(lease, Duration::from_secs(4)).await.unwrap();
        store.range(RangeRequest::all(KeyRange::key("a"))).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(9) + SLACK, "{:?}", start.elapsed());
        frozen.thaw();
        // Whoever was frozen catches up before the next one is.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_idle_watch_lives_and_writes_nothing() {
    let server = Server::start().await;
    let store = server.store();
    let written = write(&store, "a", "1").await;
    let mut watch = store.watch(KeyRange::key("b"), Revision(written.0 + 1)).await.unwrap();
    let fsyncs = || server.metric("etcd_disk_wal_fsync_duration_seconds_count");
    let before = fsyncs();
    // Two rounds of pings and more than what ends a silent one.
    let silent = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
    assert!(silent.is_err(), "{silent:?}");
    assert!(fsyncs() - before < 1.0, "an idle watch writes nothing");
    let next = write(&store, "b", "1").await;
    assert_eq!(changes(&mut watch).await.0, next);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_store_serves_after_a_restart_and_leases_survive() {
    let mut server = Server::start().await;
    let store = server.store();
    let (lease, _) = store.lease_grant(Duration::from_secs(60)).await.unwrap();
    let written = store.txn(all_of([put_leased("a", "1", lease)])).await.unwrap().revision;
    store.lease_keep_alive(lease, Duration::from_secs(2)).await.unwrap();
    let mut watch = store.watch(KeyRange::key("a"), Revision(written.0 + 1)).await.unwrap();
    server.kill();
    let ended = end_of(&mut watch).await;
    assert!(matches!(ended, StoreError::WatchEnded(_)), "{ended:?}");
    let away = store.txn(all_of([put("a", "2")])).await.unwrap_err();
    assert!(away.is_transient(), "{away:?}");
    server.restart().await;
    let kv = read(&store, "a").await.unwrap();
    assert_eq!((kv.mod_revision, kv.lease), (written, Some(lease)));
    let left = store.lease_keep_alive(lease, Duration::from_secs(2)).await.unwrap();
    assert_eq!(left, Duration::from_secs(60));
    let mut watch = store.watch(KeyRange::key("a"), Revision(written.0 + 1)).await.unwrap();
    let next = write(&store, "a", "3").await;
    assert_eq!(changes(&mut watch).await.0, next);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_of_three_killed_changes_nothing_for_long() {
    let mut servers = Server::start_three().await;
    let store = store_over(servers.iter().map(Server::url));
    let (lease, _) = store.lease_grant(Duration::from_secs(60)).await.unwrap();
    for member in &mut servers {
        let before = write(&store, "a", "before").await;
        member.kill();
        // If it was the leader the others elect one: at most some seconds of unknown outcomes.
        let start = Instant::now();
        loop {
            match store.txn(all_of([put("a", "again")])).await {
                Ok(_) => break,
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
            assert!(start.elapsed() < Duration::from_secs(15), "no leader after {:?}", start.elapsed());
        }
        assert!(read(&store, "a").await.unwrap().mod_revision > before);
        store.lease_keep_alive(lease, Duration::from_secs(4)).await.unwrap();
        let mut watch = store.watch(KeyRange::key("a"), Revision(before.0 + 1)).await.unwrap();
        assert!(changes(&mut watch).await.0 > before);
        member.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_may_exceed_four_mebibytes() {
    let server = Server::start().await;
    let store = server.store();
    for index in 0..6 {
        write(&store, &format!("big/{index}"), &"v".repeat(1_000_000)).await;
    }
    let all = store.range(RangeRequest::all(KeyRange::prefix("big/"))).await.unwrap();
    assert_eq!(all.kvs.len(), 6);
    let answer = store.txn(all_of([Operation::Get(KeyRange::prefix("big/"))])).await.unwrap();
    assert_eq!(answer.gets[0].len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ended_under_an_open_stream_is_not_found() {
    let server = Server::start().await;
    let (store, other) = (server.store(), server.store());
    let (lease, _) = store.lease_grant(Duration::from_secs(60)).await.unwrap();
    store.lease_keep_alive(lease, Duration::from_secs(2)).await.unwrap();
    other.lease_revoke(lease).await.unwrap();
    for _ in 0..2 {
        // First over the stream that is open, then over a new one.
        let gone = store.lease_keep_alive(lease, Duration::from_secs(2)).await;
        assert!(matches!(gone, Err(StoreError::LeaseNotFound(id)) if id == lease), "{gone:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_says_so() {
    let server = Server::start_with(&["--quota-backend-bytes", "4000000"], None).await;
    let store = server.store();
    let mut last = None;
    for index in 0..20 {
        if let Err(error) = store.txn(all_of([put(&format!("f/{index}"), &"v".repeat(1_000_000))])).await {
            last = Some(error);
            break;
        }
    }
    let error = last.expect("the quota is met");
    assert!(matches!(error, StoreError::NoSpace(_)), "{error:?}");
    assert!(error.to_string().contains("quota"), "{error}");
    store.range(RangeRequest::all(KeyRange::key("f/0"))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_share_connections() {
    let server = Server::start().await;
    let store = server.store();
    let from = Revision(write(&store, "start", "").await.0 + 1);
    let mut watches = Vec::new();
    for index in 0..1_000 {
        watches.push(store.watch(KeyRange::key(format!("w/{index}")), from).await.unwrap());
    }
    let connections = server.metric("process_open_fds");
    assert!(connections < 100.0, "{connections} open files for 1,000 watches");
    for (index, watch) in watches.iter_mut().enumerate().step_by(97) {
        let revision = write(&store, &format!("w/{index}"), "").await;
        match watch.next().await {
            Some(Ok(WatchMessage::Events { revision: seen, .. })) => assert_eq!(seen, revision),
            other => panic!("{other:?}"),
        }
    }
}
