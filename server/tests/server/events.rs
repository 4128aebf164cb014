//! Which events are told, from where a reader goes on, and what it is told that it has missed.

use axum::http::{HeaderMap, Method};
use flotilla_api::{
    client::SseStream,
    error::ErrorKind,
    watch::{Event, EventsQuery, WatchEvent, WatchQuery},
};
use flotilla_registry::{
    keys::{Key, Keys},
    records::EventChange,
    store::{KeyRange, Operation, Txn},
};
use jiff::Timestamp;
use tokio::time::timeout;

use crate::world::{LIMIT, World, id, name};

async fn all(mut stream: SseStream<Event>) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = timeout(LIMIT, stream.next()).await.unwrap().unwrap() {
        events.push(event.data);
    }
    events
}

fn about(n: u8, unit: &str) -> EventChange {
    let (unit, machine) = (Some(name(unit)), Some(id(n)));
    EventChange { kind: "placed".to_owned(), unit, machine, ..EventChange::default() }
}

async fn see(world: &World, kind: &str, unit: &str) {
    let query = EventsQuery { pattern: Some(unit.to_owned()), follow: true, ..EventsQuery::default() };
    let mut stream = world.client.events(&query, None).await.unwrap();
    while timeout(LIMIT, stream.next()).await.unwrap().unwrap().unwrap().data.kind != kind {}
}

/// What waited to be written is asked for, and shown, by when it happened.
#[tokio::test]
async fn an_event_has_the_time_at_which_it_was_seen() {
    let world = World::new().await;
    let at = |time: &str| time.parse::<Timestamp>().unwrap();
    for (n, hour) in [(0, "09"), (1, "10"), (2, "11")] {
        let seen = at(&format!("2026-01-01T{hour}:00:00Z"));
        world.event_of(n, EventChange { at: Some(seen), ..about(1, &format!("at{hour}.service")) }).await;
    }
    see(&world, "placed", "at11.service").await;
    let since = Some(at("2026-01-01T10:00:00Z"));
    let query = EventsQuery { kind: Some("placed".to_owned()), since, ..EventsQuery::default() };
    let told = all(world.client.events(&query, None).await.unwrap()).await;
    assert_eq!(
        told.iter().map(|event| (event.unit.clone().unwrap(), event.at)).collect::<Vec<_>>(),
        [
            (name("at10.service"), at("2026-01-01T10:00:00Z")),
            (name("at11.service"), at("2026-01-01T11:00:00Z"))
        ]
    );
}

#[tokio::test]
async fn the_newest_events_of_a_machine_are_told_however_many_others_have_since() {
    let world = World::new().await;
    world.register(1).await;
    world.register(2).await;
    world.see_machines(2).await;
    for n in 0..5 {
        world.event_of(n, about(2, &format!("two{n}.service"))).await;
    }
    for n in 5..1_200 {
        world.event_of(n, about(1, "one.service")).await;
    }
    world.event_of(1_200, about(2, "last.service")).await;
    see(&world, "placed", "last.service").await;
    let query = |machine: &str, lines| EventsQuery {
        machine: Some(machine.to_owned()),
        kind: Some("placed".to_owned()),
        lines,
        ..EventsQuery::default()
    };
    let units = async |machine: &str, lines| {
        let events = all(world.client.events(&query(machine, lines), None).await.unwrap()).await;
        events.into_iter().map(|event| event.unit.unwrap().to_string()).collect::<Vec<_>>()
    };
    let both = ["two3.service", "two4.service", "last.service"];
    assert_eq!(units("m2", Some(3)).await, both);
    assert_eq!(units(&id(2).to_string(), Some(3)).await, both);
    assert_eq!(units("m2", None).await.len(), 6, "fifty are asked for, and there are six");
    assert_eq!(units("m1", Some(1_150)).await.len(), 1_150, "more than a page");
    assert_eq!(units("m2", Some(0)).await, <[&str; 0]>::default());
}

#[tokio::test]
async fn whoever_was_away_for_longer_than_events_are_kept_is_told_so() {
    let world = World::new().await;
    world.event(0).await;
    see(&world, "submitted", "u0.service").await;
    let follow = EventsQuery { follow: true, ..EventsQuery::default() };
    let mut stream = world.client.events(&follow, None).await.unwrap();
    while timeout(LIMIT, stream.next()).await.unwrap().unwrap().unwrap().data.unit.is_none() {}
    let last = stream.last_id().unwrap().to_owned();
    drop(stream);
    for n in 1..5 {
        world.event(n).await;
    }
    // Nothing was collected: nothing is said.
    let mut stream = world.client.events(&follow, Some(&last)).await.unwrap();
    let event = timeout(LIMIT, stream.next()).await.unwrap().unwrap().unwrap().data;
    assert_eq!(event.unit, Some(name("u1.service")));
    drop(stream);
    let then = (0..3).map(|sequence| {
        let key = Keys::default().spell(&Key::Event { writer: "test".to_owned(), sequence });
        Operation::Delete(KeyRange::key(&*key))
    });
    let gone = world.store.txn(Txn { then: then.collect(), ..Txn::default() }).await.unwrap().revision;
    world.engine.reader().unwrap().reached(gone).await.unwrap();
    let mut stream = world.client.events(&follow, Some(&last)).await.unwrap();
    let event = timeout(LIMIT, stream.next()).await.unwrap().unwrap().unwrap().data;
    assert_eq!(event.kind, "events-collected");
    assert!(
        event.why.as_deref().is_some_and(|why| why.contains(&format!("after revision {last}"))),
        "{event:?}"
    );
    let event = timeout(LIMIT, stream.next()).await.unwrap().unwrap().unwrap().data;
    assert_eq!(event.unit, Some(name("u3.service")));
    drop(stream);
    // Once is enough.
    let mut stream = world.client.events(&follow, Some(&event.revision.to_string())).await.unwrap();
    let event = timeout(LIMIT, stream.next()).await.unwrap().unwrap().unwrap().data;
    assert_eq!(event.unit, Some(name("u4.service")));
}

#[tokio::test]
async fn a_place_to_go_on_from_that_cannot_be_read_is_refused() {
    let world = World::new().await;
    for last in ["soon", "-1", "1.5"] {
        let refused = world.client.events(&EventsQuery::default(), Some(last)).await.err().unwrap();
        assert_eq!(refused.kind(), Some(ErrorKind::BadRequest), "{last}");
        let refused = world.client.watch(&WatchQuery::default(), Some(last)).await.err().unwrap();
        assert_eq!(refused.kind(), Some(ErrorKind::BadRequest), "{last}");
    }
}

#[tokio::test]
async fn a_watch_that_goes_on_does_not_go_back() {
    let world = World::new().await;
    world.register(1).await;
    world.unit("a.service", Some(1)).await;
    let reader = world.engine.reader().unwrap();
    // What this seat is yet to see.
    let last = (reader.revision().0 + 50).to_string();
    let client = world.client.clone();
    let asked = tokio::spawn(async move { client.watch(&WatchQuery::default(), Some(&last)).await.unwrap() });
    world.client.version().await.unwrap();
    assert!(!asked.is_finished());
    for n in 0..50 {
        world.event(n).await;
    }
    let mut watch = timeout(LIMIT, asked).await.unwrap().unwrap();
    world.unit("b.service", Some(1)).await;
    loop {
        match timeout(LIMIT, watch.next()).await.unwrap().unwrap().unwrap().data {
            WatchEvent::Unit { unit } if unit.name == name("b.service") => break,
            // What was under way for the first.
            WatchEvent::Unit { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn whoever_accepts_a_store_is_among_the_events() {
    let world = World::new().await;
    let mut headers = HeaderMap::new();
    headers.insert("x-request-id", "r-7".parse().unwrap());
    let answer = world.client.forward(Method::POST, "/v1/accept-store", headers, "").await.unwrap();
    assert_eq!(answer.status().as_u16(), 204);
    let query =
        EventsQuery { kind: Some("store-accepted".to_owned()), follow: true, ..EventsQuery::default() };
    let mut stream = world.client.events(&query, None).await.unwrap();
    let event = timeout(LIMIT, stream.next()).await.unwrap().unwrap().unwrap().data;
    assert_eq!((event.request.as_deref(), event.machine), (Some("r-7"), Some(id(1))));
    assert_ne!(event.by, "engine");
}
