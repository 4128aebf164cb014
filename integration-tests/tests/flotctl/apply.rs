//! A folder of unit files and the cluster: what differs, and how it comes to be the same.

use serde_json::Value;

use crate::{
    Row,
    world::{World, has},
};

pub const ROWS: [Row; 2] = [("diff", diff), ("apply", apply)];

const SHOP: &str = "/root/shop";

/// Writes a file of the folder that tells its text apart by its description.
fn write(world: &World, unit: &str, version: &str) {
    let text = format!("[Unit]\nDescription={version}\n[Service]\nExecStart=/bin/sleep infinity\n");
    world.machine().write_file(&format!("{SHOP}/{unit}.service"), text).unwrap();
}

fn listed(world: &World, unit: &str) -> String {
    world.ask(&["list-unit-files", "--no-legend", "--fields=unit,target", unit])
}

fn diff(world: &World) {
    write(world, "shelf", "first");
    let told = world.ask(&["diff", SHOP]);
    has(
        "diff",
        &told,
        &["shelf.service  create     launched, on m1", "+++ folder/shelf.service", "+Description=first"],
    );
    world.expect(7, &["diff", "--exit-code", SHOP]);
    let told: Value = world.json(&["diff", SHOP]);
    let row = &told["units"][0];
    assert_eq!((&row["unit"], &row["change"]), (&"shelf.service".into(), &"create".into()), "{told}");
    assert_eq!(row["machines"][0]["host"], "m1", "{told}");
    assert_eq!(listed(world, "shelf"), "", "nothing is changed");
    world.expect(1, &["diff", "/root/no-such-folder"]).complains(&["/root/no-such-folder"]);
}

fn apply(world: &World) {
    let runs = || (world.show("shelf.service", "Description"), world.show("shelf.service", "InvocationID"));
    assert_eq!(world.ask(&["apply", "--plan", SHOP]), "shelf.service  create     launched, on m1\n");
    assert_eq!(listed(world, "shelf"), "", "a plan changes nothing");
    has("apply", &world.ask(&["apply", "--timeout=1min", SHOP]), &["shelf.service active on m1"]);
    let first = runs();
    assert_eq!(first.0, "first");
    assert_eq!(world.ask(&["apply", SHOP]), "nothing to do: the cluster has what shop says\n");
    assert_eq!(world.ask(&["diff", "--exit-code", SHOP]), "nothing to do: the cluster has what shop says\n");

    write(world, "shelf", "second");
    world.ask(&["apply", "--no-restart", SHOP]);
    has("cat", &world.ask(&["cat", "shelf"]), &["Description=second"]);
    assert_eq!(runs(), first, "what runs was left, also by the applies that had nothing to do");
    world.ask(&["restart", "shelf"]);
    assert_eq!(runs().0, "second");
    write(world, "shelf", "third");
    has("apply", &world.ask(&["apply", SHOP]), &["shelf.service  update", "shelf.service active on m1"]);
    assert_eq!(runs().0, "third", "it is waited for");

    // A set takes away what it made, when it is told to, and no other's.
    world.machine().run(&["rm", &format!("{SHOP}/shelf.service")]).unwrap();
    write(world, "till", "first");
    has("apply", &world.ask(&["apply", "--no-block", SHOP]), &["till.service start ordered"]);
    assert_eq!(listed(world, "shelf"), "shelf.service  launched\n", "only with --prune");
    write(world, "till", "second");
    let refused = world.expect(1, &["apply", "--set=other", SHOP]);
    refused.complains(&["till.service", "made by the set `shop`"]);
    world.expect(1, &["diff", "--set=other", SHOP]).complains(&["made by the set `shop`"]);
    for command in ["diff", "apply"] {
        world.expect(2, &[command, "--prune", SHOP]).complains(&["expected `set = \"NAME\"`"]);
    }
    let prune = |command| world.ask(&[command, "--prune", "--set=shop", SHOP]);
    has("diff", &prune("diff"), &["shelf.service  remove", "-Description=third"]);
    has("apply", &prune("apply"), &["shelf.service destroyed"]);
    assert_eq!(listed(world, "shelf"), "");
    assert_eq!(listed(world, "till"), "till.service  launched\n");

    // It is another's from now on, as it runs; and a folder without units takes nothing away.
    let runs = || world.show("till.service", "InvocationID");
    let before = runs();
    for command in ["diff", "apply"] {
        let told = world.ask(&[command, "--take-over", "--set=other", SHOP]);
        has(command, &told, &["till.service  take over  as it is, from the set `shop`"]);
    }
    world.expect(1, &["apply", SHOP]).complains(&["made by the set `other`"]);
    world.machine().run(&["rm", &format!("{SHOP}/till.service")]).unwrap();
    let refused = world.expect(1, &["apply", "--prune", "--set=other", SHOP]);
    refused.complains(&["there is no unit file in"]);
    assert_eq!(runs(), before);
    world.ask(&["destroy", "till"]);

    // What was deployed and failed is not well because it was written.
    let broken = "[Service]\nType=oneshot\nExecStart=/bin/false\n";
    world.machine().write_file(&format!("{SHOP}/broken.service"), broken).unwrap();
    for _ in 0..2 {
        world.expect(3, &["apply", SHOP]).complains(&["broken.service", "exit status 1"]);
    }
    world.ask(&["diff", "--exit-code", SHOP]);
    world.ask(&["destroy", "broken"]);
}
