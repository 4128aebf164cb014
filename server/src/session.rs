//! A session on this machine: begins it, and carries its bytes between the command and the connection.
//!
//! Four things go on at once: output becomes frames; frames are written, with signs of life among them; frames
//! are read; standard input is fed. All end when the last frame is written or when the client goes, which is
//! noticed at once, because frames are read whatever the command does with its input.

use std::sync::{Arc, Mutex, PoisonError};

use flotilla_agent::session::{
    self as agent, Input, Life, Output, Pty, SessionEnd, SessionOrder, SessionSource, TerminalOrder,
};
use flotilla_api::{
    client::session::{SessionError, read_frame, write_frame},
    error::ErrorKind,
    session::{ALIVE_EVERY, CHUNK_BYTES, Ended, Frame, Open, STDIN_WINDOW},
};
use flotilla_registry::records::EventChange;
use flotilla_units::SourceName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Duration, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    error::{ApiError, chain},
    identity::Operator,
    node::Node,
};

/// How many sessions a machine has at once. Thirty-two: more than people debug on one machine, and few
/// enough that a script gone wild leaves the machine its processes and flotillad its descriptors.
const SESSIONS_MAX: usize = 32;

/// How long a client may take to say what is to be run: it knows when it connects.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// How long a session may take to begin. Half a minute: the store writes its event and systemd starts its
/// service in far less, and one that does neither must not keep its place among the sessions.
const BEGIN_WITHIN: Duration = Duration::from_secs(30);

/// How long output is waited for after the command has ended and what it left was killed: longer than the
/// keeper takes for both. What holds the pipe then is no descendant of the command's any more.
const DRAIN_WITHIN: Duration = Duration::from_secs(8);

/// How long a client that knows of its session's end may take to close the connection: it does at once.
const LINGER: Duration = Duration::from_secs(2);

/// Frames that wait to be written. Few: the connection's own buffers are behind them.
const QUEUE: usize = 4;

/// The most of a command that an event tells, in bytes; what is longer is a script and told by its beginning.
const TOLD_BYTES_MAX: usize = 2_000;

/// The sessions of this machine.
#[derive(Debug)]
pub struct Sessions {
    source: Arc<dyn SessionSource>,
    places: Arc<Semaphore>,
}

impl Sessions {
    /// Takes what runs commands.
    #[must_use]
    pub fn new(source: Arc<dyn SessionSource>) -> Self {
        Self { source, places: Arc::new(Semaphore::new(SESSIONS_MAX)) }
    }
}

/// Serves one session over its connection, on behalf of a user who may have it.
pub(crate) async fn serve(
    node: &Node,
    operator: &Operator,
    connection: impl AsyncRead + AsyncWrite + Send + Unpin,
) {
    let (mut from, mut to) = tokio::io::split(connection);
    let open = match timeout(OPEN_WITHIN, read_frame(&mut from)).await {
        Ok(Ok(Some(Frame::Open(open)))) => open,
        // Whoever says something else, or nothing, hears nothing.
        _ => return,
    };
    let by = operator.name();
    let begun = timeout(BEGIN_WITHIN, begin(node, operator, &open)).await.unwrap_or_else(|_| {
        let seconds = BEGIN_WITHIN.as_secs();
        Err(ApiError::unavailable(format!("the session did not begin within {seconds} s on {}", node.host)))
    });
    let answer = match &begun {
        Ok(_) => Frame::Opened,
        Err(error) => Frame::Refused(error.0.clone()),
    };
    let told = match timeout(OPEN_WITHIN, write_frame(&mut to, &answer)).await {
        Ok(told) => told,
        Err(late) => Err(std::io::Error::from(late).into()),
    };
    let Ok((session, _place)) = begun else {
        let _client_has_gone = to.shutdown().await;
        return;
    };
    let service = session.service.clone();
    let ended = match told {
        Ok(()) => carry(session, &mut from, &mut to).await,
        Err(error) => Err(error),
    };
    if ended.is_ok() {
        linger(&mut from).await;
    }
    let unit = open.unit.as_deref().unwrap_or("-");
    match ended {
        Ok(ended) => info!(by, unit, service, status = %ended, "a session has ended"),
        Err(error) => {
            info!(by, unit, service, status = "its client went", %error, "a session has ended");
        }
    }
}

/// Takes what is still said to an end that was told, until the client has gone: a connection that is
/// closed with something unread in it loses what is under way to the other side.
pub(crate) async fn linger(from: &mut (impl AsyncRead + Unpin)) {
    let _long_enough = timeout(LINGER, tokio::io::copy(from, &mut tokio::io::sink())).await;
}

/// Begins what is asked for, once it is written down that it was.
async fn begin(
    node: &Node,
    operator: &Operator,
    open: &Open,
) -> Result<(agent::Session, OwnedSemaphorePermit), ApiError> {
    let sessions = node.sessions.as_ref().ok_or_else(|| no_agent(node))?;
    let unit = match &open.unit {
        None => None,
        Some(unit) => {
            let unit = SourceName::mangle(unit)?.runtime().clone();
            if !node.known.has(&unit) {
                let message = format!("flotilla has no unit {unit} on {}", node.host);
                return Err(ApiError::not_found(message));
            }
            if open.command.is_empty() {
                return Err(ApiError::bad_request("there is no command to run in the unit"));
            }
            Some(unit)
        }
    };
    if open.command.iter().any(|word| word.contains('\0')) {
        return Err(ApiError::bad_request("a word of the command has a zero byte in it"));
    }
    let place = Arc::clone(&sessions.places).try_acquire_owned().map_err(|_| {
        ApiError::unavailable(format!(
            "{SESSIONS_MAX} sessions are open on {} already, the most that there may be; end one of them",
            node.host
        ))
    })?;
    let kind = if unit.is_some() { "exec" } else { "shell" };
    let command = told(&open.command);
    let change = EventChange {
        kind: kind.to_owned(),
        unit: unit.clone(),
        machine: Some(node.machine),
        host: Some(node.host.clone()),
        why: Some(command.clone()),
        ..EventChange::default()
    };
    let by = operator.name();
    node.operations.note(operator.asker(), vec![change]).await.map_err(|error| {
        ApiError::unavailable(format!(
            "nobody has a session without an event, and the store did not take it: {}; while the store is away \
             the way to a machine is its console or ssh",
            chain(&error)
        ))
    })?;
    let unit_name = unit.as_ref().map_or("-", |unit| unit.as_str()).to_owned();
    let order = SessionOrder {
        unit,
        command: open.command.clone(),
        terminal: open.terminal.as_ref().map(|terminal| TerminalOrder {
            term: terminal.term.clone(),
            rows: terminal.size.rows,
            cols: terminal.size.cols,
        }),
    };
    match sessions.source.open(order).await {
        Ok(session) => {
            info!(by, kind, unit = unit_name, command, service = session.service, "a session begins");
            Ok((session, place))
        }
        Err(error) => {
            warn!(by, kind, unit = unit_name, command, error = %chain(&error), "a session did not begin");
            Err(error.into())
        }
    }
}

pub(crate) fn no_agent(node: &Node) -> ApiError {
    ApiError::new(
        ErrorKind::NotPlaced,
        format!("{} has no agent ([roles] of its flotilla.toml), so nothing can be run there", node.host),
    )
}

/// Writes a command as it would be typed, for people.
fn told(command: &[String]) -> String {
    if command.is_empty() {
        return "a login shell".to_owned();
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    let word = |word: &String| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    let mut text = command.iter().map(word).collect::<Vec<_>>().join(" ");
    if text.len() > TOLD_BYTES_MAX {
        let end = (0..=TOLD_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// Carries bytes until the command has ended and its client knows.
async fn carry(
    session: agent::Session,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<Ended, SessionError> {
    let agent::Session { input, output, errors, terminal, life, .. } = session;
    let (frames, queue) = mpsc::channel(QUEUE);
    let waiting = Waiting::default();
    let gone = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let work = async {
        tokio::join!(watch(life, output, errors, &frames), feed(input, &waiting, &frames));
        // The end is when the last of their frames has been written.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = write(queue, to) => ended,
        heard = hear(from, &waiting, terminal.as_ref()) => Err(heard.err().unwrap_or_else(|| gone().into())),
        () = work => Err(gone().into()),
    }
}

/// Writes frames, the last of which says how the command ended.
async fn write(
    mut queue: mpsc::Receiver<Frame>,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<Ended, SessionError> {
    let mut alive = interval(ALIVE_EVERY);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let frame = tokio::select! {
            biased;
            frame = queue.recv() => frame.unwrap_or(Frame::Alive),
            _ = alive.tick() => Frame::Alive,
        };
        write_frame(to, &frame).await?;
        if let Frame::Ended(ended) = frame {
            let _client_has_gone = to.shutdown().await;
            return Ok(ended);
        }
    }
}

/// Reads frames until the client has gone.
async fn hear(
    from: &mut (impl AsyncRead + Unpin),
    waiting: &Waiting,
    terminal: Option<&Pty>,
) -> Result<(), SessionError> {
    while let Some(frame) = read_frame(from).await? {
        match frame {
            Frame::Stdin(bytes) => waiting.add(&bytes)?,
            Frame::StdinEnd => waiting.end(),
            Frame::Resize(size) => {
                if let Some(terminal) = terminal {
                    // Of a terminal that is no more, the size is of no matter.
                    let _ended = terminal.resize(size.rows, size.cols);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Tells what the command puts out, and after the last of it how it ended.
async fn watch(mut life: Life, output: Output, errors: Option<Output>, frames: &mpsc::Sender<Frame>) {
    let over = CancellationToken::new();
    let errors = async {
        if let Some(errors) = errors {
            pump(errors, Frame::Stderr, frames, &over).await;
        }
    };
    let ended = async {
        let ended = life.ended().await;
        over.cancel();
        ended
    };
    let ((), (), ended) = tokio::join!(pump(output, Frame::Stdout, frames, &over), errors, ended);
    let ended = match ended {
        SessionEnd::Exited(status) => Ended::Exited(status),
        SessionEnd::Signaled(signal) => Ended::Signaled(signal),
        SessionEnd::Lost(why) => Ended::Lost(why),
    };
    let _client_has_gone = frames.send(Frame::Ended(ended)).await;
}

async fn pump(
    mut from: Output,
    frame: fn(Vec<u8>) -> Frame,
    frames: &mpsc::Sender<Frame>,
    over: &CancellationToken,
) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let late = async {
            over.cancelled().await;
            sleep(DRAIN_WITHIN).await;
        };
        let count = tokio::select! {
            biased;
            count = from.read(&mut buffer) => count.unwrap_or(0),
            () = late => 0,
        };
        if count == 0 || frames.send(frame(buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
}

/// Feeds standard input, and says how much was taken.
async fn feed(mut input: Input, waiting: &Waiting, frames: &mpsc::Sender<Frame>) {
    loop {
        let (bytes, ended) = waiting.take().await;
        // A command that has closed its input takes all and reads none, as one in a shell's pipe.
        let _closed = input.write_all(&bytes).await;
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if count > 0 && frames.send(Frame::StdinTaken(count)).await.is_err() {
            return;
        }
        if ended {
            let _closed = input.shutdown().await;
            return;
        }
    }
}

/// Standard input that the command has not taken, at most [`STDIN_WINDOW`] bytes.
#[derive(Debug, Default)]
struct Waiting {
    held: Mutex<(Vec<u8>, bool)>,
    more: Notify,
}

impl Waiting {
    fn add(&self, bytes: &[u8]) -> Result<(), SessionError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0.len() + bytes.len() > STDIN_WINDOW {
            return Err(std::io::Error::other("the client sent more input than it may").into());
        }
        held.0.extend(bytes);
        drop(held);
        self.more.notify_one();
        Ok(())
    }

    fn end(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.more.notify_one();
    }

    /// Takes all there is, and whether it is all there will be; waits for either.
    async fn take(&self) -> (Vec<u8>, bool) {
        loop {
            {
                let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                if !held.0.is_empty() || held.1 {
                    return (std::mem::take(&mut held.0), held.1);
                }
            }
            self.more.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_as_they_would_be_typed_and_bounded() {
        let told = |words: &[&str]| told(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        assert_eq!(told(&["ls", "-l", "/var/lib"]), "ls -l /var/lib");
        assert_eq!(told(&["sh", "-c", "echo 'a b'", ""]), r"sh -c 'echo '\''a b'\''' ''");
        assert_eq!(told(&[]), "a login shell");
        let long = told(&[&"\u{e4}".repeat(2_000)]);
        assert!(long.len() <= TOLD_BYTES_MAX + 3 && long.ends_with("..."), "{}", long.len());
    }

    /// A session whose command is this test.
    struct Command {
        session: agent::Session,
        stdin: tokio::io::DuplexStream,
        stdout: tokio::io::DuplexStream,
        stderr: tokio::io::DuplexStream,
        keeper: tokio::net::UnixStream,
    }

    fn command() -> Command {
        let ((near_in, stdin), (near_out, stdout), (near_err, stderr)) =
            (tokio::io::duplex(1024), tokio::io::duplex(1024), tokio::io::duplex(1024));
        let (near, keeper) = tokio::net::UnixStream::pair().expect("a pair");
        let session = agent::Session {
            service: "flotilla-exec-1.service".to_owned(),
            input: Box::new(near_in),
            output: Box::new(near_out),
            errors: Some(Box::new(near_err)),
            terminal: None,
            life: Life::new(near),
        };
        Command { session, stdin, stdout, stderr, keeper }
    }

    #[tokio::test]
    async fn everything_is_carried_and_the_end_comes_last() {
        let Command { session, mut stdin, mut stdout, mut stderr, mut keeper } = command();
        let (near, far) = tokio::io::duplex(1 << 16);
        let serving = tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(near);
            carry(session, &mut from, &mut to).await.expect("carried")
        });
        let (mut from, mut to) = tokio::io::split(far);
        write_frame(&mut to, &Frame::Stdin(b"typed".to_vec())).await.expect("sent");
        write_frame(&mut to, &Frame::StdinEnd).await.expect("sent");
        let mut typed = String::new();
        stdin.read_to_string(&mut typed).await.expect("all of it");
        assert_eq!(typed, "typed");
        // It ends before its output is read to its end.
        keeper.write_all(b"{\"exited\":7}\n").await.expect("told");
        stdout.write_all(&[1; 5_000]).await.expect("written");
        stderr.write_all(b"error").await.expect("written");
        drop((stdout, stderr));
        let (mut out, mut err, mut taken) = (Vec::new(), Vec::new(), 0);
        let ended = loop {
            match read_frame(&mut from).await.expect("frames").expect("more") {
                Frame::Stdout(bytes) => out.extend(bytes),
                Frame::Stderr(bytes) => err.extend(bytes),
                Frame::StdinTaken(count) => taken += count,
                Frame::Ended(ended) => break ended,
                frame => assert_eq!(frame, Frame::Alive),
            }
        };
        assert_eq!((out, err.as_slice(), taken), (vec![1; 5_000], &b"error"[..], 5));
        assert_eq!(ended, Ended::Exited(7));
        assert_eq!(serving.await.expect("joined"), Ended::Exited(7));
        assert_eq!(read_frame(&mut from).await.expect("closed"), None);
    }

    #[tokio::test]
    async fn a_client_that_goes_is_noticed_although_the_command_reads_nothing() {
        let Command { session, stdin, mut keeper, .. } = command();
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let serving = tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(near);
            carry(session, &mut from, &mut to).await
        });
        write_frame(&mut far, &Frame::Stdin(vec![1; 60_000])).await.expect("sent");
        drop(far);
        assert!(serving.await.expect("joined").is_err());
        // The life line is closed with it.
        assert_eq!(keeper.read(&mut [0; 1]).await.expect("closed"), 0);
        drop(stdin);
    }

    #[tokio::test]
    async fn input_waits_within_its_window() {
        let waiting = Waiting::default();
        waiting.add(&vec![1; STDIN_WINDOW]).expect("within");
        assert!(waiting.add(&[2]).is_err());
        assert_eq!(waiting.take().await, (vec![1; STDIN_WINDOW], false));
        waiting.add(&[3]).expect("within");
        waiting.end();
        assert_eq!(waiting.take().await, (vec![3], true));
        assert_eq!(waiting.take().await, (vec![], true));
    }
}
