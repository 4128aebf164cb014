//! Spreading, limits for a machine, wishes, ports, counted resources, priorities.

use flotilla_integration_tests::{LIMIT, eventually};

use super::Stage;

/// Two machines in one zone and one in another: the zones get as many each.
pub(super) fn spread_over_zones(stage: &Stage<'_>) {
    for (host, zone) in [("m1", "a"), ("m2", "a"), ("m3", "b")] {
        stage.flotctl(&format!("machine metadata set {host} zone={zone}"));
    }
    stage.submit(&[("api@.service", "Spread=zone\nMaxPerMachine=2")]);
    stage.start("api@1 api@2 api@3 api@4");
    assert_eq!(stage.counts("api@*", 4), [1, 1, 2]);
    // A full zone keeps nobody waiting: its one machine has as many as it may.
    stage.start("api@5 api@6");
    assert_eq!(stage.counts("api@*", 6), [2, 2, 2]);
    stage.cannot_start("api@7");
    let full = "MaxPerMachine: has 2 of its template, the most it may";
    stage.nowhere("api@7.service", &[("m1", full), ("m2", full), ("m3", full)]);

    // What is required goes on being required: a machine of no zone loses its instances.
    stage.flotctl("machine metadata unset m3 zone");
    let none = "Spread: has no zone to spread over";
    stage.nowhere("api@7.service", &[("m1", full), ("m2", full), ("m3", none)]);
    assert_eq!(waiting(stage, "api@*", 3).len(), 3);
    stage.flotctl("machine metadata set m3 zone=b");
    assert_eq!(waiting(stage, "api@*", 1).len(), 1);
    for host in ["m1", "m2", "m3"] {
        stage.flotctl(&format!("machine metadata unset {host} zone --reset"));
    }
}

/// So many of a template on a machine, whatever else is there.
pub(super) fn so_many_on_a_machine(stage: &Stage<'_>) {
    stage.submit(&[
        ("worker@.service", "MaxPerMachine=1"),
        ("pool@.service", "MaxPerMachine=2\nMachineMetadata=host!=m3"),
    ]);
    stage.start("worker@1 worker@2 worker@3");
    assert_eq!(stage.counts("worker@*", 3), [1, 1, 1]);
    stage.cannot_start("worker@4");
    let full = "MaxPerMachine: has 1 of its template, the most it may";
    stage.nowhere("worker@4.service", &[("m1", full), ("m2", full), ("m3", full)]);
    let said = stage.cannot_start("pool@1 pool@2 pool@3 pool@4 pool@5");
    assert!(said.contains("pool@5.service cannot be placed: "), "{said}");
    assert_eq!(stage.counts("pool@[1234].service", 4), [2, 2, 0]);
    let (full, other) = (full.replace('1', "2"), "MachineMetadata: metadata host!=m3 does not match (m3)");
    stage.nowhere("pool@5.service", &[("m1", &full), ("m2", &full), ("m3", other)]);
    let freed = stage.host("worker@2.service");
    stage.destroy("worker@2");
    stage.comes_to("worker@4.service", &[&freed]);
}

/// A wish decides between machines, before their load, and keeps a unit from none.
pub(super) fn wishes_keep_nobody_away(stage: &Stage<'_>) {
    stage.flotctl("machine metadata set m2 disk=ssd");
    stage.submit(&[
        ("cache@.service", "Prefer=50 disk=ssd"),
        ("near.service", "Prefer=MachineOf=cache@*.service"),
        ("apart@.service", "Prefer=-80 MachineOf=apart@*.service\nPrefer=5 disk=ssd"),
    ]);
    stage.start("cache@1 cache@2 cache@3");
    assert_eq!(stage.counts("cache@*", 3), [0, 3, 0], "the wish is stronger than the load");
    stage.start("near");
    assert_eq!(stage.host("near.service"), "m2");
    stage.start("apart@1 apart@2 apart@3 apart@4");
    assert_eq!(stage.counts("apart@*", 4), [1, 2, 1], "the stronger wish first, then the weaker");
    // Whom nobody can grant a wish is placed all the same.
    stage.flotctl("machine cordon m2");
    stage.start("cache@4");
    assert_ne!(stage.host("cache@4.service"), "m2");
    stage.flotctl("machine uncordon m2");
    stage.flotctl("machine metadata unset m2 disk --reset");
    assert_ne!(stage.host("cache@4.service"), "m2", "nothing moves for a wish");
}

/// Units of one port are never on one machine, whatever they wish.
pub(super) fn one_holder_of_a_port_on_a_machine(stage: &Stage<'_>) {
    let beside = "ReservePort=80\nPrefer=100 MachineOf=proxy.service";
    stage.submit(&[
        ("proxy.service", "ReservePort=80 443"),
        ("site.service", beside),
        ("blog.service", beside),
        ("more.service", beside),
    ]);
    let units = ["proxy.service", "site.service", "blog.service"];
    let hosts = units.map(|unit| {
        stage.start(unit);
        stage.host(unit)
    });
    assert!(hosts[0] != hosts[1] && hosts[1] != hosts[2] && hosts[2] != hosts[0], "{hosts:?}");
    stage.cannot_start("more");
    let words = units.map(|unit| format!("ReservePort: port 80 is reserved by {unit}"));
    let machines: Vec<(&str, &str)> =
        hosts.iter().zip(&words).map(|(host, words)| (host.as_str(), words.as_str())).collect();
    stage.nowhere("more.service", &machines);
    stage.destroy("site");
    stage.comes_to("more.service", &[&hosts[1]]);

    // Ranges meet single ports.
    stage.submit(&[("range.service", &format!("ReservePort=440-450\nMachineMetadata=host={}", hosts[0]))]);
    stage.cannot_start("range");
    let other = |host: &str| format!("MachineMetadata: metadata host={} does not match ({host})", hosts[0]);
    let taken = "ReservePort: port 443 is reserved by proxy.service".to_owned();
    let words = ["m1", "m2", "m3"].map(|host| if host == hosts[0] { taken.clone() } else { other(host) });
    stage.nowhere("range.service", &[("m1", &words[0]), ("m2", &words[1]), ("m3", &words[2])]);
}

/// Writes a counted resource into each machine's configuration, as an operator does.
pub(super) fn give_each_one_slot(stage: &Stage<'_>) {
    for machine in stage.cluster.machines() {
        machine.shell("printf '\\n[resources]\\nslot = 1\\n' >>/etc/flotilla/flotilla.toml").unwrap();
        machine.run(&["systemctl", "restart", "flotillad.service"]).unwrap();
    }
    stage.cluster.wait_for_machines(stage.m1, 3).unwrap();
    eventually(LIMIT, "each machine to tell of its slot", || {
        let text = stage.cluster.ask(stage.m1, &["list-machines", "--fields=resources", "--no-legend"])?;
        Ok((text.lines().filter(|line| line.contains("slot")).count() == 3).then_some(()))
    })
    .unwrap();
}

/// Priority decides who gets what is free, and takes nothing from anybody unless the unit may push.
pub(super) fn who_comes_first_and_who_may_push(stage: &Stage<'_>) {
    stage.submit(&[
        ("low@.service", "Reserve=slot=1"),
        ("mid.service", "Reserve=slot=1\nPriority=5"),
        ("peer.service", "Reserve=slot=1\nPreempt=yes"),
        ("high.service", "Reserve=slot=1\nPriority=10\nPreempt=yes"),
    ]);
    stage.start("low@1 low@2 low@3");
    assert_eq!(stage.counts("low@*", 3), [1, 1, 1]);
    let none = "Reserve: slot: 1 asked (0 of 1 free)";
    let everywhere = [("m1", none), ("m2", none), ("m3", none)];
    // More priority without the right to push, and the right without more priority.
    for unit in ["mid", "peer"] {
        stage.cannot_start(unit);
        stage.nowhere(&format!("{unit}.service"), &everywhere);
    }
    stage.start("high");
    let high = stage.host("high.service");
    let pushed = waiting(stage, "low@*", 1).remove(0);
    stage.nowhere(&pushed, &everywhere);
    let events = stage.flotctl(&format!("history {pushed}"));
    assert!(events.contains("high.service"), "{events}");

    // What becomes free is for the one with the most priority.
    stage.destroy("high");
    stage.comes_to("mid.service", &[&high]);
    stage.nowhere("peer.service", &everywhere);
    stage.nowhere(&pushed, &everywhere);
}

/// Waits until so many of a pattern's units are on no machine, and returns their names.
fn waiting(stage: &Stage<'_>, pattern: &str, count: usize) -> Vec<String> {
    eventually(LIMIT, format_args!("{count} of {pattern} to wait"), || {
        let units = stage.cluster.units(stage.m1, pattern)?;
        let waiting = units.into_iter().filter(|unit| unit.unplaced.is_some());
        let names: Vec<String> = waiting.map(|unit| unit.name.to_string()).collect();
        Ok((names.len() == count).then_some(names))
    })
    .unwrap()
}
