//! The calls of fleetctl 1.0 in their order, over a raw socket, to a real flotillad on real machines: what
//! comes of them is looked up in systemd. fleetctl itself is not run.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "nothing here has a runtime")]

#[path = "fleet_v1/fleetctl.rs"]
mod fleetctl;
#[path = "fleet_v1/wire.rs"]
#[allow(dead_code, reason = "the other suite uses all of it")]
mod wire;

use std::path::PathBuf;

use flotilla_integration_tests::{Cluster, LIMIT, alone, eventually, replaced};
use flotilla_lab::Machine;
use serde_json::{Value, json};

use fleetctl::Fleetctl;
use wire::Wire;

/// The API's socket of a machine, as this computer reaches it.
fn socket(machine: &Machine) -> Wire {
    let bus = machine.bus_address().unwrap();
    let root = bus.trim_start_matches("unix:path=").trim_end_matches("/run/dbus/system_bus_socket");
    Wire::Unix(PathBuf::from(format!("{root}/run/flotilla/api.sock")))
}

fn option(section: &str, name: &str, value: &str) -> Value {
    json!({ "section": section, "name": name, "value": value })
}

/// What systemd says of a unit on a machine.
fn active(machine: &Machine, unit: &str) -> String {
    let output = machine.exec(&["systemctl", "is-active", unit]).unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn fleetctls_calls_do_on_real_machines_what_they_did_in_fleet() {
    let _alone = alone();
    let cluster = Cluster::up("fleetv1", 3, 1).unwrap();
    let [one, two, three] = cluster.machines() else { panic!("three machines") };
    cluster.wait_for_machines(one, 3).unwrap();
    let wire = socket(one);
    let fleetctl = Fleetctl(&wire);

    let machines = fleetctl.machines();
    assert_eq!(machines.len(), 3);
    for machine in [one, two, three] {
        let listed = machines.iter().find(|listed| listed["id"] == machine.id()).unwrap();
        assert_eq!(listed["metadata"], json!({ "host": machine.name() }), "and nothing of its facts");
        assert!(listed["primaryIP"].as_str().is_some_and(|ip| ip.starts_with("10.")), "{listed}");
    }

    // Submitted, loaded, started, stopped, unloaded: each is there when the calls say so.
    let hello = "hello.service";
    let options = json!([
        option("Unit", "Description", "says hello"),
        option("Service", "ExecStart", "/bin/sh -c 'echo hello from %H; exec sleep infinity'"),
        option("Service", "ExecStop", "/bin/sh -c 'echo %n >>/run/stopped'"),
        option("X-Fleet", "MachineMetadata", "host=m2"),
    ]);
    fleetctl.submit(hello, &options);
    assert!(fleetctl.list_units().is_empty());
    assert_eq!(fleetctl.load(hello), two.id());
    assert_eq!(
        two.run(&["systemctl", "show", "--value", "--property=LoadState", hello]).unwrap().trim(),
        "loaded"
    );
    assert_eq!(active(two, hello), "inactive");
    assert_eq!(fleetctl.start(hello), two.id());
    assert_eq!(active(two, hello), "active");
    let row = [hello, two.id(), "active", "running"].map(str::to_owned);
    assert_eq!(fleetctl.list_units(), [row]);
    // What systemd was given is what fleet would have written.
    assert_eq!(two.run(&["cat", "/run/flotilla/units/hello.service"]).unwrap(), fleetctl.cat(hello));
    fleetctl.stop(hello);
    assert_eq!(active(two, hello), "inactive");
    fleetctl.start(hello);
    fleetctl.unload(hello);
    assert_eq!(active(two, hello), "inactive");
    assert!(two.exec(&["test", "-e", "/run/flotilla/units/hello.service"]).unwrap().status.code() == Some(1));
    fleetctl.start(hello);
    fleetctl.destroy(hello);
    assert_eq!(active(two, hello), "inactive", "destroyed is stopped");
    assert_eq!(two.run(&["cat", "/run/stopped"]).unwrap().lines().count(), 3, "each stop ran its ExecStop");
    assert!(fleetctl.units().is_empty());

    // A template, and instances of it on different machines.
    let web = json!([
        option("Service", "ExecStart", "/bin/sh -c 'echo %i; exec sleep infinity'"),
        option("X-Fleet", "Conflicts", "web@*.service"),
    ]);
    fleetctl.submit("web@.service", &web);
    let mut places = Vec::new();
    for unit in ["web@1.service", "web@2.service", "web@3.service"] {
        fleetctl.submit_instance(unit, "web@.service");
        let id = fleetctl.start(unit);
        let machine = [one, two, three].into_iter().find(|machine| machine.id() == id).unwrap();
        assert_eq!(active(machine, unit), "active");
        places.push(id);
    }
    places.sort();
    places.dedup();
    assert_eq!(places.len(), 3, "they conflict with each other");

    // Another machine's socket answers the same: what it cannot say itself it lets a seat say.
    let listed = fleetctl.list_units();
    for machine in [two, three] {
        let other = Fleetctl(&socket(machine));
        // Each seat hears of a report for itself, a moment after another perhaps.
        eventually(LIMIT, format_args!("{} to list the same", machine.name()), || {
            Ok((other.list_units() == listed).then_some(()))
        })
        .unwrap();
    }
    insecure_loopback(&cluster, three, &listed);
}

/// Where it is switched on, the same is served on the loopback address without TLS, and that is warned of.
fn insecure_loopback(cluster: &Cluster, machine: &Machine, listed: &[[String; 4]]) {
    let configuration = "/etc/flotilla/flotilla.toml";
    let text = machine.run(&["cat", configuration]).unwrap();
    let listen = text.lines().find(|line| line.trim_start().starts_with("listen")).unwrap();
    let address = listen.split_once('=').unwrap().1.trim().trim_matches(['[', ']', ' ']);
    let with_loopback = format!("listen = [{address}, \"127.0.0.1:49153\"]\ninsecure-loopback = true");
    machine.write_file(configuration, text.replace(listen, &with_loopback)).unwrap();
    let systemctl = |words: &[&str]| machine.run(&[&["systemctl"], words].concat());
    replaced(systemctl, || systemctl(&["restart", "flotillad.service"]).map(|_| ())).unwrap();
    cluster.wait_for_machines(machine, 3).unwrap();
    let ask = r#"exec 3<>/dev/tcp/127.0.0.1/49153 && printf 'GET /fleet/v1/state HTTP/1.1\r\nHost: 127.0.0.1:49153\r\nConnection: close\r\n\r\n' >&3 && cat <&3"#;
    let answer = machine.run(&["bash", "-c", ask]).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let states: Value = serde_json::from_str(body).unwrap();
    assert_eq!(states["states"].as_array().unwrap().len(), listed.len());
    let log = machine.journal(&["flotillad.service"]).unwrap();
    assert!(log.contains("insecure-loopback is on"), "{log}");
}
