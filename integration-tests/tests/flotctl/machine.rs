//! The commands about machines: what is said of one holds at once, for what runs and for what is placed.

use flotilla_api::{
    machine::{Machine, MachineOutcome},
    plan::{Drain, DrainStage, PlanOutcome, PlannedChange, RebalanceOutcome},
};
use flotilla_integration_tests::{LIMIT, eventually};
use serde_json::Value;

use crate::{
    Row,
    world::{World, has},
};

pub const ROWS: [Row; 7] = [
    ("machine metadata set", metadata_set),
    ("machine metadata unset", metadata_unset),
    ("machine cordon", cordon),
    ("machine uncordon", uncordon),
    ("machine drain", drain),
    ("rebalance", rebalance),
    ("plan", plan),
];

/// What the machine is said to have, as the list shows it.
fn metadata(world: &World) -> String {
    world.ask(&["list-machines", "--no-legend", "--fields=metadata"]).trim_end().to_owned()
}

/// How the machine is said to be.
fn state(world: &World) -> String {
    world.ask(&["list-machines", "--no-legend", "--fields=state"]).trim_end().to_owned()
}

/// What is set counts at once: a unit that asked for it in vain is started.
fn metadata_set(world: &World) {
    let text = "[Service]\nExecStart=/bin/sleep infinity\n[X-Flotilla]\nMachineMetadata=tier=gold\n";
    let path = world.write("golden.service", text);
    world.expect(5, &["start", &path]).complains(&["golden.service cannot be placed", "tier=gold"]);
    let set = ["machine", "metadata", "set", "m1", "tier=gold", "zone=a"];
    assert_eq!(world.ask(&set), "m1 metadata changed\n");
    assert_eq!(metadata(world), "host=m1,tier=gold,zone=a");
    assert_eq!(world.ask(&["start", "golden"]), "golden.service active on m1\n");

    let again: MachineOutcome = world.json(&set);
    assert!(!again.changed && again.machine.to_string() == world.machine().id(), "{again:?}");
    // Named by the beginning of its id, and over what the machine itself says.
    let begin = &world.machine().id()[..8];
    assert_eq!(world.ask(&["machine", "metadata", "set", begin, "host=other"]), "m1 metadata changed\n");
    assert_eq!(metadata(world), "host=other,tier=gold,zone=a");
    has("events", &world.ask(&["events", "--machine=m1", "-n", "5"]), &["tier=gold", "(root, request "]);

    world.expect(4, &["machine", "metadata", "set", "nobody", "a=b"]).complains(&["nobody"]);
    world.expect(2, &["machine", "metadata", "set", "m1", "gold"]).complains(&["`gold` has no `=`"]);
    world.expect(2, &["machine", "metadata", "set", "m1"]).complains(&["KEY=VALUE"]);
    assert_eq!(metadata(world), "host=other,tier=gold,zone=a", "what is refused changes nothing");
}

/// A unit leaves with what it asks for; the machine's own word comes back with `--reset`.
fn metadata_unset(world: &World) {
    let unset = ["machine", "metadata", "unset", "m1"];
    assert_eq!(world.ask(&[&unset[..], &["tier"]].concat()), "m1 metadata changed\n");
    assert_eq!(metadata(world), "host=other,zone=a");
    eventually(LIMIT, "the unit to leave", || {
        let listed = world.ask(&["list-units", "--no-legend", "--fields=unit,machine", "golden"]);
        Ok((listed == "golden.service  -\n").then_some(()))
    })
    .unwrap();
    has("why", &world.expect(5, &["why", "golden"]).out, &["MachineMetadata: metadata tier=gold"]);
    assert_eq!(world.ask(&[&unset[..], &["host"]].concat()), "m1 metadata changed\n");
    assert_eq!(metadata(world), "zone=a", "taken away although the machine itself says it");
    assert_eq!(
        world.ask(&[&unset[..], &["--reset", "host", "zone", "tier"]].concat()),
        "m1 metadata changed\n"
    );
    assert_eq!(metadata(world), "host=m1");
    world.expect(2, &[&unset[..], &["a=b"]].concat()).complains(&["`a=b` has a value"]);
    world.ask(&["destroy", "golden"]);
}

/// What is there stays as it is, and nothing comes.
fn cordon(world: &World) {
    let before = world.show("web@1.service", "InvocationID");
    assert_eq!(world.ask(&["machine", "cordon", "m1"]), "m1 cordoned\n");
    assert_eq!(state(world), "alive,cordoned");
    assert_eq!(world.ask(&["machine", "cordon", "m1"]), "m1 cordoned already\n");
    let path = world.write("shut-out.service", "[Service]\nExecStart=/bin/sleep infinity\n");
    let refused = world.expect(5, &["start", &path]);
    refused.complains(&["shut-out.service cannot be placed", "cordoned"]);
    let machines: Vec<Machine> = world.json(&["list-machines"]);
    assert!(machines[0].cordoned && !machines[0].draining, "{machines:?}");
    assert_eq!(world.show("web@1.service", "InvocationID"), before);
    world.expect(4, &["machine", "cordon", "nobody"]).complains(&["nobody"]);
}

/// What waited for room comes by itself.
fn uncordon(world: &World) {
    let done: MachineOutcome = world.json(&["machine", "uncordon", world.machine().id()]);
    assert!(done.changed && done.host.as_deref() == Some("m1"), "{done:?}");
    assert_eq!(state(world), "alive");
    eventually(LIMIT, "the unit that waited", || {
        Ok((world.show("shut-out.service", "ActiveState") == "active").then_some(()))
    })
    .unwrap();
    assert_eq!(world.ask(&["machine", "uncordon", "m1"]), "m1 uncordoned already\n");
    world.ask(&["destroy", "shut-out"]);
    world.expect(4, &["machine", "uncordon", "nobody"]).complains(&["nobody"]);
}

/// What runs on every machine leaves; what can go nowhere else stays, is named, and is the exit status. That
/// units run elsewhere first is shown where there are more machines.
fn drain(world: &World) {
    let text = "[Service]\nExecStart=/bin/sleep infinity\n[X-Flotilla]\nGlobal=true\n";
    let path = world.write("everywhere.service", text);
    world.ask(&["start", &path]);
    let before = world.show("web@1.service", "InvocationID");
    let plan = world.expect(5, &["machine", "drain", "--plan", "m1", "-o", "json"]);
    let plan: Drain = serde_json::from_str(&plan.out).unwrap();
    let stage = |unit: &str| plan.units.iter().find(|it| it.unit.as_str() == unit).map(|it| it.stage);
    assert_eq!(stage("web@1.service"), Some(DrainStage::Stays));
    assert_eq!(stage("everywhere.service"), Some(DrainStage::Waiting));
    let plan = world.expect(5, &["machine", "drain", "--plan", "m1"]);
    has("a plan", &plan.out, &["web@1.service stays: ", "everywhere.service stops"]);
    assert_eq!((state(world).as_str(), plan.err.as_str()), ("alive", ""), "a plan does nothing");
    assert_eq!(world.show("everywhere.service", "ActiveState"), "active");

    let drained = world.expect(5, &["machine", "drain", "m1", "--timeout=1min"]);
    has("drain", &drained.out, &["everywhere.service has left m1"]);
    drained.complains(&["web@1.service stays: ", "web@2.service stays: "]);
    assert_eq!(state(world), "alive,draining");
    assert_ne!(world.show("everywhere.service", "ActiveState"), "active");
    assert_eq!(world.show("web@1.service", "InvocationID"), before, "what stays was not touched");
    assert_eq!(world.ask(&["machine", "drain", "--no-block", "m1"]), "m1 drain ordered already\n");
    let again = world.expect(5, &["machine", "drain", "m1", "-o", "json"]);
    let told: Value = serde_json::from_str(&again.out).unwrap();
    assert!(told["machine"] == "m1" && told["remaining"].as_array().unwrap().len() >= 2, "{told}");

    assert_eq!(world.ask(&["machine", "uncordon", "m1"]), "m1 uncordoned\n");
    assert_eq!(state(world), "alive");
    eventually(LIMIT, "what runs everywhere to be back", || {
        Ok((world.show("everywhere.service", "ActiveState") == "active").then_some(()))
    })
    .unwrap();
    world.ask(&["destroy", "everywhere"]);
    world.expect(4, &["machine", "drain", "nobody"]).complains(&["nobody"]);
}

/// There is nowhere to move anything; that it is moved is shown where there are more machines.
fn rebalance(world: &World) {
    let invocation = || world.show("web@1.service", "InvocationID");
    let before = invocation();
    has("rebalance", &world.ask(&["rebalance", "--plan", "--budget=3"]), &["nothing to move"]);
    let done: RebalanceOutcome = world.json(&["rebalance", "--apply"]);
    assert!(done.applied && done.moves.is_empty() && done.machines.len() == 1, "{done:?}");
    let begun: RebalanceOutcome = world.json(&["rebalance", "--apply", "--no-block"]);
    assert!(begun.applied && begun.moves.is_empty(), "{begun:?}");
    has("rebalance", &world.ask(&["rebalance", "--apply", "--timeout=30s"]), &["nothing to move"]);
    let foreseen: RebalanceOutcome = world.json(&["rebalance"]);
    assert!(!foreseen.applied, "nothing is done unless it is asked for: {foreseen:?}");
    assert_eq!(invocation(), before);
    world.expect(2, &["rebalance", "--plan", "--apply"]).complains(&["--plan", "--apply"]);
}

/// What would come of it comes of it, and not before.
fn plan(world: &World) {
    let path = world.write("imagined.service", "[Service]\nExecStart=/bin/sleep infinity\n");
    assert_eq!(world.ask(&["plan", &path]), "create    imagined.service  on m1\n");
    let foreseen: PlanOutcome = world.json(&["plan", &path, "web@1"]);
    let changes: Vec<_> = foreseen.units.iter().map(|unit| (unit.unit.as_str(), unit.change)).collect();
    let expected = [("imagined.service", PlannedChange::Create), ("web@1.service", PlannedChange::Unchanged)];
    assert_eq!(changes, expected);
    assert_eq!(world.ask(&["list-unit-files", "--no-legend", "imagined*"]), "", "nothing is changed");
    assert_eq!(world.ask(&["start", &path]), "imagined.service active on m1\n");
    assert_eq!(world.ask(&["plan", &path]), "unchanged imagined.service  stays on m1\n");
    world.ask(&["destroy", "imagined"]);

    let text = "[Service]\nExecStart=/bin/true\n[X-Flotilla]\nMachineMetadata=host=m7\n";
    let nowhere = world.expect(5, &["plan", &world.write("nowhere.service", text)]);
    has("plan", &nowhere.out, &["nowhere.service  nowhere: ", "m1  MachineMetadata: "]);
    world.expect(4, &["plan", "nobody"]).complains(&["there is no unit nobody.service"]);
}
