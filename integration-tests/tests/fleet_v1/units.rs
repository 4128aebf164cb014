//! Units: made, looked at, changed, destroyed; and everything that is refused.

use serde_json::{Value, json};

use crate::world::{World, name};

/// One option.
fn option(section: &str, name: &str, value: &str) -> Value {
    json!({ "section": section, "name": name, "value": value })
}

fn sleeper() -> Value {
    json!([option("Service", "ExecStart", "/bin/sleep infinity")])
}

fn other() -> Value {
    json!([option("Service", "ExecStart", "/bin/sleep 1000")])
}

#[test]
fn a_unit_is_made_and_shown_as_it_was_sent() {
    let world = World::new(1);
    let options = json!([
        option("Unit", "Description", "says hello"),
        option("Service", "ExecStartPre", "/bin/echo \\\n  a long line"),
        option("Service", "ExecStart", "/bin/echo a=b %n"),
        option("X-Fleet", "Conflicts", "bye*.service"),
    ]);
    for (wire, base) in world.doors() {
        let path = format!("{base}/units/hello.service");
        let body = json!({ "name": "hello.service", "options": options, "desiredState": "inactive" });
        wire.send("PUT", &path, &body.to_string()).is_empty(201);
        let unit = json!({
            "name": "hello.service",
            "currentState": "inactive",
            "desiredState": "inactive",
            "options": options,
        });
        assert_eq!(wire.get(&path).json(), unit);
        assert_eq!(wire.get(&format!("{base}/units")).json(), json!({ "units": [unit] }));
        wire.delete(&path).is_empty(204);
        assert_eq!(wire.get(&path).refusal(404), "unit does not exist");
    }
}

/// The text is what fleet would have made of the options: flotilla's own tools show it.
#[test]
fn the_text_is_fleets_normal_form() {
    let world = World::new(1);
    let options = json!([
        option("Service", "ExecStart", ""),
        option("Unit", "After", "a.service"),
        option("Service", "ExecStart", "/bin/true"),
    ]);
    world.put("n.service", json!({ "options": options })).is_empty(201);
    let content = world.unix.get("/v1/units/n.service/content").json();
    assert_eq!(content["text"], "[Service]\nExecStart=\nExecStart=/bin/true\n\n[Unit]\nAfter=a.service\n");
    // An empty value is left out, as fleet left it out.
    assert_eq!(world.unit("n.service")["options"][0], json!({ "section": "Service", "name": "ExecStart" }));
    let again = world.unit("n.service")["options"].clone();
    assert_eq!(world.put("n.service", json!({ "options": again })).refusal(409), NO_STATE);
}

const NO_STATE: &str = "must provide DesiredState to update existing unit";

#[test]
fn names_are_taken_percent_encoded() {
    let world = World::new(1);
    for (unit, encoded, section) in [
        ("web@a-b.service", "web%40a%2Db.service", "Service"),
        ("srv-by\\x2dlabel.mount", "srv-by%5Cx2dlabel.mount", "Mount"),
        ("a:b_c.d.timer", "a%3Ab_c%2Ed.timer", "Timer"),
    ] {
        let body = json!({ "name": unit, "options": [option(section, "Description", "odd")] });
        world.put(encoded, body).is_empty(201);
        assert_eq!(world.unit(encoded)["name"], unit);
        world.delete(encoded).is_empty(204);
        world.get(&format!("/units/{encoded}")).refusal(404);
    }
}

#[test]
fn targets_are_set_and_reached() {
    let world = World::new(1);
    world.put("s.service", json!({ "options": sleeper() })).is_empty(201);
    for (state, runs) in [("launched", 1), ("loaded", 0), ("launched", 1), ("inactive", 0), ("loaded", 0)] {
        world.put("s.service", json!({ "name": "s.service", "desiredState": state })).is_empty(204);
        world.until_current("s.service", state);
        assert_eq!(world.unit("s.service")["desiredState"], state);
        world.until("systemd to agree", |world| world.runs_on("s.service").len() == runs);
        let machine = world.unit("s.service").get("machineID").cloned();
        assert_eq!(machine.is_some(), state != "inactive", "{state}");
    }
    // The same again is nothing.
    world.put("s.service", json!({ "desiredState": "launched" })).is_empty(204);
    world.until_current("s.service", "launched");
    let starts = world.starts("s.service");
    world.put("s.service", json!({ "desiredState": "launched" })).is_empty(204);
    world.put("s.service", json!({ "desiredState": "launched", "options": sleeper() })).is_empty(204);
    assert_eq!(world.unit("s.service")["currentState"], "launched");
    assert_eq!(world.starts("s.service"), starts);
}

#[test]
fn a_unit_can_be_made_in_any_state() {
    let world = World::new(1);
    for state in ["inactive", "loaded", "launched"] {
        let unit = format!("{state}.service");
        world.put(&unit, json!({ "options": sleeper(), "desiredState": state })).is_empty(201);
        world.until_current(&unit, state);
    }
    // Where nothing is said, nothing is wanted.
    for said in [json!(null), json!("")] {
        world.put("n.service", json!({ "options": sleeper(), "desiredState": said })).is_empty(201);
        assert_eq!(world.unit("n.service")["desiredState"], "inactive");
        world.delete("n.service").is_empty(204);
    }
}

/// fleet stopped the unit, and started it wherever it liked.
#[test]
fn other_content_takes_the_place_of_what_runs_and_keeps_it_running() {
    let world = World::new(2);
    world.put("s.service", json!({ "options": sleeper(), "desiredState": "launched" })).is_empty(201);
    world.until_current("s.service", "launched");
    let before = world.unit("s.service");
    world.put("s.service", json!({ "options": other() })).is_empty(201);
    assert_eq!(world.unit("s.service")["options"], other());
    assert_eq!(world.unit("s.service")["desiredState"], "launched");
    world.until("it to run anew", |world| {
        world.starts("s.service") == 2 && world.runs_on("s.service").len() == 1
    });
    world.until_current("s.service", "launched");
    assert_eq!(world.unit("s.service")["machineID"], before["machineID"], "where it was");
    // With a state, both at once.
    world.put("s.service", json!({ "options": sleeper(), "desiredState": "loaded" })).is_empty(201);
    world.until_current("s.service", "loaded");
    assert_eq!(world.unit("s.service")["options"], sleeper());
    assert_eq!(world.runs_on("s.service"), [0; 0]);
}

#[test]
fn everything_that_cannot_be_put_is_refused_with_its_reason() {
    let world = World::new(1);
    world.put("known.service", json!({ "options": sleeper() })).is_empty(201);
    world.put("t@.service", json!({ "options": sleeper() })).is_empty(201);
    let unknown = "unit does not exist and options field empty";
    let conflict = json!([
        option("Service", "ExecStart", "/bin/true"),
        option("X-Fleet", "MachineOf", "a.service"),
        option("X-Fleet", "Global", "true"),
    ]);
    let unknown_option =
        json!([option("Service", "ExecStart", "/bin/true"), option("X-Fleet", "Machineof", "a.service")]);
    let rows: [(&str, Value, u16, &str); 23] = [
        ("new.service", json!({}), 409, unknown),
        ("new.service", json!({ "desiredState": "launched" }), 409, unknown),
        ("new.service", json!({ "options": [] }), 409, unknown),
        ("new.service", json!({ "options": null }), 409, unknown),
        ("known.service", json!({}), 409, NO_STATE),
        ("known.service", json!({ "options": sleeper() }), 409, NO_STATE),
        ("known.service", json!({ "desiredState": "" }), 409, NO_STATE),
        ("known.service", json!({ "name": "other.service" }), 400, "differs from unit name in request body"),
        ("nosuffix", json!({ "options": sleeper() }), 400, "nosuffix"),
        ("no%20name.service", json!({ "options": sleeper() }), 400, "no name.service"),
        ("@foo.service", json!({ "options": sleeper() }), 400, "@foo.service"),
        ("foo.bar", json!({ "options": sleeper() }), 400, "foo.bar"),
        // fleet stored any word, and the unit was lost to everybody.
        ("known.service", json!({ "desiredState": "started" }), 400, "expected inactive, loaded or launched"),
        (
            "known.service",
            json!({ "desiredState": "Launched" }),
            400,
            "expected inactive, loaded or launched",
        ),
        ("new.service", json!({ "options": sleeper(), "desiredState": "x" }), 400, "expected inactive"),
        ("t@.service", json!({ "desiredState": "launched" }), 400, "cannot activate template \"t@.service\""),
        ("t@.service", json!({ "desiredState": "loaded" }), 400, "cannot activate template \"t@.service\""),
        // fleet scheduled it, and systemd refused it ever after.
        (
            "u@.service",
            json!({ "options": sleeper(), "desiredState": "loaded" }),
            400,
            "cannot activate template",
        ),
        ("new.service", json!({ "options": conflict }), 400, "Global"),
        // fleet stored it and ignored it.
        ("new.service", json!({ "options": unknown_option }), 400, "MachineOf"),
        // fleet looked at options only when a unit was new.
        ("known.service", json!({ "options": conflict }), 400, "Global"),
        (
            "new.service",
            json!({ "options": [option("Service", "ExecStart", "/bin/true\nUser=root")] }),
            400,
            "cannot be written in a unit file",
        ),
        ("new.service", json!({ "options": [option("Serv]ice", "A", "b")] }), 400, "cannot be written"),
    ];
    for (unit, body, code, part) in rows {
        let message = world.put(unit, body.clone()).refusal(code);
        assert!(message.contains(part), "{unit} {body}: {message}");
    }
    world.get("/units/new.service").refusal(404);
    assert_eq!(world.unit("known.service")["options"], sleeper());
}

#[test]
fn bodies_and_their_types_are_what_fleet_took() {
    let world = World::new(0);
    let line = "PUT /fleet/v1/units/a.service HTTP/1.1";
    let body = json!({ "options": sleeper() }).to_string();
    for headers in [
        &[][..],
        &["Content-Type: text/plain"],
        &["Content-Type: application/json; charset=utf-8"],
        &["Content-Type: Application/JSON"],
        &["Content-Type: application/json", "Content-Type: application/json"],
    ] {
        let message = world.unix.raw(line, headers, body.as_bytes()).refusal(415);
        assert!(message.contains("Content-Type"), "{message}");
    }
    for bad in
        ["", "{", "[]", "\"a\"", "{\"name\": 1}", "{\"options\": {}}", "{\"options\": [{\"name\": 1}]}"]
    {
        let message = world.unix.send("PUT", "/fleet/v1/units/a.service", bad).refusal(400);
        assert!(message.starts_with("unable to decode body: "), "{bad}: {message}");
    }
    // What a client sends along of its picture of the unit is not looked at.
    let body = json!({
        "options": sleeper(), "currentState": "launched", "machineID": "x", "more": [1],
    });
    world.put("a.service", body).is_empty(201);
    assert_eq!(world.unit("a.service")["currentState"], "inactive");
    let long = "x".repeat(17 << 20);
    let body = json!({ "options": [option("Service", "ExecStart", &long)] }).to_string();
    world.tcp.send("PUT", "/fleet/v1/units/b.service", &body).refusal(413);
    // A unit file has no longest line (fleet: 2,048 bytes), and a whole of 1 MiB.
    let long = format!("/bin/echo {}", "x".repeat(5_000));
    world.put("long.service", json!({ "options": [option("Service", "ExecStart", &long)] })).is_empty(201);
    assert_eq!(world.unit("long.service")["options"][0]["value"], json!(long));
}

#[test]
fn a_destroyed_unit_has_gone_when_that_is_answered_and_its_name_is_free() {
    let world = World::new(1);
    for _ in 0..3 {
        world.put("s.service", json!({ "options": sleeper(), "desiredState": "launched" })).is_empty(201);
        world.until_current("s.service", "launched");
        world.delete("s.service").is_empty(204);
        assert_eq!(world.runs_on("s.service"), [0; 0]);
        world.get("/units/s.service").refusal(404);
        world.get("/state/s.service").refusal(404);
        assert_eq!(world.delete("s.service").refusal(404), "unit does not exist");
    }
}

#[test]
fn a_unit_that_no_machine_can_take_waits_as_inactive() {
    let world = World::new(1);
    let options = json!([
        option("Service", "ExecStart", "/bin/sleep infinity"),
        option("X-Fleet", "MachineMetadata", "host=none"),
    ]);
    world.put("s.service", json!({ "options": options, "desiredState": "launched" })).is_empty(201);
    let unit = world.unit("s.service");
    assert_eq!((&unit["desiredState"], &unit["currentState"]), (&json!("launched"), &json!("inactive")));
    assert_eq!(unit.get("machineID"), None);
}

#[test]
fn a_global_unit_has_no_current_state() {
    let world = World::new(2);
    let options =
        json!([option("Service", "ExecStart", "/bin/sleep infinity"), option("X-Fleet", "Global", "true"),]);
    world.put("g.service", json!({ "options": options, "desiredState": "launched" })).is_empty(201);
    world.until("it to run on both", |world| world.runs_on("g.service") == [1, 2]);
    assert_eq!(
        world.unit("g.service"),
        json!({
            "name": "g.service", "desiredState": "launched", "options": options,
        })
    );
}

/// Whoever asks stands in the event, as for any other change.
#[test]
fn changes_have_their_events() {
    let world = World::new(0);
    world.put("s.service", json!({ "options": sleeper() })).is_empty(201);
    let body = json!({ "desiredState": "loaded" }).to_string();
    world.tcp.send("PUT", "/fleet/v1/units/s.service", &body).is_empty(204);
    let events = world.unix.get("/v1/events");
    let text = String::from_utf8(events.body).unwrap();
    let told = |kind: &str, by: &str| {
        text.lines().any(|line| line.contains(&format!("\"{kind}\"")) && line.contains(by))
    };
    assert!(told("submitted", "\"by\":\"root\"") || told("submitted", "uid"), "{text}");
    assert!(told("target-changed", "\"by\":\"anonymous\""), "{text}");
    assert!(name("s.service").template().is_none());
}
