//! What to do next about one unit: the deciding core of the agent.
//!
//! [`reconcile`] is a function of what the manifest orders, what is on the machine, and what this
//! agent tried already. It names at most one [`Step`], which leaves its executor no choice, and
//! what to report. It never sees a clock, a bus or a random number that was not handed to it; the
//! task of a unit calls it again after each step, each change of orders and each hint of systemd.
//!
//! ```text
//!  nothing ──install──▶ file ──start──▶ evidence, unmarked ──mark──▶ started
//!     ▲               │  ▲                     │ ▲                      │
//!     │               │  │                     └─┘ job not `done`:      │ systemd's Restart=
//!     │               │  │                         again, with back-off │ decides from here on
//!     │  mark loaded  │  └────────────stop────────────prepare──────────┤ newer run or token
//!     │               ▼                                                 │
//!     │             loaded ◀──────────stop─────────────────────────────┤ no longer launched
//!     └───────remove──────────────────stop─────────────────────────────┘ departing
//! ```
//!
//! A unit that runs is stopped for a new start only once that start is prepared: its text fetched and
//! room made for its files. One that is only to be loaded is stopped once per order; what a timer, a
//! socket or a person starts later is theirs.
//!
//! A new text that runs exactly as the one before it (only `[X-Flotilla]`, `[Install]` or comments differ)
//! comes under the same token and run. It is adopted: the evidence names it from then on, and what runs
//! is not touched. The file is changed once the unit is at rest, or for its next start.
//!
//! A unit that the machine has as its own, and whose order says so, is taken over as it runs instead of
//! being installed and started; if the order to leave comes before that is done, it is let go and stays
//! the machine's own.
//!
//! A unit that a stop of another one takes down (`BindsTo=`) is started again, under its own token and run,
//! once that one has been started anew.
//!
//! What is started is known by its evidence (token and run), which lives exactly as long as the
//! machine is up. Evidence that matches the order is adopted: nothing is touched. Evidence of a
//! newer placement or run than the order's means that the order is old: nothing is touched either.
//! Only what an order names is ever stopped.

use std::time::Duration;

use flotilla_registry::records::{ManifestEntry, Target, Token, UnitReport};
use flotilla_units::{ContentHash, UnitName};

use crate::systemd::{Evidence, JobResult, Present, Pulled, Then};

mod attempts;
mod report;
#[cfg(test)]
mod tests;

pub use attempts::{Attempts, Outcome, backoff};
pub use report::unread;

/// Whether steps may be taken at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Gate {
    /// Everything that is ordered is done.
    #[default]
    Open,
    /// Nothing is started until it is known that the orders still hold: the machine has just
    /// booted and the store has not been heard. What runs is adopted, nothing is stopped.
    Closed(String),
    /// The store went back: nothing is started, stopped or removed until an operator says so.
    Frozen(String),
}

/// The run under which a unit is taken over: the one that it is given to the cluster with. A higher one
/// was ordered since, and starts it anew.
const ADOPTED_RUN: u64 = 1;

/// Everything that [`reconcile`] looks at.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The runtime name that it is about.
    pub unit: &'a UnitName,
    /// Every manifest entry of that runtime name.
    pub orders: &'a [ManifestEntry],
    /// Whether there is a manifest; without one nothing is called a stray.
    pub manifest_known: bool,
    /// What is on the machine; `None` when flotilla has nothing of this name there.
    pub present: Option<&'a Present>,
    /// What was tried for these orders.
    pub attempts: &'a Attempts,
    /// Whether steps may be taken.
    pub gate: &'a Gate,
    /// The time, on the clock that [`Attempts`] uses: since the agent's start.
    pub now: Duration,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the unit's file be the content of this hash.
    Install(ContentHash),
    /// Make sure, while it still runs, of what its next start needs.
    Prepare {
        /// The content that its file has to become, if that is another one.
        text: Option<ContentHash>,
        /// What it will be started under.
        evidence: Evidence,
    },
    /// Start the unit under this evidence.
    Start(Evidence),
    /// Note that the present evidence's start ended in `done`.
    MarkStarted,
    /// Note that what ran was stopped for this order, which starts nothing.
    MarkLoaded(Evidence),
    /// Note that what was started is what this content runs as well.
    Adopt(ContentHash),
    /// Take over what the machine has of it as its own, under this evidence if it runs.
    TakeOver(Evidence),
    /// Give back to the machine what was not taken over whole.
    LetGo,
    /// Stop the unit and wait until systemd has forgotten it.
    Stop,
    /// Take away its file and evidence.
    Remove,
    /// Ask the journal what became of it.
    AskHistory,
}

impl Step {
    /// Says, for people, that it failed.
    pub(crate) const fn failure(&self) -> &'static str {
        match self {
            Self::Install(_) => "its file could not be written",
            Self::Prepare { .. } => "its new start could not be prepared, so it runs on",
            Self::Start(_) => "it could not be started",
            Self::MarkLoaded(_) => "it could not be noted that it is only loaded",
            Self::MarkStarted => "it could not be noted that it was started",
            Self::Adopt(_) => "it could not be noted which content it has now",
            Self::TakeOver(_) => "it could not be taken over, and runs on as the machine's own",
            Self::LetGo => "it could not be given back to the machine",
            Self::Stop => "it could not be stopped",
            Self::Remove => "its files could not be removed",
            Self::AskHistory => "the journal did not tell what became of its start",
        }
    }
}

/// What is next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Take this step, then decide again.
    Do(Step),
    /// Decide again at this time, or earlier if anything changes.
    Wait(Duration),
    /// Nothing is to be done until something changes.
    Settled,
}

/// What [`reconcile`] decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What is next.
    pub next: Next,
    /// What the machine has of this unit: one report per order, and one for what no order names.
    pub reports: Vec<UnitReport>,
}

/// How what is on the machine relates to the order that wants the unit here.
enum Standing {
    /// It was started under exactly this token and run.
    Current { started: bool },
    /// It was started under an older token or run, or under none.
    Older,
    /// It was started under a newer token or run: the order is out of date.
    Newer,
}

/// Decides what is next about one unit, and what to report of it.
#[must_use]
pub fn reconcile(situation: &Situation<'_>) -> Decision {
    let wish = wish(situation);
    let reports = report::reports(situation, matches!(wish, Next::Do(_)));
    Decision { next: pace(situation, wish), reports }
}

/// Returns the order that wants the unit here. The engine gives at most one; of several the newest
/// placement counts, and the others are reported as a problem.
pub(crate) fn wanted(orders: &[ManifestEntry]) -> Option<&ManifestEntry> {
    orders.iter().filter(|o| o.departing.is_none()).max_by_key(|o| o.token)
}

/// Tells whether a start under this token and run is what the orders want.
pub(crate) fn wants_start(orders: &[ManifestEntry], token: Token, run: u64) -> bool {
    wanted(orders).is_some_and(|o| o.target == Target::Launched && (o.token, o.run) == (token, run))
}

/// Holds a step back: while the gate is not open, and as long as it failed a short time ago.
fn pace(s: &Situation<'_>, wish: Next) -> Next {
    let Next::Do(step) = wish else { return wish };
    let held = match (s.gate, &step) {
        // Marks and questions change nothing of what runs.
        (_, Step::MarkStarted | Step::AskHistory) | (Gate::Open, _) => false,
        (Gate::Closed(_) | Gate::Frozen(_), _) => true,
    };
    if held {
        return Next::Settled;
    }
    match s.attempts.not_before(&step) {
        Some(time) if time > s.now => Next::Wait(time),
        _ => Next::Do(step),
    }
}

/// Returns what would be next if every step were allowed now.
fn wish(s: &Situation<'_>) -> Next {
    if let Some(next) = leave(s) {
        return next;
    }
    let Some(order) = wanted(s.orders) else { return Next::Settled };
    if order.adopt && !has_evidence(s) && !s.attempts.took_over() {
        return Next::Do(Step::TakeOver(Evidence { run: order.run.min(ADOPTED_RUN), ..evidence(order) }));
    }
    match (standing(s, order), order.target) {
        (Standing::Newer, _) => Next::Settled,
        (_, Target::Inactive | Target::Loaded) => load(s, order),
        (Standing::Current { started: true }, Target::Launched) => look_after(s, order),
        (Standing::Current { started: false }, Target::Launched) => resolve_start(s, order),
        (Standing::Older, Target::Launched) => start_anew(s, order),
    }
}

fn standing(s: &Situation<'_>, order: &ManifestEntry) -> Standing {
    match s.present.and_then(|p| p.evidence.as_ref()) {
        None => Standing::Older,
        Some(e) if !e.loaded && (e.token, e.run) == (order.token, order.run) => {
            Standing::Current { started: e.started }
        }
        Some(e) if (e.token, e.run) <= (order.token, order.run) => Standing::Older,
        Some(_) => Standing::Newer,
    }
}

fn has_evidence(s: &Situation<'_>) -> bool {
    s.present.is_some_and(|present| present.evidence.is_some())
}

/// Tells whether a departing order may have begun to take over what has to be given back first.
fn may_hold(s: &Situation<'_>, order: &ManifestEntry) -> bool {
    order.adopt && order.departing.is_some() && !has_evidence(s) && !s.attempts.let_go()
}

/// Makes what a departing order names leave; `None` when nothing that is here has to.
fn leave(s: &Situation<'_>) -> Option<Next> {
    if s.orders.iter().any(|order| may_hold(s, order)) {
        return Some(Next::Do(Step::LetGo));
    }
    let mut departing = s.orders.iter().filter(|o| o.departing.is_some());
    let Some(present) = s.present else {
        return (s.attempts.unsettled() && departing.next().is_some()).then_some(Next::Do(Step::Stop));
    };
    let concerned = match &present.evidence {
        // What runs under an older token was replaced in the manifest while this machine did not
        // hear of it; the order to leave is for it too, and nobody else will give it one.
        Some(evidence) => departing.any(|o| o.token >= evidence.token),
        // Without evidence it belongs to whichever order there is.
        None => departing.next().is_some(),
    };
    if !concerned {
        return None;
    }
    // A stop of this agent's own is part of the proof: it takes the place of a start job that an
    // earlier agent, or somebody on the machine, left queued in systemd.
    if !present.state.at_rest() || !s.attempts.stopped() {
        return Some(Next::Do(Step::Stop));
    }
    // A newer placement here takes the file over.
    wanted(s.orders).is_none().then_some(Next::Do(Step::Remove))
}

/// Has the file there, and what ran before stopped. It is stopped once: what a timer, a socket, a path
/// or a person starts after that was not started by this order's like, and goes on, with the file that it
/// was started from.
fn load(s: &Situation<'_>, order: &ManifestEntry) -> Next {
    let Some(present) = s.present else { return Next::Do(Step::Install(order.hash)) };
    let loaded = Evidence { loaded: true, ..evidence(order) };
    let noted = present.evidence.as_ref();
    let is_noted = noted.is_some_and(|it| it.loaded && (it.token, it.run) == (loaded.token, loaded.run));
    let runs = !present.state.at_rest() || s.attempts.unsettled();
    if runs && !is_noted && !s.attempts.stopped() {
        return Next::Do(Step::Stop);
    }
    let keeps_file = runs && is_noted && present.file.is_some();
    if present.file != Some(order.hash) && !keeps_file {
        return Next::Do(Step::Install(order.hash));
    }
    if noted == Some(&loaded) { Next::Settled } else { Next::Do(Step::MarkLoaded(loaded)) }
}

/// Leaves a unit alone that was started: systemd's `Restart=` decides. Another content under the same
/// token and run is noted. The one question is whether somebody stopped it by hand, which is reported.
fn look_after(s: &Situation<'_>, order: &ManifestEntry) -> Next {
    let Some(present) = s.present else { return Next::Settled };
    if present.evidence.as_ref().is_some_and(|evidence| evidence.hash != order.hash) {
        return Next::Do(Step::Adopt(order.hash));
    }
    if let Some(pulled) = present.pulled.as_ref().filter(|_| present.state.has_ended()) {
        return start_with(order, present, pulled);
    }
    let inactive = present.state.active == "inactive";
    if inactive && s.attempts.history().is_none() {
        return Next::Do(Step::AskHistory);
    }
    // One that failed keeps its state, and its file, for people to see.
    if inactive && present.state.at_rest() && present.file.is_some_and(|file| file != order.hash) {
        return Next::Do(Step::Install(order.hash));
    }
    Next::Settled
}

/// Starts a unit again that was stopped with another one, which nobody had ordered, under the evidence that it
/// has, as soon as the other has started. systemd's own `restart` of that one would have done so.
fn start_with(order: &ManifestEntry, present: &Present, pulled: &Pulled) -> Next {
    match pulled.then {
        Then::Waits | Then::Stays => Next::Settled,
        Then::Starts if present.file != Some(order.hash) => Next::Do(Step::Install(order.hash)),
        Then::Starts => Next::Do(Step::Start(evidence(order))),
    }
}

/// Finds out what became of a start whose end was not noted: the job did not end in `done`, or the
/// agent died before it could note it.
fn resolve_start(s: &Situation<'_>, order: &ManifestEntry) -> Next {
    let Some(present) = s.present else { return Next::Do(Step::Start(evidence(order))) };
    let start = || {
        Next::Do(match present.file == Some(order.hash) {
            false => Step::Install(order.hash),
            true => Step::Start(evidence(order)),
        })
    };
    if s.attempts.start_done() == Some(true) {
        return Next::Do(Step::MarkStarted);
    }
    match present.state.active.as_str() {
        "active" | "reloading" | "refreshing" => return Next::Do(Step::MarkStarted),
        "inactive" | "failed" => {}
        // On its way somewhere, perhaps by systemd's own Restart=: its next state decides.
        _ => return Next::Settled,
    }
    if s.attempts.start_done() == Some(false) {
        return start();
    }
    let ran = present.state.active == "failed" || present.state.invocation.is_some();
    match s.attempts.history() {
        None => Next::Do(Step::AskHistory),
        Some(Ok(history)) if history.start == Some(JobResult::Done) => Next::Do(Step::MarkStarted),
        Some(Ok(_)) => start(),
        // The journal does not say. What shows a trace of a run counts as started; of what shows
        // none nothing is known, and starting a oneshot twice is worse than starting it late.
        Some(Err(_)) if ran => Next::Do(Step::MarkStarted),
        Some(Err(_)) => Next::Do(Step::AskHistory),
    }
}

/// Starts a unit under an order that it was not started under yet: prepare, stop, collect, write,
/// start.
fn start_anew(s: &Situation<'_>, order: &ManifestEntry) -> Next {
    let Some(present) = s.present else { return Next::Do(Step::Install(order.hash)) };
    let (ended, stopped) = (present.state.has_ended(), s.attempts.stopped());
    // Processes that outlive an orderly stop (`KillMode=process`) keep neither systemd nor this agent
    // from starting their unit anew on the same machine.
    let at_rest = present.state.at_rest() || (ended && stopped);
    // A failed unit is reset, so that its start limit does not count against the new run.
    let reset = present.state.active == "failed" && !stopped;
    let text = Some(order.hash).filter(|hash| present.file != Some(*hash));
    if !at_rest || reset || s.attempts.unsettled() {
        return Next::Do(match ended || s.attempts.prepared() {
            true => Step::Stop,
            false => Step::Prepare { text, evidence: evidence(order) },
        });
    }
    Next::Do(text.map_or_else(|| Step::Start(evidence(order)), Step::Install))
}

const fn evidence(order: &ManifestEntry) -> Evidence {
    Evidence { token: order.token, run: order.run, hash: order.hash, started: false, loaded: false }
}
