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
    let about = what(arguments);
    if about != About::Help && !is_root() {
        bail!("the lab makes network namespaces, mounts and control groups: run `cargo xtask lab` as root");
    }
    if about == About::Up {
        let user = arguments.windows(2).any(|pair| pair[0] == "--image" && pair[1] == "user")
            || arguments.iter().any(|argument| argument == "--image=user");
        deps::lab(if user { Image::User } else { Image::Plain })?;
    }
    build(&["flotilla-lab"])?;
    // Becomes the lab: a shell in a machine has the terminal to itself, and a
    // command's exit status is ours.
    Err(command().args(arguments).exec()).context("starting flotilla-lab")
}

/// What the words are about, as far as something is to be done before the lab itself reads them.
#[derive(Debug, PartialEq, Eq)]
enum About {
    /// Only words are wanted: no lab is touched.
    Help,
    /// Machines will be booted.
    Up,
    /// A lab that is there.
    Other,
}

fn what(arguments: &[String]) -> About {
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "help" | "--help" | "-h" | "--version" | "-V" => return About::Help,
            // The lab's own options with a value, before its command.
            "--name" | "--directory" => _ = words.next(),
            option if option.starts_with('-') => {}
            "up" if words.clone().any(|word| matches!(word, "--help" | "-h")) => return About::Help,
            "up" => return About::Up,
            // What follows may be another program's: `exec m1 ls --help`.
            "exec" | "etcdctl" => return About::Other,
            _ if words.clone().any(|word| matches!(word, "--help" | "-h")) => return About::Help,
            _ => return About::Other,
        }
    }
    // Without a command the lab prints its help.
    About::Help
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_known_wherever_the_options_stand() {
        let what = |text: &str| what(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        for text in ["up", "--name x up", "--name=x up --machines 3", "--directory d --name up up"] {
            assert_eq!(what(text), About::Up, "{text}");
        }
        for text in ["help", "--help", "help up", "up --help", "shell -h", "--name x --help", "-V"] {
            assert_eq!(what(text), About::Help, "{text}");
        }
        for text in ["down", "--name up down", "exec m1 ls --help", "exec m1 up", "etcdctl help"] {
            assert_eq!(what(text), About::Other, "{text}");
        }
        assert_eq!(super::what(&[]), About::Help);
    }
}
