//! What `/v1` has beyond fleet: filters, bulk writes, conditions, requests by name.

use axum::http::{HeaderMap, HeaderName, Method};
use flotilla_api::{
    action::{Action, BulkUnit, BulkWrite},
    cluster::SettingsChange,
    error::{ErrorBody, ErrorKind},
    page::{MachinesQuery, UnitsQuery},
    watch::{EventsQuery, WatchEvent, WatchQuery},
};
use flotilla_registry::{
    keys::{Bucket, Key, Keys},
    records::{Record as _, ReportBucket, Token, UnitReport, VERSION},
    store::{Operation, Txn},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::world::{LIMIT, World, id, name};

/// What came back: status, headers, body.
type Answer = (u16, HeaderMap, Value);

async fn send(world: &World, method: Method, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
    let mut map = HeaderMap::new();
    map.insert("content-type", "application/json".parse().unwrap());
    for (name, value) in headers {
        map.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = world.client.forward(method, path, map, body).await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    (status, headers, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or(Value::Null))
}

fn text(of: &Value) -> String {
    serde_json::from_value::<ErrorBody>(of.clone()).unwrap().message
}

fn service(metadata: &str) -> String {
    format!("[Service]\nExecStart=/bin/true\n[X-Flotilla]\nMachineMetadata=host={metadata}\n")
}

/// Says in a machine's place how a unit is on it.
pub(crate) async fn report(world: &World, on: u8, unit: &str, active: &str) {
    let reader = world.engine.reader().unwrap();
    let row = reader.unit(&name(unit)).0.unwrap();
    let token = row.placements.iter().find(|placement| placement.machine == id(on)).unwrap().token;
    let report: UnitReport = serde_json::from_value(json!({
        "unit": unit, "token": Token(token.0), "run": 1, "load": "loaded", "active": active,
        "sub": if active == "failed" { "failed" } else { "running" },
    }))
    .unwrap();
    let key = Keys::default().spell(&Key::Report(id(on), Bucket::of(&name(unit))));
    let value = ReportBucket { v: VERSION, units: vec![report] }.encode();
    let put = Operation::Put { key, value, lease: None };
    world.store.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
}

#[tokio::test]
async fn lists_are_filtered_by_what_units_are_and_where() {
    let world = World::new().await;
    world.register(1).await;
    world.register(2).await;
    for (unit, on) in [("a.service", Some(1)), ("b.service", Some(2)), ("c.timer", None), ("d.service", None)]
    {
        world.unit(unit, on).await;
    }
    report(&world, 1, "a.service", "failed").await;
    report(&world, 2, "b.service", "active").await;
    let listed = async |query: UnitsQuery| {
        let page = world.client.units_where(&query).await.unwrap();
        page.items.iter().map(|unit| unit.name.to_string()).collect::<Vec<_>>()
    };
    let some = |text: &str| Some(text.to_owned());
    let failed = UnitsQuery { failed: true, ..UnitsQuery::default() };
    timeout(LIMIT, async {
        while listed(failed.clone()).await != ["a.service"] {
            sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    let all = UnitsQuery::default();
    for (query, expected) in [
        (UnitsQuery { state: some("failed"), ..all.clone() }, &["a.service"][..]),
        (UnitsQuery { state: some("running,failed"), ..all.clone() }, &["a.service", "b.service"]),
        (UnitsQuery { active: some("inactive"), ..all.clone() }, &["c.timer", "d.service"]),
        (UnitsQuery { machine: some("m2"), ..all.clone() }, &["b.service"]),
        (UnitsQuery { machine: some(&id(1).to_string()), ..all.clone() }, &["a.service"]),
        (UnitsQuery { machine: some("m2"), failed: true, ..all.clone() }, &[]),
        (UnitsQuery { kind: some("timer"), ..all.clone() }, &["c.timer"]),
        (UnitsQuery { unplaced: true, pattern: some("*.service"), ..all.clone() }, &["d.service"]),
        (
            UnitsQuery { target: some("launched"), pattern: some("[ab]*"), ..all.clone() },
            &["a.service", "b.service"],
        ),
        (UnitsQuery { target: some("loaded,inactive"), ..all.clone() }, &[]),
        (UnitsQuery { template: some("web@*"), ..all.clone() }, &[]),
    ] {
        assert_eq!(listed(query.clone()).await, expected, "{query:?}");
    }
    // Pages, each of what the filter lets through.
    let first = UnitsQuery { unplaced: true, limit: Some(1), ..all.clone() };
    let page = world.client.units_where(&first).await.unwrap();
    assert_eq!(page.items[0].name, name("c.timer"));
    let next = UnitsQuery { from: page.next.clone(), revision: Some(page.revision), ..first.clone() };
    assert_eq!(world.client.units_where(&next).await.unwrap().items[0].name, name("d.service"));
    world.unit("e.service", None).await;
    let changed = world.client.units_where(&next).await.unwrap_err();
    assert_eq!(changed.kind(), Some(ErrorKind::Conflict), "{changed}");

    let refused = world.client.units_where(&UnitsQuery { target: some("running"), ..all }).await.unwrap_err();
    assert_eq!(refused.kind(), Some(ErrorKind::BadRequest));
    assert!(refused.to_string().contains("inactive, loaded or launched"), "{refused}");
    let (status, _, body) =
        send(&world, Method::GET, "/v1/units?fields=target&pattern=a*", &[], Value::Null).await;
    assert_eq!((status, &body["items"]), (200, &json!([{"name": "a.service", "target": "launched"}])));
    let (status, _, body) = send(&world, Method::GET, "/v1/units?fields=colour", &[], Value::Null).await;
    assert_eq!(status, 400);
    assert!(text(&body).contains("no field `colour`"), "{body}");
    let (status, ..) = send(&world, Method::GET, "/v1/units?colour=red", &[], Value::Null).await;
    assert_eq!(status, 400, "an unknown filter is refused, not ignored");
}

#[tokio::test]
async fn start_of_a_unit_that_failed_is_a_new_run_and_of_one_that_runs_is_not() {
    let world = World::new().await;
    world.register(1).await;
    world.unit("a.service", Some(1)).await;
    let start = json!({"action": "start", "units": ["a.service"]});
    for (active, changed) in [("active", false), ("failed", true)] {
        report(&world, 1, "a.service", active).await;
        let query = UnitsQuery { active: Some(active.to_owned()), ..UnitsQuery::default() };
        timeout(LIMIT, async {
            while world.client.units_where(&query).await.unwrap().items.is_empty() {
                sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        let (status, _, body) = send(&world, Method::POST, "/v1/orders", &[], start.clone()).await;
        assert_eq!((status, &body["units"][0]["changed"]), (200, &json!(changed)), "{active}");
    }
}

#[tokio::test]
async fn machines_are_selected_by_the_words_of_unit_files() {
    let world = World::new().await;
    for n in 1..=3 {
        world.register(n).await;
    }
    world.see_machines(3).await;
    let listed = async |selector: &str| {
        let query = MachinesQuery { selector: Some(selector.to_owned()), ..MachinesQuery::default() };
        let page = world.client.machines_where(&query).await?;
        Ok::<_, flotilla_api::client::ClientError>(
            page.items.iter().map(|machine| machine.id).collect::<Vec<_>>(),
        )
    };
    assert_eq!(listed("host=m2").await.unwrap(), [id(2)]);
    assert_eq!(
        listed("\"host=m2\" \"host=m3\"").await.unwrap(),
        [id(2), id(3)],
        "values of a key are alternatives"
    );
    let refused = listed("host=").await.unwrap_err();
    assert_eq!(refused.kind(), Some(ErrorKind::BadRequest), "{refused}");
}

#[tokio::test]
async fn a_filtered_watch_tells_what_no_longer_is_what_is_asked_for() {
    let world = World::new().await;
    world.register(1).await;
    world.unit("a.service", Some(1)).await;
    world.unit("b.service", Some(1)).await;
    let query = WatchQuery { failed: true, ..WatchQuery::default() };
    let mut watch = world.client.watch(&query, None).await.unwrap();
    let mut next = async || timeout(LIMIT, watch.next()).await.unwrap().unwrap().unwrap().data;
    assert!(matches!(next().await, WatchEvent::Reset));
    assert!(matches!(next().await, WatchEvent::Synced { .. }), "none has failed");
    report(&world, 1, "b.service", "active").await;
    report(&world, 1, "a.service", "failed").await;
    assert!(matches!(next().await, WatchEvent::Unit { unit } if unit.name == name("a.service")));
    report(&world, 1, "a.service", "active").await;
    assert!(matches!(next().await, WatchEvent::Gone { name: gone } if gone == name("a.service")));
}

#[tokio::test]
async fn a_request_is_named_in_its_answer_and_in_its_events() {
    let world = World::new().await;
    world.register(1).await;
    let submit = json!({"units": [{"name": "a.service", "text": service("m1")}]});
    let given = [("x-request-id", "deploy-7")];
    let (status, headers, _) = send(&world, Method::POST, "/v1/units", &given, submit).await;
    assert_eq!((status, headers["x-request-id"].to_str().unwrap()), (200, "deploy-7"));
    let start = json!({"action": "start", "units": ["a.service"]});
    let (_, headers, _) = send(&world, Method::POST, "/v1/orders", &[], start).await;
    let made = headers["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(made.len(), 16);
    let (_, headers, _) =
        send(&world, Method::GET, "/v1/units", &[("x-request-id", "a b")], Value::Null).await;
    assert_ne!(headers["x-request-id"].to_str().unwrap(), "a b", "only a word is taken");

    let query = EventsQuery { pattern: Some("a.service".to_owned()), follow: true, ..EventsQuery::default() };
    let mut events = world.client.events(&query, None).await.unwrap();
    let mut next = async || timeout(LIMIT, events.next()).await.unwrap().unwrap().unwrap().data;
    let submitted = next().await;
    assert_eq!((&*submitted.kind, submitted.request.as_deref()), ("submitted", Some("deploy-7")));
    assert_eq!(next().await.request.as_ref(), Some(&made));
    let placed = next().await;
    assert_eq!((&*placed.kind, &*placed.by, placed.host.as_deref()), ("placed", "engine", Some("m1")));
    assert_eq!(placed.request, Some(made), "the engine says by which request it acts");
    assert!(placed.why.is_some_and(|why| why.starts_with("started by ")));

    let told = async |query: EventsQuery| {
        let mut events = world.client.events(&query, None).await.unwrap();
        let mut kinds = Vec::new();
        while let Some(event) = timeout(LIMIT, events.next()).await.unwrap().unwrap() {
            kinds.push(event.data.kind);
        }
        kinds
    };
    let some = |text: &str| Some(text.to_owned());
    let all = EventsQuery::default();
    assert_eq!(told(EventsQuery { kind: some("sub*"), ..all.clone() }).await, ["submitted"]);
    let of_machine = EventsQuery { machine: some("m1"), kind: some("pl*,gone"), ..all.clone() };
    assert_eq!(told(of_machine).await, ["placed"]);
    assert_eq!(told(EventsQuery { machine: some("m2"), ..all.clone() }).await, [""; 0]);
    assert_eq!(told(EventsQuery { since: Some(jiff::Timestamp::MAX), ..all }).await, [""; 0]);
}

#[tokio::test]
async fn a_write_under_a_condition_is_done_only_to_what_was_read() {
    let world = World::new().await;
    let put = |text: &str| json!({"text": text});
    let path = "/v1/units/a.service";
    let fresh = [("if-none-match", "*")];
    let (status, _, body) = send(&world, Method::PUT, path, &fresh, put(&service("m1"))).await;
    assert_eq!(status, 200, "{body}");
    let (status, _, body) = send(&world, Method::PUT, path, &fresh, put(&service("m1"))).await;
    assert_eq!((status, &body["kind"]), (412, &json!("revision-differs")), "it is not new any more");
    let (_, headers, read) = send(&world, Method::GET, path, &[], Value::Null).await;
    let tag = headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(tag, format!("\"{}\"", read["revision"]));
    let (_, headers, _) = send(&world, Method::GET, "/v1/units/a.service/content", &[], Value::Null).await;
    assert_eq!(headers["etag"].to_str().unwrap(), tag);

    let seen = [("if-match", &*tag)];
    let (status, _, changed) = send(&world, Method::PUT, path, &seen, put(&service("m2"))).await;
    assert_eq!((status, changed["units"][0]["changed"].clone()), (200, json!(true)));
    let order = json!({"action": "start", "units": ["a.service"]});
    for (method, path, body) in [
        (Method::PUT, path, put(&service("m3"))),
        (Method::DELETE, path, Value::Null),
        (Method::POST, "/v1/orders", order.clone()),
    ] {
        let (status, _, body) = send(&world, method, path, &seen, body).await;
        assert_eq!(status, 412, "{body}");
        let now = changed["revision"].to_string();
        let message = text(&body);
        assert!(
            message.contains(&now) && message.contains(tag.trim_matches('"')),
            "both revisions: {message}"
        );
    }
    let now = format!("\"{}\"", changed["revision"]);
    let (status, _, body) = send(&world, Method::POST, "/v1/orders", &[("if-match", &*now)], order).await;
    assert_eq!(status, 200, "{body}");
    let several = json!({"action": "start", "units": ["a.service", "b.service"]});
    let (status, ..) = send(&world, Method::POST, "/v1/orders", &[("if-match", "\"1\"")], several).await;
    assert_eq!(status, 400, "it is about one unit");
    let (status, ..) =
        send(&world, Method::DELETE, "/v1/units/b.service", &[("if-match", "*")], Value::Null).await;
    assert_eq!(status, 412, "it is not there");
    for (path, body) in [
        ("/v1/units/b.service", json!({"text": service("m1")})),
        ("/v1/units/b.service", json!({"target": "launched"})),
    ] {
        let (status, ..) = send(&world, Method::PUT, path, &[("if-match", "*")], body).await;
        assert_eq!(status, 412, "it is not there, and not made");
    }
    let start = json!({"action": "start", "units": ["b.service"]});
    let (status, ..) = send(&world, Method::POST, "/v1/orders", &[("if-match", "*")], start).await;
    assert_eq!(status, 412, "it is not there, and not made");
    let (status, _, body) = send(&world, Method::DELETE, path, &[("if-match", "*")], Value::Null).await;
    assert_eq!(status, 202, "{body}");
    // A condition that cannot hold is not passed over.
    for (path, body) in [
        ("/v1/cluster/release-hold", Value::Null),
        ("/v1/accept-store", Value::Null),
        ("/v1/machines/m1/adopt", json!({"units": ["c.service"]})),
        ("/v1/rebalance", json!({"apply": true, "budget": 1})),
    ] {
        let (status, _, answer) = send(&world, Method::POST, path, &[("if-match", "\"1\"")], body).await;
        assert_eq!(status, 400, "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_condition_is_kept_or_refused_never_passed_over() {
    let world = World::new().await;
    let given = json!({"text": service("m1")});
    let (status, _, body) = send(&world, Method::PUT, "/v1/units/a.service", &[], given).await;
    assert_eq!(status, 200, "{body}");
    let stale = [("if-match", "\"1\"")];
    let foreseen = json!({"action": "start", "units": ["a.service"], "dry_run": true});
    let (status, _, body) = send(&world, Method::POST, "/v1/orders", &stale, foreseen).await;
    assert_eq!((status, &body["kind"]), (412, &json!("revision-differs")), "also where nothing is done");
    let bulk = json!({"units": [{"name": "a.service", "action": "start"}]});
    let submit = json!({"units": [{"name": "b.service", "text": service("m1")}]});
    for (path, write, instead) in [("/v1/bulk", bulk, "`if_match`"), ("/v1/units", submit, "PUT /v1/units/")]
    {
        let (status, _, body) = send(&world, Method::POST, path, &stale, write).await;
        assert_eq!(status, 400, "{path}: a condition of several units: {body}");
        assert!(text(&body).contains(instead), "{body}");
    }
    assert!(world.client.unit("b.service").await.is_err(), "nothing was done");
}

#[tokio::test]
async fn a_wrong_method_is_told_which_are_right() {
    let world = World::new().await;
    for (method, path, allowed) in [
        (Method::POST, "/v1/cluster", "GET,HEAD"),
        (Method::PATCH, "/v1/units/a.service", "GET,HEAD,PUT,DELETE"),
        (Method::GET, "/v1/orders", "POST"),
    ] {
        let (status, headers, body) = send(&world, method, path, &[], Value::Null).await;
        assert_eq!((status, &body["kind"]), (405, &json!("bad-request")), "{path}");
        assert_eq!(headers["allow"], allowed, "{path}");
    }
}

#[tokio::test]
async fn a_bulk_write_is_all_or_nothing() {
    let world = World::new().await;
    let unit = |name: &str| BulkUnit { name: name.to_owned(), ..BulkUnit::default() };
    let given = |name: &str| BulkUnit { text: Some(service("m1")), ..unit(name) };
    let ordered = |name: &str, action| BulkUnit { action: Some(action), ..unit(name) };
    let write = |units: Vec<BulkUnit>| BulkWrite { units, whole: true };
    let first = write(vec![
        given("web@.service"),
        ordered("web@1.service", Action::Start),
        ordered("web@2.service", Action::Load),
        BulkUnit { action: Some(Action::Start), ..given("a.service") },
    ]);
    let done = world.client.bulk(&first).await.unwrap();
    assert_eq!((done.transactions, done.units.len()), (1, 4));
    assert!(done.units.iter().all(|unit| unit.changed));
    let again = world.client.bulk(&first).await.unwrap();
    assert!(again.units.iter().all(|unit| !unit.changed), "{again:?}");

    let before = world.client.unit("a.service").await.unwrap();
    let half = write(vec![ordered("a.service", Action::Destroy), ordered("nobody.service", Action::Start)]);
    let refused = world.client.bulk(&half).await.unwrap_err();
    assert_eq!(refused.kind(), Some(ErrorKind::NotFound), "{refused}");
    let stale = BulkUnit { if_match: Some(1), ..ordered("a.service", Action::Destroy) };
    let refused = world.client.bulk(&write(vec![ordered("web@1.service", Action::Unload), stale])).await;
    assert_eq!(refused.unwrap_err().kind(), Some(ErrorKind::RevisionDiffers));
    let invalid = BulkUnit { text: Some("[Service".to_owned()), ..unit("b.service") };
    let refused = world.client.bulk(&write(vec![ordered("a.service", Action::Destroy), invalid])).await;
    assert_eq!(refused.unwrap_err().kind(), Some(ErrorKind::InvalidUnit));
    let nothing = world.client.bulk(&write(vec![unit("a.service")])).await.unwrap_err();
    assert_eq!(nothing.kind(), Some(ErrorKind::BadRequest), "{nothing}");
    assert_eq!(world.client.unit("a.service").await.unwrap().revision, before.revision, "nothing was done");

    let many = (0..150).map(|n| ordered(&format!("web@{n}.service"), Action::Load)).collect();
    let refused = world.client.bulk(&write(many)).await.unwrap_err();
    assert!(refused.to_string().contains("one transaction"), "{refused}");
    let many = (0..150).map(|n| ordered(&format!("web@{n}.service"), Action::Load)).collect();
    let done = world.client.bulk(&BulkWrite { units: many, whole: false }).await.unwrap();
    assert!(done.transactions > 1 && done.units.len() == 150, "{}", done.transactions);
}

#[tokio::test]
async fn the_clusters_settings_are_read_and_set() {
    let world = World::new().await;
    let before = world.client.settings().await.unwrap();
    assert_eq!((before.events_kept_s, before.events_max, before.revision), (86_400, 10_000, 0));
    let week = SettingsChange { events_kept_s: Some(7 * 86_400), ..SettingsChange::default() };
    let set = world.client.configure(&week).await.unwrap();
    assert_eq!(world.client.settings().await.unwrap(), set);
    let refused = world.client.configure(&SettingsChange { events_max: Some(1), ..week }).await.unwrap_err();
    assert_eq!(refused.kind(), Some(ErrorKind::BadRequest), "{refused}");
    let stale = [("if-match", "\"0\"")];
    let body = json!({"events_max": 500});
    let (status, ..) = send(&world, Method::PATCH, "/v1/cluster/settings", &stale, body).await;
    assert_eq!(status, 412);
}

/// fleet cut lines at 2048 bytes, stored what no agent could read, and found out only there.
#[tokio::test]
async fn lines_may_be_long_and_what_is_not_valid_is_not_stored() {
    let world = World::new().await;
    let long = format!("[Service]\nExecStart=/bin/echo {}\n", "x".repeat(100_000));
    let path = "/v1/units/long.service";
    let (status, _, body) = send(&world, Method::PUT, path, &[], json!({ "text": long })).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(world.client.content("long.service").await.unwrap().text, long, "to the last byte");

    let invalid = json!({ "text": "[Service]\nExecStart=/bin/true\nWantedBy\n" });
    let submitted = json!({ "units": [{ "name": "bad.service", "text": invalid["text"] }] });
    for (method, path, body) in [
        (Method::PUT, "/v1/units/bad.service", invalid),
        (Method::POST, "/v1/units", submitted.clone()),
        (Method::POST, "/v1/bulk", submitted),
    ] {
        let (status, _, body) = send(&world, method, path, &[], body).await;
        assert_eq!((status, &body["kind"]), (422, &json!("invalid-unit")), "{path}: {body}");
        assert!(text(&body).contains("bad.service"), "{body}");
        assert!(body.to_string().contains(":3:1: this line has no `=`"), "with its line: {body}");
    }
    let refused = world.client.unit("bad.service").await.unwrap_err();
    assert_eq!(refused.kind(), Some(ErrorKind::NotFound), "{refused}");
}

/// What an operator says to one flotillad is told with who said it; of a hold that is ended the leader tells.
#[tokio::test]
async fn a_store_that_is_accepted_is_an_event() {
    let world = World::new().await;
    world.register(1).await;
    world.see_machines(1).await;
    let by = [("x-request-id", "r-9")];
    let (status, _, body) = send(&world, Method::POST, "/v1/accept-store", &by, Value::Null).await;
    assert_eq!(status, 204, "{body}");
    let mut events = world.client.events(&EventsQuery::default(), None).await.unwrap();
    let mut told = Vec::new();
    while let Some(event) = timeout(LIMIT, events.next()).await.unwrap().unwrap() {
        let event = event.data;
        told.extend((event.request.as_deref() == Some("r-9")).then_some((event.kind, event.machine)));
    }
    assert_eq!(told, [("store-accepted".to_owned(), Some(id(1)))]);
}
