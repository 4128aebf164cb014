//! The rules as tables, the explanations as people see them, and properties that always hold.

mod explanations;
mod moves;
mod plain;
mod properties;
mod requirements;

use std::{collections::BTreeSet, sync::Arc};

use flotilla_units::{Is, MachineId, Selector, UnitName, UnitRequirements};

use super::*;

/// Machine number `n`.
pub(super) fn machine(n: u32) -> MachineId {
    format!("{n:032x}").parse().unwrap()
}

pub(super) fn name(text: &str) -> UnitName {
    text.parse().unwrap()
}

/// Requirements from words such as `MachineOf=a.service`, `zone=a`, `Global`.
pub(super) fn asks(words: &str) -> Arc<UnitRequirements> {
    let mut it = UnitRequirements::default();
    for word in words.split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("Global", _) => it.global = true,
            ("MachineID", n) => it.machine = Some(machine(n.parse().unwrap()).into()),
            ("MachineOf", unit) => drop(it.machine_of.insert((&name(unit)).into())),
            ("Conflicts", glob) => drop(it.conflicts.insert(glob.parse().unwrap())),
            ("Replaces", glob) => drop(it.replaces.insert(glob.parse().unwrap())),
            (key, value) => add_value(&mut it.metadata, key, value),
        }
    }
    Arc::new(it)
}

/// Adds `key=value`: the values of one key are alternatives.
fn add_value(metadata: &mut BTreeSet<Selector>, key: &str, value: &str) {
    let before = metadata.iter().find(|it| it.key == key).cloned();
    let mut values = BTreeSet::from([value.to_owned()]);
    if let Some(before) = before {
        metadata.remove(&before);
        if let Is::OneOf(others) = before.is {
            values.extend(others);
        }
    }
    metadata.insert(Selector { key: key.to_owned(), is: Is::OneOf(values) });
}

pub(super) fn looks(metadata: &str) -> MachineView {
    let pairs = metadata.split_whitespace().filter_map(|pair| pair.split_once('='));
    let metadata: std::collections::BTreeMap<String, String> =
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    MachineView { host: String::new(), metadata, schedulable: true, draining: false }
}

/// A model that is told about in short.
#[derive(Default)]
pub(super) struct World(pub(super) Placement);

impl World {
    /// Machines 1.., one for each metadata.
    pub(super) fn new(metadata: &[&str]) -> Self {
        let mut world = Self::default();
        for (n, metadata) in (1..).zip(metadata) {
            world.machine(n, looks(metadata));
        }
        world
    }

    pub(super) fn machine(&mut self, n: u32, view: MachineView) {
        self.0.set_machine(machine(n), MachineView { host: format!("m{n}"), ..view });
    }

    pub(super) fn drain(&mut self, n: u32) {
        self.machine(n, MachineView { draining: true, ..looks("") });
    }

    pub(super) fn want(&mut self, unit: &str, words: &str) {
        self.0.set_unit(&name(unit), UnitView { requirements: asks(words), wanted: Wanted::Placed });
    }

    /// The user unloads it: what it asks for stays.
    pub(super) fn unload(&mut self, unit: &str) {
        let it = self.0.unit(self.0.by_name[unit]);
        let requirements = self.0.classes.get(it.class).requirements.clone();
        self.0.set_unit(&name(unit), UnitView { requirements, wanted: Wanted::Nowhere });
    }

    pub(super) fn gone(&mut self, unit: &str, n: u32) {
        self.0.clear_departing(&name(unit), machine(n));
    }

    /// Decides until there is nothing more to decide: `a+1` is placed on 1, `a-1` leaves it.
    pub(super) fn run(&mut self) -> String {
        let mut said = Vec::new();
        for _ in 0..1_000 {
            let decisions = self.0.decide(3);
            if decisions.is_empty() {
                return said.join(" ");
            }
            said.extend(decisions.iter().map(|decision| {
                let sign = if matches!(decision, Decision::Place { .. }) { '+' } else { '-' };
                let number = decision.machine().to_string();
                format!(
                    "{}{sign}{}",
                    decision.unit().without_suffix(),
                    u32::from_str_radix(&number[24..], 16).unwrap()
                )
            }));
        }
        panic!("decides for ever: {said:?}");
    }

    pub(super) fn why(&self, unit: &str) -> String {
        self.0.explain(&name(unit)).to_string()
    }

    pub(super) fn on(&self, unit: &str) -> Vec<MachineId> {
        self.0.placed_on(&name(unit))
    }
}
