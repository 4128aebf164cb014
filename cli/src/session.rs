//! The near end of a session: this terminal, or these pipes, and a command far away.
//!
//! Standard input is read, and both outputs are written, by threads of their own: neither may keep signs of life
//! from being sent, and a read that nobody will answer must not keep the program from ending. What is read
//! waits for the far end to take it, what comes waits for whoever reads this program's output.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd as _,
    thread,
};

use flotilla_api::{
    client::{
        Client, ClientError,
        session::{SessionError, read_frame, write_frame},
    },
    session::{ALIVE_EVERY, CHUNK_BYTES, Ended, Frame, Open, STDIN_WINDOW, Terminal},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use crate::exit::{Exit, Failure};

mod terminal;

pub(crate) use terminal::wanted;
use terminal::{Escape, RawMode, size};

/// Chunks that wait between a thread and the connection.
const QUEUE: usize = 2;

/// What a shell says of a program whose reader has gone: 128 and the number of SIGPIPE.
const BROKEN_PIPE: u8 = 128 + 13;

/// The exit status of a session that broke, as ssh has it.
const BROKEN: u8 = 255;

/// Signals that end this program, with their numbers: the terminal has to be as it was before.
const ENDING: [(fn() -> SignalKind, u8); 4] =
    [(SignalKind::hangup, 1), (SignalKind::interrupt, 2), (SignalKind::quit, 3), (SignalKind::terminate, 15)];

/// How a session ended here.
enum End {
    /// The command ended.
    Command(Ended),
    /// The connection did.
    Broken(SessionError),
    /// Nobody reads this program's output any more.
    OutputClosed,
    /// A signal came.
    Signaled(u8),
    /// The user typed the way out.
    Left,
}

/// Runs a command on a machine, with this program's standard streams.
///
/// # Errors
/// The session did not begin, or it broke.
pub(crate) async fn run(client: &Client, machine: &str, open: Open) -> anyhow::Result<Exit> {
    let signals = Signals::new()?;
    let connection = client.session(machine).await?;
    let (mut from, mut to) = tokio::io::split(connection);
    write_frame(&mut to, &Frame::Open(open.clone())).await.map_err(|e| broken(&e))?;
    loop {
        match read_frame(&mut from).await.map_err(|e| broken(&e))? {
            Some(Frame::Opened) => break,
            Some(Frame::Alive) => {}
            Some(Frame::Refused(body)) => return Err(ClientError::from(body).into()),
            _ => return Err(broken(&io::Error::from(io::ErrorKind::UnexpectedEof).into())),
        }
    }
    let end = {
        // Left behind, whatever happens: the terminal is the user's again.
        let _raw = RawMode::enter(open.terminal.is_some());
        carry(from, to, open.terminal.as_ref(), signals).await
    };
    match end {
        End::Command(ended) => match ended.status() {
            Some(status) => Ok(Exit::Passed(status)),
            None => Err(Failure::error(Exit::Passed(BROKEN), ended.to_string())),
        },
        End::Broken(error) => Err(broken(&error)),
        End::OutputClosed => Ok(Exit::Passed(BROKEN_PIPE)),
        End::Signaled(number) => Ok(Exit::Passed(128 + number)),
        End::Left => Err(Failure::error(Exit::Passed(BROKEN), "the session was left, and its command ended")),
    }
}

fn broken(error: &SessionError) -> anyhow::Error {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let message = format!("the session broke: {error}{cause}; its command is ended on its machine");
    Failure::error(Exit::Passed(BROKEN), message)
}

async fn carry(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    terminal: Option<&Terminal>,
    mut signals: Signals,
) -> End {
    let window = Semaphore::new(STDIN_WINDOW);
    let (mut outputs, mut written) = write_outputs();
    let (left, mut leaving) = oneshot::channel();
    let input = read_input(terminal.is_some().then_some(left));
    let resized = terminal.is_some().then_some(&mut signals.resized);
    let speaking = async {
        let _unsaid = speak(to, &window, input, resized).await;
        // What the far end said before it went, and whether it said so, is still to be heard.
        std::future::pending::<End>().await
    };
    let end = tokio::select! {
        end = hear(from, &window, &mut outputs) => end,
        end = speaking => end,
        number = ending(&mut signals.ending) => End::Signaled(number),
        Ok(()) = &mut leaving, if terminal.is_some() => End::Left,
    };
    // The thread writes what it has, and ends.
    drop(outputs);
    tokio::select! {
        _written = &mut written => {}
        number = ending(&mut signals.ending) => return End::Signaled(number),
    }
    end
}

/// Reads frames until the command has ended.
async fn hear(
    mut from: impl AsyncRead + Unpin,
    window: &Semaphore,
    outputs: &mut mpsc::Sender<(Stream, Vec<u8>)>,
) -> End {
    loop {
        let (stream, bytes) = match read_frame(&mut from).await {
            Ok(Some(Frame::Stdout(bytes))) => (Stream::Out, bytes),
            Ok(Some(Frame::Stderr(bytes))) => (Stream::Err, bytes),
            Ok(Some(Frame::StdinTaken(count))) => {
                // What was never taken out is no room.
                let room = (count as usize).min(STDIN_WINDOW.saturating_sub(window.available_permits()));
                window.add_permits(room);
                continue;
            }
            Ok(Some(Frame::Ended(ended))) => return End::Command(ended),
            Ok(Some(_)) => continue,
            Ok(None) => return End::Broken(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Err(error) => return End::Broken(error),
        };
        if outputs.send((stream, bytes)).await.is_err() {
            return End::OutputClosed;
        }
    }
}

/// Writes frames for as long as the connection takes them.
async fn speak(
    mut to: impl AsyncWrite + Unpin,
    window: &Semaphore,
    mut input: mpsc::Receiver<Vec<u8>>,
    mut resized: Option<&mut Signal>,
) -> SessionError {
    let mut alive = interval(ALIVE_EVERY);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut more = true;
    loop {
        let resize = async {
            match &mut resized {
                Some(resized) => resized.recv().await,
                None => std::future::pending().await,
            }
        };
        // In this order: a chunk is taken only when there is room for the largest.
        let chunk = async {
            match window.acquire_many(CHUNK_BYTES as u32).await {
                Ok(_room) => input.recv().await,
                Err(_) => std::future::pending().await,
            }
        };
        let frame = tokio::select! {
            _ = alive.tick() => Frame::Alive,
            _ = resize => Frame::Resize(size()),
            chunk = chunk, if more => match chunk {
                Some(bytes) => {
                    window.forget_permits(bytes.len());
                    Frame::Stdin(bytes)
                }
                None => {
                    more = false;
                    Frame::StdinEnd
                }
            },
        };
        if let Err(error) = write_frame(&mut to, &frame).await {
            return error;
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Stream {
    Out,
    Err,
}

/// Starts the thread that writes both outputs; the second is told when it has written all.
fn write_outputs() -> (mpsc::Sender<(Stream, Vec<u8>)>, oneshot::Receiver<()>) {
    let (sender, mut queue) = mpsc::channel::<(Stream, Vec<u8>)>(QUEUE);
    let (done, written) = oneshot::channel();
    thread::spawn(move || {
        while let Some((stream, bytes)) = queue.blocking_recv() {
            let result = match stream {
                Stream::Out => write_all(&mut io::stdout().lock(), &bytes),
                Stream::Err => write_all(&mut io::stderr().lock(), &bytes),
            };
            if result.is_err() {
                break;
            }
        }
        // Told by its end where nobody listens.
        let _unheard = done.send(());
    });
    (sender, written)
}

fn write_all(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

/// Starts the thread that reads standard input. It is never waited for: nobody may type again.
fn read_input(left: Option<oneshot::Sender<()>>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, queue) = mpsc::channel(QUEUE);
    thread::spawn(move || {
        // Past the buffer of the library, which would hold back what comes in small pieces.
        let Ok(mut input) = io::stdin().as_fd().try_clone_to_owned().map(File::from) else { return };
        let mut escape = left.map(|left| (Escape::default(), left));
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let count = match input.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            if let Some((mut typed, left)) = escape.take() {
                if typed.is_complete(&buffer[..count], std::time::Instant::now()) {
                    let _over_already = left.send(());
                    return;
                }
                escape = Some((typed, left));
            }
            if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    queue
}

/// What this program hears of from the system.
struct Signals {
    ending: Vec<(Signal, u8)>,
    resized: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let ending = ENDING.iter().map(|(kind, number)| Ok((signal(kind())?, *number)));
        Ok(Self { ending: ending.collect::<io::Result<_>>()?, resized: signal(SignalKind::window_change())? })
    }
}

/// Waits for a signal that ends the program, and returns its number.
async fn ending(signals: &mut [(Signal, u8)]) -> u8 {
    let waiting = signals.iter_mut().map(|(signal, number)| {
        Box::pin(async move {
            signal.recv().await;
            *number
        })
    });
    futures_util::future::select_all(waiting).await.0
}

#[cfg(test)]
mod tests {
    use flotilla_api::session::Size;

    use super::*;

    fn signals() -> Signals {
        Signals::new().expect("this is a unix")
    }

    #[tokio::test]
    async fn input_waits_for_room_and_the_end_is_told() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let window = Semaphore::new(STDIN_WINDOW);
        let (sender, input) = mpsc::channel(16);
        for _ in 0..5 {
            sender.send(vec![7; CHUNK_BYTES]).await.expect("room");
        }
        drop(sender);
        let speaking = speak(near, &window, input, None);
        let hearing = async {
            let mut chunks = 0;
            loop {
                match read_frame(&mut far).await.expect("frames").expect("more") {
                    Frame::Stdin(bytes) => {
                        assert_eq!(bytes.len(), CHUNK_BYTES);
                        chunks += 1;
                        if chunks >= 4 {
                            // The window is full: nothing may come before some of it was taken.
                            assert_eq!(window.available_permits(), 0);
                            window.add_permits(CHUNK_BYTES);
                        }
                    }
                    Frame::StdinEnd => return chunks,
                    _ => {}
                }
            }
        };
        tokio::select! {
            error = speaking => panic!("{error}"),
            chunks = hearing => assert_eq!(chunks, 5),
        }
    }

    #[tokio::test]
    async fn a_command_that_ends_and_a_connection_that_breaks_are_told_apart() {
        for (frames, expected) in [
            (vec![Frame::Alive, Frame::Ended(Ended::Exited(7))], Some(7)),
            (vec![Frame::Ended(Ended::Signaled(9))], Some(137)),
            (vec![Frame::Resize(Size { rows: 1, cols: 1 })], None),
        ] {
            let (near, mut far) = tokio::io::duplex(1 << 16);
            for frame in &frames {
                write_frame(&mut far, frame).await.expect("room");
            }
            drop(far);
            let (from, to) = tokio::io::split(near);
            let status = match carry(from, to, None, signals()).await {
                End::Command(ended) => ended.status(),
                End::Broken(_) => None,
                _ => panic!("no signal came"),
            };
            assert_eq!(status, expected, "{frames:?}");
        }
    }
}
