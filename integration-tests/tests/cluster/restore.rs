//! etcd is restored from a backup: nothing is started or stopped until an operator accepts it.

use flotilla_integration_tests::{Cluster, LIMIT, SAYS_STOPPED, eventually};

use crate::{GRACE, MACHINE_LEASE, SLEEPER, UNITS, alone, problems, start_instances, write_units};

#[test]
fn a_store_restored_from_a_backup_is_not_acted_on_until_it_is_accepted() {
    let _alone = alone();
    let cluster = Cluster::up("restore", 3, 1).unwrap();
    let m1 = cluster.machine("m1").unwrap();
    let [etcd] = cluster.members() else { panic!("one member") };
    start_instances(&cluster, m1, "older", SAYS_STOPPED.to_owned(), 6);
    let backup = cluster.directory().join("backup.db");
    cluster.etcdctl(&["snapshot", "save", backup.to_str().unwrap()]).unwrap();

    // The backup does not know of these.
    start_instances(&cluster, m1, "newer", SAYS_STOPPED.to_owned(), 3);
    let before = cluster.invocations().unwrap();
    assert_eq!(before.keys().filter(|(_, unit)| unit.starts_with("newer@")).count(), 3, "{before:?}");

    etcd.stop().unwrap();
    etcd.restore(&backup).unwrap();
    etcd.start().unwrap();
    etcd.wait_healthy().unwrap();
    for machine in cluster.machines() {
        let noticed = || {
            let all = problems(&cluster, machine)?;
            Ok(all.iter().any(|problem| problem.contains("the store went back: ")).then_some(()))
        };
        eventually(LIMIT, format_args!("{} to notice", machine.name()), noticed).unwrap();
    }
    // Long enough for a lease that was not renewed to end, and for anything to be started or stopped.
    m1.run(&["sleep", &(MACHINE_LEASE + GRACE).as_secs().to_string()]).unwrap();
    assert_eq!(cluster.invocations().unwrap(), before, "nothing is started or stopped");
    for machine in cluster.machines() {
        assert!(machine.run(&["test", "!", "-e", "/run/stopped"]).is_ok(), "{}", machine.name());
    }

    for machine in cluster.machines() {
        cluster.ask(machine, &["cluster", "accept-store"]).unwrap();
    }
    for machine in cluster.machines() {
        cluster.wait_for_machines(machine, 3).unwrap();
        eventually(LIMIT, "no problem any more", || {
            Ok(problems(&cluster, machine)?.is_empty().then_some(()))
        })
        .unwrap();
    }
    // Orders are carried out again.
    cluster.wait_active(m1, "older@*", 6).unwrap();
    write_units(m1, &[("after.service", SLEEPER.to_owned())]);
    cluster.ask(m1, &["start", &format!("{UNITS}/after.service")]).unwrap();
    cluster.ask(m1, &["stop", "older@1"]).unwrap();
    // What it does not know is left alone, and nothing else was touched.
    let after = cluster.invocations().unwrap();
    for (place, invocation) in before.iter().filter(|((_, unit), _)| unit != "older@1.service") {
        assert_eq!(after.get(place), Some(invocation), "{place:?}: {after:?}");
    }
    let known = cluster.units(m1, "newer@*").unwrap();
    assert!(known.is_empty(), "{known:?}");
}
