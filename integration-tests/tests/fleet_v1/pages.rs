//! Lists in pages, by fleet's tokens.

use std::collections::BTreeSet;

use flotilla_registry::records::Target;
use flotilla_units::UnitRange;
use serde_json::{Value, json};

use crate::world::{World, name};

const SLEEPER: &str = "[Service]\nExecStart=/bin/sleep 100\n";

/// Reads pages from a token on, and returns the names on each.
fn pages(world: &World, list: &str, mut token: Option<String>) -> Vec<Vec<String>> {
    let (path, key) = list.split_once(' ').unwrap();
    let mut pages = Vec::new();
    loop {
        let query = token.as_deref().map(|token| format!("?nextPageToken={token}")).unwrap_or_default();
        let page = world.get(&format!("{path}{query}")).json();
        let items = page[key].as_array().cloned().unwrap_or_default();
        let names = items.iter().map(|item| item["name"].as_str().unwrap().to_owned());
        pages.push(names.collect());
        token = page["nextPageToken"].as_str().map(str::to_owned);
        if token.is_none() {
            return pages;
        }
    }
}

#[test]
fn lists_come_in_pages_of_a_hundred_in_order() {
    let world = World::new(1);
    let units: Vec<_> = (0..250).map(|n| (name(&format!("u{n:03}.service")), SLEEPER.to_owned())).collect();
    world.run(world.operations.submit(&units, "test")).unwrap();
    world.until("all units", |world| pages(world, "/units units", None).concat().len() == 250);
    let first = world.get("/units").json();
    // Pages are counted as fleet counted them, to the byte.
    assert_eq!(first["nextPageToken"], "ZAACAA==");
    assert_eq!(first["units"][99]["name"], "u099.service");
    let second = world.get("/units?nextPageToken=ZAACAA==").json();
    assert_eq!(
        (&second["units"][0]["name"], &second["nextPageToken"]),
        (&json!("u100.service"), &json!("ZAADAA=="))
    );
    assert_eq!(world.get("/units?nextPageToken=ZAACAA%3D%3D").json(), second, "encoded or not");
    let third = world.get("/units?nextPageToken=ZAADAA==").json();
    assert_eq!(third["units"].as_array().unwrap().len(), 50);
    assert_eq!(third.get("nextPageToken"), None);
    assert_eq!(world.get("/units?nextPageToken=ZAAFAA==").body, b"{}", "behind the end there is nothing");

    let named: Vec<_> = units.into_iter().map(|(unit, _)| unit).collect();
    world.run(world.operations.set_target(&named[..200], Target::Launched, false, "test")).unwrap();
    world.until("all states", |world| pages(world, "/state states", None).concat().len() == 200);
    let states = pages(&world, "/state states", None);
    let lengths: Vec<_> = states.iter().map(Vec::len).collect();
    assert_eq!(lengths, [100, 100, 0], "a full last page has an empty one behind it, as in fleet");
    assert!(states.concat().is_sorted());
    let of_one = world.get("/state?nextPageToken=ZAACAA==&unitName=u000.service");
    assert_eq!(of_one.body, b"{}", "a filter is for every page");
}

#[test]
fn a_token_is_refused_unless_it_was_given_out() {
    let world = World::new(0);
    for list in ["/units", "/state", "/machines"] {
        for token in ["", "x", "EwBMLg==", "ZAAAAA==", "ZAACAA", "ZAACAAA=", "%FF", "ZAACAA==ZAACAA=="] {
            world.get(&format!("{list}?nextPageToken={token}")).refusal(400);
        }
        let twice = world.get(&format!("{list}?nextPageToken=ZAACAA==&nextPageToken=ZAACAA==")).refusal(400);
        assert_eq!(twice, "too many values for nextPageToken");
        world.get(&format!("{list}?nextPageToken=ZAACAA==&alt=json&more=1")).json();
    }
}

/// fleet counted items in 16 bits: its lists of more than 65,535 never ended.
#[test]
fn a_list_of_more_than_sixteen_bits_ends() {
    const INSTANCES: u64 = 66_000;
    let world = World::new(0);
    let template = name("n@.service");
    world.run(world.operations.submit(&[(template.clone(), SLEEPER.to_owned())], "test")).unwrap();
    let range = UnitRange::new(template, 1, INSTANCES).unwrap();
    world.run(world.operations.set_target_in(&range, Target::Loaded, false, "test")).unwrap();
    // Page 655 of hundred is the last below 65,536 items.
    let token = Some("ZACPAg==".to_owned());
    world.until("all units", |world| pages(world, "/units units", token.clone()).concat().len() == 601);
    let found = pages(&world, "/units units", token);
    assert_eq!(found.len(), 7, "six pages and a rest");
    let names: BTreeSet<String> = found.concat().into_iter().collect();
    assert_eq!(names.len(), 601, "no unit twice");
    let first = world.get("/units").json();
    let begin: Vec<&Value> = first["units"].as_array().unwrap().iter().map(|unit| &unit["name"]).collect();
    assert!(!begin.iter().any(|name| names.contains(name.as_str().unwrap())), "and none of the first page");
}
