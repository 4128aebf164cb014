//! Rankings that are kept from one run of a group to the next.
//!
//! A ranking costs a look at every machine, and what has changed since its last use is mostly a few of them. So those
//! of the classes that were placed last are kept, and whatever changes about a machine's entries, reservations or
//! room is noted in a list, which each of them goes through before it is used again. What changes more than that (the
//! metadata of a machine, one that returns) has all of them made anew.
//!
//! They decide nothing that a new one would not: they are left out of copies of the model, and none is ever told of.

use super::{
    Placement,
    bits::{Bits, Slot},
    classes::ClassIx,
    model::UnitIx,
    ranking::Ranking,
};

/// How many rankings are kept. At 10,000 machines each has about half a megabyte, and classes that reserve, wish or
/// spread and are placed in turn are few.
const KEPT_MOST: usize = 16;

/// How many changes are noted beside as many as there are machines: with more, making a ranking anew is less work.
const CHANGES_MOST: usize = 256;

/// The rankings that are kept, and what happened since.
#[derive(Debug, Default)]
pub(super) struct Rankings {
    /// The one that was used last is last.
    kept: Vec<Kept>,
    changed: Vec<Slot>,
    /// How many changes were noted before those.
    before: u64,
}

/// The ranking of all machines that a class may go to.
#[derive(Debug)]
pub(super) struct Kept {
    class: ClassIx,
    pub(super) ranking: Ranking,
    /// All that are ranked.
    known: Bits,
    /// Those with room for one more.
    room: Bits,
    /// Those that may have the unit that it was used for last, if they have the room.
    open: Bits,
    /// How many changes it has gone through.
    seen: u64,
}

impl Clone for Rankings {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Rankings {
    /// Notes that a machine's entries, or what is reserved there, or its room are others.
    pub(super) fn note(&mut self, slot: Slot, machines: usize) {
        if self.kept.is_empty() {
            // Nobody has seen anything; the one that is in use is told by who uses it.
            return;
        }
        if self.changed.len() > machines + CHANGES_MOST {
            self.before += self.changed.len() as u64;
            self.changed.clear();
        }
        self.changed.push(slot);
    }

    fn now(&self) -> u64 {
        self.before + self.changed.len() as u64
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.changed.clear();
    }

    /// Forgets that of a class.
    pub(super) fn forget(&mut self, class: ClassIx) {
        self.kept.retain(|kept| kept.class != class);
    }

    fn take(&mut self, class: ClassIx) -> Option<Kept> {
        let at = self.kept.iter().position(|kept| kept.class == class)?;
        Some(self.kept.remove(at)).filter(|kept| kept.seen >= self.before)
    }

    /// Keeps a ranking that has gone through all changes.
    pub(super) fn keep(&mut self, mut kept: Kept) {
        kept.seen = self.now();
        if self.kept.len() >= KEPT_MOST {
            self.kept.remove(0);
        }
        self.kept.push(kept);
    }
}

impl Kept {
    /// Looks at a machine again.
    fn look(&mut self, core: &Placement, slot: Slot) {
        if !self.known.get(slot) {
            return;
        }
        if self.ranking.fits(core, slot) {
            self.room.set(slot);
        } else {
            self.room.clear(slot);
        }
        self.ranking.set(core, slot, self.room.get(slot) && self.open.get(slot));
    }

    /// Notes that a machine got such a unit; `closed` when it takes no more of them.
    pub(super) fn placed(&mut self, core: &Placement, slot: Slot, closed: bool) {
        if closed {
            self.open.clear(slot);
        }
        if !self.ranking.fits(core, slot) {
            self.room.clear(slot);
        }
        self.ranking.placed(core, slot, closed);
    }
}

impl Placement {
    /// Returns the ranking of the machines that may have the units of a group, of which this is the first. It is to be
    /// told of each that is placed, and to be kept.
    pub(super) fn ranking_for(&mut self, class: ClassIx, first: UnitIx) -> Kept {
        let set = self.candidates_but_room(first);
        let mut kept = self.kept_for(class, first, &set).unwrap_or_else(|| self.rank(class, first));
        for index in 0..kept.open.words().max(set.words()) {
            let mut differ = kept.open.word(index) ^ set.word(index);
            while differ != 0 {
                let slot = index as Slot * 64 + differ.trailing_zeros();
                differ &= differ - 1;
                if set.get(slot) {
                    kept.open.set(slot)
                } else {
                    kept.open.clear(slot)
                }
                kept.look(self, slot);
            }
        }
        kept.ranking.begin(self);
        kept
    }

    /// Returns how many machines can take a unit that waits in a group.
    pub(super) fn how_many_take(&mut self, unit: UnitIx) -> u32 {
        let class = self.unit(unit).class;
        if self.classes.get(class).reserve.is_empty() {
            return self.candidates(unit, &[]).count();
        }
        let mut set = self.candidates_but_room(unit);
        let Some(kept) = self.kept_for(class, unit, &set) else { return self.candidates(unit, &[]).count() };
        set.keep(&kept.room);
        self.rankings.keep(kept);
        set.count()
    }

    /// Takes the ranking of a class if it is kept and knows these machines, and brings it up to date.
    fn kept_for(&mut self, class: ClassIx, unit: UnitIx, set: &Bits) -> Option<Kept> {
        let mut kept = self.rankings.take(class)?;
        let mut unknown = set.clone();
        unknown.take_out(&kept.known);
        if !unknown.is_empty() {
            return None;
        }
        kept.ranking.ask_for(unit);
        let from = (kept.seen - self.rankings.before) as usize;
        for at in from..self.rankings.changed.len() {
            kept.look(self, self.rankings.changed[at]);
        }
        Some(kept)
    }

    /// Ranks all machines that a class may go to.
    fn rank(&self, class: ClassIx, unit: UnitIx) -> Kept {
        let mut known = self.open.clone();
        let it = self.classes.get(class);
        let selectors = it.selectors.iter().chain(&it.spread);
        let asked = selectors.filter_map(|selector| self.selectors.get(*selector));
        asked.for_each(|asked| known.keep(&asked.machines));
        let mut ranking = Ranking::new(self, &[unit], &known);
        let mut room = known.clone();
        for slot in known.iter().filter(|slot| !ranking.fits(self, *slot)).collect::<Vec<_>>() {
            room.clear(slot);
            ranking.set(self, slot, false);
        }
        let open = known.clone();
        Kept { class, ranking, known, room, open, seen: 0 }
    }
}
