//! The machine's systemd, as the agent sees it.
//!
//! [`Systemd`] is everything that the agent asks of the machine it runs on: the
//! unit files and evidence below `/run/flotilla`, and the manager on the bus. The
//! real one speaks D-Bus; the one for simulations keeps it all in memory.

use std::fmt;

use async_trait::async_trait;
use flotilla_registry::records::Token;
use flotilla_units::{ContentHash, UnitName};
use jiff::Timestamp;
use tokio::sync::mpsc;

mod bus;
mod cgroup;
mod changes;
mod escape;
pub mod fake;
mod files;
mod layout;
mod ledger;
mod survey;

pub use bus::DbusSystemd;
pub use layout::Layout;

use changes::Outbox;

/// What was started last under a unit's name, kept beside it until the machine goes down
/// (`/run/flotilla/env/<unit>`, which the unit's processes see as their environment).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// `FLOTILLA_TOKEN`.
    pub token: Token,
    /// `FLOTILLA_RUN`.
    pub run: u64,
    /// `FLOTILLA_HASH`.
    pub hash: ContentHash,
    /// A start job for exactly this token and run ended in `done` (`/run/flotilla/started/<unit>`).
    pub started: bool,
    /// Nothing was started under this token and run: what ran before was stopped for them
    /// (`FLOTILLA_TARGET=loaded`). What runs all the same, something else on the machine started.
    pub loaded: bool,
}

/// A unit's state, as systemd tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitState {
    /// `LoadState`: `loaded`, `not-found`, `masked`, ...
    pub load: String,
    /// `ActiveState`: `active`, `inactive`, `failed`, `activating`, `deactivating`, `reloading`.
    pub active: String,
    /// `SubState`: `running`, `exited`, `dead`, ...
    pub sub: String,
    /// When `ActiveState` changed last (`StateChangeTimestamp`).
    pub since: Option<Timestamp>,
    /// `InvocationID` as 32 hexadecimal digits; `None` before the first start.
    pub invocation: Option<String>,
    /// `Result`, for example `success` or `exit-code`; empty for types that have none.
    pub result: String,
    /// `ExecMainStatus` of services whose main process has ended.
    pub exit_status: Option<i32>,
    /// `NRestarts`.
    pub restarts: u32,
    /// `FragmentPath`: the file it was loaded from; empty when there is none.
    pub fragment: String,
    /// Whether its control group holds no process; looked at only of a unit that is `inactive` or
    /// `failed`, because what runs has some.
    pub cgroup_empty: bool,
    /// Whether a job of it is queued or under way. A start that waits for another unit's is: until
    /// its turn comes the unit is `inactive`.
    pub job: bool,
}

/// One unit that flotilla has, or had, on this machine since it booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// The runtime name.
    pub unit: UnitName,
    /// What was started last; `None` when the file is there and nothing was started.
    pub evidence: Option<Evidence>,
    /// The hash of the unit file under `/run/flotilla/units`; `None` when there is no file.
    pub file: Option<ContentHash>,
    /// What systemd says. A unit that is not loaded is `inactive`/`dead` with an empty group.
    pub state: UnitState,
    /// What stopped it with itself, of what was started under this evidence, or is about to.
    pub pulled: Option<Pulled>,
}

/// That a stop of another unit, by flotilla, stopped a unit that needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The other unit.
    pub by: UnitName,
    /// What is to follow.
    pub then: Then,
    /// What ran (`InvocationID`); of anything else nothing is said.
    pub invocation: String,
}

/// What follows for a unit that was stopped with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The other has not been started anew yet.
    Waits,
    /// The other has started anew: this one may start again.
    Starts,
    /// The other is not to run here any more, or only to be loaded.
    Stays,
}

/// How a job ended (`JobRemoved` in org.freedesktop.systemd1(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobResult {
    /// Carried out.
    Done,
    /// Another job took its place, or somebody cancelled it.
    Canceled,
    /// It ran into its time limit.
    Timeout,
    /// The unit failed.
    Failed,
    /// A unit that it requires failed.
    Dependency,
    /// It did not apply, for example because a condition did not hold.
    Skipped,
    /// Any result that this list does not name.
    Other(String),
}

/// What the journal says of a unit since its present evidence was written.
///
/// systemd forgets a unit that is neither active nor failed, and with it whether it ever ran; the
/// journal keeps PID 1's own messages about its jobs (`JOB_TYPE=`, `JOB_RESULT=`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// How the last start job ended; `None` when none was carried out since the evidence was written.
    pub start: Option<JobResult>,
    /// A stop job was carried out after that start: somebody said `systemctl stop`.
    pub stopped_by_job: bool,
}

impl UnitState {
    /// Tells whether it neither runs nor is about to by itself: `inactive` or `failed`, no process
    /// left in its control group, and no job queued.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        self.has_ended() && self.cgroup_empty
    }

    /// Tells whether it has ended for systemd, which would start it again: `inactive` or `failed`, and
    /// no job queued. Processes may be left of it (`KillMode=process`).
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.active.as_str(), "inactive" | "failed") && !self.job
    }

    /// Returns the state of a unit that systemd does not know.
    #[must_use]
    pub fn not_loaded() -> Self {
        Self {
            load: "not-found".to_owned(),
            active: "inactive".to_owned(),
            sub: "dead".to_owned(),
            since: None,
            invocation: None,
            result: String::new(),
            exit_status: None,
            restarts: 0,
            fragment: String::new(),
            cgroup_empty: true,
            job: false,
        }
    }
}

impl fmt::Display for JobResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Done => "done",
            Self::Canceled => "canceled",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
            Self::Dependency => "dependency",
            Self::Skipped => "skipped",
            Self::Other(word) => word,
        })
    }
}

/// Why systemd, or the file system below the unit files, did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// There is no bus to talk to.
    #[error("the D-Bus socket {address} cannot be reached; is dbus running? ({why})")]
    NoBus {
        /// The address tried.
        address: String,
        /// What the connection said.
        why: String,
    },
    /// systemd did not answer.
    #[error(
        "systemd did not answer {call} within {seconds} s and is asked again; if `systemctl list-jobs` hangs on that \
         machine too, look at its load and its console"
    )]
    NoAnswer {
        /// The method.
        call: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// systemd refused.
    #[error("systemd refused {call} of {unit}: {why}")]
    Refused {
        /// The method.
        call: &'static str,
        /// The unit.
        unit: String,
        /// The error's name and message.
        why: String,
    },
    /// A unit of this name is on the machine, and flotilla did not write it.
    #[error(
        "{unit} is a unit of this machine's own ({path}); flotilla does not overwrite it. Rename one of the two"
    )]
    Foreign {
        /// The unit.
        unit: String,
        /// Where systemd found it.
        path: String,
    },
    /// It runs, and flotilla's file is not the one that systemd has it from.
    #[error(
        "{unit} runs from {path}, which is this machine's own and hides flotilla's file; flotilla does not stop it. \
         Run `systemctl stop {unit}`, or remove that file and run `systemctl daemon-reload`"
    )]
    Hidden {
        /// The unit.
        unit: String,
        /// Where systemd found it.
        path: String,
    },
    /// It is to be taken over, and is not.
    #[error("{unit} runs on as it was, as this machine's own: {why}")]
    NotTaken {
        /// The unit.
        unit: String,
        /// Why.
        why: String,
    },
    /// The unit is loaded, so neither its file nor its evidence may change now.
    #[error("{0} is still loaded; it can be changed or started anew only after it has stopped")]
    StillLoaded(String),
    /// A file could not be read or written.
    #[error("{action} {path}: {source}")]
    File {
        /// For example `cannot write`.
        action: &'static str,
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// What happened on the machine, told as it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A flotilla unit's state may be another now: read it. A hint, never the truth.
    Unit(UnitName),
    /// PID 1 or the bus came back, or signals were lost: read everything.
    Everything,
}

/// The machine's systemd.
///
/// # Guarantees
/// Only units that flotilla wrote are ever changed, and those that it is told to take over. A file is
/// never changed while its unit is loaded, but for what is taken over as it is. [`start`](Systemd::start) and [`stop`](Systemd::stop) return after systemd's job has
/// ended.
///
/// # Errors
/// Every call ends: those that wait for a job when the job ends, all others within 25 seconds.
///
/// # Cancellation
/// Dropping a future leaves its job queued in systemd, and nothing more is sent on its behalf: a
/// [`stop`](Systemd::stop) called afterwards comes after a [`start`](Systemd::start) dropped before.
#[async_trait]
pub trait Systemd: fmt::Debug + Send + Sync + 'static {
    /// Returns everything that flotilla has on this machine.
    async fn list(&self) -> Result<Vec<Present>, SystemdError>;

    /// Returns one unit; `None` when flotilla has nothing of this name here.
    ///
    /// A unit that runs may be told as it was a moment ago, and a [`Change`] follows. One at rest is
    /// told as it is.
    async fn get(&self, unit: &UnitName) -> Result<Option<Present>, SystemdError>;

    /// Makes a unit's file be `text`, with the drop-in that carries the evidence, and returns what
    /// [`get`](Systemd::get) would. Does nothing when it is so already; otherwise a failed unit is
    /// reset and the unit has to be unloaded.
    async fn install(&self, unit: &UnitName, text: &str) -> Result<Option<Present>, SystemdError>;

    /// Makes sure, beside what is in use, of the room for what [`install`](Systemd::install) of `text`
    /// (if it is to change) and [`start`](Systemd::start) write, and that they would not be refused for
    /// a unit of the machine's own. Whatever fills the disk afterwards, those two find their room.
    async fn prepare(
        &self,
        unit: &UnitName,
        text: Option<&str>,
        evidence: &Evidence,
    ) -> Result<(), SystemdError>;

    /// Writes the evidence (with `started` unset), then starts the unit and waits for the job.
    ///
    /// Processes that a stop of it left behind do not keep it from starting.
    /// A unit that is active or on its way there keeps the evidence that its processes really
    /// have: with equal token and run the job under way is joined (or there is nothing to do, which
    /// is `done`); with others, and for a unit that is just stopping, it is
    /// [`StillLoaded`](SystemdError::StillLoaded).
    async fn start(&self, unit: &UnitName, evidence: &Evidence) -> Result<JobResult, SystemdError>;

    /// Notes that a start for the present evidence ended in `done`. Of units that were stopped with it a
    /// [`Change`] is told.
    async fn mark_started(&self, unit: &UnitName) -> Result<(), SystemdError>;

    /// Writes the evidence of a unit that is only loaded, whether or not it runs.
    async fn mark_loaded(&self, unit: &UnitName, evidence: &Evidence) -> Result<(), SystemdError>;

    /// Writes into the present evidence that what was started is what this content runs as well; whether
    /// its start ended in `done`, and when it was, stay as they are.
    async fn adopt(&self, unit: &UnitName, hash: ContentHash) -> Result<(), SystemdError>;

    /// Takes over a unit of the machine's own that runs with this text, or one that systemd runs alike:
    /// afterwards it is flotilla's, under this evidence (with the text that it has) and as one whose start
    /// ended in `done`, and runs as it did. Its
    /// own files are moved to where they can be put back from. One that is at rest is flotilla's
    /// afterwards without evidence. Does nothing where the machine has no such unit of its own. Goes
    /// on with what an earlier agent has begun.
    ///
    /// # Guarantees
    /// Nothing is stopped or started by it, whatever becomes of it.
    async fn take_over(&self, unit: &UnitName, text: &str, evidence: &Evidence) -> Result<(), SystemdError>;

    /// Gives back to the machine what [`take_over`](Systemd::take_over) has not taken whole: its files
    /// are put back, and it runs on. What systemd has from flotilla's file already is flotilla's.
    async fn let_go(&self, unit: &UnitName) -> Result<(), SystemdError>;

    /// Stops the unit, waits for the job, and resets it if it failed, so that systemd forgets it. Of every
    /// other unit that flotilla has started and that systemd stops with it, that is noted before
    /// ([`Present::pulled`]), until its next start.
    /// A start that is queued, and has not begun, is taken back. A unit that became the machine's own
    /// (`systemctl edit --full`) is [`Hidden`](SystemdError::Hidden) while it runs, and needs no stop
    /// once it is at rest.
    async fn stop(&self, unit: &UnitName) -> Result<JobResult, SystemdError>;

    /// Removes file, links, drop-in and evidence of a unit that is not running and has no job.
    async fn remove(&self, unit: &UnitName) -> Result<(), SystemdError>;

    /// Returns what the journal says of a unit since its present evidence was written. Asked only
    /// when systemd's own state leaves it open: once after a crash of the agent between the evidence
    /// and its `started` mark, and once when a started unit is found inactive.
    async fn history(&self, unit: &UnitName) -> Result<History, SystemdError>;

    /// Returns the stream of changes. There is one reader; changes are coalesced, never lost
    /// without a [`Change::Everything`].
    async fn changes(&self) -> Result<mpsc::Receiver<Change>, SystemdError>;
}
