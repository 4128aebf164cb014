//! Which test targets there are, and what each needs to run.
//!
//! Those that plain `cargo test` leaves alone are read from the manifests, so
//! that a new one is written down in one place: a `[[test]]` table with
//! `test = false` (needs an etcd) or `required-features = ["lab"]` (needs root
//! and the lab), and a comment that says what it tests.

use std::fs;

use anyhow::{Context, Result};

use crate::workspace;

/// What has to be there before a target can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing but the compiler's output.
    Nothing,
    /// An etcd binary, as an ordinary user.
    Etcd,
    /// Root, and the lab with its plain machines.
    Lab,
    /// Root, and the lab with machines that run user managers.
    UserLab,
}

/// One selectable set of tests.
#[derive(Debug)]
pub struct Target {
    /// What the user types.
    pub name: String,
    /// What it tests.
    pub about: String,
    /// What it needs.
    pub needs: Needs,
    /// What `cargo test --workspace` is given.
    pub arguments: Vec<String>,
}

/// Every target, those with the quickest answer first.
pub fn all() -> Result<Vec<Target>> {
    let mut targets = vec![Target {
        name: "unit".into(),
        about: "every crate's own tests".into(),
        needs: Needs::Nothing,
        arguments: Vec::new(),
    }];
    for member in workspace::MEMBERS {
        let manifest = workspace::root().join(member).join("Cargo.toml");
        let text =
            fs::read_to_string(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
        targets.extend(declared(&text));
    }
    Ok(targets)
}

fn declared(manifest: &str) -> Vec<Target> {
    manifest.split("[[test]]").skip(1).filter_map(target_of).collect()
}

fn target_of(table: &str) -> Option<Target> {
    let table = table.split("\n[").next().unwrap_or(table);
    let value = |key: &str| {
        let line =
            table.lines().find(|line| line.split('=').next().is_some_and(|word| word.trim() == key))?;
        Some(line.split_once('=')?.1.trim())
    };
    let name = value("name")?.trim_matches('"').to_owned();
    let about = table.lines().find_map(|line| line.strip_prefix('#')).unwrap_or("not described").trim();
    let in_lab = value("required-features").is_some_and(|features| features.contains("\"lab\""));
    let (needs, features) = match (in_lab, value("test")) {
        (true, _) if about.contains("image = user") => (Needs::UserLab, &["--features", super::FEATURES][..]),
        (true, _) => (Needs::Lab, &["--features", super::FEATURES][..]),
        (false, Some("false")) => (Needs::Etcd, &[][..]),
        _ => return None,
    };
    let arguments = features.iter().chain(&["--test", &name]).map(|&word| word.to_owned()).collect();
    Some(Target { about: about.to_owned(), needs, arguments, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_declared_targets() {
        let manifest = r#"
[[test]]
# machines boot
name = "lab"
required-features = ["lab"]

[[test]]
name = "simulated"

[[test]]
# as an ordinary user (image = user)
name = "dev"
required-features = ["lab"]

[[test]]
# on a real etcd
name = "etcd"
test = false

[dependencies]
name = "not a target"
"#;
        let found = declared(manifest);
        let names: Vec<&str> = found.iter().map(|target| target.name.as_str()).collect();
        assert_eq!(names, ["lab", "dev", "etcd"]);
        assert_eq!(found[0].about, "machines boot");
        let needs: Vec<Needs> = found.iter().map(|target| target.needs).collect();
        assert_eq!(needs, [Needs::Lab, Needs::UserLab, Needs::Etcd]);
        assert_eq!(found[2].arguments, ["--test", "etcd"]);
    }
}
