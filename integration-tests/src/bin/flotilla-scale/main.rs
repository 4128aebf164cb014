//! `flotilla-scale`: flotilla with thousands of machines on one computer, behind `cargo xtask bench scale`.
//!
//! Everything is real but the machines' systemd: one etcd with its data on disk and its default limits,
//! flotillad in the role of the engine, flotilla's own agent for each machine, gRPC between all of them. The
//! agents share processes, yet each has its own lease, watch, manifest and report, and a systemd in memory
//! (`flotilla_agent::systemd::fake`) whose starts take time. Every figure is one of *simulated agents on one
//! computer*, and says so.

mod agents;
mod ceiling;
mod chaos;
mod checker;
mod cluster;
mod control;
mod engine;
mod etcd;
mod fill;
mod http;
mod moves;
mod process;
mod samples;
mod scenario;
mod seen;
mod steady;
mod table;
mod workload;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use mimalloc::MiMalloc;
use tokio::signal::unix::{SignalKind, signal};

use crate::{cluster::Cluster, samples::Samples, table::Table, workload::Kind};

/// As in flotillad, whose agents these are.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Measures whole clusters of simulated machines.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench scale", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// From submitted to everything reported active, and what a full cluster does
    Run(Options),
    /// What etcd alone writes on this computer
    Ceiling(ceiling::Options),
    /// Machines, for a run of which this is a part
    #[command(hide = true)]
    Agents(agents::Options),
}

/// What may happen to a full cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Nobody asks anything
    Rest,
    /// One unit is listed, and all of them
    Lists,
    /// One machine is lost, then one of a hundred
    Loss,
    /// The leader is killed
    Failover,
    /// Units are started and others destroyed, a steady stream of them
    Stream,
    /// Machines die and return, leaders are killed, etcd is restarted
    Chaos,
}

/// What a run is to be.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// How many machines
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    machines: usize,
    /// How many units
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    units: usize,
    /// What the units ask for
    #[arg(long, value_enum, default_value_t = Kind::Plain)]
    kind: Kind,
    /// How many engines have a seat; the first leads
    #[arg(long, default_value_t = 1, value_name = "N")]
    engines: usize,
    /// How long a unit's start takes on its machine
    #[arg(long, default_value = "5", value_name = "MILLISECONDS", value_parser = milliseconds)]
    start_takes: Duration,
    /// How many machines share a process
    #[arg(long, default_value_t = 2_500, value_name = "N")]
    per_process: usize,
    /// How many machines share a connection to etcd: real ones have one each, which for 10,000 on one computer
    /// is 20,000 sockets
    #[arg(long, default_value_t = 100, value_name = "N")]
    per_connection: usize,
    /// What happens to the full cluster, one after the other
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT",
          default_values_t = [Scenario::Rest, Scenario::Lists, Scenario::Loss, Scenario::Failover])]
    then: Vec<Scenario>,
    /// How long the full cluster is watched at rest
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    rest: u64,
    /// How long there is chaos
    #[arg(long, default_value_t = 180, value_name = "SECONDS")]
    chaos: u64,
    /// What chance in the chaos is drawn from
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// How long the steady stream is
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    stream: u64,
    /// How many units it starts, and how many it destroys, in a second
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    rate: u64,
    /// The directory with flotillad and flotctl, optimised
    #[arg(long, default_value = "target/release", value_name = "DIR")]
    programs: PathBuf,
    /// The etcd to start
    #[arg(long, default_value = "target/lab/etcd/usr/bin/etcd", value_name = "FILE")]
    etcd: PathBuf,
    /// Where etcd keeps its data, on a disk; removed at the end
    #[arg(long, default_value = "target/scale", value_name = "DIR")]
    directory: PathBuf,
    /// Add what was measured to the end of this file, a JSON object a line (`samples.rs` has the fields)
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// Fail if a goal is missed, and name its row
    #[arg(long)]
    check: bool,
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_millis).map_err(|_| format!("`{text}` is not a number of milliseconds"))
}

fn main() -> ExitCode {
    let done = match Arguments::parse().what {
        What::Run(options) => run(&options),
        What::Ceiling(options) => ceiling::run(&options).map(|()| true),
        What::Agents(options) => agents::run(&options).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all goals that are to be checked were met.
fn run(options: &Options) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let table = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Ended in order, so that no etcd and no engine is left behind.
        tokio::select! {
            table = measure(options) => table,
            _ = terminate.recv() => bail!("SIGTERM"),
            _ = interrupt.recv() => bail!("SIGINT"),
        }
    });
    let table = table.context("the run was given up")?;
    print!("{table}");
    for row in table.missed() {
        eprintln!("missed: {row}");
    }
    Ok(!options.check || table.missed().is_empty())
}

async fn measure(options: &Options) -> Result<Table> {
    let mut samples = Samples::begin(options.samples.as_deref(), options)?;
    let mut table = Table::new(format!(
        "simulated agents, one computer: {} machines, {} units, {}",
        options.machines,
        options.units,
        format!("{:?}", options.kind).to_lowercase()
    ));
    let mut cluster = Cluster::start(options).await?;
    let measured = scenarios(&mut cluster, options, &mut table, &mut samples).await;
    for row in table.rows() {
        samples.write("result", row)?;
    }
    if let Err(error) = &measured {
        // What was measured until then is worth having.
        samples.failed(format!("{error:#}"))?;
        print!("{table}");
    }
    measured?;
    say(format_args!("logs are in {}", cluster.folder().display()));
    Ok(table)
}

async fn scenarios(
    cluster: &mut Cluster,
    options: &Options,
    table: &mut Table,
    samples: &mut Samples,
) -> Result<()> {
    fill::fill(cluster, options, table, samples).await?;
    fill::memory(cluster, options, table)?;
    for scenario in &options.then {
        match scenario {
            Scenario::Rest => fill::rest(cluster, options, table, samples).await?,
            Scenario::Lists => scenario::lists(cluster, options, table)?,
            Scenario::Loss => {
                scenario::loss(cluster, options, 1, table).await?;
                if options.machines / 100 > 1 {
                    scenario::loss(cluster, options, options.machines / 100, table).await?;
                }
            }
            Scenario::Failover => scenario::failover(cluster, options, table).await?,
            Scenario::Stream => steady::steady(cluster, options, table).await?,
            Scenario::Chaos => chaos::chaos(cluster, options, table).await?,
        }
    }
    Ok(())
}

/// Says what is going on, to whoever waits.
fn say(text: impl std::fmt::Display) {
    eprintln!("scale: {text}");
}
