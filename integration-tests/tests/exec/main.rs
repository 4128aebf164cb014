//! Commands in units and shells on machines, asked of one machine and run on another: what they are,
//! how they end, who may have them, and what is left of them. And what units take, by `top`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::{Duration, Instant};

use flotilla_api::watch::Event;
use flotilla_integration_tests::{Cluster, Follower, LIMIT, alone, eventually, replaced};
use flotilla_lab::Machine;

mod authority;
mod endings;
mod place;
mod streams;
mod top;

/// Where unit files lie in a machine.
const UNITS: &str = "/root/units";

/// A service that shares as little with its machine as services here can, and runs as another user.
const BOX: &str = "[Service]\nExecStart=/bin/sleep infinity\nUser=daemon\nSupplementaryGroups=mail\nPrivateTmp=yes\n\
                   PrivateNetwork=yes\nPrivateIPC=yes\nProtectHostname=yes\nProtectHome=yes\nNoNewPrivileges=yes\n\
                   UMask=0027\nCapabilityBoundingSet=CAP_CHOWN CAP_KILL\nWorkingDirectory=/var/lib\n\
                   Environment=COLOUR=blue \"WORDS=a b\"\n[X-Flotilla]\nMachineMetadata=host=m2\n";

/// Two machines; what is asked is asked of the first, and runs on the second.
struct World {
    cluster: Cluster,
}

/// How flotctl ended, and what it said.
#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

#[test]
fn commands_run_in_units_and_on_machines() {
    let _alone = alone();
    let world = World { cluster: Cluster::up("exec", 2, 1).unwrap() };
    world.asked().write_file(&format!("{UNITS}/box.service"), BOX).unwrap();
    world.ask(&["start", &format!("{UNITS}/box.service")]);
    assert_eq!(world.show("box.service", "ActiveState"), "active");

    place::in_the_unit(&world);
    place::on_the_machine(&world);
    place::nowhere(&world);
    streams::statuses(&world);
    streams::bytes(&world);
    streams::terminal(&world);
    authority::events(&world);
    authority::refused(&world);
    top::busy_above_idle(&world);
    endings::client_goes(&world);
    endings::unit_stops(&world);
    endings::flotillad_dies(&world);
    endings::nothing_is_left(&world);
}

impl World {
    /// Where flotctl is run.
    fn asked(&self) -> &Machine {
        self.cluster.machine("m1").unwrap()
    }

    /// Where the unit runs.
    fn far(&self) -> &Machine {
        self.cluster.machine("m2").unwrap()
    }

    fn flotctl(&self, words: &[&str]) -> Answer {
        let output = self.cluster.flotctl(self.asked(), words).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Answer { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    fn expect(&self, code: i32, words: &[&str]) -> Answer {
        let answer = self.flotctl(words);
        assert_eq!(answer.code, Some(code), "{words:?}: {answer:?}");
        answer
    }

    #[track_caller]
    fn ask(&self, words: &[&str]) -> String {
        self.expect(0, words).out
    }

    /// Runs a line of shell in the unit.
    #[track_caller]
    fn in_box(&self, line: &str) -> String {
        self.ask(&["exec", "box", "--", "sh", "-c", line])
    }

    /// Asks the far machine's systemd.
    fn show(&self, unit: &str, property: &str) -> String {
        let words = ["systemctl", "show", "--value", "--property", property, unit];
        self.far().run(&words).unwrap().trim().to_owned()
    }

    fn events(&self, kind: &str) -> Vec<Event> {
        let printed = self.ask(&["events", "--lines=1000", "--output=json"]);
        let events = printed.lines().map(|line| serde_json::from_str::<Event>(line).unwrap());
        events.filter(|event| event.kind == kind).collect()
    }

    /// Waits until the newest event of a kind is that of a command: a seat hears of it a moment after it was written.
    fn event_of(&self, kind: &str, command: &str) -> Event {
        eventually(LIMIT, format_args!("the event of {command}"), || {
            Ok(self.events(kind).pop().filter(|event| event.why.as_deref() == Some(command)))
        })
        .unwrap()
    }

    /// The command lines of the far machine's processes.
    fn processes(&self) -> String {
        self.far().run(&["ps", "-eo", "args"]).unwrap_or_else(|_| {
            self.far()
                .shell("for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done 2>/dev/null")
                .unwrap()
        })
    }

    #[track_caller]
    fn wait_running(&self, part: &str) {
        eventually(LIMIT, format_args!("{part} to run"), || {
            Ok(self.processes().contains(part).then_some(()))
        })
        .unwrap();
    }

    /// Waits until a process is gone, and returns how long that took.
    #[track_caller]
    fn wait_gone(&self, part: &str) -> Duration {
        let begun = Instant::now();
        eventually(LIMIT, format_args!("{part} to be gone"), || {
            Ok((!self.processes().contains(part)).then_some(()))
        })
        .unwrap();
        begun.elapsed()
    }

    /// Runs flotctl for as long as it goes on.
    fn follow(&self, words: &[&str]) -> Follower {
        Follower::start_with_input(self.asked(), &[&["flotctl"], words].concat()).unwrap()
    }
}
