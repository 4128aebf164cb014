//! Machines: facts in requirements, metadata said while they run, cordon, drain, evening out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use flotilla_api::{
    machine::Machine as Row,
    plan::{Drain, DrainStage, RebalanceOutcome},
};
use flotilla_integration_tests::{Cluster, LIMIT, eventually};
use flotilla_lab::Machine;

use crate::{SLEEPER, UNITS, alone, sleeper, start_instances, write_units};

/// Starts a unit and returns the host that it is on.
fn start(cluster: &Cluster, machine: &Machine, unit: &str, placement: &str) -> String {
    write_units(machine, &[(unit, sleeper(placement))]);
    cluster.ask(machine, &["start", &format!("{UNITS}/{unit}")]).unwrap();
    on(cluster, machine, unit)
}

/// Where a unit is active, which is one machine.
fn on(cluster: &Cluster, machine: &Machine, unit: &str) -> String {
    eventually(LIMIT, format_args!("{unit} to be active on one machine"), || {
        let hosts = cluster.active(machine, unit)?.remove(unit).unwrap_or_default();
        Ok((hosts.len() == 1).then(|| hosts[0].clone()))
    })
    .unwrap()
}

/// When systemd of a machine started a unit for the first time, and when it stopped it last, in
/// microseconds of the clock that all machines of a lab share.
fn times(machine: &Machine, unit: &str) -> (Option<u64>, Option<u64>) {
    let text = machine.run(&["journalctl", "--no-pager", "-o", "json", "-u", unit]).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    // systemd.unit's catalogue: "a start job has finished", "a stop job has begun".
    let of = |id: &str| -> Vec<u64> {
        let lines = lines.iter().filter(|line| line["MESSAGE_ID"] == id);
        lines.filter_map(|line| line["__REALTIME_TIMESTAMP"].as_str()?.parse().ok()).collect()
    };
    let started = of("39f53479d3a045ac8e11786248231fbf");
    let stopping = of("de5b426a63be47a7b6ac3eaac82e2f6f");
    (started.first().copied(), stopping.last().copied())
}

#[test]
fn facts_and_metadata_decide_while_machines_run() {
    let _alone = alone();
    let cluster = Cluster::up("facts", 3, 1).unwrap();
    let m1 = cluster.machine("m1").unwrap();
    let rows: Vec<Row> = cluster.json(m1, &["list-machines"]).unwrap();
    assert_eq!(rows.len(), 3);
    for row in &rows {
        for key in ["os", "os.version", "kernel", "architecture", "systemd", "cpu", "memory", "boot", "host"]
        {
            assert!(row.facts.get(key).is_some_and(|value| !value.is_empty()), "{key}: {:?}", row.facts);
        }
        assert!(row.capacity.cpu_milli > 0 && row.capacity.memory_bytes > 0, "{row:?}");
        assert!(!row.metadata.contains_key("os"), "facts are no metadata: {:?}", row.metadata);
        assert_eq!(row.facts["address"], row.addresses[0]);
    }
    start(&cluster, m1, "new.service", "MachineMetadata=os.version>=12\nMachineMetadata=systemd>=252");
    write_units(m1, &[("future.service", sleeper("MachineMetadata=os.version>=9999"))]);
    let refused = cluster.ask(m1, &["start", &format!("{UNITS}/future.service")]);
    assert!(format!("{:#}", refused.unwrap_err()).contains("os.version"), "it says which fact is in the way");

    // Said while it runs, it brings a unit, and taken back it makes it leave; a cordon keeps others away.
    cluster.ask(m1, &["machine", "metadata", "set", "m2", "tier=gold"]).unwrap();
    assert_eq!(start(&cluster, m1, "gold.service", "MachineMetadata=tier=gold"), "m2");
    cluster.ask(m1, &["machine", "metadata", "set", "m3", "tier=gold"]).unwrap();
    cluster.ask(m1, &["machine", "metadata", "unset", "m2", "tier"]).unwrap();
    eventually(LIMIT, "the unit to follow the metadata", || {
        let hosts = cluster.active(m1, "gold.service")?.remove("gold.service");
        Ok((hosts.as_deref() == Some(&["m3".to_owned()])).then_some(()))
    })
    .unwrap();
    cluster.ask(m1, &["machine", "cordon", "m3"]).unwrap();
    for n in 1..=4 {
        assert_ne!(start(&cluster, m1, &format!("plain{n}.service"), ""), "m3", "it is cordoned");
    }
    assert_eq!(on(&cluster, m1, "gold.service"), "m3", "what is there stays");

    // A machine that leaves and returns keeps what was said of it.
    let m3 = cluster.machine("m3").unwrap();
    m3.run(&["systemctl", "restart", "flotillad"]).unwrap();
    cluster.wait_for_machines(m1, 3).unwrap();
    let row = |host: &str| -> Row {
        let rows: Vec<Row> = cluster.json(m1, &["list-machines", host]).unwrap();
        rows.into_iter().next().unwrap()
    };
    assert!(row("m3").cordoned && row("m3").metadata["tier"] == "gold", "{:?}", row("m3"));
    cluster.ask(m1, &["machine", "uncordon", "m3"]).unwrap();
    assert_eq!(start(&cluster, m1, "last.service", ""), "m3", "it has the fewest units");
    cluster.ask(m1, &["machine", "metadata", "unset", "m3", "tier", "--reset"]).unwrap();
    assert!(!row("m3").metadata.contains_key("tier"));
}

#[test]
fn a_drained_machines_units_run_elsewhere_before_they_stop() {
    let _alone = alone();
    let cluster = Cluster::up("drain", 3, 1).unwrap();
    let (m1, m2) = (cluster.machine("m1").unwrap(), cluster.machine("m2").unwrap());
    start_instances(&cluster, m1, "web", SLEEPER.to_owned(), 9);
    start(&cluster, m1, "pinned.service", "MachineMetadata=host=m2");
    let placed = cluster.wait_active(m1, "web@*", 9).unwrap();
    let leaving: BTreeSet<&String> =
        placed.iter().filter(|(_, hosts)| hosts.contains(&"m2".to_owned())).map(|(unit, _)| unit).collect();
    assert!(leaving.len() >= 2, "{placed:?}");

    let plan: Drain =
        serde_json::from_str(&output(&cluster, m1, 5, &["machine", "drain", "m2", "--plan", "-o", "json"]))
            .unwrap();
    let foreseen: BTreeMap<String, String> = plan
        .units
        .iter()
        .filter(|unit| unit.stage == DrainStage::Waiting)
        .map(|unit| (unit.unit.to_string(), unit.to.clone().unwrap().host.unwrap()))
        .collect();
    assert_eq!(foreseen.keys().collect::<BTreeSet<_>>(), leaving);
    assert_eq!(cluster.wait_active(m1, "web@*", 9).unwrap(), placed, "a plan moves nothing");

    // One unit cannot leave: it is named with why, and the exit status says so.
    let said = output(&cluster, m1, 5, &["machine", "drain", "m2"]);
    for unit in &leaving {
        assert!(said.contains(&format!("{unit} has left m2")), "{said}");
    }
    assert!(said.contains("pinned.service stays: ") && said.contains("host=m2"), "{said}");
    let now = cluster.wait_active(m1, "web@*", 9).unwrap();
    for (unit, host) in &foreseen {
        assert_eq!(now[unit], std::slice::from_ref(host), "{unit} is where it was foreseen");
        let (started, _) = times(cluster.machine(host).unwrap(), unit);
        let (_, stopping) = times(m2, unit);
        let (started, stopping) = (started.unwrap(), stopping.unwrap());
        assert!(started < stopping, "{unit}: it ran elsewhere at {started}, and stopped here at {stopping}");
    }
    assert_eq!(on(&cluster, m1, "pinned.service"), "m2");

    // Lets it back: nothing returns by itself, what is new comes, and evening out brings some.
    cluster.ask(m1, &["machine", "uncordon", "m2"]).unwrap();
    assert_eq!(start(&cluster, m1, "fresh.service", ""), "m2");
    let foreseen: RebalanceOutcome = cluster.json(m1, &["rebalance", "--plan", "--budget=2"]).unwrap();
    assert!(!foreseen.applied && (1..=2).contains(&foreseen.moves.len()), "{foreseen:?}");
    let before = cluster.wait_active(m1, "web@*", 9).unwrap();
    let done: RebalanceOutcome = cluster.json(m1, &["rebalance", "--apply", "--budget=2"]).unwrap();
    assert!(done.applied && done.moves == foreseen.moves, "{done:?}");
    let moved: BTreeSet<String> = done.moves.iter().map(|it| it.unit.to_string()).collect();
    let after = eventually(Duration::from_secs(60), "the moves to be done", || {
        let active = cluster.active(m1, "web@*")?;
        let there = |unit: &String| active.get(unit).is_some_and(|hosts| *hosts == ["m2".to_owned()]);
        Ok((active.len() == 9 && moved.iter().all(there)).then_some(active))
    })
    .unwrap();
    for (unit, hosts) in after.iter().filter(|(unit, _)| !moved.contains(*unit)) {
        assert_eq!(hosts, &before[unit], "{unit} was not asked to move");
    }
}

/// Runs flotctl, which has to end with this status, and returns all that it said.
fn output(_cluster: &Cluster, machine: &Machine, status: i32, words: &[&str]) -> String {
    let ended = machine.exec(&[&["flotctl"], words].concat()).unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert_eq!(ended.status.code(), Some(status), "{words:?}: {out}{err}");
    if words.contains(&"json") { out.into_owned() } else { format!("{out}{err}") }
}
