//! The machines whose manifests have a unit.

use std::collections::BTreeSet;

use flotilla_units::MachineId;

/// Some machines, ascending: as good as always one, which takes no room of its own.
#[derive(Debug, Clone, Default)]
pub(crate) enum Homes {
    /// None.
    #[default]
    Nowhere,
    /// One.
    On(MachineId),
    /// More, or only one left of them.
    #[allow(
        clippy::box_collection,
        reason = "a million units have one, and without the box each takes 8 bytes more"
    )]
    Several(Box<BTreeSet<MachineId>>),
}

impl Homes {
    pub(crate) fn insert(&mut self, id: MachineId) {
        match self {
            Self::Nowhere => *self = Self::On(id),
            Self::On(one) if *one == id => {}
            Self::On(one) => *self = Self::Several(Box::new(BTreeSet::from([*one, id]))),
            Self::Several(several) => drop(several.insert(id)),
        }
    }

    pub(crate) fn remove(&mut self, id: MachineId) {
        match self {
            Self::On(one) if *one == id => *self = Self::Nowhere,
            Self::Nowhere | Self::On(_) => {}
            Self::Several(several) => drop(several.remove(&id)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Returns the machine if there is exactly one.
    pub(crate) fn only(&self) -> Option<MachineId> {
        let mut all = self.iter();
        all.next().filter(|_| all.next().is_none())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = MachineId> + '_ {
        let (one, several) = match self {
            Self::Nowhere => (None, None),
            Self::On(one) => (Some(*one), None),
            Self::Several(several) => (None, Some(several.iter().copied())),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn are_a_set(changes in prop::collection::vec((1_u8..5, any::<bool>()), 0..20)) {
            let (mut homes, mut set) = (Homes::default(), BTreeSet::new());
            for (n, comes) in changes {
                let id: MachineId = format!("{n:032x}").parse().expect("an id");
                if comes {
                    homes.insert(id);
                    set.insert(id);
                } else {
                    homes.remove(id);
                    set.remove(&id);
                }
                prop_assert_eq!(homes.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(homes.is_empty(), set.is_empty());
                prop_assert_eq!(homes.only(), set.first().copied().filter(|_| set.len() == 1));
            }
        }
    }
}
