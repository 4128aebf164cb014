//! Has every row measured, and prints what came of it beside the goals.

use std::{
    env, fmt,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use flotilla_figures::{
    facts::Facts,
    line::{Recorder, Run},
};

use crate::{
    figures,
    goals::{self, GROWTH, Goal, SIZES},
    row,
    samples::{Measured, Row, Sample, Spread},
    workloads::{Event, Failed, Kind},
};

/// What the user asked for.
#[derive(Default)]
pub struct Request {
    check: bool,
    samples: Option<String>,
    only: String,
}

/// One row, measured.
pub struct Measurements {
    pub row: Row,
    pub samples: Vec<Sample>,
}

impl Request {
    pub fn parse(words: &[String]) -> Result<Self, Failed> {
        let mut request = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().cloned().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--check" => request.check = true,
                "--samples" => request.samples = Some(value()?),
                "--only" => request.only = value()?,
                other => return Err(format!("table takes no {other:?}; --help says what it takes").into()),
            }
        }
        Ok(request)
    }
}

/// Measures, prints, and judges where that is asked for.
pub fn run(request: Request) -> Result<ExitCode, Failed> {
    let start = Instant::now();
    let rows = SIZES
        .into_iter()
        .flat_map(|(machines, units)| Kind::ALL.map(|kind| Row { kind: kind.to_string(), machines, units }));
    let rows: Vec<Row> = rows.filter(|row| row.to_string().contains(&request.only)).collect();
    // Opened before anything is measured, so that a bad name is told at once.
    let about = Run { bench: "placement".into(), facts: Facts::gather(None), ..Run::default() };
    let mut recorder = Recorder::begin(request.samples.as_deref().map(Path::new), &about)?;
    let count = rows.len();
    let mut all = Vec::with_capacity(count);
    for (at, row) in rows.into_iter().enumerate() {
        eprintln!("[{}/{count}] {row}", at + 1);
        let samples = measure(&row)?;
        for sample in &samples {
            recorder.write("sample", sample)?;
        }
        all.push(Measurements { row, samples });
    }
    for figure in all.iter().flat_map(figures::of).chain(figures::growth(&all)) {
        recorder.write("result", &figure)?;
    }
    println!("The placement core alone: one thread, no store, no network. Medians (least to most).\n");
    let mut goals = print_filling(&all);
    print_events(&all);
    goals.extend(print_growth(&all));
    println!("\nmeasured in {:.0} s", start.elapsed().as_secs_f64());
    let missed: Vec<&Goal> = goals.iter().filter(|goal| !goal.is_met()).collect();
    for goal in &missed {
        println!("missed: {}: {:.2} of the goal", goal.row, goal.ratio);
    }
    Ok(if request.check && !missed.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Measures a row in a process of its own.
fn measure(row: &Row) -> Result<Vec<Sample>, Failed> {
    let mut command = Command::new(env::current_exe()?);
    command.args([row::COMMAND, &row.kind, &row.machines.to_string(), &row.units.to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or("a pipe has two ends")?;
    let mut samples = Vec::new();
    for line in BufReader::new(output).lines() {
        samples.push(serde_json::from_str(&line?)?);
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("{row}: measuring ended with {status}").into());
    }
    Ok(samples)
}

impl Measurements {
    pub fn spread(&self, value: impl Fn(&Measured) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.samples.iter().filter_map(|sample| value(&sample.measured)))
    }

    /// Nanoseconds for each unit, from empty.
    pub fn each(&self, of: impl Fn(u64, u64) -> u64) -> Option<Spread> {
        self.spread(|measured| match measured {
            Measured::FromEmpty { told_ns, decided_ns } => {
                Some(of(*told_ns, *decided_ns) as f64 / f64::from(self.row.units))
            }
            _ => None,
        })
    }

    pub fn event(&self, of: Event) -> Option<Spread> {
        self.spread(|measured| match measured {
            Measured::Event { event, ns, .. } if *event == of.to_string() => Some(*ns as f64),
            _ => None,
        })
    }

    /// Bytes at its peak.
    pub fn memory(&self) -> Option<Spread> {
        self.spread(|measured| match measured {
            Measured::Memory { bytes } => Some(*bytes as f64),
            _ => None,
        })
    }

    /// How many units an event moved, or placed.
    fn units_of(&self, of: Event) -> u64 {
        let decided = self.spread(|measured| match measured {
            Measured::Event { event, decisions, .. } if *event == of.to_string() => Some(*decisions as f64),
            _ => None,
        });
        decided.map_or(0, |decided| decided.median as u64 / if of == Event::UnitAdded { 1 } else { 2 })
    }
}

fn print_filling(all: &[Measurements]) -> Vec<Goal> {
    println!("From empty: all units told and placed.\n");
    println!(
        "{:>8} {:>9} {:<17} {:>12} {:>25} {:>8} {:>9} {:>8}  goal",
        "machines", "units", "kind", "placements/s", "least to most", "ns told", "+ decided", "MiB"
    );
    let mut goals = Vec::new();
    for it in all {
        let Row { kind, machines, units } = &it.row;
        let Some(each) = it.each(|told, decided| told + decided) else { continue };
        let rate = |ns: f64| 1e9 / ns;
        let told = it.each(|told, _| told).map_or(0.0, |told| told.median);
        let decided = it.each(|_, decided| decided).map_or(0.0, |decided| decided.median);
        let memory = it.memory();
        let mut goal_text = String::new();
        if let Some(least) = goals::rate(kind, *machines, *units) {
            let goal = Goal::at_least(it.row.to_string(), rate(each.median), least);
            goal_text = format!("{} {}", Grouped(least), Judged(&goal));
            goals.push(goal);
        }
        let spread = format!("{} to {}", Grouped(rate(each.most)), Grouped(rate(each.least)));
        println!(
            "{machines:>8} {units:>9} {kind:<17} {:>12} {spread:>25} {told:>8.0} {decided:>9.0} {:>8.1}  {goal_text}",
            Grouped(rate(each.median)).to_string(),
            memory.map_or(0.0, |memory| memory.median) / f64::from(1 << 20),
        );
    }
    goals
}

fn print_events(all: &[Measurements]) {
    println!("\nOn a full cluster: from what happened to the last decision that follows.\n");
    println!(
        "{:>8} {:>9} {:<17} {:>24} {:>28} {:>30} {:>28}",
        "machines",
        "units",
        "kind",
        "one unit added",
        "a machine lost (units)",
        "one with 1 % lost (units)",
        "metadata changed (units)"
    );
    for it in all {
        let Row { kind, machines, units } = &it.row;
        let cell = |event: Event, with_units: bool| {
            let Some(spread) = it.event(event) else { return String::new() };
            let moved = if with_units { format!(" ({})", it.units_of(event)) } else { String::new() };
            format!("{} ({} to {}){moved}", Took(spread.median), Took(spread.least), Took(spread.most))
        };
        println!(
            "{machines:>8} {units:>9} {kind:<17} {:>24} {:>28} {:>30} {:>28}",
            cell(Event::UnitAdded, false),
            cell(Event::MachineLost, true),
            cell(Event::HundredthLost, true),
            cell(Event::MetadataChanged, true),
        );
    }
}

/// How the cost of one placement grows from a hundred machines to ten thousand.
pub struct Growth {
    pub kind: Kind,
    /// Whether it is of one unit more in a full cluster, and not of all from empty.
    pub adding: bool,
    pub small: Spread,
    pub large: Spread,
}

impl Growth {
    pub fn times(&self) -> f64 {
        self.large.median / self.small.median
    }

    /// Of all kinds that were measured at both sizes.
    pub fn of(all: &[Measurements]) -> Vec<Self> {
        let (from, to, _) = GROWTH;
        let find = |kind: Kind, size: (u32, u32)| {
            let mut rows = all.iter();
            rows.find(|it| it.row.kind == kind.to_string() && (it.row.machines, it.row.units) == size)
        };
        let mut found = Vec::new();
        for kind in Kind::ALL {
            let (Some(small), Some(large)) = (find(kind, from), find(kind, to)) else { continue };
            let filling =
                small.each(|told, decided| told + decided).zip(large.each(|told, decided| told + decided));
            let adding = small.event(Event::UnitAdded).zip(large.event(Event::UnitAdded));
            for (adding, values) in [(false, filling), (true, adding)] {
                found.extend(values.map(|(small, large)| Self { kind, adding, small, large }));
            }
        }
        found
    }
}

fn print_growth(all: &[Measurements]) -> Vec<Goal> {
    let (from, to, most) = GROWTH;
    let mut goals = Vec::new();
    for growth in Growth::of(all) {
        if goals.is_empty() {
            println!("\nOne placement at {} machines against {}, 100 units each.\n", to.0, from.0);
        }
        let Growth { kind, small, large, .. } = growth;
        let what = if growth.adding { "of one, on a full cluster" } else { "of all, from empty" };
        let times = growth.times();
        let goal = Goal::at_most(format!("growth of {kind}, {what}"), times, most);
        println!(
            "{kind:<17} {what:<26} {:>10} against {:>10}: {times:.2} times, goal at most {most}: {}",
            Took(large.median).to_string(),
            Took(small.median).to_string(),
            Judged(&goal)
        );
        goals.push(goal);
    }
    goals
}

/// How a goal was met.
struct Judged<'a>(&'a Goal);

impl fmt::Display for Judged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:.2})", if self.0.is_met() { "met" } else { "MISSED" }, self.0.ratio)
    }
}

/// A whole number with its thousands set apart.
struct Grouped(f64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:.0}", self.0);
        let mut text = String::with_capacity(digits.len() * 4 / 3);
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at) % 3 == 0 {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// A time in nanoseconds, as people read it.
struct Took(f64);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = match self.0 {
            ns if ns < 1e3 => (ns, "ns"),
            ns if ns < 1e6 => (ns / 1e3, "µs"),
            ns if ns < 1e9 => (ns / 1e6, "ms"),
            ns => (ns / 1e9, "s"),
        };
        // Three figures: more would promise too much.
        let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        f.pad(&format!("{value:.decimals$} {unit}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let texts = [0.0, 999.0, 1_000.0, 1_234_567.4].map(|number| Grouped(number).to_string());
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
        let texts = [1.0, 999.0, 12_345.0, 2.5e9].map(|ns| Took(ns).to_string());
        assert_eq!(texts, ["1.00 ns", "999 ns", "12.3 µs", "2.50 s"]);
    }

    #[test]
    fn the_growth_is_judged_by_both_ends() {
        let row = |(machines, units): (u32, u32), ns| {
            let row = Row { kind: "unconstrained".into(), machines, units };
            let measured = Measured::FromEmpty { told_ns: 0, decided_ns: ns * u64::from(units) };
            Measurements { row: row.clone(), samples: vec![Sample { row, nth: 0, measured }] }
        };
        let judge = |ns| print_growth(&[row(GROWTH.0, 10), row(GROWTH.1, ns)]);
        assert!(judge(20).iter().all(Goal::is_met));
        let missed = judge(21);
        assert!(missed[0].row.contains("unconstrained") && !missed[0].is_met());
    }
}
