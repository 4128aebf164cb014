//! `cargo xtask bench`: builds optimised programs, then hands over to `flotilla-bench`.

pub mod placement;
mod report;

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

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
             machines; `placement` or `counts` of the placement core alone; `report` makes the page of figures; `--help` says \
             more"
        ),
        Some(("placement", rest)) => return placement::main(rest),
        Some(("counts", rest)) => return placement::counts(rest),
        Some(("scale", rest)) => return scale(rest),
        Some(("report", rest)) => return report::main(rest),
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
    Err(lab_command(&build_lab()?).args(arguments).exec()).context("starting flotilla-bench")
}

/// Whole clusters of simulated machines: needs neither root nor the lab, only an etcd.
fn scale(arguments: &[String]) -> Result<()> {
    Err(scale_command(&build_scale()?).args(arguments).exec()).context("starting flotilla-scale")
}

/// Builds the programs that the lab's machines get, and the benchmark; returns their folder.
fn build_lab() -> Result<PathBuf> {
    run(cargo().args(["build", "--release", "--workspace", "--bin", "flotillad", "--bin", "flotctl"]))?;
    lab::build(&["flotilla-bench"])?;
    Ok(workspace::target().join("release"))
}

fn lab_command(programs: &Path) -> Command {
    let mut bench = bench();
    bench
        .arg("--programs")
        .arg(programs)
        .arg("--services")
        .arg(workspace::root().join("dist"))
        .arg("--etcd")
        .arg(workspace::etcd())
        .env("FLOTILLA_LAB_DIRECTORY", workspace::lab());
    bench
}

/// Builds what a cluster of simulated machines is made of; returns its folder.
fn build_scale() -> Result<PathBuf> {
    deps::build()?;
    deps::etcd()?;
    let programs = ["--bin", "flotillad", "--bin", "flotctl", "--bin", "flotilla-scale"];
    run(cargo().args(["build", "--release", "--workspace"]).args(programs))?;
    Ok(workspace::target().join("release"))
}

fn scale_command(programs: &Path) -> Command {
    let mut scale = Command::new(programs.join("flotilla-scale"));
    scale.arg("run").arg("--programs").arg(programs).arg("--etcd").arg(workspace::etcd());
    scale.arg("--directory").arg(workspace::target().join("scale"));
    scale
}

fn bench() -> Command {
    Command::new(workspace::target().join("debug/flotilla-bench"))
}
