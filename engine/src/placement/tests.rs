//! The rules as tables, the explanations as people see them, and properties that always hold.

mod explanations;
mod fleet_tables;
mod moves;
mod plain;
mod properties;
mod rebalance;
mod requirements;
mod resources;
mod ties;
mod waking;

use std::sync::Arc;

use flotilla_registry::records::Capacity;
use flotilla_units::{
    Is, MachineChoice, MachineId, PreferTerm, Preference, Selector, UnitName, UnitRequirements,
};

use super::*;

/// Machine number `n`.
pub(super) fn machine(n: u32) -> MachineId {
    format!("{n:032x}").parse().unwrap()
}

pub(super) fn name(text: &str) -> UnitName {
    text.parse().unwrap()
}

/// Requirements from words such as `MachineOf=a.service`, `zone=a`, `!gpu`, `Global`, `CPU=500`, `Use.gpu=1`,
/// `Prefer=-10:MachineOf=a*`.
pub(super) fn asks(words: &str) -> Arc<UnitRequirements> {
    let mut it = UnitRequirements::default();
    for word in words.split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("Global", _) => it.global = true,
            ("Sticky", _) => it.sticky = true,
            ("Preempt", _) => it.preempt = true,
            ("Priority", n) => it.priority = n.parse().unwrap(),
            ("MachineID", n) => it.machine = Some(machine(n.parse().unwrap()).into()),
            ("Host", name) => it.machine = Some(MachineChoice::Host(name.to_owned())),
            ("Prefix", text) => it.machine = Some(MachineChoice::Prefix(text.to_owned())),
            ("MachineOf", glob) => drop(it.machine_of.insert(glob.parse().unwrap())),
            ("Conflicts", glob) => drop(it.conflicts.insert(glob.parse().unwrap())),
            ("Replaces", glob) => drop(it.replaces.insert(glob.parse().unwrap())),
            ("Spread", key) => drop(it.spread.insert(key.to_owned())),
            ("Max", n) => it.max_per_machine = Some(n.parse().unwrap()),
            ("CPU", n) => it.reserve.cpu_milli = n.parse().unwrap(),
            ("Memory", n) => it.reserve.memory_bytes = n.parse().unwrap(),
            ("Port", n) => drop(it.reserve.ports.insert(n.parse().unwrap())),
            ("Prefer", wish) => drop(it.prefer.insert(wished(wish))),
            (key, "") => drop(it.metadata.insert(without_value(key))),
            (key, value) => match key.strip_prefix("Use.") {
                Some(name) => drop(it.reserve.named.insert(name.to_owned(), value.parse().unwrap())),
                None => add_value(&mut it.metadata, key, value),
            },
        }
    }
    Arc::new(it)
}

fn without_value(word: &str) -> Selector {
    match word.strip_prefix('!') {
        Some(key) => Selector { key: key.to_owned(), is: Is::Absent },
        None => Selector { key: word.to_owned(), is: Is::Present },
    }
}

fn wished(wish: &str) -> Preference {
    let (weight, term) = wish.split_once(':').unwrap();
    let term = match term.split_once('=').unwrap() {
        ("MachineOf", glob) => PreferTerm::MachineOf(glob.parse().unwrap()),
        ("Spread", key) => PreferTerm::Spread(key.to_owned()),
        (key, value) => {
            let is = Is::OneOf([value.to_owned()].into());
            PreferTerm::Metadata(Selector { key: key.to_owned(), is })
        }
    };
    Preference { weight: weight.parse().unwrap(), term }
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

/// A machine from words such as `zone=a`, `CPU:4000`, `Memory:100`, `gpu:2`.
pub(super) fn looks(words: &str) -> MachineView {
    let (mut metadata, mut capacity) = (BTreeMap::new(), Capacity::default());
    for word in words.split_whitespace() {
        if let Some((key, value)) = word.split_once('=') {
            metadata.insert(key.to_owned(), value.to_owned());
        } else if let Some((name, count)) = word.split_once(':') {
            let count = count.parse().unwrap();
            match name {
                "CPU" => capacity.cpu_milli = count,
                "Memory" => capacity.memory_bytes = count,
                name => drop(capacity.named.insert(name.to_owned(), count)),
            }
        }
    }
    MachineView { host: String::new(), metadata, schedulable: true, draining: false, capacity }
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

    /// Drains a machine, or ends that.
    pub(super) fn drain(&mut self, n: u32) {
        self.draining(n, true);
    }

    pub(super) fn draining(&mut self, n: u32, draining: bool) {
        let view = self.0.machine(self.0.by_id[&machine(n)]).view.clone().unwrap();
        self.machine(n, MachineView { draining, ..view });
    }

    pub(super) fn ready(&mut self, unit: &str, n: u32) {
        self.0.set_ready(&name(unit), machine(n));
    }

    pub(super) fn want(&mut self, unit: &str, words: &str) {
        self.0.set_unit(&name(unit), UnitView { requirements: asks(words), wanted: Wanted::Placed });
    }

    /// The user unloads it: what it asks for stays.
    pub(super) fn unload(&mut self, unit: &str) {
        let it = self.0.unit(self.0.find(&name(unit)).unwrap());
        let requirements = self.0.classes.get(it.class).requirements.clone();
        self.0.set_unit(&name(unit), UnitView { requirements, wanted: Wanted::Nowhere });
    }

    pub(super) fn gone(&mut self, unit: &str, n: u32) {
        self.0.clear_departing(&name(unit), machine(n));
    }

    /// Decides until there is nothing more to decide: `a+1` is placed on 1, `a-1` leaves it, `a1>2` moves from
    /// 1 to 2, `a=1` stays on 1 after all.
    pub(super) fn run(&mut self) -> String {
        let mut said = Vec::new();
        for _ in 0..1_000 {
            let decisions = self.0.decide(3);
            if decisions.is_empty() {
                return said.join(" ");
            }
            said.extend(decisions.iter().map(in_short));
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

/// What [`World::run`] says of a decision.
pub(super) fn in_short(decision: &Decision) -> String {
    let number = |id: &MachineId| u32::from_str_radix(&id.to_string()[24..], 16).unwrap();
    let unit = decision.unit().without_suffix();
    match decision {
        Decision::Place { machine, .. } => format!("{unit}+{}", number(machine)),
        Decision::Depart { machine, .. } => format!("{unit}-{}", number(machine)),
        Decision::Move { from, to, .. } => format!("{unit}{}>{}", number(from), number(to)),
        Decision::Stay { machine, .. } => format!("{unit}={}", number(machine)),
    }
}
