//! Runs as they were recorded, and what they say together of each figure.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

use crate::line::{Figure, Line, Run};

/// One run of a benchmark.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// What it is.
    pub run: Run,
    /// What it measured.
    pub figures: Vec<Figure>,
    /// Why it did not come to its end, if it did not.
    pub failed: Option<String>,
}

/// What a figure is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The benchmark.
    pub bench: String,
    /// Machines; 0 where a size says nothing.
    pub machines: u64,
    /// Units, likewise.
    pub units: u64,
    /// What the units ask for; empty where it says nothing.
    pub kind: String,
    /// The figure's name.
    pub what: String,
}

/// What all runs that count say of one figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// The median of the runs.
    pub median: f64,
    /// The least that was seen.
    pub least: f64,
    /// The most that was seen.
    pub most: f64,
    /// How often it was measured.
    pub times: u64,
    /// Its unit of measure.
    pub unit: String,
    /// The goal that the benchmark holds it against, and whether that is the least.
    pub goal: Option<(f64, bool)>,
}

/// All figures.
#[derive(Debug, Default)]
pub struct Measures(BTreeMap<Key, Measure>);

/// Reads the runs of a samples file.
pub fn read(text: &str) -> Result<Vec<Recorded>> {
    let mut all: Vec<Recorded> = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line: Line = serde_json::from_str(line).with_context(|| format!("line {}", number + 1))?;
        match (line, all.last_mut()) {
            (Line::Run(run), _) => all.push(Recorded { run, figures: Vec::new(), failed: None }),
            (Line::Other, _) => {}
            (Line::Result(figure), Some(last)) => last.figures.push(figure),
            (Line::Failed(failed), Some(last)) => last.failed = Some(failed.why),
            (_, None) => bail!("line {} belongs to no run: a file begins with the line `run`", number + 1),
        }
    }
    Ok(all)
}

impl Recorded {
    fn key(&self, figure: &Figure) -> Key {
        Key {
            bench: self.run.bench.clone(),
            machines: figure.machines.or(self.run.machines).unwrap_or(0),
            units: figure.units.or(self.run.units).unwrap_or(0),
            kind: figure.kind.clone().or_else(|| self.run.kind.clone()).unwrap_or_default(),
            what: figure.what.clone(),
        }
    }
}

/// Returns the runs that say something which no later commit says as well. Figures of two versions are never mixed.
pub fn that_count(all: &[Recorded]) -> Vec<&Recorded> {
    let newest = newest(all);
    let is_used = |one: &&Recorded| {
        one.figures.iter().any(|figure| newest.get(&one.key(figure)) == Some(&one.run.facts.commit.as_str()))
            // A run that gave nothing at all is told of until its commit is gone.
            || (one.failed.is_some() && newest.values().any(|commit| *commit == one.run.facts.commit))
    };
    all.iter().filter(is_used).collect()
}

/// The commit whose runs speak for a figure: that of the last one.
fn newest(all: &[Recorded]) -> BTreeMap<Key, &str> {
    let mut sorted: Vec<&Recorded> = all.iter().collect();
    sorted.sort_by(|one, other| one.run.facts.at.cmp(&other.run.facts.at));
    let of = |one: &&Recorded| -> Vec<Key> { one.figures.iter().map(|figure| one.key(figure)).collect() };
    sorted
        .iter()
        .flat_map(|one| of(one).into_iter().map(|key| (key, one.run.facts.commit.as_str())))
        .collect()
}

impl Measures {
    /// Puts together what the runs say.
    pub fn of(all: &[Recorded]) -> Self {
        let newest = newest(all);
        let mut found: BTreeMap<Key, Vec<&Figure>> = BTreeMap::new();
        for one in all {
            for figure in &one.figures {
                let key = one.key(figure);
                if newest.get(&key) == Some(&one.run.facts.commit.as_str()) {
                    found.entry(key).or_default().push(figure);
                }
            }
        }
        Self(found.into_iter().filter_map(|(key, figures)| Some((key, Measure::of(&figures)?))).collect())
    }

    /// One of them.
    pub fn get(&self, bench: &str, size: (u64, u64), kind: &str, what: &str) -> Option<&Measure> {
        self.0.get(&Key {
            bench: bench.to_owned(),
            machines: size.0,
            units: size.1,
            kind: kind.to_owned(),
            what: what.to_owned(),
        })
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Measure)> {
        self.0.iter()
    }

    /// The sizes at which a benchmark was run: machines and units.
    pub fn sizes(&self, bench: &str) -> BTreeSet<(u64, u64)> {
        self.0.keys().filter(|key| key.bench == bench).map(|key| (key.machines, key.units)).collect()
    }
}

impl Measure {
    fn of(figures: &[&Figure]) -> Option<Self> {
        let last = figures.last()?;
        let mut values: Vec<f64> = figures.iter().map(|figure| figure.value).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        let least = figures.iter().map(|figure| figure.least.unwrap_or(figure.value));
        let most = figures.iter().map(|figure| figure.most.unwrap_or(figure.value));
        Some(Self {
            median,
            least: least.fold(f64::NAN, f64::min),
            most: most.fold(f64::NAN, f64::max),
            times: figures.iter().map(|figure| figure.runs.unwrap_or(1)).sum(),
            unit: last.unit.clone(),
            goal: last.goal.map(|goal| (goal, last.at_least)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Facts;

    fn run(at: &str, commit: &str, what: &str, value: f64) -> Recorded {
        let facts = Facts { at: at.into(), commit: commit.into(), ..Facts::default() };
        let run =
            Run { bench: "scale".into(), machines: Some(10), units: Some(1_000), facts, ..Run::default() };
        let figure = Figure { what: what.into(), value, unit: "s".into(), ..Figure::default() };
        Recorded { run, figures: vec![figure], failed: None }
    }

    fn get(all: &[Recorded], what: &str) -> Measure {
        Measures::of(all).get("scale", (10, 1_000), "", what).unwrap().clone()
    }

    #[test]
    fn several_runs_are_one_figure_with_its_spread() {
        let all = [run("1", "a", "x", 3.0), run("2", "a", "x", 1.0), run("3", "a", "x", 2.0)];
        let found = get(&all, "x");
        assert_eq!((found.median, found.least, found.most, found.times), (2.0, 1.0, 3.0, 3));
        assert_eq!(that_count(&all).len(), 3);
    }

    #[test]
    fn a_later_commit_speaks_alone() {
        let all = [run("3", "b", "x", 9.0), run("1", "a", "x", 3.0), run("2", "a", "y", 1.0)];
        assert_eq!((get(&all, "x").median, get(&all, "y").median), (9.0, 1.0));
        let count: Vec<_> = that_count(&all).iter().map(|one| one.run.facts.at.as_str()).collect();
        assert_eq!(count, ["3", "2"]);
    }

    #[test]
    fn what_could_not_be_measured_is_no_number() {
        assert!(get(&[run("1", "a", "x", f64::NAN)], "x").median.is_nan());
    }

    #[test]
    fn a_file_begins_with_a_run() {
        assert!(read(r#"{"line":"failed","why":"x"}"#).is_err());
        assert!(read("\n").unwrap().is_empty());
    }
}
