//! What systemd says, and fleet's filters of it.

use flotilla_agent::systemd::fake::Exit;
use serde_json::{Value, json};

use crate::world::{World, id, name};

fn names(states: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let states = states["states"].as_array().cloned().unwrap_or_default();
    states.iter().map(|state| (text(&state["name"]), text(&state["machineID"]))).collect()
}

fn sleeper(more: &[(&str, &str)]) -> Value {
    let mut options = vec![json!({ "section": "Service", "name": "ExecStart", "value": "/bin/sleep 100" })];
    options.extend(
        more.iter().map(|(name, value)| json!({ "section": "X-Fleet", "name": name, "value": value })),
    );
    Value::Array(options)
}

#[test]
fn states_are_listed_by_unit_and_machine_and_filtered() {
    let world = World::new(2);
    let launched = |options: Value| json!({ "desiredState": "launched", "options": options });
    world.put("a.service", launched(sleeper(&[("MachineMetadata", "host=m2")]))).is_empty(201);
    world.put("b.service", launched(sleeper(&[("MachineMetadata", "host=m1")]))).is_empty(201);
    world.put("every.service", launched(sleeper(&[("Global", "true")]))).is_empty(201);
    world.put("only.service", json!({ "options": sleeper(&[]) })).is_empty(201);
    world.until("all to be active", |world| {
        let states = world.get("/state").json();
        let active = |state: &Value| state["systemdActiveState"] == "active";
        states["states"].as_array().is_some_and(|states| states.len() == 4 && states.iter().all(active))
    });
    let row = |unit: &str, n: usize| (unit.to_owned(), id(n));
    let (a, b) = (row("a.service", 2), row("b.service", 1));
    let [one, two] = [row("every.service", 1), row("every.service", 2)];
    let filtered = |query: &str| names(&world.get(&format!("/state{query}")).json());
    assert_eq!(filtered(""), [a.clone(), b.clone(), one.clone(), two.clone()]);
    assert_eq!(filtered("?unitName=a.service"), std::slice::from_ref(&a));
    assert_eq!(filtered(&format!("?machineID={}", id(1))), [b.clone(), one.clone()]);
    assert_eq!(filtered(&format!("?machineID={}&unitName=every.service", id(2))), [two]);
    assert_eq!(filtered(&format!("?machineID={}&unitName=a.service", id(1))), []);
    assert_eq!(filtered("?unitName=a.service&unitName=b.service"), [a], "the first value counts");
    for none in
        ["?unitName=none.service", "?unitName=a.serv*", "?unitName=a", "?machineID=m1", "?machineID=00"]
    {
        assert_eq!(world.get(&format!("/state{none}")).body, b"{}", "{none}");
    }
    assert_eq!(filtered("?unitName=&machineID=").len(), 4, "an empty filter is none");

    let state = world.get("/state/b.service").json();
    assert_eq!(
        state,
        json!({
            "name": "b.service",
            "hash": world.get("/state?unitName=b.service").json()["states"][0]["hash"],
            "machineID": id(1),
            "systemdLoadState": "loaded",
            "systemdActiveState": "active",
            "systemdSubState": "running",
        })
    );
    assert_eq!(world.get("/state/every.service").json()["machineID"], id(1));
    // fleet dropped the connection.
    world.get("/state/only.service").refusal(404);
    assert_eq!(world.get("/state/none.service").refusal(404), "unit does not exist");
}

#[test]
fn the_hash_is_fleets() {
    let world = World::new(1);
    world.put("s.service", json!({ "desiredState": "launched", "options": sleeper(&[]) })).is_empty(201);
    world.until_current("s.service", "launched");
    assert_eq!(world.get("/state/s.service").json()["hash"], "1c6fb6f3684bafb0c173d8b8b957ceff031180c1");
    // However it is written: fleet hashed what it says.
    let text = "# sleeps\n[Service]\n\nExecStart = /bin/sleep 100\n";
    world.run(world.operations.submit(&[(name("t.service"), text.to_owned())], "test")).unwrap();
    // Not by the API, which answers once its seat has seen what it wrote.
    world.until("the seat to see it", |world| world.get("/units/t.service").status == 200);
    world.put("t.service", json!({ "desiredState": "loaded" })).is_empty(204);
    world.until_current("t.service", "loaded");
    assert_eq!(world.get("/state/t.service").json()["hash"], "1c6fb6f3684bafb0c173d8b8b957ceff031180c1");
}

#[test]
fn launched_is_what_was_asked_for_and_systemd_says_what_became_of_it() {
    let world = World::new(1);
    world.put("s.service", json!({ "desiredState": "launched", "options": sleeper(&[]) })).is_empty(201);
    world.until_current("s.service", "launched");
    world.until("it to run", |world| world.runs_on("s.service") == [1]);
    world.machines[0].end(&name("s.service"), Exit::Failed(1));
    world
        .until("its failure", |world| world.get("/state/s.service").json()["systemdActiveState"] == "failed");
    let unit = world.unit("s.service");
    assert_eq!((&unit["desiredState"], &unit["currentState"]), (&json!("launched"), &json!("launched")));
    // fleet left it as it was (#1091).
    world.put("s.service", json!({ "desiredState": "launched" })).is_empty(204);
    world.until("it to run again", |world| world.runs_on("s.service") == [1]);
    assert_eq!(world.starts("s.service"), 2);
}
