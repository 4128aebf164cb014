//! `flotilla-bench`: what flotilla costs beside systemd alone, behind `cargo xtask bench`.
//!
//! Owns the measurements on real parts: a cluster in a lab of its own, brought up for each
//! benchmark and taken down after it. Every figure stands beside its baseline of the same run on
//! the same machines, since absolute ones say more about the computer than about flotilla.

mod destroy;
mod drive;
mod idle;
mod journal;
mod probe;
mod start;
mod table;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use flotilla_figures::{
    facts::Facts,
    line::{Recorder, Run},
};
use flotilla_integration_tests::lab;
use flotilla_lab::{Installation, Lab, Machine};

/// The template that flotilla's units are instances of: a service that does nothing.
const UNIT: &str = "[Service]\nExecStart=/bin/sleep infinity\n";

/// Measures flotilla in the lab.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", version)]
struct Arguments {
    /// What to measure
    #[arg(required = true, value_enum)]
    benchmarks: Vec<Benchmark>,
    /// The directory with flotillad and flotctl, optimised
    #[arg(long, default_value = "target/release", value_name = "DIR")]
    programs: PathBuf,
    /// The directory with flotilla's service files
    #[arg(long, default_value = "dist", value_name = "DIR")]
    services: PathBuf,
    /// The etcd that the lab runs, whose version the samples name
    #[arg(long, default_value = "target/lab/etcd/usr/bin/etcd", value_name = "FILE")]
    etcd: PathBuf,
    /// Add what was measured to the end of this file, a JSON object a line
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// Fail if a goal is missed, and name its row
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Benchmark {
    /// From `flotctl start` to active, and units per second
    Start,
    /// What a cluster with nothing to do writes and uses
    Idle,
    /// How late the lines of a followed journal are
    Journal,
    /// How long it takes until running units are gone
    Destroy,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut missed = Vec::new();
    for benchmark in &arguments.benchmarks {
        let name = format!("{benchmark:?}").to_lowercase();
        let about = Run { bench: name, facts: Facts::gather(Some(&arguments.etcd)), ..Run::default() };
        let mut recorder = Recorder::begin(arguments.samples.as_deref(), &about)?;
        let lab = lab("bench")?;
        lab.make_cluster(&Installation::new(&arguments.programs, &arguments.services))?;
        let table = match benchmark {
            Benchmark::Start => start::measure(&lab)?,
            Benchmark::Idle => idle::measure(&lab)?,
            Benchmark::Journal => journal::measure(&lab)?,
            Benchmark::Destroy => destroy::measure(&lab)?,
        };
        print!("{table}");
        for figure in table.figures() {
            recorder.write("result", figure)?;
        }
        missed.extend(table.missed());
    }
    for row in &missed {
        eprintln!("missed: {row}");
    }
    Ok(if table::fails(arguments.check, &missed) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Gives the template to the cluster as `bench@.service`, and to every machine's own systemd as
/// `plain@.service`.
fn submit(lab: &Lab) -> Result<&Machine> {
    for machine in lab.machines() {
        machine.write_file("/etc/systemd/system/plain@.service", UNIT)?;
        machine.run(&["systemctl", "daemon-reload"])?;
    }
    let first = lab.machine("m1")?;
    first.write_file("/root/bench@.service", UNIT)?;
    first.run(&["flotctl", "submit", "/root/bench@.service"])?;
    Ok(first)
}

/// Says what is going on, to whoever waits.
fn say(text: &str) {
    eprintln!("bench: {text}");
}

/// Runs a line of the machine's shell for as long as it takes; gives what it printed.
fn shell(machine: &Machine, line: &str) -> Result<String> {
    let output = machine.command(&["bash", "-c", line])?.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{line:?} in {}: {}: {said}", machine.name(), output.status);
    String::from_utf8(output.stdout).context("what a command printed is not text")
}
