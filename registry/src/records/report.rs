//! What a machine has, as its agent writes it.

use flotilla_units::{ContentHash, UnitName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{InvocationId, Token, Word};
use crate::store::Revision;

/// The first page of a machine's report; it vouches for every bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportHead {
    /// Record version.
    #[serde(default = "super::version")]
    pub v: u32,
    /// The nonce of the `machines/<id>` record that this report belongs to.
    pub incarnation: String,
    /// All manifest buckets up to this revision have been acted on: what is to be stopped is being
    /// stopped, and no earlier order will be carried out any more.
    pub seen: Revision,
}

/// One bucket of what a machine has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportBucket {
    /// Record version.
    #[serde(default = "super::version")]
    pub v: u32,
    /// The units, by name and then token.
    pub units: Vec<UnitReport>,
}

/// What a machine says of one unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitReport {
    /// The unit's name in the cluster.
    pub unit: UnitName,
    /// The placement that it is about: each manifest entry has a report under its own token, also
    /// when nothing was started under it yet (then `run` is 0). `None` for what runs without an
    /// entry and without evidence of a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The run that was started last.
    #[serde(default)]
    pub run: u64,
    /// The content that was started last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<ContentHash>,
    /// systemd's `LoadState`.
    pub load: Word,
    /// systemd's `ActiveState`; `activating` also while a start of it is queued.
    pub active: Word,
    /// systemd's `SubState`; `queued` while a start of it is queued behind another unit's.
    pub sub: Word,
    /// Since when `active` is what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// systemd's `InvocationID`, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<InvocationId>,
    /// systemd's `Result`, for example `exit-code`, when it is not `success`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Word>,
    /// The main process's exit status (`ExecMainStatus`), when it has ended otherwise than well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// How often systemd restarted it by itself (`NRestarts`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts: u32,
    /// Said of departing entries only: nothing of this placement is on the machine, or the agent
    /// stopped it and it is inactive or failed with its control group empty. Together with the
    /// head's `seen` and the token this is the proof that a departing unit has gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// flotilla started it, and no manifest entry names it; it is left alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stray: bool,
    /// Its start under `token` and `run` has not ended in `done`, as far as the agent knows: it may wait for
    /// its turn, or be tried again. Of a unit that is `inactive`, that it has not run yet. Agents of before
    /// this was told leave it out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub starting: bool,
    /// It was stopped on the machine itself (`systemctl stop`), and stays so until the next run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped_locally: bool,
    /// What keeps the agent from doing what the manifest says, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_zero(n: &u32) -> bool {
    *n == 0
}
