//! Which units a request is about: names and globs, as users type them.

use flotilla_engine::Names;
use flotilla_units::{Glob, SourceName, UnitName, UnitRange};

use crate::error::ApiError;

/// The most patterns of one request; each is tried on every unit.
const PATTERNS_MAX: usize = 10_000;

/// The most instances of a range that are looked for by their names; of a larger one all of its template's are
/// looked at. A thousand: a page.
const NAMED_MAX: u64 = 1_000;

/// What a user typed for units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selector {
    /// One unit, which the cluster need not know.
    Name(UnitName),
    /// Those of the cluster's units that match.
    Pattern(Glob),
    /// Those of a template's instances that the cluster has.
    Range(UnitRange),
}

impl Selector {
    /// Reads one word. A word with braces is a range, one with a wildcard a pattern, anything else a name.
    pub(crate) fn read(text: &str) -> Result<Self, ApiError> {
        if UnitRange::is_meant_by(text) {
            return Ok(Self::Range(text.parse().map_err(|e| ApiError::bad_request(format!("{e}")))?));
        }
        if text.contains(['*', '?', '[', '\\']) {
            // An escaped unit name contains backslashes too; it is a name if systemd says so.
            if !text.contains(['*', '?', '['])
                && let Ok(name) = SourceName::mangle(text)
            {
                return Ok(Self::Name(name.runtime().clone()));
            }
            let glob: Glob = text.parse().map_err(|e| ApiError::bad_request(format!("{e}")))?;
            return Ok(match glob.literal().and_then(|literal| literal.parse().ok()) {
                Some(name) => Self::Name(name),
                None => Self::Pattern(glob),
            });
        }
        Ok(Self::Name(SourceName::mangle(text)?.runtime().clone()))
    }

    /// Reads a list that is separated by commas; those within a class of a pattern are its own.
    pub(crate) fn read_list(text: Option<&str>) -> Result<Vec<Self>, ApiError> {
        Self::read_all(Glob::split_list(text.unwrap_or_default()))
    }

    /// Reads several words.
    pub(crate) fn read_all<'a>(words: impl Iterator<Item = &'a str>) -> Result<Vec<Self>, ApiError> {
        let selectors = words.map(Self::read).collect::<Result<Vec<_>, _>>()?;
        if selectors.len() > PATTERNS_MAX {
            return Err(ApiError::bad_request(format!("more than {PATTERNS_MAX} patterns in one request")));
        }
        Ok(selectors)
    }

    /// Tells whether it selects this unit.
    pub(crate) fn selects(&self, unit: &UnitName) -> bool {
        match self {
            Self::Name(name) => name == unit,
            Self::Pattern(glob) => glob.matches(unit.as_str()),
            Self::Range(range) => range.contains(unit),
        }
    }
}

/// Returns where the units stand that any of the selectors can select.
pub(crate) fn stretches(selectors: &[Selector]) -> Names {
    if selectors.is_empty() {
        return Names::all();
    }
    let (mut names, mut prefixes) = (Vec::new(), Vec::new());
    for selector in selectors {
        match selector {
            Selector::Name(name) => names.push(name.to_string()),
            Selector::Pattern(glob) => prefixes.push(glob.prefix()),
            Selector::Range(range) if range.len() <= NAMED_MAX => {
                names.extend(range.instances().map(|name| name.to_string()));
            }
            Selector::Range(range) => prefixes.push(format!("{}@", range.template().prefix())),
        }
    }
    Names::these(names, prefixes)
}

/// Tells whether any of the selectors selects a unit; none at all select everything.
pub(crate) fn any_selects(selectors: &[Selector], unit: &UnitName) -> bool {
    selectors.is_empty() || selectors.iter().any(|selector| selector.selects(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Selector {
        Selector::Name(text.parse().expect("valid"))
    }

    #[test]
    fn words_are_names_or_patterns() {
        assert_eq!(Selector::read("hello").expect("valid"), name("hello.service"));
        assert_eq!(Selector::read("web@1.service").expect("valid"), name("web@1.service"));
        assert_eq!(Selector::read("a\\x2db.service").expect("valid"), name("a\\x2db.service"));
        let pattern = Selector::read("web@*").expect("valid");
        assert!(pattern.selects(&"web@1.service".parse().expect("valid")));
        assert!(!pattern.selects(&"db.service".parse().expect("valid")));
        assert!(Selector::read("a b").is_err() && Selector::read("[").is_err());
    }

    #[test]
    fn no_selector_selects_everything() {
        let unit = "a.service".parse().expect("valid");
        assert!(any_selects(&[], &unit));
        assert!(!any_selects(&Selector::read_list(Some("b, c*")).expect("valid"), &unit));
        let class = Selector::read_list(Some("b, web@[1,2]*")).expect("a comma within a class is its own");
        assert!(any_selects(&class, &"web@2.service".parse().expect("valid")));
    }
}
