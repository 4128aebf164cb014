//! `flotctl list-machines`.

use flotilla_api::machine::Machine;

use super::all_pages;
use crate::{
    args::Output,
    connection::Cluster,
    table::{self, Column, ListOptions, Shown, Tabled},
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
    const COLUMNS: &'static [Column<Self>] = &[
        Column { name: "host", shown: Shown::Always, text: |m, _| m.host.clone().unwrap_or_default() },
        Column { name: "machine", shown: Shown::Always, text: |m, full| id(m, full) },
        Column { name: "state", shown: Shown::Always, text: |m, _| m.state.to_string() },
        Column {
            name: "address",
            shown: Shown::Always,
            text: |m, _| m.addresses.first().cloned().unwrap_or_default(),
        },
        // fleetctl's name for the address.
        Column {
            name: "ip",
            shown: Shown::Asked,
            text: |m, _| m.addresses.first().cloned().unwrap_or_default(),
        },
        Column { name: "units", shown: Shown::Always, text: |m, _| m.units.to_string() },
        Column { name: "metadata", shown: Shown::Always, text: |m, _| metadata(m) },
        Column { name: "role", shown: Shown::Wide, text: |m, _| role(m).to_owned() },
        Column { name: "marks", shown: Shown::Wide, text: |m, _| marks(m) },
        Column { name: "version", shown: Shown::Wide, text: |m, _| m.version.clone() },
        Column {
            name: "systemd",
            shown: Shown::Wide,
            text: |m, _| m.facts.get("systemd").cloned().unwrap_or_default(),
        },
        Column {
            name: "os",
            shown: Shown::Wide,
            text: |m, _| m.facts.get("os.name").cloned().unwrap_or_default(),
        },
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

fn metadata(machine: &Machine) -> String {
    let pairs: Vec<String> = machine.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

const fn role(machine: &Machine) -> &'static str {
    match (machine.leader, machine.seat) {
        (true, _) => "leader",
        (false, true) => "seat",
        (false, false) => "",
    }
}

fn marks(machine: &Machine) -> String {
    let marks = [(machine.cordoned, "cordoned"), (machine.draining, "draining")];
    let set: Vec<&str> = marks.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    set.join(",")
}
