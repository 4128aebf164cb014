//! Units of every kind, started by one command, are where their options say.

use std::{collections::BTreeMap, time::Instant};

use flotilla_integration_tests::{Cluster, LIMIT, eventually};
use flotilla_lab::Machine;

use crate::{UNITS, sleeper, write_units};

/// Unit files of every kind; the templates' instances are in [`names`].
pub(crate) fn files() -> Vec<(String, String)> {
    let plain = (1..=6).map(|n| (format!("plain{n}.service"), sleeper("")));
    let special = [
        ("hello@.service", ""),
        ("web@.service", "Conflicts=web@*.service"),
        ("announce@.service", "MachineOf=web@%i.service"),
        ("db@.service", "MachineMetadata=host=m%i"),
        ("either@.service", "MachineMetadata=host=m1\nMachineMetadata=host=m3\nMachineMetadata=host=m2"),
        ("watch.service", "Global=true"),
        ("near.service", "Global=true\nMachineMetadata=host=m1\nMachineMetadata=host=m2"),
    ];
    plain.chain(special.map(|(name, placement)| (name.to_owned(), sleeper(placement)))).collect()
}

/// Thirty units: 6 plain, 19 instances of 5 templates, 3 of them conflicting, 3 beside those, 3 by
/// their machine's metadata, and 2 global.
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<String> = (1..=6).map(|n| format!("plain{n}.service")).collect();
    for (template, count) in [("hello", 10), ("web", 3), ("announce", 3), ("db", 3), ("either", 3)] {
        names.extend((1..=count).map(|n| format!("{template}@{n}.service")));
    }
    names.extend(["watch.service".to_owned(), "near.service".to_owned()]);
    names
}

/// Starts all of them by one command on a machine, and checks where they are.
pub(crate) fn start_all(cluster: &Cluster, machine: &Machine) {
    let files = files();
    let files: Vec<(&str, String)> = files.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    write_units(machine, &files);
    let paths: Vec<String> = names().iter().map(|name| format!("{UNITS}/{name}")).collect();
    assert_eq!(paths.len(), 30);
    let mut words = vec!["start", "--timeout=50s"];
    words.extend(paths.iter().map(String::as_str));
    let begun = Instant::now();
    cluster.ask(machine, &words).unwrap();
    println!("measured: 30 units submitted and started by one command in {} ms", begun.elapsed().as_millis());
    check(&cluster.wait_active(machine, "*", 30).unwrap());
}

/// Checks that thirty units are where their options say.
pub(crate) fn check(active: &BTreeMap<String, Vec<String>>) {
    let mut expected = names();
    expected.sort();
    assert_eq!(active.keys().cloned().collect::<Vec<_>>(), expected);
    let on = |unit: &str| -> Vec<&str> { active[unit].iter().map(String::as_str).collect() };
    assert_eq!(on("watch.service"), ["m1", "m2", "m3"]);
    assert_eq!(on("near.service"), ["m1", "m2"]);
    for (unit, hosts) in
        active.iter().filter(|(unit, _)| !["watch.service", "near.service"].contains(&unit.as_str()))
    {
        assert_eq!(hosts.len(), 1, "{unit} is on one machine");
    }
    let mut webs: Vec<&str> = (1..=3).flat_map(|n| on(&format!("web@{n}.service"))).collect();
    webs.sort_unstable();
    assert_eq!(webs, ["m1", "m2", "m3"], "those that conflict share no machine");
    for n in 1..=3 {
        assert_eq!(on(&format!("announce@{n}.service")), on(&format!("web@{n}.service")));
        assert_eq!(on(&format!("db@{n}.service")), [format!("m{n}")]);
    }
    for host in ["m1", "m2", "m3"] {
        let units = active.values().filter(|hosts| hosts.iter().any(|h| h == host)).count();
        // 30 units have 33 places; nothing keeps them from being spread evenly.
        assert!((9..=13).contains(&units), "{units} units on {host}: {active:?}");
    }
}

/// Starts a unit with `Replaces=` where one of the thirty runs: that one goes elsewhere, and nothing
/// else moves. Then there are thirty again.
pub(crate) fn replace_one(cluster: &Cluster, machine: &Machine) {
    let host = |unit: &str| -> anyhow::Result<Vec<String>> {
        Ok(cluster.active(machine, unit)?.remove(unit).unwrap_or_default())
    };
    let old = host("plain1.service").unwrap().remove(0);
    let mut before = cluster.invocations().unwrap();
    before.retain(|(_, unit), _| unit != "plain1.service");
    let placement = format!("Replaces=plain1.service\nMachineMetadata=host={old}");
    write_units(machine, &[("instead.service", sleeper(&placement))]);
    cluster.ask(machine, &["start", &format!("{UNITS}/instead.service")]).unwrap();
    let new = eventually(LIMIT, "what is replaced to run elsewhere", || {
        Ok(host("plain1.service")?.pop().filter(|host| *host != old))
    })
    .unwrap();
    assert_eq!(host("instead.service").unwrap(), [old.as_str()]);
    let after = cluster.invocations().unwrap();
    assert!(after.contains_key(&(new, "plain1.service".to_owned())), "{after:?}");
    assert!(!after.contains_key(&(old, "plain1.service".to_owned())), "{after:?}");
    for (place, invocation) in &before {
        assert_eq!(after.get(place), Some(invocation), "{place:?} was started anew");
    }
    assert_eq!(after.len(), before.len() + 2);
    cluster.ask(machine, &["destroy", "instead"]).unwrap();
}
