//! The journal of this machine's units, line by line.
//!
//! [`LogSource`] is what the server reads; [`Journalctl`] is the real one. A line is named by its
//! journal's cursor: whoever was cut off asks again with the cursors it has, and gets each later
//! line once. Nothing here keeps a line, and nothing ever starts "now": a query without a beginning
//! begins at the moment that it was made.

use std::{collections::BTreeMap, io, time::Duration};

use async_trait::async_trait;
use flotilla_units::{Glob, UnitName};
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod command;
mod decode;
mod journalctl;

pub use journalctl::Journalctl;

/// The most that is held of lines whose order or number is known only at their end, in bytes of
/// memory. Ten thousand ordinary lines are some 5 MB, and lines of 48 KiB exist.
pub const HELD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Which lines are wanted.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Lines of these units.
    pub units: Vec<UnitName>,
    /// And of all units, also those that come later, whose name matches one of these.
    pub globs: Vec<Glob>,
    /// Only lines from then on.
    pub since: Option<Timestamp>,
    /// Only the last of the lines that are there already, counted over all units of the query. It
    /// says nothing (0 apart) where there is a `since`. With `follow`, `grep` is applied only after
    /// counting; whoever wants the last that match asks for them first, without `follow`.
    pub lines: Option<u32>,
    /// The last line that the asker has, for each unit: only what comes after it is given. Where
    /// there is one, neither `since` nor `lines` counts for that unit.
    pub cursors: BTreeMap<UnitName, Cursor>,
    /// The last line that the asker has of the whole query: only what comes after it is given, and
    /// nothing else says where to begin.
    pub after: Option<Cursor>,
    /// Only lines of this priority and more important ones (0 emergency to 7 debug).
    pub priority: Option<u8>,
    /// Only lines whose message matches this regular expression (journalctl's `--grep`).
    pub grep: Option<String>,
    /// Go on with lines as they come.
    pub follow: bool,
    /// Only lines of this start of a unit (`InvocationID`).
    pub invocation: Option<String>,
}

/// Where a line is in its journal, as the journal says it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub String);

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Whose line it is: the unit that wrote it, or that PID 1 wrote about.
    pub unit: UnitName,
    /// Where it is.
    pub cursor: Cursor,
    /// When it came, in microseconds since 1970.
    pub realtime_us: u64,
    /// When it came, in microseconds since the machine booted.
    pub monotonic_us: u64,
    /// 0 (emergency) to 7 (debug).
    pub priority: Option<u8>,
    /// The process that wrote it.
    pub pid: Option<u32>,
    /// What that process calls itself (`SYSLOG_IDENTIFIER`).
    pub identifier: Option<String>,
    /// What it wrote.
    pub message: LogMessage,
    /// Which start of the unit it belongs to.
    pub invocation: Option<String>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LogMessage {
    /// Text.
    Text(String),
    /// Something that is not UTF-8.
    Bytes(Vec<u8>),
}

/// Why lines cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// journalctl cannot be run.
    #[error("cannot run journalctl; is systemd's journal installed?")]
    CannotRun(#[source] io::Error),
    /// journalctl failed, and failed again when it was started anew.
    #[error("journalctl ended with {status}: {said}")]
    Failed {
        /// How it ended.
        status: String,
        /// What it said last.
        said: String,
    },
    /// One line is more than can be handed on. The stream goes on behind it.
    #[error("a line of more than {limit} bytes in the journal was left out")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// A line is not the JSON that was expected. The stream goes on behind it.
    #[error("a line of the journal cannot be understood: {why}")]
    Unreadable {
        /// What the decoder said.
        why: String,
    },
    /// Too many are reading already.
    #[error("{limit} readers follow this machine's journal already; end one of them and ask again")]
    TooMany {
        /// How many are allowed.
        limit: usize,
    },
    /// The query asks for nothing.
    #[error("the query names no unit; name at least one unit or pattern")]
    NoUnit,
    /// The regular expression is none.
    #[error("journalctl does not understand the pattern to search for: {said}")]
    Pattern {
        /// What it said.
        said: String,
    },
    /// More of the last lines that match are wanted than can be put in order.
    #[error(
        "{wanted} lines that match a pattern are more than {limit}; ask for fewer, or for all since a time"
    )]
    TooManyMatches {
        /// How many were asked for.
        wanted: u32,
        /// How many are given at most.
        limit: u32,
    },
    /// The last lines, as many as are wanted, are too long to be held.
    #[error(
        "the last lines, as many as were asked for, are more than {} MiB; ask for fewer, or for all since a time",
        HELD_BYTES_MAX >> 20
    )]
    TooMuch,
    /// The user that flotillad runs as may read no journal, and has none of their own.
    #[error(
        "this user may not read the machine's journal and has none of their own: journald keeps one for each user \
         only on disk; as root, either `mkdir -p /var/log/journal && journalctl --flush`, or add the user to the group \
         systemd-journal and start their flotillad in a new session"
    )]
    MayNotRead,
    /// journalctl did not tell where the journal ends.
    #[error("journalctl did not say within {} s where the journal ends; is its disk slow?", .within.as_secs())]
    NoEnd {
        /// How long it had.
        within: Duration,
    },
}

/// Where lines come from.
#[async_trait]
pub trait LogSource: std::fmt::Debug + Send + Sync + 'static {
    /// Returns the lines that a query asks for, in the journal's order.
    ///
    /// # Guarantees
    /// While the stream is polled, every line that matches comes once, also over restarts of what
    /// reads the journal. Without `follow` the stream ends after the last line there is.
    ///
    /// # Errors
    /// [`JournalError::TooLong`] and [`JournalError::Unreadable`] are about one line; after any
    /// other the stream ends.
    ///
    /// # Cancellation
    /// Dropping the stream ends everything behind it.
    fn follow(&self, query: Query) -> BoxStream<'static, Result<LogEntry, JournalError>>;

    /// Returns the journal's last line of all, whoever wrote it: what is asked for after it is all
    /// that comes from now on. `None` if there is no line.
    ///
    /// # Errors
    /// The journal cannot be read.
    async fn end(&self) -> Result<Option<Cursor>, JournalError>;
}

impl Cursor {
    /// Returns a field of the cursor (`s=...;i=...;b=...;m=...;t=...;x=...`).
    fn field(&self, name: char) -> Option<&str> {
        self.0.split(';').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
    }

    fn number(&self, name: char) -> Option<u64> {
        u64::from_str_radix(self.field(name)?, 16).ok()
    }

    /// Returns whether this line comes after another in the journal: by sequence number within one
    /// run of journald, by time of day between runs.
    #[must_use]
    pub fn is_after(&self, other: &Self) -> bool {
        let same_run = self.field('s').is_some() && self.field('s') == other.field('s');
        let field = if same_run { 'i' } else { 't' };
        self.number(field) > other.number(field)
    }
}

impl LogEntry {
    /// Returns how much memory the line takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let message = match &self.message {
            LogMessage::Text(text) => text.len(),
            LogMessage::Bytes(bytes) => bytes.len(),
        };
        let others = [self.identifier.as_ref(), self.invocation.as_ref(), Some(&self.cursor.0)];
        size_of::<Self>() + message + others.into_iter().flatten().map(String::len).sum::<usize>()
    }
}

impl LogMessage {
    /// Returns the message for people, with what is not UTF-8 replaced.
    #[must_use]
    pub fn to_text(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Self::Text(text) => text.into(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes),
        }
    }
}

impl Query {
    /// Returns whether a unit's lines are wanted.
    #[must_use]
    pub fn wants(&self, unit: &UnitName) -> bool {
        self.units.contains(unit) || self.globs.iter().any(|glob| glob.matches(unit.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_ordered_within_and_between_runs_of_journald() {
        let cursor = |s: &str, i: u64, t: u64| Cursor(format!("s={s};i={i:x};b=bb;m=1;t={t:x};x=1"));
        assert!(cursor("a", 16, 5).is_after(&cursor("a", 9, 5)));
        assert!(!cursor("a", 9, 9).is_after(&cursor("a", 9, 1)));
        assert!(cursor("b", 1, 17).is_after(&cursor("a", 99, 9)));
        assert!(!cursor("b", 99, 9).is_after(&cursor("a", 1, 17)));
        assert!(!Cursor("rubbish".to_owned()).is_after(&cursor("a", 1, 1)));
    }
}
