//! `MachineOf=`: units that go to one machine together.
//!
//! Whoever names a leader has to be where it is, so a unit and all leaders that it has, directly or not,
//! and that have no machine yet, are one bundle: they are placed together or, where no machine takes all
//! of them, the unit waits and its leaders go on their own. Units that name each other are a bundle like
//! any other.
//!
//! Among the machines that take the bundle those are preferred that also take the others who will follow
//! it, so that a leader does not go where its followers may not.

use rustc_hash::FxHashSet;

use super::{
    Decision, Placement,
    batch::{GroupIx, State},
    bits::{Bits, Slot},
    model::{Status, UnitIx},
};

/// Up to how many units, with their bundle, are asked where they could follow. Beyond it the preference
/// is given up: it is one, and each costs a look at all machines.
const FOLLOWERS_ASKED: usize = 64;

impl Placement {
    /// Places the units of a group each with its bundle.
    pub(super) fn place_bundles(&mut self, group: GroupIx, limit: usize, out: &mut Vec<Decision>) {
        while let Some(unit) = self.batch.first(&self.units, group) {
            if out.len() >= limit {
                return self.batch.set_state(group, State::Ready);
            }
            let (bundle, set) = self.bundle_room(unit);
            if let Some(slot) = self.best(&bundle, &set) {
                bundle.into_iter().for_each(|unit| self.place(unit, slot, out));
                continue;
            }
            let other = self.unlike(group, unit, &bundle).map(|other| self.bundle_room(other));
            let (others, set) = other.unwrap_or_default();
            if let Some(slot) = self.best(&others, &set) {
                others.into_iter().for_each(|unit| self.place(unit, slot, out));
                continue;
            }
            if bundle.len() == 1 {
                self.make_room(group, unit, limit, out);
            }
            let asked = [bundle, others].concat();
            self.stick(group, &asked);
            return self.ask_followers(group, &asked);
        }
        self.batch.set_state(group, State::Idle);
    }

    /// Where units of a group lead others of it, they are of two kinds: those that all of the group go with, and
    /// those that go with these. Returns one of the other kind than a unit with this bundle.
    fn unlike(&self, group: GroupIx, unit: UnitIx, bundle: &[UnitIx]) -> Option<UnitIx> {
        let leaders = |unit: UnitIx| &self.classes.get(self.unit(unit).class).leaders;
        if leaders(unit).is_empty() {
            None
        } else if bundle.iter().any(|other| leaders(*other).contains(&unit)) {
            self.batch.members(&self.units, group).find(|other| !bundle.contains(other))
        } else {
            bundle.iter().copied().find(|other| *other != unit && self.unit(*other).group == Some(group))
        }
    }

    /// Has those asked again that follow units of a group which no machine takes. A unit that follows a pattern may
    /// find whom it needs in its followers, so that all of them can go where it alone cannot: whatever was in
    /// its way, and is not any more, was in theirs.
    fn ask_followers(&mut self, group: GroupIx, bundle: &[UnitIx]) {
        let seeks = |unit: &UnitIx| !self.classes.get(self.unit(*unit).class).follows.is_empty();
        if !self.batch.group(group).key.leads || !bundle.iter().any(seeks) {
            return;
        }
        let led = self.batch.members(&self.units, group).filter_map(|unit| self.followers.get(&unit));
        let groups = led.flatten().flat_map(|class| &self.classes.get(*class).groups);
        for other in groups.copied().collect::<Vec<_>>() {
            self.batch.wake_older(other, self.age);
        }
    }

    /// Returns a waiting unit's bundle, leaders first, and the machines that it should go to; none when
    /// no machine takes it.
    pub(super) fn bundle_room(&self, unit: UnitIx) -> (Vec<UnitIx>, Bits) {
        let Some(bundle) = self.bundle(unit) else { return (vec![unit], Bits::default()) };
        let set = self.room_for(&bundle);
        if set.is_empty() {
            return (bundle, set);
        }
        let mut with_followers = match self.followers_of(&bundle) {
            Some(all) if all.len() > bundle.len() => self.room_for(&all),
            _ => Bits::default(),
        };
        // Those are not placed now: whoever needs one of them there does not have it yet.
        with_followers.keep(&set);
        (bundle, if with_followers.is_empty() { set } else { with_followers })
    }

    /// `None` when one of its leaders is not waiting for a machine: it is unknown, not to run, or still
    /// leaving one.
    fn bundle(&self, unit: UnitIx) -> Option<Vec<UnitIx>> {
        let mut bundle = Vec::new();
        let mut seen = FxHashSet::from_iter([unit]);
        // Depth first with a stack of its own: a chain may be long.
        let mut path = vec![(unit, 0)];
        while let Some((at, next)) = path.last_mut() {
            let Some(leader) = self.classes.get(self.unit(*at).class).leaders.get(*next).copied() else {
                bundle.push(*at);
                path.pop();
                continue;
            };
            *next += 1;
            if self.is_live(leader) || !seen.insert(leader) {
                continue;
            }
            self.unit(leader).group?;
            path.push((leader, 0));
        }
        Some(bundle)
    }

    /// Returns a bundle with all who wait and belong to it; `None` when they are too many.
    fn followers_of(&self, bundle: &[UnitIx]) -> Option<Vec<UnitIx>> {
        let mut all = bundle.to_vec();
        let mut seen: FxHashSet<UnitIx> = bundle.iter().copied().collect();
        let mut next = 0;
        while let Some(unit) = all.get(next).copied() {
            next += 1;
            let leaders = self.classes.get(self.unit(unit).class).leaders.iter();
            let followers = self.followers.get(&unit).into_iter().flatten();
            let followers = followers.flat_map(|class| self.classes.get(*class).members.iter());
            for other in leaders.chain(followers).copied() {
                let waits = self.unit(other).status == Status::Wanted && !self.is_live(other);
                if waits && !self.globals.contains(&other) && seen.insert(other) {
                    all.push(other);
                }
                if all.len() > FOLLOWERS_ASKED {
                    return None;
                }
            }
        }
        Some(all)
    }

    /// Returns the machines that take all of these units together.
    pub(super) fn room_for(&self, units: &[UnitIx]) -> Bits {
        let asks = |unit: &&UnitIx| {
            let class = self.classes.get(self.unit(**unit).class);
            !class.conflicts.is_empty() || !class.replaces.is_empty()
        };
        let parted = |one: UnitIx, other: UnitIx| self.conflict(one, other) || self.pushes(one, other);
        if units.iter().filter(asks).any(|one| units.iter().any(|other| parted(*one, *other))) {
            return Bits::default();
        }
        let mut set = self.open.clone();
        units.iter().for_each(|unit| set.keep(&self.candidates(*unit, units)));
        if units.len() > 1 {
            let ask = self.ask_of(units);
            let full =
                |slot: &Slot| !self.machine(*slot).used.fits(&ask) || !self.takes_so_many(units, *slot);
            set.iter().filter(full).collect::<Vec<_>>().into_iter().for_each(|slot| set.clear(slot));
        }
        set
    }

    /// Tells whether none of them would have too many of its template beside it.
    fn takes_so_many(&self, units: &[UnitIx], slot: Slot) -> bool {
        units.iter().all(|unit| {
            self.caps(*unit).all(|(siblings, most)| {
                let coming = units.iter().filter(|other| self.is_matched(**other, siblings)).count();
                let there = self.patterns.get(siblings).matched.count(slot);
                there as usize + coming <= most as usize
            })
        })
    }
}
