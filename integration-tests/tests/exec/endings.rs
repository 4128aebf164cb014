//! What ends a session before its command ends, and what is left then: nothing.

use std::time::Duration;

use crate::{LIMIT, World, eventually, replaced};

/// What is asked to end may take two seconds, and is killed then; the rest is for a busy computer.
const GONE_WITHIN: Duration = Duration::from_secs(12);

pub fn client_goes(world: &World) {
    // One that ends when it is asked to, and one that does not; each with a child of its own.
    let line = "sleep 4241 & trap '' HUP; sleep 4242 & echo begun; while :; do sleep 4243; done";
    let mut client = world.follow(&["exec", "box", "--", "sh", "-c", line]);
    client.until("begun").unwrap();
    world.wait_running("sleep 4243");
    drop(client);
    for process in ["sleep 4241", "sleep 4242", "sleep 4243"] {
        let took = world.wait_gone(process);
        assert!(took < GONE_WITHIN, "{process} took {took:?}");
    }
    let mut client = world.follow(&["shell", "m2", "-t", "--", "sh", "-c", "echo begun; sleep 4244"]);
    client.until("begun").unwrap();
    drop(client);
    assert!(world.wait_gone("sleep 4244") < GONE_WITHIN);
    assert_eq!(world.show("box.service", "ActiveState"), "active", "the unit is not touched by it");
}

pub fn unit_stops(world: &World) {
    let mut client = world.follow(&["exec", "box", "--", "sh", "-c", "echo begun; exec sleep 4245"]);
    client.until("begun").unwrap();
    world.ask(&["stop", "box"]);
    assert_eq!(client.end().unwrap().0, Some(128 + 15), "it ended as the unit did");
    world.ask(&["start", "box"]);
    eventually(LIMIT, "the unit to run again", || {
        Ok((world.show("box.service", "ActiveState") == "active").then_some(()))
    })
    .unwrap();
}

pub fn flotillad_dies(world: &World) {
    let far = world.far();
    let systemctl = |words: &[&str]| far.run(&[&["systemctl"], words].concat());
    let mut client =
        world.follow(&["exec", "box", "--", "sh", "-c", "echo begun; trap '' HUP; sleep 4246; sleep 4247"]);
    client.until("begun").unwrap();
    replaced(systemctl, || systemctl(&["kill", "--signal=SIGKILL", "flotillad"]).map(|_| ())).unwrap();
    assert!(world.wait_gone("sleep 4246") < GONE_WITHIN);
    assert_eq!(client.end().unwrap().0, Some(255));
    world.cluster.wait_for_machines(world.asked(), 2).unwrap();
    assert_eq!(world.in_box("echo again"), "again\n");
}

pub fn nothing_is_left(world: &World) {
    eventually(LIMIT, "the sessions' services to be forgotten", || {
        let words =
            ["systemctl", "list-units", "--all", "--no-legend", "flotilla-exec-*", "flotilla-shell-*"];
        Ok(world.far().run(&words)?.trim().is_empty().then_some(()))
    })
    .unwrap();
    assert!(!world.processes().contains("flotillad session"), "{}", world.processes());
    let listed = world.ask(&["list-units"]);
    assert!(!listed.contains("flotilla-"), "no session is a unit of the cluster: {listed}");
}
