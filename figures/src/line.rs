//! The lines of a samples file: a JSON object each, which says in `line` what it is.
//!
//! | `line` | fields |
//! | --- | --- |
//! | `run` | the first one of a run: `bench` (`placement`, `scale`, `start`, ...), its size (`machines`, `units`, `kind`) where the whole run has one, `simulated` if its machines are, and what [`Facts`] has |
//! | `result` | a figure: [`Figure`] |
//! | `failed` | `why` the run ended before its end; what was measured until then is there |
//! | `sample` | whatever the benchmark saw at one moment; its own sources say what. Not kept in the repository |
//!
//! A run's lines follow its `run`; a file may have many runs, and benchmarks add to the end of it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use serde::{Deserialize, Deserializer, Serialize};

use crate::facts::Facts;

/// A line that the page is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum Line {
    /// A run begins.
    Run(Run),
    /// A figure of it.
    Result(Figure),
    /// It did not come to its end.
    Failed(Failed),
    /// Something for whoever looks closer.
    #[serde(other)]
    Other,
}

/// What a run is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Which benchmark.
    pub bench: String,
    /// How many machines, if the whole run has so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machines: Option<u64>,
    /// How many units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<u64>,
    /// What its units ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Whether its machines are simulated, all of them on one computer.
    #[serde(default)]
    pub simulated: bool,
    /// What it was done with.
    #[serde(flatten)]
    pub facts: Facts,
}

/// One figure.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is of; those that the page looks for are in [`crate::what`].
    pub what: String,
    /// The figure, a median if it is one of several; `null` is what could not be measured.
    #[serde(deserialize_with = "number")]
    pub value: f64,
    /// Its unit of measure.
    pub unit: String,
    /// The least of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least: Option<f64>,
    /// The most of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<f64>,
    /// How many they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<u64>,
    /// What it is to be, if that is demanded of a run of this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<f64>,
    /// Whether the goal is the least; else it is the most.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
    /// How many machines, where the run has several sizes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machines: Option<u64>,
    /// How many units, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<u64>,
    /// What the units ask for, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// Why a run has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    /// In the benchmark's words.
    pub why: String,
}

/// JSON has no word for what is no number.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// Writes lines, if a file for them is wanted.
#[derive(Debug)]
pub struct Recorder(Option<File>);

impl Recorder {
    /// Begins a run at the end of a file. Call it before anything is measured, so that a bad name is told at once.
    pub fn begin(path: Option<&Path>, run: &Run) -> io::Result<Self> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        let mut recorder = Self(path.map(open).transpose()?);
        recorder.write("run", run)?;
        Ok(recorder)
    }

    /// Adds a line of a kind.
    pub fn write(&mut self, line: &str, value: &impl Serialize) -> io::Result<()> {
        #[derive(Serialize)]
        struct Named<'a, T> {
            line: &'a str,
            #[serde(flatten)]
            value: &'a T,
        }
        let Some(file) = &mut self.0 else { return Ok(()) };
        let mut text = serde_json::to_string(&Named { line, value })?;
        text.push('\n');
        // At once, so that a run that is killed leaves whole lines.
        file.write_all(text.as_bytes())
    }

    /// Adds how a run ended that did not come to its end.
    pub fn failed(&mut self, why: impl Into<String>) -> io::Result<()> {
        self.write("failed", &Failed { why: why.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_added_to_a_file_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.jsonl");
        let run = Run { bench: "scale".into(), machines: Some(10), simulated: true, ..Run::default() };
        let figure = Figure {
            what: "all active".into(),
            value: 1.5,
            unit: "s".into(),
            goal: Some(2.0),
            ..Figure::default()
        };
        for _ in 0..2 {
            let mut recorder = Recorder::begin(Some(&path), &run).unwrap();
            recorder.write("sample", &serde_json::json!({ "at": 1 })).unwrap();
            recorder.write("result", &figure).unwrap();
            recorder.failed("etcd ended").unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let one = [
            Line::Run(run),
            Line::Other,
            Line::Result(figure),
            Line::Failed(Failed { why: "etcd ended".into() }),
        ];
        assert_eq!(lines, [one.clone(), one].concat());
    }

    #[test]
    fn what_is_no_number_is_written_and_read_as_none() {
        let figure = Figure { value: f64::NAN, ..Figure::default() };
        let text = serde_json::to_string(&figure).unwrap();
        assert!(serde_json::from_str::<Figure>(&text).unwrap().value.is_nan(), "{text}");
    }

    #[test]
    fn nothing_is_written_where_no_file_is_wanted() {
        Recorder::begin(None, &Run::default()).unwrap().write("result", &Figure::default()).unwrap();
    }
}
