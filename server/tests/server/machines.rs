//! What users say of machines, over HTTP.

use axum::http::{HeaderMap, Method};
use flotilla_api::{
    REQUEST_ID,
    client::ClientError,
    error::ErrorKind,
    machine::{MachineOutcome, MetadataPatch},
};
use flotilla_registry::{
    keys::Keys,
    records::{EventRecord, Record as _},
    store::RangeRequest,
};
use tokio::time::{sleep, timeout};

use crate::world::{LIMIT, World, id, name};

fn kind(refused: Result<impl std::fmt::Debug, ClientError>) -> ErrorKind {
    refused.unwrap_err().kind().unwrap()
}

fn set(pairs: &[(&str, &str)]) -> MetadataPatch {
    let set = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    MetadataPatch { set: set.collect(), ..MetadataPatch::default() }
}

/// Waits until a unit is on a machine, and leaving no other.
async fn wait_on(world: &World, unit: &str, n: u8) {
    let reader = world.engine.reader().unwrap();
    let there = async {
        loop {
            let row = reader.unit(&name(unit)).0;
            let at = row.iter().flat_map(|row| &row.placements).filter(|p| p.departing.is_none());
            if at.map(|p| p.machine).collect::<Vec<_>>() == [id(n)] {
                return;
            }
            sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, there).await.unwrap_or_else(|_| panic!("{unit} is not on m{n}"));
}

async fn start(world: &World, unit: &str, placement: &str) {
    let text = format!("[Service]\nExecStart=/bin/true\n[X-Flotilla]\n{placement}\n");
    world.operations.submit(&[(name(unit), text)], "test").await.unwrap();
    let launched = flotilla_registry::records::Target::Launched;
    world.operations.set_target(&[name(unit)], launched, true, "test").await.unwrap();
}

#[tokio::test]
async fn metadata_is_said_of_a_machine_while_it_runs() {
    let world = World::new().await;
    world.register(1).await;
    world.register(2).await;
    world.see_machines(2).await;
    start(&world, "a.service", "MachineMetadata=zone=b").await;
    let said = world.client.change_metadata("m2", &set(&[("zone", "b"), ("disk", "ssd")])).await.unwrap();
    assert_eq!((said.machine, said.host.as_deref(), said.changed), (id(2), Some("m2"), true));
    wait_on(&world, "a.service", 2).await;
    let again = world.client.change_metadata("m2", &set(&[("zone", "b")])).await.unwrap();
    assert_eq!(again, MachineOutcome { changed: false, ..said.clone() });

    let unset = MetadataPatch { unset: ["host".to_owned()].into(), ..MetadataPatch::default() };
    world.client.change_metadata(&id(2).to_string(), &unset).await.unwrap();
    let machine = world.client.machine("m2").await.unwrap();
    assert_eq!(machine.metadata, set(&[("zone", "b"), ("disk", "ssd")]).set, "what is configured is hidden");
    assert_eq!(machine.origin.configured, set(&[("host", "m2")]).set);
    assert_eq!((machine.origin.set, machine.origin.unset), (machine.metadata.clone(), unset.unset.clone()));
    let reset = MetadataPatch {
        reset: ["host".to_owned(), "zone".to_owned(), "disk".to_owned()].into(),
        ..MetadataPatch::default()
    };
    world.client.change_metadata("m2", &reset).await.unwrap();
    let machine = world.client.machine("m2").await.unwrap();
    assert_eq!((machine.metadata, machine.revision), (set(&[("host", "m2")]).set, 0));

    // A machine that was never here is named by its whole id, and by nothing less.
    world.client.change_metadata(&id(9).to_string(), &set(&[("zone", "b")])).await.unwrap();
    assert_eq!(kind(world.client.change_metadata("m9", &set(&[("zone", "b")])).await), ErrorKind::NotFound);
    let eight = world.client.change_metadata("00000000", &set(&[("zone", "b")])).await;
    assert_eq!(kind(eight), ErrorKind::Conflict);
    // A host that has gone may be called so; whoever only looks is told of those whose ids begin so.
    for word in ["0", "0000", "0000000"] {
        let refused = world.client.change_metadata(word, &set(&[("zone", "b")])).await.unwrap_err();
        assert_eq!(refused.kind(), Some(ErrorKind::NotFound), "{refused}");
        assert!(refused.to_string().contains("8 digits"), "{refused}");
        assert_eq!(kind(world.client.drain(word, true).await), ErrorKind::NotFound, "{word}");
    }
    assert_eq!(kind(world.client.machine("0000").await), ErrorKind::Conflict);
    assert_eq!(kind(world.client.machine("000").await), ErrorKind::NotFound);
    assert_eq!(kind(world.client.change_metadata("m1", &set(&[])).await), ErrorKind::BadRequest);
    assert_eq!(kind(world.client.change_metadata("m1", &set(&[("a b", "c")])).await), ErrorKind::BadRequest);
    let twice = MetadataPatch { unset: ["zone".to_owned()].into(), ..set(&[("zone", "b")]) };
    assert_eq!(kind(world.client.change_metadata("m1", &twice).await), ErrorKind::BadRequest);
}

#[tokio::test]
async fn a_cordoned_machine_gets_nothing_new_and_keeps_what_it_has() {
    let world = World::new().await;
    world.register(1).await;
    world.register(2).await;
    world.see_machines(2).await;
    start(&world, "first.service", "").await;
    wait_on(&world, "first.service", 1).await;
    world.client.cordon("m2", true).await.unwrap();
    start(&world, "second.service", "").await;
    wait_on(&world, "second.service", 1).await;
    let machine = world.client.machine("m2").await.unwrap();
    assert!(machine.cordoned && machine.closed.as_deref() == Some("it is cordoned"), "{machine:?}");
    world.client.cordon("m2", false).await.unwrap();
    start(&world, "third.service", "").await;
    wait_on(&world, "third.service", 2).await;
    assert_eq!(world.client.machine("m2").await.unwrap().revision, 0, "nothing is said of it any more");
    assert_eq!(world.client.machine("m1").await.unwrap().units, 2);
}

#[tokio::test]
async fn a_change_can_be_bound_to_what_was_seen_and_its_event_names_the_request() {
    let world = World::new().await;
    world.register(1).await;
    world.see_machines(1).await;
    let drain = async |revision: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, "r-7".parse().unwrap());
        headers.insert("if-match", revision.parse().unwrap());
        let answer = world.client.forward(Method::PUT, "v1/machines/m1/drain", headers, "").await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!(drain("\"7\"").await, 412);
    assert_eq!(drain("many").await, 400);
    assert_eq!(drain("\"0\"").await, 200);
    // A star asks that the machine is known, not that anybody said anything of it.
    let known = async |machine: &str, condition: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(condition, "*".parse().unwrap());
        let path = format!("v1/machines/{machine}/cordon");
        world.client.forward(Method::PUT, &path, headers, "").await.unwrap().status().as_u16()
    };
    let never_seen = id(9).to_string();
    assert_eq!(known(&never_seen, "if-match").await, 412);
    assert!(world.client.machine(&never_seen).await.is_err(), "nothing was written");
    assert_eq!(known("m1", "if-match").await, 200);
    assert_eq!(known("m1", "if-none-match").await, 412, "something is said of it");
    world.client.cordon("m1", false).await.unwrap();
    world.client.drain("m1", true).await.unwrap();
    assert_eq!(known(&never_seen, "if-none-match").await, 200);
    let answer = world.client.forward(Method::GET, "v1/machines/m1", HeaderMap::new(), "").await.unwrap();
    let etag = answer.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(etag, format!("\"{}\"", world.client.machine("m1").await.unwrap().revision));
    world.client.drain("m1", false).await.unwrap();
    let range = RangeRequest::all(Keys::default().all_of("events"));
    let kvs = world.store.range(range).await.unwrap().kvs;
    let events: Vec<EventRecord> = kvs.iter().map(|kv| EventRecord::from_kv(kv).unwrap()).collect();
    let of =
        |kind: &str| events.iter().find(|it| it.changes.iter().any(|change| change.kind == kind)).unwrap();
    assert_eq!(of("drain-ordered").request.as_deref(), Some("r-7"));
    assert!(of("drain-ended").request.as_deref().is_some_and(|made| made.len() == 16));
}
