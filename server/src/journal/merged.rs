//! The merged stream: which machines are read for it, and what is said of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use flotilla_api::{
    error::ErrorBody,
    journal::{JournalEvent, JournalNotice, JournalPosition, Position},
};
use flotilla_engine::{PAGE_MAX, StateReader, state::Life};
use flotilla_registry::store::Revision;
use flotilla_units::{MachineId, UnitName};
use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Wanted,
    merge::Merge,
    place,
    source::{Said, Source},
};
use crate::{
    identity::User,
    node::Node,
    select::{Selector, any_selects, stretches},
    stream::{Feed, Gone},
};

/// How long lines are held back unless asked otherwise.
const HOLD: Duration = Duration::from_millis(500);

/// The longest that a client may have lines held back.
const HOLD_MAX: Duration = Duration::from_secs(10);

/// How many lines wait between the machines and the merge. At 48 KiB, the longest that a unit prints,
/// they are 12 MiB.
const QUEUE: usize = 256;

/// How far the clocks of two machines may be apart: a machine that is read only later gives its lines
/// from so long before the stream began by this machine's clock. Five seconds: far more than between
/// clocks that are kept right, and a few lines too many are better than one too few.
const CLOCKS_APART: Duration = Duration::from_secs(5);

/// Streams the lines of all machines, in order of time, into `feed`.
pub(crate) async fn merged(
    node: Arc<Node>,
    reader: StateReader,
    user: User,
    wanted: Wanted,
    position: Option<Position>,
    feed: Feed,
) -> Result<(), Gone> {
    let hold = wanted.query.hold_ms.map_or(HOLD, Duration::from_millis).min(HOLD_MAX);
    let (said, mut hear) = mpsc::channel(QUEUE);
    let now = Timestamp::now();
    let mut stream = Merged {
        node,
        reader,
        user,
        wanted,
        position: position.unwrap_or_default(),
        began: now.checked_sub(CLOCKS_APART).unwrap_or(now),
        merge: Merge::new(hold),
        machines: BTreeSet::new(),
        seen: Revision(0),
        tasks: JoinSet::new(),
        said,
    };
    let follow = stream.wanted.query.follow;
    let mut doorbell = stream.reader.changed();
    for notice in stream.join_machines(true) {
        feed.tell(JournalEvent::NOTICE, None, &notice).await?;
    }
    loop {
        while let Some((_, line)) = stream.merge.pop(Instant::now()) {
            feed.say(Some(place(&line.machine, &line.cursor)), &line).await?;
        }
        if !follow && stream.merge.is_over() {
            return Ok(());
        }
        let turn = stream.merge.deadline();
        let seated = tokio::select! {
            heard = hear.recv() => {
                match heard.and_then(|said| stream.hear(said)) {
                    None => {}
                    Some(Tell::Position(at)) => {
                        feed.tell(JournalEvent::POSITION, Some(place(&at.machine, &at.cursor)), &at).await?;
                    }
                    Some(Tell::Notice(notice)) => feed.tell(JournalEvent::NOTICE, None, &notice).await?,
                    Some(Tell::Refused(error)) => {
                        feed.fail(&error).await;
                        return Ok(());
                    }
                }
                true
            }
            () = async { sleep_until(turn.unwrap_or_else(Instant::now)).await }, if turn.is_some() => true,
            rung = doorbell.changed(), if follow => {
                stream.join_machines(false);
                rung.is_ok()
            }
            () = stream.node.unseated(&stream.reader), if follow => false,
        };
        if !seated {
            stream.node.end_unseated(&feed).await;
            return Ok(());
        }
    }
}

struct Merged {
    node: Arc<Node>,
    reader: StateReader,
    user: User,
    wanted: Wanted,
    position: Position,
    began: Timestamp,
    merge: Merge,
    /// The machines that have a task.
    machines: BTreeSet<MachineId>,
    /// Up to which revision units were looked at.
    seen: Revision,
    tasks: JoinSet<()>,
    said: mpsc::Sender<Said>,
}

/// What is to be told besides lines.
enum Tell {
    Position(JournalPosition),
    Notice(JournalNotice),
    Refused(ErrorBody),
}

impl Merged {
    /// Begins to read machines that have a unit the stream is about and are not read yet; at first
    /// also those that were read before the connection was lost. Returns what units lack a machine.
    fn join_machines(&mut self, first: bool) -> Vec<JournalNotice> {
        let mut homes = self.homes(first);
        let mut nowhere = Vec::new();
        if first {
            if self.position.0.is_empty() {
                nowhere = self.nowhere(&homes);
            }
            for machine in self.position.0.keys().filter_map(|id| id.parse().ok()) {
                // Its unit has left, perhaps with a last word.
                if self.reader.machine(machine).is_some_and(|row| row.life != Life::Lost) {
                    homes.entry(machine).or_default();
                }
            }
        }
        for (machine, units) in homes {
            if !self.machines.insert(machine) {
                continue;
            }
            self.merge.open(machine);
            let source = self.source(machine, &units, first);
            self.tasks.spawn(source.run());
        }
        nowhere
    }

    /// Returns the machines that have units of the stream, departing ones included; after the first time only
    /// those of units that have changed since.
    fn homes(&mut self, first: bool) -> BTreeMap<MachineId, Vec<UnitName>> {
        let delta = if first { None } else { self.reader.since(self.seen).ok() };
        let Some(delta) = delta else { return self.all_homes() };
        self.seen = delta.revision;
        let changed = delta.units.into_iter().filter(|name| any_selects(&self.wanted.selectors, name));
        let mut homes: BTreeMap<MachineId, Vec<UnitName>> = BTreeMap::new();
        for row in changed.filter_map(|name| self.reader.unit(&name).0) {
            for placement in &row.placements {
                homes.entry(placement.machine).or_default().push(row.name.clone());
            }
        }
        homes
    }

    fn all_homes(&mut self) -> BTreeMap<MachineId, Vec<UnitName>> {
        // What changes meanwhile is looked at again.
        self.seen = self.reader.revision();
        let selects = |name: &UnitName| any_selects(&self.wanted.selectors, name);
        let mut homes: BTreeMap<MachineId, Vec<UnitName>> = BTreeMap::new();
        let names = stretches(&self.wanted.selectors);
        let mut after: Option<UnitName> = None;
        loop {
            let page = self.reader.units(&names, after.as_ref(), PAGE_MAX, selects);
            for row in page.rows {
                for placement in row.placements {
                    homes.entry(placement.machine).or_default().push(row.name.clone());
                }
            }
            after = page.next;
            if after.is_none() {
                return homes;
            }
        }
    }

    /// Says which of the things that were asked for have no journal to be read.
    fn nowhere(&self, homes: &BTreeMap<MachineId, Vec<UnitName>>) -> Vec<JournalNotice> {
        let placed = |selector: &&Selector| homes.values().flatten().any(|unit| selector.selects(unit));
        let lacking = self.wanted.selectors.iter().filter(|selector| !placed(selector));
        let notice = |selector: &Selector| {
            let reason = match selector {
                Selector::Name(unit) => format!("{unit} is on no machine; `flotctl why {unit}` says why"),
                Selector::Pattern(glob) => format!("no unit that matches {} is on a machine", glob.as_str()),
                Selector::Range(range) => format!("none of {range} is on a machine"),
            };
            JournalNotice { host: None, machine: None, reason }
        };
        lacking.map(notice).collect()
    }

    fn source(&self, machine: MachineId, units: &[UnitName], first: bool) -> Source {
        let mut query = self.wanted.query.clone();
        // The patterns, for units that come later, and the names that they stand for now.
        let names: Vec<&str> = units.iter().map(UnitName::as_str).collect();
        query.units = format!("{},{}", self.wanted.query.units, names.join(","));
        if !first {
            // Its units came while the stream was open: all that they say belongs to it.
            query.lines = None;
            query.since = query.since.or(Some(self.began));
        }
        let after = self.position.0.get(&machine.to_string()).cloned();
        let host = self.host(machine).unwrap_or_else(|| machine.short());
        Source {
            node: Arc::clone(&self.node),
            user: self.user.clone(),
            machine,
            host,
            query,
            after,
            began: self.began,
            said: self.said.clone(),
        }
    }

    fn hear(&mut self, said: Said) -> Option<Tell> {
        match said {
            Said::Line(machine, line) => {
                let asked = |unit: UnitName| any_selects(&self.wanted.selectors, &unit);
                if line.unit.parse().is_ok_and(asked) {
                    self.merge.push(machine, *line, Instant::now());
                } else {
                    tracing::warn!(%machine, unit = line.unit, "a machine sent a line that was not asked for; left out");
                }
                None
            }
            // Lines that are held back carry their own position, and come first.
            Said::Position(machine, at) => (!self.merge.holds(machine)).then_some(Tell::Position(at)),
            Said::Quiet(machine, why) => {
                self.merge.close(machine);
                let reason = |why| format!("{why}; its lines follow when it answers");
                why.map(|why| self.notice(machine, reason(why)))
            }
            Said::Back(machine) => {
                self.merge.open(machine);
                None
            }
            Said::Over(machine) => {
                self.merge.close(machine);
                None
            }
            Said::Missing(machine, why) => {
                self.merge.close(machine);
                Some(self.notice(machine, why))
            }
            Said::Refused(error) => Some(Tell::Refused(error)),
        }
    }

    fn notice(&self, machine: MachineId, reason: String) -> Tell {
        Tell::Notice(JournalNotice { host: self.host(machine), machine: Some(machine.to_string()), reason })
    }

    fn host(&self, machine: MachineId) -> Option<String> {
        self.reader.host(machine)
    }
}
