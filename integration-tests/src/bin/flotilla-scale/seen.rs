//! When what was written to the store: a watch of its own, on which causes and effects arrive in order.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use flotilla_registry::{
    keys::{Key, Keys},
    store::{
        KeyRange, Revision, Store, WatchEvent, WatchMessage, WatchStream,
        etcd::{EtcdConfig, EtcdStore},
    },
};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

/// A watch on a part of the keys.
pub(crate) struct Seen {
    keys: Keys,
    watch: WatchStream,
}

impl Seen {
    /// Begins to watch from now on.
    pub(crate) async fn begin(etcd: &str, range: impl FnOnce(&Keys) -> KeyRange) -> Result<Self> {
        let endpoints = vec![etcd.to_owned()];
        let store = EtcdStore::connect(EtcdConfig { endpoints, ..EtcdConfig::default() })?;
        let keys = Keys::default();
        let status = store.status().await?;
        let watch = store.watch(range(&keys), Revision(status.revision.0 + 1)).await?;
        Ok(Self { keys, watch })
    }

    /// Waits for a change that is meant, and returns when it came.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        within: Duration,
        mut is_meant: impl FnMut(&Key, bool) -> bool,
    ) -> Result<Instant> {
        let end = Instant::now() + within;
        loop {
            let Ok(message) = timeout_at(end, self.watch.next()).await else {
                bail!("{what}: not within {within:?}")
            };
            let WatchMessage::Events { events, .. } = message.context("the watch ended")?? else { continue };
            let now = Instant::now();
            for event in events {
                let (key, is_there) = match &event {
                    WatchEvent::Put(kv) => (kv.key.as_str(), true),
                    WatchEvent::Delete { key, .. } => (key.as_str(), false),
                };
                if self.keys.read(key).is_some_and(|key| is_meant(&key, is_there)) {
                    return Ok(now);
                }
            }
        }
    }
}
