//! Journals: of this machine, and of all machines merged.
//!
//! A merged stream has one task per machine that has, or had, a unit it is about.
//! Each reads by cursor and goes on where it was when its connection is lost; new
//! machines join as units are placed on them.

mod lines;
mod merge;
mod merged;
mod source;

use std::{sync::Arc, time::Duration};

use flotilla_agent::journal::{Cursor, JournalError, LogEntry, Query};
use flotilla_api::{
    error::{ErrorBody, ErrorKind},
    journal::{JournalEvent, JournalLine, JournalQuery, Position},
};
use flotilla_engine::StateReader;
use flotilla_units::{Glob, UnitName};
use futures_util::StreamExt as _;
use lines::{Lines, Read};

pub(crate) use merged::merged;

use crate::{
    error::{ApiError, chain},
    node::Node,
    routes::no_such_unit,
    select::Selector,
    stream::{Feed, Gone},
};

/// How long the journal may take to show a unit's last lines for its status. As a rule it is some
/// milliseconds; a huge journal on a slow disk takes seconds, and the status says enough without. Another
/// machine that asks gives the whole status 5 s.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(2);

/// A query in the words of the agent.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) selectors: Vec<Selector>,
    pub(crate) query: JournalQuery,
}

impl Wanted {
    /// Reads what a user asks for.
    pub(crate) fn read(query: JournalQuery) -> Result<Self, ApiError> {
        let selectors = Selector::read_list(Some(&query.units))?;
        if selectors.iter().any(|selector| matches!(selector, Selector::Range(_))) {
            let why = "journals are of units and patterns, and not of ranges; `web@*` means all instances";
            return Err(ApiError::bad_request(why));
        }
        if selectors.is_empty() {
            return Err(ApiError::bad_request("the query names no unit; name at least one unit or pattern"));
        }
        if query.priority.is_some_and(|priority| priority > 7) {
            return Err(ApiError::bad_request("priority is not between 0 (emergency) and 7 (debug)"));
        }
        if query.lines.is_some_and(|lines| lines > JournalQuery::LINES_MAX) {
            return Err(ApiError::bad_request(format!(
                "lines is above {}, the most of each machine's newest that are given; ask for all since a time",
                JournalQuery::LINES_MAX
            )));
        }
        Ok(Self { selectors, query })
    }

    /// Refuses units that the cluster does not know: a misspelt name would else be a silent journal.
    pub(crate) fn are_known(&self, reader: &StateReader) -> Result<(), ApiError> {
        let unknown = self.names().into_iter().find(|name| reader.unit(name).0.is_none());
        unknown.map_or(Ok(()), |name| Err(no_such_unit(&name)))
    }

    fn names(&self) -> Vec<UnitName> {
        let name = |selector: &Selector| match selector {
            Selector::Name(name) => Some(name.clone()),
            Selector::Pattern(_) | Selector::Range(_) => None,
        };
        self.selectors.iter().filter_map(name).collect()
    }

    fn globs(&self) -> Vec<Glob> {
        let glob = |selector: &Selector| match selector {
            Selector::Pattern(glob) => Some(glob.clone()),
            Selector::Name(_) | Selector::Range(_) => None,
        };
        self.selectors.iter().filter_map(glob).collect()
    }

    fn agents(&self) -> Query {
        Query {
            units: self.names(),
            globs: self.globs(),
            since: self.query.since,
            lines: self.query.lines,
            priority: self.query.priority,
            grep: self.query.grep.clone(),
            follow: self.query.follow,
            ..Query::default()
        }
    }
}

/// Reads the cursor of this machine out of the position that a client sent.
pub(crate) fn cursor_of(node: &Node, position: Option<&Position>) -> Option<Cursor> {
    position.and_then(|position| position.0.get(&node.machine.to_string())).cloned().map(Cursor)
}

/// Streams this machine's lines into `feed`.
pub(crate) async fn this_machine(
    node: Arc<Node>,
    wanted: Wanted,
    after: Option<Cursor>,
    feed: Feed,
) -> Result<(), Gone> {
    if let Err(e) = read_into(&node, &wanted, after, &feed).await? {
        feed.fail(&refusal(&e)).await;
    } else if wanted.query.follow {
        let message = "the journal's reader ended; ask again from where it was".to_owned();
        feed.fail(&ErrorBody { kind: ErrorKind::Unavailable, message, details: Vec::new() }).await;
    }
    Ok(())
}

async fn read_into(
    node: &Arc<Node>,
    wanted: &Wanted,
    after: Option<Cursor>,
    feed: &Feed,
) -> Result<Result<(), JournalError>, Gone> {
    let mut lines = match Lines::begin(node, wanted, after).await {
        Ok(lines) => lines,
        Err(e) => return Ok(Err(e)),
    };
    while let Some(read) = lines.next().await {
        match read {
            Ok(Read::Line(line)) => feed.say(Some(place(&line.machine, &line.cursor)), &line).await?,
            Ok(Read::Position(at)) => {
                feed.tell(JournalEvent::POSITION, Some(place(&at.machine, &at.cursor)), &at).await?;
            }
            Err(e) => return Ok(Err(e)),
        }
    }
    Ok(Ok(()))
}

/// Spells how far one machine is read.
fn place(machine: &str, cursor: &str) -> String {
    Position([(machine.to_owned(), cursor.to_owned())].into()).to_string()
}

fn refusal(error: &JournalError) -> ErrorBody {
    let kind = match error {
        JournalError::NoUnit
        | JournalError::Pattern { .. }
        | JournalError::TooManyMatches { .. }
        | JournalError::TooMuch => ErrorKind::BadRequest,
        _ => ErrorKind::Unavailable,
    };
    ErrorBody { kind, message: chain(error), details: Vec::new() }
}

fn line(node: &Node, entry: LogEntry) -> JournalLine {
    JournalLine {
        unit: entry.unit.to_string(),
        host: node.host.clone(),
        machine: node.machine.to_string(),
        realtime_us: entry.realtime_us,
        priority: entry.priority,
        pid: entry.pid,
        identifier: entry.identifier,
        message: entry.message.to_text().into_owned(),
        invocation: entry.invocation,
        cursor: entry.cursor.0,
    }
}

/// Returns the last lines of a unit on this machine, oldest first; none when they cannot be had.
pub(crate) async fn last_lines(node: &Arc<Node>, unit: &UnitName, lines: u32) -> Vec<JournalLine> {
    if lines == 0 {
        return Vec::new();
    }
    let query = Query { units: vec![unit.clone()], lines: Some(lines), ..Query::default() };
    let mut entries = node.journal.follow(query);
    let read = async {
        let mut lines = Vec::new();
        while let Some(entry) = entries.next().await {
            // One line that cannot be read is not worth the others.
            lines.extend(entry.ok().map(|entry| line(node, entry)));
        }
        lines
    };
    tokio::time::timeout(LAST_LINES_TIMEOUT, read).await.unwrap_or_default()
}
