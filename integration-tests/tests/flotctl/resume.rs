//! Server-sent events over lost connections: what was missed is told, from where it was lost.

use flotilla_api::watch::{Event, WatchEvent};
use serde_json::json;

use crate::{
    http::{Sent, Socket, Stream},
    schema::{check, document},
    world::World,
};

/// Changes several units in one transaction, so that several events have one revision.
const STEPS: [&str; 3] = ["submit", "start", "destroy"];

pub fn nothing_is_lost_over_lost_connections(world: &World) {
    let socket = Socket::of(world.machine());
    events(world, &socket);
    watch(world, &socket);
}

fn act(world: &World, step: &str) {
    let names = ["r1", "r2", "r3"].map(|name| format!("{name}.service"));
    let paths = names.map(|name| world.write(&name, "[Service]\nExecStart=/bin/sleep infinity\n"));
    let words: Vec<&str> = [step].into_iter().chain(paths.iter().map(String::as_str)).collect();
    world.ask(&words);
}

fn event(sent: &Sent) -> Event {
    serde_json::from_str(&sent.data).unwrap()
}

/// From each event on, a client that reads the rest misses nothing, also within a revision.
fn events(world: &World, socket: &Socket) {
    let all = "/v1/events?pattern=r*&lines=1000";
    let followed = "/v1/events?pattern=r*&lines=0&follow=true";
    for step in STEPS {
        act(world, step);
    }
    let whole: Vec<Sent> = std::iter::from_fn({
        let mut stream = socket.stream(all, None);
        move || stream.try_next()
    })
    .collect();
    let shared = whole.windows(2).filter(|pair| event(&pair[0]).revision == event(&pair[1]).revision).count();
    assert!(shared > 0, "several events of one revision are what is hard: {whole:?}");
    let last = whole.last().unwrap().id.clone().unwrap();
    for read in 0..whole.len() {
        // What a client knows that lost its connection after so many events.
        let id = whole[..read].iter().rev().find_map(|sent| sent.id.as_deref());
        let Some(id) = id else { continue };
        let mut stream = socket.stream(all, Some(id));
        let rest: Vec<Sent> = std::iter::from_fn(|| stream.try_next()).collect();
        let first = whole.len() - rest.len();
        assert_eq!(rest, whole[first..], "after {read}: in order, with nothing left out");
        assert!(first <= read, "after {read} events were read it goes on at {first}");
        assert!(event(&whole[first]).revision > id.parse().unwrap(), "and tells no whole revision again");
    }
    // What happens while nobody listens is told to the one that comes back, and then it goes on.
    act(world, STEPS[0]);
    let mut stream = socket.stream(followed, Some(&last));
    let submitted: Vec<Event> = (0..3).map(|_| event(&stream.next())).collect();
    assert!(submitted.iter().all(|event| event.kind == "submitted"), "{submitted:?}");
    act(world, STEPS[2]);
    while event(&stream.next()).kind != "destroyed" {}
    let refused = socket.ask("GET", "/v1/events?pattern=%5B", None);
    assert_eq!(refused.status, 400);
}

/// A watch that comes back with the last id is told each unit that changed, and not everything.
fn watch(world: &World, socket: &Socket) {
    let (document, schema) = (document(), json!({"$ref": "#/components/schemas/WatchEvent"}));
    let next = |stream: &mut Stream| {
        let sent = stream.next();
        let value = serde_json::from_str(&sent.data).unwrap();
        check(&document, &schema, &value, "watch").unwrap();
        (sent.id, serde_json::from_value::<WatchEvent>(value).unwrap())
    };
    let target = "/v1/watch?pattern=r*,web@*";
    let mut stream = socket.stream(target, None);
    assert_eq!(next(&mut stream).1, WatchEvent::Reset);
    for name in ["web@.service", "web@1.service", "web@2.service"] {
        let (_, told) = next(&mut stream);
        assert!(matches!(&told, WatchEvent::Unit { unit } if unit.name.as_str() == name), "{told:?}");
    }
    let (id, told) = next(&mut stream);
    assert!(matches!(told, WatchEvent::Synced { .. }), "{told:?}");
    drop(stream);

    act(world, "start");
    let mut stream = socket.stream(target, id.as_deref());
    let mut names = std::collections::BTreeSet::new();
    let mut id = None;
    while names.len() < 3 {
        let (at, told) = next(&mut stream);
        let WatchEvent::Unit { unit } = told else { panic!("{told:?}") };
        assert!(unit.name.as_str().starts_with('r'), "what did not change is not told: {unit:?}");
        names.insert(unit.name.to_string());
        id = at.or(id);
    }
    drop(stream);
    act(world, "destroy");
    let mut stream = socket.stream(target, id.as_deref());
    let mut gone = std::collections::BTreeSet::new();
    while gone.len() < 3 {
        match next(&mut stream).1 {
            WatchEvent::Gone { name } => _ = gone.insert(name.to_string()),
            WatchEvent::Unit { unit } => assert!(names.contains(unit.name.as_str()), "{unit:?}"),
            told => panic!("{told:?}"),
        }
    }
    assert_eq!(gone, names);
    // Where it began is longer ago than anybody remembers: everything, and no error.
    let mut stream = socket.stream(target, Some("1"));
    assert_eq!(next(&mut stream).1, WatchEvent::Reset);
}
