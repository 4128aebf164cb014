//! What makes a request one that can never succeed.
//!
//! Both stores ask here before anything is sent or applied, so a request that etcd would refuse is
//! refused by the embedded store too, with the same words, in tests that never see etcd.

use std::collections::HashSet;

use super::{Compare, KeyRange, Operation, Revision, StoreError, Txn};

/// The most compares, and the most operations of one branch: etcd's `--max-txn-ops`.
pub(super) const SERVER_OPERATIONS_MAX: usize = 128;

/// The most bytes of one request: etcd's `--max-request-bytes`, 1.5 MiB.
pub(super) const SERVER_BYTES_MAX: usize = 1_572_864;

/// Bytes that the encoding adds to each operation: field tags, lengths and the lease (measured to
/// be about 30 for flotilla's keys).
const OPERATION_OVERHEAD_BYTES: usize = 32;

/// Refuses a range that etcd would refuse or read as something else.
pub(super) fn range(range: &KeyRange) -> Result<(), StoreError> {
    if range.start.is_empty() {
        return Err(StoreError::Invalid("a key is empty; every key needs at least one byte".into()));
    }
    // An `end` of one zero byte means "all keys from here on" to etcd: it is below every start
    // that is not empty, so the comparison refuses it as well.
    match &range.end {
        Some(end) if *end <= range.start => Err(StoreError::Invalid(format!(
            "the range from {:?} to {end:?} is empty; its end must be above its start",
            range.start
        ))),
        _ => Ok(()),
    }
}

/// Refuses a compaction before the first revision, which etcd takes for its own start.
pub(super) fn compaction(revision: Revision) -> Result<(), StoreError> {
    if revision.0 < 1 {
        return Err(StoreError::Invalid(format!(
            "cannot compact to revision {}; the first is 1",
            revision.0
        )));
    }
    Ok(())
}

/// Refuses a transaction that etcd would refuse whatever the store holds.
pub(super) fn txn(txn: &Txn) -> Result<(), StoreError> {
    for (what, count) in [
        ("compares", txn.when.len()),
        ("operations", txn.then.len()),
        ("alternative operations", txn.or_else.len()),
    ] {
        if count > SERVER_OPERATIONS_MAX {
            return Err(StoreError::Invalid(format!(
                "too many {what} in one transaction: {count}, at most {SERVER_OPERATIONS_MAX}"
            )));
        }
    }
    for compare in &txn.when {
        match compare {
            Compare::Unwritten(compared, _) => range(compared)?,
            compare => range(&KeyRange::key(compare.key()))?,
        }
    }
    branch(&txn.then)?;
    branch(&txn.or_else)?;
    let bytes = request_bytes(txn);
    if bytes > SERVER_BYTES_MAX && !is_read_only(txn) {
        return Err(StoreError::Invalid(format!(
            "the transaction is too large: {bytes} bytes, at most {SERVER_BYTES_MAX}"
        )));
    }
    Ok(())
}

/// Tells whether no branch of a transaction writes.
pub(super) fn is_read_only(txn: &Txn) -> bool {
    txn.then.iter().chain(&txn.or_else).all(|operation| matches!(operation, Operation::Get(_)))
}

/// A key may be written once: two puts, or a put inside a deleted range, are refused in any order.
fn branch(operations: &[Operation]) -> Result<(), StoreError> {
    let mut puts = HashSet::new();
    let mut deletes = Vec::new();
    for operation in operations {
        match operation {
            Operation::Put { key, .. } => {
                range(&KeyRange::key(key))?;
                if !puts.insert(key.as_str()) {
                    return Err(duplicate(key));
                }
            }
            Operation::Delete(deleted) => {
                range(deleted)?;
                deletes.push(deleted);
            }
            Operation::Get(read) => range(read)?,
        }
    }
    for deleted in deletes {
        if let Some(key) = puts.iter().find(|key| deleted.contains(key)) {
            return Err(duplicate(key));
        }
    }
    Ok(())
}

fn duplicate(key: &str) -> StoreError {
    StoreError::Invalid(format!("duplicate key in one transaction: {key} is written more than once"))
}

fn request_bytes(txn: &Txn) -> usize {
    let range_bytes = |range: &KeyRange| range.start.len() + range.end.as_ref().map_or(0, String::len);
    let compares: usize = txn.when.iter().map(|c| c.key().len() + OPERATION_OVERHEAD_BYTES).sum();
    let operations: usize = txn
        .then
        .iter()
        .chain(&txn.or_else)
        .map(|operation| {
            OPERATION_OVERHEAD_BYTES
                + match operation {
                    Operation::Put { key, value, .. } => key.len() + value.len(),
                    Operation::Delete(range) | Operation::Get(range) => range_bytes(range),
                }
        })
        .sum();
    compares + operations
}
