//! `cargo xtask bench report`: the page of figures, from the samples that are kept; with `--run` measured anew first.
//!
//! Runs the other benchmarks as a person would, one after the other, and has `flotilla-figures` keep what each gave
//! before the next begins: a series that is ended loses nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::placement;
use crate::{
    deps,
    image::Image,
    process::{cargo, is_root, run, say},
    workspace,
};

const USAGE: &str = "\
usage: cargo xtask bench report [--take FILE..] | [--run [--only PART,..] [--sizes N,..] [--runs N] [--quick]]

Makes docs/performance.md and its pictures from docs/performance/samples.
  --take FILE..  first adds the runs of samples files that benchmarks wrote with --samples
  --run          first measures, in this order, keeping each run as it ends; commit what you measure before, so that
                 its commit is known, and have nothing else run meanwhile
  --only PART,.. of these parts alone: placement (1 min, the core alone), etcd (what it writes alone), scale (clusters
                 of several sizes with 100 units a machine), stream (5,000 machines, 1,000 units/s), chaos (1,000
                 machines), start (as root: three real machines)
  --sizes N,..   the numbers of machines of `scale` (10,100,1000,10000; a run takes 2 minutes up to 1,000 machines,
                 a quarter of an hour at 10,000)
  --runs N       how often each is run (3); placement and start repeat within a run
  --quick        placement, etcd, and scale with 10 and 100 machines, once
";

/// The parts of the series, in the order in which they are run.
const PARTS: [&str; 6] = ["placement", "etcd", "scale", "stream", "chaos", "start"];

/// How many units there are for each machine.
const EACH: u64 = 100;

/// What happens to each full cluster of the series, beside what a run does anyway. The stream is of few units a
/// second, so that each one's latency is its own.
const THEN: [&str; 6] = ["--then", "rest,lists,loss,failover,stream", "--rate", "20", "--stream", "10"];

/// The goal's stream: 1,000 units a second for a minute.
const STREAM: [&str; 6] = ["--machines", "5000", "--units", "500000", "--then", "stream"];

/// The goal's chaos, of three minutes.
const CHAOS: [&str; 6] = ["--machines", "1000", "--units", "50000", "--then", "chaos"];

/// What is to be measured.
#[derive(Debug, PartialEq, Eq)]
struct Series {
    parts: Vec<String>,
    sizes: Vec<u64>,
    runs: u32,
}

/// What the user asked for.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Help,
    Page { take: Vec<PathBuf> },
    Run(Series),
}

/// The command as the user calls it.
pub fn main(arguments: &[String]) -> Result<()> {
    let request = parse(arguments)?;
    let failed = match &request {
        Request::Help => {
            print!("{USAGE}");
            return Ok(());
        }
        Request::Page { take } => {
            let mut command = figures()?;
            if !take.is_empty() {
                run(command.arg("take").args(take))?;
            }
            Vec::new()
        }
        Request::Run(series) => measure(series)?,
    };
    page()?;
    say("docs/performance.md and docs/performance are made; look at them and commit them with the samples");
    if !failed.is_empty() {
        bail!("did not come to their end, as the page says too: {}", failed.join(", "));
    }
    Ok(())
}

/// Makes the page from what is kept.
pub fn page() -> Result<()> {
    run(figures()?.arg("page"))
}

fn parse(arguments: &[String]) -> Result<Request> {
    let mut series =
        Series { parts: PARTS.map(str::to_owned).to_vec(), sizes: vec![10, 100, 1_000, 10_000], runs: 3 };
    let (mut runs, mut chosen, mut take) = (false, false, Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} wants a value\n{USAGE}"));
        match word.as_str() {
            "--help" | "-h" => return Ok(Request::Help),
            "--run" => runs = true,
            "--take" => {
                take = words.by_ref().map(PathBuf::from).collect();
                if take.is_empty() {
                    bail!("--take wants files\n{USAGE}");
                }
                continue;
            }
            "--only" => series.parts = value()?.split(',').map(str::to_owned).collect(),
            "--sizes" => {
                let sizes = value()?.split(',').map(str::parse).collect::<Result<_, _>>();
                series.sizes = sizes.context("--sizes wants numbers of machines")?;
            }
            "--runs" => series.runs = value()?.parse().context("--runs wants a number")?,
            "--quick" => {
                series.parts = PARTS[..3].iter().map(|part| (*part).to_owned()).collect();
                (series.sizes, series.runs) = (vec![10, 100], 1);
            }
            other => bail!("unknown argument {other:?}\n{USAGE}"),
        }
        chosen |= word != "--run";
    }
    if let Some(unknown) = series.parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        bail!("no part {unknown:?}; there are: {}", PARTS.join(", "));
    }
    match (runs, take.is_empty()) {
        (true, true) => Ok(Request::Run(series)),
        (false, _) if !chosen => Ok(Request::Page { take }),
        _ => bail!("--take measures nothing, and the other options say what --run measures\n{USAGE}"),
    }
}

/// One run of the series: what it is called, and what it runs.
struct Step {
    name: String,
    command: Command,
    samples: PathBuf,
}

/// Measures, and keeps what was measured; returns what did not come to its end.
fn measure(series: &Series) -> Result<Vec<String>> {
    let steps = steps(series)?;
    let count = steps.len();
    let mut failed = Vec::new();
    for (number, mut step) in steps.into_iter().enumerate() {
        say(&format!("[{}/{count}] {}", number + 1, step.name));
        let ended = run(&mut step.command);
        // What was measured until then counts, and that it did not end.
        if step.samples.is_file() {
            run(figures()?.arg("take").arg(&step.samples))?;
        }
        if let Err(error) = ended {
            eprintln!("{}: {error:#}", step.name);
            failed.push(step.name);
        }
    }
    Ok(failed)
}

/// Builds what the series needs, and says what is to be run.
fn steps(series: &Series) -> Result<Vec<Step>> {
    let folder = workspace::target().join("figures");
    fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    let has = |part: &str| series.parts.iter().any(|chosen| chosen == part);
    if has("start") && !is_root() {
        bail!("`start` boots machines in the lab: run as root, or name the other parts with --only");
    }
    let mut steps = Vec::new();
    let mut add = |name: String, mut command: Command| -> Result<()> {
        let samples = folder.join(format!("{}-{}.jsonl", steps.len(), name.replace(' ', "-")));
        if samples.exists() {
            fs::remove_file(&samples)?;
        }
        command.arg("--samples").arg(&samples);
        steps.push(Step { name, command, samples });
        Ok(())
    };
    if has("placement") {
        let program = placement::build()?;
        let mut command = Command::new(program);
        command.arg("table");
        add("placement".into(), command)?;
    }
    let whole = ["etcd", "scale", "stream", "chaos"].iter().any(|part| has(part));
    let release = if whole { super::build_scale()? } else { PathBuf::new() };
    if has("etcd") {
        let mut command = Command::new(release.join("flotilla-scale"));
        command.arg("ceiling").arg("--etcd").arg(workspace::etcd());
        command.arg("--directory").arg(workspace::target().join("scale"));
        add("etcd".into(), command)?;
    }
    for run in 1..=series.runs {
        for machines in series.sizes.iter().filter(|_| has("scale")) {
            let mut command = super::scale_command(&release);
            command.args(["--machines", &machines.to_string(), "--units", &(machines * EACH).to_string()]);
            command.args(THEN);
            add(format!("scale {machines} run {run}"), command)?;
        }
    }
    for run in 1..=series.runs {
        for (part, arguments) in [("stream", STREAM), ("chaos", CHAOS)] {
            if has(part) {
                let mut command = super::scale_command(&release);
                command.args(arguments);
                add(format!("{part} run {run}"), command)?;
            }
        }
    }
    if has("start") {
        deps::lab(Image::Plain)?;
        let mut command = super::lab_command(&super::build_lab()?);
        command.arg("start");
        add("start".into(), command)?;
    }
    Ok(steps)
}

/// The program that keeps samples and makes the page: built with the standard library's help and little else.
fn figures() -> Result<Command> {
    static BUILT: std::sync::OnceLock<()> = std::sync::OnceLock::new();
    if BUILT.get().is_none() {
        run(cargo().args(["build", "--locked", "-p", "flotilla-figures"]))?;
        BUILT.get_or_init(|| ());
    }
    Ok(Command::new(workspace::target().join(Path::new("debug/flotilla-figures"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn without_anything_the_page_is_made_from_what_is_kept() {
        assert_eq!(parse(&[]).unwrap(), Request::Page { take: Vec::new() });
        assert_eq!(
            parse(&words("--take a b")).unwrap(),
            Request::Page { take: vec!["a".into(), "b".into()] }
        );
    }

    #[test]
    fn a_series_can_be_chosen() {
        let Request::Run(all) = parse(&words("--run")).unwrap() else { panic!("a series") };
        assert_eq!((all.parts.len(), all.sizes.as_slice(), all.runs), (6, &[10, 100, 1_000, 10_000][..], 3));
        let some = parse(&words("--run --only scale,chaos --sizes 10,1000 --runs 1")).unwrap();
        assert_eq!(
            some,
            Request::Run(Series { parts: words("scale chaos"), sizes: vec![10, 1_000], runs: 1 })
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in ["--run --only all", "--sizes 10", "--run --take a", "--take", "--runs", "page"] {
            assert!(parse(&words(bad)).is_err(), "{bad}");
        }
    }
}
