//! A record as the cluster state keeps it: with its revisions, readable or not.

use std::sync::Arc;

use flotilla_registry::{
    records::{Record, RecordError},
    store::{KeyValue, Revision},
};

/// A record that is in the store, whether or not this program can read it.
///
/// One that cannot be read is kept as what it is, there but unreadable: it is shown, never acted
/// on, never overwritten, and never taken for absent.
#[derive(Debug, Clone)]
pub struct Kept<T> {
    create_revision: Revision,
    mod_revision: Revision,
    record: Result<Arc<T>, Arc<RecordError>>,
    derived: bool,
}

impl<T: Record> Kept<T> {
    /// Reads a record from its key, keeping the error if there is one.
    #[must_use]
    pub fn read(kv: &KeyValue) -> Self {
        Self {
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            record: T::from_kv(kv).map(Arc::new).map_err(Arc::new),
            derived: false,
        }
    }
}

impl<T> Kept<T> {
    /// Makes what stands for a record that has no key of its own, from that of another.
    pub(super) const fn derived(
        create_revision: Revision,
        mod_revision: Revision,
        record: Result<Arc<T>, Arc<RecordError>>,
    ) -> Self {
        Self { create_revision, mod_revision, record, derived: true }
    }

    /// Tells whether it has no key of its own: its revisions are then another key's, which must not be
    /// compared under its name.
    #[must_use]
    pub const fn is_derived(&self) -> bool {
        self.derived
    }

    /// Returns the record, unless it is unreadable.
    #[must_use]
    pub fn record(&self) -> Option<&Arc<T>> {
        self.record.as_ref().ok()
    }

    /// Returns why it is unreadable, if it is.
    #[must_use]
    pub fn unreadable(&self) -> Option<&Arc<RecordError>> {
        self.record.as_ref().err()
    }

    /// Returns when its key was created.
    #[must_use]
    pub const fn create_revision(&self) -> Revision {
        self.create_revision
    }

    /// Returns when its key was last written.
    #[must_use]
    pub const fn mod_revision(&self) -> Revision {
        self.mod_revision
    }
}

/// Returns the record of a key that is there and readable.
pub(crate) fn readable<T>(kept: Option<&Kept<T>>) -> Option<&Arc<T>> {
    kept.and_then(Kept::record)
}

/// Tells whether a key is there and unreadable.
pub(crate) fn is_unreadable<T>(kept: Option<&Kept<T>>) -> bool {
    kept.is_some_and(|kept| kept.unreadable().is_some())
}
