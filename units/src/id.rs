//! Identities: machines by their machine id, unit texts by their hash.

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};
use sha2::{Digest as _, Sha256};

/// Why a machine id or a content hash was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text has the wrong length or a character that is not a lower-case hexadecimal digit.
    #[error("`{text}` is not {what}: expected {digits} lower-case hexadecimal digits")]
    NotHex {
        /// The text as it was given.
        text: String,
        /// What was expected, for example `a machine id`.
        what: &'static str,
        /// How many digits it has to have.
        digits: usize,
    },
    /// machine-id(5) forbids the id that is all zeros.
    #[error("a machine id of zeros only is not valid; run systemd-machine-id-setup on that machine")]
    Zero,
}

/// A machine's identity: the 128 bits of its `/etc/machine-id` (machine-id(5)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId([u8; 16]);

/// A unit text's identity: the SHA-256 of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

impl MachineId {
    /// Returns the first eight digits, enough to tell machines apart on a screen.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }

    /// Returns the 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl ContentHash {
    /// Hashes a unit's text.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// Returns the first twelve digits, as shown in tables.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

fn parse<const N: usize>(text: &str, what: &'static str) -> Result<[u8; N], IdError> {
    let refuse = || IdError::NotHex { text: text.chars().take(80).collect(), what, digits: N * 2 };
    let bytes = text.as_bytes();
    if bytes.len() != N * 2 {
        return Err(refuse());
    }
    let digit = |b: u8| match b {
        b'0'..=b'9' => Ok(b - b'0'),
        b'a'..=b'f' => Ok(b - b'a' + 10),
        _ => Err(refuse()),
    };
    let mut out = [0; N];
    for (slot, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *slot = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(out)
}

/// Prints at once: ids stand in every key and hashes in every entry, and `{:02x}` for each byte of them was the
/// most of what writing a manifest cost.
fn print(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    f.write_str(std::str::from_utf8(&text[..bytes.len() * 2]).unwrap_or_default())
}

/// Reads an id from a text without a copy of it.
struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err = IdError>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lower-case hexadecimal digits")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

impl FromStr for MachineId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bytes = parse(text, "a machine id")?;
        if bytes == [0; 16] { Err(IdError::Zero) } else { Ok(Self(bytes)) }
    }
}

impl FromStr for ContentHash {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        parse(text, "a content hash").map(Self)
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                print(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                print(&self.0, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text(PhantomData))
            }
        }
    )*};
}
as_text!(MachineId, ContentHash);
