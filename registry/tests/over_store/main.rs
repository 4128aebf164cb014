//! What stands on the store (sessions, elections, seats, streams, operations), over the embedded
//! one with faults, on the paused clock.

// Helpers of tests are tests: they say what must hold in the shortest way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod election;
mod machines;
mod operations;
mod range_cases;
mod ranges;
mod seats;
mod session;
mod settings;
mod stream;
mod writes;

use std::{sync::Arc, time::Duration};

use flotilla_registry::store::{
    KeyRange, KeyValue, LeaseId, Operation, RangeRequest, Revision, Store, Txn,
    embedded::EmbeddedStore,
    faults::{Faults, FaultyStore},
};

/// A store with faults in front of it. What stands behind is at `faults.store()`.
fn store(seed: u64) -> (Arc<dyn Store>, Faults) {
    let (faulty, faults) = FaultyStore::new(Arc::new(EmbeddedStore::in_memory()), seed);
    (Arc::new(faulty), faults)
}

/// The same way to the same store without the faults of another.
fn beside(faults: &Faults, seed: u64) -> (Arc<dyn Store>, Faults) {
    let (faulty, own) = FaultyStore::new(faults.store(), seed);
    (Arc::new(faulty), own)
}

async fn put(store: &dyn Store, key: &str, value: &str, lease: Option<LeaseId>) -> Revision {
    let operation = Operation::Put { key: key.into(), value: value.into(), lease };
    store.txn(Txn { then: vec![operation], ..Txn::default() }).await.expect("a put").revision
}

async fn get(store: &dyn Store, key: &str) -> Option<KeyValue> {
    let read = store.range(RangeRequest::all(KeyRange::key(key))).await.expect("a read");
    read.kvs.into_iter().next()
}

/// Keeps the lease of a key alive behind the faults for as long as something takes.
async fn kept(faults: &Faults, key: &str, until: impl Future<Output = ()>) {
    let store = faults.store();
    let lease = get(&*store, key).await.and_then(|kv| kv.lease).expect("a key under a lease");
    let renewing = async {
        loop {
            store.lease_keep_alive(lease, Duration::from_secs(1)).await.expect("renewed");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = renewing => {}
        () = until => {}
    }
}

/// Waits for what has to come soon; on the paused clock this costs nothing.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(done) = tokio::time::timeout(Duration::from_secs(120), future).await else {
        panic!("{what} did not come within two minutes");
    };
    done
}
