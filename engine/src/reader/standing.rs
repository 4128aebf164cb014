//! How far units are on the way to what is wanted of them, in the words of users: what has become of
//! each, and why it still runs an older text.
//!
//! Owns the one computation of the words `inactive`, `loaded` and `launched` as what a unit is now; the
//! API and fleet's API print what is said here.

use std::collections::BTreeMap;

use flotilla_registry::records::{self, Target, UnitReport};
use flotilla_units::{ContentHash, MachineId, UnitName};

use super::{PlacementRow, UnitRow};
use crate::state::{ClusterState, Life, Placed, Rollout};

/// The rollouts that rows of one answer are about, each looked at once.
#[derive(Debug, Default)]
pub(super) struct Rollouts(BTreeMap<UnitName, Option<Rollout>>);

/// How many of a unit's entries, or of a template's instances', have the text that is current.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Versions {
    /// How many have it.
    pub updated: usize,
    /// How many entries stay in all.
    pub all: usize,
}

impl Rollouts {
    /// Returns how far an owner's text has come; `None` when no entry is behind.
    pub(super) fn of(&mut self, state: &ClusterState, owner: &UnitName) -> Option<&Rollout> {
        let looked = self.0.entry(owner.clone()).or_insert_with(|| state.rollout(owner));
        looked.as_ref()
    }

    /// Says why a unit still runs an older text, if it does.
    pub(super) fn waits(
        &mut self,
        state: &ClusterState,
        unit: &UnitName,
        hash: Option<ContentHash>,
        placed: &[Placed<'_>],
    ) -> Option<String> {
        let hash = hash?;
        let older = placed.iter().find(|it| it.entry.stays() && it.entry.hash != hash)?;
        let runs = format!("it has {} and not yet {}", older.entry.hash.short(), hash.short());
        let rollout = self.of(state, &state.owner(unit));
        let Some(rollout) = rollout.filter(|it| it.behind.iter().any(|it| it.unit == *unit)) else {
            return Some(runs);
        };
        if rollout.mode == records::Rollout::NextStart {
            return Some(format!("{runs}, which comes with its next start"));
        }
        if let Some(halted) = rollout.halted() {
            return Some(format!("{runs}: its update is {halted}"));
        }
        Some(match (rollout.in_flight.first(), rollout.next()) {
            (Some(other), _) if other.lost => {
                format!("{runs}: it waits for {}, whose machine is lost", other.unit)
            }
            (Some(other), _) => format!("{runs}: {} is updated first", other.unit),
            (None, Some(next)) if next.unit == *unit => format!("{runs}: its turn has come"),
            (None, Some(next)) => format!("{runs}: the next turn is that of {}", next.unit),
            (None, None) => format!("{runs}: its machine does not answer"),
        })
    }
}

/// Counts what has which text.
pub(super) fn count_versions(
    texts: impl Iterator<Item = (ContentHash, usize)>,
    hash: Option<ContentHash>,
) -> Versions {
    let mut versions = Versions::default();
    for (it, count) in texts {
        versions.all += count;
        versions.updated += if Some(it) == hash { count } else { 0 };
    }
    versions
}

impl UnitRow {
    /// Returns what is wanted of it; of one that is being destroyed nothing is.
    #[must_use]
    pub fn wanted(&self) -> Option<Target> {
        self.record.as_ref().map(|record| if record.deleting { Target::Inactive } else { record.target })
    }

    /// Returns what has become of it: of what is on many machines, of the one that is behind the others.
    /// `launched` says that systemd was asked to start it, and nothing about whether it runs.
    #[must_use]
    pub fn current(&self) -> Target {
        self.standing().0
    }

    /// Returns what has become of it, and on which machine.
    ///
    /// Who waits for a word waits for what it says: a unit that is to be nowhere is `inactive` only when it
    /// has left, and one that is to be somewhere is `inactive` as long as no machine has it for good, though
    /// another may still be stopping it.
    #[must_use]
    pub fn standing(&self) -> (Target, Option<MachineId>) {
        let nowhere = (Target::Inactive, None);
        let here = |it: &PlacementRow| (it.current(), Some(it.machine));
        let staying = || self.placements.iter().filter(|it| it.departing.is_none());
        let least = staying().filter(|it| it.moving.is_none()).min_by_key(|it| it.current()).map(here);
        // One that moves runs where it was until it is ready elsewhere.
        let moving = staying().filter(|it| it.moving.is_some()).max_by_key(|it| it.current()).map(here);
        let further = moving.filter(|(state, _)| least.is_none_or(|(least, _)| *state > least));
        if let Some(standing) = further.or(least) {
            return standing;
        }
        if self.wanted().is_some_and(|wanted| wanted != Target::Inactive) {
            return nowhere;
        }
        let leaving = self.placements.iter().filter(|placement| placement.life != Life::Lost);
        let there = leaving.filter_map(|placement| {
            let report = placement.report.as_ref().filter(|report| !report.gone)?;
            let state = if is_at_rest(report) { Target::Loaded } else { Target::Launched };
            Some((state, Some(placement.machine)))
        });
        there.max_by_key(|(state, _)| *state).unwrap_or(nowhere)
    }
}

impl PlacementRow {
    /// Returns what has become of it there.
    #[must_use]
    pub fn current(&self) -> Target {
        let Some(report) = self.report.as_ref().filter(|report| is_there(report)) else {
            return Target::Inactive;
        };
        let started = report.token == Some(self.token) && report.run > 0;
        let launched = match self.target {
            // The run that is ordered, not one before: the state that systemd shows may be that one's.
            Target::Launched => started && report.run >= self.run,
            // It is being stopped.
            _ => started && !is_at_rest(report),
        };
        if launched { Target::Launched } else { Target::Loaded }
    }
}

/// Tells whether systemd has the unit's file.
fn is_there(report: &UnitReport) -> bool {
    !matches!(report.load.as_str(), "" | "not-found")
}

fn is_at_rest(report: &UnitReport) -> bool {
    matches!(report.active.as_str(), "inactive" | "failed" | "")
}

#[cfg(test)]
mod tests {
    use flotilla_registry::{
        records::{Departure, Token, UnitRecord},
        store::Revision,
    };

    use super::*;

    fn id(n: u8) -> MachineId {
        format!("{n:032x}").parse().unwrap()
    }

    fn place(n: u8, departing: bool, active: &str) -> PlacementRow {
        let report = serde_json::json!({
            "unit": "a.service", "token": 7, "run": 1, "load": "loaded", "active": active, "sub": "",
        });
        PlacementRow {
            machine: id(n),
            host: None,
            life: Life::Present,
            token: Token(7),
            run: 1,
            hash: ContentHash::of(b"text"),
            target: Target::Launched,
            departing: departing.then_some(Departure::Unloaded),
            moving: None,
            report: (!active.is_empty()).then(|| serde_json::from_value(report).unwrap()),
        }
    }

    fn row(target: Target, placements: Vec<PlacementRow>) -> UnitRow {
        let record = serde_json::json!({
            "v": 1, "runtime": "a.service", "target": target, "generation": 1, "run": 1,
            "by": "test", "at": "2026-11-22T14:00:00Z",
        });
        let record: UnitRecord = serde_json::from_value(record).unwrap();
        UnitRow {
            name: "a.service".parse().unwrap(),
            record: Some(record.into()),
            hash: None,
            description: None,
            global: false,
            placements,
            problem: None,
            written: Revision(1),
            versions: Versions::default(),
            rollout: None,
            waits: None,
            next_start: false,
        }
    }

    #[test]
    fn who_waits_for_a_word_waits_for_what_it_says() {
        use Target::{Inactive, Launched, Loaded};
        let standing = |target, placements| row(target, placements).standing();
        assert_eq!(standing(Launched, vec![place(1, false, "active")]), (Launched, Some(id(1))));
        assert_eq!(standing(Launched, vec![place(1, false, "failed")]), (Launched, Some(id(1))));
        let global = vec![place(1, false, "active"), place(2, false, "")];
        assert_eq!(standing(Launched, global), (Inactive, Some(id(2))), "the one that is behind");
        let moves = |active| PlacementRow { moving: Some(Departure::Drained), ..place(1, false, active) };
        let moving = vec![moves("active"), place(2, false, "")];
        assert_eq!(standing(Launched, moving), (Launched, Some(id(1))), "it runs where it was");
        let moved = vec![moves("active"), place(2, false, "active")];
        assert_eq!(standing(Launched, moved), (Launched, Some(id(2))));
        // To be nowhere, and still running: it is not inactive yet.
        assert_eq!(standing(Inactive, vec![place(1, true, "deactivating")]), (Launched, Some(id(1))));
        assert_eq!(standing(Inactive, vec![place(1, true, "inactive")]), (Loaded, Some(id(1))));
        assert_eq!(standing(Inactive, vec![]), (Inactive, None));
        let lost = PlacementRow { life: Life::Lost, ..place(1, true, "active") };
        assert_eq!(standing(Inactive, vec![lost]), (Inactive, None), "nobody hears of it");
        // To be somewhere, and only leaving: a start is not done by what is about to stop.
        assert_eq!(standing(Launched, vec![place(1, true, "active")]), (Inactive, None));
    }
}
