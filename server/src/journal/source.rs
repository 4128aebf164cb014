//! The machines of a merged stream, and the stream itself.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use flotilla_agent::journal::Cursor;
use flotilla_api::{
    client::ClientError,
    error::ErrorBody,
    journal::{JournalLine, JournalQuery, Position},
};
use flotilla_engine::{PAGE_MAX, StateReader};
use flotilla_units::{MachineId, UnitName};
use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{Lines, Wanted, merge::Merge, refusal};
use crate::{
    forward,
    identity::User,
    node::Node,
    select::any_selects,
    stream::{Feed, Gone},
};

/// How long lines are held back unless asked otherwise.
const HOLD: Duration = Duration::from_millis(500);

/// The longest that a client may have lines held back.
const HOLD_MAX: Duration = Duration::from_secs(10);

/// How many lines wait between the machines and the merge.
const QUEUE: usize = 1_024;

/// The first wait before a machine that was lost is asked again.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest wait before a machine that was lost is asked again.
const RETRY_MAX: Duration = Duration::from_secs(3);

/// What a machine's task says.
enum Said {
    Line(MachineId, Box<JournalLine>),
    /// Nothing is to be expected from it for now.
    Quiet(MachineId),
    /// It is read again.
    Back(MachineId),
    /// It has said everything, or will never say anything.
    Over(MachineId, Option<ErrorBody>),
}

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
    let mut stream = Merged {
        node,
        reader,
        user,
        wanted,
        position: position.unwrap_or_default(),
        began: Timestamp::now(),
        merge: Merge::new(hold),
        machines: BTreeMap::new(),
        tasks: JoinSet::new(),
        said,
    };
    let mut doorbell = stream.reader.changed();
    stream.join_machines(true);
    loop {
        while let Some((machine, line)) = stream.merge.pop(Instant::now()) {
            let id = Position([(machine.to_string(), line.cursor.clone())].into()).to_string();
            feed.say(Some(id), &line).await?;
        }
        if !stream.wanted.query.follow && stream.merge.is_over() {
            return Ok(());
        }
        let turn = stream.merge.deadline();
        tokio::select! {
            heard = hear.recv() => {
                if let Some(Err(error)) = heard.map(|said| stream.hear(said)) {
                    feed.fail(&error).await;
                    return Ok(());
                }
            }
            () = async { sleep_until(turn.unwrap_or_else(Instant::now)).await }, if turn.is_some() => {}
            rung = doorbell.changed(), if stream.wanted.query.follow => {
                if rung.is_err() || stream.node.reader().is_none() {
                    let message = "this machine has given up its seat; ask again".to_owned();
                    let kind = flotilla_api::error::ErrorKind::Unavailable;
                    feed.fail(&ErrorBody { kind, message, details: Vec::new() }).await;
                    return Ok(());
                }
                stream.join_machines(false);
            }
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
    /// The units that each machine's task was told of.
    machines: BTreeMap<MachineId, Vec<UnitName>>,
    tasks: JoinSet<()>,
    said: mpsc::Sender<Said>,
}

impl Merged {
    /// Begins to read machines that have a unit the stream is about and are not read yet.
    fn join_machines(&mut self, first: bool) {
        for (machine, units) in self.homes() {
            if self.machines.contains_key(&machine) {
                continue;
            }
            self.merge.open(machine);
            let source = self.source(machine, &units, first);
            self.machines.insert(machine, units);
            self.tasks.spawn(source.run());
        }
    }

    /// Returns the machines that have units of the stream, departing ones included.
    fn homes(&self) -> BTreeMap<MachineId, Vec<UnitName>> {
        let selects = |name: &UnitName| any_selects(&self.wanted.selectors, name);
        let mut homes: BTreeMap<MachineId, Vec<UnitName>> = BTreeMap::new();
        let mut after: Option<UnitName> = None;
        loop {
            let page = self.reader.units(after.as_ref(), PAGE_MAX, selects);
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

    fn source(&self, machine: MachineId, units: &[UnitName], first: bool) -> Source {
        let mut query = self.wanted.query.clone();
        // The patterns, for units that come later, and the names that they stand for now.
        let names: Vec<&str> = units.iter().map(UnitName::as_str).collect();
        query.units = format!("{},{}", self.wanted.query.units, names.join(","));
        if !first {
            // Its units came while the stream was open: all that they say belongs to it.
            query.lines = None;
            query.since = Some(self.began);
        }
        let after = self.position.0.get(&machine.to_string()).cloned();
        Source {
            node: Arc::clone(&self.node),
            user: self.user.clone(),
            machine,
            query,
            after,
            said: self.said.clone(),
        }
    }

    fn hear(&mut self, said: Said) -> Result<(), ErrorBody> {
        match said {
            Said::Line(machine, line) => self.merge.push(machine, *line, Instant::now()),
            Said::Quiet(machine) => self.merge.close(machine),
            Said::Back(machine) => self.merge.open(machine),
            Said::Over(machine, error) => {
                self.merge.close(machine);
                if let Some(error) = error {
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// One machine's lines, read until there are no more.
struct Source {
    node: Arc<Node>,
    user: User,
    machine: MachineId,
    query: JournalQuery,
    after: Option<String>,
    said: mpsc::Sender<Said>,
}

/// How one connection ended.
enum End {
    Over(Option<ErrorBody>),
    Lost,
}

impl Source {
    async fn run(mut self) {
        let mut wait = RETRY_FIRST;
        loop {
            let before = self.after.clone();
            let end =
                if self.machine == self.node.machine { self.local().await } else { self.remote().await };
            match end {
                End::Over(error) => {
                    let _stream_is_gone = self.said.send(Said::Over(self.machine, error)).await;
                    return;
                }
                // Without `follow` a machine that cannot be asked is left out rather than waited for.
                End::Lost if !self.query.follow => {
                    let _stream_is_gone = self.said.send(Said::Over(self.machine, None)).await;
                    return;
                }
                End::Lost => {}
            }
            if self.said.send(Said::Quiet(self.machine)).await.is_err() {
                return;
            }
            wait = if self.after == before { (wait * 2).min(RETRY_MAX) } else { RETRY_FIRST };
            sleep(wait).await;
        }
    }

    async fn local(&mut self) -> End {
        let wanted = match Wanted::read(self.query.clone()) {
            Ok(wanted) => wanted,
            Err(e) => return End::Over(Some(e.0)),
        };
        let mut lines = Lines::new(&self.node, &wanted, self.after.clone().map(Cursor));
        if self.said.send(Said::Back(self.machine)).await.is_err() {
            return End::Over(None);
        }
        while let Some(line) = lines.next().await {
            match line {
                Ok(line) => {
                    if !self.say(line).await {
                        return End::Over(None);
                    }
                }
                Err(e) => return End::Over(Some(refusal(&e))),
            }
        }
        if self.query.follow { End::Lost } else { End::Over(None) }
    }

    async fn remote(&mut self) -> End {
        let client = match forward::to_machine(&self.node, self.machine, &self.user).await {
            Ok(client) => client,
            Err(e) => {
                tracing::debug!(machine = %self.machine, error = %e.0, "a machine's journal cannot be read");
                return End::Lost;
            }
        };
        let machine = self.machine.to_string();
        let position = self.after.clone().map(|after| Position([(machine.clone(), after)].into()));
        let mut stream = match client.machine_journal(&machine, &self.query, position.as_ref()).await {
            Ok(stream) => stream,
            Err(e) => return Self::lost(e),
        };
        if self.said.send(Said::Back(self.machine)).await.is_err() {
            return End::Over(None);
        }
        loop {
            match stream.next().await {
                Ok(Some(event)) => {
                    if !self.say(event.data).await {
                        return End::Over(None);
                    }
                }
                Ok(None) if self.query.follow => return End::Lost,
                Ok(None) => return End::Over(None),
                Err(e) => return Self::lost(e),
            }
        }
    }

    async fn say(&mut self, line: JournalLine) -> bool {
        self.after = Some(line.cursor.clone());
        self.said.send(Said::Line(self.machine, Box::new(line))).await.is_ok()
    }

    fn lost(error: ClientError) -> End {
        match error {
            ClientError::Refused(body) if body.kind.status() < 500 => End::Over(Some(body)),
            _ => End::Lost,
        }
    }
}
