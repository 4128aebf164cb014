//! The texts of units, fetched once and kept on disk for when the store is away.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
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
}

impl Contents {
    /// Keeps texts in `folder`.
    pub(crate) const fn new(store: Arc<dyn Store>, keys: Keys, folder: PathBuf) -> Self {
        Self { store, keys, folder }
    }

    /// Returns the text of a hash: from disk, else from the store.
    ///
    /// # Errors
    /// Neither has it, or it cannot be read.
    pub(crate) async fn get(&self, hash: ContentHash) -> Result<String, ContentsError> {
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

    /// Forgets every text on disk that is not among these.
    pub(crate) fn retain(folder: &Path, hashes: &BTreeSet<ContentHash>) {
        let Ok(files) = std::fs::read_dir(folder) else { return };
        for file in files.flatten() {
            let name = file.file_name();
            let keep = name.to_str().and_then(|n| n.parse().ok()).is_some_and(|hash| hashes.contains(&hash));
            if !keep && let Err(error) = std::fs::remove_file(file.path()) {
                warn!(path = %file.path().display(), %error, "an old unit's content is not removed");
            }
        }
    }

    async fn keep(&self, hash: ContentHash, text: String) -> Result<(), FileError> {
        files::replace_async(self.path(hash), text.into_bytes()).await
    }

    fn path(&self, hash: ContentHash) -> PathBuf {
        self.folder.join(hash.to_string())
    }
}
