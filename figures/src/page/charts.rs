//! Which charts the page has: each figure against the size of the cluster, with 100 units for each machine.

use crate::{
    page::{
        goals::{KINDS, PLACEMENT, PLAIN, SCALE},
        plot::{Plot, Point, Series},
    },
    series::{Measure, Measures},
    what,
};

/// How many units there are for each machine: then only the number of machines makes a difference.
const EACH: u64 = 100;

/// How many units a second the stream starts whose latency is shown: few, so that each is alone.
pub const STREAM: u64 = 20;

/// A chart with the name of its file.
#[derive(Debug)]
pub struct Chart {
    /// The file, without its folder.
    pub file: &'static str,
    /// What it is, as a heading.
    pub heading: &'static str,
    /// What is to be seen, for whoever cannot.
    pub about: &'static str,
    /// The chart.
    pub plot: Plot,
    /// The unit of its values.
    pub unit: &'static str,
}

/// A line's name, and the figure that it is of.
struct Line<'a> {
    name: &'a str,
    bench: &'a str,
    kind: &'a str,
    what: String,
    /// From the figure, at a size of so many machines and units.
    scale: fn(f64, f64, f64) -> f64,
}

const SIMULATED: &str =
    "simulated agents, one computer; 100 units a machine; medians, bars from least to most";
const ALONE: &str = "the core alone, one thread; 100 units a machine; medians, bars from least to most";

/// All of them.
pub fn all(measures: &Measures) -> Vec<Chart> {
    let chart = |file, heading, about, subtitle: &str, unit, lines: Vec<Line<'_>>| {
        let lines = lines.iter().map(|line| line.of(measures)).collect();
        let (title, subtitle) = (String::from(heading), subtitle.to_owned());
        Chart {
            file,
            heading,
            about,
            unit,
            plot: Plot { title, subtitle, across: "machines", up: unit_name(unit), lines },
        }
    };
    let mut rates: Vec<Line<'_>> = core(what::PLACED, |value, _, _| value);
    let whole = Line { name: "whole system", ..system("", what::UNITS_A_SECOND, |value, _, _| value) };
    rates.push(whole);
    vec![
        chart(
            "placements.svg",
            "Placements a second",
            "The placement core alone, from empty, of four kinds of units; and the whole system from submitted to active.",
            "core alone, and simulated agents on one computer; 100 units a machine; bars from least to most",
            "/s",
            rates,
        ),
        chart(
            "cost-from-empty.svg",
            "Cost of a placement, from empty",
            "Telling the core of a unit and placing it, when all are placed at once. Flat is good.",
            ALONE,
            "ns",
            core(what::PLACED, |rate, _, _| 1e9 / rate),
        ),
        chart(
            "cost-of-one.svg",
            "Cost of one more placement, when full",
            "From the fact to the decision, of one unit added to a full cluster. Flat is good.",
            ALONE,
            "µs",
            core(what::UNIT_ADDED, |value, _, _| value),
        ),
        chart(
            "processor.svg",
            "Processor time of a unit",
            "From submitted to all active: what each part needs for a unit.",
            SIMULATED,
            "µs",
            vec![
                system("engine", what::ENGINE_CPU, |seconds, _, units| seconds * 1e6 / units),
                system("etcd", what::ETCD_CPU, |seconds, _, units| seconds * 1e6 / units),
                system("agents with their systemd in memory", what::AGENTS_CPU, |seconds, _, units| {
                    seconds * 1e6 / units
                }),
            ],
        ),
        chart(
            "memory.svg",
            "Memory of the engine",
            "Resident, with everything active.",
            SIMULATED,
            "MiB",
            vec![
                system("engine", what::ENGINE_MEMORY, |value, _, _| value),
                system(
                    "an agent with 100 units and its systemd in memory",
                    what::AGENT_MEMORY,
                    |value, _, _| value,
                ),
            ],
        ),
        chart(
            "etcd.svg",
            "Size of etcd's database",
            "In use, with everything active, before any compaction.",
            SIMULATED,
            "MiB",
            vec![system("database in use", what::ETCD_IN_USE, |value, _, _| value)],
        ),
        chart(
            "latency.svg",
            "Latency",
            "A unit from ordered to reported active, 20 of them a second; and a machine lost, from the end of its lease.",
            SIMULATED,
            "ms",
            vec![
                system("start to active, median", &what::stream_median(STREAM), |value, _, _| value),
                system("start to active, p99", &what::stream_p99(STREAM), |value, _, _| value),
                system("one machine lost: decided and written", &what::lost_decided(1), |value, _, _| value),
                system("one machine lost: all active again", &what::lost_active(1), |seconds, _, _| {
                    seconds * 1e3
                }),
            ],
        ),
        chart(
            "idle.svg",
            "At rest, for each machine",
            "Processor time a second that a machine costs when nobody asks anything. Flat or falling is good: engine and etcd \
             need a little of their own, however few machines there are.",
            SIMULATED,
            "µs/s",
            vec![
                system("engine", what::REST_ENGINE, |percent, machines, _| percent * 1e4 / machines),
                system("etcd", what::REST_ETCD, |percent, machines, _| percent * 1e4 / machines),
                system("its agent", what::REST_AGENTS, |percent, _, _| percent * 1e4 / 1e3),
            ],
        ),
    ]
}

fn unit_name(unit: &str) -> String {
    match unit {
        "/s" => "placements a second".to_owned(),
        "µs/s" => "µs of processor time a second".to_owned(),
        other => other.to_owned(),
    }
}

fn core(what: &'static str, scale: fn(f64, f64, f64) -> f64) -> Vec<Line<'static>> {
    let line = |(kind, name)| Line { name, bench: PLACEMENT, kind, what: what.to_owned(), scale };
    KINDS.into_iter().map(line).collect()
}

fn system<'a>(name: &'a str, what: &str, scale: fn(f64, f64, f64) -> f64) -> Line<'a> {
    Line { name, bench: SCALE, kind: PLAIN, what: what.to_owned(), scale }
}

impl Line<'_> {
    fn of(&self, measures: &Measures) -> Series {
        let sizes =
            measures.sizes(self.bench).into_iter().filter(|(machines, units)| *units == machines * EACH);
        let points = sizes.filter_map(|size| {
            let found = measures.get(self.bench, size, self.kind, &self.what)?;
            Some(self.point(size, found))
        });
        Series { name: self.name.to_owned(), points: points.collect() }
    }

    fn point(&self, (machines, units): (u64, u64), found: &Measure) -> Point {
        let (x, units) = (machines as f64, units as f64);
        let scale = |value| (self.scale)(value, x, units);
        let (one, other) = (scale(found.least), scale(found.most));
        // Of a rate that becomes a cost the least is the most.
        Point { x, y: scale(found.median), least: one.min(other), most: one.max(other) }
    }
}
