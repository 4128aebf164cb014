//! `cargo xtask lab`: makes sure the lab's parts are there, then hands over to it.

use anyhow::{Result, bail};

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
    deps::build()?;
    let user = arguments.windows(2).any(|pair| pair[0] == "--image" && pair[1] == "user");
    deps::lab(if user { Image::User } else { Image::Plain })?;
    // One feature set for everything: with --package alone cargo would compile
    // the dependencies again for this crate.
    run(cargo().args(["build", "--quiet", "--workspace", "--bins"]))?;
    let mut lab = std::process::Command::new(workspace::target().join("debug/flotilla-lab"));
    run(lab.arg("--directory").arg(workspace::lab()).args(arguments))
}
