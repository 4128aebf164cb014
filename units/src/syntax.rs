//! The line syntax of unit files, as systemd.syntax(7) and systemd's `config_parse` read it.
//!
//! Turns text into headers and assignments with their places. It never judges
//! options; lines that systemd would skip with a warning come out as flaws.

use std::{collections::HashMap, ops::Range};

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
        locate(&self.pieces, value_at).unwrap_or(self.at)
    }
}

/// Finds where a byte came from, by the last piece that begins at or before it.
fn locate(pieces: &[(usize, usize)], at: usize) -> Option<usize> {
    let after = pieces.partition_point(|(here, _)| *here <= at);
    pieces[..after].last().map(|(here, in_text)| in_text + (at - here))
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
        locate(&self.pieces, at).unwrap_or(self.start)
    }

    /// Returns the pieces of a part of this line, counted from the part's begin.
    fn pieces_of(&self, part: &Range<usize>) -> Box<[(usize, usize)]> {
        let inner = self.pieces.iter().filter(|(here, _)| part.start < *here && *here < part.end);
        std::iter::once((0, self.text_at(part.start)))
            .chain(inner.map(|(here, in_text)| (here - part.start, *in_text)))
            .collect()
    }
}

/// Where in a text its reader is.
enum Position {
    /// No header has come yet.
    Before,
    /// Below a header that is none: whose assignments these are is not known.
    Lost,
    /// In the section with this index.
    In(usize),
}

/// Reads a text.
pub fn parse(text: &str, found: &mut Found) -> Parsed {
    let mut reader =
        Reader { text, position: Position::Before, known: HashMap::new(), parsed: Parsed::default(), found };
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
            reader.read(&logical);
        }
    }
    // systemd takes a file whose last line ends in a backslash for complete.
    if let Some(logical) = pending {
        reader.read(&logical);
    }
    reader.parsed
}

/// Returns the range of `part` of `line` without surrounding blanks.
fn trim(line: &str, part: Range<usize>) -> Range<usize> {
    let start = part.end - line[part.clone()].trim_start_matches(is_blank).len();
    start..start + line[start..part.end].trim_end_matches(is_blank).len()
}

struct Reader<'a> {
    text: &'a str,
    position: Position,
    /// The index of each section: a file may have as many as it has lines.
    known: HashMap<String, usize>,
    parsed: Parsed,
    found: &'a mut Found,
}

impl Reader<'_> {
    fn read(&mut self, logical: &Logical) {
        let line = logical.text.as_str();
        let whole = trim(line, 0..line.len());
        if whole.is_empty() {
            return;
        }
        let at = logical.text_at(whole.start);
        if line[whole.clone()].starts_with('[') {
            self.position = self.header(&line[whole], at);
            return;
        }
        let Some(equals) = line[whole.clone()].find('=') else {
            return self.found.at(at, ProblemKind::NoEquals);
        };
        let equals = whole.start + equals;
        let key = trim(line, whole.start..equals);
        if key.is_empty() {
            return self.found.at(at, ProblemKind::NoOption);
        }
        let section = match self.position {
            Position::In(section) => section,
            Position::Before => return self.found.at(at, ProblemKind::OutsideSection),
            // The header has been told of, and that is enough.
            Position::Lost => return,
        };
        let value = trim(line, equals + 1..whole.end);
        let first_line = logical.text_at(0);
        self.parsed.assignments.push(Stored {
            section,
            pieces: logical.pieces_of(&value),
            key: line[key].into(),
            value: line[value].into(),
            at,
            line: logical.line,
            column: self.text.get(first_line..at).map_or(0, |s| s.chars().count()) + 1,
        });
    }

    fn header(&mut self, line: &str, at: usize) -> Position {
        // systemd's string_is_safe: no control characters, quotes or backslashes.
        let unsafe_char = |c: char| c.is_ascii_control() || matches!(c, '"' | '\'' | '\\' | '[' | ']');
        let name = line.strip_prefix('[').and_then(|l| l.strip_suffix(']'));
        let Some(name) = name.filter(|n| !n.is_empty() && !n.contains(unsafe_char)) else {
            self.found.at(at, ProblemKind::BadHeader);
            return Position::Lost;
        };
        if let Some(known) = self.known.get(name) {
            return Position::In(*known);
        }
        let index = self.parsed.sections.len();
        self.known.insert(name.to_owned(), index);
        self.parsed.sections.push((name.to_owned(), at));
        Position::In(index)
    }
}
