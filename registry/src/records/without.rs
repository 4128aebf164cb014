//! The instances within a range's bounds that it does not speak for.
//!
//! Instances that are destroyed one by one would cut their range into ever more pieces. So the range around
//! them is cut once, to a block of 4,096 numbers, and from then on notes who of the block has left it: a
//! million instances of which every second is destroyed are 245 records of some 1 kB.

use std::{fmt, ops::RangeInclusive};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// How many numbers a block has: 1,024 hexadecimal digits, so that a record stays near 1 kB. It is part of the
/// stored format.
pub const BLOCK: u64 = 4_096;

/// How many words hold a block.
const WORDS: usize = 64;

/// Which numbers of a block are left out. A range that leaves any out is within one block.
///
/// It is spelt in hexadecimal digits, each for four numbers from the block's first one on, the lowest bit first;
/// zeros at the end are not written.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Without(Option<Box<[u64; WORDS]>>);

impl Without {
    /// Returns the numbers of the block that a number is in.
    #[must_use]
    pub const fn block_of(number: u64) -> RangeInclusive<u64> {
        let first = number - number % BLOCK;
        first..=first + (BLOCK - 1)
    }

    /// Tells whether none is left out.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Tells whether a number of its block is left out.
    #[must_use]
    pub fn has(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.0.as_ref().and_then(|words| words.get(word)).is_some_and(|word| word & bit != 0)
    }

    /// Leaves a number out.
    pub fn insert(&mut self, number: u64) {
        let (word, bit) = place(number);
        if let Some(word) = self.0.get_or_insert_with(|| Box::new([0; WORDS])).get_mut(word) {
            *word |= bit;
        }
    }

    /// Returns how many of some numbers of its block are left out.
    #[must_use]
    pub fn count(&self, within: RangeInclusive<u64>) -> u64 {
        let Some(words) = &self.0 else { return 0 };
        let masked =
            words.iter().zip(masks(&within)).map(|(word, mask)| u64::from((word & mask).count_ones()));
        masked.sum()
    }

    /// Forgets those of its block that are not among some numbers.
    pub fn keep(&mut self, within: &RangeInclusive<u64>) {
        let Some(words) = &mut self.0 else { return };
        words.iter_mut().zip(masks(within)).for_each(|(word, mask)| *word &= mask);
        if words.iter().all(|word| *word == 0) {
            self.0 = None;
        }
    }

    /// Leaves out what another leaves out too.
    pub fn extend(&mut self, other: &Self) {
        let Some(others) = &other.0 else { return };
        let words = self.0.get_or_insert_with(|| Box::new([0; WORDS]));
        words.iter_mut().zip(others.iter()).for_each(|(word, other)| *word |= other);
    }
}

/// Returns the bits of some numbers of a block, word by word.
fn masks(within: &RangeInclusive<u64>) -> impl Iterator<Item = u64> {
    let (from, to) = (within.start() % BLOCK, within.end() % BLOCK);
    (0..).step_by(64).take(WORDS).map(move |first: u64| {
        // Those from the first one on, and those up to the last one.
        let above = from.saturating_sub(first).min(64);
        let below = (to + 1).saturating_sub(first).min(64);
        let up_to = |bits: u64| if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
        up_to(below) & !up_to(above)
    })
}

/// Returns the word and the bit of a number.
const fn place(number: u64) -> (usize, u64) {
    let at = number % BLOCK;
    #[allow(clippy::cast_possible_truncation, reason = "it is below 64")]
    let word = (at / 64) as usize;
    (word, 1 << (at % 64))
}

impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.iter().flat_map(|words| words.iter());
        let digits = words.flat_map(|word| (0..16).map(move |digit| (word >> (4 * digit)) & 15));
        let digits: String =
            digits.filter_map(|digit| char::from_digit(u32::try_from(digit).ok()?, 16)).collect();
        f.write_str(digits.trim_end_matches('0'))
    }
}

impl fmt::Debug for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Without({self})")
    }
}

impl Serialize for Without {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Without {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() as u64 > BLOCK / 4 {
            return Err(D::Error::custom("it leaves out more instances than a block has"));
        }
        let mut without = Self::default();
        for (at, digit) in (0_u64..).zip(text.chars()) {
            let digit = digit.to_digit(16).ok_or_else(|| D::Error::custom("it is not hexadecimal"))?;
            (0..4).filter(|bit| digit & (1 << bit) != 0).for_each(|bit| without.insert(4 * at + bit));
        }
        Ok(without)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_spelt_and_read_back() {
        let mut without = Without::default();
        assert!(without.is_empty() && !without.has(7));
        for number in [BLOCK, BLOCK + 3, BLOCK + 5, BLOCK + 64] {
            without.insert(number);
        }
        assert_eq!(without.to_string(), "92000000000000001", "part of the stored format");
        let text = serde_json::to_string(&without).expect("JSON");
        assert_eq!(serde_json::from_str::<Without>(&text).expect("its own"), without);
        assert_eq!(without.count(BLOCK..=BLOCK + 5), 3);
        without.keep(&(BLOCK + 4..=BLOCK + 63));
        assert_eq!(without.to_string(), "02");
        without.keep(&(BLOCK..=BLOCK));
        assert_eq!(without, Without::default(), "nothing is nothing, however it came");
        let all: Vec<u64> = Without::block_of(5_000).collect();
        assert_eq!((all.first(), all.last()), (Some(&4_096), Some(&8_191)));
        all.iter().for_each(|number| without.insert(*number));
        assert_eq!(without.to_string(), "f".repeat(1_024));
        assert_eq!(*Without::block_of(u64::MAX).end(), u64::MAX);
        for wrong in [format!("\"{}\"", "0".repeat(1_025)), "\"0x\"".to_owned(), "\"é\"".to_owned()] {
            assert!(serde_json::from_str::<Without>(&wrong).is_err(), "{wrong}");
        }
    }
}
