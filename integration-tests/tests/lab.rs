//! The lab does what it says: machines boot, see each other, fail as asked, and
//! nothing is left of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeSet,
    fs,
    process::{Child, Command, Stdio},
};

use anyhow::Result;
use flotilla_integration_tests::{LIMIT, binary, eventually, lab, lab_directory, lab_with};
use flotilla_lab::{Lab, Machine, Name, Node, Options};

/// Says whether one ping is answered. One that is not may have been late: only what is cut is asked so.
fn reaches(from: &Machine, to: &Node) -> bool {
    from.run(&["ping", "-c", "1", "-W", "1", to.name()]).is_ok()
}

/// Waits until one reaches the other.
fn wait_reaches(from: &Machine, to: &Node) {
    eventually(LIMIT, format_args!("{} to reach {}", from.name(), to.name()), || {
        Ok(reaches(from, to).then_some(()))
    })
    .unwrap();
}

fn boot_id(machine: &Machine) -> String {
    machine.run(&["cat", "/proc/sys/kernel/random/boot_id"]).unwrap()
}

/// How many ICMP requests have reached a machine.
fn pings_received(machine: &Machine) -> u64 {
    let text = machine.run(&["cat", "/proc/net/snmp"]).unwrap();
    let mut rows = text.lines().filter(|line| line.starts_with("Icmp:")).map(|line| line.split(' '));
    let (mut names, mut values) = (rows.next().unwrap(), rows.next().unwrap());
    let column = names.position(|name| name == "InEchos").unwrap();
    values.nth(column).unwrap().parse().unwrap()
}

#[test]
fn machines_boot_and_see_each_other_and_etcd() {
    let lab = lab("boot").unwrap();
    assert_eq!(lab.machines().len(), 3);
    let ids: BTreeSet<&str> = lab.machines().iter().map(Machine::id).collect();
    assert_eq!(ids.len(), 3, "machine ids are distinct");
    for machine in lab.machines() {
        assert_eq!(machine.run(&["cat", "/etc/machine-id"]).unwrap().trim(), machine.id());
        assert_eq!(machine.run(&["hostname"]).unwrap().trim(), machine.name());
        assert_eq!(machine.run(&["systemctl", "is-system-running"]).unwrap().trim(), "running");
        // systemd is done before journald has written so.
        eventually(LIMIT, "the journal of the boot", || {
            Ok(machine.journal(&[])?.contains("Startup finished").then_some(()))
        })
        .unwrap();
        lab.nodes().for_each(|node| wait_reaches(machine, node));
        let bus = format!("--address={}", machine.bus_address().unwrap());
        let answer =
            Command::new("busctl").args([&bus, "status", "org.freedesktop.systemd1"]).output().unwrap();
        assert!(String::from_utf8_lossy(&answer.stdout).contains("PID=1"), "{answer:?}");
        let ask = r"exec 3<>/dev/tcp/etcd1/2379; printf 'GET /health HTTP/1.0\r\n\r\n' >&3; cat <&3";
        assert!(
            machine.run(&["bash", "-c", ask]).unwrap().contains("\"true\""),
            "etcd answers {}",
            machine.name()
        );
    }
    lab.etcdctl(&["put", "ship", "shape"]).unwrap();
    assert_eq!(lab.etcdctl(&["get", "--print-value-only", "ship"]).unwrap(), "shape\n");
    assert!(lab.member("etcd1").unwrap().metrics().unwrap().contains("etcd_mvcc_put_total"));
}

#[test]
fn cables_are_cut_and_healed() {
    let lab = lab("cut").unwrap();
    let [m1, m2, m3] = lab.machines() else { panic!("three machines") };
    m1.cut().unwrap();
    assert!(!reaches(m1, m2) && !reaches(m2, m1));
    wait_reaches(m2, m3);
    m1.reboot().unwrap();
    assert!(m1.is_cut() && !reaches(m1, m2), "a cable stays cut over a reboot");
    m1.heal().unwrap();
    wait_reaches(m1, m2);

    m1.cut_from(m2).unwrap();
    assert!(!reaches(m1, m2) && !reaches(m2, m1));
    wait_reaches(m1, m3);
    wait_reaches(m2, m3);
    lab.heal_pairs().unwrap();
    // Both know each other's hardware address now, as machines that have talked.
    wait_reaches(m1, m2);
    wait_reaches(m2, m1);

    m1.cut_one_way(m2).unwrap();
    let before = pings_received(m1);
    assert!(!reaches(m2, m1), "no answer comes back");
    assert!(pings_received(m1) > before, "but the question arrives");
    let before = pings_received(m2);
    assert!(!reaches(m1, m2));
    assert_eq!(pings_received(m2), before, "nothing arrives the other way");
    lab.heal_pairs().unwrap();
    wait_reaches(m1, m2);
}

#[test]
fn machines_freeze_die_reboot_and_come_back() {
    let lab = lab_with("power", |options| options.members = 0).unwrap();
    let [m1, m2, _] = lab.machines() else { panic!("three machines") };
    let ticks = || m1.run(&["cat", "/run/ticks"]).unwrap().len();
    let tick = "while sleep 0.02; do printf x >> /run/ticks; done";
    m1.run(&["systemd-run", "--unit=ticker", "sh", "-c", tick]).unwrap();
    eventually(LIMIT, "the first tick", || Ok(m1.run(&["test", "-s", "/run/ticks"]).is_ok().then_some(())))
        .unwrap();

    m1.freeze().unwrap();
    let frozen_at = ticks();
    m1.run(&["sleep", "0.3"]).unwrap();
    assert_eq!(ticks(), frozen_at, "nothing moves in a frozen machine");
    m1.thaw().unwrap();
    eventually(LIMIT, "the next tick", || Ok((ticks() > frozen_at).then_some(()))).unwrap();

    m1.write_file("/var/lib/kept", "on disk").unwrap();
    let (id, first_boot) = (m1.run(&["cat", "/etc/machine-id"]).unwrap(), boot_id(m1));
    m1.kill().unwrap();
    assert!(!m1.is_running() && m1.exec(&["true"]).is_err() && m1.journal(&[]).is_err());
    assert!(!reaches(m2, m1), "a dead machine does not answer");
    m1.write_file("/var/lib/while-off", "also there").unwrap();
    m1.boot().unwrap();
    assert!(m1.boot().is_err(), "it runs already");
    let second_boot = boot_id(m1);
    assert_ne!(first_boot, second_boot);
    assert_eq!(m1.run(&["cat", "/etc/machine-id"]).unwrap(), id);
    assert_eq!(m1.run(&["cat", "/var/lib/kept", "/var/lib/while-off"]).unwrap(), "on diskalso there");
    assert!(m1.run(&["cat", "/run/ticks"]).is_err(), "memory is lost with the power");

    m1.reboot().unwrap();
    assert_ne!(boot_id(m1), second_boot);
    wait_reaches(m2, m1);

    // A frozen machine can be killed, too.
    m1.freeze().unwrap();
    m1.kill().unwrap();
    m2.poweroff().unwrap();
    assert!(!m1.is_running() && !m2.is_running());
}

#[test]
fn programs_are_installed_and_replaced() {
    let lab = lab_with("programs", |options| (options.machines, options.members) = (2, 0)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("greet");
    for version in ["one", "two"] {
        fs::write(&program, format!("#!/bin/sh\necho {version}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&program, mode).unwrap();
        lab.install(&program).unwrap();
        for machine in lab.machines() {
            assert_eq!(machine.run(&["greet"]).unwrap().trim(), version, "{}", machine.name());
        }
    }
    let m1 = lab.machine("m1").unwrap();
    m1.copy_in(&program, "/opt/greet").unwrap();
    assert_eq!(m1.run(&["/opt/greet"]).unwrap(), "two\n");
    assert_eq!(m1.exec(&["sh", "-c", "exit 7"]).unwrap().status.code(), Some(7));
}

#[test]
fn etcd_members_fail_one_by_one() {
    let lab = lab_with("members", |options| (options.machines, options.members) = (1, 3)).unwrap();
    let put = |value: &str| lab.etcdctl(&["--command-timeout=3s", "put", "k", value]);
    let [one, two, _] = lab.members() else { panic!("three members") };
    eventually(LIMIT, "all three to answer", || put("all").map(Some)).unwrap();
    one.kill().unwrap();
    // The two may have to elect a leader first.
    eventually(LIMIT, "two of three to answer", || put("two of three").map(Some)).unwrap();
    two.freeze().unwrap();
    // To another key: what timed out may still happen once there is a majority.
    let alone = lab.etcdctl(&["--command-timeout=3s", "put", "other", "one of three"]);
    assert!(alone.is_err(), "one of three is no majority");
    two.thaw().unwrap();
    eventually(LIMIT, "a majority", || put("again").map(Some)).unwrap();
    one.start().unwrap();
    one.wait_healthy().unwrap();
    one.stop().unwrap();
    one.start().unwrap();
    one.wait_healthy().unwrap();
    assert_eq!(lab.etcdctl(&["get", "--print-value-only", "k"]).unwrap(), "again\n");
}

/// What the host has that a lab could have touched.
fn host() -> (String, usize) {
    let links = Command::new("ip").args(["-o", "link"]).output().unwrap();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let ours = lab_directory();
    let ours = ours.to_string_lossy();
    (String::from_utf8_lossy(&links.stdout).into_owned(), mounts.matches(&*ours).count())
}

/// Whatever carries the lab's name in namespaces, control groups and processes,
/// looked for without the lab's own help.
fn traces(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let prefix = format!("flotilla-{name}-");
    let mut directories: Vec<_> =
        fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path()).collect();
    directories.extend(["/run/netns", "/sys/fs/cgroup", "/run/systemd/nspawn/propagate"].map(Into::into));
    for directory in directories {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        found.extend(names.filter(|name| name.starts_with(&prefix)));
    }
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&prefix) || command.contains(&format!("/run/{name}/")) {
            found.push(command);
        }
    }
    found
}

#[test]
fn nothing_is_left_after_down() {
    let name: Name = "gone".parse().unwrap();
    let before = host();
    let options = Options::new(lab_directory(), name.clone());
    let lab = Lab::up(&options).unwrap();
    assert!(Lab::up(&options).is_err(), "a lab has one owner");
    assert!(!traces("gone").is_empty());
    let found = Lab::leftovers(&lab_directory(), &name).unwrap();
    for kind in ["process", "control group", "network namespace", "directory"] {
        assert!(found.iter().any(|trace| trace.starts_with(kind)), "{kind} in {found:?}");
    }
    lab.machine("m2").unwrap().kill().unwrap();
    lab.machine("m3").unwrap().freeze().unwrap();
    lab.down().unwrap();
    assert_eq!(Lab::leftovers(&lab_directory(), &name).unwrap(), Vec::<String>::new());
    assert_eq!(traces("gone"), Vec::<String>::new());
    assert_eq!(host().0, before.0, "the host's own interfaces are as they were");
    assert!(!lab_directory().join("run/gone").exists() && !lab_directory().join("run/gone.lock").exists());
}

fn start_by_command(name: &str) -> Child {
    let mut command = Command::new(binary("flotilla-lab").unwrap());
    command.arg("--directory").arg(lab_directory()).args(["--name", name, "up", "--machines", "2"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn what_a_crash_left_is_removed_by_the_next_up() {
    let name: Name = "crash".parse().unwrap();
    let leftovers = || Lab::leftovers(&lab_directory(), &name);
    // The crash comes at three moments: at the first trace, with the network, and
    // with the first process.
    for moment in ["directory", "network namespace", "process"] {
        let mut crashing = start_by_command("crash");
        eventually(LIMIT, moment, || {
            Ok(leftovers()?.iter().any(|trace| trace.starts_with(moment)).then_some(()))
        })
        .unwrap();
        crashing.kill().unwrap();
        crashing.wait().unwrap();
        assert!(!leftovers().unwrap().is_empty());
        let lab = Lab::up(&Options { machines: 2, ..Options::new(lab_directory(), name.clone()) }).unwrap();
        wait_reaches(&lab.machines()[0], &lab.machines()[1]);
        lab.down().unwrap();
        assert_eq!(leftovers().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_lab_left_running_is_found_again() {
    let name: Name = "kept".parse().unwrap();
    assert!(start_by_command("kept").wait().unwrap().success());
    let result = || -> Result<()> {
        let lab = Lab::attach(&lab_directory(), &name)?;
        assert!(lab.machines().iter().all(|machine| machine.is_running()));
        lab.machine("m1")?.reboot()?;
        wait_reaches(lab.machine("m1")?, lab.machine("m2")?);
        let refused = Lab::up(&Options::new(lab_directory(), name.clone())).unwrap_err().to_string();
        assert!(refused.contains("up already"), "{refused}");
        Ok(())
    }();
    Lab::remove(&lab_directory(), &name).unwrap();
    result.unwrap();
    assert_eq!(Lab::leftovers(&lab_directory(), &name).unwrap(), Vec::<String>::new());
    assert!(Lab::attach(&lab_directory(), &name).is_err());
}

#[test]
fn two_labs_do_not_meet() {
    let small = |options: &mut Options| (options.machines, options.members) = (1, 1);
    let one = lab_with("pairone", small).unwrap();
    let two = lab_with("pairtwo", small).unwrap();
    let (first, second) = (&one.machines()[0], &two.machines()[0]);
    assert_eq!(first.address(), second.address());
    assert_ne!(first.id(), second.id());
    one.etcdctl(&["put", "whose", "one"]).unwrap();
    assert_eq!(two.etcdctl(&["get", "whose"]).unwrap(), "");
    drop(one);
    assert!(second.is_running());
    wait_reaches(second, &two.members()[0]);
}
