//! Patterns over unit names, with the meaning of Go's `path.Match`, as fleet's had.
//!
//! Owned here and not taken from a crate because none has exactly that meaning:
//! `[^a]` negates and `[!a]` does not, `\` escapes, `]` and `-` have to be
//! escaped in a class, and a malformed pattern is an error wherever its flaw is.

use std::{cmp::Ordering, fmt, hash, iter::Peekable, str::Chars, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::UnitName;

/// How long a pattern may be, in bytes: four for each of the 255 that a name can have. Matching costs
/// at most the product of both lengths.
pub const GLOB_MAX: usize = 1024;

/// Why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not a pattern: {why}")]
pub struct GlobError {
    /// The pattern as it was given, cut to a length that can be shown.
    pub pattern: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// A pattern that matches whole unit names: `*` any text, `?` one character, `[a-z]` one of a class,
/// `[^a-z]` one outside it, `\` takes the next character literally. `*` and `?` do not match `/`, which
/// no unit name has.
///
/// Patterns are equal when their texts are. Clones share everything.
#[derive(Clone)]
pub struct Glob(Arc<Parsed>);

struct Parsed {
    text: Box<str>,
    tokens: Vec<Token>,
    literal: Option<Box<str>>,
    /// What stands before and after its only wildcard, a `*`: as good as all patterns are such.
    ends: Option<(Box<str>, Box<str>)>,
}

enum Token {
    Char(char),
    One,
    Many,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// Returns the pattern's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Returns the only name that this matches, if the pattern has no wildcard.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        self.0.literal.as_deref()
    }

    /// Returns what every name begins with that matches: the text before the first wildcard.
    #[must_use]
    pub fn prefix(&self) -> String {
        let plain = self.0.tokens.iter().map_while(|token| match token {
            Token::Char(c) => Some(*c),
            Token::One | Token::Many | Token::Class { .. } => None,
        });
        plain.collect()
    }

    /// Tells whether the whole name matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        if let Some(literal) = self.literal() {
            return literal == name;
        }
        if let Some((begin, end)) = &self.0.ends {
            let rest = name.strip_prefix(&**begin).and_then(|rest| rest.strip_suffix(&**end));
            return rest.is_some_and(|rest| !rest.contains('/'));
        }
        let tokens = &self.0.tokens;
        let (mut token, mut rest) = (0, name);
        // Where to go on when a match fails: the last `*`, and the text it has not yet swallowed.
        // Going back to the last one only is enough, so the cost is at most tokens times characters.
        let mut retry: Option<(usize, &str)> = None;
        loop {
            let mut chars = rest.chars();
            match (tokens.get(token), chars.next()) {
                (None, None) => return true,
                (Some(Token::Many), _) => {
                    token += 1;
                    retry = Some((token, rest));
                    continue;
                }
                (Some(one), Some(c)) if one.matches(c) => {
                    token += 1;
                    rest = chars.as_str();
                    continue;
                }
                _ => {}
            }
            let Some((after, from)) = retry else { return false };
            let mut chars = from.chars();
            match chars.next() {
                Some(c) if c != '/' => {
                    (token, rest) = (after, chars.as_str());
                    retry = Some((after, rest));
                }
                _ => return false,
            }
        }
    }

    /// Splits a list of patterns at its commas, but for those that belong to a pattern: within `[]`, and
    /// after `\`. What is wrong with a pattern is told when it is read.
    pub fn split_list(list: &str) -> impl Iterator<Item = &str> {
        let (mut escaped, mut class) = (false, false);
        let between = move |c: char| {
            let is_plain = !escaped;
            escaped = is_plain && c == '\\';
            match c {
                '[' if is_plain => class = true,
                ']' if is_plain => class = false,
                _ => {}
            }
            c == ',' && is_plain && !class
        };
        list.split(between).map(str::trim).filter(|pattern| !pattern.is_empty())
    }

    /// Writes `text` so that a pattern takes it literally.
    #[must_use]
    pub fn escape(text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            if matches!(c, '*' | '?' | '[' | '\\') {
                out.push('\\');
            }
            out.push(c);
        }
        out
    }
}

impl Token {
    fn matches(&self, c: char) -> bool {
        match self {
            Self::Char(it) => *it == c,
            Self::One => c != '/',
            Self::Many => false,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

fn parse(text: &str) -> Result<Vec<Token>, &'static str> {
    if text.len() > GLOB_MAX {
        return Err("it is longer than 1024 bytes");
    }
    let mut chars = text.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::Many,
            '?' => Token::One,
            '[' => class(&mut chars)?,
            '\\' => Token::Char(chars.next().ok_or("nothing follows its last `\\`")?),
            other => Token::Char(other),
        });
    }
    Ok(tokens)
}

/// Returns what stands before and after the only wildcard, if it is a `*`.
fn ends(tokens: &[Token]) -> Option<(Box<str>, Box<str>)> {
    let many = tokens.iter().position(|token| matches!(token, Token::Many))?;
    let literal = |tokens: &[Token]| {
        let chars = tokens.iter().map(|t| if let Token::Char(c) = t { Some(*c) } else { None });
        chars.collect::<Option<String>>().map(String::into_boxed_str)
    };
    Some((literal(&tokens[..many])?, literal(&tokens[many + 1..])?))
}

fn class(chars: &mut Peekable<Chars<'_>>) -> Result<Token, &'static str> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || chars.next_if_eq(&']').is_none() {
        let low = bound(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { bound(chars)? } else { low };
        ranges.push((low, high));
    }
    Ok(Token::Class { negated, ranges })
}

fn bound(chars: &mut Peekable<Chars<'_>>) -> Result<char, &'static str> {
    match chars.next() {
        None => Err("a `[` is never closed"),
        Some('-' | ']') => Err("inside `[]` a `-` or `]` of its own is written `\\-` or `\\]`"),
        Some('\\') => chars.next().ok_or("nothing follows its last `\\`"),
        Some(c) => Ok(c),
    }
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        let tokens =
            parse(text).map_err(|why| GlobError { pattern: text.chars().take(80).collect(), why })?;
        let literal = tokens.iter().map(|t| if let Token::Char(c) = t { Some(*c) } else { None });
        let literal = literal.collect::<Option<String>>().map(String::into_boxed_str);
        let ends = ends(&tokens);
        Ok(Self(Arc::new(Parsed { text: text.into(), tokens, literal, ends })))
    }
}

/// The pattern that matches this name only.
impl From<&UnitName> for Glob {
    fn from(name: &UnitName) -> Self {
        let tokens = name.as_str().chars().map(Token::Char).collect();
        let (text, literal) = (Self::escape(name.as_str()).into(), Some(name.as_str().into()));
        Self(Arc::new(Parsed { text, tokens, literal, ends: None }))
    }
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Glob {}

impl PartialOrd for Glob {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Glob {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl hash::Hash for Glob {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for Glob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What Go's `path.Match` documents, and what it refuses: `None` stands for `ErrBadPattern`.
    #[test]
    fn means_what_go_means() {
        let rows: [(&str, &str, Option<bool>); 40] = [
            ("web.service", "web.service", Some(true)),
            ("web.service", "web.servicex", Some(false)),
            ("", "", Some(true)),
            ("", "a", Some(false)),
            ("*", "", Some(true)),
            ("*", "db.timer", Some(true)),
            ("*", "db/timer", Some(false)),
            ("**", "db.timer", Some(true)),
            ("db*", "db", Some(true)),
            ("*.timer", "db.timer", Some(true)),
            ("*.timer", "db.timers", Some(false)),
            ("d*/t", "db/t", Some(true)),
            ("d*/t", "d/b/t", Some(false)),
            // What the first star took has to be given back.
            ("*ab*ac", "abaabac", Some(true)),
            ("*ab*ac", "abaabab", Some(false)),
            ("w*@?.*", "web@1.service", Some(true)),
            ("w*@?.*", "web@12.service", Some(false)),
            // A character, not a byte, and no slash.
            ("f?r", "für", Some(true)),
            ("f??r", "für", Some(false)),
            ("f?r", "f/r", Some(false)),
            ("db[12]", "db2", Some(true)),
            ("db[12]", "db3", Some(false)),
            ("db[0-36-9]", "db7", Some(true)),
            ("db[0-36-9]", "db4", Some(false)),
            ("db[3-0]", "db1", Some(false)),
            ("db[^0-3]", "db4", Some(true)),
            ("db[^0-3]", "db3", Some(false)),
            ("db[!0]", "db1", Some(false)),
            ("db[!0]", "db!", Some(true)),
            ("db[0\\-2]", "db-", Some(true)),
            ("db[0\\-2]", "db1", Some(false)),
            ("db[\\]]", "db]", Some(true)),
            ("db\\[1]", "db[1]", Some(true)),
            ("db]", "db]", Some(true)),
            ("db[", "x", None),
            ("db[1", "x", None),
            ("db[^]", "x", None),
            ("db[]1]", "x", None),
            ("db[1-]", "x", None),
            ("*\\", "x", None),
        ];
        for (pattern, name, want) in rows {
            assert_eq!(pattern.parse::<Glob>().ok().map(|g| g.matches(name)), want, "{pattern} {name}");
        }
    }

    #[test]
    fn is_anchored_and_knows_when_it_is_a_name() {
        let glob: Glob = "web@*.service".parse().unwrap();
        assert!(glob.matches("web@1.service") && glob.matches("web@.service"));
        assert!(!glob.matches("web@1.service2") && !glob.matches("aweb@1.service"));
        assert_eq!(glob.literal(), None);
        assert_eq!("web\\x2d.service".parse::<Glob>().unwrap().literal(), Some("webx2d.service"));
        assert_eq!("db.service".parse::<Glob>().unwrap().literal(), Some("db.service"));
    }

    #[test]
    fn a_list_is_split_where_no_pattern_has_the_comma() {
        let split = |list: &'static str| Glob::split_list(list).collect::<Vec<_>>();
        assert_eq!(split("a.service, b*,,c"), ["a.service", "b*", "c"]);
        assert_eq!(split("web@[1,2]*,db[^,],x"), ["web@[1,2]*", "db[^,]", "x"]);
        assert_eq!(split("a\\x2db.service,c\\,d,e\\\\,f"), ["a\\x2db.service", "c\\,d", "e\\\\", "f"]);
        assert_eq!(split("x[\\],1],y"), ["x[\\],1]", "y"], "an escaped end of a class is none");
        assert_eq!(split("a[1,b"), ["a[1,b"], "which is then refused as a whole");
        assert_eq!(split(" , "), Vec::<&str>::new());
    }

    #[test]
    fn takes_no_exponential_time() {
        let glob: Glob = format!("{}b", "a*".repeat(100)).parse().unwrap();
        assert!(!glob.matches(&"a".repeat(10_000)));
    }

    proptest! {
        #[test]
        fn never_panics(pattern in ".{0,40}|[*?\\[\\]^\\\\ab-]{0,20}", name in "[ab/]{0,20}") {
            if let Ok(glob) = pattern.parse::<Glob>() {
                let _ = glob.matches(&name);
                prop_assert_eq!(glob.as_str(), &pattern);
            }
        }

        #[test]
        fn an_escaped_text_matches_itself_only(text in ".{0,40}|[*?\\[\\]^\\\\ab-]{0,20}", other in ".{0,9}") {
            let glob: Glob = Glob::escape(&text).parse().unwrap();
            prop_assert_eq!(glob.literal(), Some(&*text));
            prop_assert_eq!(glob.matches(&other), other == text);
        }
    }
}
