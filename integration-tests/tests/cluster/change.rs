//! New texts on their way to what runs on real machines: in place, quietly where systemd runs them alike,
//! one instance after the other, halted by one that fails, and left for the next start where that is asked.

use flotilla_api::unit::Unit;
use flotilla_integration_tests::{Cluster, LIMIT, eventually};
use flotilla_lab::Machine;

use crate::{UNITS, alone, write_units};

const TEMPLATE: &str = "web@.service";
const INSTANCES: usize = 4;

/// A service that takes a moment to start, so that two at once would be seen.
fn web(lines: &str) -> String {
    format!("[Service]\nExecStartPre=/bin/sleep 0.3\nExecStart=/bin/sleep infinity\n{lines}\n")
}

fn give(cluster: &Cluster, machine: &Machine, text: &str, options: &[&str]) -> String {
    write_units(machine, &[(TEMPLATE, text.to_owned())]);
    let file = format!("{UNITS}/{TEMPLATE}");
    cluster.ask(machine, &[&["submit"], options, &[file.as_str()]].concat()).unwrap()
}

fn template(cluster: &Cluster, machine: &Machine) -> anyhow::Result<Unit> {
    let mut units: Vec<Unit> = cluster.json(machine, &["list-unit-files", TEMPLATE])?;
    units.pop().ok_or_else(|| anyhow::anyhow!("there is no {TEMPLATE}"))
}

fn wait_for_versions(cluster: &Cluster, machine: &Machine, updated: u64) {
    eventually(LIMIT, format_args!("{updated} of {INSTANCES} to have the new text"), || {
        let versions = template(cluster, machine)?.versions;
        Ok((versions.all == INSTANCES as u64 && versions.updated == updated).then_some(()))
    })
    .unwrap();
}

/// Returns when each instance began to start, and when it was active, on the clock that all machines of
/// the lab share.
fn starts(cluster: &Cluster, machine: &Machine) -> Vec<(u64, u64)> {
    let mut starts = Vec::new();
    for (unit, hosts) in cluster.active(machine, "web@*").unwrap() {
        let show = "--property=InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic";
        let on = cluster.machine(&hosts[0]).unwrap();
        let text = on.run(&["systemctl", "show", show, &unit]).unwrap();
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.parse().ok()).unwrap();
        starts.push((value("InactiveExitTimestampMonotonic="), value("ActiveEnterTimestampMonotonic=")));
    }
    starts.sort_unstable();
    starts
}

#[test]
fn new_texts_come_to_what_runs() {
    let _alone = alone();
    let cluster = Cluster::up("change", 3, 1).unwrap();
    let m1 = cluster.machine("m1").unwrap();
    give(&cluster, m1, &web(""), &[]);
    let names: Vec<String> = (1..=INSTANCES).map(|n| format!("web@{n}")).collect();
    let words: Vec<&str> = std::iter::once("start").chain(names.iter().map(String::as_str)).collect();
    cluster.ask(m1, &words).unwrap();
    let places = cluster.wait_active(m1, "web@*", INSTANCES).unwrap();
    let first = cluster.invocations().unwrap();
    assert_eq!(first.len(), INSTANCES);

    // What systemd runs alike: nobody is disturbed, also when flotillad is restarted afterwards.
    let quiet =
        format!("# said\n{}[X-Flotilla]\nPriority=1\n[Install]\nWantedBy=multi-user.target\n", web(""));
    give(&cluster, m1, &quiet, &["--replace"]);
    wait_for_versions(&cluster, m1, INSTANCES as u64);
    for machine in cluster.machines() {
        machine.run(&["systemctl", "restart", "flotillad"]).unwrap();
    }
    cluster.wait_for_machines(m1, 3).unwrap();
    assert_eq!(cluster.wait_active(m1, "web@*", INSTANCES).unwrap(), places);
    assert_eq!(cluster.invocations().unwrap(), first, "started anew for a comment");
    // The same again: nothing at all. Another without --replace is left out.
    let said = give(&cluster, m1, &quiet, &["--replace"]);
    assert!(said.contains("unchanged"), "{said}");
    write_units(m1, &[(TEMPLATE, web("Environment=V=2"))]);
    let refused = cluster.flotctl(m1, &["submit", &format!("{UNITS}/{TEMPLATE}")]).unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && told.contains("differs from the file"), "{told}");

    // Another text: one after the other, each where it is; the command waits for all.
    let file = format!("{UNITS}/{TEMPLATE}");
    let mut words = vec!["start", "--replace", &file];
    words.extend(names.iter().map(String::as_str));
    cluster.ask(m1, &words).unwrap();
    wait_for_versions(&cluster, m1, INSTANCES as u64);
    assert_eq!(cluster.active(m1, "web@*").unwrap(), places, "each stays on its machine");
    let second = cluster.invocations().unwrap();
    assert!(first.iter().all(|(place, invocation)| second.get(place).is_some_and(|now| now != invocation)));
    for pair in starts(&cluster, m1).windows(2) {
        assert!(pair[1].0 >= pair[0].1, "two at once: {pair:?}");
    }

    // One that fails halts it, and everybody is told.
    give(&cluster, m1, "[Service]\nExecStart=/bin/false\n", &["--replace"]);
    eventually(LIMIT, "the rollout to be halted", || {
        Ok(template(&cluster, m1)?.rollout.filter(|told| told.contains("halted")))
    })
    .unwrap();
    m1.run(&["sleep", "3"]).unwrap();
    let third = cluster.invocations().unwrap();
    let kept = second.iter().filter(|(place, invocation)| third.get(*place) == Some(*invocation)).count();
    assert_eq!(kept, INSTANCES - 1, "{second:?} {third:?}");
    let why = cluster.ask(m1, &["why", "web@4"]).unwrap();
    assert!(why.contains("halted, because web@1.service"), "{why}");
    let listed = cluster.ask(m1, &["list-unit-files", TEMPLATE]).unwrap();
    assert!(listed.contains("1/4 halted"), "{listed}");

    // A good one, for the next start only; then for all.
    give(&cluster, m1, &web("Environment=V=3"), &["--replace", "--no-restart"]);
    m1.run(&["sleep", "2"]).unwrap();
    let fourth = cluster.invocations().unwrap();
    let kept = second.iter().filter(|(place, invocation)| fourth.get(*place) == Some(*invocation)).count();
    assert_eq!(kept, INSTANCES - 1, "what runs is left as it is");
    cluster.ask(m1, &["restart", "web@2"]).unwrap();
    wait_for_versions(&cluster, m1, 1);
    give(&cluster, m1, &web("Environment=V=3"), &["--replace"]);
    wait_for_versions(&cluster, m1, INSTANCES as u64);
    assert_eq!(cluster.wait_active(m1, "web@*", INSTANCES).unwrap(), places);

    stop_what_a_person_started(&cluster, m1);
}

/// A unit that is only loaded, and that somebody started on its machine, is stopped by flotctl too.
fn stop_what_a_person_started(cluster: &Cluster, m1: &Machine) {
    write_units(m1, &[("idle.service", web(""))]);
    cluster.ask(m1, &["load", &format!("{UNITS}/idle.service")]).unwrap();
    let units = cluster.units(m1, "idle.service").unwrap();
    let host = units[0].placements[0].host.clone().unwrap();
    let home = cluster.machine(&host).unwrap();
    home.run(&["systemctl", "start", "idle.service"]).unwrap();
    cluster.wait_active(m1, "idle.service", 1).unwrap();
    cluster.ask(m1, &["stop", "idle"]).unwrap();
    let state = home.exec(&["systemctl", "is-active", "idle.service"]).unwrap();
    assert_eq!(String::from_utf8_lossy(&state.stdout).trim(), "inactive");
    let unit = &cluster.units(m1, "idle.service").unwrap()[0];
    assert_eq!(
        (unit.target.to_string(), unit.current.to_string()),
        ("loaded".to_owned(), "loaded".to_owned())
    );
    cluster.ask(m1, &["destroy", "idle"]).unwrap();
}
