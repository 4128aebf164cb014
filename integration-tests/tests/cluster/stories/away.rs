//! A machine leaves and returns.

use flotilla_integration_tests::{LIMIT, eventually};

use super::Stage;
use crate::{GRACE, MACHINE_LEASE};

/// What may be elsewhere is; what may not waits, and says for what; and all of it is back with the machine.
pub(super) fn a_machine_leaves_and_returns(stage: &Stage<'_>) {
    let m3 = stage.cluster.machine("m3").unwrap();
    stage.submit(&[
        ("web@.service", "Conflicts=web@*.service\nPrefer=host=m%i"),
        ("announce@.service", "MachineOf=web@%i.service"),
        ("bound.service", "MachineID=m3"),
        ("shard.service", "Sticky=yes\nPrefer=host=m3"),
        ("roams.service", "Prefer=host=m3"),
        ("watch.service", "Global=yes"),
    ]);
    stage.start("web@1 web@2 web@3 announce@3 bound shard roams watch");
    for unit in ["web@3.service", "announce@3.service", "bound.service", "shard.service", "roams.service"] {
        assert_eq!(stage.host(unit), "m3", "{unit}");
    }
    let before = stage.cluster.invocations().unwrap();

    m3.kill().unwrap();
    eventually(MACHINE_LEASE + GRACE + LIMIT, "the machine to be known as lost", || {
        let text = stage.cluster.ask(stage.m1, &["list-machines", "m3", "--fields=state", "--no-legend"])?;
        Ok(text.contains("lost").then_some(()))
    })
    .unwrap();
    let roams = stage.host_other_than("roams.service", "m3");
    let conflict = |host: &str| format!("Conflicts: conflicts with web@{}.service", &host[1..]);
    stage.nowhere("web@3.service", &[("m1", &conflict("m1")), ("m2", &conflict("m2"))]);
    let leader = "MachineOf: web@3.service is not placed";
    stage.nowhere("announce@3.service", &[("m1", leader), ("m2", leader)]);
    let not = "MachineID: not machine m3";
    stage.nowhere("bound.service", &[("m1", not), ("m2", not)]);
    // It could run on either, and waits for its own.
    let could = "could run here";
    let (_, summary) = stage.why("shard.service", &[("m1", could), ("m2", could)]);
    assert_eq!(summary, "shard.service: it is sticky and waits for m3");
    stage.cluster.wait_active(stage.m1, "watch.service", 1).unwrap();

    m3.boot().unwrap();
    stage.cluster.wait_for_machines(stage.m1, 3).unwrap();
    for unit in ["web@3.service", "announce@3.service", "bound.service", "shard.service"] {
        stage.comes_to(unit, &["m3"]);
    }
    stage.comes_to("watch.service", &["m1", "m2", "m3"]);
    assert_eq!(stage.host("roams.service"), roams, "what has moved stays where it is");
    let after = stage.cluster.invocations().unwrap();
    for ((host, unit), was) in before.iter().filter(|((host, _), _)| host != "m3") {
        assert_eq!(after.get(&(host.clone(), unit.clone())), Some(was), "{unit} on {host} was started anew");
    }

    // Sticky ends where its requirements do: with its machine's metadata, or by order.
    stage.flotctl("unload shard");
    stage.flotctl("machine cordon m3");
    stage.start("shard");
    assert_ne!(stage.host("shard.service"), "m3");
    stage.flotctl("machine uncordon m3");
}
