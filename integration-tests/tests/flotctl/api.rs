//! Every route of the OpenAPI document, requested on a real machine: its status, its kind of
//! content, and the shape of what it answers.

use std::{collections::BTreeSet, thread};

use flotilla_integration_tests::{LIMIT, eventually};
use serde_json::Value;

use crate::{
    http::{Reply, Socket, events},
    schema::{check, document},
    world::World,
};

/// An answer that the document has: path, method and status.
type Answer = (String, String, String);

/// A request: method and path as the document spells them, what is asked, with what, and the answer.
type Request<'a> = (&'a str, &'a str, String, Option<&'a str>, u16);

/// What [`unavailable`] asks for, while there is no store.
const WITHOUT_A_STORE: &str = "503";

/// A machine that there is not.
const NOBODY: &str = "0123456789abcdef0123456789abcdef";

/// Takes as long to stop as it is let.
const GATED: &str = "[Service]\nExecStart=/bin/sleep infinity\nExecStop=/bin/sh -c 'until test -e /run/go; do sleep 0.05; done'\n";

/// Two services of the machine's own, of which one is no valid unit file here.
const OWN: &str = "cd /etc/systemd/system && printf '[Service]\nExecStart=/bin/sleep infinity\n' >own1.service && \
                   { cat own1.service; printf '[X-Flotilla]\nNo=1\n'; } >own2.service && systemctl daemon-reload && \
                   systemctl start own1 own2";

/// The answers that were had, and what was wrong with any: all of it is told at once.
struct Answers<'a> {
    document: &'a Value,
    had: BTreeSet<Answer>,
    wrong: Vec<String>,
}

impl Answers<'_> {
    fn take(&mut self, (method, path, status): (&str, &str, u16), reply: &Reply) {
        self.had.insert((path.to_owned(), method.to_ascii_lowercase(), status.to_string()));
        self.wrong.extend(check_reply(self.document, (method, path, status), reply).err());
    }
}

pub fn every_route(world: &World) {
    let document = document();
    let socket = Socket::of(world.machine());
    let path = world.write("going.service", GATED);
    world.ask(&["start", &path]);
    world.ask(&["destroy", "--no-block", "going"]);
    world.machine().shell(OWN).unwrap();

    let mut answers = Answers { document: &document, had: BTreeSet::new(), wrong: Vec::new() };
    for (method, path, target, body, status) in requests(world.machine().id()) {
        answers.take((method, path, status), &socket.ask(method, &target, body));
    }
    for (method, path, target, header, body, status) in conditions() {
        answers.take((method, path, status), &socket.ask_with(method, &target, header, body.as_deref()));
    }
    // Whoever claims to speak for somebody else may nothing, unless it is a machine.
    for (method, path, target, body) in with_status(&document, "403", world.machine().id()) {
        answers.take((method, path, 403), &socket.ask_on_behalf(method, &target, body, "root"));
    }
    // The store's first revision wrote none of it.
    for (method, path, target, body) in with_status(&document, "412", world.machine().id()) {
        // Where the revision is not the header's to say.
        if answers.had.contains(&(path.to_owned(), method.to_ascii_lowercase(), "412".to_owned())) {
            continue;
        }
        answers.take((method, path, 412), &socket.ask_at(method, &target, body, "\"1\""));
    }
    // No route reads more than so much.
    let long = format!("{{\"long\": \"{}\"}}", "a".repeat(16 << 20));
    for (method, path, target, _) in with_status(&document, "413", world.machine().id()) {
        if !answers.had.contains(&(path.to_owned(), method.to_ascii_lowercase(), "413".to_owned())) {
            answers.take((method, path, 413), &socket.ask(method, &target, Some(&long)));
        }
    }
    let Answers { had: mut asked, wrong, .. } = answers;
    // The one answer that never ends.
    let schema =
        &document["paths"]["/v1/watch"]["get"]["responses"]["200"]["content"]["text/event-stream"]["schema"];
    let sent = socket.stream("/v1/watch", None).next();
    check(&document, schema, &serde_json::from_str(&sent.data).unwrap(), "GET /v1/watch").unwrap();
    asked.insert(("/v1/watch".to_owned(), "get".to_owned(), "200".to_owned()));
    asked.insert(usage(&document, &socket, world.machine().id()));
    asked.insert(tally(&document, &socket));
    let session = format!("/v1/machines/{}/sessions", world.machine().id());
    assert_eq!(socket.upgrade(&session, "flotilla-session/1"), 101);
    asked.insert(("/v1/machines/{id}/sessions".to_owned(), "post".to_owned(), "101".to_owned()));
    world.machine().run(&["touch", "/run/go"]).unwrap();
    eventually(LIMIT, "the unit to be gone", || {
        Ok(world.ask(&["list-unit-files", "--no-legend", "going*"]).is_empty().then_some(()))
    })
    .unwrap();

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut missing = documented(&document);
    missing.retain(|answer| !asked.contains(answer) && !is_of_the_store(&document, answer));
    assert!(missing.is_empty(), "answers of the document that no row asks for: {missing:?}");
    let page = socket.ask("GET", "/openapi.json", None);
    assert_eq!(serde_json::from_str::<Value>(&page.body).unwrap(), document, "the document is served");
}

/// Tells whether an answer is one that only a store at fault, or others who write all the time, bring about:
/// the first is asked for without a store, the others are the registry's and the server's own tests.
fn is_of_the_store(document: &Value, (path, method, status): &Answer) -> bool {
    let contended = || {
        let answer = &document["paths"][path][method]["responses"][status];
        answer["description"] == "others kept changing the same; try again"
    };
    status == WITHOUT_A_STORE || status == "504" || (status == "409" && contended())
}

/// The other one.
fn usage(document: &Value, socket: &Socket, machine: &str) -> Answer {
    const PATH: &str = "/v1/machines/{id}/usage";
    let answer = &document["paths"][PATH]["get"]["responses"]["200"];
    let sent = socket.stream(&PATH.replace("{id}", machine), None).next();
    let value = serde_json::from_str(&sent.data).unwrap();
    check(document, &answer["content"]["text/event-stream"]["schema"], &value, PATH).unwrap();
    (PATH.to_owned(), "get".to_owned(), "200".to_owned())
}

/// Counts of a range: that answer does not end either.
fn tally(document: &Value, socket: &Socket) -> Answer {
    const PATH: &str = "/v1/tally";
    let schema =
        &document["paths"][PATH]["get"]["responses"]["200"]["content"]["text/event-stream"]["schema"];
    let sent = socket.stream(&format!("{PATH}?ranges=web@%7B1..1%7D&action=start"), None).next();
    check(document, schema, &serde_json::from_str(&sent.data).unwrap(), PATH).unwrap();
    (PATH.to_owned(), "get".to_owned(), "200".to_owned())
}

/// Asks everything that the document says may be unavailable, of a daemon without a store, all at once.
pub fn unavailable(world: &World) {
    let (document, socket) = (document(), Socket::of(world.machine()));
    let asked = with_status(&document, WITHOUT_A_STORE, NOBODY);
    assert!(asked.len() > 10, "{asked:?}");
    thread::scope(|scope| {
        for (method, path, target, body) in asked {
            let (document, socket) = (&document, &socket);
            scope.spawn(move || {
                let reply = socket.ask(method, &target, body);
                check_reply(document, (method, path, 503), &reply).unwrap();
            });
        }
    });
}

/// The requests whose answer may have a status, by the document, each once.
fn with_status(
    document: &Value,
    status: &str,
    machine: &str,
) -> Vec<(&'static str, &'static str, String, Option<&'static str>)> {
    let rows = requests(machine);
    let documented = documented(document).into_iter().filter(|(_, _, of)| of == status);
    let row = |(path, method, _): Answer| {
        let row = rows.iter().find(|row| row.1 == path && row.0.eq_ignore_ascii_case(&method));
        let (method, path, target, body, _) = row.unwrap_or_else(|| panic!("no row asks {method} {path}"));
        (*method, *path, target.clone(), *body)
    };
    documented.map(row).collect()
}

/// The document's paths, methods and statuses.
fn documented(document: &Value) -> BTreeSet<Answer> {
    let mut found = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let statuses = operation["responses"].as_object().unwrap().keys();
            found.extend(statuses.map(|status| (path.clone(), method.clone(), status.clone())));
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

fn get(path: &'static str, target: String, status: u16) -> Request<'static> {
    ("GET", path, target, None, status)
}

fn post(path: &'static str, body: Option<&'static str>, status: u16) -> Request<'static> {
    ("POST", path, path.to_owned(), body, status)
}

/// Everything that is asked; of each method and path first what is answered best.
fn requests(machine: &str) -> Vec<Request<'static>> {
    [of_cluster(), of_units(), of_machines(machine)].concat()
}

/// What is asked first of a route is asked again where the answer is about more than the request, without
/// a store and without leave: a request that is at fault itself is told only that.
pub fn first_is_answered_best() {
    let rows = requests(NOBODY);
    for (index, (method, path, target, _, status)) in rows.iter().enumerate() {
        let (before, after) = (&rows[..index], &rows[index + 1..]);
        let same = |row: &Request<'_>| row.0 == *method && row.1 == *path;
        if *status == 400 && !before.iter().any(same) {
            let better = after.iter().find(|row| same(row) && row.4 != 400);
            assert_eq!(better, None, "{method} {target} comes before it");
        }
    }
}

fn of_cluster() -> Vec<Request<'static>> {
    let plain = |path: &'static str| get(path, path.to_owned(), 200);
    const SETTINGS: &str = "/v1/cluster/settings";
    let set = |body, status| ("PATCH", SETTINGS, SETTINGS.to_owned(), Some(body), status);
    vec![
        plain("/healthz"),
        plain("/readyz"),
        plain("/metrics"),
        plain("/v1/version"),
        plain("/v1/cluster"),
        post("/v1/cluster/release-hold", None, 204),
        post("/v1/accept-store", None, 204),
        plain("/v1/cluster/settings"),
        set(r#"{"events_max": 9000}"#, 200),
        set(r#"{"events_max": 9}"#, 400),
        post("/v1/plan", Some(r#"{"units": [{"name": "web@3", "target": "launched"}]}"#), 200),
        post("/v1/plan", Some(r#"{"units": [{"name": "web@3"}, {"name": "web@3"}]}"#), 400),
        post("/v1/plan", Some(r#"{"units": [{"name": "nobody", "target": "launched"}]}"#), 404),
        post("/v1/plan", Some(r#"{"units": [{"name": "b", "text": "[Unit]\n"}]}"#), 422),
        post("/v1/rebalance", Some(r#"{"budget": 3}"#), 200),
        post("/v1/rebalance", Some(r#"{"budget": "all"}"#), 400),
        plain("/v1/machines"),
        get("/v1/machines", "/v1/machines?from=m1".to_owned(), 400),
        get("/v1/journal", "/v1/journal?units=web@*&lines=5".to_owned(), 200),
        get("/v1/journal", "/v1/journal?units=".to_owned(), 400),
        get("/v1/journal", "/v1/journal?units=nobody".to_owned(), 404),
        get("/v1/events", "/v1/events?lines=20".to_owned(), 200),
        get("/v1/events", "/v1/events?pattern=%5B".to_owned(), 400),
        get("/v1/watch", "/v1/watch?pattern=%5B".to_owned(), 400),
    ]
}

fn of_units() -> Vec<Request<'static>> {
    let unit = |path: &'static str, name: &str, status| get(path, path.replace("{name}", name), status);
    let put = |name: &str, body, status| {
        let path = "/v1/units/{name}/content";
        ("PUT", path, path.replace("{name}", name), Some(body), status)
    };
    const UNIT: &str = "/v1/units/{name}";
    let put_unit = |name: &str, body, status| ("PUT", UNIT, UNIT.replace("{name}", name), Some(body), status);
    let delete = |name: &str, status| ("DELETE", UNIT, UNIT.replace("{name}", name), None, status);
    vec![
        get("/v1/units", "/v1/units".to_owned(), 200),
        get("/v1/units", "/v1/units?pattern=web@*&limit=1".to_owned(), 200),
        get("/v1/units", "/v1/units?pattern=%5B".to_owned(), 400),
        get("/v1/units", "/v1/units?revision=1".to_owned(), 409),
        get("/v1/unit-lines", "/v1/unit-lines?limit=1".to_owned(), 200),
        get("/v1/unit-lines", "/v1/unit-lines?pattern=%5B".to_owned(), 400),
        put_unit("fresh", r#"{"text": "[Service]\nExecStart=/bin/true\n"}"#, 200),
        put_unit("fresh", "{}", 400),
        put_unit("nobody", r#"{"target": "launched"}"#, 404),
        put_unit("going", r#"{"target": "launched"}"#, 409),
        put_unit("fresh", r#"{"text": "[Unit]\n"}"#, 422),
        delete("fresh", 202),
        delete("nobody", 404),
        delete("web@.service", 409),
        post("/v1/bulk", Some(r#"{"units": [{"name": "web@1", "action": "start"}]}"#), 200),
        post("/v1/bulk", Some(r#"{"units": []}"#), 400),
        post("/v1/bulk", Some(r#"{"units": [{"name": "nobody", "action": "start"}]}"#), 404),
        post("/v1/bulk", Some(r#"{"units": [{"name": "going", "action": "start"}]}"#), 409),
        post("/v1/bulk", Some(r#"{"units": [{"name": "web@1", "action": "start", "if_match": 1}]}"#), 412),
        post("/v1/bulk", Some(r#"{"units": [{"name": "b", "text": "[Unit]\n"}]}"#), 422),
        unit("/v1/units/{name}", "web@1", 200),
        unit("/v1/units/{name}", "nobody", 404),
        unit("/v1/units/{name}/content", "web@.service", 200),
        unit("/v1/units/{name}/content", "nobody", 404),
        unit("/v1/units/{name}/status", "web@1.service", 200),
        unit("/v1/units/{name}/status", "nobody", 404),
        unit("/v1/units/{name}/why", "web@1", 200),
        unit("/v1/units/{name}/why", "nobody", 404),
        post(
            "/v1/units",
            Some(r#"{"units": [{"name": "a.service", "text": "[Service]\nExecStart=/bin/true\n"}]}"#),
            200,
        ),
        post("/v1/units", Some(r#"{"units": [{"name": "b c", "text": ""}]}"#), 400),
        post("/v1/units", Some(r#"{"units": [{"name": "b.service", "text": "[Unit]\n"}]}"#), 422),
        post(
            "/v1/units",
            Some(r#"{"units": [{"name": "going.service", "text": "[Service]\nExecStart=/bin/true\n"}]}"#),
            409,
        ),
        post(
            "/v1/units",
            Some(r#"{"units": [{"name": "kept.service", "text": "[Service]\nExecStart=/bin/true\n"}]}"#),
            200,
        ),
        put("kept.service", r#"{"text": "[Service]\nExecStart=/bin/false\n"}"#, 200),
        put("web@1.service", r#"{"text": "[Service]\nExecStart=/bin/true\n"}"#, 400),
        put("nobody.service", r#"{"text": "[Service]\nExecStart=/bin/true\n"}"#, 404),
        put("going.service", r#"{"text": "[Service]\nExecStart=/bin/true\n"}"#, 409),
        put("kept.service", r#"{"text": "[Unit]\n"}"#, 422),
        post("/v1/orders", Some(r#"{"action": "start", "units": ["web@1.service"], "dry_run": true}"#), 200),
        post("/v1/orders", Some(r#"{"action": "destroy", "units": ["a.service"]}"#), 200),
        post("/v1/orders", Some(r#"{"action": "start", "units": []}"#), 400),
        post("/v1/orders", Some(r#"{"action": "start", "units": ["nobody.service"]}"#), 404),
        post("/v1/orders", Some(r#"{"action": "start", "units": ["going.service"]}"#), 409),
        post("/v1/orders/bulk", Some(r#"{"action": "start", "units": ["web@{1..1}.service"]}"#), 200),
        post("/v1/orders/bulk", Some(r#"{"action": "start", "units": []}"#), 400),
        get("/v1/tally", "/v1/tally?ranges=web@&action=start".to_owned(), 400),
    ]
}

fn of_machines(machine: &str) -> Vec<Request<'static>> {
    const MACHINE: &str = "/v1/machines/{id}";
    let of_machine = |method: &'static str, what: &str, machine: &str, body, status| {
        let path = match what {
            "metadata" => "/v1/machines/{id}/metadata",
            "cordon" => "/v1/machines/{id}/cordon",
            _ => "/v1/machines/{id}/drain",
        };
        (method, path, path.replace("{id}", machine), body, status)
    };
    let own = |what: &str, machine: &str, body, status| {
        let path = if what == "adopt" { "/v1/machines/{id}/adopt" } else { "/v1/machines/{id}/survey" };
        ("POST", path, path.replace("{id}", machine), Some(body), status)
    };
    let journal = |machine: &str| format!("/v1/machines/{machine}/journal?units=web@*&lines=5");
    let status = |machine: &str| format!("/v1/machines/{machine}/units/web@1/status?lines=3");
    vec![
        of_machine("PATCH", "metadata", machine, Some(r#"{"set": {"tier": "gold"}}"#), 200),
        of_machine("PATCH", "metadata", machine, Some("{}"), 400),
        of_machine("PATCH", "metadata", "nobody", Some(r#"{"set": {"tier": "gold"}}"#), 404),
        own("adopt", machine, r#"{"units": ["own1"], "dry_run": true}"#, 200),
        own("adopt", machine, r#"{"units": []}"#, 400),
        own("adopt", "nobody", r#"{"units": ["own1"]}"#, 404),
        own("adopt", machine, r#"{"units": ["flotillad"]}"#, 409),
        own("adopt", machine, r#"{"units": ["own2"]}"#, 422),
        own("survey", machine, r#"{"units": ["own1", "own2"]}"#, 200),
        own("survey", machine, r#"{"units": []}"#, 400),
        own("survey", NOBODY, r#"{"units": ["own1"]}"#, 404),
        own("survey", machine, r#"{"units": ["own1", "flotillad"]}"#, 409),
        of_machine("PUT", "cordon", machine, None, 200),
        of_machine("PUT", "cordon", "nobody", None, 404),
        of_machine("GET", "drain", machine, None, 200),
        of_machine("GET", "drain", "nobody", None, 404),
        of_machine("PUT", "drain", machine, None, 200),
        of_machine("PUT", "drain", "nobody", None, 404),
        of_machine("DELETE", "drain", machine, None, 200),
        of_machine("DELETE", "drain", "nobody", None, 404),
        of_machine("DELETE", "cordon", machine, None, 200),
        of_machine("DELETE", "cordon", "nobody", None, 404),
        get(MACHINE, MACHINE.replace("{id}", machine), 200),
        get(MACHINE, MACHINE.replace("{id}", "nobody"), 404),
        // What is said of a machine that nobody has seen makes the beginning of an id mean two.
        of_machine("PUT", "cordon", &twin(machine), None, 200),
        get(MACHINE, MACHINE.replace("{id}", &machine[..8]), 409),
        of_machine("GET", "drain", &machine[..8], None, 409),
        get("/v1/machines/{id}/units/{unit}/status", status(machine), 200),
        get("/v1/machines/{id}/units/{unit}/status", status(NOBODY), 404),
        get("/v1/machines/{id}/journal", journal(machine), 200),
        get("/v1/machines/{id}/usage", format!("/v1/machines/{NOBODY}/usage"), 404),
        get("/v1/machines/{id}/usage", format!("/v1/machines/{machine}/usage?interval=0"), 400),
        ("POST", "/v1/machines/{id}/sessions", format!("/v1/machines/{NOBODY}/sessions"), None, 404),
        ("POST", "/v1/machines/{id}/sessions", format!("/v1/machines/{machine}/sessions"), None, 400),
        get("/v1/machines/{id}/journal", journal(NOBODY), 404),
    ]
}

/// The id of another machine that begins as this one's.
fn twin(machine: &str) -> String {
    let (begin, last) = machine.split_at(machine.len() - 1);
    format!("{begin}{}", if last == "0" { "1" } else { "0" })
}

/// A request with a header, and what it is answered.
type Conditional = (&'static str, &'static str, String, (&'static str, &'static str), Option<String>, u16);

/// What is asked of things at a revision that they are not at, and of too many at once.
fn conditions() -> Vec<Conditional> {
    const UNIT: &str = "/v1/units/{name}";
    let stale = ("if-match", "\"1\"");
    let web = UNIT.replace("{name}", "web@1");
    let same = |path: &'static str, header, body: String, status| {
        ("POST", path, path.to_owned(), header, Some(body), status)
    };
    let launched = r#"{"target": "launched"}"#.to_owned();
    let start = r#"{"action": "start", "units": ["web@1"]}"#.to_owned();
    let units: Vec<String> =
        (1..=130).map(|n| format!(r#"{{"name": "web@{n}", "action": "load"}}"#)).collect();
    let many = format!(r#"{{"whole": true, "units": [{}]}}"#, units.join(","));
    let (settings, max) = ("/v1/cluster/settings", r#"{"events_max": 9000}"#.to_owned());
    vec![
        ("PUT", UNIT, web.clone(), stale, Some(launched), 412),
        ("DELETE", UNIT, web, stale, None, 412),
        ("PATCH", settings, settings.to_owned(), stale, Some(max), 412),
        same("/v1/orders", stale, start, 412),
        same("/v1/bulk", ("accept", "*/*"), many, 413),
    ]
}

/// Says how an answer has not this status, or is not what the document says.
fn check_reply(
    document: &Value,
    (method, path, status): (&str, &str, u16),
    reply: &Reply,
) -> Result<(), String> {
    let what = &format!("{method} {path}");
    if reply.status != status {
        return Err(format!("{what}: not {status}, but {reply:?}"));
    }
    let answer = &document["paths"][path][method.to_ascii_lowercase()]["responses"][status.to_string()];
    if !answer.is_object() {
        return Err(format!("the document has no {status} for {what}"));
    }
    check_content(document, answer, reply, what)
}

fn check_content(document: &Value, answer: &Value, reply: &Reply, what: &str) -> Result<(), String> {
    let Some(content) = answer["content"].as_object() else {
        return if reply.body.is_empty() { Ok(()) } else { Err(format!("{what}: a body, {reply:?}")) };
    };
    let kinds: Vec<&String> = content.keys().collect();
    if !content.contains_key(&reply.kind) {
        return Err(format!("{what} is {}, in the document {kinds:?}", reply.kind));
    }
    let schema = &content[&reply.kind]["schema"];
    let read = |text: &str| serde_json::from_str(text).map_err(|e| format!("{what}: {e}: {text}"));
    let values: Vec<Value> = match reply.kind.as_str() {
        "application/json" => vec![read(&reply.body)?],
        "text/event-stream" => events(&reply.body).into_iter().map(read).collect::<Result<_, _>>()?,
        _ => vec![Value::String(reply.body.clone())],
    };
    if values.is_empty() {
        return Err(format!("{what} answers nothing"));
    }
    values.iter().try_for_each(|value| check(document, schema, value, what))
}
