//! Journals, streamed.
//!
//! The stream is server-sent events. One without a kind is a [`JournalLine`]. One of
//! the kind `position` is a [`JournalPosition`]: how far a machine is read that may not
//! have had a line yet. One of the kind `notice` is a [`JournalNotice`]: what the stream
//! lacks. The `id:` of the first two is the [`Position`] of their machine alone. A
//! client puts them together, and after a lost connection sends the whole as
//! `Last-Event-ID`: it goes on with the very next line of each machine. For machines
//! that are in no position yet it asks, with `since`, for all from when it began.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// One line of a unit's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JournalLine {
    /// The unit.
    pub unit: String,
    /// The machine's host name.
    pub host: String,
    /// The machine's id.
    pub machine: String,
    /// When, in microseconds since 1970 by the machine's clock.
    pub realtime_us: u64,
    /// syslog's priority, 0 (emergency) to 7 (debug).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// The process that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// `SYSLOG_IDENTIFIER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<String>,
    /// The line. Bytes that are not UTF-8 are shown as U+FFFD.
    pub message: String,
    /// The unit's invocation that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<String>,
    /// The journal's own cursor of this line on its machine.
    pub cursor: String,
}

/// How far a machine's journal is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JournalPosition {
    /// The machine's id.
    pub machine: String,
    /// Every line up to this one has been looked at.
    pub cursor: String,
}

/// Something that a journal's stream lacks, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JournalNotice {
    /// The host name of the machine that it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The machine's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// What is lacking, why, and what to do.
    pub reason: String,
}

/// What a journal's stream says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum JournalEvent {
    /// A line.
    Line(Box<JournalLine>),
    /// How far a machine is read that may not have had a line yet.
    Position(JournalPosition),
    /// What the stream lacks.
    Notice(JournalNotice),
}

impl JournalEvent {
    /// The kind of the events that are a [`JournalPosition`].
    pub const POSITION: &str = "position";

    /// The kind of the events that are a [`JournalNotice`].
    pub const NOTICE: &str = "notice";
}

/// Which lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JournalQuery {
    /// Units, names or globs, separated by commas.
    pub units: String,
    /// Go on with lines as they are written, also of units that come later.
    #[serde(default)]
    pub follow: bool,
    /// How many of the newest lines of each machine to begin with; absent for all since `since`,
    /// which goes before it. At most 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(maximum = 10_000)]
    pub lines: Option<u32>,
    /// Not before this time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Only lines of this syslog priority and graver: 0 (emergency) to 7 (debug).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Only lines that match this regular expression (PCRE2, as `journalctl --grep`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grep: Option<String>,
    /// How long lines are held back so that lines of different machines can be put in order of
    /// time, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u64>,
}

impl JournalQuery {
    /// The most of `lines`: they may have to be held before the first is known. Whoever wants more
    /// wants all since a time.
    pub const LINES_MAX: u32 = 10_000;
}

/// How far a merged stream has come: the cursor of the last line sent, for each machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position(pub BTreeMap<String, String>);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Cursors consist of `key=value` pairs joined by `;`, and machine ids are hexadecimal: `~`
        // and `,` are in neither.
        for (i, (machine, cursor)) in self.0.iter().enumerate() {
            write!(f, "{}{machine}~{cursor}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pairs = text.split(',').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| match pair.split_once('~') {
                Some((machine, cursor)) => Ok((machine.to_owned(), cursor.to_owned())),
                None => Err(format!("`{pair}` is not a journal position: expected MACHINE~CURSOR")),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_back() {
        let mut position = Position::default();
        position.0.insert("aa".to_owned(), "s=1;i=2;b=3;m=4;t=5;x=6".to_owned());
        position.0.insert("bb".to_owned(), "s=7".to_owned());
        assert_eq!(position.to_string().parse(), Ok(position));
        assert_eq!("".parse(), Ok(Position::default()));
        assert!("nonsense".parse::<Position>().is_err());
    }
}
