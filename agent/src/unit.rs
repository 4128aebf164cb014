//! The task of one unit: reads what is there, asks the core what is next, does it, tells.
//!
//! There is one task per unit, so that a bad or slow one delays no other. It owns nothing but its
//! [`Attempts`]; what counts is on the machine, so it may be dropped at any await and begun again.
//! The agent's owner loop starts it, hands it orders and hears what it tells.

use std::{pin::pin, sync::Arc, time::Duration};

use flotilla_registry::{
    records::{ManifestEntry, UnitReport},
    store::Revision,
};
use flotilla_units::{ContentHash, UnitName};
use futures_util::FutureExt as _;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, info, warn};

use crate::{
    contents::Contents,
    reconcile::{
        Attempts, Gate, Next, Outcome, Situation, Step, backoff, reconcile, unread, wanted, wants_start,
    },
    systemd::{Evidence, Present, Systemd},
};

/// How long a job runs before the states it goes through are looked at. 200 ms: most starts are
/// over by then and cost one read; of a slow one `activating` is worth telling.
const GLANCE_AFTER: Duration = Duration::from_millis(200);

/// What a unit's task is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Orders {
    /// Every manifest entry of the unit's runtime name.
    pub(crate) entries: Arc<[ManifestEntry]>,
    /// The manifest revision that these are of.
    pub(crate) revision: Revision,
    /// Whether there is a manifest at all.
    pub(crate) manifest_known: bool,
    /// Whether steps may be taken.
    pub(crate) gate: Gate,
}

/// What a unit's task tells.
#[derive(Debug)]
pub(crate) struct Told {
    /// Which unit.
    pub(crate) unit: UnitName,
    /// What the machine has of it.
    pub(crate) reports: Vec<UnitReport>,
    /// No order before this revision's will be carried out any more: a start that an earlier order
    /// asked for and this one does not has ended, or is followed by a stop before its unit is
    /// reported gone.
    pub(crate) taken_up: Option<Revision>,
}

/// Everything that a unit's task works with.
#[derive(Debug)]
pub(crate) struct UnitTask {
    pub(crate) unit: UnitName,
    pub(crate) systemd: Arc<dyn Systemd>,
    pub(crate) contents: Arc<Contents>,
    pub(crate) orders: watch::Receiver<Orders>,
    /// Rung when systemd hints at a change.
    pub(crate) bell: Arc<Notify>,
    pub(crate) out: mpsc::Sender<Told>,
    /// When the agent started: the zero of its clock.
    pub(crate) clock: Instant,
    /// Draws this unit's back-off.
    pub(crate) seed: u64,
}

/// A content and its hash.
type Text = (ContentHash, Arc<str>);

/// What came of a step.
struct Performed {
    outcome: Outcome,
    /// What is there now, of a step that installs it.
    seen: Option<Present>,
    /// What was fetched for a later step.
    text: Option<Text>,
}

/// What a task knows between two decisions.
#[derive(Debug)]
struct Known {
    orders: Orders,
    present: Option<Present>,
    attempts: Attempts,
    /// The text that the next install needs, held from before the unit was stopped for it.
    text: Option<Text>,
    told: Option<(Vec<UnitReport>, Option<Revision>)>,
}

impl UnitTask {
    /// Runs until there is neither an order nor anything of the unit on the machine. `seen` is
    /// what the machine has of it, if that was just read.
    pub(crate) async fn run(mut self, seen: Option<Option<Present>>) {
        let mut must_read = seen.is_none();
        let orders = self.orders.borrow_and_update().clone();
        let mut known =
            Known { orders, present: seen.flatten(), attempts: Attempts::default(), text: None, told: None };
        let mut failures = 0;
        loop {
            if must_read {
                // What the bell was rung for so far is about to be read.
                let _ = self.bell.notified().now_or_never();
                match self.systemd.get(&self.unit).await {
                    Ok(present) => known.see(present),
                    Err(error) => {
                        failures += 1;
                        let again = backoff(failures, self.seed);
                        warn!(
                            unit = %self.unit, %error, seconds = again.as_secs_f32(),
                            "systemd does not tell its state; reported as unknown, asked again"
                        );
                        self.tell_unread(&mut known, &error.to_string()).await;
                        tokio::select! {
                            () = sleep(again) => {}
                            () = self.bell.notified() => {}
                            ended = self.orders.changed() => if ended.is_err() { return },
                        }
                        known.take(self.orders.borrow_and_update().clone());
                        continue;
                    }
                }
            }
            (must_read, failures) = (false, 0);
            let next = self.decide(&mut known).await;
            if known.orders.entries.is_empty() && known.present.is_none() && next == Next::Settled {
                return;
            }
            let until = match next {
                Next::Do(step) => {
                    must_read = self.take(step, &mut known).await;
                    continue;
                }
                Next::Wait(time) => Some(self.clock + time),
                Next::Settled => None,
            };
            tokio::select! {
                biased;
                changed = self.orders.changed() => match changed {
                    // What systemd said is still true: its changes ring the bell.
                    Ok(()) => known.take(self.orders.borrow_and_update().clone()),
                    Err(_) => return,
                },
                () = self.bell.notified() => must_read = true,
                () = sleep_until(until.unwrap_or(self.clock)), if until.is_some() => must_read = true,
            }
        }
    }

    /// Decides, and tells what is new.
    async fn decide(&self, known: &mut Known) -> Next {
        let decision = reconcile(&Situation {
            unit: &self.unit,
            orders: &known.orders.entries,
            manifest_known: known.orders.manifest_known,
            present: known.present.as_ref(),
            attempts: &known.attempts,
            gate: &known.orders.gate,
            now: self.clock.elapsed(),
        });
        // Behind a gate nothing is acted on, so nothing is taken up.
        let taken_up = (known.orders.gate == Gate::Open).then_some(known.orders.revision);
        self.tell(known, decision.reports, taken_up).await;
        decision.next
    }

    async fn tell(&self, known: &mut Known, reports: Vec<UnitReport>, taken_up: Option<Revision>) {
        let now = Some((reports, taken_up));
        if known.told != now
            && let Some((reports, taken_up)) = now.clone()
        {
            known.told = now;
            // The owner loop goes on as long as its tasks: an error means that all is over.
            let _ = self.out.send(Told { unit: self.unit.clone(), reports, taken_up }).await;
        }
    }

    /// Tells that nothing is known of the unit: what was true is not vouched for any more.
    async fn tell_unread(&self, known: &mut Known, why: &str) {
        let nothing_told = || (unread(&known.orders.entries), None);
        let (mut reports, taken_up) = known.told.clone().unwrap_or_else(nothing_told);
        for report in &mut reports {
            report.gone = false;
            report.problem = Some(why.to_owned());
        }
        self.tell(known, reports, taken_up).await;
    }

    /// Says what is about to be done; only to who debugs what changes nothing on the machine, and a start,
    /// of which systemd's own log tells at once: a second line for each costs as much as the first.
    fn log(&self, step: &Step) {
        let unit = &self.unit;
        match step {
            Step::Install(hash) => debug!(%unit, %hash, "writing its file"),
            Step::Start(evidence) => {
                debug!(%unit, token = evidence.token.0, run = evidence.run, "starting it");
            }
            Step::Prepare { .. } => debug!(%unit, "making sure of what its new start needs"),
            Step::MarkLoaded(_) => debug!(%unit, "noting that it is only loaded"),
            Step::Adopt(hash) => info!(%unit, %hash, "noting that it has this content now, and runs on"),
            Step::TakeOver(e) => debug!(%unit, token = %e.token, "taking over what the machine has of it"),
            Step::LetGo => debug!(%unit, "giving back what was not taken over"),
            Step::Stop => info!(%unit, "stopping it"),
            Step::Remove => info!(%unit, "removing its files"),
            Step::MarkStarted => debug!(%unit, "noting that it was started"),
            Step::AskHistory => debug!(%unit, "asking the journal what became of its start"),
        }
    }

    /// Takes a step; true if what is on the machine has to be read again.
    ///
    /// New orders are taken up while it runs. A start that they no longer want is dropped: what
    /// follows is a stop, which systemd carries out after it.
    async fn take(&self, step: Step, known: &mut Known) -> bool {
        self.log(&step);
        known.attempts.begin(&step);
        let wanted_runtime = wanted(&known.orders.entries).map(|o| o.unit.clone());
        let held = known.text.clone();
        let mut action = pin!(perform(&*self.systemd, &self.contents, &self.unit, &step, held));
        let mut orders = self.orders.clone();
        let is_job = matches!(step, Step::Start(_) | Step::Stop);
        loop {
            let glance = async {
                self.bell.notified().await;
                sleep(GLANCE_AFTER).await;
                self.systemd.get(&self.unit).await
            };
            tokio::select! {
                biased;
                Performed { outcome, seen, text } = &mut action => {
                    known.attempts.end(&step, outcome.clone(), self.clock.elapsed(), self.seed);
                    if let Outcome::Error(why) = &outcome {
                        let source = wanted_runtime.as_ref().map(tracing::field::display);
                        warn!(unit = %self.unit, source, why, "{}; tried again later", step.failure());
                    }
                    return match (&step, outcome) {
                        (Step::MarkStarted, Outcome::Done) => {
                            known.marked();
                            false
                        }
                        (Step::Install(_), Outcome::Done) => {
                            known.text = None;
                            known.see(seen);
                            false
                        }
                        (Step::Prepare { .. }, Outcome::Done) => {
                            known.text = text;
                            false
                        }
                        (Step::Adopt(hash), Outcome::Done) => {
                            known.adopted(*hash);
                            false
                        }
                        (Step::MarkLoaded(evidence), Outcome::Done) => {
                            known.noted(evidence);
                            false
                        }
                        (Step::AskHistory, _) => false,
                        _ => true,
                    };
                }
                changed = orders.changed() => {
                    if changed.is_err() {
                        return true;
                    }
                    let new = orders.borrow_and_update().clone();
                    let obsolete = match &step {
                        Step::Start(e) => new.gate != Gate::Open || !wants_start(&new.entries, e.token, e.run),
                        _ => false,
                    };
                    known.take(new);
                    if obsolete {
                        return true;
                    }
                    self.decide(known).await;
                }
                seen = glance, if is_job => if let Ok(present) = seen {
                    known.see(present);
                    self.decide(known).await;
                },
            }
        }
    }
}

impl Known {
    fn take(&mut self, orders: Orders) {
        if orders.entries != self.orders.entries {
            self.attempts = self.attempts.for_new_orders();
            self.text = None;
        }
        self.orders = orders;
    }

    fn see(&mut self, present: Option<Present>) {
        if present.as_ref().is_some_and(|p| !p.state.at_rest()) {
            self.attempts.saw_active();
        }
        self.present = present;
    }

    fn noted(&mut self, evidence: &Evidence) {
        if let Some(present) = &mut self.present {
            present.evidence = Some(evidence.clone());
        }
    }

    fn adopted(&mut self, hash: ContentHash) {
        if let Some(evidence) = self.present.as_mut().and_then(|p| p.evidence.as_mut()) {
            evidence.hash = hash;
        }
    }

    fn marked(&mut self) {
        if let Some(evidence) = self.present.as_mut().and_then(|p| p.evidence.as_mut()) {
            evidence.started = true;
        }
    }
}

/// Does what a step says, with a text that is held already if that is the one.
async fn perform(
    systemd: &dyn Systemd,
    contents: &Contents,
    unit: &UnitName,
    step: &Step,
    held: Option<Text>,
) -> Performed {
    let mut seen = None;
    let mut text = None;
    let needed = match step {
        Step::Install(hash) | Step::Prepare { text: Some(hash), .. } => Some(hash),
        Step::TakeOver(evidence) => Some(&evidence.hash),
        _ => None,
    };
    if let Some(hash) = needed {
        text = held.filter(|(held, _)| held == hash);
        if text.is_none() {
            match contents.get(*hash).await {
                Ok(fetched) => text = Some((*hash, fetched)),
                Err(error) => {
                    let why = match step {
                        Step::Prepare { .. } => unprepared(&error),
                        _ => error.to_string(),
                    };
                    return Performed { outcome: Outcome::Error(why), seen, text };
                }
            }
        }
    }
    let words = text.as_ref().map(|(_, words)| &**words);
    let done = match step {
        Step::Install(_) => match systemd.install(unit, words.unwrap_or_default()).await {
            Ok(present) => {
                seen = present;
                Ok(Outcome::Done)
            }
            Err(error) => Err(error),
        },
        Step::Prepare { evidence, .. } => match systemd.prepare(unit, words, evidence).await {
            Ok(()) => Ok(Outcome::Done),
            Err(error) => Ok(Outcome::Error(unprepared(&error))),
        },
        Step::MarkStarted => systemd.mark_started(unit).await.map(|()| Outcome::Done),
        Step::MarkLoaded(evidence) => systemd.mark_loaded(unit, evidence).await.map(|()| Outcome::Done),
        Step::Adopt(hash) => systemd.adopt(unit, *hash).await.map(|()| Outcome::Done),
        Step::TakeOver(evidence) => {
            let taken = systemd.take_over(unit, words.unwrap_or_default(), evidence).await;
            taken.map(|()| Outcome::Done)
        }
        Step::LetGo => systemd.let_go(unit).await.map(|()| Outcome::Done),
        Step::Remove => systemd.remove(unit).await.map(|()| Outcome::Done),
        Step::Start(evidence) => systemd.start(unit, evidence).await.map(Outcome::Job),
        Step::Stop => systemd.stop(unit).await.map(Outcome::Job),
        Step::AskHistory => systemd.history(unit).await.map(Outcome::History),
    };
    let outcome = done.unwrap_or_else(|error| Outcome::Error(error.to_string()));
    Performed { outcome, seen, text }
}

/// Says why a unit has not been stopped for its new start.
fn unprepared(why: &dyn std::fmt::Display) -> String {
    format!("it runs on as it was, since its new start cannot be prepared: {why}")
}
