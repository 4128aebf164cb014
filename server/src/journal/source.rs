//! One machine of a merged stream: read until there are no more lines, also over lost connections.

use std::{sync::Arc, time::Duration};

use flotilla_agent::journal::{Cursor, JournalError};
use flotilla_api::{
    client::{ClientError, SseEvent},
    error::{ErrorBody, ErrorKind},
    journal::{JournalEvent, JournalLine, JournalPosition, JournalQuery, Position},
};
use flotilla_units::MachineId;
use jiff::Timestamp;
use tokio::{sync::mpsc, time::sleep};

use super::{Lines, Read, Wanted, refusal};
use crate::{forward, identity::User, node::Node};

/// The first wait before a machine that was lost is asked again.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest wait before a machine that was lost is asked again.
const RETRY_MAX: Duration = Duration::from_secs(3);

/// The longest cursor that is believed of another machine, in bytes: journald's have some 130.
const CURSOR_BYTES_MAX: usize = 512;

/// What a machine's task says.
pub(super) enum Said {
    Line(MachineId, Box<JournalLine>),
    /// So far it is read, and had no line that was wanted.
    Position(MachineId, JournalPosition),
    /// Nothing is to be expected from it for now; the reason, if it has not been told yet.
    Quiet(MachineId, Option<String>),
    /// It is read again.
    Back(MachineId),
    /// It has said everything.
    Over(MachineId),
    /// It will never say anything, for this reason.
    Missing(MachineId, String),
    /// The query itself is refused.
    Refused(ErrorBody),
}

/// One machine's lines.
pub(super) struct Source {
    pub(super) node: Arc<Node>,
    pub(super) user: User,
    pub(super) machine: MachineId,
    /// What people call it.
    pub(super) host: String,
    pub(super) query: JournalQuery,
    /// The last line that was looked at.
    pub(super) after: Option<String>,
    /// When the stream began: what is written from then on belongs to it.
    pub(super) began: Timestamp,
    pub(super) said: mpsc::Sender<Said>,
}

/// How one connection ended.
enum End {
    /// Everything was said.
    Over,
    Refused(ErrorBody),
    Lost(String),
    /// Nobody hears any more.
    Unheard,
}

impl Source {
    /// Reads until everything has been said or nobody hears.
    pub(super) async fn run(mut self) {
        let (mut wait, mut told) = (RETRY_FIRST, false);
        loop {
            let mut back = false;
            let end = if self.machine == self.node.machine {
                self.local(&mut back).await
            } else {
                self.remote(&mut back).await
            };
            let said = match end {
                End::Unheard => return,
                End::Over => Said::Over(self.machine),
                End::Refused(body) => Said::Refused(body),
                // Without `follow` nothing is waited for, and what is missing is said.
                End::Lost(why) if !self.query.follow => Said::Missing(self.machine, why),
                End::Lost(why) => {
                    if back || !told {
                        tracing::warn!(
                            machine = %self.machine, why,
                            "a machine's journal is lost to a stream; asked again until it answers"
                        );
                    }
                    Said::Quiet(self.machine, (back || !told).then_some(why))
                }
            };
            let goes_on = matches!(said, Said::Quiet(..));
            if self.said.send(said).await.is_err() || !goes_on {
                return;
            }
            if self.after.is_none() {
                // Its newest lines would be those of another moment: all that came since is wanted.
                self.query.lines = None;
                self.query.since = self.query.since.or(Some(self.began));
            }
            told = true;
            wait = if back { RETRY_FIRST } else { (wait * 2).min(RETRY_MAX) };
            sleep(wait).await;
        }
    }

    async fn local(&mut self, back: &mut bool) -> End {
        let wanted = match Wanted::read(self.query.clone()) {
            Ok(wanted) => wanted,
            Err(e) => return End::Refused(e.0),
        };
        let mut lines = match Lines::begin(&self.node, &wanted, self.after.clone().map(Cursor)).await {
            Ok(lines) => lines,
            Err(e) => return Self::failed(&e),
        };
        if !self.is_back(back).await {
            return End::Unheard;
        }
        while let Some(read) = lines.next().await {
            let heard = match read {
                Ok(Read::Line(line)) => self.line(line).await,
                Ok(Read::Position(at)) => self.position(at).await,
                Err(e) => return Self::failed(&e),
            };
            if !heard {
                return End::Unheard;
            }
        }
        self.ended()
    }

    async fn remote(&mut self, back: &mut bool) -> End {
        let client = match forward::to_machine(&self.node, self.machine, &self.user).await {
            Ok(client) => client,
            Err(e) => return End::Lost(e.0.message),
        };
        let machine = self.machine.to_string();
        let position = self.after.clone().map(|after| Position([(machine.clone(), after)].into()));
        let mut stream = match client.machine_journal(&machine, &self.query, position.as_ref()).await {
            Ok(stream) => stream,
            Err(e) => return Self::lost(e),
        };
        if !self.is_back(back).await {
            return End::Unheard;
        }
        loop {
            let heard = match stream.next().await {
                Ok(Some(SseEvent { data: JournalEvent::Line(line), .. })) => {
                    if !is_cursor(&line.cursor) {
                        return Self::no_cursor();
                    }
                    // A machine speaks for itself only, whatever it says of whose line that is.
                    let host = self.host.clone();
                    self.line(JournalLine { machine: machine.clone(), host, ..*line }).await
                }
                Ok(Some(SseEvent { data: JournalEvent::Position(at), .. })) => {
                    if !is_cursor(&at.cursor) {
                        return Self::no_cursor();
                    }
                    self.position(JournalPosition { machine: machine.clone(), ..at }).await
                }
                // One machine says what it lacks as an error.
                Ok(Some(SseEvent { data: JournalEvent::Notice(_), .. })) => true,
                Ok(None) => return self.ended(),
                Err(e) => return Self::lost(e),
            };
            if !heard {
                return End::Unheard;
            }
        }
    }

    /// Tells that the machine is read (again).
    async fn is_back(&self, back: &mut bool) -> bool {
        *back = true;
        self.said.send(Said::Back(self.machine)).await.is_ok()
    }

    async fn line(&mut self, line: JournalLine) -> bool {
        self.after = Some(line.cursor.clone());
        self.said.send(Said::Line(self.machine, Box::new(line))).await.is_ok()
    }

    async fn position(&mut self, at: JournalPosition) -> bool {
        self.after = Some(at.cursor.clone());
        self.said.send(Said::Position(self.machine, at)).await.is_ok()
    }

    /// What an end without an error is: a followed journal has none.
    fn ended(&self) -> End {
        if self.query.follow { End::Lost("its journal's stream ended".to_owned()) } else { End::Over }
    }

    fn no_cursor() -> End {
        End::Lost("it sent a line with a cursor that no journal has".to_owned())
    }

    fn failed(error: &JournalError) -> End {
        Self::refused_or_lost(refusal(error))
    }

    fn lost(error: ClientError) -> End {
        match error {
            ClientError::Refused(body) => Self::refused_or_lost(body),
            other => End::Lost(other.to_string()),
        }
    }

    /// A query that makes no sense makes none anywhere; anything else is the machine's own trouble.
    fn refused_or_lost(body: ErrorBody) -> End {
        if matches!(body.kind, ErrorKind::BadRequest | ErrorKind::Forbidden) {
            End::Refused(body)
        } else {
            End::Lost(body.message)
        }
    }
}

/// Whether a text can be a place in a journal (`s=...;i=...`). Line breaks would end a field of the
/// event that carries it, and `,` and `~` would make it the place of another machine as well.
fn is_cursor(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"=;-_".contains(&byte);
    (1..=CURSOR_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_what_journald_writes() {
        assert!(is_cursor("s=6d9a;i=1f;b=77;m=1;t=64d;x=a"));
        let long = "s".repeat(CURSOR_BYTES_MAX + 1);
        for not in ["", "s=1\nid: 2", "s=1\r", "s=1\0", "s=1,aa~s=2", "s=\u{fc}", &long] {
            assert!(!is_cursor(not), "{not:?}");
        }
    }
}
