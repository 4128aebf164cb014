//! What etcd alone writes on this computer, for whoever asks how much of it a run used.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use flotilla_figures::{
    facts::Facts,
    line::{Figure, Recorder, Run},
    what,
};
use flotilla_registry::store::{
    Operation, Store as _, Txn,
    etcd::{EtcdConfig, EtcdStore},
};
use tokio::{task::JoinSet, time::Instant};

use crate::{etcd::Etcd, say};

/// How many write at once: more than the leader and enough agents for etcd to sync its log for many together.
const WRITERS: usize = 64;

/// How many keys are in a transaction, as when a machine reports a hundred units: its buckets and the head.
const KEYS: usize = 17;

/// How large each is, in bytes: some six reports.
const VALUE: usize = 2_048;

/// How many keys each writer has in all, so that the database does not grow while it is measured.
const SETS: usize = 32;

/// How often it is measured; the median counts.
const ROUNDS: usize = 3;

/// What is to be measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The etcd to start
    #[arg(long, default_value = "target/lab/etcd/usr/bin/etcd", value_name = "FILE")]
    etcd: PathBuf,
    /// Where it keeps its data, on a disk; removed at the end
    #[arg(long, default_value = "target/scale", value_name = "DIR")]
    directory: PathBuf,
    /// How long each of three rounds is
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    seconds: u64,
    /// Add what was measured to the end of this file, a JSON object a line
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
}

/// Measures, prints and records it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let about = Run { bench: "etcd".to_owned(), facts: Facts::gather(Some(&options.etcd)), ..Run::default() };
    let mut recorder = Recorder::begin(options.samples.as_deref(), &about).context("the file of samples")?;
    let folder = options.directory.join(format!("ceiling-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let rates = runtime.block_on(async {
        let etcd = Etcd::start(&options.etcd, &folder).await?;
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            rates.push(round(&etcd, Duration::from_secs(options.seconds)).await?);
        }
        anyhow::Ok(rates)
    });
    // What cannot be removed is below target.
    let _ = fs::remove_dir_all(&folder);
    let mut rates = rates?;
    rates.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (rates.first(), rates.last()) else { return Ok(()) };
    let median = rates[rates.len() / 2];
    println!("{}: {median:.0}/s ({least:.0} to {most:.0})", what::ETCD_CEILING);
    recorder.write(
        "result",
        &Figure {
            what: what::ETCD_CEILING.to_owned(),
            value: median,
            unit: "/s".to_owned(),
            least: Some(*least),
            most: Some(*most),
            runs: Some(rates.len() as u64),
            ..Figure::default()
        },
    )?;
    Ok(())
}

/// Keys a second, of one round.
async fn round(etcd: &Etcd, lasts: Duration) -> Result<f64> {
    let config = EtcdConfig { endpoints: vec![etcd.url()], ..EtcdConfig::default() };
    let store = Arc::new(EtcdStore::connect(config)?);
    let since = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let mut written = 0;
            while since.elapsed() < lasts {
                let set = written / KEYS % SETS;
                let put = |key| Operation::Put {
                    key: format!("/ceiling/{writer}/{set}/{key}"),
                    value: vec![b'x'; VALUE],
                    lease: None,
                };
                let txn = Txn { then: (0..KEYS).map(put).collect(), ..Txn::default() };
                ensure!(store.txn(txn).await?.succeeded, "etcd refused a transaction without conditions");
                written += KEYS;
            }
            Ok(written)
        });
    }
    let mut written = 0;
    while let Some(done) = writers.join_next().await {
        written += done.context("a writer")??;
    }
    let rate = written as f64 / since.elapsed().as_secs_f64();
    say(format_args!("{rate:.0} keys a second by etcd alone"));
    Ok(rate)
}
