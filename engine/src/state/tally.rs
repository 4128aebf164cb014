//! How many units are in each of systemd's states, as living machines report them.
//!
//! Counted while reports are taken in, so that asking costs nothing however many units there are.

use flotilla_registry::records::{ReportBucket, UnitReport};

use super::Kept;

/// systemd's `ActiveState`s, in the order in which its source names them; see `org.freedesktop.systemd1(5)`.
pub const ACTIVE_STATES: [&str; 7] =
    ["active", "reloading", "inactive", "failed", "activating", "deactivating", "maintenance"];

/// How many reports there are of each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// By [`ACTIVE_STATES`], and what is none of them at the end.
    counts: [usize; ACTIVE_STATES.len() + 1],
}

impl Tally {
    /// Returns each state with how many units are in it; the last is `other`.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, usize)> {
        ACTIVE_STATES.into_iter().chain(["other"]).zip(self.counts)
    }

    /// Puts what a bucket says now in the place of what it said.
    pub(super) fn replace(&mut self, old: Option<&Kept<ReportBucket>>, new: Option<&Kept<ReportBucket>>) {
        for report in reports(old) {
            let count = &mut self.counts[place(report)];
            *count = count.saturating_sub(1);
        }
        for report in reports(new) {
            self.counts[place(report)] += 1;
        }
    }
}

fn reports(bucket: Option<&Kept<ReportBucket>>) -> impl Iterator<Item = &UnitReport> {
    bucket.and_then(Kept::record).into_iter().flat_map(|bucket| &bucket.units)
}

/// What a machine calls a state that systemd does not know is counted, not kept.
fn place(report: &UnitReport) -> usize {
    let known = ACTIVE_STATES.iter().position(|state| report.active == *state);
    known.unwrap_or(ACTIVE_STATES.len())
}
