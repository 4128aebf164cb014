//! A machine without an engine: everything that is asked there is answered by a seat.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use flotilla_api::{
    cluster::ClusterStatus,
    unit::{UnitContent, UnitStatus},
    watch::Event,
};
use flotilla_integration_tests::{Cluster, LIMIT, eventually, replaced};
use flotilla_lab::Machine;
use flotilla_registry::{keys::Key, records::SeatRecord};

use crate::{MACHINE_LEASE, UNITS, alone, write_units};

/// How long a client waits for an answer.
const WITHIN: Duration = Duration::from_secs(15);

/// Where the folder of a user is on the machine that is asked.
const USER: &str = "/root/user";

/// Says something every tenth of a second; what is in it is long, as a body that is forwarded may be.
fn talker() -> String {
    let long = "# and so on\n".repeat(20_000);
    format!("{long}[Service]\nExecStart=/bin/sh -c 'while :; do echo this is %n; sleep 0.1; done'\n")
}

#[test]
fn a_machine_without_an_engine_asks_a_seat() {
    let _alone = alone();
    let cluster = Cluster::up("forwarding", 3, 1).unwrap();
    let agent = cluster.machine("m3").unwrap();
    let systemctl = |words: &[&str]| agent.run(&[&["systemctl"], words].concat());
    replaced(systemctl, || {
        agent.run(&["sed", "-i", "1i roles = [\"agent\"]", "/etc/flotilla/flotilla.toml"])?;
        agent.run(&["systemctl", "restart", "flotillad"]).map(|_| ())
    })
    .unwrap();
    eventually(LIMIT, "two seats, none of them the agent's", || {
        let status: ClusterStatus = cluster.json(agent, &["cluster", "status"])?;
        let own = status.seats.iter().any(|seat| seat.to_string() == agent.id());
        Ok((status.seats.len() == 2 && !own && status.leader.is_some()).then_some(()))
    })
    .unwrap();
    cluster.wait_for_machines(agent, 3).unwrap();

    as_root(&cluster, agent);
    as_a_user(&cluster, agent);
    as_a_machine(&cluster, agent);
    over_a_dead_seat(&cluster, agent);
}

/// By the socket, as root: bodies, headers and streams arrive, and so do refusals.
fn as_root(cluster: &Cluster, agent: &Machine) {
    write_units(agent, &[("talk@.service", talker())]);
    let template = format!("{UNITS}/talk@.service");
    cluster.ask(agent, &["submit", &template]).unwrap();
    cluster.ask(agent, &["start", "talk@1", "talk@2", "talk@3"]).unwrap();
    let active = cluster.wait_active(agent, "talk@*", 3).unwrap_or_default();
    assert!(active.len() == 3, "{active:?}");
    let content: Vec<UnitContent> = cluster.json(agent, &["cat", "talk@1"]).unwrap();
    assert_eq!(content[0].text, talker(), "the whole of a long body");
    assert_eq!(by(cluster, agent, "talk@1.service", "target-changed"), ["root"]);

    let statuses: Vec<UnitStatus> = cluster.json(agent, &["status", "talk@*"]).unwrap();
    assert_eq!(statuses.len(), 3, "{statuses:?}");
    for status in &statuses {
        assert!(status.active == "active" && status.main_pid.is_some(), "{status:?}");
        assert!(status.journal.iter().any(|line| line.message.starts_with("this is ")), "{status:?}");
    }
    let said = cluster.ask(agent, &["why", "talk@1"]).unwrap();
    assert!(said.starts_with("talk@1.service: it is on "), "{said}");
    let machines = cluster.ask(agent, &["list-machines", "--no-legend"]).unwrap();
    assert_eq!(machines.lines().count(), 3, "{machines}");

    let refused = cluster.flotctl(agent, &["why", "nobody"]).unwrap();
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let refused = cluster.flotctl(agent, &["list-units", "["]).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "a refusal is passed on as it is: {said}");

    let lines = follow(agent, &["journal", "--follow", "--lines=1", "talk@*"]);
    for n in 1..=3 {
        until(&lines, &format!("talk@{n}.service"));
    }
    let events = follow(agent, &["events", "--follow", "--lines=0", "other.service"]);
    write_units(agent, &[("other.service", talker())]);
    cluster.ask(agent, &["submit", &format!("{UNITS}/other.service")]).unwrap();
    until(&events, "submitted other.service");
    cluster.ask(agent, &["destroy", "other"]).unwrap();
    until(&events, "destroyed other.service");
}

/// Over TLS with a user's certificate: the user is who has done it, also at the seat.
fn as_a_user(cluster: &Cluster, agent: &Machine) {
    let folder = cluster.directory().join("cluster/user-admin");
    for file in ["ca.pem", "user.pem", "user-key.pem"] {
        agent.copy_in(&folder.join(file), &format!("{USER}/{file}")).unwrap();
    }
    let (certificate, key) = (format!("{USER}/user.pem"), format!("{USER}/user-key.pem"));
    let ask = |words: &[&str]| over_tls(cluster, agent, &certificate, &key, words);
    let (code, said) = ask(&["start", "talk@4"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(by(cluster, agent, "talk@4.service", "target-changed"), ["admin"]);
    for words in [
        &["list-units", "talk@4"][..],
        &["status", "talk@4"],
        &["journal", "--lines=5", "talk@4"],
        &["events", "talk@4"],
        &["why", "talk@4"],
    ] {
        let (code, said) = ask(words);
        assert!(code == Some(0) && said.contains("talk@4.service"), "{words:?}: {said}");
    }
}

/// A machine's own certificate reads, and a seat takes nothing else from it either.
fn as_a_machine(cluster: &Cluster, agent: &Machine) {
    let (certificate, key) = ("/etc/flotilla/machine.pem", "/etc/flotilla/machine-key.pem");
    let ask = |words: &[&str]| over_tls(cluster, agent, certificate, key, words);
    let (code, said) = ask(&["list-units", "talk@1"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = ask(&["stop", "talk@1"]);
    assert!(code == Some(1) && said.contains("may read only"), "{code:?} {said}");
}

/// The seat that is asked first loses its power: the others answer, and what is followed goes on.
fn over_a_dead_seat(cluster: &Cluster, agent: &Machine) {
    let first = (0..3).find_map(|n| cluster.record::<SeatRecord>(&Key::Seat(n)).unwrap()).unwrap();
    let first = cluster.machines().iter().find(|machine| machine.id() == first.machine.to_string()).unwrap();
    let survivor = cluster.machines().iter().find(|m| m.id() != first.id() && m.id() != agent.id()).unwrap();
    let events = follow(agent, &["events", "--follow", "--lines=0", "after.service"]);
    let active = cluster.active(agent, "talk@*").unwrap();
    let stays = active.iter().find(|(_, hosts)| hosts[0] != first.name()).map(|(unit, _)| unit.clone());
    let stays = stays.unwrap();
    let lines = follow(agent, &["journal", "--follow", "--lines=1", &stays]);
    until(&lines, &stays);

    first.kill().unwrap();
    let begun = Instant::now();
    for words in [&["list-units"][..], &["why", &stays], &["list-machines"], &["status", &stays]] {
        let asked = Instant::now();
        cluster.ask(agent, words).unwrap();
        let took = asked.elapsed();
        assert!(took < WITHIN, "{words:?} took {took:?}, {:?} after the seat's death", begun.elapsed());
    }
    while lines.try_recv().is_ok() {}
    until(&lines, &stays);
    // Whether an order has arrived at a seat that died of it is not known, and it is not given twice.
    write_units(agent, &[("after.service", talker())]);
    eventually(MACHINE_LEASE + LIMIT, "an order by the other seat", || {
        cluster.ask(agent, &["start", "--timeout=20s", &format!("{UNITS}/after.service")]).map(|_| Some(()))
    })
    .unwrap();
    until(&events, "target-changed after.service");
    assert_eq!(cluster.wait_active(survivor, "after.service", 1).unwrap().len(), 1);
}

/// Runs flotctl over TLS, from the agent's machine against its own flotillad; how it ended, and what it said.
fn over_tls(
    cluster: &Cluster,
    agent: &Machine,
    certificate: &str,
    key: &str,
    words: &[&str],
) -> (Option<i32>, String) {
    let endpoint = format!("--endpoint=https://{}:7400", agent.address());
    let ca = format!("--ca={USER}/ca.pem");
    let (certificate, key) = (format!("--certificate={certificate}"), format!("--key={key}"));
    let options: [&str; 4] = [&endpoint, &ca, &certificate, &key];
    let output = cluster.flotctl(agent, &[&options[..], words].concat()).unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// Who did this to a unit.
fn by(cluster: &Cluster, agent: &Machine, unit: &str, kind: &str) -> Vec<String> {
    let printed = cluster.ask(agent, &["events", "--output=json", unit]).unwrap();
    let events = printed.lines().map(|line| serde_json::from_str::<Event>(line).unwrap());
    let events: Vec<Event> = events.collect();
    let by: Vec<String> = events.iter().filter(|e| e.kind == kind).map(|e| e.by.clone()).collect();
    assert!(!by.is_empty(), "no {kind} of {unit} among {events:?}");
    by
}

/// Runs flotctl for as long as it goes on, which is as long as somebody holds on to its lines.
fn follow(machine: &Machine, words: &[&str]) -> Receiver<String> {
    let mut command = machine.command(&[&["flotctl"], words].concat()).unwrap();
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
        // It may have ended by itself.
        let _ended = child.kill();
        let _status = child.wait();
    });
    lines
}

/// Waits for a line with this in it.
#[track_caller]
fn until(lines: &Receiver<String>, part: &str) {
    let end = Instant::now() + LIMIT;
    loop {
        let line = lines.recv_timeout(end.saturating_duration_since(Instant::now()));
        if line.unwrap_or_else(|_| panic!("no line with {part:?}")).contains(part) {
            return;
        }
    }
}
