//! What the machines are like and what the units ask for: the same in every run.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use clap::ValueEnum;
use flotilla_registry::records::Capacity;
use flotilla_units::{ContentHash, MachineId, UnitName, UnitRange};

/// How many zones there are.
pub(crate) const ZONES: usize = 10;

/// What one machine has to give: a server of two sockets.
const CPU_MILLI: u64 = 64_000;

/// What one machine has to give of memory.
const MEMORY_BYTES: u64 = 256 << 30;

/// What one unit of [`Kind::Spread`] takes: so little that the machines that are left have room for what a
/// hundredth of them had.
pub(crate) const TAKES_CPU_MILLI: u64 = 100;

/// The same of memory.
pub(crate) const TAKES_MEMORY_BYTES: u64 = 128 << 20;

/// What units ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Nothing
    Plain,
    /// A metadata that half of the machines have
    Metadata,
    /// That no other of their template is on their machine, as many templates as it takes
    Conflicts,
    /// Processor and memory, and to be spread over the zones
    Spread,
}

/// A template, and how many instances of it there are to be.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    pub(crate) name: UnitName,
    pub(crate) text: String,
    pub(crate) hash: ContentHash,
    pub(crate) instances: usize,
}

impl Kind {
    /// Returns the templates that make so many units on so many machines.
    pub(crate) fn templates(self, machines: usize, units: usize) -> Result<Vec<Template>> {
        let asks = match self {
            Self::Plain => "",
            Self::Metadata => "MachineMetadata=half=yes\n",
            Self::Conflicts => "Conflicts=%p@*.service\n",
            Self::Spread => "ReserveCPU=0.1\nReserveMemory=128M\nSpread=zone\n",
        };
        let text = format!("[Service]\nExecStart=/bin/sleep infinity\n\n[X-Flotilla]\n{asks}");
        let hash = ContentHash::of(text.as_bytes());
        let most = if self == Self::Conflicts { machines } else { units };
        let mut templates = Vec::new();
        let mut left = units;
        while left > 0 {
            let instances = left.min(most);
            let name = format!("t{}@.service", templates.len()).parse()?;
            templates.push(Template { name, text: text.clone(), hash, instances });
            left -= instances;
        }
        Ok(templates)
    }
}

impl Template {
    /// Returns all its instances, as one order names them.
    pub(crate) fn range(&self) -> Result<UnitRange> {
        Ok(UnitRange::new(self.name.clone(), 1, self.instances as u64)?)
    }

    /// Tells whether a unit is one of its instances that are to be.
    pub(crate) fn has(&self, unit: &UnitName) -> bool {
        unit.template().as_ref() == Some(&self.name)
            && unit.number().is_some_and(|number| (1..=self.instances as u64).contains(&number))
    }
}

/// Returns the id of the machine of a number: as different from each other as real ones are.
pub(crate) fn machine_id(number: usize) -> Result<MachineId> {
    let spread = (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    format!("{spread:032x}").parse().context("a machine id")
}

/// Returns what a machine says of itself.
pub(crate) fn metadata(number: usize) -> BTreeMap<String, String> {
    let half = if number.is_multiple_of(2) { "yes" } else { "no" };
    let zone = format!("z{}", number % ZONES);
    BTreeMap::from([("half".to_owned(), half.to_owned()), ("zone".to_owned(), zone)])
}

/// Returns what a machine has to give.
pub(crate) fn capacity() -> Capacity {
    Capacity { cpu_milli: CPU_MILLI, memory_bytes: MEMORY_BYTES, ..Capacity::default() }
}

/// Returns the numbers of so many machines, far from each other: neighbours share a process and a
/// connection, and every tenth one a zone.
pub(crate) fn scattered(count: usize, machines: usize) -> Vec<usize> {
    let step = (machines / count.max(1)).max(1);
    (0..count.min(machines)).map(|n| n * step + n % step).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_kind_has_as_many_units_as_asked_for_and_conflicting_ones_fit_onto_the_machines() {
        for kind in Kind::value_variants() {
            let templates = kind.templates(30, 100).expect("templates");
            assert_eq!(templates.iter().map(|template| template.instances).sum::<usize>(), 100);
            let ranges: Vec<_> =
                templates.iter().map(|template| template.range().expect("a range")).collect();
            assert!(ranges.iter().zip(&templates).all(|(r, t)| r.instances().count() == t.instances));
            let most = templates.iter().map(|template| template.instances).max();
            assert_eq!(most, Some(if *kind == Kind::Conflicts { 30 } else { 100 }), "{kind:?}");
        }
    }

    #[test]
    fn what_units_reserve_is_what_the_checker_counts() {
        let text = &Kind::Spread.templates(1, 1).expect("templates")[0].text;
        assert!(text.contains(&format!("ReserveCPU={}\n", TAKES_CPU_MILLI as f64 / 1000.0)), "{text}");
        assert!(text.contains(&format!("ReserveMemory={}M\n", TAKES_MEMORY_BYTES >> 20)), "{text}");
    }

    #[test]
    fn only_what_was_ordered_is_a_template_s() {
        let template = &Kind::Plain.templates(1, 5).expect("templates")[0];
        let has = |name: &str| template.has(&name.parse().expect("a name"));
        assert!(has("t0@1.service") && has("t0@5.service"));
        assert!(
            !has("t0@0.service") && !has("t0@6.service") && !has("t1@1.service") && !has("t0@05.service")
        );
    }

    #[test]
    fn machines_differ_and_the_scattered_ones_are_in_many_zones() {
        let ids: BTreeSet<_> = (0..10_000).map(|n| machine_id(n).expect("an id")).collect();
        assert_eq!(ids.len(), 10_000);
        let numbers = scattered(100, 10_000);
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 100);
        assert!(numbers.iter().all(|n| *n < 10_000));
        assert_eq!(numbers.iter().map(|n| n % ZONES).collect::<BTreeSet<_>>().len(), ZONES);
        assert_eq!(scattered(1, 7), [0]);
    }
}
