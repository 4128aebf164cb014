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
//! Leases of machines that are cut off together end one after another, a third of a lease apart or
//! more, and the leader acts on each within milliseconds. So a loss is remembered for the window
//! whatever has become of the machine's units meanwhile; those of the first two machines do move.
//!
//! Owned by the leader's memory; a new leader starts it free and counts every machine that it finds
//! away with units to move as vanishing now. It does not know of those whose units its predecessor
//! has moved already.

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
    /// Machines that are away and had units to move when they vanished, with when that was seen; in
    /// units of the leader's clock.
    lost: BTreeMap<MachineId, Loss>,
    held_since: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Loss {
    at: Duration,
    /// A hold for it is over: it never counts again.
    judged: bool,
}

/// The machines, as the brake looks at them.
#[derive(Debug, Clone, Default)]
pub struct Machines {
    /// How many with units live.
    pub living: usize,
    /// Those that are away, and whether there are units on them to start elsewhere.
    pub away: BTreeMap<MachineId, bool>,
}

/// What changed at the brake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrakeChange {
    /// It trips.
    Tripped {
        /// How many machines vanished.
        lost: usize,
        /// Of how many: the living with units, and these.
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
    /// Takes in which machines live and which are away, and tells what changed.
    ///
    /// `release` is the operator's word.
    pub fn update(&mut self, machines: &Machines, now: Duration, release: bool) -> Option<BrakeChange> {
        self.lost.retain(|id, _| machines.away.contains_key(id));
        for (id, _) in machines.away.iter().filter(|(_, has_units)| **has_units) {
            self.lost.entry(*id).or_insert(Loss { at: now, judged: false });
        }
        let lost = self.count(self.held_since.unwrap_or(now));
        let of = machines.living + lost;
        let change = match self.held_since {
            None if trips(lost, of) => {
                self.held_since = Some(now);
                return Some(BrakeChange::Tripped { lost, of });
            }
            None => return None,
            Some(_) if release => BrakeChange::Released,
            Some(since) if now >= since + HOLD => BrakeChange::Expired,
            Some(_) if !trips(lost, of) => BrakeChange::Recovered,
            Some(_) => return None,
        };
        self.held_since = None;
        for loss in self.lost.values_mut() {
            loss.judged = true;
        }
        Some(change)
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

    /// Counts the machines away that vanished within the window before a moment, or after it.
    fn count(&self, before: Duration) -> usize {
        self.lost.values().filter(|loss| !loss.judged && before.saturating_sub(loss.at) <= WINDOW).count()
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

    /// The first `lost` of `of` machines are away, with their units.
    fn lost(lost: usize, of: usize) -> Machines {
        Machines { living: of - lost, away: (1..=lost).map(|n| (machine(n), true)).collect() }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_machine_never_trips_it() {
        for of in 1..10 {
            assert_eq!(Brake::default().update(&lost(1, of), at(0), false), None, "1 of {of}");
        }
    }

    #[test]
    fn it_takes_three_and_more_than_thirty_per_cent() {
        assert_eq!(Brake::default().update(&lost(2, 2), at(0), false), None);
        assert_eq!(Brake::default().update(&lost(3, 10), at(0), false), None, "exactly 30 %");
        let tripped = Brake::default().update(&lost(3, 9), at(0), false);
        assert_eq!(tripped, Some(BrakeChange::Tripped { lost: 3, of: 9 }));
    }

    #[test]
    fn losses_further_apart_than_the_window_do_not_add_up() {
        let mut brake = Brake::default();
        assert_eq!(brake.update(&lost(1, 5), at(0), false), None);
        assert_eq!(brake.update(&lost(2, 5), at(40), false), None);
        assert_eq!(brake.update(&lost(3, 5), at(61), false), None, "the first is too long ago");
        assert!(brake.update(&lost(4, 5), at(62), false).is_some(), "three within 22 s");
    }

    #[test]
    fn a_loss_counts_although_its_units_have_moved_on_until_the_machine_is_back() {
        let mut brake = Brake::default();
        let away = |all: &[(usize, bool)]| Machines {
            living: 6 - all.len(),
            away: all.iter().map(|(n, has_units)| (machine(*n), *has_units)).collect(),
        };
        assert_eq!(brake.update(&away(&[(1, true)]), at(0), false), None);
        assert_eq!(brake.update(&away(&[(1, false), (2, true)]), at(1), false), None);
        // The first is back, and its loss with it.
        assert_eq!(brake.update(&away(&[(2, false), (3, true)]), at(2), false), None);
        let tripped = brake.update(&away(&[(2, false), (3, false), (4, true)]), at(3), false);
        assert_eq!(tripped, Some(BrakeChange::Tripped { lost: 3, of: 6 }));
        assert_eq!(brake.update(&away(&[(2, false), (3, false), (4, true)]), at(4), false), None, "it holds");
    }

    #[test]
    fn machines_long_dead_count_on_neither_side() {
        let mut brake = Brake::default();
        let mut machines = Machines { living: 10, away: (100..130).map(|n| (machine(n), false)).collect() };
        assert_eq!(brake.update(&machines, at(0), false), None);
        // A unit that only this machine may have stays with it.
        machines.away.insert(machine(99), true);
        assert_eq!(brake.update(&machines, at(100), false), None);
        for n in 1..=3 {
            machines.away.insert(machine(n), true);
        }
        machines.living = 6;
        assert_eq!(brake.update(&machines, at(200), false), Some(BrakeChange::Tripped { lost: 3, of: 9 }));
    }

    #[test]
    fn it_goes_on_at_recovery_at_the_end_and_on_a_word() {
        let tripped = || {
            let mut brake = Brake::default();
            assert!(brake.update(&lost(4, 6), at(10), false).is_some());
            brake
        };
        let mut brake = tripped();
        assert_eq!(brake.update(&lost(3, 6), at(100), false), None, "three are still too many");
        assert_eq!(brake.update(&lost(2, 6), at(110), false), Some(BrakeChange::Recovered));
        assert!(!brake.holds());

        let mut brake = tripped();
        assert_eq!(brake.ends_at(), Some(at(310)));
        assert_eq!(brake.update(&lost(4, 6), at(309), false), None);
        assert_eq!(brake.update(&lost(4, 6), at(310), false), Some(BrakeChange::Expired));
        assert_eq!(brake.update(&lost(4, 6), at(311), false), None, "what was judged never trips again");

        let mut brake = tripped();
        assert_eq!(brake.update(&lost(4, 6), at(11), true), Some(BrakeChange::Released));
        assert_eq!(brake.update(&lost(4, 6), at(12), false), None);
    }
}
