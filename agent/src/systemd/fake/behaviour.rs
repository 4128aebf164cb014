//! What a unit of the fake systemd does when it is started, while it runs, and when it is stopped.

use std::time::Duration;

use flotilla_registry::records::Token;
use flotilla_units::{ContentHash, UnitName};
use tokio::time::Instant;

use crate::systemd::JobResult;

/// What one unit does. The default is a service that is up 5 ms after its start, runs for ever,
/// and is gone 2 ms after it was told to stop: what systemd 252 was measured to need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behaviour {
    /// How long its start job is queued behind another unit's (`After=`) before anything of it
    /// begins; until then it is inactive.
    pub waits: Duration,
    /// How long a start job takes.
    pub start_takes: Duration,
    /// How a start job ends.
    pub start: OnStart,
    /// How it ends by itself after a start that ended well, and how long after it.
    pub ends: Option<(Duration, Exit)>,
    /// What it does when it is told to stop.
    pub stop: OnStop,
    /// How long systemd takes to forget it, for which the removal of its files waits.
    pub lingers: Duration,
}

/// How a start job ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStart {
    /// It runs.
    Runs,
    /// It is a oneshot: it does its work while the job lasts, and is inactive when that is done.
    Completes,
    /// It fails with this exit status; the job ends in `failed`.
    Fails(i32),
    /// The job ends as [`JobResult::Dependency`]; nothing of it ran.
    DependencyFails,
    /// It never says that it is ready; the job lasts until something stops the unit.
    Hangs,
}

/// How a unit ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Well; systemd forgets it.
    Clean,
    /// With this exit status; it stays loaded as failed.
    Failed(i32),
    /// With any status, and systemd starts it again by its own `Restart=`.
    Restarted,
}

/// What a unit does when it is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// It stops within this time.
    Stops(Duration),
    /// It ignores SIGTERM; systemd kills it after this time (`TimeoutStopSec=`), and its result is
    /// `timeout`.
    Ignores(Duration),
    /// As [`OnStop::Ignores`], and a process of it survives the SIGKILL too (it hangs in the
    /// kernel): the unit is failed and its control group not empty.
    Survives(Duration),
    /// It stops within this time, and a process that it began is not told to (`KillMode=process`): the
    /// unit is inactive and its control group not empty.
    LeavesBehind(Duration),
}

/// One time that a unit's processes were begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// When, on the runtime's clock.
    pub at: Instant,
    /// Which boot of the machine it was, from 0.
    pub boot: u64,
    /// The unit.
    pub unit: UnitName,
    /// The token in its environment.
    pub token: Token,
    /// The run in its environment.
    pub run: u64,
    /// The content it was started from.
    pub hash: ContentHash,
    /// Its `InvocationID`.
    pub invocation: String,
    /// Who started it.
    pub by: Cause,
}

/// One time that a unit's processes ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// When, on the runtime's clock.
    pub at: Instant,
    /// The unit.
    pub unit: UnitName,
    /// The `InvocationID` that ended.
    pub invocation: String,
    /// The token that ended.
    pub token: Token,
    /// What ended it.
    pub by: Cause,
}

/// Why a unit started or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The agent asked for it.
    Agent,
    /// Somebody on the machine did it with systemctl.
    Local,
    /// It ended by itself, or systemd's own `Restart=` started it.
    Itself,
    /// The machine went down.
    Reboot,
}

/// A job under way.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) starts: bool,
    pub(super) waiting: Vec<tokio::sync::oneshot::Sender<JobResult>>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            waits: Duration::ZERO,
            start_takes: Duration::from_millis(5),
            start: OnStart::Runs,
            ends: None,
            stop: OnStop::Stops(Duration::from_millis(2)),
            lingers: Duration::from_millis(1),
        }
    }
}

impl OnStart {
    /// Returns how the job ends; `None` when it does not end by itself.
    pub(super) const fn result(self) -> Option<JobResult> {
        match self {
            Self::Runs | Self::Completes => Some(JobResult::Done),
            Self::Fails(_) => Some(JobResult::Failed),
            Self::DependencyFails => Some(JobResult::Dependency),
            Self::Hangs => None,
        }
    }
}

impl Behaviour {
    /// Returns a oneshot that does its work within this time and succeeds.
    #[must_use]
    pub fn oneshot(takes: Duration) -> Self {
        Self { start_takes: takes, start: OnStart::Completes, ..Self::default() }
    }

    /// Returns a unit whose start fails with this exit status.
    #[must_use]
    pub fn fails(status: i32) -> Self {
        Self { start: OnStart::Fails(status), ..Self::default() }
    }

    /// Returns a unit that runs for this time and then fails with this exit status.
    #[must_use]
    pub fn fails_after(time: Duration, status: i32) -> Self {
        Self { ends: Some((time, Exit::Failed(status))), ..Self::default() }
    }
}
