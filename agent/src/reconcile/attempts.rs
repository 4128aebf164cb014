//! What an agent tried for a unit's present orders, and when it may try again.

use std::time::Duration;

use super::Step;
use crate::systemd::{History, JobResult};

/// The first wait after a step that failed. One second: long enough to be no load, short enough
/// that a dependency which comes up a moment later is not waited for noticeably.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// The longest wait between two tries. A minute: a unit that cannot start costs next to nothing,
/// and starts within a minute of being mended.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How often the wait doubles before it has reached [`BACKOFF_MAX`] (2^6 s is above a minute).
const DOUBLINGS_MAX: u32 = 6;

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// The job ended otherwise.
    Job(JobResult),
    /// The journal answered.
    History(History),
    /// It could not be carried out; for people.
    Error(String),
}

/// What was tried for a unit's present orders. New orders begin with a new one.
///
/// It is kept in memory only: all that matters after a restart of the agent is read from systemd,
/// from the evidence and from the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempts {
    failures: u32,
    not_before: Option<(Kind, Duration)>,
    last: Option<Kind>,
    problem: Option<String>,
    /// How the start for the present evidence ended, where this agent waited for it.
    start: Option<Ended>,
    /// A start was sent to systemd and no answer came, or its answer was not waited for.
    unsettled: bool,
    /// A stop job ended in `done`, and nothing was started since.
    stopped: bool,
    /// What the next start needs is there, and nothing was started since.
    prepared: bool,
    /// What the machine had as its own is flotilla's, or there was nothing.
    took_over: bool,
    /// What was not taken over whole is the machine's again, or there was nothing.
    let_go: bool,
    history: Option<Result<History, String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Done,
    Otherwise,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Install,
    Prepare,
    Start,
    MarkStarted,
    MarkLoaded,
    Adopt,
    TakeOver,
    LetGo,
    Stop,
    Remove,
    AskHistory,
}

impl From<&Step> for Kind {
    fn from(step: &Step) -> Self {
        match step {
            Step::Install(_) => Self::Install,
            Step::Prepare { .. } => Self::Prepare,
            Step::Start(_) => Self::Start,
            Step::MarkStarted => Self::MarkStarted,
            Step::MarkLoaded(_) => Self::MarkLoaded,
            Step::Adopt(_) => Self::Adopt,
            Step::TakeOver(_) => Self::TakeOver,
            Step::LetGo => Self::LetGo,
            Step::Stop => Self::Stop,
            Step::Remove => Self::Remove,
            Step::AskHistory => Self::AskHistory,
        }
    }
}

/// Returns the wait after this many failures in a row (at least one): 1 s doubling to 60 s, drawn
/// by `seed` from the upper half, so that units that failed together do not come back together.
#[must_use]
pub fn backoff(failures: u32, seed: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(DOUBLINGS_MAX);
    let whole = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    // SplitMix64's mixing step: neighbouring seeds give unrelated waits.
    let mut z = seed.wrapping_add(u64::from(failures).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let share = ((z ^ (z >> 31)) % 1_000) as f64 / 1_000.0;
    whole.mul_f64(0.5 + share / 2.0)
}

impl Attempts {
    /// Begins anew for new orders: what failed may be tried at once. What is known of the present
    /// evidence stays known.
    #[must_use]
    pub fn for_new_orders(&self) -> Self {
        let (start, unsettled, history) = (self.start, self.unsettled, self.history.clone());
        Self { start, unsettled, history, ..Self::default() }
    }

    /// Notes that a step begins.
    pub fn begin(&mut self, step: &Step) {
        if matches!(step, Step::Start(_)) {
            self.unsettled = true;
            (self.stopped, self.prepared) = (false, false);
            self.start = None;
            self.history = None;
        }
    }

    /// Notes how a step ended. A step that is named again right after it succeeded had no effect,
    /// which counts as a failure: nothing is done in a circle.
    pub fn end(&mut self, step: &Step, outcome: Outcome, now: Duration, seed: u64) {
        let kind = Kind::from(step);
        let repeated = self.last == Some(kind);
        self.last = Some(kind);
        let failure = match (step, outcome) {
            (Step::Start(_), Outcome::Job(result)) => {
                self.unsettled = false;
                let done = result == JobResult::Done;
                self.start = Some(if done { Ended::Done } else { Ended::Otherwise });
                (!done).then(|| format!("its start job ended in `{result}`"))
            }
            (_, Outcome::Job(JobResult::Done)) => {
                self.stopped = true;
                self.unsettled = false;
                repeated.then(|| "it was stopped, and it is still there".to_owned())
            }
            (_, Outcome::Job(result)) => Some(format!("its stop job ended in `{result}`")),
            (_, Outcome::History(history)) => {
                self.history = Some(Ok(history));
                None
            }
            (Step::AskHistory, Outcome::Error(why)) => {
                self.history = Some(Err(why.clone()));
                Some(why)
            }
            (_, Outcome::Error(why)) => Some(why),
            (Step::Prepare { .. }, Outcome::Done) => {
                self.prepared = true;
                None
            }
            (Step::TakeOver(_), Outcome::Done) => {
                self.took_over = true;
                None
            }
            (Step::LetGo, Outcome::Done) => {
                self.let_go = true;
                None
            }
            (_, Outcome::Done) => repeated.then(|| format!("{kind:?} had no effect")),
        };
        match failure {
            Some(why) => {
                self.failures = self.failures.saturating_add(1);
                self.problem = Some(why);
                self.not_before = Some((kind, now.saturating_add(backoff(self.failures, seed))));
            }
            // What succeeds on the way to a step that failed does not make up for it.
            None if self.not_before.is_none_or(|(failed, _)| failed == kind) => {
                self.failures = 0;
                self.problem = None;
                self.not_before = None;
            }
            None => {}
        }
    }

    /// Notes that the unit was seen in a state other than inactive: what the journal said of an
    /// earlier time no longer holds.
    pub fn saw_active(&mut self) {
        self.history = None;
    }

    /// Returns the earliest time for a step that failed before.
    pub(super) fn not_before(&self, step: &Step) -> Option<Duration> {
        self.not_before.and_then(|(kind, time)| (kind == Kind::from(step)).then_some(time))
    }

    /// Returns what keeps the agent from doing what is ordered, and how often it was tried.
    pub(super) fn problem(&self) -> Option<(&str, u32)> {
        self.problem.as_deref().map(|p| (p, self.failures))
    }

    /// Tells whether the start for the present evidence ended in `done`, or otherwise; `None` when
    /// this agent did not see it end.
    pub(super) fn start_done(&self) -> Option<bool> {
        self.start.map(|ended| ended == Ended::Done)
    }

    /// Tells whether a start may still be under way that nobody waits for.
    pub(super) const fn unsettled(&self) -> bool {
        self.unsettled
    }

    /// Tells whether this agent stopped the unit, and started nothing since.
    pub(super) const fn stopped(&self) -> bool {
        self.stopped
    }

    /// Tells whether this agent made sure of what the next start needs.
    pub(super) const fn prepared(&self) -> bool {
        self.prepared
    }

    /// Tells whether this agent took over what there was of the machine's own.
    pub(super) const fn took_over(&self) -> bool {
        self.took_over
    }

    /// Tells whether this agent gave back what was not taken over whole.
    pub(super) const fn let_go(&self) -> bool {
        self.let_go
    }

    /// Returns what the journal said, if it was asked.
    pub(super) const fn history(&self) -> Option<&Result<History, String>> {
        self.history.as_ref()
    }
}
