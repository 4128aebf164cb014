//! `cargo xtask bench placement` and `cargo xtask bench counts`: the placement core alone.
//!
//! Builds `placement_bench` of the engine and has it measure, or has valgrind count its instructions. Counts do not
//! depend on what else the computer does, so they are kept in the repository and a change that needs more is told.
//! Neither needs root, a lab or a store.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, bail};

use crate::{
    deps,
    process::{capture, cargo, run, say},
    workspace,
};

/// How many per cent more instructions than the baseline are a regression. Between two runs of one program they differ
/// by less than a thousandth.
const TOLERANCE_PERCENT: u64 = 5;

/// Likewise if another Rust made the baseline. Compilers order and inline otherwise, which makes some hundredths; a
/// quarter more is none of a compiler's making.
const OTHER_RUST_PERCENT: u64 = 25;

/// What the line of the baseline begins with that names the compiler.
const MADE_WITH: &str = "# made with ";

/// The function that callgrind counts in: `counted` of the engine's `placement_bench`, of whatever type.
const COUNTED: &str = "*placement_bench*counted*";

/// What the baseline file begins with.
const HEAD: &str = "\
# Instructions of the placement core, one scenario a line: `cargo xtask bench counts --check` compares with them, and
# `cargo xtask bench counts --update` writes them, for a commit that means to change them and says why.
";

/// Instructions by scenario.
type Counts = BTreeMap<String, u64>;

/// Builds the program and becomes it.
pub fn main(arguments: &[String]) -> Result<()> {
    let program = build()?;
    Err(Command::new(program).arg("table").args(arguments).exec()).context("starting placement_bench")
}

/// Counts instructions; compares them with the baseline, or writes it.
pub fn counts(arguments: &[String]) -> Result<()> {
    let (mut check, mut update) = (false, false);
    for argument in arguments {
        match argument.as_str() {
            "--check" => check = true,
            "--update" => update = true,
            other => bail!("unknown argument {other:?}; expected --check or --update"),
        }
    }
    let baseline = workspace::root().join("engine/benches/placement.counts");
    deps::counting()?;
    let rust =
        capture(Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version"))?;
    let rust = rust.trim();
    let counted = count(&build_counted()?)?;
    if update {
        fs::write(&baseline, written(rust, &counted))
            .with_context(|| format!("writing {}", baseline.display()))?;
        say(&format!("wrote {}", baseline.display()));
        // Where a goal is missed, the page tells how many there are.
        return super::report::page();
    }
    let before = fs::read_to_string(&baseline).with_context(|| format!("reading {}", baseline.display()))?;
    let theirs =
        before.lines().find_map(|line| line.strip_prefix(MADE_WITH)).unwrap_or("an unknown Rust").to_owned();
    let before = read(&before).with_context(|| format!("reading {}", baseline.display()))?;
    let tolerance = if theirs == rust { TOLERANCE_PERCENT } else { OTHER_RUST_PERCENT };
    let Judgement { lines, worse } = judge(&before, &counted, tolerance);
    lines.iter().for_each(|line| println!("{line}"));
    if theirs != rust {
        say(&format!(
            "the baseline was made with {theirs}, and this is {rust}: compilers order and inline otherwise, so only what \
             needs {OTHER_RUST_PERCENT} % more is held against the change; `--update` with this one makes {TOLERANCE_PERCENT} % count"
        ));
    }
    for line in &worse {
        eprintln!("more than {tolerance} % off: {line}");
    }
    if check && !worse.is_empty() {
        bail!(
            "{} of {} counts are not those of the baseline; if that is meant, `cargo xtask bench counts --update`",
            worse.len(),
            counted.len()
        );
    }
    Ok(())
}

/// Builds the program that measures, as it is optimised for what ships.
pub fn build() -> Result<PathBuf> {
    deps::build()?;
    let of = ["-p", "flotilla-engine", "--example", "placement_bench"];
    run(cargo().args(["build", "--release", "--locked"]).args(of))?;
    Ok(workspace::target().join("release/examples/placement_bench"))
}

/// Builds the program whose instructions are counted: the core alone is optimised, and all that it does not run is
/// what the tests need anyway, so that CI has it built in half a minute instead of five. One unit of code generation
/// and no incremental one, because what is inlined depends on them.
fn build_counted() -> Result<PathBuf> {
    deps::build()?;
    let mut build = cargo();
    build
        .args(["build", "--locked", "--workspace", "--example", "placement_bench"])
        .env("CARGO_INCREMENTAL", "0");
    for package in ["flotilla-units", "flotilla-engine"] {
        for setting in ["opt-level=3", "codegen-units=1", "debug-assertions=false", "overflow-checks=false"] {
            build.arg("--config").arg(format!("profile.dev.package.{package}.{setting}"));
        }
    }
    run(&mut build)?;
    Ok(workspace::target().join("debug/examples/placement_bench"))
}

/// Has every scenario counted, as many at once as there are processors.
fn count(program: &Path) -> Result<Counts> {
    let names = capture(Command::new(program).args(["count", "--list"]))?;
    let names: Vec<&str> = names.lines().collect();
    say(&format!("counting the instructions of {} scenarios under valgrind", names.len()));
    let (next, counted) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(names.len())));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let count = count_one(program, name);
                    counted.lock().unwrap_or_else(PoisonError::into_inner).push((*name, count));
                }
            });
        }
    });
    let counted = counted.into_inner().unwrap_or_else(PoisonError::into_inner);
    counted.into_iter().map(|(name, count)| Ok((name.to_owned(), count?))).collect()
}

fn count_one(program: &Path, name: &str) -> Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    // Nothing is counted before the function is entered.
    valgrind.arg(format!("--toggle-collect={COUNTED}"));
    valgrind.arg(program).args(["count", name]);
    let output = valgrind.output().context("starting valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("counting {name} ended with {}: {}", output.status, said.trim());
    }
    let count = collected(&said).with_context(|| format!("valgrind counted nothing of {name}: {said}"))?;
    // Setting up takes a few thousand in itself: this is no number of any scenario.
    if count == 0 {
        bail!(
            "no instruction was counted of {name}: `{COUNTED}` names no function of placement_bench any more"
        );
    }
    Ok(count)
}

/// The number in callgrind's `==1== Collected : 123`.
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find_map(|line| line.split_once("Collected :"))?;
    line.1.trim().parse().ok()
}

fn written(rust: &str, counts: &Counts) -> String {
    let mut text = format!("{HEAD}{MADE_WITH}{rust}\n");
    for (name, count) in counts {
        // Writing into a string cannot fail.
        _ = writeln!(text, "{name} {count}");
    }
    text
}

fn read(text: &str) -> Result<Counts> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let read = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.trim().parse().ok()?))
    };
    lines.map(|line| read(line).with_context(|| format!("{line:?} is not a name and a number"))).collect()
}

/// What came of a comparison.
struct Judgement {
    /// Every scenario, to be read.
    lines: Vec<String>,
    /// Those that are not as before: more by more than the tolerance, new, or gone.
    worse: Vec<String>,
}

fn judge(before: &Counts, now: &Counts, tolerance: u64) -> Judgement {
    let mut judgement = Judgement { lines: Vec::new(), worse: Vec::new() };
    for (name, count) in now {
        let Some(was) = before.get(name) else {
            judgement.worse.push(format!("{name}: {count}, and the baseline has none"));
            continue;
        };
        let percent = (*count as f64 / *was as f64 - 1.0) * 100.0;
        let line = format!("{name}: {count}, was {was}: {percent:+.1} %");
        if *count * 100 > *was * (100 + tolerance) {
            judgement.worse.push(line.clone());
        }
        let is_better = *count * (100 + tolerance) < *was * 100;
        let better = if is_better { "; better: --update keeps it so" } else { "" };
        judgement.lines.push(line + better);
    }
    let gone = before.keys().filter(|name| !now.contains_key(*name));
    judgement.worse.extend(gone.map(|name| format!("{name}: in the baseline, and counted no more")));
    judgement
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(all: &[(&str, u64)]) -> Counts {
        all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn the_baseline_is_read_as_it_was_written() {
        let some = counts(&[("a/b/1x2", 12), ("c", 3)]);
        assert_eq!(read(&written("rustc 1.95.0", &some)).unwrap(), some);
        assert!(read("a twelve").is_err());
    }

    #[test]
    fn what_needs_more_is_named_with_the_per_cent() {
        let before = counts(&[("same", 100), ("more", 100), ("less", 100), ("gone", 1)]);
        let now = counts(&[("same", 105), ("more", 106), ("less", 50), ("new", 1)]);
        let judged = judge(&before, &now, TOLERANCE_PERCENT);
        assert_eq!(judged.worse.len(), 3, "{:?}", judged.worse);
        assert_eq!(judged.worse[0], "more: 106, was 100: +6.0 %");
        assert!(judged.worse[1].starts_with("new:") && judged.worse[2].starts_with("gone:"));
        assert!(judged.lines.iter().any(|line| line.starts_with("less:") && line.contains("better")));
        // Of another compiler's baseline only what is new or gone, and what is far more.
        assert_eq!(judge(&before, &now, OTHER_RUST_PERCENT).worse, judged.worse[1..]);
    }

    #[test]
    fn callgrinds_words_are_understood() {
        let said = "==7== Events    : Ir\n==7== Collected : 48484\n==7==\n";
        assert_eq!(collected(said), Some(48_484));
        assert_eq!(collected("==7== nothing"), None);
    }
}
