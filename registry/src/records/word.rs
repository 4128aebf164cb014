//! What reports are full of: systemd's own words, and ids of 32 digits.
//!
//! A cluster of a million units has millions of them and some dozen different ones, so what is known is not kept as
//! a text. Whatever else a machine says comes out again as it came in.

use std::{fmt, ops::Deref};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

/// The words that are kept as their place in this list, the most frequent ones first: of the states of
/// org.freedesktop.systemd1(5) those that units flotilla runs get into, and the `Result`s of systemd.service(5).
const KNOWN: [&str; 56] = [
    "active",
    "loaded",
    "running",
    "inactive",
    "dead",
    "activating",
    "queued",
    "start",
    "failed",
    "exit-code",
    "exited",
    "deactivating",
    "stop",
    "stop-sigterm",
    "auto-restart",
    "auto-restart-queued",
    "waiting",
    "listening",
    "mounted",
    "elapsed",
    "",
    "unknown",
    "not-found",
    "stub",
    "bad-setting",
    "error",
    "merged",
    "masked",
    "reloading",
    "refreshing",
    "maintenance",
    "condition",
    "start-pre",
    "start-post",
    "start-chown",
    "reload",
    "reload-signal",
    "reload-notify",
    "stop-watchdog",
    "stop-sigkill",
    "stop-post",
    "stop-pre",
    "final-watchdog",
    "final-sigterm",
    "final-sigkill",
    "cleaning",
    "mounting",
    "unmounting",
    "signal",
    "core-dump",
    "timeout",
    "watchdog",
    "protocol",
    "resources",
    "start-limit-hit",
    "oom-kill",
];

/// A word of systemd's, such as `active`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word(Kept);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kept {
    Known(u8),
    Other(Box<str>),
}

/// systemd's id of one start of a unit: 32 digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InvocationId(Id);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Id {
    Digits([u8; 16]),
    Other(Box<str>),
}

impl Word {
    /// Returns it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Kept::Known(at) => KNOWN[usize::from(*at)],
            Kept::Other(text) => text,
        }
    }
}

impl From<&str> for Word {
    fn from(text: &str) -> Self {
        let known = KNOWN.iter().position(|known| *known == text).and_then(|at| u8::try_from(at).ok());
        Self(known.map_or_else(|| Kept::Other(text.into()), Kept::Known))
    }
}

impl From<String> for Word {
    fn from(text: String) -> Self {
        Self::from(&*text)
    }
}

impl From<Word> for String {
    fn from(word: Word) -> Self {
        word.as_str().to_owned()
    }
}

impl Deref for Word {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq<str> for Word {
    fn eq(&self, text: &str) -> bool {
        self.as_str() == text
    }
}

impl PartialEq<&str> for Word {
    fn eq(&self, text: &&str) -> bool {
        self.as_str() == *text
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl From<&str> for InvocationId {
    fn from(text: &str) -> Self {
        let digits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        Self(number.map_or_else(|| Id::Other(text.into()), |number| Id::Digits(number.to_be_bytes())))
    }
}

impl From<String> for InvocationId {
    fn from(text: String) -> Self {
        Self::from(&*text)
    }
}

impl From<InvocationId> for String {
    fn from(id: InvocationId) -> Self {
        id.to_string()
    }
}

impl InvocationId {
    /// Hands its text on without making a `String` of it.
    fn with_text<T>(&self, take: impl FnOnce(&str) -> T) -> T {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        match &self.0 {
            Id::Other(text) => take(text),
            Id::Digits(bytes) => {
                let mut text = [0; 32];
                for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
                    pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
                }
                take(std::str::from_utf8(&text).unwrap_or_default())
            }
        }
    }
}

impl fmt::Display for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.pad(text))
    }
}

impl fmt::Debug for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| fmt::Debug::fmt(text, f))
    }
}

impl Serialize for InvocationId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_text(|text| serializer.serialize_str(text))
    }
}

/// Reads what is made of a text without a copy of it.
struct Text<T>(std::marker::PhantomData<T>);

impl<T: for<'a> From<&'a str>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        Ok(text.into())
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for InvocationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_word_stands_in_the_list_twice() {
        for (at, word) in KNOWN.into_iter().enumerate() {
            assert_eq!(Word::from(word), Word(Kept::Known(u8::try_from(at).expect("few"))), "{word}");
        }
    }

    proptest! {
        #[test]
        fn what_comes_in_comes_out(text in "\\PC{0,40}|[0-9a-f]{32}|[0-9A-F+]{32}|active|auto-restart") {
            let word = Word::from(&*text);
            prop_assert_eq!(word.as_str(), &text);
            prop_assert_eq!(InvocationId::from(&*text).to_string(), text.clone());
            let json = serde_json::to_string(&text).expect("a string");
            let word: Word = serde_json::from_str(&json).expect("a string");
            prop_assert_eq!(serde_json::to_string(&word).expect("a string"), json.clone());
            let id: InvocationId = serde_json::from_str(&json).expect("a string");
            prop_assert_eq!(serde_json::to_string(&id).expect("a string"), json);
        }
    }
}
