//! From an empty cluster to a full one, and what a full one is at rest.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flotilla_figures::what;
use flotilla_registry::records::Target;
use tokio::time::{Instant, sleep};

use crate::{
    Options,
    cluster::Cluster,
    samples::{Sample, Samples},
    say,
    table::Table,
};

/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// The same while no engine has a seat.
const SEATLESS_LOOK: Duration = Duration::from_secs(1);

/// How long a run may go on without anything becoming active.
const STUCK: Duration = Duration::from_secs(60);

/// How long a full cluster comes to rest before it is measured there. Twenty seconds: the check has read the whole
/// store, and etcd is busy with what is left of that and of the burst in its memory.
const COMES_TO_REST: Duration = Duration::from_secs(20);

/// Fills the cluster, and checks it.
pub(crate) async fn fill(
    cluster: &mut Cluster,
    options: &Options,
    table: &mut Table,
    samples: &mut Samples,
) -> Result<()> {
    let before = cluster.sample("fill", Instant::now(), 0)?;
    let full = until_active(cluster, options, samples).await?;
    cluster.etcd.keep_metrics("full")?;
    let goal = match (options.machines, options.units) {
        (10_000, 1_000_000) => Some(120.0),
        (1_000, 100_000) => Some(10.0),
        _ => None,
    };
    table.at_most(what::ALL_ACTIVE, full.at, "s", goal);
    table.row(what::UNITS_A_SECOND, options.units as f64 / full.at, "/s");
    table.row(what::ENGINE_CPU, full.engine_cpu - before.engine_cpu, "s");
    table.row(what::ETCD_CPU, full.etcd_cpu - before.etcd_cpu, "s");
    table.row(what::AGENTS_CPU, full.agents_cpu - before.agents_cpu, "s");
    table.row(what::KEYS_A_UNIT, (full.etcd_puts - before.etcd_puts) / options.units as f64, "");
    table.row("etcd: log synced", full.etcd_fsyncs - before.etcd_fsyncs, "times");
    let checked = cluster.check(options, "the fill").await?;
    ensure!(checked.starts == options.units, "{} starts of {} units", checked.starts, options.units);
    Ok(())
}

async fn until_active(cluster: &Cluster, options: &Options, samples: &mut Samples) -> Result<Sample> {
    let operations = cluster.operations()?;
    let templates = options.kind.templates(options.machines, options.units)?;
    let texts: Vec<_> =
        templates.iter().map(|template| (template.name.clone(), template.text.clone())).collect();
    let since = Instant::now();
    operations.submit(&texts, "scale").await?;
    for template in &templates {
        operations.set_target_in(&template.range()?, Target::Launched, false, "scale").await?;
    }
    say(format_args!("ordered in {:.2} s", since.elapsed().as_secs_f64()));
    let mut last = (0, Instant::now());
    loop {
        let Some(active) = cluster.active() else {
            // It takes one again: an etcd that is too busy for its renewal lost it.
            say(format_args!("{:6.1} s: no engine has a seat", since.elapsed().as_secs_f64()));
            ensure!(last.1.elapsed() < STUCK, "no engine has had a seat for {STUCK:?}");
            sleep(SEATLESS_LOOK).await;
            continue;
        };
        let sample = cluster.sample("fill", since, active)?;
        samples.write("sample", &sample)?;
        if active >= options.units {
            return Ok(sample);
        }
        if active != last.0 {
            last = (active, Instant::now());
            say(format_args!(
                "{:6.1} s: {active:>8} active; engine {:.1} s {:.0} MiB, etcd {:.1} s {:.0} MiB, agents {:.1} s {:.0} MiB",
                sample.at,
                sample.engine_cpu,
                sample.engine_memory,
                sample.etcd_cpu,
                sample.etcd_memory,
                sample.agents_cpu,
                sample.agents_memory
            ));
        }
        ensure!(last.1.elapsed() < STUCK, "stuck at {active} of {} active", options.units);
        sleep(LOOK).await;
    }
}

/// Measures what a full cluster does when nobody asks anything.
pub(crate) async fn rest(
    cluster: &mut Cluster,
    options: &Options,
    table: &mut Table,
    samples: &mut Samples,
) -> Result<()> {
    cluster.settle(options).await?;
    sleep(COMES_TO_REST).await;
    let since = Instant::now();
    let before = cluster.sample("rest", since, options.units)?;
    samples.write("sample", &before)?;
    sleep(Duration::from_secs(options.rest)).await;
    let after = cluster.sample("rest", since, options.units)?;
    samples.write("sample", &after)?;
    cluster.etcd.keep_metrics("rested")?;
    let seconds = after.at - before.at;
    let large = options.machines == 10_000;
    table.at_most(what::REST_WRITES, (after.etcd_puts - before.etcd_puts) / seconds, "/s", Some(0.0));
    table.at_most(what::REST_READS, (after.etcd_ranges - before.etcd_ranges) / seconds, "/s", Some(0.0));
    let percent = |after: f64, before: f64| (after - before) / seconds * 100.0;
    let engine = percent(after.engine_cpu, before.engine_cpu) / options.engines.max(1) as f64;
    table.at_most(what::REST_ENGINE, engine, "% of a core", large.then_some(2.0));
    let etcd = percent(after.etcd_cpu, before.etcd_cpu);
    table.at_most(what::REST_ETCD, etcd, "% of a core", large.then_some(20.0));
    let agents = percent(after.agents_cpu, before.agents_cpu) / options.machines as f64 * 1000.0;
    table.row(what::REST_AGENTS, agents, "% of a core");
    Ok(())
}

/// Tells how much memory everybody has.
pub(crate) fn memory(cluster: &Cluster, options: &Options, table: &mut Table) -> Result<()> {
    let large = (options.machines, options.units) == (10_000, 1_000_000);
    let engine = cluster.engines.first().context("there is an engine")?.usage()?;
    table.at_most(what::ENGINE_MEMORY, engine.memory, "MiB", large.then_some(1536.0));
    table.row("engine: memory at its peak", engine.memory_peak, "MiB");
    let work = cluster.etcd.work()?;
    let mib = f64::from(1 << 20);
    table.at_most(what::ETCD_IN_USE, work.in_use / mib, "MiB", large.then_some(1024.0));
    table.row("etcd: database file", work.size / mib, "MiB");
    table.row("etcd: memory", cluster.etcd.usage()?.memory, "MiB");
    let agents = cluster.fleet.usage()?;
    table.row(what::AGENT_MEMORY, agents.memory / options.machines as f64, "MiB");
    Ok(())
}
