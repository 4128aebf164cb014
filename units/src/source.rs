//! What users call a unit, as against what systemd calls it.
//!
//! Owns the way from what somebody typed to a source name, and from there to the
//! runtime name. Commands and the API call it; behind them there are only names
//! that have been through here.

use std::{fmt, str::FromStr};

use crate::{NameError, UnitName, UnitType, name::QUADLET};

/// The name of the file that a unit comes from; in the cluster it is the unit's identity.
///
/// systemd runs it under its [runtime name](SourceName::runtime). Both are equal for systemd's own
/// types. They will not be for Quadlet sources (`web.container` runs as `web.service`), which are not
/// yet available and are refused here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName(UnitName);

impl SourceName {
    /// Takes what a user typed for a unit: the last part of a path (`./dir/hello.service`), with
    /// `.service` where it names no type (`hello`, `web@1`), as systemctl(1) does.
    ///
    /// # Errors
    /// The result is not a unit name. What is not allowed in one is not escaped silently: the
    /// unit would have another name than the user thinks.
    pub fn mangle(typed: &str) -> Result<Self, NameError> {
        let base = typed.rsplit('/').next().unwrap_or(typed);
        if base.is_empty() {
            return Err(NameError::new(typed, "expected the name of a unit or the path of a unit file"));
        }
        if base.contains(['*', '?', '[']) {
            return Err(NameError::new(typed, "it is a pattern, and one unit is expected here"));
        }
        let has_type = base
            .rsplit_once('.')
            .is_some_and(|(_, s)| UnitType::from_suffix(s).is_some() || QUADLET.contains(&s));
        if has_type { base.parse() } else { format!("{base}.service").parse() }
    }

    /// Returns the name as the user knows it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns the name that systemd runs it under.
    #[must_use]
    pub const fn runtime(&self) -> &UnitName {
        &self.0
    }
}

impl FromStr for SourceName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        name.parse().map(Self)
    }
}

impl From<UnitName> for SourceName {
    fn from(name: UnitName) -> Self {
        Self(name)
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn takes_what_people_type() {
        for (typed, name) in [
            ("hello", "hello.service"),
            ("hello.service", "hello.service"),
            ("./dir/hello.service", "hello.service"),
            ("/srv/units/web@.service", "web@.service"),
            ("web@1", "web@1.service"),
            ("web@10.0.0.1", "web@10.0.0.1.service"),
            ("backup.timer", "backup.timer"),
            ("x.target", "x.target"),
            ("com.example.web", "com.example.web.service"),
        ] {
            let source = SourceName::mangle(typed).unwrap();
            assert_eq!((source.as_str(), source.runtime().as_str()), (name, name));
        }
        for typed in ["", "dir/", "a b", "web@*", "web@{1..3}", "web@{1,3}", "web.{1-3}", "@1"] {
            assert!(SourceName::mangle(typed).is_err(), "{typed}");
        }
    }

    #[test]
    fn quadlet_sources_are_refused_as_not_yet_available() {
        for typed in ["web.container", "./web.container", "db.volume"] {
            let e = SourceName::mangle(typed).unwrap_err().to_string();
            assert!(e.contains("is a Quadlet source, which is not yet available"), "{e}");
        }
        assert!("web.container".parse::<SourceName>().is_err());
    }

    proptest! {
        #[test]
        fn never_panics_and_mangling_twice_changes_nothing(typed in ".{0,40}|[a@./*]{0,20}") {
            if let Ok(source) = SourceName::mangle(&typed) {
                prop_assert_eq!(SourceName::mangle(source.as_str()), Ok(source.clone()));
            }
        }
    }
}
