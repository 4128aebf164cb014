//! The line syntax of unit files, as systemd.syntax(7) and systemd's `config_parse` read it.
//!
//! Turns text into headers and assignments with their places. It never judges
//! options; lines that systemd would skip with a warning come out as flaws.

use std::ops::Range;

use crate::{problem::Found, problem::ProblemKind, words::is_blank};

/// What a text says, in its order.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The section names, each once, in the order of their first headers, with the byte of that header.
    pub sections: Vec<(String, usize)>,
    /// The assignments.
    pub assignments: Vec<Stored>,
}

/// One assignment.
#[derive(Debug)]
pub struct Stored {
    /// Index into [`Parsed::sections`].
    pub section: usize,
    /// The option's name.
    pub key: Box<str>,
    /// The value, without surrounding blanks, continued lines joined.
    pub value: Box<str>,
    /// At which byte of the text the option's name begins.
    pub at: usize,
    /// The line it begins in, from 1.
    pub line: usize,
    /// The character of the line at which it begins, from 1.
    pub column: usize,
    /// For each stretch of the value: at which of the value's bytes it begins, and at which of the text's.
    pieces: Box<[(usize, usize)]>,
}

impl Stored {
    /// Returns the byte of the text that a byte of the value came from.
    pub fn text_at(&self, value_at: usize) -> usize {
        match self.pieces.iter().rev().find(|(in_value, _)| *in_value <= value_at) {
            Some((in_value, in_text)) => in_text + (value_at - in_value),
            None => self.at,
        }
    }
}

/// Yields the lines of a text without their ends. Like systemd's `read_line`, it takes `\n`, `\r`,
/// `\r\n` and `\n\r` for one line end each.
pub fn lines(text: &str) -> impl Iterator<Item = RawLine> + '_ {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= bytes.len() {
            return None;
        }
        let start = at;
        let is_end = |b: &u8| matches!(b, b'\n' | b'\r');
        let length = bytes[start..].iter().position(is_end).unwrap_or(bytes.len() - start);
        let stop = start + length;
        let first = bytes.get(stop).copied();
        let second = bytes.get(stop + 1).filter(|b| is_end(b) && Some(**b) != first);
        at = stop + usize::from(first.is_some()) + usize::from(first.is_some() && second.is_some());
        Some(RawLine { start, stop, end: at })
    })
}

/// Where a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawLine {
    /// Its first byte.
    pub start: usize,
    /// The byte after its text.
    pub stop: usize,
    /// The byte after its line end.
    pub end: usize,
}

/// A line with those that continue it.
struct Logical {
    text: String,
    /// As [`Stored::pieces`], for the whole line.
    pieces: Vec<(usize, usize)>,
    line: usize,
    /// The first byte of its first line.
    start: usize,
}

impl Logical {
    fn text_at(&self, at: usize) -> usize {
        let piece = self.pieces.iter().rev().find(|(here, _)| *here <= at);
        piece.map_or(self.start, |(here, in_text)| in_text + (at - here))
    }

    /// Returns the pieces of a part of this line, counted from the part's begin.
    fn pieces_of(&self, part: &Range<usize>) -> Box<[(usize, usize)]> {
        let inner = self.pieces.iter().filter(|(here, _)| part.start < *here && *here < part.end);
        std::iter::once((0, self.text_at(part.start)))
            .chain(inner.map(|(here, in_text)| (here - part.start, *in_text)))
            .collect()
    }
}

/// Reads a text.
pub fn parse(text: &str, found: &mut Found) -> Parsed {
    let mut parsed = Parsed::default();
    let mut current = None;
    let mut pending: Option<Logical> = None;
    for (number, raw) in lines(text).enumerate() {
        let mut start = raw.start;
        if start == 0 && text.starts_with('\u{feff}') {
            start = '\u{feff}'.len_utf8();
        }
        let line = &text[start..raw.stop];
        if line.trim_start_matches(is_blank).starts_with(['#', ';']) {
            continue;
        }
        let logical = pending.get_or_insert_with(|| Logical {
            text: String::new(),
            pieces: Vec::new(),
            line: number + 1,
            start,
        });
        logical.pieces.push((logical.text.len(), start));
        logical.text.push_str(line);
        // A backslash continues the line unless another one escapes it. The count starts anew on each
        // line, because the backslash before it has become a blank.
        if line.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1 {
            logical.text.pop();
            logical.text.push(' ');
        } else if let Some(logical) = pending.take() {
            read(text, &logical, &mut current, &mut parsed, found);
        }
    }
    // systemd takes a file whose last line ends in a backslash for complete.
    if let Some(logical) = pending {
        read(text, &logical, &mut current, &mut parsed, found);
    }
    parsed
}

/// Returns the range of `part` of `line` without surrounding blanks.
fn trim(line: &str, part: Range<usize>) -> Range<usize> {
    let start = part.end - line[part.clone()].trim_start_matches(is_blank).len();
    start..start + line[start..part.end].trim_end_matches(is_blank).len()
}

fn read(text: &str, logical: &Logical, current: &mut Option<usize>, parsed: &mut Parsed, found: &mut Found) {
    let line = logical.text.as_str();
    let whole = trim(line, 0..line.len());
    if whole.is_empty() {
        return;
    }
    let at = logical.text_at(whole.start);
    if line[whole.clone()].starts_with('[') {
        *current = header(&line[whole], at, parsed, found);
        return;
    }
    let Some(equals) = line[whole.clone()].find('=') else {
        return found.at(at, ProblemKind::NoEquals);
    };
    let equals = whole.start + equals;
    let key = trim(line, whole.start..equals);
    if key.is_empty() {
        return found.at(at, ProblemKind::NoOption);
    }
    let Some(section) = *current else {
        // After a broken header one message is enough.
        if parsed.sections.is_empty() && !found.0.iter().any(|(_, k)| *k == ProblemKind::BadHeader) {
            found.at(at, ProblemKind::OutsideSection);
        }
        return;
    };
    let value = trim(line, equals + 1..whole.end);
    let first_line = logical.text_at(0);
    parsed.assignments.push(Stored {
        section,
        pieces: logical.pieces_of(&value),
        key: line[key].into(),
        value: line[value].into(),
        at,
        line: logical.line,
        column: text.get(first_line..at).map_or(0, |s| s.chars().count()) + 1,
    });
}

/// Returns the index of the section that a header begins.
fn header(line: &str, at: usize, parsed: &mut Parsed, found: &mut Found) -> Option<usize> {
    // systemd's string_is_safe: no control characters, quotes or backslashes.
    let unsafe_char = |c: char| c.is_ascii_control() || matches!(c, '"' | '\'' | '\\' | '[' | ']');
    let name = line.strip_prefix('[').and_then(|l| l.strip_suffix(']'));
    let Some(name) = name.filter(|n| !n.is_empty() && !n.contains(unsafe_char)) else {
        found.at(at, ProblemKind::BadHeader);
        return None;
    };
    if let Some(known) = parsed.sections.iter().position(|(n, _)| n == name) {
        return Some(known);
    }
    parsed.sections.push((name.to_owned(), at));
    Some(parsed.sections.len() - 1)
}
