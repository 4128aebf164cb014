//! The agent: the tasks that make one machine agree with its manifest, and how they hang together.
//!
//! ```text
//!  manifest ──▶ follower ──┐                        ┌──▶ board ──▶ publisher ──▶ reports
//!                          ├──▶ owner loop (fleet) ─┤
//!  systemd ──▶ listener ───┘      ▲  │ orders, bell └──▶ keeper ──▶ /var/lib/flotilla
//!                            told │  ▼
//!                              one task per unit ──▶ systemd
//! ```

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use flotilla_registry::{
    keys::Keys,
    records::{Capacity, MachineRecord, VERSION},
    store::{LeaseId, Store},
    stream::{Change, ChangeStream, StreamError},
    timing::Timing,
    witness::SharedWitness,
};
use flotilla_units::MachineId;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, error, info, warn};

use crate::{
    board::Board,
    contents::Contents,
    fleet::{Fleet, News},
    memory::{Keeper, Memory},
    publisher::{Publisher, Registration},
    reconcile::backoff,
    registration::{Registrar, RegistrationError},
    systemd::{Present, Systemd},
};

/// How many messages of one kind wait for the owner loop. It never waits for anything but them, so
/// a short queue is enough; a full one makes the senders wait.
const QUEUE: usize = 256;

/// What an agent is told about its machine and its place.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The machine's id.
    pub machine: MachineId,
    /// Its host name.
    pub host: String,
    /// Its addresses, the one to show first.
    pub addresses: Vec<String>,
    /// Where its API answers other machines.
    pub api: Option<String>,
    /// What its operator's configuration says of it.
    pub metadata: BTreeMap<String, String>,
    /// What it found out about itself.
    pub facts: BTreeMap<String, String>,
    /// What it has to give.
    pub capacity: Capacity,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The daemon's version.
    pub version: String,
    /// Where what lives as long as the boot is kept, `/run/flotilla`.
    pub run: PathBuf,
    /// Where what outlives it is kept, `/var/lib/flotilla`.
    pub state: PathBuf,
    /// How long things take.
    pub timing: Timing,
    /// Draws the back-offs.
    pub seed: u64,
}

/// How an agent is, for the daemon and for health.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// What runs was read, and the owner loop goes.
    pub ready: watch::Receiver<bool>,
    /// Grows with every turn of the owner loop, at least every two seconds.
    pub progress: watch::Receiver<u64>,
    /// Whether the cluster knows the machine.
    pub registration: watch::Receiver<Registration>,
    /// Why nothing is started or stopped: the store went back.
    pub frozen: watch::Receiver<Option<String>>,
    /// Accepts a store that went back.
    pub witness: SharedWitness,
}

/// Makes one machine agree with its manifest.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    store: Arc<dyn Store>,
    keys: Keys,
    systemd: Arc<dyn Systemd>,
    memory: Memory,
    witness: SharedWitness,
    ready: watch::Sender<bool>,
    progress: watch::Sender<u64>,
    registration: watch::Sender<Registration>,
    frozen: watch::Sender<Option<String>>,
}

impl Agent {
    /// Reads the agent's memory; nothing happens before [`Agent::run`].
    #[must_use]
    pub fn new(settings: Settings, store: Arc<dyn Store>, keys: Keys, systemd: Arc<dyn Systemd>) -> Self {
        let memory = Memory::read(&settings.state);
        let witness = SharedWitness::new(memory.witness.clone());
        let pending = Registration::Pending("the agent has just started".to_owned());
        Self {
            settings,
            store,
            keys,
            systemd,
            memory,
            witness,
            ready: watch::Sender::new(false),
            progress: watch::Sender::new(0),
            registration: watch::Sender::new(pending),
            frozen: watch::Sender::new(None),
        }
    }

    /// Returns how the agent is, as it changes.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        Outlook {
            ready: self.ready.subscribe(),
            progress: self.progress.subscribe(),
            registration: self.registration.subscribe(),
            frozen: self.frozen.subscribe(),
            witness: self.witness.clone(),
        }
    }

    /// Runs until `stop`: then says so in the store, and touches no unit.
    ///
    /// # Guarantees
    /// Nothing is stopped but what the manifest names as departing or not launched, also when this
    /// future is dropped at any await, or the process killed.
    ///
    /// # Errors
    /// Another machine has the same id.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RegistrationError> {
        let clock = Instant::now();
        // Not a child of `stop`: the last report is written while the other tasks go on.
        let ended = CancellationToken::new();
        // Whatever ends this function ends its tasks.
        let _end = ended.clone().drop_guard();
        let board = watch::Sender::new(Board::default());
        let (news, heard) = mpsc::channel(QUEUE);
        let (manifests, kept) = watch::channel(self.memory.manifest.clone());
        let mut tasks = JoinSet::new();
        let contents = Arc::new(Contents::new(
            self.store.clone(),
            self.keys.clone(),
            self.settings.state.join("contents"),
        ));

        let publisher = Publisher {
            registrar: self.registrar(),
            board: board.clone(),
            registration: self.registration.clone(),
            frozen: self.frozen.clone(),
        };
        let mut publishing = AbortOnDropHandle::new(tokio::spawn(publisher.run(stop.clone())));
        let keeper =
            Keeper { state: self.settings.state.clone(), witness: self.witness.clone(), manifest: kept };
        let keeping = AbortOnDropHandle::new(tokio::spawn(keeper.run(ended.clone())));
        tasks.spawn(ended.clone().run_until_cancelled_owned(follow(self.stream(), news.clone())));
        tasks.spawn(ended.clone().run_until_cancelled_owned(accepted(self.witness.clone(), news.clone())));
        tasks.spawn(ended.clone().run_until_cancelled_owned(listen(
            self.systemd.clone(),
            news,
            self.settings.seed,
        )));

        let fleet = Fleet::new(&self.settings, self.keys.clone(), self.systemd.clone(), contents, clock)
            .with_outlets(board, manifests, self.frozen.clone(), self.registration.subscribe())
            .with_signals(self.ready.clone(), self.progress.clone());
        let mut steering = std::pin::pin!(fleet.run(self.memory.manifest.clone(), heard));
        let result = tokio::select! {
            published = &mut publishing => flatten(published),
            () = &mut steering => Ok(()),
            () = stop.cancelled() => {
                // The units' tasks go on reporting while the last report is written.
                tokio::select! {
                    published = &mut publishing => flatten(published),
                    () = &mut steering => flatten(publishing.await),
                }
            }
        };
        ended.cancel();
        let _ = keeping.await;
        result
    }

    fn stream(&self) -> ChangeStream {
        let range = self.keys.manifest_of(self.settings.machine);
        ChangeStream::new(self.store.clone(), &self.keys, range, self.witness.clone(), &self.settings.timing)
    }

    fn registrar(&self) -> Registrar {
        let settings = &self.settings;
        let record = MachineRecord {
            v: VERSION,
            host: settings.host.clone(),
            addresses: settings.addresses.clone(),
            api: settings.api.clone(),
            metadata: settings.metadata.clone(),
            facts: settings.facts.clone(),
            capacity: settings.capacity.clone(),
            boot_id: settings.boot_id.clone(),
            nonce: String::new(),
            version: settings.version.clone(),
            lease: LeaseId(0),
            lease_ttl_s: 0,
            stopped: false,
        };
        Registrar {
            store: self.store.clone(),
            keys: self.keys.clone(),
            machine: settings.machine,
            record,
            run: settings.run.clone(),
            witness: self.witness.clone(),
            timing: settings.timing.clone(),
        }
    }
}

fn flatten(
    ended: Result<Result<(), RegistrationError>, tokio::task::JoinError>,
) -> Result<(), RegistrationError> {
    match ended {
        Ok(result) => result,
        Err(panic) => {
            error!(%panic, "the publisher ended unexpectedly");
            Err(RegistrationError::Overtaken("the publisher".to_owned()))
        }
    }
}

/// Brings the manifest to the owner loop.
async fn follow(mut stream: ChangeStream, news: mpsc::Sender<News>) {
    loop {
        let item = match stream.next().await {
            Ok(Change::Progress(revision)) => {
                debug!(revision = revision.0, "no change of the manifest");
                continue;
            }
            Ok(change) => News::Manifest(change),
            Err(StreamError::WentBack(error)) => News::WentBack(error.to_string()),
            Err(error) => {
                warn!(
                    error = crate::publisher::with_source(&error),
                    "the manifest cannot be followed for now"
                );
                continue;
            }
        };
        if news.send(item).await.is_err() {
            return;
        }
    }
}

/// Tells the owner loop when an operator accepted a store that went back.
async fn accepted(witness: SharedWitness, news: mpsc::Sender<News>) {
    let mut acceptances = witness.acceptances();
    while acceptances.changed().await.is_ok() {
        info!("an operator accepted the store as it is");
        if news.send(News::Accepted).await.is_err() {
            return;
        }
    }
}

/// Brings systemd's hints to the owner loop: first everything there is, then what changes.
async fn listen(systemd: Arc<dyn Systemd>, news: mpsc::Sender<News>, seed: u64) {
    let mut failures = 0;
    loop {
        match read_all(&*systemd).await {
            Ok((present, mut changes)) => {
                failures = 0;
                if news.send(News::Present(present)).await.is_err() {
                    return;
                }
                while let Some(change) = changes.recv().await {
                    if news.send(News::Systemd(change)).await.is_err() {
                        return;
                    }
                }
                warn!("systemd's changes ended; reading everything again");
            }
            Err(error) => warn!(%error, "systemd cannot be read; trying again"),
        }
        failures += 1;
        sleep(backoff(failures, seed).min(Duration::from_secs(5))).await;
    }
}

async fn read_all(
    systemd: &dyn Systemd,
) -> Result<(Vec<Present>, mpsc::Receiver<crate::systemd::Change>), crate::systemd::SystemdError> {
    // Subscribed first, so that nothing happens between the two.
    let changes = systemd.changes().await?;
    Ok((systemd.list().await?, changes))
}
