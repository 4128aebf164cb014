//! Prints what one placement costs: `cargo run -p flotilla-engine --release --example placement_rate`.
//!
//! An order of magnitude, not a benchmark: one run each, from an empty cluster of the given size.

use std::{error::Error, sync::Arc, time::Instant};

use flotilla_engine::placement::{MachineView, Placement, UnitView, Wanted};
use flotilla_registry::records::Capacity;
use flotilla_units::{Glob, Is, Reservation, Selector, UnitName, UnitRequirements};

/// Units with what they ask for.
type Names = Vec<(UnitName, Arc<UnitRequirements>)>;

fn main() -> Result<(), Box<dyn Error>> {
    println!("{:>8} {:>9} {:<26} {:>7} {:>10}", "machines", "units", "kind", "set ns", "decide ns");
    for (machines, units) in [(100, 10_000), (1_000, 100_000), (10_000, 1_000_000)] {
        run(machines, "unconstrained", plain(units, &UnitRequirements::default())?)?;
        let mut zone = UnitRequirements::default();
        zone.metadata.insert(Selector { key: "zone".to_owned(), is: Is::OneOf(["a".to_owned()].into()) });
        run(machines, "zone=a, half the machines", plain(units, &zone)?)?;
        run(machines, "one per machine", spread(machines, units, &Reservation::default(), &[])?)?;
        let reserve = Reservation { cpu_milli: 100, memory_bytes: 1 << 30, ..Reservation::default() };
        let reserving = UnitRequirements { reserve: reserve.clone(), ..UnitRequirements::default() };
        run(machines, "reserving", plain(units, &reserving)?)?;
        run(machines, "one per machine, reserving", spread(machines, units, &reserve, &[])?)?;
        run(machines, "the same over 10 racks", spread(machines, units, &reserve, &["rack"])?)?;
    }
    Ok(())
}

fn plain(units: u32, asks: &UnitRequirements) -> Result<Names, Box<dyn Error>> {
    let asks = Arc::new(asks.clone());
    (0..units).map(|n| Ok((format!("web@{n:07}.service").parse()?, asks.clone()))).collect()
}

/// As many templates as it takes, each with as many instances as there are machines.
fn spread(machines: u32, units: u32, reserve: &Reservation, over: &[&str]) -> Result<Names, Box<dyn Error>> {
    let mut names = Names::new();
    for template in 0..units / machines {
        let glob: Glob = format!("t{template}@*.service").parse()?;
        let asks = Arc::new(UnitRequirements {
            conflicts: [glob].into(),
            reserve: reserve.clone(),
            spread: over.iter().map(|key| (*key).to_owned()).collect(),
            ..UnitRequirements::default()
        });
        for n in 0..machines {
            names.push((format!("t{template}@{n:07}.service").parse()?, asks.clone()));
        }
    }
    Ok(names)
}

fn run(machines: u32, kind: &str, units: Names) -> Result<(), Box<dyn Error>> {
    let mut placement = Placement::new();
    for n in 0..machines {
        let zone = if n % 2 == 0 { "a" } else { "b" };
        let rack = format!("r{}", n % 10);
        let metadata = [("zone".to_owned(), zone.to_owned()), ("rack".to_owned(), rack)].into();
        let capacity = Capacity { cpu_milli: 64_000, memory_bytes: 256 << 30, ..Capacity::default() };
        let view =
            MachineView { host: format!("m{n}"), metadata, schedulable: true, draining: false, capacity };
        placement.set_machine(format!("{:032x}", n + 1).parse()?, view);
    }
    let start = Instant::now();
    for (name, requirements) in &units {
        let requirements = requirements.clone();
        placement.set_unit(name, UnitView { requirements, wanted: Wanted::Placed });
    }
    let set = start.elapsed();
    let start = Instant::now();
    let decided = placement.decide(usize::MAX).len();
    let took = start.elapsed();
    if decided != units.len() {
        return Err(format!("{decided} of {} units were placed", units.len()).into());
    }
    let each = |all: std::time::Duration| all.as_nanos() / units.len() as u128;
    println!("{machines:>8} {decided:>9} {kind:<26} {:>7} {:>10}", each(set), each(took));
    Ok(())
}
