//! `flotctl start`, `stop`, `load`, `restart`, `unload`, `destroy`: orders, and the wait
//! until they have come true.
//!
//! The wait is a watch that begins at the order's own revision, so it misses
//! nothing and asks nothing twice.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use flotilla_api::{
    action::{Action, Order, Outcome},
    client::{Client, SseStream},
    watch::{WatchEvent, WatchQuery},
};
use flotilla_units::UnitName;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::{is_glob, mangle, status, submit};
use crate::{
    args::{Output, WaitOptions},
    exit::Exit,
    order::{Verdict, Waiting},
    paint, print,
};

/// How long a unit that became active is watched for an early death. A process that cannot even be
/// executed is gone within a few milliseconds of systemd calling it active.
const SETTLE: Duration = Duration::from_millis(25);

/// How long "cannot be placed" has to last before it is believed: a unit that conflicts with one
/// that is just leaving finds its place a moment later.
const CANNOT_BE_PLACED_AFTER: Duration = Duration::from_millis(500);

/// How many names a watch asks for; with more it watches everything and picks its own.
const WATCHED_NAMES_MAX: usize = 100;

/// How long to wait before a lost connection is made again.
const RECONNECT_AFTER: Duration = Duration::from_millis(200);

/// How often a lost connection is made again before the wait is given up.
const RECONNECTS_MAX: u32 = 30;

/// Changes units and waits until it is true.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Units: names, globs over the cluster's units, or unit files to submit first
    #[arg(value_name = "UNIT", required = true, add = crate::complete::units())]
    units: Vec<String>,

    #[command(flatten)]
    wait: WaitOptions,
}

/// What is printed with `-o json`.
#[derive(Serialize)]
struct Report<'a> {
    unit: &'a UnitName,
    outcome: &'static str,
    detail: &'a str,
}

/// Runs the command.
pub(crate) async fn run(
    client: &Client,
    action: Action,
    args: &Args,
    output: Output,
) -> anyhow::Result<Exit> {
    if matches!(action, Action::Start | Action::Load) {
        let files: Vec<PathBuf> = args.units.iter().filter_map(|unit| file_of(unit)).collect();
        if !files.is_empty() {
            submit::submit(client, &files).await?;
        }
    }
    let units = ordered(&args.units);
    let outcome = client.order(&Order { action, units, dry_run: false }).await?;
    if args.wait.no_block {
        return no_block(action, &outcome, output);
    }
    let mut waiting = Waiting::new(action, &outcome.units);
    let timed_out = !Wait::new(client, &outcome, action, output).run(&mut waiting, args.wait.timeout).await?;
    finish(client, &waiting, timed_out, output).await
}

/// Returns the unit file that an argument names, if it is one: a path, or the template beside the
/// path of an instance.
fn file_of(unit: &str) -> Option<PathBuf> {
    let path = Path::new(unit);
    if is_glob(unit) || !(unit.contains('/') || path.is_file()) {
        return None;
    }
    if path.is_file() {
        return Some(path.to_owned());
    }
    let name: UnitName = path.file_name()?.to_str()?.parse().ok()?;
    let template = path.with_file_name(name.template()?.as_str());
    template.is_file().then_some(template)
}

/// Returns the units to order: a template's file beside its instances was named to be submitted.
///
/// A template alone is ordered, for the answer that says why it cannot be.
fn ordered(arguments: &[String]) -> Vec<String> {
    let is_template_file = |unit: &&String| {
        let template = file_of(unit).is_some_and(|file| file.as_path() == Path::new(unit));
        template && mangle(unit).parse().is_ok_and(|name: UnitName| name.is_template())
    };
    let (templates, units): (Vec<&String>, Vec<&String>) = arguments.iter().partition(is_template_file);
    let ordered = if units.is_empty() { templates } else { units };
    ordered.into_iter().map(|unit| mangle(unit)).collect()
}

fn no_block(action: Action, outcome: &Outcome, output: Output) -> anyhow::Result<Exit> {
    if output == Output::Json {
        print::json(outcome)?;
        return Ok(Exit::Done);
    }
    for unit in &outcome.units {
        print::line(format_args!("{} {action} ordered", unit.unit))?;
    }
    Ok(Exit::Done)
}

/// The wait for an order.
struct Wait<'a> {
    client: &'a Client,
    query: WatchQuery,
    action: Action,
    output: Output,
    bar: ProgressBar,
}

impl<'a> Wait<'a> {
    fn new(client: &'a Client, outcome: &Outcome, action: Action, output: Output) -> Self {
        let names: Vec<&str> = outcome.units.iter().map(|unit| unit.unit.as_str()).collect();
        // A unit name has no character that a glob would read as a wildcard.
        let pattern = (names.len() <= WATCHED_NAMES_MAX).then(|| names.join(","));
        let bar = ProgressBar::with_draw_target(Some(names.len() as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {pos}/{len} {wide_msg}") {
            bar.set_style(style);
        }
        let query = WatchQuery { pattern, after: Some(outcome.revision) };
        Self { client, query, action, output, bar }
    }

    /// Watches until nothing is pending; `false` when the time ran out first.
    async fn run(&self, waiting: &mut Waiting, timeout: Duration) -> anyhow::Result<bool> {
        let end = Instant::now() + timeout;
        let mut reconnects = 0;
        let mut last = None;
        loop {
            let lost = match timeout_at(end, self.client.watch(&self.query, None)).await {
                Err(_) => return Ok(false),
                Ok(Ok(stream)) => match self.follow(stream, waiting, end).await {
                    Ok(finished) => return Ok(finished),
                    Err(e) => e,
                },
                Ok(Err(e)) => e.into(),
            };
            reconnects += 1;
            if reconnects > RECONNECTS_MAX || crate::exit::of(&lost) != Exit::Unreachable {
                return Err(last.unwrap_or(lost));
            }
            last = Some(lost);
            tokio::time::sleep(RECONNECT_AFTER).await;
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
            match timeout_at(until, stream.next()).await {
                Err(_) if quiet.is_some_and(|at| at <= end) => return Ok(true),
                Err(_) => return Ok(false),
                Ok(Ok(Some(event))) => self.take(event.data, waiting, &mut seen),
                Ok(Ok(None)) => {
                    return Err(crate::exit::Failure::error(Exit::Unreachable, "the watch ended"));
                }
                Ok(Err(e)) => return Err(e.into()),
            }
            quiet = if seen.is_some() || waiting.pending() > 0 {
                None
            } else {
                let Some(wait) = self.final_after(waiting) else { return Ok(true) };
                Some(Instant::now() + wait)
            };
        }
    }

    /// Says how long the verdicts, none of them pending, have to last to be believed.
    fn final_after(&self, waiting: &Waiting) -> Option<Duration> {
        let any = |test: fn(&Verdict) -> bool| waiting.verdicts().any(|(_, verdict)| test(verdict));
        if any(|verdict| matches!(verdict, Verdict::CannotBePlaced(_))) {
            Some(CANNOT_BE_PLACED_AFTER)
        } else if matches!(self.action, Action::Start | Action::Restart)
            && any(|verdict| matches!(verdict, Verdict::Done(_)))
        {
            Some(SETTLE)
        } else {
            None
        }
    }

    fn take(&self, event: WatchEvent, waiting: &mut Waiting, seen: &mut Option<HashSet<UnitName>>) {
        match event {
            WatchEvent::Reset => *seen = Some(HashSet::new()),
            WatchEvent::Unit { unit } => {
                if let Some(seen) = seen {
                    seen.insert(unit.name.clone());
                }
                if let Some(verdict) = waiting.see(&unit) {
                    self.tell(&unit.name, verdict);
                }
            }
            WatchEvent::Gone { name } => {
                if let Some(verdict) = waiting.gone(&name) {
                    self.tell(&name, verdict);
                }
            }
            WatchEvent::Synced { .. } => {
                if let Some(seen) = seen.take() {
                    waiting.absent(|name| seen.contains(name));
                }
            }
        }
        self.bar.set_position((waiting.len() - waiting.pending()) as u64);
    }

    fn tell(&self, name: &UnitName, verdict: &Verdict) {
        let Verdict::Pending(text) = verdict else { return };
        if self.output != Output::Json {
            self.bar.set_message(format!("{name}: {text}"));
        }
    }
}

/// Prints what became of each unit and returns the exit status: that of the worst.
async fn finish(client: &Client, waiting: &Waiting, timed_out: bool, output: Output) -> anyhow::Result<Exit> {
    let mut worst = Exit::Done;
    let mut reports = Vec::new();
    for (unit, verdict) in waiting.verdicts() {
        let (exit, outcome, detail) = match verdict {
            Verdict::Done(text) => (Exit::Done, "done", text.clone()),
            Verdict::Pending(text) => {
                (if timed_out { Exit::TimedOut } else { Exit::Failed }, "timed-out", text.clone())
            }
            Verdict::Failed { machine, why } if machine.is_empty() => {
                (Exit::NotActive, "failed", why.clone())
            }
            Verdict::Failed { machine, why } => (Exit::NotActive, "failed", format!("{why} (on {machine})")),
            Verdict::CannotBePlaced(why) => (Exit::CannotBePlaced, "cannot-be-placed", why.clone()),
        };
        worst = worst.max(exit);
        reports.push((unit, outcome, detail));
    }
    if output == Output::Json {
        let reports: Vec<Report<'_>> =
            reports.iter().map(|(unit, outcome, detail)| Report { unit, outcome, detail }).collect();
        print::json(&reports)?;
        return Ok(worst);
    }
    for (unit, outcome, detail) in reports {
        match outcome {
            "done" => print::line(format_args!("{unit} {detail}"))?,
            "failed" => {
                print::tell(format_args!("{unit} {}: {detail}", paint::bad("failed")));
                status::last_lines(client, unit).await;
            }
            "timed-out" => print::tell(format_args!("{unit} {}: still {detail}", paint::bad("timed out"))),
            _ => {
                print::tell(format_args!("{unit} {}: {detail}", paint::bad("cannot be placed")));
                print::tell(format_args!("`flotctl why {unit}` shows what each machine lacks."));
            }
        }
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_file_beside_its_instances_is_submitted_and_not_ordered() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("web@.service");
        std::fs::write(&file, "[Service]\nExecStart=/bin/true\n").unwrap();
        let (file, instance) = (file.display().to_string(), "web@1".to_owned());
        assert_eq!(ordered(&[file.clone(), instance.clone()]), ["web@1.service"]);
        assert_eq!(ordered(&[file]), ["web@.service"]);
        assert_eq!(ordered(&["web@.service".to_owned(), instance]), ["web@.service", "web@1.service"]);
    }
}
