//! Evening machines out, and what would come of a drain.

use proptest::prelude::*;

use super::*;

/// Evens machines out and says what moves, as `unit 1>2`.
fn rebalance(world: &mut World, budget: usize) -> Vec<String> {
    let number = |id: MachineId| u128::from_str_radix(&id.to_string(), 16).unwrap();
    let decisions = world.0.rebalance(budget);
    let moves = decisions.into_iter().map(|decision| match decision {
        Decision::Move { unit, from, to, why: Departure::Rebalanced } => {
            format!("{} {}>{}", unit.as_str().trim_end_matches(".service"), number(from), number(to))
        }
        other => panic!("{other}"),
    });
    moves.collect()
}

fn loads(world: &World, machines: u32) -> Vec<u32> {
    (1..=machines).map(|n| world.0.load(machine(n))).collect()
}

/// A machine with units, and another that came later.
fn lopsided(units: &[(&str, &str)], first: &str, second: &str) -> World {
    let mut world = World::new(&[first]);
    for (unit, words) in units {
        world.want(unit, words);
    }
    let _placed = world.0.come_true();
    world.machine(2, looks(second));
    let moved = world.0.come_true().into_iter().any(|decision| !matches!(decision, Decision::Place { .. }));
    assert!(!moved, "nothing is evened out by itself");
    world
}

#[test]
fn units_move_until_machines_are_even_and_never_more_than_the_budget() {
    let units =
        [("a.service", ""), ("b.service", ""), ("c.service", ""), ("d.service", ""), ("e.service", "")];
    let mut world = lopsided(&units, "", "");
    assert_eq!(rebalance(&mut world, 1), ["a 1>2"]);
    let _done = world.0.come_true();
    assert_eq!(loads(&world, 2), [4, 1]);
    assert_eq!(rebalance(&mut world, 9), ["b 1>2"], "three beside two are even");
    let _done = world.0.come_true();
    assert_eq!(rebalance(&mut world, 9), [] as [String; 0]);
    assert_eq!(rebalance(&mut lopsided(&units, "", ""), 0), [] as [String; 0]);
}

#[test]
fn what_has_to_stay_stays() {
    let units = [
        ("a.service", "zone=a"),
        ("b.service", "MachineID=1"),
        ("c.service", "Sticky"),
        ("d.service", "Global"),
        ("e.service", "Prefer=5:zone=a"),
        ("f.service", ""),
    ];
    let mut world = lopsided(&units, "zone=a", "zone=b");
    assert_eq!(rebalance(&mut world, 9), ["f 1>2"], "the global one is there too");
}

#[test]
fn reservations_are_evened_out_by_the_fuller_resource() {
    let two = [("a.service", "CPU=40"), ("b.service", "CPU=40")];
    assert_eq!(rebalance(&mut lopsided(&two, "CPU:100", "CPU:100"), 9), ["a 1>2"]);
    let one = [("a.service", "CPU=60 Memory=1")];
    assert_eq!(
        rebalance(&mut lopsided(&one, "CPU:100 Memory:10", "CPU:100 Memory:10"), 9),
        [] as [String; 0]
    );
    // What fits nowhere else is not asked to.
    assert_eq!(rebalance(&mut lopsided(&two, "CPU:100", "CPU:30"), 9), [] as [String; 0]);
}

#[test]
fn units_that_belong_together_move_together_or_not_at_all() {
    let units =
        [("a.service", ""), ("b.service", "MachineOf=a.service"), ("c.service", ""), ("d.service", "")];
    assert_eq!(rebalance(&mut lopsided(&units, "", ""), 9), ["a 1>2", "b 1>2"]);
    assert_eq!(rebalance(&mut lopsided(&units, "", ""), 1), ["c 1>2"], "two are too many");
}

#[test]
fn what_is_spread_does_not_come_closer_together() {
    let mut world = World::new(&["zone=a", "zone=b"]);
    for n in 1..=4 {
        world.want(&format!("w@{n}.service"), "Spread=zone");
    }
    world.want("x.service", "zone=a");
    world.want("y.service", "zone=a");
    let _placed = world.0.come_true();
    assert_eq!(loads(&world, 2), [4, 2]);
    assert_eq!(rebalance(&mut world, 9), [] as [String; 0], "two in each zone is as it should be");
    world.machine(3, looks("zone=a"));
    let moved = rebalance(&mut world, 9);
    assert!(moved.len() == 2 && moved.iter().all(|it| it.ends_with(" 1>3")), "{moved:?}: within the zone");
}

const ASKS: [&str; 9] = [
    "",
    "zone=a",
    "CPU=30",
    "CPU=20 Memory=10",
    "Conflicts=c*.service",
    "MachineOf=a1.service",
    "Sticky",
    "Prefer=5:zone=b",
    "Use.gpu=1",
];

const MACHINES: [&str; 4] =
    ["zone=a CPU:100 Memory:50 gpu:2", "zone=b CPU:80 Memory:100", "zone=b CPU:70 gpu:2", "CPU:100"];

fn world(wants: &[(usize, usize)], machines: &[usize]) -> World {
    let mut world = World::new(&[MACHINES[0]]);
    for (n, (kind, asks)) in wants.iter().enumerate() {
        world.want(&format!("{}{n}.service", ["a", "b", "c"][*kind]), ASKS[*asks]);
    }
    let _placed = world.0.come_true();
    for (n, machine) in (2..).zip(machines) {
        world.machine(n, looks(MACHINES[*machine]));
    }
    let _placed = world.0.come_true();
    world
}

fn homes(world: &World) -> BTreeMap<UnitName, Vec<MachineId>> {
    world.0.sorted.keys().map(|unit| (unit.clone(), world.0.placed_on(unit))).collect()
}

proptest! {
    /// Never more than the budget, each unit once, nothing that had a place is without, and it ends.
    #[test]
    fn a_rebalance_keeps_its_promises(
        wants in prop::collection::vec((0..3_usize, 0..ASKS.len()), 1..25),
        machines in prop::collection::vec(0..MACHINES.len(), 1..5),
        budget in 0..6_usize,
    ) {
        let mut world = world(&wants, &machines);
        let before = homes(&world);
        let mut again = world.0.clone();
        let moves = world.0.rebalance(budget);
        prop_assert!(moves.len() <= budget);
        prop_assert_eq!(&again.rebalance(budget), &moves, "the same facts, the same moves");
        let units: BTreeSet<&UnitName> = moves.iter().map(Decision::unit).collect();
        prop_assert_eq!(units.len(), moves.len());
        let _done = world.0.come_true();
        for (unit, on) in homes(&world) {
            // What had no place may have one now: a move may make room.
            prop_assert!(on.len() >= before[&unit].len(), "{} lost its place", unit);
            let unasked = on != before[&unit] && !before[&unit].is_empty() && !units.contains(&unit);
            prop_assert!(!unasked, "{} moved unasked", unit);
        }
        let mut rounds = 0;
        while !world.0.rebalance(100).is_empty() {
            let _done = world.0.come_true();
            rounds += 1;
            prop_assert!(rounds < 50, "it goes round in circles");
        }
    }

    /// What a drain leaves on the machine could not be placed elsewhere, and says why.
    #[test]
    fn a_drain_leaves_only_what_has_to_stay(
        wants in prop::collection::vec((0..3_usize, 0..ASKS.len()), 1..25),
        machines in prop::collection::vec(0..MACHINES.len(), 1..5),
    ) {
        let mut world = world(&wants, &machines);
        let before = homes(&world);
        world.0.drain(machine(1));
        let _done = world.0.come_true();
        for (unit, on) in homes(&world) {
            prop_assert_eq!(on.len(), before[&unit].len(), "{} is nowhere", unit);
            if on == [machine(1)] {
                let standing = world.0.explain(&unit).standing;
                let stranded = matches!(&standing, Standing::Stranded { on: at, .. } if *at == on);
                prop_assert!(stranded, "{}: {:?}", unit, standing);
            }
        }
    }
}
