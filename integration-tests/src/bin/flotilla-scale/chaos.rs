//! Machines die and return at random, leaders are killed, etcd is restarted; then all has to be as it should.

use std::time::Duration;

use anyhow::{Result, ensure};
use flotilla_figures::what;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{Options, cluster::Cluster, moves::Following, say, table::Table};

/// How many of the machines die in a minute. A tenth: a third of them within a minute is what the leader
/// takes for a cut network, and holds.
const DIE_A_MINUTE: f64 = 0.1;

/// How long a machine is away: some are back before their lease has ended, most are not.
const AWAY_SECONDS: std::ops::Range<f64> = 3.0..90.0;

/// How often the leader is killed.
const LEADER_EVERY: Duration = Duration::from_secs(20);

/// How many times etcd is restarted.
const RESTARTS: u32 = 2;

/// How many engines there are: one to die, one to follow, one to be starting.
const ENGINES: usize = 3;

/// How long everything may take to run again afterwards.
const LIMIT: Duration = Duration::from_secs(180);

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Crash(usize),
    Boot(usize),
    KillLeader,
    RestartEtcd,
}

/// What happens when, in order; the same for the same seed.
fn schedule(machines: usize, lasts: Duration, seed: u64) -> Vec<(Duration, Act)> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut acts = Vec::new();
    let mut back_at = vec![Duration::ZERO; machines];
    let between = 60.0 / (machines as f64 * DIE_A_MINUTE);
    let mut at = Duration::from_secs_f64(random.random_range(0.0..between));
    while at < lasts {
        let machine = random.random_range(0..machines);
        let back = at + Duration::from_secs_f64(random.random_range(AWAY_SECONDS));
        // One that is away cannot die.
        if back_at[machine] <= at {
            back_at[machine] = back;
            acts.extend([(at, Act::Crash(machine)), (back, Act::Boot(machine))]);
        }
        at += Duration::from_secs_f64(random.random_range(0.0..2.0 * between));
    }
    let leaders = (1..).map(|n| LEADER_EVERY * n).take_while(|at| *at < lasts);
    acts.extend(leaders.map(|at| (at, Act::KillLeader)));
    // Not together with a leader: that would be one trouble instead of two.
    let restarts = (1..=RESTARTS).map(|n| lasts * n / (RESTARTS + 1) + LEADER_EVERY / 2);
    acts.extend(restarts.map(|at| (at, Act::RestartEtcd)));
    acts.sort_by_key(|(at, _)| *at);
    acts
}

/// Lets it all happen to a full cluster, and checks what is left.
pub(crate) async fn chaos(cluster: &mut Cluster, options: &Options, table: &mut Table) -> Result<()> {
    while cluster.engines.len() < ENGINES {
        cluster.add_engine(options).await?;
    }
    let following = Following::begin(cluster.etcd.url()).await?;
    let acts = schedule(options.machines, Duration::from_secs(options.chaos), options.seed);
    say(format_args!("chaos for {} s, seed {}: {} acts", options.chaos, options.seed, acts.len()));
    let since = Instant::now();
    let (mut crashes, mut leaders, mut late) = (0, 0, Duration::ZERO);
    for (at, act) in acts {
        sleep_until(since + at).await;
        late = late.max((since + at).elapsed());
        match act {
            Act::Crash(machine) => {
                crashes += 1;
                cluster.fleet.crash(&[machine])?;
            }
            Act::Boot(machine) => cluster.fleet.boot(&[machine])?,
            Act::KillLeader => {
                // Between two terms there is nobody to kill.
                if let Ok(leader) = cluster.leader() {
                    leaders += 1;
                    cluster.restart_engine(leader, options)?;
                }
            }
            Act::RestartEtcd => {
                say(format_args!("{:.0} s: etcd is restarted", at.as_secs_f64()));
                cluster.etcd.restart().await?;
            }
        }
    }
    say(format_args!(
        "{crashes} machines died, {leaders} leaders were killed; acts were at most {late:?} late"
    ));
    let end = Instant::now() + LIMIT;
    // Machines that are on their way back are missed at once, their units' reports after a moment.
    cluster.settle(options).await?;
    while cluster.active().is_none_or(|active| active < options.units) {
        ensure!(Instant::now() < end, "{:?} of {} units are active", cluster.active(), options.units);
        sleep(Duration::from_millis(200)).await;
    }
    cluster.check(options, "the chaos").await?;
    let moves = following.end().await?;
    moves.named().iter().for_each(|named| say(format_args!("needless: {named}")));
    table.row("chaos: machines that died", crashes as f64, "");
    table.row("chaos: leaders killed", leaders as f64, "");
    table.row("chaos: units moved", moves.moved as f64, "");
    table.at_most(what::MOVED_NEEDLESSLY, moves.needless as f64, "", Some(0.0));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_die_only_while_they_live_and_all_return() {
        let lasts = Duration::from_secs(180);
        let acts = schedule(1_000, lasts, 7);
        assert_eq!(acts, schedule(1_000, lasts, 7));
        assert_ne!(acts, schedule(1_000, lasts, 8));
        assert!(acts.is_sorted_by_key(|(at, _)| *at));
        let mut away = std::collections::BTreeSet::new();
        let mut most = 0;
        for (_, act) in &acts {
            match act {
                Act::Crash(machine) => assert!(away.insert(*machine), "{machine} dies twice"),
                Act::Boot(machine) => assert!(away.remove(machine), "{machine} boots twice"),
                Act::KillLeader | Act::RestartEtcd => {}
            }
            most = most.max(away.len());
        }
        assert!(away.is_empty());
        assert!((30..300).contains(&most), "{most} were away at once");
        let count = |meant: Act| acts.iter().filter(|(_, act)| *act == meant).count();
        assert_eq!((count(Act::KillLeader), count(Act::RestartEtcd)), (8, 2));
    }
}
