use std::collections::{BTreeMap, BTreeSet};

use flotilla_registry::{
    keys::{Key, Keys},
    records::{Record as _, Rollout, Target, VERSION, Without},
    store::{KeyValue, WatchEvent},
};
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::state::Wish;

/// A store of nothing but keys and values, and the state that follows it.
struct World {
    kvs: BTreeMap<String, KeyValue>,
    state: ClusterState,
    revision: i64,
}

fn name(text: &str) -> UnitName {
    text.parse().expect("valid")
}

fn range(from: u64, to: u64) -> RangeKey {
    RangeKey { template: name("web@.service"), from, to }
}

fn said(run: u64, deleting: bool) -> Vec<u8> {
    let (target, by, at) = (Target::Launched, "test".to_owned(), Timestamp::UNIX_EPOCH);
    let without = Without::default();
    RangeRecord { v: VERSION, target, generation: 1, run, by, at, deleting, without }.encode()
}

/// What a range says from which some have left.
fn said_without(run: u64, gone: &[u64]) -> Vec<u8> {
    let mut record = RangeRecord::decode("", &said(run, false)).expect("a range");
    gone.iter().for_each(|number| record.without.insert(*number));
    record.encode()
}

fn own(number: u64, run: u64) -> (Key, Option<Vec<u8>>) {
    let unit = name(&format!("web@{number}.service"));
    let (target, by, at) = (Target::Loaded, "test".to_owned(), Timestamp::UNIX_EPOCH);
    let runtime = unit.clone();
    let record = UnitRecord {
        v: VERSION,
        runtime,
        current: None,
        rollout: Rollout::OneByOne,
        set: None,
        adopted: None,
        target,
        generation: 1,
        run,
        by,
        at,
        deleting: false,
    };
    (Key::Unit(unit), Some(record.encode()))
}

impl World {
    fn new() -> Self {
        Self { kvs: BTreeMap::new(), state: ClusterState::new(Keys::default()), revision: 1 }
    }

    /// Applies one revision; a key without a value is deleted.
    fn revise(&mut self, changes: Vec<(Key, Option<Vec<u8>>)>) -> BTreeSet<String> {
        self.revision += 1;
        let revision = Revision(self.revision);
        let keys = Keys::default();
        let mut events = Vec::new();
        for (key, value) in changes {
            let key = keys.spell(&key);
            let created = self.kvs.get(&key).map_or(revision, |kv| kv.create_revision);
            let Some(value) = value else {
                self.kvs.remove(&key);
                events.push(WatchEvent::Delete { key, revision });
                continue;
            };
            let value = value.into();
            let (create_revision, mod_revision, version, lease) = (created, revision, 1, None);
            let kv = KeyValue { key: key.clone(), value, create_revision, mod_revision, version, lease };
            self.kvs.insert(key, kv.clone());
            events.push(WatchEvent::Put(kv));
        }
        let changes = self.state.apply(revision, &events);
        changes.units.iter().map(ToString::to_string).collect()
    }

    /// Returns each unit's run, or nothing where its record cannot be read, and whether it is derived.
    fn units(state: &ClusterState) -> BTreeMap<String, (Option<u64>, bool, bool)> {
        let word = |kept: &Kept<UnitRecord>| {
            let record = kept.record();
            let deleting = record.is_some_and(|record| record.deleting);
            (record.map(|record| record.run), deleting, kept.is_derived())
        };
        state.units().iter().map(|(name, kept)| (name.to_string(), word(kept))).collect()
    }
}

#[test]
fn a_range_makes_units_and_an_own_record_wins_whichever_comes_first() {
    let mut world = World::new();
    let changed = world.revise(vec![own(2, 7), (range(1, 3).key(), Some(said(1, false)))]);
    assert_eq!(changed.len(), 4, "three instances and their template: {changed:?}");
    let derived = (Some(1), false, true);
    let expected = |two| -> BTreeMap<String, _> {
        [("web@1.service", derived), ("web@2.service", two), ("web@3.service", derived)]
            .map(|(name, word)| (name.to_owned(), word))
            .into()
    };
    assert_eq!(World::units(&world.state), expected((Some(7), false, false)));
    world.revise(vec![(range(1, 3).key(), None)]);
    assert_eq!(world.state.units().len(), 1);
    world.revise(vec![(range(1, 3).key(), Some(said(1, false)))]);
    assert_eq!(World::units(&world.state), expected((Some(7), false, false)));
    let changed = world.revise(vec![(own(2, 7).0, None)]);
    assert!(changed.contains("web@2.service"));
    assert_eq!(World::units(&world.state), expected(derived), "nobody took it out");
    world.revise(vec![own(2, 8)]);
    assert_eq!(World::units(&world.state), expected((Some(8), false, false)));
    // As a destroyed one goes: taken out in one revision, its record in a later one.
    let parts = [(range(1, 3).key(), None), (range(1, 1).key(), Some(said(1, false)))];
    world.revise(parts.into_iter().chain([(range(3, 3).key(), Some(said(1, false)))]).collect());
    world.revise(vec![(own(2, 8).0, None)]);
    assert!(!world.state.units().contains_key(&name("web@2.service")));
    assert!(matches!(world.state.wish(&name("web@2.service")), Wish::Unknown));
}

#[test]
fn who_leaves_a_range_is_gone_and_nobody_else_is_touched() {
    let mut world = World::new();
    world.revise(vec![(range(1, 1_000).key(), Some(said(1, false)))]);
    // As a destroyed one goes: noted in its range with its own record, and then without it.
    let changed = world.revise(vec![(range(1, 1_000).key(), Some(said_without(1, &[7]))), own(7, 1)]);
    assert_eq!(changed, ["web@.service", "web@7.service"].map(str::to_owned).into());
    let changed = world.revise(vec![(own(7, 1).0, None)]);
    assert!(changed.contains("web@7.service"), "{changed:?}");
    assert!(!world.state.units().contains_key(&name("web@7.service")));
    assert_eq!(world.state.units().len(), 999);
    world.revise(vec![
        (range(1, 1_000).key(), None),
        (range(1, 500).key(), Some(said_without(1, &[7, 8]))),
        (range(501, 1_000).key(), Some(said(2, false))),
    ]);
    assert_eq!(world.state.units().len(), 998);
    let changed = world.revise(vec![(range(1, 500).key(), Some(said_without(2, &[8])))]);
    assert_eq!(changed.len(), 500, "the others are ordered anew and one is back: {changed:?}");
    assert!(!changed.contains("web@8.service") && world.state.units().contains_key(&name("web@7.service")));
}

#[test]
fn a_split_touches_only_those_of_whom_something_else_is_said() {
    let mut world = World::new();
    world.revise(vec![(range(1, 1_000).key(), Some(said(1, false)))]);
    let changed = world.revise(vec![
        (range(1, 1_000).key(), None),
        (range(1, 4).key(), Some(said(1, false))),
        (range(5, 6).key(), Some(said(2, false))),
        (range(7, 1_000).key(), Some(said(1, false))),
    ]);
    assert_eq!(changed, ["web@.service", "web@5.service", "web@6.service"].map(str::to_owned).into());
}

#[test]
fn what_speaks_for_an_instance_may_be_younger_than_the_instance() {
    let mut world = World::new();
    let guard = RangeGuard { v: VERSION, generation: 1 }.encode();
    let guard = (Key::RangeGuard(name("web@.service")), Some(guard));
    world.revise(vec![guard.clone(), (range(1, 9).key(), Some(said(1, false)))]);
    let first = Revision(world.revision);
    world.revise(vec![
        guard,
        (range(1, 9).key(), None),
        (range(1, 8).key(), Some(said(1, false))),
        own(9, 1),
    ]);
    for unit in ["web@1.service", "web@9.service"] {
        assert_eq!(world.state.came_to_be(&name(unit)), Some(first), "{unit}");
    }
}

#[test]
fn what_no_operation_writes_is_told_and_leaves_everything_as_it_is() {
    let mut world = World::new();
    world.revise(vec![
        (range(1, 5).key(), Some(said(1, false))),
        (range(4, 8).key(), Some(said(2, false))),
        (range(20, 21).key(), Some(b"{\"v\":9}".to_vec())),
        (range(30, u64::MAX).key(), Some(said(1, false))),
        (range(9, 8).key(), Some(said(1, false))),
    ]);
    let units = World::units(&world.state);
    assert_eq!(units.len(), 10, "{units:?}");
    assert!(units.values().all(|(run, ..)| run.is_none()));
    assert!(matches!(world.state.wish(&name("web@7.service")), Wish::Unreadable(_)));
    assert_eq!(world.state.range_problems().len(), 4, "{:?}", world.state.range_problems());
    world.revise(vec![(range(4, 8).key(), None)]);
    assert_eq!(World::units(&world.state)["web@5.service"], (Some(1), false, true));
    assert!(world.state.has_ranges(&name("web@.service")));
}

proptest! {
    /// Whatever is written in whatever order, also what no operation writes: the state is what a new
    /// listing of the same keys would make, and every unit that is another than before is told.
    #[test]
    fn the_state_is_as_listed_anew(
        revisions in prop::collection::vec(
            prop::collection::vec((any::<bool>(), 0..9_u64, 0..5_u64, 0..6_u64), 1..5),
            1..20,
        )
    ) {
        let mut world = World::new();
        for writes in revisions {
            // A key is written once in a revision.
            let mut changes = BTreeMap::new();
            for (is_own, from, more, what) in writes {
                let (key, value) = if is_own {
                    let (key, value) = own(from, what);
                    (key, value.filter(|_| what > 1))
                } else {
                    let value = match what {
                        4 => said_without(1, &[from, from + 2]),
                        5 => said_without(2, &[from + 1]),
                        what => said(what, what == 3),
                    };
                    (range(from, from + more).key(), (what > 0).then_some(value))
                };
                changes.insert(key, value);
            }
            let before = World::units(&world.state);
            let changed = world.revise(changes.into_iter().collect());
            let after = World::units(&world.state);
            for unit in before.keys().chain(after.keys()) {
                prop_assert!(before.get(unit) == after.get(unit) || changed.contains(unit), "{unit} is not told");
            }
            let mut anew = ClusterState::new(Keys::default());
            let kvs: Vec<KeyValue> = world.kvs.values().cloned().collect();
            anew.reset(Revision(world.revision), &kvs);
            prop_assert_eq!(after, World::units(&anew));
            prop_assert!(world.state.leaving_ranges().eq(anew.leaving_ranges()));
            prop_assert!(world.state.ranges.unsettled.is_empty() && world.state.ranges.orphans.is_empty());
        }
    }
}
