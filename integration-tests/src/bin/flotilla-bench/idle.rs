//! What a cluster with nothing to do writes and uses.

use anyhow::Result;
use flotilla_lab::Lab;

use crate::{
    probe::{counter, processes},
    say, shell, submit,
    table::Table,
};

/// Units at rest.
const UNITS: usize = 300;

/// Seconds after the last start until rest is believed: reports are coalesced by far less.
const SETTLING: &str = "sleep 10";

/// How long rest is watched, in seconds.
const WATCHED: f64 = 60.0;

/// Measures 300 units at rest, for a minute.
pub fn measure(lab: &Lab) -> Result<Table> {
    let first = submit(lab)?;
    say("starting 300 units, then watching them for a minute");
    shell(first, &format!("flotctl start --timeout 300s $(seq -f bench@%g.service 1 {UNITS}) >/dev/null"))?;
    shell(first, SETTLING)?;
    let before = (counts(lab)?, used(lab)?);
    shell(first, &format!("sleep {WATCHED}"))?;
    let after = (counts(lab)?, used(lab)?);

    let mut table = Table::new("300 units at rest on 3 machines, for 60 s");
    let writes = (after.0.0 - before.0.0, 0.0, "");
    table.at_most("puts and deletes in etcd", writes, String::new());
    let transactions = after.0.1 - before.0.1;
    table.row(
        "transactions in etcd that read or wrote more than one key",
        transactions.to_string(),
        String::new(),
    );
    for ((machine, before), after) in lab.machines().iter().zip(before.1).zip(after.1) {
        for (name, before, after) in [("flotillad", before.1, after.1), ("PID 1", before.0, after.0)] {
            let share = (after.cpu - before.cpu) / WATCHED * 100.0;
            let text = format!("{share:.2} % of a core, {:.1} MiB", after.memory);
            table.row(format!("{name} of {}", machine.name()), text, String::new());
        }
    }
    Ok(table)
}

/// Writes, and transactions. Keep-alives of leases are neither.
fn counts(lab: &Lab) -> Result<(f64, f64)> {
    let writes =
        counter(lab, "etcd_debugging_mvcc_put_total")? + counter(lab, "etcd_debugging_mvcc_delete_total")?;
    Ok((writes, counter(lab, "etcd_debugging_mvcc_txn_total")?))
}

/// PID 1 and flotillad of each machine.
fn used(lab: &Lab) -> Result<Vec<(crate::probe::Process, crate::probe::Process)>> {
    lab.machines()
        .iter()
        .map(|machine| processes(machine).map(|[init, flotillad, _]| (init, flotillad)))
        .collect()
}
