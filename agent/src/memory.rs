//! What the agent remembers over restarts and reboots, in `/var/lib/flotilla`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use flotilla_registry::witness::{SharedWitness, Witness};
use flotilla_units::UnitName;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{files, known::Known, manifest::Manifest};

/// The version of the file; one of another version is not read.
const VERSION: u32 = 1;

/// How long a new manifest waits to be kept, with all that follow it meanwhile. Five seconds: it counts only after
/// a machine lost its power, and then if the store is away for a minute; a disk that syncs slowly is not made to
/// sync for each of 300 placements, nor each second on a machine where something always comes or goes.
const KEEP_AFTER: Duration = Duration::from_secs(5);

/// How long a higher revision alone waits to be kept. A minute: it only sharpens the notice of a
/// store that went back, and other signs give the same.
const KEEP_REVISION_AFTER: Duration = Duration::from_secs(60);

/// Everything that is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    v: u32,
    /// What was seen of the store.
    pub(crate) witness: Witness,
    /// The last manifest.
    pub(crate) manifest: Manifest,
    /// Units that were here and are not any more, the last one last.
    #[serde(default)]
    pub(crate) had: Vec<UnitName>,
}

/// Writes the memory as it changes.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) state: PathBuf,
    pub(crate) witness: SharedWitness,
    pub(crate) manifest: watch::Receiver<Manifest>,
    pub(crate) known: Known,
}

impl Memory {
    fn path(state: &Path) -> PathBuf {
        state.join("agent.json")
    }

    /// Reads the memory. One that is not there, or cannot be read, is an empty one: then nothing
    /// is started before the store was heard, and everything that runs goes on.
    pub(crate) fn read(state: &Path) -> Self {
        let path = Self::path(state);
        let refused = |why: &str| warn!(path = %path.display(), why, "the agent's memory cannot be read; it begins anew, and starts nothing before the store was heard");
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => refused(&error.to_string()),
            Ok(bytes) => match serde_json::from_slice::<Self>(&bytes) {
                Ok(memory) if memory.v == VERSION => return memory,
                Ok(memory) => {
                    refused(&format!("it has version {}, and this flotillad reads {VERSION}", memory.v))
                }
                Err(error) => refused(&error.to_string()),
            },
        }
        Self::default()
    }

    async fn write(self, state: &Path) -> bool {
        let bytes = serde_json::to_vec(&self).unwrap_or_default();
        match files::replace_async(Self::path(state), bytes).await {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, source = %error.source, "the agent's memory could not be written: after a reboot units wait for the store; is the disk full?");
                false
            }
        }
    }
}

impl Keeper {
    /// Keeps the memory until it is told to stop, and once more then.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut witness = self.witness.subscribe();
        let mut kept = Memory::default();
        let mut due: Option<Instant> = None;
        loop {
            let wait = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.keep(&mut kept).await;
                    return;
                }
                changed = self.manifest.changed() => match changed {
                    Ok(()) => KEEP_AFTER,
                    Err(_) => return,
                },
                changed = witness.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = witness.borrow_and_update();
                    let same = (&now.cluster, now.epoch, &now.term)
                        == (&kept.witness.cluster, kept.witness.epoch, &kept.witness.term);
                    if same { KEEP_REVISION_AFTER } else { KEEP_AFTER }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    due = None;
                    if self.keep(&mut kept).await { continue }
                    KEEP_REVISION_AFTER
                }
            };
            let time = Instant::now() + wait;
            due = Some(due.map_or(time, |due| due.min(time)));
        }
    }

    async fn keep(&mut self, kept: &mut Memory) -> bool {
        let manifest = self.manifest.borrow_and_update().clone();
        let had = self.known.had();
        let memory = Memory { v: VERSION, witness: self.witness.get(), manifest, had };
        if memory == *kept {
            return true;
        }
        *kept = memory.clone();
        memory.write(&self.state).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_read_back_and_rubbish_is_an_empty_memory() {
        let state = tempfile::tempdir().expect("a folder");
        assert_eq!(Memory::read(state.path()), Memory::default());
        let witness = Witness { cluster: Some("c".to_owned()), ..Witness::default() };
        let had = vec!["a.service".parse().expect("valid")];
        let memory = Memory { v: VERSION, witness, manifest: Manifest::default(), had };
        assert!(memory.clone().write(state.path()).await);
        assert_eq!(Memory::read(state.path()), memory);
        std::fs::write(Memory::path(state.path()), b"{").expect("written");
        assert_eq!(Memory::read(state.path()), Memory::default());
        std::fs::write(Memory::path(state.path()), br#"{"v":2,"witness":{},"manifest":{}}"#)
            .expect("written");
        assert_eq!(Memory::read(state.path()), Memory::default());
    }
}
