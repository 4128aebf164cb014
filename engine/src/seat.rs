//! A seat: from which an engine takes part.
//!
//! Owns the life of an engine: it waits for one of the few seats, holds the hot state while it has
//! one, feeds it from the store's changes, and campaigns for the lead all the while. Losing the
//! lead is harmless: the seat goes on answering. Losing the seat drops the state.
//!
//! ```text
//!              a seat is free             a listing arrived
//!   ┌─────────┐ ───────────► ┌─────────┐ ─────────────────► ┌─────┐  feeds, campaigns, answers;
//!   │ Waiting │              │ Filling │                    │ Hot │  leads while elected
//!   └─────────┘ ◄─────────── └─────────┘                    └─────┘
//!        ▲       seat lost                                     │
//!        └─────────────────────────────────────────────────────┘ seat lost
//! ```

use std::{convert::Infallible, sync::Arc, time::Duration};

use flotilla_registry::{
    election::{Candidate, ElectionError},
    keys::Keys,
    records::{SeatRecord, VERSION},
    seats::{Seat, SeatSeeker},
    store::{CALL_TIMEOUT, Store},
    stream::{Change, ChangeStream, StreamError},
    timing::Timing,
    witness::SharedWitness,
};
use flotilla_units::MachineId;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{
    hot::Shared,
    leader::{Released, Term, TermEnd},
    reader::StateReader,
};

/// How long giving up lead and seat may take when the engine stops. Ten seconds: two calls, and
/// their leases end by themselves otherwise.
const GOODBYE: Duration = CALL_TIMEOUT.saturating_mul(2);

/// After how long a campaign counts as sound: one that fails does so within a call's time, and any
/// other goes on for as long as somebody else leads.
const SOUND_AFTER: Duration = CALL_TIMEOUT.saturating_add(Duration::from_secs(1));

/// What an engine needs.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The store.
    pub store: Arc<dyn Store>,
    /// How its keys are spelt.
    pub keys: Keys,
    /// The machine that the engine runs on.
    pub machine: MachineId,
    /// The kernel's boot id: what an engine of this boot has left is taken over at once.
    pub boot_id: String,
    /// Where this daemon's API answers other machines, if it does.
    pub api: Option<String>,
    /// How long things take.
    pub timing: Timing,
    /// What this daemon has seen of the store.
    pub witness: SharedWitness,
}

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    reader: watch::Receiver<Option<StateReader>>,
    release: watch::Sender<Option<Released>>,
    progress: watch::Receiver<u64>,
    asked: Arc<Notify>,
    task: JoinHandle<()>,
}

/// The operator's word that ends a mass-loss hold.
#[derive(Debug, Clone)]
pub struct HoldRelease(watch::Sender<Option<Released>>);

impl HoldRelease {
    /// Ends the hold, if the engine leads and holds. The event of it says who did, by which request.
    pub fn release(&self, by: &str, request: Option<&str>) {
        let word = Released { by: by.to_owned(), request: request.map(ToOwned::to_owned) };
        // Remembered for a leader that is just writing, and for no later one.
        self.0.send_replace(Some(word));
    }
}

impl Engine {
    /// Returns the way to end a mass-loss hold, for whoever outlives this handle.
    #[must_use]
    pub fn hold_release(&self) -> HoldRelease {
        HoldRelease(self.release.clone())
    }

    /// Returns the reader of the hot state, while this engine has a seat and its state is filled.
    #[must_use]
    pub fn reader(&self) -> Option<StateReader> {
        self.reader.borrow().clone()
    }

    /// Returns a receiver that tells when the reader comes and goes.
    #[must_use]
    pub fn readers(&self) -> watch::Receiver<Option<StateReader>> {
        self.reader.clone()
    }

    /// Returns what grows each time that the engine's task was [asked](Self::asked) and goes on.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.clone()
    }

    /// Returns what asks the engine's task whether it goes on. At rest it does nothing else.
    #[must_use]
    pub fn asked(&self) -> Arc<Notify> {
        Arc::clone(&self.asked)
    }

    /// Waits until the engine has ended, after its token was cancelled.
    ///
    /// # Errors
    /// The engine's task panicked.
    pub async fn ended(self) -> Result<(), tokio::task::JoinError> {
        self.task.await
    }
}

/// Starts an engine; it ends, giving up lead and seat, when `stop` is cancelled.
#[must_use]
pub fn run(config: EngineConfig, stop: CancellationToken) -> Engine {
    let (tell, reader) = watch::channel(None);
    let release = watch::Sender::new(None);
    let (turns, progress) = watch::channel(0);
    let asked = Arc::new(Notify::new());
    let bell = Arc::clone(&asked);
    let seated = Seated { config, release: release.clone(), tell, started: Instant::now() };
    // Counted in the task that does everything else: whatever blocks that stops the count too.
    let task = tokio::spawn(async move {
        tokio::select! {
            () = seated.run(&stop) => {}
            () = count(&turns, &bell) => {}
        }
    });
    Engine { reader, release, progress, asked, task }
}

/// Takes back what an earlier campaign met, once the present one goes on; never returns.
async fn sounds(shared: &Shared) -> Infallible {
    sleep(SOUND_AFTER).await;
    shared.tell(|engine| engine.trouble = None);
    std::future::pending().await
}

/// Counts how often it was asked; never returns.
async fn count(turns: &watch::Sender<u64>, asked: &Notify) {
    loop {
        asked.notified().await;
        turns.send_modify(|turns| *turns += 1);
    }
}

struct Seated {
    config: EngineConfig,
    release: watch::Sender<Option<Released>>,
    tell: watch::Sender<Option<StateReader>>,
    started: Instant,
}

impl Seated {
    async fn run(&self, stop: &CancellationToken) {
        let EngineConfig { store, keys, machine, boot_id, api, timing, .. } = &self.config;
        let record = SeatRecord { v: VERSION, machine: *machine, boot_id: boot_id.clone(), api: api.clone() };
        let seeker = SeatSeeker::new(Arc::clone(store), keys.clone(), record, timing.clone());
        let mut backoff = timing.backoff();
        while !stop.is_cancelled() {
            let taken = tokio::select! {
                () = stop.cancelled() => return,
                taken = seeker.take() => taken,
            };
            match taken {
                Ok(seat) => {
                    backoff.reset();
                    self.sit(seat, stop).await;
                }
                Err(error) => {
                    error!(%error, "no seat can be taken; trying again");
                    sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    /// Holds a seat until it is lost or the engine stops.
    async fn sit(&self, seat: Seat, stop: &CancellationToken) {
        let shared = Arc::new(Shared::new(self.config.keys.clone(), self.started));
        let unseated = stop.child_token();
        {
            // The campaign ends in order (it resigns) before anything else is dropped.
            let feed = self.feed(&shared);
            let campaigns = self.campaign(&shared, &unseated);
            tokio::pin!(feed, campaigns);
            // Campaigns end only after `unseated`, which is cancelled below or with `stop`.
            let ended = tokio::select! {
                () = &mut feed => false,
                () = &mut campaigns => true,
                () = stop.cancelled() => false,
                why = seat.lost() => {
                    warn!(%why, "the seat is lost");
                    false
                }
            };
            unseated.cancel();
            self.tell.send_replace(None);
            shared.close();
            if !ended && timeout(GOODBYE, campaigns).await.is_err() {
                warn!("the lead was not given up in time; it ends with its lease");
            }
        }
        if stop.is_cancelled()
            && let Ok(Err(error)) = timeout(GOODBYE, seat.leave()).await
        {
            warn!(%error, "the seat was not given up; it is free when its lease has run out");
        }
    }

    /// Feeds the hot state; never returns.
    async fn feed(&self, shared: &Arc<Shared>) {
        let EngineConfig { store, keys, timing, witness, .. } = &self.config;
        let mut changes =
            ChangeStream::new(Arc::clone(store), keys, keys.everything(), witness.clone(), timing);
        let mut behind = false;
        loop {
            let change = changes.next().await;
            if change.is_ok() && std::mem::take(&mut behind) {
                shared.tell(|engine| engine.behind = None);
            }
            match change {
                Ok(Change::Reset { kvs, revision }) => {
                    shared.reset(revision, &kvs);
                    self.tell.send_replace(Some(StateReader::new(Arc::clone(shared))));
                }
                Ok(Change::Changes { revision, events }) => shared.apply(revision, &events),
                Ok(Change::Progress(revision)) => shared.advance(revision),
                Err(StreamError::WentBack(why)) => {
                    error!(%why, "the store went back; the engine decides nothing until `flotctl cluster accept-store`");
                    shared.went_back(why);
                }
                Err(error) => {
                    warn!(%error, "the cluster state does not follow the store for now");
                    let text = error.to_string();
                    behind = true;
                    shared.tell(|engine| engine.behind = Some(text));
                }
            }
        }
    }

    /// Campaigns and leads, again and again, until the engine stops.
    async fn campaign(&self, shared: &Arc<Shared>, stop: &CancellationToken) {
        let EngineConfig { store, keys, machine, boot_id, timing, witness, .. } = &self.config;
        let candidate =
            Candidate::new(Arc::clone(store), keys.clone(), *machine, witness.clone(), timing.clone())
                .of_boot(boot_id.clone());
        let mut backoff = timing.backoff();
        while !stop.is_cancelled() {
            let mut acceptances = witness.acceptances();
            // Leading without a picture would only keep others from it.
            let campaign = async {
                if shared.reached(flotilla_registry::store::Revision(0)).await.is_err() {
                    // The seat is lost: `stop` is cancelled.
                    std::future::pending::<()>().await;
                }
                candidate.campaign().await
            };
            let elected = tokio::select! {
                () = stop.cancelled() => return,
                elected = campaign => elected,
                never = sounds(shared) => match never {},
            };
            let leadership = match elected {
                Ok(leadership) => leadership,
                Err(error) => {
                    let text = error.to_string();
                    match &error {
                        ElectionError::WentBack(why) => error!(%why, "this engine does not campaign"),
                        _ => warn!(%error, "the campaign failed; trying again"),
                    }
                    shared.tell(|engine| engine.trouble = Some(text));
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = sleep(backoff.next_wait()) => continue,
                    }
                }
            };
            backoff.reset();
            shared.tell(|engine| engine.trouble = None);
            let term = Term {
                store: Arc::clone(store),
                shared,
                leadership: &leadership,
                timing,
                release: &self.release,
            };
            let end = term.lead(stop, &mut acceptances).await;
            match end {
                TermEnd::Stopped | TermEnd::Accepted => match timeout(GOODBYE, leadership.resign()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => warn!(%error, "the lead ends with its lease"),
                    Err(_) => warn!("the lead ends with its lease: the store does not answer"),
                },
                TermEnd::Lost(why) => warn!(?why, "the lead is lost"),
            }
        }
    }
}
