//! What units reserve, wish and spread over: where they go, and whom they push away.

use super::*;

fn placed(machines: &[&str], units: &[(&str, &str)]) -> String {
    let mut world = World::new(machines);
    units.iter().for_each(|(unit, words)| world.want(unit, words));
    world.run()
}

#[test]
fn what_is_reserved_is_never_given_twice() {
    let asks = "CPU=1000 Memory=100";
    let units = [("a.service", asks), ("b.service", asks), ("c.service", asks), ("d.service", "")];
    let machines = ["CPU:2000 Memory:150", "CPU:1500 Memory:500"];
    assert_eq!(placed(&machines, &units), "a+1 b+2 d+1");
    let mut world = World::new(&machines);
    units.iter().for_each(|(unit, words)| world.want(unit, words));
    world.run();
    insta::assert_snapshot!(world.why("c.service"), @"c.service cannot be placed: 1 machine: cpu: 1 asked (0.5 of 1.5 free); 1 machine: memory: 100B asked (50B of 150B free)");
    let reasons = &world.0.explain(&name("c.service")).machines[0].reasons;
    insta::assert_snapshot!(reasons[0], @"memory: 100B asked (50B of 150B free)");
}

#[test]
fn the_lowest_dominant_share_is_taken_whatever_the_units() {
    // A quarter of 1, a half of 2's memory: 1, although it has more units. Then a half of either.
    let units = [
        ("x.service", "MachineID=1"),
        ("y.service", "MachineID=1"),
        ("a.service", "CPU=1000 Memory=100"),
        ("b.service", "CPU=1000 Memory=100"),
        ("c.service", ""),
    ];
    assert_eq!(placed(&["CPU:4000 Memory:400", "CPU:8000 Memory:200"], &units), "x+1 y+1 a+1 b+2 c+2");
    // Of equals the one with fewer units, then the lowest id.
    let units = [("x.service", "MachineID=1"), ("a.service", "CPU=10"), ("b.service", "CPU=10")];
    assert_eq!(placed(&["CPU:100", "CPU:100", "CPU:100"], &units), "x+1 a+2 b+3");
}

#[test]
fn counted_resources_and_ports_are_held_until_their_unit_is_gone() {
    let mut world = World::new(&["gpu:1"]);
    world.want("a.service", "Use.gpu=1 Port=80");
    world.want("b.service", "Use.gpu=1");
    world.want("c.service", "Port=80");
    assert_eq!(world.run(), "a+1");
    insta::assert_snapshot!(world.why("b.service"), @"b.service cannot be placed: 1 machine: gpu: 1 asked (0 of 1 free)");
    insta::assert_snapshot!(world.why("c.service"), @"c.service cannot be placed: 1 machine: port 80 is reserved by a.service");
    world.unload("a.service");
    assert_eq!(world.run(), "a-1");
    assert_eq!(world.run(), "");
    world.gone("a.service", 1);
    assert_eq!(world.run(), "b+1 c+1");
}

#[test]
fn global_units_need_room_too() {
    let mut world = World::new(&["CPU:100", "CPU:50"]);
    world.want("g.service", "Global CPU=80");
    assert_eq!(world.run(), "g+1");
    world.machine(2, looks("CPU:80"));
    assert_eq!(world.run(), "g+2");
}

#[test]
fn a_reservation_that_grows_in_place_is_counted_and_shown() {
    let mut world = World::new(&["CPU:100"]);
    world.want("a.service", "CPU=40");
    world.want("b.service", "CPU=40");
    assert_eq!(world.run(), "a+1 b+1");
    world.want("a.service", "CPU=90");
    assert_eq!(world.run(), "");
    let told = world.0.explain(&name("a.service"));
    insta::assert_snapshot!(told.machines[0].reasons[0], @"cpu: 0.09 asked (0.06 of 0.1 free)");
    assert!(world.0.dominant_share(machine(1)) > 1_000_000);
    world.want("c.service", "CPU=1");
    assert_eq!(world.run(), "");
    world.want("a.service", "CPU=10");
    assert_eq!(world.run(), "c+1");
}

#[test]
fn instances_are_spread_over_the_values_of_a_key() {
    let machines = ["zone=a", "zone=a", "zone=a", "zone=b", ""];
    let units: Vec<String> = (1..=5).map(|n| format!("w@{n}.service")).collect();
    let units: Vec<(&str, &str)> = units.iter().map(|unit| (unit.as_str(), "Spread=zone Max=2")).collect();
    // Two in b, the others in a: the emptier zone being full does not keep anybody waiting.
    assert_eq!(placed(&machines, &units), "w@1+1 w@2+4 w@3+2 w@4+4 w@5+3");
    let mut world = World::new(&["", "zone=a"]);
    world.want("w@1.service", "Spread=zone");
    world.machine(2, looks(""));
    assert_eq!(world.run(), "");
    insta::assert_snapshot!(world.why("w@1.service"), @"w@1.service cannot be placed: 2 machines: has no zone to spread over");
}

#[test]
fn a_machine_has_no_more_of_a_template_than_it_may() {
    let mut world = World::new(&["", ""]);
    for n in 1..=5 {
        world.want(&format!("w@{n}.service"), "Max=2");
    }
    world.want("v@1.service", "Max=2");
    assert_eq!(world.run(), "v@1+1 w@1+2 w@2+1 w@3+2 w@4+1");
    insta::assert_snapshot!(world.why("w@5.service"), @"w@5.service cannot be placed: 2 machines: has 2 of its template, the most it may");
    for n in 1..=5 {
        world.want(&format!("w@{n}.service"), "Max=1");
    }
    assert_eq!(world.run(), "w@3-2 w@4-1");
}

#[test]
fn wishes_decide_between_machines_and_keep_nobody_away() {
    let machines = ["zone=a", "zone=b", "zone=b disk=ssd"];
    assert_eq!(placed(&machines, &[("u.service", "Prefer=10:zone=b")]), "u+2");
    assert_eq!(placed(&machines, &[("u.service", "Prefer=10:zone=a Prefer=11:disk=ssd")]), "u+3");
    assert_eq!(placed(&machines, &[("u.service", "Prefer=-10:zone=b")]), "u+1");
    assert_eq!(placed(&machines, &[("u.service", "Prefer=10:zone=c")]), "u+1");
    // Near another unit, and away from one's own kind as long as there is room elsewhere (fleet#943).
    let near = [("db.service", "zone=b disk=ssd"), ("u.service", "Prefer=5:MachineOf=db.service")];
    assert_eq!(placed(&machines, &near), "db+3 u+3");
    let away = "Prefer=-10:MachineOf=w@*";
    let units = [("w@1.service", away), ("w@2.service", away), ("w@3.service", away)];
    assert_eq!(placed(&["", ""], &units), "w@1+1 w@2+2 w@3+1");
    // A wish never moves what runs.
    let mut world = World::new(&["zone=a"]);
    world.want("u.service", "Prefer=10:zone=b");
    assert_eq!(world.run(), "u+1");
    world.machine(2, looks("zone=b"));
    assert_eq!(world.run(), "");
}

#[test]
fn a_spread_that_is_wished_for_is_soft() {
    let wish = "Prefer=10:Spread=zone";
    let units: Vec<String> = (1..=4).map(|n| format!("w@{n}.service")).collect();
    let units: Vec<(&str, &str)> = units.iter().map(|unit| (unit.as_str(), wish)).collect();
    assert_eq!(placed(&["zone=a", "zone=a", "zone=b"], &units), "w@1+1 w@2+3 w@3+2 w@4+3");
    assert_eq!(placed(&["", ""], &units[..2]), "w@1+1 w@2+2");
}

#[test]
fn a_unit_goes_where_one_of_many_is() {
    let mut world = World::new(&["", "", ""]);
    world.want("log.service", "MachineOf=w@*.service");
    assert_eq!(world.run(), "");
    insta::assert_snapshot!(world.why("log.service"), @"log.service cannot be placed: 3 machines: no other unit that w@*.service matches is there");
    world.want("w@1.service", "zone=x");
    world.want("w@2.service", "");
    world.machine(3, looks("zone=x"));
    assert_eq!(world.run(), "w@1+3 w@2+1 log+1");
    // The last one on its machine leaves: it goes to another.
    world.unload("w@2.service");
    assert_eq!(world.run(), "w@2-1 log-1");
    world.gone("log.service", 1);
    assert_eq!(world.run(), "log+3");
    // Never after itself.
    assert_eq!(placed(&[""], &[("w@1.service", "MachineOf=w@*.service")]), "");
}

#[test]
fn a_machine_is_named_by_host_or_by_the_beginning_of_its_id() {
    let mut world = World::new(&["", ""]);
    world.want("a.service", "Host=m2");
    world.want("b.service", &format!("Prefix={}", &machine(2).to_string()[..32]));
    assert_eq!(world.run(), "a+2 b+2");
    world.want("c.service", &format!("Prefix={}", &machine(1).to_string()[..8]));
    assert_eq!(world.run(), "");
    insta::assert_snapshot!(world.why("c.service"), @"c.service cannot be placed: 2 machines: 00000000 names 2 machines: 00000000000000000000000000000001, 00000000000000000000000000000002");
    // Once one of them is gone, the other is meant; a second of the same name moves nobody.
    world.0.remove_machine(machine(2));
    assert_eq!(world.run(), "c+1");
    world.machine(2, looks(""));
    assert_eq!(world.run(), "");
}

#[test]
fn the_highest_priority_is_placed_first() {
    let units = [
        ("a.service", "CPU=60"),
        ("b.service", "CPU=60 Priority=5"),
        ("g.service", "Global CPU=30 Priority=9"),
        ("m.service", "MachineID=1 CPU=20"),
    ];
    assert_eq!(placed(&["CPU:100"], &units), "g+1 b+1");
}

#[test]
fn preemption_takes_the_lowest_and_the_fewest() {
    let mut world = World::new(&["CPU:100", "CPU:100"]);
    for (unit, words) in [
        ("a.service", "CPU=50 Priority=1 MachineID=1"),
        ("b.service", "CPU=50 MachineID=1"),
        ("c.service", "CPU=30 Priority=2 MachineID=2"),
        ("d.service", "CPU=70 Priority=2 MachineID=2"),
    ] {
        world.want(unit, words);
    }
    world.run();
    world.want("p.service", "CPU=50 Priority=2");
    assert_eq!(world.run(), "", "it does not ask for it");
    world.want("p.service", "CPU=50 Priority=2 Preempt");
    assert_eq!(world.run(), "b-1");
    assert_eq!(world.why("p.service").split(':').next(), Some("p.service waits for room on m1"));
    world.want("q.service", "CPU=60 Priority=9 Preempt MachineID=2");
    assert_eq!(world.run(), "d-2", "one is enough");
    world.gone("b.service", 1);
    world.gone("d.service", 2);
    assert_eq!(world.run(), "q+2 p+1");
    assert_eq!(world.run(), "", "nobody comes back");
}

#[test]
fn preemption_spares_the_sticky_those_it_follows_and_what_does_not_help() {
    let push = "CPU=60 Priority=9 Preempt";
    let alone = |words: &str| {
        let mut world = World::new(&["CPU:100 gpu:1"]);
        world.want("v.service", words);
        assert_eq!(world.run(), "v+1");
        world.want("p.service", push);
        world.run()
    };
    assert_eq!(alone("CPU=60"), "v-1");
    assert_eq!(alone("CPU=60 Sticky"), "");
    assert_eq!(alone("CPU=60 Priority=9"), "");
    let mut world = World::new(&["CPU:100"]);
    world.want("v.service", "CPU=60");
    world.want("f.service", "MachineOf=v.service Priority=20");
    assert_eq!(world.run(), "v+1 f+1");
    world.want("p.service", push);
    assert_eq!(world.run(), "", "its follower is above");
    let mut world = World::new(&["CPU:100"]);
    for unit in ["v1.service", "v2.service"] {
        world.want(unit, "CPU=40");
    }
    world.want("f.service", "MachineOf=v* Priority=20");
    assert_eq!(world.run(), "v1+1 v2+1 f+1");
    world.want("p.service", "CPU=90 Priority=9 Preempt");
    assert_eq!(world.run(), "", "one of the two has to stay with it");
    world.want("p.service", push);
    assert_eq!(world.run(), "v1-1");
    world.want("p.service", &format!("{push} MachineOf=v.service"));
    world.want("f.service", "");
    assert_eq!(world.run(), "", "it needs it itself");
    world.want("p.service", &format!("{push} zone=x"));
    assert_eq!(world.run(), "", "not only room is missing");
}

#[test]
fn a_cap_makes_only_those_leave_that_ask_for_it() {
    let mut world = World::new(&["", ""]);
    world.machine(2, MachineView { schedulable: false, ..looks("") });
    for n in 1..=3 {
        world.want(&format!("w@{n}.service"), "Max=3");
    }
    assert_eq!(world.run(), "w@1+1 w@2+1 w@3+1");
    world.machine(2, looks(""));
    world.want("w@2.service", "Max=1");
    assert_eq!(world.run(), "w@2-1", "the others have their turn later");
    world.gone("w@2.service", 1);
    assert_eq!(world.run(), "w@2+2");
    world.want("w@4.service", "Max=3");
    assert_eq!(world.run(), "", "a new one goes by the least of all");
}

#[test]
fn sums_of_what_is_reserved_never_overflow() {
    let most = u64::MAX.to_string();
    let mut world = World::new(&[&format!("Memory:{most}")]);
    for n in 1..=40 {
        world.want(&format!("u{n:02}.service"), "");
    }
    world.run();
    for n in 1..=40 {
        world.want(&format!("u{n:02}.service"), &format!("Memory={most}"));
    }
    let _decisions = world.run();
    assert!(world.0.dominant_share(machine(1)) > 0);
}
