//! The leader dies: another leads, and nothing runs twice that may not.

use std::time::{Duration, Instant};

use flotilla_integration_tests::{Cluster, LIMIT, eventually};
use flotilla_lab::Machine;
use flotilla_registry::{
    keys::{Bucket, Key},
    records::{MachineRecord, MachineSettings, ManifestBucket, ManifestEntry, Record as _, VERSION},
};
use flotilla_units::{MachineId, UnitName};

use crate::{
    SLEEPER, UNITS, alone,
    history::{Write, history},
    sleeper, start_instances, write_units,
};

/// How soon another has to lead with the default settings.
const LEADS_WITHIN: Duration = Duration::from_secs(6);

/// How often a test begins again when the computer was too slow for it: what it is about happens
/// while the lease of a machine that nobody renews has not ended yet.
const TRIES: usize = 3;

/// Keeps systemd from starting flotillad again.
const STAYS_DEAD: &str = "/run/systemd/system/flotillad.service.d/stays-dead.conf";

#[test]
fn another_leads_within_six_seconds_and_nothing_restarts() {
    let _alone = alone();
    let cluster = Cluster::up("lead", 3, 1).unwrap();
    let m1 = cluster.machine("m1").unwrap();
    start_instances(&cluster, m1, "still", SLEEPER.to_owned(), 15);
    let in_time = (1..=TRIES).any(|number| lose_the_leader(&cluster, number, 13 + 2 * number));
    assert!(in_time, "{TRIES} times too late to be a test of the leader alone");
}

/// Kills the leader of a cluster with that many units and gives it back. Says whether that was
/// within its machine's lease: if not, its units were right to move.
fn lose_the_leader(cluster: &Cluster, number: usize, units: usize) -> bool {
    cluster.wait_active(cluster.machine("m1").unwrap(), "*", units).unwrap();
    let leader = cluster.leader().unwrap().unwrap();
    let before = cluster.invocations().unwrap();
    assert_eq!(before.len(), units);
    let incarnation =
        || -> Option<MachineRecord> { cluster.record(&Key::Machine(leader.id().parse().unwrap())).unwrap() };
    let was = incarnation().unwrap().nonce;

    let begun = kill_for_good(leader, || {});
    let next = cluster.wait_for_leader(LIMIT, Some(leader)).unwrap();
    let took = begun.elapsed();
    println!("measured: another leads {} ms after the leader was killed", took.as_millis());
    assert!(took < LEADS_WITHIN, "{took:?}");
    // Not where nobody would start it: the dead leader's machine has its lease for a while.
    let file = format!("after{number}.service");
    write_units(next, &[(&file, sleeper(&format!("MachineMetadata=host={}", next.name())))]);
    cluster.ask(next, &["start", &format!("{UNITS}/{file}")]).unwrap();
    println!("measured: a unit is placed and active after {} ms", begun.elapsed().as_millis());
    revive(leader);
    cluster.wait_for_machines(leader, 3).unwrap();
    cluster.ask(leader, &["start", &format!("still@{}", 15 + number)]).unwrap();
    cluster.wait_active(leader, "*", units + 2).unwrap();
    if incarnation().unwrap().nonce != was {
        println!("the machine's lease ended: its flotillad was away for too long");
        return false;
    }
    let after = cluster.invocations().unwrap();
    for (place, invocation) in &before {
        assert_eq!(after.get(place), Some(invocation), "{place:?} was started anew");
    }
    assert_eq!(after.len(), units + 2);
    true
}

#[test]
fn a_move_survives_its_leader_and_the_unit_never_has_two_places() {
    let _alone = alone();
    let in_time = (1..=TRIES).any(|number| move_without_a_leader(&format!("move{number}")));
    assert!(in_time, "{TRIES} times the next leader led only when the old machine's lease had ended");
}

/// Lets a cluster lose its leader in the middle of a move from a machine that is cut off. Says
/// whether another led before the old machine's lease had ended: if not, nothing was tested.
fn move_without_a_leader(name: &str) -> bool {
    let cluster = Cluster::up(name, 3, 1).unwrap();
    let m1 = cluster.machine("m1").unwrap();
    let text = format!("{SLEEPER}\n[X-Flotilla]\nMachineMetadata=!away\n");
    start_instances(&cluster, m1, "mover", text, 3);
    let leader = cluster.leader().unwrap().unwrap();
    let old = cluster.machines().iter().find(|machine| machine.id() != leader.id()).unwrap();
    let placed = cluster.wait_active(m1, "mover@*", 3).unwrap();
    let (mover, _) = placed.iter().find(|(_, hosts)| *hosts == &[old.name()]).unwrap();
    let (mover, old_id): (UnitName, MachineId) = (mover.parse().unwrap(), old.id().parse().unwrap());

    // The move begins, and cannot be finished: the old machine does not hear of it.
    let metadata = [("away".to_owned(), Some("1".to_owned()))].into();
    let settings = MachineSettings { v: VERSION, metadata, ..MachineSettings::default() };
    let settings = String::from_utf8(settings.encode()).unwrap();
    kill_for_good(leader, || {
        old.cut().unwrap();
        cluster.etcdctl(&["put", "--", &cluster.key(&Key::MachineSettings(old_id)), &settings]).unwrap();
        eventually(LIMIT, "the unit to be told to leave", || {
            let bucket: Option<ManifestBucket> =
                cluster.record(&Key::Manifest(old_id, Bucket::of(&mover)))?;
            let leaves = |e: &ManifestEntry| e.unit == mover && e.departing.is_some();
            Ok(bucket.is_some_and(|bucket| bucket.entries.iter().any(leaves)).then_some(()))
        })
        .unwrap();
    });
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
        Ok((active.get(mover.as_str()) == Some(&moved)).then_some(()))
    })
    .unwrap();
    check(&cluster, &mover, old_id)
}

/// Reads from etcd's own history that the unit never had two places, and got the second only when
/// the old machine's lease had ended. Says whether the next leader led before that.
fn check(cluster: &Cluster, mover: &UnitName, old: MachineId) -> bool {
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
    assert!(second > lease_ended, "the second place came before the lease's end");
    led < lease_ended
}

/// The machines on which systemd runs a unit.
fn running_on(cluster: &Cluster, unit: &UnitName) -> Vec<String> {
    let runs = |machine: &&Machine| machine.run(&["systemctl", "is-active", unit.as_str()]).is_ok();
    cluster.machines().iter().filter(runs).map(|machine| machine.name().to_owned()).collect()
}

/// Kills flotillad, which systemd leaves dead; returns when it was. What is to be done at the last
/// moment before is done when all that takes time has been.
fn kill_for_good(machine: &Machine, before: impl FnOnce()) -> Instant {
    machine.write_file(STAYS_DEAD, "[Service]\nRestart=no\n").unwrap();
    machine.run(&["systemctl", "daemon-reload"]).unwrap();
    before();
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
