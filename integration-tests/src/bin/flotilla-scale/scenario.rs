//! What a full cluster does when something happens to it.

use std::{
    collections::BTreeSet,
    io::Read as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use flotilla_figures::what;
use flotilla_registry::{
    keys::{Key, Keys},
    records::Target,
};
use tokio::time::{Instant, sleep};

use crate::{Options, cluster::Cluster, seen::Seen, table::Table, workload};

/// How long anything may take here.
const LIMIT: Duration = Duration::from_secs(120);

/// Whether the goals that are set for this size count.
fn large<T>(options: &Options, goal: T) -> Option<T> {
    ((options.machines, options.units) == (10_000, 1_000_000)).then_some(goal)
}

/// Takes the power from machines, and measures from the end of the last lease.
pub(crate) async fn loss(
    cluster: &mut Cluster,
    options: &Options,
    count: usize,
    table: &mut Table,
) -> Result<()> {
    let numbers = workload::scattered(count, options.machines);
    let ids = numbers.iter().map(|n| workload::machine_id(*n)).collect::<Result<BTreeSet<_>>>()?;
    let mut filled = cluster.buckets_of(&ids).await?;
    let mut seen = Seen::begin(&cluster.etcd.url(), Keys::everything).await?;
    cluster.fleet.crash(&numbers)?;
    let mut alive = ids.clone();
    let mut last_lease = Instant::now();
    // What is decided for the last of them follows its key's end; of the others it may come before.
    let decided = seen
        .until("the lost machines' units are placed elsewhere", LIMIT, |key, is_there| {
            match key {
                Key::Machine(id) if !is_there && alive.remove(id) => last_lease = Instant::now(),
                Key::Manifest(id, bucket) => drop(filled.remove(&(*id, *bucket))),
                _ => {}
            }
            alive.is_empty() && filled.is_empty()
        })
        .await?;
    loop {
        if cluster.active().is_some_and(|active| active >= options.units) {
            break;
        }
        ensure!(last_lease.elapsed() < LIMIT, "the units of lost machines are not active again");
        sleep(Duration::from_millis(20)).await;
    }
    let (decided, active) = ((decided - last_lease).as_secs_f64() * 1e3, last_lease.elapsed().as_secs_f64());
    // Of several, those whose lease ended first were decided before the last one's did.
    table.at_most(what::lost_decided(count), decided, "ms", large(options, 50.0).filter(|_| count == 1));
    table.at_most(what::lost_active(count), active, "s", large(options, 5.0).filter(|_| count > 1));
    cluster.fleet.boot(&numbers)?;
    // They find what left them while they were away, and prove it gone.
    cluster.check(options, &what::lost(count)).await?;
    Ok(())
}

/// Kills the leader and gives an order at once.
pub(crate) async fn failover(cluster: &mut Cluster, options: &Options, table: &mut Table) -> Result<()> {
    if cluster.engines.len() < 2 {
        cluster.add_engine(options).await?;
    }
    let operations = cluster.operations()?;
    let name: flotilla_units::UnitName = "after-the-leader.service".parse()?;
    let text = "[Service]\nExecStart=/bin/sleep infinity\n".to_owned();
    operations.submit(&[(name.clone(), text)], "scale").await?;
    let mut seen = Seen::begin(&cluster.etcd.url(), Keys::everything).await?;
    let leader = cluster.leader()?;
    cluster.engines.remove(leader).kill()?;
    operations.set_target(std::slice::from_ref(&name), Target::Launched, false, "scale").await?;
    let ended = seen
        .until("the leader's lease ends", LIMIT, |key, is_there| *key == Key::Leader && !is_there)
        .await?;
    let placed = seen.until("a unit is placed", LIMIT, |key, _| matches!(key, Key::Manifest(..))).await?;
    let took = (placed - ended).as_secs_f64();
    table.at_most(what::FAILOVER, took, "s", large(options, 3.0));
    operations.destroy(&[name], "scale").await?;
    cluster.check(options, "the leader's end").await?;
    Ok(())
}

/// Lists one unit and all of them, as a user does.
pub(crate) fn lists(cluster: &Cluster, options: &Options, table: &mut Table) -> Result<()> {
    let endpoint =
        format!("unix://{}", cluster.engines.first().context("there is an engine")?.socket().display());
    let list = |pattern: &str| -> Result<(f64, f64, usize)> {
        let mut command = Command::new(options.programs.join("flotctl"));
        command.args(["--endpoint", &endpoint, "list-units", "--no-legend", pattern]);
        let since = std::time::Instant::now();
        let mut child =
            command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().context("starting flotctl")?;
        let mut out = child.stdout.take().context("its output")?;
        let mut buffer = vec![0; 1 << 20];
        let (mut first, mut rows) = (None, 0);
        loop {
            let read = out.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            first.get_or_insert(since.elapsed().as_secs_f64());
            rows += buffer[..read].iter().filter(|byte| **byte == b'\n').count();
        }
        let all = since.elapsed().as_secs_f64();
        ensure!(child.wait()?.success(), "flotctl list-units failed");
        Ok((first.unwrap_or(all), all, rows))
    };
    list("t0@1.service")?;
    let mut one: Vec<f64> = (0..9).map(|_| Ok(list("t0@1.service")?.1 * 1e3)).collect::<Result<_>>()?;
    one.sort_by(f64::total_cmp);
    table.at_most(what::LIST_ONE, one[4], "ms", large(options, 20.0));
    let (first, all, rows) = list("*")?;
    ensure!(rows >= options.units, "{rows} rows of {} units", options.units);
    table.at_most(what::LIST_FIRST, first * 1e3, "ms", large(options, 200.0));
    let rows = rows as f64 / all;
    table.at_least(what::LIST_ROWS, rows, "/s", large(options, 200_000.0));
    Ok(())
}
