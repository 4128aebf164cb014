//! What goes through ssh, and what is left of fleetctl: with a program called ssh that does here what would
//! be done on the far machine, and the cluster's own socket behind it.

use crate::{
    Row,
    world::{World, has},
};

pub const ROWS: [Row; 2] = [("ssh", ssh), ("fd-forward", fd_forward)];

/// Notes what it is told; forwards a socket by a link, and runs what is to be run there.
const SSH: &str = r#"#!/bin/sh
echo "$@" >>/run/ssh.log
while [ $# -gt 0 ]; do
    case "$1" in
    -L) ln -s "${2#*:}" "${2%%:*}"; shift 2 ;;
    -o | -l | -p) shift 2 ;;
    --) shift 2; break ;;
    *) shift ;;
    esac
done
exec sh -c "$*"
"#;

fn ssh(world: &World) {
    let machine = world.machine();
    machine.write_file("/usr/bin/ssh", SSH).unwrap();
    machine.run(&["chmod", "755", "/usr/bin/ssh"]).unwrap();
    let address = machine.address().to_string();
    let told = || machine.run(&["tail", "-n1", "/run/ssh.log"]).unwrap();
    assert_eq!(world.ask(&["ssh", "--machine", "m1", "echo", "there"]), "there\n");
    has("ssh", &told(), &[&address]);
    world.expect(7, &["ssh", "--unit=web@1", "-A", "--ssh-port=2222", "--", "exit", "7"]);
    has("ssh", &told(), &["-p 2222 -A", &address]);
    assert_eq!(world.ask(&["ssh", "web@2.service@m1", "echo", "here"]), "here\n");
    world.expect(4, &["ssh", "nobody"]).complains(&["no machine and no unit `nobody`"]);

    let options =
        ["--tunnel=ada@far:22", "--ssh-username=root", "--ssh-timeout=5", "--known-hosts-file=/dev/null"];
    let more =
        ["--strict-host-key-checking=false", "--request-timeout=5s", "list-units", "--no-legend", "web@1"];
    has("a tunnel", &world.ask(&[&options[..], &more].concat()), &["web@1.service"]);
    has("a tunnel", &told(), &["-l ada -p 22", "StrictHostKeyChecking=no", ":/run/flotilla/api.sock"]);
    let started = world.expect(0, &["--tunnel=far", "start", "web@1", "web@2"]);
    assert_eq!(started.out.lines().count(), 2, "several connections: {started:?}");
    machine.run(&["rm", "/usr/bin/ssh"]).unwrap();
    world.expect(6, &["--tunnel=far", "list-units"]).complains(&["needs the system's ssh"]);

    let debug = world.expect(0, &["--debug", "list-machines"]);
    debug.complains(&["endpoint unix:///run/flotilla/api.sock"]);
    for command in ["cat", "status", "why", "journal", "stop", "restart", "unload", "destroy"] {
        assert_eq!(world.ask(&[command, "--ignore-missing", "nobody"]), "", "{command}");
    }
    let mixed = world.expect(4, &["restart", "nobody", "web@1"]);
    assert_eq!(mixed.out, "web@1.service active on m1\n", "{mixed:?}");
    mixed.complains(&["there is no unit nobody.service"]);
    has("a prefix", &world.ask(&["list-m", "--no-legend"]), &["m1"]);
}

fn fd_forward(world: &World) {
    // Its input ends with the question; for as long as this is asked, an answer may come later than that.
    for path in ["/v1/version", "/fleet/v1/machines", "/v1/units"].repeat(10) {
        let line = format!(
            "printf 'GET {path} HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n' | flotctl fd-forward \
             /run/flotilla/api.sock"
        );
        has("fd-forward", &world.machine().shell(&line).unwrap(), &["200 OK", world.machine().id()]);
    }
    world.expect(6, &["fd-forward", "/run/nobody.sock"]).complains(&["nobody answers at /run/nobody.sock"]);
}
