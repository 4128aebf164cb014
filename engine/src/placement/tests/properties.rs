//! What always holds, after whatever has happened.

use flotilla_registry::records::Departure;
use proptest::prelude::*;

use super::{plain::Plain, *};

const UNITS: [&str; 8] = [
    "a.service",
    "b.service",
    "c.service",
    "g.service",
    "w@1.service",
    "w@2.service",
    "w@3.service",
    "x.timer",
];

const ASKS: [&str; 18] = [
    "",
    "zone=a",
    "zone=a zone=b",
    "zone=b disk=ssd",
    "MachineID=1",
    "MachineID=3 Conflicts=c.service",
    "MachineOf=a.service",
    "MachineOf=b.service zone=a",
    "MachineOf=c.service MachineOf=a.service",
    "MachineOf=w@1.service Conflicts=b*",
    "Conflicts=w@*.service",
    "Conflicts=*",
    "Conflicts=[ab].service",
    "Global",
    "Global zone=a",
    "Global Conflicts=a.service",
    "Replaces=b.service",
    "Replaces=w@*",
];

type Fact = Box<dyn Fn(&mut Placement)>;

#[derive(Debug, Clone)]
enum Step {
    Machine(u32, &'static str, bool, bool),
    Dies(u32),
    Want(usize, usize),
    Unload(usize),
    Destroy(usize),
    /// The n-th departing entry is proven gone.
    Gone(usize),
    /// A manifest says so, whoever wrote it.
    Found(usize, u32),
    Decide(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let metadata = prop::sample::select(vec!["zone=a", "zone=b", "zone=b disk=ssd", "", "zone=a disk=ssd"]);
    let flag = |p| prop::bool::weighted(p);
    prop_oneof![
        3 => (1..6_u32, metadata, flag(0.85), flag(0.1)).prop_map(|(n, m, s, d)| Step::Machine(n, m, s, d)),
        1 => (1..6_u32).prop_map(Step::Dies),
        6 => (0..UNITS.len(), 0..ASKS.len()).prop_map(|(u, a)| Step::Want(u, a)),
        1 => (0..UNITS.len()).prop_map(Step::Unload),
        1 => (0..UNITS.len()).prop_map(Step::Destroy),
        5 => (0..8_usize).prop_map(Step::Gone),
        1 => (0..UNITS.len(), 1..6_u32).prop_map(|(u, n)| Step::Found(u, n)),
        4 => (1..5_usize).prop_map(Step::Decide),
    ]
}

/// The core and the plain facts, told the same.
#[derive(Default)]
struct Pair {
    core: Placement,
    plain: Plain,
}

impl Pair {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Machine(n, metadata, schedulable, draining) => {
                let view = MachineView { schedulable: *schedulable, draining: *draining, ..looks(metadata) };
                self.core.set_machine(machine(*n), view.clone());
                self.plain.machines.insert(machine(*n), view);
            }
            Step::Dies(n) => {
                self.core.remove_machine(machine(*n));
                self.plain.machines.remove(&machine(*n));
            }
            Step::Want(unit, words) => self.set(UNITS[*unit], asks(ASKS[*words]), Wanted::Placed),
            Step::Unload(unit) => {
                let requirements = self.plain.asks(&name(UNITS[*unit]));
                self.set(UNITS[*unit], requirements, Wanted::Nowhere);
            }
            Step::Destroy(unit) => {
                let unit = name(UNITS[*unit]);
                self.core.remove_unit(&unit);
                if let Some(it) = self.plain.units.get_mut(&unit) {
                    it.destroyed = true;
                }
            }
            Step::Gone(n) => {
                let all =
                    self.plain.units.iter().flat_map(|(u, it)| it.departing.iter().map(|m| (u.clone(), *m)));
                let Some((unit, at)) = all.collect::<Vec<_>>().get(*n).cloned() else { return };
                self.core.clear_departing(&unit, at);
                self.plain.units.get_mut(&unit).unwrap().departing.remove(&at);
            }
            Step::Found(unit, n) => {
                self.core.set_placed(&name(UNITS[*unit]), machine(*n));
                self.plain.units.entry(name(UNITS[*unit])).or_default().placed.insert(machine(*n));
            }
            Step::Decide(limit) => self.decide(*limit, &mut 0),
        }
        self.plain.forget();
    }

    fn set(&mut self, unit: &str, requirements: Arc<UnitRequirements>, wanted: Wanted) {
        self.core.set_unit(&name(unit), UnitView { requirements: requirements.clone(), wanted });
        let it = self.plain.units.entry(name(unit)).or_default();
        (it.known, it.destroyed) = (Some((requirements, wanted)), false);
    }

    /// Takes over what the core decides, each decision judged by what was true right before it.
    fn decide(&mut self, limit: usize, count: &mut usize) {
        let decisions = self.core.decide(limit);
        *count += decisions.len();
        for (at, decision) in decisions.iter().enumerate() {
            let (unit, machine) = (decision.unit().clone(), decision.machine());
            match decision {
                Decision::Place { .. } => self.check_place(&unit, machine),
                Decision::Depart { why: Departure::MachineLost, .. }
                    if !self.plain.machines.contains_key(&machine) =>
                {
                    let next = decisions[at..].iter().find(|d| matches!(d, Decision::Place { .. }));
                    assert_eq!(next.map(Decision::unit), Some(&unit), "it leaves a dead machine for nothing");
                }
                Decision::Depart { why, .. } => {
                    assert_eq!(self.plain.must_leave(&unit, machine), Some(*why), "{decision} without need");
                }
            }
            let it = self.plain.units.get_mut(&unit).unwrap();
            if matches!(decision, Decision::Place { .. }) {
                assert!(it.placed.insert(machine), "{decision} twice");
            } else {
                assert!(it.placed.remove(&machine), "{decision}, where it is not");
                it.departing.insert(machine);
            }
        }
    }

    fn check_place(&self, unit: &UnitName, machine: MachineId) {
        let asks = self.plain.asks(unit);
        assert!(self.plain.is_wanted(unit));
        if !asks.global {
            let it = &self.plain.units[unit];
            let busy = it.placed.iter().chain(&it.departing).find(|m| self.plain.machines.contains_key(m));
            assert_eq!(busy, None, "{unit} is placed while it is somewhere");
        }
        // Units that name each other are placed one after the other: that is looked at when all is done.
        let may = |id: MachineId| {
            let reasons = self.plain.refusals(unit, id);
            reasons.iter().all(|r| matches!(r, Reason::MachineOf { is: LeaderIs::Unplaced, .. }))
        };
        assert!(may(machine), "{unit} on {machine}: {:?}", self.plain.refusals(unit, machine));
        let tied = |u: &UnitName| !self.plain.asks(u).machine_of.is_empty();
        if !asks.global && !self.plain.units.keys().any(tied) {
            let key = |id: &MachineId| (self.plain.load(*id), *id);
            let best = self.plain.machines.keys().copied().filter(|id| may(*id)).min_by_key(key);
            assert_eq!(Some(machine), best, "{unit} is not on the least loaded machine");
        }
    }

    fn settle(&mut self) {
        let mut count = 0;
        for _ in 0..500 {
            let before = count;
            self.decide(7, &mut count);
            if count == before {
                return self.plain.forget();
            }
        }
        panic!("it decides for ever");
    }

    /// What holds once there is nothing left to decide.
    fn check(&self) {
        let mut waiting = 0;
        for (unit, it) in &self.plain.units {
            let (asks, live) = (self.plain.asks(unit), self.plain.live(unit));
            assert_eq!(self.core.placed_on(unit), it.placed.iter().copied().collect::<Vec<_>>());
            for at in &live {
                assert_eq!(self.plain.must_leave(unit, *at), None, "{unit} should have left {at}");
            }
            assert!(asks.global || live.len() <= 1 || !self.plain.is_wanted(unit));
            let told = self.core.explain(unit);
            let unplaced =
                live.is_empty() && !it.departing.iter().any(|m| self.plain.machines.contains_key(m));
            if self.plain.is_wanted(unit) && !asks.global && unplaced {
                waiting += 1;
                assert_eq!(told.standing, Standing::Unplaceable, "{told}");
            }
            for verdict in &told.machines {
                assert_eq!(verdict.load, self.plain.load(verdict.machine));
                assert_eq!(verdict.here, it.placed.contains(&verdict.machine));
                assert_eq!(verdict.reasons, self.plain.refusals(unit, verdict.machine), "{unit}");
                let missing = self.plain.is_wanted(unit) && !verdict.here && (asks.global || unplaced);
                assert!(!missing || !verdict.reasons.is_empty(), "{unit} could be on {}", verdict.machine);
            }
            assert_eq!(told.machines.len(), self.plain.machines.len());
        }
        assert_eq!(self.core.waiting(), waiting);
    }

    /// A core that is told the same facts at once, in this order or the other way round.
    fn retold(&self, backwards: bool) -> Placement {
        let mut facts: Vec<Fact> = Vec::new();
        for (id, view) in self.plain.machines.clone() {
            facts.push(Box::new(move |core| core.set_machine(id, view.clone())));
        }
        for (unit, it) in self.plain.units.clone() {
            facts.push(Box::new(move |core| {
                for id in &it.placed {
                    core.set_placed(&unit, *id);
                }
                for id in &it.departing {
                    core.set_departing(&unit, *id);
                }
                if let Some((requirements, wanted)) = &it.known {
                    core.set_unit(&unit, UnitView { requirements: requirements.clone(), wanted: *wanted });
                }
                if it.destroyed {
                    core.remove_unit(&unit);
                }
            }));
        }
        if backwards {
            facts.reverse();
        }
        let mut core = Placement::new();
        facts.iter().for_each(|fact| fact(&mut core));
        core
    }
}

fn all(core: &mut Placement) -> Vec<Decision> {
    let mut out = Vec::new();
    for _ in 0..500 {
        let some = core.decide(7);
        if some.is_empty() {
            return out;
        }
        out.extend(some);
    }
    panic!("it decides for ever");
}

proptest! {
    /// No unit in two places, no conflict on one machine, nothing moved without need, everything that
    /// can be placed is, and where it cannot each machine has its reason: after every step.
    #[test]
    fn the_rules_hold_whatever_happens(steps in prop::collection::vec(step(), 1..60)) {
        let mut pair = Pair::default();
        for step in &steps {
            pair.take(step);
            if let Step::Decide(4) = step {
                pair.settle();
                pair.check();
            }
        }
        pair.settle();
        pair.check();
        // Told from scratch, there is nothing to decide either.
        prop_assert_eq!(all(&mut pair.retold(false)), vec![]);
    }

    #[test]
    fn equal_facts_give_equal_decisions(steps in prop::collection::vec(step(), 1..60), late in 0..20_usize) {
        let mut pair = Pair::default();
        let last = steps.len().saturating_sub(late);
        steps[..last].iter().for_each(|step| pair.take(step));
        steps[last..].iter().filter(|step| !matches!(step, Step::Decide(_))).for_each(|step| pair.take(step));
        let decisions = all(&mut pair.retold(false));
        prop_assert_eq!(&decisions, &all(&mut pair.retold(true)));
        // Nor does what happened before count.
        prop_assert_eq!(decisions, all(&mut pair.core));
    }

    #[test]
    fn asking_changes_nothing(
        steps in prop::collection::vec(step(), 1..40), questions in prop::collection::vec((0..UNITS.len(), 0..ASKS.len()), 1..4),
    ) {
        let (mut pair, mut asked) = (Pair::default(), Pair::default());
        for step in &steps {
            pair.take(step);
            asked.take(step);
            for (unit, words) in &questions {
                let view = UnitView { requirements: asks(ASKS[*words]), wanted: Wanted::Placed };
                let _ = asked.core.what_if(&name(UNITS[*unit]), view);
            }
        }
        prop_assert_eq!(all(&mut pair.core), all(&mut asked.core));
    }
}
