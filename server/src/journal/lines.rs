//! This machine's lines for one query, and how far it has been read.

use std::{collections::VecDeque, sync::Arc};

use flotilla_agent::journal::{Cursor, HELD_BYTES_MAX, JournalError, LogEntry, Query};
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

/// Reads a stream to its end and keeps its last lines, and what went wrong. If they are too long to be
/// held, that is all it says.
async fn newest(
    mut stream: BoxStream<'static, Result<LogEntry, JournalError>>,
    lines: usize,
) -> impl Stream<Item = Result<LogEntry, JournalError>> {
    let bytes_of = |read: &Result<LogEntry, JournalError>| read.as_ref().map_or(0, LogEntry::bytes);
    let (mut kept, mut bytes, mut lacks) = (VecDeque::new(), 0, false);
    while let Some(read) = stream.next().await {
        bytes += bytes_of(&read);
        kept.push_back(read);
        while kept.len() > lines || bytes > HELD_BYTES_MAX {
            // What is behind the last lines when all are read does not lack.
            lacks |= kept.len() <= lines;
            bytes -= kept.pop_front().as_ref().map_or(0, bytes_of);
        }
    }
    if lacks && kept.len() < lines {
        kept = VecDeque::from([Err(JournalError::TooMuch)]);
    }
    stream::iter(kept)
}

#[cfg(test)]
mod tests {
    use flotilla_agent::journal::LogMessage;

    use super::*;

    fn entry(i: u64, bytes: usize) -> LogEntry {
        LogEntry {
            unit: "a.service".parse().expect("valid"),
            cursor: Cursor(format!("s=a;i={i:x}")),
            realtime_us: i,
            monotonic_us: i,
            priority: None,
            pid: None,
            identifier: None,
            message: LogMessage::Text("x".repeat(bytes)),
            invocation: None,
        }
    }

    /// The numbers of the newest of lines that are as long as given; none if they are too much.
    async fn numbers(lengths: &[usize], lines: usize) -> Option<Vec<u64>> {
        let entries: Vec<_> = (0..).zip(lengths).map(|(i, bytes)| Ok(entry(i, *bytes))).collect();
        let kept: Vec<_> = newest(stream::iter(entries).boxed(), lines).await.collect().await;
        kept.into_iter().map(|read| read.ok().map(|entry| entry.realtime_us)).collect()
    }

    #[tokio::test]
    async fn the_newest_lines_are_kept_as_far_as_they_can_be_held() {
        let long = HELD_BYTES_MAX / 3;
        assert_eq!(numbers(&[1, 1, 1], 2).await, Some(vec![1, 2]));
        assert_eq!(numbers(&[1, long, long], 5).await, Some(vec![0, 1, 2]));
        assert_eq!(numbers(&[long; 4], 5).await, None, "the first would be missing unsaid");
        assert_eq!(numbers(&[long, long, long, 1, 1], 2).await, Some(vec![3, 4]));
        assert_eq!(numbers(&[HELD_BYTES_MAX + 1], 1).await, None);
    }
}
