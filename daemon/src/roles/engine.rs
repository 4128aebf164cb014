//! The engine's role: takes a seat where one is free, and leads where nobody does.

use std::sync::Arc;

use anyhow::Context as _;
use flotilla_engine::{EngineConfig, HoldRelease, StateReader};
use flotilla_registry::{timing::Timing, witness::SharedWitness};
use tokio::sync::watch;

use super::{Pulse, Shared};
use crate::tasks::Tasks;

/// What the engine leaves to the others.
pub(super) struct EngineHere {
    /// Its state, while it has a seat.
    pub(super) readers: watch::Receiver<Option<StateReader>>,
    /// Ends a hold.
    pub(super) hold: HoldRelease,
    /// Tells whether it goes on.
    pub(super) pulse: Pulse,
}

/// Starts the engine.
pub(crate) fn start(shared: &Shared, witness: SharedWitness, tasks: &mut Tasks) -> EngineHere {
    let config = EngineConfig {
        store: Arc::clone(&shared.store),
        keys: shared.config.keys.clone(),
        machine: shared.config.machine,
        boot_id: shared.facts.boot_id.clone(),
        api: shared.config.api.advertise.clone(),
        timing: Timing::default(),
        witness,
    };
    let engine = flotilla_engine::run(config, shared.stop.clone());
    let pulse = Pulse { asked: engine.asked(), progress: engine.progress() };
    let here = EngineHere { readers: engine.readers(), hold: engine.hold_release(), pulse };
    tasks.spawn("the engine", async move { engine.ended().await.context("the engine ended unexpectedly") });
    here
}
