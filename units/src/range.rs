//! Many instances of one template, said once: `web@{1..100}.service`.
//!
//! Owns how such a range is written and which instances are in it. Commands, the API and the
//! registry call it; it never expands a range by itself.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{NameError, UnitName, UnitType};

/// The most instances of one range. A million: a hundred on each machine of the largest cluster there is,
/// each of them a unit in the memory of every seat.
pub const INSTANCES_MAX: u64 = 1_000_000;

/// The most instances that one record speaks for, and that one transaction is about. A hundred thousand: every
/// seat takes them in at once, some tenths of a second of its time.
pub const RANGE_MAX: u64 = 100_000;

/// Why a range of instances was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{range}` is not a range of instances: {why}")]
pub struct RangeError {
    /// The range as it was given, cut to a length that can be shown.
    pub range: String,
    /// What is wrong with it and what was expected.
    pub why: String,
}

/// Instances of a template whose names are consecutive numbers, written as bash writes them:
/// `web@{1..100}.service` is `web@1.service` to `web@100.service`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitRange {
    template: UnitName,
    from: u64,
    to: u64,
}

impl UnitRange {
    /// Makes the range of a template's instances `from` to `to`, both included.
    ///
    /// # Errors
    /// It is no template, `from` is above `to`, there are more than [`INSTANCES_MAX`], or the longest name
    /// is too long.
    pub fn new(template: UnitName, from: u64, to: u64) -> Result<Self, RangeError> {
        let range = Self { template, from, to };
        range.check().map_err(|why| RangeError::new(&range.to_string(), why))?;
        Ok(range)
    }

    /// Tells whether a text is meant as a range: no unit's name and no pattern has braces.
    #[must_use]
    pub fn is_meant_by(text: &str) -> bool {
        text.contains(['{', '}'])
    }

    /// Returns the template.
    #[must_use]
    pub const fn template(&self) -> &UnitName {
        &self.template
    }

    /// Returns the first instance's number.
    #[must_use]
    pub const fn from(&self) -> u64 {
        self.from
    }

    /// Returns the last instance's number.
    #[must_use]
    pub const fn to(&self) -> u64 {
        self.to
    }

    /// Returns how many instances there are.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(&self) -> u64 {
        // The most that there may be is far below the largest number.
        self.to - self.from + 1
    }

    /// Returns it in parts of at most [`RANGE_MAX`] instances, ascending.
    pub fn batches(&self) -> impl Iterator<Item = Self> + use<> {
        let Self { template, from, to } = self.clone();
        let starts = std::iter::successors(Some(from), move |from| {
            from.checked_add(RANGE_MAX).filter(|next| *next <= to)
        });
        starts.map(move |from| Self {
            template: template.clone(),
            from,
            to: to.min(from.saturating_add(RANGE_MAX - 1)),
        })
    }

    /// Returns the instances of it from a number on; `None` if there are none.
    #[must_use]
    pub fn from_number(&self, from: u64) -> Option<Self> {
        (from <= self.to).then(|| Self { from: from.max(self.from), ..self.clone() })
    }

    /// Tells whether a unit is one of the instances.
    #[must_use]
    pub fn contains(&self, unit: &UnitName) -> bool {
        unit.prefix() == self.template.prefix()
            && unit.number().is_some_and(|number| (self.from..=self.to).contains(&number))
            && unit.unit_type() == self.template.unit_type()
    }

    /// Returns the instances, by number.
    pub fn instances(&self) -> impl Iterator<Item = UnitName> + use<> {
        let template = self.template.clone();
        // The longest of the names was made when the range was.
        (self.from..=self.to).filter_map(move |number| template.with_number(number).ok())
    }

    fn check(&self) -> Result<(), String> {
        let Self { template, from, to } = self;
        if !template.is_template() {
            return Err(format!("`{template}` is not a template, such as `web@.service`"));
        }
        if from > to {
            return Err(format!(
                "it starts at {from} and ends at {to}; the smaller number comes first: {{{to}..{from}}}"
            ));
        }
        if to - from >= INSTANCES_MAX {
            return Err(format!(
                "it has more than {INSTANCES_MAX} instances, the most that one order is about; give several orders"
            ));
        }
        template.with_number(*to).map(drop).map_err(|error| error.why)
    }
}

impl UnitName {
    /// Returns an instance's number: 7 of `web@7.service`. `web@07.service` is a unit too, and another
    /// one, so it has none.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        let instance = self.instance()?;
        number(instance).ok()
    }

    /// Returns the instance of a number. `self` is the template or one of its instances.
    ///
    /// # Errors
    /// As [`UnitName::with_instance`].
    pub fn with_number(&self, number: u64) -> Result<Self, NameError> {
        let digits = number.to_string();
        self.with_digits(&digits).map_or_else(|| self.with_instance(&digits), Ok)
    }
}

/// Reads a number as instances are counted: digits, and no other way to write the same number.
fn number(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{text}` is not a number; expected two as in `web@{{1..100}}`"));
    }
    if text.len() > 1 && text.starts_with('0') {
        let plain = text.trim_start_matches('0');
        let plain = if plain.is_empty() { "0" } else { plain };
        return Err(format!(
            "`{text}` has leading zeros, and the instance `{text}` is another than `{plain}`; write {plain}, or name such \
             instances one by one"
        ));
    }
    text.parse().map_err(|_| format!("{text} is too large; the largest is {}", u64::MAX))
}

impl RangeError {
    fn new(range: &str, why: impl Into<String>) -> Self {
        // A refused range may be megabytes of somebody's mistake.
        Self { range: range.chars().take(80).collect(), why: why.into() }
    }
}

impl FromStr for UnitRange {
    type Err = RangeError;

    /// Reads `web@{1..100}.service`; without a type it is a service, as systemctl(1) has it.
    fn from_str(text: &str) -> Result<Self, RangeError> {
        let refused = |why: String| RangeError::new(text, why);
        let shape =
            || refused("expected a template's name with two numbers, as in `web@{1..100}.service`".into());
        let (prefix, rest) = text.split_once('{').ok_or_else(shape)?;
        let (bounds, suffix) = rest.split_once('}').ok_or_else(shape)?;
        let (from, to) = bounds.split_once("..").ok_or_else(shape)?;
        if prefix.contains(['*', '?', '[']) || suffix.contains(['*', '?', '[']) {
            return Err(refused("it is a pattern too; give either numbers or a pattern".into()));
        }
        if !prefix.ends_with('@') {
            return Err(refused("the braces stand right behind the `@`, as in `web@{1..100}`".into()));
        }
        let is_type = suffix.strip_prefix('.').is_some_and(|s| UnitType::from_suffix(s).is_some());
        if !suffix.is_empty() && !is_type {
            return Err(refused(format!(
                "`{suffix}` stands behind the braces, where only a type such as `.service` may"
            )));
        }
        let suffix = if suffix.is_empty() { ".service" } else { suffix };
        let template: UnitName =
            format!("{prefix}{suffix}").parse().map_err(|e: NameError| refused(e.why))?;
        let (from, to) = (number(from).map_err(refused)?, number(to).map_err(refused)?);
        let range = Self { template, from, to };
        range.check().map_err(refused)?;
        Ok(range)
    }
}

impl fmt::Display for UnitRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { template, from, to } = self;
        let suffix = template.unit_type();
        write!(f, "{}@{{{from}..{to}}}.{suffix}", template.prefix())
    }
}

impl Serialize for UnitRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UnitRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> UnitRange {
        text.parse().expect("a range")
    }

    #[test]
    fn says_what_is_wrong_with_it() {
        for (text, why) in [
            ("web@{5..1}", "{1..5}"),
            ("web@{01..10}", "leading zeros"),
            ("web@{00..10}", "write 0"),
            ("web{1..5}", "right behind the `@`"),
            ("web@a{1..5}", "right behind the `@`"),
            ("web.service{1..5}", "right behind the `@`"),
            ("@{1..5}", "nothing before the `@`"),
            ("web@{1,5}", "two numbers"),
            ("web@{1..5", "two numbers"),
            ("web@{a..z}", "not a number"),
            ("web@{-1..5}", "not a number"),
            ("web@{1..}", "not a number"),
            ("web@{1..5}x.service", "behind the braces"),
            ("web@{1..5}.container", "behind the braces"),
            ("w*@{1..5}", "a pattern too"),
            ("web@{1..1000001}", "more than 1000000"),
            ("web@{0..18446744073709551615}", "more than 1000000"),
            ("web@{0..18446744073709551616}", "too large"),
        ] {
            let refused = text.parse::<UnitRange>().expect_err(text).to_string();
            assert!(refused.contains(why), "{text}: {refused}");
            assert!(UnitRange::is_meant_by(text));
        }
        let plain: UnitName = "web.service".parse().expect("a name");
        assert!(UnitRange::new(plain, 1, 2).expect_err("no template").why.contains("not a template"));
        let long = format!("{}@{{1..10}}", "a".repeat(crate::NAME_MAX - 10));
        assert!(long.parse::<UnitRange>().expect_err("too long").why.contains("255"));
    }

    #[test]
    fn has_its_instances_and_no_others() {
        let web = range("web@{9..11}");
        assert_eq!(web, range("web@{9..11}.service"));
        let names: Vec<String> = web.instances().map(|name| name.to_string()).collect();
        assert_eq!(names, ["web@9.service", "web@10.service", "web@11.service"]);
        for other in [
            "web@8.service",
            "web@12.service",
            "web@09.service",
            "web@9.timer",
            "db@9.service",
            "web@.service",
        ] {
            assert!(!web.contains(&other.parse().expect("a name")), "{other}");
        }
        let last = range("web@{18446744073709551615..18446744073709551615}");
        assert_eq!(last.instances().count(), 1);
        assert_eq!(range("web@{1..100000}").instances().count(), 100_000);
        assert_eq!(last.batches().count(), 1);
        let batches: Vec<String> = range("web@{5..250000}").batches().map(|it| it.to_string()).collect();
        assert_eq!(
            batches,
            ["web@{5..100004}.service", "web@{100005..200004}.service", "web@{200005..250000}.service"]
        );
        assert_eq!(range("web@{5..9}").from_number(7), Some(range("web@{7..9}")));
        assert_eq!(range("web@{5..9}").from_number(10), None);
        let json = serde_json::to_string(&web).expect("JSON");
        assert_eq!(serde_json::from_str::<UnitRange>(&json).expect("read"), web);
    }

    proptest! {
        #[test]
        fn reads_back_what_it_wrote(from: u64, len in 0_u64..50) {
            let template: UnitName = "web@.timer".parse().expect("a name");
            let range = UnitRange::new(template, from, from.saturating_add(len)).expect("a range");
            prop_assert_eq!(range.to_string().parse::<UnitRange>(), Ok(range.clone()));
            prop_assert!(range.instances().all(|name| range.contains(&name)));
        }

        #[test]
        fn never_panics(text in "\\PC{0,30}", a in "[0-9.{}@]{0,12}") {
            let _ = text.parse::<UnitRange>();
            let _ = format!("web@{a}").parse::<UnitRange>();
        }
    }
}
