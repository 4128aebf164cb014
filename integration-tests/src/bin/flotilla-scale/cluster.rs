//! A whole cluster: one etcd, engines, and machines.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use flotilla_registry::{
    keys::{Bucket, Keys},
    operations::Operations,
    reads::Registry,
    store::etcd::{EtcdConfig, EtcdStore},
    timing::Timing,
};
use flotilla_units::MachineId;
use tokio::time::{Instant, sleep};

use crate::{
    Options,
    checker::{self, Checked},
    control::Fleet,
    engine::Engine,
    etcd::Etcd,
    process::Usage,
    samples::Sample,
    say,
};

/// How long nothing may be written for everything to have been: longer than what an agent or the leader puts
/// off (100 ms, a second for news of failures, five until a unit that is gone is forgotten).
const QUIET: Duration = Duration::from_secs(6);

/// How long it may take until nobody writes any more. A machine of a large cluster that booted again waits for
/// its own old lease of 30 s.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);

/// A whole cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    // Dropped in this order: those that use etcd before etcd.
    pub(crate) fleet: Fleet,
    pub(crate) engines: Vec<Engine>,
    pub(crate) etcd: Etcd,
    folder: Folder,
}

/// Where etcd's data and everybody's logs are; the data goes with the run.
#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is below target.
        let _ = fs::remove_dir_all(self.0.join("etcd"));
    }
}

impl Cluster {
    /// Starts everything, and waits until every machine has registered.
    pub(crate) async fn start(options: &Options) -> Result<Self> {
        let folder = options.directory.join(format!("run-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        let folder = Folder(fs::canonicalize(folder)?);
        let etcd = Etcd::start(&options.etcd, &folder.0).await?;
        let mut engines = Vec::new();
        for number in 0..options.engines.max(1) {
            engines.push(Engine::start(number, &options.programs, &etcd.url(), &folder.0).await?);
        }
        say(format_args!("etcd and {} engine(s) are up; logs are in {}", engines.len(), folder.0.display()));
        let fleet = Fleet::start(options, &etcd.url(), &folder.0).await?;
        Ok(Self { fleet, engines, etcd, folder })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder.0
    }

    pub(crate) fn operations(&self) -> Result<Operations> {
        let endpoints = vec![self.etcd.url()];
        let store = EtcdStore::connect(EtcdConfig { endpoints, ..EtcdConfig::default() })?;
        Ok(Operations::new(Registry::new(Arc::new(store), Keys::default()), Timing::default()))
    }

    pub(crate) fn sample(&self, phase: &'static str, since: Instant, active: usize) -> Result<Sample> {
        let mut engine = Usage::default();
        for one in &self.engines {
            let usage = one.usage()?;
            engine.cpu += usage.cpu;
            engine.memory = engine.memory.max(usage.memory);
        }
        let (etcd, agents, work) = (self.etcd.usage()?, self.fleet.usage()?, self.etcd.work()?);
        let mib = f64::from(1 << 20);
        Ok(Sample {
            phase,
            at: since.elapsed().as_secs_f64(),
            active,
            engine_cpu: engine.cpu,
            engine_memory: engine.memory,
            etcd_cpu: etcd.cpu,
            etcd_memory: etcd.memory,
            etcd_size: work.size / mib,
            etcd_in_use: work.in_use / mib,
            etcd_puts: work.puts,
            etcd_ranges: work.ranges,
            etcd_fsyncs: work.fsyncs,
            agents_cpu: agents.cpu,
            agents_memory: agents.memory,
        })
    }

    /// Returns the buckets of these machines' manifests that have entries.
    pub(crate) async fn buckets_of(
        &self,
        ids: &BTreeSet<MachineId>,
    ) -> Result<BTreeSet<(MachineId, Bucket)>> {
        let operations = self.operations()?;
        let mut buckets = BTreeSet::new();
        for id in ids {
            let manifest = operations.registry().manifest(*id).await?;
            let filled = manifest.found.into_iter().filter(|(_, stored)| !stored.record.entries.is_empty());
            buckets.extend(filled.map(|(bucket, _)| (*id, bucket)));
        }
        Ok(buckets)
    }

    /// Returns how many units are active, as the first engine that has a seat knows it; `None` while none has.
    pub(crate) fn active(&self) -> Option<usize> {
        // One that is just starting does not answer.
        let mut views = self.engines.iter().filter_map(|engine| engine.view().ok().flatten());
        views.next().map(|view| view.active)
    }

    /// Returns the place of the engine that leads.
    pub(crate) fn leader(&self) -> Result<usize> {
        for (place, engine) in self.engines.iter().enumerate() {
            if engine.view().ok().flatten().is_some_and(|view| view.leads) {
                return Ok(place);
            }
        }
        bail!("no engine leads")
    }

    /// Starts one more engine and waits until it has a seat.
    pub(crate) async fn add_engine(&mut self, options: &Options) -> Result<()> {
        let number = self.engines.iter().map(Engine::number).max().map_or(0, |number| number + 1);
        self.engines.push(Engine::start(number, &options.programs, &self.etcd.url(), &self.folder.0).await?);
        Ok(())
    }

    /// Kills the engine at a place and starts it again, without waiting for it.
    pub(crate) fn restart_engine(&mut self, place: usize, options: &Options) -> Result<()> {
        let mut engine = self.engines.remove(place);
        engine.kill()?;
        self.engines.push(Engine::spawn(
            engine.number(),
            &options.programs,
            &self.etcd.url(),
            &self.folder.0,
        )?);
        Ok(())
    }

    /// Waits until all machines are registered and nobody writes any more.
    pub(crate) async fn settle(&mut self, options: &Options) -> Result<()> {
        let end = Instant::now() + SETTLE_LIMIT;
        while self.fleet.count()?.registered < options.machines {
            ensure!(Instant::now() < end, "a machine that booted again does not register");
            sleep(Duration::from_millis(200)).await;
        }
        self.quiet().await
    }

    /// Waits until nobody writes any more.
    pub(crate) async fn quiet(&self) -> Result<()> {
        let end = Instant::now() + SETTLE_LIMIT;
        let mut last = (self.etcd.work()?.puts, Instant::now());
        while last.1.elapsed() < QUIET {
            ensure!(Instant::now() < end, "the store is written to and no end");
            sleep(Duration::from_millis(100)).await;
            let puts = self.etcd.work()?.puts;
            if puts != last.0 {
                last = (puts, Instant::now());
            }
        }
        Ok(())
    }

    /// Waits until everything has been written, and checks all of it.
    pub(crate) async fn check(&mut self, options: &Options, after: &str) -> Result<Checked> {
        self.settle(options).await?;
        let url = self.etcd.url();
        let checked =
            checker::check(&mut self.fleet, &url, options.kind, options.machines, options.units).await;
        let checked = checked.with_context(|| format!("the check after {after}"))?;
        say(format_args!(
            "checked after {after}: {} units on {} machines, each once",
            checked.units, checked.machines
        ));
        Ok(checked)
    }
}
