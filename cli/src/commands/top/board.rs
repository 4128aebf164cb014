//! What was read last of each machine, and the rows made of it. Pure.

use std::{cmp::Ordering, collections::BTreeMap};

use flotilla_api::usage::{UnitUsage, Usage};
use flotilla_units::{Glob, MachineId, UnitName};
use serde::Serialize;

use crate::text;

/// What rows are sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Key {
    /// Processor
    #[default]
    Cpu,
    /// Memory
    Memory,
    /// Processes and threads
    Tasks,
    /// What is read from and written to disks
    Disk,
    /// The unit's name
    Name,
    /// The machine
    Machine,
}

/// What is shown, and in which order.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    /// Machines instead of units.
    pub(super) machines: bool,
    /// What they are sorted by.
    pub(super) sort: Key,
    /// Only units that one of these matches; none means all.
    pub(super) patterns: Vec<Glob>,
    /// Only rows whose name, or whose machine's, has this in it.
    pub(super) filter: String,
}

/// All machines that are watched.
#[derive(Debug, Default)]
pub(super) struct Board(BTreeMap<MachineId, Seen>);

/// One machine.
#[derive(Debug, Default)]
struct Seen {
    host: String,
    now: Option<Usage>,
    before: Option<Usage>,
    /// Why it says nothing any more.
    lost: Option<String>,
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Snapshot {
    /// The machines, by the order asked for.
    pub(super) machines: Vec<MachineRow>,
    /// The units.
    pub(super) units: Vec<UnitRow>,
}

/// One unit on one machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct UnitRow {
    pub(super) unit: UnitName,
    pub(super) host: String,
    pub(super) machine: MachineId,
    #[serde(flatten)]
    pub(super) figures: Figures,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct MachineRow {
    pub(super) host: String,
    pub(super) machine: MachineId,
    pub(super) cpus: u32,
    pub(super) memory_total_bytes: Option<u64>,
    pub(super) load: Option<f64>,
    pub(super) units: usize,
    #[serde(flatten)]
    pub(super) figures: Figures,
}

/// What is taken; absent is what nobody counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Figures {
    /// In per cent of one processor.
    pub(super) cpu_percent: Option<f64>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) tasks: Option<u64>,
    /// Bytes in a second.
    pub(super) read_rate: Option<u64>,
    pub(super) write_rate: Option<u64>,
}

impl Board {
    /// Makes the board of these machines.
    pub(super) fn of(machines: impl IntoIterator<Item = (MachineId, Option<String>)>) -> Self {
        let seen = |(id, host): (MachineId, Option<String>)| {
            (id, Seen { host: host.unwrap_or_else(|| id.short()), ..Seen::default() })
        };
        Self(machines.into_iter().map(seen).collect())
    }

    /// Returns the machines.
    pub(super) fn machines(&self) -> impl Iterator<Item = MachineId> {
        self.0.keys().copied()
    }

    /// Takes a reading in; returns whether there is one before it to compare it with.
    pub(super) fn take(&mut self, usage: Usage) -> bool {
        let seen = self.0.entry(usage.machine).or_default();
        usage.host.clone_into(&mut seen.host);
        // A clock that went back is another boot's: nothing of before can be compared.
        seen.before = seen.now.take().filter(|before| before.clock_ns < usage.clock_ns);
        seen.now = Some(usage);
        seen.lost = None;
        seen.before.is_some()
    }

    /// Notes that a machine says nothing any more.
    pub(super) fn lose(&mut self, machine: MachineId, why: String) {
        if let Some(seen) = self.0.get_mut(&machine) {
            (seen.now, seen.before, seen.lost) = (None, None, Some(why));
        }
    }

    /// Returns the machines that say nothing, with why.
    pub(super) fn lost(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.values().filter_map(|seen| Some((seen.host.as_str(), seen.lost.as_deref()?)))
    }

    /// Makes the rows.
    pub(super) fn snapshot(&self, view: &View) -> Snapshot {
        let (mut machines, mut units) = (Vec::new(), Vec::new());
        for (id, seen) in &self.0 {
            let Some(now) = &seen.now else { continue };
            machines.push(machine_row(*id, now, seen.before.as_ref()));
            units.extend(now.units.iter().map(|unit| UnitRow {
                unit: unit.unit.clone(),
                host: seen.host.clone(),
                machine: *id,
                figures: of_unit(unit, now, seen.before.as_ref()),
            }));
        }
        let filter = view.filter.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&filter);
        machines.retain(|row: &MachineRow| has(&row.host));
        units.retain(|row: &UnitRow| {
            let meant =
                view.patterns.is_empty() || view.patterns.iter().any(|glob| glob.matches(row.unit.as_str()));
            meant && (has(row.unit.as_str()) || has(&row.host))
        });
        machines.sort_by(|a, b| {
            let by_name = || a.host.cmp(&b.host);
            order(view.sort, &a.figures, &b.figures).unwrap_or_else(by_name).then_with(by_name)
        });
        units.sort_by(|a, b| {
            let name = || a.unit.cmp(&b.unit).then_with(|| a.host.cmp(&b.host));
            let machine = || a.host.cmp(&b.host);
            match view.sort {
                Key::Machine => machine().then_with(name),
                sort => order(sort, &a.figures, &b.figures).unwrap_or_else(name).then_with(name),
            }
        });
        Snapshot { machines, units }
    }
}

/// Compares by what is taken, the most first; `None` where it is sorted by a name.
fn order(key: Key, a: &Figures, b: &Figures) -> Option<Ordering> {
    let most = |a: Option<u64>, b: Option<u64>| b.cmp(&a);
    Some(match key {
        Key::Cpu => b.cpu_percent.unwrap_or(-1.0).total_cmp(&a.cpu_percent.unwrap_or(-1.0)),
        Key::Memory => most(a.memory_bytes, b.memory_bytes),
        Key::Tasks => most(a.tasks, b.tasks),
        Key::Disk => most(a.disk(), b.disk()),
        Key::Name | Key::Machine => return None,
    })
}

impl Figures {
    fn disk(&self) -> Option<u64> {
        Some(self.read_rate?.saturating_add(self.write_rate?))
    }
}

fn of_unit(unit: &UnitUsage, now: &Usage, before: Option<&Usage>) -> Figures {
    let earlier = before.and_then(|before| before.units.iter().find(|earlier| earlier.unit == unit.unit));
    let time_ns = before.map(|before| now.clock_ns - before.clock_ns);
    let grown = |field: fn(&UnitUsage) -> Option<u64>| grown(field(unit), earlier.and_then(field));
    Figures {
        cpu_percent: percent(grown(|unit| unit.cpu_ns), time_ns),
        memory_bytes: unit.memory_bytes,
        tasks: unit.tasks,
        read_rate: rate(grown(|unit| unit.read_bytes), time_ns),
        write_rate: rate(grown(|unit| unit.written_bytes), time_ns),
    }
}

fn machine_row(machine: MachineId, now: &Usage, before: Option<&Usage>) -> MachineRow {
    let time_ns = before.map(|before| now.clock_ns - before.clock_ns);
    let figures: Vec<Figures> = now.units.iter().map(|unit| of_unit(unit, now, before)).collect();
    // Of its units: the machine's own is nobody's to count here.
    let sum =
        |field: fn(&Figures) -> Option<u64>| figures.iter().filter_map(field).reduce(u64::saturating_add);
    MachineRow {
        host: now.host.clone(),
        machine,
        cpus: now.cpus,
        memory_total_bytes: now.memory_bytes,
        load: now.load,
        units: now.units.len(),
        figures: Figures {
            cpu_percent: percent(grown(now.cpu_ns, before.and_then(|before| before.cpu_ns)), time_ns),
            memory_bytes: now.memory_used_bytes,
            tasks: sum(|figures| figures.tasks),
            read_rate: sum(|figures| figures.read_rate),
            write_rate: sum(|figures| figures.write_rate),
        },
    }
}

/// Returns by how much a counter has grown. A lower one is another start's, and all of it is new.
fn grown(now: Option<u64>, before: Option<u64>) -> Option<u64> {
    let (now, before) = (now?, before?);
    Some(now.checked_sub(before).unwrap_or(now))
}

fn percent(ns: Option<u64>, time_ns: Option<u64>) -> Option<f64> {
    let share = ns? as f64 / time_ns? as f64;
    // To a tenth: what is read is not more exact.
    Some((share * 1_000.0).round() / 10.0)
}

fn rate(bytes: Option<u64>, time_ns: Option<u64>) -> Option<u64> {
    Some((bytes? as f64 / time_ns? as f64 * 1e9) as u64)
}

const UNIT_HEAD: [&str; 7] = ["UNIT", "MACHINE", "CPU%", "MEMORY", "TASKS", "READ/S", "WRITE/S"];
const MACHINE_HEAD: [&str; 9] =
    ["MACHINE", "UNITS", "CPU%", "CPUS", "LOAD", "MEMORY", "OF", "READ/S", "WRITE/S"];

/// Tells whether a column is text, which stands at the left.
pub(super) const fn is_text(column: usize, view: &View) -> bool {
    column == 0 || (column == 1 && !view.machines)
}

impl Snapshot {
    /// Returns the head and the rows as text.
    pub(super) fn cells(&self, view: &View) -> (&'static [&'static str], Vec<Vec<String>>) {
        let none = || "-".to_owned();
        let bytes = |count: Option<u64>| count.map_or_else(none, text::bytes);
        let percent = |percent: Option<f64>| percent.map_or_else(none, |percent| format!("{percent:.1}"));
        let number = |count: Option<u64>| count.map_or_else(none, |count| count.to_string());
        if view.machines {
            let row = |row: &MachineRow| {
                vec![
                    text::one_line(&row.host).into_owned(),
                    row.units.to_string(),
                    percent(row.figures.cpu_percent),
                    row.cpus.to_string(),
                    row.load.map_or_else(none, |load| format!("{load:.2}")),
                    bytes(row.figures.memory_bytes),
                    bytes(row.memory_total_bytes),
                    bytes(row.figures.read_rate),
                    bytes(row.figures.write_rate),
                ]
            };
            return (&MACHINE_HEAD, self.machines.iter().map(row).collect());
        }
        let row = |row: &UnitRow| {
            vec![
                row.unit.to_string(),
                text::one_line(&row.host).into_owned(),
                percent(row.figures.cpu_percent),
                bytes(row.figures.memory_bytes),
                number(row.figures.tasks),
                bytes(row.figures.read_rate),
                bytes(row.figures.write_rate),
            ]
        };
        (&UNIT_HEAD, self.units.iter().map(row).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> MachineId {
        format!("{n:032x}").parse().expect("valid")
    }

    fn usage(n: u8, clock_s: u64, units: &[(&str, u64, Option<u64>)]) -> Usage {
        let unit = |&(unit, cpu_ms, memory_bytes): &(&str, u64, Option<u64>)| UnitUsage {
            unit: format!("{unit}.service").parse().expect("valid"),
            cpu_ns: Some(cpu_ms * 1_000_000),
            memory_bytes,
            tasks: Some(1),
            read_bytes: Some(0),
            written_bytes: Some(clock_s * 1_000),
        };
        Usage {
            machine: id(n),
            host: format!("m{n}"),
            clock_ns: clock_s * 1_000_000_000,
            cpus: 2,
            cpu_ns: Some(clock_s * 500_000_000),
            memory_used_bytes: Some(1 << 30),
            memory_bytes: Some(4 << 30),
            load: Some(0.5),
            units: units.iter().map(unit).collect(),
        }
    }

    fn names(board: &Board, view: &View) -> Vec<String> {
        let rows = board.snapshot(view).units;
        rows.iter()
            .map(|row| format!("{}@{}", row.unit.as_str().trim_end_matches(".service"), row.host))
            .collect()
    }

    fn board() -> Board {
        let mut board = Board::of([(id(1), None), (id(2), None)]);
        assert!(!board.take(usage(1, 10, &[("idle", 0, Some(9_000)), ("busy", 100, Some(10))])));
        assert!(board.take(usage(
            1,
            12,
            &[("idle", 1, Some(9_000)), ("busy", 1_900, Some(10)), ("new", 5, None)]
        )));
        board.take(usage(2, 500, &[("busy", 0, Some(5_000))]));
        board.take(usage(2, 502, &[("busy", 400, Some(5_000))]));
        board
    }

    #[test]
    fn rows_are_made_of_two_readings_and_sorted() {
        let board = board();
        let view = View::default();
        assert_eq!(names(&board, &view), ["busy@m1", "busy@m2", "idle@m1", "new@m1"]);
        let rows = board.snapshot(&view).units;
        assert_eq!((rows[0].figures.cpu_percent, rows[0].figures.write_rate), (Some(90.0), Some(1_000)));
        assert_eq!(rows[3].figures.cpu_percent, None, "nothing is known of it yet");
        let sorted = |sort: Key| names(&board, &View { sort, ..View::default() });
        assert_eq!(sorted(Key::Memory), ["idle@m1", "busy@m2", "busy@m1", "new@m1"]);
        assert_eq!(sorted(Key::Machine), ["busy@m1", "idle@m1", "new@m1", "busy@m2"]);
        assert_eq!(sorted(Key::Name), ["busy@m1", "busy@m2", "idle@m1", "new@m1"]);
    }

    #[test]
    fn rows_are_filtered_by_pattern_and_by_what_was_typed() {
        let board = board();
        let patterns = vec!["b*".parse().expect("a glob")];
        assert_eq!(names(&board, &View { patterns, ..View::default() }), ["busy@m1", "busy@m2"]);
        let filter = "M2".to_owned();
        assert_eq!(names(&board, &View { filter, ..View::default() }), ["busy@m2"]);
    }

    #[test]
    fn a_machine_that_is_lost_or_booted_anew_is_not_compared() {
        let mut board = board();
        board.lose(id(2), "gone".to_owned());
        assert_eq!(board.lost().collect::<Vec<_>>(), [("m2", "gone")]);
        assert!(!names(&board, &View::default()).contains(&"busy@m2".to_owned()));
        assert!(!board.take(usage(1, 3, &[("busy", 1, None)])), "its clock went back");
        assert!(board.take(usage(1, 5, &[("busy", 1_001, None)])));
        assert_eq!(board.snapshot(&View::default()).units[0].figures.cpu_percent, Some(50.0));
        assert_eq!(grown(Some(3), Some(100)), Some(3), "another start's");
    }

    #[test]
    fn cells_say_what_nobody_counts() {
        let board = board();
        let (head, rows) = board.snapshot(&View::default()).cells(&View::default());
        assert_eq!(head.len(), rows[0].len());
        assert_eq!(rows[3], ["new.service", "m1", "-", "-", "1", "-", "-"]);
        let view = View { machines: true, ..View::default() };
        let (head, rows) = board.snapshot(&view).cells(&view);
        assert_eq!(head.len(), rows[0].len());
        assert_eq!(rows[0], ["m1", "3", "50.0", "2", "0.50", "1.0G", "4.0G", "0B", "2.0K"]);
    }
}
