//! What the table says, as figures for the page: of each row, and of how the cost grows.

use flotilla_figures::{line::Figure, what};

use crate::{
    goals::{self, GROWTH},
    samples::{Measured, Spread},
    table::{Growth, Measurements},
    workloads::Event,
};

/// The names of what happens to a full cluster.
const EVENTS: [(Event, &str); 4] = [
    (Event::UnitAdded, what::UNIT_ADDED),
    (Event::MachineLost, what::CORE_LOSS),
    (Event::HundredthLost, what::HUNDREDTH_LOST),
    (Event::MetadataChanged, what::METADATA_CHANGED),
];

/// The figures of one row.
pub fn of(it: &Measurements) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut add = |what: &str, unit: &str, spread: Option<Spread>, runs: usize| {
        figures.extend(spread.map(|spread| Figure {
            runs: Some(runs as u64),
            least: Some(spread.least),
            most: Some(spread.most),
            ..figure(it, what, spread.median, unit)
        }));
    };
    let filled =
        it.samples.iter().filter(|sample| matches!(sample.measured, Measured::FromEmpty { .. })).count();
    let rate = it.each(|told, decided| told + decided).map(|ns| Spread {
        median: 1e9 / ns.median,
        least: 1e9 / ns.most,
        most: 1e9 / ns.least,
    });
    add(what::PLACED, "/s", rate, filled);
    add(what::TOLD, "ns", it.each(|told, _| told), filled);
    add(what::DECIDED, "ns", it.each(|_, decided| decided), filled);
    add(what::CORE_MEMORY, "MiB", it.memory().map(|bytes| scaled(bytes, f64::from(1 << 20))), 1);
    for (event, what) in EVENTS {
        let happened = |sample: &Measured| matches!(sample, Measured::Event { event: it, .. } if *it == event.to_string());
        let times = it.samples.iter().filter(|sample| happened(&sample.measured)).count();
        add(what, "µs", it.event(event).map(|ns| scaled(ns, 1e3)), times);
    }
    if let Some(first) = figures.first_mut() {
        first.goal = goals::rate(&it.row.kind, it.row.machines, it.row.units);
        first.at_least = first.goal.is_some();
    }
    figures
}

/// How the cost grows with the cluster.
pub fn growth(all: &[Measurements]) -> Vec<Figure> {
    let (_, (machines, units), most) = GROWTH;
    let grown = Growth::of(all).into_iter().map(|growth| Figure {
        what: if growth.adding { what::GROWTH_ADDING } else { what::GROWTH_FILLING }.to_owned(),
        value: growth.times(),
        unit: "times".to_owned(),
        goal: Some(most),
        machines: Some(machines.into()),
        units: Some(units.into()),
        kind: Some(growth.kind.to_string()),
        ..Figure::default()
    });
    grown.collect()
}

fn figure(it: &Measurements, what: &str, value: f64, unit: &str) -> Figure {
    Figure {
        what: what.to_owned(),
        value,
        unit: unit.to_owned(),
        machines: Some(it.row.machines.into()),
        units: Some(it.row.units.into()),
        kind: Some(it.row.kind.clone()),
        ..Figure::default()
    }
}

fn scaled(spread: Spread, by: f64) -> Spread {
    Spread { median: spread.median / by, least: spread.least / by, most: spread.most / by }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{Row, Sample};

    #[test]
    fn a_row_says_its_rate_with_its_goal_and_spread() {
        let row = Row { kind: "unconstrained".into(), machines: 1_000, units: 100_000 };
        let samples = [1_000, 2_000, 4_000].map(|each: u64| {
            let measured = Measured::FromEmpty { told_ns: 0, decided_ns: each * 100_000 };
            Sample { row: row.clone(), nth: 0, measured }
        });
        let figures = of(&Measurements { row, samples: samples.into() });
        let rate = &figures[0];
        assert_eq!((rate.value, rate.least, rate.most), (5e5, Some(2.5e5), Some(1e6)));
        assert_eq!((rate.runs, rate.goal, rate.at_least), (Some(3), Some(1e6), true));
        assert_eq!(
            figures.iter().map(|figure| figure.what.as_str()).collect::<Vec<_>>(),
            [what::PLACED, what::TOLD, what::DECIDED]
        );
    }
}
