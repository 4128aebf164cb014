//! Notices, within one watch, that the store went back or that an operator accepted one that did.

use std::sync::Arc;

use flotilla_registry::{
    keys::Bucket,
    records::Cluster,
    witness::{WentBack, WentBackReason, Witness, check_token},
};
use flotilla_units::MachineId;

use super::{
    ClusterState,
    kept::{Kept, is_unreadable, readable},
};

impl ClusterState {
    /// Compares the cluster's record with the one before, within one watch. Between watches the
    /// stream does.
    pub(super) fn check_for_going_back(&mut self, before: Option<&Kept<Cluster>>) {
        let Some(before) = readable(before) else { return };
        if is_unreadable(self.cluster.as_ref()) {
            return;
        }
        let mut witness = Witness::default();
        witness.observe(self.revision, Some(before));
        let now = readable(self.cluster.as_ref()).map(Arc::as_ref);
        if let Err(went_back) = witness.check(self.revision, now) {
            self.note_went_back(went_back);
        }
    }

    /// After an operator accepted the store, the next leader raises the epoch: tokens that the former
    /// one cannot have reserved are in order then.
    pub(super) fn check_for_recovery(&mut self, before: Option<&Kept<Cluster>>) {
        let epoch = |kept: Option<&Kept<Cluster>>| readable(kept).map(|cluster| cluster.epoch);
        let by_token = matches!(self.went_back, Some(WentBack(WentBackReason::Token { .. })));
        if by_token && epoch(before) < epoch(self.cluster.as_ref()) {
            self.went_back = None;
            self.check_all_tokens();
        }
    }

    pub(super) fn check_all_tokens(&mut self) {
        let machines: Vec<MachineId> = self.machines.keys().copied().collect();
        for (id, bucket) in machines.iter().flat_map(|id| Bucket::all().map(move |bucket| (*id, bucket))) {
            self.check_tokens(id, bucket);
        }
    }

    /// Compares the tokens in a machine's bucket with the mark up to which they are reserved.
    pub(super) fn check_tokens(&mut self, id: MachineId, bucket: Bucket) {
        let Some(cluster) = readable(self.cluster.as_ref()) else { return };
        let kept = self.machines.get(&id).and_then(|machine| machine.manifest_bucket(bucket));
        let mut entries = readable(kept).into_iter().flat_map(|bucket| &bucket.entries);
        if let Some(went_back) = entries.find_map(|entry| check_token(entry.token, cluster).err()) {
            self.note_went_back(went_back);
        }
    }
}
