//! flotillad as systemd's service, by the file in `dist/`: when it is ready, how its watchdog is
//! fed, what it may not do, and how a machine goes down.

#![allow(
    clippy::disallowed_methods,
    reason = "what must not happen can only be waited out; nothing else runs"
)]

use std::{collections::BTreeMap, thread, time::Duration};

use flotilla_registry::{keys::Key, records::ManifestEntry};
use flotilla_units::ContentHash;

use super::{UNIT, World, entry};

const FLOTILLAD: &str = "flotillad.service";

/// Comes up once it is let.
const GATED: &str = "[Service]\nExecStartPre=/bin/sh -c 'until test -e /run/go; do sleep 0.05; \
                     done'\nExecStart=/bin/sleep infinity\n";

/// A watchdog's time that a test can wait for; the loop shows progress every 2 s at least, of which
/// two may be missed.
const WATCHDOG: Duration = Duration::from_secs(6);

/// What the service file takes away, in systemd's words for what is in force.
const HARDENED: [(&str, &str); 19] = [
    ("NoNewPrivileges", "yes"),
    ("ProtectSystem", "strict"),
    ("ReadWritePaths", "/run/flotilla /run/systemd/system /etc/systemd/system"),
    ("ProtectHome", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictNamespaces", "yes"),
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("SystemCallArchitectures", "native"),
    ("StateDirectoryMode", "0700"),
];

/// The most exposure that `systemd-analyze security` may find, in tenths of its scale from 0 to 10:
/// what writing unit files, reading every journal and reaching the network leave.
const EXPOSURE_MAX: &str = "30";

impl World {
    fn property(&self, unit: &str, name: &str) -> String {
        self.systemctl(&["show", "--value", "--property", name, unit]).trim().to_owned()
    }

    fn wait_for_property(&self, unit: &str, name: &str, value: &str) {
        let what = format!("{unit} with {name}={value}");
        self.wait_for(&what, || self.property(unit, name) == value);
    }

    fn drop_in(&self, service: &str, text: &str) {
        let path = format!("/etc/systemd/system/{service}.d/test.conf");
        self.machine().write_file(&path, format!("[Service]\n{text}\n")).unwrap();
        self.systemctl(&["daemon-reload"]);
    }

    fn order_text(&self, name: &str, text: &str) -> Vec<ManifestEntry> {
        self.put(&Key::Content(ContentHash::of(text.as_bytes())), text);
        let entries = vec![entry(name, 1, text)];
        self.order(&entries);
        entries
    }
}

#[test]
fn ready_waits_for_what_runs_and_for_no_unit() {
    let world = World::new("ready");
    let slow = world.order_text("slow.service", GATED);
    // A bus that stands still: what runs cannot be read, so it is not ready.
    world.systemctl(&["kill", "--signal=SIGSTOP", "dbus.service"]);
    world.systemctl(&["start", "--no-block", FLOTILLAD]);
    world.wait_for("its process", || world.property(FLOTILLAD, "MainPID") != "0");
    thread::sleep(Duration::from_secs(1));
    assert_eq!(world.property(FLOTILLAD, "ActiveState"), "activating");
    world.systemctl(&["kill", "--signal=SIGCONT", "dbus.service"]);
    world.wait_for_property(FLOTILLAD, "ActiveState", "active");
    for (name, value) in
        [("Type", "notify"), ("NotifyAccess", "main"), ("WatchdogUSec", "30s"), ("NRestarts", "0")]
    {
        assert_eq!(world.property(FLOTILLAD, name), value, "{name}");
    }
    world.wait_for_property("slow.service", "ActiveState", "activating");

    // The unit's gate is shut: whoever is back, and ready, has not waited for it.
    world.systemctl(&["restart", FLOTILLAD]);
    assert_eq!(world.property(FLOTILLAD, "ActiveState"), "active");
    assert_eq!(world.property("slow.service", "ActiveState"), "activating");
    world.wait_for("a registered machine", || {
        world.property(FLOTILLAD, "StatusText").contains("registered (")
    });
    world.machine().run(&["touch", "/run/go"]).unwrap();
    world.wait_for_active(&slow);
    is_hardened(&world);
}

/// What the service file takes away is taken away, and all of the above went without it.
fn is_hardened(world: &World) {
    let names: Vec<String> = HARDENED.iter().map(|(name, _)| format!("--property={name}")).collect();
    let mut words = vec!["show", FLOTILLAD];
    words.extend(names.iter().map(String::as_str));
    let shown = world.systemctl(&words);
    let shown: BTreeMap<&str, &str> = shown.lines().filter_map(|line| line.split_once('=')).collect();
    assert_eq!(shown, HARDENED.into());
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let words = ["systemd-analyze", "security", "--no-pager", &threshold, FLOTILLAD];
    let output = world.machine().exec(&words).unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{}", report.lines().last().unwrap_or_default());
    assert!(output.status.success(), "{report}");

    let pid = world.property(FLOTILLAD, "MainPID");
    let status = world.machine().run(&["cat", &format!("/proc/{pid}/status")]).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "no {line:?} in {status}");
    }
    // As its process sees the machine.
    let inside = |line: &str| {
        let words = ["nsenter", "--mount", "--target", &pid, "sh", "-c", line];
        world.machine().exec(&words).unwrap().status.success()
    };
    for line in ["touch /usr/test", "touch /etc/flotilla/test", "ls /root/* /home/*", "test -e /dev/kmsg"] {
        assert!(!inside(line), "{line} should not be possible");
    }
    for line in ["touch /run/flotilla/test && rm /run/flotilla/test", "test -s /var/lib/flotilla/agent.json"]
    {
        assert!(inside(line), "{line} has to be possible");
    }
    let mode = world.machine().run(&["stat", "--format=%a %U", "/var/lib/flotilla"]).unwrap();
    assert_eq!(mode, "700 root\n");
    // Its units are PID 1's, and have what they ask for.
    let unit = world.property("slow.service", "MainPID");
    let status = world.machine().run(&["cat", &format!("/proc/{unit}/status")]).unwrap();
    assert!(status.contains("NoNewPrivs:\t0"), "{status}");
    assert_eq!(world.property("slow.service", "ControlGroup"), "/system.slice/slow.service");
}

#[test]
fn a_loop_that_stands_still_is_started_anew_and_one_that_waits_is_not() {
    let world = World::new("watchdog");
    world.drop_in(FLOTILLAD, &format!("WatchdogSec={}", WATCHDOG.as_secs()));
    let units = [entry("sleep@1.service", 1, UNIT)];
    world.order(&units);
    world.systemctl(&["start", FLOTILLAD]);
    world.wait_for_active(&units);
    let before = world.invocations(&units);
    let pid = world.property(FLOTILLAD, "MainPID");

    // With nothing to do, and with a store that is away, it moves enough for its watchdog.
    thread::sleep(WATCHDOG + WATCHDOG / 3);
    let member = &world.lab.members()[0];
    member.stop().unwrap();
    thread::sleep(WATCHDOG * 2);
    member.start().unwrap();
    member.wait_healthy().unwrap();
    let state = ["ActiveState", "MainPID", "NRestarts"].map(|name| world.property(FLOTILLAD, name));
    assert_eq!(state, ["active", pid.as_str(), "0"]);
    world.wait_for("the store again", || world.record().is_some());

    world.systemctl(&["kill", "--signal=SIGSTOP", "--kill-who=main", FLOTILLAD]);
    world.wait_for("another flotillad", || {
        let (now, state) = (world.property(FLOTILLAD, "MainPID"), world.property(FLOTILLAD, "ActiveState"));
        now != pid && now != "0" && state == "active"
    });
    assert_eq!(world.property(FLOTILLAD, "NRestarts"), "1");
    let journal = world.machine().journal(&[FLOTILLAD]).unwrap();
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    world.wait_for_active(&units);
    assert_eq!(world.invocations(&units), before, "its units did not notice");
}

#[test]
fn a_shutdown_stops_units_first_and_gives_the_lease_up_last() {
    /// Says, when it is stopped, what is still there.
    const UNIT: &str = "[Service]\nExecStart=/bin/sleep infinity\nExecStop=/bin/sh -c 'echo unit while flotillad is $$(systemctl \
                        is-active flotillad.service) >>/var/order'\n";
    let world = World::new("order");
    let units = world.order_text("sleep@1.service", UNIT);
    let note = |line: &str| format!("ExecStopPost=+/bin/sh -c 'echo {line} >>/var/order'");
    let unit = "$$(systemctl is-active sleep@1.service)";
    world.drop_in(FLOTILLAD, &note(&format!("flotillad while unit is {unit}")));
    let daemon = "$$(systemctl is-active flotillad.service)";
    world.drop_in("flotilla-handover.service", &note(&format!("handover while flotillad is {daemon}")));
    world.systemctl(&["enable", "--now", "flotilla-handover.service", FLOTILLAD]);
    world.wait_for_active(&units);
    let first = world.record().unwrap();

    // A hand-over that is stopped by hand moves nothing.
    world.systemctl(&["restart", "flotilla-handover.service"]);
    world.wait_for("the machine as before", || world.record().is_some_and(|r| !r.stopped));
    world.wait_for_active(&units);
    world.machine().run(&["rm", "/var/order"]).unwrap();

    world.machine().poweroff().unwrap();
    assert!(world.record().is_none(), "the lease was given up");
    world.machine().boot().unwrap();
    let order = world.machine().run(&["cat", "/var/order"]).unwrap();
    let order: Vec<&str> = order.lines().collect();
    assert_eq!(
        order,
        [
            "unit while flotillad is active",
            "flotillad while unit is inactive",
            "handover while flotillad is inactive",
        ]
    );
    world.wait_for("the machine again", || world.record().is_some_and(|r| r.nonce != first.nonce));
    world.wait_for_active(&units);
}
