//! The texts of units, fetched once and kept on disk for when the store is away.
//!
//! Old ones are taken away at each reset of the manifest, off the runtime's threads and so at any time
//! after it. What has been asked for since is spared, whatever that manifest named: a unit's text may be
//! ordered and fetched meanwhile.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use flotilla_registry::{
    keys::{Key, Keys},
    store::{KeyRange, RangeRequest, Store, StoreError},
};
use flotilla_units::ContentHash;
use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use tracing::warn;

use crate::files;

/// How many texts are held in memory. Sixteen: of a hundred instances of a template that start together only the
/// first reads its text from the disk, and a machine rarely starts units of more templates at once.
const HELD_MAX: usize = 16;

/// The largest text that is held, in bytes. 64 KiB, so that all of them are at most a MiB.
const HELD_BYTES_MAX: usize = 64 << 10;

/// Why a unit's text is not to be had.
#[derive(Debug, Clone, thiserror::Error)]
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
    /// Texts that are on disk and were asked for last, the latest at the end.
    held: Mutex<VecDeque<(ContentHash, Arc<str>)>>,
    /// What is being read or fetched: a hundred units that start together ask for one text once.
    under_way: Mutex<HashMap<ContentHash, Coming>>,
}

/// A text on its way, for all who wait for it.
type Coming = Shared<BoxFuture<'static, Result<Came, ContentsError>>>;

/// A text that came.
#[derive(Debug, Clone)]
struct Came {
    text: Arc<str>,
    is_on_disk: bool,
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
    pub(crate) fn new(store: Arc<dyn Store>, keys: Keys, folder: PathBuf) -> Self {
        let spared = Spared { named: BTreeSet::new(), asked_for: BTreeSet::new() };
        Self {
            store,
            keys,
            folder,
            spared: Mutex::new(spared),
            held: Mutex::default(),
            under_way: Mutex::default(),
        }
    }

    /// Returns the text of a hash: from memory or disk, else from the store.
    ///
    /// # Errors
    /// Neither has it, or it cannot be read.
    pub(crate) async fn get(&self, hash: ContentHash) -> Result<Arc<str>, ContentsError> {
        // Before it is looked for: what is found must not be taken away under the reader either.
        lock(&self.spared).asked_for.insert(hash);
        if let Some((_, text)) = lock(&self.held).iter().find(|(held, _)| *held == hash) {
            return Ok(text.clone());
        }
        let coming = {
            let mut under_way = lock(&self.under_way);
            under_way.entry(hash).or_insert_with(|| self.bring(hash).boxed().shared()).clone()
        };
        let came = coming.await;
        lock(&self.under_way).remove(&hash);
        let Came { text, is_on_disk } = came?;
        if is_on_disk {
            self.hold(hash, &text);
        }
        Ok(text)
    }

    /// Returns the text of a hash if it is on disk and whole.
    #[cfg(test)]
    pub(crate) async fn kept(&self, hash: ContentHash) -> Option<String> {
        kept(&self.path(hash), hash).await
    }

    /// Reads a text, or fetches it and keeps it.
    fn bring(&self, hash: ContentHash) -> impl Future<Output = Result<Came, ContentsError>> + Send + use<> {
        let (store, path) = (self.store.clone(), self.path(hash));
        let range = KeyRange::key(self.keys.spell(&Key::Content(hash)));
        async move {
            if let Some(text) = kept(&path, hash).await {
                return Ok(Came { text: text.into(), is_on_disk: true });
            }
            let answer = store.range(RangeRequest::all(range)).await;
            let answer = answer.map_err(|source| ContentsError::Store { hash, source })?;
            let kv = answer.kvs.into_iter().next().ok_or(ContentsError::Missing(hash))?;
            if ContentHash::of(&kv.value) != hash {
                return Err(ContentsError::Corrupted(hash));
            }
            let text = String::from_utf8(kv.value.to_vec()).map_err(|_| ContentsError::Corrupted(hash))?;
            let keeping = files::replace_async(path, text.clone().into_bytes()).await;
            if let Err(error) = &keeping {
                // It is needed again only when the store is away; the next one to ask for it tries to keep it.
                warn!(%error, "the unit's content could not be kept: it cannot be started while the store is away; is the disk full?");
            }
            Ok(Came { text: text.into(), is_on_disk: keeping.is_ok() })
        }
    }

    /// Holds a text in memory that is on disk, unless it may be taken away there: it was asked for before the
    /// last reset.
    fn hold(&self, hash: ContentHash, text: &Arc<str>) {
        let spared = lock(&self.spared);
        let stays = spared.named.contains(&hash) || spared.asked_for.contains(&hash);
        let mut held = lock(&self.held);
        if stays && text.len() <= HELD_BYTES_MAX && held.iter().all(|(other, _)| *other != hash) {
            if held.len() >= HELD_MAX {
                held.pop_front();
            }
            held.push_back((hash, text.clone()));
        }
    }

    /// Takes these as all that the manifest names; any other text may go, unless it is asked for from
    /// now on. [`sweep`](Self::sweep) takes them away.
    pub(crate) fn name_all(&self, named: BTreeSet<ContentHash>) {
        let mut spared = lock(&self.spared);
        *spared = Spared { named, asked_for: BTreeSet::new() };
        // What is taken away from the disk is not to be had from memory either.
        lock(&self.held).clear();
    }

    /// Takes away every text on disk that is not spared. It waits for the disk.
    pub(crate) fn sweep(&self) {
        let Ok(files) = std::fs::read_dir(&self.folder) else { return };
        for file in files.flatten() {
            let name = file.file_name();
            let hash = name.to_str().and_then(hash_of);
            // Held until it is removed: whoever asks for it then finds it gone, and fetches it.
            let spared = lock(&self.spared);
            if hash.is_some_and(|hash| spared.named.contains(&hash) || spared.asked_for.contains(&hash)) {
                continue;
            }
            if let Err(error) = std::fs::remove_file(file.path()) {
                warn!(path = %file.path().display(), %error, "an old unit's content is not removed");
            }
        }
    }

    fn path(&self, hash: ContentHash) -> PathBuf {
        self.folder.join(hash.to_string())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the text of a hash if a file has it, whole.
async fn kept(path: &Path, hash: ContentHash) -> Option<String> {
    let text = tokio::fs::read_to_string(path).await.ok()?;
    (ContentHash::of(text.as_bytes()) == hash).then_some(text)
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
    async fn a_text_that_many_ask_for_at_once_is_fetched_once_and_then_held() {
        let (folder, store) = (tempfile::tempdir().expect("a folder"), EmbeddedStore::in_memory());
        let (hash, missing) = (ContentHash::of(b"text"), ContentHash::of(b"none"));
        let key = Keys::default().spell(&Key::Content(hash));
        let put = Operation::Put { key: key.clone(), value: b"text".to_vec(), lease: None };
        store.txn(Txn { then: vec![put], ..Txn::default() }).await.expect("written");
        let store = Arc::new(store);
        let contents = Contents::new(store.clone(), Keys::default(), folder.path().to_owned());
        let all = futures_util::future::join_all((0..100).map(|_| contents.get(hash))).await;
        let first = all[0].as_ref().expect("fetched").clone();
        assert!(all.iter().all(|text| Arc::ptr_eq(text.as_ref().expect("fetched"), &first)), "fetched once");
        // Neither the disk nor the store is asked again.
        std::fs::remove_dir_all(folder.path()).expect("removed");
        let delete = Operation::Delete(KeyRange::key(key));
        store.txn(Txn { then: vec![delete], ..Txn::default() }).await.expect("deleted");
        assert!(Arc::ptr_eq(&contents.get(hash).await.expect("held"), &first));
        // What failed is tried again by the next who asks.
        for _ in 0..2 {
            assert!(matches!(contents.get(missing).await, Err(ContentsError::Missing(_))));
        }
        assert!(lock(&contents.under_way).is_empty());
    }

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
        assert!(contents.get(old).await.is_ok(), "the store has it yet");
        assert_eq!(contents.kept(old).await.as_deref(), Some("old"), "on disk again, not only in memory");
        assert_eq!((beside(old).exists(), beside(fetched).exists()), (false, true));
    }
}
