//! Scenarios whose instructions are counted: small enough for an emulator, otherwise those of the table.
//!
//! `cargo xtask bench counts` runs each under callgrind, which counts within [`counted`] and nowhere else.

use std::hint::black_box;

use crate::workloads::{Event, Failed, Kind, Workload};

/// Machines and units that are filled from empty, with equally many units for each machine.
const FILLED: [(u32, u32); 2] = [(100, 1_000), (1_000, 10_000)];

/// The cluster to which things happen.
const FULL: (u32, u32) = (1_000, 10_000);

/// How often an event happens, at most, with the one that is not counted.
const EVENTS_MOST: u32 = 11;

/// One thing to count.
enum Scenario {
    Fill,
    Event(Event),
}

/// Carries out the named scenario, or lists them.
pub fn run(words: &[String]) -> Result<(), Failed> {
    let [word] = words else { return Err("count takes the name of a scenario, or --list".into()) };
    let mut all = scenarios();
    if word == "--list" {
        all.for_each(|(name, ..)| println!("{name}"));
        return Ok(());
    }
    let found = all.find(|(name, ..)| name == word);
    let (_, kind, (machines, units), scenario) = found.ok_or_else(|| format!("no scenario {word:?}"))?;
    let workload = Workload::new(kind, machines, units)?;
    match scenario {
        Scenario::Fill => {
            let mut core = workload.empty();
            counted(|| {
                workload.tell(&mut core);
                workload.place(&mut core)
            })?;
        }
        Scenario::Event(event) => {
            let mut full = workload.full()?;
            // The first one pays for what the later ones find; several, because a table that has to grow grows in one.
            workload.happen(event, &mut full, |carry_out| carry_out())?;
            for _ in 1..event.most().min(EVENTS_MOST) {
                workload.happen(event, &mut full, |carry_out| counted(carry_out))?;
            }
        }
    }
    Ok(())
}

fn scenarios() -> impl Iterator<Item = (String, Kind, (u32, u32), Scenario)> {
    Kind::ALL.into_iter().flat_map(|kind| {
        let fills = FILLED.into_iter().map(move |(machines, units)| {
            (format!("{kind}/from-empty/{machines}x{units}"), kind, (machines, units), Scenario::Fill)
        });
        let (machines, units) = FULL;
        let events = Event::ALL.into_iter().map(move |event| {
            (format!("{kind}/{event}/{machines}x{units}"), kind, FULL, Scenario::Event(event))
        });
        fills.chain(events)
    })
}

/// What callgrind looks for by name: what is done in here is counted, and nothing else.
#[inline(never)]
fn counted<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}
