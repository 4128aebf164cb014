//! How far the instances of a range are on the way to what was ordered of them, one word for each.
//!
//! Owns the judgement of an order where there are too many units to tell each of them to whoever waits: the server
//! counts the words. flotctl judges single units by the same rules (`cli/src/order.rs`). No row is made for it,
//! and the lock is held for a thousand instances at a time.

use std::ops::Bound;

use flotilla_registry::records::{Target, UnitRecord, UnitReport};
use flotilla_units::{UnitName, UnitRange};

use super::StateReader;
use crate::{
    hot::Hot,
    state::{Kept, Life, Placed},
};

/// How many instances are judged under one lock. A thousand: a millisecond or two.
const JUDGED_MAX: usize = 1_000;

/// What was ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// To be running, or to have run, since the last run that was ordered.
    Started,
    /// To be on a machine, stopped.
    Loaded,
    /// Not to run, wherever it is.
    Stopped,
    /// To be on no machine.
    Unloaded,
    /// To be gone.
    Destroyed,
}

/// How far one instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// As ordered.
    Done,
    /// On its way.
    Pending,
    /// It has died, or could not be started, or was ordered otherwise meanwhile.
    Failed,
    /// No machine may run it.
    Unplaced,
    /// There is none, and none is meant.
    Absent,
}

impl StateReader {
    /// Says how far the instances of a range are that there are, up to a thousand of them, after one that was
    /// said before; returns where to go on.
    pub fn standings(
        &self,
        range: &UnitRange,
        goal: Goal,
        after: Option<&UnitName>,
        mut tell: impl FnMut(u64, Standing),
    ) -> Option<UnitName> {
        let hot = self.shared().read();
        let said = |name: &UnitName, number| tell(number, self.judge(&hot, name, goal));
        each_instance(&hot, range, after, said)
    }

    /// Says how far an instance is.
    #[must_use]
    pub fn standing(&self, unit: &UnitName, goal: Goal) -> Standing {
        self.judge(&self.shared().read(), unit, goal)
    }

    /// Names the instances of a range, of a thousand that there are, which an order to start or to stop has to be
    /// given anew though it stands already: those that have ended by themselves, or run by themselves. Each with
    /// the run that it was seen in. Returns where to go on too.
    #[must_use]
    pub fn astray(
        &self,
        range: &UnitRange,
        goal: Goal,
        after: Option<&UnitName>,
    ) -> (Vec<(UnitName, u64)>, Option<UnitName>) {
        let hot = self.shared().read();
        let mut astray = Vec::new();
        let next = each_instance(&hot, range, after, |name, _| {
            let Some(record) = hot.state.units().get(name).and_then(Kept::record) else { return };
            let placed = hot.state.placed(name);
            let staying = placed.iter().filter(|it| it.entry.departing.is_none() && it.life != Life::Lost);
            let mut staying = staying.map(|it| (it, hot.state.report_of(it)));
            let is_astray = match (goal, record.target) {
                // What was ordered last has yet to be done: to order it once more adds nothing.
                (Goal::Started, Target::Launched) => staying.any(|(it, report)| {
                    it.entry.run >= record.run && report.is_some_and(|report| has_ended(it, report))
                }),
                (Goal::Stopped, Target::Loaded) => staying.any(|(it, report)| {
                    let obeyed = |report: &UnitReport| {
                        report.token == Some(it.entry.token) && report.run >= it.entry.run
                    };
                    it.entry.run >= record.run
                        && report.is_some_and(|report| obeyed(report) && !is_at_rest(report))
                }),
                _ => false,
            };
            if is_astray {
                astray.push((name.clone(), record.run));
            }
        });
        (astray, next)
    }

    fn judge(&self, hot: &Hot, unit: &UnitName, goal: Goal) -> Standing {
        let placed = hot.state.placed(unit);
        let kept = hot.state.units().get(unit);
        let alive = placed.iter().any(|it| it.life != Life::Lost);
        let stays = |it: &&Placed<'_>| it.life != Life::Lost && it.entry.departing.is_none();
        let record = kept.and_then(Kept::record);
        match goal {
            Goal::Destroyed if kept.is_none() && !alive => Standing::Done,
            Goal::Destroyed => Standing::Pending,
            _ if kept.is_none() && placed.is_empty() => match goal {
                // It was made by the order, and destroyed meanwhile.
                Goal::Started | Goal::Loaded => Standing::Failed,
                _ => Standing::Absent,
            },
            Goal::Unloaded => {
                let told = |it: &Placed<'_>| it.entry.departing.is_some() && it.life == Life::Lost;
                if placed.iter().all(told) { Standing::Done } else { Standing::Pending }
            }
            Goal::Stopped if !placed.iter().any(|it| stays(&it)) => {
                let runs = |it: &Placed<'_>| {
                    it.life != Life::Lost && hot.state.report_of(it).is_some_and(|report| !is_at_rest(report))
                };
                if placed.iter().any(runs) { Standing::Pending } else { Standing::Done }
            }
            Goal::Started | Goal::Loaded | Goal::Stopped => {
                let here = |it: &Placed<'_>| {
                    let report = hot.state.report_of(it);
                    match goal {
                        Goal::Started => started(it, report, record.map_or(0, |record| record.run)),
                        _ => stopped(report),
                    }
                };
                let worst = placed.iter().filter(stays).map(here).max_by_key(|standing| match standing {
                    Standing::Failed => 2,
                    Standing::Pending => 1,
                    _ => 0,
                });
                worst.unwrap_or_else(|| self.nowhere(hot, unit, record.map(|record| &**record)))
            }
        }
    }

    /// Judges what should be on a machine and is on none.
    fn nowhere(&self, hot: &Hot, unit: &UnitName, record: Option<&UnitRecord>) -> Standing {
        match record {
            Some(record) if record.target == Target::Inactive || record.deleting => Standing::Failed,
            _ if self.keeps(hot, unit).is_some() => Standing::Unplaced,
            _ => Standing::Pending,
        }
    }
}

/// Looks at the instances of a range that there are, up to a thousand names; returns where to go on.
fn each_instance(
    hot: &Hot,
    range: &UnitRange,
    after: Option<&UnitName>,
    mut look: impl FnMut(&UnitName, u64),
) -> Option<UnitName> {
    let stem = format!("{}@", range.template().prefix());
    let from = after.map_or(Bound::Included(stem.as_str()), |name| Bound::Excluded(name.as_str()));
    // Names are ASCII, and have no character as large.
    let end = format!("{stem}\u{7f}");
    let names = hot.state.units().range::<str, _>((from, Bound::Excluded(end.as_str())));
    for (looked, (name, _)) in names.enumerate() {
        if range.contains(name)
            && let Some(number) = name.number()
        {
            look(name, number);
        }
        if looked + 1 == JUDGED_MAX {
            return Some(name.clone());
        }
    }
    None
}

fn is_at_rest(report: &UnitReport) -> bool {
    matches!(report.active.as_str(), "inactive" | "failed")
}

/// Tells whether a unit was started where it is and does not run any more: failed, done, or stopped on its
/// machine.
fn has_ended(placed: &Placed<'_>, report: &UnitReport) -> bool {
    let current = report.token == Some(placed.entry.token) && report.run >= placed.entry.run;
    current && (is_at_rest(report) || report.sub.starts_with("auto-restart") || report.stopped_locally)
}

fn stopped(report: Option<&UnitReport>) -> Standing {
    match report {
        Some(report) if is_at_rest(report) => Standing::Done,
        _ => Standing::Pending,
    }
}

fn started(placed: &Placed<'_>, report: Option<&UnitReport>, run: u64) -> Standing {
    let Some(report) = report.filter(|_| placed.entry.run >= run) else { return Standing::Pending };
    let this = report.token == Some(placed.entry.token) && report.run >= run;
    if report.problem.is_some() && (report.active != "active" || !this) {
        return Standing::Failed;
    }
    match (report.active.as_str(), report.sub.as_str()) {
        _ if !this => Standing::Pending,
        ("active" | "reloading", _) => Standing::Done,
        ("failed", _) | ("activating", "auto-restart" | "auto-restart-queued") => Standing::Failed,
        ("inactive", _) if report.stopped_locally => Standing::Failed,
        // Nothing of it has begun; before that it looks as if it were over.
        ("inactive", _) if report.starting => Standing::Pending,
        ("inactive", _) if report.result.is_none() => Standing::Done,
        ("inactive", _) => Standing::Failed,
        _ => Standing::Pending,
    }
}
