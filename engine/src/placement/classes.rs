//! Units with equal requirements are one class; metadata that is asked for is a set of machines.

use std::{collections::BTreeMap, sync::Arc};

use flotilla_units::{Selector, UnitRequirements};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    batch::GroupIx,
    bits::{Bits, Slot},
    keys::KeyIx,
    model::UnitIx,
    patterns::PatternIx,
    room::Amount,
};

pub(super) type ClassIx = u32;
pub(super) type SelectorIx = u32;

/// One class. Class 0 asks for nothing, and is never given up.
#[derive(Debug, Clone, Default)]
pub(super) struct Class {
    pub(super) requirements: Arc<UnitRequirements>,
    pub(super) units: u32,
    pub(super) selectors: Vec<SelectorIx>,
    /// The keys of `Spread=`, each as the machines that have it.
    pub(super) spread: Vec<SelectorIx>,
    /// The keys that it is spread over: those it has to, then those it wishes with their weight, which is not 0.
    pub(super) keys: Vec<(KeyIx, i32)>,
    pub(super) leaders: Vec<UnitIx>,
    /// `MachineOf=` with wildcards.
    pub(super) follows: Vec<PatternIx>,
    pub(super) conflicts: Vec<PatternIx>,
    pub(super) replaces: Vec<PatternIx>,
    pub(super) reserve: Amount,
    pub(super) wishes: Wishes,
    /// More than the number of units decides where they go.
    pub(super) ranked: bool,
    /// Its units have to know where the others of their template are.
    pub(super) counts_siblings: bool,
    /// Its units, kept only where there are leaders of either kind: to find who follows.
    pub(super) members: FxHashSet<UnitIx>,
    /// The groups that its units ever waited in.
    pub(super) groups: Vec<GroupIx>,
}

/// `Prefer=` of a class, each wish with its weight.
#[derive(Debug, Clone, Default)]
pub(super) struct Wishes {
    pub(super) likes: Vec<(i32, SelectorIx)>,
    pub(super) near: Vec<(i32, PatternIx)>,
    pub(super) spread: Vec<(i32, String)>,
}

impl Class {
    /// Tells whether it has to be where others are.
    pub(super) const fn is_tied(&self) -> bool {
        !self.leaders.is_empty() || !self.follows.is_empty()
    }

    /// Every selector that it uses.
    pub(super) fn used_selectors(&self) -> impl Iterator<Item = SelectorIx> {
        let likes = self.wishes.likes.iter().map(|(_, selector)| *selector);
        self.selectors.iter().chain(&self.spread).copied().chain(likes)
    }

    /// Every pattern that it uses.
    pub(super) fn used_patterns(&self) -> impl Iterator<Item = PatternIx> {
        let near = self.wishes.near.iter().map(|(_, pattern)| *pattern);
        self.conflicts.iter().chain(&self.replaces).chain(&self.follows).copied().chain(near)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Classes {
    all: Vec<Class>,
    free: Vec<ClassIx>,
    by_requirements: FxHashMap<Arc<UnitRequirements>, ClassIx>,
}

impl Default for Classes {
    fn default() -> Self {
        let none: Arc<UnitRequirements> = Arc::default();
        let class = Class { requirements: none.clone(), units: 1, ..Class::default() };
        Self { all: vec![class], free: Vec::new(), by_requirements: FxHashMap::from_iter([(none, 0)]) }
    }
}

impl Classes {
    pub(super) fn get(&self, class: ClassIx) -> &Class {
        &self.all[class as usize]
    }

    pub(super) fn get_mut(&mut self, class: ClassIx) -> &mut Class {
        &mut self.all[class as usize]
    }

    /// Finds the class with these requirements.
    pub(super) fn find(&self, requirements: &Arc<UnitRequirements>) -> Option<ClassIx> {
        self.by_requirements.get(requirements).copied()
    }

    pub(super) fn add(&mut self, class: Class) -> ClassIx {
        let requirements = class.requirements.clone();
        let ix = match self.free.pop() {
            Some(ix) => {
                // Groups are keyed by class number and outlive the class: a later one finds them.
                let groups = std::mem::take(&mut self.all[ix as usize].groups);
                self.all[ix as usize] = Class { groups, ..class };
                ix
            }
            None => {
                self.all.push(class);
                self.all.len() as ClassIx - 1
            }
        };
        self.by_requirements.insert(requirements, ix);
        ix
    }

    /// Forgets a class without units and returns it.
    pub(super) fn remove(&mut self, ix: ClassIx) -> Class {
        self.free.push(ix);
        let mut class = std::mem::take(&mut self.all[ix as usize]);
        self.by_requirements.remove(&class.requirements);
        self.all[ix as usize].groups = std::mem::take(&mut class.groups);
        class
    }
}

/// One term of `MachineMetadata=`, and the living machines that meet it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) wanted: Selector,
    pub(super) machines: Bits,
    users: u32,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Selectors {
    all: Vec<Option<Asked>>,
    free: Vec<SelectorIx>,
    known: FxHashMap<Selector, SelectorIx>,
}

impl Selectors {
    pub(super) fn get(&self, selector: SelectorIx) -> Option<&Asked> {
        self.all.get(selector as usize)?.as_ref()
    }

    /// Takes a selector into use; `machines` says who meets a new one.
    pub(super) fn acquire(&mut self, wanted: &Selector, machines: impl FnOnce() -> Bits) -> SelectorIx {
        if let Some(ix) = self.known.get(wanted) {
            if let Some(selector) = &mut self.all[*ix as usize] {
                selector.users += 1;
            }
            return *ix;
        }
        let selector = Asked { wanted: wanted.clone(), machines: machines(), users: 1 };
        let ix = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            self.all.len() as SelectorIx - 1
        });
        self.all[ix as usize] = Some(selector);
        self.known.insert(wanted.clone(), ix);
        ix
    }

    pub(super) fn release(&mut self, ix: SelectorIx) {
        let Some(selector) = &mut self.all[ix as usize] else { return };
        selector.users -= 1;
        if selector.users == 0
            && let Some(selector) = self.all[ix as usize].take()
        {
            self.known.remove(&selector.wanted);
            self.free.push(ix);
        }
    }

    /// Notes what a machine's metadata is; `None` when it is dead.
    pub(super) fn set_machine(&mut self, slot: Slot, metadata: Option<&BTreeMap<String, String>>) {
        for selector in self.all.iter_mut().flatten() {
            if metadata.is_some_and(|metadata| meets(metadata, &selector.wanted)) {
                selector.machines.set(slot);
            } else {
                selector.machines.clear(slot);
            }
        }
    }

    pub(super) fn renumber(&mut self, new_of: &[Option<Slot>]) {
        self.all.iter_mut().flatten().for_each(|selector| selector.machines.renumber(new_of));
    }
}

/// Tells whether metadata is what is wanted.
pub(super) fn meets(metadata: &BTreeMap<String, String>, wanted: &Selector) -> bool {
    wanted.meets(metadata.get(&wanted.key).map(String::as_str))
}
