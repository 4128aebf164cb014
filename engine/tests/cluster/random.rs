//! Random scenarios, from a seed. `FLOTILLA_SEED=n` runs that one alone.

use std::time::Duration;

use flotilla_registry::{
    operations::{NewText, UnitOrder},
    records::{MachineSettings, Target, VERSION},
    store::faults::Link,
};
use flotilla_units::UnitRange;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use crate::{Cluster, unit};

/// How many scenarios are run as a rule; each takes about a second.
const SEEDS: u64 = 12;

/// How many things happen in one.
const STEPS: usize = 60;

const MACHINES: usize = 5;
const UNITS: usize = 12;
const INSTANCES: u64 = 8;

#[test]
fn random_scenarios_keep_the_invariants() {
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
    let mut cluster = Cluster::start(3, MACHINES).await;
    for _ in 0..STEPS {
        one_thing(&mut cluster, &mut random).await;
        let pause = Duration::from_millis(random.random_range(0..4_000));
        cluster.pass(pause).await;
    }
    settle(&mut cluster).await;
}

async fn one_thing(cluster: &mut Cluster, random: &mut SmallRng) {
    let n = random.random_range(1..=MACHINES);
    let name = format!("u{}.service", random.random_range(0..UNITS));
    let names = [unit(&name)];
    // Refusals (a unit that is not there, or is being destroyed) are part of life.
    match random.random_range(0..18) {
        0..=3 => {
            let options = ["", "Conflicts=u1.service", "MachineOf=u2.service"][random.random_range(0..3)];
            let text = crate::service(options);
            let _ = cluster.operations.submit(&[(unit(&name), text)], "test").await;
            let _ = cluster.operations.set_target(&names, Target::Launched, true, "test").await;
        }
        4 => {
            let _ = cluster.operations.set_target(&names, Target::Inactive, false, "test").await;
        }
        5 => {
            let _ = cluster.operations.destroy(&names, "test").await;
        }
        6 => {
            let _ = cluster.operations.restart(&names, "test").await;
        }
        7 => cluster.link(n).set_link(Link::Cut),
        8 | 9 => cluster.link(n).set_link(Link::Up),
        10 => {
            cluster.machine(n).kill();
            cluster.boot(n, &[]);
        }
        11 => {
            let draining = random.random_bool(0.3);
            let settings = MachineSettings { v: VERSION, draining, ..MachineSettings::default() };
            cluster.settings(n, &settings).await;
        }
        12 => {
            let engine = random.random_range(0..3);
            let link = [Link::Up, Link::Cut, Link::Hung][random.random_range(0..3)];
            cluster.host(engine).faults.set_link(link);
        }
        13 => {
            let engine = random.random_range(0..3);
            cluster.host(engine).faults.late_writes(1, Duration::from_secs(8));
        }
        14 => cluster.host(random.random_range(0..3)).faults.lose_replies(1),
        _ => about_instances(cluster, random).await,
    }
}

/// Orders instances of a template, by a range of them or by name.
async fn about_instances(cluster: &Cluster, random: &mut SmallRng) {
    // Another text now and then: one that runs alike, and one that does not.
    let text = [crate::service(""), crate::service("# said"), crate::service("").replace("true", "false")];
    let text = NewText::replacing(text[random.random_range(0..12_usize).saturating_sub(9)].clone());
    let _ = cluster.operations.write(&[(unit("web@.service"), UnitOrder::submit(text))], true, "test").await;
    let from = random.random_range(0..INSTANCES);
    let to = (from + random.random_range(0..4)).min(INSTANCES - 1);
    let range = UnitRange::new(unit("web@.service"), from, to).expect("a range");
    let one = [unit(&format!("web@{from}.service"))];
    let operations = &cluster.operations;
    let _ = match random.random_range(0..10) {
        0..=3 => operations
            .set_target_in(&range, Target::Launched, random.random_bool(0.5), "test")
            .await
            .map(drop),
        4 => operations.set_target_in(&range, Target::Inactive, false, "test").await.map(drop),
        5 => operations.destroy_in(&range, "test").await.map(drop),
        6 => operations.set_target(&one, Target::Inactive, false, "test").await.map(drop),
        7 => operations.restart(&one, "test").await.map(drop),
        8 => operations.destroy(&one, "test").await.map(drop),
        _ => operations.destroy(&[unit("web@.service")], "test").await.map(drop),
    };
}

/// Heals everything and waits until what is wanted is so.
async fn settle(cluster: &mut Cluster) {
    for n in 1..=MACHINES {
        cluster.link(n).set_link(Link::Up);
        cluster.settings(n, &MachineSettings { v: VERSION, ..MachineSettings::default() }).await;
    }
    for engine in 0..3 {
        cluster.host(engine).faults.set_link(Link::Up);
        cluster.host(engine).faults.lose_replies(0);
        cluster.host(engine).faults.late_writes(0, Duration::ZERO);
    }
    // A mass-loss hold may have begun at the last moment.
    cluster.pass(Duration::from_secs(400)).await;
    let reader = cluster.reader();
    for row in reader.units(&flotilla_engine::Names::all(), None, 1_000, |_| true).rows {
        let record = row.record.clone().expect("readable");
        let active = row.placements.iter().filter(|placement| placement.departing.is_none()).count();
        assert_eq!(row.placements.len(), active, "{} still departs", row.name);
        assert!(!record.deleting, "{} was proven gone", row.name);
        if record.target == Target::Inactive {
            assert_eq!(active, 0, "{}", row.name);
        } else if active == 0 {
            let why = reader.why(&row.name);
            assert!(why.problem.is_some() || why.explanation.is_unplaceable(), "{why:?} {row:?}");
        } else {
            let on = cluster.runs_on(row.name.as_str());
            assert!(on.is_some(), "{} runs", row.name);
            let running = (1..=MACHINES).filter(|n| cluster.machine(*n).runs(&row.name)).count();
            assert_eq!(running, 1, "{} runs once", row.name);
        }
    }
}
