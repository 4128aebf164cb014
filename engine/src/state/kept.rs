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
///
/// A copy costs nothing: what a range says is kept once, and every instance of it has a copy.
#[derive(Debug)]
pub struct Kept<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    create_revision: Revision,
    mod_revision: Revision,
    record: Result<Arc<T>, Arc<RecordError>>,
    derived: bool,
}

impl<T: Record> Kept<T> {
    /// Reads a record from its key, keeping the error if there is one.
    #[must_use]
    pub fn read(kv: &KeyValue) -> Self {
        Self::read_as(kv, |_| {})
    }

    /// The same; whatever can be read is made ready to be kept.
    pub(super) fn read_as(kv: &KeyValue, ready: impl FnOnce(&mut T)) -> Self {
        let (create_revision, mod_revision) = (kv.create_revision, kv.mod_revision);
        let record = T::from_kv(kv).map(|mut record| {
            ready(&mut record);
            Arc::new(record)
        });
        Self(Arc::new(Inner {
            create_revision,
            mod_revision,
            record: record.map_err(Arc::new),
            derived: false,
        }))
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Kept<T> {
    /// Makes what stands for a record that has no key of its own, from that of another.
    pub(super) fn derived(
        create_revision: Revision,
        mod_revision: Revision,
        record: Result<Arc<T>, Arc<RecordError>>,
    ) -> Self {
        Self(Arc::new(Inner { create_revision, mod_revision, record, derived: true }))
    }

    /// Tells whether it has no key of its own: its revisions are then another key's, which must not be
    /// compared under its name.
    #[must_use]
    pub fn is_derived(&self) -> bool {
        self.0.derived
    }

    /// Returns the record, unless it is unreadable.
    #[must_use]
    pub fn record(&self) -> Option<&Arc<T>> {
        self.0.record.as_ref().ok()
    }

    /// Returns why it is unreadable, if it is.
    #[must_use]
    pub fn unreadable(&self) -> Option<&Arc<RecordError>> {
        self.0.record.as_ref().err()
    }

    /// Returns when its key was created.
    #[must_use]
    pub fn create_revision(&self) -> Revision {
        self.0.create_revision
    }

    /// Returns when its key was last written.
    #[must_use]
    pub fn mod_revision(&self) -> Revision {
        self.0.mod_revision
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
