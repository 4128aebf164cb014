//! The leader dies: another leads, and nothing runs twice that may not.

use std::time::{Duration, Instant};

use flotilla_integration_tests::{Cluster, LIMIT, eventually};
use flotilla_lab::Machine;
use flotilla_registry::{
    keys::{Bucket, Key},
    records::{MachineSettings, ManifestBucket, ManifestEntry, Record as _, VERSION},
};
use flotilla_units::{MachineId, UnitName};

use crate::{
    MACHINE_LEASE, SLEEPER, UNITS, alone,
    history::{Write, history},
    sleeper, start_instances, write_units,
};

/// How soon another has to lead with the default settings.
const LEADS_WITHIN: Duration = Duration::from_secs(6);

/// Keeps systemd from starting flotillad again.
const STAYS_DEAD: &str = "/run/systemd/system/flotillad.service.d/stays-dead.conf";

#[test]
fn another_leads_within_six_seconds_and_nothing_restarts() {
    let _alone = alone();
    let cluster = Cluster::up("lead", 3, 1).unwrap();
    let m1 = cluster.machine("m1").unwrap();
    start_instances(&cluster, m1, "still", SLEEPER.to_owned(), 15);
    let leader = cluster.leader().unwrap().unwrap();
    let before = cluster.invocations().unwrap();
    assert_eq!(before.len(), 15);

    let begun = kill_for_good(leader);
    let next = cluster.wait_for_leader(LIMIT, Some(leader)).unwrap();
    let took = begun.elapsed();
    println!("measured: another leads {} ms after the leader was killed", took.as_millis());
    // Not where nobody would start it: the dead leader's machine has its lease for a while.
    write_units(next, &[("after.service", sleeper(&format!("MachineMetadata=host={}", next.name())))]);
    cluster.ask(next, &["start", &format!("{UNITS}/after.service")]).unwrap();
    println!("measured: a unit is placed and active after {} ms", begun.elapsed().as_millis());
    revive(leader);
    cluster.wait_for_machines(leader, 3).unwrap();
    assert!(begun.elapsed() < MACHINE_LEASE, "too late to be a test of the leader alone");

    cluster.ask(leader, &["start", "still@16"]).unwrap();
    let after = cluster.invocations().unwrap();
    for (place, invocation) in &before {
        assert_eq!(after.get(place), Some(invocation), "{place:?} was started anew");
    }
    assert_eq!(after.len(), 17);
    assert!(took < LEADS_WITHIN, "{took:?}");
}

#[test]
fn a_move_survives_its_leader_and_the_unit_never_has_two_places() {
    let _alone = alone();
    let cluster = Cluster::up("move", 3, 1).unwrap();
    let m1 = cluster.machine("m1").unwrap();
    start_instances(&cluster, m1, "mover", SLEEPER.to_owned(), 3);
    let leader = cluster.leader().unwrap().unwrap();
    let old = cluster.machines().iter().find(|machine| machine.id() != leader.id()).unwrap();
    let placed = cluster.active(m1, "mover@*").unwrap();
    let (mover, _) = placed.iter().find(|(_, hosts)| *hosts == &[old.name()]).unwrap();
    let (mover, old_id): (UnitName, MachineId) = (mover.parse().unwrap(), old.id().parse().unwrap());

    // The move begins, and cannot be finished: the old machine does not hear of it.
    old.cut().unwrap();
    let settings = MachineSettings { v: VERSION, draining: true, ..MachineSettings::default() };
    let settings = String::from_utf8(settings.encode()).unwrap();
    cluster.etcdctl(&["put", "--", &cluster.key(&Key::MachineSettings(old_id)), &settings]).unwrap();
    eventually(LIMIT, "the unit to be told to leave", || {
        let key = cluster.key(&Key::Manifest(old_id, Bucket::of(&mover)));
        let value = cluster.etcdctl(&["get", "--print-value-only", &key])?;
        let bucket = ManifestBucket::decode(&key, value.trim().as_bytes())?;
        Ok(bucket.entries.iter().any(|e| e.unit == mover && e.departing.is_some()).then_some(()))
    })
    .unwrap();
    kill_for_good(leader);
    let next = cluster.wait_for_leader(LIMIT, Some(leader)).unwrap();
    revive(leader);

    let moved = eventually(LIMIT, "the unit to be active elsewhere", || {
        let active = cluster.active(next, mover.as_str())?;
        Ok(active.into_values().find(|hosts| *hosts != [old.name()]))
    })
    .unwrap();
    assert_eq!(running_on(&cluster, &mover).len(), 2, "the old machine is cut off and runs its own on");
    old.heal().unwrap();
    cluster.wait_for_machines(next, 3).unwrap();
    eventually(LIMIT, "only the newest to run", || Ok((running_on(&cluster, &mover) == moved).then_some(())))
        .unwrap();
    // systemd has ended it before the cluster has heard so.
    eventually(LIMIT, "the cluster to know of the newest only", || {
        let active = cluster.active(next, mover.as_str())?;
        Ok((active[mover.as_str()] == moved).then_some(()))
    })
    .unwrap();
    check(&cluster, &mover, old_id);
}

/// Reads from etcd's own history that the unit never had two places, and got the second only when
/// the old machine's lease had ended.
fn check(cluster: &Cluster, mover: &UnitName, old: MachineId) {
    let mut manifests = std::collections::BTreeMap::new();
    let (mut terms, mut departing, mut lease_ended, mut second) = (Vec::new(), None, None, None);
    for revision in history(cluster).unwrap() {
        for write in revision.writes {
            match write {
                Write::Put(Key::Manifest(machine, bucket), value) if bucket == Bucket::of(mover) => {
                    let bucket = ManifestBucket::decode("manifest", value.as_bytes()).unwrap();
                    let own: Vec<ManifestEntry> =
                        bucket.entries.into_iter().filter(|entry| entry.unit == *mover).collect();
                    manifests.insert(machine, own);
                }
                Write::Put(Key::Leader, _) => terms.push(revision.number),
                Write::Delete(Key::Machine(machine)) if machine == old => {
                    lease_ended = lease_ended.or(Some(revision.number));
                }
                _ => {}
            }
        }
        let entries = || manifests.iter().flat_map(|(machine, own)| own.iter().map(move |e| (*machine, e)));
        let staying: Vec<_> = entries().filter(|(_, entry)| entry.departing.is_none()).collect();
        assert!(staying.len() <= 1, "at revision {}: {staying:?}", revision.number);
        if entries().any(|(machine, entry)| machine == old && entry.departing.is_some()) {
            departing = departing.or(Some(revision.number));
        }
        if staying.iter().any(|(machine, _)| *machine != old) {
            second = second.or(Some(revision.number));
        }
    }
    let (departing, lease_ended, second) = (departing.unwrap(), lease_ended.unwrap(), second.unwrap());
    let led = terms.into_iter().find(|term| *term > departing).unwrap();
    println!(
        "measured: departing at revision {departing}, another leader at {led}, lease ended at {lease_ended}, placed at {second}"
    );
    assert!(led < lease_ended, "the next leader had to wait for the lease, too");
    assert!(second > lease_ended, "the second place came before the lease's end");
}

/// The machines on which systemd runs a unit.
fn running_on(cluster: &Cluster, unit: &UnitName) -> Vec<String> {
    let runs = |machine: &&Machine| machine.run(&["systemctl", "is-active", unit.as_str()]).is_ok();
    cluster.machines().iter().filter(runs).map(|machine| machine.name().to_owned()).collect()
}

/// Kills flotillad, which systemd leaves dead; returns when it was.
fn kill_for_good(machine: &Machine) -> Instant {
    machine.write_file(STAYS_DEAD, "[Service]\nRestart=no\n").unwrap();
    machine.run(&["systemctl", "daemon-reload"]).unwrap();
    let now = Instant::now();
    machine.run(&["systemctl", "kill", "--signal=SIGKILL", "--kill-who=main", "flotillad"]).unwrap();
    now
}

/// Starts what [`kill_for_good`] has ended.
fn revive(machine: &Machine) {
    machine.run(&["rm", STAYS_DEAD]).unwrap();
    machine.run(&["systemctl", "daemon-reload"]).unwrap();
    machine.run(&["systemctl", "start", "flotillad"]).unwrap();
}
