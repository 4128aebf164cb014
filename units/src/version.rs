//! The order of versions, by the version format of the UAPI group (UAPI.10).
//!
//! Follows systemd's `strverscmp_improved`, which the specification describes: digits compare as
//! whole numbers of any length, so that plain whole numbers need no rule of their own.

use std::cmp::Ordering;

/// Compares two texts as versions: `6.9` is older than `6.10`, `12~rc1` older than `12`.
///
/// It is a total order of any texts up to what the format ignores: characters that versions do not
/// have, and zeros before other digits. Texts that differ in those only are equal.
#[must_use]
pub fn compare_versions(one: &str, other: &str) -> Ordering {
    let (mut a, mut b) = (one.as_bytes(), other.as_bytes());
    loop {
        (a, b) = (skip(a, |c| !is_version_byte(c)), skip(b, |c| !is_version_byte(c)));
        if let Some(order) = separator(b'~', &mut a, &mut b) {
            return order;
        }
        // The longer one is newer: `1.2` comes before `1.2.0`.
        if a.is_empty() || b.is_empty() {
            return a.len().min(1).cmp(&b.len().min(1));
        }
        for sign in *b"-^." {
            if let Some(order) = separator(sign, &mut a, &mut b) {
                return order;
            }
        }
        let starts = |it: &[u8]| it.first().is_some_and(u8::is_ascii_digit);
        let order = if starts(a) || starts(b) {
            numbers(take(&mut a, |c| c.is_ascii_digit()), take(&mut b, |c| c.is_ascii_digit()))
        } else {
            take(&mut a, |c| c.is_ascii_alphabetic()).cmp(take(&mut b, |c| c.is_ascii_alphabetic()))
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Takes a separator off both; where one only has it, that one is older.
fn separator(sign: u8, a: &mut &[u8], b: &mut &[u8]) -> Option<Ordering> {
    match (a.strip_prefix(&[sign]), b.strip_prefix(&[sign])) {
        (Some(rest_a), Some(rest_b)) => {
            (*a, *b) = (rest_a, rest_b);
            None
        }
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (None, None) => None,
    }
}

/// Compares digits as numbers; none at all come before any.
fn numbers(a: &[u8], b: &[u8]) -> Ordering {
    let significant = |digits| skip(digits, |c| c == b'0');
    a.is_empty()
        .cmp(&b.is_empty())
        .reverse()
        .then_with(|| significant(a).len().cmp(&significant(b).len()))
        .then_with(|| significant(a).cmp(significant(b)))
}

const fn is_version_byte(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'~' | b'-' | b'^' | b'.')
}

fn skip(text: &[u8], which: impl Fn(u8) -> bool) -> &[u8] {
    let length = text.iter().position(|c| !which(*c)).unwrap_or(text.len());
    &text[length..]
}

fn take<'a>(text: &mut &'a [u8], which: impl Fn(u8) -> bool) -> &'a [u8] {
    let rest = skip(text, which);
    let taken = &text[..text.len() - rest.len()];
    *text = rest;
    taken
}
