//! Sessions, elections and streams over a real etcd that is killed, started again and frozen; orders about
//! ranges of instances over one that lives.

// Helpers of tests are tests: they say what must hold in the shortest way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "over_store/range_cases.rs"]
mod range_cases;
#[path = "conformance/server.rs"]
#[allow(dead_code)]
mod server;
#[path = "conformance/suite.rs"]
#[allow(dead_code, unused_macros, unused_imports)]
mod suite;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use flotilla_registry::{
    election::Candidate,
    keys::Keys,
    session::{LostReason, Session, SessionState},
    store::{KeyRange, Operation, Revision, Txn, WatchEvent},
    stream::{Change, ChangeStream},
    timing::Timing,
    witness::SharedWitness,
};
use server::Server;
use suite::{Subject, put_leased, read, write};
use tokio::time::{sleep, timeout};

const UNITS: &str = "/flotilla/units/";

fn stream(store: &Subject) -> ChangeStream {
    let range = KeyRange::prefix(UNITS);
    ChangeStream::new(store.clone(), &Keys::default(), range, SharedWitness::default(), &Timing::default())
}

/// A consumer's cache: values by key, how many resets, and up to which revision.
#[derive(Debug, Default)]
struct Cache {
    values: BTreeMap<String, String>,
    revision: Revision,
    resets: usize,
}

impl Cache {
    /// Follows a stream until a key has a value.
    async fn follow_until(&mut self, stream: &mut ChangeStream, key: &str, value: &str) {
        let follow = async {
            while self.values.get(key).map(String::as_str) != Some(value) {
                self.take(stream.next().await);
            }
        };
        assert!(timeout(Duration::from_secs(60), follow).await.is_ok(), "{key} never became {value}");
    }

    fn take(&mut self, item: Result<Change, flotilla_registry::stream::StreamError>) {
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        match item {
            Ok(Change::Reset { kvs, revision }) => {
                self.values = kvs.into_iter().map(|kv| (kv.key, text(&kv.value))).collect();
                (self.revision, self.resets) = (revision, self.resets + 1);
            }
            Ok(Change::Changes { revision, events }) => {
                assert!(revision > self.revision);
                self.revision = revision;
                for event in events {
                    match event {
                        WatchEvent::Put(kv) => drop(self.values.insert(kv.key, text(&kv.value))),
                        WatchEvent::Delete { key, .. } => drop(self.values.remove(&key)),
                    }
                }
            }
            Ok(Change::Progress(_)) | Err(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_and_a_session_survive_a_restart_of_etcd() {
    let mut server = Server::start().await;
    let store = server.store();
    let session =
        Session::open("the test", store.clone(), Duration::from_secs(10), &Timing::default()).await.unwrap();
    let put = put_leased("/flotilla/machines/m", "alive", session.lease());
    store.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
    write(&store, "/flotilla/units/a", "1").await;
    let (mut stream, mut cache) = (stream(&store), Cache::default());
    cache.follow_until(&mut stream, "/flotilla/units/a", "1").await;
    server.kill();
    sleep(Duration::from_secs(2)).await;
    server.restart().await;
    write(&store, "/flotilla/units/a", "2").await;
    cache.follow_until(&mut stream, "/flotilla/units/a", "2").await;
    assert_eq!(cache.resets, 1, "it resumed");
    sleep(Duration::from_secs(11)).await;
    assert!(matches!(session.state(), SessionState::Held { .. }), "{:?}", session.state());
    assert!(read(&store, "/flotilla/machines/m").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_etcd_loses_the_session_in_time_and_the_stream_goes_on_after_it() {
    let server = Server::start().await;
    let store = server.store();
    let ttl = Duration::from_secs(6);
    let session = Session::open("the test", store.clone(), ttl, &Timing::default()).await.unwrap();
    write(&store, "/flotilla/units/a", "1").await;
    let (mut stream, mut cache) = (stream(&store), Cache::default());
    cache.follow_until(&mut stream, "/flotilla/units/a", "1").await;
    let Some(until) = session.state().held_until() else { panic!("{:?}", session.state()) };
    server.freeze();
    let (frozen, lost) = (Instant::now(), session.lost().await);
    assert_eq!(lost, LostReason::NoAnswer);
    assert!(tokio::time::Instant::now() >= until);
    assert!(frozen.elapsed() <= ttl + Duration::from_secs(1), "{:?}", frozen.elapsed());
    // Long enough for the watch to notice.
    sleep(Duration::from_secs(8)).await;
    server.thaw();
    let written = async {
        loop {
            let put = Operation::Put { key: "/flotilla/units/a".into(), value: "2".into(), lease: None };
            if store.txn(Txn { then: vec![put], ..Txn::default() }).await.is_ok() {
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(Duration::from_secs(30), written).await.expect("etcd answers again");
    cache.follow_until(&mut stream, "/flotilla/units/a", "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_over_etcd_lists_anew_after_a_compaction() {
    let mut server = Server::start().await;
    let store = server.store();
    write(&store, "/flotilla/units/a", "1").await;
    let (mut stream, mut cache) = (stream(&store), Cache::default());
    cache.follow_until(&mut stream, "/flotilla/units/a", "1").await;
    // Not polled meanwhile, so that it falls behind.
    server.kill();
    server.restart().await;
    for n in 2..10 {
        write(&store, "/flotilla/units/a", &n.to_string()).await;
    }
    let newest = write(&store, "/flotilla/units/b", "1").await;
    store.compact(newest).await.unwrap();
    cache.follow_until(&mut stream, "/flotilla/units/b", "1").await;
    assert_eq!((cache.resets, cache.values["/flotilla/units/a"].as_str()), (2, "9"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_leads_over_etcd_when_the_leader_is_gone() {
    let server = Server::start().await;
    let candidate = |number: u8| {
        let machine = format!("{number:032x}").parse().unwrap();
        let witness = SharedWitness::default();
        Candidate::new(server.store(), Keys::default(), machine, witness, Timing::default())
    };
    let (one, two) = (candidate(1), candidate(2));
    let first = one.campaign().await.unwrap();
    let second = tokio::spawn(async move { two.campaign().await });
    sleep(Duration::from_millis(500)).await;
    let (fence, start) = (first.fence(), Instant::now());
    drop(first);
    let second = timeout(Duration::from_secs(20), second).await.unwrap().unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    let store = server.store();
    let write = |fence| {
        let put = Operation::Put { key: "guarded".into(), value: "v".into(), lease: None };
        store.txn(Txn { when: vec![fence], then: vec![put], or_else: vec![] })
    };
    assert!(!write(fence).await.unwrap().succeeded, "a deposed leader cannot write");
    assert!(write(second.fence()).await.unwrap().succeeded);
    second.resign().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_about_ranges_of_instances() {
    for case in 0..5 {
        let server = Server::start().await;
        let store = server.store();
        match case {
            0 => range_cases::one_record_speaks_for_many(store).await,
            1 => range_cases::a_destroyed_instance_is_taken_out(store).await,
            2 => range_cases::a_range_is_destroyed_as_one(store).await,
            3 => range_cases::many_parts_take_several_transactions(store).await,
            _ => range_cases::thousands_are_said_at_once(store).await,
        }
    }
}

/// Over etcd itself: fifty clients of two flotillads, single units, lists and ranges, and nobody is refused.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_clients_order_parts_of_one_range() {
    let server = Server::start().await;
    range_cases::fifty_clients_order_parts_of_one_range([server.store(), server.store()]).await;
}

/// Over etcd itself: an instance gets a record of its own while its range is destroyed.
#[tokio::test(flavor = "multi_thread")]
async fn no_instance_slips_through_while_its_range_is_destroyed() {
    use flotilla_registry::records::Target;
    let server = Server::start().await;
    let (here, there) = (server.store(), server.store());
    let (a, b) = (range_cases::operations(&here), range_cases::operations(&there));
    range_cases::submit(&a).await;
    let range = range_cases::webs(1, 9);
    for round in 0..20 {
        a.set_target_in(&range, Target::Launched, false, "a").await.unwrap();
        let units = [range_cases::web(1 + round % 9)];
        let (destroyed, ordered) =
            tokio::join!(a.destroy_in(&range, "a"), b.set_target(&units, Target::Loaded, false, "b"));
        destroyed.unwrap();
        let said = range_cases::said(&*here).await;
        assert!(said.words().values().all(|word| word.2), "{said:?} after {ordered:?}");
        range_cases::collect(&*here).await;
    }
}
