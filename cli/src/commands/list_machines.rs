//! `flotctl list-machines`.

use std::collections::BTreeMap;

use flotilla_api::machine::Machine;

use super::all_pages;
use crate::{
    args::Output,
    connection::Cluster,
    table::{self, Column, ListOptions, Shown, Tabled},
    text,
};

/// Lists the machines of the cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Globs over host names and ids
    #[arg(value_name = "PATTERN", add = crate::complete::machines())]
    patterns: Vec<String>,

    #[command(flatten)]
    pub(super) list: ListOptions<Machine>,
}

impl Tabled for Machine {
    // fleet's three first, in its order: scripts read them by their place.
    const COLUMNS: &'static [Column<Self>] = &[
        Column { name: "machine", shown: Shown::Always, text: |m, full| id(m, full) },
        Column { name: "ip", shown: Shown::Always, text: |m, _| first_address(m) },
        Column { name: "metadata", shown: Shown::Always, text: |m, _| pairs(&m.metadata) },
        Column { name: "host", shown: Shown::Always, text: |m, _| m.host.clone().unwrap_or_default() },
        Column { name: "state", shown: Shown::Always, text: |m, _| state(m) },
        Column { name: "units", shown: Shown::Always, text: |m, _| m.units.to_string() },
        Column { name: "role", shown: Shown::Wide, text: |m, _| role(m).to_owned() },
        Column { name: "cpu", shown: Shown::Wide, text: |m, _| cpu(m) },
        Column { name: "memory", shown: Shown::Wide, text: |m, _| memory(m) },
        Column { name: "resources", shown: Shown::Wide, text: |m, _| resources(m) },
        Column { name: "os", shown: Shown::Wide, text: |m, _| fact(m, "os.name") },
        Column { name: "kernel", shown: Shown::Wide, text: |m, _| fact(m, "kernel") },
        Column { name: "architecture", shown: Shown::Wide, text: |m, _| fact(m, "architecture") },
        Column { name: "systemd", shown: Shown::Wide, text: |m, _| fact(m, "systemd") },
        Column { name: "version", shown: Shown::Wide, text: |m, _| m.version.clone() },
        Column { name: "addresses", shown: Shown::Wide, text: |m, _| m.addresses.join(",") },
        Column { name: "facts", shown: Shown::Asked, text: |m, _| pairs(&m.facts) },
        Column { name: "boot", shown: Shown::Asked, text: |m, _| fact(m, "boot") },
        Column { name: "address", shown: Shown::Asked, text: |m, _| first_address(m) },
        Column { name: "api", shown: Shown::Asked, text: |m, _| m.api.clone().unwrap_or_default() },
    ];
}

/// Runs the command.
pub(crate) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<()> {
    let machines =
        all_pages(cluster, &args.patterns, async |client, query| client.machines(query).await).await?;
    table::show(&machines, &args.list, output)
}

fn id(machine: &Machine, full: bool) -> String {
    if full { machine.id.to_string() } else { machine.id.short() }
}

fn first_address(machine: &Machine) -> String {
    machine.addresses.first().cloned().unwrap_or_default()
}

fn fact(machine: &Machine, key: &str) -> String {
    machine.facts.get(key).cloned().unwrap_or_default()
}

fn pairs(map: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

/// How it is, and what users want of it.
fn state(machine: &Machine) -> String {
    let marks = [(machine.cordoned, "cordoned"), (machine.draining, "draining"), (machine.fenced, "fenced")];
    let set = marks.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned());
    [machine.state.to_string()].into_iter().chain(set).collect::<Vec<_>>().join(",")
}

/// Processors that are reserved, of those that there are.
fn cpu(machine: &Machine) -> String {
    let cores = |milli: u64| match milli % 1_000 {
        0 => (milli / 1_000).to_string(),
        part => format!("{}.{part:03}", milli / 1_000).trim_end_matches('0').to_owned(),
    };
    format!("{}/{}", cores(machine.reserved.cpu_milli), cores(machine.capacity.cpu_milli))
}

/// Memory that is reserved, of what there is.
fn memory(machine: &Machine) -> String {
    let (reserved, all) = (machine.reserved.memory_bytes, machine.capacity.memory_bytes);
    format!("{}/{}", text::bytes(reserved), text::bytes(all))
}

/// Counted resources that are reserved, of those that there are.
fn resources(machine: &Machine) -> String {
    let reserved = |name: &String| machine.reserved.named.get(name).copied().unwrap_or_default();
    let all = machine.capacity.named.iter().map(|(name, all)| format!("{name}={}/{all}", reserved(name)));
    all.collect::<Vec<_>>().join(",")
}

const fn role(machine: &Machine) -> &'static str {
    match (machine.leader, machine.seat) {
        (true, _) => "leader",
        (false, true) => "seat",
        (false, false) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_stands_before_what_there_is() {
        let machine: Machine = serde_json::from_value(serde_json::json!({
            "id": "113f16a7a0f84c4c8a3f9e3b2f4d6c02", "state": "alive", "units": 0, "cordoned": true,
            "draining": true,
            "capacity": { "cpu_milli": 4000, "memory_bytes": 12_884_901_888_u64, "named": { "gpu": 2 } },
            "reserved": { "cpu_milli": 1250, "memory_bytes": 1_073_741_824, "named": { "gpu": 1 } },
        }))
        .expect("a machine");
        assert_eq!((cpu(&machine).as_str(), resources(&machine).as_str()), ("1.25/4", "gpu=1/2"));
        assert_eq!(memory(&machine), format!("{}/{}", text::bytes(1 << 30), text::bytes(12 << 30)));
        assert_eq!(state(&machine), "alive,cordoned,draining");
    }
}
