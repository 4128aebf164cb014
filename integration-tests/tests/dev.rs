//! `flotillad --dev`: a cluster of one machine with no etcd and nothing configured, as root on the
//! machine's systemd and as an ordinary user on their own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::Instant;

use flotilla_integration_tests::{LIMIT, Person, TestLab, alone, binary, eventually, lab_with, replaced};
use flotilla_lab::Image;

/// Says who runs it, then stays.
const UNIT: &str = "[Service]\nExecStart=/bin/sh -c 'echo here is %n, run by $$(id -un); exec sleep infinity'\n\
                    ExecStop=/bin/sh -c 'echo going'\n";

fn world(name: &str) -> TestLab {
    lab_with(name, |options| {
        options.machines = 1;
        options.members = 0;
        options.image = Image::User;
        options.programs = vec![binary("flotillad").unwrap(), binary("flotctl").unwrap()];
    })
    .unwrap()
}

/// Whether the list has the unit of that name, active.
fn is_listed_active(list: &str) -> bool {
    let mut lines = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.any(|words| words.first() == Some(&"hello.service") && words.get(2) == Some(&"active"))
}

/// Everything that a newcomer does in the first five minutes, and what must not happen meanwhile.
fn first_steps(person: Person<'_>, user: &str) {
    let invocation =
        || person.systemctl(&["show", "--value", "--property=InvocationID", "hello.service"]).unwrap();
    person.start_dev().unwrap();
    let file = format!("{}/hello.service", person.home());
    person.write(&file, UNIT).unwrap();
    let started = person.run(&["flotctl", "start", &file]).unwrap();
    assert!(started.contains("hello.service"), "{started}");
    assert_eq!(person.systemctl(&["is-active", "hello.service"]).unwrap().trim(), "active");
    let first = invocation();
    assert!(!first.trim().is_empty());

    let said = format!("here is hello.service, run by {user}");
    eventually(LIMIT, "the unit's line", || {
        Ok(person.run(&["flotctl", "journal", "hello"])?.contains(&said).then_some(()))
    })
    .unwrap();
    let status = person.run(&["flotctl", "status", "hello"]).unwrap();
    for part in ["active", "sleep infinity", said.as_str()] {
        assert!(status.contains(part), "no {part:?} in {status}");
    }
    let listed = person.run(&["flotctl", "list-units", "--no-legend"]).unwrap();
    assert!(is_listed_active(&listed), "{listed}");

    // However the daemon ends, its unit runs on and its store is what it was.
    for how in [&["restart"][..], &["kill", "--signal=SIGKILL", "--kill-who=main"]] {
        let systemctl = |words: &[&str]| person.systemctl(words);
        replaced(systemctl, || systemctl(&[how, &["flotillad.service"]].concat()).map(|_| ())).unwrap();
        eventually(LIMIT, "the unit's state", || {
            let units = person.run(&["flotctl", "list-units", "--no-legend"])?;
            Ok(is_listed_active(&units).then_some(()))
        })
        .unwrap();
        assert_eq!(invocation(), first, "after {how:?}");
    }

    let stopped = person.run(&["flotctl", "stop", "hello"]).unwrap();
    assert!(stopped.contains("hello.service"), "{stopped}");
    assert!(person.systemctl(&["is-active", "hello.service"]).is_err());
    person.run(&["flotctl", "start", "hello"]).unwrap();
    assert_ne!(invocation(), first, "a start is a new run");
    person.run(&["flotctl", "destroy", "hello"]).unwrap();
    // systemd forgets a unit a moment after it has stopped.
    eventually(LIMIT, "systemd to know nothing of it", || {
        let left = person.systemctl(&["list-units", "--all", "--no-legend", "hello.service"])?;
        Ok(left.trim().is_empty().then_some(()))
    })
    .unwrap();
    let listed = person.run(&["flotctl", "list-units", "--no-legend"]).unwrap();
    assert!(!listed.contains("hello"), "{listed}");
    as_the_guide_says(&person);
    let log = person.machine.run(&["journalctl", "--no-pager", "--quiet"]).unwrap();
    assert!(log.contains("flotillad") && !log.contains("panicked"), "{log}");
}

/// Runs the first unit of docs/getting-started.md, as its text stands there: it says what it promises.
fn as_the_guide_says(person: &Person<'_>) {
    let page = include_str!("../../docs/getting-started.md");
    let (_, block) = page.split_once("```systemd hello.service\n").unwrap();
    let text = block.split("```").next().unwrap();
    person.write(&format!("{}/hello.service", person.home()), text).unwrap();
    person.run(&["flotctl", "start", &format!("{}/hello.service", person.home())]).unwrap();
    let host = person.machine.run(&["uname", "--nodename"]).unwrap();
    let said = format!("hello from {}\n", host.trim());
    eventually(LIMIT, "what the guide's first unit says", || {
        Ok(person.run(&["flotctl", "journal", "hello"])?.contains(&said).then_some(()))
    })
    .unwrap();
    person.run(&["flotctl", "destroy", "hello"]).unwrap();
}

#[test]
fn as_root_on_the_machines_systemd() {
    let _alone = alone();
    let lab = world("devroot");
    first_steps(Person::root(&lab.machines()[0]), "root");
}

#[test]
fn as_an_ordinary_user_on_their_own_systemd() {
    let _alone = alone();
    let lab = world("devuser");
    let machine = &lab.machines()[0];
    // As Debian has it: only then does a user have a journal of their own.
    machine.write_file("/etc/systemd/journald.conf.d/own.conf", "[Journal]\nStorage=persistent\n").unwrap();
    machine.run(&["systemctl", "restart", "systemd-journald.service"]).unwrap();
    machine.run(&["journalctl", "--flush"]).unwrap();
    let ada = Person::user(machine, "ada").unwrap();
    first_steps(ada, "ada");
    let system = machine.run(&["systemctl", "list-unit-files", "--no-legend", "hello.service"]);
    assert!(!system.unwrap_or_default().contains("hello"), "the machine's own systemd has nothing of it");
}

/// Asks for a page through the machine's socket, as a health check would.
fn page(person: &Person<'_>, path: &str) -> String {
    let ask = format!(
        r#"my $s = IO::Socket::UNIX->new("/run/flotilla/api.sock") or die; print $s "GET {path} HTTP/1.0\r\n\r\n"; print while <$s>;"#
    );
    person.run(&["perl", "-MIO::Socket::UNIX", "-e", &ask]).unwrap()
}

#[test]
fn flotctl_tells_the_truth() {
    let _alone = alone();
    let lab = world("devtruth");
    let person = Person::root(&lab.machines()[0]);
    person.start_dev().unwrap();
    // Whoever starts it may order at once.
    let ready = page(&person, "/readyz");
    assert!(ready.contains("200 OK"), "{ready}");
    let ask = |words: &[&str]| {
        let output = person.exec(&[&["flotctl"], words].concat()).unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let write = |name: &str, text: &str| person.write(&format!("/root/{name}"), text).unwrap();

    // Of these kinds systemd itself waits for more than the process to be there: they never become
    // active, so that it does not matter how soon their death is seen.
    for kind in ["oneshot", "notify"] {
        let name = format!("dies-{kind}.service");
        write(&name, &format!("[Service]\nType={kind}\nExecStart=/bin/sh -c 'echo boom; exit 7'\n"));
        let (code, text) = ask(&["start", &format!("/root/{name}")]);
        assert_eq!(code, Some(3), "{text}");
        for part in ["result exit-code, exit status 7", "boom"] {
            assert!(text.contains(part), "{kind}: no {part:?} in {text}");
        }
    }

    write("nowhere.service", "[Service]\nExecStart=/bin/true\n[X-Flotilla]\nMachineMetadata=zone=b\n");
    let begun = Instant::now();
    let (code, text) = ask(&["start", "/root/nowhere.service"]);
    let took = begun.elapsed();
    println!("measured: a unit that cannot be placed was refused after {} ms", took.as_millis());
    assert_eq!(code, Some(5), "{text}");
    assert!(text.contains("metadata zone=b does not match"), "{text}");
    let (code, text) = ask(&["why", "nowhere"]);
    assert_eq!(code, Some(5), "{text}");
    assert!(text.contains("MachineMetadata"), "{text}");

    write("once.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n");
    let (code, text) = ask(&["start", "/root/once.service"]);
    assert!(code == Some(0) && text.contains("finished on"), "{text}");

    write("tick@.service", "[Service]\nExecStart=/bin/sleep infinity\n");
    let (code, text) = ask(&["start", "/root/tick@1.service", "tick@2"]);
    assert!(code == Some(0) && text.contains("tick@2.service active"), "{text}");
    let (code, text) = ask(&["stop", "tick@*"]);
    assert!(code == Some(0) && text.contains("tick@1.service loaded"), "a glob is the cluster's: {text}");
    assert_eq!(ask(&["status", "tick@1"]).0, Some(3), "not active");
    assert_eq!(ask(&["cat", "tick@1"]).1, "[Service]\nExecStart=/bin/sleep infinity\n");
    assert_eq!(ask(&["status", "nobody"]).0, Some(4), "no such unit");
    eventually(LIMIT, "the event of its placement", || {
        let (code, text) = ask(&["events", "tick@1"]);
        Ok((code == Some(0) && text.contains("placed tick@1.service")).then_some(()))
    })
    .unwrap();
    let (code, text) = ask(&["unload", "tick@1"]);
    assert!(code == Some(0) && text.contains("tick@1.service unloaded"), "{text}");

    assert!(page(&person, "/healthz").ends_with("ok\n"));
    let metrics = page(&person, "/metrics");
    for line in ["flotilla_machine_registered 1", "flotilla_engine_leader 1"] {
        assert!(metrics.contains(line), "no {line:?} in {metrics}");
    }
    assert!(page(&person, "/openapi.json").contains("\"/v1/orders\""));
}
