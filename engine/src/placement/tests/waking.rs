//! Who waits goes as soon as it can: for each thing that may be in the way, that it is not any more.

use super::*;

/// What is there before, what changes, and what comes of it.
type Case =
    (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)], Change, &'static str);
type Change = fn(&mut World);

fn closed(words: &str) -> MachineView {
    MachineView { schedulable: false, ..looks(words) }
}

fn gone(world: &mut World, unit: &str, n: u32) {
    world.unload(unit);
    assert!(!world.run().contains("w+"), "only once it is gone");
    world.gone(unit, n);
}

/// `w.service` waits in each of them, before the change.
const CASES: &[Case] = &[
    ("no machine", &[], &[("w.service", "")], |it| it.machine(1, looks("")), "w+1"),
    ("metadata", &["zone=b"], &[("w.service", "zone=a")], |it| it.machine(1, looks("zone=a")), "w+1"),
    ("a key", &["zone=b"], &[("w.service", "!zone")], |it| it.machine(1, looks("")), "w+1"),
    ("MachineID", &[""], &[("w.service", "MachineID=2")], |it| it.machine(2, looks("")), "w+2"),
    ("a host's name", &[""], &[("w.service", "Host=m2")], |it| it.machine(2, looks("")), "w+2"),
    (
        "a prefix that two share",
        &["", ""],
        &[("w.service", "Prefix=0000000000000000000000000000000")],
        |it| it.0.remove_machine(machine(1)),
        "w+2",
    ),
    ("Spread", &[""], &[("w.service", "Spread=zone")], |it| it.machine(1, looks("zone=a")), "w+1"),
    ("capacity", &["CPU:9"], &[("w.service", "CPU=10")], |it| it.machine(1, looks("CPU:10")), "w+1"),
    ("a resource", &["gpu:1"], &[("w.service", "Use.gpu=2")], |it| it.machine(1, looks("gpu:2")), "w+1"),
    (
        "room",
        &["CPU:10"],
        &[("a.service", "CPU=5"), ("w.service", "CPU=6")],
        |it| gone(it, "a.service", 1),
        "w+1",
    ),
    (
        "what another asks for",
        &["CPU:10"],
        &[("a.service", "CPU=5"), ("w.service", "CPU=6")],
        |it| it.want("a.service", "CPU=4"),
        "w+1",
    ),
    (
        "a port",
        &[""],
        &[("a.service", "Port=80"), ("w.service", "Port=80")],
        |it| gone(it, "a.service", 1),
        "w+1",
    ),
    (
        "its own conflict",
        &[""],
        &[("a.service", ""), ("w.service", "Conflicts=a*")],
        |it| gone(it, "a.service", 1),
        "w+1",
    ),
    (
        "another's conflict",
        &[""],
        &[("a.service", "Conflicts=w.service"), ("w.service", "")],
        |it| gone(it, "a.service", 1),
        "w+1",
    ),
    (
        "a conflict that is given up",
        &[""],
        &[("a.service", "Conflicts=w.service"), ("w.service", "")],
        |it| it.want("a.service", ""),
        "w+1",
    ),
    (
        "who replaces it",
        &[""],
        &[("a.service", "Replaces=w.service"), ("w.service", "")],
        |it| it.want("a.service", ""),
        "w+1",
    ),
    (
        "who replaces it, beside one who lets it be",
        &[""],
        &[("a.service", "Replaces=w*"), ("b.service", "Replaces=w*"), ("w.service", "Replaces=a.service")],
        |it| {
            it.gone("w.service", 1);
            assert_eq!(it.run(), "");
            it.unload("b.service");
        },
        "b-1 w+1",
    ),
    (
        "an unknown leader",
        &[""],
        &[("w.service", "MachineOf=a.service")],
        |it| it.want("a.service", ""),
        "a+1 w+1",
    ),
    (
        "a leader elsewhere",
        &["", "zone=b"],
        &[("a.service", "MachineID=1"), ("w.service", "MachineOf=a.service zone=b")],
        |it| {
            it.want("a.service", "MachineID=2");
            assert_eq!(it.run(), "a-1");
            it.gone("a.service", 1);
        },
        "a+2 w+2",
    ),
    (
        "an unknown leader of its leader",
        &[""],
        &[("a.service", "MachineOf=b.service"), ("w.service", "MachineOf=a.service")],
        |it| it.want("b.service", ""),
        "b+1 a+1 w+1",
    ),
    ("a pattern", &[""], &[("w.service", "MachineOf=a*")], |it| it.want("a1.service", ""), "a1+1 w+1"),
    (
        "a pattern, of a global unit",
        &["", ""],
        &[("w.service", "MachineOf=g*")],
        |it| it.want("g.service", "Global"),
        "g+1 g+2 w+1",
    ),
    (
        "a unit that is left as it is",
        &[""],
        &[],
        |it| {
            let requirements = asks("");
            it.0.set_unit(&name("w.service"), UnitView { requirements, wanted: Wanted::AsIs });
            assert_eq!(it.run(), "");
            it.want("w.service", "");
        },
        "w+1",
    ),
];

#[test]
fn who_waits_goes_as_soon_as_it_can() {
    for (what, machines, units, change, then) in CASES {
        let mut world = World::new(machines);
        units.iter().for_each(|(unit, words)| world.want(unit, words));
        world.run();
        assert!(world.on("w.service").is_empty() || *then == "b-1 w+1", "{what}");
        change(&mut world);
        assert_eq!(world.run(), *then, "{what}");
    }
}

#[test]
fn who_waits_goes_when_a_machine_is_open_again() {
    for words in ["", "CPU=1", "MachineOf=a.service", "MachineOf=a*", "Conflicts=b*", "Spread=zone", "Global"]
    {
        let mut world = World::new(&["zone=a CPU:9"]);
        world.want("a.service", "");
        world.run();
        world.machine(1, closed("zone=a CPU:9"));
        world.want("w@1.service", words);
        assert_eq!(world.run(), "", "{words}");
        world.drain(1);
        assert_eq!(world.run(), "", "{words}");
        world.machine(1, looks("zone=a CPU:9"));
        assert_eq!(world.run(), "w@1+1", "{words}");
    }
}

#[test]
fn who_waits_gets_the_room_of_what_moved_away() {
    let mut world = World::new(&["CPU:10"]);
    world.0.set_moving(&name("m.service"), machine(1), Departure::Rebalanced);
    world.want("m.service", "CPU=6 zone");
    world.want("w.service", "CPU=6");
    assert_eq!(world.run(), "m-1");
    world.gone("m.service", 1);
    assert_eq!(world.run(), "w+1");
}

#[test]
fn instances_wait_for_those_of_their_template() {
    let mut world = World::new(&[""]);
    for n in 1..=4 {
        world.want(&format!("w@{n}.service"), "Max=2");
    }
    assert_eq!(world.run(), "w@1+1 w@2+1");
    world.unload("w@1.service");
    assert_eq!(world.run(), "w@1-1");
    world.gone("w@1.service", 1);
    assert_eq!(world.run(), "w@3+1");
    for n in 2..=4 {
        world.want(&format!("w@{n}.service"), "Max=3");
    }
    assert_eq!(world.run(), "", "w@1 still says two");
    world.0.remove_unit(&name("w@1.service"));
    assert_eq!(world.run(), "w@4+1");
}

/// `x.service` needs somebody of `f*`, and `f.service` goes where `x.service` is: they go together or not at
/// all, so that what was in the way of one was in the way of both.
fn a_pair(machines: &[&str], of_x: &str, of_f: &str) -> World {
    let mut world = World::new(machines);
    world.want("x.service", &format!("MachineOf=f* {of_x}"));
    world.want("f.service", &format!("MachineOf=x.service {of_f}"));
    world
}

#[test]
fn those_that_need_each_other_go_when_what_was_in_the_way_of_one_is_gone() {
    assert_eq!(a_pair(&[""], "", "").run(), "x+1 f+1");

    let mut world = World::new(&["CPU:10"]);
    world.want("y.service", "CPU=6");
    world.run();
    world.want("x.service", "MachineOf=f* CPU=6");
    world.want("f.service", "MachineOf=x.service");
    assert_eq!(world.run(), "");
    gone(&mut world, "y.service", 1);
    assert_eq!(world.run(), "x+1 f+1", "room");

    let mut world = a_pair(&[""], "MachineOf=g*", "");
    assert_eq!(world.run(), "");
    world.want("g.service", "Global");
    assert_eq!(world.run(), "g+1 x+1 f+1", "another whom it follows");

    let mut world = a_pair(&["", ""], "Host=twice", "");
    for n in [1, 2] {
        world.0.set_machine(machine(n), MachineView { host: "twice".to_owned(), ..looks("") });
    }
    assert_eq!(world.run(), "");
    world.0.remove_machine(machine(2));
    assert_eq!(world.run(), "x+1 f+1", "the name of a host");

    let mut world = World::new(&["", "zone=b"]);
    world.0.set_departing(&name("x.service"), machine(2));
    for (x, f) in [("x", "f"), ("x2", "nobody")] {
        world.want(&format!("{x}.service"), "MachineOf=f* !zone");
        world.want(&format!("{f}.service"), &format!("MachineOf={x}.service"));
    }
    world.want("nobody.service", "MachineOf=x2.service zone=c");
    assert_eq!(world.run(), "");
    world.0.remove_machine(machine(2));
    assert_eq!(world.run(), "x+1 f+1 x2+1", "one of the same kind waits already");
}

#[test]
fn a_follower_of_both_is_asked_again_when_its_leader_finds_one_of_its_pattern() {
    // What the property found: c was not asked again once w@1 was there, since only a asks for that.
    let mut world = World::new(&["zone=a", "zone=b"]);
    world.machine(1, closed("zone=a"));
    world.want("w@1.service", "zone=a zone=b");
    world.want("c.service", "MachineOf=c.service MachineOf=a.service");
    world.want("a.service", "MachineOf=[bc].service MachineOf=w@* CPU=0");
    assert_eq!(world.run(), "w@1+2 a+2 c+2");
    // And with a global unit, which comes after those that wait for it.
    let mut world = World::new(&["CPU:100"]);
    world.want("a.service", "MachineOf=[bc].service MachineOf=w@* CPU=10");
    world.want("w@1.service", "MachineOf=a.service");
    world.want("b.service", "Global");
    assert_eq!(world.run(), "b+1 a+1 w@1+1");
}

#[test]
fn one_of_those_that_lead_each_other_goes_alone_where_both_do_not_fit() {
    let mut world = World::new(&["CPU:100"]);
    world.want("z.service", "MachineOf=a.service zone=b");
    world.want("a.service", "MachineOf=b.service CPU=60");
    world.want("b.service", "MachineOf=b.service CPU=60");
    assert_eq!(world.run(), "b+1");
    assert_eq!(
        world.why("a.service"),
        "a.service cannot be placed: 1 machine: cpu: 0.06 asked (0.04 of 0.1 free)"
    );
    world.machine(1, looks("CPU:120"));
    assert_eq!(world.run(), "a+1");
}

#[test]
fn nobody_goes_together_with_whom_it_pushes_away() {
    let mut world = World::new(&[""]);
    world.want("a.service", "MachineOf=g.service");
    world.want("g.service", "Replaces=a.service");
    assert_eq!(world.run(), "g+1");
    assert_eq!(world.why("a.service"), "a.service cannot be placed: 1 machine: replaced by g.service");
}

#[test]
fn nobody_goes_where_only_those_who_come_later_will_be() {
    let mut world = World::new(&["", ""]);
    world.want("c.service", "MachineID=1");
    world.0.set_departing(&name("b.service"), machine(1));
    world.want("b.service", "MachineOf=a.service");
    world.want("a.service", "MachineOf=[bc].service");
    assert_eq!(world.run(), "c+1 a+1");
}

#[test]
fn a_wish_to_be_away_from_others_counts_those_placed_just_before() {
    let mut world = World::new(&["zone=a", ""]);
    for n in 1..=2 {
        world.want(&format!("w@{n}.service"), "Prefer=10:zone=a Prefer=-15:MachineOf=w@*");
    }
    assert_eq!(world.run(), "w@1+1 w@2+2");
}
