//! The mass-loss brake: many machines gone at once are more likely one broken network than that
//! many broken machines.
//!
//! ```text
//!            more than 30 % and at least 3 vanish within 60 s
//!  ┌──────┐ ────────────────────────────────────────────────► ┌─────────┐
//!  │ Free │                                                   │ Holding │
//!  └──────┘ ◄──────────────────────────────────────────────── └─────────┘
//!            so many are back that it would not have tripped;
//!            5 minutes passed; an operator's word
//! ```
//!
//! While it holds, nothing is decided from a machine's absence: no unit of a lost machine is
//! started elsewhere, and no destroyed unit's name is released by a lease's end. Everything that
//! needs living machines only goes on: new units, updates, moves with proof.
//!
//! Owned by the leader's memory; a new leader starts it free and counts every machine that it
//! finds away as vanishing now, which can only hold more, never less.

use std::{collections::BTreeMap, time::Duration};

use flotilla_units::MachineId;

/// How far apart losses may be and still count as one. A minute: six leases, so that machines
/// whose renewals were spread, or slowed by the same trouble, still count together.
pub const WINDOW: Duration = Duration::from_secs(60);

/// How long it holds. Five minutes: a switch that restarts is back, and an operator has been told.
pub const HOLD: Duration = Duration::from_secs(300);

/// The fewest machines that trip it. Three: two can die of two causes.
pub const MACHINES_MIN: usize = 3;

/// Which part of the machines trips it, in per cent: more than this.
pub const PART_PERCENT: usize = 30;

/// The brake.
#[derive(Debug, Default)]
pub struct Brake {
    /// Machines with units to move that are away, with when they were first seen so; in units of
    /// the leader's clock.
    lost: BTreeMap<MachineId, Loss>,
    held_since: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Loss {
    at: Duration,
    /// A hold for it is over: it never counts again.
    judged: bool,
}

/// What changed at the brake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrakeChange {
    /// It trips.
    Tripped {
        /// How many machines vanished.
        lost: usize,
        /// Of how many with units.
        of: usize,
    },
    /// So many came back that it would not have tripped.
    Recovered,
    /// The hold is over.
    Expired,
    /// An operator said so.
    Released,
}

impl BrakeChange {
    /// Returns the kind of the event that records it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Tripped { .. } => "mass-loss-hold",
            Self::Recovered | Self::Expired | Self::Released => "mass-loss-over",
        }
    }

    /// Says it, for people.
    #[must_use]
    pub fn why(self) -> String {
        match self {
            Self::Tripped { lost, of } => format!(
                "{lost} of {of} machines with units vanished within {} s; none of their units is started \
                 elsewhere for {} s, unless they come back or an operator says to go on",
                WINDOW.as_secs(),
                HOLD.as_secs()
            ),
            Self::Recovered => "enough of the machines are back".to_owned(),
            Self::Expired => format!("the machines stayed away for {} s", HOLD.as_secs()),
            Self::Released => "an operator said to go on".to_owned(),
        }
    }
}

impl Brake {
    /// Takes in which machines with units are away, out of how many, and tells what changed.
    ///
    /// `release` is the operator's word.
    pub fn update(
        &mut self,
        away: impl IntoIterator<Item = MachineId>,
        of: usize,
        now: Duration,
        release: bool,
    ) -> Option<BrakeChange> {
        let before = std::mem::take(&mut self.lost);
        let fresh = Loss { at: now, judged: false };
        self.lost = away.into_iter().map(|id| (id, before.get(&id).copied().unwrap_or(fresh))).collect();
        match self.held_since {
            None => {
                let lost = self.recent(now);
                if !trips(lost, of) {
                    return None;
                }
                self.held_since = Some(now);
                Some(BrakeChange::Tripped { lost, of })
            }
            Some(since) => {
                let change = if release {
                    BrakeChange::Released
                } else if now >= since + HOLD {
                    BrakeChange::Expired
                } else if !trips(self.unjudged(), of) {
                    BrakeChange::Recovered
                } else {
                    return None;
                };
                self.held_since = None;
                for loss in self.lost.values_mut() {
                    loss.judged = true;
                }
                Some(change)
            }
        }
    }

    /// Tells whether it holds.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.held_since.is_some()
    }

    /// Returns when the hold ends by itself.
    #[must_use]
    pub fn ends_at(&self) -> Option<Duration> {
        self.held_since.map(|since| since + HOLD)
    }

    fn recent(&self, now: Duration) -> usize {
        self.lost.values().filter(|loss| !loss.judged && now.saturating_sub(loss.at) <= WINDOW).count()
    }

    fn unjudged(&self) -> usize {
        self.lost.values().filter(|loss| !loss.judged).count()
    }
}

const fn trips(lost: usize, of: usize) -> bool {
    lost >= MACHINES_MIN && lost * 100 > of * PART_PERCENT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(n: usize) -> MachineId {
        format!("{n:032x}").parse().expect("valid")
    }

    fn machines(n: usize) -> Vec<MachineId> {
        (1..=n).map(machine).collect()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_machine_never_trips_it() {
        for of in 1..10 {
            assert_eq!(Brake::default().update(machines(1), of, at(0), false), None, "1 of {of}");
        }
    }

    #[test]
    fn it_takes_three_and_more_than_thirty_per_cent() {
        assert_eq!(Brake::default().update(machines(2), 2, at(0), false), None);
        assert_eq!(Brake::default().update(machines(3), 10, at(0), false), None, "exactly 30 %");
        let tripped = Brake::default().update(machines(3), 9, at(0), false);
        assert_eq!(tripped, Some(BrakeChange::Tripped { lost: 3, of: 9 }));
    }

    #[test]
    fn losses_further_apart_than_the_window_do_not_add_up() {
        let mut brake = Brake::default();
        assert_eq!(brake.update(machines(1), 5, at(0), false), None);
        assert_eq!(brake.update(machines(2), 5, at(40), false), None);
        assert_eq!(brake.update(machines(3), 5, at(61), false), None, "the first is too long ago");
        assert!(brake.update(machines(4), 5, at(62), false).is_some(), "three within 22 s");
    }

    #[test]
    fn it_goes_on_at_recovery_at_the_end_and_on_a_word() {
        let tripped = || {
            let mut brake = Brake::default();
            assert!(brake.update(machines(4), 6, at(10), false).is_some());
            brake
        };
        let mut brake = tripped();
        assert_eq!(brake.update(machines(3), 6, at(20), false), None, "three are still too many");
        assert_eq!(brake.update(machines(2), 6, at(30), false), Some(BrakeChange::Recovered));
        assert!(!brake.holds());

        let mut brake = tripped();
        assert_eq!(brake.ends_at(), Some(at(310)));
        assert_eq!(brake.update(machines(4), 6, at(309), false), None);
        assert_eq!(brake.update(machines(4), 6, at(310), false), Some(BrakeChange::Expired));
        assert_eq!(brake.update(machines(4), 6, at(311), false), None, "what was judged never trips again");

        let mut brake = tripped();
        assert_eq!(brake.update(machines(4), 6, at(11), true), Some(BrakeChange::Released));
        assert_eq!(brake.update(machines(4), 6, at(12), false), None);
    }
}
