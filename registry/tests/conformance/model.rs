//! Random operation sequences: two stores, the same answers.

use std::time::Duration;

use flotilla_registry::store::{
    Compare, KeyRange, KeyValue, LeaseId, Operation, RangeRequest, Revision, StoreError, Txn, WatchEvent,
};
use proptest::prelude::*;

use crate::suite::{Subject, changes, revision};

/// One step; keys are numbers below 6, leases the n-th granted.
#[derive(Debug, Clone)]
pub enum Step {
    Txn {
        when: Vec<(u8, u8, i64)>,
        then: Vec<Write>,
        or_else: Vec<Write>,
    },
    Range {
        from: u8,
        to: u8,
        back: i64,
        limit: Option<usize>,
        keys_only: bool,
    },
    Grant,
    Revoke(usize),
    Compact(i64),
    /// Closes a store on disk and opens it again; elsewhere, forgets history as that does.
    Reopen,
}

#[derive(Debug, Clone)]
pub enum Write {
    Put(u8, u8, Option<usize>),
    Delete(u8, u8),
    Get(u8, u8),
}

/// The answer to a step in words that do not depend on lease ids.
pub type Answer = String;

pub fn steps(reopen: bool) -> impl Strategy<Value = Vec<Step>> {
    let write = prop_oneof![
        3 => (0..6u8, any::<u8>(), prop::option::of(0..4usize)).prop_map(|(k, v, l)| Write::Put(k, v, l)),
        1 => (0..6u8, 0..7u8).prop_map(|(from, to)| Write::Delete(from, to)),
        1 => (0..6u8, 0..7u8).prop_map(|(from, to)| Write::Get(from, to)),
    ];
    let writes = prop::collection::vec(write, 0..4);
    let when = prop::collection::vec((0..5u8, 0..6u8, 0..5i64), 0..3);
    let step = prop_oneof![
        8 => (when, writes.clone(), writes).prop_map(|(when, then, or_else)| Step::Txn { when, then, or_else }),
        4 => (0..6u8, 0..7u8, -1..6i64, prop::option::of(1..4usize), any::<bool>())
            .prop_map(|(from, to, back, limit, keys_only)| Step::Range { from, to, back, limit, keys_only }),
        1 => Just(Step::Grant),
        1 => (0..4usize).prop_map(Step::Revoke),
        1 => (-1..4i64).prop_map(Step::Compact),
        u32::from(reopen) => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

/// One store being stepped.
pub struct Run {
    pub store: Subject,
    leases: Vec<LeaseId>,
}

impl Run {
    pub fn new(store: Subject) -> Self {
        Self { store, leases: Vec::new() }
    }

    pub async fn step(&mut self, step: &Step) -> Answer {
        let now = revision(&self.store).await;
        match step {
            Step::Txn { when, then, or_else } => {
                let compare = |&(kind, key, back): &(u8, u8, i64)| match kind {
                    0 => Compare::ModRevision(name(key), Revision(now.0 - back)),
                    1 => Compare::CreateRevision(name(key), Revision(now.0 - back)),
                    2 => Compare::Absent(name(key)),
                    3 => Compare::Present(name(key)),
                    _ => Compare::Unwritten(range(key / 2, 1 + key), Revision((now.0 - back).max(0))),
                };
                let txn = Txn {
                    when: when.iter().map(compare).collect(),
                    then: self.operations(then),
                    or_else: self.operations(or_else),
                };
                match self.store.txn(txn).await {
                    Ok(answer) => {
                        let gets: Vec<_> = answer.gets.iter().map(|kvs| self.kvs(kvs)).collect();
                        format!("{} {:?} {gets:?}", answer.succeeded, answer.revision)
                    }
                    Err(error) => self.error(&error),
                }
            }
            Step::Range { from, to, back, limit, keys_only } => {
                let request = RangeRequest {
                    range: range(*from, *to),
                    revision: (*back != 0).then(|| Revision(now.0 - back)),
                    limit: *limit,
                    keys_only: *keys_only,
                };
                // etcd reads revision zero and below as "now".
                if request.revision.is_some_and(|revision| revision.0 <= 0) {
                    return "before time".into();
                }
                match self.store.range(request).await {
                    Ok(answer) => format!("{:?} {} {}", answer.revision, answer.more, self.kvs(&answer.kvs)),
                    Err(error) => self.error(&error),
                }
            }
            Step::Grant => {
                let (lease, granted) = self.store.lease_grant(Duration::from_secs(600)).await.unwrap();
                self.leases.push(lease);
                format!("{granted:?}")
            }
            Step::Revoke(index) => {
                if let Some(lease) = self.leases.get(*index) {
                    self.store.lease_revoke(*lease).await.unwrap();
                }
                format!("{:?}", revision(&self.store).await)
            }
            // The first revision is empty; a reopened store does not remember a compaction to it.
            Step::Compact(back) if now.0 - back == 1 => "nothing to forget".into(),
            Step::Compact(back) => match self.store.compact(Revision(now.0 - back)).await {
                Ok(()) => "compacted".into(),
                Err(error) => self.error(&error),
            },
            Step::Reopen => {
                // A store never written forgets nothing, and compacted there already is as good.
                if now > Revision(1) {
                    let _ = self.store.compact(now).await;
                }
                "reopened".into()
            }
        }
    }

    /// Everything that a watcher from `from` on is told, up to now.
    pub async fn watched(&self, from: Revision) -> Vec<String> {
        let last = revision(&self.store).await;
        // A change that marks the end for the reader, under every key there is.
        let end = Operation::Put { key: "k9".into(), value: vec![], lease: None };
        self.store.txn(Txn { then: vec![end], ..Txn::default() }).await.unwrap();
        let mut watch = self.store.watch(KeyRange::prefix("k"), from).await.unwrap();
        let mut seen = Vec::new();
        loop {
            let (revision, events) = changes(&mut watch).await;
            if revision > last {
                return seen;
            }
            for event in events {
                seen.push(match event {
                    WatchEvent::Put(kv) => self.kvs(&[kv]),
                    WatchEvent::Delete { key, revision } => format!("gone {key} {revision:?}"),
                });
            }
        }
    }

    fn operations(&self, writes: &[Write]) -> Vec<Operation> {
        let operation = |write: &Write| match *write {
            Write::Put(key, value, lease) => Operation::Put {
                key: name(key),
                value: vec![value],
                lease: lease.and_then(|index| self.leases.get(index).copied()),
            },
            Write::Delete(from, to) => Operation::Delete(range(from, to)),
            Write::Get(from, to) => Operation::Get(range(from, to)),
        };
        writes.iter().map(operation).collect()
    }

    fn kvs(&self, kvs: &[KeyValue]) -> String {
        let kv = |kv: &KeyValue| {
            let lease = kv.lease.map(|lease| self.leases.iter().position(|known| *known == lease));
            format!(
                "{}={:?} {}/{}/{} {lease:?}",
                kv.key, kv.value, kv.create_revision.0, kv.mod_revision.0, kv.version
            )
        };
        kvs.iter().map(kv).collect::<Vec<_>>().join(", ")
    }

    /// The kind of an error; its words may differ.
    fn error(&self, error: &StoreError) -> Answer {
        match error {
            StoreError::Invalid(_) => "invalid".into(),
            StoreError::Compacted { wanted, .. } => format!("compacted {wanted:?}"),
            // etcd does not say which; with several in a transaction the store can only guess.
            StoreError::LeaseNotFound(_) => "no lease".into(),
            other => panic!("{other:?}"),
        }
    }
}

fn name(key: u8) -> String {
    format!("k{key}")
}

/// `to` at or below `from` gives the single key.
fn range(from: u8, to: u8) -> KeyRange {
    if to > from { KeyRange::between(name(from), name(to)) } else { KeyRange::key(name(from)) }
}
