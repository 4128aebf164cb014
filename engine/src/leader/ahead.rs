//! How far a large order's placements are written ahead of the machines that they are for: flow control.
//!
//! What is written costs the store once more when its machine takes it up: its agent reads texts, and answers with
//! a report of as many keys. A million placements written as fast as the store takes them leave it with that work
//! piled up, in which it answers nobody in time: leases end, the lead, seats and machines are lost, and what they
//! do to come back is more work. So as TCP keeps a window of what was sent and not acknowledged (RFC 9293, 3.8), of
//! a large order only so many machines are written to before others have taken theirs up. A report's `seen` is
//! the acknowledgement.

use std::{collections::HashMap, time::Duration};

use flotilla_registry::store::Revision;
use flotilla_units::MachineId;

use crate::state::{ClusterState, Life};

/// How many machines may have been written to and have not taken it up, at most. Five hundred: with a hundred units
/// each some 16,000 keys of manifests and reports.
const MACHINES_MAX: usize = 500;

/// The same in the largest clusters. Fifty; where machines answer in a tenth of a second that is 50,000 units a second,
/// and 10,000 where they have each a hundred to start, which takes them half a second.
const MACHINES_MIN: usize = 50;

/// How many machines times how many are written to ahead: the larger the cluster, the fewer. Every machine renews its
/// lease, and for each renewal etcd 3.4 copies its buffer of writes, which is as large as the largest burst. With
/// 10,000 machines on the same two cores and 500 of them, or 200, etcd got slower and slower until leases ended;
/// with fifty it went on.
const MACHINES_TIMES_AHEAD: usize = 500_000;

/// How long a machine is waited for. Ten seconds: many times what an agent that is well needs. One that takes longer
/// is slow or stands still by itself, and the others do not wait for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The machines that were written to; no room for any before the cluster was looked at.
#[derive(Debug, Default)]
pub struct Ahead {
    written: HashMap<MachineId, Written>,
    /// How many there may be.
    window: usize,
}

/// What was written to a machine, and when.
#[derive(Debug)]
struct Written {
    since: Duration,
    /// As of which revision; what is written later is not waited for.
    order: Option<Revision>,
}

impl Ahead {
    /// Forgets the machines that have taken up what was written, and those that are waited for no longer.
    pub fn settle(&mut self, state: &ClusterState, now: Duration) {
        self.window = window(state.machines().len());
        self.written.retain(|id, written| {
            let Some(machine) = state.machines().get(id) else { return false };
            written.order = written.order.or_else(|| machine.ordered());
            let behind = machine.seen() < written.order;
            behind && machine.life() == Life::Present && written.since + PATIENCE > now
        });
    }

    /// Returns how many more machines may be written to.
    #[must_use]
    pub fn room(&self) -> usize {
        self.window.saturating_sub(self.written.len())
    }

    /// Notes that a machine is written to.
    pub fn note(&mut self, machine: MachineId, now: Duration) {
        self.written.insert(machine, Written { since: now, order: None });
    }

    /// Returns when the first one is not waited for any longer.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        self.written.values().map(|written| written.since + PATIENCE).min()
    }
}

/// Returns how many machines of a cluster may be written to ahead.
fn window(machines: usize) -> usize {
    (MACHINES_TIMES_AHEAD / machines.max(1)).clamp(MACHINES_MIN, MACHINES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_the_cluster_the_fewer_are_written_to_ahead() {
        assert_eq!([0, 1, 1_000, 5_000, 10_000, 100_000].map(window), [500, 500, 500, 100, 50, 50]);
    }
}
