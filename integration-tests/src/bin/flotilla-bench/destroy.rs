//! How long it takes until running units are gone, their `ExecStop=` run.

use anyhow::{Context, Result, ensure};
use flotilla_integration_tests::SAYS_STOPPED;
use flotilla_lab::Lab;

use crate::{probe::epoch, say, shell, table::Table};

/// How many units are destroyed by one command.
const UNITS: usize = 100;

/// The goal, in seconds; CoreOS fleet needed 158 for as many.
const MOST: f64 = 5.0;

/// Starts units that say when they are stopped, and destroys them.
pub fn measure(lab: &Lab) -> Result<Table> {
    let first = lab.machine("m1")?;
    first.write_file("/root/gone@.service", SAYS_STOPPED)?;
    say(&format!("starting {UNITS} units, then destroying them"));
    let names = format!("$(seq -f gone@%g.service 1 {UNITS})");
    shell(
        first,
        &format!("flotctl submit /root/gone@.service && flotctl start --timeout 300s {names} >/dev/null"),
    )?;
    let line = "echo $EPOCHREALTIME; flotctl destroy --timeout 300s 'gone@*.service' >/dev/null && echo $EPOCHREALTIME";
    let times = shell(first, line)?.lines().map(epoch).collect::<Result<Vec<_>>>()?;
    let [begun, ended] = times[..] else { anyhow::bail!("flotctl did not destroy {UNITS} units") };
    let mut stopped = 0;
    for machine in lab.machines() {
        let said = shell(machine, "cat /run/stopped 2>/dev/null || true")?;
        stopped += said.lines().count();
    }
    ensure!(stopped == UNITS, "{stopped} of {UNITS} units ran their ExecStop=");
    let loaded = |machine| -> Result<usize> {
        let text = shell(machine, "systemctl list-units --no-legend 'gone@*' | wc -l")?;
        text.trim().parse().context("a number of units")
    };
    let mut left = 0;
    for machine in lab.machines() {
        left += loaded(machine)?;
    }
    ensure!(left == 0, "{left} units are still loaded");
    let mut table = Table::new("destroy, 3 machines");
    let took = (ended - begun) as f64 / 1e6;
    table.at_most(format!("{UNITS} running units to gone"), (took, MOST, "s"), String::new());
    Ok(table)
}
