//! What is said of units, and which machines have them: found by name at once, and in order for lists.

use std::{
    borrow::Borrow,
    collections::{BTreeSet, btree_set},
    hash::Hash,
    ops::RangeBounds,
};

use flotilla_registry::records::UnitRecord;
use flotilla_units::{MachineId, UnitName};
use rustc_hash::FxHashMap;

use super::{Kept, homes::Homes};

/// Records of units, and what ranges say of instances without one.
///
/// Beside them it has the machines with an entry of a unit, which need not have a record: who asks for one
/// mostly asks for the other too. Each name is kept once, whoever came first.
#[derive(Debug, Default)]
pub struct Units {
    slots: FxHashMap<UnitName, Slot>,
    /// Those with a record.
    order: BTreeSet<UnitName>,
}

#[derive(Debug, Default)]
struct Slot {
    kept: Option<Kept<UnitRecord>>,
    homes: Homes,
}

impl Units {
    /// Returns what is said of a unit.
    #[must_use]
    pub fn get<Q>(&self, name: &Q) -> Option<&Kept<UnitRecord>>
    where
        UnitName: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.slots.get(name)?.kept.as_ref()
    }

    /// Returns a unit's name as it is kept here, and what is said of it.
    #[must_use]
    pub fn get_key_value(&self, name: &UnitName) -> Option<(&UnitName, &Kept<UnitRecord>)> {
        let (name, slot) = self.slots.get_key_value(name)?;
        Some((name, slot.kept.as_ref()?))
    }

    /// Tells whether anything is said of a unit.
    #[must_use]
    pub fn contains_key<Q>(&self, name: &Q) -> bool
    where
        UnitName: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get(name).is_some()
    }

    /// Returns of how many units something is said.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Tells whether nothing is said of any unit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Tells whether any machine has an entry of a unit.
    pub(super) fn has_home(&self, name: &UnitName) -> bool {
        self.slots.get(name).is_some_and(|slot| !slot.homes.is_empty())
    }

    /// Returns the names of all units of which something is said, in order.
    pub fn keys(&self) -> btree_set::Iter<'_, UnitName> {
        self.order.iter()
    }

    /// Returns what is said of each unit, in the order of their names.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&UnitName, &Kept<UnitRecord>)> {
        self.order.iter().filter_map(|name| Some((name, self.get::<UnitName>(name)?)))
    }

    /// Returns what is said of units, in the order of their names.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &Kept<UnitRecord>> {
        self.iter().map(|(_, kept)| kept)
    }

    /// Returns what is said of the units with names from here to there, in order.
    pub fn range<Q, R>(&self, range: R) -> impl DoubleEndedIterator<Item = (&UnitName, &Kept<UnitRecord>)>
    where
        UnitName: Borrow<Q>,
        Q: Ord + ?Sized,
        R: RangeBounds<Q>,
    {
        self.order.range(range).filter_map(|name| Some((name, self.get::<UnitName>(name)?)))
    }

    /// Returns the names from here to there of which something is said, in order.
    pub fn names<Q, R>(&self, range: R) -> btree_set::Range<'_, UnitName>
    where
        UnitName: Borrow<Q>,
        Q: Ord + ?Sized,
        R: RangeBounds<Q>,
    {
        self.order.range(range)
    }

    /// Returns which machines have an entry of a unit.
    pub(super) fn homes(&self, name: &UnitName) -> impl Iterator<Item = MachineId> + '_ {
        self.slots.get(name).into_iter().flat_map(|slot| slot.homes.iter())
    }

    /// Returns which machine has an entry of a unit, if exactly one has.
    pub(super) fn only_home(&self, name: &UnitName) -> Option<MachineId> {
        self.slots.get(name)?.homes.only()
    }

    /// Returns the names of all units of which something is said or a machine has an entry.
    pub(super) fn all_names(&self) -> impl Iterator<Item = &UnitName> {
        self.slots.keys()
    }

    /// Returns a name as it is kept, so that its text is not kept twice.
    pub(super) fn known(&self, name: &UnitName) -> Option<&UnitName> {
        self.slots.get_key_value(name).map(|(name, _)| name)
    }

    /// Takes in what is said of a unit.
    pub(super) fn insert(&mut self, name: &UnitName, kept: Kept<UnitRecord>) {
        if let Some(slot) = self.slots.get_mut(name) {
            if slot.kept.replace(kept).is_some() {
                return;
            }
            let name = self.known(name).unwrap_or(name).clone();
            self.order.insert(name);
            return;
        }
        self.slots.insert(name.clone(), Slot { kept: Some(kept), homes: Homes::default() });
        self.order.insert(name.clone());
    }

    /// Takes in that nothing is said of a unit any more.
    pub(super) fn remove(&mut self, name: &UnitName) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        if slot.kept.take().is_some() {
            self.order.remove(name);
        }
        if slot.homes.is_empty() {
            self.slots.remove(name);
        }
    }

    /// Takes in that a machine has an entry of a unit.
    pub(super) fn place(&mut self, name: &UnitName, id: MachineId) {
        if let Some(slot) = self.slots.get_mut(name) {
            return slot.homes.insert(id);
        }
        self.slots.insert(name.clone(), Slot { kept: None, homes: Homes::On(id) });
    }

    /// Takes in that it has none any more.
    pub(super) fn clear(&mut self, name: &UnitName, id: MachineId) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        slot.homes.remove(id);
        if slot.homes.is_empty() && slot.kept.is_none() {
            self.slots.remove(name);
        }
    }
}
