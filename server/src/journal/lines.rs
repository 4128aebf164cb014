//! This machine's lines for one query, and how far it has been read.

use std::{collections::VecDeque, sync::Arc};

use flotilla_agent::journal::{Cursor, JournalError, LogEntry, Query};
use flotilla_api::journal::{JournalLine, JournalPosition};
use futures_util::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use jiff::Timestamp;

use super::{Wanted, line};
use crate::node::Node;

/// This machine's lines for a query.
///
/// The newest lines of a followed journal are read first and by themselves: the journal counts them
/// over all units, so for a pattern they are those of the units that it stands for now, which the
/// asking seat names; and where a regular expression is searched for, it counts only what matches.
/// Then everything behind them is followed, from a place that was found before: a unit that says
/// nothing for a day has a position from the first moment on.
pub(super) struct Lines {
    node: Arc<Node>,
    stream: BoxStream<'static, Result<LogEntry, JournalError>>,
    /// What comes when `stream` has ended.
    then: Option<Query>,
    last: Option<Cursor>,
}

/// What was read.
pub(super) enum Read {
    Line(JournalLine),
    /// The newest lines have been read, and what follows is read from here on.
    Position(JournalPosition),
}

impl Lines {
    /// Begins to read, behind `after` if there is one.
    ///
    /// # Errors
    /// The journal's end cannot be found.
    pub(super) async fn begin(
        node: &Arc<Node>,
        wanted: &Wanted,
        after: Option<Cursor>,
    ) -> Result<Self, JournalError> {
        let mut query = wanted.agents();
        let (mut then, mut nothing) = (None, false);
        if after.is_some() {
            query.after.clone_from(&after);
        } else if query.lines.is_some() && query.since.is_none() {
            if query.follow {
                let (now, end) = (Timestamp::now(), node.journal.end().await?);
                // A journal without a line has no place in it to begin at.
                let since = end.is_none().then_some(now);
                then = Some(Query { since, lines: None, after: end, ..query.clone() });
            }
            query.follow = false;
            nothing = query.lines == Some(0);
            if !query.units.is_empty() {
                query.globs.clear();
            }
        }
        let stream = match query.lines.filter(|_| query.units.is_empty() && query.after.is_none()) {
            _ if nothing => stream::empty().boxed(),
            // Asked directly, so that no seat has named the units: all lines are read to find the last.
            Some(lines) if query.since.is_none() => {
                let all = node.journal.follow(Query { lines: None, ..query });
                stream::once(newest(all, lines as usize)).flatten().boxed()
            }
            _ => node.journal.follow(query),
        };
        Ok(Self { node: Arc::clone(node), stream, then, last: after })
    }

    /// Returns what comes next.
    pub(super) async fn next(&mut self) -> Option<Result<Read, JournalError>> {
        loop {
            match self.stream.next().await {
                Some(Ok(entry)) => {
                    self.last = Some(entry.cursor.clone());
                    return Some(Ok(Read::Line(line(&self.node, entry))));
                }
                // One line that cannot be read is not worth the others.
                Some(Err(e @ (JournalError::TooLong { .. } | JournalError::Unreadable { .. }))) => {
                    let after = self.last.as_ref().map_or("its beginning", |last| last.0.as_str());
                    tracing::warn!(error = %e, after, "a line of the journal was left out of a stream");
                }
                Some(Err(e)) => return Some(Err(e)),
                None => {
                    let mut query = self.then.take()?;
                    let newer = |last: &Cursor| query.after.as_ref().is_none_or(|end| last.is_after(end));
                    if let Some(last) = self.last.take_if(|last| newer(last)) {
                        query.after = Some(last);
                    }
                    let begun = query.after.clone();
                    self.stream = self.node.journal.follow(query);
                    if let Some(Cursor(cursor)) = begun {
                        let machine = self.node.machine.to_string();
                        return Some(Ok(Read::Position(JournalPosition { machine, cursor })));
                    }
                }
            }
        }
    }
}

/// Reads a stream to its end and keeps its last lines, and what went wrong.
async fn newest(
    mut stream: BoxStream<'static, Result<LogEntry, JournalError>>,
    lines: usize,
) -> impl Stream<Item = Result<LogEntry, JournalError>> {
    let mut kept = VecDeque::new();
    while let Some(read) = stream.next().await {
        kept.push_back(read);
        if kept.len() > lines {
            kept.pop_front();
        }
    }
    stream::iter(kept)
}
