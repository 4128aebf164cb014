//! The engine's role: takes a seat where one is free, and leads where nobody does.

use std::sync::Arc;

use anyhow::Context as _;
use flotilla_engine::{EngineConfig, HoldRelease, StateReader};
use flotilla_registry::{timing::Timing, witness::SharedWitness};
use tokio::{sync::watch, task::JoinSet};

use super::Shared;

/// Starts the engine. Returns where its state is read, while it has a seat, and what ends a hold.
pub(crate) fn start(
    shared: &Shared,
    witness: SharedWitness,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> (watch::Receiver<Option<StateReader>>, HoldRelease) {
    let config = EngineConfig {
        store: Arc::clone(&shared.store),
        keys: shared.config.keys.clone(),
        machine: shared.config.machine,
        api: shared.config.api.advertise.clone(),
        timing: Timing::default(),
        witness,
    };
    let engine = flotilla_engine::run(config, shared.stop.clone());
    let (readers, release) = (engine.readers(), engine.hold_release());
    tasks.spawn(async move { engine.ended().await.context("the engine ended unexpectedly") });
    (readers, release)
}
