//! Values taken apart into words, with the quoting of systemd.syntax(7).
//!
//! Follows systemd's `extract_first_word` and `cunescape_one`, which are more
//! generous than the page: a quote may also open in the middle of a word, as in
//! `--name="a b"`. It never looks at what a word means.

/// One word of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The word, without its quotes.
    pub text: String,
    /// At which byte of the value it begins (at its quote, if it has one).
    pub at: usize,
}

/// What a backslash means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escapes {
    /// It begins a C-style escape, as in `Environment=` (`EXTRACT_CUNESCAPE`).
    Resolve,
    /// It is a character like others (`EXTRACT_RETAIN_ESCAPE`): unit names and patterns hold some.
    Keep,
}

/// Why a value cannot be taken apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct WordError {
    /// At which byte of the value the offence is.
    pub at: usize,
    /// What it is and what was expected.
    pub why: &'static str,
}

/// Takes a value apart at blanks that are not quoted.
///
/// # Errors
/// A quote is not closed, an escape is not one of systemd.syntax(7)'s table, or escapes make up bytes
/// that are not UTF-8.
pub fn split_words(value: &str, escapes: Escapes) -> Result<Vec<Word>, WordError> {
    let mut words = Vec::new();
    let mut reader = Reader { value, at: 0, escapes };
    while let Some(word) = reader.word()? {
        words.push(word);
    }
    Ok(words)
}

/// Writes a text so that [`split_words`] with [`Escapes::Resolve`], and systemd, read it as one word.
/// It must not have a NUL, which systemd has no way to write.
#[must_use]
pub fn quote_word(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=,+@%^~*!?()[]{}<>|&$#;".contains(&b);
    // A leading `#` or `;` would turn a continued line into a comment.
    if !text.is_empty() && text.bytes().all(plain) && !text.starts_with(['#', ';']) {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// systemd's `WHITESPACE`.
pub(crate) const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

struct Reader<'a> {
    value: &'a str,
    at: usize,
    escapes: Escapes,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.value[self.at..].chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn word(&mut self) -> Result<Option<Word>, WordError> {
        let rest = self.value[self.at..].trim_start_matches(is_blank);
        let start = self.value.len() - rest.len();
        self.at = start;
        if rest.is_empty() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let mut quote: Option<(char, usize)> = None;
        loop {
            let before = self.at;
            let Some(c) = self.next() else { break };
            match quote {
                _ if c == '\\' && self.escapes == Escapes::Resolve => self.escape(before, &mut bytes)?,
                Some((open, _)) if c == open => quote = None,
                None if matches!(c, '"' | '\'') => quote = Some((c, before)),
                None if is_blank(c) => break,
                _ => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if let Some((_, at)) = quote {
            return Err(WordError { at, why: "this quote is never closed" });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(Word { text, at: start })),
            Err(_) => Err(WordError { at: start, why: "the escapes in this word are not UTF-8 together" }),
        }
    }

    /// Reads what follows a backslash, which stands at `at`.
    fn escape(&mut self, at: usize, out: &mut Vec<u8>) -> Result<(), WordError> {
        let unknown = WordError {
            at,
            why: "this is not an escape; expected \\a \\b \\f \\n \\r \\t \\v \\\\ \\\" \\' \\s \\xHH \\NNN \\uHHHH or \
                  \\UHHHHHHHH, and a backslash of its own is written \\\\",
        };
        let Some(c) = self.next() else {
            return Err(WordError {
                at,
                why: "nothing follows this backslash; a backslash of its own is written \\\\",
            });
        };
        let byte = match c {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            's' => b' ',
            '\\' | '"' | '\'' => c as u8,
            'x' => match self.digits(2, 16).and_then(|n| u8::try_from(n).ok()) {
                Some(n) if n != 0 => n,
                _ => return Err(unknown),
            },
            '0'..='7' => {
                self.at -= 1;
                match self.digits(3, 8).and_then(|n| u8::try_from(n).ok()) {
                    Some(n) if n != 0 => n,
                    _ => return Err(unknown),
                }
            }
            'u' | 'U' => {
                let n = self.digits(if c == 'u' { 4 } else { 8 }, 16).filter(|n| *n != 0);
                let c = n.and_then(char::from_u32).ok_or(unknown)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(unknown),
        };
        out.push(byte);
        Ok(())
    }

    fn digits(&mut self, count: usize, radix: u32) -> Option<u32> {
        let digits = self.value.get(self.at..self.at + count)?;
        if !digits.bytes().all(|b| char::from(b).is_digit(radix)) {
            return None;
        }
        self.at += count;
        u32::from_str_radix(digits, radix).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(value: &str) -> Vec<String> {
        split_words(value, Escapes::Resolve).unwrap().into_iter().map(|w| w.text).collect()
    }

    /// The rules and the table of escapes of systemd.syntax(7), "Quoting".
    #[test]
    fn agrees_with_systemd() {
        assert_eq!(words("one two\tthree"), ["one", "two", "three"]);
        assert_eq!(words("\"one\" 'two'"), ["one", "two"]);
        assert_eq!(words("  \"say \\\"hi\" 'it\\'s' "), ["say \"hi", "it's"]);
        assert_eq!(words("\"it's\" 'say \"hi\"'"), ["it's", "say \"hi\""]);
        assert_eq!(words("--name=\"web one\".x"), ["--name=web one.x"]);
        assert_eq!(words("\"\" ''"), ["", ""]);
        assert_eq!(words(" \t "), Vec::<String>::new());
        assert_eq!(words("\\a\\b\\f\\n\\r\\t\\v\\\\"), ["\u{7}\u{8}\u{c}\n\r\t\u{b}\\"]);
        assert_eq!(words("a\\x20b \\u00fc \\U0001f6a2 \\303\\274 \\s\\t"), ["a b", "ü", "🚢", "ü", " \t"]);
    }

    #[test]
    fn refuses_what_systemd_refuses_and_says_where() {
        for (value, at) in [
            ("a \"b", 2),
            ("'", 0),
            ("x \\q", 2),
            ("\\x2", 0),
            ("\\x00", 0),
            ("\\000", 0),
            ("\\777", 0),
            ("\\u12", 0),
            ("\\ud800", 0),
            ("ok \\xff", 3),
            ("end\\", 3),
            ("\\xü", 0),
        ] {
            assert_eq!(split_words(value, Escapes::Resolve).unwrap_err().at, at, "{value}");
        }
    }

    #[test]
    fn keeps_backslashes_where_they_are_part_of_names() {
        let got = split_words("a\\x2db.service \"c d\\\" e", Escapes::Keep).unwrap();
        let got: Vec<_> = got.iter().map(|w| (w.text.as_str(), w.at)).collect();
        assert_eq!(got, [("a\\x2db.service", 0), ("c d\\", 15), ("e", 22)]);
    }

    proptest! {
        #[test]
        fn never_panics(value in ".{0,60}|[a \"'\\\\xuU0-9\u{fc}]{0,40}") {
            for escapes in [Escapes::Resolve, Escapes::Keep] {
                match split_words(&value, escapes) {
                    Ok(words) => prop_assert!(words.iter().all(|w| value.is_char_boundary(w.at))),
                    Err(e) => prop_assert!(value.is_char_boundary(e.at)),
                }
            }
        }

        #[test]
        fn what_is_quoted_is_read_back(texts in proptest::collection::vec("[^\\x00]{0,20}|[ \"'\\\\#;]{0,9}", 0..5)) {
            let value = texts.iter().map(|t| quote_word(t)).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(words(&value), texts);
        }
    }
}
