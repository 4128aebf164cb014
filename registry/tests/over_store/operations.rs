use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use flotilla_registry::{
    keys::{Key, Keys},
    operations::{CONTENT_BYTES_MAX, Effect, NewText, OperationError, Operations, UnitOrder, Word},
    reads::{ReadError, Registry},
    records::{EventChange, EventRecord, Record, RecordError, Target, UnitRecord},
    store::{KeyRange, Operation, RangeRequest, Store, Txn, faults::Link},
    timing::Timing,
};
use flotilla_units::{ContentHash, UnitName};
use proptest::prelude::*;

use super::{beside, get, put, store};

fn operations(store: &Arc<dyn Store>) -> Operations {
    Operations::new(Registry::new(store.clone(), Keys::default()), Timing::default())
}

fn name(text: &str) -> UnitName {
    text.parse().expect("a unit name")
}

fn names(texts: &[&str]) -> Vec<UnitName> {
    texts.iter().map(|text| name(text)).collect()
}

async fn submit(operations: &Operations, units: &[&str]) {
    let units: Vec<_> = units.iter().map(|unit| (name(unit), format!("# {unit}\n"))).collect();
    operations.submit(&units, "test").await.expect("submitted");
}

async fn record(operations: &Operations, unit: &str) -> UnitRecord {
    operations.registry().unit(&name(unit)).await.expect("readable").expect("there").record
}

/// Returns the kinds of all changes in all events, in the order of their revisions.
async fn events(store: &Arc<dyn Store>) -> Vec<(String, String)> {
    let range = Keys::default().all_of("events");
    let mut kvs = store.range(RangeRequest::all(range)).await.expect("a read").kvs;
    kvs.sort_by_key(|kv| kv.mod_revision);
    let changes = kvs.iter().flat_map(|kv| EventRecord::from_kv(kv).expect("an event").changes);
    changes.map(|it| (it.kind, it.unit.expect("of a unit").to_string())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_unit_is_written_with_its_content_and_event_in_one_transaction() {
    let (store, _) = store(1);
    let operations = operations(&store);
    let text = "[Service]\nExecStart=/bin/true\n".to_owned();
    let written = operations.submit(&[(name("a.service"), text.clone())], "ann").await.unwrap();
    assert_eq!((written.len(), written[0].effect), (1, Effect::Created));
    let stored = operations.registry().unit(&name("a.service")).await.unwrap().unwrap();
    assert_eq!(stored.written, written[0].revision);
    let hash = stored.record.current.unwrap();
    assert_eq!((stored.record.target, stored.record.run), (Target::Inactive, 0));
    assert_eq!((stored.record.by.as_str(), stored.record.generation), ("ann", 1));
    assert_eq!(operations.registry().content(&hash).await.unwrap(), Some(text.clone()));
    let content = get(&*store, &Keys::default().spell(&Key::Content(hash))).await.unwrap();
    let event = store.range(RangeRequest::all(Keys::default().all_of("events"))).await.unwrap();
    assert_eq!([content.mod_revision, event.kvs[0].mod_revision], [stored.written; 2]);

    let again = operations.submit(&[(name("a.service"), text)], "ben").await.unwrap();
    assert_eq!((again[0].effect, again[0].revision), (Effect::Unchanged, stored.written));
    assert_eq!(events(&store).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_stands_for_itself_is_written_once_however_the_store_answers() {
    for (lost, late) in [(0, 0), (1, 0), (2, 0), (0, 1), (0, 2), (1, 1)] {
        let (store, faults) = store(u64::from(lost * 10 + late));
        let operations = operations(&store);
        let change = EventChange {
            kind: "exec".to_owned(),
            unit: Some(name("a.service")),
            why: Some("ls".to_owned()),
            ..EventChange::default()
        };
        faults.lose_replies(lost);
        faults.late_writes(late, Duration::from_secs(3));
        let revision = operations.note("ann", vec![change.clone()]).await.expect("noted");
        // What is still under way comes to nothing.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let range = Keys::default().all_of("events");
        let found = store.range(RangeRequest::all(range)).await.expect("a read").kvs;
        assert_eq!(found.len(), 1, "{lost} {late}: {found:?}");
        assert_eq!(found[0].mod_revision, revision, "{lost} {late}");
        let record = EventRecord::from_kv(&found[0]).expect("an event");
        assert_eq!((record.by.as_str(), record.changes), ("ann", vec![change]), "{lost} {late}");
    }
    // One that is silent for too long: nobody claims that it is written, or that it is not.
    let (store, faults) = store(100);
    let operations = operations(&store);
    faults.lose_replies(9);
    let change = EventChange { kind: "shell".to_owned(), ..EventChange::default() };
    let refused = operations.note("ann", vec![change]).await.expect_err("silent");
    assert!(matches!(refused, OperationError::OutcomeUnknown { .. }), "{refused}");
    assert!(refused.to_string().contains("the change of the events took effect"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_text_that_is_missing_or_spoilt_is_put_back_by_submitting_it_again() {
    let (store, _) = store(11);
    let operations = operations(&store);
    submit(&operations, &["a.service"]).await;
    operations.set_target(&names(&["a.service"]), Target::Launched, true, "test").await.unwrap();
    let good = record(&operations, "a.service").await;
    let hash = good.current.unwrap();
    let (text, unit) = (Keys::default().spell(&Key::Content(hash)), Key::Unit(name("a.service")));
    let mut none = good.clone();
    none.current = None;
    let none = String::from_utf8(none.encode()).unwrap();
    for round in 0..3 {
        match round {
            0 => {
                let delete = Operation::Delete(KeyRange::key(&*text));
                drop(store.txn(Txn { then: vec![delete], ..Txn::default() }).await.unwrap());
            }
            1 => drop(put(&*store, &text, "garbage", None).await),
            _ => drop(put(&*store, &Keys::default().spell(&unit), &none, None).await),
        }
        let again = operations.submit(&[(name("a.service"), "# a.service\n".to_owned())], "test").await;
        assert_eq!(again.unwrap()[0].effect, Effect::Changed, "round {round}");
        assert_eq!(&*get(&*store, &text).await.unwrap().value, b"# a.service\n");
        let now = record(&operations, "a.service").await;
        assert_eq!((now.current, now.target, now.run), (good.current, good.target, good.run));
    }
    let again = operations.submit(&[(name("a.service"), "# a.service\n".to_owned())], "test").await;
    assert_eq!(again.unwrap()[0].effect, Effect::Unchanged);
}

#[tokio::test(start_paused = true)]
async fn one_unit_that_cannot_be_submitted_keeps_all_from_being_written() {
    let (store, _) = store(2);
    let operations = operations(&store);
    submit(&operations, &["b.service"]).await;
    let other = ContentHash::of(b"other");
    let units = [(name("a.service"), "a".to_owned()), (name("b.service"), "other".to_owned())];
    match operations.submit(&units, "test").await {
        Err(OperationError::ContentDiffers { unit, submitted, .. }) => {
            assert_eq!((unit, submitted), (name("b.service"), other));
        }
        other => panic!("{other:?}"),
    }
    let instance = [(name("a.service"), "a".to_owned()), (name("w@1.service"), "w".to_owned())];
    let refused = operations.submit(&instance, "test").await.unwrap_err();
    assert!(refused.to_string().contains("w@.service"), "{refused}");
    let twice = [(name("a.service"), "a".to_owned()), (name("a.service"), "b".to_owned())];
    assert!(matches!(operations.submit(&twice, "test").await, Err(OperationError::ContentDiffers { .. })));
    let large = [(name("a.service"), "x".repeat(CONTENT_BYTES_MAX + 1))];
    assert!(matches!(operations.submit(&large, "test").await, Err(OperationError::TooLarge { .. })));
    assert!(operations.registry().unit(&name("a.service")).await.unwrap().is_none());
    let largest = [(name("a.service"), "x".repeat(CONTENT_BYTES_MAX))];
    operations.submit(&largest, "test").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn targets_runs_and_instances() {
    let (store, _) = store(3);
    let operations = operations(&store);
    submit(&operations, &["web@.service", "a.service"]).await;
    let both = names(&["a.service", "web@1.service"]);
    let written = operations.set_target(&both, Target::Launched, false, "test").await.unwrap();
    assert_eq!(written.iter().map(|it| it.effect).collect::<Vec<_>>(), [Effect::Changed, Effect::Created]);
    assert_eq!(written[0].revision, written[1].revision, "one transaction");
    let instance = record(&operations, "web@1.service").await;
    assert_eq!((instance.current, instance.target, instance.run), (None, Target::Launched, 1));
    // Launched already: only an order to start anew raises the run.
    let same = operations.set_target(&both, Target::Launched, false, "test").await.unwrap();
    assert!(same.iter().all(|it| it.effect == Effect::Unchanged));
    operations.set_target(&names(&["a.service"]), Target::Launched, true, "test").await.unwrap();
    assert_eq!(record(&operations, "a.service").await.run, 2);
    operations.restart(&both, "test").await.unwrap();
    assert_eq!(record(&operations, "a.service").await.run, 3);
    operations.set_target(&both, Target::Loaded, false, "test").await.unwrap();
    assert_eq!(record(&operations, "a.service").await.run, 3);
    operations.restart(&both, "test").await.unwrap();
    let restarted = record(&operations, "a.service").await;
    assert_eq!((restarted.run, restarted.target), (4, Target::Launched));
    let kinds: Vec<_> = events(&store).await.into_iter().filter(|(_, unit)| unit == "a.service").collect();
    let kinds: Vec<_> = kinds.iter().map(|(kind, _)| kind.as_str()).collect();
    let expected = [
        "submitted",
        "target-changed",
        "restart-ordered",
        "restart-ordered",
        "target-changed",
        "target-changed",
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_started_says_why() {
    let (store, _) = store(4);
    let operations = operations(&store);
    submit(&operations, &["web@.service"]).await;
    let start = async |unit| {
        let refused = operations.set_target(&names(&[unit]), Target::Launched, false, "test").await;
        refused.expect_err("refused").to_string()
    };
    assert!(start("no.service").await.contains("there is no unit `no.service`"));
    assert!(start("db@1.service").await.contains("`db@.service`"));
    assert!(start("web@.service").await.contains("is a template"));
    let unload = operations.set_target(&names(&["web@7.service"]), Target::Inactive, false, "test").await;
    assert!(matches!(unload, Err(OperationError::NoSuchUnit(_))), "nothing is made by unloading");
}

#[tokio::test(start_paused = true)]
async fn destroying_marks_and_blocks_the_name() {
    let (store, _) = store(5);
    let operations = operations(&store);
    submit(&operations, &["web@.service", "a.service"]).await;
    let instances = names(&["web@1.service", "web@2.service"]);
    operations.set_target(&instances, Target::Launched, false, "test").await.unwrap();
    match operations.destroy(&names(&["web@.service", "web@1.service"]), "test").await {
        Err(OperationError::TemplateInUse { instances: 1, example, .. }) => {
            assert_eq!(example, name("web@2.service"));
        }
        other => panic!("{other:?}"),
    }
    assert!(!record(&operations, "web@1.service").await.deleting);
    let all = names(&["web@.service", "web@1.service", "web@2.service", "a.service"]);
    operations.destroy(&all, "test").await.unwrap();
    for unit in ["web@.service", "web@1.service", "a.service"] {
        assert!(record(&operations, unit).await.deleting);
    }
    let again = operations.destroy(&all, "test").await.unwrap();
    assert!(again.iter().all(|it| it.effect == Effect::Unchanged));
    let same = [(name("a.service"), "# a.service\n".to_owned())];
    let refused = operations.submit(&same, "test").await.unwrap_err();
    assert!(refused.to_string().contains("is being destroyed"), "{refused}");
    for unit in ["a.service", "web@1.service", "web@3.service"] {
        let refused = operations.restart(&names(&[unit]), "test").await;
        assert!(matches!(refused, Err(OperationError::BeingDestroyed(_))), "{unit}: {refused:?}");
    }
    let none = operations.destroy(&names(&["no.service"]), "test").await;
    assert!(matches!(none, Err(OperationError::NoSuchUnit(_))));
}

#[tokio::test(start_paused = true)]
async fn many_units_are_written_in_few_transactions() {
    let (store, faults) = store(6);
    let operations = operations(&store);
    submit(&operations, &["web@.service"]).await;
    let instances: Vec<_> = (0..1_000).map(|n| name(&format!("web@{n}.service"))).collect();
    let before = faults.calls();
    let written = operations.set_target(&instances, Target::Launched, false, "test").await.unwrap();
    assert_eq!(written.len(), 1_000);
    let (reads, writes) = (9, 9);
    assert!(faults.calls() - before <= reads + writes, "{} calls", faults.calls() - before);
    // Large texts are limited by bytes, many small ones by the number of operations.
    let large: Vec<_> =
        (0..5).map(|n| (name(&format!("l{n}.service")), format!("#{n}{}", "x".repeat(500_000)))).collect();
    assert_eq!(operations.submit(&large, "test").await.unwrap().len(), 5);
    let same: Vec<_> = (0..300).map(|n| (name(&format!("s{n}.service")), "# the same".to_owned())).collect();
    assert_eq!(operations.submit(&same, "test").await.unwrap().len(), 300);
    assert_eq!(operations.registry().units().await.unwrap().found.len(), 1_306);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_resolved_by_reading_and_never_repeated() {
    let (store, faults) = store(7);
    let operations = operations(&store);
    submit(&operations, &["a.service"]).await;
    operations.restart(&names(&["a.service"]), "test").await.unwrap();
    // The first lost answer is that of the read (a transaction too): nothing is in doubt.
    for lost in 1..=4 {
        let before = record(&operations, "a.service").await.run;
        faults.lose_replies(lost);
        let outcome = operations.restart(&names(&["a.service"]), "test").await;
        faults.lose_replies(0);
        let after = record(&operations, "a.service").await.run;
        match outcome {
            Ok(_) => assert_eq!(after, before + 1),
            Err(error) => assert_eq!(after, before, "{error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_away_in_the_middle_leaves_the_truth_to_say() {
    let (store, faults) = store(8);
    let operations = operations(&store);
    submit(&operations, &["a.service"]).await;
    faults.set_link(Link::Cut);
    let refused = operations.restart(&names(&["a.service"]), "test").await;
    assert!(matches!(refused, Err(OperationError::Store(_))), "{refused:?}");
    faults.set_link(Link::Up);
    // Every call takes two seconds, and one that is under way gets its answer: the read does.
    faults.slow(Duration::from_secs(2), Duration::from_secs(2));
    let hang = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        faults.set_link(Link::Hung);
    };
    let a = names(&["a.service"]);
    let (outcome, ()) = tokio::join!(operations.restart(&a, "test"), hang);
    let unit = match outcome {
        Err(OperationError::OutcomeUnknown { units, .. }) => units,
        other => panic!("{other:?}"),
    };
    assert_eq!(unit, names(&["a.service"]));
}

#[tokio::test(start_paused = true)]
async fn concurrent_restarts_are_all_counted() {
    let (store, faults) = store(9);
    let first = operations(&store);
    submit(&first, &["a.service"]).await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8 {
        let (own, own_faults) = beside(&faults, client);
        own_faults.slow(Duration::from_millis(1), Duration::from_millis(20));
        let client = operations(&own);
        clients.spawn(async move {
            let mut done = 0;
            for _ in 0..20 {
                done += u64::from(client.restart(&names(&["a.service"]), "test").await.is_ok());
            }
            done
        });
    }
    let done: u64 = clients.join_all().await.into_iter().sum();
    assert_eq!(record(&first, "a.service").await.run, done);
    assert!(done >= 100, "{done} of 160 got through");
}

#[tokio::test(start_paused = true)]
async fn a_corrupted_record_hides_no_other_and_is_never_overwritten() {
    let (store, _) = store(10);
    let operations = operations(&store);
    submit(&operations, &["a.service", "b.service"]).await;
    let key = Keys::default().spell(&Key::Unit(name("a.service")));
    put(&*store, &key, r#"{"v":1,"target":"#, None).await;
    put(&*store, "/flotilla/units/not a unit", "{}", None).await;
    let newer = Keys::default().spell(&Key::Unit(name("c.service")));
    put(&*store, &newer, r#"{"v":9}"#, None).await;
    let units = operations.registry().units().await.unwrap();
    assert_eq!(units.found.keys().collect::<Vec<_>>(), [&name("b.service")]);
    assert_eq!(units.unreadable.len(), 3);
    assert!(units.unreadable.iter().any(|error| matches!(error, RecordError::Newer { found: 9, .. })));
    let one = operations.registry().unit(&name("a.service")).await;
    assert!(matches!(one, Err(ReadError::Record(RecordError::Corrupted { .. }))), "{one:?}");
    for refused in [
        operations.restart(&names(&["a.service", "b.service"]), "test").await,
        operations.destroy(&names(&["a.service"]), "test").await,
        operations.submit(&[(name("c.service"), "c".to_owned())], "test").await,
    ] {
        assert!(matches!(refused, Err(OperationError::Unreadable(_))), "{refused:?}");
    }
    assert_eq!(record(&operations, "b.service").await.run, 0);
    let text = get(&*store, &key).await.unwrap();
    assert_eq!(&*text.value, br#"{"v":1,"target":"#);
}

#[tokio::test(start_paused = true)]
async fn a_text_that_is_not_its_hash_is_told() {
    let (store, _) = store(11);
    let operations = operations(&store);
    let hash = ContentHash::of(b"what was submitted");
    assert_eq!(operations.registry().content(&hash).await.unwrap(), None);
    put(&*store, &Keys::default().spell(&Key::Content(hash)), "something else", None).await;
    assert!(operations.registry().content(&hash).await.is_err());
}

/// An operation of the property test.
#[derive(Debug, Clone)]
enum Act {
    Submit(Vec<(usize, u8)>),
    Target(Vec<usize>, Target, bool),
    /// Texts that replace others and units that are started, at once.
    Write(BTreeMap<usize, u8>, BTreeSet<usize>),
    Restart(Vec<usize>),
    Destroy(Vec<usize>),
    Collected,
    LoseReplies(u32),
    LateWrites(u32),
}

const POOL: [&str; 6] =
    ["a.service", "b.timer", "web@.service", "web@1.service", "web@2.service", "lost@1.service"];

fn act() -> impl Strategy<Value = Act> {
    let some = prop::collection::vec(0..POOL.len(), 1..4);
    let target = prop_oneof![Just(Target::Inactive), Just(Target::Loaded), Just(Target::Launched)];
    prop_oneof![
        4 => prop::collection::vec((0..3_usize, 0..2_u8), 1..4).prop_map(Act::Submit),
        4 => (some.clone(), target, any::<bool>()).prop_map(|(some, target, raise)| Act::Target(some, target, raise)),
        2 => (prop::collection::btree_map(0..3_usize, 0..2_u8, 0..3), prop::collection::btree_set(0..POOL.len(), 0..3))
            .prop_map(|(texts, started)| Act::Write(texts, started)),
        2 => some.clone().prop_map(Act::Restart),
        2 => some.prop_map(Act::Destroy),
        1 => Just(Act::Collected),
        1 => (1..3_u32).prop_map(Act::LoseReplies),
        1 => (1..3_u32).prop_map(Act::LateWrites),
    ]
}

/// What the model knows of a unit: its text, target, run, and whether it is being destroyed.
type Model = BTreeMap<&'static str, (Option<u8>, Target, u64, bool)>;

/// Does an operation to the model; `None` if it is to be refused, then nothing changes.
fn expect(model: &Model, act: &Act) -> Option<Model> {
    let mut next = model.clone();
    let launch = |next: &mut Model, unit: &'static str, target: Target, raise: bool| {
        let template = unit.contains("@1").then(|| unit.replace("@1", "@"));
        let template = template.or(unit.contains("@2").then(|| unit.replace("@2", "@")));
        if target != Target::Inactive {
            if unit.contains("@.") {
                return None;
            }
            if let Some(template) = &template {
                next.get(template.as_str()).filter(|it| !it.3)?;
            }
        }
        let may_be_made = template.is_some() && target != Target::Inactive;
        if !next.contains_key(unit) && !may_be_made {
            return None;
        }
        let it = next.entry(unit).or_insert((None, Target::Inactive, 0, false));
        if it.3 {
            return None;
        }
        let starts = target == Target::Launched && (it.1 != Target::Launched || raise);
        let stops = (target, it.1) == (Target::Loaded, Target::Loaded) && raise;
        it.2 += u64::from(starts || stops);
        it.1 = target;
        Some(())
    };
    match act {
        Act::Submit(units) => {
            for &(unit, text) in units {
                let it = next.entry(POOL[unit]).or_insert((Some(text), Target::Inactive, 0, false));
                if it.3 || it.0 != Some(text) {
                    return None;
                }
            }
        }
        Act::Target(units, target, raise) => {
            let units: BTreeSet<_> = units.iter().collect();
            for &unit in units {
                launch(&mut next, POOL[unit], *target, *raise)?;
            }
        }
        Act::Write(texts, started) => {
            for (&unit, &text) in texts {
                let it = next.entry(POOL[unit]).or_insert((None, Target::Inactive, 0, false));
                if it.3 {
                    return None;
                }
                it.0 = Some(text);
            }
            for &unit in started {
                launch(&mut next, POOL[unit], Target::Launched, false)?;
            }
        }
        Act::Restart(units) => {
            let units: BTreeSet<_> = units.iter().collect();
            for &unit in units {
                launch(&mut next, POOL[unit], Target::Launched, true)?;
            }
        }
        Act::Destroy(units) => {
            for &unit in units {
                next.get_mut(POOL[unit])?.3 = true;
            }
            let orphan = next.iter().any(|(unit, it)| unit.contains("web@") && !unit.contains("@.") && !it.3);
            let newly = units.iter().any(|&unit| POOL[unit] == "web@.service" && !model["web@.service"].3);
            if orphan && newly {
                return None;
            }
        }
        Act::Collected => next.retain(|_, it| !it.3),
        Act::LoseReplies(_) | Act::LateWrites(_) => {}
    }
    Some(next)
}

async fn act_on(operations: &Operations, store: &Arc<dyn Store>, act: &Act) -> Option<()> {
    let of = |units: &[usize]| units.iter().map(|&unit| name(POOL[unit])).collect::<Vec<_>>();
    let done = match act {
        Act::Submit(units) => {
            let units: Vec<_> =
                units.iter().map(|&(unit, text)| (name(POOL[unit]), text.to_string())).collect();
            operations.submit(&units, "test").await
        }
        Act::Target(units, target, raise) => operations.set_target(&of(units), *target, *raise, "test").await,
        Act::Write(texts, started) => {
            let mut orders: BTreeMap<UnitName, UnitOrder> = BTreeMap::new();
            for (&unit, text) in texts {
                orders.entry(name(POOL[unit])).or_default().text = Some(NewText::replacing(text.to_string()));
            }
            for &unit in started {
                let word = Word::Target { target: Target::Launched, raise_run: false };
                orders.entry(name(POOL[unit])).or_default().word = Some(word);
            }
            let orders: Vec<_> = orders.into_iter().collect();
            operations.write(&orders, true, "test").await.map(|bulk| bulk.written)
        }
        Act::Restart(units) => operations.restart(&of(units), "test").await,
        Act::Destroy(units) => operations.destroy(&of(units), "test").await,
        Act::Collected => {
            // What the engine does once a unit is proven gone.
            let units = operations.registry().units().await.expect("readable").found;
            for (unit, _) in units.into_iter().filter(|(_, stored)| stored.record.deleting) {
                let key = Keys::default().spell(&Key::Unit(unit));
                let delete = flotilla_registry::store::Operation::Delete(KeyRange::key(key));
                let txn = flotilla_registry::store::Txn { then: vec![delete], ..Default::default() };
                store.txn(txn).await.expect("deleted");
            }
            return Some(());
        }
        Act::LoseReplies(_) | Act::LateWrites(_) => return Some(()),
    };
    match done {
        Ok(_) => Some(()),
        Err(OperationError::Store(error)) => panic!("the store is there: {error}"),
        Err(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Operations do what a plain map does, also when answers of writes are lost, and when writes come
    /// after they were given up.
    #[test]
    fn operations_are_as_their_model(acts in prop::collection::vec(act(), 1..30), seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let (behind, faults) = store(seed);
            let (store, own) = beside(&faults, seed);
            let operations = operations(&store);
            let mut model = Model::new();
            for act in &acts {
                if let Act::LoseReplies(count) = act {
                    // The answer to the first read goes first; that one is an error and no doubt.
                    own.lose_replies(*count);
                    let _ = operations.registry().cluster().await;
                    let mut outcome = operations.restart(&names(&["a.service"]), "test").await;
                    if matches!(outcome, Err(OperationError::Store(_))) {
                        own.lose_replies(0);
                        outcome = operations.restart(&names(&["a.service"]), "test").await;
                    }
                    own.lose_replies(0);
                    if let Some(next) = expect(&model, &Act::Restart(vec![0])) {
                        outcome.expect("resolved");
                        model = next;
                    } else {
                        outcome.expect_err("refused");
                    }
                    continue;
                }
                if let Act::LateWrites(count) = act {
                    // Whatever comes next takes it: it is done once, by that write or by a later one.
                    own.late_writes(*count, Duration::from_secs(20));
                    continue;
                }
                let expected = expect(&model, act);
                let done = act_on(&operations, &behind, act).await;
                assert_eq!(done.is_some(), expected.is_some(), "{act:?} on {model:?}");
                model = expected.unwrap_or(model);
                let units = operations.registry().units().await.expect("readable");
                assert!(units.unreadable.is_empty());
                let found: BTreeMap<String, _> = units
                    .found
                    .into_iter()
                    .map(|(unit, it)| (unit.to_string(), (it.record.current, it.record.target, it.record.run, it.record.deleting)))
                    .collect();
                let expected: BTreeMap<String, _> = model
                    .iter()
                    .map(|(unit, it)| {
                        let hash = it.0.map(|text| ContentHash::of(text.to_string().as_bytes()));
                        ((*unit).to_owned(), (hash, it.1, it.2, it.3))
                    })
                    .collect();
                assert_eq!(found, expected, "after {act:?}");
            }
        });
    }
}
