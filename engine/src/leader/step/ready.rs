//! Transactions as they go to the store: with the fence, the cluster's mod revision, and the event that tells of them.

use flotilla_registry::{
    keys::Key,
    records::{EventChange, EventRecord, Record as _, VERSION},
    store::{Compare, KeyRange, Operation, Revision, Txn},
};

use super::{
    super::{batch::Transaction, cause},
    Memory, Now,
};
use crate::state::ClusterState;

/// A transaction with all that it needs.
#[derive(Debug, Clone)]
pub struct Ready {
    /// What goes to the store.
    pub txn: Txn,
    /// What it was made of.
    pub of: Transaction,
    /// The event that goes with it, if it tells anything.
    pub event: Option<EventRecord>,
}

impl Memory {
    /// Dresses a transaction: fence, the cluster's mod revision, event, deletion of old events.
    pub(super) fn ready(
        &mut self,
        state: &ClusterState,
        cluster_at: Revision,
        of: Transaction,
        now: Now,
        old: &[String],
    ) -> Ready {
        let keys = state.keys();
        let mut when = vec![self.fence.clone(), Compare::ModRevision(keys.spell(&Key::Cluster), cluster_at)];
        when.extend(of.when.iter().cloned());
        let mut then = of.then.clone();
        let changes = together(state, &of.changes);
        let event = (!changes.is_empty()).then(|| EventRecord {
            v: VERSION,
            at: now.wall,
            by: "engine".to_owned(),
            request: None,
            changes,
        });
        if let Some(record) = &event {
            self.sequence += 1;
            let key = Key::Event { writer: self.term.clone(), sequence: self.sequence };
            then.push(Operation::Put { key: keys.spell(&key), value: record.encode(), lease: None });
        }
        then.extend(old.iter().map(|key| Operation::Delete(KeyRange::key(key.clone()))));
        let or_else = when.iter().map(|compare| Operation::Get(KeyRange::key(compare.key()))).collect();
        Ready { txn: Txn { when, then, or_else }, of, event }
    }
}

/// Says of several units in one what is the same of all: those of one machine stand together, and most have one
/// cause.
fn together(state: &ClusterState, changes: &[EventChange]) -> Vec<EventChange> {
    let mut all: Vec<EventChange> = Vec::new();
    for change in changes {
        if all.last_mut().is_some_and(|last| last.join(change)) {
            continue;
        }
        let host = || change.machine.map(|id| cause::host(state, id));
        all.push(EventChange { host: change.host.clone().or_else(host), ..change.clone() });
    }
    all
}
