//! A session: a command in a unit, or a shell on a machine, over one connection.
//!
//! The connection begins as `POST /v1/machines/{id}/sessions` with `Upgrade: flotilla-session/1`. After
//! the answer 101 both ends speak frames: a kind (one byte), a length (four, most significant first), and
//! that many bytes.
//!
//! ```text
//! client                       server
//!   Open ───────────────────────►
//!   ◄──────────── Opened | Refused           (Refused is the last)
//!   Stdin*, StdinEnd, Resize* ──►
//!   ◄──── Stdout*, Stderr*, StdinTaken*
//!   ◄──────────────────── Ended              (the last)
//!   Alive ◄───────────────► Alive            every [`ALIVE_EVERY`], in both directions
//! ```
//!
//! Of standard input at most [`STDIN_WINDOW`] bytes are under way that no `StdinTaken` has told of, so a
//! command that does not read never keeps the server from hearing that its client has gone. Output
//! waits for its reader as the connection does. What is run is in a frame and not in the address,
//! because addresses end in logs.
//!
//! This module is pure; who reads and writes frames is [`client`](crate::client) and the server.

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::ErrorBody;

/// What the connection is upgraded to.
pub const PROTOCOL: &str = "flotilla-session/1";

/// The most bytes in one frame: an `Open` with as long a command line as people and scripts make.
/// Linux takes 128 KiB for one word; a command over the limit is refused by whoever would send it.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// How many bytes of standard input may be under way, untaken. Four chunks: enough for a fast network, and little
/// enough to hold for each session.
pub const STDIN_WINDOW: usize = 256 * 1024;

/// The most bytes of input or output in one frame; what a pipe holds.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// How often each end says that it is there. Fifteen seconds: proxies cut idle connections after a minute.
pub const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// How long the other end may say nothing. Three signs of life: past them it, or its machine, is gone.
pub const SILENCE_MAX: Duration = Duration::from_secs(45);

/// The length of a frame's head: its kind and the length of the rest.
pub const HEAD_BYTES: usize = 5;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// What is to be run.
    Open(Open),
    /// It runs.
    Opened,
    /// It will not run.
    Refused(ErrorBody),
    /// Bytes for its standard input.
    Stdin(Vec<u8>),
    /// Standard input has ended.
    StdinEnd,
    /// It, or what holds its input for it, has taken so many bytes.
    StdinTaken(u32),
    /// Bytes of its standard output, or of its terminal.
    Stdout(Vec<u8>),
    /// Bytes of its standard error.
    Stderr(Vec<u8>),
    /// The terminal has another size now.
    Resize(Size),
    /// It has ended.
    Ended(Ended),
    /// A sign of life.
    Alive,
}

/// What is to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The unit to run it in; without one it runs on the machine itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The program and its arguments; on a machine none means root's login shell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The terminal that it gets; without one it gets three pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
}

/// A terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// `TERM`.
    pub term: String,
    /// Its size.
    pub size: Size,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// With an exit status.
    Exited(u8),
    /// By a signal.
    Signaled(u8),
    /// Nobody knows: what kept it has ended first.
    Lost(String),
}

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It is too long.
    #[error("a frame of {0} bytes is longer than the {FRAME_BYTES_MAX} that there may be")]
    TooLong(usize),
    /// No such kind.
    #[error("a frame of kind {0} is not known; is one of the two versions of flotilla newer?")]
    Kind(u8),
    /// The kind has another content.
    #[error("a frame of kind {kind} cannot be read: {why}")]
    Content {
        /// Which kind.
        kind: u8,
        /// What is wrong.
        why: String,
    },
}

impl Frame {
    const fn kind(&self) -> u8 {
        match self {
            Self::Open(_) => 0,
            Self::Opened => 1,
            Self::Refused(_) => 2,
            Self::Stdin(_) => 3,
            Self::StdinEnd => 4,
            Self::StdinTaken(_) => 5,
            Self::Stdout(_) => 6,
            Self::Stderr(_) => 7,
            Self::Resize(_) => 8,
            Self::Ended(_) => 9,
            Self::Alive => 10,
        }
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// It is longer than a frame may be.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let content = match self {
            Self::Open(open) => json(open),
            Self::Refused(body) => json(body),
            Self::Ended(ended) => json(ended),
            Self::Stdin(bytes) | Self::Stdout(bytes) | Self::Stderr(bytes) => {
                return head_and(self.kind(), bytes);
            }
            Self::StdinTaken(count) => count.to_be_bytes().to_vec(),
            Self::Resize(Size { rows, cols }) => [rows.to_be_bytes(), cols.to_be_bytes()].concat(),
            Self::Opened | Self::StdinEnd | Self::Alive => Vec::new(),
        };
        head_and(self.kind(), &content)
    }

    /// Reads a frame's head: its kind, and the length of its content.
    ///
    /// # Errors
    /// It is longer than a frame may be.
    pub fn head(bytes: [u8; HEAD_BYTES]) -> Result<(u8, usize), FrameError> {
        let [kind, a, b, c, d] = bytes;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > FRAME_BYTES_MAX { Err(FrameError::TooLong(length)) } else { Ok((kind, length)) }
    }

    /// Reads a frame's content.
    ///
    /// # Errors
    /// There is no such kind, or the content is not of it.
    pub fn decode(kind: u8, content: Vec<u8>) -> Result<Self, FrameError> {
        let wrong = |why: &str| FrameError::Content { kind, why: why.to_owned() };
        let empty = |frame| if content.is_empty() { Ok(frame) } else { Err(wrong("it should be empty")) };
        match kind {
            0 => read(kind, &content).map(Self::Open),
            1 => empty(Self::Opened),
            2 => read(kind, &content).map(Self::Refused),
            3 => Ok(Self::Stdin(content)),
            4 => empty(Self::StdinEnd),
            5 => {
                let count =
                    <[u8; 4]>::try_from(&content[..]).map_err(|_| wrong("it should be four bytes"))?;
                Ok(Self::StdinTaken(u32::from_be_bytes(count)))
            }
            6 => Ok(Self::Stdout(content)),
            7 => Ok(Self::Stderr(content)),
            8 => match content[..] {
                [a, b, c, d] => {
                    let (rows, cols) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                    Ok(Self::Resize(Size { rows, cols }))
                }
                _ => Err(wrong("it should be four bytes")),
            },
            9 => read(kind, &content).map(Self::Ended),
            10 => empty(Self::Alive),
            other => Err(FrameError::Kind(other)),
        }
    }
}

impl Ended {
    /// Returns the exit status that a shell would give: the command's own, or 128 and the signal's number.
    /// `None` when nobody knows.
    #[must_use]
    pub const fn status(&self) -> Option<u8> {
        match self {
            Self::Exited(status) => Some(*status),
            Self::Signaled(signal) => Some(128_u8.saturating_add(*signal)),
            Self::Lost(_) => None,
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exit status {status}"),
            Self::Signaled(signal) => write!(f, "signal {signal}"),
            Self::Lost(why) => f.write_str(why),
        }
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Strings, numbers and lists of them always serialize.
    serde_json::to_vec(value).unwrap_or_default()
}

fn read<T: DeserializeOwned>(kind: u8, content: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(content).map_err(|e| FrameError::Content { kind, why: e.to_string() })
}

fn head_and(kind: u8, content: &[u8]) -> Result<Vec<u8>, FrameError> {
    let length = u32::try_from(content.len()).ok().filter(|_| content.len() <= FRAME_BYTES_MAX);
    let length = length.ok_or(FrameError::TooLong(content.len()))?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + content.len());
    bytes.push(kind);
    bytes.extend(length.to_be_bytes());
    bytes.extend(content);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn back(frame: &Frame) -> Frame {
        let bytes = frame.encode().expect("short enough");
        let (head, content) = bytes.split_first_chunk().expect("a head");
        let (kind, length) = Frame::head(*head).expect("short enough");
        assert_eq!(length, content.len());
        Frame::decode(kind, content.to_vec()).expect("a frame")
    }

    #[test]
    fn frames_come_back_as_they_were() {
        let terminal = Terminal { term: "xterm".to_owned(), size: Size { rows: 24, cols: 80 } };
        let open = Open {
            unit: Some("web@1.service".to_owned()),
            command: vec!["sh".to_owned(), "-c".to_owned(), "echo \u{e4}; exit 7".to_owned()],
            terminal: Some(terminal),
        };
        let body =
            ErrorBody { kind: ErrorKind::NotPlaced, message: "no process".to_owned(), details: vec![] };
        let every: Vec<u8> = (0..=255).collect();
        for frame in [
            Frame::Open(open),
            Frame::Open(Open::default()),
            Frame::Opened,
            Frame::Refused(body),
            Frame::Stdin(every.clone()),
            Frame::StdinEnd,
            Frame::StdinTaken(70_000),
            Frame::Stdout(Vec::new()),
            Frame::Stdout(vec![0; CHUNK_BYTES]),
            Frame::Stderr(every),
            Frame::Resize(Size { rows: 1, cols: 65_535 }),
            Frame::Ended(Ended::Exited(7)),
            Frame::Ended(Ended::Signaled(9)),
            Frame::Ended(Ended::Lost("gone".to_owned())),
            Frame::Alive,
        ] {
            assert_eq!(back(&frame), frame);
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert_eq!(Frame::head([3, 0xff, 0, 0, 0]), Err(FrameError::TooLong(0xff00_0000)));
        assert_eq!(Frame::decode(77, vec![]), Err(FrameError::Kind(77)));
        for (kind, content) in [(0, "rubbish"), (1, "x"), (5, "abc"), (8, ""), (9, "{}"), (10, "x")] {
            let read = Frame::decode(kind, content.into());
            assert!(
                matches!(read, Err(FrameError::Content { kind: of, .. }) if of == kind),
                "{kind}: {read:?}"
            );
        }
        let long = Frame::Stdin(vec![0; FRAME_BYTES_MAX + 1]).encode();
        assert_eq!(long, Err(FrameError::TooLong(FRAME_BYTES_MAX + 1)));
    }

    #[test]
    fn statuses_are_those_of_a_shell() {
        assert_eq!(Ended::Exited(127).status(), Some(127));
        assert_eq!(Ended::Signaled(15).status(), Some(143));
        assert_eq!(Ended::Lost(String::new()).status(), None);
    }
}
