//! One machine, as the store has it: its record, settings, manifest and report.

use std::{array, collections::BTreeMap, sync::Arc};

use flotilla_registry::{
    keys::{BUCKETS, Bucket},
    records::{
        MachineRecord, MachineSettings, ManifestBucket, ManifestEntry, ReportBucket, ReportHead, Token,
        UnitReport,
    },
    store::Revision,
};
use flotilla_units::UnitName;

use super::kept::{Kept, is_unreadable, readable};

/// Everything the store has under one machine id.
///
/// A machine that is away still has a manifest; one that was never here may have settings.
#[derive(Debug, Clone)]
pub struct Machine {
    /// `machines/<id>`; `None` while the machine is away.
    pub record: Option<Kept<MachineRecord>>,
    /// What its record said last, while this engine watched; kept while it is away.
    pub former: Option<Arc<MachineRecord>>,
    /// `machine-settings/<id>`.
    pub settings: Option<Kept<MachineSettings>>,
    /// `manifests/<id>/<bucket>`.
    pub manifest: [Option<Kept<ManifestBucket>>; BUCKETS as usize],
    /// `reports/<id>/head`.
    pub head: Option<Kept<ReportHead>>,
    /// `reports/<id>/<bucket>`.
    pub report: [Option<Kept<ReportBucket>>; BUCKETS as usize],
}

/// Whether a machine takes part, as far as the store tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Life {
    /// Its lease lives and it has reported.
    Present,
    /// Its lease lives, and flotillad on it was stopped in order; its units run on.
    Stopped,
    /// Its key is there, but its record or its report cannot be read, or it has not reported yet:
    /// what runs on it is not known.
    Unknown,
    /// Its key is gone: its lease has ended.
    Lost,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            record: None,
            former: None,
            settings: None,
            manifest: array::from_fn(|_| None),
            head: None,
            report: array::from_fn(|_| None),
        }
    }
}

impl Machine {
    /// Tells whether the machine takes part.
    #[must_use]
    pub fn life(&self) -> Life {
        match &self.record {
            None => Life::Lost,
            Some(kept) => match kept.record() {
                None => Life::Unknown,
                Some(record) if record.stopped => Life::Stopped,
                Some(record) => match readable(self.head.as_ref()) {
                    Some(head) if head.incarnation == record.nonce => Life::Present,
                    _ => Life::Unknown,
                },
            },
        }
    }

    /// Returns why nothing new is placed here, for people; `None` when it may be.
    #[must_use]
    pub fn closed(&self) -> Option<String> {
        match self.life() {
            Life::Present => {}
            Life::Stopped => return Some("its flotillad is stopped".to_owned()),
            Life::Lost => return Some("it is away: its lease has ended".to_owned()),
            Life::Unknown => {
                let unreadable = self.record.as_ref().and_then(Kept::unreadable);
                return Some(match unreadable {
                    Some(error) => error.to_string(),
                    None => "it has not reported what it runs yet".to_owned(),
                });
            }
        }
        if let Some(error) = self.manifest.iter().flatten().find_map(Kept::unreadable) {
            return Some(error.to_string());
        }
        match &self.settings {
            None => None,
            Some(kept) => match kept.record() {
                None => kept.unreadable().map(ToString::to_string),
                Some(settings) if settings.fenced => Some("it is fenced".to_owned()),
                Some(settings) if settings.draining => Some("it is being drained".to_owned()),
                Some(settings) if settings.cordoned => Some("it is cordoned".to_owned()),
                Some(_) => None,
            },
        }
    }

    /// Returns its record, or what it said last if it is away or unreadable.
    #[must_use]
    pub fn known(&self) -> Option<&Arc<MachineRecord>> {
        readable(self.record.as_ref()).or(self.former.as_ref())
    }

    /// Tells whether all that placement has to know of the machine can be read. Where it cannot,
    /// nothing leaves because of what the machine is like.
    #[must_use]
    pub fn is_legible(&self) -> bool {
        !is_unreadable(self.record.as_ref()) && !is_unreadable(self.settings.as_ref())
    }

    /// Tells whether everything that can is to leave.
    #[must_use]
    pub fn draining(&self) -> bool {
        readable(self.settings.as_ref()).is_some_and(|settings| settings.draining)
    }

    /// Returns the metadata that requirements are matched against: what the machine found out about
    /// itself, over it its own configuration's, and over both what users said while it runs.
    #[must_use]
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let facts = self.known().map(|record| record.facts.clone()).unwrap_or_default();
        self.with_words(facts)
    }

    /// Returns the metadata that was given to it: by its own configuration, and over it by what users
    /// said while it runs. What it found out about itself is not in it.
    #[must_use]
    pub fn given_metadata(&self) -> BTreeMap<String, String> {
        self.with_words(BTreeMap::new())
    }

    fn with_words(&self, mut metadata: BTreeMap<String, String>) -> BTreeMap<String, String> {
        if let Some(record) = self.known() {
            metadata.extend(record.metadata.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        if let Some(settings) = readable(self.settings.as_ref()) {
            for (key, value) in &settings.metadata {
                match value {
                    Some(value) => metadata.insert(key.clone(), value.clone()),
                    None => metadata.remove(key),
                };
            }
        }
        metadata
    }

    /// Returns the bucket of the manifest that has, or would have, a unit.
    #[must_use]
    pub const fn manifest_bucket(&self, bucket: Bucket) -> Option<&Kept<ManifestBucket>> {
        self.manifest[bucket.number() as usize].as_ref()
    }

    /// Returns the entries of a unit, departing ones included.
    pub fn entries_of<'a>(&'a self, unit: &'a UnitName) -> impl Iterator<Item = &'a ManifestEntry> {
        readable(self.manifest_bucket(Bucket::of(unit)))
            .into_iter()
            .flat_map(|bucket| &bucket.entries)
            .filter(move |entry| entry.unit == *unit)
    }

    /// Returns all entries that can be read.
    pub fn entries(&self) -> impl Iterator<Item = &ManifestEntry> {
        self.manifest.iter().flatten().filter_map(Kept::record).flat_map(|bucket| &bucket.entries)
    }

    /// Returns what the machine says of a unit, newest token first.
    #[must_use]
    pub fn reports_of(&self, unit: &UnitName) -> Vec<&UnitReport> {
        let bucket = readable(self.report[Bucket::of(unit).number() as usize].as_ref());
        let mut reports: Vec<_> =
            bucket.into_iter().flat_map(|bucket| &bucket.units).filter(|r| r.unit == *unit).collect();
        reports.sort_by_key(|report| std::cmp::Reverse(report.token));
        reports
    }

    /// Returns all that the machine says of its units.
    pub fn reports(&self) -> impl Iterator<Item = &UnitReport> {
        self.report.iter().flatten().filter_map(Kept::record).flat_map(|bucket| &bucket.units)
    }

    /// Tells whether a departing entry is proven gone: the living incarnation has seen the bucket
    /// that orders it to leave, and says that the unit with this token is gone.
    ///
    /// Everything else (no report, an older report, a report that does not name the unit, one that
    /// cannot be read) proves nothing.
    #[must_use]
    pub fn proves_gone(&self, unit: &UnitName, token: Token) -> bool {
        let (Some(record), Some(head)) = (readable(self.record.as_ref()), readable(self.head.as_ref()))
        else {
            return false;
        };
        let Some(order) = self.manifest_bucket(Bucket::of(unit)) else { return false };
        head.incarnation == record.nonce
            && head.seen >= order.mod_revision()
            && self.reports_of(unit).iter().any(|report| report.token == Some(token) && report.gone)
    }

    /// Returns the revision of the manifest that the living incarnation has acted on.
    #[must_use]
    pub fn seen(&self) -> Option<Revision> {
        readable(self.head.as_ref()).map(|head| head.seen)
    }

    /// Returns when its manifest was written last.
    #[must_use]
    pub fn ordered(&self) -> Option<Revision> {
        self.manifest.iter().flatten().map(Kept::mod_revision).max()
    }

    /// Tells whether the store has nothing under this machine's id.
    pub(super) fn is_nothing(&self) -> bool {
        self.record.is_none()
            && self.settings.is_none()
            && self.head.is_none()
            && self.manifest.iter().all(Option::is_none)
            && self.report.iter().all(Option::is_none)
    }

    /// Returns what of this machine cannot be read, for people.
    #[must_use]
    pub fn unreadable(&self) -> Vec<String> {
        let mut all = Vec::new();
        all.extend(self.record.as_ref().and_then(Kept::unreadable));
        all.extend(self.settings.as_ref().and_then(Kept::unreadable));
        all.extend(self.head.as_ref().and_then(Kept::unreadable));
        all.extend(self.manifest.iter().flatten().filter_map(Kept::unreadable));
        all.extend(self.report.iter().flatten().filter_map(Kept::unreadable));
        all.into_iter().map(ToString::to_string).collect()
    }

    /// Tells whether the bucket that may hold a unit cannot be read.
    #[must_use]
    pub fn hides(&self, bucket: Bucket) -> Option<&Kept<ManifestBucket>> {
        self.manifest_bucket(bucket).filter(|kept| is_unreadable(Some(kept)))
    }
}
