//! `cargo xtask dist`: packs what a machine needs into one archive.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    deps,
    process::{cargo, run, say},
    workspace,
};

/// The programs that a machine runs.
const PROGRAMS: [&str; 2] = ["flotillad", "flotctl"];

/// What lies beside them, below the workspace's root.
const FILES: [&str; 7] = [
    "dist/install",
    "dist/flotillad.service",
    "dist/flotilla-handover.service",
    "README.md",
    "LICENSE",
    "LICENSE-APACHE",
    "LICENSE-MIT",
];

/// Builds optimised programs and packs them with service files and manual pages.
pub fn main(arguments: &[String]) -> Result<()> {
    if let Some(argument) = arguments.first() {
        bail!("`cargo xtask dist` takes no arguments, and {argument:?} is one");
    }
    deps::build()?;
    run(cargo().args(["build", "--release", "--workspace", "--bin", "flotillad", "--bin", "flotctl"]))?;
    let name = format!("flotilla-{}-{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let target = workspace::target();
    let folder = target.join("dist").join(&name);
    stage(&folder, &target.join("release"))?;
    run(Command::new(folder.join("flotctl")).arg("man").arg(folder.join("man")))?;
    let archive = target.join("dist").join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--create", "--gzip", "--owner=0", "--group=0", "--file"]).arg(&archive);
    run(tar.arg("--directory").arg(target.join("dist")).arg(&name))?;
    let shown = archive.strip_prefix(workspace::root()).unwrap_or(&archive);
    say(&format!("{}: unpack it on each machine and run ./install there", shown.display()));
    Ok(())
}

/// Makes the folder anew with everything but the manual pages.
fn stage(folder: &Path, programs: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::create_dir_all(folder.join("man")).with_context(|| format!("making {}", folder.display()))?;
    let programs = PROGRAMS.iter().map(|program| programs.join(program));
    let files = FILES.iter().map(|file| workspace::root().join(file));
    for from in programs.chain(files) {
        let to: PathBuf = folder.join(from.file_name().unwrap_or_default());
        fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_install_asks_for_is_packed() {
        let install = fs::read_to_string(workspace::root().join("dist/install")).unwrap();
        let packed: Vec<&str> =
            FILES.iter().filter_map(|file| file.rsplit('/').next()).chain(PROGRAMS).collect();
        let mut asked = 0;
        for list in ["programs=", "services="] {
            let line = install.lines().find_map(|line| line.strip_prefix(list)).unwrap();
            for name in line.trim_matches('"').split(' ') {
                assert!(packed.contains(&name), "{name}");
                asked += 1;
            }
        }
        assert_eq!(asked, 4);
    }
}
