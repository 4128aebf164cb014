//! `cargo xtask deps`: makes a fresh Debian machine able to build and to test.
//!
//! Installs packages from the list in `packages`, each with its reason, and only
//! those whose evidence is missing. Fetches etcd without installing it. Called by
//! every command that needs more than the compiler.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    image::{self, Image},
    packages::{INSTALLED, KERNEL, Need, Package, UNPACKED},
    process::{capture, is_installed, is_root, run, say},
    workspace,
};

/// The command as the user calls it.
pub fn main(arguments: &[String]) -> Result<()> {
    let (mut lab, mut user_image, mut kernel) = (false, false, false);
    for argument in arguments {
        match argument.as_str() {
            "--lab" => lab = true,
            "--user-image" => user_image = true,
            "--virtual" => kernel = true,
            other => bail!("unknown argument {other:?}; expected --lab, --user-image or --virtual"),
        }
    }
    build()?;
    if kernel {
        virtual_machine()?;
    }
    if lab || user_image {
        self::lab(Image::Plain)?;
    }
    if user_image {
        image::ensure(Image::User)?;
    }
    say("everything is here");
    Ok(())
}

/// Makes sure that the workspace can be compiled.
pub fn build() -> Result<()> {
    if !is_installed("cc") {
        bail!("no C compiler: run `apt-get install gcc libc6-dev` (aws-lc is built from C)");
    }
    install(&missing(Need::Build))
}

/// Makes sure that etcd can be run for a test; needs no root.
pub fn etcd() -> Result<()> {
    if workspace::etcd().is_file() {
        return Ok(());
    }
    unpack_etcd().context("fetching etcd")
}

/// Makes sure that instructions can be counted.
pub fn counting() -> Result<()> {
    install(&missing(Need::Counting))
}

/// Makes sure that machines from `image` can be booted.
pub fn lab(image: Image) -> Result<()> {
    install(&missing(Need::Lab))?;
    etcd()?;
    image::ensure(image)
}

/// Makes sure that a machine with a kernel of its own can be booted.
pub fn virtual_machine() -> Result<()> {
    lab(Image::Plain)?;
    install(&missing(Need::Virtual))?;
    let kernel = workspace::lab().join("image/vmlinuz");
    if kernel.is_file() {
        return Ok(());
    }
    unpack_kernel(&kernel).context("fetching a kernel")
}

fn missing(need: Need) -> Vec<&'static Package> {
    let absent = |package: &&Package| package.need == need && !Path::new(package.evidence).exists();
    INSTALLED.iter().filter(absent).collect()
}

fn install(packages: &[&Package]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    if !is_root() {
        bail!("missing packages; as root run: apt-get install --no-install-recommends {}", names.join(" "));
    }
    for Package { name, why, .. } in packages {
        say(&format!("installing {name}: {why}"));
    }
    update_package_lists()?;
    run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(names))
}

/// Refreshes apt's lists, once in the life of this process.
fn update_package_lists() -> Result<()> {
    static DONE: std::sync::OnceLock<()> = std::sync::OnceLock::new();
    if DONE.get().is_none() {
        run(apt_get().args(["update", "-qq"]))?;
        DONE.get_or_init(|| ());
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Downloads Debian's etcd and unpacks it, so that no service comes with it.
fn unpack_etcd() -> Result<()> {
    say(
        "downloading etcd from Debian, unpacked under target and not installed: the lab and the store's tests run it",
    );
    let lab = workspace::lab();
    let partial = unpack(&lab.join("etcd.partial"), UNPACKED)?;
    let version = capture(Command::new(partial.join("usr/bin/etcd")).arg("--version"))?;
    say(version.lines().next().unwrap_or("etcd"));
    let whole = lab.join("etcd");
    if whole.exists() {
        fs::remove_dir_all(&whole)?;
    }
    fs::rename(&partial, &whole).context("putting etcd into place")
}

/// Downloads Debian's kernel for virtual machines, and keeps of it what is booted.
fn unpack_kernel(to: &Path) -> Result<()> {
    say(
        "downloading a kernel from Debian, unpacked under target and not installed: a virtual machine runs it",
    );
    let find = || capture(Command::new("apt-cache").args(["depends", KERNEL]));
    let mut depends = find()?;
    if package_of(&depends).is_none() {
        update_package_lists()?;
        depends = find()?;
    }
    let package = package_of(&depends).with_context(|| format!("{KERNEL} depends on no kernel"))?;
    let partial = unpack(&workspace::lab().join("kernel.partial"), &[package])?;
    let found = fs::read_dir(partial.join("boot"))?.flatten();
    let mut kernels = found.map(|entry| entry.path());
    let kernel = kernels.find(|path| path.to_string_lossy().contains("/vmlinuz-"));
    let kernel = kernel.with_context(|| format!("{package} has no kernel"))?;
    fs::rename(&kernel, to).context("putting the kernel into place")?;
    fs::remove_dir_all(&partial).context("removing the rest of the kernel's package")
}

/// The kernel that a package of no content stands for.
fn package_of(depends: &str) -> Option<&str> {
    let mut lines = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    lines.find(|name| name.starts_with("linux-image-"))
}

/// Downloads packages and unpacks them all into an empty directory, which it returns.
fn unpack(partial: &Path, packages: &[&str]) -> Result<PathBuf> {
    if partial.exists() {
        fs::remove_dir_all(partial)?;
    }
    fs::create_dir_all(partial)?;
    let download = || run(apt_get().current_dir(partial).args(["download", "-qq"]).args(packages));
    if let Err(first) = download() {
        if !is_root() {
            return Err(first.context("if apt's lists are old or empty, run `apt-get update` as root"));
        }
        update_package_lists()?;
        download()?;
    }
    for entry in fs::read_dir(partial)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(partial))?;
            fs::remove_file(&path)?;
        }
    }
    Ok(partial.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_behind_its_name_is_found() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-40-cloud-amd64\n";
        assert_eq!(package_of(depends), Some("linux-image-6.1.0-40-cloud-amd64"));
        assert_eq!(package_of("linux-image-cloud-amd64\n"), None);
    }

    #[test]
    fn every_package_says_why() {
        for package in INSTALLED {
            assert!(!package.why.is_empty(), "{}", package.name);
            assert!(package.evidence.starts_with('/'), "{}", package.name);
        }
    }
}
