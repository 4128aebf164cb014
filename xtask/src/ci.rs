//! `cargo xtask ci`: what must hold before anything is merged, cheapest first.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{
    bench, deps,
    process::{capture, cargo, run, say},
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
    Check { name: "counts", run: || bench::placement::counts(&["--check".to_owned()]) },
    Check { name: "test", run: || test::main(&[]) },
];

/// The parts of the toolchain that are not always there: what cargo calls each, and its name.
const COMPONENTS: [(&str, &str); 2] = [("fmt", "rustfmt"), ("clippy", "clippy")];

/// Runs every check, also after one failed, and says which did.
pub fn main(arguments: &[String]) -> Result<()> {
    if let Some(argument) = arguments.first() {
        bail!("unknown argument {argument:?}; `cargo xtask ci` takes none");
    }
    complete(|part| capture(cargo().args([part, "--version"])).is_ok())?;
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

/// Makes sure that the toolchain has what the checks need.
fn complete(has: impl Fn(&str) -> bool) -> Result<()> {
    let missing: Vec<&str> =
        COMPONENTS.iter().filter(|(part, _)| !has(part)).map(|(_, name)| *name).collect();
    if !missing.is_empty() {
        bail!(
            "this Rust has no {}; `rustup component add {}` installs it (without rustup, as on Debian: apt-get install \
             rustfmt rust-clippy)",
            missing.join(" and no "),
            missing.join(" ")
        );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_toolchain_lacks_is_named_with_what_installs_it() {
        assert!(complete(|_| true).is_ok());
        let error = complete(|part| part == "fmt").unwrap_err().to_string();
        assert!(error.contains("no clippy;") && error.contains("`rustup component add clippy`"), "{error}");
        let error = complete(|_| false).unwrap_err().to_string();
        assert!(error.contains("`rustup component add rustfmt clippy`"), "{error}");
    }
}
