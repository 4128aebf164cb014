//! Followed events, units and journals over an outage of the store that is longer than any lease.

use std::{
    collections::BTreeMap,
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use flotilla_api::{unit::Unit, watch::WatchEvent};
use flotilla_integration_tests::{COUNT, COUNT_AT, COUNTER, Follower, LIMIT, eventually};

use crate::{
    api,
    http::{Sent, Socket},
    world::World,
};

/// How long the store is away at least: the seat's lease and half of it again, so that the seat is lost
/// and every stream with it.
const AWAY: Duration = Duration::from_secs(15);

/// What happens before the outage, after it, and after flotillad was killed.
const STEPS: [[&str; 2]; 3] = [["o1", "o2"], ["o3", "o4"], ["o5", "o6"]];

pub fn streams_go_on(world: &World) {
    let machine = world.machine();
    machine.write_file(COUNT_AT, COUNT).unwrap();
    let counter = world.write("count.service", COUNTER);
    world.ask(&["start", &counter]);
    let mut events = world.follow(&["events", "--follow", "-n", "1000", "-o", "json", "o*"]);
    let journal = world.follow(&["journal", "-f", "-o", "json", "count"]);
    let watch = watch(Socket::of(machine));
    act(world, STEPS[0]);
    let first = events.line().unwrap();

    let (store, began) = (&world.cluster.members()[0], Instant::now());
    store.kill().unwrap();
    let socket = Socket::of(machine);
    eventually(LIMIT, "the seat to be lost", || {
        Ok(socket.ask("GET", "/readyz", None).body.contains("engine: it has no seat").then_some(()))
    })
    .unwrap();
    api::unavailable(world);
    world.expect(6, &["start", "o1"]).complains(&["error:"]);
    let rest = AWAY.saturating_sub(began.elapsed()).as_secs_f64();
    machine.run(&["sleep", &rest.to_string()]).unwrap();
    store.start().unwrap();
    store.wait_healthy().unwrap();
    act(world, STEPS[1]);
    // And then the connections alone.
    machine.run(&["systemctl", "kill", "--signal=SIGKILL", "--kill-who=main", "flotillad"]).unwrap();
    act(world, STEPS[2]);

    events_are_all(world, first, events);
    watched_is_what_there_is(world, watch);
    lines_are_all(world, journal);
}

/// Submits, starts and destroys units, as soon as that can be done.
fn act(world: &World, names: [&str; 2]) {
    let paths = names
        .map(|name| world.write(&format!("{name}.service"), "[Service]\nExecStart=/bin/sleep infinity\n"));
    for step in ["submit", "start"] {
        let words = [step, &paths[0], &paths[1]];
        eventually(LIMIT, format_args!("{words:?}"), || {
            Ok((world.flotctl(&words).code == Some(0)).then_some(()))
        })
        .unwrap();
    }
    world.ask(&["destroy", names[0]]);
}

/// What was followed is what is told to one who asks now: all of it, once and in order.
fn events_are_all(world: &World, first: String, mut events: Follower) {
    let whole = world.ask(&["events", "-n", "1000", "-o", "json", "o*"]);
    let whole: Vec<&str> = whole.lines().collect();
    // Where nothing had happened yet there was nothing to begin with.
    let mut followed = vec![first];
    while followed.len() < whole.len() {
        followed.push(events.line().unwrap());
    }
    let followed: Vec<&str> = followed.iter().map(|line| line.trim_end()).collect();
    assert_eq!(followed, whole);
    assert!(whole.last().unwrap().contains("destroyed"), "{whole:?}");
    assert!(events.goes_on().unwrap());
}

/// Watches units, going on with the last id when the connection ends; returns what was told.
fn watch(socket: Socket) -> Receiver<WatchEvent> {
    let (sender, told) = channel();
    thread::spawn(move || {
        let mut last: Option<String> = None;
        loop {
            let stream = || Ok(socket.try_stream("/v1/watch?pattern=o*", last.as_deref()).ok());
            let Ok(mut stream) = eventually(LIMIT, "a watch", stream) else { return };
            while let Some(Sent { id, event: None, data }) = stream.try_next() {
                last = id.or(last);
                if sender.send(serde_json::from_str(&data).unwrap()).is_err() {
                    return;
                }
            }
        }
    });
    told
}

/// Whoever keeps account of what a watch tells has what a list shows.
fn watched_is_what_there_is(world: &World, told: Receiver<WatchEvent>) {
    let mut known: BTreeMap<String, Unit> = BTreeMap::new();
    let mut listed = 0;
    eventually(LIMIT, "the watch to have told what there is", || {
        for event in told.try_iter() {
            match event {
                WatchEvent::Reset => {
                    known.clear();
                    listed += 1;
                }
                WatchEvent::Unit { unit } => _ = known.insert(unit.name.to_string(), *unit),
                // Also of one that came and went while nobody listened.
                WatchEvent::Gone { name } => _ = known.remove(name.as_str()),
                WatchEvent::Synced { .. } => {}
            }
        }
        let units: Vec<Unit> = world.json(&["list-units", "o*"]);
        Ok(known.values().eq(&units).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {known:?}"));
    assert!(known.keys().eq(["o2.service", "o4.service", "o6.service"]), "{known:?}");
    assert!(listed <= 3, "{listed} lists: a new seat has no memory of before, and nothing else is a reason");
}

/// Every number from the first one on.
fn lines_are_all(world: &World, mut journal: Follower) {
    world.ask(&["stop", "count"]);
    world.machine().run(&["journalctl", "--sync"]).unwrap();
    let line = "journalctl --quiet --output=cat --unit=count.service _COMM=perl | tail -n 1";
    let last: u64 = world.machine().shell(line).unwrap().trim().parse().unwrap();
    let mut numbers: Vec<u64> = Vec::new();
    while numbers.last() != Some(&last) {
        let line: flotilla_api::journal::JournalLine =
            serde_json::from_str(&journal.line().unwrap()).unwrap();
        if line.identifier.as_deref() == Some("perl") {
            numbers.push(line.message.parse().unwrap());
        }
    }
    let wrong = (numbers[0]..).zip(&numbers).find(|(expected, number)| expected != *number);
    assert_eq!(wrong, None, "expected, heard");
    assert!(journal.goes_on().unwrap());
}
