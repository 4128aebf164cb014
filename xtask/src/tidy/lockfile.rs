//! What may be in the build: crates.io only, one TLS provider.

use std::fs;

use anyhow::{Context, Result};

use super::Finding;
use crate::{
    process::{capture, cargo},
    workspace,
};

/// What the source of a package from crates.io looks like in Cargo.lock: a registry whose index has
/// this name. Where that index is, is cargo's own affair.
const REGISTRY: (&str, &str) = ("registry+", "/crates.io-index");

/// Packages that would bring a second TLS provider, with which rustls refuses to
/// guess at run time. Cargo.lock may hold them for platforms that are not built.
const NEVER_BUILT: &[&str] = &["ring", "openssl-sys", "native-tls"];

/// Checks Cargo.lock and what is built of it.
pub fn check() -> Result<Vec<Finding>> {
    let path = workspace::root().join("Cargo.lock");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut findings = foreign_sources(&text);
    let tree =
        capture(cargo().args(["tree", "--workspace", "--edges", "all", "--prefix", "none", "--locked"]))?;
    findings.extend(second_provider(&tree));
    Ok(findings)
}

fn foreign_sources(lock: &str) -> Vec<Finding> {
    let sources = lock.lines().enumerate().filter_map(|(index, line)| {
        let source = line.strip_prefix("source = ")?.trim_matches('"');
        let (kind, name) = REGISTRY;
        (!(source.starts_with(kind) && source.ends_with(name))).then(|| Finding {
            place: format!("Cargo.lock:{}", index + 1),
            message: format!("comes from {source}; only crates.io is built from"),
        })
    });
    sources.collect()
}

fn second_provider(tree: &str) -> Vec<Finding> {
    let built = |package: &&&str| tree.lines().any(|line| line.split(' ').next() == Some(**package));
    let found = NEVER_BUILT.iter().filter(built);
    found
        .map(|package| Finding {
            place: "Cargo.toml".into(),
            message: format!(
                "{package} is built; aws-lc-rs is the one provider (`cargo tree -e all -i {package}`)"
            ),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_not_from_crates_io() {
        let lock = "source = \"registry+https://example.org/crates.io-index\"\nsource = \"git+https://example.org/x\"\n\
                    source = \"registry+https://example.org/other\"\n";
        let found = foreign_sources(lock);
        let places: Vec<&str> = found.iter().map(|finding| finding.place.as_str()).collect();
        assert_eq!(places, ["Cargo.lock:2", "Cargo.lock:3"]);
    }

    #[test]
    fn finds_a_second_provider() {
        assert_eq!(second_provider("rustls v0.23.0\nring v0.17.14\n").len(), 1);
        assert!(second_provider("rustls v0.23.0\nstring v1.0.0\n").is_empty());
    }
}
