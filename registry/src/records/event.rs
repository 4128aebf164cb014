//! What is remembered of a transaction: who changed what, and why.

use flotilla_units::{MachineId, UnitName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::version;

/// What changed and why, for people and for `flotctl events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Record version.
    #[serde(default = "version")]
    pub v: u32,
    /// When it was written.
    pub at: Timestamp,
    /// Who: `engine`, or the user that asked.
    pub by: String,
    /// The request by which a user asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// What, one for each kind of change and each machine that the transaction changed.
    pub changes: Vec<EventChange>,
}

/// One change of an [`EventRecord`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventChange {
    /// What happened, in kebab case: `submitted`, `placed`, `departing`, `machine-lost`, ...
    pub kind: String,
    /// The unit, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitName>,
    /// More units of which the very same is told: of a thousand that are placed at once it is said once why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<UnitName>,
    /// The machine, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// That machine's host name: it is told also when the machine has long been forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Who asked for it, where several did in one transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The request that led to it, where it was written later than the request itself, or together with others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When it was seen, where it waited to be written together with others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

impl EventRecord {
    /// Returns when a change of it happened, as far as that is known.
    #[must_use]
    pub fn time_of(&self, change: &EventChange) -> Timestamp {
        change.at.unwrap_or(self.at)
    }

    /// Returns by which request a unit was changed, if it was by one. Of an instance that only its range speaks for
    /// the range's change tells.
    #[must_use]
    pub fn request_about(&self, unit: &UnitName) -> Option<&str> {
        let template = unit.template();
        let names = |change: &EventChange, name: &UnitName| change.units().any(|it| it == name);
        let own = self.changes.iter().find(|change| names(change, unit));
        let of = |template: &UnitName| self.changes.iter().find(|change| names(change, template));
        let change = own.or_else(|| template.as_ref().and_then(of));
        change.and_then(|change| change.request.as_deref()).or(self.request.as_deref())
    }
}

impl EventChange {
    /// Returns every unit that it is told of.
    pub fn units(&self) -> impl Iterator<Item = &UnitName> {
        self.unit.iter().chain(&self.also)
    }

    /// Takes in another change if it tells the very same of another unit, perhaps without the host's name; tells
    /// whether it did.
    #[must_use]
    pub fn join(&mut self, other: &Self) -> bool {
        let alike = self.unit.is_some()
            && other.unit.is_some()
            && (self.machine, &self.kind, &self.why) == (other.machine, &other.kind, &other.why)
            && (&self.by, &self.request, self.at) == (&other.by, &other.request, other.at)
            && (other.host.is_none() || self.host == other.host);
        if alike {
            self.also.extend(other.units().cloned());
        }
        alike
    }
}
