//! Orders about ranges of instances: one request, however many they are, and counts while it comes true.
//!
//! Where they are few, what became of them is told as if each had been named. Where they are many, the cluster
//! counts, and only some of those that are not as ordered are looked at here.

use std::time::Duration;

use flotilla_api::{
    action::{Action, Outcome, UnitOutcome},
    bulk::{BulkEvent, BulkOrder, RangeOutcome, Tally, TallyQuery},
    client::{ClientError, SseStream},
    error::ErrorKind,
};
use flotilla_units::UnitRange;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::{
    Asked, Report, print_reports, reports, until_true,
    wait::{CANNOT_BE_PLACED_AFTER, RECONNECT_AFTER, ROUNDS_MAX, SETTLE},
};
use crate::{
    args::Output,
    connection::Cluster,
    exit::{self, Exit, Failure},
    order::Waiting,
    paint, print, text,
};

/// How many instances are told of one by one: as many as are on a screen or two. Of more there are counts.
const TOLD_MAX: u64 = 100;

/// What became of an order about ranges, with `-o json`.
#[derive(Debug, Serialize)]
struct Whole<'a> {
    ranges: &'a [UnitRange],
    outcome: &'static str,
    #[serde(flatten)]
    tally: Tally,
    /// Some of those that are not as ordered.
    units: Vec<Report>,
}

/// An order as it was written.
#[derive(Debug, Default, Serialize)]
struct Written {
    revision: i64,
    units: u64,
    changed: u64,
    transactions: u64,
    #[serde(skip)]
    total: u64,
    #[serde(skip)]
    ranges: Vec<RangeOutcome>,
    #[serde(skip)]
    outcomes: Vec<UnitOutcome>,
}

/// Gives the order and, unless that is not wanted, waits until it is true. `named` is what came of the units that
/// were named beside the ranges, and whether there are none.
pub(super) async fn run(
    cluster: &Cluster,
    action: Action,
    ranges: &[UnitRange],
    asked: &Asked<'_>,
    (named, alone): (Outcome, bool),
    output: Output,
    end: Instant,
) -> anyhow::Result<Exit> {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos}/{human_len} {wide_msg}") {
        bar.set_style(style);
    }
    let written = match timeout_at(end, give(cluster, action, ranges, &bar)).await {
        Ok(Err(e)) if asked.missing.ignore_missing && exit::of(&e) == Exit::NoSuch => Written::default(),
        Ok(written) => written?,
        Err(_) => {
            let why =
                "the time ran out before the order was acknowledged; the same again does what is missing";
            return Err(Failure::error(Exit::TimedOut, why));
        }
    };
    if asked.wait.no_block {
        bar.finish_and_clear();
        if !alone {
            super::no_block(action, &named, output)?;
        }
        return ordered(action, ranges, &written, output);
    }
    if written.total + named.units.len() as u64 <= TOLD_MAX {
        bar.finish_and_clear();
        let outcome = written.each(named);
        let waiting = Waiting::new(action, &outcome.units);
        return until_true(cluster, &outcome, waiting, output, end).await;
    }
    let exit = if alone {
        Exit::Done
    } else {
        let waiting = Waiting::new(action, &named.units);
        until_true(cluster, &named, waiting, output, end).await?
    };
    if written.units == 0 {
        return Ok(exit);
    }
    let after = Some(written.revision);
    let joined: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    let query = TallyQuery { ranges: joined.join(","), action, after };
    let (tally, timed_out) = count(cluster, &query, &bar, end).await?;
    bar.finish_and_clear();
    Ok(exit.max(tell(cluster, action, ranges, (tally, timed_out), output).await?))
}

/// Gives the order, and takes it up again where a connection is lost: what was gone through is not repeated.
async fn give(
    cluster: &Cluster,
    action: Action,
    ranges: &[UnitRange],
    bar: &ProgressBar,
) -> anyhow::Result<Written> {
    let order = BulkOrder { action, units: ranges.iter().map(ToString::to_string).collect() };
    let (mut written, mut last, mut rounds): (Written, Option<String>, u32) = (Written::default(), None, 0);
    loop {
        let lost = match cluster.client().bulk_order(&order, last.as_deref()).await {
            Ok(mut stream) => match follow(&mut stream, &mut written, action, bar).await {
                Ok(()) => return Ok(written),
                Err(e) => {
                    last = stream.last_id().map(str::to_owned).or(last);
                    e
                }
            },
            Err(e) => e,
        };
        let again = lost.is_unreachable() || lost.kind() == Some(ErrorKind::OutcomeUnknown);
        let all_tried = again && cluster.move_on();
        rounds += u32::from(all_tried);
        // What is ordered anew each time is not given a second time where it may have been taken.
        let once = action == Action::Restart && !matches!(lost, ClientError::Unreachable { sent: false, .. });
        if !again || once || rounds > ROUNDS_MAX {
            let error = anyhow::Error::from(lost);
            return Err(match written.units {
                0 => error,
                done => error.context(format!(
                    "{} instances were ordered, and then it failed; the same again does the rest",
                    text::count(done)
                )),
            });
        }
        if all_tried {
            tokio::time::sleep(RECONNECT_AFTER).await;
        }
    }
}

async fn follow(
    stream: &mut SseStream<BulkEvent>,
    written: &mut Written,
    action: Action,
    bar: &ProgressBar,
) -> Result<(), ClientError> {
    while let Some(event) = stream.next().await? {
        match event.data {
            BulkEvent::Written {
                position,
                total,
                units,
                changed,
                transactions,
                revision,
                ranges,
                outcomes,
            } => {
                bar.set_length(total);
                bar.set_position(position);
                bar.set_message(format!("ordered to {action}"));
                written.total = total;
                written.units += units;
                written.changed += changed;
                written.transactions += transactions;
                written.revision = written.revision.max(revision);
                written.ranges.extend(ranges);
                written.outcomes.extend(outcomes);
            }
            BulkEvent::Done { revision } => {
                written.revision = written.revision.max(revision);
                return Ok(());
            }
        }
    }
    let (endpoint, why) = ("the cluster".to_owned(), "the answer ended early".to_owned());
    Err(ClientError::Unreachable { endpoint, why, sent: true })
}

impl Written {
    /// Says of each unit what became of it, and of those that were named beside.
    fn each(self, named: Outcome) -> Outcome {
        let mut units = self.outcomes;
        for RangeOutcome { range, changed, generation, run } in self.ranges {
            let known: Vec<_> = units.iter().map(|unit| unit.unit.clone()).collect();
            let instances = range.instances().filter(|unit| !known.contains(unit));
            units.extend(instances.map(|unit| UnitOutcome {
                unit,
                changed,
                generation,
                run,
                adopted_from: None,
            }));
        }
        units.extend(named.units);
        Outcome { revision: self.revision.max(named.revision), units }
    }
}

/// Says that an order was acknowledged.
fn ordered(action: Action, ranges: &[UnitRange], written: &Written, output: Output) -> anyhow::Result<Exit> {
    if output == Output::Json {
        print::json(written)?;
        return Ok(Exit::Done);
    }
    for range in ranges {
        print::line(format_args!("{range} {action} ordered"))?;
    }
    Ok(Exit::Done)
}

/// Waits until nothing is on its way any more; tells how far it is, and whether the time ran out first.
async fn count(
    cluster: &Cluster,
    query: &TallyQuery,
    bar: &ProgressBar,
    end: Instant,
) -> anyhow::Result<(Tally, bool)> {
    let (mut tally, mut rounds) = (Tally::default(), 0);
    loop {
        let lost = match timeout_at(end, cluster.client().tally(query)).await {
            Err(_) => return Ok((tally, true)),
            Ok(Ok(mut stream)) => match settle(&mut stream, query.action, &mut tally, bar, end).await {
                Ok(timed_out) => return Ok((tally, timed_out)),
                Err(e) => e,
            },
            Ok(Err(e)) => e,
        };
        let gone = !lost.is_unreachable();
        // Another flotillad counts the same, and counting twice is harmless.
        let all_tried = cluster.move_on();
        rounds += u32::from(all_tried);
        if gone || rounds > ROUNDS_MAX {
            let why = "the order stands, but what comes of it cannot be seen";
            return Err(anyhow::Error::from(lost).context(why));
        }
        if all_tried {
            tokio::time::sleep(RECONNECT_AFTER).await;
        }
    }
}

/// Reads counts until they are final; tells whether the time ran out first.
async fn settle(
    stream: &mut SseStream<Tally>,
    action: Action,
    tally: &mut Tally,
    bar: &ProgressBar,
    end: Instant,
) -> Result<bool, ClientError> {
    let mut quiet: Option<Instant> = None;
    loop {
        let until = quiet.map_or(end, |at| end.min(at));
        match timeout_at(until, stream.next()).await {
            Err(_) => return Ok(quiet.is_none_or(|at| at > end)),
            Ok(event) => match event? {
                Some(event) => *tally = event.data,
                None => {
                    let (endpoint, why) = ("the cluster".to_owned(), "the counts ended early".to_owned());
                    return Err(ClientError::Unreachable { endpoint, why, sent: true });
                }
            },
        }
        bar.set_length(tally.total);
        bar.set_position(tally.done);
        bar.set_message(progress(action, tally));
        quiet = match (tally.pending, final_after(action, tally)) {
            (0, None) => return Ok(false),
            (0, Some(wait)) => Some(Instant::now() + wait),
            _ => None,
        };
    }
}

/// Says how long counts, with nothing on its way, have to last to be believed.
fn final_after(action: Action, tally: &Tally) -> Option<Duration> {
    if tally.unplaced > 0 {
        return Some(CANNOT_BE_PLACED_AFTER);
    }
    matches!(action, Action::Start | Action::Restart).then_some(SETTLE)
}

/// What an instance is once the order about it has come true.
const fn state(action: Action) -> &'static str {
    match action {
        Action::Start | Action::Restart => "active or finished",
        Action::Load => "loaded",
        Action::Stop => "stopped",
        Action::Unload => "unloaded",
        Action::Destroy => "destroyed",
    }
}

/// Says how far it is, behind `412,000/1,000,000`.
fn progress(action: Action, tally: &Tally) -> String {
    let mut text = match action {
        Action::Start | Action::Restart => "active",
        _ => state(action),
    }
    .to_owned();
    let others = [(tally.failed, "failed"), (tally.unplaced, "cannot be placed")];
    for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!(", {} {what}", text::count(count)));
    }
    text
}

/// Prints what became of the ranges, and returns the exit status that it makes.
async fn tell(
    cluster: &Cluster,
    action: Action,
    ranges: &[UnitRange],
    (tally, timed_out): (Tally, bool),
    output: Output,
) -> anyhow::Result<Exit> {
    let (exit, outcome) = judge(&tally, timed_out);
    let units = match exit {
        Exit::Done => Vec::new(),
        _ => examples(cluster, action, &tally, timed_out, output).await,
    };
    if output == Output::Json {
        print::json(&Whole { ranges, outcome, tally, units })?;
        return Ok(exit);
    }
    let names: Vec<String> = ranges.iter().map(ToString::to_string).collect();
    let names = names.join(" ");
    let Tally { total, done, pending, failed, unplaced, .. } = tally;
    print::line(format_args!("{names}: {} of {} {}", text::count(done), text::count(total), state(action)))?;
    let worse = [
        (failed, paint::bad("failed")),
        (unplaced, paint::bad("cannot be placed")),
        (if timed_out { pending } else { 0 }, paint::bad("timed out")),
    ];
    for (count, what) in worse.into_iter().filter(|(count, _)| *count > 0) {
        print::tell(format_args!("{names}: {} {what}, for example:", text::count(count)));
    }
    print_reports(cluster, &units).await?;
    Ok(exit)
}

/// Says how an order has ended: the worst of it counts.
const fn judge(tally: &Tally, timed_out: bool) -> (Exit, &'static str) {
    if timed_out {
        (Exit::TimedOut, "timed-out")
    } else if tally.unplaced > 0 {
        (Exit::CannotBePlaced, "cannot-be-placed")
    } else if tally.failed > 0 {
        (Exit::NotActive, "failed")
    } else {
        (Exit::Done, "done")
    }
}

/// Looks at some of those that are not as ordered.
async fn examples(
    cluster: &Cluster,
    action: Action,
    tally: &Tally,
    timed_out: bool,
    output: Output,
) -> Vec<Report> {
    let mut units = Vec::new();
    for name in &tally.examples {
        // One that cannot be seen any more is no example.
        units.extend(cluster.read(async |client| client.unit(name.as_str()).await).await.ok());
    }
    let outcome = |unit: &flotilla_api::unit::Unit| UnitOutcome {
        unit: unit.name.clone(),
        changed: true,
        generation: unit.generation,
        run: unit.run,
        adopted_from: None,
    };
    let outcomes: Vec<UnitOutcome> = units.iter().map(outcome).collect();
    let mut waiting = Waiting::new(action, &outcomes);
    for unit in &units {
        waiting.see(unit);
    }
    let (_, mut reports) = reports(cluster, &waiting, timed_out, output).await;
    // It may have come true while it was looked at.
    reports.retain(|report| !report.is_done());
    reports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_many_counts() {
        let tally = |failed, unplaced| Tally { total: 9, done: 7, failed, unplaced, ..Tally::default() };
        assert_eq!(judge(&tally(0, 0), false), (Exit::Done, "done"));
        assert_eq!(judge(&tally(1, 0), false).0, Exit::NotActive);
        assert_eq!(judge(&tally(1, 1), false).0, Exit::CannotBePlaced);
        assert_eq!(judge(&tally(1, 1), true).0, Exit::TimedOut);
        assert_eq!(progress(Action::Start, &tally(1_200, 0)), "active, 1,200 failed");
    }

    #[test]
    fn few_are_told_of_as_if_each_had_been_named() {
        let outcome = |unit: &str, run| UnitOutcome {
            unit: unit.parse().expect(unit),
            changed: true,
            generation: 1,
            run,
            adopted_from: None,
        };
        let range = "web@{1..3}.service".parse().expect("a range");
        let ranges = vec![RangeOutcome { range, changed: true, generation: 1, run: 1 }];
        let written = Written {
            revision: 9,
            ranges,
            outcomes: vec![outcome("web@2.service", 4)],
            ..Written::default()
        };
        let each = written.each(Outcome { revision: 7, units: vec![outcome("a.service", 1)] });
        let mut runs: Vec<(String, u64)> =
            each.units.iter().map(|it| (it.unit.to_string(), it.run)).collect();
        runs.sort();
        let expected = [("a.service", 1), ("web@1.service", 1), ("web@2.service", 4), ("web@3.service", 1)];
        assert_eq!(runs, expected.map(|(name, run)| (name.to_owned(), run)));
        assert_eq!(each.revision, 9);
    }
}
