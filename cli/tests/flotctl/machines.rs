//! Which machine a word means: hosts may be called as the ids of others begin.

use serde_json::{Value, json};

use crate::api::{Answer, Api, Request, command, find_machine, flotctl, page, placed};

/// Three machines, whose hosts are called `a`, `b` and `cafe`; the ids of the first two begin with the names of
/// others.
const MACHINES: [(&str, &str); 3] = [
    ("a", "b1111111111111111111111111111111"),
    ("b", "cafe2222222222222222222222222222"),
    ("cafe", "a3333333333333333333333333333333"),
];

fn machines() -> Vec<Value> {
    let machine = |(host, id)| json!({ "id": id, "host": host, "state": "alive", "units": 1, "addresses": ["10.0.0.1"] });
    MACHINES.into_iter().map(machine).collect()
}

/// A global unit on the first two, and a session that nobody answers.
fn cluster(request: &Request) -> Answer {
    let mut node = placed("node.service", "active", "running");
    let place = node["placements"][0].clone();
    let places = MACHINES[..2].iter().map(|(host, id)| {
        let mut place = place.clone();
        (place["machine"], place["host"]) = (json!(id), json!(host));
        place
    });
    node["placements"] = places.collect::<Vec<_>>().into();
    match request.what.as_str() {
        "GET /v1/units" => page(&[node]),
        "GET /v1/units/node.service" => Answer::Json(node),
        what if what.ends_with("/sessions") || what.ends_with("/usage") => {
            Answer::Refusal(403, "forbidden", "not here")
        }
        other => find_machine(&machines(), other).unwrap_or_else(|| panic!("{other}")),
    }
}

/// The machine that a session was asked for, or how the command ended without.
fn goes_to(words: &[&str]) -> Result<String, (Option<i32>, String)> {
    let api = Api::new(cluster);
    let ended = flotctl(&[&api], words);
    let asked = api.asked().into_iter().find(|what| what.ends_with("/sessions") || what.ends_with("/usage"));
    let host = asked.map(|what| {
        let id = what.split('/').nth(3).unwrap().to_owned();
        MACHINES.iter().find(|(_, it)| *it == id).unwrap().0.to_owned()
    });
    host.ok_or((ended.code, ended.err))
}

#[test]
fn a_host_is_never_the_beginning_of_another_machines_id() {
    for (machine, host) in [("a", "a"), ("b", "b"), ("cafe2", "b"), ("b111", "a"), ("B111", "a")] {
        let there = Ok(host.to_owned());
        assert_eq!(goes_to(&["exec", "node", "-m", machine, "--", "id"]), there, "{machine}");
        assert_eq!(goes_to(&["exec", &format!("node.service@{machine}"), "--", "id"]), there, "{machine}");
        assert_eq!(goes_to(&["shell", machine, "--", "id"]), there, "{machine}");
        assert_eq!(goes_to(&["top", "--batch", "--machine", machine]), there, "{machine}");
    }
    // The host of that name has no such unit, and the one whose id begins so is not meant.
    for words in [&["exec", "node", "-m", "cafe", "--", "id"][..], &["exec", "node.service@cafe", "--", "id"]]
    {
        let (code, err) = goes_to(words).unwrap_err();
        assert!(code == Some(3) && err.contains("node.service is not on cafe"), "{words:?}: {err}");
    }
    // Less than four digits are no beginning of an id.
    assert_eq!(goes_to(&["shell", "b11", "--", "id"]).unwrap_err().0, Some(4));
    assert_eq!(goes_to(&["exec", "node", "-m", "b11", "--", "id"]).unwrap_err().0, Some(4));
}

#[test]
fn lists_show_the_machine_that_is_meant() {
    let hosts = |words: &[&str]| {
        let ended =
            flotctl(&[&Api::new(cluster)], &[words, &["--no-legend", "--fields", "machine"]].concat());
        (ended.code, ended.out.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" "))
    };
    for (machine, shown) in [("a", "a"), ("b", "b"), ("cafe", ""), ("cafe2222", "b"), ("[ab]", "a b")] {
        assert_eq!(hosts(&["list-units", "--machine", machine]), (Some(0), shown.to_owned()), "{machine}");
        if !machine.starts_with('[') {
            let unit = format!("node.service@{machine}");
            assert_eq!(hosts(&["list-units", &unit]), (Some(0), shown.to_owned()), "{machine}");
        }
    }
    assert_eq!(
        hosts(&["list-units", "--machine", "nobody"]).0,
        Some(4),
        "a mistyped machine has no empty list"
    );
    let api = Api::new(cluster);
    flotctl(&[&api], &["list-units", "--machine", "b"]);
    let query = api.query("GET /v1/units").unwrap();
    assert!(query.ends_with(&format!("&machine={}", MACHINES[1].1)), "by its id: {query}");
    assert!(query.starts_with("fields=target%2C"), "and no more of each unit than is shown: {query}");
}

#[test]
fn debug_is_yes_whatever_stands_in_its_variable_but_a_no() {
    for (variable, value, told) in [
        ("FLOTCTL_DEBUG", "1", true),
        ("FLEETCTL_DEBUG", "1", true),
        ("FLOTCTL_DEBUG", "true", true),
        ("FLEETCTL_DEBUG", "yes", true),
        ("FLOTCTL_DEBUG", "0", false),
        ("FLEETCTL_DEBUG", "false", false),
        ("FLOTCTL_DEBUG", "", false),
    ] {
        let api = Api::new(cluster);
        let mut command = command(&[&api], &["list-units"]);
        let output = command.env(variable, value).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{variable}={value}: {err}");
        assert_eq!(err.contains("debug: endpoint"), told, "{variable}={value}: {err}");
    }
}
