//! Why no machine can take a unit, counted: how many machines break which rule first.
//!
//! For lists, which have a line for it. A set of machines is narrowed through the unit's rules, one after the
//! other, and who drops out is counted for that rule: no machine is asked on its own but a few for what they
//! have that is not wanted. The whole answer, machine by machine, is [`Placement::explain`]'s, which counts the
//! same.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_units::UnitName;

use super::{Placement, Reason, Standing, batch::GroupIx, explain::some_of, model::UnitIx};

/// How many machines that break one rule are asked what they have instead. Thirty-two: a line names three, and in
/// a cluster of that size it is exact.
const ASKED: usize = 32;

/// Machines that break a rule, and what they have that breaks it.
type Counted = BTreeMap<Reason, (usize, BTreeSet<String>)>;

impl Placement {
    /// Returns how many machines break each rule first, with the rule in words, if no machine can take a unit
    /// as things are.
    #[must_use]
    pub fn unplaceable(&self, name: &UnitName) -> Option<Vec<(usize, String)>> {
        let unit = self.find(name)?;
        matches!(self.standing(unit), Standing::Unplaceable).then(|| self.count_refusals(unit))
    }

    /// Returns what is equal for units of which [`Placement::unplaceable`] says the same, where it is known to
    /// be equal for more than one: those that wait, and are nowhere.
    pub(crate) fn alike(&self, name: &UnitName) -> Option<GroupIx> {
        let unit = self.unit(self.find(name)?);
        unit.group.filter(|_| !unit.has_entries())
    }

    fn count_refusals(&self, unit: UnitIx) -> Vec<(usize, String)> {
        let name = &self.unit(unit).name;
        let mut rules: Counted = BTreeMap::new();
        let closed = self.machines.iter().filter(|machine| machine.view.is_some() && !machine.is_open());
        for machine in closed {
            let rule = if machine.drains() { Reason::Draining } else { Reason::NotSchedulable };
            rules.entry(rule).or_default().0 += 1;
        }
        let mut set = self.open.clone();
        for gate in self.gates(unit, &[]) {
            let mut through = set.clone();
            self.narrow(unit, &gate, &mut through);
            set.take_out(&through);
            let (refused, mut of_gate) = (set, Counted::new());
            for slot in refused.iter().take(ASKED) {
                let Some(reason) = self.reason(unit, slot, &gate) else {
                    // It met nothing but the unit itself.
                    through.set(slot);
                    continue;
                };
                let (rule, named) = reason.split(name);
                let entry = of_gate.entry(rule).or_default();
                entry.0 += 1;
                entry.1.extend(named);
            }
            // The others are taken for what most of those are that were asked.
            let others = (refused.count() as usize).saturating_sub(ASKED);
            if let Some(most) = of_gate.values_mut().max_by_key(|(count, _)| *count) {
                most.0 += others;
            }
            for (rule, (count, named)) in of_gate {
                let entry = rules.entry(rule).or_default();
                entry.0 += count;
                entry.1.extend(named);
            }
            set = through;
            if set.is_empty() {
                break;
            }
        }
        rules.into_iter().map(|(rule, (count, named))| (count, rule.in_words(&some_of(&named)))).collect()
    }
}
