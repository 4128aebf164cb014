//! Units, where they are and how they are.

use flotilla_units::{ContentHash, MachineId, UnitName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the user wants of a unit.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Known to the cluster, on no machine.
    #[default]
    Inactive,
    /// On a machine, not started.
    Loaded,
    /// On a machine and started.
    Launched,
}

/// One unit of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unit {
    /// Its name.
    #[schema(value_type = String)]
    pub name: UnitName,
    /// What the user wants.
    pub target: Target,
    /// The store's revision at which it was last ordered something: what `If-Match` is compared with. Zero
    /// for what runs somewhere and has no record any more.
    #[serde(default)]
    pub revision: i64,
    /// What has become of it, where it is behind most; `launched` says that it was started, not that it
    /// runs.
    #[serde(default)]
    pub current: Target,
    /// Grows with every change that a user makes.
    pub generation: u64,
    /// Grows with every order to start anew.
    pub run: u64,
    /// Its content's SHA-256; an instance shows its template's. Absent when the template is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub hash: Option<ContentHash>,
    /// The template of an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub template: Option<UnitName>,
    /// `Description=` of the unit file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// It runs on every machine that its requirements allow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub global: bool,
    /// It is being destroyed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// Who changed it last.
    pub by: String,
    /// When it was changed last.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Where it is; several for a global unit, or while it moves.
    pub placements: Vec<Placement>,
    /// Why it is on no machine that lives although it should be, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unplaced: Option<String>,
    /// Why it is not as it should be, in one line: on no machine, failed, kept from starting, or with an
    /// older text than it has now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many of its placements, or of its instances', have its text.
    #[serde(default)]
    pub versions: Versions,
    /// How far its text has come, while it is not everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
    /// It is an instance with a text of its own, and does not follow its template.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_text: bool,
    /// What runs of it keeps an older text until its next start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub next_start: bool,
    /// The set of unit files (`flotctl apply --set NAME`) that it was made by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
}

/// How far a text has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Versions {
    /// How many placements have it.
    pub updated: u64,
    /// How many there are.
    pub all: u64,
}

/// A unit on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Placement {
    /// The machine.
    #[schema(value_type = String)]
    pub machine: MachineId,
    /// The machine's host name, where the machine is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whether the machine's lease lives.
    pub machine_alive: bool,
    /// The placement's fencing token; zero for what runs without a placement.
    pub token: i64,
    /// The run that the machine was told to start.
    pub run: u64,
    /// The content that it was told to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub hash: Option<ContentHash>,
    /// What has become of it there.
    #[serde(default)]
    pub current: Target,
    /// Why it must leave, when it must.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub departing: Option<String>,
    /// Why it is there only until it is ready elsewhere, when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<String>,
    /// What the machine reports of it; absent until it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<UnitState>,
}

/// What a machine reports of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitState {
    /// systemd's `LoadState`.
    pub load: String,
    /// systemd's `ActiveState`; `activating` also while a start of it is queued.
    pub active: String,
    /// systemd's `SubState`; `queued` while a start of it is queued behind another unit's.
    pub sub: String,
    /// Since when `active` is what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// The token that it was started under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<i64>,
    /// The run that was started last.
    #[serde(default)]
    pub run: u64,
    /// The content that was started last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub hash: Option<ContentHash>,
    /// systemd's `InvocationID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<String>,
    /// systemd's `Result`, when it is not `success`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// The main process's exit status, when it ended otherwise than well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// How often systemd restarted it by itself.
    #[serde(default)]
    pub restarts: u32,
    /// flotilla started it, and nothing says that it should be here; it is left alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stray: bool,
    /// Its start has not ended in `done`: if it is `inactive`, it has not run yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub starting: bool,
    /// It was stopped on the machine itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped_locally: bool,
    /// What keeps the machine from doing what it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A unit's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitContent {
    /// The unit; for an instance the instance, although the text is its template's.
    #[schema(value_type = String)]
    pub name: UnitName,
    /// The template whose text it is, if it is an instance without one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub template: Option<UnitName>,
    /// The text's SHA-256.
    #[schema(value_type = String)]
    pub hash: ContentHash,
    /// The text, byte for byte as it was submitted.
    pub text: String,
    /// When the record that has it was last written, for `If-Match`; absent while the store cannot say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
}

/// A text for a unit that there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UnitText {
    /// The text.
    pub text: String,
}

/// What `systemctl status` would show of a unit, read on the machine that runs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitStatus {
    /// The unit.
    pub unit: String,
    /// `Description`.
    pub description: String,
    /// The machine's host name.
    pub host: String,
    /// The machine's id.
    pub machine: String,
    /// `LoadState`.
    pub load: String,
    /// `FragmentPath`.
    pub fragment: String,
    /// `DropInPaths`.
    #[serde(default)]
    pub drop_ins: Vec<String>,
    /// `ActiveState`.
    pub active: String,
    /// `SubState`.
    pub sub: String,
    /// `Result`.
    pub result: String,
    /// Since when it is in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// `InvocationID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<String>,
    /// `StatusText`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_text: Option<String>,
    /// `MainPID`; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_pid: Option<u32>,
    /// The main process's command name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_command: Option<String>,
    /// The main process's exit status, after it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// `ExecMainCode` in words (`exited`, `killed`, `dumped`), after it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<String>,
    /// Tasks in its control group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// Memory of its control group, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processor time of its control group, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ns: Option<u64>,
    /// `NRestarts`.
    #[serde(default)]
    pub restarts: u32,
    /// `ControlGroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_group: Option<String>,
    /// The processes of the control group, as (process id, command line).
    #[serde(default)]
    pub processes: Vec<Process>,
    /// The last lines of its journal, oldest first.
    #[serde(default)]
    pub journal: Vec<crate::journal::JournalLine>,
    /// What keeps the machine from doing what it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// One process of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Process {
    /// Process id on its machine.
    pub pid: u32,
    /// Its command line.
    pub command: String,
    /// The control group below the unit's own that it is in; empty for the unit's own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Inactive => "inactive",
            Self::Loaded => "loaded",
            Self::Launched => "launched",
        })
    }
}
