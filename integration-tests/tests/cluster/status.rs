//! `flotctl status` of units on other machines, and what is answered and ordered while one is lost.

use std::{
    process::Output,
    time::{Duration, Instant},
};

use flotilla_api::unit::UnitStatus;
use flotilla_integration_tests::{Cluster, LIMIT, eventually};
use flotilla_lab::Machine;

use crate::{MACHINE_LEASE, UNITS, alone, start_instances, write_units};

/// How long a command may take that waits for nothing: half a second on this hardware, and more on a busy
/// computer. It is far below the 90 s that an order is waited for, and below a connection's time-outs
/// taken one after the other.
const AT_ONCE: Duration = Duration::from_secs(10);

/// How long a status may take while a machine is dead and nobody knows: as long as a client waits.
const WITHIN: Duration = Duration::from_secs(15);

/// Says something and runs until it is stopped.
fn talker(placement: &str) -> String {
    format!(
        "[Unit]\nDescription=Talks\n[Service]\nExecStart=/bin/sh -c 'echo this is %%n; exec sleep infinity'\n\
         [X-Flotilla]\n{placement}\n"
    )
    .replace("%%", "%")
}

/// How a command ended and what it said.
struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
    took: Duration,
}

fn ask(cluster: &Cluster, machine: &Machine, words: &[&str]) -> Answer {
    let begun = Instant::now();
    let Output { status, stdout, stderr } = cluster.flotctl(machine, words).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Answer { code: status.code(), out: text(stdout), err: text(stderr), took: begun.elapsed() }
}

/// Asks for what is known at once, and has to end like this.
#[track_caller]
fn at_once(cluster: &Cluster, machine: &Machine, code: i32, words: &[&str]) -> String {
    let Answer { code: ended, out, err, took } = ask(cluster, machine, words);
    assert_eq!(ended, Some(code), "{words:?}: {out}{err}");
    assert!(took < AT_ONCE, "{words:?} took {took:?}: {out}{err}");
    out + &err
}

#[test]
fn what_is_asked_and_ordered_while_a_machine_is_lost() {
    let _alone = alone();
    let cluster = Cluster::up("status", 3, 1).unwrap();
    let [m1, m2, m3] = cluster.machines() else { panic!("three machines") };
    write_units(
        m1,
        &[("bound.service", talker("MachineMetadata=host=m2")), ("watch.service", talker("Global=true"))],
    );
    let bound = format!("{UNITS}/bound.service");
    cluster.ask(m1, &["start", &bound, &format!("{UNITS}/watch.service")]).unwrap();
    start_instances(&cluster, m1, "talk", talker(""), 9);

    for machine in [m1, m3] {
        shows_all(&cluster, machine, m2, "bound.service");
    }
    let placed = cluster.wait_active(m1, "talk@*", 9).unwrap();
    let moving = placed.iter().find(|(_, hosts)| hosts[0] == m2.name()).map(|(unit, _)| unit.clone());
    let moving = moving.expect("nine units are spread over three machines");

    m2.kill().unwrap();
    // Nobody knows yet, and connections to it are open: what runs elsewhere is shown all the same.
    let early = ask(&cluster, m1, &["status", "*"]);
    assert!(early.took < WITHIN, "{:?}: {}{}", early.took, early.out, early.err);
    shows_each(&early.out);
    lost(&cluster, m1, m2);
    cluster.wait_active(m1, "talk@*", 9).unwrap();

    orders(&cluster, m1);
    statuses(&cluster, m1, &moving);
    statuses(&cluster, m3, &moving);

    // What was ordered meanwhile holds for when it is back.
    at_once(&cluster, m1, 5, &["start", "bound"]);
    m2.boot().unwrap();
    cluster.wait_for_machines(m1, 3).unwrap();
    let active = cluster.wait_active(m1, "bound.service", 1).unwrap();
    assert_eq!(active["bound.service"], [m2.name()]);
    eventually(LIMIT, "the global unit to be active on all machines", || {
        let hosts = cluster.active(m1, "watch.service")?.remove("watch.service");
        Ok(hosts.filter(|hosts| hosts == &["m1", "m2", "m3"]).map(|_| ()))
    })
    .unwrap();
    cluster.ask(m1, &["status", "bound", "watch"]).unwrap();
}

fn lost(cluster: &Cluster, asked: &Machine, victim: &Machine) {
    eventually(MACHINE_LEASE + LIMIT, "the machine to be missed", || {
        let listed = cluster.ask(asked, &["list-machines", "--no-legend", victim.name()])?;
        Ok(listed.contains("lost").then_some(()))
    })
    .unwrap();
}

/// What systemd on its machine says of a unit is what another machine's flotctl shows.
fn shows_all(cluster: &Cluster, asked: &Machine, on: &Machine, unit: &str) {
    let show = |property: &str| {
        let words = ["systemctl", "show", "--value", &format!("--property={property}"), unit];
        on.run(&words).unwrap().trim().to_owned()
    };
    let statuses: Vec<UnitStatus> = cluster.json(asked, &["status", unit]).unwrap();
    let [status] = statuses.as_slice() else { panic!("{statuses:?}") };
    assert_eq!((status.host.as_str(), status.machine.as_str()), (on.name(), on.id()));
    assert_eq!((status.active.as_str(), status.sub.as_str()), ("active", "running"));
    assert_eq!(status.main_pid.map(|pid| pid.to_string()), Some(show("MainPID")));
    assert_eq!(status.control_group, Some(show("ControlGroup")));
    assert_eq!(status.invocation, Some(show("InvocationID")));
    assert!(status.processes.iter().any(|process| process.command.contains("sleep infinity")), "{status:?}");
    assert!(status.journal.iter().any(|line| line.message == format!("this is {unit}")), "{status:?}");
    let text = at_once(cluster, asked, 0, &["status", unit]);
    assert!(status.tasks == Some(1) && status.cpu_ns.is_some_and(|ns| ns > 0), "{status:?}");
    // The lab's control groups do not count memory, and then systemd has no figure for it.
    let counted = show("MemoryCurrent").parse().is_ok_and(|bytes: u64| bytes != u64::MAX);
    assert_eq!(status.memory_bytes.is_some(), counted, "{status:?}");
    for (shown, row) in [(true, "Tasks: 1\n"), (true, "CPU: "), (counted, "Memory: ")] {
        assert_eq!(text.contains(row), shown, "{row}: {text}");
    }
    let since = status.since.unwrap().as_second();
    assert!(show("ActiveEnterTimestampMonotonic") != "0" && since > 1_700_000_000, "{since}");
    for part in [
        format!("● {unit} - Talks\n"),
        format!("Machine: {} ({})\n", on.name(), on.id()),
        "Active: active (running) since ".to_owned(),
        format!("Main PID: {} (sleep infinity)\n", show("MainPID")),
        format!("CGroup: {}\n", show("ControlGroup")),
        format!("{} sleep infinity\n", show("MainPID")),
        format!("]: this is {unit}\n"),
    ] {
        assert!(text.contains(&part), "no {part:?} in {text}");
    }
}

/// Every unit has its part of the output.
#[track_caller]
fn shows_each(out: &str) {
    let talkers = (1..=9).map(|n| format!("talk@{n}.service"));
    for unit in talkers.chain(["bound.service".to_owned(), "watch.service".to_owned()]) {
        assert!(out.contains(&format!(" {unit} - Talks\n")), "no {unit} in {out}");
    }
}

/// Nothing waits for the machine; what only it may have says so.
fn orders(cluster: &Cluster, asked: &Machine) {
    for action in ["start", "restart", "load"] {
        let said = at_once(cluster, asked, 0, &[action, "watch"]);
        assert!(said.contains("on m1") && said.contains("on m3") && said.contains("; m2 is lost"), "{said}");
        let said = at_once(cluster, asked, 5, &[action, "bound"]);
        assert!(said.contains("bound.service cannot be placed: m2 is lost; 2 machines: metadata"), "{said}");
    }
    at_once(cluster, asked, 0, &["start", "watch"]);
    let said = at_once(cluster, asked, 5, &["why", "bound"]);
    assert!(
        said.starts_with("bound.service: no machine can take it: m2 is lost; 2 machines: metadata"),
        "{said}"
    );
    let said = at_once(cluster, asked, 0, &["list-units", "bound"]);
    assert!(said.contains("machine lost; not placed: m2 is lost; 2 machines"), "{said}");
    for action in ["stop", "unload"] {
        let said = at_once(cluster, asked, 0, &[action, "bound"]);
        assert!(said.contains("m2 is lost"), "{said}");
    }
    at_once(cluster, asked, 5, &["start", "bound"]);
}

/// Every unit is shown, at once, and the exit status is of those that are not where they ought to be.
fn statuses(cluster: &Cluster, asked: &Machine, moved: &str) {
    let said = at_once(cluster, asked, 3, &["status", "*"]);
    shows_each(&said);
    let said = at_once(cluster, asked, 3, &["status", "bound"]);
    assert!(said.contains("Machine: m2 (") && said.contains("Active: unknown\n"), "{said}");
    assert!(said.contains("Problem: machine lost\n"), "{said}");
    // Where it was is told, as long as it is not proven gone from there, and does not count.
    let said = at_once(cluster, asked, 0, &["status", moved]);
    assert!(said.contains("active (running)") && said.contains("machine lost"), "{said}");
    let all: Vec<UnitStatus> =
        serde_json::from_str(&at_once(cluster, asked, 3, &["status", "*", "-o", "json"])).unwrap();
    let lost = all.iter().filter(|status| status.problem.as_deref() == Some("machine lost"));
    assert!(lost.clone().count() >= 3 && lost.clone().all(|status| status.host == "m2"), "{all:?}");
}
