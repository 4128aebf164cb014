//! `cargo xtask dist`: packs what a machine needs into one archive.
//!
//! Owns what is in the archive and where. The test of the installation unpacks what this packs, with
//! the programs of its own build ([`pack`]).

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
const BESIDE: [&str; 4] =
    ["dist/install", "dist/flotillad.service", "dist/flotilla-handover.service", "dist/flotilla.target"];

/// What keeps its place, files and folders: what the README tells people to read and to try next.
const KEPT: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "docs",
    "examples",
];

/// Builds optimised programs and packs them with everything else.
pub fn main(arguments: &[String]) -> Result<()> {
    if let Some(argument) = arguments.first() {
        bail!("`cargo xtask dist` takes no arguments, and {argument:?} is one");
    }
    deps::build()?;
    run(cargo().args(["build", "--release", "--workspace", "--bin", "flotillad", "--bin", "flotctl"]))?;
    let archive = pack(&workspace::target().join("release"), "")?;
    let shown = archive.strip_prefix(workspace::root()).unwrap_or(&archive);
    say(&format!("{}: unpack it on each machine and run ./install there", shown.display()));
    Ok(())
}

/// Packs the programs of a build, and returns the archive. Its name ends with `suffix`.
pub fn pack(programs: &Path, suffix: &str) -> Result<PathBuf> {
    let name = format!("flotilla-{}-{}{suffix}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let packed = workspace::target().join("dist");
    let folder = packed.join(&name);
    stage(&folder, programs)?;
    run(Command::new(folder.join("flotctl")).arg("man").arg(folder.join("man")))?;
    let archive = packed.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--create", "--gzip", "--owner=0", "--group=0", "--file"]).arg(&archive);
    run(tar.arg("--directory").arg(&packed).arg(&name))?;
    Ok(archive)
}

/// Makes the folder anew with everything but the manual pages.
fn stage(folder: &Path, programs: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    make(&folder.join("man"))?;
    let programs = PROGRAMS.iter().map(|program| programs.join(program));
    let beside = BESIDE.iter().map(|file| workspace::root().join(file));
    for from in programs.chain(beside) {
        copy(&from, &folder.join(from.file_name().unwrap_or_default()))?;
    }
    KEPT.iter().try_for_each(|path| copy(&workspace::root().join(path), &folder.join(path)))
}

/// Copies a file, or a folder with what is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        let entries = fs::read_dir(from).with_context(|| format!("reading {}", from.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("reading {}", from.display()))?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    to.parent().map_or(Ok(()), make)?;
    fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_install_asks_for_is_packed() {
        let install = fs::read_to_string(workspace::root().join("dist/install")).unwrap();
        let packed: Vec<&str> =
            BESIDE.iter().filter_map(|file| file.rsplit('/').next()).chain(PROGRAMS).collect();
        let mut asked = 0;
        for list in ["programs=", "services="] {
            let line = install.lines().find_map(|line| line.strip_prefix(list)).unwrap();
            for name in line.trim_matches('"').split(' ') {
                assert!(packed.contains(&name), "{name}");
                asked += 1;
            }
        }
        assert_eq!(asked, 5);
    }

    /// The targets of a page's links to files, as written.
    fn links(page: &str) -> Vec<String> {
        let targets = page.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        targets.filter(|link| !link.is_empty() && !link.contains("://")).map(str::to_owned).collect()
    }

    #[test]
    fn whoever_reads_the_packed_pages_finds_what_they_link_to_and_what_they_tell_to_start() {
        let unpacked = tempfile();
        for path in KEPT {
            copy(&workspace::root().join(path), &unpacked.join(path)).unwrap();
        }
        let guide = fs::read_dir(unpacked.join("docs/guide")).unwrap().map(|entry| entry.unwrap().path());
        let others = ["README.md", "ARCHITECTURE.md", "docs/roadmap.md"].map(|page| unpacked.join(page));
        let (mut followed, readme) = (0, fs::read_to_string(&others[0]).unwrap());
        for page in guide.chain(others) {
            for link in links(&fs::read_to_string(&page).unwrap()) {
                assert!(page.with_file_name(&link).exists(), "{} links to {link}", page.display());
                followed += 1;
            }
        }
        let examples =
            readme.split("flotctl start ").skip(1).filter_map(|rest| rest.split_whitespace().next());
        for example in examples.filter(|word| word.starts_with("examples/")) {
            // Instances are of the template that lies there.
            let (name, instance) = example.split_once('@').unwrap_or((example, ""));
            let file = if instance.is_empty() { name.to_owned() } else { format!("{name}@.service") };
            assert!(unpacked.join(&file).is_file(), "{example}");
            followed += 1;
        }
        assert!(followed >= 20, "{followed}");
        fs::remove_dir_all(unpacked).unwrap();
    }

    /// A folder of this test's own: xtask has no dependencies for it.
    fn tempfile() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("flotilla-xtask-dist-{}", std::process::id()));
        make(&folder).unwrap();
        folder
    }
}
