//! Paths, methods, headers and the shape of refusals.

use serde_json::{Value, json};

use crate::world::World;

/// Method, path below the base, and what is answered.
const REFUSED: [(&str, &str, u16); 34] = [
    ("GET", "", 405),
    ("POST", "", 405),
    ("GET", "/", 404),
    ("GET", "/unit", 404),
    ("GET", "/units/", 404),
    ("GET", "/units/none.service", 404),
    ("GET", "/units/none.service/", 404),
    ("GET", "/units/none.service/more", 404),
    ("GET", "/units/none%2Fmore.service", 404),
    ("GET", "/units/none", 404),
    ("POST", "/units", 405),
    ("PUT", "/units", 405),
    ("DELETE", "/units", 405),
    ("POST", "/units/none.service", 405),
    ("PATCH", "/units/none.service", 405),
    ("DELETE", "/units/none.service", 404),
    ("DELETE", "/units/no%20name", 404),
    ("PUT", "/units/", 404),
    ("GET", "/state/", 404),
    ("GET", "/state/none.service", 404),
    ("GET", "/state/no%20name", 404),
    ("GET", "/state/none.service/", 404),
    ("POST", "/state", 405),
    ("PUT", "/state/none.service", 405),
    ("DELETE", "/state/none.service", 405),
    ("GET", "/machines/", 404),
    ("GET", "/machines/none", 404),
    ("POST", "/machines", 405),
    ("PUT", "/machines", 405),
    ("DELETE", "/machines", 405),
    ("POST", "/discovery", 400),
    ("DELETE", "/discovery", 400),
    ("GET", "/discovery/", 404),
    ("BREW", "/units", 405),
];

#[test]
fn every_path_and_method_has_fleets_answer() {
    let world = World::new(0);
    for (wire, base) in world.doors() {
        for (method, path, code) in REFUSED {
            let reply = wire.raw(&format!("{method} {base}{path} HTTP/1.1"), &[], b"");
            reply.refusal(code);
            assert!(code != 405 || reply.header("allow").is_some(), "{method} {path}: {reply:?}");
        }
        // fleet took HEAD nowhere.
        for path in ["/units", "/units/none.service", "/state", "/state/x.service", "/machines"] {
            wire.raw(&format!("HEAD {base}{path} HTTP/1.1"), &[], b"").is_empty(405);
        }
        wire.raw(&format!("HEAD {base}/discovery HTTP/1.1"), &[], b"").is_empty(400);
        for path in ["/units", "/state", "/machines"] {
            let reply = wire.get(&format!("{base}{path}"));
            assert_eq!(reply.body, b"{}", "an empty list is left out");
            assert_eq!(reply.status, 200);
        }
    }
    for wire in [&world.unix, &world.tcp] {
        wire.get("/").refusal(405);
        wire.get("/fleet/v2/units").refusal_of_flotilla();
    }
}

#[test]
fn every_answer_says_whose_it_is_and_connections_are_kept() {
    let world = World::new(0);
    let mut connection = world.tcp.connect();
    for (request, status) in [
        ("GET /fleet/v1/units HTTP/1.1", 200),
        ("GET /fleet/v1/units/none.service HTTP/1.1", 404),
        ("PUT /v1-alpha/units/none.service HTTP/1.1", 415),
        ("DELETE /v1-alpha/machines HTTP/1.1", 405),
        ("GET /fleet/v1/nothing HTTP/1.1", 404),
    ] {
        let reply = connection.ask(request, &[], b"");
        assert_eq!(reply.status, status, "{request}: {reply:?}");
        let server = reply.header("server").unwrap_or_default();
        assert!(server.starts_with("fleetd/1.0.0 (flotillad/"), "{request}: {server}");
        assert_eq!(reply.header("content-type"), Some("application/json"), "{request}");
    }
    assert_eq!(world.unix.get("/v1/version").header("server"), None, "flotilla's own API is its own");
}

#[test]
fn whoever_shuts_its_side_after_the_question_is_answered() {
    let world = World::new(1);
    for (wire, base) in world.doors() {
        let path = format!("{base}/units/last.service");
        let options = json!([{ "section": "Service", "name": "ExecStart", "value": "/bin/sleep infinity" }]);
        let unit = json!({ "desiredState": "launched", "options": options }).to_string();
        wire.last(&format!("PUT {path} HTTP/1.1"), unit.as_bytes()).is_empty(201);
        world.until("last.service to run", |world| world.runs_on("last.service") == [1]);
        assert_eq!(wire.last(&format!("GET {path} HTTP/1.1"), b"").json()["desiredState"], "launched");
        assert_eq!(wire.last(&format!("GET {base}/machines HTTP/1.1"), b"").status, 200);
        // It waits for the unit to stop, whoever listens.
        wire.last(&format!("DELETE {path} HTTP/1.1"), b"").is_empty(204);
        assert_eq!(world.runs_on("last.service"), [0; 0]);
        wire.last(&format!("GET {path} HTTP/1.1"), b"").refusal(404);
    }
}

#[test]
fn the_discovery_document_describes_what_there_is() {
    let world = World::new(0);
    let document = world.get("/discovery").json();
    for (key, value) in [
        ("kind", "discovery#restDescription"),
        ("discoveryVersion", "v1"),
        ("id", "fleet:v1"),
        ("version", "v1"),
        ("protocol", "rest"),
        ("rootUrl", "$ENDPOINT/"),
        ("servicePath", "fleet/v1/"),
        ("basePath", "/fleet/v1/"),
    ] {
        assert_eq!(document[key], value, "{key}");
    }
    assert_eq!(world.unix.get("/v1-alpha/discovery").json(), document);
    // A generated client is made of these: each leads to a resource that takes the method.
    let resources = document["resources"].as_object().unwrap();
    let methods = resources.values().flat_map(|resource| resource["methods"].as_object().unwrap().values());
    let mut seen = Vec::new();
    for method in methods {
        let (verb, path) = (method["httpMethod"].as_str().unwrap(), method["path"].as_str().unwrap());
        let path = path.replace("{unitName}", "none.service");
        let reply = world.unix.raw(&format!("{verb} /fleet/v1/{path} HTTP/1.1"), &[], b"");
        assert!(!matches!(reply.status, 405 | 500), "{verb} {path}: {reply:?}");
        seen.push(format!("{verb} {}", method["path"].as_str().unwrap()));
        for of in ["request", "response"] {
            if let Some(schema) = method[of]["$ref"].as_str() {
                assert_eq!(document["schemas"][schema]["id"], schema);
            }
        }
    }
    seen.sort();
    assert_eq!(
        seen,
        [
            "DELETE units/{unitName}",
            "GET machines",
            "GET state",
            "GET state/{unitName}",
            "GET units",
            "GET units/{unitName}",
            "PATCH machines",
            "PUT units/{unitName}",
        ]
    );
}

#[test]
fn metrics_are_where_fleet_had_them() {
    let world = World::new(0);
    for path in ["/metrics", "/fleet/v1/metrics", "/v1-alpha/metrics"] {
        let reply = world.unix.get(path);
        assert_eq!(reply.status, 200);
        let text = String::from_utf8(reply.body.clone()).unwrap();
        assert!(text.contains("# TYPE flotilla_engine_leader gauge"), "{text}");
    }
}

#[test]
fn without_a_seat_the_refusal_is_in_fleets_shape_and_wrong_methods_are_still_told() {
    let world = World::new(0);
    world.seat(false);
    let message = world.get("/units").refusal(503);
    assert!(message.contains("no engine has a seat"), "{message}");
    world.unix.send("POST", "/fleet/v1/units", "{}").refusal(405);
    world.get("/discovery").json();
    world.seat(true);
    world.get("/units").json();
}

#[test]
fn a_page_in_a_browser_has_no_way_in_by_loopback() {
    let world = World::new(0);
    for headers in [&["Origin: http://example.com"][..], &["Sec-Fetch-Site: cross-site"], &["Origin: null"]] {
        for line in ["GET /fleet/v1/units HTTP/1.1", "POST /v1/cluster/release-hold HTTP/1.1"] {
            assert_eq!(world.tcp.raw(line, headers, b"").status, 403, "{headers:?}");
        }
    }
    // A name that somebody let point here.
    let mut connection = world.tcp.connect();
    let reply = connection.ask_of("GET /fleet/v1/units HTTP/1.1", "rebound.example.com:49153");
    assert_eq!(reply.status, 403);
    for host in ["127.0.0.1", "127.0.0.1:49153", "[::1]:49153", "localhost:49153"] {
        let reply = world.tcp.connect().ask_of("GET /fleet/v1/units HTTP/1.1", host);
        assert_eq!(reply.json(), json!({}), "{host}");
    }
    // Whoever opens the socket is no page, and fleet's client names it as it likes.
    let reply = world.unix.connect().ask_of("GET /fleet/v1/units HTTP/1.1", "domain-sock");
    assert_eq!(reply.json(), Value::Object(serde_json::Map::new()));
}
