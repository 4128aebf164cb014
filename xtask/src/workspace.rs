//! Where things are: the workspace, its members, what the lab keeps under target.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The members of the workspace, by folder. A new crate is added here and gets
/// its row in `tidy::dependencies`.
pub const MEMBERS: &[&str] = &[
    "units",
    "registry",
    "engine",
    "agent",
    "api",
    "server",
    "daemon",
    "cli",
    "lab",
    "figures",
    "integration-tests",
    "xtask",
];

/// The root of the workspace.
pub fn root() -> PathBuf {
    // Cargo sets the variable for `cargo run` and `cargo test`; the compiled-in
    // value serves a binary that was started by hand.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let package = package.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    package.parent().map(Path::to_path_buf).unwrap_or(package)
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

/// What the lab downloads, builds and runs lives below this directory.
pub fn lab() -> PathBuf {
    target().join("lab")
}

/// The etcd that `cargo xtask deps` unpacked.
pub fn etcd() -> PathBuf {
    lab().join("etcd/usr/bin/etcd")
}

/// Every file of the project with one of the extensions, without target and
/// version control, sorted.
pub fn files(extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(&root(), extensions, &mut found)?;
    found.sort();
    Ok(found)
}

fn collect(directory: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let hidden_or_built = matches!(entry.file_name().to_str(), Some("target" | ".git"));
        if entry.file_type()?.is_dir() {
            if !hidden_or_built {
                collect(&path, extensions, found)?;
            }
        } else if path.extension().and_then(OsStr::to_str).is_some_and(|have| extensions.contains(&have)) {
            found.push(path);
        }
    }
    Ok(())
}
