//! How another text comes to what runs: `--replace`, and `--no-restart` beside it.

use flotilla_integration_tests::{LIMIT, eventually};

use crate::{
    Row,
    world::{World, has},
};

pub const ROWS: [Row; 3] = [("submit", submit), ("load", load), ("start", start)];

/// Writes the file of a unit that tells its text apart by its description.
fn write(world: &World, unit: &str, version: &str) -> String {
    let text = format!("[Unit]\nDescription={version}\n[Service]\nExecStart=/bin/sleep infinity\n");
    world.write(&format!("{unit}.service"), &text)
}

/// Which text systemd runs, and which run it is.
fn runs(world: &World, unit: &str) -> (String, String) {
    let unit = format!("{unit}.service");
    (world.show(&unit, "Description"), world.show(&unit, "InvocationID"))
}

/// How many have the text that the cluster has.
fn updated(world: &World, unit: &str) -> String {
    world.ask(&["list-unit-files", "--no-legend", "--fields=updated", unit])
}

fn submit(world: &World) {
    let path = write(world, "given", "first");
    world.ask(&["start", &path]);
    let first = runs(world, "given");
    assert_eq!((first.0.as_str(), updated(world, "given").as_str()), ("first", "1/1\n"));

    write(world, "given", "second");
    let kept = world.expect(1, &["submit", &path]);
    kept.complains(&["given.service in the cluster differs from the file", "--replace"]);
    has("cat", &world.ask(&["cat", "given"]), &["Description=first"]);
    world.expect(2, &["submit", "--no-restart", &path]).complains(&["--replace"]);

    assert_eq!(world.ask(&["submit", "--replace", "--no-restart", &path]), "given.service submitted\n");
    has("cat", &world.ask(&["cat", "given"]), &["Description=second"]);
    has("list-unit-files", &updated(world, "given"), &["0/1"]);
    assert_eq!(runs(world, "given"), first, "it runs on as it is until it is started anew");
    assert_eq!(world.ask(&["restart", "given"]), "given.service active on m1\n");
    let second = runs(world, "given");
    assert_eq!(second.0, "second");

    write(world, "given", "third");
    assert_eq!(world.ask(&["submit", "--replace", &path]), "given.service submitted\n");
    eventually(LIMIT, "the third text to run", || Ok((runs(world, "given").0 == "third").then_some(())))
        .unwrap();
    eventually(LIMIT, "the third text to be known to run", || {
        Ok((updated(world, "given") == "1/1\n").then_some(()))
    })
    .unwrap();
    let third = runs(world, "given");
    assert_eq!(world.ask(&["submit", "--replace", &path]), "given.service unchanged\n");
    assert_eq!(world.ask(&["start", "given"]), "given.service active on m1\n");
    assert_eq!(runs(world, "given"), third, "what is the same already is not touched");
    world.ask(&["destroy", "given"]);
}

/// What is loaded has the text before it is started.
fn load(world: &World) {
    let path = write(world, "resting", "first");
    assert_eq!(world.ask(&["load", &path]), "resting.service loaded on m1\n");
    write(world, "resting", "second");
    let kept = world.expect(0, &["load", &path]);
    kept.complains(&["warning: resting.service in the cluster differs"]);
    assert_eq!(world.ask(&["load", "--replace", &path]), "resting.service loaded on m1\n");
    assert_eq!(runs(world, "resting"), ("second".to_owned(), String::new()), "and was not started for it");
    write(world, "resting", "third");
    assert_eq!(world.ask(&["load", "--replace", "--no-restart", &path]), "resting.service loaded on m1\n");
    assert_eq!(world.ask(&["start", "resting"]), "resting.service active on m1\n");
    assert_eq!(runs(world, "resting").0, "third", "the next start is with it");
    world.ask(&["destroy", "resting"]);
}

/// Who waits has the new text at the end.
fn start(world: &World) {
    let path = write(world, "running", "first");
    world.ask(&["start", &path]);
    write(world, "running", "second");
    assert_eq!(world.ask(&["start", "--replace", &path]), "running.service active on m1\n");
    let second = runs(world, "running");
    assert_eq!(second.0, "second");
    write(world, "running", "third");
    assert_eq!(world.ask(&["start", "--replace", "--no-restart", &path]), "running.service active on m1\n");
    assert_eq!(runs(world, "running"), second, "it runs already");
    has("cat", &world.ask(&["cat", "running"]), &["Description=third"]);
    world.ask(&["destroy", "running"]);
}
