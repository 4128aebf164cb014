//! The store over a real etcd server, against the conformance suite.

// Helpers of tests are tests: they say what must hold in the shortest way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "conformance/model.rs"]
mod model;
#[path = "conformance/server.rs"]
#[allow(dead_code)]
mod server;
#[path = "conformance/suite.rs"]
mod suite;

use std::sync::Arc;

use flotilla_registry::store::{Revision, embedded::EmbeddedStore};
use proptest::prelude::*;
use server::Server;

suite::for_each_case!(Server::start);

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn etcd_and_memory_give_the_same_answers(steps in model::steps(false)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::start().await;
            let mut memory = model::Run::new(Arc::new(EmbeddedStore::in_memory()));
            let mut etcd = model::Run::new(server.store());
            let mut oldest = Revision(1);
            for step in &steps {
                let expected = memory.step(step).await;
                assert_eq!(etcd.step(step).await, expected, "{step:?}");
                if let model::Step::Compact(back) = step && expected == "compacted" {
                    oldest = Revision(suite::revision(&etcd.store).await.0 - back);
                }
            }
            let from = Revision(oldest.0 + 1);
            assert_eq!(etcd.watched(from).await, memory.watched(from).await);
        });
    }
}
