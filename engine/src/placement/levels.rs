//! Machines by load: which ones may get units, lightest first.

use std::collections::BTreeMap;

use super::bits::{Bits, Slot};

/// The machines that are open to new units, by how many units they have.
#[derive(Debug, Clone, Default)]
pub(super) struct Levels {
    levels: BTreeMap<u32, Level>,
}

#[derive(Debug, Clone, Default)]
struct Level {
    bits: Bits,
    count: u32,
}

/// Where a search left off. As long as loads only grow and the searched set only shrinks, what lies
/// before it has nothing to find, so that a run of searches costs no more than one walk.
#[derive(Debug, Clone, Default)]
pub(super) struct Cursor {
    level: u32,
    word: usize,
}

impl Levels {
    pub(super) fn insert(&mut self, slot: Slot, load: u32) {
        let level = self.levels.entry(load).or_default();
        if !level.bits.get(slot) {
            level.bits.set(slot);
            level.count += 1;
        }
    }

    pub(super) fn remove(&mut self, slot: Slot, load: u32) {
        let Some(level) = self.levels.get_mut(&load) else { return };
        if level.bits.get(slot) {
            level.bits.clear(slot);
            level.count -= 1;
        }
        if level.count == 0 {
            self.levels.remove(&load);
        }
    }

    /// Returns the lightest machine of a set, the lowest slot of equals.
    pub(super) fn first(&self, set: &Bits, cursor: &mut Cursor) -> Option<Slot> {
        for (load, level) in self.levels.range(cursor.level..) {
            let start = if *load == cursor.level { cursor.word } else { 0 };
            for index in start..level.bits.words().min(set.words()) {
                let both = level.bits.word(index) & set.word(index);
                if both != 0 {
                    *cursor = Cursor { level: *load, word: index };
                    return u32::try_from(index).ok().map(|index| index * 64 + both.trailing_zeros());
                }
            }
        }
        *cursor = Cursor { level: u32::MAX, word: usize::MAX };
        None
    }

    /// Returns all the lightest machines of a set: they have equal loads.
    pub(super) fn lightest(&self, set: &Bits) -> Bits {
        self.levels
            .values()
            .map(|level| {
                let mut both = set.clone();
                both.keep(&level.bits);
                both
            })
            .find(|both| !both.is_empty())
            .unwrap_or_default()
    }
}
