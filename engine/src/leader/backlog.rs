//! Placements that are decided and wait for their turn to be planned and written.
//!
//! A large order places units on every machine at once, a unit here and a unit there. Written in the order in
//! which it was decided each manifest bucket would be rewritten for every unit in it; machine by machine it is
//! written once, and its machine hears of all its units together.
//!
//! What waits here is only remembered: the core holds it as done. Should something about a unit change before its
//! turn, the core is told what is so, decides anew, and what waits here is passed over.

use std::time::Duration;

use flotilla_registry::keys::Bucket;
use flotilla_units::{MachineId, UnitName};

use super::ahead::Ahead;
use crate::model::{Decided, Decisions, Model};

/// How many units of a large order one step plans. Twenty thousand: a quarter of a second, after which everything
/// else is looked at, and some thirty transactions.
pub const PLANNED_MAX: usize = 20_000;

/// How many placements may wait here before those that wait are written. A million: the largest cluster's.
const GATHERED_MAX: usize = 1_000_000;

/// Placements, by machine.
#[derive(Debug, Default)]
pub struct Backlog {
    /// Those whose turn comes first are last.
    waiting: Vec<(MachineId, Bucket, UnitName)>,
    sorted: bool,
}

impl Backlog {
    /// Takes in what is decided. Returns what is to be planned now: all of it, if it is not much.
    pub fn put(&mut self, decided: Decisions) -> Decisions {
        if decided.len() <= PLANNED_MAX {
            return decided;
        }
        let mut now = Decisions::default();
        for (unit, decided) in decided {
            match decided.only_place() {
                Some(machine) => self.waiting.push((machine, Bucket::of(&unit), unit)),
                None => drop(now.insert(unit, decided)),
            }
        }
        self.sorted = false;
        now
    }

    /// Tells whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Tells whether so much waits that it is written before more is decided.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.waiting.len() >= GATHERED_MAX
    }

    /// Returns the placements whose turn it is, whole machines, as far as the core still holds them: of as many
    /// machines as may be written to.
    pub fn take(&mut self, model: &Model, ahead: &mut Ahead, now: Duration) -> Vec<(UnitName, Decided)> {
        if !std::mem::replace(&mut self.sorted, true) {
            self.waiting.sort_unstable_by(|a, b| b.cmp(a));
        }
        let mut turn = Vec::new();
        let mut machine = None;
        while let Some((next, ..)) = self.waiting.last() {
            let is_next = machine != Some(*next);
            if is_next && (turn.len() >= PLANNED_MAX || ahead.room() == 0) {
                break;
            }
            let Some((at, _, unit)) = self.waiting.pop() else { break };
            if model.core().is_placed_on(&unit, at) {
                // Not before: of an order that was taken back nobody is written to, nor waited for.
                ahead.note(at, now);
                machine = Some(at);
                turn.push((unit, Decided::placed(at)));
            }
        }
        turn
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flotilla_registry::keys::Keys;

    use super::*;
    use crate::state::ClusterState;

    fn decided(units: usize, machines: u32) -> Decisions {
        let machine = |n: u32| format!("{n:032x}").parse::<MachineId>().expect("an id");
        let unit = |n: usize| format!("web@{n}.service").parse::<UnitName>().expect("a name");
        let at = |n: usize| machine(1 + u32::try_from(n).expect("few") % machines);
        (0..units).map(|n| (unit(n), Decided::placed(at(n)))).collect()
    }

    #[test]
    fn a_small_order_is_planned_at_once_and_a_large_one_machine_by_machine() {
        let (mut backlog, mut model) = (Backlog::default(), Model::default());
        assert_eq!(backlog.put(decided(PLANNED_MAX, 7)).len(), PLANNED_MAX);
        assert!(backlog.is_empty());
        let all = decided(3 * PLANNED_MAX, 7);
        for (unit, decided) in &all {
            for machine in decided.place.iter() {
                model.core_mut().set_placed(unit, machine);
            }
        }
        // Of one the core was told otherwise meanwhile.
        let (gone, at) = all.iter().next().map(|(unit, it)| (unit.clone(), it.place.clone())).expect("many");
        at.iter().for_each(|at| model.core_mut().clear_placed(&gone, at));
        assert!(backlog.put(all.clone()).is_empty());
        let mut seen: BTreeMap<MachineId, usize> = BTreeMap::new();
        let mut units = 0;
        for turn in 0.. {
            let mut ahead = Ahead::default();
            ahead.settle(&ClusterState::new(Keys::default()), Duration::ZERO);
            let some = backlog.take(&model, &mut ahead, Duration::ZERO);
            if some.is_empty() {
                break;
            }
            assert!(some.len() < 2 * PLANNED_MAX, "{}", some.len());
            units += some.len();
            for (_, decided) in &some {
                for machine in decided.place.iter() {
                    assert_eq!(*seen.entry(machine).or_insert(turn), turn, "a machine has one turn");
                }
            }
            assert!(some.iter().all(|(unit, _)| *unit != gone));
        }
        assert_eq!((units, seen.len()), (all.len() - 1, 7));
    }
}
