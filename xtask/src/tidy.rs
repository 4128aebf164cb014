//! `cargo xtask tidy`: what the compiler does not check and reviewers should not have to.
//!
//! Also a test of this crate, so that plain `cargo test` keeps the house in order.

mod dependencies;
mod lockfile;
mod manifest;
mod sources;

use std::fmt;

use anyhow::{Result, bail};

/// Something that is not as it should be: where, what, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the workspace, with the line if there is one.
    pub place: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// The command as the user calls it.
pub fn main(arguments: &[String]) -> Result<()> {
    if let Some(argument) = arguments.first() {
        bail!("unknown argument {argument:?}; `cargo xtask tidy` takes none");
    }
    check()
}

/// Runs every check and prints every finding.
pub fn check() -> Result<()> {
    let mut findings = dependencies::check()?;
    findings.extend(lockfile::check()?);
    findings.extend(sources::check()?);
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} to put in order", findings.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_project_is_tidy() {
        super::check().unwrap();
    }
}
