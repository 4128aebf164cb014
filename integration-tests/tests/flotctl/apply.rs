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
        &["shelf.service  create    launched", "+++ folder/shelf.service", "+Description=first"],
    );
    world.expect(1, &["diff", "--exit-code", SHOP]);
    let rows: Value = world.json(&["diff", SHOP]);
    assert_eq!((&rows[0]["unit"], &rows[0]["change"]), (&"shelf.service".into(), &"create".into()), "{rows}");
    assert_eq!(listed(world, "shelf"), "", "nothing is changed");
    world.expect(1, &["diff", "/root/no-such-folder"]).complains(&["/root/no-such-folder"]);
}

fn apply(world: &World) {
    let runs = || (world.show("shelf.service", "Description"), world.show("shelf.service", "InvocationID"));
    assert_eq!(world.ask(&["apply", "--plan", SHOP]), "create    shelf.service  on m1\n");
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
    has("diff", &world.ask(&["diff", "--prune", SHOP]), &["shelf.service  remove", "-Description=third"]);
    has("apply", &world.ask(&["apply", "--prune", SHOP]), &["shelf.service destroyed"]);
    assert_eq!(listed(world, "shelf"), "");
    assert_eq!(listed(world, "till"), "till.service  launched\n");
    world.ask(&["destroy", "till"]);
}
