//! What orders about ranges of instances do, over any store: these run in memory and on a real etcd.

use std::{collections::BTreeMap, sync::Arc};

use flotilla_registry::{
    keys::{Key, Keys},
    operations::{Effect, OperationError, Operations},
    reads::Registry,
    records::{RangeGuard, RangeRecord, Record, Target, UnitRecord},
    store::{KeyRange, Operation, RangeRequest, Store, Txn},
    timing::Timing,
};
use flotilla_units::{UnitName, UnitRange};

/// What is wanted of an instance: target, run, being destroyed.
pub type Word = (Target, u64, bool);

/// Everything that is said of `web@.service`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The guard's generation; zero if there is none.
    pub guard: u64,
    pub ranges: BTreeMap<(u64, u64), Word>,
    pub own: BTreeMap<u64, Word>,
}

impl Said {
    /// Returns what is wanted of each instance; an own record wins.
    pub fn words(&self) -> BTreeMap<u64, Word> {
        let ranged = self.ranges.iter().flat_map(|((from, to), word)| (*from..=*to).map(move |n| (n, *word)));
        ranged.chain(self.own.iter().map(|(n, word)| (*n, *word))).collect()
    }
}

pub fn operations(store: &Arc<dyn Store>) -> Operations {
    Operations::new(Registry::new(store.clone(), Keys::default()), Timing::default())
}

pub fn name(text: &str) -> UnitName {
    text.parse().expect("a unit name")
}

pub fn web(number: u64) -> UnitName {
    name(&format!("web@{number}.service"))
}

pub fn webs(from: u64, to: u64) -> UnitRange {
    UnitRange::new(name("web@.service"), from, to).expect("a range")
}

pub async fn submit(operations: &Operations) {
    let units = [(name("web@.service"), "# web\n".to_owned())];
    operations.submit(&units, "test").await.expect("submitted");
}

/// Reads what is said, and checks what always holds.
pub async fn said(store: &dyn Store) -> Said {
    let (keys, template) = (Keys::default(), name("web@.service"));
    // One read: what is between two reads is nobody's fault.
    let everything = store.range(RangeRequest::all(keys.everything())).await.expect("a read").kvs;
    let mut said = Said::default();
    for kv in &everything {
        match keys.read(&kv.key) {
            Some(Key::RangeGuard(of)) => {
                assert_eq!(of, template);
                said.guard = RangeGuard::from_kv(kv).expect("a guard").generation;
            }
            Some(Key::Range { from, to, .. }) => {
                let RangeRecord { target, run, deleting, .. } = RangeRecord::from_kv(kv).expect("a range");
                said.ranges.insert((from, to), (target, run, deleting));
            }
            Some(Key::Unit(unit)) => {
                if let Some(number) = unit.number() {
                    let UnitRecord { target, run, deleting, .. } = UnitRecord::from_kv(kv).expect("a unit");
                    said.own.insert(number, (target, run, deleting));
                }
            }
            _ => {}
        }
    }
    let ranges: Vec<_> = said.ranges.keys().collect();
    assert!(
        ranges.iter().all(|(from, to)| from <= to) && ranges.windows(2).all(|two| two[0].1 < two[1].0),
        "{said:?}"
    );
    let spoken_for =
        |n: &u64| said.ranges.iter().any(|((from, to), word)| (from..=to).contains(&n) && !word.2);
    assert!(
        said.own.iter().all(|(n, word)| !word.2 || !spoken_for(n)),
        "destroyed, and still in a range: {said:?}"
    );
    assert!(said.ranges.is_empty() || said.guard > 0, "{said:?}");
    said
}

/// Does what the engine does once instances are proven gone: own records, and whole ranges.
pub async fn collect(store: &dyn Store) {
    let (keys, said) = (Keys::default(), said(store).await);
    let own = said.own.iter().filter(|(_, word)| word.2).map(|(n, _)| Key::Unit(web(*n)));
    let ranges = said.ranges.iter().filter(|(_, word)| word.2);
    let ranges =
        ranges.map(|((from, to), _)| Key::Range { template: name("web@.service"), from: *from, to: *to });
    for key in own.chain(ranges) {
        let then = vec![Operation::Delete(KeyRange::key(keys.spell(&key)))];
        store.txn(Txn { then, ..Txn::default() }).await.expect("deleted");
    }
}

const LAUNCHED: Target = Target::Launched;

/// One order is one record; an order about a part splits it; an own record wins.
pub async fn one_record_speaks_for_many(store: Arc<dyn Store>) {
    let operations = operations(&store);
    submit(&operations).await;
    let made = operations.set_target_in(&webs(1, 100), LAUNCHED, false, "ann").await.unwrap();
    assert_eq!((made.count(), made.changed(), made.parts.len()), (100, 100, 1));
    assert!(made.each().all(|it| it.effect == Effect::Created && it.revision == made.revision()));
    let now = said(&*store).await;
    assert_eq!((now.guard, &now.own), (1, &BTreeMap::new()));
    assert_eq!(now.ranges, [((1, 100), (LAUNCHED, 1, false))].into());
    let again = operations.set_target_in(&webs(1, 100), LAUNCHED, false, "ann").await.unwrap();
    assert!(again.each().all(|it| it.effect == Effect::Unchanged && it.revision == made.revision()));
    assert_eq!((again.count(), again.changed(), again.transactions), (100, 0, 0));
    let single = operations.set_target(&[web(7)], LAUNCHED, false, "ann").await.unwrap();
    assert_eq!((single[0].effect, single[0].revision), (Effect::Unchanged, made.revision()));
    assert_eq!(said(&*store).await, now, "nothing was written");

    operations.set_target_in(&webs(10, 20), LAUNCHED, true, "ben").await.unwrap();
    let split =
        [((1, 9), (LAUNCHED, 1, false)), ((10, 20), (LAUNCHED, 2, false)), ((21, 100), (LAUNCHED, 1, false))];
    assert_eq!(said(&*store).await, Said { guard: 2, ranges: split.into(), own: BTreeMap::new() });

    let stopped = operations.set_target(&[web(15)], Target::Loaded, false, "ben").await.unwrap();
    assert_eq!(stopped[0].effect, Effect::Changed, "it was there before its record");
    let own: BTreeMap<_, _> = [(15, (Target::Loaded, 2, false))].into();
    assert_eq!(said(&*store).await, Said { guard: 2, ranges: split.into(), own }, "the ranges are as before");

    let wider = operations.set_target_in(&webs(1, 120), LAUNCHED, false, "ann").await.unwrap();
    let effect = |n: u64| wider.each().find(|it| it.unit == web(n)).unwrap().effect;
    assert_eq!(
        (wider.count(), effect(5), effect(15), effect(101)),
        (120, Effect::Unchanged, Effect::Changed, Effect::Created)
    );
    let now = said(&*store).await;
    assert_eq!(now.own, [(15, (LAUNCHED, 3, false))].into(), "it was not launched, so it starts");
    assert_eq!(now.ranges.keys().copied().collect::<Vec<_>>(), [(1, 9), (10, 20), (21, 120)]);
    operations.set_target_in(&webs(1, 120), LAUNCHED, true, "ann").await.unwrap();
    let words = said(&*store).await.words();
    assert_eq!(
        (words[&1].1, words[&10].1, words[&15].1, words[&120].1),
        (2, 3, 4, 2),
        "each one more than it was"
    );
    operations.set_target_in(&webs(1, 120), Target::Loaded, false, "ann").await.unwrap();
    assert!(said(&*store).await.words().values().all(|word| word.0 == Target::Loaded));
}

/// A destroyed instance is taken out of its range, and its name comes back when it has gone.
pub async fn a_destroyed_instance_is_taken_out(store: Arc<dyn Store>) {
    let operations = operations(&store);
    submit(&operations).await;
    operations.set_target_in(&webs(1, 9), LAUNCHED, false, "test").await.unwrap();
    operations.set_target(&[web(3)], Target::Loaded, false, "test").await.unwrap();
    let gone = operations.destroy(&[web(3), web(5), web(6)], "test").await.unwrap();
    assert!(gone.iter().all(|it| it.effect == Effect::Changed && it.revision == gone[0].revision));
    let now = said(&*store).await;
    let (launched, leaving) = ((LAUNCHED, 1, false), (LAUNCHED, 1, true));
    assert_eq!(now.ranges, [((1, 2), launched), ((4, 4), launched), ((7, 9), launched)].into());
    assert_eq!(now.own, [(3, (Target::Loaded, 1, true)), (5, leaving), (6, leaving)].into());
    let refused = operations.set_target_in(&webs(1, 9), LAUNCHED, true, "test").await;
    assert!(matches!(refused, Err(OperationError::BeingDestroyed(unit)) if unit == web(3)));
    operations.set_target_in(&webs(7, 9), LAUNCHED, true, "test").await.expect("these stay");
    collect(&*store).await;
    assert!(!said(&*store).await.words().contains_key(&5), "its range does not speak for it any more");
    operations.set_target_in(&webs(1, 9), LAUNCHED, false, "test").await.expect("free again");
    let now = said(&*store).await;
    assert_eq!(
        now.ranges,
        [((1, 6), launched), ((7, 9), (LAUNCHED, 2, false))].into(),
        "equal neighbours are one"
    );
}

/// A range is destroyed as one; what it speaks for is in nobody's way afterwards, and not before.
pub async fn a_range_is_destroyed_as_one(store: Arc<dyn Store>) {
    let operations = operations(&store);
    submit(&operations).await;
    let template = [name("web@.service")];
    operations.set_target_in(&webs(1, 50), LAUNCHED, false, "test").await.unwrap();
    operations.set_target(&[web(50)], Target::Loaded, false, "test").await.unwrap();
    match operations.destroy(&template, "test").await {
        Err(OperationError::TemplateInUse { instances: 50, .. }) => {}
        other => panic!("{other:?}"),
    }
    let gone = operations.destroy_in(&webs(40, 60), "test").await.unwrap();
    assert_eq!(gone.count(), 11, "of those that are there");
    let now = said(&*store).await;
    assert_eq!(now.ranges, [((1, 39), (LAUNCHED, 1, false)), ((40, 50), (LAUNCHED, 1, true))].into());
    assert_eq!(now.own, [(50, (Target::Loaded, 1, true))].into());
    for unit in [web(40), web(50)] {
        let refused = operations.set_target(&[unit], LAUNCHED, true, "test").await;
        assert!(matches!(refused, Err(OperationError::BeingDestroyed(_))), "{refused:?}");
    }
    let refused = operations.set_target_in(&webs(45, 70), LAUNCHED, false, "test").await;
    assert!(matches!(refused, Err(OperationError::BeingDestroyed(_))), "{refused:?}");
    let again = operations.destroy_in(&webs(40, 60), "test").await.unwrap();
    assert!(again.each().all(|it| it.effect == Effect::Unchanged));
    assert_eq!(said(&*store).await, now);
    match operations.destroy(&template, "test").await {
        Err(OperationError::TemplateInUse { instances: 39, example, .. }) => assert_eq!(example, web(1)),
        other => panic!("{other:?}"),
    }
    operations.destroy_in(&webs(1, 39), "test").await.unwrap();
    operations.destroy(&template, "test").await.expect("all of them go");
    let refused = operations.set_target_in(&webs(80, 90), LAUNCHED, false, "test").await;
    assert!(matches!(refused, Err(OperationError::BeingDestroyed(unit)) if unit == template[0]));
    collect(&*store).await;
    let none = operations.destroy_in(&webs(1, 60), "test").await;
    assert!(matches!(none, Err(OperationError::NoSuchInstances(_))), "{none:?}");
}

/// What is said in very many parts, and instances with many records of their own, take several
/// transactions; each is within the store's limits.
pub async fn many_parts_take_several_transactions(store: Arc<dyn Store>) {
    let operations = operations(&store);
    submit(&operations).await;
    operations.set_target_in(&webs(1, 1_000), LAUNCHED, false, "test").await.unwrap();
    let own: Vec<UnitName> = (301..=500).map(web).collect();
    operations.set_target(&own, Target::Loaded, false, "test").await.unwrap();
    let odd: Vec<UnitName> = (1..300).step_by(2).map(web).collect();
    operations.destroy(&odd, "test").await.unwrap();
    assert_eq!(said(&*store).await.ranges.len(), 150);
    let refused = operations.set_target_in(&webs(1, 1_000), LAUNCHED, true, "test").await;
    assert!(matches!(refused, Err(OperationError::BeingDestroyed(_))));
    collect(&*store).await;
    let done = operations.set_target_in(&webs(1, 1_000), LAUNCHED, true, "test").await.unwrap();
    assert_eq!(done.count(), 1_000);
    let words = said(&*store).await.words();
    assert_eq!((words[&1], words[&2]), ((LAUNCHED, 1, false), (LAUNCHED, 2, false)));
    assert!((300..=1_000).all(|n| words[&n] == (LAUNCHED, 2, false)));
    operations.destroy_in(&webs(1, 1_000), "test").await.unwrap();
    assert!(said(&*store).await.words().values().all(|word| word.2));
}

/// A range of thousands: one order, one part, and a stop leaves alone what rests and makes nothing.
pub async fn thousands_are_said_at_once(store: Arc<dyn Store>) {
    let operations = operations(&store);
    submit(&operations).await;
    let nothing = operations.stop_in(&webs(1, 5_000), "ann").await;
    assert!(matches!(nothing, Err(OperationError::NoSuchInstances(_))), "{nothing:?}");
    let made = operations.set_target_in(&webs(1, 5_000), LAUNCHED, false, "ann").await.unwrap();
    assert_eq!((made.count(), made.parts.len(), made.own.len(), made.transactions), (5_000, 1, 0, 1));
    operations.set_target_in(&webs(4_001, 5_000), Target::Inactive, false, "ann").await.unwrap();
    operations.set_target(&[web(7)], LAUNCHED, true, "ann").await.unwrap();
    operations.set_target(&[web(8)], Target::Inactive, false, "ann").await.unwrap();
    let stopped = operations.stop_in(&webs(1, 6_000), "ann").await.unwrap();
    assert_eq!(stopped.own.len(), 1, "only the one that is to run: {:?}", stopped.own);
    let words = said(&*store).await.words();
    assert_eq!((words.len(), words[&7].0, words[&8].0), (5_000, Target::Loaded, Target::Inactive));
    assert_eq!((words[&4_000].0, words[&4_001].0), (Target::Loaded, Target::Inactive));
    let again = operations.stop_in(&webs(1, 6_000), "ann").await.unwrap();
    assert_eq!((again.changed(), again.transactions), (0, 0));
    let gone = operations.destroy_in(&webs(1, 5_000), "ann").await.unwrap();
    assert_eq!((gone.count(), gone.own.len()), (5_000, 2));
}
