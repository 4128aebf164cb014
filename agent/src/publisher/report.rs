//! What of the board is in the store, and writing the rest.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_registry::{
    keys::{Bucket, Key},
    records::{Record as _, ReportHead, VERSION},
    store::{Compare, Operation, Revision, StoreError, TXN_BYTES_MAX, Txn},
    witness::check_own_record,
};

use super::Publisher;
use crate::registration::{Acknowledged, Registered, RegistrationError};

/// What has to be written, and what the store has.
pub(super) struct Writing {
    pub(super) registered: Registered,
    unwritten: BTreeSet<Bucket>,
    seen: Revision,
    /// The answer to a write was not heard, so the store's keys may be ahead of what is known.
    unsure: bool,
    /// That write may still be on its way: until all that it wrote was written again, by compare.
    on_its_way: bool,
}

impl Writing {
    /// Begins after a registration, with which all of the board was written.
    pub(super) fn new(registered: Registered) -> Self {
        // What the board says of it by now may be newer, and has to follow.
        let seen = registered.seen;
        Self { registered, unwritten: BTreeSet::new(), seen, unsure: false, on_its_way: false }
    }
}

impl Publisher {
    /// Writes what changed: buckets first, the head with the last of them.
    pub(super) async fn flush(&self, writing: &mut Writing) -> Result<(), RegistrationError> {
        if writing.unsure {
            self.registrar.resolve(&mut writing.registered).await?;
            writing.unsure = false;
        }
        let nonce = writing.registered.record.nonce.clone();
        let mut head = ReportHead { v: VERSION, incarnation: nonce, seen: Revision::default() };
        let mut buckets = BTreeMap::new();
        // At one moment: the head vouches for every bucket as it is written here or was before.
        self.board.send_if_modified(|board| {
            writing.unwritten.append(&mut board.take_changed());
            head.seen = board.seen;
            buckets = board.buckets(&writing.unwritten);
            false
        });
        let mut chunk: Vec<(Bucket, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        for (bucket, report) in buckets {
            let value = report.encode();
            if !chunk.is_empty() && bytes + value.len() > TXN_BYTES_MAX {
                self.send(writing, std::mem::take(&mut chunk), None).await?;
                bytes = 0;
            }
            bytes += value.len();
            chunk.push((bucket, value));
        }
        let head = (head.seen != writing.seen).then_some(head);
        if !chunk.is_empty() || head.is_some() {
            self.send(writing, chunk, head).await?;
        }
        writing.on_its_way = false;
        Ok(())
    }

    async fn send(
        &self,
        writing: &mut Writing,
        buckets: Vec<(Bucket, Vec<u8>)>,
        head: Option<ReportHead>,
    ) -> Result<(), RegistrationError> {
        let (registrar, registered) = (&self.registrar, &mut writing.registered);
        let lease = registered.session.lease();
        let mut txn = Txn {
            when: vec![Compare::CreateRevision(registrar.machine_key(), registered.created)],
            ..Txn::default()
        };
        let mut add = |key: Key, value: Vec<u8>, at: Option<Revision>| {
            let (compare, put) = registrar.put(registrar.keys.spell(&key), value, lease, at);
            txn.when.push(compare);
            txn.then.push(put);
        };
        for (bucket, value) in &buckets {
            let at = registered.acknowledged.buckets.get(bucket).copied();
            add(Key::Report(registrar.machine, *bucket), value.clone(), at);
        }
        if let Some(head) = &head {
            add(Key::ReportHead(registrar.machine), head.encode(), registered.acknowledged.head);
        }
        txn.or_else.push(Operation::Get(registrar.keys.report_of(registrar.machine)));
        match registrar.store.txn(txn).await {
            Ok(response) if response.succeeded => {
                for (bucket, _) in &buckets {
                    writing.unwritten.remove(bucket);
                    registered.acknowledged.buckets.insert(*bucket, response.revision);
                }
                if let Some(head) = head {
                    registered.acknowledged.head = Some(response.revision);
                    writing.seen = head.seen;
                }
                Ok(())
            }
            Ok(_) => {
                let acknowledged = registered.acknowledged.clone();
                registrar.resolve(registered).await?;
                Err(self.why_refused(writing, &acknowledged))
            }
            Err(error) => {
                let unknown = matches!(error, StoreError::OutcomeUnknown { .. });
                writing.unsure |= unknown;
                writing.on_its_way |= unknown;
                Err(error.into())
            }
        }
    }

    /// Tells why a write was refused, from what was acknowledged before it and what the store has now.
    /// Nobody else writes these keys: a write of one's own came late, the store went back, or the
    /// incarnation ended.
    fn why_refused(&self, writing: &Writing, before: &Acknowledged) -> RegistrationError {
        let (machine, now) = (self.registrar.machine, &writing.registered.acknowledged);
        let buckets = before.buckets.iter().map(|(bucket, at)| {
            (Key::Report(machine, *bucket), *at, now.buckets.get(bucket).copied().unwrap_or_default())
        });
        let head = before.head.map(|at| (Key::ReportHead(machine), at, now.head.unwrap_or_default()));
        // The first write of a bucket may be the one that came late: it is known now, and was not before.
        let first = now.buckets.keys().find(|bucket| !before.buckets.contains_key(bucket));
        let mut late = first
            .filter(|_| writing.on_its_way)
            .map(|bucket| self.registrar.keys.spell(&Key::Report(machine, *bucket)));
        for (key, at, now) in buckets.chain(head) {
            let key = self.registrar.keys.spell(&key);
            if now > at && writing.on_its_way {
                late = Some(key);
            } else if let Err(went_back) = check_own_record(&key, at, now) {
                return went_back.into();
            }
        }
        let head = || self.registrar.keys.spell(&Key::ReportHead(machine));
        late.map_or_else(|| RegistrationError::Overtaken(head()), RegistrationError::Late)
    }
}
