//! docs/performance.md and its pictures, made from the samples.

mod charts;
mod goals;
mod missed;
mod peers;
mod plot;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use self::{
    goals::{Bound, Goal},
    peers::Peer,
};
use crate::{
    keep,
    series::{Measure, Measures, Recorded, that_count},
};

/// The page, below the root of the project.
const PAGE: &str = "docs/performance.md";

/// Its pictures.
const PICTURES: &str = "docs/performance";

/// The instructions of the placement core, which another benchmark keeps.
const COUNTS: &str = "engine/benches/placement.counts";

/// What people found out about goals that are missed; a heading for each, which is the goal's row.
const FOUND: &str = "docs/performance/where-it-goes.md";

/// Of how many runs a goal's median is at least.
const RUNS_LEAST: u64 = 3;

/// What is true whatever was measured.
const BEGINNING: &str = include_str!("page/beginning.md");
const METHOD: &str = include_str!("page/method.md");

/// A file of the page, and what is to be in it.
pub type Files = BTreeMap<PathBuf, String>;

/// The root of the project that this was built in.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Makes the page and its pictures from what is kept below the root of the project; writes nothing.
pub fn files(root: &Path) -> Result<Files> {
    let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| format!("reading {path}"));
    let all = keep::read(root)?;
    let counts = read(COUNTS)?;
    let found = read(FOUND)?;
    let measures = Measures::of(&all);
    let charts = charts::all(&measures);
    let mut files = Files::new();
    let mut page = BEGINNING.to_owned();
    write_goals(&mut page, &measures)?;
    missed::write(&mut page, &measures, &that_count(&all), &counts, &found);
    page.push_str("\n## How it grows\n\nWith 100 units for each machine, from 10 machines to 10,000. A size that has no point was not measured.\n");
    for chart in &charts {
        write_chart(&mut page, chart);
        files.insert(root.join(PICTURES).join(chart.file), chart.plot.svg());
    }
    write_peers(&mut page);
    page.push_str(METHOD);
    write_runs(&mut page, &that_count(&all));
    write_everything(&mut page, &measures);
    files.insert(root.join(PAGE), page);
    Ok(files)
}

/// Writes what [`files`] makes.
pub fn write(root: &Path) -> Result<()> {
    for (path, text) in files(root)? {
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

impl Goal {
    /// What was measured for it.
    fn measure<'a>(&self, measures: &'a Measures) -> Option<&'a Measure> {
        measures.get(self.bench, self.size, self.kind, &self.what)
    }

    fn is_met(&self, value: f64) -> bool {
        match self.bound {
            Bound::AtLeast(least) => value >= least,
            Bound::AtMost(most) => value <= most,
        }
    }

    /// Fails if the benchmark has another goal than the page.
    fn agrees(&self, measure: &Measure) -> Result<()> {
        let ours = match self.bound {
            Bound::AtLeast(bound) => (bound, true),
            Bound::AtMost(bound) => (bound, false),
        };
        ensure!(
            measure.goal.is_none_or(|theirs| theirs == ours) && measure.unit == self.unit,
            "{}: the benchmark's goal is {:?} {}, the page's {:?} {}; see figures/src/page/goals.rs",
            self.row,
            measure.goal,
            measure.unit,
            self.bound,
            self.unit
        );
        Ok(())
    }

    fn bound(&self) -> String {
        let (sense, bound) = match self.bound {
            Bound::AtLeast(bound) => ("at least", bound),
            Bound::AtMost(bound) => ("at most", bound),
        };
        format!("{sense} {}", words::with_unit(&words::whole(bound), self.unit))
    }
}

fn write_goals(page: &mut String, measures: &Measures) -> Result<()> {
    put(
        page,
        "| what | goal | measured: median (least to most) | | beside it |\n| --- | --- | --- | --- | --- |",
    );
    let goals = goals::all();
    for goal in &goals {
        let (measured, verdict) = match goal.measure(measures) {
            None => ("not measured".to_owned(), String::new()),
            Some(measure) => {
                goal.agrees(measure)?;
                (words::measure(measure), verdict(goal, measure))
            }
        };
        let beside = |peer: &Peer| format!("{} [{}](#beside-it)", peer.row().figure, peer.number());
        let beside: Vec<String> = goal.peers.iter().map(beside).collect();
        put(
            page,
            &format!("| {} | {} | {measured} | {verdict} | {} |", goal.row, goal.bound(), beside.join("; ")),
        );
    }
    let is_unknown =
        |bench: &str, what: &str| !goals.iter().any(|goal| goal.bench == bench && goal.what == what);
    let unknown = measures.iter().find(|(key, measure)| {
        measure.goal.is_some() && key.bench != goals::START && is_unknown(&key.bench, &key.what)
    });
    ensure!(
        unknown.is_none(),
        "a benchmark has a goal that the page does not know: {unknown:?}; see figures/src/page/goals.rs"
    );
    Ok(())
}

/// The goals are of medians of three runs or more.
fn verdict(goal: &Goal, measure: &Measure) -> String {
    let met = if goal.is_met(measure.median) { "met" } else { "**missed**" };
    // How a cost grows is a quotient of two medians.
    if measure.times < RUNS_LEAST && measure.unit != "times" {
        format!("{met}, of fewer than {RUNS_LEAST} runs")
    } else {
        met.to_owned()
    }
}

fn write_chart(page: &mut String, chart: &charts::Chart) {
    put(page, &format!("\n### {}\n\n{}\n", chart.heading, chart.about));
    let sizes: BTreeSet<u64> =
        chart.plot.lines.iter().flat_map(|line| line.points.iter().map(|point| point.x as u64)).collect();
    if sizes.is_empty() {
        put(page, "Not measured.");
        return;
    }
    put(
        page,
        &format!("![{}: the figures are in the table below](performance/{})\n", chart.heading, chart.file),
    );
    let heads: String =
        sizes.iter().map(|size| format!(" {} machines |", words::whole(*size as f64))).collect();
    put(page, &format!("| |{heads}\n| --- |{}", " --- |".repeat(sizes.len())));
    for line in &chart.plot.lines {
        let cells = sizes.iter().map(|size| {
            let point = line.points.iter().find(|point| point.x as u64 == *size);
            point.map_or(" not measured |".to_owned(), |point| {
                format!(" {} |", words::figure(point.y, chart.unit))
            })
        });
        put(page, &format!("| {} |{}", line.name, cells.collect::<String>()));
    }
}

fn write_peers(page: &mut String) {
    put(
        page,
        "\n## Beside it\n\n| | what | figure | source | what is not comparable |\n| --- | --- | --- | --- | --- |",
    );
    for peer in Peer::ALL {
        let row = peer.row();
        put(
            page,
            &format!(
                "| {} | {} | {} | {} | {} |",
                peer.number(),
                row.who,
                row.figure,
                peer.source(),
                row.apart
            ),
        );
    }
}

fn write_runs(page: &mut String, all: &[&Recorded]) {
    let mut computers: BTreeMap<String, usize> = BTreeMap::new();
    for one in all {
        let facts = &one.run.facts;
        let computer = format!(
            "{}, {} cores, {} GiB of memory, Linux {}",
            known(&facts.processor),
            facts.cores,
            facts.memory.div_ceil(1024),
            known(&facts.kernel)
        );
        *computers.entry(computer).or_default() += 1;
    }
    put(page, "\n## Hardware and runs\n");
    if computers.is_empty() {
        put(page, "Nothing was measured yet.");
        return;
    }
    for (computer, runs) in computers {
        put(page, &format!("- {computer}: {runs} runs"));
    }
    put(
        page,
        "\nThe load is the average of the minute before the run: what else the computer did, or what the run before it left.\n",
    );
    put(
        page,
        "| benchmark | machines × units | when (UTC) | commit | etcd | load | |\n| --- | --- | --- | --- | --- | --- | --- |",
    );
    let mut sorted = all.to_vec();
    sorted.sort_by(|one, other| one.run.facts.at.cmp(&other.run.facts.at));
    for one in sorted {
        let (run, facts) = (&one.run, &one.run.facts);
        let size = match (run.machines, run.units) {
            (Some(machines), Some(units)) => format!(
                "{machines} × {units}{}",
                run.kind.as_ref().map_or(String::new(), |kind| format!(", {kind}"))
            ),
            _ => String::new(),
        };
        let simulated = if run.simulated { "simulated agents, one computer" } else { "" };
        let ended = one.failed.as_ref().map_or(simulated.to_owned(), |why| {
            format!("{simulated}; **did not end**: {}", why.replace(['|', '\n'], " "))
        });
        let etcd = facts.etcd.as_deref().unwrap_or_default();
        put(
            page,
            &format!(
                "| {} | {size} | {} | {} | {etcd} | {:.1} | {ended} |",
                run.bench,
                known(&facts.at),
                known(&facts.commit),
                facts.load
            ),
        );
    }
}

fn known(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

/// Every figure of every size.
fn write_everything(page: &mut String, measures: &Measures) {
    put(
        page,
        "\n## Everything that was measured\n\nMedians, with the least and the most where there are several.",
    );
    let mut last = None;
    for (key, measure) in measures.iter() {
        let head = (&key.bench, key.machines, key.units, &key.kind);
        if last != Some(head) {
            last = Some(head);
            let size = if key.units == 0 {
                String::new()
            } else {
                format!(", {} machines, {} units, {}", key.machines, key.units, key.kind)
            };
            let simulated = if key.bench == goals::SCALE { " (simulated agents, one computer)" } else { "" };
            put(
                page,
                &format!(
                    "\n**{}{size}**{simulated}\n\n| what | median | least | most | runs |\n| --- | --- | --- | --- | --- |",
                    key.bench
                ),
            );
        }
        put(
            page,
            &format!(
                "| {} | {} | {} | {} | {} |",
                key.what,
                words::figure(measure.median, &measure.unit),
                words::number(measure.least),
                words::number(measure.most),
                measure.times
            ),
        );
    }
}

fn put(page: &mut String, line: &str) {
    // Writing into a string cannot fail.
    _ = writeln!(page, "{line}");
}
