//! Machines and their metadata, in both forms that fleet's clients sent.

use serde_json::{Value, json};

use crate::world::{World, id};

fn change(op: &str, n: usize, key: &str, value: Value) -> Value {
    json!({ "op": op, "path": format!("/{}/metadata/{key}", id(n)), "value": value })
}

fn metadata(world: &World, n: usize) -> Value {
    world.get("/machines").json()["machines"][n - 1]["metadata"].clone()
}

#[test]
fn machines_are_listed_by_id_with_address_and_metadata() {
    let world = World::new(2);
    let machine = |n: usize| json!({ "id": id(n), "primaryIP": format!("10.0.0.{n}"), "metadata": { "host": format!("m{n}") } });
    for (wire, base) in world.doors() {
        let listed = wire.get(&format!("{base}/machines")).json();
        assert_eq!(listed, json!({ "machines": [machine(1), machine(2)] }), "and nothing of its facts");
    }
}

#[test]
fn metadata_is_changed_in_the_documented_form_and_in_the_one_that_the_code_took() {
    let world = World::new(2);
    let reply = world.patch(json!([
        change("add", 1, "plain", json!("a")),
        change("replace", 1, "nested", json!({ "value": "b" })),
        change("add", 2, "other.key_of-2", json!("c")),
    ]));
    reply.is_empty(204);
    assert_eq!(reply.header("content-type"), Some("application/json"), "as fleet had it");
    assert_eq!(metadata(&world, 1), json!({ "host": "m1", "plain": "a", "nested": "b" }));
    assert_eq!(metadata(&world, 2), json!({ "host": "m2", "other.key_of-2": "c" }));
    // Added again is replaced; later ones of a request win.
    world
        .patch(json!([
            change("add", 1, "plain", json!("x")),
            change("add", 1, "plain", json!({ "value": "y" })),
            change("remove", 1, "nested", json!(null)),
            json!({ "op": "remove", "path": format!("/{}/metadata/never", id(1)) }),
        ]))
        .is_empty(204);
    assert_eq!(metadata(&world, 1), json!({ "host": "m1", "plain": "y" }));
    // The configuration's value is covered, and comes back.
    world.patch(json!([change("add", 1, "host", json!("covered"))])).is_empty(204);
    assert_eq!(metadata(&world, 1)["host"], "covered");
    world.patch(json!([change("remove", 1, "host", json!(null))])).is_empty(204);
    assert_eq!(metadata(&world, 1)["host"], "m1");
    world.patch(json!([])).is_empty(204);
}

#[test]
fn a_unit_moves_with_the_metadata_that_it_needs() {
    let world = World::new(2);
    world.patch(json!([change("add", 1, "role", json!("db"))])).is_empty(204);
    let body = json!({ "desiredState": "launched", "options": [
        { "section": "Service", "name": "ExecStart", "value": "/bin/sleep infinity" },
        { "section": "X-Fleet", "name": "MachineMetadata", "value": "role=db" },
    ] });
    world.put("db.service", body).is_empty(201);
    world.until("it to run on the first", |world| world.runs_on("db.service") == [1]);
    world
        .patch(json!([change("remove", 1, "role", json!(null)), change("add", 2, "role", json!("db"))]))
        .is_empty(204);
    world.until("it to run on the second", |world| world.runs_on("db.service") == [2]);
}

#[test]
fn nothing_is_changed_by_a_patch_with_a_fault_in_it() {
    let world = World::new(1);
    let good = change("add", 1, "good", json!("a"));
    let path = |path: &str| json!({ "op": "add", "path": path, "value": "v" });
    let rows: [(Value, &str); 15] = [
        (change("set", 1, "k", json!("v")), "invalid op: expect add, remove, or replace"),
        (change("", 1, "k", json!("v")), "invalid op: expect add, remove, or replace"),
        (json!({}), "invalid op: expect add, remove, or replace"),
        (path(""), "machine metadata path invalid"),
        (path("/metadata/k"), "machine metadata path invalid"),
        (path(&format!("{}/metadata/k", id(1))), "machine metadata path invalid"),
        (path(&format!("/{}/metadata/", id(1))), "machine metadata path invalid"),
        (path(&format!("/{}/metadata/a b", id(1))), "machine metadata path invalid"),
        (path(&format!("/{}/metadata/a/b", id(1))), "machine metadata path invalid"),
        (path(&format!("/{}/data/a", id(1))), "machine metadata path invalid"),
        (path("/nobody/metadata/k"), "machine metadata path invalid"),
        (change("add", 1, "k", json!("")), "invalid value: add and replace require a value"),
        (change("replace", 1, "k", json!(null)), "invalid value: add and replace require a value"),
        (change("add", 1, "k", json!({ "value": "" })), "invalid value: add and replace require a value"),
        (change("add", 1, "k", json!(["v"])), "invalid value: add and replace require a value"),
    ];
    for (bad, message) in rows {
        let said = world.patch(json!([good, bad])).refusal(400);
        assert!(said.starts_with(message), "{bad}: {said}");
    }
    for body in ["", "{}", "[1]", "{\"op\":\"add\"}", "[{\"op\":1}]"] {
        world.unix.send("PATCH", "/fleet/v1/machines", body).refusal(400);
    }
    assert_eq!(metadata(&world, 1), json!({ "host": "m1" }));
}

/// fleet asked for no type here, so no client need send one.
#[test]
fn a_patch_needs_no_content_type() {
    let world = World::new(1);
    let body = json!([change("add", 1, "k", json!("v"))]).to_string();
    world.tcp.raw("PATCH /v1-alpha/machines HTTP/1.1", &[], body.as_bytes()).is_empty(204);
    assert_eq!(metadata(&world, 1)["k"], "v");
}
