//! What a unit's `[Install]` asks for of its machine.
//!
//! Two of its options have a meaning in a cluster: by which units of the same machine the unit is wanted, or
//! required. `Alias=` would be another name, which the cluster knows nothing of; `Also=` names units that
//! have a place of their own; `DefaultInstance=` is for templates, which nothing starts; `UpheldBy=` would
//! start again what somebody has stopped. None of these has an effect.

use std::collections::BTreeSet;

use crate::{
    UnitFile, UnitName,
    specifier::{depends_on_name, expand},
    words::{Escapes, split_words},
};

/// How another unit of the machine wants this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wants {
    /// `WantedBy=`: it is started together with the other.
    Wants,
    /// `RequiredBy=`: the other also fails and stops with it.
    Requires,
}

/// What is to be linked on the machine that has the unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Install {
    /// Which units want it, and how.
    pub wanted_by: BTreeSet<(UnitName, Wants)>,
    /// What is written there and cannot be followed, for whoever gives the file to the cluster.
    pub ignored: Vec<String>,
}

impl Wants {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Wants, Self::Requires];

    /// Returns the option.
    #[must_use]
    pub const fn option(self) -> &'static str {
        match self {
            Self::Wants => "WantedBy",
            Self::Requires => "RequiredBy",
        }
    }

    /// Returns what systemd adds to a unit's name for the directory with the links of those that it wants so.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Wants => "wants",
            Self::Requires => "requires",
        }
    }
}

impl UnitFile {
    /// Returns what `[Install]` asks for a unit of this name.
    ///
    /// Like everything that is systemd's own it is not judged: what makes no sense is told as ignored.
    #[must_use]
    pub fn install(&self, unit: &UnitName) -> Install {
        let mut install = Install::default();
        for wants in Wants::ALL {
            for value in self.values("Install", wants.option()) {
                let (names, bad) = read(value, unit);
                install.wanted_by.extend(names.into_iter().map(|name| (name, wants)));
                install.ignored.extend(bad.into_iter().map(|bad| format!("{}={bad}", wants.option())));
            }
        }
        for option in ["UpheldBy", "Alias", "Also", "DefaultInstance"] {
            let values = self.values("Install", option);
            install.ignored.extend(values.into_iter().map(|value| format!("{option}={value}")));
        }
        install
    }
}

/// Returns the names of a value, and what is none.
fn read(value: &str, unit: &UnitName) -> (Vec<UnitName>, Vec<String>) {
    let (mut names, mut bad) = (Vec::new(), Vec::new());
    match split_words(value, Escapes::Keep) {
        Err(error) => bad.push(format!("{value}: {error}")),
        Ok(words) => {
            for word in words {
                let known = depends_on_name(&word.text).is_ok();
                match expand(&word.text, unit, str::to_owned).parse::<UnitName>() {
                    Ok(name) if known && name != *unit => names.push(name),
                    Ok(_) if known => {}
                    Ok(_) => {
                        bad.push(format!("{}: only the specifiers %n, %N, %p and %i are known", word.text))
                    }
                    Err(error) => bad.push(format!("{}: {error}", word.text)),
                }
            }
        }
    }
    (names, bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(text: &str, unit: &str) -> (Vec<String>, Vec<String>) {
        let file = UnitFile::parse("test", format!("[Install]\n{text}").as_bytes()).unwrap();
        let Install { wanted_by, ignored } = file.install(&unit.parse().unwrap());
        (wanted_by.iter().map(|(name, wants)| format!("{name}.{}", wants.suffix())).collect(), ignored)
    }

    #[test]
    fn wanted_and_required_by_are_read_as_systemd_reads_them() {
        let (links, ignored) = install(
            "WantedBy=gone.target\nWantedBy=\nWantedBy=multi-user.target \"quoted.target\"\n\
             WantedBy=x@%i.target %p@.service web@7.service\nRequiredBy=db.service\nWantedBy=multi-user.target\n",
            "web@7.service",
        );
        let expected = [
            "db.service.requires",
            "multi-user.target.wants",
            "quoted.target.wants",
            "web@.service.wants",
            "x@7.target.wants",
        ];
        assert_eq!((links, ignored), (expected.map(str::to_owned).to_vec(), Vec::new()));
    }

    #[test]
    fn what_has_no_effect_is_told() {
        let (links, ignored) = install(
            "WantedBy=a.target %H.target no-type\nRequiredBy=\"open\nAlias=other.service\nAlso=more.socket\n\
             DefaultInstance=1\nUpheldBy=a.target\n",
            "web.service",
        );
        assert_eq!(links, ["a.target.wants"]);
        assert_eq!(ignored.len(), 7, "{ignored:?}");
        assert_eq!(install("", "a.service"), (Vec::new(), Vec::new()));
    }
}
