use std::{collections::BTreeSet, sync::Arc, time::Duration};

use flotilla_registry::{
    election::{Candidate, ElectionError, KeyLost, Leadership, TERMS_MAX},
    keys::{Key, Keys},
    reads::Registry,
    records::{Cluster, LeaderRecord, Record},
    session::LostReason,
    store::{
        Compare, KeyRange, Operation, Revision, Store, StoreError, Txn,
        embedded::EmbeddedStore,
        faults::{Faults, Link},
    },
    timing::Timing,
    witness::{SharedWitness, WentBack, WentBackReason},
};
use flotilla_units::MachineId;
use proptest::prelude::*;
use tokio::time::{Instant, sleep, timeout};

use super::{beside, get, kept, put, soon, store};

fn machine(number: u8) -> MachineId {
    format!("{number:032x}").parse().expect("a machine id")
}

fn candidate(store: &Arc<dyn Store>, number: u8) -> Candidate {
    remembering(store, number, SharedWitness::default())
}

fn remembering(store: &Arc<dyn Store>, number: u8, witness: SharedWitness) -> Candidate {
    Candidate::new(store.clone(), Keys::default(), machine(number), witness, Timing::default())
}

async fn fenced_write(store: &dyn Store, fence: Compare, value: &str) -> Result<bool, StoreError> {
    let put = Operation::Put { key: "guarded".into(), value: value.into(), lease: None };
    Ok(store.txn(Txn { when: vec![fence], then: vec![put], or_else: vec![] }).await?.succeeded)
}

async fn cluster(store: &Arc<dyn Store>) -> Cluster {
    let registry = Registry::new(store.clone(), Keys::default());
    registry.cluster().await.expect("readable").expect("a cluster").record
}

async fn elect(candidate: &Candidate) -> Leadership {
    soon("the election", candidate.campaign()).await.expect("elected")
}

#[tokio::test(start_paused = true)]
async fn the_first_leader_creates_the_cluster_and_later_ones_append_their_terms() {
    let (store, _) = store(1);
    let first = elect(&candidate(&store, 1)).await;
    let made = cluster(&store).await;
    assert_eq!(&made, first.cluster());
    assert_eq!((made.epoch, made.terms.as_slice()), (1, [first.term().to_owned()].as_slice()));
    let term = first.term().to_owned();
    first.resign().await.unwrap();
    let second = elect(&candidate(&store, 2)).await;
    let then = cluster(&store).await;
    assert_eq!(then.id, made.id);
    assert_eq!(then.terms, [term, second.term().to_owned()]);
    let leader = get(&*store, "/flotilla/engine/leader").await.unwrap();
    assert_eq!(leader.create_revision, second.revision());
    assert_eq!(LeaderRecord::from_kv(&leader).unwrap().machine, machine(2));
}

#[tokio::test(start_paused = true)]
async fn the_last_thousand_terms_are_kept() {
    let (store, _) = store(2);
    let leader = elect(&candidate(&store, 1)).await;
    let mut record = cluster(&store).await;
    leader.resign().await.unwrap();
    record.terms = (0..TERMS_MAX).map(|n| format!("{n:032x}")).collect();
    put(&*store, "/flotilla/cluster", std::str::from_utf8(&record.encode()).unwrap(), None).await;
    let leader = elect(&candidate(&store, 2)).await;
    let terms = cluster(&store).await.terms;
    assert_eq!((terms.len(), terms.last().map(String::as_str)), (TERMS_MAX, Some(leader.term())));
    assert_eq!(terms[0], format!("{:032x}", 1));
}

#[tokio::test(start_paused = true)]
async fn another_leads_at_once_after_a_resignation_and_waiting_costs_no_calls() {
    let (store, faults) = store(3);
    let leader = elect(&candidate(&store, 1)).await;
    let (waiting_store, waiting_faults) = beside(&faults, 4);
    let waiting = candidate(&waiting_store, 2);
    let campaign = tokio::spawn(async move { waiting.campaign().await });
    sleep(Duration::from_secs(1)).await;
    let calls = waiting_faults.calls();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(waiting_faults.calls(), calls, "it waits by a watch");
    let before = Instant::now();
    leader.resign().await.unwrap();
    soon("the election", campaign).await.unwrap().unwrap();
    assert!(before.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_returning_deposed_leader_can_never_write() {
    let (old_store, old_faults) = store(5);
    let old = elect(&candidate(&old_store, 1)).await;
    assert!(fenced_write(&*old_store, old.fence(), "first").await.unwrap());
    let (new_store, _) = beside(&old_faults, 6);
    old_faults.set_link(Link::Cut);
    let before = Instant::now();
    let new = elect(&candidate(&new_store, 2)).await;
    assert!(before.elapsed() < Duration::from_secs(6), "{:?}", before.elapsed());
    assert_eq!(soon("the loss", old.lost()).await, KeyLost::Session(LostReason::NoAnswer));
    old_faults.set_link(Link::Up);
    assert!(!fenced_write(&*old_store, old.fence(), "late").await.unwrap());
    assert!(fenced_write(&*new_store, new.fence(), "second").await.unwrap());
    // Nor does its resignation take the lead from the one who has it.
    old.resign().await.unwrap();
    assert!(fenced_write(&*new_store, new.fence(), "third").await.unwrap());
    assert!(
        !fenced_write(&*new_store, Compare::CreateRevision("nothing".into(), Revision(1)), "x")
            .await
            .unwrap()
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_key_was_removed_is_told() {
    let (store, _) = store(7);
    let leader = elect(&candidate(&store, 1)).await;
    let delete = Operation::Delete(KeyRange::key(Keys::default().spell(&Key::Leader)));
    store.txn(Txn { then: vec![delete], ..Txn::default() }).await.unwrap();
    assert_eq!(soon("the loss", leader.lost()).await, KeyLost::Taken);
    assert!(!fenced_write(&*store, leader.fence(), "late").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_leader_is_told_although_its_watch_fell_behind_compaction() {
    let (store, faults) = store(8);
    let leader = elect(&candidate(&store, 1)).await;
    sleep(Duration::from_secs(1)).await;
    for _ in 0..5 {
        put(&*store, "other", "v", None).await;
    }
    faults.compact().await.unwrap();
    faults.end_watches();
    sleep(Duration::from_secs(10)).await;
    assert!(timeout(Duration::from_secs(60), leader.lost()).await.is_err(), "it still leads");
    let delete = Operation::Delete(KeyRange::key(Keys::default().spell(&Key::Leader)));
    store.txn(Txn { then: vec![delete], ..Txn::default() }).await.unwrap();
    assert_eq!(soon("the loss", leader.lost()).await, KeyLost::Taken);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_resolved_by_reading() {
    let (store, faults) = store(9);
    // The look is a transaction too: its answer is lost first, then that of the election itself.
    for lost in 1..=3 {
        faults.lose_replies(lost);
        let leader = elect(&candidate(&store, 1)).await;
        assert!(fenced_write(&*store, leader.fence(), "mine").await.unwrap());
        let terms = cluster(&store).await.terms;
        assert_eq!(terms.iter().filter(|term| *term == leader.term()).count(), 1);
        leader.resign().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_started_again_leads_without_waiting_for_its_own_old_lease() {
    let (store, _) = store(10);
    let old = elect(&candidate(&store, 1)).await;
    let before = Instant::now();
    let new = elect(&candidate(&store, 1)).await;
    assert!(before.elapsed() < Duration::from_millis(100), "{:?}", before.elapsed());
    assert!(!fenced_write(&*store, old.fence(), "late").await.unwrap());
    assert!(fenced_write(&*store, new.fence(), "mine").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_second_machine_of_one_id_does_not_depose_the_first() {
    let (store, _) = store(12);
    let first = elect(&candidate(&store, 1).of_boot("first".to_owned())).await;
    let terms = cluster(&store).await.terms;
    for _ in 0..5 {
        // As its flotillad does, which ends when it is refused and is started again.
        let twin = candidate(&store, 1).of_boot("second".to_owned());
        assert!(timeout(Duration::from_secs(10), twin.campaign()).await.is_err(), "the twin leads");
    }
    assert!(fenced_write(&*store, first.fence(), "still").await.unwrap());
    assert_eq!(cluster(&store).await.terms, terms);
    // The process after it, of the same boot, still leads at once.
    let before = Instant::now();
    let again = elect(&candidate(&store, 1).of_boot("first".to_owned())).await;
    assert!(before.elapsed() < Duration::from_millis(100), "{:?}", before.elapsed());
    assert!(!fenced_write(&*store, first.fence(), "late").await.unwrap());
    assert!(fenced_write(&*store, again.fence(), "mine").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_lead_that_outlived_its_session_is_not_waited_for() {
    let (store, faults) = store(11);
    let candidate = candidate(&store, 1);
    let old = elect(&candidate).await;
    faults.set_link(Link::Cut);
    // A store that was away and comes back gives what was there its whole time again.
    kept(&faults, "/flotilla/engine/leader", async {
        assert_eq!(soon("the loss", old.lost()).await, KeyLost::Session(LostReason::NoAnswer));
    })
    .await;
    faults.set_link(Link::Up);
    let before = Instant::now();
    let new = elect(&candidate).await;
    assert!(before.elapsed() < Duration::from_millis(100), "{:?}", before.elapsed());
    assert!(!fenced_write(&*store, old.fence(), "late").await.unwrap());
    assert!(fenced_write(&*store, new.fence(), "mine").await.unwrap());
    // While it leads it does not take the lead from itself.
    assert!(timeout(Duration::from_secs(60), candidate.campaign()).await.is_err());
    assert!(fenced_write(&*store, new.fence(), "still").await.unwrap());
}

async fn refusal(store: &Arc<dyn Store>, witness: &SharedWitness) -> WentBackReason {
    let campaign = remembering(store, 2, witness.clone());
    match soon("the refusal", campaign.campaign()).await {
        Err(ElectionError::WentBack(WentBack(reason))) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_leads_over_a_store_that_went_back() {
    let embedded = EmbeddedStore::in_memory();
    let early = embedded.snapshot();
    let (faulty, faults) = flotilla_registry::store::faults::FaultyStore::new(Arc::new(embedded), 11);
    let store: Arc<dyn Store> = Arc::new(faulty);
    let witness = SharedWitness::default();
    let leader = elect(&remembering(&store, 1, witness.clone())).await;
    leader.resign().await.unwrap();

    faults.restore(&early);
    assert!(matches!(refusal(&store, &witness).await, WentBackReason::Revision { .. }));
    for _ in 0..20 {
        put(&*store, "other", "v", None).await;
    }
    assert!(matches!(refusal(&store, &witness).await, WentBackReason::ClusterMissing { .. }));
    elect(&candidate(&store, 3)).await.resign().await.unwrap();
    assert!(matches!(refusal(&store, &witness).await, WentBackReason::OtherCluster { .. }));

    witness.accept();
    elect(&remembering(&store, 2, witness)).await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_record_of_a_newer_version_is_left_alone() {
    let (store, _) = store(12);
    put(&*store, "/flotilla/cluster", r#"{"v":2,"id":"x"}"#, None).await;
    let refused = soon("the refusal", candidate(&store, 1).campaign()).await;
    assert!(matches!(refused, Err(ElectionError::Record(_))), "{refused:?}");
    assert_eq!(&*get(&*store, "/flotilla/cluster").await.unwrap().value, br#"{"v":2,"id":"x"}"#);
}

/// What happens to an engine in the property test.
#[derive(Debug, Clone, Copy)]
enum Blow {
    Link(usize, Link),
    LoseReplies(usize, u32),
    LateWrites(usize, u32),
    EndWatches(usize),
    Compact,
    Wait(u64),
}

fn blow() -> impl Strategy<Value = Blow> {
    let engine = 0..3_usize;
    prop_oneof![
        (engine.clone(), prop_oneof![Just(Link::Up), Just(Link::Cut), Just(Link::Hung)])
            .prop_map(|(engine, link)| Blow::Link(engine, link)),
        (engine.clone(), 1..3_u32).prop_map(|(engine, count)| Blow::LoseReplies(engine, count)),
        (engine.clone(), 1..3_u32).prop_map(|(engine, count)| Blow::LateWrites(engine, count)),
        engine.prop_map(Blow::EndWatches),
        Just(Blow::Compact),
        (100..9_000_u64).prop_map(Blow::Wait),
    ]
}

/// An engine that leads whenever it can, and tries to write all the time, also once it was deposed.
async fn engine(number: u8, store: Arc<dyn Store>, written: tokio::sync::mpsc::Sender<(Revision, Revision)>) {
    let candidate = candidate(&store, number);
    let mut last: Option<Compare> = None;
    loop {
        let Ok(leadership) = candidate.campaign().await else { return };
        // A late write of the term before: it must not get through.
        if let Some(fence) = last.replace(leadership.fence())
            && let Ok(late) = fenced_write(&*store, fence, "late").await
        {
            assert!(!late, "a deposed leader wrote");
        }
        loop {
            let put = Operation::Put { key: "guarded".into(), value: b"v".to_vec(), lease: None };
            let txn = Txn { when: vec![leadership.fence()], then: vec![put], or_else: vec![] };
            match store.txn(txn).await {
                Ok(answer) if answer.succeeded => {
                    let _ = written.send((answer.revision, leadership.revision())).await;
                }
                Ok(_) => break,
                Err(_) => {}
            }
            tokio::select! {
                _ = leadership.lost() => break,
                () = sleep(Duration::from_millis(300)) => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever happens to the engines, the fences under which writes succeed follow each other and
    /// never overlap; and when all is well again somebody leads.
    #[test]
    fn at_most_one_fence_lives(blows in prop::collection::vec(blow(), 1..25), seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let (_, behind) = store(seed);
            let ways: Vec<(Arc<dyn Store>, Faults)> = (0..3).map(|n| beside(&behind, seed ^ n)).collect();
            let (written, mut writes) = tokio::sync::mpsc::channel(100_000);
            let mut engines = tokio::task::JoinSet::new();
            for (number, (store, _)) in ways.iter().enumerate() {
                engines.spawn(engine(number as u8 + 1, store.clone(), written.clone()));
            }
            for blow in blows {
                match blow {
                    Blow::Link(engine, link) => ways[engine].1.set_link(link),
                    Blow::LoseReplies(engine, count) => ways[engine].1.lose_replies(count),
                    Blow::LateWrites(engine, count) => {
                        ways[engine].1.late_writes(count, Duration::from_secs(8));
                    }
                    Blow::EndWatches(engine) => ways[engine].1.end_watches(),
                    Blow::Compact => drop(behind.compact().await),
                    Blow::Wait(ms) => sleep(Duration::from_millis(ms)).await,
                }
            }
            ways.iter().for_each(|(_, faults)| faults.set_link(Link::Up));
            sleep(Duration::from_secs(30)).await;
            let healed = get(&*behind.store(), "/flotilla/engine/leader").await.expect("a leader");
            sleep(Duration::from_secs(5)).await;
            // An engine ends only by a failed assertion.
            assert!(engines.try_join_next().is_none(), "an engine ended");
            engines.abort_all();
            let mut all = BTreeSet::new();
            while let Ok(write) = writes.try_recv() {
                all.insert(write);
            }
            let fences: Vec<Revision> = all.iter().map(|(_, fence)| *fence).collect();
            assert!(fences.is_sorted(), "a write under an older fence after one under a newer: {all:?}");
            assert!(all.iter().all(|(at, fence)| at > fence));
            assert_eq!(fences.last(), Some(&healed.create_revision), "the leader writes");
        });
    }
}
