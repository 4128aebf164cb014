//! The samples that the page is made of, kept in the repository: figures and facts, not every moment.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    line::{Failed, Line},
    series::{self, Recorded, that_count},
};

/// Where they are, below the root of the project; a file for each benchmark.
const FOLDER: &str = "docs/performance/samples";

/// Reads all that are kept.
pub fn read(root: &Path) -> Result<Vec<Recorded>> {
    let mut all = Vec::new();
    for path in files(root)? {
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        all.extend(series::read(&text).with_context(|| format!("reading {}", path.display()))?);
    }
    Ok(all)
}

/// Adds the runs of a samples file to those that are kept, and lets those go that say nothing any more. A run that is
/// kept already is not added again. Returns how many are new.
pub fn take(root: &Path, from: &Path) -> Result<usize> {
    let text = fs::read_to_string(from).with_context(|| format!("reading {}", from.display()))?;
    let new = series::read(&text).with_context(|| format!("reading {}", from.display()))?;
    let mut all = read(root)?;
    let before = all.len();
    for run in new {
        if !all.contains(&run) {
            all.push(run);
        }
    }
    let added = all.len() - before;
    let mut texts: BTreeMap<&str, String> = BTreeMap::new();
    for one in that_count(&all) {
        one.write(texts.entry(&one.run.bench).or_default())?;
    }
    for path in files(root)? {
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    for (bench, text) in texts {
        let path = root.join(FOLDER).join(format!("{bench}.jsonl"));
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(added)
}

impl Recorded {
    fn write(&self, text: &mut String) -> Result<()> {
        let mut put = |line: Line| -> Result<()> {
            text.push_str(&serde_json::to_string(&line)?);
            text.push('\n');
            Ok(())
        };
        put(Line::Run(self.run.clone()))?;
        self.figures.iter().try_for_each(|figure| put(Line::Result(figure.clone())))?;
        self.failed.iter().try_for_each(|why| put(Line::Failed(Failed { why: why.clone() })))
    }
}

/// The files, in order of their names.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    let entries = fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::{Figure, Recorder, Run};

    #[test]
    fn a_run_is_kept_once_and_until_a_later_commit_says_the_same() {
        let root = tempfile::tempdir().unwrap();
        let new = root.path().join("new.jsonl");
        let mut run = Run { bench: "scale".into(), ..Run::default() };
        run.facts.commit = "a".into();
        run.facts.at = "1".into();
        let mut recorder = Recorder::begin(Some(&new), &run).unwrap();
        recorder.write("sample", &serde_json::json!({ "at": 0.2 })).unwrap();
        recorder.write("result", &Figure { what: "x".into(), ..Figure::default() }).unwrap();
        assert_eq!(take(root.path(), &new).unwrap(), 1);
        assert_eq!(take(root.path(), &new).unwrap(), 0);
        let kept = fs::read_to_string(root.path().join(FOLDER).join("scale.jsonl")).unwrap();
        assert_eq!(kept.lines().count(), 2, "{kept}");

        run.facts.commit = "b".into();
        run.facts.at = "2".into();
        let mut recorder = Recorder::begin(Some(&new), &run).unwrap();
        recorder.write("result", &Figure { what: "x".into(), ..Figure::default() }).unwrap();
        take(root.path(), &new).unwrap();
        let kept = read(root.path()).unwrap();
        assert_eq!(kept.iter().map(|one| one.run.facts.commit.as_str()).collect::<Vec<_>>(), ["b"]);
    }
}
