//! What was named and is not there: the rest is dealt with, and the exit status says it. The table of
//! exit statuses is fleetctl's own, with what is different and why.

use serde_json::{Value, json};

use crate::api::{
    Answer, Api, Ended, Request, everything, find_machine, flotctl, outcome, page, placed, ready, unit,
    version,
};

/// Two units and a template with one instance.
fn units() -> Vec<Value> {
    vec![
        placed("a.service", "active", "running"),
        placed("b.service", "active", "running"),
        unit("web@.service"),
        placed("web@1.service", "active", "running"),
    ]
}

/// A cluster that refuses an order as a whole when one unit is not there, as flotillad does.
fn cluster(action: &'static str) -> impl Fn(&Request) -> Answer {
    move |request| {
        let units = units();
        let names: Vec<&str> = units.iter().map(|unit| unit["name"].as_str().unwrap()).collect();
        match request.what.as_str() {
            "GET /v1/version" => version(),
            "GET /readyz" => ready(),
            "GET /v1/units" => page(&units),
            "PUT /v1/units/web@1.service" | "PUT /v1/units/web@2.service" => outcome(&["web@1.service"]),
            "GET /v1/units/a.service" | "GET /v1/units/b.service" => Answer::Json(units[0].clone()),
            what if action == "submit" && !what.contains("/content") => {
                Answer::Refusal(404, "not-found", "there is no unit of that name")
            }
            "POST /v1/orders" => {
                let asked: Vec<&str> = request.body["units"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|name| name.as_str().unwrap())
                    .collect();
                let makes = matches!(action, "start" | "load" | "restart");
                let is_there = |name: &&&str| {
                    names.contains(name) || **name == "web@*" || (makes && name.starts_with("web@"))
                };
                if asked.iter().filter(is_there).count() < asked.len() {
                    return Answer::Refusal(404, "not-found", "there is no unit of that name");
                }
                let named: Vec<&str> =
                    asked.iter().map(|name| if *name == "web@*" { "web@1.service" } else { name }).collect();
                outcome(&named)
            }
            "GET /v1/units/a.service/content" | "GET /v1/units/b.service/content" => {
                let name = request.what.split('/').nth(3).unwrap();
                Answer::Json(json!({ "name": name, "hash": "0".repeat(64), "text": "[Service]\n" }))
            }
            "GET /v1/units/a.service/why" => Answer::Json(
                json!({ "unit": "a.service", "placed": true, "summary": "on m1", "machines": [] }),
            ),
            "GET /v1/units/a.service/status" => Answer::Json(json!([{
                "unit": "a.service", "description": "", "host": "m1", "machine": "113f16a7a0f84c4c8a3f9e3b2f4d6c01",
                "load": "loaded", "fragment": "", "active": "active", "sub": "running", "result": "success",
            }])),
            "GET /v1/journal" if request.query.contains("nobody") => {
                Answer::Refusal(404, "not-found", "there is no unit nobody.service")
            }
            "GET /v1/journal" => Answer::Events(vec![json!({
                "unit": "a.service", "host": "m1", "machine": "113f16a7a0f84c4c8a3f9e3b2f4d6c01", "realtime_us": 0,
                "message": "hello", "cursor": "s=1",
            })]),
            "GET /v1/watch" => Answer::Lasting(everything(&units)),
            other => panic!("{other}"),
        }
    }
}

fn run(words: &[&str]) -> (Ended, Vec<Value>) {
    let action: &'static str = words[0].to_owned().leak();
    let api = Api::new(cluster(action));
    (flotctl(&[&api], words), api.bodies("POST /v1/orders"))
}

/// Rows: what is named, fleetctl's status, ours. fleetctl's for `start` and its like; for `stop` and its
/// like it was 0 in every case, which is why scripts went on with units that were not there (#745, #1112).
#[test]
fn exit_statuses_are_fleetctls_where_they_told_the_truth() {
    let rows: [(&[&str], i32, i32); 6] = [
        (&["a", "b"], 0, 0),
        // Missing units have a status of their own.
        (&["nobody", "nowhere"], 1, 4),
        (&["a", "nobody"], 1, 4),
        (&["no@1"], 1, 4),
        // Of a template that is there, instances are made.
        (&["web@1", "web@2"], 0, 0),
        (&["a", "a", "a.service"], 0, 0),
    ];
    for action in ["submit", "start", "load", "restart"] {
        for (names, fleetctls, ours) in rows {
            let (ended, _) = run(&[&[action, "--no-block"], names].concat());
            assert_eq!(ended.code, Some(ours), "{action} {names:?}: {ended:?}");
            assert_eq!(fleetctls == 0, ours == 0, "nothing fails that did not, or succeeds that did not");
        }
        // fleetctl: `No units given`, and 0.
        assert_eq!(run(&[action]).0.code, Some(2));
    }
    for action in ["stop", "unload", "destroy"] {
        for (names, ours) in [
            (&["a", "b"][..], 0),
            (&["nobody", "nowhere"], 4),
            (&["a", "nobody"], 4),
            // Nobody makes an instance to stop it.
            (&["web@1", "web@2"], 4),
            (&["a", "a"], 0),
        ] {
            let (ended, _) = run(&[&[action, "--no-block"], names].concat());
            assert_eq!(ended.code, Some(ours), "{action} {names:?}: {ended:?}");
            let words = [&[action, "--no-block", "--ignore-missing"], names].concat();
            let (ended, _) = run(&words);
            assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{action} {names:?}: fleetctl's 0");
        }
        // fleetctl: `No units given`, and 0.
        assert_eq!(run(&[action]).0.code, Some(2));
        // Two callers at once: fleetctl's table had both succeed.
        let both =
            [(), ()].map(|()| std::thread::spawn(move || run(&[action, "--no-block", "a", "b"]).0.code));
        assert_eq!(both.map(|caller| caller.join().unwrap()), [Some(0); 2], "{action}");
    }
}

#[test]
fn what_is_there_is_dealt_with_and_the_rest_is_told() {
    let (ended, orders) = run(&["stop", "--no-block", "a", "nobody", "b", "x*", "web@*"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert_eq!(ended.out, "a.service stop ordered\nb.service stop ordered\nweb@1.service stop ordered\n");
    assert!(ended.err.contains("error: there is no unit nobody.service; "), "{ended:?}");
    assert!(ended.err.contains("error: no unit matches x*"), "{ended:?}");
    assert_eq!(orders[1]["units"], json!(["a.service", "b.service", "web@*"]), "{orders:?}");
}

#[test]
fn nothing_more_is_asked_when_all_are_there() {
    let api = Api::new(cluster("stop"));
    assert_eq!(flotctl(&[&api], &["stop", "--no-block", "a", "b"]).code, Some(0));
    assert_eq!(api.asked(), ["POST /v1/orders"]);
}

#[test]
fn nothing_is_waited_for_when_nothing_is_there() {
    let api = Api::new(cluster("destroy"));
    let ended = flotctl(&[&api], &["destroy", "--ignore-missing", "nobody"]);
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(0), "", ""), "{ended:?}");
    assert!(!api.asked().contains(&"GET /v1/watch".to_owned()), "{:?}", api.asked());
    let ended = flotctl(&[&api], &["destroy", "--ignore-missing", "nobody", "-o", "json"]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "[]\n"), "{ended:?}");
}

#[test]
fn whatever_reads_shows_what_there_is() {
    for (command, part) in
        [("cat", "[Service]"), ("status", "active (running)"), ("why", "on m1"), ("journal", "hello")]
    {
        let (ended, _) = run(&[command, "a", "nobody"]);
        assert_eq!(ended.code, Some(4), "{command}: {ended:?}");
        assert!(ended.out.contains(part), "{command}: {ended:?}");
        assert!(ended.err.contains("there is no unit nobody.service"), "{command}: {ended:?}");
        let (ended, _) = run(&[command, "a", "nobody", "--ignore-missing"]);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{command}: {ended:?}");
        assert!(ended.out.contains(part), "{command}: {ended:?}");
        let (ended, _) = run(&[command, "nobody"]);
        assert_eq!((ended.code, ended.out.as_str()), (Some(4), ""), "{command}: {ended:?}");
        assert!(ended.err.contains("list-unit-files"), "{command}: {ended:?}");
    }
}

/// A unit that is on two machines, and each one's own line in its journal.
fn on_two(request: &Request) -> Answer {
    const IDS: [&str; 2] = ["113f16a7a0f84c4c8a3f9e3b2f4d6c01", "2f3f16a7a0f84c4c8a3f9e3b2f4d6c02"];
    let hosts = ["m1", "m2"];
    let of = |at: usize, mut value: Value| {
        (value["machine"], value["host"]) = (json!(IDS[at]), json!(hosts[at]));
        value
    };
    let mut node = placed("node.service", "active", "running");
    let placement = node["placements"][0].clone();
    node["placements"] = json!([of(0, placement.clone()), of(1, placement)]);
    let status = json!({
        "unit": "node.service", "description": "", "load": "loaded", "fragment": "", "active": "active",
        "sub": "running", "result": "success",
    });
    let line = json!({ "unit": "node.service", "realtime_us": 1_500_000, "message": "hello", "cursor": "s=1",
                       "identifier": "node", "pid": 42 });
    match request.what.as_str() {
        "GET /v1/units" => page(&[node]),
        "GET /v1/units/node.service/status" => Answer::Json(json!([of(0, status.clone()), of(1, status)])),
        "GET /v1/journal" => Answer::Events(vec![of(0, line.clone()), of(1, line)]),
        other => {
            let machines =
                [0, 1].map(|at| json!({ "id": IDS[at], "host": hosts[at], "state": "alive", "units": 1 }));
            find_machine(&machines, other).unwrap_or_else(|| panic!("{other}"))
        }
    }
}

#[test]
fn one_machine_of_a_unit_is_picked() {
    let ask = |words: &[&str]| flotctl(&[&Api::new(on_two)], words);
    for (command, on_first, on_second) in
        [("status", "Machine: m1", "Machine: m2"), ("journal", "/m1:", "/m2:"), ("list-units", "m1", "m2")]
    {
        let both = ask(&[command, "node"]);
        assert!(both.out.contains(on_first) && both.out.contains(on_second), "{both:?}");
        for machine in ["m2", "2f3f"] {
            let one = ask(&[command, &format!("node.service@{machine}")]);
            assert_eq!(one.code, Some(0), "{one:?}");
            assert!(!one.out.contains(on_first) && one.out.contains(on_second), "{one:?}");
        }
        let both = ask(&[command, "node.service@m1", "node.service@m2"]);
        assert!(both.out.contains(on_first) && both.out.contains(on_second), "{both:?}");
    }
    for command in ["status", "journal"] {
        let ended = ask(&[command, "node.service@m3"]);
        assert_eq!((ended.code, ended.out.as_str()), (Some(4), ""), "{ended:?}");
        assert!(ended.err.contains("node.service is not on m3; it is on m1, m2"), "{ended:?}");
    }
}

#[test]
fn journals_are_printed_as_journalctl_prints_them() {
    let ask = |form: &str| {
        let ended = flotctl(&[&Api::new(on_two)], &["journal", "node.service@m1", "-o", form]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.out
    };
    assert_eq!(ask("short"), "Jan 01 00:00:01 m1 node[42]: hello\n");
    assert_eq!(ask("short-iso"), "1970-01-01T00:00:01+0000 m1 node[42]: hello\n");
    assert_eq!(ask("short-precise"), "Jan 01 00:00:01.500000 m1 node[42]: hello\n");
    assert_eq!(ask("short-unix"), "1.500000 m1 node[42]: hello\n");
    assert_eq!(ask("cat"), "hello\n");
}
