//! fleet's own tables of what may run where, read from unit files as its tests had them.
//!
//! Each row is what fleet 1.0 did; where flotilla means to do otherwise, the row says so and why.

use flotilla_units::UnitFile;

use super::*;

/// What a unit of this name asks for, by lines of its `[X-Fleet]` section.
fn asked(unit: &str, lines: &str) -> Arc<UnitRequirements> {
    let text = format!("[Service]\nExecStart=/bin/true\n[X-Fleet]\n{lines}\n");
    let file = UnitFile::parse("test", text.as_bytes()).unwrap();
    file.requirements().unwrap().for_unit(&name(unit)).unwrap()
}

fn want(world: &mut World, unit: &str, lines: &str) {
    world.0.set_unit(&name(unit), UnitView { requirements: asked(unit, lines), wanted: Wanted::Placed });
}

/// Places `bar.service` with these lines on the only machine, then says what becomes of `foo.service`.
fn meets(bar: Option<&str>, foo: &str) -> String {
    let mut world = World::new(&[""]);
    if let Some(bar) = bar {
        want(&mut world, "bar.service", bar);
        assert_eq!(world.run(), "bar+1");
    }
    want(&mut world, "foo.service", foo);
    world.run()
}

#[test]
fn conflicts() {
    let rows = [
        ("an empty machine", None, "Conflicts=bar.service", "foo+1"),
        ("bar lists foo", Some("Conflicts=foo.service"), "", ""),
        ("foo lists bar", Some(""), "Conflicts=bar.service", ""),
        ("one line, the second name", Some("Conflicts=ping.service foo.service"), "", ""),
        ("one line, the first name", Some("Conflicts=foo.service ping.service"), "", ""),
        ("two lines, the second", Some("Conflicts=ping.service\nConflicts=foo.service"), "", ""),
        ("two lines, the first", Some("Conflicts=foo.service\nConflicts=ping.service"), "", ""),
        ("one line of foo", Some(""), "Conflicts=ping.service bar.service", ""),
        ("two lines of foo", Some(""), "Conflicts=bar.service\nConflicts=ping.service", ""),
        ("nobody lists anybody", Some("Conflicts=ping.service"), "Conflicts=pong.service", "foo+1"),
    ];
    for (row, bar, foo, expected) in rows {
        assert_eq!(meets(bar, foo), expected, "{row}");
    }
}

#[test]
fn replaces() {
    // fleet asked one question for both directions and so pushed away whichever unit it met first. Here the
    // one that says `Replaces=` stays, and the other leaves; a new unit that is listed by one that is there is
    // not let in, where fleet placed it and then moved one of the two.
    let rows = [
        ("empty", None, "Replaces=bar.service", "foo+1"),
        ("the one there lists the new one", Some("Replaces=foo.service"), "", ""),
        ("the new one lists the one there", Some(""), "Replaces=bar.service", "foo+1 bar-1"),
        ("both list each other", Some("Replaces=foo.service"), "Replaces=bar.service", "foo+1"),
    ];
    for (row, bar, foo, expected) in rows {
        assert_eq!(meets(bar, foo), expected, "{row}");
    }
}

/// What becomes of a unit on machine 1 that is told to ask for this: it stays (S), it is taken off (U), or it is
/// moved because of `Replaces=` (R).
fn able_to_run(lines: &str, machine: &str, others: &[&str]) -> char {
    let mut world = World::new(&[machine]);
    for other in others {
        want(&mut world, other, "");
        world.0.set_placed(&name(other), super::machine(1));
    }
    world.0.set_placed(&name("foo.service"), super::machine(1));
    want(&mut world, "foo.service", lines);
    match world.run().as_str() {
        "" => 'S',
        "foo-1" => 'U',
        said if said.starts_with("ping-1") => 'R',
        said => panic!("{said}"),
    }
}

#[test]
fn able_to_run_here() {
    let id = machine(1).to_string();
    let other = machine(2).to_string();
    let (same, differs) = (format!("MachineID={id}"), format!("MachineID={other}"));
    let rows: [(&str, &str, &str, &[&str], char); 17] = [
        ("no options", "", "", &[], 'S'),
        ("MachineID equal", &same, "", &[], 'S'),
        ("MachineID differs", &differs, "", &[], 'U'),
        ("metadata equal", "MachineMetadata=region=us-west", "region=us-west", &[], 'S'),
        ("metadata differs", "MachineMetadata=region=us-west", "region=us-east", &[], 'U'),
        ("metadata nobody asks for", "", "region=us-west", &[], 'S'),
        ("MachineOf present", "MachineOf=ping.service", "", &["ping.service"], 'S'),
        (
            "two of MachineOf present",
            "MachineOf=ping.service\nMachineOf=pong.service",
            "",
            &["ping.service", "pong.service"],
            'S',
        ),
        // fleet: U. Here a unit that nobody has ever submitted takes nothing away: its record may be missing.
        ("MachineOf never heard of", "MachineOf=ping.service", "", &[], 'S'),
        (
            "one of two of MachineOf never heard of",
            "MachineOf=ping.service\nMachineOf=pong.service",
            "",
            &["ping.service"],
            'S',
        ),
        ("no unit for a pattern of MachineOf", "MachineOf=ping*.service", "", &[], 'U'),
        ("Conflicts not matching", "Conflicts=ping.service", "", &["pong.service"], 'S'),
        ("Conflicts matching", "Conflicts=bar.service", "", &["bar.service"], 'U'),
        (
            "Conflicts matching, second line",
            "Conflicts=a.service\nConflicts=bar.service",
            "",
            &["bar.service"],
            'U',
        ),
        ("Conflicts matching, second word", "Conflicts=a.service bar.service", "", &["bar.service"], 'U'),
        ("Replaces not matching", "Replaces=ping.service", "", &["pong.service"], 'S'),
        ("Replaces matching", "Replaces=ping.service", "", &["ping.service"], 'R'),
    ];
    for (row, lines, machine, others, expected) in rows {
        assert_eq!(able_to_run(lines, machine, others), expected, "{row}");
    }
}

#[test]
fn able_to_run_with_a_leader_that_is_elsewhere() {
    // fleet's row `MachineOf absent`: the leader is known, and not there.
    let mut world = World::new(&["", ""]);
    want(&mut world, "ping.service", "");
    world.0.set_placed(&name("ping.service"), machine(2));
    world.0.set_placed(&name("foo.service"), machine(1));
    want(&mut world, "foo.service", "MachineOf=ping.service");
    assert_eq!(world.run(), "foo-1");
    world.gone("foo.service", 1);
    assert_eq!(world.run(), "foo+2");
}

#[test]
fn scheduler() {
    let place = |loads: &[u32]| {
        let mut world = World::new(&vec![""; loads.len()]);
        for (n, load) in (1..).zip(loads) {
            for i in 0..*load {
                let unit = format!("u{n}-{i}.service");
                want(&mut world, &unit, "");
                world.0.set_placed(&name(&unit), machine(n));
            }
        }
        want(&mut world, "foo.service", "");
        (world.run(), world.why("foo.service"))
    };
    let none = "foo.service cannot be placed: there are no machines".to_owned();
    assert_eq!(place(&[]), (String::new(), none), "no machines");
    for (row, loads, expected) in [
        ("both equal", &[0, 0], "foo+1"),
        ("five against two: fewer first", &[5, 2], "foo+2"),
        ("two against two: the lower id", &[2, 2], "foo+1"),
    ] {
        assert_eq!(place(loads).0, expected, "{row}");
    }
}

#[test]
fn an_engines_pass() {
    assert_eq!(World::new(&["", ""]).run(), "", "nothing to do");

    let mut world = World::new(&["", ""]);
    want(&mut world, "foo.service", "");
    assert_eq!(world.run(), "foo+1", "wanted and unplaced");
    assert_eq!(world.run(), "", "placed, and its machine is there");
    world.0.remove_machine(machine(1));
    assert_eq!(world.run(), "foo-1 foo+2", "its machine is gone");
    world.unload("foo.service");
    assert_eq!(world.run(), "foo-2", "no longer wanted");
}

/// fleet's agents found out for themselves what to run; here a manifest names it.
#[test]
fn what_a_machine_is_to_have() {
    let rows = [
        ("a unit that is placed there", "", "", true),
        ("global, no metadata asked for", "Global=true", "", true),
        ("global, metadata matches", "Global=true\nMachineMetadata=dog=woof", "dog=woof", true),
        ("global, metadata missing", "Global=true\nMachineMetadata=dog=woof", "", false),
        ("global, metadata differs", "Global=true\nMachineMetadata=dog=woof", "dog=bark", false),
    ];
    for (row, lines, looks, expected) in rows {
        let mut world = World::new(&[looks]);
        want(&mut world, "foo.service", lines);
        assert_eq!(!world.run().is_empty(), expected, "{row}");
    }
    // No target, or another machine's: nothing.
    let mut world = World::new(&["", ""]);
    want(&mut world, "foo.service", "");
    world.run();
    assert_eq!((world.0.load(machine(1)), world.0.load(machine(2))), (1, 0));
}

#[test]
fn metadata() {
    let rows = [
        ("equal", "MachineMetadata=region=us-west", "region=us-west", true),
        ("one of two", "MachineMetadata=groups=ping\nMachineMetadata=groups=pong", "groups=ping", true),
        ("one that is not asked for", "MachineMetadata=groups=pong", "groups=ping", false),
        (
            "one key of two differs",
            "MachineMetadata=region=us-west\nMachineMetadata=groups=pong",
            "region=us-west groups=ping",
            false,
        ),
        ("the key is not there", "MachineMetadata=region=us-west", "", false),
    ];
    for (row, lines, looks, expected) in rows {
        let mut world = World::new(&[looks]);
        want(&mut world, "foo.service", lines);
        assert_eq!(!world.run().is_empty(), expected, "{row}");
    }
}
