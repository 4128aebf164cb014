//! Who this machine's registration belongs to: proof that survives flotillad, not the boot.

use std::path::{Path, PathBuf};

use flotilla_registry::{records::MachineRecord, store::LeaseId};
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// How many leases are remembered. Two: while keys move from one lease to another, a crash leaves
/// them under either.
const LEASES_KEPT: usize = 2;

/// What makes an agent the one that wrote `machines/<id>`; kept in `/run/flotilla/identity`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The incarnation's nonce.
    pub nonce: String,
    /// The leases that its keys are, or were last, under; the newest first.
    pub leases: Vec<LeaseId>,
}

impl Identity {
    /// Returns the identity's file below the run folder.
    #[must_use]
    pub fn path(run: &Path) -> PathBuf {
        run.join("identity")
    }

    /// Reads the identity; `None` if there is none, or none that can be read: then the machine
    /// registers as one that has just booted.
    #[must_use]
    pub fn read(run: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(run)).ok()?).ok()
    }

    /// Writes the identity.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, run: &Path) -> Result<(), FileError> {
        files::replace(&Self::path(run), &serde_json::to_vec(self).unwrap_or_default())
    }

    /// Tells whether a record was written under this identity.
    #[must_use]
    pub fn wrote(&self, record: &MachineRecord) -> bool {
        self.nonce == record.nonce && self.leases.contains(&record.lease)
    }

    /// Notes the lease that keys are about to be put under.
    pub(crate) fn add(&mut self, lease: LeaseId) {
        self.leases.retain(|l| *l != lease);
        self.leases.insert(0, lease);
        self.leases.truncate(LEASES_KEPT);
    }
}
