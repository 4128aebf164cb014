//! The redb file under an embedded store: the keys as they are, the leases, the revision.
//!
//! History is not kept on disk: after a restart the oldest revision that can be read or watched from
//! is the newest, and a watcher that asks for an older one lists again, as after a compaction.
//! Everything here blocks; only the journal's thread and `open` call it.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, backends::FileBackend};
use tokio::time::Instant;

use super::{
    super::{KeyValue, LeaseId, Revision, StoreError, WatchEvent},
    state::{Change, State},
};

/// The layout of the tables below; a file of another one is refused.
const FORMAT: i64 = 1;

/// Bytes before the value: create revision, mod revision, version and lease, each 64 bits.
const HEADER_BYTES: usize = 32;

const KEYS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("keys");
const LEASES: TableDefinition<'_, i64, u64> = TableDefinition::new("leases");
const META: TableDefinition<'_, &str, i64> = TableDefinition::new("meta");

/// An open file.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    database: Database,
}

/// Why a commit failed.
pub(super) struct CommitFailure {
    /// What happened.
    pub(super) error: StoreError,
    /// Whether the changes are certainly not on disk.
    pub(super) certain: bool,
}

impl Disk {
    /// Opens the file or creates it, readable by its owner only.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| failure(path, "open", &error.into()))?;
        let in_use = |error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => StoreError::Other(format!(
                "{} is in use by another flotillad; stop that one or give this one another path",
                path.display()
            )),
            other => failure(path, "open", &other.into()),
        };
        let backend = FileBackend::new(file).map_err(in_use)?;
        let database = Database::builder().create_with_backend(backend).map_err(in_use)?;
        Ok(Self { path: path.to_owned(), database })
    }

    /// Reads everything.
    pub(super) fn load(&self, now: Instant) -> Result<State, StoreError> {
        self.prepare().map_err(|error| failure(&self.path, "prepare", &error))?;
        self.read(now).map_err(|error| failure(&self.path, "read", &error))?
    }

    /// Makes changes durable, all or none.
    pub(super) fn commit<'a>(&self, changes: impl Iterator<Item = &'a Change>) -> Result<(), CommitFailure> {
        let fail = |error: redb::Error, certain| CommitFailure {
            error: failure(&self.path, "write", &error),
            certain,
        };
        let transaction = self.stage(changes).map_err(|error| fail(error, true))?;
        transaction.commit().map_err(|error| fail(error.into(), false))
    }

    /// Returns where the file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the size of the file in bytes.
    pub(super) fn size_bytes(path: &Path) -> u64 {
        std::fs::metadata(path).map_or(0, |metadata| metadata.len())
    }

    /// Makes sure that the tables exist, so that readers find them.
    fn prepare(&self) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            transaction.open_table(KEYS)?;
            transaction.open_table(LEASES)?;
            let mut meta = transaction.open_table(META)?;
            if meta.get("format")?.is_none() {
                meta.insert("format", FORMAT)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn read(&self, now: Instant) -> Result<Result<State, StoreError>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let number = |name: &str| -> Result<Option<i64>, redb::Error> {
            Ok(meta.get(name)?.map(|entry| entry.value()))
        };
        let format = number("format")?.unwrap_or(FORMAT);
        if format != FORMAT {
            return Ok(Err(StoreError::Other(format!(
                "{} has format {format}, this flotillad reads format {FORMAT}; run the version that wrote it",
                self.path.display()
            ))));
        }
        let Some(revision) = number("revision")? else {
            // Nothing was written but, perhaps, leases without keys: those are as good as ended.
            let next = number("next_lease")?.unwrap_or(1);
            return Ok(Ok(State::restored(
                State::new().keyspace().revision(),
                vec![],
                next,
                self.leases()?,
                now,
            )));
        };
        let mut kvs = Vec::new();
        for entry in transaction.open_table(KEYS)?.iter()? {
            let (key, bytes) = entry?;
            match decode(key.value(), bytes.value()) {
                Some(kv) => kvs.push(kv),
                None => {
                    return Ok(Err(StoreError::Other(format!(
                        "{} is damaged: key {} has {} bytes, at least {HEADER_BYTES} expected; restore it from a copy",
                        self.path.display(),
                        key.value(),
                        bytes.value().len()
                    ))));
                }
            }
        }
        let next = number("next_lease")?.unwrap_or(1);
        Ok(Ok(State::restored(Revision(revision), kvs, next, self.leases()?, now)))
    }

    fn leases(&self) -> Result<Vec<(LeaseId, Duration)>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let mut leases = Vec::new();
        for entry in transaction.open_table(LEASES)?.iter()? {
            let (id, seconds) = entry?;
            leases.push((LeaseId(id.value()), Duration::from_secs(seconds.value())));
        }
        Ok(leases)
    }

    fn stage<'a>(
        &self,
        changes: impl Iterator<Item = &'a Change>,
    ) -> Result<redb::WriteTransaction, redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut keys = transaction.open_table(KEYS)?;
            let mut leases = transaction.open_table(LEASES)?;
            let mut meta = transaction.open_table(META)?;
            for change in changes {
                match change {
                    Change::Granted(LeaseId(id), ttl) => {
                        leases.insert(id, ttl.as_secs())?;
                        meta.insert("next_lease", id + 1)?;
                    }
                    Change::Ended(LeaseId(id)) => {
                        leases.remove(id)?;
                    }
                    Change::Revision(revision, events) => {
                        for event in events.iter() {
                            match event {
                                WatchEvent::Put(kv) => {
                                    keys.insert(kv.key.as_str(), encode(kv).as_slice())?;
                                }
                                WatchEvent::Delete { key, .. } => {
                                    keys.remove(key.as_str())?;
                                }
                            }
                        }
                        meta.insert("revision", revision.0)?;
                    }
                }
            }
        }
        Ok(transaction)
    }
}

fn encode(kv: &KeyValue) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + kv.value.len());
    let lease = kv.lease.map_or(0, |lease| lease.0);
    for number in [kv.create_revision.0, kv.mod_revision.0, kv.version, lease] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&kv.value);
    bytes
}

fn decode(key: &str, bytes: &[u8]) -> Option<KeyValue> {
    let (header, value) = bytes.split_at_checked(HEADER_BYTES)?;
    let mut numbers =
        header.chunks_exact(8).filter_map(|chunk| Some(i64::from_le_bytes(chunk.try_into().ok()?)));
    Some(KeyValue {
        key: key.to_owned(),
        value: Arc::from(value),
        create_revision: Revision(numbers.next()?),
        mod_revision: Revision(numbers.next()?),
        version: numbers.next()?,
        lease: numbers.next().filter(|lease| *lease != 0).map(LeaseId),
    })
}

fn failure(path: &Path, what: &str, error: &redb::Error) -> StoreError {
    let full = matches!(error, redb::Error::Io(io) if matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded));
    if full {
        StoreError::NoSpace(format!("cannot {what} {}: {error}; free space on its disk", path.display()))
    } else {
        StoreError::Other(format!("cannot {what} {}: {error}", path.display()))
    }
}
