//! A unit file: its text, byte for byte, and what the text says.
//!
//! Owns the text and the reading of it. Whoever stores, places or runs units
//! calls it; what only systemd has to understand is left to systemd.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    ContentHash, Problem, ProblemKind, Problems, UnitName,
    problem::{Found, Place},
    requirements::{Requirements, SECTIONS, Subject},
    syntax::{self, Parsed},
    validate,
};

/// How large a unit file may be: 1 MiB, which is systemd's own limit on a line (`LONG_LINE_MAX`,
/// systemd.syntax(7)) and leaves room for a record around it within etcd's request limit of 1.5 MiB.
pub const MAX_BYTES: usize = 1 << 20;

/// A unit file that has been read.
///
/// Everything that is UTF-8 and not too large can be read, as systemd reads it: lines that it would
/// skip with a warning are skipped here too, and [`UnitFile::validate`] tells of them.
#[derive(Debug)]
pub struct UnitFile {
    origin: Arc<str>,
    text: Arc<str>,
    parsed: Parsed,
    /// What systemd would skip with a warning.
    flaws: Found,
}

/// One assignment, as it stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assignment<'a> {
    /// The section's name.
    pub section: &'a str,
    /// The option's name.
    pub key: &'a str,
    /// The value, without surrounding blanks, continued lines joined.
    pub value: &'a str,
    /// The line in which the option's name stands, from 1.
    pub line: usize,
    /// The character of that line at which the name begins, from 1.
    pub column: usize,
}

impl UnitFile {
    /// Reads a unit file. `origin` names it in messages, for example by its path.
    ///
    /// # Errors
    /// The bytes are more than [`MAX_BYTES`], not UTF-8, or have a NUL.
    pub fn parse(origin: &str, bytes: &[u8]) -> Result<Self, Problems> {
        let origin: Arc<str> = origin.into();
        let problem = |place, kind| Problems::from(Problem { file: origin.clone(), place, kind });
        if bytes.len() > MAX_BYTES {
            return Err(problem(None, ProblemKind::TooLarge { bytes: bytes.len() }));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let at = e.valid_up_to();
            let good = String::from_utf8_lossy(bytes);
            problem(Some(Place::of(&good, at)), ProblemKind::NotUtf8 { at, byte: bytes[at] })
        })?;
        if let Some(at) = text.find('\0') {
            return Err(problem(Some(Place::of(text, at)), ProblemKind::Nul { at }));
        }
        let mut flaws = Found::default();
        let parsed = syntax::parse(text, &mut flaws);
        Ok(Self { text: text.into(), origin, parsed, flaws })
    }

    /// Returns the text exactly as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the name that messages call it by.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the text's identity.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        ContentHash::of(self.text.as_bytes())
    }

    /// Yields the names of the sections, each once, in the order of their first headers.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.parsed.sections.iter().map(|(name, _)| name.as_str())
    }

    /// Tells whether the file has this section.
    #[must_use]
    pub fn has_section(&self, section: &str) -> bool {
        self.sections().any(|s| s == section)
    }

    /// Yields all assignments in the order of the file, the empty ones too.
    pub fn assignments(&self) -> impl Iterator<Item = Assignment<'_>> {
        self.parsed.assignments.iter().map(|a| Assignment {
            section: &self.parsed.sections[a.section].0,
            key: &a.key,
            value: &a.value,
            line: a.line,
            column: a.column,
        })
    }

    /// Returns an option's values in the order of the file. An empty assignment takes away those before it.
    #[must_use]
    pub fn values(&self, section: &str, key: &str) -> Vec<&str> {
        let mut values = Vec::new();
        for a in self.assignments().filter(|a| a.section == section && a.key == key) {
            if a.value.is_empty() {
                values.clear();
            } else {
                values.push(a.value);
            }
        }
        values
    }

    /// Returns the value of an option of which the last assignment holds; `None` if that one is empty.
    #[must_use]
    pub fn last(&self, section: &str, key: &str) -> Option<&str> {
        let mut all = self.assignments().filter(|a| a.section == section && a.key == key);
        all.by_ref().last().map(|a| a.value).filter(|v| !v.is_empty())
    }

    /// Reads what the unit asks of its machine from `[X-Flotilla]` or `[X-Fleet]`.
    ///
    /// # Errors
    /// Everything that is wrong with that section.
    pub fn requirements(&self) -> Result<Requirements, Problems> {
        let mut found = Found::default();
        let requirements = Requirements::read(self, Subject::Anybody, &mut found);
        Problems::check(&self.origin, &self.text, found)?;
        Ok(requirements)
    }

    /// Checks the whole file for a unit of this name, and returns what the unit asks of its machine.
    /// Options that only systemd has to understand are not checked.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the file.
    pub fn validate(&self, name: &UnitName) -> Result<Requirements, Problems> {
        let mut found = self.flaws.clone();
        let requirements = validate::check(self, name, &mut found);
        Problems::check(&self.origin, &self.text, found)?;
        Ok(requirements)
    }

    /// Tells whether a unit runs the same with the other file: whether at most our section, `[Install]`,
    /// comments and blank lines differ. The order of the sections does not count, that of the lines within
    /// each does.
    #[must_use]
    pub fn runs_like(&self, other: &Self) -> bool {
        self.running() == other.running()
    }

    /// Returns what systemd runs the unit by: each section's assignments.
    fn running(&self) -> BTreeMap<&str, Vec<(&str, &str)>> {
        let mut sections: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for a in self.assignments() {
            if a.section != "Install" && !SECTIONS.contains(&a.section) {
                sections.entry(a.section).or_default().push((a.key, a.value));
            }
        }
        sections
    }

    pub(crate) const fn parsed(&self) -> &Parsed {
        &self.parsed
    }
}

#[cfg(test)]
mod tests;
