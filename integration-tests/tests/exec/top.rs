//! What `top` shows of units that do something and of one that does not.

use serde_json::Value;

use flotilla_integration_tests::Follower;

use crate::World;

/// Takes what it gets of one processor.
const BUSY: &str =
    "[Service]\nExecStart=/bin/sh -c 'while :; do :; done'\n[X-Flotilla]\nMachineMetadata=host=m2\n";

pub fn busy_above_idle(world: &World) {
    world.asked().write_file("/root/units/busy.service", BUSY).unwrap();
    world.ask(&["start", "/root/units/busy.service"]);

    let printed = world.ask(&["top", "--batch", "--interval=1"]);
    let rows: Vec<Vec<&str>> = printed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["UNIT", "MACHINE", "CPU%", "MEMORY", "TASKS", "READ/S", "WRITE/S"], "{printed}");
    let at = |unit: &str| {
        rows.iter().position(|row| row[0] == unit).unwrap_or_else(|| panic!("no {unit} in {printed}"))
    };
    assert!(at("busy.service") < at("box.service"), "{printed}");
    let percent = |unit: &str| rows[at(unit)][2].parse::<f64>().unwrap();
    assert!(percent("busy.service") > 10.0 && percent("box.service") < 5.0, "{printed}");
    assert_eq!((rows[at("busy.service")][1], rows[at("busy.service")][4]), ("m2", "1"), "{printed}");
    // What the lab's kernel does not count is shown as such, and not as nothing.
    let counted =
        world.show("busy.service", "MemoryCurrent").parse().is_ok_and(|bytes: u64| bytes != u64::MAX);
    assert_eq!(rows[at("busy.service")][3] != "-", counted, "{printed}");

    let by_name = world.ask(&["top", "-b", "-d", "1", "--sort=name", "b*"]);
    let units: Vec<&str> =
        by_name.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(units, ["box.service", "busy.service"]);
    let machines = world.ask(&["top", "-b", "-d", "1", "--machines"]);
    assert!(machines.contains("\nm1 ") && machines.contains("\nm2 "), "{machines}");
    let twice = world.ask(&["top", "-d", "1", "-n", "2", "-o", "json", "--machine=m2"]);
    let snapshots: Vec<Value> = twice.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(snapshots.len(), 2, "{twice}");
    assert_eq!(snapshots[1]["units"][0]["unit"], "busy.service", "{twice}");
    assert_eq!(snapshots[1]["machines"].as_array().map(Vec::len), Some(1), "{twice}");
    world.expect(2, &["top", "-b", "--interval=0"]);
    world.expect(4, &["top", "-b", "--machine=m9"]);

    // On a terminal it goes on until it is told to end, and leaves the terminal as it was.
    let line = "stty rows 20 cols 90; stty -g >/root/before; env TERM=xterm flotctl top -d 1; echo status $?; \
                stty -g >/root/after";
    let mut top = Follower::start_with_input(
        world.asked(),
        &["script", "--quiet", "--return", "--command", line, "/dev/null"],
    )
    .unwrap();
    top.until("busy.service").unwrap();
    top.write(b"q").unwrap();
    top.until("status 0").unwrap();
    top.end().unwrap();
    world.asked().run(&["cmp", "/root/before", "/root/after"]).unwrap();
    world.ask(&["destroy", "busy"]);
}
