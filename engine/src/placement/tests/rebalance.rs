//! Evening machines out, and what would come of a drain.

use proptest::prelude::*;

use super::{
    bits::Homes,
    model::Status,
    plain::{Plain, PlainUnit},
    *,
};

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
    // One that adds nothing to either share goes by numbers: it does not leave the fuller machine for one with more.
    let mut world = lopsided(&[("a.service", "CPU=30"), ("b.service", "Port=81")], "CPU:100", "CPU:100");
    world.want("c.service", "MachineID=2");
    world.want("d.service", "MachineID=2");
    let _placed = world.0.come_true();
    assert_eq!(rebalance(&mut world, 9), [] as [String; 0]);
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
fn nobody_is_left_without_whom_it_has_to_be_with() {
    let units = [("a.service", ""), ("w1.service", "MachineOf=a.service"), ("x.service", "MachineOf=w*")];
    let mut world = lopsided(&units, "", "");
    world.want("w2.service", "MachineID=2");
    world.machine(3, looks(""));
    let _placed = world.0.come_true();
    assert_eq!(rebalance(&mut world, 2), ["x 1>2"], "had a and w1 gone, x would have had to, unasked");
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

const ASKS: [&str; 22] = [
    "",
    "zone=a",
    "CPU=30",
    "CPU=20 Memory=10",
    "Conflicts=c*.service",
    "Conflicts=w@*.service CPU=10",
    "MachineOf=a1.service",
    "MachineOf=b2.service CPU=10",
    "MachineOf=a*",
    "MachineOf=w@* Port=81",
    "Sticky",
    "Prefer=5:zone=b",
    "Prefer=-9:MachineOf=w@* CPU=10",
    "Use.gpu=1",
    "Port=80",
    "Host=m1",
    "Global",
    "Replaces=c*.service",
    "Max=2",
    "Max=1 CPU=10",
    "Spread=zone",
    "Prefer=7:Spread=zone Max=3",
];

const MACHINES: [&str; 4] =
    ["zone=a CPU:100 Memory:50 gpu:2", "zone=b CPU:80 Memory:100", "zone=b CPU:70 gpu:2", "CPU:100"];

/// The kind of each unit, which begins its name, and what it asks for.
type Wants = Vec<(usize, usize)>;

fn wants() -> impl Strategy<Value = Wants> {
    prop::collection::vec((0..4_usize, 0..ASKS.len()), 1..25)
}

/// What each machine after the first is like.
fn machines() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..MACHINES.len(), 1..5)
}

/// Which machines get no new units.
fn closed() -> impl Strategy<Value = Vec<bool>> {
    prop::collection::vec(prop::bool::weighted(0.15), 0..5)
}

fn world(wants: &Wants, machines: &[usize], closed: &[bool]) -> World {
    let mut world = World::new(&[MACHINES[0]]);
    for (n, (kind, asks)) in wants.iter().enumerate() {
        world.want(&format!("{}{n}.service", ["a", "b", "c", "w@"][*kind]), ASKS[*asks]);
    }
    let _placed = world.0.come_true();
    for (n, machine) in (2..).zip(machines) {
        world.machine(n, looks(MACHINES[*machine]));
    }
    let _placed = world.0.come_true();
    let all = std::iter::once(&0).chain(machines);
    for ((n, machine), _) in (1..).zip(all).zip(closed).filter(|(_, closed)| **closed) {
        world.machine(n, MachineView { schedulable: false, ..looks(MACHINES[*machine]) });
    }
    let _placed = world.0.come_true();
    world
}

fn homes(world: &World) -> BTreeMap<UnitName, Vec<MachineId>> {
    let names = world.0.by_name.units().map(|unit| world.0.unit(unit).name.clone());
    names.map(|unit| (unit.clone(), world.0.placed_on(&unit))).collect()
}

/// The facts that a model was told, as plainly as they can be said.
fn plain(world: &World) -> Plain {
    let core = &world.0;
    let mut plain = Plain::default();
    plain.machines.extend(core.machines.iter().filter_map(|it| Some((it.id, it.view.clone()?))));
    for unit in core.by_name.units().map(|unit| core.unit(unit)) {
        let ids = |homes: &Homes| homes.iter().map(|slot| core.machine(slot).id).collect();
        let known = (core.classes.get(unit.class).requirements.clone(), Wanted::Placed);
        let it = PlainUnit {
            known: (unit.status == Status::Wanted).then_some(known),
            placed: ids(&unit.placed),
            moving: ids(&unit.moving),
            moves_for: unit.moves_for,
            departing: ids(&unit.departing),
            ready: ids(&unit.ready),
            ..PlainUnit::default()
        };
        plain.units.insert(unit.name.clone(), it);
    }
    plain
}

/// Nobody is where they may not be, no machine gives more than it has, and whoever has no place could have none.
fn check(world: &World) -> Result<(), TestCaseError> {
    let plain = plain(world);
    for (unit, it) in plain.units.iter().filter(|(unit, _)| plain.is_wanted(unit)) {
        for at in it.placed.iter().chain(&it.moving) {
            prop_assert_eq!(plain.must_leave(unit, *at), None, "{} on {}", unit, at);
            let over = |it: &Reason| matches!(it, Reason::Room { .. } | Reason::Port { .. });
            let reasons = plain.refusals(unit, *at);
            prop_assert!(!reasons.iter().any(over), "{} on {}: {:?}", unit, at, reasons);
        }
        let free = plain.asks(unit).global || plain.is_free(unit);
        for id in plain.machines.keys().filter(|id| free && !it.placed.contains(id)) {
            prop_assert!(!plain.refusals(unit, *id).is_empty(), "{} could be on {}", unit, id);
        }
        let together = plain.could_go(unit).filter(|_| plain.is_free(unit));
        prop_assert_eq!(together, None, "{} could go with those it follows", unit);
    }
    Ok(())
}

proptest! {
    /// Never more than the budget, each unit once and only to where it may be; nothing that had a place is without,
    /// nothing that could have one has none, and it ends.
    #[test]
    fn a_rebalance_keeps_its_promises(
        wants in wants(), machines in machines(), closed in closed(), budget in 0..6_usize,
    ) {
        let mut world = world(&wants, &machines, &closed);
        check(&world)?;
        let before = homes(&world);
        let mut again = world.0.clone();
        let moves = world.0.rebalance(budget);
        prop_assert!(moves.len() <= budget);
        prop_assert_eq!(&again.rebalance(budget), &moves, "the same facts, the same moves");
        let moved: BTreeMap<&UnitName, MachineId> =
            moves.iter().map(|decision| (decision.unit(), decision.machine())).collect();
        prop_assert_eq!(moved.len(), moves.len());
        let _done = world.0.come_true();
        check(&world)?;
        let plain = plain(&world);
        for (unit, on) in homes(&world) {
            let had = &before[&unit];
            match moved.get(&unit) {
                Some(to) => {
                    prop_assert_eq!(&on, &[*to]);
                    prop_assert_eq!(plain.refusals(&unit, *to), vec![], "{} on {}", unit, to);
                }
                // What had no place may have one now: a move may make room.
                None => prop_assert!(had.iter().all(|id| on.contains(id)), "{} left unasked", unit),
            }
            prop_assert!(on.len() == had.len() || had.is_empty() || plain.asks(&unit).global, "{}", unit);
        }
        let mut rounds = 0;
        while !world.0.rebalance(100).is_empty() {
            let _done = world.0.come_true();
            check(&world)?;
            rounds += 1;
            prop_assert!(rounds < 50, "it goes round in circles");
        }
    }

    /// What a drain leaves on the machine could not be placed elsewhere, and says why; nothing is without a place
    /// that had one, or could have one.
    #[test]
    fn a_drain_leaves_only_what_has_to_stay(wants in wants(), machines in machines(), closed in closed()) {
        let mut world = world(&wants, &machines, &closed);
        let before = homes(&world);
        world.0.drain(machine(1));
        let done = world.0.come_true();
        check(&world)?;
        let plain = plain(&world);
        for (unit, on) in homes(&world) {
            // Whom one replaces that can go nowhere else is pushed away, and global units are not moved.
            let pushed = |it: &Decision| match it {
                Decision::Depart { unit: other, why, .. } => {
                    *other == unit && *why == Departure::Replaced
                }
                _ => false,
            };
            if plain.asks(&unit).global || done.iter().any(pushed) {
                continue;
            }
            prop_assert!(on.len() >= before[&unit].len(), "{} is nowhere", unit);
            let unasked = on != before[&unit] && !before[&unit].is_empty() && before[&unit] != [machine(1)];
            prop_assert!(!unasked, "{} was not there", unit);
            if on == [machine(1)] {
                let standing = world.0.explain(&unit).standing;
                let stranded = matches!(&standing, Standing::Stranded { on: at, .. } if *at == on);
                prop_assert!(stranded, "{}: {:?}", unit, standing);
                let together = plain.could_leave(&unit, machine(1));
                prop_assert_eq!(together, None, "{} could leave", unit);
            }
        }
    }
}
