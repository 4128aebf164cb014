//! Times, sizes and names as people read them.

use std::{borrow::Cow, fmt::Write as _};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// Says how long ago, in the two largest units: `2min 5s`.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).max(SignedDuration::ZERO).as_secs();
    let units = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (name, length) in units {
        if rest >= length {
            parts.push(format!("{}{name}", rest / length));
            rest %= length;
        }
    }
    match parts.as_slice() {
        [] => "0s".to_owned(),
        [one] => one.clone(),
        [first, second, ..] => format!("{first} {second}"),
    }
}

/// Says when, in the local time zone.
pub(crate) fn local(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%a %Y-%m-%d %H:%M:%S %Z").to_string()
}

/// Says when, as journalctl's short format does.
pub(crate) fn journal_time(realtime_us: u64) -> String {
    journal_time_as("%b %d %H:%M:%S", realtime_us)
}

/// Says when, in a form that strftime(3) describes.
pub(crate) fn journal_time_as(form: &str, realtime_us: u64) -> String {
    let at = i64::try_from(realtime_us).ok().and_then(|us| Timestamp::from_microsecond(us).ok());
    at.map_or_else(|| "?".to_owned(), |at| at.to_zoned(TimeZone::system()).strftime(form).to_string())
}

/// Writes a count with its thousands apart: `1,000,000`.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes bytes as systemctl does: `1.5M`.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut names = ["B", "K", "M", "G", "T", "P"].into_iter();
    let mut name = names.next().unwrap_or("B");
    for larger in names {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        name = larger;
    }
    if name == "B" { format!("{count}B") } else { format!("{value:.1}{name}") }
}

/// Writes processor time as systemctl does: `1.234s`.
pub(crate) fn cpu(ns: u64) -> String {
    if ns < 1_000_000_000 {
        format!("{}ms", ns / 1_000_000)
    } else {
        format!("{}.{:03}s", ns / 1_000_000_000, ns % 1_000_000_000 / 1_000_000)
    }
}

/// Makes text that somebody else wrote safe for a terminal, on one line.
///
/// A unit's output and description are whatever its author, or who talks to it, made them: an escape
/// sequence that reaches the terminal of root could rewrite what stands there. Control characters
/// (C0, DEL and C1, of which some begin sequences too) are written as `\x1b`, a tab is kept.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    let is_plain = || text.bytes().all(|byte| (b' '..0x7f).contains(&byte));
    if is_plain() || !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            c if is_unsafe(c) => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Makes text that somebody else wrote safe for a terminal, line by line; at least one.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    text.trim_end_matches(['\r', '\n']).split('\n').map(|line| one_line(line.trim_end_matches('\r')))
}

/// Also the marks that turn the direction of writing, which make text look like other text.
fn is_unsafe(c: char) -> bool {
    (c.is_control() && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_command_the_terminal() {
        assert_eq!(one_line("\u{1b}]0;owned\u{7}\u{1b}[2Jx\ty"), "\\x1b]0;owned\\x07\\x1b[2Jx\ty");
        assert_eq!(one_line("a\u{9b}2J\u{7f}"), "a\\x9b2J\\x7f");
        assert_eq!(one_line("two\nlines\r"), "two\\nlines\\x0d");
        assert_eq!(one_line("grüße \u{202e}txt"), "grüße \\x202etxt");
        assert!(matches!(one_line("plain ● text"), Cow::Borrowed(_)));
        assert_eq!(lines("one\r\ntwo\u{1b}c\n\n").collect::<Vec<_>>(), ["one", "two\\x1bc"]);
        assert_eq!(lines("").collect::<Vec<_>>(), [""]);
    }

    #[test]
    fn spans_sizes_and_times_read_as_systemctl_writes_them() {
        let now = Timestamp::from_second(1_000_000).expect("valid");
        let before = |seconds: i64| Timestamp::from_second(1_000_000 - seconds).expect("valid");
        assert_eq!(ago(before(0), now), "0s");
        assert_eq!(ago(before(125), now), "2min 5s");
        assert_eq!(ago(before(86_400 * 3 + 3_600 * 2 + 59), now), "3d 2h");
        assert_eq!(ago(before(-5), now), "0s", "a machine's clock may be ahead");
        assert_eq!((bytes(512), bytes(1_572_864)), ("512B".to_owned(), "1.5M".to_owned()));
        assert_eq!((cpu(5_000_000), cpu(1_234_000_000)), ("5ms".to_owned(), "1.234s".to_owned()));
    }
}
