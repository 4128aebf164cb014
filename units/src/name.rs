//! Unit names, as systemd.unit(5) defines them.
//!
//! Owns what a unit name is and how it comes apart into prefix, instance and
//! type. It never looks at a unit's text. Everybody who names a unit calls it.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How long a unit name may be, in bytes: systemd's `UNIT_NAME_MAX` counts the terminating NUL
/// (systemd.unit(5): "255 characters").
pub const NAME_MAX: usize = 255;

/// The suffixes of podman's Quadlet sources (podman-systemd.unit(5)).
pub(crate) const QUADLET: [&str; 7] = ["container", "pod", "kube", "volume", "network", "image", "build"];

/// Why a unit name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a unit name: {why}")]
pub struct NameError {
    /// The name as it was given, cut to a length that can be shown.
    pub name: String,
    /// What is wrong with it and what was expected.
    pub why: String,
}

/// The eleven unit types of systemd.unit(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum UnitType {
    Service,
    Socket,
    Device,
    Mount,
    Automount,
    Swap,
    Target,
    Path,
    Timer,
    Slice,
    Scope,
}

/// A unit's name as systemd knows it, for example `web@1.service`.
///
/// Clones share the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitName(Arc<str>);

impl NameError {
    pub(crate) fn new(name: &str, why: impl Into<String>) -> Self {
        // A refused name may be megabytes of somebody's mistake.
        Self { name: name.chars().take(80).collect(), why: why.into() }
    }
}

impl UnitType {
    /// All of them, in the order of systemd.unit(5).
    pub const ALL: [Self; 11] = [
        Self::Service,
        Self::Socket,
        Self::Device,
        Self::Mount,
        Self::Automount,
        Self::Swap,
        Self::Target,
        Self::Path,
        Self::Timer,
        Self::Slice,
        Self::Scope,
    ];

    /// Returns the suffix without its dot, for example `service`.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Socket => "socket",
            Self::Device => "device",
            Self::Mount => "mount",
            Self::Automount => "automount",
            Self::Swap => "swap",
            Self::Target => "target",
            Self::Path => "path",
            Self::Timer => "timer",
            Self::Slice => "slice",
            Self::Scope => "scope",
        }
    }

    /// Returns the type that has this suffix (without dot), if one has.
    #[must_use]
    pub fn from_suffix(suffix: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.suffix() == suffix)
    }
}

impl UnitName {
    /// Returns the whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the type, which the suffix says.
    #[must_use]
    pub fn unit_type(&self) -> UnitType {
        // The suffix was checked when the name was made.
        UnitType::from_suffix(&self.0[self.dot() + 1..]).unwrap_or(UnitType::Service)
    }

    /// Returns the name without its type suffix: `web@1` of `web@1.service` (`%N`).
    #[must_use]
    pub fn without_suffix(&self) -> &str {
        &self.0[..self.dot()]
    }

    /// Returns what stands before the first `@`, or before the type suffix where there is none (`%p`).
    #[must_use]
    pub fn prefix(&self) -> &str {
        let stem = self.without_suffix();
        stem.split_once('@').map_or(stem, |(prefix, _)| prefix)
    }

    /// Returns the instance: `1` of `web@1.service` (`%i`). Templates and plain units have none.
    #[must_use]
    pub fn instance(&self) -> Option<&str> {
        self.without_suffix().split_once('@').map(|(_, i)| i).filter(|i| !i.is_empty())
    }

    /// Tells whether this is a template, such as `web@.service`.
    #[must_use]
    pub fn is_template(&self) -> bool {
        self.without_suffix().split_once('@').is_some_and(|(_, i)| i.is_empty())
    }

    /// Tells whether this is an instance of a template, such as `web@1.service`.
    #[must_use]
    pub fn is_instance(&self) -> bool {
        self.instance().is_some()
    }

    /// Tells whether this is an instance of a template.
    #[must_use]
    pub fn is_instance_of(&self, template: &Self) -> bool {
        let (at, dot) = (template.0.find('@').map_or(0, |at| at + 1), template.dot());
        at == dot
            && self.0.len() > template.0.len()
            && self.0.starts_with(&template.0[..at])
            && self.0.ends_with(&template.0[dot..])
            && self.0.len() - template.0.len() == self.dot() - at
    }

    /// Returns the template of an instance: `web@.service` of `web@1.service`.
    #[must_use]
    pub fn template(&self) -> Option<Self> {
        self.on_template(|template| Self(template.into()))
    }

    /// Hands on the template's text without making a name of it; `None` if this is no instance.
    ///
    /// What is said of an instance is mostly said of its template: this is asked more often than anything else.
    pub fn on_template<T>(&self, take: impl FnOnce(&str) -> T) -> Option<T> {
        let (at, dot) = (self.0.find('@')? + 1, self.dot());
        if at >= dot {
            return None;
        }
        let (before, after) = (&self.0.as_bytes()[..at], &self.0.as_bytes()[dot..]);
        let mut name = [0; NAME_MAX];
        let all = &mut name[..before.len() + after.len()];
        all[..at].copy_from_slice(before);
        all[at..].copy_from_slice(after);
        std::str::from_utf8(all).ok().map(take)
    }

    /// Returns another instance of the same template. `self` is the template or one of its instances.
    ///
    /// # Errors
    /// `self` is neither, or the instance is empty, too long or has a character that names may not have
    /// (escape it first).
    pub fn with_instance(&self, instance: &str) -> Result<Self, NameError> {
        if !self.0.contains('@') {
            return Err(NameError::new(&self.0, "expected a template such as `web@.service`"));
        }
        if instance.is_empty() {
            return Err(NameError::new(&self.0, "an instance has text between the `@` and the suffix"));
        }
        format!("{}@{instance}.{}", self.prefix(), self.unit_type().suffix()).parse()
    }

    /// Returns the instance of digits; `None` where [`UnitName::with_instance`] has something to say about it.
    ///
    /// Ranges are made into names by the hundred thousand: nothing is read again of what is known to be good.
    pub(crate) fn with_digits(&self, digits: &str) -> Option<Self> {
        let (at, dot) = (self.0.find('@')?, self.dot());
        let (before, after) = (&self.0[..=at], &self.0[dot..]);
        let mut name = [0; NAME_MAX];
        let all = name.get_mut(..before.len() + digits.len() + after.len())?;
        all[..before.len()].copy_from_slice(before.as_bytes());
        all[before.len()..before.len() + digits.len()].copy_from_slice(digits.as_bytes());
        all[before.len() + digits.len()..].copy_from_slice(after.as_bytes());
        std::str::from_utf8(all).ok().map(|name| Self(name.into()))
    }

    fn dot(&self) -> usize {
        // There is always one: the name was checked when it was made.
        self.0.rfind('.').unwrap_or(0)
    }
}

/// Tells whether systemd allows the byte before the type suffix: `VALID_CHARS_WITH_AT` in its unit-name.c.
const fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b':' | b'-' | b'_' | b'.' | b'\\' | b'@')
}

/// Says what is wrong with a name, by the rules of systemd's `unit_name_is_valid`.
fn check(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("it is empty".into());
    }
    if name.len() > NAME_MAX {
        return Err(format!("it has {} bytes, and at most {NAME_MAX} are allowed", name.len()));
    }
    let known = || UnitType::ALL.map(|t| format!(".{}", t.suffix())).join(", ");
    let Some((stem, suffix)) = name.rsplit_once('.') else {
        return Err(format!("it has no type; expected it to end in one of {}", known()));
    };
    if QUADLET.contains(&suffix) {
        return Err(format!(
            "it is a Quadlet source, which is not yet available; expected one of {} (a .service that calls \
             `podman run` does the same)",
            known()
        ));
    }
    if UnitType::from_suffix(suffix).is_none() {
        return Err(format!("`.{suffix}` is not a unit type; expected one of {}", known()));
    }
    if stem.is_empty() {
        return Err(format!("there is nothing before `.{suffix}`"));
    }
    if stem.starts_with('@') {
        return Err("there is nothing before the `@`".into());
    }
    match stem.char_indices().find(|(_, c)| !c.is_ascii() || !is_name_byte(*c as u8)) {
        Some((at, c)) => Err(format!(
            "character {} is {c:?}; allowed are letters, digits and `:-_.\\@` (systemd-escape turns others into `\\x..`)",
            name[..at].chars().count() + 1,
        )),
        None => Ok(()),
    }
}

impl FromStr for UnitName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        check(name).map_err(|why| NameError::new(name, why))?;
        Ok(Self(name.into()))
    }
}

impl Borrow<str> for UnitName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for UnitName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UnitType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.suffix())
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for UnitName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for UnitName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> UnitName {
        text.parse().unwrap()
    }

    /// systemd.unit(5): a prefix of "ASCII letters, digits, ":", "-", "_", ".", and "\"", an instance
    /// after the first `@`, and one of eleven suffixes.
    #[test]
    fn agrees_with_systemd_on_what_is_a_name() {
        for good in
            ["db.service", "db@1.service", "db@1@2.service", "db@.service", "a-b_c:d.e\\x2d.mount", "...swap"]
        {
            assert!(good.parse::<UnitName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "db",
            ".service",
            "@.service",
            "@1.service",
            "db.services",
            "db.Service",
            "db@%i.service",
            "a/db.service",
            "d b.service",
            "dü.service",
            "db.service ",
            "db.",
        ] {
            assert!(bad.parse::<UnitName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_longest_name_has_255_bytes() {
        let fits = format!("{}.service", "a".repeat(NAME_MAX - 8));
        assert_eq!(fits.len(), 255);
        assert!(fits.parse::<UnitName>().is_ok());
        assert!(format!("a{fits}").parse::<UnitName>().is_err());
    }

    #[test]
    fn comes_apart_at_the_first_at_and_the_last_dot() {
        let odd = name("a.b@c@d.e.timer");
        assert_eq!((odd.prefix(), odd.instance(), odd.unit_type()), ("a.b", Some("c@d.e"), UnitType::Timer));
        assert_eq!(odd.without_suffix(), "a.b@c@d.e");
        assert_eq!(odd.template(), Some(name("a.b@.timer")));
        assert_eq!(odd.on_template(str::to_owned).as_deref(), Some("a.b@.timer"));
        assert!(odd.is_instance() && !odd.is_template());
        let template = name("web@.service");
        assert_eq!((template.prefix(), template.instance(), template.template()), ("web", None, None));
        assert!(template.is_template() && !template.is_instance());
        let plain = name("web.service");
        assert!(!plain.is_template() && !plain.is_instance());
        assert_eq!(plain.prefix(), "web");
        assert!(odd.is_instance_of(&name("a.b@.timer")) && !template.is_instance_of(&template));
        for other in ["a.b@.service", "a.b@c.timer", "b@.timer", "a.b@d.e.timer", "timer.timer"] {
            assert!(!odd.is_instance_of(&name(other)), "{other}");
        }
        assert!(!name("a@x.service.timer").is_instance_of(&name("a@.service")));
    }

    #[test]
    fn makes_instances_of_templates_and_of_their_instances_only() {
        assert_eq!(name("web@.service").with_instance("7").unwrap(), name("web@7.service"));
        assert_eq!(name("web@1.service").with_instance("7").unwrap(), name("web@7.service"));
        assert!(name("web.service").with_instance("7").is_err());
        assert!(name("web@.service").with_instance("").is_err());
        assert!(name("web@.service").with_instance("a b").is_err());
        assert!(name("web@.service").with_instance(&"x".repeat(250)).is_err());
    }

    #[test]
    fn an_error_says_where_and_what_was_expected() {
        let e = "we b.service".parse::<UnitName>().unwrap_err();
        assert!(e.to_string().contains("character 3 is ' '"), "{e}");
        let e = "web.servce".parse::<UnitName>().unwrap_err();
        assert!(e.to_string().contains("`.servce` is not a unit type; expected one of .service"), "{e}");
    }

    #[test]
    fn is_a_string_in_json() {
        assert_eq!(serde_json::to_string(&name("a@1.service")).unwrap(), "\"a@1.service\"");
        assert_eq!(serde_json::from_str::<UnitName>("\"a@1.service\"").unwrap(), name("a@1.service"));
        assert!(serde_json::from_str::<UnitName>("\"a b.service\"").is_err());
    }

    proptest! {
        #[test]
        fn never_panics_and_is_put_together_from_its_parts(text in ".{0,300}|[a@.]{1,12}\\.(service|slice)") {
            if let Ok(name) = text.parse::<UnitName>() {
                prop_assert_eq!(name.as_str(), &text);
                let suffix = name.unit_type().suffix();
                let again = match name.instance() {
                    Some(i) => format!("{}@{i}.{suffix}", name.prefix()),
                    None if name.is_template() => format!("{}@.{suffix}", name.prefix()),
                    None => format!("{}.{suffix}", name.prefix()),
                };
                prop_assert_eq!(again, text);
                if let (Some(template), Some(i)) = (name.template(), name.instance()) {
                    prop_assert_eq!(template.with_instance(i), Ok(name.clone()));
                }
            }
        }
    }
}
