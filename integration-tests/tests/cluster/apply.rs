//! A folder of unit files becomes the cluster's content, and only what differs is touched.

use std::time::{Duration, Instant};

use flotilla_integration_tests::{Cluster, LIMIT, SLEEPER, alone, eventually};
use flotilla_lab::Machine;

use super::{sleeper, write_units};

/// How often the store was written.
fn revision(cluster: &Cluster) -> String {
    let status = cluster.etcdctl(&["endpoint", "status", "--write-out", "fields"]).unwrap();
    let line = status.lines().find(|line| line.contains("\"Revision\"")).unwrap_or_default();
    line.to_owned()
}

/// The revision once nobody writes any more: a unit that is active already has its last report under way, and one that
/// has gone is forgotten up to five seconds later.
fn quiet_revision(cluster: &Cluster) -> String {
    let mut last = (revision(cluster), Instant::now());
    eventually(LIMIT, "six seconds in which nobody writes", || {
        let now = revision(cluster);
        if now != last.0 {
            last = (now, Instant::now());
        }
        Ok((last.1.elapsed() > Duration::from_secs(6)).then(|| last.0.clone()))
    })
    .unwrap()
}

fn folder(machine: &Machine, name: &str, files: &[(&str, String)]) -> String {
    let folder = format!("/root/{name}");
    machine.shell(&format!("rm -rf {folder}")).unwrap();
    for (file, text) in files {
        machine.write_file(&format!("{folder}/{file}"), text).unwrap();
    }
    folder
}

#[test]
fn a_folder_is_applied_and_applied_again() {
    let _alone = alone();
    let cluster = Cluster::up("apply", 3, 1).unwrap();
    let m1 = &cluster.machines()[0];
    let targets =
        |last: u32| format!("set = \"shop\"\n[targets]\n\"web@{{1..{last}}}.service\" = \"launched\"\n");
    let shop = folder(
        m1,
        "shop",
        &[
            ("flotilla.toml", targets(3)),
            ("web@.service", sleeper("Conflicts=web@*.service")),
            ("web@.service.d/10-nice.conf", "[Service]\nNice=5\n".to_owned()),
            ("db/a.service", SLEEPER.to_owned()),
        ],
    );
    write_units(m1, &[("mine.service", SLEEPER.to_owned())]);
    cluster.ask(m1, &["start", "/root/units/mine.service"]).unwrap();

    // What would be done, by the engine's own code, and nothing is.
    let before = quiet_revision(&cluster);
    let difference = cluster.ask(m1, &["diff", &shop]).unwrap();
    for part in ["a.service", "create", "+++ folder/web@.service", "+Nice=5"] {
        assert!(difference.contains(part), "no {part} in {difference}");
    }
    let plan = cluster.ask(m1, &["apply", "--plan", &shop]).unwrap();
    for instance in ["web@1.service", "web@2.service", "web@3.service"] {
        let line = plan.lines().find(|line| line.contains(instance)).unwrap_or_default();
        assert!(line.contains("create") && line.contains(" on m"), "{plan}");
    }
    assert_eq!(revision(&cluster), before);
    assert_eq!(cluster.flotctl(m1, &["diff", "--exit-code", &shop]).unwrap().status.code(), Some(7));

    cluster.ask(m1, &["apply", &shop]).unwrap();
    let active = cluster.wait_active(m1, "*", 5).unwrap();
    for (unit, hosts) in &active {
        let planned = plan.lines().find(|line| line.contains(unit.as_str()));
        if let Some(line) = planned {
            assert!(line.ends_with(&format!(" {}", hosts[0])), "{unit} is on {hosts:?}, planned was {line}");
        }
    }
    let nice = m1.run(&["flotctl", "cat", "web@1"]).unwrap();
    assert!(nice.contains("# web@.service.d/10-nice.conf"), "{nice}");

    // A second time there is nothing to do.
    let (before, invocations) = (quiet_revision(&cluster), cluster.invocations().unwrap());
    let again = cluster.ask(m1, &["apply", &shop]).unwrap();
    assert!(again.contains("nothing to do"), "{again}");
    cluster.ask(m1, &["diff", "--exit-code", &shop]).unwrap();
    assert_eq!((revision(&cluster), cluster.invocations().unwrap()), (before, invocations));

    // Another text, one instance less, one file less.
    m1.write_file(&format!("{shop}/web@.service.d/10-nice.conf"), "[Service]\nNice=6\n").unwrap();
    m1.write_file(&format!("{shop}/flotilla.toml"), targets(2)).unwrap();
    m1.shell(&format!("rm {shop}/db/a.service")).unwrap();
    let kept = cluster.ask(m1, &["diff", &shop]).unwrap();
    assert!(kept.contains("-Nice=5") && kept.contains("+Nice=6") && !kept.contains("remove"), "{kept}");
    cluster.ask(m1, &["apply", "--prune", &shop]).unwrap();
    let after = cluster.wait_active(m1, "*", 3).unwrap();
    let names: Vec<&str> = after.keys().map(String::as_str).collect();
    assert_eq!(names, ["mine.service", "web@1.service", "web@2.service"]);
    for unit in &names {
        assert_eq!(after[*unit], active[*unit], "updated where it is");
        let host = cluster.machines().iter().find(|machine| machine.name() == after[*unit][0]).unwrap();
        let nice = host.run(&["systemctl", "show", "--value", "--property=Nice", unit]).unwrap();
        assert_eq!(nice.trim(), if *unit == "mine.service" { "0" } else { "6" }, "{unit}");
    }

    // Two sets do not fight over a unit.
    let other = folder(m1, "other", &[("web@.service", SLEEPER.to_owned())]);
    let refused = cluster.flotctl(m1, &["apply", &other]).unwrap();
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{why}");
    assert!(why.contains("made by the set `shop`"), "{why}");
    // A unit that moves to another folder is handed over as it runs, and the old set's prune leaves it alone.
    let till = folder(m1, "till", &[("flotilla.toml", "set = \"till\"\n".to_owned())]);
    m1.write_file(&format!("{shop}/moves.service"), SLEEPER).unwrap();
    cluster.ask(m1, &["apply", &shop]).unwrap();
    m1.shell(&format!("mv {shop}/moves.service {till}/")).unwrap();
    let refused = cluster.flotctl(m1, &["apply", &till]).unwrap();
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && why.contains("--take-over"), "{why}");
    let invocations = cluster.invocations().unwrap();
    let taken = cluster.ask(m1, &["apply", "--take-over", &till]).unwrap();
    assert!(taken.contains("moves.service  take over"), "{taken}");
    m1.shell(&format!("touch {shop}/moves.sevice")).unwrap();
    let refused = cluster.flotctl(m1, &["apply", "--prune", &shop]).unwrap();
    assert_eq!(refused.status.code(), Some(1), "one is mistyped");
    m1.shell(&format!("rm {shop}/moves.sevice")).unwrap();
    cluster.ask(m1, &["apply", "--prune", &shop]).unwrap();
    assert_eq!(cluster.invocations().unwrap(), invocations);

    // An instance of which nothing is wanted is made too.
    let idle = folder(
        m1,
        "idle",
        &[
            ("flotilla.toml", "[targets]\n\"idle@1.service\" = \"inactive\"\n".to_owned()),
            ("idle@.service", SLEEPER.to_owned()),
        ],
    );
    cluster.ask(m1, &["apply", &idle]).unwrap();
    let listed =
        cluster.ask(m1, &["list-unit-files", "--no-legend", "--fields=unit,target", "idle@1"]).unwrap();
    assert_eq!(listed.trim(), "idle@1.service  inactive");
    let again = cluster.ask(m1, &["apply", &idle]).unwrap();
    assert!(again.contains("nothing to do"), "{again}");

    // What was deployed and failed fails the same apply again, until it is well.
    let fails = folder(
        m1,
        "fails",
        &[("fails.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n".to_owned())],
    );
    for _ in 0..2 {
        let failed = cluster.flotctl(m1, &["apply", &fails]).unwrap();
        let why = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(failed.status.code() == Some(3) && why.contains("fails.service failed"), "{failed:?}");
    }
    cluster.ask(m1, &["diff", "--exit-code", &fails]).unwrap();
    m1.write_file(&format!("{fails}/fails.service"), SLEEPER).unwrap();
    cluster.ask(m1, &["apply", &fails]).unwrap();

    // A mistake in one file changes nothing.
    let broken = folder(
        m1,
        "broken",
        &[("new.service", SLEEPER.to_owned()), ("bad.service", "[Service\n".to_owned())],
    );
    let refused = cluster.flotctl(m1, &["apply", &broken]).unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("bad.service is not a valid unit file"));
    assert_eq!(cluster.flotctl(m1, &["cat", "new"]).unwrap().status.code(), Some(4));
}
