//! `cargo xtask ci`: what must hold before anything is merged, cheapest first.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{
    deps,
    process::{cargo, run, say},
    test, tidy,
};

/// One thing that CI looks at.
struct Check {
    name: &'static str,
    run: fn() -> Result<()>,
}

const CHECKS: &[Check] = &[
    Check { name: "format", run: format },
    Check { name: "tidy", run: tidy::check },
    Check { name: "packages", run: deps::build },
    Check { name: "clippy", run: clippy },
    Check { name: "docs", run: docs },
    Check { name: "test", run: || test::main(&[]) },
];

/// Runs every check, also after one failed, and says which did.
pub fn main(arguments: &[String]) -> Result<()> {
    if let Some(argument) = arguments.first() {
        bail!("unknown argument {argument:?}; `cargo xtask ci` takes none");
    }
    let mut failed = Vec::new();
    let mut summary = Vec::new();
    for Check { name, run } in CHECKS {
        say(&format!("ci: {name}"));
        let start = Instant::now();
        let outcome = run().with_context(|| format!("{name} failed"));
        summary.push((name, outcome.is_ok(), start.elapsed()));
        if let Err(error) = outcome {
            eprintln!("{error:#}");
            failed.push(*name);
        }
    }
    for (name, passed, took) in summary {
        println!("ci: {name:<10} {:<6} {:>5} s", if passed { "ok" } else { "FAILED" }, rounded(took));
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn rounded(took: Duration) -> u64 {
    took.as_secs_f64().round() as u64
}

fn format() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    let features = test::features()?;
    let all = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--features",
        &features,
        "--",
        "-D",
        "warnings",
    ];
    run(cargo().args(all))
}

fn docs() -> Result<()> {
    let mut doc = cargo();
    run(doc.env("RUSTDOCFLAGS", "-Dwarnings").args(["doc", "--workspace", "--no-deps", "--locked"]))
}
