//! `cargo xtask test`: runs every test of the project with `cargo test` underneath.
//!
//! Owns which targets exist, what each needs, and the promise that nothing
//! selected is passed over in silence: a target that cannot run here is named
//! with its reason, and with `CI=true` that is a failure.

mod targets;

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

use crate::{
    deps, dist,
    image::Image,
    process::{cargo, is_root, run, run_watched, say},
    workspace,
};
use targets::{Needs, Target};

pub use targets::features;

/// What became of one target.
enum Outcome {
    Passed,
    Failed(anyhow::Error),
    NotRun(String),
}

/// What the user asked for.
struct Request {
    targets: Vec<String>,
    list: bool,
    /// Passed on to the test binaries, after `--`.
    rest: Vec<String>,
}

/// The command as the user calls it; no arguments mean every target.
pub fn main(arguments: &[String]) -> Result<()> {
    let request = Request::parse(arguments)?;
    let all = targets::all()?;
    if request.list {
        for target in &all {
            println!("{:<14} {}", target.name, target.about);
        }
        return Ok(());
    }
    let selected = select(all, &request.targets)?;
    prepare(&selected)?;
    let mut results = Vec::new();
    let count = selected.len();
    for (index, target) in selected.iter().enumerate() {
        say(&format!("[{}/{count}] {}: {}", index + 1, target.name, target.about));
        let start = Instant::now();
        let outcome = run_target(target, &request.rest);
        results.push((target.name.as_str(), outcome, start.elapsed()));
    }
    summarise(&results, std::env::var("CI").is_ok_and(|value| value == "true"))
}

impl Request {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut request = Self { targets: Vec::new(), list: false, rest: Vec::new() };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--" => {
                    request.rest = words.cloned().collect();
                    break;
                }
                "--list" => request.list = true,
                flag if flag.starts_with('-') => {
                    bail!("unknown argument {flag:?}; arguments for the tests themselves go after `--`")
                }
                target => request.targets.push(target.to_owned()),
            }
        }
        Ok(request)
    }
}

fn select(all: Vec<Target>, wanted: &[String]) -> Result<Vec<Target>> {
    if let Some(unknown) = wanted.iter().find(|name| !all.iter().any(|target| target.name == **name)) {
        let names: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
        bail!("no test target {unknown:?}; there are: {}", names.join(", "));
    }
    Ok(all.into_iter().filter(|target| wanted.is_empty() || wanted.contains(&target.name)).collect())
}

/// Builds all there is at once, so that the programs that the lab installs are
/// those of the sources that the tests are of.
fn prepare(selected: &[Target]) -> Result<()> {
    deps::build()?;
    if selected.iter().any(|target| target.needs == Needs::Etcd) {
        deps::etcd()?;
    }
    if is_root() && selected.iter().any(|target| target.needs == Needs::Lab) {
        deps::lab(Image::Plain)?;
    }
    if is_root() && selected.iter().any(|target| target.needs == Needs::UserLab) {
        deps::lab(Image::User)?;
    }
    if is_root() && selected.iter().any(|target| target.needs == Needs::Virtual) {
        deps::virtual_machine()?;
    }
    run(cargo().args(["build", "--workspace", "--all-targets", "--locked"]))
}

fn run_target(target: &Target, rest: &[String]) -> Outcome {
    if matches!(target.needs, Needs::Lab | Needs::UserLab | Needs::Virtual) && !is_root() {
        return Outcome::NotRun("needs root".into());
    }
    let mut command = cargo();
    command
        .args(["test", "--workspace", "--locked", "--no-fail-fast"])
        .args(target.arguments())
        .env("FLOTILLA_ETCD", workspace::etcd())
        .env("FLOTILLA_LAB_DIRECTORY", workspace::lab())
        .env("FLOTILLA_BINARIES", workspace::target().join("debug"));
    if target.archive {
        match dist::pack(&workspace::target().join("debug"), "-debug") {
            Ok(archive) => _ = command.env("FLOTILLA_ARCHIVE", archive),
            Err(error) => return Outcome::Failed(error),
        }
    }
    if !rest.is_empty() {
        command.arg("--").args(rest);
    }
    let mut count = 0;
    let result = run_watched(&mut command, |line| count += tests_of(line).unwrap_or_default());
    judge(result, count, rest)
}

/// A target that ran no test has shown nothing, though cargo calls it a success.
fn judge(result: Result<()>, count: usize, rest: &[String]) -> Outcome {
    match result {
        Err(error) => Outcome::Failed(error),
        // Nobody asked for any.
        Ok(()) if rest.iter().any(|word| word == "--list") => Outcome::Passed,
        Ok(()) if count == 0 => {
            Outcome::Failed(anyhow!("no test was run; `{}` selects none", rest.join(" ")))
        }
        Ok(()) => Outcome::Passed,
    }
}

/// How many tests a test program says that it runs: `running 3 tests`.
fn tests_of(line: &str) -> Option<usize> {
    let (count, noun) = line.strip_prefix("running ")?.split_once(' ')?;
    matches!(noun, "test" | "tests").then(|| count.parse().ok())?
}

/// One line for each target, last, where they are still on the screen.
fn summarise(results: &[(&str, Outcome, Duration)], everything_must_run: bool) -> Result<()> {
    let mut bad = Vec::new();
    for (name, outcome, took) in results {
        let seconds = took.as_secs_f64();
        match outcome {
            Outcome::Passed => println!("passed: {name}: {seconds:.0} s"),
            Outcome::Failed(error) => {
                println!("failed: {name}: {error:#}");
                bad.push(*name);
            }
            Outcome::NotRun(reason) => {
                println!("not run: {name}: {reason}");
                if everything_must_run {
                    bad.push(*name);
                }
            }
        }
    }
    if !bad.is_empty() {
        bail!("failed{}: {}", if everything_must_run { " or not run" } else { "" }, bad.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_follows_the_dashes_is_for_the_tests() {
        let request = Request::parse(&words("lab -- --nocapture boots")).unwrap();
        assert_eq!(request.targets, ["lab"]);
        assert_eq!(request.rest, ["--nocapture", "boots"]);
        assert!(Request::parse(&words("--nocapture")).is_err());
    }

    #[test]
    fn an_unknown_target_is_an_error_that_names_the_others() {
        let error = select(targets::all().unwrap(), &words("labb")).unwrap_err().to_string();
        assert!(error.contains("labb") && error.contains("unit"), "{error}");
    }

    #[test]
    fn a_filter_that_selects_nothing_is_a_failure() {
        assert_eq!(tests_of("running 12 tests"), Some(12));
        assert_eq!(tests_of("running 1 test"), Some(1));
        assert_eq!(tests_of("running late tests"), None);
        assert_eq!(tests_of("test result: ok. 0 passed"), None);
        let outcome = |count, rest| judge(Ok(()), count, &words(rest));
        assert!(
            matches!(outcome(0, "nosuchtest"), Outcome::Failed(error) if error.to_string().contains("nosuchtest"))
        );
        assert!(matches!(outcome(0, ""), Outcome::Failed(_)));
        assert!(matches!(outcome(1, "boots"), Outcome::Passed));
        assert!(matches!(outcome(0, "--list"), Outcome::Passed));
        assert!(matches!(judge(Err(anyhow!("red")), 1, &[]), Outcome::Failed(_)));
    }

    #[test]
    fn what_did_not_run_fails_only_in_ci() {
        let not_run = || [("lab", Outcome::NotRun("needs root".into()), Duration::ZERO)];
        assert!(summarise(&not_run(), false).is_ok());
        assert!(summarise(&not_run(), true).is_err());
    }
}
