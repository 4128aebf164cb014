//! A steady stream: units are started and others destroyed, so many a second, beside those that run.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use flotilla_figures::what;
use flotilla_registry::{
    keys::{Key, Keys},
    records::{Record as _, ReportBucket, Target},
    store::{
        KeyValue, Revision, Store as _, WatchEvent, WatchMessage, WatchStream,
        etcd::{EtcdConfig, EtcdStore},
    },
};
use flotilla_units::{UnitName, UnitRange};
use futures_util::{StreamExt as _, stream::select};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{Options, cluster::Cluster, say, table::Table};

/// The units that are destroyed, and those that are started: of none of the kinds' templates, so that the
/// checker knows what stays, and of two, so that orders about the one do not wait for those about the other.
const TEMPLATES: [&str; 2] = ["old@.service", "new@.service"];

/// What they ask for: nothing.
const TEXT: &str = "[Service]\nExecStart=/bin/sleep infinity\n";

/// How many orders a second there are of each sense; each is about a twentieth of a second's units, as if twenty
/// users' programs each started a few.
const ORDERS: u64 = 20;

/// How long the last ones may take.
const LIMIT: Duration = Duration::from_secs(60);

/// When units of the stream were ordered, and how long they took.
#[derive(Debug, Default)]
struct Times {
    started: HashMap<UnitName, Instant>,
    destroyed: HashMap<UnitName, Instant>,
    active: Vec<f64>,
    gone: Vec<f64>,
}

type Shared = Arc<Mutex<Times>>;

fn times(shared: &Shared) -> MutexGuard<'_, Times> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts and destroys units for a while, `rate` of them a second each.
pub(crate) async fn steady(cluster: &mut Cluster, options: &Options, table: &mut Table) -> Result<()> {
    let [old, new] = TEMPLATES.map(str::parse::<UnitName>);
    let (old, new) = (old?, new?);
    let operations = Arc::new(cluster.operations()?);
    let texts = [&old, &new].map(|template| (template.clone(), TEXT.to_owned()));
    operations.submit(&texts, "scale").await?;
    let piece = (options.rate / ORDERS).max(1);
    let orders = options.rate * options.stream / piece;
    let between = Duration::from_secs_f64(piece as f64 / options.rate as f64);
    let range = |template: &UnitName, from: u64, to: u64| {
        UnitRange::new(template.clone(), from * piece + 1, to * piece)
    };
    // Those that are destroyed while others start are there before, each with a record of its own: orders about
    // parts of one range rewrite it, and twenty a second of them would stand in each other's way.
    let old_ones: Vec<UnitName> = range(&old, 0, orders)?.instances().collect();
    operations.set_target(&old_ones, Target::Launched, false, "scale").await?;
    until(cluster, options.units + (orders * piece) as usize).await?;
    // At rest, as a cluster that has them running already: etcd has given up its buffer of that burst.
    cluster.quiet().await?;
    say(format_args!("{} units a second are started and destroyed for {} s", options.rate, options.stream));

    let shared = Shared::default();
    let _watching = watch(&cluster.etcd.url(), Arc::clone(&shared)).await?;
    let before = cluster.sample("stream", Instant::now(), 0)?;
    let since = Instant::now();
    let mut under_way = JoinSet::new();
    for order in 0..orders {
        sleep_until(since + between * u32::try_from(order)?).await;
        let (start, destroy) = (range(&new, order, order + 1)?, range(&old, order, order + 1)?);
        // From when it was due: an order that waits for the one before is late for whoever gives it.
        let now = since + between * u32::try_from(order)?;
        {
            let mut times = times(&shared);
            times.started.extend(start.instances().map(|unit| (unit, now)));
            times.destroyed.extend(destroy.instances().map(|unit| (unit, now)));
        }
        let operations = Arc::clone(&operations);
        under_way.spawn(async move {
            let units: Vec<UnitName> = start.instances().collect();
            operations.set_target(&units, Target::Launched, false, "scale").await?;
            let units: Vec<UnitName> = destroy.instances().collect();
            operations.destroy(&units, "scale").await
        });
    }
    while let Some(done) = under_way.join_next().await {
        done.context("an order")?.context("an order")?;
    }
    let ordered = since.elapsed().as_secs_f64();
    let end = Instant::now() + LIMIT;
    loop {
        let (started, destroyed) = {
            let times = times(&shared);
            (times.started.len(), times.destroyed.len())
        };
        if started + destroyed == 0 {
            break;
        }
        ensure!(Instant::now() < end, "{started} units are not active and {destroyed} not gone");
        sleep(Duration::from_millis(20)).await;
    }
    let after = cluster.sample("stream", since, 0)?;
    let mut all = std::mem::take(&mut *times(&shared));
    let stream = format!("stream of {}/s:", options.rate);
    let large = options.machines == 5_000 && options.units == 500_000 && options.rate >= 1_000;
    table.row(format!("{stream} orders given within"), ordered, "s");
    table.row(what::stream_median(options.rate), percentile(&mut all.active, 0.5) * 1e3, "ms");
    let p99 = percentile(&mut all.active, 0.99) * 1e3;
    table.at_most(what::stream_p99(options.rate), p99, "ms", large.then_some(500.0));
    table.row(format!("{stream} destroy to gone, median"), percentile(&mut all.gone, 0.5) * 1e3, "ms");
    table.row(format!("{stream} destroy to gone, p99"), percentile(&mut all.gone, 0.99) * 1e3, "ms");
    for (who, cpu) in [
        ("engine", after.engine_cpu - before.engine_cpu),
        ("etcd", after.etcd_cpu - before.etcd_cpu),
        ("agents", after.agents_cpu - before.agents_cpu),
    ] {
        table.row(format!("{stream} processor, {who}"), cpu / after.at * 100.0, "% of a core");
    }
    // The stream's own go, so that what stays is what the checker knows.
    let new_ones: Vec<UnitName> = range(&new, 0, orders)?.instances().collect();
    operations.destroy(&new_ones, "scale").await?;
    until(cluster, options.units).await?;
    cluster.check(options, "the stream").await?;
    Ok(())
}

/// Waits until so many units are active, no more and no fewer.
async fn until(cluster: &Cluster, units: usize) -> Result<()> {
    let mut last = (None, Instant::now());
    loop {
        let active = cluster.active();
        if active == Some(units) {
            return Ok(());
        }
        if active != last.0 {
            last = (active, Instant::now());
        }
        ensure!(last.1.elapsed() < LIMIT, "{active:?} units are active, not {units}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Notes when units of the stream become active, and when nothing is known of them any more.
async fn watch(etcd: &str, shared: Shared) -> Result<AbortOnDropHandle<Result<()>>> {
    let store = EtcdStore::connect(EtcdConfig { endpoints: vec![etcd.to_owned()], ..EtcdConfig::default() })?;
    let keys = Keys::default();
    let from = Revision(store.status().await?.revision.0 + 1);
    // Nothing else: what is measured shares its processors with who measures.
    let reports = store.watch(keys.all_of("reports"), from).await?;
    let units = store.watch(keys.all_of("units"), from).await?;
    let watch = Box::pin(select(reports, units));
    Ok(AbortOnDropHandle::new(tokio::spawn(note(watch, keys, shared, store))))
}

async fn note(mut watch: WatchStream, keys: Keys, shared: Shared, _store: EtcdStore) -> Result<()> {
    while let Some(message) = watch.next().await {
        let WatchMessage::Events { events, .. } = message? else { continue };
        let now = Instant::now();
        for event in events {
            match event {
                WatchEvent::Put(kv) => {
                    if matches!(keys.read(&kv.key), Some(Key::Report(..))) && says_new(&kv) {
                        let bucket = ReportBucket::from_kv(&kv)?;
                        let mut times = times(&shared);
                        for report in bucket.units.iter().filter(|report| report.active == "active") {
                            if let Some(ordered) = times.started.remove(&report.unit) {
                                times.active.push((now - ordered).as_secs_f64());
                            }
                        }
                    }
                }
                WatchEvent::Delete { key, .. } => {
                    if let Some(Key::Unit(unit)) = keys.read(&key) {
                        let mut times = times(&shared);
                        if let Some(ordered) = times.destroyed.remove(&unit) {
                            times.gone.push((now - ordered).as_secs_f64());
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// Tells whether a report says something of a unit that was started: others are not worth reading.
fn says_new(kv: &KeyValue) -> bool {
    let prefix = TEMPLATES[1].trim_end_matches(".service");
    std::str::from_utf8(&kv.value).is_ok_and(|value| value.contains(prefix))
}

/// Returns what so many of them are at most; nothing of nothing.
fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).ceil() as usize).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let mut values: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut values, 0.5), 51.0);
        assert_eq!(percentile(&mut values, 0.99), 100.0);
        assert_eq!(percentile(&mut values, 1.0), 101.0);
        assert!(percentile(&mut [], 0.5).is_nan());
    }
}
