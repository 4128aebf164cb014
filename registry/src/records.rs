//! What is stored: one type per kind of key, each with a version.
//!
//! Values are JSON, so that `etcdctl get` is readable. Records grow by adding
//! fields with defaults; a change that an older daemon would misread raises
//! [`VERSION`], and a daemon that meets a newer version leaves the record alone.

mod adoption;
mod event;
mod report;
mod token;
mod without;
mod word;

use std::{collections::BTreeMap, fmt};

use flotilla_units::{ContentHash, MachineId, UnitName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::store::{KeyValue, LeaseId};

pub use self::{
    adoption::Adoption,
    event::{EventChange, EventRecord},
    report::{ReportBucket, ReportHead, UnitReport},
    token::Token,
    without::{BLOCK, Without},
    word::{InvocationId, Word},
};

/// The version of records that this program writes, and the newest that it understands.
pub const VERSION: u32 = 1;

/// Why a stored value could not be understood.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordError {
    /// It is not the JSON that was expected.
    #[error("the value of `{key}` cannot be read: {why}; mend or restore this key")]
    Corrupted {
        /// The key.
        key: String,
        /// What the decoder said, with line and column.
        why: String,
    },
    /// A newer daemon wrote it.
    #[error(
        "the value of `{key}` has version {found}, and this flotillad understands up to {VERSION}; upgrade it"
    )]
    Newer {
        /// The key.
        key: String,
        /// Its version.
        found: u32,
    },
}

/// A stored type.
pub trait Record: Serialize + DeserializeOwned {
    /// Reads a record from the value of a key.
    ///
    /// # Errors
    /// The value is not this record's JSON, or a newer daemon wrote it.
    fn decode(key: &str, value: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Versioned {
            v: u32,
        }
        let corrupted =
            |e: serde_json::Error| RecordError::Corrupted { key: key.to_owned(), why: e.to_string() };
        // As every daemon of this version writes it: reading it twice would be a fifth of what the largest clusters
        // cost their engines.
        if let Some(record) = plainly(value) {
            return Ok(record);
        }
        // The version is looked at first: a newer record need not have this one's fields.
        let Versioned { v: found } = serde_json::from_slice(value).map_err(corrupted)?;
        if found > VERSION {
            return Err(RecordError::Newer { key: key.to_owned(), found });
        }
        serde_json::from_slice(value).map_err(corrupted)
    }

    /// Reads a record from a key with its value.
    ///
    /// # Errors
    /// As [`Record::decode`].
    fn from_kv(kv: &KeyValue) -> Result<Self, RecordError> {
        Self::decode(&kv.key, &kv.value)
    }

    /// Writes the record as JSON.
    fn encode(&self) -> Vec<u8> {
        // Records hold strings, numbers and maps with string keys: none of the ways in which
        // serialization to JSON fails is open to them.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Reads a record that begins with a version that is understood, and is one.
fn plainly<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    let rest = value.strip_prefix(b"{\"v\":")?;
    let version = rest.split(|byte| *byte == b',').next()?;
    let version: u32 = std::str::from_utf8(version).ok()?.parse().ok()?;
    (version <= VERSION).then(|| serde_json::from_slice(value).ok()).flatten()
}

macro_rules! records {
    ($($name:ident),* $(,)?) => { $(impl Record for $name {})* };
}
records!(
    Cluster,
    UnitRecord,
    RangeGuard,
    RangeRecord,
    MachineRecord,
    MachineSettings,
    ManifestBucket,
    ReportHead,
    ReportBucket,
    LeaderRecord,
    SeatRecord,
    EventRecord,
    ClusterSettings,
);

const fn version() -> u32 {
    VERSION
}

/// The cluster's own record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Record version.
    #[serde(default = "version")]
    pub v: u32,
    /// Random, made once; agents refuse a store with another.
    pub id: String,
    /// Raised by every recovery; the high bits of every token.
    pub epoch: u16,
    /// The last 1,000 leader terms, oldest first; a term once seen and now missing means that the
    /// store went back.
    pub terms: Vec<String>,
    /// The highest token counter that any leader may have given out; leaders reserve blocks.
    pub tokens_reserved: u64,
}

/// What operators set for the whole cluster; what is not set has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// Record version.
    #[serde(default = "version")]
    pub v: u32,
    /// How long events are kept, in seconds.
    #[serde(default = "ClusterSettings::default_events_kept_s")]
    pub events_kept_s: u64,
    /// How many event records are kept at most.
    #[serde(default = "ClusterSettings::default_events_max")]
    pub events_max: usize,
}

/// What the user wants of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Known to the cluster, on no machine.
    Inactive,
    /// On a machine, not started.
    Loaded,
    /// On a machine and started.
    Launched,
}

/// How what runs gets to know that its text has changed. A template's says it of its instances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rollout {
    /// It is started anew where it is; several of one text one after the other, each once the one
    /// before it is as it should be.
    #[default]
    OneByOne,
    /// It runs on as it is until it is started anew for another reason.
    NextStart,
}

/// One unit. A template has one too (its target stays `inactive`); an instance has no hash of its
/// own and follows its template's, unless a client of fleet's API gave it a text of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitRecord {
    /// Record version.
    #[serde(default = "version")]
    pub v: u32,
    /// The name that systemd knows it by. It equals the key's name for all of systemd's own types.
    pub runtime: UnitName,
    /// The content that it runs; `None` for instances that follow their template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<ContentHash>,
    /// How those that run get to know that `current` has changed.
    #[serde(default, skip_serializing_if = "Rollout::is_default")]
    pub rollout: Rollout,
    /// The name of the set of unit files (`flotctl apply --set NAME`) that it was made by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// The machine whose own unit it was, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adoption>,
    /// What the user wants.
    pub target: Target,
    /// Grows with every change of this record.
    pub generation: u64,
    /// Grows with every order to start anew.
    pub run: u64,
    /// Who changed it last.
    pub by: String,
    /// When it was changed last.
    pub at: Timestamp,
    /// Being destroyed: it stays, its name unusable, until each placement is proven gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
}

/// Compared and rewritten by every change of a template's ranges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeGuard {
    /// Record version.
    #[serde(default = "version")]
    pub v: u32,
    /// Grows with every change.
    pub generation: u64,
}

/// Many instances of a template said once; an own `units/` record wins over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeRecord {
    /// Record version.
    #[serde(default = "version")]
    pub v: u32,
    /// What the user wants.
    pub target: Target,
    /// Grows with every change of this record.
    pub generation: u64,
    /// Grows with every order to start anew.
    pub run: u64,
    /// Who changed it last.
    pub by: String,
    /// When it was changed last.
    pub at: Timestamp,
    /// Being destroyed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// Instances within its bounds that it does not speak for: they were destroyed one by one.
    #[serde(default, skip_serializing_if = "Without::is_empty")]
    pub without: Without,
}

impl RangeRecord {
    /// Tells whether the very same is said as by another, whomever each leaves out.
    #[must_use]
    pub fn says_as(&self, other: &Self) -> bool {
        let Self { v, target, generation, run, by, at, deleting, without: _ } = self;
        (v, target, generation, run) == (&other.v, &other.target, &other.generation, &other.run)
            && (by, at, deleting) == (&other.by, &other.at, &other.deleting)
    }
}

/// A machine that lives; its lease is its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// Record version.
    #[serde(default = "version")]
    pub v: u32,
    /// Its host name.
    pub host: String,
    /// Its addresses, the one to show first.
    pub addresses: Vec<String>,
    /// Where its API answers other machines, for example `https://10.0.0.1:7400`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// What its operator's configuration says of it.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// What it found out about itself: `os.version`, `kernel`, `systemd`, and so on. Metadata of the same
    /// key wins over it.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// What it has to give.
    #[serde(default)]
    pub capacity: Capacity,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Random, new each time that this key is created: the machine's incarnation.
    pub nonce: String,
    /// The flotillad's version.
    pub version: String,
    /// The lease this key is under.
    pub lease: LeaseId,
    /// The longest time to live granted to this incarnation and not yet run out, in seconds.
    pub lease_ttl_s: u64,
    /// flotillad was stopped in order; its units run on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
}

/// What a machine has to give.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Processors, in thousandths.
    pub cpu_milli: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Counted resources that its operator named, for example two of `gpu`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub named: BTreeMap<String, u64>,
}

/// What users said of a machine while it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSettings {
    /// Record version.
    #[serde(default = "version")]
    pub v: u32,
    /// Metadata that wins over the machine's own; `None` takes a key away.
    #[serde(default)]
    pub metadata: BTreeMap<String, Option<String>>,
    /// Nothing new is placed here.
    #[serde(default)]
    pub cordoned: bool,
    /// Everything that can leaves.
    #[serde(default)]
    pub draining: bool,
    /// An operator vouches that it is off.
    #[serde(default)]
    pub fenced: bool,
}

/// One bucket of what a machine should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestBucket {
    /// Record version.
    #[serde(default = "version")]
    pub v: u32,
    /// The entries, by unit and then token. A unit has at most one entry that is neither departing nor
    /// moving.
    pub entries: Vec<ManifestEntry>,
}

/// One unit on one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestEntry {
    /// The unit's name in the cluster.
    pub unit: UnitName,
    /// The name that systemd knows it by, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<UnitName>,
    /// Its content.
    pub hash: ContentHash,
    /// `loaded` or `launched`; while departing, what it was.
    pub target: Target,
    /// The agent starts the unit anew when this is above the run it started.
    pub run: u64,
    /// This placement's token.
    pub token: Token,
    /// It must leave, and is not yet proven gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub departing: Option<Departure>,
    /// It is being started elsewhere, and this entry becomes a departing one once that one is ready. Until
    /// then it is obeyed like any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<Departure>,
    /// A unit of this name that is the machine's own, with this very content, is taken over as it runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
}

/// Why a placement ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Departure {
    /// The user unloaded it.
    Unloaded,
    /// The user destroyed it.
    Destroyed,
    /// Its machine no longer meets its requirements.
    Requirements,
    /// Its machine is drained.
    Drained,
    /// Another unit that replaces it came.
    Replaced,
    /// Its machine was lost and it was started elsewhere.
    MachineLost,
    /// Its content changed, and it starts anew under another token on the same machine.
    Updated,
    /// Machines are evened out by a user's word.
    Rebalanced,
    /// A unit of higher priority needs the room.
    Preempted,
    /// It was being started here to leave another machine, and stays there after all.
    TakenBack,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRecord {
    /// Record version.
    #[serde(default = "version")]
    pub v: u32,
    /// The machine that the leader runs on.
    pub machine: MachineId,
    /// That machine's boot: tells two machines of one id apart.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot_id: String,
    /// This term's random id, also in `cluster`.
    pub term: String,
    /// Since when.
    pub since: Timestamp,
}

/// Who is hot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatRecord {
    /// Record version.
    #[serde(default = "version")]
    pub v: u32,
    /// The machine that the engine runs on.
    pub machine: MachineId,
    /// That machine's boot: tells two machines of one id apart.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot_id: String,
    /// Where its API answers other machines; `None` on a single machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
}

impl Rollout {
    /// Tells whether it is what is meant where nothing is said.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            v: VERSION,
            events_kept_s: Self::default_events_kept_s(),
            events_max: Self::default_events_max(),
        }
    }
}

impl ClusterSettings {
    /// A day: long enough to look at what happened over night.
    const fn default_events_kept_s() -> u64 {
        24 * 3_600
    }

    /// Ten thousand: at most some 40 MB of the store when every one is about a hundred units.
    const fn default_events_max() -> usize {
        10_000
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Inactive => "inactive",
            Self::Loaded => "loaded",
            Self::Launched => "launched",
        })
    }
}

impl ManifestEntry {
    /// Tells whether the unit is to be here, and not only until it is gone or runs elsewhere.
    #[must_use]
    pub const fn stays(&self) -> bool {
        self.departing.is_none() && self.moving.is_none()
    }

    /// Returns the name that systemd knows the unit by.
    #[must_use]
    pub fn runtime(&self) -> &UnitName {
        self.runtime.as_ref().unwrap_or(&self.unit)
    }
}
