//! Typed reads of what is stored.
//!
//! A value that cannot be understood is reported under its key and hides no other;
//! a read that fails is an error and never an empty answer. Nothing here writes, and
//! nothing here is for following changes (that is [`stream`](crate::stream)); the one wait is for a
//! seat, by whoever has nobody to ask.

use std::{collections::BTreeMap, sync::Arc};

use flotilla_units::{ContentHash, MachineId, UnitName};
use futures_util::StreamExt as _;

use crate::{
    keys::{Bucket, Key, Keys},
    records::{
        Cluster, LeaderRecord, MachineRecord, MachineSettings, ManifestBucket, Record, RecordError,
        ReportBucket, ReportHead, SeatRecord, UnitRecord,
    },
    store::{
        KeyRange, KeyValue, LeaseId, RangeRequest, Revision, Store, StoreError, WatchEvent, WatchMessage,
    },
    windows,
};

/// How often a long read is begun anew when its revision is compacted meanwhile. The leader compacts
/// every few minutes and a read takes seconds, so twice in a row does not happen.
const READS_MAX: u32 = 3;

/// A cluster's stored state.
#[derive(Debug, Clone)]
pub struct Registry {
    store: Arc<dyn Store>,
    keys: Keys,
}

/// A record with its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<T> {
    /// The record.
    pub record: T,
    /// When its key was created.
    pub created: Revision,
    /// When it was last written.
    pub written: Revision,
    /// The lease that it ends with.
    pub lease: Option<LeaseId>,
}

/// All records of a kind, as of one revision.
#[derive(Debug, Clone)]
pub struct Listing<K, T> {
    /// Those that can be read.
    pub found: BTreeMap<K, Stored<T>>,
    /// Those that cannot; they exist.
    pub unreadable: Vec<RecordError>,
    /// As of when.
    pub revision: Revision,
}

/// A machine's report, as of one revision.
#[derive(Debug, Clone)]
pub struct StoredReport {
    /// Its first page; without it the machine is unknown, not empty.
    pub head: Option<Stored<ReportHead>>,
    /// Its buckets.
    pub buckets: BTreeMap<Bucket, Stored<ReportBucket>>,
    /// The pages that cannot be read.
    pub unreadable: Vec<RecordError>,
    /// As of when.
    pub revision: Revision,
}

/// Why something could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The store failed.
    #[error("`{key}` could not be read")]
    Store {
        /// The key, or the first of several.
        key: String,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// What is stored cannot be understood.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl<T: Record> Stored<T> {
    /// Reads a record with its history from a key.
    ///
    /// # Errors
    /// As [`Record::decode`].
    pub fn from_kv(kv: &KeyValue) -> Result<Self, RecordError> {
        Ok(Self {
            record: T::from_kv(kv)?,
            created: kv.create_revision,
            written: kv.mod_revision,
            lease: kv.lease,
        })
    }
}

impl Registry {
    /// Reads a cluster's keys from a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, keys: Keys) -> Self {
        Self { store, keys }
    }

    /// Returns the store.
    #[must_use]
    pub const fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Returns how keys are spelt.
    #[must_use]
    pub const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Reads the cluster's own record; `None` before the first leader.
    ///
    /// # Errors
    /// The store failed, or the record cannot be understood. The same goes for all reads here.
    pub async fn cluster(&self) -> Result<Option<Stored<Cluster>>, ReadError> {
        self.one(&Key::Cluster).await
    }

    /// Reads who leads.
    ///
    /// # Errors
    /// As [`Registry::cluster`].
    pub async fn leader(&self) -> Result<Option<Stored<LeaderRecord>>, ReadError> {
        self.one(&Key::Leader).await
    }

    /// Reads who is hot.
    ///
    /// # Errors
    /// The store failed.
    pub async fn seats(&self) -> Result<Listing<u8, SeatRecord>, ReadError> {
        self.listing("engine/seats", |key| match key {
            Key::Seat(number) => Some(number),
            _ => None,
        })
        .await
    }

    /// Waits until a seat is taken, or written anew, after a revision: that of a read of them.
    ///
    /// # Cancellation
    /// Nothing is lost by dropping it.
    ///
    /// # Errors
    /// The store failed.
    pub async fn seat_taken(&self, after: Revision) -> Result<(), ReadError> {
        let range = self.keys.all_of("engine/seats");
        let failed = |source| ReadError::Store { key: range.start.clone(), source };
        let mut watch = self.store.watch(range.clone(), Revision(after.0 + 1)).await.map_err(failed)?;
        while let Some(message) = watch.next().await {
            if let WatchMessage::Events { events, .. } = message.map_err(failed)?
                && events.iter().any(|event| matches!(event, WatchEvent::Put(_)))
            {
                return Ok(());
            }
        }
        Err(failed(StoreError::WatchEnded("it ended without a word".to_owned())))
    }

    /// Reads one unit.
    ///
    /// # Errors
    /// As [`Registry::cluster`].
    pub async fn unit(&self, name: &UnitName) -> Result<Option<Stored<UnitRecord>>, ReadError> {
        self.one(&Key::Unit(name.clone())).await
    }

    /// Reads all units.
    ///
    /// # Errors
    /// The store failed.
    pub async fn units(&self) -> Result<Listing<UnitName, UnitRecord>, ReadError> {
        self.listing("units", |key| match key {
            Key::Unit(name) => Some(name),
            _ => None,
        })
        .await
    }

    /// Reads a unit's text.
    ///
    /// # Errors
    /// The store failed, or what it has is not the text with this hash.
    pub async fn content(&self, hash: &ContentHash) -> Result<Option<String>, ReadError> {
        let Some(kv) = self.kv(&Key::Content(*hash)).await? else { return Ok(None) };
        let corrupted = |why: String| RecordError::Corrupted { key: kv.key.clone(), why };
        let found = ContentHash::of(&kv.value);
        if found != *hash {
            return Err(corrupted(format!("its hash is {found}")).into());
        }
        let text = std::str::from_utf8(&kv.value).map_err(|error| corrupted(error.to_string()))?;
        Ok(Some(text.to_owned()))
    }

    /// Reads all machines that live.
    ///
    /// # Errors
    /// The store failed.
    pub async fn machines(&self) -> Result<Listing<MachineId, MachineRecord>, ReadError> {
        self.listing("machines", |key| match key {
            Key::Machine(id) => Some(id),
            _ => None,
        })
        .await
    }

    /// Reads one machine.
    ///
    /// # Errors
    /// As [`Registry::cluster`].
    pub async fn machine(&self, id: MachineId) -> Result<Option<Stored<MachineRecord>>, ReadError> {
        self.one(&Key::Machine(id)).await
    }

    /// Reads what users said of the machines.
    ///
    /// # Errors
    /// The store failed.
    pub async fn machine_settings(&self) -> Result<Listing<MachineId, MachineSettings>, ReadError> {
        self.listing("machine-settings", |key| match key {
            Key::MachineSettings(id) => Some(id),
            _ => None,
        })
        .await
    }

    /// Reads a machine's manifest.
    ///
    /// # Errors
    /// The store failed.
    pub async fn manifest(&self, machine: MachineId) -> Result<Listing<Bucket, ManifestBucket>, ReadError> {
        let (kvs, revision) = self.pages(self.keys.manifest_of(machine)).await?;
        Ok(self.decode(&kvs, revision, |key| match key {
            Key::Manifest(_, bucket) => Some(bucket),
            _ => None,
        }))
    }

    /// Reads a machine's report.
    ///
    /// # Errors
    /// The store failed.
    pub async fn report(&self, machine: MachineId) -> Result<StoredReport, ReadError> {
        let (kvs, revision) = self.pages(self.keys.report_of(machine)).await?;
        let is_head = |kv: &KeyValue| matches!(self.keys.read(&kv.key), Some(Key::ReportHead(_)));
        let (heads, buckets): (Vec<_>, Vec<_>) = kvs.into_iter().partition(is_head);
        let buckets = self.decode(&buckets, revision, |key| match key {
            Key::Report(_, bucket) => Some(bucket),
            _ => None,
        });
        let mut unreadable = buckets.unreadable;
        let head = heads.first().and_then(|kv| Stored::from_kv(kv).map_err(|e| unreadable.push(e)).ok());
        Ok(StoredReport { head, buckets: buckets.found, unreadable, revision })
    }

    async fn kv(&self, key: &Key) -> Result<Option<KeyValue>, ReadError> {
        let key = self.keys.spell(key);
        let answer = self.store.range(RangeRequest::all(KeyRange::key(&*key))).await;
        let answer = answer.map_err(|source| ReadError::Store { key, source })?;
        Ok(answer.kvs.into_iter().next())
    }

    async fn one<T: Record>(&self, key: &Key) -> Result<Option<Stored<T>>, ReadError> {
        Ok(self.kv(key).await?.map(|kv| Stored::from_kv(&kv)).transpose()?)
    }

    /// Reads a range of at most some 20 keys in one go.
    async fn pages(&self, range: KeyRange) -> Result<(Vec<KeyValue>, Revision), ReadError> {
        let key = range.start.clone();
        let answer = self.store.range(RangeRequest::all(range)).await;
        let answer = answer.map_err(|source| ReadError::Store { key, source })?;
        Ok((answer.kvs, answer.revision))
    }

    async fn listing<K: Ord, T: Record>(
        &self,
        kind: &str,
        pick: impl Fn(Key) -> Option<K> + Send,
    ) -> Result<Listing<K, T>, ReadError> {
        let range = self.keys.all_of(kind);
        let failed = |source| ReadError::Store { key: range.start.clone(), source };
        let mut reads = 0;
        loop {
            reads += 1;
            // The newest revision, linearizably; the windows are then read as of it.
            let cluster = KeyRange::key(self.keys.spell(&Key::Cluster));
            let now = RangeRequest { keys_only: true, ..RangeRequest::all(cluster) };
            let revision = self.store.range(now).await.map_err(failed)?.revision;
            match windows::read(&*self.store, range.clone(), revision).await {
                Ok(kvs) => return Ok(self.decode(&kvs, revision, pick)),
                Err(StoreError::Compacted { .. }) if reads < READS_MAX => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    fn decode<K: Ord, T: Record>(
        &self,
        kvs: &[KeyValue],
        revision: Revision,
        pick: impl Fn(Key) -> Option<K>,
    ) -> Listing<K, T> {
        let mut listing = Listing { found: BTreeMap::new(), unreadable: Vec::new(), revision };
        for kv in kvs {
            let Some(key) = self.keys.read(&kv.key).and_then(&pick) else {
                let why = "its key is not one that this flotillad knows".to_owned();
                listing.unreadable.push(RecordError::Corrupted { key: kv.key.clone(), why });
                continue;
            };
            match Stored::from_kv(kv) {
                Ok(stored) => {
                    listing.found.insert(key, stored);
                }
                Err(error) => listing.unreadable.push(error),
            }
        }
        listing
    }
}
