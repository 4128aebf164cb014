//! The store that the configuration names.

use std::sync::Arc;

use anyhow::Context as _;
use flotilla_registry::store::{Store, embedded::EmbeddedStore, etcd::EtcdStore};

use crate::config::StoreConfig;

/// Opens the store. That etcd is away is no error: everything above goes on by itself.
///
/// # Errors
/// The configuration can never work, or the file is not a store or is in use.
pub(crate) async fn open(config: &StoreConfig) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match config {
        StoreConfig::Etcd(etcd) => {
            Arc::new(EtcdStore::connect(etcd.clone()).context("etcd cannot be reached like this")?)
        }
        StoreConfig::Embedded(path) => {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("{} cannot be made", folder.display()))?;
            }
            let store = EmbeddedStore::open(path.clone()).await;
            Arc::new(store.with_context(|| format!("the store {} cannot be opened", path.display()))?)
        }
    })
}
