//! Reads from a Cargo.toml the one thing that tidy asks: who depends on what.
//!
//! Not a TOML parser: it knows the few shapes that Cargo manifests use, so that
//! xtask needs no dependency for it.

/// One dependency as a manifest names it.
#[derive(Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The name of the package.
    pub name: String,
    /// Used by the crate's tests only.
    pub development: bool,
    /// The line in the manifest, from 1.
    pub line: usize,
}

/// Every dependency of a manifest, of all kinds.
pub fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut found = Vec::new();
    // The kind of dependency table the lines belong to: is it for tests?
    let mut table: Option<bool> = None;
    for (index, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            let (kind, name) = kind_of(header);
            table = kind;
            if let (Some(development), Some(name)) = (kind, name) {
                found.push(Dependency { name: name.to_owned(), development, line: index + 1 });
                table = None;
            }
        } else if let (Some(development), Some(name)) = (table, name_of(line)) {
            found.push(Dependency { name: name.to_owned(), development, line: index + 1 });
        }
    }
    found
}

/// Reads `dependencies`, `dev-dependencies.NAME`, `target.'..'.dependencies`.
fn kind_of(header: &str) -> (Option<bool>, Option<&str>) {
    const KINDS: [(&str, bool); 3] =
        [("dev-dependencies", true), ("build-dependencies", false), ("dependencies", false)];
    for (word, development) in KINDS {
        if header == word || header.ends_with(&format!(".{word}")) {
            return (Some(development), None);
        }
        if let Some((before, name)) = header.split_once(&format!("{word}."))
            && (before.is_empty() || before.ends_with('.'))
        {
            return (Some(development), Some(name));
        }
    }
    (None, None)
}

fn name_of(line: &str) -> Option<&str> {
    if line.starts_with('#') {
        return None;
    }
    let key = line.split_once('=')?.0;
    let name = key.split('.').next()?.trim().trim_matches('"');
    let is_name =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    is_name.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_shape() {
        let manifest = r#"
[package]
name = "x"

[dependencies]
# zbus = "1"
anyhow.workspace = true
tokio = { workspace = true, features = ["net"] }

[dependencies.serde]
version = "1"

[target.'cfg(unix)'.dependencies]
rustix = "1"

[dev-dependencies]
axum = "1"
"#;
        let found = dependencies(manifest);
        let names: Vec<(&str, bool)> =
            found.iter().map(|found| (found.name.as_str(), found.development)).collect();
        assert_eq!(
            names,
            [("anyhow", false), ("tokio", false), ("serde", false), ("rustix", false), ("axum", true)]
        );
        assert_eq!(found[0].line, 7);
    }
}
