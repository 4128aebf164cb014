//! Keeps the crates pointing the way ARCHITECTURE.md draws them.

use std::fs;

use anyhow::{Context, Result};

use super::{
    Finding,
    manifest::{Dependency, dependencies},
};
use crate::{
    process::{capture, cargo},
    workspace,
};

/// Which crates of the workspace a crate may use, by folder.
const MAY_USE: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("registry", &["units"]),
    ("api", &["units"]),
    ("engine", &["units", "registry", "api", "figures"]),
    ("agent", &["units", "registry", "api"]),
    ("server", &["units", "registry", "api", "engine", "agent"]),
    ("daemon", &["units", "registry", "api", "engine", "agent", "server"]),
    ("cli", &["units", "api"]),
    ("lab", &[]),
    ("figures", &[]),
    ("integration-tests", &["units", "registry", "api", "engine", "agent", "server", "lab", "figures"]),
    ("xtask", &[]),
];

/// Which crate alone may name a package, by folder: the place where all that was
/// learnt about it is kept.
const ONLY: &[(&str, &str)] =
    &[("etcd-client", "registry"), ("zbus", "agent"), ("axum", "server"), ("reqwest", "api")];

/// Who else may name a package of [`ONLY`]: a benchmark's baseline is systemd without any of flotilla.
const ALSO: &[(&str, &str)] = &[("zbus", "integration-tests")];

/// What may not be in the dependency tree of flotctl, which is copied to people's
/// own computers.
const NEVER_IN_FLOTCTL: &[&str] = &["zbus", "etcd-client", "axum", "redb"];

/// Checks every manifest, and the resolved tree of flotctl.
pub fn check() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for folder in workspace::MEMBERS {
        let path = workspace::root().join(folder).join("Cargo.toml");
        let manifest = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        for dependency in dependencies(&manifest) {
            findings.extend(judge(folder, &dependency));
        }
    }
    let tree = capture(cargo().args([
        "tree",
        "--package",
        "flotctl",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--locked",
    ]))?;
    findings.extend(judge_tree(&tree));
    Ok(findings)
}

fn judge(folder: &str, dependency: &Dependency) -> Option<Finding> {
    let name = dependency.name.as_str();
    let place = format!("{folder}/Cargo.toml:{}", dependency.line);
    if let Some((_, owner)) = ONLY.iter().find(|(package, owner)| *package == name && *owner != folder)
        && !ALSO.contains(&(name, folder))
    {
        return Some(Finding {
            place,
            message: format!("only {owner} may use {name}: go through its types"),
        });
    }
    let target = folder_of(name)?;
    let allowed = MAY_USE.iter().find(|(user, _)| *user == folder).map_or(&[][..], |(_, used)| used);
    // A crate's tests may use the lab's side of the workspace no more than it may.
    if target == folder || allowed.contains(&target) {
        return None;
    }
    let message = format!("{folder} may not use {target}: see the drawing of the crates in ARCHITECTURE.md");
    Some(Finding { place, message })
}

/// The folder of a package of this workspace.
fn folder_of(package: &str) -> Option<&'static str> {
    let folder = match package {
        "flotillad" => "daemon",
        "flotctl" => "cli",
        other => other.strip_prefix("flotilla-").unwrap_or(other),
    };
    workspace::MEMBERS.iter().copied().find(|member| *member == folder)
}

fn judge_tree(tree: &str) -> Vec<Finding> {
    let named = |package: &&&str| tree.lines().any(|line| line.split(' ').next() == Some(**package));
    let found = NEVER_IN_FLOTCTL.iter().filter(named);
    found
        .map(|package| Finding {
            place: "cli/Cargo.toml".into(),
            message: format!(
                "flotctl pulls in {package}; see `cargo tree -p flotctl -e normal -i {package}`"
            ),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(name: &str) -> Dependency {
        Dependency { name: name.into(), development: false, line: 1 }
    }

    #[test]
    fn engine_and_agent_never_see_each_other() {
        assert!(judge("engine", &on("flotilla-agent")).is_some());
        assert!(judge("agent", &on("flotilla-engine")).is_some());
        assert!(judge("engine", &on("flotilla-registry")).is_none());
    }

    #[test]
    fn one_crate_owns_a_package() {
        assert!(judge("engine", &on("etcd-client")).is_some());
        assert!(judge("registry", &on("etcd-client")).is_none());
        assert!(judge("engine", &on("tokio")).is_none());
    }

    #[test]
    fn every_member_has_its_row_and_uses_nothing_that_uses_it() {
        for member in workspace::MEMBERS {
            let (_, used) = MAY_USE.iter().find(|(user, _)| user == member).unwrap();
            for other in *used {
                let (_, back) = MAY_USE.iter().find(|(user, _)| user == other).unwrap();
                assert!(!back.contains(member), "{member} and {other} use each other");
            }
        }
    }

    #[test]
    fn the_tree_of_flotctl_is_searched_by_package() {
        assert_eq!(judge_tree("flotctl v0.1.0\nzbus v6.2.0 (*)\n").len(), 1);
        assert!(judge_tree("flotctl v0.1.0\nzbus_names v4.0.0\n").is_empty());
    }
}
