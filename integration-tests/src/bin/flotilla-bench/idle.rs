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
    let (before_counts, after_counts) = (before.0, after.0);
    let keys = (after_counts.keys - before_counts.keys, 0.0, "");
    table.at_most("puts and deletes in etcd", keys, String::new());
    let proposals = (after_counts.proposals - before_counts.proposals, 0.0, "");
    table.at_most("entries in etcd's log: any write, granted lease or compaction", proposals, String::new());
    let transactions = after_counts.transactions - before_counts.transactions;
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

/// What etcd counts.
struct Counts {
    /// Keys put or deleted.
    keys: f64,
    /// Entries of its log that were applied. Whatever reaches its disk is one, leases granted and
    /// revisions compacted too; a renewed lease is none.
    proposals: f64,
    transactions: f64,
}

fn counts(lab: &Lab) -> Result<Counts> {
    let count = |name| counter(lab, name);
    Ok(Counts {
        keys: count("etcd_debugging_mvcc_put_total")? + count("etcd_debugging_mvcc_delete_total")?,
        proposals: count("etcd_server_proposals_applied_total")?,
        transactions: count("etcd_debugging_mvcc_txn_total")?,
    })
}

/// PID 1 and flotillad of each machine.
fn used(lab: &Lab) -> Result<Vec<(crate::probe::Process, crate::probe::Process)>> {
    lab.machines()
        .iter()
        .map(|machine| processes(machine).map(|[init, flotillad, _]| (init, flotillad)))
        .collect()
}
