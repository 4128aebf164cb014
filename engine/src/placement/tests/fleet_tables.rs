//! fleet's own tables of what may run where, read from unit files as its tests had them.
//!
//! Each row is what fleet 1.0 did; where flotilla means to do otherwise, the row says what it does, and why.

use std::fmt::Debug;

use flotilla_units::UnitFile;

use super::*;

/// What flotilla does otherwise, and why.
type Otherwise<T> = Option<(T, &'static str)>;

fn check<T: PartialEq + Debug>(row: &str, actual: T, fleet: T, otherwise: Otherwise<T>) {
    match otherwise {
        None => assert_eq!(actual, fleet, "{row}"),
        Some((ours, why)) => {
            assert_ne!(ours, fleet, "{row}: the row names no difference");
            assert!(!why.is_empty(), "{row}: the row gives no reason");
            assert_eq!(actual, ours, "{row}: {why}");
        }
    }
}

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

/// fleet's question: does foo conflict with what is there?
#[test]
fn conflicts() {
    let rows = [
        ("an empty machine", None, "Conflicts=bar.service", false),
        ("bar lists foo", Some("Conflicts=foo.service"), "", true),
        ("foo lists bar", Some(""), "Conflicts=bar.service", true),
        ("bar's one line, the second name", Some("Conflicts=ping.service foo.service"), "", true),
        ("bar's one line, the first name", Some("Conflicts=foo.service ping.service"), "", true),
        ("bar's two lines, the second", Some("Conflicts=ping.service\nConflicts=foo.service"), "", true),
        ("bar's two lines, the first", Some("Conflicts=foo.service\nConflicts=ping.service"), "", true),
        ("foo's one line, the second name", Some(""), "Conflicts=ping.service bar.service", true),
        ("foo's one line, the first name", Some(""), "Conflicts=bar.service ping.service", true),
        ("foo's two lines, the second", Some(""), "Conflicts=ping.service\nConflicts=bar.service", true),
        ("foo's two lines, the first", Some(""), "Conflicts=bar.service\nConflicts=ping.service", true),
        ("nobody lists anybody", Some("Conflicts=ping.service"), "Conflicts=pong.service", false),
    ];
    for (row, bar, foo, fleet) in rows {
        let became = meets(bar, foo);
        assert!(["", "foo+1"].contains(&&*became), "{row}: nothing else moves: {became}");
        check(row, became.is_empty(), fleet, None);
    }
}

/// fleet's question: do the two push one another away?
#[test]
fn replaces() {
    // Who goes fleet left to which of the two it met first.
    let rows = [
        ("empty", None, "Replaces=bar.service", false, "foo+1"),
        // It was placed, and one of the two then moved; here it is not let in at all.
        ("the one there lists the new one", Some("Replaces=foo.service"), "", true, ""),
        ("the new one lists the one there", Some(""), "Replaces=bar.service", true, "foo+1 bar-1"),
        ("both list each other", Some("Replaces=foo.service"), "Replaces=bar.service", false, "foo+1"),
    ];
    for (row, bar, foo, fleet, expected) in rows {
        let became = meets(bar, foo);
        check(row, became != "foo+1", fleet, None);
        assert_eq!(became, expected, "{row}: the one that says `Replaces=` has the place");
    }
}

/// What becomes of a unit on machine 1 that is told to ask for this: it stays (S), it is taken off (U), or it is
/// moved because of `Replaces=` (R). The others are there too, or on machine 2.
fn able_to_run(lines: &str, machine: &str, others: &[&str]) -> char {
    let second = others.iter().any(|other| other.ends_with("@2"));
    let machines = [machine, ""];
    let mut world = World::new(if second { &machines } else { &machines[..1] });
    for other in others {
        let (unit, at) = other.split_once("@2").map_or((*other, 1), |(unit, _)| (unit, 2));
        want(&mut world, unit, "");
        world.0.set_placed(&name(unit), super::machine(at));
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

/// What a row is about, the unit's options, the machine's metadata, what is there, and what comes of it.
type AbleToRun<'a> = (&'a str, &'a str, &'a str, &'a [&'a str], char, Otherwise<char>);

#[test]
fn able_to_run_here() {
    let id = machine(1).to_string();
    let other = machine(2).to_string();
    let (same, differs) = (format!("MachineID={id}"), format!("MachineID={other}"));
    const NEVER_HEARD: &str =
        "a unit that nobody has ever submitted takes nothing away: its record may be missing";
    let two = "MachineOf=ping.service\nMachineOf=pong.service";
    let rows: [AbleToRun<'_>; 19] = [
        ("no options", "", "", &[], 'S', None),
        ("MachineID equal", &same, "", &[], 'S', None),
        ("MachineID differs", &differs, "", &[], 'U', None),
        ("metadata equal", "MachineMetadata=region=us-west", "region=us-west", &[], 'S', None),
        ("metadata differs", "MachineMetadata=region=us-west", "region=us-east", &[], 'U', None),
        ("metadata nobody asks for", "", "region=us-west", &[], 'S', None),
        ("MachineOf present", "MachineOf=ping.service", "", &["ping.service"], 'S', None),
        ("two of MachineOf present", two, "", &["ping.service", "pong.service"], 'S', None),
        ("MachineOf elsewhere", "MachineOf=ping.service", "", &["ping.service@2"], 'U', None),
        ("one of two of MachineOf elsewhere", two, "", &["ping.service", "pong.service@2"], 'U', None),
        ("MachineOf never heard of", "MachineOf=ping.service", "", &[], 'U', Some(('S', NEVER_HEARD))),
        ("one of two of MachineOf never heard of", two, "", &["ping.service"], 'U', Some(('S', NEVER_HEARD))),
        // fleet had no patterns there.
        ("no unit for a pattern of MachineOf", "MachineOf=ping*.service", "", &[], 'U', None),
        ("Conflicts not matching", "Conflicts=ping.service", "", &["pong.service"], 'S', None),
        ("Conflicts matching", "Conflicts=bar.service", "", &["bar.service"], 'U', None),
        (
            "Conflicts matching, second line",
            "Conflicts=a.service\nConflicts=bar.service",
            "",
            &["bar.service"],
            'U',
            None,
        ),
        (
            "Conflicts matching, second word",
            "Conflicts=a.service bar.service",
            "",
            &["bar.service"],
            'U',
            None,
        ),
        ("Replaces not matching", "Replaces=ping.service", "", &["pong.service"], 'S', None),
        ("Replaces matching", "Replaces=ping.service", "", &["ping.service"], 'R', None),
    ];
    for (row, lines, machine, others, fleet, otherwise) in rows {
        check(row, able_to_run(lines, machine, others), fleet, otherwise);
    }
}

/// What fleet did in its next pass.
#[test]
fn a_unit_that_cannot_stay_goes_where_its_leader_is() {
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
