//! The agent: the tasks that make one machine agree with its manifest, and how they hang together.
//!
//! ```text
//!  manifest ──▶ follower ──┐                        ┌──▶ board ──▶ publisher ──▶ reports
//!                          ├──▶ owner loop (fleet) ─┤
//!  systemd ──▶ listener ───┘      ▲  │ orders, bell └──▶ keeper ──▶ /var/lib/flotilla
//!                            told │  ▼
//!                              one task per unit ──▶ systemd
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

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
    sync::{Notify, mpsc, watch},
    task::{self, JoinSet},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    board::Board,
    contents::Contents,
    fleet::{Fleet, News},
    known::Known,
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

/// Why an agent ended without having been told to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The machine must not take part.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// Without this task the agent would go on and not see, or not tell, what happens.
    #[error(
        "the agent's {task} ended unexpectedly ({why}); this is a mistake in flotillad, please report it"
    )]
    TaskEnded {
        /// Which.
        task: &'static str,
        /// How.
        why: String,
    },
}

/// The agent's tasks by name, each of which has to last as long as the agent.
#[derive(Default)]
struct Tasks {
    running: JoinSet<Result<(), RegistrationError>>,
    names: HashMap<task::Id, &'static str>,
}

/// How an agent is, for the daemon and for health.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// What runs was read, and the owner loop goes.
    pub ready: watch::Receiver<bool>,
    /// Grows with every turn of the owner loop.
    pub progress: watch::Receiver<u64>,
    /// Asks for a turn: whoever wants to know whether the loop goes on. At rest there is none otherwise.
    pub asked: Arc<Notify>,
    /// Whether the cluster knows the machine.
    pub registration: watch::Receiver<Registration>,
    /// Why nothing is started or stopped: the store went back.
    pub frozen: watch::Receiver<Option<String>>,
    /// Accepts a store that went back.
    pub witness: SharedWitness,
    /// Which units of the machine are flotilla's.
    pub known: Known,
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
    known: Known,
    ready: watch::Sender<bool>,
    progress: watch::Sender<u64>,
    asked: Arc<Notify>,
    registration: watch::Sender<Registration>,
    frozen: watch::Sender<Option<String>>,
}

impl Agent {
    /// Reads the agent's memory; nothing happens before [`Agent::run`].
    #[must_use]
    pub fn new(settings: Settings, store: Arc<dyn Store>, keys: Keys, systemd: Arc<dyn Systemd>) -> Self {
        let memory = Memory::read(&settings.state);
        let witness = SharedWitness::new(memory.witness.clone());
        // What the last manifest named may still have words to say; what is here comes when it is read.
        let had = memory.had.iter().cloned().chain(memory.manifest.units());
        let known = Known::remember(had);
        let pending = Registration::Pending("the agent has just started".to_owned());
        Self {
            settings,
            store,
            keys,
            systemd,
            memory,
            witness,
            known,
            ready: watch::Sender::new(false),
            progress: watch::Sender::new(0),
            asked: Arc::default(),
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
            asked: self.asked.clone(),
            registration: self.registration.subscribe(),
            frozen: self.frozen.subscribe(),
            witness: self.witness.clone(),
            known: self.known.clone(),
        }
    }

    /// Runs until `stop`: then says so in the store, and touches no unit.
    ///
    /// # Guarantees
    /// Nothing is stopped but what the manifest names as departing or not launched, also when this
    /// future is dropped at any await, or the process killed.
    ///
    /// # Errors
    /// Another machine has the same id, or one of the agent's tasks ended unexpectedly.
    pub async fn run(self, stop: CancellationToken) -> Result<(), AgentError> {
        let clock = Instant::now();
        // Not a child of `stop`: the last report is written while the other tasks go on.
        let ended = CancellationToken::new();
        // Whatever ends this function ends its tasks.
        let _end = ended.clone().drop_guard();
        let board = watch::Sender::new(Board::default());
        let (news, heard) = mpsc::channel(QUEUE);
        let (manifests, kept) = watch::channel(self.memory.manifest.clone());
        let mut tasks = Tasks::default();
        let contents = Arc::new(Contents::new(
            self.store.clone(),
            self.keys.clone(),
            self.settings.state.join("contents"),
        ));

        let publisher = Publisher {
            registrar: registrar(&self.settings, &self.store, &self.keys, &self.witness),
            board: board.clone(),
            registration: self.registration.clone(),
            frozen: self.frozen.clone(),
        };
        tasks.spawn("publisher", publisher.run(stop.clone()));
        let keeper = Keeper {
            state: self.settings.state.clone(),
            witness: self.witness.clone(),
            manifest: kept,
            known: self.known.clone(),
        };
        let keeping = keeper.run(ended.clone());
        tasks.spawn("keeper", async {
            keeping.await;
            Ok(())
        });
        tasks.spawn_until(&ended, "follower", follow(self.streams(), self.witness.clone(), news.clone()));
        tasks.spawn_until(&ended, "listener", listen(self.systemd.clone(), news, self.settings.seed));

        let fleet = Fleet::new(&self.settings, self.keys.clone(), self.systemd.clone(), contents, clock)
            .with_outlets(board, manifests, self.frozen.clone(), self.registration.subscribe())
            .with_signals(self.ready.clone(), self.progress.clone(), self.asked.clone())
            .with_known(self.known.clone());
        let mut steering = std::pin::pin!(fleet.run(self.memory.manifest.clone(), heard));
        let unexpected = |task, why: &str| AgentError::TaskEnded { task, why: why.to_owned() };
        // The units' tasks go on reporting while the last report is written: the publisher ends by
        // itself after an order to stop, and the agent with it.
        let result = tokio::select! {
            (task, published) = tasks.next() => match published {
                Ok(Ok(())) if task == "publisher" && stop.is_cancelled() => Ok(()),
                Ok(Ok(())) => Err(unexpected(task, "without a word")),
                Ok(Err(error)) => Err(error.into()),
                Err(panic) => Err(unexpected(task, &panic)),
            },
            () = &mut steering => Err(unexpected("owner loop", "without a word")),
        };
        ended.cancel();
        // The keeper keeps what is known now.
        tasks.end().await;
        result
    }

    /// Returns what makes a stream of the machine's manifest, from its beginning.
    fn streams(&self) -> impl Fn() -> ChangeStream + Send + use<> {
        let (store, keys, witness) = (self.store.clone(), self.keys.clone(), self.witness.clone());
        let (range, timing) = (keys.manifest_of(self.settings.machine), self.settings.timing.clone());
        move || ChangeStream::new(store.clone(), &keys, range.clone(), witness.clone(), &timing)
    }
}

/// Keeps what an earlier agent of this boot registered, while there is no systemd to run an [`Agent`]
/// over: renews its lease, and at `stop` says that it was stopped in order. Without such a registration
/// it only waits. Ends at `stop`, or when it is dropped: then the lease has most of its time left for an
/// agent to take it up.
///
/// # Errors
/// Another machine has the same id.
pub async fn keep_registration(
    settings: &Settings,
    store: &Arc<dyn Store>,
    keys: &Keys,
    stop: CancellationToken,
) -> Result<(), RegistrationError> {
    let witness = SharedWitness::new(Memory::read(&settings.state).witness);
    let publisher = Publisher {
        registrar: registrar(settings, store, keys, &witness),
        // Never complete, so that nothing is written of it.
        board: watch::Sender::new(Board::default()),
        registration: watch::Sender::new(Registration::Pending(String::new())),
        frozen: watch::Sender::new(None),
    };
    publisher.run(stop).await
}

fn registrar(settings: &Settings, store: &Arc<dyn Store>, keys: &Keys, witness: &SharedWitness) -> Registrar {
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
        store: store.clone(),
        keys: keys.clone(),
        machine: settings.machine,
        record,
        run: settings.run.clone(),
        witness: witness.clone(),
        timing: settings.timing.clone(),
    }
}

impl Tasks {
    fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), RegistrationError>> + Send + 'static,
    ) {
        self.names.insert(self.running.spawn(task).id(), name);
    }

    /// Starts a task that never ends before it is cancelled.
    fn spawn_until(
        &mut self,
        ended: &CancellationToken,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = ended.clone().run_until_cancelled_owned(task);
        self.spawn(name, async {
            task.await;
            Ok(())
        });
    }

    /// Returns the next task that ends: its name, and its result or how it panicked. Never returns
    /// when there is none.
    async fn next(&mut self) -> (&'static str, Result<Result<(), RegistrationError>, String>) {
        let Some(ended) = self.running.join_next_with_id().await else { return std::future::pending().await };
        let (id, result) = match ended {
            Ok((id, result)) => (id, Ok(result)),
            Err(panic) => (panic.id(), Err(panic.to_string())),
        };
        (self.names.remove(&id).unwrap_or("task"), result)
    }

    /// Waits for those that are left.
    async fn end(mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

/// Brings the manifest to the owner loop, and an operator's word about a store that went back.
async fn follow(streams: impl Fn() -> ChangeStream + Send, witness: SharedWitness, news: mpsc::Sender<News>) {
    let mut acceptances = witness.acceptances();
    let mut stream = streams();
    loop {
        let item = tokio::select! {
            biased;
            changed = acceptances.changed() => {
                // The witness lives as long as this does.
                if changed.is_err() {
                    return;
                }
                info!("an operator accepted the store as it is");
                // From its beginning: whoever noticed that the store went back, all of it is news.
                stream = streams();
                if news.send(News::Accepted).await.is_err() {
                    return;
                }
                continue;
            }
            item = stream.next() => item,
        };
        let item = match item {
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

/// Brings systemd's hints to the owner loop: first everything there is, then what changes.
async fn listen(systemd: Arc<dyn Systemd>, news: mpsc::Sender<News>, seed: u64) {
    let mut failures = 0;
    let mut told = Told::default();
    loop {
        match read_all(&*systemd).await {
            Ok((present, mut changes)) => {
                failures = 0;
                if told.is_over() {
                    info!("this machine's systemd answers again");
                }
                if news.send(News::Present(present)).await.is_err() {
                    return;
                }
                while let Some(change) = changes.recv().await {
                    if news.send(News::Systemd(change)).await.is_err() {
                        return;
                    }
                }
                warn!("no more change signals from systemd; subscribing again and reading all units");
            }
            Err(error) if told.is_due(Instant::now()) => {
                warn!(%error, "this machine's systemd does not answer; nothing is started or stopped here until it does");
            }
            Err(error) => debug!(%error, "this machine's systemd still does not answer"),
        }
        failures += 1;
        sleep(backoff(failures, seed).min(Duration::from_secs(5))).await;
    }
}

/// How often the same trouble is told while it lasts. A minute: it is tried again every few seconds, and
/// a night of that would leave nothing else in the journal.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// When a trouble that lasts was told last.
#[derive(Debug, Default)]
struct Told(Option<Instant>);

impl Told {
    /// Tells whether it is to be told now, and takes it for told then.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.0.is_none_or(|last| now.duration_since(last) >= TELL_EVERY);
        if due {
            self.0 = Some(now);
        }
        due
    }

    /// Notes that it is over; tells whether it was told.
    fn is_over(&mut self) -> bool {
        self.0.take().is_some()
    }
}

async fn read_all(
    systemd: &dyn Systemd,
) -> Result<(Vec<Present>, mpsc::Receiver<crate::systemd::Change>), crate::systemd::SystemdError> {
    // Subscribed first, so that nothing happens between the two.
    let changes = systemd.changes().await?;
    Ok((systemd.list().await?, changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_that_lasts_is_told_once_a_minute_and_a_new_one_at_once() {
        let (begun, mut told) = (Instant::now(), Told::default());
        let mut at = |second| told.is_due(begun + Duration::from_secs(second));
        let due: Vec<u64> = (0..130).step_by(5).filter(|second| at(*second)).collect();
        assert_eq!(due, [0, 60, 120]);
        assert!(told.is_over() && !told.is_over());
        assert!(told.is_due(begun + Duration::from_secs(131)));
    }

    #[tokio::test]
    async fn a_task_that_panics_or_just_ends_is_named() {
        let (mut tasks, ended) = (Tasks::default(), CancellationToken::new());
        tasks.spawn_until(&ended, "listener", std::future::pending());
        tasks.spawn_until(&ended, "follower", async { panic!("a mistake") });
        let (name, result) = tasks.next().await;
        let why = result.expect_err("it panicked");
        assert!(name == "follower" && why.contains("a mistake"), "{name}: {why}");
        tasks.spawn_until(&ended, "keeper", async {});
        let (name, result) = tasks.next().await;
        assert!(name == "keeper" && matches!(result, Ok(Ok(()))), "{name}: {result:?}");
        ended.cancel();
        tasks.end().await;
    }
}
