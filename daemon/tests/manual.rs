//! The manual pages name every option, variable and key that flotillad takes.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeSet, process::Command};

const DAEMON: &str = include_str!("../../docs/man/flotillad.8");
const CONFIGURATION: &str = include_str!("../../docs/man/flotilla.toml.5");

/// Returns a page's text as people read it: a minus sign is written `\-`.
fn plain(page: &str) -> String {
    page.replace("\\-", "-")
}

#[test]
fn every_option_and_variable_is_in_the_manual() {
    let output = Command::new(env!("CARGO_BIN_EXE_flotillad")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let page = plain(DAEMON);
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let words: BTreeSet<&str> = help
        .split(|c| !is_part(c))
        .filter(|word| (word.starts_with("--") && word.len() > 2) || word.starts_with("FLOTILLA_"))
        // `--tls-*` in a sentence.
        .filter(|word| !word.ends_with('-'))
        .collect();
    assert!(words.len() > 20, "{help}");
    for word in words {
        assert!(page.contains(word), "{word} is not in docs/man/flotillad.8");
    }
}

/// The daemon itself says which keys there are, when it meets one that is none.
#[test]
fn every_key_of_the_configuration_is_in_the_manual() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flotilla.toml");
    let page = plain(CONFIGURATION);
    let mut keys = BTreeSet::new();
    for table in ["", "store", "store.etcd", "store.embedded", "api", "tls"] {
        let head = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
        std::fs::write(&file, format!("{head}no-such-key = 1\n")).unwrap();
        let mut check = Command::new(env!("CARGO_BIN_EXE_flotillad"));
        let output = check.arg("check").arg("--config").arg(&file).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let expected = said.split_once("expected").unwrap_or_else(|| panic!("[{table}]: {said}")).1;
        keys.extend(expected.split('`').skip(1).step_by(2).map(str::to_owned));
        assert!(table.is_empty() || page.contains(&format!("[{table}]")), "[{table}]");
    }
    assert!(keys.len() > 15, "{keys:?}");
    for key in keys {
        assert!(page.contains(&key), "{key} is not in docs/man/flotilla.toml.5");
    }
}
