//! The journal through `journalctl -o json`, which reads every format and follows every rotation.
//!
//! One child for each query, however many units. A child that dies is started again behind the
//! last line that it gave: journalctl is known to die when a journal is rotated under heavy
//! writing. It lags by 130 ms at the median, because journald tells its readers four times a
//! second.

use std::{
    collections::BTreeMap,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use flotilla_units::UnitName;
use futures_util::{StreamExt as _, stream::BoxStream};
use jiff::Timestamp;
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, ChildStderr, Command},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};

use super::{
    Cursor, HELD_BYTES_MAX, JournalError, LogEntry, LogSource, Query,
    command::{From, arguments, beginning, end},
    decode::{Origin, cursor, decode},
};
use crate::known::Known;

/// Children at a time: each is a process with its own view of the whole journal, some 10 MB.
const READERS: usize = 64;

/// The longest line, in bytes of JSON. journald cuts what units print at 48 KiB, which as an array
/// of numbers is 200 kB; only programs that speak its own protocol can write more.
const LINE_BYTES: usize = 4 * 1024 * 1024;

/// Lines read ahead of whoever asked for them. The pipe behind it holds back journalctl, and the
/// journal keeps the lines.
const AHEAD: usize = 256;

/// The wait before a child that died is replaced; doubled up to the longest while it brings nothing.
const RESTART_AFTER: Duration = Duration::from_millis(50);

/// The longest wait between two children.
const RESTART_AFTER_AT_MOST: Duration = Duration::from_secs(5);

/// Children in a row that die without a line before the query is given up.
const IN_VAIN: u32 = 5;

/// A child that lived so long did not die in vain, even if its units had nothing to say.
const LIVED: Duration = Duration::from_secs(60);

/// How much of what a child says to its end is kept, in bytes.
const SAID_BYTES: u64 = 4_096;

/// The longest that a child which closed its output is waited for.
const END_WITHIN: Duration = Duration::from_secs(5);

/// How many of the last lines that match a pattern are given at most. journalctl gives them newest
/// first, so they are all held before the first is handed on: some megabytes.
const MATCHES: u32 = 10_000;

/// How long the journal's end is looked for. It takes some 10 ms; seconds if the disk sleeps.
const FIND_END_WITHIN: Duration = Duration::from_secs(10);

/// How journalctl begins its complaint about a regular expression.
const BAD_PATTERN: &str = "Bad pattern";

/// How it says that it was built without regular expressions.
const NO_PATTERNS: &str = "without pattern matching";

/// How it says that its user may read none of the journal's files.
const UNREADABLE: &str = "insufficient permissions";

/// This machine's journal.
#[derive(Debug)]
pub struct Journalctl {
    program: String,
    origin: Arc<Origin>,
    known: Known,
    readers: Arc<Semaphore>,
}

impl Journalctl {
    /// Returns the journal of the machine's units, or of this user's own, as far as they are known
    /// to be flotilla's.
    #[must_use]
    pub fn new(user: bool, known: Known) -> Self {
        let user = user.then(|| rustix::process::getuid().as_raw());
        Self::of("journalctl".to_owned(), user, known)
    }

    fn of(program: String, user: Option<u32>, known: Known) -> Self {
        // Not flotilla's id of the machine, which may be another: journald writes this one.
        let machine = std::fs::read_to_string("/etc/machine-id").ok().map(|id| id.trim().to_owned());
        let origin = Arc::new(Origin { machine, user });
        Self { program, origin, known, readers: Arc::new(Semaphore::new(READERS)) }
    }
}

#[async_trait]
impl LogSource for Journalctl {
    fn follow(&self, query: Query) -> BoxStream<'static, Result<LogEntry, JournalError>> {
        let wanted = query.lines.unwrap_or(0);
        let permit = match self.readers.clone().try_acquire_owned() {
            _ if query.units.is_empty() && query.globs.is_empty() => Err(JournalError::NoUnit),
            _ if query.grep.is_some() && wanted > MATCHES => {
                Err(JournalError::TooManyMatches { wanted, limit: MATCHES })
            }
            Ok(permit) => Ok(permit),
            Err(_) => Err(JournalError::TooMany { limit: READERS }),
        };
        match permit {
            Ok(permit) => {
                let (sender, receiver) = mpsc::channel(AHEAD);
                let reader = Reader::new(self, query, sender, permit);
                tokio::spawn(reader.run());
                ReceiverStream::new(receiver).boxed()
            }
            Err(e) => futures_util::stream::once(std::future::ready(Err(e))).boxed(),
        }
    }

    async fn end(&self) -> Result<Option<Cursor>, JournalError> {
        let asked = Command::new(&self.program)
            .args(end())
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .output();
        let output = timeout(FIND_END_WITHIN, asked)
            .await
            .map_err(|_| JournalError::NoEnd { within: FIND_END_WITHIN })?
            .map_err(JournalError::CannotRun)?;
        if !output.status.success() {
            let (status, said) = (output.status.to_string(), last_line(&output.stderr));
            return Err(failed(status, said));
        }
        let line = String::from_utf8_lossy(&output.stdout);
        let line = line.trim();
        if line.is_empty() {
            return Ok(None);
        }
        cursor(line).map(Some).map_err(|why| JournalError::Unreadable { why })
    }
}

/// Reads for one query until it is answered or nobody listens.
struct Reader {
    program: String,
    origin: Arc<Origin>,
    known: Known,
    from: From,
    cursors: BTreeMap<UnitName, Cursor>,
    query: Query,
    sender: mpsc::Sender<Told>,
    _permit: OwnedSemaphorePermit,
}

/// What is handed on.
type Told = Result<LogEntry, JournalError>;

/// How one child ended.
enum End {
    /// Nobody listens any more.
    Unheard,
    /// It ended.
    Over(Over),
}

/// The end of a child.
struct Over {
    /// How many lines it gave.
    lines: u64,
    status: Option<ExitStatus>,
    /// The last line that it complained in.
    said: String,
}

impl Reader {
    fn new(
        journal: &Journalctl,
        mut query: Query,
        sender: mpsc::Sender<Told>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let from = beginning(&query, Timestamp::now());
        let cursors = std::mem::take(&mut query.cursors);
        let (program, origin) = (journal.program.clone(), Arc::clone(&journal.origin));
        let known = journal.known.clone();
        Self { program, origin, known, from, cursors, query, sender, _permit: permit }
    }

    async fn run(mut self) {
        let closed = self.sender.clone();
        let (mut wait, mut in_vain) = (RESTART_AFTER, 0);
        loop {
            let began = Instant::now();
            let end = tokio::select! {
                end = self.read() => end,
                // A child that has nothing to say would not notice.
                () = closed.closed() => return,
            };
            let Over { lines, status, said } = match end {
                Ok(End::Unheard) => return,
                Ok(End::Over(over)) if over.is_answer(&self.query) => return,
                Ok(End::Over(over)) => over,
                Err(e) => {
                    let _ = self.sender.send(Err(JournalError::CannotRun(e))).await;
                    return;
                }
            };
            if said.contains(UNREADABLE) {
                let _ = self.sender.send(Err(JournalError::MayNotRead)).await;
                return;
            }
            // It will say so again.
            if said.contains(BAD_PATTERN) || said.contains(NO_PATTERNS) {
                let _ = self.sender.send(Err(JournalError::Pattern { said })).await;
                return;
            }
            let status = status.map_or_else(|| "no exit status".to_owned(), |status| status.to_string());
            if lines > 0 || began.elapsed() >= LIVED {
                (wait, in_vain) = (RESTART_AFTER, 0);
            }
            in_vain += 1;
            if in_vain >= IN_VAIN {
                let _ = self.sender.send(Err(failed(status, said))).await;
                return;
            }
            tracing::debug!(%status, %said, lines, "journalctl ended, starting another");
            sleep(wait).await;
            wait = (wait * 2).min(RESTART_AFTER_AT_MOST);
        }
    }

    /// Reads what one child gives.
    async fn read(&mut self) -> std::io::Result<End> {
        let mut child = Command::new(&self.program)
            .args(arguments(&self.query, &self.from, self.origin.user))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(std::io::Error::other("its output is not a pipe"));
        };
        let said = tokio::spawn(last_words(stderr));
        let mut read = FramedRead::new(stdout, LinesCodec::new_with_max_length(LINE_BYTES));
        let (mut lines, mut held, mut bytes) = (0, Vec::new(), 0);
        let backwards = self.from.is_backwards(&self.query);
        while let Some(line) = read.next().await {
            let told = match line {
                Ok(line) => self.line(&line, backwards),
                Err(LinesCodecError::MaxLineLengthExceeded) => {
                    Some(Err(JournalError::TooLong { limit: LINE_BYTES }))
                }
                Err(LinesCodecError::Io(_)) => break,
            };
            lines += 1;
            let Some(told) = told else { continue };
            if backwards {
                bytes += told.as_ref().map_or(0, LogEntry::bytes);
                if bytes > HELD_BYTES_MAX {
                    let _ = self.sender.send(Err(JournalError::TooMuch)).await;
                    return Ok(End::Unheard);
                }
                held.push(told);
            } else if self.sender.send(told).await.is_err() {
                return Ok(End::Unheard);
            }
        }
        let status = ended(&mut child).await;
        let over = Over { lines, status, said: said.await.unwrap_or_default() };
        // What a child that died held is read again, whole, by the next one.
        if over.is_answer(&self.query) {
            for told in held.into_iter().rev() {
                if self.sender.send(told).await.is_err() {
                    return Ok(End::Unheard);
                }
            }
        }
        Ok(End::Over(over))
    }

    /// Takes one line; returns what is to be handed on.
    fn line(&mut self, line: &str, backwards: bool) -> Option<Told> {
        let (cursor, entry) =
            match decode(line, &self.origin, |unit| self.query.wants(unit) && self.known.has(unit)) {
                Ok(decoded) => decoded,
                // A child that was killed leaves half a line; its successor brings the whole one.
                Err(_) if !line.ends_with('}') => return None,
                Err(why) => return Some(Err(JournalError::Unreadable { why })),
            };
        if !backwards {
            self.from = From::After(cursor);
        }
        let entry = entry?;
        if self.cursors.get(&entry.unit).is_some_and(|last| !entry.cursor.is_after(last)) {
            return None;
        }
        // From the first line behind it on, the journal's own order does.
        self.cursors.remove(&entry.unit);
        Some(Ok(entry))
    }
}

impl Over {
    /// Tells whether that was all there is to the query.
    fn is_answer(&self, query: &Query) -> bool {
        let Some(status) = self.status else { return false };
        // As grep(1) does: 1 without a word is that nothing matched.
        let unmatched =
            query.grep.is_some() && status.code() == Some(1) && self.lines == 0 && self.said.is_empty();
        !query.follow && (status.success() || unmatched)
    }
}

/// Waits for a child that has said everything; returns how it ended, if that could be learnt.
async fn ended(child: &mut Child) -> Option<ExitStatus> {
    timeout(END_WITHIN, child.wait()).await.ok()?.ok()
}

async fn last_words(mut stderr: ChildStderr) -> String {
    let mut said = Vec::new();
    // What cannot be read was not said.
    let _ = (&mut stderr).take(SAID_BYTES).read_to_end(&mut said).await;
    // The rest is read too, so that the child does not wait for a reader.
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    last_line(&said)
}

/// Says why journalctl failed.
fn failed(status: String, said: String) -> JournalError {
    if said.contains(UNREADABLE) { JournalError::MayNotRead } else { JournalError::Failed { status, said } }
}

fn last_line(said: &[u8]) -> String {
    String::from_utf8_lossy(said).trim().lines().last().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
