//! From a term as it is written to a selector.

use std::{collections::BTreeSet, str::FromStr};

use super::{Comparison, Is, Selector};
use crate::words::is_blank;

/// How many values one `in (...)` may have: more than a machine's metadata ever tells apart by hand.
const MAX_LISTED: usize = 256;

/// Why a term was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a term over metadata: {why}")]
pub struct SelectorError {
    /// The term as it was given, cut to a length that can be shown.
    pub text: String,
    /// What is wrong with it and what was expected.
    pub why: String,
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        term(text).map_err(|why| SelectorError { text: text.chars().take(80).collect(), why })
    }
}

/// What is said of a text that is no term at all.
const EXPECTED: &str = "expected key=value, key!=value, key<value (or <=, >=, >), key, !key, key in (a, b) or key \
                        not in (a, b)";

/// Reads a term; the error says only what is wrong.
pub fn term(text: &str) -> Result<Selector, String> {
    let text = text.trim_matches(is_blank);
    if let Some(key) = text.strip_prefix('!') {
        return Ok(Selector { key: bare_key(key.trim_start_matches(is_blank))?, is: Is::Absent });
    }
    let end = text.find(|c| is_blank(c) || matches!(c, '=' | '!' | '<' | '>')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let rest = rest.trim_start_matches(is_blank);
    if rest.is_empty() {
        return Ok(Selector { key: bare_key(name)?, is: Is::Present });
    }
    Ok(Selector { key: key(name)?, is: condition(rest)? })
}

/// Reads what stands behind the key.
fn condition(rest: &str) -> Result<Is, String> {
    let one = |text: &str| value(text).map(|it| BTreeSet::from([it]));
    if let Some(text) = rest.strip_prefix("!=") {
        return one(text).map(Is::NotOneOf);
    }
    // The longer signs first, or `<=` would be a `<` with an odd value.
    for how in [Comparison::AtMost, Comparison::AtLeast, Comparison::Less, Comparison::Greater] {
        if let Some(text) = rest.strip_prefix(how.sign()) {
            return Ok(Is::Compare(how, operand(text)?));
        }
    }
    if let Some(text) = rest.strip_prefix('=') {
        return one(text).map(Is::OneOf);
    }
    match strip_word(rest, "not") {
        Some(rest) => strip_word(rest, "in").map(list).map(|these| Ok(Is::NotOneOf(these?))),
        None => strip_word(rest, "in").map(list).map(|these| Ok(Is::OneOf(these?))),
    }
    .unwrap_or_else(|| Err(EXPECTED.to_owned()))
}

/// Takes a word off the front of a text, and the blanks behind it; a parenthesis ends a word too.
fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(word)?;
    let ends = rest.is_empty() || rest.starts_with(|c| is_blank(c) || c == '(');
    ends.then(|| rest.trim_start_matches(is_blank))
}

fn list(text: &str) -> Result<BTreeSet<String>, String> {
    let inner = text.strip_prefix('(').and_then(|it| it.strip_suffix(')'));
    let inner = inner.ok_or("expected the values in parentheses, for example zone in (a, b)")?;
    if inner.contains(['(', ')']) {
        return Err("a value in a list has no parentheses".to_owned());
    }
    let these = inner.split(',').map(value).collect::<Result<BTreeSet<String>, _>>()?;
    if these.len() > MAX_LISTED {
        return Err(format!("there are {} values, and at most {MAX_LISTED} are allowed", these.len()));
    }
    Ok(these)
}

/// Reads a key that stands alone, where a forgotten quote or operator would otherwise go unseen.
fn bare_key(text: &str) -> Result<String, String> {
    if matches!(text, "in" | "not") {
        return Err(format!("`{text}` stands between a key and its values; {EXPECTED}"));
    }
    if text.contains(is_blank) {
        return Err(EXPECTED.to_owned());
    }
    key(text)
}

/// Reads the key of a machine's metadata.
pub fn key(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err(format!("there is no key; {EXPECTED}"));
    }
    let odd = |c: &char| {
        c.is_control()
            || c.is_whitespace()
            || matches!(c, '=' | '!' | '<' | '>' | '(' | ')' | ',' | '"' | '\'')
    };
    match text.chars().find(odd) {
        Some(c) => Err(format!("a key has no {c:?}; {EXPECTED}")),
        None => Ok(text.to_owned()),
    }
}

fn value(text: &str) -> Result<String, String> {
    let text = text.trim_matches(is_blank);
    match text.chars().next() {
        None => Err("there is no value; expected for example disk=ssd".to_owned()),
        Some(c @ ('=' | '<' | '>')) => Err(format!("a value does not begin with `{c}`; {EXPECTED}")),
        Some(_) => Ok(text.to_owned()),
    }
}

/// Reads what a value is compared with.
fn operand(text: &str) -> Result<String, String> {
    let text = value(text)?;
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins || text.contains(is_blank) || !text.contains(|c: char| c.is_ascii_digit()) {
        return Err(
            "expected a whole number or a version to compare with, for example os.version>=12".to_owned()
        );
    }
    // As versions `8G` and 8 are nearly the same, and metadata such as `memory` is in bytes.
    let figures = text.trim_end_matches(['i', 'B']);
    let unit = figures.strip_suffix(['K', 'M', 'G', 'T', 'P', 'E']);
    if unit.is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit() || b == b'.')) {
        let bytes = crate::amount::size(figures).map_or_else(String::new, |b| format!(", here {b}"));
        return Err(format!("a size with a unit cannot be compared; write it out in bytes{bytes}"));
    }
    Ok(text)
}
