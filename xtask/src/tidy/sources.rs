//! What a source file looks like: its length, its first line, no leftovers.

use std::{ffi::OsStr, fs, path::Path};

use anyhow::{Context, Result};

use super::Finding;
use crate::workspace;

/// Lines of a source file; beyond it a file holds two things.
const LINES_MAX: usize = 600;

/// Words that say that something is not finished, or not meant to stay.
///
/// Written in two parts, so that this file is not found by itself.
const LEFTOVERS: &[&str] = &[
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("dbg", "!("),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("#[ig", "nore"),
];

/// Beginnings of paths that exist on one developer's machine only; where this
/// checkout is comes on top. Not `/home`, which flotilla itself has to know.
const DEVELOPER_PATHS: &[&str] =
    &[concat!("/Us", "ers/"), concat!("/wo", "rk/"), concat!("/root/.", "cargo")];

/// Tables of a Cargo configuration that send downloads somewhere else: that is
/// for the machine to say, not for the project.
const REGISTRY_TABLES: &[&str] = &["[source.", "[registries", "[registry]"];

/// Text files that are read besides Rust.
const EXTENSIONS: &[&str] = &["rs", "toml", "md", "sh", "service", "yml", "yaml", "json"];

/// Checks every text file of the project.
pub fn check() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut places: Vec<String> = DEVELOPER_PATHS.iter().map(|&place| place.to_owned()).collect();
    // A checkout in `/src` says nothing about whose machine it is.
    let root = workspace::root();
    if root.components().count() > 3 {
        places.push(root.display().to_string());
    }
    for path in workspace::files(EXTENSIONS)? {
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let relative = path.strip_prefix(workspace::root()).unwrap_or(&path).to_path_buf();
        findings.extend(developer_paths(&relative, &text, &places));
        match path.extension().and_then(OsStr::to_str) {
            Some("rs") => findings.extend(rust(&relative, &text)),
            Some("toml") => findings.extend(registries(&relative, &text)),
            _ => {}
        }
    }
    Ok(findings)
}

fn rust(path: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line: Option<usize>, message: String| {
        let place = path.display().to_string();
        let place = line.map_or(place.clone(), |line| format!("{place}:{}", line + 1));
        findings.push(Finding { place, message });
    };
    let lines = text.lines().count();
    if lines > LINES_MAX {
        find(None, format!("{lines} lines; the limit is {LINES_MAX}: divide it by what it owns"));
    }
    // Cargo takes every file in tests/ for a test, so what tests share is in folders.
    let in_tests = path.components().any(|part| part.as_os_str() == "tests");
    if path.file_name() == Some(OsStr::new("mod.rs")) && !in_tests {
        find(None, "use `name.rs` beside `name/` instead of `mod.rs`".into());
    }
    let is_root = matches!(path.file_name().and_then(OsStr::to_str), Some("lib.rs" | "main.rs"));
    if is_root && !text.starts_with("//!") {
        find(None, "starts without `//!`: say what the crate owns, never does, and who calls it".into());
    }
    for (index, line) in text.lines().enumerate() {
        if let Some(leftover) = LEFTOVERS.iter().find(|leftover| line.contains(**leftover)) {
            find(Some(index), format!("{leftover:?} is left over: finish it or take it out"));
        }
    }
    findings
}

fn developer_paths(path: &Path, text: &str, places: &[String]) -> Vec<Finding> {
    let lines = text.lines().enumerate().filter(|(_, line)| places.iter().any(|start| names(line, start)));
    lines
        .map(|(index, _)| Finding {
            place: format!("{}:{}", path.display(), index + 1),
            message: "names a path of a developer's machine; use one relative to the workspace".into(),
        })
        .collect()
}

fn registries(path: &Path, text: &str) -> Vec<Finding> {
    let named = |line: &str| REGISTRY_TABLES.iter().any(|table| line.trim_start().starts_with(table));
    let lines = text.lines().enumerate().filter(|(_, line)| named(line));
    lines
        .map(|(index, _)| Finding {
            place: format!("{}:{}", path.display(), index + 1),
            message: "names a package registry; that belongs into the machine's own Cargo configuration"
                .into(),
        })
        .collect()
}

/// Says whether the line holds an absolute path that begins so: what comes before
/// is not part of a longer path.
fn names(line: &str, start: &str) -> bool {
    let continues = |before: &str| {
        before.ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '}'))
    };
    line.match_indices(start).any(|(at, _)| !continues(&line[..at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        rust(Path::new(path), text).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn a_long_file_is_found() {
        assert!(messages("a.rs", &"x\n".repeat(LINES_MAX)).is_empty());
        assert_eq!(messages("a.rs", &"x\n".repeat(LINES_MAX + 1)).len(), 1);
    }

    #[test]
    fn leftovers_are_found_with_their_line() {
        let text = format!("fn a() {{\n    {}x)\n}}\n", LEFTOVERS[2]);
        let found = messages("a.rs", &text);
        assert!(found[0].starts_with("a.rs:2: "), "{found:?}");
    }

    #[test]
    fn roots_say_what_they_are() {
        assert_eq!(messages("src/lib.rs", "mod a;\n").len(), 1);
        assert!(messages("src/lib.rs", "//! Owns a.\n").is_empty());
        assert_eq!(messages("src/a/mod.rs", "").len(), 1);
        assert!(messages("tests/a/mod.rs", "").is_empty());
    }

    #[test]
    fn absolute_paths_are_told_from_relative_ones() {
        let home = DEVELOPER_PATHS[0];
        let found = |line: &str| developer_paths(Path::new("a.md"), line, &[home.to_owned()]).len();
        assert_eq!(found(&format!("cd {home}me/flotilla")), 1);
        assert_eq!(found(&format!("see docs{home}page")), 0);
    }
}
