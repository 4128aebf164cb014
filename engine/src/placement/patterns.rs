//! The patterns of `Conflicts=`, `Replaces=`, `MachineOf=` and of wishes: which names they match, and on which
//! machines those are. The instances of a template are a pattern too (`web@*.service` and nothing else).
//!
//! A pattern is kept as long as a class uses it. Two indexes lead from a name to the patterns that
//! match it (exact names, and literal beginnings of the others), so that a unit costs a few look-ups,
//! however many patterns there are.

use std::collections::BTreeMap;

use flotilla_units::{Glob, UnitName};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    batch::GroupIx,
    bits::{Slot, Tally},
    classes::ClassIx,
    model::UnitIx,
    stems::stem,
};

pub(super) type PatternIx = u32;
/// A set of patterns, interned: units that the same patterns match are equal for `Conflicts=`.
pub(super) type MatchIx = u32;

/// Who has to be asked again when a machine becomes free of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Waiter {
    Group(GroupIx),
    Global(UnitIx),
}

#[derive(Debug, Clone)]
pub(super) struct Pattern {
    pub(super) glob: Glob,
    users: u32,
    /// Units that it matches, with any entry.
    pub(super) matched: Tally,
    /// Units that it matches, and that do not leave.
    pub(super) placed: Tally,
    /// Units that it matches, and that do not leave before they run elsewhere.
    pub(super) homes: Tally,
    /// Units that have it in `Conflicts=`, with any entry.
    pub(super) conflicting: Tally,
    /// Units that have it in `Replaces=`, placed.
    pub(super) replacing: Tally,
    pub(super) waiters: FxHashSet<Waiter>,
    /// Each one less counts, and not only the last: somebody asks how many there are.
    pub(super) counted: u32,
    /// Where it is counted, the units of `placed` on living machines by the value of each key (`keys`).
    pub(super) values: Vec<Vec<u32>>,
    /// Of a template's instances: how many of them ask for each `MaxPerMachine=`. The least holds for all.
    pub(super) caps: BTreeMap<u32, u32>,
    /// The classes that have it in `MachineOf=`.
    pub(super) followers: Vec<ClassIx>,
}

#[derive(Debug, Clone)]
pub(super) struct Patterns {
    all: Vec<Pattern>,
    free: Vec<PatternIx>,
    by_text: FxHashMap<Box<str>, PatternIx>,
    exact: FxHashMap<Box<str>, Vec<PatternIx>>,
    /// By the text before the first wildcard.
    begins: FxHashMap<Box<str>, Vec<PatternIx>>,
    /// How many patterns begin with a literal text of this length.
    lengths: BTreeMap<usize, u32>,
    matches: Vec<Box<[PatternIx]>>,
    match_of: FxHashMap<Box<[PatternIx]>, MatchIx>,
    /// Room for what matches a name, kept so that nobody has to ask for memory for each.
    found: Vec<PatternIx>,
    /// An instance, and the pattern of its template's: instances come one after the other.
    pub(super) last_siblings: Option<(UnitName, PatternIx)>,
}

impl Default for Patterns {
    fn default() -> Self {
        // Match 0 is the empty set: nearly every unit's.
        let none: Box<[PatternIx]> = Box::default();
        Self {
            all: Vec::new(),
            free: Vec::new(),
            by_text: FxHashMap::default(),
            exact: FxHashMap::default(),
            begins: FxHashMap::default(),
            lengths: BTreeMap::new(),
            matches: vec![none.clone()],
            match_of: FxHashMap::from_iter([(none, 0)]),
            found: Vec::new(),
            last_siblings: None,
        }
    }
}

impl Pattern {
    /// How many units that it matches a machine may have.
    pub(super) fn cap(&self) -> Option<u32> {
        self.caps.keys().next().copied()
    }
}

impl Patterns {
    pub(super) fn get(&self, pattern: PatternIx) -> &Pattern {
        &self.all[pattern as usize]
    }

    pub(super) fn get_mut(&mut self, pattern: PatternIx) -> &mut Pattern {
        &mut self.all[pattern as usize]
    }

    /// Tells of each pattern, in the order of their numbers, whether it is counted.
    pub(super) fn counted(&self) -> impl Iterator<Item = bool> {
        self.all.iter().map(|pattern| pattern.counted > 0)
    }

    /// Returns the patterns of an interned set, in order.
    pub(super) fn matches(&self, set: MatchIx) -> &[PatternIx] {
        &self.matches[set as usize]
    }

    /// Takes a pattern into use. `true` when it is new: then units that it matches have to be told.
    pub(super) fn acquire(&mut self, glob: &Glob) -> (PatternIx, bool) {
        if let Some(found) = self.by_text.get(glob.as_str()) {
            self.all[*found as usize].users += 1;
            return (*found, false);
        }
        let pattern = Pattern {
            glob: glob.clone(),
            users: 1,
            matched: Tally::default(),
            placed: Tally::default(),
            homes: Tally::default(),
            conflicting: Tally::default(),
            replacing: Tally::default(),
            waiters: FxHashSet::default(),
            counted: 0,
            values: Vec::new(),
            caps: BTreeMap::new(),
            followers: Vec::new(),
        };
        let ix = match self.free.pop() {
            Some(ix) => {
                self.all[ix as usize] = pattern;
                ix
            }
            None => {
                self.all.push(pattern);
                self.all.len() as PatternIx - 1
            }
        };
        self.by_text.insert(glob.as_str().into(), ix);
        match glob.literal() {
            Some(name) => self.exact.entry(name.into()).or_default().push(ix),
            None => {
                let begin = beginning(glob);
                self.begins.entry(begin.into()).or_default().push(ix);
                *self.lengths.entry(begin.len()).or_default() += 1;
            }
        }
        (ix, true)
    }

    /// Takes the pattern of a template's instances into use, where it was the last one that was asked for.
    pub(super) fn acquire_last_siblings(&mut self, name: &UnitName) -> Option<PatternIx> {
        let (last, pattern) = self.last_siblings.as_ref()?;
        let suffix = |name: &UnitName| name.as_str().rfind('.').unwrap_or(0);
        let (of_last, of_name) = (suffix(last), suffix(name));
        let are_siblings = stem(last.as_str()) == stem(name.as_str())
            && last.as_str()[of_last..] == name.as_str()[of_name..]
            && name.instance().is_some();
        if !are_siblings {
            return None;
        }
        self.all[*pattern as usize].users += 1;
        Some(*pattern)
    }

    /// Gives a pattern back. `true` when nobody uses it any more: it matches nothing from now on, and
    /// once the units it matched are told, [`Patterns::retire`] makes its number free.
    pub(super) fn release(&mut self, ix: PatternIx) -> bool {
        let pattern = &mut self.all[ix as usize];
        pattern.users -= 1;
        if pattern.users > 0 {
            return false;
        }
        let glob = pattern.glob.clone();
        self.last_siblings.take_if(|(_, last)| *last == ix);
        self.by_text.remove(glob.as_str());
        let (index, key) = match glob.literal() {
            Some(name) => (&mut self.exact, name),
            None => (&mut self.begins, beginning(&glob)),
        };
        if let Some(list) = index.get_mut(key) {
            list.retain(|other| *other != ix);
            if list.is_empty() {
                index.remove(key);
            }
        }
        if glob.literal().is_none()
            && let Some(count) = self.lengths.get_mut(&key.len())
        {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&key.len());
            }
        }
        true
    }

    pub(super) fn retire(&mut self, ix: PatternIx) {
        self.free.push(ix);
    }

    /// Finds the patterns that match a name.
    pub(super) fn matching(&mut self, name: &str) -> MatchIx {
        if self.by_text.is_empty() {
            return 0;
        }
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        found.extend(self.exact.get(name).into_iter().flatten());
        for length in self.lengths.keys() {
            let Some(begin) = name.get(..*length) else { continue };
            let candidates = self.begins.get(begin).into_iter().flatten().copied();
            found.extend(candidates.filter(|ix| self.all[*ix as usize].glob.matches(name)));
        }
        found.sort_unstable();
        let known = self.match_of.get(found.as_slice()).copied();
        let ix = known.unwrap_or_else(|| {
            let (ix, set) = (self.matches.len() as MatchIx, Box::from(found.as_slice()));
            self.matches.push(Box::clone(&set));
            self.match_of.insert(set, ix);
            ix
        });
        self.found = found;
        ix
    }

    pub(super) fn renumber(&mut self, new_of: &[Option<Slot>]) {
        for pattern in &mut self.all {
            let of_matched = [&mut pattern.matched, &mut pattern.placed, &mut pattern.homes];
            let of_owners = [&mut pattern.conflicting, &mut pattern.replacing];
            of_matched.into_iter().chain(of_owners).for_each(|tally| tally.renumber(new_of));
        }
    }
}

/// Returns the literal text that every name a pattern matches begins with.
pub(super) fn beginning(glob: &Glob) -> &str {
    let text = glob.as_str();
    text.split(['*', '?', '[', '\\']).next().unwrap_or(text)
}

/// Returns the pattern of all instances of a unit's template.
pub(super) fn siblings_of(unit: &UnitName) -> Option<Glob> {
    let template = unit.template()?;
    let (stem, suffix) = template.as_str().split_once('@')?;
    format!("{}@*{}", Glob::escape(stem), Glob::escape(suffix)).parse().ok()
}
