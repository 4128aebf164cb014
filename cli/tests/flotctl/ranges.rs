//! Orders about ranges of instances.

use serde_json::{Value, json};

use crate::api::{Answer, Api, Request, everything, flotctl, outcome, page, placed};

const MANY: &str = "web@{1..1000000}.service";

/// Some of an order that is written, up to so many.
fn written(position: u64, range: &str, units: u64) -> Value {
    json!({
        "type": "written", "position": position, "total": 1_000_000, "units": units, "changed": units,
        "transactions": 1, "revision": 7, "outcomes": [], "@id": format!("{position}@7"),
        "ranges": [{ "range": range, "changed": true, "generation": 1, "run": 1 }],
    })
}

fn done() -> Value {
    json!({ "type": "done", "revision": 7, "@id": "1000000@7" })
}

fn tally([done, pending, failed, unplaced]: [u64; 4], examples: &[&str]) -> Value {
    json!({
        "revision": 9, "total": 1_000_000, "done": done, "pending": pending, "failed": failed, "unplaced": unplaced,
        "examples": examples,
    })
}

/// A cluster that takes an order about a million, and counts so.
fn cluster(counts: &[Value]) -> impl Fn(&Request) -> Answer + use<> {
    let counts = counts.to_vec();
    move |request| match request.what.as_str() {
        "POST /v1/orders/bulk" => Answer::Events(vec![written(1_000_000, MANY, 1_000_000), done()]),
        "GET /v1/tally" => Answer::Lasting(counts.clone()),
        "GET /v1/units/web%407.service" | "GET /v1/units/web@7.service" => {
            let mut unit = placed("web@7.service", "failed", "failed");
            unit["placements"][0]["state"]["result"] = json!("exit-code");
            Answer::Json(unit)
        }
        "GET /v1/units/web%408.service" | "GET /v1/units/web@8.service" => {
            let mut unit = placed("web@8.service", "inactive", "dead");
            unit["placements"] = json!([]);
            unit["unplaced"] = json!("3 machines: no room");
            Answer::Json(unit)
        }
        "GET /v1/units/web%407.service/status" | "GET /v1/units/web@7.service/status" => {
            Answer::Json(json!([]))
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_million_is_one_request_and_some_counts() {
    let api = Api::new(cluster(&[tally([412_000, 588_000, 0, 0], &[]), tally([1_000_000, 0, 0, 0], &[])]));
    let ended = flotctl(&[&api], &["start", "web@{1..1000000}"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.out, format!("{MANY}: 1,000,000 of 1,000,000 active or finished\n"));
    assert_eq!(api.bodies("POST /v1/orders/bulk"), [json!({ "action": "start", "units": [MANY] })]);
    let query = api.query("GET /v1/tally").unwrap();
    assert_eq!(query, "action=start&after=7&ranges=web%40%7B1..1000000%7D.service");
    assert_eq!(api.asked(), ["POST /v1/orders/bulk", "GET /v1/tally"]);
}

#[test]
fn what_is_not_as_ordered_is_counted_and_some_of_it_shown() {
    let api = Api::new(cluster(&[tally([999_990, 0, 10, 0], &["web@7.service"])]));
    let ended = flotctl(&[&api], &["start", MANY]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.err.contains("10 failed, for example:"), "{ended:?}");
    assert!(ended.err.contains("web@7.service failed: result exit-code (on m1)"), "{ended:?}");
    let both = tally([999_980, 0, 10, 10], &["web@7.service", "web@8.service"]);
    let ended = flotctl(&[&Api::new(cluster(&[both]))], &["start", MANY, "-o", "json"]);
    assert_eq!(ended.code, Some(5), "{ended:?}");
    let told: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((&told["outcome"], &told["failed"]), (&json!("cannot-be-placed"), &json!(10)));
    assert_eq!(told["units"][1]["detail"], "3 machines: no room");
    let slow = tally([999_999, 1, 0, 0], &[]);
    let ended = flotctl(&[&Api::new(cluster(&[slow]))], &["start", MANY, "--timeout", "1s"]);
    assert_eq!(ended.code, Some(124), "{ended:?}");
    assert!(ended.err.contains("1 timed out"), "{ended:?}");
}

#[test]
fn an_order_that_breaks_off_is_taken_up_where_it_was() {
    let of = |action: &'static str| {
        Api::new(move |request| match (request.what.as_str(), last(request)) {
            ("POST /v1/orders/bulk", None) => {
                Answer::Broken(vec![written(300_000, "web@{1..300000}.service", 300_000)])
            }
            ("POST /v1/orders/bulk", Some("300000@7")) => {
                Answer::Events(vec![written(1_000_000, "web@{300001..1000000}.service", 700_000), done()])
            }
            ("GET /v1/tally", _) => Answer::Lasting(vec![tally([1_000_000, 0, 0, 0], &[])]),
            other => panic!("{action}: {other:?}"),
        })
    };
    let api = of("load");
    let ended = flotctl(&[&api], &["load", MANY]);
    assert_eq!((ended.code, api.bodies("POST /v1/orders/bulk").len()), (Some(0), 2), "{ended:?}");
    // What is started anew each time is not ordered again where that may have been done.
    let api = of("restart");
    let ended = flotctl(&[&api], &["restart", MANY]);
    assert_eq!((ended.code, api.bodies("POST /v1/orders/bulk").len()), (Some(6), 1), "{ended:?}");
    assert!(ended.err.contains("300,000 instances were ordered"), "{ended:?}");
}

fn last(request: &Request) -> Option<&str> {
    let header = request.headers.iter().find(|(name, _)| name == "last-event-id");
    header.map(|(_, value)| value.as_str())
}

#[test]
fn lists_of_an_older_flotillad_have_all_fields() {
    let api = Api::new(|request| match request.query.as_str() {
        lines if lines.contains("limit=") => Answer::Refusal(404, "not-found", "there is nothing here"),
        fields if fields.contains("fields=") => {
            Answer::Refusal(400, "bad-request", "there is no field `placements.host`")
        }
        _ => page(&[placed("a.service", "active", "running")]),
    });
    let ended = flotctl(&[&api], &["list-units", "--no-legend"]);
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (Some(0), "a.service  m1  active  running  -\n"),
        "{ended:?}"
    );
}

#[test]
fn few_are_waited_for_as_if_each_were_named() {
    let api = Api::new(|request| match request.what.as_str() {
        "POST /v1/orders" => outcome(&["a.service"]),
        "POST /v1/orders/bulk" => {
            let mut written = written(2, "web@{1..2}.service", 2);
            written["total"] = json!(2);
            Answer::Events(vec![written, done()])
        }
        "GET /v1/watch" => {
            let units =
                ["a.service", "web@1.service", "web@2.service"].map(|name| placed(name, "active", "running"));
            Answer::Lasting(everything(&units))
        }
        other => panic!("{other}"),
    });
    let ended = flotctl(&[&api], &["start", "web@{1..2}", "a"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.out, "a.service active on m1\nweb@1.service active on m1\nweb@2.service active on m1\n");
}

#[test]
fn what_is_not_waited_for_is_acknowledged_and_what_is_not_there_is_told() {
    let api = Api::new(cluster(&[]));
    let ended = flotctl(&[&api], &["destroy", MANY, "--no-block"]);
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (Some(0), &*format!("{MANY} destroy ordered\n")),
        "{ended:?}"
    );
    let ended = flotctl(&[&Api::new(cluster(&[]))], &["start", MANY, "--no-block", "-o", "json"]);
    let told: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(told, json!({ "revision": 7, "units": 1_000_000, "changed": 1_000_000, "transactions": 1 }));
    let nothing =
        |_: &Request| Answer::Refusal(404, "not-found", "there is no instance `web@{1..5}.service`");
    let ended = flotctl(&[&Api::new(nothing)], &["stop", "web@{1..5}"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let ended = flotctl(&[&Api::new(nothing)], &["stop", "web@{1..5}", "--ignore-missing"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ended = flotctl(&[&Api::new(nothing)], &["start", "web@{5..1}"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("web@{5..1}"), "it is named: {ended:?}");
}
