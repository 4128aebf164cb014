//! Sets of machine slots: plain bit sets, where a unit is, and counts per machine.

use rustc_hash::FxHashMap;

/// A machine's number inside the core. After [`settle`](super::Placement::settle) the order of slots
/// is the order of machine ids, so that the first bit of a set is its lowest id.
pub(super) type Slot = u32;

/// A set of slots.
#[derive(Debug, Clone, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    pub(super) fn get(&self, slot: Slot) -> bool {
        self.word(slot as usize / 64) >> (slot % 64) & 1 == 1
    }

    pub(super) fn set(&mut self, slot: Slot) {
        let word = slot as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (slot % 64);
    }

    pub(super) fn clear(&mut self, slot: Slot) {
        if let Some(word) = self.words.get_mut(slot as usize / 64) {
            *word &= !(1 << (slot % 64));
        }
    }

    /// Returns 64 slots at once.
    pub(super) fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    pub(super) const fn words(&self) -> usize {
        self.words.len()
    }

    pub(super) fn keep(&mut self, other: &Self) {
        for (index, word) in self.words.iter_mut().enumerate() {
            *word &= other.word(index);
        }
    }

    pub(super) fn take_out(&mut self, other: &Self) {
        for (word, out) in self.words.iter_mut().zip(&other.words) {
            *word &= !out;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    pub(super) fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.words.iter().zip(0..).flat_map(|(word, index)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(index * 64 + bit)
            })
        })
    }

    /// Gives every slot its new number; a slot that has none any more leaves the set.
    pub(super) fn renumber(&mut self, new_of: &[Option<Slot>]) {
        let old = std::mem::take(self);
        old.iter().filter_map(|slot| new_of[slot as usize]).for_each(|slot| self.set(slot));
    }
}

/// On which machines one unit is: none or one for nearly all units, many for a global one.
#[derive(Debug, Clone, Default)]
pub(super) enum Homes {
    #[default]
    Nowhere,
    At(Slot),
    Many(Box<Bits>),
}

impl Homes {
    pub(super) fn contains(&self, slot: Slot) -> bool {
        match self {
            Self::Nowhere => false,
            Self::At(at) => *at == slot,
            Self::Many(bits) => bits.get(slot),
        }
    }

    /// Adds a slot; tells whether it was missing.
    pub(super) fn insert(&mut self, slot: Slot) -> bool {
        if self.contains(slot) {
            return false;
        }
        match self {
            Self::Nowhere => *self = Self::At(slot),
            Self::At(at) => {
                let mut bits = Bits::default();
                bits.set(*at);
                bits.set(slot);
                *self = Self::Many(Box::new(bits));
            }
            Self::Many(bits) => bits.set(slot),
        }
        true
    }

    /// Takes a slot out; tells whether it was there.
    pub(super) fn remove(&mut self, slot: Slot) -> bool {
        if !self.contains(slot) {
            return false;
        }
        match self {
            Self::Many(bits) => {
                bits.clear(slot);
                if bits.is_empty() {
                    *self = Self::Nowhere;
                }
            }
            _ => *self = Self::Nowhere,
        }
        true
    }

    pub(super) const fn is_empty(&self) -> bool {
        matches!(self, Self::Nowhere)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        let (one, many) = match self {
            Self::Nowhere => (None, None),
            Self::At(at) => (Some(*at), None),
            Self::Many(bits) => (None, Some(bits.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Leaves in `bits` only these machines.
    pub(super) fn restrict(&self, bits: &mut Bits) {
        match self {
            Self::Many(homes) => bits.keep(homes),
            _ => {
                let mut only = Bits::default();
                self.iter().for_each(|slot| only.set(slot));
                bits.keep(&only);
            }
        }
    }

    pub(super) fn renumber(&mut self, new_of: &[Option<Slot>]) {
        match self {
            Self::Nowhere => {}
            Self::At(at) => *self = new_of[*at as usize].map_or(Self::Nowhere, Self::At),
            Self::Many(bits) => bits.renumber(new_of),
        }
    }
}

/// How many there are on each machine, of something of which there is mostly none or one.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    bits: Bits,
    /// Counts above one.
    more: FxHashMap<Slot, u32>,
}

impl Tally {
    pub(super) const fn any(&self) -> &Bits {
        &self.bits
    }

    pub(super) fn add(&mut self, slot: Slot) {
        if self.bits.get(slot) {
            *self.more.entry(slot).or_insert(1) += 1;
        } else {
            self.bits.set(slot);
        }
    }

    /// Takes one away; tells whether it was the last.
    pub(super) fn sub(&mut self, slot: Slot) -> bool {
        let Some(count) = self.more.get_mut(&slot) else {
            self.bits.clear(slot);
            return true;
        };
        *count -= 1;
        if *count == 1 {
            self.more.remove(&slot);
        }
        false
    }

    pub(super) fn count(&self, slot: Slot) -> u32 {
        if self.bits.get(slot) { self.more.get(&slot).copied().unwrap_or(1) } else { 0 }
    }

    pub(super) fn renumber(&mut self, new_of: &[Option<Slot>]) {
        self.bits.renumber(new_of);
        let old = std::mem::take(&mut self.more);
        self.more = old.into_iter().filter_map(|(s, count)| Some((new_of[s as usize]?, count))).collect();
    }
}
