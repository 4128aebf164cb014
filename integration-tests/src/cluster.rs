//! A whole flotilla in the lab: made by `flotctl cluster init`, run by systemd, asked by `flotctl`.
//!
//! The lab sets the machines up as an administrator would. What a test does to the cluster it does
//! through the lab's machines and through `flotctl`; nothing here reaches into a daemon.

use std::{collections::BTreeMap, ops::Deref, process::Output, time::Duration};

use anyhow::{Context, Result, ensure};
use flotilla_api::{machine::MachineState, unit::Unit};
use flotilla_lab::{Installation, Machine, eventually};
use flotilla_registry::{
    keys::{Key, Keys},
    records::{LeaderRecord, Record},
};
use serde::de::DeserializeOwned;

use crate::LIMIT;
use crate::real::{TestLab, binary, lab_with};

/// Which invocation of a unit runs on a machine: changes with every start.
pub type Invocations = BTreeMap<(String, String), String>;

/// A running cluster in a lab of its own; what a lab can do, it can too.
#[derive(Debug)]
pub struct Cluster {
    lab: TestLab,
    keys: Keys,
}

impl Deref for Cluster {
    type Target = TestLab;

    fn deref(&self) -> &TestLab {
        &self.lab
    }
}

impl Cluster {
    /// Boots machines and etcd members, makes a cluster of them, and waits until it has a leader
    /// and every machine is alive. Each machine's metadata says `host=m1`, `host=m2`, and so on.
    ///
    /// # Errors
    ///
    /// Anything on the way; never because it cannot run here.
    pub fn up(name: &str, machines: usize, members: usize) -> Result<Self> {
        let flotillad = binary("flotillad")?;
        let programs = flotillad.parent().context("flotillad is in a directory")?;
        let lab = lab_with(name, |options| (options.machines, options.members) = (machines, members))?;
        lab.make_cluster(&Installation::new(programs, concat!(env!("CARGO_MANIFEST_DIR"), "/../dist")))?;
        Ok(Self { lab, keys: Keys::default() })
    }

    /// Runs `flotctl` inside a machine, on its flotillad's socket.
    ///
    /// # Errors
    ///
    /// Only if it could not be run.
    pub fn flotctl(&self, machine: &Machine, words: &[&str]) -> Result<Output> {
        machine.exec(&[&["flotctl"], words].concat())
    }

    /// Runs `flotctl` and returns what it printed.
    ///
    /// # Errors
    ///
    /// Also if it fails, with what it said.
    pub fn ask(&self, machine: &Machine, words: &[&str]) -> Result<String> {
        machine.run(&[&["flotctl"], words].concat())
    }

    /// Runs `flotctl` with `--output json` and reads what it printed.
    ///
    /// # Errors
    ///
    /// As [`Cluster::ask`]; or the answer is not what was expected.
    pub fn json<T: DeserializeOwned>(&self, machine: &Machine, words: &[&str]) -> Result<T> {
        let text = self.ask(machine, &[words, &["--output", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("reading what {words:?} printed: {text}"))
    }

    /// The cluster's units that a pattern selects, as one machine's flotctl lists them.
    pub fn units(&self, machine: &Machine, pattern: &str) -> Result<Vec<Unit>> {
        self.json(machine, &["list-units", pattern])
    }

    /// Where a pattern's units are active, and nothing else: host names by unit. Fails if one of
    /// them is not active wherever it is placed.
    pub fn active(&self, machine: &Machine, pattern: &str) -> Result<BTreeMap<String, Vec<String>>> {
        let mut found = BTreeMap::new();
        for unit in self.units(machine, pattern)? {
            let mut hosts = Vec::new();
            for placement in unit.placements.iter().filter(|placement| placement.machine_alive) {
                let host = placement.host.clone().context("a living machine has a name")?;
                let state = placement.state.as_ref().filter(|state| state.token == Some(placement.token));
                let active = state.map_or("not reported", |state| state.active.as_str());
                ensure!(placement.departing.is_none(), "{} has to leave {host}", unit.name);
                ensure!(active == "active", "{} is {active} on {host}", unit.name);
                hosts.push(host);
            }
            ensure!(!hosts.is_empty(), "{} is on no machine: {:?}", unit.name, unit.unplaced);
            hosts.sort();
            found.insert(unit.name.to_string(), hosts);
        }
        Ok(found)
    }

    /// Waits until that many units of a pattern are there and all are active; then as
    /// [`Cluster::active`]. For what has been started by way of another machine, or a moment ago.
    pub fn wait_active(
        &self,
        machine: &Machine,
        pattern: &str,
        count: usize,
    ) -> Result<BTreeMap<String, Vec<String>>> {
        eventually(LIMIT, format_args!("{count} units of {pattern} to be active"), || {
            Ok(Some(self.active(machine, pattern)?).filter(|active| active.len() == count))
        })
    }

    /// Which machine's engine leads, as the store has it; none between two leaders.
    pub fn leader(&self) -> Result<Option<&Machine>> {
        let Some(record) = self.leader_record()? else { return Ok(None) };
        let id = record.machine.to_string();
        let found = self.machines().iter().find(|machine| machine.id() == id);
        Ok(Some(found.with_context(|| format!("{id} leads, which is no machine of the lab"))?))
    }

    /// Waits until a machine other than `not` leads.
    pub fn wait_for_leader(&self, limit: Duration, not: Option<&Machine>) -> Result<&Machine> {
        eventually(limit, "a leader", || {
            Ok(self.leader()?.filter(|leader| not.is_none_or(|not| not.id() != leader.id())))
        })
    }

    /// The record of the leader in the store.
    pub fn leader_record(&self) -> Result<Option<LeaderRecord>> {
        self.record(&Key::Leader)
    }

    /// The record under a key in the store.
    pub fn record<R: Record>(&self, key: &Key) -> Result<Option<R>> {
        let key = self.keys.spell(key);
        let value = self.etcdctl(&["get", "--print-value-only", &key])?;
        let value = value.trim();
        if value.is_empty() {
            return Ok(None);
        }
        Ok(Some(R::decode(&key, value.as_bytes())?))
    }

    /// How the store spells a key.
    pub fn key(&self, key: &Key) -> String {
        self.keys.spell(key)
    }

    /// Every flotilla unit that systemd has loaded on the machines that run, with its invocation.
    pub fn invocations(&self) -> Result<Invocations> {
        let mut all = Invocations::new();
        for machine in self.machines().iter().filter(|machine| machine.is_running()) {
            all.extend(invocations(machine)?);
        }
        Ok(all)
    }

    /// Waits until a machine's flotctl shows that many machines alive, its own among them, and a
    /// leader.
    pub fn wait_for_machines(&self, machine: &Machine, alive: usize) -> Result<()> {
        let what = format!("{} to see {alive} machines alive and a leader", machine.name());
        let seen = eventually(LIMIT, what, || {
            let machines: Vec<flotilla_api::machine::Machine> = self.json(machine, &["list-machines"])?;
            let living = machines.iter().filter(|m| m.state == MachineState::Alive).count();
            Ok((living == alive && machines.iter().any(|m| m.leader)).then_some(()))
        });
        seen.with_context(|| machine.journal(&["flotillad.service"]).unwrap_or_default())
    }
}

/// The flotilla units that systemd has loaded on a machine, with their invocations.
fn invocations(machine: &Machine) -> Result<Invocations> {
    let list = "ls /run/flotilla/units | xargs -r systemctl show --property=Id,InvocationID --";
    let text = machine.shell(list)?;
    let mut found = Invocations::new();
    for block in text.split("\n\n") {
        let value = |key: &str| block.lines().find_map(|line| line.strip_prefix(key));
        if let (Some(unit), Some(invocation)) = (value("Id="), value("InvocationID="))
            && !invocation.is_empty()
        {
            found.insert((machine.name().to_owned(), unit.to_owned()), invocation.to_owned());
        }
    }
    Ok(found)
}
