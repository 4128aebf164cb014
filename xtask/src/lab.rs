//! `cargo xtask lab`: makes sure the lab's parts are there, then hands over to it.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    deps,
    image::Image,
    process::{cargo, is_root, run},
    workspace,
};

/// Forwards everything to `flotilla-lab`.
pub fn main(arguments: &[String]) -> Result<()> {
    if !is_root() {
        bail!("the lab makes network namespaces, mounts and control groups: run `cargo xtask lab` as root");
    }
    if arguments.first().is_some_and(|command| command == "up") {
        let user = arguments.windows(2).any(|pair| pair[0] == "--image" && pair[1] == "user")
            || arguments.iter().any(|argument| argument == "--image=user");
        deps::lab(if user { Image::User } else { Image::Plain })?;
    }
    build(&["flotilla-lab"])?;
    // Becomes the lab: a shell in a machine has the terminal to itself, and a
    // command's exit status is ours.
    Err(command().args(arguments).exec()).context("starting flotilla-lab")
}

/// Builds programs of the workspace.
pub fn build(programs: &[&str]) -> Result<()> {
    // Of the whole workspace, so that the features are those of every other build
    // and nothing is compiled twice.
    let programs = programs.iter().flat_map(|program| ["--bin", program]);
    run(cargo().args(["build", "--quiet", "--workspace"]).args(programs))
}

/// The lab's own command, which has to be built.
pub fn command() -> Command {
    let mut command = Command::new(workspace::target().join("debug/flotilla-lab"));
    command.arg("--directory").arg(workspace::lab());
    command
}
