//! What orders about ranges of instances do, over any store: these run in memory and on a real etcd.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flotilla_registry::{
    keys::{Key, Keys},
    operations::{Effect, OperationError, Operations},
    reads::Registry,
    records::{EventRecord, RangeGuard, RangeRecord, Record, Target, UnitRecord},
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
    /// Who is within a range's bounds, and has left it.
    pub left: BTreeSet<u64>,
    pub own: BTreeMap<u64, Word>,
}

impl Said {
    /// Returns what is wanted of each instance; an own record wins.
    pub fn words(&self) -> BTreeMap<u64, Word> {
        let ranged = self.ranges.iter().flat_map(|((from, to), word)| (*from..=*to).map(move |n| (n, *word)));
        let ranged = ranged.filter(|(n, _)| !self.left.contains(n));
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
                let record = RangeRecord::from_kv(kv).expect("a range");
                let RangeRecord { target, run, deleting, without, .. } = record;
                said.left.extend((from..=to).filter(|n| without.has(*n)));
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
    let spoken_for = |n: &u64| {
        said.ranges.iter().any(|((from, to), word)| (from..=to).contains(&n) && !word.2)
            && !said.left.contains(n)
    };
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
    assert_eq!(said(&*store).await, Said { guard: 2, ranges: split.into(), ..Said::default() });

    let stopped = operations.set_target(&[web(15)], Target::Loaded, false, "ben").await.unwrap();
    assert_eq!(stopped[0].effect, Effect::Changed, "it was there before its record");
    let own: BTreeMap<_, _> = [(15, (Target::Loaded, 2, false))].into();
    let expected = Said { guard: 2, ranges: split.into(), own, ..Said::default() };
    assert_eq!(said(&*store).await, expected, "the ranges are as before");

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
    assert_eq!((now.ranges, now.left), ([((1, 9), launched)].into(), [3, 5, 6].into()));
    assert_eq!(now.own, [(3, (Target::Loaded, 1, true)), (5, leaving), (6, leaving)].into());
    let refused = operations.set_target_in(&webs(1, 9), LAUNCHED, true, "test").await;
    assert!(matches!(refused, Err(OperationError::BeingDestroyed(unit)) if unit == web(3)));
    operations.set_target_in(&webs(7, 9), LAUNCHED, true, "test").await.expect("these stay");
    collect(&*store).await;
    assert!(!said(&*store).await.words().contains_key(&5), "its range does not speak for it any more");
    operations.set_target_in(&webs(1, 9), LAUNCHED, false, "test").await.expect("free again");
    let now = said(&*store).await;
    assert_eq!(
        (now.ranges, now.left),
        ([((1, 6), launched), ((7, 9), (LAUNCHED, 2, false))].into(), BTreeSet::new()),
        "who had left is there again"
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
    let now = said(&*store).await;
    assert_eq!((now.ranges.len(), now.left.len()), (1, 150), "they are noted in their range");
    let refused = operations.set_target_in(&webs(1, 1_000), LAUNCHED, true, "test").await;
    assert!(matches!(refused, Err(OperationError::BeingDestroyed(_))));
    collect(&*store).await;
    let done = operations.set_target_in(&webs(1, 1_000), LAUNCHED, true, "test").await.unwrap();
    assert_eq!(done.count(), 1_000);
    let words = said(&*store).await.words();
    assert_eq!(
        (words[&1], words[&2]),
        ((LAUNCHED, 2, false), (LAUNCHED, 2, false)),
        "made anew with the others"
    );
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

/// Fifty clients of two flotillads start and destroy parts of one range at once, as single units, lists and ranges:
/// nobody is refused, every order counts for its own instances, and the ranges stay few.
pub async fn fifty_clients_order_parts_of_one_range(stores: [Arc<dyn Store>; 2]) {
    const CLIENTS: u64 = 50;
    const EACH: u64 = 100;
    let here = operations(&stores[0]);
    submit(&here).await;
    here.set_target_in(&webs(0, CLIENTS * EACH - 1), LAUNCHED, false, "test").await.unwrap();
    let both = stores.each_ref().map(|store| Arc::new(operations(store)));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let operations = Arc::clone(&both[usize::try_from(client % 2).unwrap()]);
        clients.spawn(async move {
            // Their parts lie between each other: every fiftieth instance, and a stretch beyond the range.
            let mine = |n: u64| web(client + CLIENTS * n);
            let beyond = CLIENTS * EACH + client * EACH;
            let by = format!("client-{client}");
            for n in 0..20 {
                operations.destroy(&[mine(n)], &*by).await.expect("a unit is destroyed");
                operations
                    .set_target(&[web(beyond + n)], LAUNCHED, false, &*by)
                    .await
                    .expect("a unit is started");
            }
            let list: Vec<UnitName> = (20..40).map(mine).collect();
            operations.destroy(&list, &*by).await.expect("a list is destroyed");
            let more = webs(beyond + 20, beyond + 59);
            operations.set_target_in(&more, LAUNCHED, false, &*by).await.expect("a range is started");
            let gone = operations
                .destroy_in(&webs(beyond + 50, beyond + 59), &*by)
                .await
                .expect("a range is destroyed");
            assert_eq!(gone.count(), 10);
            operations.restart(&[mine(41)], &*by).await.expect("a unit is started anew");
        });
    }
    while let Some(done) = clients.join_next().await {
        done.expect("a client got all it asked for");
    }
    let now = said(&*stores[0]).await;
    assert!(now.ranges.len() <= 120, "a piece or two for each client: {}", now.ranges.len());
    let words = now.words();
    for client in 0..CLIENTS {
        for n in 0..EACH {
            let expected = (LAUNCHED, if n == 41 { 2 } else { 1 }, n < 40);
            assert_eq!(words[&(client + CLIENTS * n)], expected, "{client} {n}");
            let beyond = words.get(&(CLIENTS * EACH + client * EACH + n)).copied();
            assert_eq!(beyond, (n < 60).then_some((LAUNCHED, 1, n >= 50)), "{client} {n}");
        }
    }
    collect(&*stores[0]).await;
    let there = said(&*stores[0]).await.words().len() as u64;
    assert_eq!(there, CLIENTS * (EACH - 40 + 50));
    // Whoever changed what is known, however many were written together.
    let range = Keys::default().all_of("events");
    let events = stores[0].range(RangeRequest::all(range)).await.unwrap().kvs;
    let mut orders: BTreeMap<String, usize> = BTreeMap::new();
    for event in events.iter().map(|kv| EventRecord::from_kv(kv).unwrap()) {
        for change in &event.changes {
            *orders.entry(change.by.clone().unwrap_or_else(|| event.by.clone())).or_default() += 1;
        }
    }
    let each = 20 + 20 + 20 + 1 + 1 + 1;
    assert!((0..CLIENTS).all(|client| orders[&format!("client-{client}")] == each), "{orders:?}");
}
