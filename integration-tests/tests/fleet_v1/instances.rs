//! Templates and their instances. fleet's instances were copies of a text; flotilla's follow their
//! template, and one whose text is another keeps it for itself.

use serde_json::{Value, json};

use crate::world::World;

fn options(what: &str) -> Value {
    json!([{ "section": "Service", "name": "ExecStart", "value": format!("/bin/echo {what} %i") }])
}

fn text_of(world: &World, unit: &str) -> Value {
    world.unix.get(&format!("/v1/units/{unit}/content")).json()["text"].clone()
}

#[test]
fn an_instance_with_its_templates_options_follows_the_template() {
    let world = World::new(1);
    world.put("web@.service", json!({ "options": options("one") })).is_empty(201);
    // As fleetctl makes it: the template's text under the instance's name, in no state.
    world.put("web%401.service", json!({ "name": "web@1.service", "options": options("one") })).is_empty(201);
    assert_eq!(
        world.unit("web@1.service"),
        json!({
            "name": "web@1.service",
            "desiredState": "inactive",
            "currentState": "inactive",
            "options": options("one"),
        })
    );
    world.put("web@1.service", json!({ "desiredState": "launched" })).is_empty(204);
    world.until_current("web@1.service", "launched");
    // Its text follows (#1508, #1691).
    world.put("web@.service", json!({ "options": options("two") })).is_empty(201);
    assert_eq!(world.unit("web@1.service")["options"], options("two"));
    world.until("it to run anew", |world| world.starts("web@1.service") == 2);
    world.put("web@1.service", json!({ "options": options("two"), "desiredState": "loaded" })).is_empty(204);
    world.until_current("web@1.service", "loaded");
}

/// fleet could not (#1118).
#[test]
fn an_instance_of_a_known_template_needs_no_options() {
    let world = World::new(1);
    world.put("web@.service", json!({ "options": options("one") })).is_empty(201);
    world.put("web@7.service", json!({ "desiredState": "launched" })).is_empty(201);
    world.until_current("web@7.service", "launched");
    world.put("web@8.service", json!({})).is_empty(201);
    assert_eq!(world.unit("web@8.service")["desiredState"], "inactive");
    assert_eq!(world.unit("web@8.service")["options"], options("one"));
    let message = world.put("db@1.service", json!({ "desiredState": "launched" })).refusal(409);
    assert_eq!(message, "unit does not exist and options field empty");
}

#[test]
fn an_instance_with_options_of_its_own_keeps_them() {
    let world = World::new(1);
    // Without a template, as fleetctl makes one of a file beside it.
    let body = |what: &str| json!({ "options": options(what), "desiredState": "launched" });
    world.put("own@1.service", body("first")).is_empty(201);
    world.put("own@2.service", body("second")).is_empty(201);
    for (unit, what) in [("own@1.service", "first"), ("own@2.service", "second")] {
        world.until_current(unit, "launched");
        assert_eq!(world.unit(unit)["options"], options(what));
        assert_eq!(text_of(&world, unit), format!("[Service]\nExecStart=/bin/echo {what} %i\n"));
    }
    world.get("/units/own@.service").refusal(404);
    // A template that comes later is not theirs.
    world.put("own@.service", json!({ "options": options("third") })).is_empty(201);
    assert_eq!(world.unit("own@1.service")["options"], options("first"));
    world.put("own@3.service", json!({ "desiredState": "launched" })).is_empty(201);
    assert_eq!(world.unit("own@3.service")["options"], options("third"));
    // Neither is it shown, planned or taken for theirs.
    assert_eq!(text_of(&world, "own@1.service"), "[Service]\nExecStart=/bin/echo first %i\n");
    let shown = world.unix.get("/v1/units/own@1.service/content").json();
    assert!(shown.get("template").is_none(), "{shown}");
    let shown = world.unix.get("/v1/units/own@3.service/content").json();
    assert_eq!(shown["template"], "own@.service");
    // It is replaced alone.
    world.put("own@2.service", json!({ "options": options("other") })).is_empty(201);
    world.until("it to run anew", |world| world.starts("own@2.service") == 2);
    assert_eq!(world.starts("own@1.service"), 1);
    // An instance that followed the template, and gets a text of its own, does not any more.
    world.put("own@3.service", json!({ "options": options("apart") })).is_empty(201);
    world.put("own@.service", json!({ "options": options("fourth") })).is_empty(201);
    assert_eq!(world.unit("own@3.service")["options"], options("apart"));
    // Destroyed, edited and started again: the edit counts.
    world.delete("own@1.service").is_empty(204);
    world.put("own@1.service", body("edited")).is_empty(201);
    assert_eq!(world.unit("own@1.service")["options"], options("edited"));
    world.until_current("own@1.service", "launched");
}

#[test]
fn a_template_goes_when_nothing_follows_it() {
    let world = World::new(1);
    world.put("web@.service", json!({ "options": options("one") })).is_empty(201);
    world.put("web@1.service", json!({ "desiredState": "launched" })).is_empty(201);
    let message = world.delete("web@.service").refusal(409);
    assert!(message.contains("has 1 instance(s), for example `web@1.service`"), "{message}");
    world.delete("web@1.service").is_empty(204);
    world.put("web@2.service", json!({ "options": options("own") })).is_empty(201);
    world.delete("web@.service").is_empty(204);
    world.get("/units/web@.service").refusal(404);
    assert_eq!(world.unit("web@2.service")["options"], options("own"));
    world.put("web@2.service", json!({ "desiredState": "launched" })).is_empty(204);
    world.until_current("web@2.service", "launched");
}
