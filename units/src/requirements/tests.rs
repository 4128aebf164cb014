mod beyond;
mod properties;

use super::*;
use crate::{Is, Problems, UnitFile};

fn read(section: &str) -> Result<Requirements, Problems> {
    UnitFile::parse("t.service", format!("[X-Flotilla]\n{section}").as_bytes()).unwrap().requirements()
}

fn of(section: &str, unit: &str) -> UnitRequirements {
    (*read(section).unwrap().for_unit(&unit.parse().unwrap()).unwrap()).clone()
}

fn refusal(section: &str) -> String {
    read(section).unwrap_err().to_string()
}

/// The values of a key, from `k=v` terms.
fn values(asks: &UnitRequirements, key: &str) -> Vec<String> {
    let of_key = |s: &&Selector| s.key == key;
    match asks.metadata.iter().find(of_key).map(|s| &s.is) {
        Some(Is::OneOf(values)) => texts(values),
        other => panic!("{other:?}"),
    }
}

fn texts<T: ToString>(set: &BTreeSet<T>) -> Vec<String> {
    set.iter().map(T::to_string).collect()
}

#[test]
fn reads_every_option() {
    let all = of(
        "MachineMetadata=disk=ssd\nMachineOf=db.service\nConflicts=web@*.service api*.service\nOnPartition=replace\n",
        "web.service",
    );
    assert_eq!(texts(&all.machine_of), ["db.service"]);
    assert_eq!(values(&all, "disk"), ["ssd"]);
    assert_eq!(texts(&all.conflicts), ["api*.service", "web@*.service"]);
    assert!(!all.global && all.replaces.is_empty() && all.machine.is_none());
    assert!(of("Global=yes\n", "a.service").global);
    assert_eq!(texts(&of("Replaces=old*.service\n", "a.service").replaces), ["old*.service"]);
    let id = "0123456789abcdef0123456789abcdef";
    let pinned = of(&format!("MachineID={id}\nConflicts=b.service\n"), "a.service");
    assert_eq!(pinned.machine.unwrap().to_string(), id, "MachineID goes with Conflicts");
    assert_eq!(of("", "a.service"), UnitRequirements::default());
}

#[test]
fn metadata_is_or_within_a_key_and_and_between_keys_and_is_quoted_as_in_fleet() {
    let lines = of("MachineMetadata=zone=a\nMachineMetadata=zone=b\nMachineMetadata=disk=ssd\n", "a.service");
    let quoted = of("MachineMetadata=\"zone=a\" \"zone=b\" \"disk=ssd\"\n", "a.service");
    assert_eq!(lines, quoted);
    assert_eq!(values(&lines, "zone"), ["a", "b"]);
    assert_eq!(of("MachineMetadata='zone=a' \"zone=b\" 'disk=ssd'\n", "a.service"), lines);
    assert_eq!(values(&of("MachineMetadata='zone=a'\n", "a.service"), "zone"), ["a"]);
    // Within a word it is an apostrophe.
    assert_eq!(values(&of("MachineMetadata=owner=o'brien\n", "a.service"), "owner"), ["o'brien"]);
    // One unquoted line is one value, blanks included.
    assert_eq!(values(&of("MachineMetadata=region=us east\n", "a.service"), "region"), ["us east"]);
    assert_eq!(values(&of("MachineMetadata=url=a=b\n", "a.service"), "url"), ["a=b"]);
    // fleet ignored this line, and the unit ran anywhere.
    let e = refusal("MachineMetadata=a=b c=d\n");
    assert!(e.starts_with("t.service:2:17: MachineMetadata= does not take"), "{e}");
    assert!(e.contains("\"a=b\" \"c=d\""), "{e}");
    for bad in ["=ssd", "disk=", "disk ssd", "\"a=b", "'a=b"] {
        assert!(read(&format!("MachineMetadata={bad}\n")).is_err(), "{bad}");
    }
}

#[test]
fn an_empty_assignment_resets() {
    let after = of("Conflicts=a*\nMachineOf=a.service\nConflicts=\nConflicts=b*\nMachineOf=\n", "x.service");
    assert_eq!(texts(&after.conflicts), ["b*"]);
    assert!(after.machine_of.is_empty());
    assert!(!of("Global=yes\nGlobal=\n", "x.service").global);
}

#[test]
fn both_spellings_of_the_section_and_fleets_old_options_mean_the_same() {
    let read = |text: &str| {
        let file = UnitFile::parse("a.service", text.as_bytes()).unwrap();
        (*file.requirements().unwrap().for_unit(&"a.service".parse().unwrap()).unwrap()).clone()
    };
    let new = read("[X-Flotilla]\nMachineOf=b.service\nConflicts=c*\nMachineMetadata=a=b\n");
    assert_eq!(new, read("[X-Fleet]\nMachineOf=b.service\nConflicts=c*\nMachineMetadata=a=b\n"));
    let old = "[X-Fleet]\nX-ConditionMachineOf=b.service\nX-Conflicts=c*\nX-ConditionMachineMetadata=a=b\n";
    assert_eq!(new, read(old));
}

#[test]
fn specifiers_are_expanded_per_unit_and_otherwise_shared() {
    let unit: UnitName = "side@a\\x2db.service".parse().unwrap();
    let written =
        read("MachineOf=web@%i.service\nConflicts=%p@*.service %n\nMachineMetadata=name=%N 100%%\n").unwrap();
    assert!(written.depends_on_name());
    let got = written.for_unit(&unit).unwrap();
    assert_eq!(got.machine_of.first().unwrap().literal(), Some("web@a\\x2db.service"));
    assert_eq!(values(&got, "name"), ["side@a\\x2db 100%"]);
    assert!(got.conflicts.iter().all(|g| g.matches(unit.as_str())), "what is inserted is no pattern");

    let shared = read("Conflicts=web@*.service\nMachineMetadata=load=100%%\n").unwrap();
    assert!(!shared.depends_on_name());
    let [one, two] =
        ["web@1.service", "web@2.service"].map(|n| shared.for_unit(&n.parse().unwrap()).unwrap());
    assert!(Arc::ptr_eq(&one, &two));
    assert_eq!(values(&one, "load"), ["100%"]);
    assert!(refusal("MachineOf=a%H.service\n").contains("`%H` is not %n"));
}

#[test]
fn what_makes_no_sense_for_one_name_is_refused_for_that_name() {
    let written = read("MachineOf=web@%i.service\n").unwrap();
    let e = written.for_unit(&"web@1.service".parse().unwrap()).unwrap_err();
    assert!(e.to_string().contains("that is the unit itself"), "{e}");
    // A plain unit has no instance, and `web@.service` is a template.
    let e = written.for_unit(&"side.service".parse().unwrap()).unwrap_err();
    assert!(e.to_string().contains("a template runs nowhere"), "{e}");
    let fixed = read("MachineOf=web.service\n").unwrap();
    assert!(fixed.for_unit(&"web.service".parse().unwrap()).is_err());
    assert!(fixed.for_unit(&"side.service".parse().unwrap()).is_ok());
}

/// The table of combinations that fleet refused and accepted.
#[test]
fn contradictions_are_those_of_fleet_except_machine_id_with_conflicts() {
    let id = "MachineID=0123456789abcdef0123456789abcdef\n";
    let [of, global, replaces, conflicts, metadata] = [
        "MachineOf=peer.service\n",
        "Global=true\n",
        "Replaces=old.service\n",
        "Conflicts=x.service\n",
        "MachineMetadata=a=b\n",
    ];
    for (a, b) in
        [(id, of), (id, global), (id, replaces), (global, of), (global, replaces), (conflicts, replaces)]
    {
        for both in [format!("{a}{b}"), format!("{b}{a}")] {
            let e = refusal(&both);
            assert!(e.contains("contradict each other") && e.starts_with("t.service:3:"), "{both}{e}");
        }
    }
    for (a, b) in [
        (global, conflicts),
        (global, metadata),
        (of, metadata),
        (id, metadata),
        (id, conflicts),
        ("Global=no\n", of),
    ] {
        assert!(read(&format!("{a}{b}")).is_ok(), "{a}{b}");
    }
    for option in ["Conflicts", "Replaces"] {
        let e = refusal(&format!("{option}=peer*\nMachineOf=other.service \"peer.service\"\n"));
        assert!(e.starts_with("t.service:3:25: MachineOf= and "), "{e}");
        assert!(e.contains("`peer.service` has to be on the machine, and `peer*` keeps it away"), "{e}");
    }
}

#[test]
fn values_are_refused_with_what_was_expected() {
    for (line, want) in [
        ("MachineID=a b", "expected the 32 hexadecimal digits of /etc/machine-id"),
        ("MachineID=00000000000000000000000000000000", "no machine has the id that is all zero"),
        ("MachineOf=db", "MachineOf= expects unit names: `db` is not a unit name: it has no type"),
        ("MachineOf=db@.service", "a template runs nowhere"),
        ("Conflicts=web[", "`web[` is not a pattern: a `[` is never closed"),
        ("Global=maybe", "expected one of 1 yes y true t on, 0 no n false f off"),
        ("OnPartition=stop", "OnPartition=stop is not yet available; expected `replace`"),
        ("OnPartition=wait", "OnPartition=wait is not yet available"),
        ("OnPartition=explode", "expected `replace`"),
        ("Conflict=a", "has no option `Conflict`; did you mean `Conflicts`?"),
        ("machineof=a", "did you mean `MachineOf`?"),
        ("Restart=always", "it has MachineID, MachineOf, MachineMetadata"),
    ] {
        let e = refusal(&format!("{line}\n"));
        assert!(e.starts_with("t.service:2:") && e.contains(want), "{e}");
    }
    let two = "MachineID=0123456789abcdef0123456789abcdef\nMachineID=1123456789abcdef0123456789abcdef\n";
    assert!(refusal(two).contains("another machine is named above"));
}

#[test]
fn booleans_are_read_as_systemd_reads_them() {
    for yes in ["1", "yes", "Y", "TRUE", "t", "On"] {
        assert!(of(&format!("Global={yes}\n"), "a.service").global);
    }
    for no in ["0", "no", "N", "False", "f", "OFF"] {
        assert!(!of(&format!("Global={no}\n"), "a.service").global);
    }
}

#[test]
fn the_section_has_a_limit() {
    assert_eq!(of(&"Conflicts=a*\n".repeat(MAX_VALUES), "b.service").conflicts.len(), 1);
    let e = refusal(&format!("{}MachineOf=a.service\n", "Conflicts=a*\n".repeat(MAX_VALUES)));
    assert!(e.starts_with("t.service:258:11: there are more than 256 values"), "{e}");
    assert!(refusal(&format!("Conflicts={}\n", "*".repeat(2000))).contains("longer than 1024 bytes"));
}
