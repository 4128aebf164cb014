//! `flotctl rebalance`: what is moved, and the wait until it has moved.

use serde_json::{Value, json};

use crate::api::{Answer, Api, Request, everything, flotctl, placed, ready, version};

const M1: &str = "113f16a7a0f84c4c8a3f9e3b2f4d6c01";
const M2: &str = "113f16a7a0f84c4c8a3f9e3b2f4d6c02";

fn outcome(units: &[&str], applied: bool) -> Answer {
    let place = |id: &str, host: &str| json!([{ "machine": id, "host": host }]);
    let unit = |unit: &&str| json!({ "unit": unit, "from": place(M1, "m1"), "to": place(M2, "m2") });
    Answer::Json(json!({
        "revision": 7, "applied": applied, "moves": units.iter().map(unit).collect::<Vec<_>>(),
        "machines": [{
            "machine": M1, "host": "m1", "units_before": 4, "units_after": 2, "share_before": 0, "share_after": 0,
        }],
    }))
}

/// A unit that is on these machines; with a minus it is to leave.
fn on(name: &str, machines: &[&str]) -> Value {
    let mut unit = placed(name, "active", "running");
    let place = |machine: &&str| {
        let mut place = unit["placements"][0].clone();
        let id = if machine.ends_with("m1") { M1 } else { M2 };
        (place["machine"], place["host"]) = (json!(id), json!(machine.trim_start_matches('-')));
        if machine.starts_with('-') {
            place["departing"] = json!("machines are evened out");
        }
        place
    };
    let places = machines.iter().map(place).collect();
    unit["placements"] = Value::Array(places);
    unit
}

fn cluster(units: &'static [&'static str], events: Vec<Value>) -> Api {
    Api::new(move |request: &Request| match request.what.as_str() {
        "GET /v1/version" => version(),
        "GET /readyz" => ready(),
        "POST /v1/rebalance" => outcome(units, request.body["apply"] == true),
        "GET /v1/watch" => Answer::Lasting(events.clone()),
        other => panic!("{other}"),
    })
}

/// What happens to a unit, after everything was shown.
fn then(mut events: Vec<Value>, units: &[Value]) -> Vec<Value> {
    events.extend(units.iter().map(|unit| json!({ "type": "unit", "unit": unit })));
    events
}

#[test]
fn moves_are_waited_for_until_each_unit_has_left() {
    let events = then(
        everything(&[on("a.service", &["m1", "m2"]), on("b.service", &["m1", "m2"])]),
        &[on("b.service", &["-m1", "m2"]), on("a.service", &["m2"]), on("b.service", &["m2"])],
    );
    let api = cluster(&["a.service", "b.service"], events);
    let ended = flotctl(&[&api], &["rebalance", "--apply"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines = [
        "a.service moves from m1 to m2",
        "b.service moves from m1 to m2",
        "m1: 4 units, then 2",
        "a.service moved to m2",
        "b.service moved to m2",
    ];
    assert_eq!(ended.out.lines().collect::<Vec<_>>(), lines, "{ended:?}");
    let asked = api.bodies("POST /v1/rebalance");
    assert_eq!(asked, [json!({ "budget": 10, "apply": true })]);
}

#[test]
fn what_has_not_moved_is_named_with_why_and_is_the_exit_status() {
    let both = ["a.service", "b.service"];
    let begun = everything(&[on("a.service", &["m1", "m2"]), on("b.service", &["m1", "m2"])]);
    let api = cluster(&["a.service", "b.service"], then(begun.clone(), &[on("a.service", &["m2"])]));
    let ended = flotctl(&[&api], &["rebalance", "--apply", "--timeout=300ms"]);
    assert_eq!(ended.code, Some(124), "{ended:?}");
    assert!(ended.out.ends_with("a.service moved to m2\n"), "{ended:?}");
    assert!(ended.err.contains("b.service has not moved in time: being started on m2"), "{ended:?}");

    let taken_back = then(begun, &both.map(|unit| on(unit, &["m1"])));
    let api = cluster(&["a.service", "b.service"], taken_back);
    let ended = flotctl(&[&api], &["rebalance", "--apply", "-o", "json"]);
    assert_eq!(ended.code, Some(5), "{ended:?}");
    let told: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((&told["applied"], &told["moved"]), (&json!(true), &json!([])), "{told}");
    assert!(told["remaining"][1]["why"].as_str().unwrap().contains("stays on m1"), "{told}");
}

#[test]
fn nothing_is_waited_for_where_nothing_is_done_or_nobody_wants_to_wait() {
    // A watch would end the program's patience.
    let api = cluster(&["a.service"], Vec::new());
    let ended = flotctl(&[&api], &["rebalance"]);
    assert!(ended.code == Some(0) && ended.out.contains("nothing was done"), "{ended:?}");
    let ended = flotctl(&[&api], &["rebalance", "--apply", "--no-block"]);
    assert!(ended.code == Some(0) && ended.out.contains("the moves have begun"), "{ended:?}");
    let api_at_rest = cluster(&[], Vec::new());
    let ended = flotctl(&[&api_at_rest], &["rebalance", "--apply"]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), NOTHING), "{ended:?}");
    let asked = [api.asked(), api_at_rest.asked()].concat();
    assert!(!asked.iter().any(|it| it == "GET /v1/watch"), "{asked:?}");
}

const NOTHING: &str = "nothing to move: no move would make the machines more even\n";
