use std::{collections::BTreeMap, sync::Arc, time::Duration};

use flotilla_registry::{
    election::Candidate,
    keys::Keys,
    store::{
        KeyRange, KeyValue, Operation, RangeRequest, Revision, Store, Txn, WatchEvent,
        embedded::EmbeddedStore,
        faults::{Faults, FaultyStore, Link},
    },
    stream::{Change, ChangeStream, StreamError},
    timing::Timing,
    witness::{SharedWitness, WentBack, WentBackReason, Witness},
};
use proptest::prelude::*;
use tokio::time::{sleep, timeout};

use super::{beside, get, put, soon, store};

const UNITS: &str = "/flotilla/units/";

fn stream(store: &Arc<dyn Store>, witness: &SharedWitness) -> ChangeStream {
    let (keys, range) = (Keys::default(), KeyRange::prefix(UNITS));
    ChangeStream::new(store.clone(), &keys, range, witness.clone(), &Timing::default())
}

/// A consumer's cache, which also checks what a stream guarantees.
#[derive(Debug, Default)]
struct Cache {
    kvs: BTreeMap<String, KeyValue>,
    revision: Revision,
    resets: usize,
    errors: usize,
}

impl Cache {
    fn take(&mut self, item: Result<Change, StreamError>) {
        match item {
            Ok(Change::Reset { kvs, revision }) => {
                assert!(revision >= self.revision, "a reset at {revision:?} after {:?}", self.revision);
                self.kvs = kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
                self.revision = revision;
                self.resets += 1;
            }
            Ok(Change::Changes { revision, events }) => {
                assert!(revision > self.revision, "{revision:?} after {:?}", self.revision);
                self.revision = revision;
                for event in events {
                    match event {
                        WatchEvent::Put(kv) => {
                            let before = self.kvs.get(&kv.key).map_or(0, |kv| kv.version);
                            assert_eq!(kv.version, before + 1, "every change of {} once", kv.key);
                            self.kvs.insert(kv.key.clone(), kv);
                        }
                        WatchEvent::Delete { key, .. } => {
                            assert!(self.kvs.remove(&key).is_some(), "{key} was never there");
                        }
                    }
                }
            }
            Ok(Change::Progress(revision)) => {
                assert!(revision >= self.revision);
                self.revision = revision;
            }
            Err(StreamError::WentBack(went_back)) => panic!("{went_back}"),
            Err(_) => self.errors += 1,
        }
    }

    /// Follows for a time, while errors may come without end.
    async fn follow_for(&mut self, time: Duration, stream: &mut ChangeStream) {
        let follow = async {
            loop {
                let item = stream.next().await;
                self.take(item);
            }
        };
        let _ = timeout(time, follow).await;
    }

    /// Follows until nothing has come for a minute; the link has to be up.
    async fn follow(&mut self, stream: &mut ChangeStream) {
        while let Ok(item) = timeout(Duration::from_secs(60), stream.next()).await {
            self.take(item);
        }
    }
}

async fn all(faults: &Faults) -> BTreeMap<String, KeyValue> {
    let read = faults.store().range(RangeRequest::all(KeyRange::prefix(UNITS))).await.expect("a read");
    read.kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect()
}

async fn reset(stream: &mut ChangeStream) -> (usize, Revision) {
    match soon("the reset", stream.next()).await {
        Ok(Change::Reset { kvs, revision }) => (kvs.len(), revision),
        other => panic!("{other:?}"),
    }
}

async fn went_back(stream: &mut ChangeStream) -> WentBackReason {
    loop {
        match soon("the store that went back", stream.next()).await {
            Err(StreamError::WentBack(WentBack(reason))) => return reason,
            Err(_) => {}
            Ok(change) => panic!("{change:?} of a store that went back"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_lists_and_then_tells_changes_and_nothing_of_other_keys() {
    let (store, faults) = store(1);
    put(&*store, "/flotilla/units/a.service", "1", None).await;
    let mut stream = stream(&store, &SharedWitness::default());
    let mut cache = Cache::default();
    cache.follow(&mut stream).await;
    put(&*store, "/flotilla/units/b.service", "1", None).await;
    put(&*store, "/flotilla/machines/x", "1", None).await;
    put(&*store, "/flotilla/units/a.service", "2", None).await;
    let delete = Operation::Delete(KeyRange::key("/flotilla/units/b.service"));
    store.txn(Txn { then: vec![delete], ..Txn::default() }).await.unwrap();
    cache.follow(&mut stream).await;
    assert_eq!((cache.resets, cache.errors, &cache.kvs), (1, 0, &all(&faults).await));
    let calls = faults.calls();
    assert!(timeout(Duration::from_secs(3_600), stream.next()).await.is_err(), "nothing happens");
    assert_eq!(faults.calls(), calls, "and nothing is asked");
}

#[tokio::test(start_paused = true)]
async fn it_resumes_after_a_reconnect_without_a_reset() {
    let (store, faults) = store(2);
    let (writer, _) = beside(&faults, 3);
    let mut stream = stream(&store, &SharedWitness::default());
    let mut cache = Cache::default();
    cache.follow(&mut stream).await;
    for link in [Link::Cut, Link::Hung] {
        faults.set_link(link);
        for n in 0..20 {
            put(&*writer, &format!("{UNITS}{n}.service"), "v", None).await;
        }
        cache.follow_for(Duration::from_secs(30), &mut stream).await;
        faults.set_link(Link::Up);
        cache.follow(&mut stream).await;
    }
    assert_eq!((cache.resets, &cache.kvs), (1, &all(&faults).await));
    assert!(cache.errors > 2, "errors are told: {}", cache.errors);
}

#[tokio::test(start_paused = true)]
async fn it_lists_anew_after_a_compaction_that_it_slept_through() {
    let (store, faults) = store(4);
    let (writer, _) = beside(&faults, 5);
    put(&*writer, "/flotilla/units/gone.service", "1", None).await;
    let mut stream = stream(&store, &SharedWitness::default());
    let mut cache = Cache::default();
    cache.follow(&mut stream).await;
    faults.set_link(Link::Cut);
    for n in 0..5 {
        put(&*writer, &format!("{UNITS}{n}.service"), "v", None).await;
    }
    let delete = Operation::Delete(KeyRange::key("/flotilla/units/gone.service"));
    writer.txn(Txn { then: vec![delete], ..Txn::default() }).await.unwrap();
    faults.compact().await.unwrap();
    faults.set_link(Link::Up);
    cache.follow(&mut stream).await;
    assert_eq!((cache.resets, &cache.kvs), (2, &all(&faults).await));
}

#[tokio::test(start_paused = true)]
async fn waits_after_errors_grow_and_are_told() {
    let (store, faults) = store(6);
    faults.set_link(Link::Cut);
    let mut stream = stream(&store, &SharedWitness::default());
    let mut waits = Vec::new();
    for _ in 0..12 {
        match stream.next().await {
            Err(StreamError::Store { wait, .. }) => waits.push(wait),
            other => panic!("{other:?}"),
        }
    }
    let timing = Timing::default();
    assert!(waits[0] <= timing.retry_first && waits[11] >= timing.retry_max / 2, "{waits:?}");
    faults.set_link(Link::Up);
    reset(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_a_pending_next_loses_nothing() {
    let (store, faults) = store(7);
    for n in 0..50 {
        put(&*store, &format!("{UNITS}{n}.service"), "v", None).await;
    }
    faults.slow(Duration::from_millis(400), Duration::from_millis(600));
    let mut stream = stream(&store, &SharedWitness::default());
    let mut ticks = 0;
    let change = soon("the reset", async {
        loop {
            tokio::select! {
                change = stream.next() => return change,
                () = sleep(Duration::from_millis(10)) => ticks += 1,
            }
        }
    })
    .await;
    assert!(matches!(change, Ok(Change::Reset { kvs, .. }) if kvs.len() == 50));
    assert!(ticks > 50);
}

#[tokio::test(start_paused = true)]
async fn it_stops_at_a_store_that_went_back_until_that_is_accepted() {
    let embedded = Arc::new(EmbeddedStore::in_memory());
    let (faulty, faults) = FaultyStore::new(embedded.clone(), 8);
    let store: Arc<dyn Store> = Arc::new(faulty);
    put(&*store, "/flotilla/units/early.service", "1", None).await;
    let backup = embedded.snapshot();
    put(&*store, "/flotilla/units/late.service", "1", None).await;
    let witness = SharedWitness::default();
    let mut stream = stream(&store, &witness);
    let (keys, seen) = reset(&mut stream).await;
    assert_eq!(keys, 2);
    faults.restore(&backup);
    assert!(matches!(went_back(&mut stream).await, WentBackReason::Revision { .. }));
    // Also when the store has caught up: what it says now is another history.
    for _ in 0..20 {
        put(&*store, "/flotilla/units/other.service", "1", None).await;
    }
    assert!(timeout(Duration::from_secs(3_600), stream.next()).await.is_err());
    witness.accept();
    let (keys, revision) = reset(&mut stream).await;
    assert!(keys == 2 && revision > seen);
    assert_eq!(witness.get().revision, revision);
}

#[tokio::test(start_paused = true)]
async fn it_stops_when_the_cluster_record_goes_back_under_its_watch() {
    let (store, _) = store(14);
    let machine = "113f16a7a0f84c4c8a3f9e3b2f4d6c01".parse().expect("a machine id");
    let campaign = async || {
        let (store, timing) = (store.clone(), Timing::default());
        let candidate = Candidate::new(store, Keys::default(), machine, SharedWitness::default(), timing);
        soon("the election", candidate.campaign()).await.unwrap().resign().await.unwrap();
    };
    campaign().await;
    let older = get(&*store, "/flotilla/cluster").await.unwrap().value.to_vec();
    let (witness, keys) = (SharedWitness::default(), Keys::default());
    let mut stream =
        ChangeStream::new(store.clone(), &keys, keys.everything(), witness.clone(), &Timing::default());
    reset(&mut stream).await;
    let first = witness.get().term;
    campaign().await;
    while witness.get().term == first {
        soon("a change", stream.next()).await.unwrap();
    }
    soon("the resignation", stream.next()).await.unwrap();
    put(&*store, "/flotilla/cluster", std::str::from_utf8(&older).unwrap(), None).await;
    assert!(matches!(went_back(&mut stream).await, WentBackReason::TermMissing { .. }));
    witness.accept();
    reset(&mut stream).await;
    let delete = Operation::Delete(KeyRange::key("/flotilla/cluster"));
    store.txn(Txn { then: vec![delete], ..Txn::default() }).await.unwrap();
    assert!(matches!(went_back(&mut stream).await, WentBackReason::ClusterMissing { .. }));
}

#[tokio::test(start_paused = true)]
async fn an_acceptance_lists_anew_also_where_all_was_well() {
    let (store, _) = store(15);
    put(&*store, "/flotilla/units/a.service", "1", None).await;
    let witness = SharedWitness::default();
    let mut stream = stream(&store, &witness);
    reset(&mut stream).await;
    witness.accept();
    assert_eq!(reset(&mut stream).await.0, 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_across_a_restart_is_compared() {
    let (store, _) = store(9);
    let witness = SharedWitness::default();
    let machine = "113f16a7a0f84c4c8a3f9e3b2f4d6c01".parse().expect("a machine id");
    let candidate =
        Candidate::new(store.clone(), Keys::default(), machine, witness.clone(), Timing::default());
    let leadership = soon("the election", candidate.campaign()).await.unwrap();
    reset(&mut stream(&store, &witness)).await;
    let kept = witness.get();
    assert_eq!(kept.cluster.as_ref(), Some(&leadership.cluster().id));
    assert_eq!(kept.term.as_deref(), Some(leadership.term()));

    let of = |kept: Witness| stream(&store, &SharedWitness::new(kept));
    reset(&mut of(kept.clone())).await;
    let other = Witness { cluster: Some("another".to_owned()), ..kept.clone() };
    assert!(matches!(went_back(&mut of(other)).await, WentBackReason::OtherCluster { .. }));
    let missing = Witness { term: Some("seen once".to_owned()), ..kept.clone() };
    assert!(matches!(went_back(&mut of(missing)).await, WentBackReason::TermMissing { .. }));
    let later = Witness { revision: Revision(1_000), ..kept };
    assert!(matches!(went_back(&mut of(later)).await, WentBackReason::Revision { .. }));
}

#[tokio::test(start_paused = true)]
async fn terms_are_learnt_from_the_stream_itself() {
    let (store, _) = store(10);
    let witness = SharedWitness::default();
    let everything = Keys::default().everything();
    let timing = Timing::default();
    let mut stream = ChangeStream::new(store.clone(), &Keys::default(), everything, witness.clone(), &timing);
    reset(&mut stream).await;
    let machine = "113f16a7a0f84c4c8a3f9e3b2f4d6c01".parse().expect("a machine id");
    let elsewhere = SharedWitness::default();
    let candidate = Candidate::new(store, Keys::default(), machine, elsewhere, timing);
    let leadership = soon("the election", candidate.campaign()).await.unwrap();
    soon("the term", async {
        while witness.get().term.as_deref() != Some(leadership.term()) {
            stream.next().await.unwrap();
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_corrupted_cluster_record_is_told_and_nothing_is_delivered() {
    let (store, _) = store(11);
    put(&*store, "/flotilla/cluster", "not JSON", None).await;
    let mut stream = stream(&store, &SharedWitness::default());
    for _ in 0..3 {
        assert!(matches!(stream.next().await, Err(StreamError::Record { .. })));
    }
    put(&*store, "/flotilla/cluster", r#"{"v":1,"id":"c","epoch":1,"terms":[],"tokens_reserved":0}"#, None)
        .await;
    reset(&mut stream).await;
}

/// What happens to a running stream in the property test.
#[derive(Debug, Clone, Copy)]
enum Event {
    Put(u8),
    PutTwo(u8, u8),
    Delete(u8),
    Link(Link),
    EndWatches,
    Compact,
    Follow(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..8_u8).prop_map(Event::Put),
        2 => (0..4_u8, 4..8_u8).prop_map(|(a, b)| Event::PutTwo(a, b)),
        2 => (0..8_u8).prop_map(Event::Delete),
        1 => prop_oneof![Just(Link::Up), Just(Link::Cut), Just(Link::Hung)].prop_map(Event::Link),
        1 => Just(Event::EndWatches),
        1 => Just(Event::Compact),
        2 => (0..8_000_u64).prop_map(Event::Follow),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever happens, the cache gets every change once and in order, and ends as the store is.
    #[test]
    fn the_cache_becomes_the_store(events in prop::collection::vec(event(), 1..60), seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let (store, faults) = store(seed);
            let (writer, _) = beside(&faults, seed);
            let mut stream = stream(&store, &SharedWitness::default());
            let mut cache = Cache::default();
            let key = |n: u8| format!("{UNITS}{n}.service");
            let write = |n| Operation::Put { key: key(n), value: b"v".to_vec(), lease: None };
            for event in events {
                let then = match event {
                    Event::Put(n) => vec![write(n)],
                    Event::PutTwo(a, b) => vec![write(a), write(b)],
                    Event::Delete(n) => vec![Operation::Delete(KeyRange::key(key(n)))],
                    Event::Link(link) => {
                        faults.set_link(link);
                        continue;
                    }
                    Event::EndWatches => {
                        faults.end_watches();
                        continue;
                    }
                    Event::Compact => {
                        faults.compact().await.expect("compacts");
                        continue;
                    }
                    Event::Follow(ms) => {
                        cache.follow_for(Duration::from_millis(ms), &mut stream).await;
                        continue;
                    }
                };
                writer.txn(Txn { then, ..Txn::default() }).await.expect("writes");
            }
            faults.set_link(Link::Up);
            cache.follow(&mut stream).await;
            assert_eq!(cache.kvs, all(&faults).await);
        });
    }
}
