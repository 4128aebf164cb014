//! The commands that list: `list-machines`, `list-units`, `list-unit-files`.

use flotilla_api::{machine::Machine, unit::Unit};

use crate::{
    Row,
    world::{World, has},
};

pub const ROWS: [Row; 3] =
    [("list-machines", list_machines), ("list-units", list_units), ("list-unit-files", list_unit_files)];

/// The words of each line.
fn table(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

fn list_machines(world: &World) {
    let (id, address) = (world.machine().id(), world.machine().address().to_string());
    let text = world.ask(&["list-machines"]);
    let rows = table(&text);
    assert_eq!(rows[0], ["MACHINE", "IP", "METADATA", "HOST", "STATE", "UNITS"]);
    assert_eq!(rows[1], [&id[..8], &address, "host=m1", "m1", "alive", "2"]);
    assert_eq!(rows.len(), 2);
    assert_eq!(table(&world.ask(&["list-machines", "--no-legend"])), rows[1..]);
    has("--full", &world.ask(&["list-machines", "--full"]), &[id]);
    assert_eq!(world.ask(&["list-machines", "--fields=state,host"]), "STATE  HOST\nalive  m1\n");
    let unknown = world.expect(2, &["list-machines", "--fields", "colour"]);
    unknown.complains(&["colour", "machine, ip, metadata, host, state"]);
    world.expect(2, &["list-machines", "--fields=host", "-o", "json"]).complains(&["--fields", "-o json"]);
    let wide = world.ask(&["list-machines", "-o", "wide"]);
    has("-o wide", &wide, &["ROLE", "CPU", "MEMORY", "KERNEL", "SYSTEMD", "leader"]);
    let machines: Vec<Machine> = world.json(&["list-machines"]);
    assert!(machines.len() == 1 && machines[0].id.to_string() == id && machines[0].leader, "{machines:?}");
    for (pattern, count) in [("m[1-3]", 1), (&id[..5], 1), ("nobody*", 0)] {
        assert_eq!(world.ask(&["list-machines", "--no-legend", pattern]).lines().count(), count, "{pattern}");
    }
}

fn list_units(world: &World) {
    let text = world.ask(&["list-units"]);
    let rows = table(&text);
    assert_eq!(rows[0], ["UNIT", "MACHINE", "ACTIVE", "SUB", "NOTE"]);
    assert_eq!(rows[1], ["web@1.service", "m1", "active", "running", "-"]);
    assert_eq!(rows[2], ["web@2.service", "m1", "active", "running", "-"]);
    assert_eq!(rows.len(), 3);
    assert_eq!(table(&world.ask(&["list-units", "--no-legend"])), rows[1..]);
    assert_eq!(
        world.ask(&["list-units", "--no-legend", "--fields", "active,unit", "web@[2-9]*"]),
        "active  web@2.service\n"
    );
    has("--full", &world.ask(&["list-units", "--full"]), &[world.machine().id()]);
    let wide = world.ask(&["list-units", "-o", "wide"]);
    has("-o wide", &wide, &["LOAD", "TARGET", "SINCE", "RESTARTS", "RESULT", "launched"]);
    let units: Vec<Unit> = world.json(&["list-units", "web@1*", "web@2*"]);
    assert_eq!(
        units.iter().map(|unit| unit.name.as_str()).collect::<Vec<_>>(),
        ["web@1.service", "web@2.service"]
    );
    let invocation = units[0].placements[0].state.as_ref().and_then(|state| state.invocation.clone());
    assert_eq!(invocation, Some(world.show("web@1.service", "InvocationID")));
    for (state, count) in [("active", 2), ("failed", 0), ("failed,active", 2)] {
        let listed = world.ask(&["list-units", "--no-legend", "--state", state]);
        assert_eq!(listed.lines().count(), count, "{state}");
    }
    for (words, count) in [
        (&["--state", "running"][..], 2),
        (&["--type", "service", "--machine", "m1"], 2),
        (&["--type", "timer"], 0),
        (&["--failed"], 0),
        (&["--unplaced"], 0),
    ] {
        let listed = world.ask(&[&["list-units", "--no-legend"], words].concat());
        assert_eq!(listed.lines().count(), count, "{words:?}: {listed}");
    }
    assert_eq!(world.ask(&["list-units", "--no-legend", "nobody*"]), "");
    world.expect(1, &["list-units", "web@["]).complains(&["web@["]);
    world.expect(4, &["list-units", "--machine", "nobody"]).complains(&["nobody"]);
}

fn list_unit_files(world: &World) {
    let text = world.ask(&["list-unit-files"]);
    let rows = table(&text);
    let units: Vec<Unit> = world.json(&["list-unit-files"]);
    let hash = units[0].hash.unwrap();
    assert_eq!(rows[0], ["UNIT", "HASH", "TARGET", "STATE", "MACHINES", "UPDATED"]);
    assert_eq!(rows[1], ["web@.service", &hash.short(), "inactive", "inactive", "-", "2/2"]);
    assert_eq!(rows[2], ["web@1.service", &hash.short(), "launched", "launched", "m1", "1/1"]);
    assert_eq!((rows.len(), units.len()), (4, 3));
    assert_eq!(table(&world.ask(&["list-unit-files", "--no-legend"])), rows[1..]);
    has("--full", &world.ask(&["list-unit-files", "--full"]), &[&hash.to_string()]);
    let wide = world.ask(&["list-unit-files", "-o", "wide"]);
    has("-o wide", &wide, &["GLOBAL", "BY", "DESCRIPTION", "root"]);
    assert_eq!(
        world.ask(&["list-unit-files", "--no-legend", "--fields", "target,unit", "web@1*"]),
        "launched  web@1.service\n"
    );
}
