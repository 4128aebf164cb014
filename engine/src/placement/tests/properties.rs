//! What always holds, after whatever has happened.

use std::collections::BTreeSet;

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

const ASKS: [&str; 40] = [
    "",
    "zone=a",
    "zone=a zone=b",
    "zone=b disk=ssd",
    "zone !disk",
    "MachineID=1",
    "MachineID=3 Conflicts=c.service",
    "Host=h1",
    "Prefix=0000000000000000000000000000000",
    "MachineOf=a.service",
    "MachineOf=b.service zone=a",
    "MachineOf=c.service MachineOf=a.service",
    "MachineOf=w@1.service Conflicts=b*",
    "MachineOf=w@*",
    "MachineOf=[bc].service MachineOf=w@* CPU=10",
    "Conflicts=w@*.service",
    "Conflicts=*",
    "Conflicts=[ab].service",
    "Global",
    "Global zone=a",
    "Global Conflicts=a.service",
    "Global CPU=20 Priority=3 Preempt",
    "Replaces=b.service",
    "Replaces=w@*",
    "CPU=30",
    "CPU=60 Memory=10",
    "Memory=40 Use.gpu=1",
    "Port=80",
    "Port=80 Port=81 Priority=5",
    "CPU=60 Priority=1 Preempt",
    "Use.gpu=1 Memory=10 Priority=2 Preempt",
    "Port=80 CPU=10 Priority=7 Preempt",
    "Spread=zone",
    "Spread=zone Spread=disk CPU=10",
    "Max=1",
    "Max=2 Spread=zone",
    "Prefer=10:zone=a Prefer=-5:MachineOf=w@* Prefer=7:Spread=disk",
    "Prefer=-20:MachineOf=w@*.service CPU=10 Max=2",
    "Sticky zone=a",
    "Sticky CPU=30",
];

/// What ties units together, with all that may be in the way of some of them.
const TIES: [&str; 36] = [
    "",
    "zone=a",
    "CPU=60",
    "CPU=60 Priority=2 Preempt",
    "Port=80",
    "Max=1",
    "Sticky CPU=30",
    "Global",
    "Global CPU=60",
    "Host=h1 CPU=30",
    "Prefix=0000000000000000000000000000000",
    "Conflicts=[ab].service",
    "Conflicts=w@*",
    "Replaces=[ab].service",
    "Replaces=[bc].service",
    "Replaces=w@*",
    "Replaces=c.service MachineOf=a.service",
    "MachineOf=a.service",
    "MachineOf=b.service CPU=60",
    "MachineOf=c.service CPU=40 Port=80",
    "MachineOf=x.timer Sticky",
    "MachineOf=w@1.service Max=2",
    "MachineOf=w@1.service MachineOf=w@2.service",
    "MachineOf=a.service MachineOf=c.service Host=h2",
    "MachineOf=b.service Conflicts=c.service",
    "MachineOf=a.service CPU=60 Priority=3 Preempt",
    "MachineOf=g.service",
    "MachineOf=x.timer Spread=zone",
    "MachineOf=[bc].service",
    "MachineOf=[bc].service CPU=30",
    "MachineOf=[bc].service MachineOf=w@*",
    "MachineOf=[ax].* MachineOf=w@2.service",
    "MachineOf=w@* MachineOf=a.service Port=80",
    "MachineOf=w@* zone=a",
    "MachineOf=* Conflicts=b.service",
    "MachineOf=[ab]* Host=h1",
];

const MACHINES: [&str; 5] = [
    "zone=a CPU:100 Memory:50 gpu:1",
    "zone=b CPU:80 Memory:100",
    "zone=b disk=ssd CPU:70 Memory:70 gpu:2",
    "CPU:100",
    "zone=a disk=ssd CPU:50 Memory:40",
];

type Fact = Box<dyn Fn(&mut Placement)>;

#[derive(Debug, Clone)]
enum Step {
    /// Its number, what it is like, whether it gets units, whether it is drained, its host name.
    Machine(u32, &'static str, bool, bool, u32),
    Dies(u32),
    Want(usize, &'static str),
    Unload(usize),
    Destroy(usize),
    /// The n-th departing entry is proven gone.
    Gone(usize),
    /// A manifest says so, whoever wrote it.
    Found(usize, u32),
    /// A unit that moves is ready where it goes, or is not.
    Ready(usize, bool),
    Decide(usize),
}

fn step(asks: &'static [&'static str]) -> impl Strategy<Value = Step> {
    let looks = prop::sample::select(MACHINES.to_vec());
    let flag = |p| prop::bool::weighted(p);
    prop_oneof![
        3 => (1..6_u32, looks, flag(0.85), flag(0.2), 1..4_u32)
            .prop_map(|(n, m, s, d, h)| Step::Machine(n, m, s, d, h)),
        2 => (0..UNITS.len(), flag(0.8)).prop_map(|(u, r)| Step::Ready(u, r)),
        1 => (1..6_u32).prop_map(Step::Dies),
        6 => (0..UNITS.len(), 0..asks.len()).prop_map(|(u, a)| Step::Want(u, asks[a])),
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
            Step::Machine(n, words, schedulable, draining, host) => {
                let (schedulable, draining, host) = (*schedulable, *draining, format!("h{host}"));
                let view = MachineView { host, schedulable, draining, ..looks(words) };
                self.core.set_machine(machine(*n), view.clone());
                self.plain.machines.insert(machine(*n), view);
            }
            Step::Dies(n) => {
                self.core.remove_machine(machine(*n));
                self.plain.machines.remove(&machine(*n));
            }
            Step::Want(unit, words) => self.set(UNITS[*unit], asks(words), Wanted::Placed),
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
                let (unit, id) = (name(UNITS[*unit]), machine(*n));
                let it = self.plain.units.entry(unit.clone()).or_default();
                // One entry per machine: that is how manifests are read.
                if it.moving.remove(&id) {
                    self.core.clear_moving(&unit, id);
                }
                self.core.set_placed(&unit, id);
                it.placed.insert(id);
            }
            Step::Ready(unit, ready) => {
                let unit = name(UNITS[*unit]);
                let Some(it) = self.plain.units.get_mut(&unit) else { return };
                for id in it.placed.iter().filter(|_| !it.moving.is_empty()) {
                    if *ready {
                        self.core.set_ready(&unit, *id);
                        it.ready.insert(*id);
                    } else {
                        self.core.clear_ready(&unit, *id);
                        it.ready.remove(id);
                    }
                }
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
        // A copy has no rankings of earlier runs.
        let anew = self.core.clone().decide(limit);
        let decisions = self.core.decide(limit);
        assert_eq!(decisions, anew, "what was kept decides otherwise than what is made anew");
        self.check_counts();
        *count += decisions.len();
        let mut bundle = BTreeSet::new();
        for (at, decision) in decisions.iter().enumerate() {
            let (unit, machine) = (decision.unit().clone(), decision.machine());
            match decision {
                Decision::Place { .. } => self.check_place(&unit, machine),
                Decision::Depart { why: Departure::MachineLost, .. } if !self.plain.lives(&machine) => {
                    let about = |d: &&Decision| !matches!(d, Decision::Depart { .. });
                    let next = decisions[at..].iter().find(about);
                    assert_eq!(next.map(Decision::unit), Some(&unit), "it leaves a dead machine for nothing");
                }
                Decision::Depart { why, reason, .. } => {
                    self.check_depart(&unit, machine, *why, reason.as_ref(), decisions.get(at + 1));
                }
                Decision::Move { from, why, .. } => {
                    assert_eq!(*why, Departure::Drained);
                    // Those that move together are one after the other.
                    if !matches!(at.checked_sub(1).map(|at| &decisions[at]), Some(Decision::Move { .. })) {
                        bundle.clear();
                    }
                    bundle.insert(unit.clone());
                    self.check_move(&unit, *from, machine, &bundle);
                }
                Decision::Stay { .. } => {
                    let it = &self.plain.units[&unit];
                    assert!(it.moving.contains(&machine), "{decision}, where it does not move");
                    assert!(self.plain.asks(&unit).global || self.plain.live(&unit).is_empty(), "{decision}");
                }
            }
            self.take_over(decision);
        }
    }

    /// What is counted with each entry is what there is.
    fn check_counts(&self) {
        let mut again = self.core.clone();
        again.renumber_keys();
        let numbers = (0..).zip(self.core.patterns.counted()).filter(|(_, counted)| *counted);
        for (pattern, _) in numbers {
            for key in 0..again.keys.len() {
                let of = |core: &Placement| {
                    let counts = core.patterns.get(pattern).values.get(key).cloned().unwrap_or_default();
                    let mut counts: Vec<u32> = counts.into_iter().filter(|count| *count > 0).collect();
                    counts.sort_unstable();
                    counts
                };
                assert_eq!(of(&self.core), of(&again), "instances are counted wrongly");
            }
        }
    }

    fn take_over(&mut self, decision: &Decision) {
        let machine = decision.machine();
        let it = self.plain.units.get_mut(decision.unit()).unwrap();
        match decision {
            Decision::Place { .. } => assert!(it.placed.insert(machine), "{decision} twice"),
            Decision::Depart { .. } => {
                let was = it.placed.remove(&machine) || it.moving.remove(&machine);
                assert!(was, "{decision}, where it is not");
                it.ready.remove(&machine);
                it.departing.insert(machine);
            }
            Decision::Move { from, why, .. } => {
                assert!(it.placed.remove(from) && it.placed.insert(machine), "{decision}");
                it.ready.remove(from);
                it.moving.insert(*from);
                it.moves_for = Some(*why);
            }
            Decision::Stay { .. } => {
                it.moving.remove(&machine);
                it.placed.insert(machine);
            }
        }
    }

    fn check_depart(
        &self,
        unit: &UnitName,
        machine: MachineId,
        why: Departure,
        reason: Option<&Reason>,
        next: Option<&Decision>,
    ) {
        let it = &self.plain.units[unit];
        let must = self.plain.must_leave(unit, machine);
        if must == Some(why) {
            return;
        }
        if let (Departure::Preempted, Some(Reason::Preempted { by })) = (why, reason) {
            let asks = self.plain.asks(by);
            assert!(asks.preempt && self.plain.is_wanted(by) && !self.plain.asks(unit).sticky);
            assert!(asks.priority > self.plain.asks(unit).priority, "{unit} for {by}");
            let helps = |id: &MachineId| self.plain.refusals(by, *id).is_empty();
            let free = asks.global || (self.plain.is_free(by) && !self.plain.machines.keys().any(helps));
            assert!(free, "{unit} leaves for {by}, which has a place");
            return;
        }
        if it.moving.contains(&machine) {
            let home = it.ready.iter().any(|id| self.plain.lives(id) && it.placed.contains(id));
            let needed = self.plain.lives(&machine) && self.plain.is_needed(unit, machine);
            assert!(
                home && !needed && Some(why) == it.moves_for,
                "{unit} leaves {machine} too early: {why:?}"
            );
            return;
        }
        // Its move is taken back.
        let back = matches!(next, Some(Decision::Stay { unit: other, .. }) if other == unit);
        let drained = why == Departure::Drained && self.plain.drains(&machine);
        let over = why == Departure::TakenBack && !it.moving.iter().all(|id| self.plain.drains(id));
        // Or who has to be with it finds no way.
        let held = why == Departure::TakenBack && it.moving.iter().any(|id| self.plain.is_needed(unit, *id));
        assert!(back && (drained || over || held), "{unit} leaves {machine} without need: {why:?}");
    }

    fn check_move(&self, unit: &UnitName, from: MachineId, to: MachineId, bundle: &BTreeSet<UnitName>) {
        assert!(self.plain.drains(&from) && from != to, "{unit}");
        // Those that it has to be with may have gone before it in this very move.
        assert!(self.plain.is_movable(unit, from), "{unit} is not to be moved from {from}");
        let reasons = self.plain.refusals(unit, to);
        let along =
            |reason: &Reason| matches!(reason, Reason::MachineOf { .. } | Reason::MachineOfAny { .. });
        let together = bundle.len() > 1 || self.is_tied(unit);
        assert!(reasons.iter().all(|reason| together && along(reason)), "{unit} to {to}: {reasons:?}");
    }

    /// Whether a unit follows others or is followed.
    fn is_tied(&self, unit: &UnitName) -> bool {
        let follows = |other: &UnitName| {
            self.plain.asks(other).machine_of.iter().any(|glob| glob.matches(unit.as_str()))
        };
        !self.plain.asks(unit).machine_of.is_empty() || self.plain.units.keys().any(follows)
    }

    fn check_place(&self, unit: &UnitName, machine: MachineId) {
        let asks = self.plain.asks(unit);
        assert!(self.plain.is_wanted(unit));
        assert!(asks.global || self.plain.is_free(unit), "{unit} is placed while it is somewhere");
        // Units that name each other are placed one after the other: that is looked at when all is done.
        let may = |id: MachineId| {
            let reasons = self.plain.refusals(unit, id);
            let along = |r: &Reason| {
                matches!(r, Reason::MachineOf { is: LeaderIs::Unplaced, .. } | Reason::MachineOfAny { .. })
            };
            reasons.iter().all(along)
        };
        assert!(may(machine), "{unit} on {machine}: {:?}", self.plain.refusals(unit, machine));
        let tied = |u: &UnitName| !self.plain.asks(u).machine_of.is_empty();
        if !asks.global && !self.plain.units.keys().any(tied) {
            let all: Vec<MachineId> = self.plain.machines.keys().copied().filter(|id| may(*id)).collect();
            let best = all.iter().map(|id| self.plain.worth(unit, *id, &all)).min();
            let this = self.plain.worth(unit, machine, &all);
            assert_eq!(Some(this), best, "{unit} is not on the best machine");
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
            let leaves = |at: &MachineId| self.plain.must_leave(unit, *at);
            for at in live.iter().chain(it.moving.iter().filter(|at| self.plain.lives(at))) {
                assert_eq!(leaves(at), None, "{unit} should have left {at}");
            }
            for at in live.iter().filter(|at| self.plain.drains(at) && self.plain.is_movable(unit, **at)) {
                let takes = |id: &MachineId| self.plain.refusals(unit, *id).is_empty();
                let to = self.plain.machines.keys().find(|id| takes(id));
                assert!(self.is_tied(unit) || to.is_none(), "{unit} could leave {at} for {to:?}");
            }
            assert!(asks.global || live.len() <= 1 || !self.plain.is_wanted(unit));
            let told = self.core.explain(unit);
            let counted = told.is_unplaceable().then(|| told.counts());
            assert_eq!(self.core.unplaceable(unit), counted, "a list says of {unit} what `why` counts");
            let unplaced = self.plain.is_free(unit);
            if self.plain.is_wanted(unit) && !asks.global && unplaced {
                waiting += 1;
                let waits = matches!(told.standing, Standing::Unplaceable)
                    || (asks.preempt && matches!(told.standing, Standing::Awaiting(_)));
                assert!(waits, "{told}");
                let together = self.plain.could_go(unit);
                assert!(together.is_none(), "{unit} could go to {together:?} with those it follows");
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
                for id in &it.moving {
                    core.set_moving(&unit, *id, it.moves_for.unwrap());
                }
                for id in &it.ready {
                    core.set_ready(&unit, *id);
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

/// Takes these steps and checks what has to hold, now and then and in the end.
fn hold(steps: &[Step]) {
    let mut pair = Pair::default();
    for step in steps {
        pair.take(step);
        if let Step::Decide(4) = step {
            pair.settle();
            pair.check();
        }
    }
    pair.settle();
    pair.check();
    // Told from scratch, there is nothing to decide either.
    assert_eq!(all(&mut pair.retold(false)), vec![]);
}

proptest! {
    /// No unit in two places, no conflict on one machine, nothing moved without need, everything that
    /// can be placed is, and where it cannot each machine has its reason: after every step.
    #[test]
    fn the_rules_hold_whatever_happens(steps in prop::collection::vec(step(&ASKS), 1..60)) {
        hold(&steps);
    }

    #[test]
    fn the_rules_hold_where_units_are_tied_together(steps in prop::collection::vec(step(&TIES), 1..60)) {
        hold(&steps);
    }

    #[test]
    fn equal_facts_give_equal_decisions(
        steps in prop::collection::vec(step(&ASKS), 1..60), late in 0..20_usize,
    ) {
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
        steps in prop::collection::vec(step(&ASKS), 1..40), questions in prop::collection::vec((0..UNITS.len(), 0..ASKS.len()), 1..4),
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
