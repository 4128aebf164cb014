//! Who this machine's registration belongs to: proof that survives flotillad, not the boot.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

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
        let (path, content) = (Self::path(run), serde_json::to_vec(self).unwrap_or_default());
        // A full /run has no room for another file, and the one that is there has its page. With an
        // identity that is a lease behind, the next start would wait for that lease's end.
        files::replace(&path, &content).or_else(|error| overwrite(&path, &content).map_err(|_| error))
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

/// Gives a file that is there other content, in the room it has. A crash in between leaves an identity
/// that cannot be read, which is none.
fn overwrite(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(content)?;
    file.set_len(content.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_overwritten_whole_and_never_made() {
        let run = tempfile::tempdir().expect("a folder");
        let path = Identity::path(run.path());
        assert!(overwrite(&path, b"new").is_err() && !path.exists());
        let mut identity = Identity { nonce: "n".repeat(32), leases: vec![LeaseId(i64::MAX), LeaseId(7)] };
        identity.write(run.path()).expect("written");
        identity.leases = vec![LeaseId(1)];
        overwrite(&path, &serde_json::to_vec(&identity).expect("json")).expect("written");
        assert_eq!(Identity::read(run.path()), Some(identity));
    }
}
