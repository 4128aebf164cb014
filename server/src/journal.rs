//! Journals: of this machine, and of all machines merged.
//!
//! A merged stream has one task per machine that has, or had, a unit it is about.
//! Each reads by cursor and goes on where it was when its connection is lost; new
//! machines join as units are placed on them.

mod merge;
mod source;

use std::{sync::Arc, time::Duration};

use flotilla_agent::journal::{Cursor, JournalError, LogEntry, Query};
use flotilla_api::{
    error::{ErrorBody, ErrorKind},
    journal::{JournalLine, JournalQuery, Position},
};
use flotilla_units::{Glob, UnitName};
use futures_util::StreamExt as _;
use jiff::Timestamp;

pub(crate) use source::merged;

use crate::{
    error::ApiError,
    node::Node,
    select::Selector,
    stream::{Feed, Gone},
};

/// How long the journal may take to show a unit's last lines for its status. As a rule it is some
/// milliseconds; a huge journal on a slow disk takes seconds, and the status says enough without.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(5);

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
        if selectors.is_empty() {
            return Err(ApiError::bad_request("the query names no unit; name at least one unit or pattern"));
        }
        if query.priority.is_some_and(|priority| priority > 7) {
            return Err(ApiError::bad_request("priority is not between 0 (emergency) and 7 (debug)"));
        }
        Ok(Self { selectors, query })
    }

    fn names(&self) -> Vec<UnitName> {
        let name = |selector: &Selector| match selector {
            Selector::Name(name) => Some(name.clone()),
            Selector::Pattern(_) => None,
        };
        self.selectors.iter().filter_map(name).collect()
    }

    fn globs(&self) -> Vec<Glob> {
        let glob = |selector: &Selector| match selector {
            Selector::Pattern(glob) => Some(glob.clone()),
            Selector::Name(_) => None,
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
    let mut lines = Lines::new(&node, &wanted, after);
    while let Some(line) = lines.next().await {
        match line {
            Ok(line) => {
                let id = Position([(line.machine.clone(), line.cursor.clone())].into()).to_string();
                feed.say(Some(id), &line).await?;
            }
            Err(e) => {
                feed.fail(&refusal(&e)).await;
                return Ok(());
            }
        }
    }
    Ok(())
}

fn refusal(error: &JournalError) -> ErrorBody {
    let kind = match error {
        JournalError::NoUnit => ErrorKind::BadRequest,
        _ => ErrorKind::Unavailable,
    };
    ErrorBody { kind, message: error.to_string(), details: Vec::new() }
}

/// This machine's lines for a query.
///
/// The journal counts its last lines over all units, so for a pattern the lines to begin with are
/// those of the units that the pattern stands for now, which the asking seat names; after them it
/// goes on with the pattern, right behind the last of them.
struct Lines {
    node: Arc<Node>,
    stream: futures_util::stream::BoxStream<'static, Result<LogEntry, JournalError>>,
    /// What comes when `stream` has ended.
    then: Option<Query>,
    last: Option<Cursor>,
}

impl Lines {
    fn new(node: &Arc<Node>, wanted: &Wanted, after: Option<Cursor>) -> Self {
        let mut query = wanted.agents();
        let mut then = None;
        if after.is_some() {
            query.after.clone_from(&after);
        } else if query.lines.is_some() && query.since.is_none() && !query.globs.is_empty() {
            let follow = query.follow;
            // From before the first read on, so that nothing falls between the two.
            let rest = Query { since: Some(Timestamp::now()), lines: None, ..query.clone() };
            then = follow.then_some(rest);
            query = Query { globs: Vec::new(), follow: false, ..query };
        }
        let stream = if query.units.is_empty() && query.globs.is_empty() {
            futures_util::stream::empty().boxed()
        } else {
            node.journal.follow(query)
        };
        Self { node: Arc::clone(node), stream, then, last: after }
    }

    async fn next(&mut self) -> Option<Result<JournalLine, JournalError>> {
        loop {
            match self.stream.next().await {
                Some(Ok(entry)) => {
                    self.last = Some(entry.cursor.clone());
                    return Some(Ok(line(&self.node, entry)));
                }
                // One line that cannot be read is not worth the others.
                Some(Err(e @ (JournalError::TooLong { .. } | JournalError::Unreadable { .. }))) => {
                    tracing::warn!(error = %e, "a line of the journal was left out");
                }
                Some(Err(e)) => return Some(Err(e)),
                None => {
                    let mut query = self.then.take()?;
                    query.after = self.last.clone();
                    self.stream = self.node.journal.follow(query);
                }
            }
        }
    }
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
