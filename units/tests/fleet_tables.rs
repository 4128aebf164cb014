//! fleet 1.0's own unit-test tables about unit files, one test each.
//!
//! A row says what fleet made of an input. Where flotilla makes something else of it, the row says what,
//! and why: every difference here is one that was meant.

// What these tests share says what must hold in the shortest way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeMap, fmt::Debug};

use flotilla_units::{Glob, SourceName, UnitFile, UnitName, UnitRequirements, fleet_options};

/// What flotilla does otherwise, and why.
type Otherwise<T> = Option<(T, &'static str)>;

fn row<T: PartialEq + Debug>(input: &str, actual: T, fleet: T, otherwise: Otherwise<T>) {
    match otherwise {
        None => assert_eq!(actual, fleet, "{input}"),
        Some((ours, why)) => {
            assert_ne!(ours, fleet, "{input}: the row names no difference");
            assert!(!why.is_empty(), "{input}: the row gives no reason");
            assert_eq!(actual, ours, "{input}: {why}");
        }
    }
}

/// What a unit asks for with these lines in its section; `None` when they are refused.
fn asks(lines: &str, unit: &str) -> Option<UnitRequirements> {
    let text = format!("[Service]\nExecStart=/bin/true\n[X-Fleet]\n{lines}\n");
    let file = UnitFile::parse(unit, text.as_bytes()).unwrap();
    let requirements = file.validate(&unit.parse().unwrap()).ok()?;
    requirements.for_unit(&unit.parse().unwrap()).ok().map(|it| (*it).clone())
}

fn metadata(lines: &str) -> Option<Vec<String>> {
    asks(lines, "a.service").map(|it| it.metadata.iter().map(ToString::to_string).collect())
}

const SYSTEMDS: &str =
    "a name is what systemd takes for one; who validates a file refuses types that have none";

#[test]
fn names() {
    let longest = |length: usize| format!("{}.service", "a".repeat(length - 8));
    let same = |name: &str, fleet: bool| row(name, name.parse::<UnitName>().is_ok(), fleet, None);
    for good in [
        "foo.service",
        "hello.mount",
        "foo@123.service",
        "foo@.service",
        "yo.yo.service",
        "hello@world.path",
        "hello:world.service",
        "yes@no\\.service",
        "foo@1.path",
        "foo@1.service",
        "foo@1.socket",
        "foo@1.target",
        "foo@1.timer",
    ] {
        same(good, true);
    }
    for bad in [
        "",
        &longest(257),
        "fooservice",
        "bar@foo",
        "foo.",
        "foo.service.",
        "foo.bar",
        "foo.servICE",
        "foo%.service",
        "foo$.service",
        "foo#.service",
        "foo/.service",
        "foo+.service",
        "foo=.service",
        "@foo.service",
        "foo@1.busname",
        "foo@1.snapshot",
        // Braces that no shell expanded.
        "foo@{1,3}.service",
        "foo@{1..3}.service",
        "foo.{1-3}.service",
    ] {
        same(bad, false);
    }
    for name in ["foo@1.automount", "foo@1.device", "foo@1.mount", "foo@1.scope", "foo@1.slice", "foo@1.swap"]
    {
        row(name, name.parse::<UnitName>().is_ok(), false, Some((true, SYSTEMDS)));
    }
    let otherwise =
        Some((false, "systemd's limit is 255 bytes; fleet took a name that systemd then refused"));
    row("256 characters", longest(256).parse::<UnitName>().is_ok(), true, otherwise);
    same(&longest(255), true);
}

#[test]
fn name_split() {
    let split = |name: &str| {
        let name: UnitName = name.parse().ok()?;
        Some((name.prefix().to_owned(), name.instance().map(str::to_owned)))
    };
    for (name, fleet) in [
        ("foo.service", Some(("foo", None))),
        ("foo@.service", Some(("foo", None))),
        ("foo.1@2.service", Some(("foo.1", Some("2")))),
        ("foo@bar@baz.service", Some(("foo", Some("bar@baz")))),
        ("foo", None),
        ("bar@baz", None),
    ] {
        row(name, split(name), fleet.map(|(p, i)| (p.to_owned(), i.map(str::to_owned))), None);
    }
}

#[test]
fn mangling() {
    for (typed, fleet) in [
        ("foo", "foo.service"),
        ("foo.1", "foo.1.service"),
        ("foo/bar.socket", "bar.socket"),
        ("foo@1", "foo@1.service"),
    ] {
        row(typed, SourceName::mangle(typed).unwrap().as_str(), fleet, None);
    }
}

#[test]
fn quoted_lists() {
    const CLOSE: &str =
        "a quote that is never closed is refused with its place; fleet took it for part of a name";
    let list = |line: &str| {
        let asked = asks(&format!("Conflicts={line}"), "a.service")?;
        Some(asked.conflicts.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    for (line, fleet, otherwise) in [
        ("\"bar\"", vec!["bar"], None),
        ("\"bar\" \"ping\" \"pong\"", vec!["bar", "ping", "pong"], None),
        ("bar", vec!["bar"], None),
        ("\"bar", vec!["\"bar"], Some((None, CLOSE))),
        ("\"bar\" \"", vec!["bar", ""], Some((None, CLOSE))),
        ("\"foo\\\"bar\"", vec!["foo\\bar"], Some((None, CLOSE))),
    ] {
        let owned = |these: Vec<&str>| Some(these.into_iter().map(str::to_owned).collect::<Vec<_>>());
        row(line, list(line), owned(fleet), otherwise);
    }
}

#[test]
fn globs() {
    for (glob, name, fleet) in [
        ("*", "foo.service", true),
        ("foo.*", "foo.socket", true),
        ("foo@*.service", "foo@12.service", true),
        ("foo@[abc].service", "foo@a.service", true),
        ("foo@[abc].service", "foo@d.service", false),
        ("foo@?.service", "foo@1.service", true),
        ("foo.service", "bar.service", false),
    ] {
        row(glob, glob.parse::<Glob>().unwrap().matches(name), fleet, None);
    }
    // fleet took any text for a pattern; a malformed one matched nothing, which only its debug log told.
    let refused = Some((None, "a malformed pattern is refused: it would keep nobody away"));
    row("foo@[", asks("Conflicts=foo@[", "a.service").map(|it| it.conflicts.len()), Some(1), refused);
}

#[test]
fn metadata_parse() {
    const REFUSED: &str =
        "what fleet dropped silently is refused with its place: the unit would run anywhere";
    let want = |these: &[&str]| Some(these.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
    for (lines, fleet, otherwise) in [
        ("", &[][..], None),
        ("MachineMetadata=foo=bar", &["foo=bar"], None),
        ("MachineMetadata=\"foo=bar\" \"foo=baz\"", &["foo in (bar, baz)"], None),
        ("MachineMetadata=foo=bar\nMachineMetadata=foo=baz", &["foo in (bar, baz)"], None),
        ("MachineMetadata=\"foo=bar\" \"ping=pong\"", &["foo=bar", "ping=pong"], None),
        ("X-ConditionMachineMetadata=foo=bar\nMachineMetadata=ping=pong", &["foo=bar", "ping=pong"], None),
        ("MachineMetadata=foo=baz\nX-ConditionMachineMetadata=foo=bar", &["foo in (bar, baz)"], None),
        ("MachineMetadata=foo=", &[], Some((None, REFUSED))),
        ("MachineMetadata==asdf", &[], Some((None, REFUSED))),
        (
            "MachineMetadata=foo=asdf=WHAT",
            &[],
            Some((
                want(&["foo=asdf=WHAT"]),
                "the value is all that follows the first `=`; fleet asked for nothing",
            )),
        ),
        (
            "MachineMetadata=a=b c=d",
            &[],
            Some((None, "fleet read one value with two `=`, and asked for nothing")),
        ),
        ("MachineMetadata=foo", &[], Some((want(&["foo"]), "a key alone asks that it is there"))),
    ] {
        row(lines, metadata(lines), want(fleet), otherwise);
    }
}

#[test]
fn metadata_match() {
    for (machine, lines, fleet) in [
        (&[("region", "us-west-1")][..], "MachineMetadata=region=us-west-1", true),
        (&[("groups", "ping")], "MachineMetadata=\"groups=ping\" \"groups=pong\"", true),
        (&[("groups", "ping")], "MachineMetadata=groups=pong", false),
        (&[("region", "us"), ("groups", "ping")], "MachineMetadata=\"region=us\" \"groups=pong\"", false),
        (&[("region", "us")], "MachineMetadata=groups=pong", false),
        (&[("region", "us")], "", true),
    ] {
        let machine: BTreeMap<&str, &str> = machine.iter().copied().collect();
        let asked = asks(lines, "a.service").unwrap().metadata;
        row(lines, asked.iter().all(|it| it.meets(machine.get(&*it.key).copied())), fleet, None);
    }
}

#[test]
fn machine_id() {
    let named = |lines: &str| asks(lines, "a.service").and_then(|it| it.machine).map(|it| it.to_string());
    const TWO: &str = "a file that names two machines is refused; fleet took the first without a word";
    for (lines, fleet, otherwise) in [
        ("MachineID=123", Some("123"), None),
        ("MachineID=\"123\" \"456\"", Some("123"), Some((None, TWO))),
        ("MachineID=123\nMachineID=456", Some("123"), Some((None, TWO))),
        ("MachineID=123\nX-ConditionMachineID=456", Some("123"), None),
        ("X-ConditionMachineID=456\nMachineID=123", Some("123"), None),
        ("X-ConditionMachineBootID=456\nX-ConditionMachineID=123", Some("123"), None),
        ("X-ConditionMachineBootID=123", Some("123"), None),
        ("", None, None),
    ] {
        row(lines, named(lines), fleet.map(str::to_owned), otherwise);
    }
}

#[test]
fn global_truth() {
    const NO_BOOLEAN: &str = "what is no boolean is refused; fleet took it for no";
    const UNKNOWN: &str = "an option that does not exist is refused; fleet ignored it";
    let global = |lines: &str| asks(lines, "a.service").map(|it| it.global);
    for (lines, fleet, otherwise) in [
        ("Global=true", true, None),
        ("Global=True", true, None),
        ("Global=Yes", true, None),
        ("Global=On", true, None),
        ("Global=1", true, None),
        ("Global=t", true, None),
        ("Global=\"true\"", true, None),
        ("Global=false", false, None),
        ("Global=", false, None),
        ("Global=what", false, Some((None, NO_BOOLEAN))),
        ("Global=12", false, Some((None, NO_BOOLEAN))),
        ("Global=y", false, Some((Some(true), "systemd's booleans have y and n too"))),
        ("X-Global=true", false, Some((None, UNKNOWN))),
        ("X-ConditionGlobal=true", false, Some((None, UNKNOWN))),
        ("Global=true\nGlobal=false", false, None),
        ("Global=false\nGlobal=true", true, None),
        ("[Service]\nGlobal=true", false, None),
    ] {
        row(lines, global(lines), Some(fleet), otherwise);
    }
}

#[test]
fn known_option_names() {
    for (line, known) in [
        ("MachineID=a", true),
        ("X-ConditionMachineID=a", true),
        ("X-ConditionMachineBootID=a", true),
        ("X-ConditionMachineOf=b.service", true),
        ("MachineOf=b.service", true),
        ("X-Conflicts=b.service", true),
        ("Conflicts=b.service", true),
        ("X-ConditionMachineMetadata=a=b", true),
        ("MachineMetadata=a=b", true),
        ("Global=true", true),
        ("Replaces=b.service", true),
        ("X-ConditionConflicts=b.service", false),
        ("X-Peers=b.service", false),
        ("Machineof=b.service", false),
        ("X-Global=true", false),
        ("global=true", false),
        ("X-ConditionMachineId=a", false),
        ("MachineId=a", false),
        ("X-MachineMetadata=a=b", false),
        ("X-ConditionMetadata=a=b", false),
    ] {
        // fleet's client warned of the unknown ones, and the unit was taken without them; here they are an
        // error, since what was meant to keep a unit from a machine would not.
        row(line, asks(line, "a.service").is_some(), known, None);
    }
}

#[test]
fn specifiers() {
    let expanded = |text: &str, unit: &str| {
        let asked = asks(&format!("MachineMetadata=k=.{text}."), unit)?;
        Some(asked.metadata.first()?.to_string().trim_start_matches("k=").trim_matches('.').to_owned())
    };
    for (unit, specifier, fleet) in [
        ("test.service", "%n", "test.service"),
        ("test.service", "%N", "test"),
        ("test.service", "%p", "test"),
        ("test.service", "%i", ""),
        ("ssh@2.service", "%n", "ssh@2.service"),
        ("ssh@2.service", "%N", "ssh@2"),
        ("ssh@2.service", "%p", "ssh"),
        ("ssh@2.service", "%i", "2"),
        ("ssh@2.service", "%p-%i", "ssh-2"),
    ] {
        row(&format!("{specifier} of {unit}"), expanded(specifier, unit), Some(fleet.to_owned()), None);
    }
    let systemds = "`%%` is a percent sign, as systemd has it";
    row("%%i", expanded("%%i", "a@2.service"), Some("%2".into()), Some((Some("%i".into()), systemds)));
    let refused = "a specifier that fleet left as it is would never match; it is refused";
    row("%H", expanded("%H", "a.service"), Some("%H".into()), Some((None, refused)));
    let text = "[X-Fleet]\nMachineOf=%p@%i.service\n";
    let file = UnitFile::parse("a@1.service", text.as_bytes()).unwrap();
    file.requirements().unwrap().for_unit(&"a@1.service".parse().unwrap()).unwrap_err();
    assert_eq!(file.text(), text, "the original contents are unmodified");
}

#[test]
fn parsing() {
    let valid = |text: &str| {
        UnitFile::parse("t", text.as_bytes()).unwrap().validate(&"a.service".parse().unwrap()).is_ok()
    };
    let long = format!("[Service]\nExecStart=/bin/echo {}\n", "x".repeat(2048));
    const NONSENSE: &str = "a line that systemd would skip with a warning is refused with its place";
    for (text, fleet, otherwise) in [
        ("[Service]\nExecStart=/bin/true\n", true, None),
        ("; a\n# b\n[Service]\n; c\n# d\nExecStart=/bin/true\n", true, None),
        ("nonsense\n[Service]\n", true, Some((false, NONSENSE))),
        ("a=b\n[Service]\n", true, Some((false, NONSENSE))),
        ("[Service]\nExecStart\n", false, None),
        ("[Service\n", false, None),
        ("[Service] x\n", false, None),
        ("[Service]\n!odd key;=yes\n", true, None),
        (&long, false, Some((true, "systemd takes lines of up to 1 MiB by now"))),
    ] {
        row(text, valid(text), fleet, otherwise);
        // The API takes apart what fleet took apart.
        let lines = text.len() > 2048 || fleet;
        assert_eq!(fleet_options(text).is_ok(), lines, "{text}");
    }
    let continued = "[Service]\nExecStart=/bin/echo \\\n# a \\\nb\n";
    let ours = UnitFile::parse("t", continued.as_bytes()).unwrap();
    row(
        continued,
        ours.last("Service", "ExecStart").unwrap(),
        "/bin/echo \\\n# a \\\nb",
        Some(("/bin/echo  b", "what is placed by is what systemd reads, and it skips comments there too")),
    );
    // What fleet's API answers with stays as fleet had it.
    assert_eq!(fleet_options(continued).unwrap()[0].value, "/bin/echo \\\n# a \\\nb");
}

#[test]
fn contradictions() {
    let [id, of, conflicts, replaces, global, metadata] = [
        "MachineID=a",
        "MachineOf=p.service",
        "Conflicts=c.service",
        "Replaces=r.service",
        "Global=true",
        "MachineMetadata=a=b",
    ];
    const USERS: &str = "a unit for one machine may well keep others off it (#934)";
    for (lines, fleet, otherwise) in [
        ([id, of], false, None),
        ([id, conflicts], false, Some((true, USERS))),
        ([id, global], false, None),
        ([id, replaces], false, None),
        ([global, of], false, None),
        ([global, replaces], false, None),
        ([conflicts, replaces], false, None),
        ([of, "Conflicts=p.service"], false, None),
        ([of, "Replaces=p.service"], false, None),
        ([of, "Conflicts=p.*"], false, None),
        ([of, "Replaces=p.*"], false, None),
        ([global, conflicts], true, None),
        ([global, metadata], true, None),
        ([of, metadata], true, None),
        ([id, metadata], true, None),
        ([of, conflicts], true, None),
        ([of, "Replaces=r.service"], true, None),
    ] {
        row(&lines.join(" "), asks(&lines.join("\n"), "a.service").is_some(), fleet, otherwise);
    }
}
