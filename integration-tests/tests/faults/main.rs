//! Bad input and faults: for each, what whoever meets it is told, with which exit status, and that
//! the daemon neither panics nor loses what it has acknowledged nor touches what runs.
//!
//! [`TABLE`] has a row for each. The rows of one world run one after the other on one machine, after
//! each of which the world is looked at ([`World::is_well`]).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod faults;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use flotilla_integration_tests::SLEEPER;
use world::{Kind, World};

/// One fault.
struct Row {
    fault: &'static str,
    world: Kind,
    check: Check,
}

/// What is done, and what has to come of it.
enum Check {
    /// A file of this name and content is given to flotctl with these words before it.
    File {
        words: &'static [&'static str],
        name: &'static str,
        content: fn() -> Vec<u8>,
        exit: i32,
        says: Says,
    },
    /// flotctl is given these words.
    Flotctl { words: &'static [&'static str], exit: i32, says: Says },
    /// flotillad is started with this configuration, and must end with an error.
    Flotillad { config: fn() -> Vec<u8>, says: Says },
    /// More than can be said in a line.
    Story(fn(&World)),
}

/// Parts of what is printed: what is wrong, and what to do.
type Says = &'static [&'static str];

const SUBMIT: &[&str] = &["submit"];

/// Every fault. What the store does with etcd's credentials in detail is in the registry's
/// `etcd_faults`; here it is what people see of it.
const TABLE: &[Row] = &[
    Row {
        fault: "unparsable unit file",
        world: Kind::Dev,
        check: Check::File {
            words: SUBMIT,
            name: "broken.service",
            content: || b"[Service\nExecStart\n".to_vec(),
            exit: 1,
            says: &[
                "broken.service:1:1: this is not a section header; expected `[`",
                ":2:1: this line has no `=`",
            ],
        },
    },
    Row {
        fault: "unknown option",
        world: Kind::Dev,
        check: Check::File {
            words: SUBMIT,
            name: "unknown.service",
            content: || b"[Service]\nExecStart=/bin/true\n[X-Flotilla]\nMachineMetdata=a=b\n".to_vec(),
            exit: 1,
            says: &["unknown.service:4:1", "no option `MachineMetdata`; did you mean `MachineMetadata`?"],
        },
    },
    Row {
        fault: "contradictory options",
        world: Kind::Dev,
        check: Check::File {
            words: SUBMIT,
            name: "both.service",
            content: || {
                b"[Service]\nExecStart=/bin/true\n[X-Flotilla]\nMachineOf=x.service\nConflicts=x.service\n"
                    .to_vec()
            },
            exit: 1,
            says: &["both.service:4:11", "MachineOf= and Conflicts= contradict each other"],
        },
    },
    Row {
        fault: "bad name",
        world: Kind::Dev,
        check: Check::Flotctl {
            words: &["start", "b d"],
            exit: 1,
            says: &["`b d.service` is not a unit name: character 2 is ' '; allowed are"],
        },
    },
    Row {
        fault: "unit with no [Service]",
        world: Kind::Dev,
        check: Check::File {
            words: SUBMIT,
            name: "none.service",
            content: || b"[Unit]\nDescription=nothing\n".to_vec(),
            exit: 1,
            says: &["none.service: a service unit needs a section [Service]"],
        },
    },
    Row {
        fault: "2 MiB unit file",
        world: Kind::Dev,
        check: Check::File {
            words: SUBMIT,
            name: "large.service",
            content: || [&b"[Service]\nExecStart=/bin/true\n#"[..], &vec![b'x'; 2 << 20]].concat(),
            exit: 1,
            says: &["large.service: the unit file has 2097183 bytes", "at most 1048576", "a file of its own"],
        },
    },
    Row {
        fault: "template started as such",
        world: Kind::Dev,
        check: Check::File {
            words: &["start"],
            name: "web@.service",
            content: || SLEEPER.as_bytes().to_vec(),
            exit: 1,
            says: &["`web@.service` is a template and cannot run itself; name an instance"],
        },
    },
    Row {
        fault: "instance of a missing template",
        world: Kind::Dev,
        check: Check::Flotctl {
            words: &["start", "nowhere@1"],
            exit: 4,
            says: &[
                "there is no unit nowhere@1.service, and no template nowhere@.service",
                "submit the template first",
            ],
        },
    },
    Row {
        fault: "non-UTF-8 file",
        world: Kind::Dev,
        check: Check::File {
            words: SUBMIT,
            name: "latin1.service",
            content: || b"[Service]\nExecStart=/bin/echo \xe9\n".to_vec(),
            exit: 1,
            says: &["latin1.service:2:21: byte 30 (0xe9) is not UTF-8; save the file as UTF-8"],
        },
    },
    Row {
        fault: "bad input that does not come through flotctl",
        world: Kind::Dev,
        check: Check::Story(faults::the_api_refuses_what_flotctl_does),
    },
    Row {
        fault: "unreadable configuration",
        world: Kind::Dev,
        check: Check::Flotillad {
            config: || b"name = \"\xff\"\n".to_vec(),
            says: &["test.toml cannot be read; it has to be there, in UTF-8, and readable"],
        },
    },
    Row {
        fault: "configuration with a syntax error",
        world: Kind::Dev,
        check: Check::Flotillad {
            config: || b"[store.etcd\n".to_vec(),
            says: &["test.toml:1:12: ", "expected `]`"],
        },
    },
    Row {
        fault: "unknown configuration key",
        world: Kind::Dev,
        check: Check::Flotillad {
            config: || b"[store.etcd]\nendpoint = [\"http://10.0.0.1:2379\"]\n".to_vec(),
            says: &["test.toml:2:1: unknown field `endpoint`, expected one of `endpoints`"],
        },
    },
    Row {
        fault: "a full disk under /run/flotilla",
        world: Kind::Dev,
        check: Check::Story(faults::a_full_disk),
    },
    Row { fault: "a missing D-Bus", world: Kind::Dev, check: Check::Story(faults::a_missing_bus) },
    Row {
        fault: "a systemd that does not answer",
        world: Kind::Dev,
        check: Check::Story(faults::a_systemd_that_does_not_answer),
    },
    Row {
        fault: "wrong CA, expired certificate, wrong certificate",
        world: Kind::Dev,
        check: Check::Story(faults::certificates_of_the_api),
    },
    Row { fault: "etcd lost", world: Kind::Etcd, check: Check::Story(faults::etcd_is_lost_and_comes_back) },
    Row {
        fault: "etcd unreachable at start",
        world: Kind::Etcd,
        check: Check::Story(faults::etcd_is_away_at_the_start),
    },
    Row {
        fault: "a corrupted value in the store",
        world: Kind::Etcd,
        check: Check::Story(faults::corrupted_values),
    },
    Row {
        fault: "wrong etcd certificate or password",
        world: Kind::Etcd,
        check: Check::Story(faults::credentials_of_etcd),
    },
    Row {
        fault: "two machines with one machine id",
        world: Kind::Etcd,
        check: Check::Story(faults::two_machines_with_one_id),
    },
];

/// Runs every row of a world, and tells all that failed.
fn run(kind: Kind) {
    let world = World::new(kind);
    let mut failed = Vec::new();
    for row in TABLE.iter().filter(|row| row.world == kind) {
        println!("{}", row.fault);
        let checked = catch_unwind(AssertUnwindSafe(|| {
            row.check.run(&world);
            world.is_well();
        }));
        if checked.is_err() {
            failed.push(row.fault);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

impl Check {
    fn run(&self, world: &World) {
        match self {
            Self::File { words, name, content, exit, says } => {
                let path = format!("/root/{name}");
                world.machine().write_file(&path, content()).unwrap();
                world.flotctl(&[words, &[path.as_str()][..]].concat(), *exit, says);
                world.machine().run(&["rm", &path]).unwrap();
            }
            Self::Flotctl { words, exit, says } => world.flotctl(words, *exit, says),
            Self::Flotillad { config, says } => world.refuses_to_start(config(), says),
            Self::Story(story) => story(world),
        }
    }
}

#[test]
fn faults_of_one_machine() {
    run(Kind::Dev);
}

#[test]
fn faults_of_a_cluster() {
    run(Kind::Etcd);
}
