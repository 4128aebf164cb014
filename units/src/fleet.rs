//! Unit files as CoreOS fleet kept them: a list of options, its normal form, and the hash of that.
//!
//! Owns the way between a file's text and the options that fleet's API speaks in. The fleet-compatible
//! API calls it, nobody else does: flotilla itself keeps the text as it was given.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};

use crate::syntax::lines;

/// One assignment, as fleet's API writes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FleetOption {
    /// The section's name.
    pub section: String,
    /// The option's name.
    pub name: String,
    /// The value. Continued lines are kept with their backslashes and line ends.
    pub value: String,
}

/// Why a text cannot be taken apart. fleet refused the same texts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct FleetError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it and what was expected.
    pub why: &'static str,
}

impl FleetOption {
    /// Makes an option of its parts.
    #[must_use]
    pub fn new(section: &str, name: &str, value: &str) -> Self {
        Self { section: section.to_owned(), name: name.to_owned(), value: value.to_owned() }
    }
}

/// Takes a unit file's text apart into options, in the order of the text. Comments, blank lines and what
/// stands before the first section are left out.
///
/// Three things are other than in fleet, and as in systemd: lines may have any length, a comment ends with
/// its line, also where that ends in a backslash, and two backslashes continue nothing.
///
/// # Errors
/// A section header is not alone on its line, or a line in a section has no `=`.
pub fn fleet_options(text: &str) -> Result<Vec<FleetOption>, FleetError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rest = lines(text).map(|raw| &text[raw.start..raw.stop]).zip(1..);
    let (mut options, mut section): (_, Option<&str>) = (Vec::new(), None);
    while let Some((whole, line)) = rest.next() {
        let start = whole.trim_start();
        if start.is_empty() || start.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = start.strip_prefix('[') {
            let refuse = |why| FleetError { line, why };
            let (name, after) = header
                .split_once(']')
                .ok_or_else(|| refuse("this section header is never closed; expected a `]`"))?;
            if !after.trim().is_empty() {
                return Err(refuse("there is more on this line; expected a section header alone"));
            }
            section = Some(name);
            continue;
        }
        let Some(section) = section else { continue };
        let Some((name, first)) = start.split_once('=') else {
            return Err(FleetError { line, why: "this line has no `=`; expected `Option=value`" });
        };
        let value = value(first, rest.by_ref().map(|(line, _)| line));
        options.push(FleetOption { section: section.to_owned(), name: name.trim().to_owned(), value });
    }
    Ok(options)
}

/// Reads a value with the lines that continue it.
fn value<'a>(first: &'a str, mut following: impl Iterator<Item = &'a str>) -> String {
    let mut value = String::new();
    let mut line = first;
    while !line.trim().is_empty() {
        value.push_str(line);
        if !is_continued(line) {
            break;
        }
        value.push('\n');
        line = following.next().unwrap_or_default();
    }
    // Where nothing follows the last backslash, the end of the line belongs to the value: the next option
    // would continue it when the file is written.
    let value = value.trim();
    format!("{value}{}", if is_continued(value) { "\n" } else { "" })
}

/// Tells whether the next line continues one: its last backslash is not escaped by another.
fn is_continued(line: &str) -> bool {
    line.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1
}

/// Writes options the way fleet stored a unit: each section once, in the order of their first options.
#[must_use]
pub fn fleet_normal_form(options: &[FleetOption]) -> String {
    let mut sections: Vec<(&str, String)> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for option in options {
        let at = *known.entry(&option.section).or_insert_with(|| {
            sections.push((&option.section, String::new()));
            sections.len() - 1
        });
        sections[at].1.push_str(&format!("{}={}\n", option.name, option.value));
    }
    let written: Vec<String> = sections.iter().map(|(name, lines)| format!("[{name}]\n{lines}")).collect();
    written.join("\n")
}

/// Returns what fleet called the unit's hash, in lower-case hexadecimal digits: the SHA-1 of its normal form.
#[must_use]
pub fn fleet_hash(options: &[FleetOption]) -> String {
    Sha1::digest(fleet_normal_form(options)).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn triples(text: &str) -> Vec<FleetOption> {
        fleet_options(text).unwrap()
    }

    /// fleet's own vectors.
    #[test]
    fn hashes_as_fleet_did() {
        assert_eq!(fleet_hash(&[]), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        let text = "[Service]\nExecStart=/bin/sleep 100\n";
        assert_eq!(fleet_hash(&triples(text)), "1c6fb6f3684bafb0c173d8b8b957ceff031180c1");
        // Comments, blank lines and how options are indented say nothing.
        let same = "junk\n# a\n[Service]\n\n  ExecStart = /bin/sleep 100  \n; b";
        assert_eq!(fleet_normal_form(&triples(same)), text);
    }

    #[test]
    fn sections_are_regrouped_in_the_order_of_their_first_options() {
        let text = "[Unit]\nA=1\n[Service]\nB=2\n[Empty]\n[Unit]\nC=\n";
        let want = [("Unit", "A", "1"), ("Service", "B", "2"), ("Unit", "C", "")];
        assert_eq!(triples(text), want.map(|(s, n, v)| FleetOption::new(s, n, v)));
        assert_eq!(fleet_normal_form(&triples(text)), "[Unit]\nA=1\nC=\n\n[Service]\nB=2\n");
    }

    #[test]
    fn continued_lines_are_kept_as_they_are() {
        let row =
            |text: &str| triples(&format!("[S]\n{text}")).into_iter().map(|o| o.value).collect::<Vec<_>>();
        for (text, want) in [
            ("A=x \\\n  y\nB=z", vec!["x \\\n  y", "z"]),
            ("A=x \\\n# kept\n  y", vec!["x \\\n# kept"]),
            ("A=x \\\n# kept \\\n  y", vec!["x \\\n# kept \\\n  y"]),
            ("A=x\\", vec!["x\\\n"]),
            ("A=x\\\n\nB=z", vec!["x\\\n", "z"]),
            ("# no continuation \\\nA=x", vec!["x"]),
            ("A=x\\\\\nB=z", vec!["x\\\\", "z"]),
            ("A=x\\ \nB=z", vec!["x\\\n", "z"]),
            ("A=\nB==", vec!["", "="]),
        ] {
            // The line after a comment that ends a value is a line of its own.
            let text = text.replace("# kept\n  y", "# kept\n");
            assert_eq!(row(&text), want, "{text}");
        }
    }

    #[test]
    fn refuses_what_fleet_refused() {
        for (text, want) in [
            ("[S]\nExecStart", "line 2: this line has no `=`; expected `Option=value`"),
            ("[S\n", "line 1: this section header is never closed; expected a `]`"),
            ("\n[S] x\n", "line 2: there is more on this line; expected a section header alone"),
        ] {
            assert_eq!(fleet_options(text).unwrap_err().to_string(), want);
        }
    }

    proptest! {
        #[test]
        fn what_was_read_is_written_and_read_again(text in "(\\[[AB]\\]\n|[AB]=[x \\\\=#;]{0,5}\n|[#;\\\\ x=]{0,4}\n){0,12}|.{0,60}") {
            let Ok(options) = fleet_options(&text) else { return Ok(()) };
            let normal = fleet_normal_form(&options);
            let again = fleet_options(&normal).unwrap();
            prop_assert_eq!(fleet_normal_form(&again), normal);
            prop_assert_eq!(fleet_hash(&again), fleet_hash(&options));
            prop_assert_eq!(again.len(), options.len());
        }
    }
}
