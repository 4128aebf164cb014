//! etcd goes away, in part and whole: nothing stops, and what is ordered afterwards arrives.

use std::time::{Duration, Instant};

use flotilla_integration_tests::{Cluster, LIMIT, eventually};
use flotilla_lab::Member;

use crate::{SLEEPER, alone, start_instances};

/// How long the whole store is away: six leases.
const AWAY: Duration = Duration::from_secs(60);

#[test]
fn etcd_goes_away_member_by_member_and_whole_and_no_unit_notices() {
    let _alone = alone();
    let cluster = Cluster::up("store", 3, 3).unwrap();
    let m1 = cluster.machine("m1").unwrap();
    start_instances(&cluster, m1, "still", SLEEPER.to_owned(), 15);
    let mut runs = cluster.invocations().unwrap();
    assert_eq!(runs.len(), 15);
    let mut next = 16;
    // Starts one unit more, and looks whether only that has changed.
    let mut changes_arrive = |what: &str| {
        let begun = Instant::now();
        let unit = format!("still@{next}");
        eventually(LIMIT, format_args!("{unit} to start: {what}"), || {
            cluster.ask(m1, &["start", "--timeout=20s", &unit]).map(Some)
        })
        .unwrap();
        println!("measured: {what}: a unit started within {} ms", begun.elapsed().as_millis());
        next += 1;
        let now = cluster.invocations().unwrap();
        for (place, invocation) in &runs {
            assert_eq!(now.get(place), Some(invocation), "{place:?} was started anew: {what}");
        }
        assert_eq!(now.len(), runs.len() + 1, "{what}");
        runs = now;
    };
    for member in cluster.members() {
        member.kill().unwrap();
        changes_arrive(&format!("{} is dead", member.name()));
        member.start().unwrap();
        member.wait_healthy().unwrap();
        changes_arrive(&format!("{} is back", member.name()));
    }

    cluster.members().iter().try_for_each(Member::kill).unwrap();
    let gone = Instant::now();
    let before = cluster.invocations().unwrap();
    while gone.elapsed() < AWAY {
        m1.run(&["sleep", "2"]).unwrap();
        assert_eq!(cluster.invocations().unwrap(), before, "after {:?} without etcd", gone.elapsed());
    }
    cluster.members().iter().try_for_each(Member::start).unwrap();
    cluster.members().iter().try_for_each(Member::wait_healthy).unwrap();
    changes_arrive("all are back");
    cluster.wait_for_machines(m1, 3).unwrap();
    // Long enough for a lease that was not renewed to end.
    m1.run(&["sleep", "12"]).unwrap();
    changes_arrive("a lease later");
}
