use std::{collections::BTreeMap, sync::Arc, time::Duration};

use flotilla_registry::{
    keys::{Key, Keys},
    operations::{OperationError, Operations},
    records::Target,
    store::Store,
};
use proptest::prelude::*;

use super::{
    beside, put,
    range_cases::{self, Word, collect, name, operations, said, submit, web, webs},
    store,
};

macro_rules! in_memory {
    ($($case:ident),* $(,)?) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $case() {
                range_cases::$case(store(1).0).await;
            }
        )*
    };
}
in_memory!(
    one_record_speaks_for_many,
    a_destroyed_instance_is_taken_out,
    a_range_is_destroyed_as_one,
    many_parts_take_several_transactions,
    thousands_are_said_at_once,
);

#[tokio::test(start_paused = true)]
async fn fifty_clients_order_parts_of_one_range() {
    let (_, faults) = store(1);
    let stores = [2, 3].map(|seed| {
        let (store, own) = beside(&faults, seed);
        own.slow(Duration::from_millis(1), Duration::from_millis(10));
        store
    });
    range_cases::fifty_clients_order_parts_of_one_range(stores).await;
}

#[tokio::test(start_paused = true)]
async fn an_order_about_a_hundred_thousand_is_one_transaction() {
    let (store, faults) = store(2);
    let operations = operations(&store);
    submit(&operations).await;
    let before = faults.calls();
    let made = operations.set_target_in(&webs(1, 100_000), Target::Launched, false, "test").await.unwrap();
    assert_eq!((made.count(), made.parts.len()), (100_000, 1));
    let (reads, writes) = (3, 1);
    assert_eq!(faults.calls() - before, reads + writes);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_ordered_says_why() {
    let (store, _) = store(3);
    let operations = operations(&store);
    let missing = operations.set_target_in(&webs(1, 5), Target::Launched, false, "test").await.unwrap_err();
    assert!(missing.to_string().contains("no template `web@.service`"), "{missing}");
    submit(&operations).await;
    for none in [
        operations.set_target_in(&webs(1, 5), Target::Inactive, false, "test").await.map(drop),
        operations.destroy_in(&webs(1, 5), "test").await.map(drop),
    ] {
        let none = none.unwrap_err().to_string();
        assert!(none.contains("no instance `web@{1..5}.service`"), "{none}");
    }
    let gap = operations.destroy(&[web(1)], "test").await;
    assert!(matches!(gap, Err(OperationError::NoSuchUnit(_))), "{gap:?}");
    operations.set_target_in(&webs(1, 5), Target::Launched, false, "test").await.unwrap();
    let overlapping = Keys::default().spell(&Key::Range { template: name("web@.service"), from: 3, to: 9 });
    put(&*store, &overlapping, r#"{"v":9}"#, None).await;
    for unreadable in [
        operations.set_target_in(&webs(1, 2), Target::Launched, true, "test").await.map(drop),
        operations.destroy(&[web(1)], "test").await.map(drop),
        operations.destroy(&[name("web@.service")], "test").await.map(drop),
    ] {
        assert!(matches!(unreadable, Err(OperationError::Unreadable(_))), "{unreadable:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_resolved_by_reading_and_never_repeated() {
    let (store, faults) = store(4);
    let operations = operations(&store);
    submit(&operations).await;
    operations.set_target_in(&webs(1, 9), Target::Launched, false, "test").await.unwrap();
    operations.set_target(&[web(4)], Target::Launched, true, "test").await.unwrap();
    for lost in 1..=6 {
        let before = said(&*store).await.words();
        faults.lose_replies(lost);
        let outcome = operations.set_target_in(&webs(3, 5), Target::Launched, true, "test").await;
        faults.lose_replies(0);
        let more = u64::from(outcome.is_ok());
        let after = said(&*store).await.words();
        assert!((3..=5).all(|n| after[&n].1 == before[&n].1 + more), "{before:?} {after:?} {outcome:?}");
        assert_eq!(after[&6], before[&6]);
    }
}

/// Everybody splits the same ranges at once: each order counts once, for its own instances.
#[tokio::test(start_paused = true)]
async fn concurrent_orders_are_all_counted() {
    let (store, faults) = store(5);
    let first = operations(&store);
    submit(&first).await;
    first.set_target_in(&webs(0, 19), Target::Launched, false, "test").await.unwrap();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..6_u64 {
        let (own, own_faults) = beside(&faults, client);
        own_faults.slow(Duration::from_millis(1), Duration::from_millis(20));
        let operations = operations(&own);
        clients.spawn(async move {
            let mut done = Vec::new();
            for turn in 0..20 {
                let from = (client * 5 + turn * 3) % 15;
                let to = from + turn % 5;
                let ordered = if turn % 4 == 3 {
                    operations.restart(&[web(from)], "test").await.map(|_| (from, from))
                } else {
                    let range = webs(from, to);
                    operations.set_target_in(&range, Target::Launched, true, "test").await.map(|_| (from, to))
                };
                done.extend(ordered);
            }
            done
        });
    }
    let done: Vec<(u64, u64)> = clients.join_all().await.into_iter().flatten().collect();
    let mut expected: BTreeMap<u64, u64> = (0..20).map(|n| (n, 1)).collect();
    for n in done.iter().flat_map(|(from, to)| *from..=*to) {
        *expected.entry(n).or_default() += 1;
    }
    let runs: BTreeMap<u64, u64> =
        said(&*store).await.words().into_iter().map(|(n, word)| (n, word.1)).collect();
    assert_eq!(runs, expected);
    assert!(done.len() >= 90, "{} of 120 got through", done.len());
}

/// An instance gets a record of its own while its range is destroyed: either it comes first and is
/// destroyed too, or it is refused.
#[tokio::test(start_paused = true)]
async fn no_instance_slips_through_while_its_range_is_destroyed() {
    let (mut refused, mut first) = (0, 0);
    for seed in 0..60 {
        let (store, faults) = store(seed);
        let here = operations(&store);
        submit(&here).await;
        here.set_target_in(&webs(1, 9), Target::Launched, false, "test").await.unwrap();
        let client = |seed| {
            let (own, faults) = beside(&faults, seed);
            faults.slow(Duration::from_millis(1), Duration::from_millis(20));
            operations(&own)
        };
        let (a, b) = (client(1_000 + seed), client(2_000 + seed));
        let (range, units) = (webs(1, 9), [web(5)]);
        let (destroyed, ordered) =
            tokio::join!(a.destroy_in(&range, "a"), b.set_target(&units, Target::Loaded, false, "b"));
        destroyed.expect("destroyed");
        let words = said(&*store).await;
        assert!(words.words().values().all(|word| word.2), "{words:?} after {ordered:?}");
        match ordered {
            Ok(_) => first += 1,
            Err(OperationError::BeingDestroyed(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 0 && first > 0, "{refused} {first}");
}

/// An order of the property test, about the instances below 12.
#[derive(Debug, Clone)]
enum Act {
    TargetIn(u64, u64, Target, bool),
    DestroyIn(u64, u64),
    Target(Vec<u64>, Target, bool),
    Destroy(Vec<u64>),
    DestroyTemplate,
    Collected,
    LateWrites(u32),
}

fn act() -> impl Strategy<Value = Act> {
    let target = prop_oneof![Just(Target::Inactive), Just(Target::Loaded), Just(Target::Launched)];
    let some = prop::collection::vec(0..12_u64, 1..4);
    let bounds = (0..10_u64, 0..6_u64).prop_map(|(from, more)| (from, (from + more).min(11)));
    prop_oneof![
        4 => (bounds.clone(), target.clone(), any::<bool>()).prop_map(|((a, b), t, raise)| Act::TargetIn(a, b, t, raise)),
        2 => bounds.prop_map(|(a, b)| Act::DestroyIn(a, b)),
        3 => (some.clone(), target, any::<bool>()).prop_map(|(some, t, raise)| Act::Target(some, t, raise)),
        2 => some.prop_map(Act::Destroy),
        1 => Just(Act::DestroyTemplate),
        2 => Just(Act::Collected),
        1 => (1..3_u32).prop_map(Act::LateWrites),
    ]
}

/// Does an order to the model; `None` if it is to be refused, then nothing changes.
fn expect(model: &BTreeMap<u64, Word>, act: &Act) -> Option<BTreeMap<u64, Word>> {
    let mut next = model.clone();
    let mut want = |n: u64, target: Target, raise: bool| {
        if target == Target::Inactive && !next.contains_key(&n) {
            return None;
        }
        let it = next.entry(n).or_insert((Target::Inactive, 0, false));
        if it.2 {
            return None;
        }
        let starts = target == Target::Launched && (it.0 != target || raise);
        let stops = (target, it.0) == (Target::Loaded, Target::Loaded) && raise;
        it.1 += u64::from(starts || stops);
        it.0 = target;
        Some(())
    };
    match act {
        Act::TargetIn(from, to, target, raise) => {
            let there = *target != Target::Inactive || model.range(*from..=*to).next().is_some();
            let those = (*from..=*to).filter(|n| *target != Target::Inactive || model.contains_key(n));
            those.map(|n| want(n, *target, *raise)).collect::<Option<Vec<()>>>()?;
            return there.then_some(next);
        }
        Act::Target(some, target, raise) => {
            let some: std::collections::BTreeSet<_> = some.iter().collect();
            some.into_iter().map(|n| want(*n, *target, *raise)).collect::<Option<Vec<()>>>()?;
        }
        Act::DestroyIn(from, to) => {
            next.range(*from..=*to).next()?;
            next.range_mut(*from..=*to).for_each(|(_, it)| it.2 = true);
        }
        Act::Destroy(some) => {
            for n in some {
                next.get_mut(n)?.2 = true;
            }
        }
        Act::DestroyTemplate => return next.values().all(|it| it.2).then_some(next),
        Act::Collected => next.retain(|_, it| !it.2),
        Act::LateWrites(_) => {}
    }
    Some(next)
}

async fn act_on(operations: &Operations, store: &Arc<dyn Store>, act: &Act) -> Option<()> {
    let of = |some: &[u64]| some.iter().map(|n| web(*n)).collect::<Vec<_>>();
    let done = match act {
        Act::TargetIn(from, to, target, raise) => {
            operations.set_target_in(&webs(*from, *to), *target, *raise, "test").await.map(drop)
        }
        Act::DestroyIn(from, to) => operations.destroy_in(&webs(*from, *to), "test").await.map(drop),
        Act::Target(some, target, raise) => {
            operations.set_target(&of(some), *target, *raise, "test").await.map(drop)
        }
        Act::Destroy(some) => operations.destroy(&of(some), "test").await.map(drop),
        Act::DestroyTemplate => operations.destroy(&[name("web@.service")], "test").await.map(drop),
        Act::Collected => {
            collect(&**store).await;
            return Some(());
        }
        Act::LateWrites(_) => return Some(()),
    };
    match done {
        Ok(()) => Some(()),
        Err(OperationError::Store(error)) => panic!("the store is there: {error}"),
        Err(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// However instances are ordered, by ranges or by name, and also when writes come after they were
    /// given up: what is wanted of each is what a plain map of instances says.
    #[test]
    fn ranges_are_as_if_each_instance_were_named(acts in prop::collection::vec(act(), 1..30), seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let (behind, faults) = store(seed);
            let (store, own) = beside(&faults, seed);
            let operations = operations(&store);
            submit(&operations).await;
            let mut model = BTreeMap::new();
            for act in &acts {
                if let Act::LateWrites(count) = act {
                    own.late_writes(*count, Duration::from_secs(20));
                    continue;
                }
                let expected = expect(&model, act);
                let done = act_on(&operations, &behind, act).await;
                assert_eq!(done.is_some(), expected.is_some(), "{act:?} on {model:?}");
                let before = model.clone();
                model = expected.unwrap_or(model);
                let now = said(&*behind).await;
                // Who had left a range and is made anew with the others of it has their run.
                let words = now.words();
                for (n, word) in model.iter_mut().filter(|(n, _)| !before.contains_key(n)) {
                    let run = words.get(n).map_or(0, |word| word.1);
                    word.1 = run.max(word.1);
                }
                assert_eq!(now.words(), model, "after {act:?}: {now:?}");
                if matches!(act, Act::DestroyTemplate) && done.is_some() {
                    // From here on nothing may be made of it: that is another test's.
                    break;
                }
            }
        });
    }
}
