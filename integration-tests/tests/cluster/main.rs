//! Whole clusters on real parts: machines with systemd, flotillad as their service, etcd and the
//! API over TLS, and `flotctl` as the one that asks.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::time::Duration;

use flotilla_api::cluster::ClusterStatus;
use flotilla_integration_tests::{Cluster, SLEEPER, alone};
use flotilla_lab::Machine;

mod adopt;
mod apply;
mod change;
mod destroy;
mod forwarding;
mod history;
mod hold;
mod journal;
mod leader;
mod life;
mod loss;
mod machines;
mod placing;
mod restore;
mod status;
mod store;
mod stories;
mod upgrade;
mod walk;
mod why;

/// A machine's lease as flotillad has it by default: what a test that waits for its end counts on.
const MACHINE_LEASE: Duration = Duration::from_secs(10);

/// How much longer than its lease a machine's units may be away.
const GRACE: Duration = Duration::from_secs(2);

/// Where the tests put unit files in a machine.
const UNITS: &str = "/root/units";

/// Writes unit files into a machine, for its `flotctl` to read.
fn write_units(machine: &Machine, files: &[(&str, String)]) {
    for (name, text) in files {
        machine.write_file(&format!("{UNITS}/{name}"), text).unwrap();
    }
}

/// A unit file that runs until it is stopped, with lines for its `[X-Flotilla]` section.
fn sleeper(placement: &str) -> String {
    format!("{SLEEPER}[X-Flotilla]\n{placement}\n")
}

/// What needs an operator, as one machine's flotctl says.
fn problems(cluster: &Cluster, machine: &Machine) -> anyhow::Result<Vec<String>> {
    let status: ClusterStatus = cluster.json(machine, &["cluster", "status"])?;
    Ok(status.problems)
}

/// Submits a template that runs until it is stopped and starts instances 1 to `count` of it, by
/// one command each.
fn start_instances(cluster: &Cluster, machine: &Machine, template: &str, text: String, count: usize) {
    write_units(machine, &[(&format!("{template}@.service"), text)]);
    cluster.ask(machine, &["submit", &format!("{UNITS}/{template}@.service")]).unwrap();
    let names: Vec<String> = (1..=count).map(|n| format!("{template}@{n}")).collect();
    let mut words = vec!["start"];
    words.extend(names.iter().map(String::as_str));
    cluster.ask(machine, &words).unwrap();
}
