//! Conflicts, followers, replacement, global units, metadata, one machine.

use super::Stage;

/// What a machine is said to be for a unit that is there.
const HERE: &str = "here";

/// Four that conflict on three machines: the last one by name waits, and gets the first machine that is free.
pub(super) fn more_that_conflict_than_machines(stage: &Stage<'_>) {
    stage.submit(&[("web@.service", "Conflicts=web@*.service")]);
    let said = stage.cannot_start("web@4 web@2 web@3 web@1");
    assert!(
        said.contains("web@4.service cannot be placed: 3 machines: conflicts with web@1.service"),
        "{said}"
    );
    let hosts = [1, 2, 3].map(|n| stage.host(&format!("web@{n}.service")));
    let words = [1, 2, 3].map(|n| format!("Conflicts: conflicts with web@{n}.service"));
    let machines: Vec<(&str, &str)> =
        hosts.iter().zip(&words).map(|(host, words)| (host.as_str(), words.as_str())).collect();
    assert_eq!(stage.counts("web@[123].service", 3), [1, 1, 1]);
    stage.nowhere("web@4.service", &machines);

    // Conflicts hold in either direction: this one has nothing against the others itself.
    stage.submit(&[("shy.service", "Conflicts=loud.service"), ("loud.service", "MachineID=m1")]);
    stage.start("loud.service");
    stage.start("shy.service");
    assert_ne!(stage.host("shy.service"), "m1");
    stage.submit(&[("web.service", "Conflicts=loud.service shy.service\nMachineID=m1")]);
    stage.cannot_start("web.service");
    let other = "MachineID: not machine m1";
    let shy = stage.host("shy.service");
    let also = format!("{other}; conflicts with shy.service");
    let on = |host: &str| if host == shy { also.as_str() } else { other };
    let loud = "Conflicts: conflicts with loud.service";
    stage.nowhere("web.service", &[("m1", loud), ("m2", on("m2")), ("m3", on("m3"))]);

    stage.destroy("web@2");
    stage.comes_to("web@4.service", &[&hosts[1]]);
    assert_eq!(
        (stage.host("web@1.service"), stage.host("web@3.service")),
        (hosts[0].clone(), hosts[2].clone())
    );
}

/// A follower is where its leader is, goes where it goes, and waits while it is nowhere.
pub(super) fn a_pair_follows_its_leader(stage: &Stage<'_>) {
    stage.submit(&[
        ("follow@.service", "MachineOf=lead@%i.service"),
        ("beside.service", "MachineOf=lead@*.service"),
    ]);
    stage.cannot_start("follow@1");
    let all = |words: &'static str| ["m1", "m2", "m3"].map(|host| (host, words));
    stage.nowhere("follow@1.service", &all("MachineOf: lead@1.service is not known"));
    stage.cannot_start("beside");
    stage.nowhere("beside.service", &all("MachineOf: no other unit that lead@*.service matches is there"));

    stage.submit(&[("lead@.service", "MachineMetadata=role=lead\nConflicts=lead@*.service")]);
    stage.cannot_start("lead@1");
    stage.nowhere("lead@1.service", &all("MachineMetadata: metadata role=lead does not match (not set)"));
    stage.nowhere("follow@1.service", &all("MachineOf: lead@1.service is not placed"));

    stage.flotctl("machine metadata set m2 role=lead");
    for unit in ["lead@1.service", "follow@1.service", "beside.service"] {
        stage.comes_to(unit, &["m2"]);
    }
    // The leader may only be on another machine from now on.
    stage.flotctl("machine metadata set m3 role=lead");
    stage.flotctl("machine metadata set m2 role=rest");
    for unit in ["lead@1.service", "follow@1.service", "beside.service"] {
        stage.comes_to(unit, &["m3"]);
    }
    // Two pairs that conflict come to two machines.
    stage.flotctl("machine metadata set m1 role=lead");
    stage.start("lead@2 follow@2");
    assert_eq!((stage.host("lead@2.service"), stage.host("follow@2.service")), ("m1".into(), "m1".into()));

    stage.flotctl("unload lead@1");
    stage.nowhere("follow@1.service", &all("MachineOf: lead@1.service is inactive"));
    // The pattern still has somebody.
    stage.comes_to("beside.service", &["m1"]);
    for host in ["m1", "m2", "m3"] {
        stage.flotctl(&format!("machine metadata unset {host} role --reset"));
    }
}

/// Who is replaced goes where it may, waits if it may nowhere else, and is back when it can be.
pub(super) fn who_is_replaced_goes_elsewhere_or_waits(stage: &Stage<'_>) {
    stage.submit(&[
        ("old.service", "MachineMetadata=host=m2"),
        ("free.service", "Prefer=host=m2"),
        ("new.service", "Replaces=old.service free.service\nMachineMetadata=host=m2"),
    ]);
    stage.start("old free");
    assert_eq!((stage.host("old.service"), stage.host("free.service")), ("m2".into(), "m2".into()));
    stage.start("new");
    assert_eq!(stage.host("new.service"), "m2");
    let other = "MachineMetadata: metadata host=m2 does not match";
    let (m1, m3) = (format!("{other} (m1)"), format!("{other} (m3)"));
    let replaced = "Replaces: replaced by new.service";
    stage.nowhere("old.service", &[("m1", &m1), ("m2", replaced), ("m3", &m3)]);
    let free = stage.host("free.service");
    let at = |host: &str| if host == free { HERE } else { "could run here" };
    stage.why("free.service", &[("m1", at("m1")), ("m2", replaced), ("m3", at("m3"))]);

    stage.destroy("new");
    stage.comes_to("old.service", &["m2"]);
    assert_eq!(stage.host("free.service"), free, "what can stay, stays");
}

/// A global unit is on each machine that its metadata and conflicts let it be on, and no other.
pub(super) fn global_where_metadata_and_conflicts_let_it(stage: &Stage<'_>) {
    for host in ["m1", "m2"] {
        stage.flotctl(&format!("machine metadata set {host} disk=ssd"));
    }
    stage.submit(&[
        ("noisy.service", "MachineID=m2"),
        ("watch.service", "Global=yes\nMachineMetadata=disk=ssd\nConflicts=noisy.service"),
    ]);
    stage.start("noisy");
    stage.start("watch");
    stage.comes_to("watch.service", &["m1"]);
    let (noisy, disk) =
        ("Conflicts: conflicts with noisy.service", "MachineMetadata: metadata disk=ssd does not match");
    let not_set = format!("{disk} (not set)");
    stage.why("watch.service", &[("m1", HERE), ("m2", noisy), ("m3", &not_set)]);

    stage.flotctl("machine metadata set m3 disk=ssd");
    stage.comes_to("watch.service", &["m1", "m3"]);
    stage.destroy("noisy");
    stage.comes_to("watch.service", &["m1", "m2", "m3"]);
    stage.flotctl("machine metadata set m1 disk=tape");
    stage.comes_to("watch.service", &["m2", "m3"]);
    stage.flotctl("machine metadata unset m2 disk");
    stage.flotctl("machine metadata unset m3 disk");
    // Nobody may have it now: it says so.
    let tape = format!("{disk} (tape)");
    stage.nowhere("watch.service", &[("m1", &tape), ("m2", &not_set), ("m3", &not_set)]);
    for host in ["m1", "m2", "m3"] {
        stage.flotctl(&format!("machine metadata unset {host} disk --reset"));
    }
}

/// Facts and metadata decide while units run: who no longer fits leaves, who fits comes.
pub(super) fn metadata_changes_while_units_run(stage: &Stage<'_>) {
    stage.submit(&[
        ("modern.service", "MachineMetadata=os.version>=12"),
        ("future.service", "MachineMetadata=os.version>=13"),
        ("picky.service", "MachineMetadata=\"zone in (a, b)\" \"!burstable\" \"host!=m1\""),
    ]);
    // The lab's machines are Debian 12.
    stage.start("modern");
    stage.cannot_start("future");
    let old = "MachineMetadata: metadata os.version>=13 does not match (12)";
    stage.nowhere("future.service", &[("m1", old), ("m2", old), ("m3", old)]);
    // What is set at run time is over what the machine tells of itself.
    stage.flotctl("machine metadata set m2 os.version=13.1");
    stage.comes_to("future.service", &["m2"]);
    let before = stage.host("modern.service");
    stage.flotctl(&format!("machine metadata set {before} os.version=9"));
    let after = stage.host_other_than("modern.service", &before);
    stage.flotctl(&format!("machine metadata unset {before} os.version --reset"));
    assert_eq!(
        stage.host("modern.service"),
        after,
        "nothing moves for a machine that has become good enough"
    );

    stage.flotctl("machine metadata set m1 zone=a");
    stage.flotctl("machine metadata set m2 zone=c");
    stage.flotctl("machine metadata set m3 zone=b burstable=yes");
    stage.cannot_start("picky");
    let zone = "metadata zone=a or zone=b does not match (c)";
    stage.nowhere(
        "picky.service",
        &[
            ("m1", "MachineMetadata: metadata host!=m1 does not match (m1)"),
            ("m2", &format!("MachineMetadata: {zone}")),
            ("m3", "MachineMetadata: metadata !burstable does not match (yes)"),
        ],
    );
    stage.flotctl("machine metadata unset m3 burstable");
    stage.comes_to("picky.service", &["m3"]);
    stage.flotctl("machine metadata set m2 zone=a");
    stage.flotctl("machine metadata unset m3 zone");
    stage.comes_to("picky.service", &["m2"]);
    for host in ["m1", "m2", "m3"] {
        stage.flotctl(&format!("machine metadata unset {host} zone burstable os.version --reset"));
    }
}

/// One machine by its host name, its id or eight digits of it; and another one never.
pub(super) fn one_machine_and_no_other(stage: &Stage<'_>) {
    let id = |host: &str| stage.cluster.machine(host).unwrap().id().to_owned();
    let (m2, m3) = (id("m2"), id("m3"));
    stage.submit(&[
        ("host.service", "MachineID=m3"),
        ("whole.service", &format!("MachineID={m2}")),
        ("prefix.service", &format!("MachineID={}\nConflicts=whole.service", &m3[..8])),
        ("absent.service", "MachineID=m9"),
    ]);
    stage.start("host whole prefix");
    let hosts = ["host.service", "whole.service", "prefix.service"].map(|unit| stage.host(unit));
    assert_eq!(hosts, ["m3", "m2", "m3"]);
    stage.cannot_start("absent");
    let not = "MachineID: not machine m9";
    stage.nowhere("absent.service", &[("m1", not), ("m2", not), ("m3", not)]);

    // A machine that takes nobody new keeps whom it has.
    stage.flotctl("machine cordon m3");
    stage.submit(&[("late.service", "MachineID=m3")]);
    stage.cannot_start("late");
    let not = "MachineID: not machine m3";
    let (code, summary) =
        stage.why("late.service", &[("m1", not), ("m2", not), ("m3", "closed: it is cordoned")]);
    assert_eq!(code, Some(5), "{summary}");
    assert_eq!(stage.host("host.service"), "m3");
    stage.flotctl("machine uncordon m3");
    stage.comes_to("late.service", &["m3"]);
}
