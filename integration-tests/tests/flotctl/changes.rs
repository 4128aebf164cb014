//! The commands that change something, and how they wait.

use flotilla_api::action::Outcome;
use flotilla_integration_tests::{LIMIT, eventually};
use serde_json::Value;

use crate::{
    Row,
    world::{World, has},
};

pub const ROWS: [Row; 7] = [
    ("load", load),
    ("start", start),
    ("stop", stop),
    ("restart", restart),
    ("unload", unload),
    ("destroy", destroy),
    ("adopt", adopt),
];

/// Comes up once its gate is open, and goes down once its other gate is open.
const GATED: &str = "[Service]\nExecStartPre=/bin/sh -c 'until test -e /run/up-%i; do sleep 0.05; done'\nExecStart=/bin/sleep \
                     infinity\nExecStop=/bin/sh -c 'until test -e /run/down-%i; do sleep 0.05; done'\n";

/// Runs until it is stopped.
const SLEEPER: &str = "[Service]\nExecStart=/bin/sleep infinity\n";

/// Too short for what waits at a gate, and long enough for flotctl to be told so on a busy computer.
const TOO_SHORT: &str = "--timeout=5s";

fn open(world: &World, gate: &str) {
    world.machine().run(&["touch", &format!("/run/{gate}")]).unwrap();
}

/// Waits until the cluster knows that a unit is as its machine says.
fn known(world: &World, unit: &str, state: &str) {
    eventually(LIMIT, format_args!("{unit} known to be {state}"), || {
        let words = ["list-units", "--no-legend", "--state", state, unit];
        Ok((!world.ask(&words).is_empty()).then_some(()))
    })
    .unwrap();
}

fn load(world: &World) {
    let path = world.write("one.service", SLEEPER);
    assert_eq!(world.ask(&["load", &path]), "one.service loaded on m1\n");
    assert_eq!(world.show("one.service", "ActiveState"), "inactive");
    assert_eq!(world.ask(&["load", "--timeout", "1min", "one"]), "one.service loaded on m1\n");
    assert_eq!(world.ask(&["load", "--no-block", "one"]), "one.service load ordered\n");
    world.expect(4, &["load", "nobody"]).complains(&["nobody.service"]);
    world.expect(2, &["load", "--timeout", "soon", "one"]).complains(&["`soon` is not a span"]);
    world.expect(2, &["load"]);
}

/// Waits, by itself; does not, when told so; gives up, when told after how long.
fn start(world: &World) {
    let path = world.write("slow@.service", GATED);
    world.ask(&["submit", &path]);
    // The gate is shut: whoever returns has not waited.
    assert_eq!(world.ask(&["start", "--no-block", "slow@1"]), "slow@1.service start ordered\n");
    let outcome: Outcome = world.json(&["start", "--no-block", "slow@1"]);
    assert_eq!(outcome.units.len(), 1);
    known(world, "slow@1.service", "activating");
    let late = world.expect(124, &["start", "--timeout", "5s", "slow@1", "web@1"]);
    late.complains(&["slow@1.service timed out: still activating on m1"]);
    assert_eq!(late.out, "web@1.service active on m1\n", "what is true is said");
    let late = world.expect(124, &["start", TOO_SHORT, "slow@1", "-o", "json"]);
    let told: Value = serde_json::from_str(&late.out).unwrap();
    assert_eq!(told[0]["outcome"], "timed-out", "{told}");

    let mut waiting = world.follow(&["start", "slow@1"]);
    assert!(waiting.goes_on().unwrap());
    open(world, "up-1");
    assert_eq!(waiting.end().unwrap(), (Some(0), "slow@1.service active on m1\n".to_owned()));
    assert_eq!(world.show("slow@1.service", "ActiveState"), "active");

    // On a terminal it says meanwhile how far it is and what it waits for, unit by unit.
    let mut waiting = world.follow_on_terminal(&["start", "slow@2", "slow@3"]);
    waiting.until("0/2 slow@").unwrap();
    waiting.until("activating on m1").unwrap();
    open(world, "up-2");
    waiting.until("1/2 slow@").unwrap();
    open(world, "up-3");
    let (code, shown) = waiting.end().unwrap();
    assert_eq!(code, Some(0), "{shown}");
    has("a terminal", &shown, &["slow@2.service active on m1", "slow@3.service active on m1"]);

    assert_eq!(world.ask(&["start", "one", "--timeout=90s"]), "one.service active on m1\n");
    let dies =
        world.write("dies.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo boom; exit 7'\n");
    let died = world.expect(3, &["start", &dies, "one"]);
    died.complains(&["dies.service failed: result exit-code, exit status 7", "(on m1)", "boom"]);
    let before = world.show("dies.service", "InvocationID");
    world.expect(3, &["start", "dies"]).complains(&["exit status 7"]);
    assert_ne!(world.show("dies.service", "InvocationID"), before, "a failed unit is started again");
    world.ask(&["destroy", "dies"]);
    world.expect(4, &["start", "nobody*"]).complains(&["no unit matches nobody*"]);
}

fn stop(world: &World) {
    assert_eq!(world.ask(&["stop", "--no-block", "slow@1"]), "slow@1.service stop ordered\n");
    known(world, "slow@1.service", "deactivating");
    let late = world.expect(124, &["stop", TOO_SHORT, "slow@1"]);
    late.complains(&["slow@1.service timed out: still deactivating on m1"]);
    let mut waiting = world.follow(&["stop", "slow@1"]);
    assert!(waiting.goes_on().unwrap());
    open(world, "down-1");
    assert_eq!(waiting.end().unwrap(), (Some(0), "slow@1.service loaded on m1\n".to_owned()));
    assert_eq!(world.show("slow@1.service", "ActiveState"), "inactive");
    for gate in ["down-2", "down-3"] {
        open(world, gate);
    }
    let all = world.ask(&["stop", "slow@*.service"]);
    assert_eq!(all.lines().count(), 3, "a glob is the cluster's, and means no template: {all}");
}

fn restart(world: &World) {
    let before = world.show("one.service", "InvocationID");
    assert_eq!(world.ask(&["restart", "one"]), "one.service active on m1\n");
    let after = world.show("one.service", "InvocationID");
    assert_ne!(after, before);
    world.ask(&["start", "one"]);
    assert_eq!(world.show("one.service", "InvocationID"), after, "what runs is not started anew by a start");
    world.machine().run(&["rm", "/run/up-1"]).unwrap();
    assert_eq!(world.ask(&["restart", "--no-block", "slow@1"]), "slow@1.service restart ordered\n");
    let late = world.expect(124, &["restart", TOO_SHORT, "slow@1"]);
    late.complains(&["slow@1.service timed out: still "]);
    open(world, "up-1");
    assert_eq!(world.ask(&["restart", "slow@1"]), "slow@1.service active on m1\n");
}

fn unload(world: &World) {
    assert_eq!(world.ask(&["unload", "one"]), "one.service unloaded\n");
    assert_eq!(world.show("one.service", "LoadState"), "not-found");
    assert_eq!(
        world.ask(&["list-units", "--no-legend", "--fields=unit,machine", "one*"]),
        "one.service  -\n"
    );
    world.machine().run(&["rm", "/run/down-1"]).unwrap();
    assert_eq!(world.ask(&["unload", "--no-block", "slow@1"]), "slow@1.service unload ordered\n");
    let late = world.expect(124, &["unload", TOO_SHORT, "slow@1"]);
    late.complains(&["slow@1.service timed out: still stopping on m1"]);
    open(world, "down-1");
    assert_eq!(world.ask(&["unload", "slow@1"]), "slow@1.service unloaded\n");
}

fn destroy(world: &World) {
    world.ask(&["start", "slow@1"]);
    world.machine().run(&["rm", "/run/down-1"]).unwrap();
    assert_eq!(world.ask(&["destroy", "--no-block", "slow@1"]), "slow@1.service destroy ordered\n");
    let late = world.expect(124, &["destroy", TOO_SHORT, "slow@1"]);
    late.complains(&["slow@1.service timed out: still stopping on m1"]);
    let mut waiting = world.follow_on_terminal(&["destroy", "slow@1"]);
    waiting.until("stopping on m1").unwrap();
    open(world, "down-1");
    let (code, shown) = waiting.end().unwrap();
    assert_eq!(code, Some(0), "{shown}");
    has("a terminal", &shown, &["slow@1.service destroyed"]);
    world.ask(&["destroy", "slow@*.service", "one"]);
    world.ask(&["destroy", "slow@.service"]);
    assert_eq!(world.show("slow@1.service", "LoadState"), "not-found");
    assert_eq!(world.ask(&["list-unit-files", "--no-legend", "slow@*", "one*"]), "");
    world.expect(4, &["destroy", "one"]).complains(&["one.service"]);
}

fn adopt(world: &World) {
    let make = "printf '[Service]\nExecStart=/bin/sleep infinity\n' >/etc/systemd/system/own.service && \
                systemctl daemon-reload && systemctl start own.service";
    world.machine().shell(make).unwrap();
    let process = || (world.show("own.service", "InvocationID"), world.show("own.service", "MainPID"));
    let before = process();
    let plan = world.ask(&["adopt", "m1", "own", "--plan"]);
    has(
        "the plan",
        &plan,
        &["would be adopted from m1", "moved away  /etc/systemd/system/own.service", "| [Service]"],
    );
    world
        .expect(1, &["adopt", "m1", "nothing"])
        .complains(&["nothing.service is not taken over", "not-found"]);
    world.expect(1, &["adopt", "m1", "flotillad"]).complains(&["a part of flotilla itself"]);
    world.expect(4, &["adopt", "m2", "own"]).complains(&["there is no machine `m2`"]);
    world.expect(2, &["adopt", "m1"]).complains(&["Usage: flotctl adopt"]);
    world.expect(2, &["adopt", "m1", "/etc/systemd/system/own.service"]).complains(&["is a path"]);
    let said = world.ask(&["adopt", "m1", "own", "--no-block", "--timeout=30s"]);
    has("what was ordered", &said, &["own.service adopted from m1", "/adopted/own.service on m1"]);
    known(world, "own.service", "active");
    assert_eq!(process(), before, "it was started anew");
    world.expect(1, &["adopt", "m1", "own"]).complains(&["adopted already"]);
    let gone = world.expect(0, &["destroy", "own"]);
    gone.complains(&["/adopted/own.service"]);
    world.machine().shell(make).unwrap();
    let said = world.ask(&["adopt", "m1", "own"]);
    has("what became of it", &said, &["own.service active on m1"]);
    let gone = world.expect(0, &["destroy", "own"]);
    gone.complains(&["/adopted/own.service"]);
}
