//! From plans to transactions: within the store's limits, each bucket written once a step.
//!
//! Owns the packing and the coalescing. A bucket's new value is made from the value that the state
//! shows, and the transaction compares its mod revision, so two transactions of one step never
//! share a bucket: what does not fit waits for the next step.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use flotilla_registry::{
    keys::{Bucket, Key},
    records::{EventChange, ManifestBucket, ManifestEntry, Record as _, UnitRecord, VERSION},
    store::{Compare, KeyRange, Operation, Revision, TXN_BYTES_MAX, TXN_OPERATIONS_MAX},
};
use flotilla_units::MachineId;

use super::plan::{Edit, Plan};
use crate::state::{ClusterState, Kept, NameSet};

/// How long a bucket that was written is left alone: changes that come meanwhile go together. The
/// first change goes at once. A tenth of a second: a burst of thousands of units then rewrites a
/// bucket ten times a second, and a person does not notice it.
pub const COALESCE: Duration = Duration::from_millis(100);

/// An entry's JSON without its names: field names, hash, numbers and a departure. 300 bytes; a test
/// measures it.
const ENTRY_BYTES: usize = 300;

/// One change's JSON in an event record without its names, its reason and its request, which are
/// counted. 330 bytes, the longest host name included.
const CHANGE_BYTES: usize = 330;

/// A transaction of the leader, without what each of them has: the fence, the compare of the
/// cluster's record, and the event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Its conditions.
    pub when: Vec<Compare>,
    /// Its writes.
    pub then: Vec<Operation>,
    /// The buckets that it writes.
    pub buckets: Vec<(MachineId, Bucket)>,
    /// The units that it is about.
    pub units: NameSet,
    /// What its event tells.
    pub changes: Vec<EventChange>,
}

/// Plans packed into transactions, and those that have to wait.
#[derive(Debug, Default)]
pub struct Batch {
    /// What to write, in this order.
    pub transactions: Vec<Transaction>,
    /// Units whose plans wait for the next step.
    pub waiting: NameSet,
    /// When the first bucket that a plan waits for may be written again.
    pub cool_at: Option<Duration>,
}

/// When buckets were written last.
#[derive(Debug, Default)]
pub struct Warm(HashMap<(MachineId, Bucket), Duration>);

impl Warm {
    /// Notes that buckets were written.
    pub fn wrote(&mut self, buckets: &[(MachineId, Bucket)], now: Duration) {
        self.0.retain(|_, at| *at + COALESCE > now);
        self.0.extend(buckets.iter().map(|bucket| (*bucket, now)));
    }

    fn until(&self, bucket: (MachineId, Bucket), now: Duration) -> Option<Duration> {
        self.0.get(&bucket).map(|at| *at + COALESCE).filter(|until| *until > now)
    }
}

/// A transaction being filled.
#[derive(Debug, Default)]
struct Open {
    buckets: BTreeMap<(MachineId, Bucket), Vec<ManifestEntry>>,
    absent: BTreeSet<MachineId>,
    destroyed: Vec<(Key, Revision)>,
    taken_over: Vec<(UnitRecord, Revision)>,
    units: NameSet,
    changes: Vec<EventChange>,
    bytes: usize,
}

/// Packs plans; each of a unit in `alone` gets a transaction of its own.
#[must_use]
pub fn pack(state: &ClusterState, plans: Vec<Plan>, alone: &NameSet, warm: &Warm, now: Duration) -> Batch {
    let mut batch = Batch::default();
    let mut closed: BTreeSet<(MachineId, Bucket)> = BTreeSet::new();
    let mut open = Open::default();
    let mut plans: Vec<Plan> = plans.into_iter().filter(|plan| !plan.is_empty()).collect();
    // A unit's plans only touch its own bucket number, and most touch one machine: in this order the plans that
    // share a bucket stand together, and so do those of a machine, which then hears of them at once. Many leave
    // a machine together, and each goes elsewhere.
    plans.sort_by_cached_key(|plan| {
        let leaves = plan.edits.iter().find(|edit| !matches!(edit, Edit::Add { .. }));
        let machine = leaves.or(plan.edits.first()).map(Edit::machine);
        (machine, Bucket::of(&plan.unit), plan.unit.clone())
    });
    for plan in plans {
        let number = Bucket::of(&plan.unit);
        let touched: BTreeSet<_> = plan.edits.iter().map(|edit| (edit.machine(), number)).collect();
        if let Some(until) = touched.iter().filter_map(|bucket| warm.until(*bucket, now)).max() {
            batch.cool_at = Some(batch.cool_at.map_or(until, |at| at.min(until)));
            batch.waiting.insert(plan.unit);
            continue;
        }
        if !touched.is_disjoint(&closed) {
            batch.waiting.insert(plan.unit);
            continue;
        }
        let alone = alone.contains(&plan.unit);
        if !open.has_room(state, &plan, &touched) || (alone && !open.units.is_empty()) {
            if !touched.iter().all(|bucket| !open.buckets.contains_key(bucket)) {
                batch.waiting.insert(plan.unit);
                continue;
            }
            closed.extend(open.buckets.keys().copied());
            batch.transactions.extend(std::mem::take(&mut open).close(state));
        }
        open.add(state, plan, number);
        if alone {
            closed.extend(open.buckets.keys().copied());
            batch.transactions.extend(std::mem::take(&mut open).close(state));
        }
    }
    batch.transactions.extend(open.close(state));
    batch
}

fn entries(state: &ClusterState, machine: MachineId, bucket: Bucket) -> Vec<ManifestEntry> {
    let kept = state.machines().get(&machine).and_then(|machine| machine.manifest_bucket(bucket));
    kept.and_then(Kept::record).map(|record| record.entries.clone()).unwrap_or_default()
}

fn entry_bytes(entry: &ManifestEntry) -> usize {
    ENTRY_BYTES + entry.unit.as_str().len() + entry.runtime.as_ref().map_or(0, |name| name.as_str().len())
}

impl Open {
    fn has_room(&self, state: &ClusterState, plan: &Plan, touched: &BTreeSet<(MachineId, Bucket)>) -> bool {
        let fresh: Vec<_> = touched.iter().filter(|bucket| !self.buckets.contains_key(bucket)).collect();
        let operations =
            self.buckets.len() + self.absent.len() + self.destroyed.len() + self.taken_over.len();
        let more =
            fresh.len() + plan.absent.len() + plan.destroy.len() + usize::from(plan.taken_over.is_some());
        let old: usize = fresh
            .iter()
            .map(|(machine, bucket)| entries(state, *machine, *bucket).iter().map(entry_bytes).sum::<usize>())
            .sum();
        operations == 0
            || (operations + more <= TXN_OPERATIONS_MAX
                && self.bytes + old + plan_bytes(plan) <= TXN_BYTES_MAX)
    }

    fn add(&mut self, state: &ClusterState, plan: Plan, bucket: Bucket) {
        self.bytes += plan_bytes(&plan);
        for edit in plan.edits {
            let machine = edit.machine();
            let entries = self.buckets.entry((machine, bucket)).or_insert_with(|| {
                let old = entries(state, machine, bucket);
                self.bytes += old.iter().map(entry_bytes).sum::<usize>();
                old
            });
            let unit = &plan.unit;
            match edit {
                Edit::Add { entry, .. } => entries.push(entry),
                Edit::Replace { token, entry, .. } => {
                    entries.retain(|old| old.unit != *unit || old.token != token);
                    entries.push(entry);
                }
                Edit::Drop { token, .. } => entries.retain(|old| old.unit != *unit || old.token != token),
            }
        }
        self.destroyed.extend(plan.destroy);
        self.taken_over.extend(plan.taken_over);
        self.absent.extend(plan.absent);
        self.units.insert(plan.unit);
        self.changes.extend(plan.changes);
    }

    fn close(self, state: &ClusterState) -> Option<Transaction> {
        if self.units.is_empty() {
            return None;
        }
        let keys = state.keys();
        let mut transaction =
            Transaction { units: self.units, changes: self.changes, ..Transaction::default() };
        for ((machine, bucket), mut entries) in self.buckets {
            entries.sort_by(|a, b| (&a.unit, a.token).cmp(&(&b.unit, b.token)));
            let key = keys.spell(&Key::Manifest(machine, bucket));
            let kept = state.machines().get(&machine).and_then(|machine| machine.manifest_bucket(bucket));
            transaction.when.push(match kept {
                Some(kept) => Compare::ModRevision(key.clone(), kept.mod_revision()),
                None => Compare::Absent(key.clone()),
            });
            let value = ManifestBucket { v: VERSION, entries }.encode();
            transaction.then.push(Operation::Put { key, value, lease: None });
            transaction.buckets.push((machine, bucket));
        }
        for machine in self.absent {
            transaction.when.push(Compare::Absent(keys.spell(&Key::Machine(machine))));
        }
        for (key, written) in self.destroyed {
            let key = keys.spell(&key);
            transaction.when.push(Compare::ModRevision(key.clone(), written));
            transaction.then.push(Operation::Delete(KeyRange::key(key)));
        }
        for (record, written) in self.taken_over {
            // Only systemd's own types run as the machine's own: their names are the cluster's too.
            let key = keys.spell(&Key::Unit(record.runtime.clone()));
            transaction.when.push(Compare::ModRevision(key.clone(), written));
            transaction.then.push(Operation::Put { key, value: record.encode(), lease: None });
        }
        Some(transaction)
    }
}

fn plan_bytes(plan: &Plan) -> usize {
    let edits: usize = plan
        .edits
        .iter()
        .map(|edit| match edit {
            Edit::Add { entry, .. } | Edit::Replace { entry, .. } => entry_bytes(entry),
            Edit::Drop { .. } => 0,
        })
        .sum();
    let name = plan.unit.as_str().len();
    let texts = |change: &EventChange| {
        [&change.why, &change.request].into_iter().flatten().map(String::len).sum::<usize>()
    };
    // A record's JSON is as long as an entry's, and a name of who changed it.
    let record = plan.taken_over.as_ref().map_or(0, |(record, _)| ENTRY_BYTES + name + record.by.len());
    edits + record + plan.changes.iter().map(|change| CHANGE_BYTES + name + texts(change)).sum::<usize>()
}
