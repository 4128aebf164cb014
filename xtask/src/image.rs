//! Builds the root file system that the lab's machines boot from.
//!
//! Two images: a plain one for the tests, and one with what user managers need.
//! Each is kept as a tar (the cache: 30 s to build) and unpacked beside it (what
//! the lab uses as the lowest layer of each machine's overlay; 0.3 s).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    packages::{MACHINE, MACHINE_USER},
    process::{is_root, run, say},
    workspace,
};

/// Which machines are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// systemd, the bus and little else.
    Plain,
    /// Also logind's PAM module and the user's bus, for `flotillad --dev` as an
    /// ordinary user.
    User,
}

impl Image {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "base",
            Self::User => "user",
        }
    }

    fn packages(self) -> String {
        let more: &[&str] = match self {
            Self::Plain => &[],
            Self::User => MACHINE_USER,
        };
        [MACHINE, more].concat().join(",")
    }
}

/// Builds and unpacks the image unless it is there.
pub fn ensure(image: Image) -> Result<()> {
    let directory = workspace::lab().join("image");
    let (tar, root) = (directory.join(format!("{}.tar", image.name())), directory.join(image.name()));
    if root.is_dir() {
        return Ok(());
    }
    if !is_root() {
        bail!("the machine image is built and unpacked as root: run `cargo xtask deps --lab` as root once");
    }
    fs::create_dir_all(&directory)?;
    if !tar.is_file() {
        build(image, &tar)?;
    }
    unpack(&tar, &root)
}

fn build(image: Image, tar: &Path) -> Result<()> {
    say(&format!("building the lab's machine image {:?} (about 30 s, once)", image.name()));
    let partial = with_suffix(tar, "partial.tar");
    // The host's own release: what was compiled here finds its C library there.
    run(Command::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase", "--include", &image.packages()])
        .arg(host_release()?)
        .arg(&partial))
    .context("building the machine image")?;
    fs::rename(&partial, tar).context("putting the machine image into place")
}

fn unpack(tar: &Path, root: &Path) -> Result<()> {
    let partial = with_suffix(root, "partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    run(Command::new("tar").arg("--directory").arg(&partial).arg("--extract").arg("--file").arg(tar))?;
    fs::rename(&partial, root).context("putting the unpacked machine image into place")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    path.with_extension(suffix)
}

fn host_release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    release_of(&text)
        .context("no VERSION_CODENAME in /etc/os-release: the lab needs a Debian release to build from")
}

fn release_of(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_release() {
        assert_eq!(release_of("ID=debian\nVERSION_CODENAME=bookworm\n").as_deref(), Some("bookworm"));
        assert_eq!(release_of("VERSION_CODENAME=\"trixie\"\n").as_deref(), Some("trixie"));
        assert_eq!(release_of("ID=void\n"), None);
    }

    #[test]
    fn the_user_image_holds_the_plain_one() {
        assert!(Image::User.packages().starts_with(&Image::Plain.packages()));
    }
}
