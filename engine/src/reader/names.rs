//! Which stretches of the list of names a request can be about.
//!
//! Names sort by their text, so what a name or the beginning of a pattern selects stands together: a list of
//! one unit among a million looks at one. Whoever asks says so beside its filter, which has the last word.

/// The first text after all names: they are ASCII, and have no character as large.
const END: &str = "\u{7f}";

/// Stretches of names, ascending and apart from each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(Vec<Stretch>);

/// From one text, up to another that is not in it any more.
type Stretch = (String, String);

impl Default for Names {
    fn default() -> Self {
        Self::all()
    }
}

impl Names {
    /// All names.
    #[must_use]
    pub fn all() -> Self {
        Self::beginning_with([String::new()])
    }

    /// Names that begin with one of these texts, that text itself included.
    #[must_use]
    pub fn beginning_with(prefixes: impl IntoIterator<Item = String>) -> Self {
        Self::of(prefixes.into_iter().map(|prefix| {
            let end = format!("{prefix}{END}");
            (prefix, end)
        }))
    }

    /// These names, and those that begin with one of these texts.
    #[must_use]
    pub fn these(
        names: impl IntoIterator<Item = String>,
        prefixes: impl IntoIterator<Item = String>,
    ) -> Self {
        let exact = names.into_iter().map(|name| {
            let end = format!("{name}\0");
            (name, end)
        });
        Self::of(exact.chain(Self::beginning_with(prefixes).0))
    }

    fn of(stretches: impl IntoIterator<Item = Stretch>) -> Self {
        let mut stretches: Vec<Stretch> = stretches.into_iter().collect();
        stretches.sort();
        let mut apart: Vec<Stretch> = Vec::with_capacity(stretches.len());
        for (from, to) in stretches {
            match apart.last_mut().filter(|(_, end)| from <= *end) {
                Some((_, end)) if *end < to => *end = to,
                Some(_) => {}
                None => apart.push((from, to)),
            }
        }
        Self(apart)
    }

    /// Returns what is left of the stretches after a name: from where, whether that is included, and up to
    /// where.
    pub(super) fn after<'a>(
        &'a self,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (std::ops::Bound<&'a str>, &'a str)> {
        use std::ops::Bound::{Excluded, Included};
        let ahead = self.0.iter().filter(move |(_, to)| after.is_none_or(|after| after < to.as_str()));
        ahead.map(move |(from, to)| match after.filter(|after| *after >= from.as_str()) {
            Some(after) => (Excluded(after), to.as_str()),
            None => (Included(from.as_str()), to.as_str()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Bound::{Excluded, Included};

    use super::*;

    fn texts(of: &[&str]) -> Vec<String> {
        of.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn stretches_are_apart_and_go_on_after_a_name() {
        let names = Names::these(texts(&["z", "web@5", "a"]), texts(&["web@", "web@1"]));
        let all: Vec<_> = names.after(None).collect();
        assert_eq!(all, [(Included("a"), "a\0"), (Included("web@"), "web@\u{7f}"), (Included("z"), "z\0")]);
        let rest: Vec<_> = names.after(Some("web@3")).collect();
        assert_eq!(rest, [(Excluded("web@3"), "web@\u{7f}"), (Included("z"), "z\0")]);
        assert_eq!(names.after(Some("a")).next(), Some((Excluded("a"), "a\0")), "nothing is in it any more");
        assert_eq!(names.after(Some("zz")).next(), None);
        assert_eq!(Names::all().after(None).next(), Some((Included(""), "\u{7f}")));
        let web = Names::these(texts(&[]), texts(&["web@"]));
        assert_eq!(web.after(Some("b")).next(), Some((Included("web@"), "web@\u{7f}")));
    }
}
