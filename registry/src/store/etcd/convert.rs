//! Our requests as etcd's, etcd's answers as ours.

use std::sync::Arc;

use etcd_client::{
    CompareOp, DeleteOptions, GetOptions, GetResponse, PutOptions, ResponseHeader, TxnOp,
    proto::{PbKeyValue, PbTxnOpResponse},
};
use tracing::warn;

use super::super::{
    Compare, KeyRange, KeyValue, LeaseId, Operation, RangeRequest, RangeResponse, Revision, StoreError, Txn,
    TxnResponse,
};

/// Returns the options of a range read.
pub(super) fn get_options(request: &RangeRequest) -> GetOptions {
    let mut options = range_options(&request.range);
    if let Some(revision) = request.revision {
        options = options.with_revision(revision.0);
    }
    if let Some(limit) = request.limit {
        options = options.with_limit(i64::try_from(limit).unwrap_or(i64::MAX));
    }
    if request.keys_only { options.with_keys_only() } else { options }
}

/// Returns a transaction as etcd's.
pub(super) fn txn(txn: &Txn) -> etcd_client::Txn {
    etcd_client::Txn::new()
        .when(txn.when.iter().map(compare).collect::<Vec<_>>())
        .and_then(txn.then.iter().map(operation).collect::<Vec<_>>())
        .or_else(txn.or_else.iter().map(operation).collect::<Vec<_>>())
}

/// Returns the lease to name when etcd says only that a transaction's lease is unknown.
pub(super) fn lease_of(txn: &Txn) -> Option<LeaseId> {
    txn.then.iter().chain(&txn.or_else).find_map(|operation| match operation {
        Operation::Put { lease, .. } => *lease,
        _ => None,
    })
}

/// Returns the answer to a range read.
pub(super) fn range_response(response: GetResponse) -> Result<RangeResponse, StoreError> {
    let revision = revision(response.header());
    let more = response.more();
    let count = usize::try_from(response.count()).unwrap_or_default();
    Ok(RangeResponse { kvs: key_values(response.0.kvs), revision, more, count })
}

/// Returns the answer to a transaction.
pub(super) fn txn_response(response: etcd_client::TxnResponse) -> Result<TxnResponse, StoreError> {
    let revision = revision(response.header());
    let succeeded = response.succeeded();
    let mut gets = Vec::new();
    for operation in response.0.responses {
        if let Some(PbTxnOpResponse::ResponseRange(range)) = operation.response {
            gets.push(key_values(range.kvs));
        }
    }
    Ok(TxnResponse { succeeded, revision, gets })
}

/// Returns one key; `None` when it is not one of flotilla's.
pub(super) fn key_value(kv: PbKeyValue) -> Option<KeyValue> {
    Some(KeyValue {
        key: key(kv.key)?,
        value: Arc::from(kv.value),
        create_revision: Revision(kv.create_revision),
        mod_revision: Revision(kv.mod_revision),
        version: kv.version,
        lease: (kv.lease != 0).then_some(LeaseId(kv.lease)),
    })
}

/// Returns a key's name; `None` when it is not UTF-8. Flotilla writes none such, so it is left alone like
/// any other key that is not flotilla's.
pub(super) fn key(bytes: Vec<u8>) -> Option<String> {
    match String::from_utf8(bytes) {
        Ok(key) => Some(key),
        Err(error) => {
            let key = String::from_utf8_lossy(error.as_bytes());
            warn!(?key, "etcd holds a key that is not UTF-8; flotilla writes none such, remove it");
            None
        }
    }
}

/// Returns the revision of an answer.
pub(super) fn revision(header: Option<&ResponseHeader>) -> Revision {
    Revision(header.map_or(0, ResponseHeader::revision))
}

fn key_values(kvs: Vec<PbKeyValue>) -> Vec<KeyValue> {
    kvs.into_iter().filter_map(key_value).collect()
}

fn range_options(range: &KeyRange) -> GetOptions {
    match &range.end {
        None => GetOptions::new(),
        Some(end) => GetOptions::new().with_range(end.as_str()),
    }
}

fn compare(compare: &Compare) -> etcd_client::Compare {
    use etcd_client::Compare as Theirs;
    match compare {
        Compare::ModRevision(key, revision) => {
            Theirs::mod_revision(key.as_str(), CompareOp::Equal, revision.0)
        }
        Compare::CreateRevision(key, revision) => {
            Theirs::create_revision(key.as_str(), CompareOp::Equal, revision.0)
        }
        Compare::Absent(key) => Theirs::create_revision(key.as_str(), CompareOp::Equal, 0),
        Compare::Present(key) => Theirs::create_revision(key.as_str(), CompareOp::Greater, 0),
        Compare::Unwritten(range, since) => {
            // etcd compares every key of the range, and takes an empty one for a key of revision zero.
            let theirs =
                Theirs::mod_revision(range.start.as_str(), CompareOp::Less, since.0.saturating_add(1).max(1));
            match &range.end {
                Some(end) => theirs.with_range(end.as_str()),
                None => theirs,
            }
        }
    }
}

fn operation(operation: &Operation) -> TxnOp {
    match operation {
        Operation::Put { key, value, lease } => {
            let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
            TxnOp::put(key.as_str(), value.as_slice(), options)
        }
        Operation::Delete(range) => {
            let options = range.end.as_deref().map(|end| DeleteOptions::new().with_range(end));
            TxnOp::delete(range.start.as_str(), options)
        }
        Operation::Get(range) => TxnOp::get(range.start.as_str(), Some(range_options(range))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_not_text_is_left_out_and_hides_no_other() {
        let named = |key: &[u8]| PbKeyValue { key: key.to_vec(), mod_revision: 3, ..PbKeyValue::default() };
        let kvs = key_values(vec![named(b"/flotilla/a"), named(b"/flotilla/\xff"), named(b"/flotilla/z")]);
        assert_eq!(kvs.iter().map(|kv| kv.key.as_str()).collect::<Vec<_>>(), ["/flotilla/a", "/flotilla/z"]);
    }
}
