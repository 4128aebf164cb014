//! One requirement after the other: where units go.

use super::*;

/// Places units, in the order given, on machines with this metadata.
fn placed(machines: &[&str], units: &[(&str, &str)]) -> String {
    let mut world = World::new(machines);
    units.iter().for_each(|(unit, words)| world.want(unit, words));
    world.run()
}

#[test]
fn the_least_loaded_machine_is_taken_and_ties_go_to_the_lowest_id() {
    let units: Vec<String> = (1..=7).map(|n| format!("u{n}.service")).collect();
    let units: Vec<(&str, &str)> = units.iter().map(|unit| (unit.as_str(), "")).collect();
    assert_eq!(placed(&["", "", ""], &units), "u1+1 u2+2 u3+3 u4+1 u5+2 u6+3 u7+1");
}

#[test]
fn departing_and_global_units_count_as_load() {
    let mut world = World::new(&["", ""]);
    world.0.set_departing(&name("old.service"), machine(1));
    world.want("a.service", "");
    assert_eq!(world.run(), "a+2");
    world.want("g.service", "Global");
    world.want("b.service", "");
    // One each, then g on both: all equal again.
    assert_eq!(world.run(), "b+1 g+1 g+2");
    world.want("c.service", "");
    assert_eq!(world.run(), "c+2");
}

#[test]
fn machine_metadata_is_or_within_a_key_and_and_between_keys() {
    let machines = ["zone=a disk=hdd", "zone=b disk=ssd", "zone=c disk=ssd", "disk=ssd"];
    assert_eq!(placed(&machines, &[("u.service", "zone=b")]), "u+2");
    assert_eq!(placed(&machines, &[("u.service", "zone=b zone=a")]), "u+1");
    assert_eq!(placed(&machines, &[("u.service", "zone=a zone=c disk=ssd")]), "u+3");
    assert_eq!(placed(&machines, &[("u.service", "zone=d")]), "");
}

#[test]
fn machine_id_waits_for_its_machine() {
    let mut world = World::new(&[""]);
    world.want("u.service", "MachineID=2");
    assert_eq!(world.run(), "");
    world.machine(2, looks(""));
    assert_eq!(world.run(), "u+2");
}

#[test]
fn conflicts_hold_in_both_directions_and_never_with_itself() {
    let spread = "Conflicts=web@*.service";
    let units = [("web@1.service", spread), ("web@2.service", spread), ("web@3.service", spread)];
    assert_eq!(placed(&["", ""], &units), "web@1+1 web@2+2");
    // Only the second says so.
    assert_eq!(placed(&[""], &[("a.service", ""), ("b.service", "Conflicts=a.service")]), "a+1");
    assert_eq!(placed(&[""], &[("a.service", "Conflicts=b.service"), ("b.service", "")]), "a+1");
}

#[test]
fn conflicts_hold_between_global_and_other_units() {
    let units = [("g.service", "Global Conflicts=a.service"), ("a.service", "")];
    assert_eq!(placed(&["", "", ""], &units), "a+1 g+2 g+3");
    assert_eq!(
        placed(&["", ""], &[("g.service", "Global"), ("h.service", "Global Conflicts=g*")]),
        "g+1 g+2"
    );
}

#[test]
fn global_units_go_everywhere_they_may_also_later() {
    let mut world = World::new(&["zone=a", "zone=b"]);
    world.want("g.service", "Global zone=a");
    assert_eq!(world.run(), "g+1");
    world.machine(3, looks("zone=a"));
    assert_eq!(world.run(), "g+3");
    world.machine(2, looks("zone=a"));
    world.machine(3, looks("zone=b"));
    assert_eq!(world.run(), "g-3 g+2");
    world.0.remove_machine(machine(1));
    assert_eq!(world.run(), "");
    world.machine(1, looks("zone=a"));
    assert_eq!(world.run(), "");
    world.unload("g.service");
    assert_eq!(world.run(), "g-1 g-2");
}

#[test]
fn machine_of_goes_where_its_leader_is() {
    let units = [("a.service", "MachineOf=z.service"), ("m.service", ""), ("z.service", "zone=b")];
    assert_eq!(placed(&["zone=a", "zone=b"], &units), "z+2 a+2 m+1");
    assert_eq!(placed(&[""], &[("a.service", "MachineOf=b.service")]), "");
}

#[test]
fn machine_of_chains_and_circles_go_together() {
    let chain =
        [("a.service", "MachineOf=b.service"), ("b.service", "MachineOf=c.service"), ("c.service", "")];
    assert_eq!(placed(&["", ""], &chain), "c+1 b+1 a+1");
    let circle = [("a.service", "MachineOf=b.service"), ("b.service", "MachineOf=a.service zone=b")];
    assert_eq!(placed(&["zone=a", "zone=b"], &circle), "b+2 a+2");
    let impossible =
        [("a.service", "MachineOf=b.service zone=a"), ("b.service", "MachineOf=a.service zone=b")];
    assert_eq!(placed(&["zone=a", "zone=b"], &impossible), "");
}

#[test]
fn a_leader_goes_where_its_followers_may() {
    let units = [
        ("db.service", ""),
        ("a.service", "MachineOf=db.service zone=c"),
        ("b.service", "MachineOf=db.service disk=ssd"),
    ];
    assert_eq!(placed(&["", "zone=c", "disk=ssd", "zone=c disk=ssd"], &units), "db+4 a+4 b+4");
    // No machine for all: the leader is not kept waiting.
    let units = [("db.service", ""), ("a.service", "MachineOf=db.service zone=x")];
    assert_eq!(placed(&["", ""], &units), "db+1");
}

#[test]
fn the_most_constrained_go_first() {
    let units = [
        ("a.service", ""),
        ("b.service", "Conflicts=d.service"),
        ("c.service", "zone=b Conflicts=b.service"),
        ("d.service", "MachineID=2"),
    ];
    assert_eq!(placed(&["zone=a", "zone=b"], &units), "d+2 c+2 b+1 a+1");
}

#[test]
fn a_unit_that_was_in_the_way_lets_the_next_one_in() {
    let mut world = World::new(&[""]);
    world.want("a.service", "Conflicts=b.service");
    world.want("b.service", "");
    assert_eq!(world.run(), "a+1");
    world.unload("a.service");
    assert_eq!(world.run(), "a-1");
    world.gone("a.service", 1);
    assert_eq!(world.run(), "b+1");
    // The pattern is gone with the unit: nothing is left of it.
    world.0.remove_unit(&name("a.service"));
    world.want("a.service", "");
    assert_eq!(world.run(), "a+1");
}

#[test]
fn patterns_that_come_later_meet_units_that_were_there() {
    let mut world = World::new(&["", ""]);
    world.want("a@1.service", "");
    world.want("a@2.service", "");
    assert_eq!(world.run(), "a@1+1 a@2+2");
    for (n, glob) in ["Conflicts=a@*", "Conflicts=a@[12].service", "Conflicts=?@2.service"].iter().enumerate()
    {
        world.want(&format!("x{n}.service"), glob);
    }
    // Only the last fits anywhere: beside a@1.
    assert_eq!(world.run(), "x2+1");
}

#[test]
fn a_global_leader_is_followed_from_its_first_machine_on() {
    let mut world = World::new(&["", ""]);
    world.want("g.service", "Global");
    world.want("u.service", "MachineOf=g.service");
    // The limit cuts the global unit in two: the follower is not forgotten over it.
    let first = world.0.decide(1);
    assert_eq!(
        first.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["g.service is placed on 00000000"]
    );
    assert_eq!(world.run(), "u+1 g+2");
}
