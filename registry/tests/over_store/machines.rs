//! What users say of machines, over a store with faults.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use flotilla_registry::{
    keys::{Key, Keys},
    operations::{
        Asker, Effect, MachineError, MachineOrder, MachineWord, MachineWritten, MetadataChange, Operations,
    },
    reads::Registry,
    records::{EventRecord, MachineSettings, Record as _, VERSION},
    store::{RangeRequest, Revision, Store},
    timing::Timing,
};
use flotilla_units::MachineId;

use super::{beside, get, put, store};

fn operations(store: &Arc<dyn Store>) -> Operations {
    Operations::new(Registry::new(store.clone(), Keys::default()), Timing::default())
}

fn id(n: u8) -> MachineId {
    format!("{n:032x}").parse().expect("an id")
}

fn word(word: MachineWord) -> MachineOrder {
    MachineOrder { word: Some(word), ..MachineOrder::default() }
}

fn metadata(changes: &[(&str, MetadataChange)]) -> MachineOrder {
    let metadata = changes.iter().map(|(key, change)| ((*key).to_owned(), change.clone()));
    MachineOrder { metadata: metadata.collect(), ..MachineOrder::default() }
}

fn set(value: &str) -> MetadataChange {
    MetadataChange::Set(value.to_owned())
}

async fn order(operations: &Operations, n: u8, order: MachineOrder) -> Result<MachineWritten, MachineError> {
    let orders = BTreeMap::from([(id(n), order)]);
    let asker = Asker { by: "ann", request: Some("r7") };
    operations.order_machines(&orders, asker).await.map(|mut written| written.remove(0))
}

async fn settings(store: &Arc<dyn Store>, n: u8) -> Option<MachineSettings> {
    let kv = get(&**store, &Keys::default().spell(&Key::MachineSettings(id(n)))).await?;
    Some(MachineSettings::from_kv(&kv).expect("settings"))
}

/// Returns who, by which request, what and why, in the order in which it was written.
async fn events(store: &Arc<dyn Store>) -> Vec<(String, String)> {
    let range = Keys::default().all_of("events");
    let mut kvs = store.range(RangeRequest::all(range)).await.expect("a read").kvs;
    kvs.sort_by_key(|kv| kv.mod_revision);
    let mut all = Vec::new();
    for record in kvs.iter().map(|kv| EventRecord::from_kv(kv).expect("an event")) {
        assert_eq!((record.by.as_str(), record.request.as_deref()), ("ann", Some("r7")));
        all.extend(record.changes.into_iter().map(|it| (it.kind, it.why.unwrap_or_default())));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn metadata_is_set_hidden_and_given_back() {
    let (store, _) = store(1);
    let operations = operations(&store);
    let written =
        order(&operations, 1, metadata(&[("zone", set("a")), ("disk", MetadataChange::Unset)])).await;
    let written = written.expect("the machine need not be known");
    assert_eq!(written.effect, Effect::Created);
    let said = settings(&store, 1).await.expect("there").metadata;
    assert_eq!(said, [("zone".to_owned(), Some("a".to_owned())), ("disk".to_owned(), None)].into());
    // The same again, and replacing what is there.
    let again = order(&operations, 1, metadata(&[("zone", set("a"))])).await.expect("nothing to do");
    assert_eq!((again.effect, again.revision), (Effect::Unchanged, written.revision));
    order(&operations, 1, metadata(&[("zone", set("b")), ("disk", set("ssd"))])).await.expect("changed");
    let said = settings(&store, 1).await.expect("there").metadata;
    assert_eq!(said["disk"].as_deref(), Some("ssd"), "set again, it shows");
    order(&operations, 1, metadata(&[("zone", MetadataChange::Reset)])).await.expect("changed");
    order(&operations, 1, metadata(&[("disk", MetadataChange::Reset)])).await.expect("changed");
    assert_eq!(settings(&store, 1).await, None, "settings that say nothing are not kept");
    let told: Vec<String> =
        events(&store).await.into_iter().map(|(kind, why)| format!("{kind}: {why}")).collect();
    assert_eq!(
        told,
        [
            "metadata-changed: disk is unset, zone=a",
            "metadata-changed: disk=ssd, zone=b",
            "metadata-changed: zone is as the machine itself says",
            "metadata-changed: disk is as the machine itself says",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn cordon_and_drain_come_and_go_and_keep_what_else_was_said() {
    let (store, _) = store(2);
    let operations = operations(&store);
    let fenced = MachineSettings { v: VERSION, fenced: true, ..MachineSettings::default() };
    let key = Keys::default().spell(&Key::MachineSettings(id(1)));
    put(&*store, &key, &String::from_utf8(fenced.encode()).expect("JSON"), None).await;
    let mut seen = Vec::new();
    for next in [
        MachineWord::Cordon,
        MachineWord::Drain,
        MachineWord::EndDrain,
        MachineWord::Drain,
        MachineWord::Uncordon,
    ] {
        order(&operations, 1, word(next)).await.expect("changed");
        let now = settings(&store, 1).await.expect("there");
        assert!(now.fenced);
        seen.push((now.cordoned, now.draining));
    }
    assert_eq!(seen, [(true, false), (true, true), (true, false), (true, true), (false, false)]);
    let kinds: Vec<String> = events(&store).await.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["cordoned", "drain-ordered", "drain-ended", "drain-ordered", "drain-ended"]);
    let again = order(&operations, 1, word(MachineWord::Uncordon)).await.expect("nothing to do");
    assert_eq!(again.effect, Effect::Unchanged);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_refused_and_nothing_is_written() {
    let (store, _) = store(3);
    let operations = operations(&store);
    for key in ["", "a b", "a=b", "!a", "a<"] {
        let refused = order(&operations, 1, metadata(&[(key, set("x"))])).await;
        assert!(matches!(refused, Err(MachineError::Key(_))), "{key:?}");
    }
    for value in ["", "two\nlines", &"x".repeat(1_025)] {
        let refused = order(&operations, 1, metadata(&[("good", set("x")), ("key", set(value))])).await;
        assert!(matches!(refused, Err(MachineError::Value(key)) if key == "key"), "{value:?}");
    }
    let many: Vec<(String, MetadataChange)> =
        (0..257).map(|n| (format!("k{n}"), MetadataChange::Unset)).collect();
    let many: Vec<(&str, MetadataChange)> =
        many.iter().map(|(key, change)| (key.as_str(), change.clone())).collect();
    assert!(matches!(
        order(&operations, 1, metadata(&many)).await,
        Err(MachineError::TooManyKeys { keys: 257, .. })
    ));
    let all: BTreeMap<_, _> = (1..=51).map(|n| (id(n), word(MachineWord::Cordon))).collect();
    assert!(matches!(operations.order_machines(&all, "ann").await, Err(MachineError::TooManyMachines(51))));
    assert!(settings(&store, 1).await.is_none() && events(&store).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_order_can_be_bound_to_what_was_seen() {
    let (store, _) = store(4);
    let operations = operations(&store);
    let bound = |expected, what| MachineOrder { expected: Some(expected), ..word(what) };
    let written = order(&operations, 1, bound(Revision(0), MachineWord::Cordon)).await.expect("none before");
    let late = order(&operations, 1, bound(Revision(0), MachineWord::Drain)).await;
    match late {
        Err(MachineError::RevisionDiffers { found, .. }) => assert_eq!(found, written.revision),
        other => panic!("{other:?}"),
    }
    order(&operations, 1, bound(written.revision, MachineWord::Drain)).await.expect("as seen");
}

#[tokio::test(start_paused = true)]
async fn machines_of_one_order_are_written_together() {
    let (store, _) = store(5);
    let operations = operations(&store);
    let orders: BTreeMap<_, _> = (1..=50).map(|n| (id(n), metadata(&[("rack", set("r1"))]))).collect();
    let written =
        operations.order_machines(&orders, Asker { by: "ann", request: Some("r7") }).await.expect("written");
    assert!(written.len() == 50 && written.iter().all(|it| it.revision == written[0].revision));
    assert_eq!(events(&store).await.len(), 50);
}

#[tokio::test(start_paused = true)]
async fn two_that_change_one_machine_at_once_both_get_their_way() {
    let (_, faults) = store(6);
    let writers: Vec<_> = (0..8).map(|n| beside(&faults, 60 + n)).collect();
    let all = writers.iter().enumerate().map(|(n, (store, _))| async move {
        let key = format!("k{n}");
        order(&operations(store), 1, metadata(&[(&key, set("x"))])).await.expect("written")
    });
    futures_util::future::join_all(all).await;
    assert_eq!(settings(&faults.store(), 1).await.expect("there").metadata.len(), 8);
}

/// Whatever is lost or late on the way, an order takes effect at most once, and one that says so did.
#[tokio::test(start_paused = true)]
async fn an_order_whose_answer_is_lost_is_found_out() {
    for seed in 0..30 {
        let (store, faults) = store(seed);
        let operations = operations(&store);
        // The first reply that is lost is that of a read.
        match seed % 5 {
            0 => faults.late_writes(1, Duration::from_secs(60)),
            1 => faults.late_writes(2, Duration::from_secs(60)),
            lost => faults.lose_replies(lost as u32),
        }
        let written = order(&operations, 1, metadata(&[("zone", set("b"))])).await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        let behind = faults.store();
        let key = Keys::default().spell(&Key::MachineSettings(id(1)));
        let kv = get(&*behind, &key).await;
        match written {
            Ok(written) => assert_eq!(Some(written.revision), kv.map(|kv| kv.mod_revision), "seed {seed}"),
            Err(MachineError::Store(_)) => assert_eq!(kv, None, "seed {seed}"),
            Err(MachineError::OutcomeUnknown(_)) => {}
            Err(other) => panic!("seed {seed}: {other}"),
        }
        assert!(events(&behind).await.len() <= 1, "seed {seed}");
    }
}
