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
//! Owned by the hot state of every seat, and fed by it; only the leader acts on it. So whoever
//! leads next goes on with what it saw itself: when each machine vanished, and a hold that has begun.
//! What ends a hold is in the store, as an event, and ends it at every seat.
//!
//! # Machines that a listing finds away
//!
//! The store does not say since when. A machine may have been dead for weeks and keep a unit that no
//! other may have; or the power has gone for the engines and for half of the machines at once. The
//! brake protects moves, and that tells the two apart: a leader moves what can move within
//! milliseconds of a lease's end, so a machine that still has a unit with a place elsewhere is one that
//! nobody has dealt with. It counts as vanishing when that is seen. One whose units have nowhere
//! to go does not count: nothing would move.
//!
//! "Elsewhere" needs a machine that is there. After the power has come back everywhere, engines may
//! list before the first machine has registered, so what is found away is looked at for the window
//! from when a machine was there that takes units; after that it is known to have been dealt with.
//!
//! Not known to a seat that lists while another's leader holds: those machines of the mass whose
//! units had moved before it tripped.

mod picture;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use flotilla_units::MachineId;

pub use picture::Picture;

/// How far apart losses may be and still count as one. A minute: six leases, so that machines
/// whose renewals were spread, or slowed by the same trouble, still count together.
pub const WINDOW: Duration = Duration::from_secs(60);

/// How long it holds. Five minutes: a switch that restarts is back, and an operator has been told.
pub const HOLD: Duration = Duration::from_secs(300);

/// The fewest machines that trip it. Three: two can die of two causes.
pub const MACHINES_MIN: usize = 3;

/// Which part of the machines trips it, in per cent: more than this.
pub const PART_PERCENT: usize = 30;

/// The kind of the event that says that a hold is over: other seats go by it.
pub const OVER: &str = "mass-loss-over";

/// The brake.
#[derive(Debug, Default)]
pub struct Brake {
    /// Machines that are away and had units to move when that was noted; in units of the seat's clock.
    lost: BTreeMap<MachineId, Loss>,
    held: Option<Hold>,
    /// Since when a machine has been there that takes units, while some are [`Loss::Found`].
    peopled: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// It vanished then.
    At(Duration),
    /// A listing found it away.
    Found,
    /// A hold for it is over, or it was away for long when it was found: it never counts again.
    Judged,
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    since: Duration,
    lost: usize,
    of: usize,
}

/// How it came to be known that a machine is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noticed {
    /// Its lease was seen to end.
    Now,
    /// A listing does not have it.
    Listed,
}

/// The cluster, as the brake looks at it: asked only when there is something to judge.
pub trait Surroundings {
    /// Counts the machines with units that live.
    fn living(&self) -> usize;

    /// Tells whether a machine is there that takes new units.
    fn takes_units(&self) -> bool;

    /// Tells whether a machine that is away has a unit that another can take now.
    fn would_move(&self, machine: MachineId) -> bool;
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
            Self::Recovered | Self::Expired | Self::Released => OVER,
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
    /// Takes in a machine that is away, and whether it has units to move.
    pub fn away(&mut self, id: MachineId, has_units: bool, noticed: Noticed, now: Duration) {
        if !has_units || self.lost.contains_key(&id) {
            return;
        }
        if noticed == Noticed::Listed {
            self.peopled = None;
        }
        let loss = if noticed == Noticed::Now { Loss::At(now) } else { Loss::Found };
        self.lost.insert(id, loss);
    }

    /// Takes in a machine that is not away, or that there is nothing of.
    pub fn not_away(&mut self, id: MachineId) {
        self.lost.remove(&id);
    }

    /// Judges what was taken in, and tells what changed.
    ///
    /// `release` is the operator's word.
    pub fn update(
        &mut self,
        cluster: &impl Surroundings,
        now: Duration,
        release: bool,
    ) -> Option<BrakeChange> {
        self.judge_found(cluster, now);
        let lost = self.count(self.held.map_or(now, |hold| hold.since));
        let trips = || {
            // Fewer never trip it, whatever there is besides.
            let of = if lost < MACHINES_MIN { lost } else { cluster.living() + lost };
            trips(lost, of).then_some(of)
        };
        let change = match self.held {
            None => {
                let of = trips()?;
                self.held = Some(Hold { since: now, lost, of });
                return self.holding();
            }
            Some(_) if release => BrakeChange::Released,
            Some(hold) if now >= hold.since + HOLD => BrakeChange::Expired,
            Some(_) if trips().is_none() => BrakeChange::Recovered,
            Some(_) => return None,
        };
        self.over();
        Some(change)
    }

    /// Ends a hold, if there is one: what is away now never counts again.
    pub fn over(&mut self) {
        if self.held.take().is_some() {
            self.lost.values_mut().for_each(|loss| *loss = Loss::Judged);
        }
    }

    /// Tells whether it holds.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Returns what it tripped for, while it holds.
    #[must_use]
    pub fn holding(&self) -> Option<BrakeChange> {
        self.held.map(|Hold { lost, of, .. }| BrakeChange::Tripped { lost, of })
    }

    /// Returns when the hold ends by itself.
    #[must_use]
    pub fn ends_at(&self) -> Option<Duration> {
        self.held.map(|hold| hold.since + HOLD)
    }

    /// Looks at what listings found away: see the module's description. Not during a hold, when
    /// nothing moves anyway.
    fn judge_found(&mut self, cluster: &impl Surroundings, now: Duration) {
        if self.holds() || !self.lost.values().any(|loss| *loss == Loss::Found) {
            return;
        }
        if self.peopled.is_none() && cluster.takes_units() {
            self.peopled = Some(now);
        }
        let Some(since) = self.peopled else { return };
        let late = now.saturating_sub(since) > WINDOW;
        for (id, loss) in self.lost.iter_mut().filter(|(_, loss)| **loss == Loss::Found) {
            if late {
                *loss = Loss::Judged;
            } else if cluster.would_move(*id) {
                *loss = Loss::At(now);
            }
        }
    }

    /// Counts the machines away that vanished within the window before a moment, or after it.
    fn count(&self, before: Duration) -> usize {
        let counts = |loss: &&Loss| matches!(loss, Loss::At(at) if before.saturating_sub(*at) <= WINDOW);
        self.lost.values().filter(counts).count()
    }
}

const fn trips(lost: usize, of: usize) -> bool {
    lost >= MACHINES_MIN && lost * 100 > of * PART_PERCENT
}
