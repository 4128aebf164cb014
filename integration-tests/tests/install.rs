//! What the README tells an administrator to do: flotilla from its archive, etcd from the
//! distribution, the folders of `flotctl cluster init`, and the two commands that it prints.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{env, path::Path, time::Duration};

use flotilla_integration_tests::{LIMIT, eventually, lab_directory, lab_with};
use flotilla_lab::{Lab, Machine, wait_formed};

/// Where the archive is unpacked on a machine.
const UNPACKED: &str = "/root/flotilla";

/// Where `flotctl cluster init` writes, on the first machine.
const FOLDERS: &str = "/root/flotilla-cluster";

/// What Debian's etcd-server and etcd-client put on a machine.
const ETCD: [(&str, &str); 4] = [
    ("usr/bin/etcd", "/usr/bin/etcd"),
    ("usr/bin/etcdctl", "/usr/bin/etcdctl"),
    ("lib/systemd/system/etcd.service", "/usr/lib/systemd/system/etcd.service"),
    ("etc/default/etcd", "/etc/default/etcd"),
];

const UNIT: &str = "[Service]\nExecStart=/bin/sleep infinity\n";

/// A machine whose store does not answer is up by then, also a busy one, and not after etcd's own time-out
/// of 90 s.
const BOOTED_WITHIN: Duration = Duration::from_secs(60);

#[test]
fn three_machines_become_a_cluster_as_the_readme_says() {
    let lab = lab_with("install", |options| options.members = 0).unwrap();
    let [m1, m2, m3] = lab.machines() else { panic!("three machines") };
    for machine in lab.machines() {
        have_etcd(machine);
        unpack(machine);
        let said = machine.shell(&install()).unwrap();
        assert!(said.contains("flotctl cluster init"), "{said}");
    }

    let commands = make_folders(&lab, m1);
    assert_eq!(commands.len(), 2, "{commands:?}");
    // One machine after the other, as a person does: the first finds no other member yet.
    for machine in lab.machines() {
        for command in &commands {
            let command = command.replace("./NAME", &format!("{FOLDERS}/{}", machine.name()));
            machine.shell(&command).unwrap();
        }
    }
    lab.machines().iter().try_for_each(|machine| wait_formed(machine, 3)).unwrap();
    let health = m1
        .shell(
            "cd /etc/flotilla && ETCDCTL_API=3 etcdctl --endpoints=https://127.0.0.1:2379 --cacert=etcd-ca.pem \
             --cert=etcd-client.pem --key=etcd-client-key.pem member list",
        )
        .unwrap();
    assert_eq!(health.matches("started").count(), 3, "{health}");

    // Who is not on a machine asks with the user's own folder.
    m3.run(&["mkdir", "-p", "/root/.config"]).unwrap();
    copy_folder(m1, m3, &format!("{FOLDERS}/user-admin"), "/root/.config/flotilla");
    m3.write_file("/root/hello@.service", UNIT).unwrap();
    let start = "HOME=/root FLOTILLA_SOCKET=/nonexistent flotctl start /root/hello@{1,2,3}.service";
    m3.run(&["bash", "-c", start]).unwrap();
    let places = m2.run(&["flotctl", "list-units", "--no-legend", "hello@*"]).unwrap();
    for machine in lab.machines() {
        assert!(places.contains(machine.name()), "{places}");
    }

    // The README's next steps, from where the archive was unpacked.
    let next = "flotctl start examples/hello.service && flotctl start examples/web@{1,2,3}.service && \
                flotctl start examples/disk-watch.service && flotctl destroy 'web@*' hello disk-watch";
    m1.run(&["bash", "-c", &format!("cd {UNPACKED} && {next}")]).unwrap();
    m1.shell("man=/usr/share/man; test -f $man/man1/flotctl.1 && test -f $man/man8/flotillad.8").unwrap();

    upgrade(m2);
    cold_boot(&lab, m1);
}

/// Installs again over a running daemon: nothing but the daemon is started anew, and only when asked.
fn upgrade(machine: &Machine) {
    let show = |property: &str, unit: &str| {
        machine.run(&["systemctl", "show", "--value", &format!("--property={property}"), unit]).unwrap()
    };
    let unit = machine.shell("systemctl list-units --plain --no-legend 'hello@*' | cut -d' ' -f1").unwrap();
    let (unit, pid) = (unit.trim(), show("MainPID", "flotillad.service"));
    let invocation = show("InvocationID", unit);
    let said = machine.shell(&install()).unwrap();
    assert!(said.contains("systemctl restart flotillad"), "{said}");
    assert_eq!(show("MainPID", "flotillad.service"), pid);
    machine.run(&["systemctl", "restart", "flotillad"]).unwrap();
    assert_ne!(show("MainPID", "flotillad.service"), pid);
    wait_formed(machine, 3).unwrap();
    assert_eq!(show("InvocationID", unit), invocation);
}

/// All machines go off, and one comes back alone: it is up although etcd has no majority. When the
/// others are back as well, everything runs.
fn cold_boot(lab: &Lab, first: &Machine) {
    lab.machines().iter().try_for_each(Machine::poweroff).unwrap();
    first.boot().unwrap();
    eventually(BOOTED_WITHIN, "flotillad to be up without a store", || {
        Ok(first.run(&["systemctl", "is-active", "flotillad", "multi-user.target"]).is_ok().then_some(()))
    })
    .unwrap();
    lab.machines()
        .iter()
        .filter(|machine| machine.name() != first.name())
        .try_for_each(Machine::boot)
        .unwrap();
    lab.machines().iter().try_for_each(|machine| wait_formed(machine, 3)).unwrap();
    eventually(LIMIT, "every unit to be active again", || {
        let units = first.run(&["flotctl", "list-units", "--no-legend", "--fields", "active", "hello@*"])?;
        let active: Vec<&str> = units.lines().map(str::trim).collect();
        Ok((active == ["active"; 3]).then_some(()))
    })
    .unwrap();
}

/// Installs the distribution's etcd as its package does.
fn have_etcd(machine: &Machine) {
    let package = lab_directory().join("etcd");
    for (from, to) in ETCD {
        machine.copy_in(&package.join(from), to).unwrap();
    }
    machine.run(&["useradd", "--system", "--create-home", "--home-dir", "/var/lib/etcd", "etcd"]).unwrap();
}

/// The archive's own script. A lab machine's `/usr/local/bin` is the lab's, and cannot be written.
fn install() -> String {
    format!("PREFIX=/usr {UNPACKED}/install")
}

/// Unpacks what `cargo xtask dist` packs, with the programs of this build, on a machine.
fn unpack(machine: &Machine) {
    let Some(archive) = env::var_os("FLOTILLA_ARCHIVE") else {
        panic!("no archive; run the test with `cargo xtask test install`")
    };
    machine.copy_in(Path::new(&archive), "/root/flotilla.tar.gz").unwrap();
    machine
        .shell(&format!(
            "mkdir {UNPACKED} && tar -xzf /root/flotilla.tar.gz --strip-components=1 -C {UNPACKED}"
        ))
        .unwrap();
    machine.run(&["rm", "/root/flotilla.tar.gz"]).unwrap();
}

/// Runs `flotctl cluster init` on a machine, copies the folders to the others, and returns the
/// commands that it says to run on each.
fn make_folders(lab: &Lab, first: &Machine) -> Vec<String> {
    let names = lab.machines().iter().map(|machine| format!("{}={}", machine.name(), machine.address()));
    let names: Vec<String> = names.collect();
    let said = first.shell(&format!("cd /root && flotctl cluster init {}", names.join(" "))).unwrap();
    for machine in lab.machines().iter().filter(|machine| machine.name() != first.name()) {
        let folder = format!("{FOLDERS}/{}", machine.name());
        copy_folder(first, machine, &folder, &folder);
    }
    let after = said.split_once("as root:\n").unwrap().1;
    let commands = after.lines().filter_map(|line| line.strip_prefix("  "));
    commands.map(str::to_owned).collect()
}

/// What `scp -pr` does.
fn copy_folder(from: &Machine, to: &Machine, folder: &str, place: &str) {
    let files = from.run(&["find", folder, "-type", "f", "-printf", "%m %f\n"]).unwrap();
    for (mode, file) in files.lines().map(|line| line.split_once(' ').unwrap()) {
        let text = from.run(&["cat", &format!("{folder}/{file}")]).unwrap();
        let path = format!("{place}/{file}");
        to.write_file(&path, text).unwrap();
        to.run(&["chmod", mode, &path]).unwrap();
    }
}
