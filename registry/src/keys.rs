//! Where everything is: the one place that spells keys.
//!
//! | key | value | written by | lease |
//! | --- | --- | --- | --- |
//! | `cluster` | [`Cluster`](crate::records::Cluster) | leader | no |
//! | `contents/<sha256>` | the unit's text, as it is | API | no |
//! | `units/<name>` | [`UnitRecord`](crate::records::UnitRecord) | API | no |
//! | `ranges/<template>` | guard of the template's ranges | API | no |
//! | `ranges/<template>/<from>-<to>` | [`RangeRecord`](crate::records::RangeRecord) | API | no |
//! | `machines/<id>` | [`MachineRecord`](crate::records::MachineRecord) | agent | the machine's |
//! | `machine-settings/<id>` | [`MachineSettings`](crate::records::MachineSettings) | API | no |
//! | `manifests/<id>/<bucket>` | [`ManifestBucket`](crate::records::ManifestBucket) | leader | no |
//! | `reports/<id>/head` | [`ReportHead`](crate::records::ReportHead) | agent | the machine's |
//! | `reports/<id>/<bucket>` | [`ReportBucket`](crate::records::ReportBucket) | agent | the machine's |
//! | `engine/leader` | [`LeaderRecord`](crate::records::LeaderRecord) | engine | the leader's |
//! | `engine/seats/<n>` | [`SeatRecord`](crate::records::SeatRecord) | engine | the seat's |
//! | `settings` | [`ClusterSettings`](crate::records::ClusterSettings) | API | no |
//! | `events/<writer>-<seq>` | [`EventRecord`](crate::records::EventRecord) | leader, API | no |

use std::fmt;

use flotilla_units::{ContentHash, MachineId, UnitName};
use serde::{Deserialize, Serialize};

use crate::store::KeyRange;

/// The prefix of a cluster that was not told another.
pub const DEFAULT_PREFIX: &str = "/flotilla/";

/// How many buckets a machine's manifest and report have.
///
/// At 100 units a machine a change rewrites about 1 kB, and 10,000 machines are 160,000 keys.
pub const BUCKETS: u8 = 16;

/// One of a machine's [`BUCKETS`]; a unit's name decides which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bucket(u8);

/// The keys of one cluster: its prefix, and how every key is spelt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

/// What a key is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Key {
    Cluster,
    Content(ContentHash),
    Unit(UnitName),
    RangeGuard(UnitName),
    Range { template: UnitName, from: u64, to: u64 },
    Machine(MachineId),
    MachineSettings(MachineId),
    Manifest(MachineId, Bucket),
    ReportHead(MachineId),
    Report(MachineId, Bucket),
    Leader,
    Seat(u8),
    Settings,
    Event { writer: String, sequence: u64 },
}

/// Why a prefix was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot be the key prefix: it has to start and end with `/`, for example `/flotilla/`")]
pub struct PrefixError(String);

impl Bucket {
    /// Returns the bucket of a unit: FNV-1a of its name, modulo [`BUCKETS`]. It is part of the
    /// stored format and never changes.
    #[must_use]
    pub fn of(unit: &UnitName) -> Self {
        let hash = unit.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self((hash % u64::from(BUCKETS)) as u8)
    }

    /// Returns all buckets, ascending.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..BUCKETS).map(Self)
    }

    /// Returns its number, below [`BUCKETS`].
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}", self.0)
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self { prefix: DEFAULT_PREFIX.to_owned() }
    }
}

impl Keys {
    /// Makes the keys under a prefix.
    ///
    /// # Errors
    /// The prefix has to start and end with `/`.
    pub fn new(prefix: &str) -> Result<Self, PrefixError> {
        if prefix.starts_with('/') && prefix.ends_with('/') && prefix.len() >= 2 {
            Ok(Self { prefix: prefix.to_owned() })
        } else {
            Err(PrefixError(prefix.to_owned()))
        }
    }

    /// Returns the prefix.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Spells a key.
    #[must_use]
    pub fn spell(&self, key: &Key) -> String {
        let p = &self.prefix;
        match key {
            Key::Cluster => format!("{p}cluster"),
            Key::Content(hash) => format!("{p}contents/{hash}"),
            Key::Unit(name) => format!("{p}units/{name}"),
            Key::RangeGuard(template) => format!("{p}ranges/{template}"),
            Key::Range { template, from, to } => format!("{p}ranges/{template}/{from:020}-{to:020}"),
            Key::Machine(id) => format!("{p}machines/{id}"),
            Key::MachineSettings(id) => format!("{p}machine-settings/{id}"),
            Key::Manifest(id, bucket) => format!("{p}manifests/{id}/{bucket}"),
            Key::ReportHead(id) => format!("{p}reports/{id}/head"),
            Key::Report(id, bucket) => format!("{p}reports/{id}/{bucket}"),
            Key::Leader => format!("{p}engine/leader"),
            Key::Seat(number) => format!("{p}engine/seats/{number}"),
            Key::Settings => format!("{p}settings"),
            Key::Event { writer, sequence } => format!("{p}events/{writer}-{sequence:020}"),
        }
    }

    /// Reads a key back; `None` for keys that this version does not know.
    #[must_use]
    pub fn read(&self, key: &str) -> Option<Key> {
        let rest = key.strip_prefix(&self.prefix)?;
        let Some((kind, rest)) = rest.split_once('/') else {
            return match rest {
                "cluster" => Some(Key::Cluster),
                "settings" => Some(Key::Settings),
                _ => None,
            };
        };
        Some(match kind {
            "contents" => Key::Content(rest.parse().ok()?),
            "units" => Key::Unit(rest.parse().ok()?),
            "ranges" => match rest.rsplit_once('/') {
                None => Key::RangeGuard(rest.parse().ok()?),
                Some((template, bounds)) => {
                    let (from, to) = bounds.split_once('-')?;
                    let template = template.parse().ok()?;
                    Key::Range { template, from: read_bound(from)?, to: read_bound(to)? }
                }
            },
            "machines" => Key::Machine(rest.parse().ok()?),
            "machine-settings" => Key::MachineSettings(rest.parse().ok()?),
            "manifests" => {
                let (id, bucket) = rest.split_once('/')?;
                Key::Manifest(id.parse().ok()?, read_bucket(bucket)?)
            }
            "reports" => match rest.split_once('/')? {
                (id, "head") => Key::ReportHead(id.parse().ok()?),
                (id, bucket) => Key::Report(id.parse().ok()?, read_bucket(bucket)?),
            },
            "engine" => match rest.split_once('/') {
                None => (rest == "leader").then_some(Key::Leader)?,
                Some(("seats", number)) => Key::Seat(number.parse().ok()?),
                Some(_) => return None,
            },
            "events" => {
                let (writer, sequence) = rest.rsplit_once('-')?;
                Key::Event { writer: writer.to_owned(), sequence: sequence.parse().ok()? }
            }
            _ => return None,
        })
    }

    /// Returns the range of everything the cluster has.
    #[must_use]
    pub fn everything(&self) -> KeyRange {
        KeyRange::prefix(&self.prefix)
    }

    /// Returns the range of a kind of key, for example `units`.
    #[must_use]
    pub fn all_of(&self, kind: &str) -> KeyRange {
        KeyRange::prefix(format!("{}{kind}/", self.prefix))
    }

    /// Returns the range of a template's guard and of all its ranges.
    #[must_use]
    pub fn ranges_of(&self, template: &UnitName) -> KeyRange {
        let guard = self.spell(&Key::RangeGuard(template.clone()));
        // `0` follows `/`: the guard's own key and everything behind its slash.
        KeyRange::between(&*guard, format!("{guard}0"))
    }

    /// Returns the range of the records of a template's instances; instances of other types with the
    /// same prefix, and the template's own record, stand among them.
    #[must_use]
    pub fn instances_of(&self, template: &UnitName) -> KeyRange {
        KeyRange::prefix(format!("{}units/{}@", self.prefix, template.prefix()))
    }

    /// Returns where the records of a template's instances with these numbers are: all of them are within, and
    /// others can be. One stretch for each count of digits; where there are many, all instances.
    #[must_use]
    pub fn instances_between(&self, template: &UnitName, from: u64, to: u64) -> Vec<KeyRange> {
        let digits = |number: u64| number.checked_ilog10().unwrap_or(0);
        let (fewest, most) = (digits(from), digits(to));
        if most.saturating_sub(fewest) >= STRETCHES_MAX {
            return vec![self.instances_of(template)];
        }
        let start = format!("{}units/{}@", self.prefix, template.prefix());
        let stretch = |digits: u32| {
            let (least, greatest) =
                (10_u64.pow(digits), (10_u64.pow(digits) - 1).saturating_mul(10).saturating_add(9));
            let least = if digits == 0 { 0 } else { least };
            // `/` follows `.`: the key of the last one, whatever its type, and not those it begins.
            KeyRange::between(format!("{start}{}", from.max(least)), format!("{start}{}/", to.min(greatest)))
        };
        (fewest..=most).map(stretch).collect()
    }

    /// Returns the range of a machine's manifest.
    #[must_use]
    pub fn manifest_of(&self, machine: MachineId) -> KeyRange {
        KeyRange::prefix(format!("{}manifests/{machine}/", self.prefix))
    }

    /// Returns the range of a machine's report.
    #[must_use]
    pub fn report_of(&self, machine: MachineId) -> KeyRange {
        KeyRange::prefix(format!("{}reports/{machine}/", self.prefix))
    }
}

/// How many stretches of keys the instances of a range are looked for in, at most. Two: a range over more counts of
/// digits than that is most of what there is.
const STRETCHES_MAX: u32 = 2;

/// Reads a bound of a range as it is spelt, so that no two keys mean the same one.
fn read_bound(text: &str) -> Option<u64> {
    let is_bound = text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit());
    is_bound.then(|| text.parse().ok()).flatten()
}

fn read_bucket(text: &str) -> Option<Bucket> {
    let number: u8 = text.parse().ok()?;
    (number < BUCKETS && text.len() == 2).then_some(Bucket(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_reads_back() {
        let keys = Keys::default();
        let machine: MachineId = "113f16a7a0f84c4c8a3f9e3b2f4d6c01".parse().expect("valid");
        let unit: UnitName = "web@1.service".parse().expect("valid");
        let template: UnitName = "web@.service".parse().expect("valid");
        let all = [
            Key::Cluster,
            Key::Content(ContentHash::of(b"text")),
            Key::Unit(unit.clone()),
            Key::RangeGuard(template.clone()),
            Key::Range { template, from: 1, to: 1_000_000 },
            Key::Machine(machine),
            Key::MachineSettings(machine),
            Key::Manifest(machine, Bucket::of(&unit)),
            Key::ReportHead(machine),
            Key::Report(machine, Bucket::of(&unit)),
            Key::Leader,
            Key::Seat(2),
            Key::Settings,
            Key::Event { writer: "api-7".to_owned(), sequence: 12 },
        ];
        for key in all {
            assert_eq!(keys.read(&keys.spell(&key)), Some(key));
        }
    }

    #[test]
    fn a_template_has_its_guard_and_ranges_and_no_others() {
        let keys = Keys::default();
        let web: UnitName = "web@.service".parse().expect("valid");
        let of = |template: &str, to| {
            let template = template.parse().expect("valid");
            keys.spell(&Key::Range { template, from: 1, to })
        };
        let all = keys.ranges_of(&web);
        assert!(
            all.contains(&keys.spell(&Key::RangeGuard(web.clone()))) && all.contains(&of("web@.service", 7))
        );
        assert!(!all.contains(&of("web@.socket", 7)) && !all.contains(&of("web2@.service", 7)));
        assert_eq!(keys.read("/flotilla/ranges/web@.service/1-7"), None, "spelt otherwise");
        assert!(
            keys.instances_of(&web)
                .contains(&keys.spell(&Key::Unit("web@1.service".parse().expect("valid"))))
        );
    }

    #[test]
    fn instances_of_a_range_are_within_their_stretches() {
        let keys = Keys::default();
        let web: UnitName = "web@.service".parse().expect("valid");
        let key = |number: u64| keys.spell(&Key::Unit(web.with_number(number).expect("valid")));
        for (from, to) in [(0, 0), (0, 12), (7, 7), (95, 110), (1_000, 1_999), (1, 1_000_000), (0, u64::MAX)]
        {
            let within = keys.instances_between(&web, from, to);
            let has = |number: u64| within.iter().any(|range| range.contains(&key(number)));
            let some = [from, from.midpoint(to), to, from.saturating_add(9).min(to)];
            assert!(some.into_iter().all(has), "{from} {to}: {within:?}");
        }
        let within = keys.instances_between(&web, 1_000, 1_999);
        let [stretch] = &within[..] else { panic!("{within:?}") };
        assert!([999, 2_000, 20, 100].iter().all(|number| !stretch.contains(&key(*number))), "{stretch:?}");
        let edge = keys.instances_between(&web, u64::MAX - 1, u64::MAX);
        assert!(edge.iter().any(|range| range.contains(&key(u64::MAX))));
    }

    #[test]
    fn buckets_are_part_of_the_stored_format() {
        let of = |name: &str| Bucket::of(&name.parse().expect("valid")).number();
        // Computed independently from the definition of FNV-1a.
        assert_eq!([of("web@1.service"), of("web@2.service"), of("hello.service")], [11, 10, 2]);
    }
}
