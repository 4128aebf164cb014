//! `flotctl machine drain`: has a machine's units leave it, and waits until those that can have left.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    time::Duration,
};

use flotilla_api::{
    client::SseStream,
    plan::{Drain, DrainStage, DrainUnit},
    watch::{WatchEvent, WatchQuery},
};
use flotilla_units::UnitName;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Named, name};
use crate::{
    args::{Output, bounded_span},
    connection::Cluster,
    exit::{self, Exit, Failure},
    paint, print, text,
};

/// Has everything that can leave a machine: each unit runs elsewhere before it stops there.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    machine: Named,

    /// Say what would move where, and do nothing
    #[arg(long)]
    plan: bool,

    /// Do not wait until the units have left
    #[arg(long)]
    no_block: bool,

    /// How long to wait in all, for example 90s or 5min
    #[arg(long, value_name = "SPAN", default_value = "5min", value_parser = bounded_span)]
    timeout: Duration,
}

/// How long "it stays" has to last before it is believed: what keeps a unit may be about to go itself.
const STAYS_AFTER: Duration = Duration::from_millis(500);

/// How long changes are collected before it is asked again what is still to do. A twentieth of a second:
/// a person sees no difference, and a hundred units that stop at once are one question.
const COLLECTED: Duration = Duration::from_millis(50);

/// How long to wait before a lost connection is made again.
const RECONNECT_AFTER: Duration = Duration::from_millis(200);

/// How many names a watch asks for; with more it watches everything.
const WATCHED_NAMES_MAX: usize = 100;

/// What is printed with `-o json`.
#[derive(Serialize)]
struct Report<'a> {
    machine: &'a str,
    /// Units that have left.
    left: Vec<&'a UnitName>,
    /// Units that stay, or have not left in time.
    remaining: &'a [DrainUnit],
}

/// A drain that is waited for.
struct Following<'a> {
    cluster: &'a Cluster,
    machine: String,
    host: String,
    output: Output,
    end: Instant,
    /// Every unit that was there, as it was told of last.
    told: BTreeMap<UnitName, DrainUnit>,
    left: BTreeSet<UnitName>,
    /// What the next answer has to be as new as.
    after: i64,
}

/// Runs the command. The exit status is 5 when something stays.
pub(super) async fn run(cluster: &Cluster, args: &Args, output: Output) -> anyhow::Result<Exit> {
    let end = Instant::now() + args.timeout;
    if args.plan {
        let drain = cluster.read(async |client| client.drained(&args.machine.machine, None).await).await?;
        return show_plan(&drain, output);
    }
    // What is on it, so that what has left before the first look afterwards is told of as well.
    let before = if args.no_block {
        Vec::new()
    } else {
        cluster.read(async |client| client.drained(&args.machine.machine, None).await).await?.units
    };
    let outcome = cluster.client().drain(&args.machine.machine, true).await?;
    let host = name(&outcome);
    if args.no_block {
        super::tell(&outcome, "drain ordered", output)?;
        return Ok(Exit::Done);
    }
    let mut following = Following {
        cluster,
        machine: outcome.machine.to_string(),
        host,
        output,
        end,
        told: before.into_iter().map(untold).collect(),
        left: BTreeSet::new(),
        after: outcome.revision,
    };
    let (drain, in_time) = following.run().await?;
    following.finish(&drain, in_time)
}

fn show_plan(drain: &Drain, output: Output) -> anyhow::Result<Exit> {
    let stays = drain.units.iter().any(|unit| unit.stage == DrainStage::Stays);
    let exit = if stays { Exit::CannotBePlaced } else { Exit::Done };
    if output == Output::Json {
        print::json(drain)?;
        return Ok(exit);
    }
    let mut out = print::out();
    if drain.units.is_empty() {
        writeln!(out, "nothing is on it")?;
    }
    for unit in &drain.units {
        writeln!(out, "{}", planned(unit))?;
    }
    Ok(exit)
}

/// Says in one line what would become of a unit.
fn planned(unit: &DrainUnit) -> String {
    let why = unit.why.as_deref().map(|why| format!(": {}", text::one_line(why))).unwrap_or_default();
    match (unit.stage, host(unit)) {
        (DrainStage::Stays, _) => format!("{} {}{why}", unit.unit, paint::bad("stays")),
        (DrainStage::Stopping, _) => format!("{} is leaving already", unit.unit),
        (DrainStage::Starting, Some(to)) => format!("{} is moving to {to} already", unit.unit),
        (_, Some(to)) => format!("{} moves to {to}", unit.unit),
        (_, None) => format!("{} stops{why}", unit.unit),
    }
}

/// A unit that is there, of which nothing has been told.
fn untold(unit: DrainUnit) -> (UnitName, DrainUnit) {
    (unit.unit.clone(), DrainUnit { stage: DrainStage::Waiting, ..unit })
}

/// Names where a unit goes.
fn host(unit: &DrainUnit) -> Option<String> {
    let to = unit.to.as_ref()?;
    Some(to.host.as_deref().map_or_else(|| to.machine.short(), |host| text::one_line(host).into_owned()))
}

impl Following<'_> {
    /// Waits until nothing is under way; false when the time ran out before.
    async fn run(&mut self) -> anyhow::Result<(Drain, bool)> {
        let mut drain = self.look().await?;
        loop {
            let watched = self.watch(&mut drain).await;
            let lost = match watched {
                Ok(in_time) => return Ok((drain, in_time)),
                Err(lost) => lost,
            };
            if exit::of(&lost) != Exit::Unreachable || Instant::now() >= self.end {
                return Err(lost.context("the drain goes on, but what comes of it cannot be seen"));
            }
            self.cluster.move_on();
            sleep(RECONNECT_AFTER).await;
        }
    }

    /// Follows one connection. An error means that it was lost.
    async fn watch(&mut self, drain: &mut Drain) -> anyhow::Result<bool> {
        let names: Vec<&str> = drain.units.iter().map(|unit| unit.unit.as_str()).collect();
        let pattern = (names.len() <= WATCHED_NAMES_MAX).then(|| names.join(","));
        let query = WatchQuery { pattern, after: Some(self.after), ..WatchQuery::default() };
        let Ok(stream) = timeout_at(self.end, self.cluster.client().watch(&query, None)).await else {
            return Ok(false);
        };
        let mut stream = stream?;
        let mut settled_since = None;
        loop {
            *drain = self.look().await?;
            self.tell(drain)?;
            if drain.units.is_empty() {
                return Ok(true);
            }
            if drain.units.iter().any(|unit| unit.stage != DrainStage::Stays) {
                settled_since = None;
            } else if settled_since.get_or_insert_with(Instant::now).elapsed() >= STAYS_AFTER {
                return Ok(true);
            }
            let until = settled_since.map_or(self.end, |since| self.end.min(since + STAYS_AFTER));
            self.next_change(&mut stream, until).await?;
            if Instant::now() >= self.end {
                return Ok(false);
            }
        }
    }

    /// Waits until something about the units changes, and for what comes right behind it.
    async fn next_change(
        &mut self,
        stream: &mut SseStream<WatchEvent>,
        until: Instant,
    ) -> anyhow::Result<()> {
        let mut event = match timeout_at(until, stream.next()).await {
            Err(_) => return Ok(()),
            Ok(event) => event?,
        };
        loop {
            let Some(it) = event else {
                return Err(Failure::error(Exit::Unreachable, "the watch ended"));
            };
            self.after =
                it.id.and_then(|id| id.parse().ok()).map_or(self.after, |at: i64| at.max(self.after));
            event = match timeout(COLLECTED, stream.next()).await {
                Err(_) => return Ok(()),
                Ok(event) => event?,
            };
        }
    }

    async fn look(&self) -> anyhow::Result<Drain> {
        let (machine, after) = (&self.machine, Some(self.after));
        Ok(self.cluster.read(async |client| client.drained(machine, after).await).await?)
    }

    /// Tells what is new.
    fn tell(&mut self, drain: &Drain) -> anyhow::Result<()> {
        let there: BTreeSet<&UnitName> = drain.units.iter().map(|unit| &unit.unit).collect();
        let gone: Vec<UnitName> = self
            .told
            .keys()
            .filter(|unit| !there.contains(unit) && !self.left.contains(*unit))
            .cloned()
            .collect();
        for unit in gone {
            self.say(format_args!("{unit} has left {}", self.host))?;
            self.left.insert(unit);
        }
        for unit in &drain.units {
            self.left.remove(&unit.unit);
            let before = self.told.insert(unit.unit.clone(), unit.clone());
            if before.as_ref() == Some(unit) {
                continue;
            }
            match (unit.stage, host(unit)) {
                (DrainStage::Starting, Some(to)) => {
                    self.say(format_args!("{} is being started on {to}", unit.unit))?;
                }
                (DrainStage::Stopping, Some(to)) => {
                    self.say(format_args!("{} runs on {to} and stops on {}", unit.unit, self.host))?;
                }
                (DrainStage::Stopping, None) => {
                    self.say(format_args!("{} stops on {}", unit.unit, self.host))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn say(&self, line: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
        if self.output != Output::Json {
            print::line(line)?;
        }
        Ok(())
    }

    /// Says what has not left, and returns the exit status.
    fn finish(&self, drain: &Drain, in_time: bool) -> anyhow::Result<Exit> {
        let exit = match (drain.units.is_empty(), in_time) {
            (true, _) => Exit::Done,
            (false, true) => Exit::CannotBePlaced,
            (false, false) => Exit::TimedOut,
        };
        if self.output == Output::Json {
            let report =
                Report { machine: &self.host, left: self.left.iter().collect(), remaining: &drain.units };
            print::json(&report)?;
            return Ok(exit);
        }
        if drain.units.is_empty() {
            print::line(format_args!("{} is drained", self.host))?;
        }
        for unit in &drain.units {
            match unit.stage {
                DrainStage::Stays => print::tell(planned(unit)),
                _ => print::tell(format_args!("{} {}", unit.unit, paint::bad("has not left in time"))),
            }
        }
        Ok(exit)
    }
}
