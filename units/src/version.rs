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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The list that systemd tests its order with, oldest first.
    const SORTED: [&str; 24] = [
        "~1",
        "",
        "ab",
        "abb",
        "abc",
        "0001",
        "002",
        "12",
        "122",
        "122.9",
        "123~rc1",
        "123",
        "123-a",
        "123-a.1",
        "123-a1",
        "123-a1.1",
        "123-3",
        "123-3.1",
        "123^patch1",
        "123^1",
        "123.a-1",
        "123.1-1",
        "123a-1",
        "124",
    ];

    #[test]
    fn sorts_systemds_list() {
        for (n, one) in SORTED.iter().enumerate() {
            for (m, other) in SORTED.iter().enumerate() {
                assert_eq!(compare_versions(one, other), n.cmp(&m), "{one} {other}");
            }
        }
    }

    /// The examples of the specification, but those about `~`, which contradict its own rule that such a
    /// suffix is always older (systemd follows the rule, and so do the last rows here).
    #[test]
    fn agrees_with_the_examples_of_the_specification() {
        for (one, order, other) in [
            ("11", '=', "11"),
            ("systemd-123", '=', "systemd-123"),
            ("bar-123", '<', "foo-123"),
            ("123a", '>', "123"),
            ("123.a", '>', "123"),
            ("123.a", '<', "123.b"),
            ("123a", '>', "123.a"),
            ("11α", '=', "11β"),
            ("A", '<', "a"),
            ("", '<', "0"),
            ("0.", '>', "0"),
            ("0.0", '>', "0"),
            ("1_", '=', "1"),
            ("_1", '=', "1"),
            ("1_", '<', "1.2"),
            ("1_2_3", '>', "1.3.3"),
            ("1+", '=', "1"),
            ("+1", '=', "1"),
            ("1+", '<', "1.2"),
            ("1+2+3", '>', "1.3.3"),
            ("0", '>', "~"),
            ("", '>', "~"),
        ] {
            let want = match order {
                '<' => Ordering::Less,
                '=' => Ordering::Equal,
                _ => Ordering::Greater,
            };
            assert_eq!(compare_versions(one, other), want, "{one} {order} {other}");
            assert_eq!(compare_versions(other, one), want.reverse(), "{other} {order} {one}, turned");
        }
    }

    #[test]
    fn agrees_with_systemd_on_odd_ones() {
        for (older, newer) in [
            ("123.45-67.ab", "123.45-67.89"),
            ("123-99.99", "123.45-67.89"),
            ("123~rc1-99.99", "123^aa2-67.89"),
            ("123^45-67.89", "123.45-67.89"),
            ("123^aa2-67.89", "123aa2-67.89"),
            ("12_3", "123"),
            ("12", "12_3"),
            ("12.3", "12_3"),
            ("123..0", "123.0"),
            ("10.1xyz", "10xyz"),
            ("xyz.4", "2"),
            ("6.0", "6.0.rc1"),
            ("1.0~rc1~git123", "1.0~rc1"),
            ("1.0^20160101^git1", "1.0^20160102"),
            ("1.0^git1~pre", "1.0^git1"),
            // What people have metadata for.
            ("6.9", "6.10"),
            ("9", "12"),
            ("99", "18446744073709551616"),
        ] {
            assert_eq!(compare_versions(older, newer), Ordering::Less, "{older} {newer}");
            assert_eq!(compare_versions(newer, older), Ordering::Greater, "{newer} {older}");
        }
        for (one, other) in [("10.0001", "10.1"), ("123_aa2-67.89", "123aa+2-67.89"), ("+_", "_+"), ("_", "")]
        {
            assert_eq!(compare_versions(one, other), Ordering::Equal, "{one} {other}");
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_are_ordered_as_numbers(a in any::<u128>(), b in any::<u128>()) {
            prop_assert_eq!(compare_versions(&a.to_string(), &b.to_string()), a.cmp(&b));
        }

        #[test]
        fn is_a_total_preorder(a in "[~^.0-2ab_-]{0,6}|.{0,4}", b in "[~^.0-2ab_-]{0,6}", c in "[~^.0-2ab_-]{0,6}") {
            let order = |x: &str, y: &str| compare_versions(x, y);
            prop_assert_eq!(order(&a, &a), Ordering::Equal);
            prop_assert_eq!(order(&a, &b), order(&b, &a).reverse());
            if order(&a, &b).is_le() && order(&b, &c).is_le() {
                prop_assert!(order(&a, &c).is_le(), "{} {} {}", a, b, c);
                prop_assert_eq!(order(&a, &c).is_eq(), order(&a, &b).is_eq() && order(&b, &c).is_eq());
            }
        }
    }
}
