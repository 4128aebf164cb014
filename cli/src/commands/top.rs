//! `flotctl top`: what units take of their machines, as it goes on.
//!
//! Each machine is asked for a stream of readings, and reads only while that is open. `board` makes
//! rows of two readings of each, `screen` shows them on a terminal; without one they are printed.

use std::{
    collections::BTreeSet,
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use flotilla_api::{
    client::Client,
    machine::{Machine, MachineState},
    usage::{INTERVAL_MAX, INTERVAL_MIN, INTERVAL_USUAL, Usage, UsageQuery},
};
use flotilla_units::{Glob, MachineId};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use super::all_pages;
use crate::{
    args::Output,
    connection::Cluster,
    exit::{Exit, Failure},
    machines, print,
    selector::{is_glob, mangle},
};

mod board;
mod screen;

use board::{Board, Key, Snapshot, View};

/// The most machines that are watched at once; each is a connection of this program and of whoever forwards.
const MACHINES_MAX: usize = 256;

/// How long to wait before a machine is asked again whose stream ended.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// How much longer than two readings the first answer of every machine is waited for, when it is printed once.
const LATE: Duration = Duration::from_secs(3);

/// Readings that wait to be taken in.
const QUEUE: usize = 64;

/// Shows what units take of their machines, as it goes on.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Processor time is said in per cent of one processor. What a machine's kernel does not count is shown \
as `-`. Keys: c m t i n h sort by processor, memory, tasks, disk, name, machine; / filters by name; v turns to machines and \
back; arrows and page keys move; q ends."
)]
pub(crate) struct Args {
    /// Only these units: globs
    #[arg(value_name = "PATTERN", add = crate::complete::units())]
    patterns: Vec<String>,

    /// Show machines instead of units
    #[arg(long, short)]
    machines: bool,

    /// Only units on this machine (can be repeated)
    #[arg(long, value_name = "MACHINE", add = crate::complete::machines())]
    machine: Vec<String>,

    /// What to sort by
    #[arg(long, value_enum, default_value_t)]
    sort: Key,

    /// Seconds between two readings
    #[arg(long, short = 'd', value_name = "SECONDS", default_value_t = INTERVAL_USUAL,
        value_parser = clap::value_parser!(u32).range(i64::from(INTERVAL_MIN)..=i64::from(INTERVAL_MAX)))]
    interval: u32,

    /// Print instead of taking the terminal; so it is also where the output is none
    #[arg(long, short)]
    batch: bool,

    /// How many times to print [default: 1]
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    number: Option<u32>,
}

/// What a machine's stream says.
enum Heard {
    Reading(Box<Usage>),
    /// It ended, with why.
    Lost(MachineId, String),
}

/// Runs the command.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<()> {
    let patterns: Vec<Glob> = args.patterns.iter().map(|pattern| glob(pattern)).collect::<Result<_, _>>()?;
    let machines = watched(cluster, &args.machine).await?;
    let view = View { machines: args.machines, sort: args.sort, patterns, ..View::default() };
    let (sender, heard) = mpsc::channel(QUEUE);
    let mut streams = JoinSet::new();
    for machine in &machines {
        let (client, query) = (cluster.client().clone(), UsageQuery { interval: Some(args.interval) });
        streams.spawn(follow(client, machine.id, query, sender.clone()));
    }
    drop(sender);
    let mut board = Board::of(machines.iter().map(|machine| (machine.id, machine.host.clone())));
    if args.batch || args.number.is_some() || output == Output::Json || !std::io::stdout().is_terminal() {
        return print_all(&mut board, heard, &view, args, output).await;
    }
    screen::run(board, heard, view).await
}

fn glob(text: &str) -> anyhow::Result<Glob> {
    // A name is that unit and no pattern: of those that systemd escaped, the backslash is a part.
    let pattern = if is_glob(text) { text.to_owned() } else { Glob::escape(&mangle(text)) };
    pattern.parse().map_err(|e| Failure::error(Exit::Usage, format!("{e}")))
}

/// Finds the machines to watch.
async fn watched(cluster: &Cluster, named: &[String]) -> anyhow::Result<Vec<Machine>> {
    let mut machines: Vec<Machine> = Vec::new();
    for name in named {
        let machine = machines::find(cluster, name).await?;
        if machine.state != MachineState::Alive {
            let message = format!("{name} is {}: nobody answers there", machine.state);
            return Err(Failure::error(Exit::Unreachable, message));
        }
        if machines.iter().all(|other| other.id != machine.id) {
            machines.push(machine);
        }
    }
    if named.is_empty() {
        machines = all_pages(cluster, &[], async |client, query| client.machines(query).await).await?;
        machines.retain(|machine| machine.state == MachineState::Alive);
    }
    if machines.len() > MACHINES_MAX {
        let message = format!(
            "{} machines are more than the {MACHINES_MAX} that can be watched at once; choose with --machine",
            machines.len()
        );
        return Err(Failure::error(Exit::Usage, message));
    }
    Ok(machines)
}

/// Follows one machine for as long as somebody takes what it says.
async fn follow(client: Client, machine: MachineId, query: UsageQuery, to: mpsc::Sender<Heard>) {
    loop {
        let why = match client.machine_usage(&machine.to_string(), &query).await {
            Err(e) => e.to_string(),
            Ok(mut stream) => loop {
                match stream.next().await {
                    Ok(Some(usage)) => {
                        if to.send(Heard::Reading(Box::new(usage.data))).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => break "it stopped telling".to_owned(),
                    Err(e) => break e.to_string(),
                }
            },
        };
        if to.send(Heard::Lost(machine, why)).await.is_err() {
            return;
        }
        sleep(AGAIN_AFTER).await;
    }
}

/// Prints as often as was asked for, each time when every machine has been heard anew.
async fn print_all(
    board: &mut Board,
    mut heard: mpsc::Receiver<Heard>,
    view: &View,
    args: &Args,
    output: Output,
) -> anyhow::Result<()> {
    let interval = Duration::from_secs(args.interval.into());
    for round in 0..args.number.unwrap_or(1) {
        if round > 0 && output != Output::Json {
            print::line("")?;
        }
        let mut missing: BTreeSet<MachineId> = board.machines().collect();
        let all = async {
            while !missing.is_empty() {
                match heard.recv().await {
                    Some(Heard::Reading(usage)) => {
                        let machine = usage.machine;
                        // The first of a machine says nothing of what goes on.
                        if board.take(*usage) {
                            missing.remove(&machine);
                        }
                    }
                    Some(Heard::Lost(machine, why)) => {
                        missing.remove(&machine);
                        board.lose(machine, why);
                    }
                    None => break,
                }
            }
        };
        // One that does not answer hides none of the others.
        let _late = tokio::time::timeout(interval * 2 + LATE, all).await;
        let snapshot = board.snapshot(view);
        match output {
            Output::Json => print::json_line(&snapshot)?,
            _ => write_table(&snapshot, view)?,
        }
        for (host, why) in board.lost() {
            print::tell(format_args!("{host}: {}", crate::text::one_line(why)));
        }
    }
    Ok(())
}

fn write_table(snapshot: &Snapshot, view: &View) -> anyhow::Result<()> {
    let (head, rows) = snapshot.cells(view);
    let widths: Vec<usize> = (0..head.len())
        .map(|at| rows.iter().map(|row| row[at].chars().count()).chain([head[at].len()]).max().unwrap_or(0))
        .collect();
    let mut out = print::out();
    for row in std::iter::once(head.iter().map(|&head| head.to_owned()).collect::<Vec<_>>()).chain(rows) {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match board::is_text(at, view) {
                true => line.push_str(&format!("{cell:<width$}  ")),
                false => line.push_str(&format!("{cell:>width$}  ")),
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(out.flush()?)
}
