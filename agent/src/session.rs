//! A command in a unit of this machine, or a shell on the machine itself, for somebody far away.
//!
//! flotillad is locked in by its service file, and what it starts itself would be too. So a session is
//! a transient service of PID 1: its main process is flotillad again, as a *keeper* ([`keeper`]), which
//! starts the command ([`enter`]) and never leaves anything of it behind. The two talk over a
//! pair of connected sockets, which is the keeper's standard input.
//!
//! ```text
//! flotillad ── StartTransientUnit ──► PID 1 ──► keeper, in flotilla-exec-….service
//!     │ ◄────── the pair: what to run and its files; how it ended ──────► │ spawns
//!     │                                                                   ▼
//!     └── pipes, or a pty's master ◄────────────► the command, in the unit's control group
//! ```
//!
//! # What ends a session
//!
//! - *The command ends*: the keeper tells how, then ends what the command has left: SIGHUP, and what is
//!   still there after [`GRACE`] gets SIGKILL.
//! - *The client goes, or flotillad is stopped or dies*: its end of the pair closes, and the keeper does the same
//!   at once, beginning with the command itself.
//! - *The keeper is killed*: the kernel kills the command with it; a shell's whole control group goes.
//! - *The unit is stopped*: systemd ends everything in its control group, the command with it.
//!
//! The server asks for sessions and carries their bytes; who may have one it decides.

use std::{fmt, io, time::Duration};

use async_trait::async_trait;
use flotilla_units::UnitName;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader},
    net::UnixStream,
    time::timeout,
};

use crate::systemd::SystemdError;

mod control_group;
mod descendants;
mod enter;
pub mod keeper;
mod spec;
mod streams;

pub use enter::enter;
pub use spec::{Inside, Report, Spec, VERSION, receive, send};
pub use streams::{Given, Pty, pipes, pty};

/// What the transient service of a command in a unit is called before its random part.
pub const EXEC_PREFIX: &str = "flotilla-exec-";

/// What the transient service of a shell is called before its random part.
pub const SHELL_PREFIX: &str = "flotilla-shell-";

/// How long what is asked to end may take. Two seconds: a shell saves its history in far less, and
/// whoever runs a command waits for it.
pub const GRACE: Duration = Duration::from_secs(2);

/// How long the transient service may take until its keeper has started the command. systemd starts
/// a unit in 5 ms; ten seconds are a machine in trouble.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);

/// Where the bytes of a command's standard input go.
pub type Input = Box<dyn AsyncWrite + Send + Unpin>;

/// Where the bytes of a command's output come from.
pub type Output = Box<dyn AsyncRead + Send + Unpin>;

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOrder {
    /// The unit to run it in; without one, it runs on the machine.
    pub unit: Option<UnitName>,
    /// The program and its arguments; none is the login shell of the user that flotillad runs as.
    pub command: Vec<String>,
    /// The terminal that it gets, if it is to have one.
    pub terminal: Option<TerminalOrder>,
}

/// The terminal of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminalOrder {
    /// `TERM`.
    pub term: String,
    /// Its lines.
    pub rows: u16,
    /// Its columns.
    pub cols: u16,
}

/// A command that runs. Dropping it ends the command.
pub struct Session {
    /// The transient service that keeps it.
    pub service: String,
    /// Its standard input; shutting it down is the end of its input.
    pub input: Input,
    /// Its standard output, or what its terminal shows.
    pub output: Output,
    /// Its standard error; a terminal has none of its own.
    pub errors: Option<Output>,
    /// Its terminal, to be told of another size.
    pub terminal: Option<Pty>,
    /// Its life.
    pub life: Life,
}

/// The connection to a command's keeper: as long as it is held, the command may live.
#[derive(Debug)]
pub struct Life(BufReader<UnixStream>);

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEnd {
    /// With an exit status.
    Exited(u8),
    /// By a signal.
    Signaled(u8),
    /// Its keeper was gone first.
    Lost(String),
}

/// Why no session began.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There is nothing to enter.
    #[error(
        "{unit} has no process on this machine (it is {active}), so there is nothing to run a command in; \
         `flotctl start` it, or run the command on the machine with `flotctl shell MACHINE -- CMD`"
    )]
    NoProcess {
        /// The unit.
        unit: UnitName,
        /// Its active state.
        active: String,
    },
    /// systemd does not answer, or refuses.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    /// A pipe, a socket or a terminal could not be made or used.
    #[error("cannot {action} for the session: {source}")]
    Files {
        /// What.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The keeper was not there in time, or ended.
    #[error("the session's service {service} {why}; `journalctl --unit {service}` on the machine says more")]
    Keeper {
        /// The transient service.
        service: String,
        /// What it did.
        why: String,
    },
}

/// Where sessions on this machine come from.
#[async_trait]
pub trait SessionSource: fmt::Debug + Send + Sync + 'static {
    /// Runs a command, and returns when it has been started.
    ///
    /// # Errors
    /// The unit has no process; systemd does not answer; the keeper does not come up. That a program cannot
    /// be run is no error: the session ends with 126 or 127, as a shell's command does.
    ///
    /// # Cancellation
    /// What was started by then ends.
    async fn open(&self, order: SessionOrder) -> Result<Session, SessionError>;
}

impl Life {
    /// Takes the near end of the pair whose other end the keeper has.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self(BufReader::new(stream))
    }

    /// Waits until the keeper has started the command.
    ///
    /// # Errors
    /// It ended, or takes too long.
    pub async fn begun(&mut self, service: &str) -> Result<(), SessionError> {
        let failed = |why: String| SessionError::Keeper { service: service.to_owned(), why };
        match timeout(BEGIN_WITHIN, self.report()).await {
            Ok(Some(Report::Begun)) => Ok(()),
            Ok(Some(Report::Failed(why))) => Err(failed(format!("could not begin: {why}"))),
            Ok(_) => Err(failed("ended before it began".to_owned())),
            Err(_) => Err(failed(format!("did not begin within {} s", BEGIN_WITHIN.as_secs()))),
        }
    }

    /// Waits until the command has ended.
    pub async fn ended(&mut self) -> SessionEnd {
        match self.report().await {
            Some(Report::Exited(status)) => SessionEnd::Exited(status),
            Some(Report::Signaled(signal)) => SessionEnd::Signaled(signal),
            _ => SessionEnd::Lost("what kept the session was ended on its machine".to_owned()),
        }
    }

    /// Reads what the keeper says next; `None` when it is gone or cannot be understood.
    async fn report(&mut self) -> Option<Report> {
        let mut line = String::new();
        self.0.read_line(&mut line).await.ok().filter(|&bytes| bytes > 0)?;
        serde_json::from_str(&line).ok()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("service", &self.service).finish_non_exhaustive()
    }
}
