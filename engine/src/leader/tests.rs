//! The step by itself: hand-made states in, transactions out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use flotilla_registry::{
    keys::{Bucket, Key, Keys},
    records::{
        Capacity, Cluster, EventRecord, MachineRecord, ManifestBucket, RangeRecord, Record as _, ReportHead,
        Rollout, Target, UnitRecord, Without,
    },
    store::{Compare, KeyValue, LeaseId, Operation, Revision, TXN_BYTES_MAX, TXN_OPERATIONS_MAX, WatchEvent},
};
use flotilla_units::{ContentHash, MachineId, UnitName};
use jiff::Timestamp;

use super::{
    news::News,
    step::{Memory, Now, Step, step},
};
use crate::{
    brake::{Brake, BrakeChange, Noticed, Picture},
    model::Model,
    state::{Changes, ClusterState, Machine},
};

const TEXT: &str = "[Service]\nExecStart=/bin/true\n";

struct World {
    state: ClusterState,
    model: Model,
    brake: Brake,
    memory: Memory,
    fresh: Changes,
    revision: i64,
    now: Duration,
}

fn id(n: usize) -> MachineId {
    format!("{n:032x}").parse().expect("valid")
}

impl World {
    fn new(tokens_reserved: u64) -> Self {
        let cluster = Cluster { v: 1, id: "c".to_owned(), epoch: 1, terms: Vec::new(), tokens_reserved };
        let elected_with = Cluster { tokens_reserved: 0, ..cluster.clone() };
        let fence = Compare::CreateRevision("/flotilla/engine/leader".to_owned(), Revision(1));
        let mut world = Self {
            state: ClusterState::new(Keys::default()),
            model: Model::default(),
            brake: Brake::default(),
            memory: Memory::new(fence, "term", &elected_with, None, News::default()),
            fresh: Changes::default(),
            revision: 1,
            now: Duration::ZERO,
        };
        let content = Key::Content(ContentHash::of(TEXT.as_bytes()));
        world.apply(vec![(Key::Cluster, cluster.encode()), (content, TEXT.into())]);
        world
    }

    /// Machines that have joined, and an order of so many instances for them.
    fn with_order(machines: usize, units: u64) -> Self {
        let mut world = Self::new(100_000);
        (1..=machines).for_each(|n| world.machine(n));
        let joined = world.step();
        world.write(&joined);
        world.unit("web@.service");
        world.range("web@.service", units);
        world
    }

    fn apply(&mut self, puts: Vec<(Key, Vec<u8>)>) {
        let puts = puts.into_iter().map(|(key, value)| (self.state.keys().spell(&key), Some(value)));
        self.revise(puts.collect());
    }

    /// Applies one revision; a key without a value is deleted.
    fn revise(&mut self, changes: Vec<(String, Option<Vec<u8>>)>) {
        self.revision += 1;
        let revision = Revision(self.revision);
        let event = |(key, value): (String, Option<Vec<u8>>)| match value {
            None => WatchEvent::Delete { key, revision },
            Some(value) => WatchEvent::Put(KeyValue {
                key,
                value: value.into(),
                create_revision: revision,
                mod_revision: revision,
                version: 1,
                lease: None,
            }),
        };
        let events: Vec<_> = changes.into_iter().map(event).collect();
        let changes = self.state.apply(revision, &events);
        self.model.sync(&self.state, &changes);
        let picture = Picture { state: &self.state, model: &self.model };
        picture.tell(&mut self.brake, &changes.machines, Noticed::Now, self.now);
        self.fresh.add(&changes);
    }

    /// Does what a step wants written.
    fn write(&mut self, step: &Step) {
        for ready in &step.transactions {
            let change = |operation: &Operation| match operation {
                Operation::Put { key, value, .. } => (key.clone(), Some(value.clone())),
                Operation::Delete(range) => (range.start.clone(), None),
                Operation::Get(range) => panic!("{range:?} is read"),
            };
            self.revise(ready.txn.then.iter().map(change).collect());
        }
    }

    /// A machine's lease ends.
    fn lose(&mut self, n: usize) {
        let keys = [Key::Machine(id(n)), Key::ReportHead(id(n))];
        self.revise(keys.iter().map(|key| (self.state.keys().spell(key), None)).collect());
    }

    fn machine(&mut self, n: usize) {
        let record = MachineRecord {
            v: 1,
            host: format!("m{n}"),
            addresses: Vec::new(),
            api: None,
            metadata: Default::default(),
            facts: Default::default(),
            capacity: Capacity::default(),
            boot_id: "boot".to_owned(),
            nonce: "nonce".to_owned(),
            version: "test".to_owned(),
            lease: LeaseId(1),
            lease_ttl_s: 10,
            stopped: false,
        };
        let head = ReportHead { v: 1, incarnation: "nonce".to_owned(), seen: Revision(0) };
        self.apply(vec![(Key::Machine(id(n)), record.encode()), (Key::ReportHead(id(n)), head.encode())]);
    }

    /// Machines take up what was written to them; returns how many.
    fn take_up(&mut self) -> usize {
        let behind = |(id, machine): (&MachineId, &Machine)| {
            let head = ReportHead { v: 1, incarnation: "nonce".to_owned(), seen: machine.ordered()? };
            (machine.seen() < machine.ordered()).then(|| (Key::ReportHead(*id), head.encode()))
        };
        let heads: Vec<_> = self.state.machines().iter().filter_map(behind).collect();
        let count = heads.len();
        self.apply(heads);
        count
    }

    /// A unit with a text of its own.
    fn with_text(&mut self, name: &str, text: &str, deleting: bool) {
        let hash = ContentHash::of(text.as_bytes());
        self.apply(vec![(Key::Content(hash), text.into())]);
        self.record(name, Some(hash));
        let key = Key::Unit(name.parse().expect("valid"));
        let kept = self.state.units().values().last().and_then(|kept| kept.record()).expect("readable");
        let record = UnitRecord { deleting, ..(**kept).clone() };
        self.apply(vec![(key, record.encode())]);
    }

    /// Instances 1 to `to` of a template.
    fn range(&mut self, template: &str, to: u64) {
        let record = RangeRecord {
            v: 1,
            target: Target::Launched,
            generation: 1,
            run: 1,
            by: "test".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            deleting: false,
            without: Without::default(),
        };
        let key = Key::Range { template: template.parse().expect("valid"), from: 1, to };
        self.apply(vec![(key, record.encode())]);
    }

    fn unit(&mut self, name: &str) {
        self.record(name, Some(ContentHash::of(TEXT.as_bytes())));
    }

    fn record(&mut self, name: &str, current: Option<ContentHash>) {
        let name: UnitName = name.parse().expect("valid");
        let record = UnitRecord {
            v: 1,
            runtime: name.clone(),
            current,
            rollout: Rollout::OneByOne,
            set: None,
            adopted: None,
            target: Target::Launched,
            generation: 1,
            run: 1,
            by: "test".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            deleting: false,
        };
        self.apply(vec![(Key::Unit(name), record.encode())]);
    }

    /// Takes a step, a second after the one before.
    fn step(&mut self) -> Step {
        self.step_after(Duration::from_secs(1))
    }

    fn step_after(&mut self, pause: Duration) -> Step {
        self.now += pause;
        let now = Now { mono: self.now, wall: after(self.now) };
        let changes = std::mem::take(&mut self.fresh);
        step(&self.state, &mut self.model, &mut self.brake, &mut self.memory, changes, now, false)
    }
}

/// What the clock on the wall shows so long after the beginning.
fn after(mono: Duration) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(mono.as_millis()).expect("a test is short")).expect("a time")
}

fn events(step: &Step) -> Vec<EventRecord> {
    let operations = step.transactions.iter().flat_map(|ready| &ready.txn.then);
    let puts = operations.filter_map(|operation| match operation {
        Operation::Put { key, value, .. } if key.contains("/events/") => Some((key, value)),
        _ => None,
    });
    puts.map(|(key, value)| EventRecord::decode(key, value).expect("readable")).collect()
}

fn buckets(step: &Step) -> Vec<ManifestBucket> {
    let operations = step.transactions.iter().flat_map(|ready| &ready.txn.then);
    let puts = operations.filter_map(|operation| match operation {
        Operation::Put { key, value, .. } if key.contains("/manifests/") => Some((key, value)),
        _ => None,
    });
    puts.map(|(key, value)| ManifestBucket::decode(key, value).expect("readable")).collect()
}

#[test]
fn news_that_wait_to_be_written_together_are_told_with_when_they_were_seen() {
    let mut world = World::new(100_000);
    let joined = |at, n| (Some(after(Duration::from_millis(at))), Some(id(n)));
    let told = |events: &[EventRecord]| {
        let changes = events.iter().flat_map(|record| &record.changes);
        changes.map(|change| (change.at, change.machine)).collect::<Vec<_>>()
    };
    world.machine(1);
    assert_eq!(told(&events(&world.step())), [joined(1_000, 1)]);
    for (n, pause) in [(2, 300), (3, 400)] {
        world.machine(n);
        assert_eq!(told(&events(&world.step_after(Duration::from_millis(pause)))), [], "it waits");
    }
    let last = events(&world.step_after(Duration::from_millis(400)));
    assert_eq!(told(&last), [joined(1_300, 2), joined(1_700, 3)]);
    assert_eq!(last[0].at, after(Duration::from_millis(2_100)));
    assert_eq!(last[0].time_of(&last[0].changes[0]), after(Duration::from_millis(1_300)));
}

#[test]
fn tokens_are_reserved_before_anything_is_placed() {
    let mut world = World::new(0);
    world.machine(1);
    world.unit("a.service");
    let first = world.step();
    assert!(buckets(&first).is_empty() && first.more);
    // What is told of the machine that joined goes by itself.
    let [_, ready] = &first.transactions[..] else { panic!("{:?}", first.transactions) };
    let [Operation::Put { key, value, .. }] = &ready.txn.then[..] else { panic!("{:?}", ready.txn) };
    let reserved = Cluster::decode(key, value).expect("readable");
    assert_eq!(reserved.tokens_reserved, super::tokens::BLOCK);
    world.apply(vec![(Key::Cluster, reserved.encode())]);
    let second = world.step();
    assert_eq!(buckets(&second)[0].entries[0].token.counter(), 1);
}

#[test]
fn every_transaction_is_fenced_within_the_limits_and_compares_what_it_overwrites() {
    let mut world = World::new(100_000);
    (1..=40).for_each(|n| world.machine(n));
    (0..1_500).for_each(|n| world.unit(&format!("unit-{n}.service")));
    let found = world.step();
    assert_eq!(buckets(&found).iter().map(|bucket| bucket.entries.len()).sum::<usize>(), 1_500);
    assert!(found.transactions.len() >= 5, "640 buckets do not fit into less");
    let cluster = world.state.keys().spell(&Key::Cluster);
    for ready in &found.transactions {
        let txn = &ready.txn;
        assert!(matches!(&txn.when[0], Compare::CreateRevision(key, Revision(1)) if key.ends_with("leader")));
        assert!(matches!(&txn.when[1], Compare::ModRevision(key, Revision(2)) if *key == cluster));
        assert!(txn.when.len() <= TXN_OPERATIONS_MAX + 2 && txn.then.len() <= TXN_OPERATIONS_MAX + 1);
        let bytes = |operation: &Operation| match operation {
            Operation::Put { key, value, .. } => key.len() + value.len(),
            Operation::Delete(range) | Operation::Get(range) => range.start.len(),
        };
        assert!(txn.then.iter().map(bytes).sum::<usize>() <= TXN_BYTES_MAX);
        for operation in &txn.then {
            if let Operation::Put { key, .. } = operation
                && key.contains("/manifests/")
            {
                assert!(txn.when.contains(&Compare::Absent(key.clone())), "{key} is written unseen");
            }
        }
    }
}

#[test]
fn a_large_order_writes_each_bucket_once_and_says_once_why() {
    let (machines, units) = (210, 21_000);
    let mut world = World::with_order(machines, units);
    let (mut written, mut told, mut bytes) = (BTreeMap::new(), 0, 0);
    for _ in 0..10 {
        let found = world.step();
        for operation in found.transactions.iter().flat_map(|ready| &ready.txn.then) {
            let Operation::Put { key, value, .. } = operation else { continue };
            if key.contains("/manifests/") {
                *written.entry(key.clone()).or_insert(0) += 1;
            } else if key.contains("/events/") {
                let event = EventRecord::decode(key, value).expect("readable");
                told += event.changes.iter().map(|change| change.units().count()).sum::<usize>();
                bytes += value.len();
            }
        }
        world.write(&found);
        if !found.more {
            break;
        }
    }
    let placed: Vec<usize> = world.state.machines().values().map(|it| it.entries().count()).collect();
    assert_eq!(placed, vec![100; machines]);
    let filled = |n: usize| {
        let entries = world.state.machines()[&id(n)].entries();
        entries.map(|entry| Bucket::of(&entry.unit)).collect::<BTreeSet<_>>().len()
    };
    let filled: usize = (1..=machines).map(filled).sum();
    assert_eq!((written.len(), written.values().max()), (filled, Some(&1)));
    assert_eq!(told, 21_000, "each has its event");
    assert!(bytes < 40 * 21_000, "{bytes} bytes of events");
    assert!(world.step().transactions.is_empty());
}

#[test]
fn a_large_order_waits_for_the_machines_that_were_written_to_but_not_for_ever() {
    let (machines, units) = (1_100, 22_000);
    let mut world = World::with_order(machines, units);
    let filled = |world: &World| {
        world.state.machines().values().filter(|machine| machine.entries().next().is_some()).count()
    };
    let first = world.step();
    let at = world.now;
    world.write(&first);
    assert_eq!(filled(&world), 454);
    let second = world.step();
    assert!(buckets(&second).is_empty() && !second.more, "none has taken up what was written");
    assert_eq!(second.wake_at, Some(at + Duration::from_secs(10)));
    // What is no large order goes at once all the same.
    world.unit("a.service");
    let found = world.step();
    assert_eq!(buckets(&found).len(), 1);
    world.write(&found);
    assert!(world.take_up() >= 454);
    let found = world.step();
    world.write(&found);
    assert!((908..=909).contains(&filled(&world)), "{} with the one of a.service", filled(&world));
    // Nobody answers any more.
    world.now += Duration::from_secs(10);
    let found = world.step();
    world.write(&found);
    assert_eq!(filled(&world), machines);
}

#[test]
fn a_new_leader_goes_on_deciding_an_order_of_more_than_a_step() {
    let mut world = World::new(200_000);
    (1..=3).for_each(|n| world.machine(n));
    for template in ["web@.service", "db@.service"] {
        world.unit(template);
        world.range(template, 60_000);
    }
    assert!(world.step().more, "the rest is not decided yet");
    assert!(!buckets(&world.step()).is_empty(), "all is");
}

#[test]
fn what_was_decided_and_waits_is_not_forgotten_when_a_new_leader_comes_to_look_at_it() {
    let mut world = World::new(0);
    world.machine(1);
    let units: Vec<UnitName> = (0..20).map(|n| format!("a{n}.service").parse().expect("valid")).collect();
    units.iter().for_each(|unit| world.unit(unit.as_str()));
    let first = world.step();
    assert!(buckets(&first).is_empty(), "they are decided, and wait for tokens");
    let World { memory, fresh, .. } = &mut world;
    let fence = Compare::CreateRevision("/flotilla/engine/leader".to_owned(), Revision(1));
    let cluster = Cluster { v: 1, id: "c".to_owned(), epoch: 1, terms: Vec::new(), tokens_reserved: 0 };
    let other = Memory::new(fence, "other", &cluster, None, News::default());
    *memory = std::mem::replace(memory, other).with_unseen(units.iter().cloned().collect());
    assert!(!memory.look_on(fresh));
    world.write(&first);
    let second = world.step();
    let placed: usize = buckets(&second).iter().map(|bucket| bucket.entries.len()).sum();
    assert_eq!(placed, units.len());
}

#[test]
fn nothing_is_decided_without_a_readable_cluster_record_or_after_the_store_went_back() {
    let mut world = World::new(100_000);
    world.machine(1);
    world.unit("a.service");
    world.apply(vec![(Key::Cluster, b"{\"v\":7}".to_vec())]);
    let found = world.step();
    assert!(found.transactions.is_empty());
    assert!(found.standstill.is_some_and(|why| why.contains("version 7")));

    let mut world = World::new(100_000);
    world.machine(1);
    world.unit("a.service");
    let older = Cluster { v: 1, id: "c".to_owned(), epoch: 1, terms: vec![], tokens_reserved: 5_000 };
    world.apply(vec![(Key::Cluster, older.encode())]);
    let found = world.step();
    assert!(found.transactions.is_empty() && found.standstill.is_some());
}

#[test]
fn machines_that_vanish_during_a_standstill_are_counted_after_it() {
    let mut world = World::new(100_000);
    (1..=4).for_each(|n| world.machine(n));
    (1..=4).for_each(|n| world.unit(&format!("{n}.service")));
    let placed = world.step();
    world.write(&placed);
    let cluster = world.state.cluster().and_then(|kept| kept.record()).expect("readable").encode();
    world.apply(vec![(Key::Cluster, b"{\"v\":7}".to_vec())]);
    (1..=3).for_each(|n| world.lose(n));
    assert!(world.step().standstill.is_some());
    world.apply(vec![(Key::Cluster, cluster)]);
    let found = world.step();
    assert_eq!(found.brake, Some(BrakeChange::Tripped { lost: 3, of: 4 }));
    assert!(buckets(&found).is_empty(), "{:?}", found.transactions);
}

#[test]
fn what_cannot_be_decided_about_keeps_the_leader_from_nothing() {
    let mut world = World::new(100_000);
    world.machine(1);
    world.unit("web@.service");
    (0..2_600).for_each(|n| world.record(&format!("web@{n}.service"), None));
    loop {
        let found = world.step();
        world.write(&found);
        if found.transactions.is_empty() {
            break;
        }
    }
    (2..=3).for_each(|n| world.machine(n));
    world.apply(vec![(Key::Unit("web@.service".parse().expect("valid")), b"{\"v\":7}".to_vec())]);
    world.lose(1);
    world.unit("other.service");
    let found = world.step();
    assert_eq!(buckets(&found).len(), 1, "the one that can be told about");
    world.write(&found);
    let rest = world.step();
    assert!(rest.transactions.is_empty() && !rest.more, "{rest:?}");
}

#[test]
fn a_global_unit_of_very_many_lost_machines_is_destroyed_within_the_limits() {
    let mut world = World::new(100_000);
    (1..=500).for_each(|n| world.machine(n));
    let text = format!("{TEXT}[X-Flotilla]\nGlobal=true\n");
    world.with_text("all.service", &text, false);
    let go_on = |world: &mut World, steps: usize| {
        for _ in 0..steps {
            let found = world.step();
            for ready in &found.transactions {
                let (when, then) = (ready.txn.when.len(), ready.txn.then.len());
                assert!(when <= 128 && then <= 128, "{when} compares, {then} operations");
            }
            world.write(&found);
        }
    };
    go_on(&mut world, 20);
    (1..=140).for_each(|n| world.lose(n));
    go_on(&mut world, 5);
    world.with_text("all.service", &text, true);
    go_on(&mut world, 20);
    assert_eq!(world.state.units().len(), 1, "the living have not proven it gone");
    for n in 141..=500 {
        let keys =
            Bucket::all().map(|bucket| (world.state.keys().spell(&Key::Manifest(id(n), bucket)), None));
        let keys = keys.collect();
        world.revise(keys);
    }
    go_on(&mut world, 10);
    assert!(world.state.units().is_empty(), "destroyed");
    let departing = world.state.machines().values().flat_map(|machine| machine.entries());
    assert_eq!(departing.filter(|entry| entry.departing.is_some()).count(), 140, "the orders stay");
}

#[test]
fn texts_that_are_nobodys_are_collected_by_compare_within_the_limits_and_only_with_other_work() {
    let mut world = World::new(100_000);
    (1..=40).for_each(|n| world.machine(n));
    world.unit("first.service");
    let placed = world.step();
    world.write(&placed);
    let text = |n: usize| format!("{TEXT}# {n} {}", "x".repeat(if n < 3 { 600_000 } else { 0 }));
    let hash = |n: usize| ContentHash::of(text(n).as_bytes());
    for n in 0..60 {
        world.apply(vec![(Key::Content(hash(n)), text(n).into())]);
    }
    let of = |operation: &Operation| match operation {
        Operation::Delete(range) if range.start.contains("/contents/") => Some(range.start.clone()),
        _ => None,
    };
    let collected = |step: &Step| -> Vec<String> {
        step.transactions.iter().flat_map(|ready| ready.txn.then.iter().filter_map(of)).collect()
    };
    world.unit("second.service");
    let early = world.step();
    assert!(!early.transactions.is_empty() && collected(&early).is_empty());
    world.write(&early);
    assert!(world.step().transactions.is_empty());
    world.now += super::texts::KEPT;
    assert!(world.step().transactions.is_empty(), "at rest nothing is written");

    // One is submitted at this very moment: it is written before what was decided without it.
    world.unit("third.service");
    let found = world.step();
    let key = world.state.keys().spell(&Key::Content(hash(0)));
    assert_eq!(collected(&found), [key.as_str()], "two of 600 kB do not go together");
    let written = |world: &World| world.state.content(&hash(0)).map(crate::state::Content::written);
    let before = written(&world).expect("there");
    assert!(found.transactions[0].txn.when.contains(&Compare::ModRevision(key.clone(), before)));
    world.apply(vec![(Key::Content(hash(0)), text(0).into())]);
    assert!(written(&world).expect("there") > before, "so the compare fails");

    let mut counts = Vec::new();
    for n in 0..6 {
        world.unit(&format!("unit-{n}.service"));
        let found = world.step();
        assert!(!collected(&found).contains(&key), "it is not tried again for an hour");
        assert!(found.transactions.iter().all(|it| it.txn.when.len() <= 128 && it.txn.then.len() <= 128));
        counts.push(collected(&found).len());
        world.write(&found);
    }
    assert_eq!(counts, [1, 16, 16, 16, 10, 0]);
    assert!(written(&world).is_some());
    // A transaction that is full takes none with it.
    world.now += super::texts::KEPT;
    (0..1_500).for_each(|n| world.unit(&format!("more-{n}.service")));
    let found = world.step();
    assert!(found.transactions.len() >= 5);
    assert!(found.transactions.iter().all(|it| it.txn.when.len() <= 128 && it.txn.then.len() <= 128));
    assert_eq!(collected(&found), [key]);
}
