//! `cargo xtask bench`: builds optimised programs, then hands over to `flotilla-bench`.

pub mod placement;

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    deps,
    image::Image,
    lab,
    process::{cargo, is_root, run},
    workspace,
};

/// Forwards everything to `flotilla-bench`, or to `flotilla-scale` what is about simulated machines.
pub fn main(arguments: &[String]) -> Result<()> {
    match arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        None => bail!(
            "what is to be measured? `cargo xtask bench start`, `idle`, `journal`, `destroy`, or several; `scale` of simulated \
             machines; `placement` or `counts` of the placement core alone; `--help` says more"
        ),
        Some(("placement", rest)) => return placement::main(rest),
        Some(("counts", rest)) => return placement::counts(rest),
        Some(("scale", rest)) => return scale(rest),
        Some(_) => {}
    }
    if arguments.iter().any(|word| matches!(word.as_str(), "--help" | "-h" | "--version" | "-V")) {
        lab::build(&["flotilla-bench"])?;
        return Err(bench().args(arguments).exec()).context("starting flotilla-bench");
    }
    if !is_root() {
        bail!("benchmarks boot machines in the lab: run `cargo xtask bench` as root");
    }
    deps::build()?;
    deps::lab(Image::Plain)?;
    run(cargo().args(["build", "--release", "--workspace", "--bin", "flotillad", "--bin", "flotctl"]))?;
    lab::build(&["flotilla-bench"])?;
    let mut bench = bench();
    bench
        .arg("--programs")
        .arg(workspace::target().join("release"))
        .arg("--services")
        .arg(workspace::root().join("dist"))
        .args(arguments)
        .env("FLOTILLA_LAB_DIRECTORY", workspace::lab());
    Err(bench.exec()).context("starting flotilla-bench")
}

/// Whole clusters of simulated machines: needs neither root nor the lab, only an etcd.
fn scale(arguments: &[String]) -> Result<()> {
    deps::build()?;
    deps::etcd()?;
    let programs = ["--bin", "flotillad", "--bin", "flotctl", "--bin", "flotilla-scale"];
    run(cargo().args(["build", "--release", "--workspace"]).args(programs))?;
    let release = workspace::target().join("release");
    let mut scale = Command::new(release.join("flotilla-scale"));
    scale.arg("run").arg("--programs").arg(&release).arg("--etcd").arg(workspace::etcd());
    scale.arg("--directory").arg(workspace::target().join("scale")).args(arguments);
    Err(scale.exec()).context("starting flotilla-scale")
}

fn bench() -> Command {
    Command::new(workspace::target().join("debug/flotilla-bench"))
}
