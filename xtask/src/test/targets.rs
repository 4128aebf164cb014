//! Which test targets there are, and what each needs to run.
//!
//! Those that plain `cargo test` leaves alone are read from the manifests, so
//! that a new one is written down in one place: a `[[test]]` table with
//! `required-features = ["lab"]` (needs root and the lab) or another feature
//! (needs an etcd), and a comment that says what it tests. A table with such a
//! comment and no feature is one of every crate's own tests that can be
//! selected by itself.

use std::fs;

use anyhow::{Context, Result};

use crate::workspace;

/// The target that is every crate's own tests.
const OWN: &str = "unit";

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
    /// Root, and a machine with a kernel of its own.
    Virtual,
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
    /// Whether it is about the archive of `cargo xtask dist`.
    pub archive: bool,
    /// The feature behind which plain `cargo test` does not see it.
    pub feature: Option<String>,
}

impl Target {
    /// What `cargo test --workspace` is given.
    ///
    /// Only the feature of this target: it changes one crate, so that everything
    /// else is what was built for all targets.
    pub fn arguments(&self) -> Vec<&str> {
        match &self.feature {
            Some(feature) => vec!["--features", feature, "--test", &self.name],
            None if self.name == OWN => Vec::new(),
            None => vec!["--test", &self.name],
        }
    }
}

/// Every target, those with the quickest answer first.
pub fn all() -> Result<Vec<Target>> {
    let mut targets = vec![Target {
        name: OWN.into(),
        about: "every crate's own tests".into(),
        needs: Needs::Nothing,
        archive: false,
        feature: None,
    }];
    for member in workspace::MEMBERS {
        let manifest = workspace::root().join(member).join("Cargo.toml");
        let text =
            fs::read_to_string(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
        targets.extend(declared(&text));
    }
    Ok(targets)
}

/// The features behind which targets hide, as `cargo --features` takes them: for
/// what looks at all of them at once.
pub fn features() -> Result<String> {
    let mut features: Vec<String> = all()?.into_iter().filter_map(|target| target.feature).collect();
    features.sort();
    features.dedup();
    Ok(features.join(","))
}

fn declared(manifest: &str) -> Vec<Target> {
    let mut tables = manifest.split("[[test]]");
    let package = tables.next().and_then(|head| value(head, "name")).unwrap_or_default();
    tables.filter_map(|table| target_of(package, table)).collect()
}

fn target_of(package: &str, table: &str) -> Option<Target> {
    let table = table.split("\n[").next().unwrap_or(table);
    let name = value(table, "name")?;
    let about = table.lines().find_map(|line| line.strip_prefix('#')).map(str::trim);
    let Some(required) = value(table, "required-features") else {
        let (name, about) = (name.to_owned(), about?.to_owned());
        return Some(Target { name, about, needs: Needs::Nothing, archive: false, feature: None });
    };
    let feature = required.trim_matches(['[', ']']).trim_matches('"');
    let about = about.unwrap_or(package);
    let needs = match feature {
        "lab" if about.contains("image = user") => Needs::UserLab,
        "lab" if about.contains("in a virtual machine") => Needs::Virtual,
        "lab" => Needs::Lab,
        _ => Needs::Etcd,
    };
    Some(Target {
        name: name.to_owned(),
        about: about.to_owned(),
        needs,
        archive: about.contains("(of the archive)"),
        feature: Some(format!("{package}/{feature}")),
    })
}

/// The value of the first line that begins with a key, without its quotes.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.split('=').next().is_some_and(|word| word.trim() == key))?;
    Some(line.split_once('=')?.1.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_declared_targets() {
        let manifest = r#"
[package]
name = "flotilla-some"

[[test]]
# machines boot
name = "lab"
required-features = ["lab"]

[[test]]
name = "simulated"

[[test]]
# what is quick
name = "quick"

[[test]]
# as an ordinary user (image = user)
name = "dev"
required-features = ["lab"]

[[test]]
name = "etcd"
required-features = ["etcd-tests"]

[dependencies]
name = "not a target"
"#;
        let found = declared(manifest);
        let names: Vec<&str> = found.iter().map(|target| target.name.as_str()).collect();
        assert_eq!(names, ["lab", "quick", "dev", "etcd"]);
        assert_eq!(found[0].about, "machines boot");
        let needs: Vec<Needs> = found.iter().map(|target| target.needs).collect();
        assert_eq!(needs, [Needs::Lab, Needs::Nothing, Needs::UserLab, Needs::Etcd]);
        assert_eq!(found[1].arguments(), ["--test", "quick"]);
        assert_eq!(found[3].arguments(), ["--features", "flotilla-some/etcd-tests", "--test", "etcd"]);
    }

    #[test]
    fn the_real_manifests_are_understood() {
        let targets = all().unwrap();
        assert!(targets.iter().any(|target| target.name == "lab" && target.needs == Needs::Lab));
        let of_the_archive: Vec<&Target> = targets.iter().filter(|target| target.archive).collect();
        assert!(matches!(of_the_archive.as_slice(), [one] if one.name == "install"), "{of_the_archive:?}");
        assert!(features().unwrap().contains("flotilla-integration-tests/lab"));
    }
}
