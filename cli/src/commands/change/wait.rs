//! The wait until an order has come true: a watch that begins at the order's own
//! revision, so that it misses nothing and asks nothing twice.

use std::{collections::HashSet, time::Duration};

use flotilla_api::{
    client::SseStream,
    watch::{WatchEvent, WatchQuery},
};
use flotilla_units::UnitName;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, timeout_at};

use crate::{
    args::Output,
    connection::Cluster,
    exit::{self, Exit},
    order::{Verdict, Waiting},
    text,
};

/// How long a unit that became active is watched for an early death. Of a plain service systemd says
/// that it is active when its process is there: one that cannot be executed, or that exits at once, is
/// gone some milliseconds later, on a busy machine some tens; and its machine tells what changes right
/// after a change 100 ms later. A person hardly notices a quarter of a second.
pub(super) const SETTLE: Duration = Duration::from_millis(250);

/// How long "cannot be placed" has to last before it is believed: a unit that conflicts with one
/// that is just leaving finds its place a moment later.
pub(super) const CANNOT_BE_PLACED_AFTER: Duration = Duration::from_millis(500);

/// How many names a watch asks for; with more it watches everything and picks its own.
const WATCHED_NAMES_MAX: usize = 100;

/// How long to wait before a lost connection is made again.
pub(super) const RECONNECT_AFTER: Duration = Duration::from_millis(200);

/// How often every endpoint is tried again before the wait is given up: longer than a flotillad takes
/// to come back from a restart.
pub(super) const ROUNDS_MAX: u32 = 30;

/// The wait for an order.
pub(super) struct Wait<'a> {
    cluster: &'a Cluster,
    query: WatchQuery,
    output: Output,
    bar: ProgressBar,
}

impl<'a> Wait<'a> {
    /// Prepares to wait for units to be as they should be, from a revision on if something was ordered.
    pub(super) fn new(cluster: &'a Cluster, after: Option<i64>, waiting: &Waiting, output: Output) -> Self {
        let names: Vec<&str> = waiting.names().map(UnitName::as_str).collect();
        // A unit name has no character that a glob would read as a wildcard.
        let pattern = (names.len() <= WATCHED_NAMES_MAX).then(|| names.join(","));
        let bar = ProgressBar::with_draw_target(Some(names.len() as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {pos}/{len} {wide_msg}") {
            bar.set_style(style);
        }
        let query = WatchQuery { pattern, after, ..WatchQuery::default() };
        Self { cluster, query, output, bar }
    }

    /// Watches until nothing is pending; `false` when the time ran out first.
    ///
    /// # Errors
    /// No flotillad shows what comes of the order, which stands all the same.
    pub(super) async fn run(&self, waiting: &mut Waiting, end: Instant) -> anyhow::Result<bool> {
        let mut rounds = 0;
        loop {
            let lost = match timeout_at(end, self.cluster.client().watch(&self.query, None)).await {
                Err(_) => return Ok(false),
                Ok(Ok(stream)) => match self.follow(stream, waiting, end).await {
                    Ok(finished) => return Ok(finished),
                    Err(e) => e,
                },
                Ok(Err(e)) => e.into(),
            };
            let gone = exit::of(&lost) != Exit::Unreachable;
            // Another flotillad shows the same, and reading twice is harmless.
            let all_tried = self.cluster.move_on();
            rounds += u32::from(all_tried);
            if gone || rounds > ROUNDS_MAX {
                return Err(lost.context("the order stands, but what comes of it cannot be seen"));
            }
            if all_tried {
                tokio::time::sleep(RECONNECT_AFTER).await;
            }
        }
    }

    /// Follows one connection. An error means that it was lost.
    async fn follow(
        &self,
        mut stream: SseStream<WatchEvent>,
        waiting: &mut Waiting,
        end: Instant,
    ) -> anyhow::Result<bool> {
        let mut seen: Option<HashSet<UnitName>> = None;
        let mut quiet = None;
        loop {
            // Until when nothing may happen for the present verdicts to be final.
            let until = match quiet {
                Some(at) => end.min(at),
                None => end,
            };
            let news = match timeout_at(until, stream.next()).await {
                Err(_) if quiet.is_some_and(|at| at <= end) => return Ok(true),
                Err(_) => return Ok(false),
                Ok(Ok(Some(event))) => self.take(event.data, waiting, &mut seen),
                Ok(Ok(None)) => {
                    return Err(exit::Failure::error(Exit::Unreachable, "the watch ended"));
                }
                Ok(Err(e)) => return Err(e.into()),
            };
            quiet = match quiet {
                _ if seen.is_some() || waiting.pending() > 0 => None,
                // Whatever else goes on in the cluster changes nothing.
                Some(at) if !news && Instant::now() < at => Some(at),
                Some(_) if !news => return Ok(true),
                _ => {
                    let Some(wait) = final_after(waiting) else { return Ok(true) };
                    Some(Instant::now() + wait)
                }
            };
        }
    }

    /// Takes an event in. Tells whether it is news of what is waited for.
    fn take(&self, event: WatchEvent, waiting: &mut Waiting, seen: &mut Option<HashSet<UnitName>>) -> bool {
        let told = |name: &UnitName, verdict: Option<(&Verdict, bool)>| match verdict {
            Some((verdict, news)) => {
                self.tell(name, verdict);
                news
            }
            None => false,
        };
        let news = match event {
            WatchEvent::Reset => {
                *seen = Some(HashSet::new());
                false
            }
            WatchEvent::Unit { unit } => {
                if let Some(seen) = seen {
                    seen.insert(unit.name.clone());
                }
                told(&unit.name, waiting.see(&unit))
            }
            WatchEvent::Gone { name } => told(&name, waiting.gone(&name)),
            WatchEvent::Synced { .. } => {
                let seen = seen.take();
                seen.is_some_and(|seen| waiting.absent(|name| seen.contains(name)))
            }
        };
        self.bar.set_position((waiting.len() - waiting.pending()) as u64);
        news
    }

    fn tell(&self, name: &UnitName, verdict: &Verdict) {
        let Verdict::Pending(text) = verdict else { return };
        if self.output != Output::Json {
            self.bar.set_message(format!("{name}: {}", text::one_line(text)));
        }
    }
}

/// Says how long the verdicts, none of them pending, have to last to be believed.
fn final_after(waiting: &Waiting) -> Option<Duration> {
    if waiting.verdicts().any(|(_, verdict)| matches!(verdict, Verdict::CannotBePlaced(_))) {
        Some(CANNOT_BE_PLACED_AFTER)
    } else {
        waiting.has_just_started().then_some(SETTLE)
    }
}
