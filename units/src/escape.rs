//! Any text turned into part of a unit name and back, as systemd-escape(1) does.

/// Why an escaped text or a path was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` {why}")]
pub struct EscapeError {
    /// The text as it was given.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl EscapeError {
    fn new(text: &str, why: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), why }
    }
}

/// Escapes a text for use in a unit name, as `systemd-escape TEXT`: `/` becomes `-`, and whatever is
/// not a letter, a digit, `:`, `_` or `.` becomes `\x` and two hexadecimal digits per byte, as does a
/// leading `.`.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'/' => out.push('-'),
            b'.' if at == 0 => out.push_str("\\x2e"),
            b if b.is_ascii_alphanumeric() || matches!(b, b':' | b'_' | b'.') => out.push(char::from(b)),
            b => out.push_str(&format!("\\x{b:02x}")),
        }
    }
    out
}

/// Undoes [`escape`], as `systemd-escape --unescape TEXT`.
///
/// # Errors
/// A backslash is not followed by `x` and two hexadecimal digits, or the bytes are not UTF-8.
pub fn unescape(text: &str) -> Result<String, EscapeError> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'-' => out.push(b'/'),
            b'\\' => {
                let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
                let pair = match tail {
                    [b'x', a, b, ..] => digit(*a).zip(digit(*b)),
                    _ => None,
                };
                let Some((high, low)) = pair else {
                    return Err(EscapeError::new(
                        text,
                        "has a `\\` that is not followed by `x` and two hexadecimal digits",
                    ));
                };
                out.push(high << 4 | low);
                rest = &tail[3..];
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).map_err(|_| EscapeError::new(text, "does not unescape to UTF-8"))
}

/// Escapes a path, as `systemd-escape --path PATH`: without its leading and trailing slashes, and the
/// root as `-`.
///
/// # Errors
/// The path has a `..`, which cannot be resolved without looking at the machine.
pub fn escape_path(path: &str) -> Result<String, EscapeError> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.contains(&"..") {
        return Err(EscapeError::new(path, "has a `..`; give the path without it"));
    }
    if parts.is_empty() {
        // systemd refuses `.` and reads the empty path as the root.
        return if path.starts_with('/') || path.is_empty() {
            Ok("-".into())
        } else {
            Err(EscapeError::new(path, "is not an absolute path"))
        };
    }
    Ok(escape(&parts.join("/")))
}

/// Undoes [`escape_path`], as `systemd-escape --unescape --path TEXT`.
///
/// # Errors
/// As [`unescape`], or the result is not the plain form of a path.
pub fn unescape_path(text: &str) -> Result<String, EscapeError> {
    if text == "-" {
        return Ok("/".into());
    }
    let path = unescape(text)?;
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(EscapeError::new(text, "is not an escaped path: it has an empty part, a `.` or a `..`"));
    }
    Ok(format!("/{path}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What systemd-escape of systemd 252 printed.
    #[test]
    fn agrees_with_systemd_escape() {
        for (text, escaped) in [
            ("/", "-"),
            (".", "\\x2e"),
            (".foo", "\\x2efoo"),
            ("a-b", "a\\x2db"),
            ("/dev/sda", "-dev-sda"),
            ("a b", "a\\x20b"),
            ("ä", "\\xc3\\xa4"),
            ("foo@bar", "foo\\x40bar"),
            ("a\\b", "a\\x5cb"),
            ("hello.service", "hello.service"),
            ("//x//y/", "--x--y-"),
        ] {
            assert_eq!(escape(text), escaped);
            assert_eq!(unescape(escaped).unwrap(), text);
        }
        for (path, escaped) in
            [("/", "-"), ("", "-"), ("/dev/sda", "dev-sda"), ("//x//y/", "x-y"), (".foo", "\\x2efoo")]
        {
            assert_eq!(escape_path(path).unwrap(), escaped);
        }
        assert_eq!(escape_path("/a/./b").unwrap(), "a-b");
        assert!(escape_path("/a/../b").is_err() && escape_path(".").is_err());
        for (text, path) in [("-", "/"), ("a-b", "/a/b"), ("a\\x2db", "/a-b")] {
            assert_eq!(unescape_path(text).unwrap(), path);
        }
        for text in ["\\x2", "-a", "a-", "a--b", "foo-..-bar", ".", "a-.-b", ""] {
            assert!(unescape_path(text).is_err(), "{text}");
        }
        assert!(unescape("\\x2").is_err() && unescape("\\y20").is_err() && unescape("\\xff").is_err());
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_read_back(text in ".{0,40}") {
            prop_assert_eq!(unescape(&escape(&text)).unwrap(), text.as_str());
            if !text.is_empty() {
                let name = format!("a@{}.service", escape(&text));
                prop_assert!(name.len() > crate::NAME_MAX || name.parse::<crate::UnitName>().is_ok());
            }
        }

        #[test]
        fn paths_are_read_back(parts in proptest::collection::vec("[^/\\x00]{1,9}", 0..4)) {
            let path = format!("/{}", parts.join("/"));
            if !parts.iter().any(|p| p == "." || p == "..") {
                prop_assert_eq!(unescape_path(&escape_path(&path).unwrap()).unwrap(), path);
            }
        }

        #[test]
        fn never_panics(text in ".{0,40}|[\\\\x0-9a-f-]{0,20}") {
            let _ = (unescape(&text), unescape_path(&text), escape_path(&text));
        }
    }
}
