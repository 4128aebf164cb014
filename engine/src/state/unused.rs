//! Which texts no unit has, and since which revision.
//!
//! A text is in use while a unit's own record or an entry of a manifest names it, a departing one too: what
//! is on its way out may still have to be stopped by what it says. A range's instances have their
//! template's text, and how far a rollout has come is told by records and entries. It decides nothing: the
//! leader collects (`leader/texts`).

use std::collections::BTreeSet;

use flotilla_registry::store::Revision;
use flotilla_units::{ContentHash, UnitName};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{ClusterState, Content, Kept};

/// Counts who has which text.
#[derive(Debug, Default)]
pub(super) struct Unused {
    /// How many manifest entries have a text.
    entries: FxHashMap<ContentHash, usize>,
    /// Units whose own record cannot be read: nobody knows which text they have.
    unreadable: FxHashSet<UnitName>,
    /// Texts that were written, or that somebody has or had, in the revision that is being taken in.
    touched: FxHashSet<ContentHash>,
    /// Since when a text that is there is nobody's.
    since: FxHashMap<ContentHash, Revision>,
    /// The same, longest first.
    by_age: BTreeSet<(Revision, ContentHash)>,
}

/// A text that is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnusedText {
    /// Which.
    pub hash: ContentHash,
    /// When it was last written: whoever comes to have it writes it again.
    pub written: Revision,
    /// How long it is, in bytes.
    pub bytes: usize,
}

impl ClusterState {
    /// Returns the texts that have been nobody's since some revision or longer, longest first.
    ///
    /// There are none while a record that might name one cannot be read.
    pub fn unused_texts(&self, since: Revision) -> impl Iterator<Item = UnusedText> {
        let mut old = self.unused.by_age.iter().take_while(move |(at, _)| *at <= since).peekable();
        let is_known = old.peek().is_some() && self.all_users_are_known();
        old.filter(move |_| is_known).filter_map(|(_, hash)| {
            let text = self.contents.get(hash)?;
            Some(UnusedText { hash: *hash, written: text.written(), bytes: text.bytes() })
        })
    }

    fn all_users_are_known(&self) -> bool {
        self.unused.unreadable.is_empty() && self.hidden.is_empty() && self.ranges_are_readable()
    }

    /// Notes that a text was written or is gone, or that somebody has or had it.
    pub(super) fn touch_text(&mut self, hash: ContentHash) {
        self.unused.touched.insert(hash);
    }

    /// Notes whether a unit's own record can be read.
    pub(super) fn note_readable<T>(&mut self, name: &UnitName, kept: Option<&Kept<T>>) {
        if kept.is_some_and(|kept| kept.unreadable().is_some()) {
            self.unused.unreadable.insert(name.clone());
        } else {
            self.unused.unreadable.remove(name);
        }
    }

    /// Counts an entry that came or went among those that have its text.
    pub(super) fn count_text(&mut self, hash: ContentHash, came: bool) {
        let count = self.unused.entries.entry(hash).or_default();
        *count = if came { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.unused.entries.remove(&hash);
        }
        self.touch_text(hash);
    }

    /// Takes in what a whole revision made of the texts that it touched: those that are nobody's now count
    /// as such from it on, also if they were before.
    pub(super) fn settle_texts(&mut self, revision: Revision) {
        for hash in std::mem::take(&mut self.unused.touched) {
            let has_user = self.content_users.contains_key(&hash) || self.unused.entries.contains_key(&hash);
            let is_unused = !has_user && self.contents.contains_key(&hash);
            let Unused { since, by_age, .. } = &mut self.unused;
            if let Some(before) = since.remove(&hash) {
                by_age.remove(&(before, hash));
            }
            if is_unused {
                since.insert(hash, revision);
                by_age.insert((revision, hash));
            }
        }
    }
}

impl Content {
    /// Returns when its key was last written.
    #[must_use]
    pub const fn written(&self) -> Revision {
        self.written
    }

    /// Returns how long it is.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}
