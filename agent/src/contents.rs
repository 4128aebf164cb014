//! The texts of units, fetched once and kept on disk for when the store is away.
//!
//! Old ones are taken away at each reset of the manifest, off the runtime's threads and so at any time
//! after it. What has been asked for since is spared, whatever that manifest named: a unit's text may be
//! ordered and fetched meanwhile.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use flotilla_registry::{
    keys::{Key, Keys},
    store::{KeyRange, RangeRequest, Store, StoreError},
};
use flotilla_units::ContentHash;
use tracing::warn;

use crate::files::{self, FileError};

/// Why a unit's text is not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentsError {
    /// Neither the disk nor the store has it.
    #[error("its content {} is not in the store; submit the unit again", .0.short())]
    Missing(ContentHash),
    /// What the store has under the hash is another text.
    #[error("its content {} is corrupted in the store; submit the unit again", .0.short())]
    Corrupted(ContentHash),
    /// The store failed.
    #[error("its content {} cannot be fetched: {source}", hash.short())]
    Store {
        /// Which.
        hash: ContentHash,
        /// Why.
        source: StoreError,
    },
}

/// Fetches and keeps unit texts.
#[derive(Debug)]
pub(crate) struct Contents {
    store: Arc<dyn Store>,
    keys: Keys,
    folder: PathBuf,
    spared: Mutex<Spared>,
}

/// The texts that are not taken away.
#[derive(Debug, Default)]
struct Spared {
    /// What the manifest named when it was last read as a whole.
    named: BTreeSet<ContentHash>,
    /// What was asked for since.
    asked_for: BTreeSet<ContentHash>,
}

impl Contents {
    /// Keeps texts in `folder`.
    pub(crate) const fn new(store: Arc<dyn Store>, keys: Keys, folder: PathBuf) -> Self {
        let spared = Spared { named: BTreeSet::new(), asked_for: BTreeSet::new() };
        Self { store, keys, folder, spared: Mutex::new(spared) }
    }

    /// Returns the text of a hash: from disk, else from the store.
    ///
    /// # Errors
    /// Neither has it, or it cannot be read.
    pub(crate) async fn get(&self, hash: ContentHash) -> Result<String, ContentsError> {
        // Before it is looked for: what is found must not be taken away under the reader either.
        self.spared().asked_for.insert(hash);
        if let Some(text) = self.kept(hash).await {
            return Ok(text);
        }
        let range = KeyRange::key(self.keys.spell(&Key::Content(hash)));
        let answer = self
            .store
            .range(RangeRequest::all(range))
            .await
            .map_err(|source| ContentsError::Store { hash, source })?;
        let kv = answer.kvs.into_iter().next().ok_or(ContentsError::Missing(hash))?;
        if ContentHash::of(&kv.value) != hash {
            return Err(ContentsError::Corrupted(hash));
        }
        let text = String::from_utf8(kv.value.to_vec()).map_err(|_| ContentsError::Corrupted(hash))?;
        if let Err(error) = self.keep(hash, text.clone()).await {
            // It is needed again only when the store is away.
            warn!(%error, "the unit's content could not be kept: it cannot be started while the store is away; is the disk full?");
        }
        Ok(text)
    }

    /// Returns the text of a hash if it is on disk and whole.
    pub(crate) async fn kept(&self, hash: ContentHash) -> Option<String> {
        let text = tokio::fs::read_to_string(self.path(hash)).await.ok()?;
        (ContentHash::of(text.as_bytes()) == hash).then_some(text)
    }

    /// Takes these as all that the manifest names; any other text may go, unless it is asked for from
    /// now on. [`sweep`](Self::sweep) takes them away.
    pub(crate) fn name_all(&self, named: BTreeSet<ContentHash>) {
        *self.spared() = Spared { named, asked_for: BTreeSet::new() };
    }

    /// Takes away every text on disk that is not spared. It waits for the disk.
    pub(crate) fn sweep(&self) {
        let Ok(files) = std::fs::read_dir(&self.folder) else { return };
        for file in files.flatten() {
            let name = file.file_name();
            let hash = name.to_str().and_then(hash_of);
            // Held until it is removed: whoever asks for it then finds it gone, and fetches it.
            let spared = self.spared();
            if hash.is_some_and(|hash| spared.named.contains(&hash) || spared.asked_for.contains(&hash)) {
                continue;
            }
            if let Err(error) = std::fs::remove_file(file.path()) {
                warn!(path = %file.path().display(), %error, "an old unit's content is not removed");
            }
        }
    }

    fn spared(&self) -> MutexGuard<'_, Spared> {
        self.spared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep(&self, hash: ContentHash, text: String) -> Result<(), FileError> {
        files::replace_async(self.path(hash), text.into_bytes()).await
    }

    fn path(&self, hash: ContentHash) -> PathBuf {
        self.folder.join(hash.to_string())
    }
}

/// Returns whose text a file has, or will have once it is written ([`files::replace`]).
fn hash_of(name: &str) -> Option<ContentHash> {
    let being_written = name.strip_prefix('.').and_then(|rest| rest.split('.').next());
    being_written.unwrap_or(name).parse().ok()
}

#[cfg(test)]
mod tests {
    use flotilla_registry::store::{Operation, Txn, embedded::EmbeddedStore};

    use super::*;

    #[tokio::test]
    async fn what_is_asked_for_after_a_reset_is_not_taken_away_by_it() {
        let (folder, store) = (tempfile::tempdir().expect("a folder"), EmbeddedStore::in_memory());
        let texts = ["old", "named", "kept", "fetched"].map(|text| (ContentHash::of(text.as_bytes()), text));
        let put = |(hash, text): (ContentHash, &str)| Operation::Put {
            key: Keys::default().spell(&Key::Content(hash)),
            value: text.as_bytes().to_vec(),
            lease: None,
        };
        let then = texts.into_iter().map(put).collect();
        store.txn(Txn { then, ..Txn::default() }).await.expect("written");
        let contents = Contents::new(Arc::new(store), Keys::default(), folder.path().to_owned());
        let [old, named, kept, fetched] = texts.map(|(hash, _)| hash);
        for hash in [old, named, kept] {
            contents.get(hash).await.expect("there");
        }
        // One that a crash left half written, and one that is just being written.
        let beside = |hash: ContentHash| folder.path().join(format!(".{hash}.1-1"));
        std::fs::write(beside(old), "o").expect("written");
        contents.name_all(BTreeSet::from([named]));
        contents.get(kept).await.expect("on disk");
        contents.get(fetched).await.expect("in the store");
        std::fs::write(beside(fetched), "f").expect("written");
        contents.sweep();
        assert_eq!(contents.kept(old).await, None);
        for (hash, text) in texts.into_iter().skip(1) {
            assert_eq!(contents.kept(hash).await.as_deref(), Some(text));
        }
        assert_eq!((beside(old).exists(), beside(fetched).exists()), (false, true));
    }
}
