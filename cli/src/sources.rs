//! Which files the words of a command mean.
//!
//! A unit's file lies where the word says, else in the current folder, as fleetctl looked for it: `start hello`
//! finds `./hello.service`, `start web@1` the template `./web@.service`, and a link to a template means that
//! instance, as in a folder that is applied. Whatever the cluster has already is stronger than a file, which
//! the cluster itself says when it is given one. This module looks at files and asks nobody.

use std::{
    fs,
    path::{Path, PathBuf},
};

use flotilla_units::{UnitName, UnitRange};

use crate::{
    exit::{Exit, Failure},
    selector::{is_glob, mangle},
};

/// What words name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// Files to be given to the cluster.
    pub(crate) files: Vec<PathBuf>,
    /// The units that are meant, and patterns; not templates whose files are given beside their instances.
    pub(crate) units: Vec<String>,
    /// Those of the units of which there is neither a file nor a template's.
    pub(crate) without_file: Vec<String>,
}

/// Ranges of instances among words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// The ranges.
    pub(crate) ranges: Vec<UnitRange>,
    /// The files of their templates.
    pub(crate) files: Vec<PathBuf>,
    /// The other words.
    pub(crate) others: Vec<String>,
}

/// Tells unit files from units, where unit files may be named.
///
/// A word with a folder in it names a file, or an instance whose template is beside it: a path at which there
/// is neither was mistyped, and must not be taken for the unit of that name that the cluster has already. A
/// template's file beside instances was named to be submitted; alone it is ordered, for the answer that says why
/// it cannot be.
pub(crate) fn named(words: &[String]) -> anyhow::Result<Named> {
    let (mut found, mut templates) = (Named::default(), Vec::new());
    for word in words {
        let is_path = word.contains('/');
        if is_glob(word) && !is_path {
            found.units.push(word.clone());
            continue;
        }
        let unit = mangle(word);
        let name: Option<UnitName> = unit.parse().ok();
        // Its type may have been left out of the word, not of the file's name.
        let path = match &name {
            Some(name) => Path::new(word).with_file_name(name.as_str()),
            None => PathBuf::from(word),
        };
        match file_of(&path, name.as_ref()) {
            Some(file) => {
                // Instances share their template.
                if !found.files.contains(&file) {
                    found.files.push(file);
                }
                if name.is_some_and(|name| name.is_template()) {
                    templates.push(unit);
                    continue;
                }
            }
            None if is_path => {
                let beside = name.as_ref().and_then(UnitName::template);
                let beside = beside.map(|template| path.with_file_name(template.as_str()));
                let beside = beside.map(|path| format!(", nor its template {}", path.display()));
                anyhow::bail!(
                    "there is no file {}{}; to mean the unit that the cluster has, leave the folder out",
                    path.display(),
                    beside.unwrap_or_default()
                );
            }
            None => found.without_file.push(unit.clone()),
        }
        found.units.push(unit);
    }
    if found.units.is_empty() {
        found.units = templates;
    }
    Ok(found)
}

/// Tells ranges of instances from other words, with the files of their templates, looked for as those of
/// instances are.
pub(crate) fn ranges(words: &[String]) -> anyhow::Result<Ranges> {
    let mut found = Ranges::default();
    for word in words {
        if !UnitRange::is_meant_by(word) {
            found.others.push(word.clone());
            continue;
        }
        let path = Path::new(word);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or(word);
        let range: UnitRange = name.parse().map_err(|e| Failure::error(Exit::Usage, format!("{e}")))?;
        let file = path.with_file_name(range.template().as_str());
        match file.is_file() {
            true if !found.files.contains(&file) => found.files.push(file),
            false if word.contains('/') => anyhow::bail!(
                "there is no file {}, the template of {range}; to mean the template that the cluster has, leave the \
                 folder out",
                file.display()
            ),
            _ => {}
        }
        found.ranges.push(range);
    }
    Ok(found)
}

/// Returns the file that has a unit's text: its own, or that of its template beside it.
fn file_of(path: &Path, name: Option<&UnitName>) -> Option<PathBuf> {
    let template = name.and_then(UnitName::template);
    let Some(template) = template else { return path.is_file().then(|| path.to_owned()) };
    let beside = path.with_file_name(template.as_str());
    if !path.is_file() {
        return beside.is_file().then_some(beside);
    }
    // A link to its template, or a copy of it, says nothing but that the instance is meant. With a text of its own
    // it is refused where it is submitted, with the reason.
    if beside.is_file() && same(path, &beside) {
        return Some(beside);
    }
    let target = fs::canonicalize(path).ok()?;
    let is_template = target.file_name().is_some_and(|name| name == template.as_str());
    Some(if is_template { target } else { path.to_owned() })
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((fs::read(one), fs::read(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a unit, a template, links to it, an instance with a text of its own, and a program that is
    /// called as the unit.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("hello.service", "[Service]\nExecStart=/bin/true\n");
        write("hello", "#!/bin/sh\n");
        write("web@.service", "[Service]\nExecStart=/bin/true\n");
        write("web@copy.service", "[Service]\nExecStart=/bin/true\n");
        write("web@own.service", "[Service]\nExecStart=/bin/false\n");
        fs::create_dir(folder.path().join("far")).unwrap();
        write("far/db@.service", "[Service]\nExecStart=/bin/true\n");
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
        link("web@.service", "web@1.service");
        link("far/db@.service", "db@1.service");
        folder
    }

    #[test]
    fn files_are_found_where_fleetctl_found_them() {
        let folder = folder();
        let found = |words: &[&str]| {
            let at = |word: &&str| folder.path().join(word).to_str().unwrap().to_owned();
            let named = named(&words.iter().map(at).collect::<Vec<_>>()).unwrap();
            let file = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            (named.files.iter().map(file).collect::<Vec<_>>().join(" "), named.units.join(" "))
        };
        for (words, files, units) in [
            (&["hello.service"][..], "hello.service", "hello.service"),
            (&["hello"], "hello.service", "hello.service"),
            // A template is submitted; alone it is ordered, for the answer that says why it cannot be.
            (&["web@.service"], "web@.service", "web@.service"),
            (&["web@.service", "web@7"], "web@.service", "web@7.service"),
            (&["web@7", "web@8.service", "web@.service"], "web@.service", "web@7.service web@8.service"),
            // A link, or a copy, means that instance.
            (&["web@1.service"], "web@.service", "web@1.service"),
            (&["web@1"], "web@.service", "web@1.service"),
            (&["web@copy.service"], "web@.service", "web@copy.service"),
            (&["db@1.service"], "db@.service", "db@1.service"),
            // It is refused where it is submitted.
            (&["web@own.service"], "web@own.service", "web@own.service"),
        ] {
            assert_eq!(found(words), (files.to_owned(), units.to_owned()), "{words:?}");
        }
    }

    #[test]
    fn what_has_no_file_is_the_clusters() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let found = named(&words(&["nothing-here", "no@.service", "no@1", "no@*"])).unwrap();
        assert_eq!(found.files, Vec::<PathBuf>::new());
        assert_eq!(found.units, words(&["nothing-here.service", "no@.service", "no@1.service", "no@*"]));
        assert_eq!(found.without_file, words(&["nothing-here.service", "no@.service", "no@1.service"]));
    }

    #[test]
    fn ranges_are_found_with_their_templates() {
        let folder = folder();
        let at = |word: &str| folder.path().join(word).to_str().unwrap().to_owned();
        let words = [at("web@{1..1000000}"), at("web@{5..6}.service"), at("hello.service")];
        let found = ranges(&words).unwrap();
        assert_eq!(found.ranges.iter().map(|range| range.len()).collect::<Vec<_>>(), [1_000_000, 2]);
        assert_eq!(
            (found.files, found.others),
            (vec![folder.path().join("web@.service")], vec![at("hello.service")])
        );
        let gone = ranges(&[at("no@{1..2}")]).expect_err("no template").to_string();
        assert!(gone.contains("no@.service, the template of no@{1..2}.service"), "{gone}");
        let plain = ranges(&["no@{1..2}".to_owned()]).unwrap();
        assert_eq!((plain.ranges.len(), plain.files.len()), (1, 0), "the cluster has it");
        let refused = ranges(&["web@{2..1}".to_owned()]).expect_err("a range").to_string();
        assert!(refused.contains("web@{2..1}") && refused.contains("{1..2}"), "{refused}");
    }

    #[test]
    fn a_mistyped_path_is_not_taken_for_a_unit() {
        let refused = |word: &str| named(&[word.to_owned()]).expect_err(word).to_string();
        assert!(refused("./nowhere/hello.service").contains("no file ./nowhere/hello.service;"));
        assert!(refused("./nowhere/hello").contains("no file ./nowhere/hello.service;"));
        let instance = refused("/nonexistent/web@1.service");
        assert!(instance.contains("nor its template /nonexistent/web@.service"), "{instance}");
        assert!(refused("./units/*.service").contains("no file ./units/*.service"), "no shell expanded it");
    }
}
