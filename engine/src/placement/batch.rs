//! What has to be decided, and in which order.
//!
//! ```text
//! touched ──► suspects ──► Depart          a fact about a placed unit changed
//! waiting ──► ready ──► queue ──► Place    a unit needs a machine
//!    ▲                     │
//!    └──── stuck ◄─────────┘               no machine can take it: woken by a change that may help
//! globals ──► Place                        a global unit may be missing somewhere
//! shift ────► Move                         its machine is drained
//! ```
//!
//! Units that wait are kept in groups: what holds for one of a group holds for all of it, so that a
//! group without a machine costs one question, however many units it has.

use std::collections::BTreeSet;

use flotilla_units::UnitName;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    classes::ClassIx,
    model::{Unit, UnitIx},
    patterns::MatchIx,
    rules::Precedence,
};

/// A group's number.
pub(crate) type GroupIx = u32;

/// How many entries a group may have beyond its units before it is swept: keeps the cost of taking a
/// unit out constant, and the memory within twice the need.
const STALE_AT_MOST: usize = 64;

/// What units of a group have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct GroupKey {
    pub(super) class: ClassIx,
    pub(super) matched: MatchIx,
    /// Others follow them.
    pub(super) leads: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Idle,
    Ready,
    Queued,
    Stuck,
}

#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) key: GroupKey,
    /// By name, the first one last. A unit that is no longer of this group is stale.
    pub(super) waiting: Vec<UnitIx>,
    sorted: bool,
    live: usize,
    pub(super) state: State,
    /// How old the model was when no machine could take it.
    stuck_at: u64,
}

/// Which group comes first: that of the highest priority, then the most constrained. Priority below zero,
/// phase, number of machines that can take it, first name.
pub(super) type Order = (i16, u8, u32, UnitName);

/// Which global unit comes first: priority below zero, name.
pub(super) type GlobalOrder = (i16, UnitName, UnitIx);

/// Everything that waits to be decided.
#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    pub(super) groups: Vec<Group>,
    group_of: FxHashMap<GroupKey, GroupIx>,
    pub(super) ready: Vec<GroupIx>,
    /// Those of them that are asked each time, without a reason.
    pub(super) by_routine: FxHashSet<GroupIx>,
    pub(super) queue: BTreeSet<(Order, GroupIx)>,
    stuck: FxHashSet<GroupIx>,
    pub(super) touched: Vec<UnitIx>,
    /// Those that leave by themselves before those that have to be compared.
    pub(super) suspects: BTreeSet<(bool, Precedence, UnitIx)>,
    /// Whose opponents have been looked at in this `decide`.
    pub(super) compared: FxHashSet<UnitIx>,
    pub(super) globals: BTreeSet<GlobalOrder>,
    pub(super) waiting: usize,
}

impl Batch {
    pub(super) fn group(&self, group: GroupIx) -> &Group {
        &self.groups[group as usize]
    }

    /// Returns how many units wait in a group.
    pub(super) fn waiting_in(&self, group: GroupIx) -> u64 {
        self.groups[group as usize].live as u64
    }

    /// Lets a unit wait in the group with this key; returns the group when it is a new one.
    pub(super) fn queue(&mut self, units: &mut [Unit], unit: UnitIx, key: GroupKey) -> Option<GroupIx> {
        let known = self.group_of.get(&key).copied();
        let ix = known.unwrap_or_else(|| {
            let (waiting, state) = (Vec::new(), State::Idle);
            self.groups.push(Group { key, waiting, sorted: true, live: 0, state, stuck_at: 0 });
            let ix = self.groups.len() as GroupIx - 1;
            self.group_of.insert(key, ix);
            ix
        });
        if units[unit as usize].group != Some(ix) {
            self.unqueue(units, unit);
            units[unit as usize].group = Some(ix);
            self.waiting += 1;
            let group = &mut self.groups[ix as usize];
            group.live += 1;
            group.waiting.push(unit);
            group.sorted = false;
            // What holds for a group holds for who joins it, but for those who may go with it.
            if group.state == State::Idle || (group.state == State::Stuck && key.leads) {
                self.set_state(ix, State::Ready);
            }
            let group = &mut self.groups[ix as usize];
            if group.waiting.len() > 2 * group.live + STALE_AT_MOST {
                self.sort(units, ix);
            }
        }
        known.is_none().then_some(ix)
    }

    /// Lets a unit wait no longer.
    pub(super) fn unqueue(&mut self, units: &mut [Unit], unit: UnitIx) {
        if let Some(group) = units[unit as usize].group.take() {
            self.waiting -= 1;
            let it = &mut self.groups[group as usize];
            it.live -= 1;
            if it.live == 0 && it.state == State::Stuck {
                // The number of its class may be another class's tomorrow.
                self.set_state(group, State::Idle);
            }
        }
    }

    /// Returns the first unit that waits in a group, by name.
    pub(super) fn first(&mut self, units: &[Unit], ix: GroupIx) -> Option<UnitIx> {
        if !self.groups[ix as usize].sorted {
            self.sort(units, ix);
        }
        let group = &mut self.groups[ix as usize];
        while let Some(unit) = group.waiting.last() {
            if units[*unit as usize].group == Some(ix) {
                return Some(*unit);
            }
            group.waiting.pop();
        }
        None
    }

    /// Returns the units that wait in a group.
    pub(super) fn members<'a>(&'a self, units: &'a [Unit], ix: GroupIx) -> impl Iterator<Item = UnitIx> + 'a {
        let all = self.groups[ix as usize].waiting.iter().copied();
        all.filter(move |unit| units[*unit as usize].group == Some(ix))
    }

    fn sort(&mut self, units: &[Unit], ix: GroupIx) {
        let group = &mut self.groups[ix as usize];
        group.waiting.retain(|unit| units[*unit as usize].group == Some(ix));
        // Names that come in order, as they do from a listing, are a single run for the sort.
        group.waiting.sort_by(|a, b| units[*b as usize].name.cmp(&units[*a as usize].name));
        group.waiting.dedup();
        group.sorted = true;
    }

    /// Sets what a group is doing, and keeps the lists of those that are stuck or ready.
    pub(super) fn set_state(&mut self, ix: GroupIx, state: State) {
        let before = std::mem::replace(&mut self.groups[ix as usize].state, state);
        if before == State::Stuck {
            self.stuck.remove(&ix);
        }
        match state {
            State::Stuck => drop(self.stuck.insert(ix)),
            State::Ready if before != State::Ready => self.ready.push(ix),
            _ => {}
        }
    }

    /// Lets a group wait until it is woken.
    pub(super) fn stick(&mut self, ix: GroupIx, age: u64) {
        self.groups[ix as usize].stuck_at = age;
        self.set_state(ix, State::Stuck);
    }

    /// Has a group looked at again that was stuck before the model was this old.
    pub(super) fn wake_older(&mut self, ix: GroupIx, age: u64) {
        if self.groups[ix as usize].stuck_at < age {
            self.wake(ix);
        }
    }

    /// Has a group that is stuck looked at again although nothing is known to have changed for it.
    pub(super) fn wake_by_routine(&mut self, ix: GroupIx) {
        if self.groups[ix as usize].state == State::Stuck {
            self.set_state(ix, State::Ready);
            self.by_routine.insert(ix);
        }
    }

    /// Has a group that is stuck looked at again.
    pub(super) fn wake(&mut self, ix: GroupIx) {
        self.by_routine.remove(&ix);
        if self.groups[ix as usize].state == State::Stuck {
            self.set_state(ix, State::Ready);
        }
    }

    /// Has those stuck groups looked at again that a change may help.
    pub(super) fn wake_if(&mut self, may: impl Fn(&GroupKey) -> bool) {
        let woken: Vec<GroupIx> =
            self.stuck.iter().copied().filter(|ix| may(&self.groups[*ix as usize].key)).collect();
        woken.into_iter().for_each(|ix| self.wake(ix));
    }
}
