//! Measures the placement core alone: `cargo xtask bench placement` and `cargo xtask bench counts` run it.
//!
//! Owns what is measured, how often, and which goals it is held against; the workloads are shared with the Criterion
//! benchmark. Each row is measured by a process of its own, so that none inherits another's heap. It never touches
//! a store or a network, and uses one thread.

mod count;
mod figures;
mod goals;
mod row;
mod samples;
mod table;
#[path = "../../benches/workloads.rs"]
mod workloads;

use std::process::ExitCode;

use workloads::Failed;

const USAGE: &str = "\
usage: placement_bench table [--check] [--samples FILE] [--only TEXT]
       placement_bench count SCENARIO | --list

table prints what the placement core does from empty and on a full cluster, with the goals, their ratios, and how
the cost grows with the cluster.
  --check         ends with 1 and names each row that misses its goal
  --samples FILE  adds every sample and figure to the end of FILE as lines of JSON; examples/placement_bench/samples.rs
                  and figures/src/line.rs document the fields
  --only TEXT     only rows whose name (`conflicts 1000x10000`) has this text in it
count carries one scenario out once, for `cargo xtask bench counts`, which counts its instructions.
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("placement_bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(words: &[String]) -> Result<ExitCode, Failed> {
    let (command, rest) = words.split_first().map_or(("help", &[][..]), |(first, rest)| (first, rest));
    match command {
        "table" => return table::run(table::Request::parse(rest)?),
        row::COMMAND => row::run(rest)?,
        "count" => count::run(rest)?,
        "help" | "--help" | "-h" => print!("{USAGE}"),
        other => return Err(format!("unknown command {other:?}\n{USAGE}").into()),
    }
    Ok(ExitCode::SUCCESS)
}
