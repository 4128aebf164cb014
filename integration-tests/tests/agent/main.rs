//! flotillad as agent on a real machine: a manifest written by hand into a real etcd runs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    sync::MutexGuard,
    time::{Duration, Instant},
};

use flotilla_integration_tests::{
    LIMIT, SAYS_STOPPED as UNIT, TestLab, alone, another_build, binary, eventually, is_upgraded, lab_with,
    replaced,
};
use flotilla_lab::Machine;
use flotilla_registry::{
    keys::{Bucket, Key, Keys},
    records::{
        Departure, MachineRecord, ManifestBucket, ManifestEntry, Record as _, ReportBucket, ReportHead,
        Target, Token, UnitReport,
    },
};
use flotilla_units::{ContentHash, MachineId, UnitName};

mod service;

/// How soon a hundred units have to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);

struct World {
    lab: TestLab,
    /// Declared after the lab, so that it is let go when the lab is down.
    _alone: MutexGuard<'static, ()>,
    keys: Keys,
    id: MachineId,
}

fn unit(name: &str) -> UnitName {
    name.parse().unwrap()
}

fn entry(name: &str, token: i64, text: &str) -> ManifestEntry {
    ManifestEntry {
        unit: unit(name),
        runtime: None,
        hash: ContentHash::of(text.as_bytes()),
        target: Target::Launched,
        run: 1,
        token: Token(token),
        departing: None,
        moving: None,
        adopt: false,
    }
}

impl World {
    fn new(name: &str) -> Self {
        let alone = alone();
        let lab = lab_with(name, |options| {
            options.machines = 1;
            options.programs = vec![binary("flotillad").unwrap()];
        })
        .unwrap();
        let id = lab.machines()[0].id().parse().unwrap();
        let world = Self { lab, _alone: alone, keys: Keys::default(), id };
        let machine = world.machine();
        machine.install_services(concat!(env!("CARGO_MANIFEST_DIR"), "/../dist").as_ref()).unwrap();
        let endpoints: Vec<_> = world.lab.endpoints().iter().map(|e| format!("{e:?}")).collect();
        // The manifests are written by hand here: an engine would tidy up behind them.
        let toml = format!("roles = [\"agent\"]\n[store.etcd]\nendpoints = [{}]\n", endpoints.join(", "));
        machine.write_file("/etc/flotilla/flotilla.toml", toml).unwrap();
        world.put(&Key::Content(ContentHash::of(UNIT.as_bytes())), UNIT);
        world
    }

    fn machine(&self) -> &Machine {
        &self.lab.machines()[0]
    }

    fn systemctl(&self, words: &[&str]) -> String {
        self.machine().run(&[&["systemctl"], words].concat()).unwrap()
    }

    fn put(&self, key: &Key, value: &str) {
        self.lab.etcdctl(&["put", "--", &self.keys.spell(key), value]).unwrap();
    }

    /// Writes every bucket of the manifest.
    fn order(&self, entries: &[ManifestEntry]) {
        for bucket in Bucket::all() {
            let entries: Vec<_> = entries.iter().filter(|e| Bucket::of(&e.unit) == bucket).cloned().collect();
            let value = String::from_utf8(ManifestBucket { v: 1, entries }.encode()).unwrap();
            self.put(&Key::Manifest(self.id, bucket), &value);
        }
    }

    fn get<R: flotilla_registry::records::Record>(&self, key: &Key) -> Option<R> {
        let key = self.keys.spell(key);
        let value = self.lab.etcdctl(&["get", "--print-value-only", &key]).unwrap();
        (!value.trim().is_empty()).then(|| R::decode(&key, value.trim().as_bytes()).unwrap())
    }

    fn record(&self) -> Option<MachineRecord> {
        self.get(&Key::Machine(self.id))
    }

    fn reports(&self) -> BTreeMap<UnitName, UnitReport> {
        let buckets = Bucket::all().filter_map(|b| self.get::<ReportBucket>(&Key::Report(self.id, b)));
        buckets.flat_map(|b| b.units).map(|u| (u.unit.clone(), u)).collect()
    }

    fn wait_for(&self, what: &str, holds: impl Fn() -> bool) {
        eventually(LIMIT, what, || Ok(holds().then_some(()))).unwrap_or_else(|error| {
            let journal = self.machine().journal(&["flotillad.service"]).unwrap_or_default();
            panic!("{error:#}\n{journal}");
        });
    }

    /// Waits until every one of these units is reported active.
    fn wait_for_active(&self, entries: &[ManifestEntry]) {
        self.wait_for("all units active", || {
            let reports = self.reports();
            entries.iter().all(|e| reports.get(&e.unit).is_some_and(|r| r.active == "active"))
        });
    }

    fn invocations(&self, entries: &[ManifestEntry]) -> Vec<String> {
        let mut words = vec!["show", "--value", "--property=InvocationID"];
        words.extend(entries.iter().map(|e| e.unit.as_str()));
        self.systemctl(&words).split_whitespace().map(str::to_owned).collect()
    }
}

#[test]
fn stopping_killing_restarting_and_upgrading_flotillad_touches_no_unit() {
    let world = World::new("agent");
    let units: Vec<_> = (1..=20).map(|n| entry(&format!("sleep@{n}.service"), n, UNIT)).collect();
    world.order(&units);
    // Returns when the daemon is ready.
    world.systemctl(&["start", "flotillad.service"]);
    world.wait_for_active(&units);
    let before = world.invocations(&units);
    assert_eq!(before.len(), 20);
    let first = world.record().unwrap();
    let head: ReportHead = world.get(&Key::ReportHead(world.id)).unwrap();
    assert_eq!(head.incarnation, first.nonce);

    let same = |what: &str| {
        world.wait_for(what, || world.record().is_some_and(|r| !r.stopped && r.nonce == first.nonce));
        assert_eq!(world.invocations(&units), before, "after: {what}");
    };
    // Before another process is there, everything still is as the last one left it.
    let another = |what: &str, words: &[&str]| {
        let systemctl = |words: &[&str]| world.machine().run(&[&["systemctl"], words].concat());
        replaced(systemctl, || systemctl(words).map(|_| ())).unwrap();
        same(what);
    };
    another("kill -9", &["kill", "--signal=SIGKILL", "--kill-who=main", "flotillad.service"]);
    another("restart", &["restart", "flotillad.service"]);
    world.systemctl(&["stop", "flotillad.service"]);
    let stopped = world.record().unwrap();
    assert!(stopped.stopped && stopped.lease_ttl_s == 300, "{stopped:?}");
    assert_eq!(world.invocations(&units), before, "while it is stopped");
    // An upgrade: another file, the running process keeps its own.
    let folder = tempfile::tempdir().unwrap();
    let new = another_build("flotillad", folder.path()).unwrap();
    world.lab.install(&new).unwrap();
    world.systemctl(&["start", "flotillad.service"]);
    is_upgraded(world.machine(), &new).unwrap();
    same("upgrade");
    world.wait_for("the short lease", || world.record().is_some_and(|r| r.lease_ttl_s == 10));

    // What changes while it is down is done when it is back, and nothing else.
    world.systemctl(&["stop", "flotillad.service"]);
    let mut changed = units.clone();
    changed[0].run = 2;
    world.order(&changed);
    world.systemctl(&["start", "flotillad.service"]);
    world.wait_for("the ordered restart", || {
        world.reports().get(&changed[0].unit).is_some_and(|r| r.run == 2 && r.active == "active")
    });
    let after = world.invocations(&units);
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1..], before[1..]);
}

#[test]
fn a_hundred_running_units_are_gone_within_five_seconds() {
    let world = World::new("destroy");
    let units: Vec<_> = (1..=100).map(|n| entry(&format!("sleep@{n}.service"), n, UNIT)).collect();
    world.order(&units);
    world.systemctl(&["start", "flotillad.service"]);
    world.wait_for_active(&units);
    let leaving: Vec<_> =
        units.iter().map(|e| ManifestEntry { departing: Some(Departure::Destroyed), ..e.clone() }).collect();
    let begun = Instant::now();
    world.order(&leaving);
    world.wait_for("all units gone", || {
        let reports = world.reports();
        leaving.iter().all(|e| reports.get(&e.unit).is_some_and(|r| r.gone))
    });
    let took = begun.elapsed();
    println!("measured: 100 running units gone after {} ms", took.as_millis());
    assert!(took < GONE_WITHIN, "{took:?}");
    let stopped = world.machine().run(&["cat", "/run/stopped"]).unwrap();
    assert_eq!(stopped.lines().count(), 100, "every ExecStop= has run");
    // A unit is reported as gone before its file is.
    world.wait_for("the files to be gone", || {
        world.machine().run(&["ls", "/run/flotilla/units"]).unwrap().trim().is_empty()
    });
}

#[test]
fn a_shutdown_gives_the_lease_up_and_a_boot_starts_the_units_again() {
    let world = World::new("shutdown");
    // What is said at the shutdown is read after the next boot.
    world
        .machine()
        .write_file("/etc/systemd/journald.conf.d/own.conf", "[Journal]\nStorage=persistent\n")
        .unwrap();
    world.systemctl(&["restart", "systemd-journald.service"]);
    world.machine().run(&["journalctl", "--flush"]).unwrap();
    // One of each type that flotilla may start and a container can.
    let texts = [
        ("sleep@1.service", UNIT),
        ("echo.socket", "[Socket]\nListenStream=/run/echo\nAccept=yes\n"),
        ("look.path", "[Path]\nPathExists=/none\nUnit=sleep@1.service\n"),
        ("tick.timer", "[Timer]\nOnActiveSec=1h\nUnit=sleep@1.service\n"),
        ("mnt.mount", "[Mount]\nWhat=tmpfs\nWhere=/mnt\nType=tmpfs\n"),
        ("group.slice", "[Slice]\n"),
        ("point.target", "[Unit]\nDescription=a point\n"),
    ];
    let units: Vec<_> = (1..).zip(texts).map(|(token, (name, text))| entry(name, token, text)).collect();
    for (_, text) in texts {
        world.put(&Key::Content(ContentHash::of(text.as_bytes())), text);
    }
    world.order(&units);
    world.systemctl(&["enable", "--now", "flotilla-handover.service", "flotillad.service"]);
    world.wait_for_active(&units);
    let first = world.record().unwrap();
    world.machine().poweroff().unwrap();
    assert!(world.record().is_none(), "the lease was given up");
    world.machine().boot().unwrap();
    for unit in ["flotillad.service", "flotilla-handover.service", "sleep@1.service", "echo.socket"] {
        let words = ["journalctl", "--no-pager", "--output=cat", &format!("UNIT={unit}")];
        let log = world.machine().run(&words).unwrap();
        let last = log.lines().any(|line| ["Stopped ", "Closed "].iter().any(|word| line.starts_with(word)));
        assert!(last, "the journal does not tell of {unit}'s end: {log}");
    }
    let log = world.machine().run(&["journalctl", "--no-pager", "--output=cat"]).unwrap();
    let circles: Vec<_> = log.lines().filter(|line| line.contains("ordering cycle")).collect();
    assert!(circles.is_empty(), "{circles:#?}");
    world.wait_for("the machine again", || world.record().is_some_and(|r| r.nonce != first.nonce));
    world.wait_for_active(&units);
}

/// Asks for a page through the machine's socket, as a health check would.
fn page(machine: &Machine, path: &str) -> String {
    let ask = format!(
        r#"my $s = IO::Socket::UNIX->new("/run/flotilla/api.sock") or die; print $s "GET {path} HTTP/1.0\r\n\r\n"; print while <$s>;"#
    );
    machine.run(&["perl", "-MIO::Socket::UNIX", "-e", &ask]).unwrap()
}

#[test]
fn a_flotillad_that_is_only_an_engine_outlives_its_watchdog_and_says_how_it_is() {
    let world = World::new("engine");
    let toml = world.machine().run(&["cat", "/etc/flotilla/flotilla.toml"]).unwrap();
    let toml = toml.replace("\"agent\"", "\"engine\"");
    world.machine().write_file("/etc/flotilla/flotilla.toml", toml).unwrap();
    let watchdog = "[Service]\nWatchdogSec=3\n";
    world.machine().write_file("/etc/systemd/system/flotillad.service.d/watchdog.conf", watchdog).unwrap();
    world.systemctl(&["daemon-reload"]);
    world.systemctl(&["start", "flotillad.service"]);
    let show = |what: &str| world.systemctl(&["show", "--value", what, "flotillad.service"]);
    let pid = show("--property=MainPID");
    world.wait_for("a seat", || page(world.machine(), "/metrics").contains("flotilla_engine_seat 1"));
    assert!(page(world.machine(), "/readyz").ends_with("ready\n"));
    // Three times the watchdog's time: a daemon that does not feed it is gone by then.
    world.machine().run(&["sleep", "9"]).unwrap();
    assert_eq!(show("--property=MainPID"), pid);
    assert_eq!(show("--property=NRestarts").trim(), "0");

    world.lab.members()[0].kill().unwrap();
    world.wait_for("the lost store to be told", || {
        let said = page(world.machine(), "/readyz");
        said.contains(" 503 ") && said.contains("engine: it has no seat, and the store does not answer")
    });
    assert_eq!(show("--property=MainPID"), pid);
}
