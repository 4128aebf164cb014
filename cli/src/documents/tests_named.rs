//! Every test that the page for fleet's users names is there, and every bug of fleet's that they reported
//! has its line on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const PAGE: &str = include_str!("../../../docs/coming-from-fleet.md");

const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// What fleet's users reported as wrong, hard to use or hard to run, by the numbers of fleet's issues.
const REPORTED: [&[u32]; 3] = [
    // Correctness.
    &[
        708, 1289, 1690, 1308, 1181, 1186, 1145, 373, 1361, 440, 783, 971, 723, 833, 1290, 1456, 1216, 1000,
        1400, 997, 1003, 1621, 998, 900, 1127, 1152, 1175, 615, 1241, 1346, 793, 969, 1236, 992, 1513, 1538,
        1375, 1382, 1384, 624, 1091, 1324,
    ],
    // How it is used.
    &[
        1348, 559, 964, 953, 895, 1559, 760, 914, 1691, 1508, 1118, 975, 745, 1112, 263, 1021, 1497, 710,
        107, 1072, 493, 238, 994, 995, 1680, 1480, 1687, 1228, 1582, 1227,
    ],
    // How it is run; the last two are coreos/bugs#337 and etcd#7177.
    &[1232, 1086, 1470, 288, 1190, 1210, 1360, 1156, 1004, 1074, 1323, 346, 1723, 437, 516, 337, 7177],
];

/// A file of the repository: its path from the root, and its text.
type Source = (String, String);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources() -> Vec<Source> {
    let (root, mut found) = (root(), Vec::new());
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") {
                let shown = path.strip_prefix(&root).unwrap().display().to_string();
                found.push((shown, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// Returns the function that a line begins, if it does.
fn function(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub ").or(line.strip_prefix("pub(crate) ")).unwrap_or(line);
    let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    Some(&rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_')?])
}

/// Returns the tests of a file. Those that run in the lab are rows of tables, which name functions.
fn tests((path, text): &Source) -> BTreeSet<&str> {
    let in_lab = path.starts_with("integration-tests/tests/");
    let (mut tests, mut is_test) = (BTreeSet::new(), false);
    for line in text.lines() {
        let start = line.trim_start();
        if start.starts_with("#[") {
            is_test |= start.contains("test]") || start.contains("test(");
        } else if let Some(name) = function(line) {
            if is_test || in_lab {
                tests.insert(name);
            }
            is_test = false;
        } else if !start.starts_with("//") {
            is_test = false;
        }
    }
    tests
}

/// Returns the rows about bugs: the first cell, and the others.
fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    rows.filter(|(first, _)| {
        let reported = ["#", "coreos/bugs#", "etcd#"].iter().find_map(|start| first.strip_prefix(start));
        reported.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// Tells whether a word in backquotes is the name of a test by its looks alone.
fn is_name(word: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    word.split('_').count() > 2 && word.split('_').all(is_part)
}

#[test]
fn every_test_that_the_page_for_fleets_users_names_is_there() {
    let sources = sources();
    let by_file: BTreeMap<&str, BTreeSet<&str>> =
        sources.iter().map(|source| (source.0.as_str(), tests(source))).collect();
    let all: BTreeSet<&str> = by_file.values().flatten().copied().collect();
    let (mut named, mut bad) = (BTreeSet::new(), Vec::new());
    for (first, rest) in rows() {
        let mut count = 0;
        let mut file: Option<&BTreeSet<&str>> = None;
        for word in super::quoted(rest) {
            if word.contains('/') && word.contains("tests") || word.ends_with(".rs") {
                file = by_file.get(word);
                if file.is_none() && !root().join(word).is_dir() {
                    bad.push(format!("{first}: there is no {word}"));
                }
            } else if is_name(word) || (file.is_some() && function(&format!("fn {word}(")) == Some(word)) {
                count += 1;
                named.insert(word);
                if !file.unwrap_or(&all).contains(word) {
                    bad.push(format!("{first}: there is no test {word}"));
                }
            }
        }
        if rest.starts_with("fixed") && count == 0 {
            bad.push(format!("{first}: it is said to be fixed, and no test is named"));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(named.len() > 60, "{}", named.len());
}

#[test]
fn every_bug_that_fleets_users_reported_has_its_line() {
    let numbers = |first: &'static str| {
        let after = first.split('#').skip(1);
        after.filter_map(|rest| {
            rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse::<u32>().ok()
        })
    };
    let told: BTreeSet<u32> = rows().flat_map(|(first, _)| numbers(first)).collect();
    let missing: Vec<u32> =
        REPORTED.iter().copied().flatten().copied().filter(|it| !told.contains(it)).collect();
    assert_eq!(missing, [0; 0]);
    for (first, rest) in rows() {
        let says = ["fixed", "changed", "not done"].iter().any(|word| rest.starts_with(word));
        assert!(says, "{first}: {rest}");
    }
}

/// Returns what stands in quotes right behind a piece of code, wherever that is.
fn literals_after<'a>(text: &'a str, code: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(code).skip(1).filter_map(|rest| rest.split('"').next())
}

#[test]
fn every_kind_of_event_is_in_the_operators_table() {
    let told = OPERATIONS.split_once("### What is an event").unwrap().1;
    let rows = told.lines().filter(|line| line.starts_with("| `"));
    let told: BTreeSet<&str> = rows.flat_map(|row| super::quoted(row.split(" | ").next().unwrap())).collect();
    assert!(told.len() > 40, "{told:?}");
    let ours =
        |path: &str| ["registry/src/", "engine/src/", "server/src/"].iter().any(|of| path.starts_with(of));
    let sources: Vec<Source> = sources().into_iter().filter(|(path, _)| ours(path)).collect();
    for kind in &told {
        let literal = format!("\"{kind}\"");
        assert!(sources.iter().any(|(_, text)| text.contains(&literal)), "nobody writes {kind}");
    }
    for (path, text) in &sources {
        for code in ["change(\"", ".tell(\"", "tell_because(\"", "kind: \"", "let kind = \""] {
            let is_kind = |text: &&str| text.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            for kind in literals_after(text, code).filter(is_kind) {
                assert!(told.contains(kind), "{path}: {kind} is not in docs/operations.md");
            }
        }
    }
}
