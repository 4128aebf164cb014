//! What every store must do: one list of cases, run on each of them.
//!
//! A case gets a fresh store and asserts. `for_each_case!(start)` makes a test of every case; `start`
//! returns something that keeps the store alive and has `store()`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use flotilla_registry::store::{
    Compare, KeyRange, KeyValue, LeaseId, Operation, RangeRequest, Revision, Store, StoreError, Txn,
    WatchEvent, WatchMessage, WatchStream,
};
use futures_util::StreamExt;
use tokio::time::timeout;

/// How long anything that a healthy store does at once may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

macro_rules! for_each_case {
    ($start:path) => {
        $crate::suite::for_each_case! { $start:
            put_and_read, delete_and_recreate, range_limits, range_at_a_revision, every_compare,
            gets_within_a_transaction, revisions_grow_with_writes_only, requests_that_can_never_succeed,
            lease_floor_and_revoke, lease_expiry, a_key_leaves_its_lease, unknown_leases, watch_order,
            watch_from_the_past_and_the_future, watch_whole_revisions, watch_after_compaction,
            compaction_errors, many_watches, concurrent_increments, status,
        }
    };
    ($start:path: $($case:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let running = $start().await;
                $crate::suite::$case(running.store()).await;
            }
        )*
    };
}
pub(crate) use for_each_case;

pub type Subject = Arc<dyn Store>;

pub fn put(key: &str, value: &str) -> Operation {
    Operation::Put { key: key.into(), value: value.into(), lease: None }
}

pub fn put_leased(key: &str, value: &str, lease: LeaseId) -> Operation {
    Operation::Put { key: key.into(), value: value.into(), lease: Some(lease) }
}

pub fn all_of(then: impl IntoIterator<Item = Operation>) -> Txn {
    Txn { then: then.into_iter().collect(), ..Txn::default() }
}

pub async fn write(store: &Subject, key: &str, value: &str) -> Revision {
    store.txn(all_of([put(key, value)])).await.unwrap().revision
}

pub async fn read(store: &Subject, key: &str) -> Option<KeyValue> {
    store.range(RangeRequest::all(KeyRange::key(key))).await.unwrap().kvs.pop()
}

pub async fn revision(store: &Subject) -> Revision {
    store.range(RangeRequest::all(KeyRange::key("none"))).await.unwrap().revision
}

/// The next revision's changes; progress is not a change.
pub async fn changes(watch: &mut WatchStream) -> (Revision, Vec<WatchEvent>) {
    loop {
        match timeout(PATIENCE, watch.next()).await.expect("a watch message in time") {
            Some(Ok(WatchMessage::Events { revision, events })) => return (revision, events),
            Some(Ok(WatchMessage::Progress(_))) => {}
            other => panic!("expected changes, got {other:?}"),
        }
    }
}

/// The error that the watch ends with, and that nothing follows it.
pub async fn end_of(watch: &mut WatchStream) -> StoreError {
    loop {
        match timeout(PATIENCE, watch.next()).await.expect("the end of the watch in time") {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                assert!(watch.next().await.is_none(), "a watch ends with its error");
                return error;
            }
            None => panic!("the watch ended without an error"),
        }
    }
}

fn keys(kvs: &[KeyValue]) -> Vec<&str> {
    kvs.iter().map(|kv| kv.key.as_str()).collect()
}

fn invalid<T: std::fmt::Debug>(result: Result<T, StoreError>, part: &str) {
    match result {
        Err(StoreError::Invalid(why)) => assert!(why.contains(part), "{why:?} does not say {part:?}"),
        other => panic!("expected Invalid({part}), got {other:?}"),
    }
}

pub async fn put_and_read(store: Subject) {
    assert!(read(&store, "a/1").await.is_none());
    let first = write(&store, "a/1", "one").await;
    let second = write(&store, "a/1", "two").await;
    assert_eq!(second.0, first.0 + 1);
    let kv = read(&store, "a/1").await.unwrap();
    assert_eq!(&*kv.value, b"two");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version, kv.lease), (first, second, 2, None));
    // Values are bytes: any, and none.
    let operation = Operation::Put { key: "a/2".into(), value: vec![0, 255, 10], lease: None };
    store.txn(all_of([operation, put("a/3", "")])).await.unwrap();
    assert_eq!(&*read(&store, "a/2").await.unwrap().value, [0, 255, 10]);
    assert!(read(&store, "a/3").await.unwrap().value.is_empty());
}

pub async fn delete_and_recreate(store: Subject) {
    write(&store, "a/1", "x").await;
    write(&store, "a/2", "x").await;
    write(&store, "b/1", "x").await;
    let deleted = store.txn(all_of([Operation::Delete(KeyRange::prefix("a/"))])).await.unwrap().revision;
    let left = store.range(RangeRequest::all(KeyRange::between("a", "z"))).await.unwrap();
    assert_eq!((keys(&left.kvs), left.revision), (vec!["b/1"], deleted));
    let again = write(&store, "a/1", "y").await;
    let kv = read(&store, "a/1").await.unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (again, again, 1));
}

pub async fn range_limits(store: Subject) {
    store.txn(all_of((0..5).map(|index| put(&format!("r/{index}"), "value")))).await.unwrap();
    write(&store, "r0", "just above the prefix").await;
    write(&store, "r", "just below it").await;
    let all = store.range(RangeRequest::all(KeyRange::prefix("r/"))).await.unwrap();
    assert_eq!(keys(&all.kvs), ["r/0", "r/1", "r/2", "r/3", "r/4"]);
    assert_eq!((all.more, all.count), (false, 5));
    let request =
        RangeRequest { limit: Some(2), keys_only: true, ..RangeRequest::all(KeyRange::prefix("r/")) };
    let page = store.range(request).await.unwrap();
    assert_eq!(keys(&page.kvs), ["r/0", "r/1"]);
    assert_eq!(page.count, 5, "all that there are, not those of the page");
    assert!(page.more && page.kvs.iter().all(|kv| kv.value.is_empty() && kv.version == 1));
    let request = RangeRequest { limit: Some(5), ..RangeRequest::all(KeyRange::prefix("r/")) };
    assert!(!store.range(request).await.unwrap().more);
    let counted = store.range(RangeRequest::all(KeyRange::between("r/1", "r/4")).count()).await.unwrap();
    assert_eq!((counted.count, keys(&counted.kvs)), (3, vec!["r/1"]));
    assert!(counted.kvs[0].value.is_empty());
    let window = store.range(RangeRequest::all(KeyRange::between("r/1", "r/3"))).await.unwrap();
    assert_eq!(keys(&window.kvs), ["r/1", "r/2"]);
}

pub async fn range_at_a_revision(store: Subject) {
    let first = write(&store, "a", "1").await;
    let second = write(&store, "a", "2").await;
    let third = store.txn(all_of([Operation::Delete(KeyRange::key("a"))])).await.unwrap().revision;
    let at = |revision| store.range(RangeRequest::all(KeyRange::key("a")).at(revision));
    assert_eq!(&*at(first).await.unwrap().kvs[0].value, b"1");
    let old = at(second).await.unwrap();
    assert_eq!((&*old.kvs[0].value, old.revision), (&b"2"[..], third), "the answer's revision is the newest");
    assert!(at(third).await.unwrap().kvs.is_empty());
    invalid(at(Revision(third.0 + 1)).await, "");
    store.compact(second).await.unwrap();
    assert!(matches!(at(first).await, Err(StoreError::Compacted { wanted, .. }) if wanted == first));
    assert_eq!(&*at(second).await.unwrap().kvs[0].value, b"2", "what is compacted to can be read");
}

pub async fn every_compare(store: Subject) {
    let created = write(&store, "k", "1").await;
    let modified = write(&store, "k", "2").await;
    let cases = [
        (Compare::ModRevision("k".into(), modified), true),
        (Compare::ModRevision("k".into(), created), false),
        (Compare::ModRevision("none".into(), Revision(0)), true),
        (Compare::CreateRevision("k".into(), created), true),
        (Compare::CreateRevision("k".into(), modified), false),
        (Compare::CreateRevision("none".into(), Revision(0)), true),
        (Compare::CreateRevision("none".into(), created), false),
        (Compare::Absent("k".into()), false),
        (Compare::Absent("none".into()), true),
        (Compare::Present("k".into()), true),
        (Compare::Present("none".into()), false),
        (Compare::Unwritten(KeyRange::prefix("k"), modified), true),
        (Compare::Unwritten(KeyRange::prefix("k"), created), false),
        (Compare::Unwritten(KeyRange::key("k"), created), false),
        (Compare::Unwritten(KeyRange::between("k\0", "z"), Revision(0)), true),
        (Compare::Unwritten(KeyRange::prefix("none"), Revision(0)), true),
    ];
    for (compare, holds) in &cases {
        let txn = Txn { when: vec![compare.clone()], then: vec![put("held", "")], or_else: vec![] };
        let before = revision(&store).await;
        let answer = store.txn(txn).await.unwrap();
        assert_eq!(answer.succeeded, *holds, "{compare:?}");
        assert_eq!(answer.revision.0, before.0 + i64::from(*holds), "{compare:?}");
    }
    let when = vec![Compare::Present("k".into()), Compare::Absent("k".into())];
    let txn = Txn { when, then: vec![put("k", "wrong")], or_else: vec![Operation::Get(KeyRange::key("k"))] };
    let answer = store.txn(txn).await.unwrap();
    assert!(!answer.succeeded, "one compare that does not hold is enough");
    assert_eq!(&*answer.gets[0][0].value, b"2");
}

pub async fn gets_within_a_transaction(store: Subject) {
    write(&store, "g/1", "old").await;
    let answer = store
        .txn(all_of([
            Operation::Get(KeyRange::prefix("g/")),
            put("g/1", "new"),
            Operation::Get(KeyRange::prefix("g/")),
            put("g/2", "two"),
            Operation::Delete(KeyRange::key("g/3")),
            Operation::Get(KeyRange::prefix("g/")),
            Operation::Get(KeyRange::key("none")),
        ]))
        .await
        .unwrap();
    let gets: Vec<Vec<&str>> = answer.gets.iter().map(|kvs| keys(kvs)).collect();
    assert_eq!(gets, [vec!["g/1"], vec!["g/1"], vec!["g/1", "g/2"], vec![]]);
    assert_eq!(&*answer.gets[0][0].value, b"old");
    assert_eq!((&*answer.gets[1][0].value, answer.gets[1][0].mod_revision), (&b"new"[..], answer.revision));
}

pub async fn revisions_grow_with_writes_only(store: Subject) {
    let start = write(&store, "a", "1").await;
    let reads = store.txn(all_of([Operation::Get(KeyRange::key("a"))])).await.unwrap();
    assert_eq!(reads.revision, start);
    let nothing = store.txn(all_of([Operation::Delete(KeyRange::prefix("none/"))])).await.unwrap();
    assert_eq!(nothing.revision, start, "deleting nothing is no write");
    assert_eq!(store.txn(Txn::default()).await.unwrap().revision, start);
    store.lease_grant(Duration::from_secs(60)).await.unwrap();
    assert_eq!(revision(&store).await, start, "a lease is no write");
    let many = store.txn(all_of((0..120).map(|index| put(&format!("m/{index}"), "")))).await.unwrap();
    assert_eq!(many.revision.0, start.0 + 1, "one transaction, one revision");
}

pub async fn requests_that_can_never_succeed(store: Subject) {
    let before = write(&store, "a", "1").await;
    let many = |count: usize| (0..count).map(|index| put(&format!("m/{index}"), ""));
    store.txn(all_of(many(128))).await.unwrap();
    invalid(store.txn(all_of(many(129))).await, "too many");
    let when = (0..129).map(|index| Compare::Absent(format!("m/{index}"))).collect();
    invalid(store.txn(Txn { when, ..Txn::default() }).await, "too many");
    invalid(store.txn(all_of([put("x", "1"), put("x", "2")])).await, "duplicate key");
    for operations in [
        [put("x/1", "1"), Operation::Delete(KeyRange::prefix("x/"))],
        [Operation::Delete(KeyRange::prefix("x/")), put("x/1", "1")],
    ] {
        invalid(store.txn(all_of(operations)).await, "duplicate key");
    }
    invalid(store.txn(all_of([put("", "1")])).await, "empty");
    invalid(store.txn(all_of([put("x", &"v".repeat(1_600_000))])).await, "too large");
    invalid(store.range(RangeRequest::all(KeyRange::between("b", "a"))).await, "empty");
    assert_eq!(revision(&store).await.0, before.0 + 1, "nothing of them was done");
    // Both branches may write a key, and deleted ranges may overlap.
    let txn = Txn { when: vec![], then: vec![put("x", "1")], or_else: vec![put("x", "2")] };
    store.txn(txn).await.unwrap();
    let twice = [Operation::Delete(KeyRange::prefix("m/")), Operation::Delete(KeyRange::key("m/1"))];
    store.txn(all_of(twice)).await.unwrap();
    // The largest that the contract promises.
    store.txn(all_of([put("x", &"v".repeat(1_390_000))])).await.unwrap();
}

pub async fn lease_floor_and_revoke(store: Subject) {
    let (_, granted) = store.lease_grant(Duration::from_millis(1_200)).await.unwrap();
    assert_eq!(granted, Duration::from_secs(2), "etcd's floor, whole seconds");
    let (lease, granted) = store.lease_grant(Duration::from_secs(60)).await.unwrap();
    assert_eq!(granted, Duration::from_secs(60));
    let attached = [put_leased("l/1", "", lease), put_leased("l/2", "", lease), put("l/3", "")];
    let written = store.txn(all_of(attached)).await.unwrap().revision;
    assert_eq!(read(&store, "l/1").await.unwrap().lease, Some(lease));
    let left = store.lease_keep_alive(lease, PATIENCE).await.unwrap();
    assert_eq!(left, Duration::from_secs(60));
    let status = store.lease_status(lease).await.unwrap().unwrap();
    assert_eq!(status.granted, granted);
    assert!(status.remaining > Duration::from_secs(50) && status.remaining <= granted);

    let mut watch = store.watch(KeyRange::prefix("l/"), Revision(written.0 + 1)).await.unwrap();
    store.lease_revoke(lease).await.unwrap();
    let (revision, events) = changes(&mut watch).await;
    assert_eq!(revision.0, written.0 + 1, "all keys of a lease end in one revision");
    let gone: Vec<_> = ["l/1", "l/2"].map(|key| WatchEvent::Delete { key: key.into(), revision }).into();
    assert_eq!(events, gone);
    assert_eq!(store.lease_status(lease).await.unwrap(), None);
    let left = store.range(RangeRequest::all(KeyRange::prefix("l/"))).await.unwrap();
    assert_eq!(keys(&left.kvs), ["l/3"]);
}

pub async fn lease_expiry(store: Subject) {
    let (short, _) = store.lease_grant(Duration::from_secs(2)).await.unwrap();
    let (renewed, _) = store.lease_grant(Duration::from_secs(3)).await.unwrap();
    let operations = [put_leased("e/short", "", short), put_leased("e/renewed", "", renewed)];
    let written = store.txn(all_of(operations)).await.unwrap().revision;
    let mut watch = store.watch(KeyRange::prefix("e/"), Revision(written.0 + 1)).await.unwrap();
    let granted = tokio::time::Instant::now();
    let gone = changes(&mut watch);
    tokio::pin!(gone);
    let (revision, events) = loop {
        tokio::select! {
            changes = &mut gone => break changes,
            () = tokio::time::sleep(Duration::from_millis(500)) => {
                store.lease_keep_alive(renewed, PATIENCE).await.unwrap();
            }
        }
    };
    // A quarter of a second for what passed between the grant and the first look at the clock.
    assert!(granted.elapsed() > Duration::from_millis(1_750), "not earlier: {:?}", granted.elapsed());
    assert_eq!(events, [WatchEvent::Delete { key: "e/short".into(), revision }]);
    assert!(read(&store, "e/renewed").await.is_some());
    assert_eq!(store.lease_status(short).await.unwrap(), None);
    let gone = store.lease_keep_alive(short, PATIENCE).await;
    assert!(matches!(gone, Err(StoreError::LeaseNotFound(id)) if id == short), "{gone:?}");
}

pub async fn a_key_leaves_its_lease(store: Subject) {
    let (first, _) = store.lease_grant(Duration::from_secs(60)).await.unwrap();
    let (second, _) = store.lease_grant(Duration::from_secs(60)).await.unwrap();
    store.txn(all_of([put_leased("a", "", first), put_leased("b", "", first)])).await.unwrap();
    store.txn(all_of([put_leased("a", "", second), put("b", "")])).await.unwrap();
    store.lease_revoke(first).await.unwrap();
    assert_eq!(read(&store, "a").await.unwrap().lease, Some(second));
    assert_eq!(read(&store, "b").await.unwrap().lease, None);
    // A key that was deleted and written anew does not end with the lease it once had.
    store.txn(all_of([Operation::Delete(KeyRange::key("a"))])).await.unwrap();
    write(&store, "a", "").await;
    store.lease_revoke(second).await.unwrap();
    assert!(read(&store, "a").await.is_some());
}

pub async fn unknown_leases(store: Subject) {
    let none = LeaseId(987_654_321);
    let before = revision(&store).await;
    let refused = store.txn(all_of([put("a", ""), put_leased("b", "", none)])).await;
    assert!(matches!(refused, Err(StoreError::LeaseNotFound(lease)) if lease == none), "{refused:?}");
    assert_eq!(revision(&store).await, before, "all or nothing");
    let refused = store.lease_keep_alive(none, PATIENCE).await;
    assert!(matches!(refused, Err(StoreError::LeaseNotFound(lease)) if lease == none), "{refused:?}");
    assert_eq!(store.lease_status(none).await.unwrap(), None);
    store.lease_revoke(none).await.unwrap();
    // A lease named only in the branch that is not taken does not matter.
    let txn = Txn { when: vec![], then: vec![put("a", "")], or_else: vec![put_leased("a", "", none)] };
    assert!(store.txn(txn).await.unwrap().succeeded);
}

pub async fn watch_order(store: Subject) {
    let from = Revision(revision(&store).await.0 + 1);
    let mut prefix = store.watch(KeyRange::prefix("w/"), from).await.unwrap();
    let mut single = store.watch(KeyRange::key("w/1"), from).await.unwrap();
    let mut window = store.watch(KeyRange::between("w/2", "w/4"), from).await.unwrap();
    let first = store.txn(all_of([put("w/2", "b"), put("w/1", "a"), put("x", "")])).await.unwrap().revision;
    write(&store, "outside", "").await;
    let second =
        store.txn(all_of([Operation::Delete(KeyRange::prefix("w/")), put("z", "")])).await.unwrap().revision;

    let (revision, events) = changes(&mut prefix).await;
    assert_eq!(revision, first);
    let [WatchEvent::Put(b), WatchEvent::Put(a)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((b.key.as_str(), &*b.value, b.version), ("w/2", &b"b"[..], 1));
    assert_eq!((a.key.as_str(), a.mod_revision, a.create_revision), ("w/1", first, first));
    let deleted = |key: &str| WatchEvent::Delete { key: key.into(), revision: second };
    assert_eq!(changes(&mut prefix).await, (second, vec![deleted("w/1"), deleted("w/2")]));
    assert_eq!(changes(&mut single).await.0, first);
    assert_eq!(changes(&mut single).await, (second, vec![deleted("w/1")]));
    assert_eq!(changes(&mut window).await.0, first);
    assert_eq!(changes(&mut window).await, (second, vec![deleted("w/2")]));
}

pub async fn watch_from_the_past_and_the_future(store: Subject) {
    let mut revisions = Vec::new();
    for index in 0..10 {
        revisions.push(write(&store, &format!("p/{index}"), "").await);
    }
    let future = Revision(revisions[9].0 + 3);
    let mut past = store.watch(KeyRange::prefix("p/"), revisions[3]).await.unwrap();
    let mut later = store.watch(KeyRange::prefix("p/"), future).await.unwrap();
    let mut zero = store.watch(KeyRange::prefix("p/"), Revision(0)).await.unwrap();
    for index in 10..15 {
        revisions.push(write(&store, &format!("p/{index}"), "").await);
    }
    for expected in &revisions[3..] {
        assert_eq!(changes(&mut past).await.0, *expected);
    }
    for expected in &revisions {
        assert_eq!(changes(&mut zero).await.0, *expected, "from zero is from the beginning");
    }
    for expected in revisions.iter().filter(|revision| **revision >= future) {
        assert_eq!(changes(&mut later).await.0, *expected);
    }
}

pub async fn watch_whole_revisions(store: Subject) {
    let from = Revision(revision(&store).await.0 + 1);
    let mut live = store.watch(KeyRange::prefix("big/"), from).await.unwrap();
    let value = "v".repeat(11_000);
    let mut written = Vec::new();
    for _ in 0..6 {
        let operations = (0..120).map(|index| put(&format!("big/{index:03}"), &value));
        written.push(store.txn(all_of(operations)).await.unwrap().revision);
    }
    let removed = store.txn(all_of([Operation::Delete(KeyRange::prefix("big/"))])).await.unwrap().revision;
    written.push(removed);
    // Some 8 MB of history at once: more than one response of etcd's, more than gRPC's default limit.
    let mut past = store.watch(KeyRange::prefix("big/"), from).await.unwrap();
    for watch in [&mut live, &mut past] {
        for expected in &written {
            let (revision, events) = changes(watch).await;
            assert_eq!((revision, events.len()), (*expected, 120), "all changes of a revision together");
        }
    }
}

pub async fn watch_after_compaction(store: Subject) {
    let first = write(&store, "a", "1").await;
    // From the future on: etcd reads a watch from the past out of the history some 100 ms later.
    let mut running = store.watch(KeyRange::prefix("other/"), Revision(first.0 + 1)).await.unwrap();
    let second = write(&store, "a", "2").await;
    let third = write(&store, "a", "3").await;
    store.compact(third).await.unwrap();
    let mut late = store.watch(KeyRange::key("a"), second).await.unwrap();
    match end_of(&mut late).await {
        StoreError::Compacted { wanted, oldest } => {
            assert_eq!(wanted, second);
            assert!(oldest == third || oldest == Revision(0));
        }
        other => panic!("expected Compacted, got {other:?}"),
    }
    let mut next = store.watch(KeyRange::key("a"), Revision(third.0 + 1)).await.unwrap();
    let fourth = store.txn(all_of([put("a", "4"), put("other/1", "")])).await.unwrap().revision;
    assert_eq!(changes(&mut next).await.0, fourth);
    assert_eq!(changes(&mut running).await.0, fourth, "a running watch survives a compaction");
}

pub async fn compaction_errors(store: Subject) {
    let first = write(&store, "a", "1").await;
    let second = write(&store, "a", "2").await;
    invalid(store.compact(Revision(second.0 + 1)).await, "");
    store.compact(second).await.unwrap();
    for old in [first, second] {
        let again = store.compact(old).await;
        assert!(matches!(again, Err(StoreError::Compacted { wanted, .. }) if wanted == old), "{again:?}");
    }
    assert_eq!(revision(&store).await, second, "compaction is no write");
}

pub async fn many_watches(store: Subject) {
    let from = Revision(revision(&store).await.0 + 1);
    let mut watches = Vec::new();
    for index in 0..300 {
        watches.push(store.watch(KeyRange::prefix(format!("n/{index}/")), from).await.unwrap());
    }
    let mut expected = Vec::new();
    for index in (0..300).rev() {
        expected.push(write(&store, &format!("n/{index}/key"), "").await);
    }
    for (watch, revision) in watches.iter_mut().zip(expected.into_iter().rev()) {
        let (seen, events) = changes(watch).await;
        assert_eq!((seen, events.len()), (revision, 1));
    }
}

pub async fn concurrent_increments(store: Subject) {
    let start = write(&store, "counter", "0").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut won = Vec::new();
            while won.len() < 10 {
                let kv = read(&store, "counter").await.unwrap();
                let value: u64 = std::str::from_utf8(&kv.value).unwrap().parse().unwrap();
                let txn = Txn {
                    when: vec![Compare::ModRevision("counter".into(), kv.mod_revision)],
                    then: vec![put("counter", &(value + 1).to_string())],
                    or_else: vec![],
                };
                let answer = store.txn(txn).await.unwrap();
                if answer.succeeded {
                    won.push(answer.revision);
                }
            }
            won
        });
    }
    let revisions: BTreeSet<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(&*read(&store, "counter").await.unwrap().value, b"80");
    let expected: BTreeSet<_> = (1..=80).map(|step| Revision(start.0 + step)).collect();
    assert_eq!(revisions, expected, "each winner has a revision of its own");
}

pub async fn status(store: Subject) {
    let written = write(&store, "a", "1").await;
    let status = store.status().await.unwrap();
    assert_eq!(status.revision, written);
    assert!(status.version.contains(' '), "name and version: {}", status.version);
}
