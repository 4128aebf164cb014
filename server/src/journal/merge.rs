//! Putting the lines of several machines in order of time. Pure.
//!
//! Each machine's lines stay in its journal's order. Between machines the earliest
//! goes first, as soon as every machine has shown what it has next, or when the
//! line was held back long enough: a machine that is silent, slow or ahead of time
//! delays the others by no more than that.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use flotilla_api::journal::JournalLine;
use flotilla_units::MachineId;
use tokio::time::Instant;

/// The most lines held back. At 100 bytes a line that is some megabytes; past it the earliest goes
/// at once.
const HELD_MAX: usize = 20_000;

/// The most memory of lines held back, in bytes; past it the earliest goes at once. Units can write
/// lines of 48 KiB, and 20,000 of those would be a gigabyte.
const HELD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The lines that are held back.
#[derive(Debug)]
pub(super) struct Merge {
    hold: Duration,
    machines: BTreeMap<MachineId, Source>,
    held: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Source {
    lines: VecDeque<(Instant, JournalLine)>,
    /// Whether more may come soon.
    open: bool,
}

impl Merge {
    /// Makes a merge that holds lines back for so long at most.
    pub(super) const fn new(hold: Duration) -> Self {
        Self { hold, machines: BTreeMap::new(), held: 0, bytes: 0 }
    }

    /// Begins to wait for a machine's lines.
    pub(super) fn open(&mut self, machine: MachineId) {
        self.machines.entry(machine).or_default().open = true;
    }

    /// Stops waiting for a machine's lines; those that it gave still come.
    pub(super) fn close(&mut self, machine: MachineId) {
        if let Some(source) = self.machines.get_mut(&machine) {
            source.open = false;
            if source.lines.is_empty() {
                self.machines.remove(&machine);
            }
        }
    }

    /// Takes in a machine's next line.
    pub(super) fn push(&mut self, machine: MachineId, line: JournalLine, now: Instant) {
        self.held += 1;
        self.bytes += bytes(&line);
        self.machines.entry(machine).or_default().lines.push_back((now, line));
    }

    /// Tells whether lines of a machine are held back.
    pub(super) fn holds(&self, machine: MachineId) -> bool {
        self.machines.get(&machine).is_some_and(|source| !source.lines.is_empty())
    }

    /// Returns the next line whose turn has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(MachineId, JournalLine)> {
        let (machine, arrived) = self.earliest()?;
        let all_shown = self.machines.values().all(|source| !source.open || !source.lines.is_empty());
        let too_much = self.held > HELD_MAX || self.bytes > HELD_BYTES_MAX;
        if !(all_shown || now >= arrived + self.hold || too_much) {
            return None;
        }
        let source = self.machines.get_mut(&machine)?;
        let (_, line) = source.lines.pop_front()?;
        self.held -= 1;
        self.bytes -= bytes(&line);
        if source.lines.is_empty() && !source.open {
            self.machines.remove(&machine);
        }
        Some((machine, line))
    }

    /// Returns when a line's turn comes at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.earliest().map(|(_, arrived)| arrived + self.hold)
    }

    /// Tells whether nothing is held and nothing is waited for.
    pub(super) fn is_over(&self) -> bool {
        self.machines.is_empty()
    }

    fn earliest(&self) -> Option<(MachineId, Instant)> {
        let heads =
            self.machines.iter().filter_map(|(machine, source)| Some((machine, source.lines.front()?)));
        heads
            .min_by_key(|(machine, (_, line))| (line.realtime_us, **machine))
            .map(|(machine, (arrived, _))| (*machine, *arrived))
    }
}

/// How much memory a line takes, in bytes.
fn bytes(line: &JournalLine) -> usize {
    let texts = [&line.unit, &line.host, &line.machine, &line.message, &line.cursor];
    let others = [line.identifier.as_ref(), line.invocation.as_ref()].into_iter().flatten();
    size_of::<JournalLine>() + texts.into_iter().chain(others).map(String::len).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLD: Duration = Duration::from_millis(500);

    fn machine(number: u8) -> MachineId {
        format!("{:032x}", u128::from(number) + 1).parse().expect("valid")
    }

    fn line(number: u8, realtime_us: u64) -> JournalLine {
        JournalLine {
            unit: "a.service".to_owned(),
            host: format!("m{number}"),
            machine: machine(number).to_string(),
            realtime_us,
            priority: None,
            pid: None,
            identifier: None,
            message: String::new(),
            invocation: None,
            cursor: realtime_us.to_string(),
        }
    }

    fn drain(merge: &mut Merge, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| merge.pop(now)).map(|(_, line)| line.realtime_us).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn lines_go_in_order_of_time_once_every_machine_has_shown_its_next() {
        let now = Instant::now();
        let mut merge = Merge::new(HOLD);
        merge.open(machine(1));
        merge.open(machine(2));
        merge.push(machine(1), line(1, 10), now);
        merge.push(machine(1), line(1, 30), now);
        assert_eq!(drain(&mut merge, now), Vec::<u64>::new(), "the other machine may have an earlier one");
        merge.push(machine(2), line(2, 20), now);
        assert_eq!(drain(&mut merge, now), [10, 20]);
        assert_eq!(drain(&mut merge, now + HOLD), [30], "nobody waits longer than the hold");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_held_than_memory_is_given_for() {
        let now = Instant::now();
        let mut merge = Merge::new(HOLD);
        merge.open(machine(1));
        merge.open(machine(2));
        for at in 1..=4 {
            let message = "x".repeat(HELD_BYTES_MAX / 3);
            merge.push(machine(1), JournalLine { message, ..line(1, at) }, now);
        }
        assert_eq!(drain(&mut merge, now), [1, 2], "the other machine is not waited for at any price");
        assert_eq!(drain(&mut merge, now + HOLD), [3, 4]);
        assert_eq!((merge.held, merge.bytes), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_is_closed_is_not_waited_for() {
        let now = Instant::now();
        let mut merge = Merge::new(HOLD);
        merge.open(machine(1));
        merge.open(machine(2));
        merge.push(machine(1), line(1, 10), now);
        merge.close(machine(2));
        assert_eq!(drain(&mut merge, now), [10]);
        assert!(!merge.is_over());
        merge.close(machine(1));
        assert!(merge.is_over());
    }

    proptest! {
        #[test]
        fn every_line_comes_once_and_each_machine_keeps_its_order(
            lines in proptest::collection::vec((0_u8..4, 0_u64..50), 0..100),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let now = Instant::now();
                let mut merge = Merge::new(HOLD);
                (0..4).for_each(|number| merge.open(machine(number)));
                let mut came = Vec::new();
                for (i, (number, at)) in lines.iter().enumerate() {
                    let mut line = line(*number, *at);
                    line.cursor = i.to_string();
                    merge.push(machine(*number), line, now);
                    while let Some(next) = merge.pop(now) {
                        came.push(next);
                    }
                }
                (0..4).for_each(|number| merge.close(machine(number)));
                while let Some(next) = merge.pop(now) {
                    came.push(next);
                }
                assert!(merge.is_over());
                for number in 0..4 {
                    let came = came.iter().filter(|(from, _)| *from == machine(number));
                    let came: Vec<usize> = came.map(|(_, line)| line.cursor.parse().expect("a number")).collect();
                    let gone: Vec<usize> =
                        (0..lines.len()).filter(|i| lines[*i].0 == number).collect();
                    assert_eq!(came, gone);
                }
            });
        }
    }
}
