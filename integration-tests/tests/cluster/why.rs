//! `flotctl why`: for each machine, what speaks against a unit there; and `flotctl start`, which says it
//! at once.

use std::time::{Duration, Instant};

use flotilla_api::why::Why;
use flotilla_integration_tests::Cluster;
use flotilla_lab::Machine;

use crate::{UNITS, sleeper, write_units};

/// How soon `flotctl start` of a unit that cannot be placed says why, the best of a few tries.
const SAYS_WHY_WITHIN: Duration = Duration::from_secs(1);

/// How soon at the latest, on a computer that does other work as well: far from the minute and a half
/// that a start may take.
const SAYS_WHY_AT_LAST: Duration = Duration::from_secs(5);

/// Asks about units that fit nowhere, each for its own reason on each machine, in a cluster where
/// every machine has one of `web@1` to `web@3`.
pub(crate) fn each_machine_has_its_reason(cluster: &Cluster, machine: &Machine) {
    let on = |n: usize| cluster.active(machine, "web@*").unwrap()[&format!("web@{n}.service")][0].clone();
    let webs = [on(1), on(2), on(3)];
    let conflict = |host: &str| {
        let n = 1 + webs.iter().position(|web| web == host).unwrap();
        ("Conflicts", format!("web@{n}.service"))
    };
    let metadata = |value: &str| ("MachineMetadata", format!("host={value}"));
    let mut took = Vec::new();
    for (name, placement, reasons) in [
        ("why-metadata.service", "MachineMetadata=host=m9", ["m1", "m2", "m3"].map(|_| metadata("m9"))),
        ("why-conflict.service", "Conflicts=web@*.service", ["m1", "m2", "m3"].map(conflict)),
        (
            "why-mixed.service",
            "MachineMetadata=host=m1\nConflicts=web@*.service",
            [conflict("m1"), metadata("m1"), metadata("m1")],
        ),
    ] {
        write_units(machine, &[(name, sleeper(placement))]);
        let begun = Instant::now();
        let output = cluster.flotctl(machine, &["start", &format!("{UNITS}/{name}")]).unwrap();
        took.push(begun.elapsed());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{said}");
        assert!(said.contains(&format!("{name} cannot be placed: ")), "{said}");

        let output = cluster.flotctl(machine, &["why", name]).unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(5), "{said}");
        assert!(said.starts_with(&format!("{name}: no machine can take it: ")), "{said}");
        let output = cluster.flotctl(machine, &["why", name, "--output=json"]).unwrap();
        let whys: Vec<Why> = serde_json::from_slice(&output.stdout).unwrap();
        let [why] = whys.as_slice() else { panic!("{whys:?}") };
        assert!(!why.placed && why.machines.len() == 3, "{why:?}");
        for (host, (rule, reason)) in ["m1", "m2", "m3"].iter().zip(&reasons) {
            let line = said.lines().find(|line| line.split_whitespace().next() == Some(*host)).unwrap();
            assert!(line.contains(&format!("{rule}: ")) && line.contains(reason), "{rule} {reason}: {said}");
            let verdict = why.machines.iter().find(|verdict| verdict.host == *host).unwrap();
            assert_eq!((verdict.eligible, verdict.rule.as_deref()), (false, Some(*rule)), "{verdict:?}");
        }
        cluster.ask(machine, &["destroy", name]).unwrap();
    }
    took.sort_unstable();
    let ms: Vec<u128> = took.iter().map(Duration::as_millis).collect();
    println!(
        "measured: `flotctl start` of {} units that cannot be placed says why after {ms:?} ms",
        ms.len()
    );
    assert!(took[0] < SAYS_WHY_WITHIN && took[took.len() - 1] < SAYS_WHY_AT_LAST, "{took:?}");
    let placed = cluster.ask(machine, &["why", "web@1"]).unwrap();
    let here = placed.lines().filter(|line| line.ends_with("  here")).count();
    assert_eq!(here, 1, "{placed}");
}
