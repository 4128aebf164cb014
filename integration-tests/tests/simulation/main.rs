//! Whole clusters in one process: real engines, real agents, a fake systemd under each, one store in
//! memory with faults in front of everybody, virtual time.
//!
//! Every revision is held against the invariants of the design (`checker`), and after every step no
//! machine runs a unit that its manifest does not name. Faults come from a seed:
//! `FLOTILLA_SEED=n cargo test -p flotilla-integration-tests --test simulation` runs that one alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code says what must hold in the shortest way"
)]

#[path = "../../../engine/tests/cluster/checker.rs"]
#[allow(dead_code, reason = "shared with the engine's own tests, which look at more of it")]
mod checker;
mod cluster;

use std::time::Duration;

use flotilla_agent::systemd::fake::{Behaviour, Exit};
use flotilla_registry::{records::Target, store::faults::Link};
use flotilla_units::UnitRange;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use cluster::{Cluster, slow, unit};

/// How many scenarios are run as a rule; each takes some three seconds of real time.
const SEEDS: u64 = 8;

/// How many things happen in one.
const STEPS: usize = 50;

/// How long after its caller gave up a write still reaches the store, at most.
const LATE: Duration = Duration::from_secs(8);

const MACHINES: usize = 5;
const HOSTS: usize = 3;
const UNITS: usize = 10;
const INSTANCES: u64 = 8;

#[tokio::test(start_paused = true)]
async fn thirty_units_start_survive_a_machine_and_are_destroyed() {
    let mut cluster = Cluster::start(0, 3, 3).await;
    let names: Vec<String> = (0..30).map(|n| format!("u{n}.service")).collect();
    for name in &names {
        cluster.launch(name, "").await;
    }
    let took =
        cluster.until("all run", |cluster| names.iter().all(|name| cluster.runs_on(name).len() == 1)).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    let moved: Vec<&String> = names.iter().filter(|name| cluster.runs_on(name) == [1]).collect();
    assert_eq!(moved.len(), 10, "spread evenly");
    cluster.machines[0].kill_agent();
    cluster.machines[0].systemd.reboot();
    let elsewhere =
        |cluster: &Cluster| moved.iter().all(|name| cluster.runs_on(name).iter().any(|on| *on != 1));
    let took = cluster.until("the lost machine's run elsewhere", elsewhere).await;
    assert!(took <= Duration::from_secs(12), "{took:?}");
    for name in &names {
        let expected = if moved.contains(&name) { 2 } else { 1 };
        assert_eq!(cluster.starts(name), expected, "{name}");
    }
    let all: Vec<_> = names.iter().map(|name| unit(name)).collect();
    cluster.operations.destroy(&all, "test").await.expect("ordered");
    cluster.until("none runs", |cluster| names.iter().all(|name| cluster.runs_on(name).is_empty())).await;
    cluster.until("their names are free", |cluster| cluster.checker.state.units().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn agents_and_engines_come_and_go_and_nothing_restarts() {
    let mut cluster = Cluster::start(0, 3, 3).await;
    let names = ["a.service", "b.service", "c.service", "d.service"];
    for name in names {
        cluster.launch(name, "").await;
    }
    cluster.until("all run", |cluster| names.iter().all(|name| cluster.runs_on(name).len() == 1)).await;
    for n in 0..3 {
        cluster.machines[n].kill_agent();
        cluster.pass(Duration::from_secs(4)).await;
        cluster.machines[n].start();
        cluster.pass(Duration::from_secs(4)).await;
        cluster.machines[n].stop_agent().await;
        cluster.pass(Duration::from_secs(120)).await;
        cluster.machines[n].start();
        cluster.hosts[n].stop().await;
        cluster.pass(Duration::from_secs(8)).await;
        cluster.hosts[n].start();
        cluster.pass(Duration::from_secs(4)).await;
    }
    for name in names {
        assert_eq!(cluster.starts(name), 1, "{name}");
    }
    let before = cluster.checker.writes;
    cluster.pass(Duration::from_secs(600)).await;
    assert_eq!(cluster.checker.writes, before, "at rest nothing is written");
}

#[test]
fn random_faults_keep_the_invariants() {
    let seeds = match std::env::var("FLOTILLA_SEED") {
        Ok(seed) => vec![seed.parse().expect("FLOTILLA_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    };
    for seed in seeds {
        eprintln!("FLOTILLA_SEED={seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(scenario(seed));
    }
}

async fn scenario(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(seed, HOSTS, MACHINES).await;
    for _ in 0..STEPS {
        if random.random_bool(0.5) {
            user_does_something(&mut cluster, &mut random).await;
        } else {
            something_breaks(&mut cluster, &mut random).await;
        }
        cluster.pass(Duration::from_millis(random.random_range(0..5_000))).await;
    }
    settle(&mut cluster).await;
}

async fn user_does_something(cluster: &mut Cluster, random: &mut SmallRng) {
    let name = format!("u{}.service", random.random_range(0..UNITS));
    let names = [unit(&name)];
    // Refusals (a unit that is not there, or is being destroyed) are part of life.
    match random.random_range(0..14) {
        9 | 10 => about_instances(cluster, random).await,
        0..=3 => {
            let all = [
                "",
                "Conflicts=u1.service",
                "MachineOf=u2.service",
                "MachineMetadata=zone=a",
                "Global=true",
                "Replaces=u3.service",
            ];
            cluster.launch(&name, all[random.random_range(0..all.len())]).await;
        }
        4 => {
            let _ = cluster.operations.set_target(&names, Target::Inactive, false, "test").await;
        }
        5 => {
            let _ = cluster.operations.set_target(&names, Target::Loaded, false, "test").await;
        }
        6 => {
            let _ = cluster.operations.destroy(&names, "test").await;
        }
        7 => {
            let _ = cluster.operations.restart(&names, "test").await;
        }
        11 => cluster.replace(&name, random.random_range(0..6)).await,
        12 | 13 => cluster.replace("web@.service", random.random_range(0..6)).await,
        _ => cluster.drain(random.random_range(1..=MACHINES), random.random_bool(0.3)).await,
    }
}

/// Orders instances of a template, by a range of them or by name.
async fn about_instances(cluster: &Cluster, random: &mut SmallRng) {
    let template = unit("web@.service");
    let text = "[Service]\nExecStart=/bin/true\n".to_owned();
    let _ = cluster.operations.submit(&[(template.clone(), text)], "test").await;
    let from = random.random_range(0..INSTANCES);
    let to = (from + random.random_range(0..4)).min(INSTANCES - 1);
    let one = [unit(&format!("web@{from}.service"))];
    let range = UnitRange::new(template, from, to).expect("a range");
    let operations = &cluster.operations;
    let _ = match random.random_range(0..9) {
        0..=3 => operations
            .set_target_in(&range, Target::Launched, random.random_bool(0.5), "test")
            .await
            .map(drop),
        4 => operations.set_target_in(&range, Target::Inactive, false, "test").await.map(drop),
        5 => operations.destroy_in(&range, "test").await.map(drop),
        6 => operations.set_target(&one, Target::Loaded, false, "test").await.map(drop),
        7 => operations.restart(&one, "test").await.map(drop),
        _ => operations.destroy(&one, "test").await.map(drop),
    };
}

async fn something_breaks(cluster: &mut Cluster, random: &mut SmallRng) {
    let machine = random.random_range(0..MACHINES);
    let host = random.random_range(0..HOSTS);
    let link = [Link::Up, Link::Up, Link::Cut, Link::Hung][random.random_range(0..4)];
    let name = unit(&format!("u{}.service", random.random_range(0..UNITS)));
    match random.random_range(0..16) {
        0..=2 => cluster.machines[machine].faults.set_link(link),
        3 => cluster.hosts[host].faults.set_link(link),
        4 => cluster.machines[machine].kill_agent(),
        5 => cluster.machines[machine].start(),
        6 => {
            cluster.machines[machine].stop_agent().await;
            cluster.machines[machine].start();
        }
        7 => cluster.machines[machine].reboot(),
        8 => {
            cluster.hosts[host].stop().await;
            cluster.hosts[host].start();
        }
        9 => cluster.hosts[host].faults.lose_replies(1),
        10 => cluster.machines[machine].faults.lose_replies(1),
        11 => cluster.hosts[host].faults.late_writes(1, LATE),
        12 => cluster.machines[machine].faults.late_writes(1, LATE),
        13 => cluster.machines[machine].rezone(["a", "b"][random.random_range(0..2)]),
        14 => {
            cluster.machines[machine].faults.end_watches();
            cluster.hosts[host].faults.end_watches();
        }
        _ => {
            let behaviour = if random.random_bool(0.5) { slow() } else { Behaviour::default() };
            cluster.machines[machine].systemd.behave(&name, behaviour);
            if random.random_bool(0.3) {
                cluster.machines[machine].systemd.end(&name, Exit::Restarted);
            }
        }
    }
}

/// Heals everything, and waits until what is wanted is so.
async fn settle(cluster: &mut Cluster) {
    for n in 0..MACHINES {
        cluster.machines[n].faults.lose_replies(0);
        cluster.machines[n].faults.late_writes(0, LATE);
        cluster.machines[n].faults.set_link(Link::Up);
        cluster.machines[n].start();
        cluster.drain(n + 1, false).await;
    }
    for host in &mut cluster.hosts {
        host.faults.lose_replies(0);
        host.faults.late_writes(0, LATE);
        host.faults.set_link(Link::Up);
        host.start();
    }
    // A mass-loss hold may have begun at the last moment.
    cluster.pass(Duration::from_secs(400)).await;
    cluster.check_leftovers();
    let reader = cluster.reader();
    for row in reader.units(&flotilla_engine::Names::all(), None, 1_000, |_| true).rows {
        let record = row.record.clone().expect("readable");
        let active = row.placements.iter().filter(|placement| placement.departing.is_none()).count();
        assert_eq!(row.placements.len(), active, "{row:?} still departs");
        assert!(!record.deleting, "{} was proven gone", row.name);
        assert!(row.waits.is_none(), "{} has not got its text: {:?}", row.name, row.waits);
        let running = cluster.runs_on(row.name.as_str()).len();
        if record.target == Target::Inactive {
            assert_eq!((active, running), (0, 0), "{}", row.name);
        } else if active == 0 {
            let why = reader.why(&row.name);
            assert!(why.problem.is_some() || why.explanation.is_unplaceable(), "{why:?} {row:?}");
            assert_eq!(running, 0, "{}", row.name);
        } else if record.target == Target::Loaded {
            assert_eq!(running, 0, "{row:?}");
        } else {
            assert_eq!(running, active, "{row:?} runs on {:?}", cluster.runs_on(row.name.as_str()));
        }
        if cluster.options(row.name.as_str()) == "MachineMetadata=zone=a" {
            let zones = cluster.runs_on(row.name.as_str()).into_iter().map(|n| cluster.machines[n - 1].zone);
            assert!(zones.clone().all(|zone| zone == "a"), "{row:?} runs in {:?}", zones.collect::<Vec<_>>());
        }
    }
}
