//! Whatever happens, in whatever order: nothing is started twice under one token, run and boot, and
//! nothing is stopped that no order names.

#![allow(
    clippy::expect_used,
    clippy::panic,
    dead_code,
    reason = "tests say what must hold in the shortest way; the machine has more than this test needs"
)]

#[path = "machine/machine.rs"]
mod machine;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use flotilla_agent::systemd::fake::{Behaviour, Cause};
use flotilla_registry::{
    records::{Departure, ManifestEntry, Target},
    store::faults::Link,
};
use machine::{Machine, Running, entry, unit};
use proptest::{prelude::*, test_runner::TestCaseError};

const UNITS: [&str; 3] = ["web.service", "job.service", "slow.service"];

#[derive(Debug, Clone)]
enum Event {
    /// Orders the unit to be launched under a new token.
    Place(usize),
    /// Raises the run.
    Restart(usize),
    /// Makes it not launched.
    Load(usize),
    /// Orders it to leave.
    Depart(usize),
    /// Takes its entries out of the manifest.
    Forget(usize),
    StopLocally(usize),
    Kill,
    Stop,
    Reboot,
    Cut,
    Heal,
    LoseReplies,
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let unit = 0..UNITS.len();
    prop_oneof![
        4 => unit.clone().prop_map(Event::Place),
        3 => unit.clone().prop_map(Event::Restart),
        1 => unit.clone().prop_map(Event::Load),
        2 => unit.clone().prop_map(Event::Depart),
        1 => unit.clone().prop_map(Event::Forget),
        1 => unit.prop_map(Event::StopLocally),
        5 => Just(Event::Kill),
        1 => Just(Event::Stop),
        1 => Just(Event::Reboot),
        1 => Just(Event::Cut),
        1 => Just(Event::Heal),
        1 => Just(Event::LoseReplies),
        // The milliseconds in which starts, marks and reports happen.
        8 => (0..12_u64).prop_map(Event::Pass),
        3 => (12..20_000_u64).prop_map(Event::Pass),
    ]
}

/// What was ordered, now and ever.
#[derive(Default)]
struct Orders {
    now: BTreeMap<usize, Vec<ManifestEntry>>,
    tokens: i64,
    /// Every (unit, token, run) that some order made leave or be stopped.
    may_stop: BTreeSet<(usize, i64)>,
    /// The newest (token, run) ordered of a unit.
    newest: BTreeMap<usize, (i64, u64)>,
}

impl Orders {
    fn change(&mut self, event: &Event) {
        match *event {
            Event::Place(n) => {
                self.tokens += 1;
                let entries = self.now.entry(n).or_default();
                entries.retain(|e| e.departing.is_some());
                entries.push(entry(UNITS[n], self.tokens, 1));
                self.newest.insert(n, (self.tokens, 1));
            }
            Event::Restart(n) => {
                for e in self.now.entry(n).or_default().iter_mut().filter(|e| e.departing.is_none()) {
                    (e.run, e.target) = (e.run + 1, Target::Launched);
                    self.newest.insert(n, (e.token.0, e.run));
                }
            }
            Event::Load(n) => {
                for e in self.now.entry(n).or_default().iter_mut().filter(|e| e.departing.is_none()) {
                    e.target = Target::Loaded;
                    self.may_stop.insert((n, e.token.0));
                }
            }
            Event::Depart(n) => {
                for e in self.now.entry(n).or_default() {
                    e.departing = Some(Departure::Unloaded);
                    self.may_stop.insert((n, e.token.0));
                }
            }
            Event::Forget(n) => drop(self.now.remove(&n)),
            _ => {}
        }
    }

    fn all(&self) -> Vec<ManifestEntry> {
        self.now.values().flatten().cloned().collect()
    }
}

fn check(machine: &Machine, orders: &Orders) -> Result<(), TestCaseError> {
    let mut begun = BTreeMap::<_, u32>::new();
    let mut runs = BTreeMap::new();
    for start in machine.systemd.starts() {
        runs.insert(start.invocation.clone(), (start.token.0, start.run));
        if start.by == Cause::Agent {
            *begun.entry((start.unit, start.token, start.run, start.boot)).or_default() += 1;
        }
    }
    prop_assert!(begun.values().all(|times| *times == 1), "started twice: {begun:?}");
    for stop in machine.systemd.stops().into_iter().filter(|s| s.by == Cause::Agent) {
        let n = UNITS.iter().position(|name| unit(name) == stop.unit).expect("one of them");
        let overtaken = runs.get(&stop.invocation) < orders.newest.get(&n);
        let named = orders.may_stop.contains(&(n, stop.token.0));
        prop_assert!(overtaken || named, "stopped without an order: {stop:?}");
    }
    Ok(())
}

async fn run(events: Vec<Event>) -> Result<(), TestCaseError> {
    let mut machine = Machine::new().await;
    machine.systemd.behave(&unit("job.service"), Behaviour::oneshot(Duration::from_millis(4)));
    let slow = Behaviour { start_takes: Duration::from_millis(400), ..Behaviour::default() };
    machine.systemd.behave(&unit("slow.service"), slow);
    let mut orders = Orders::default();
    let mut agent: Option<Running> = Some(machine.start());
    for event in events {
        match &event {
            Event::Kill => drop(agent.take()),
            Event::Stop => {
                if let Some(agent) = agent.take() {
                    agent.stop().await.expect("in order");
                }
            }
            Event::Reboot => {
                drop(agent.take());
                machine.reboot();
            }
            Event::Cut => machine.faults.set_link(Link::Cut),
            Event::Heal => machine.faults.set_link(Link::Up),
            Event::LoseReplies => machine.faults.lose_replies(1),
            Event::StopLocally(n) => {
                // A start that is cancelled by hand is tried again, so only what runs is stopped.
                let active = |p: &flotilla_agent::systemd::Present| {
                    p.unit == unit(UNITS[*n]) && p.state.active == "active"
                };
                if machine.systemd.look().iter().any(active) {
                    machine.systemd.stop_locally(&unit(UNITS[*n]));
                }
            }
            Event::Pass(ms) => tokio::time::sleep(Duration::from_millis(*ms)).await,
            change => {
                orders.change(change);
                machine.order(&orders.all()).await;
            }
        }
        if agent.is_none() {
            agent = Some(machine.start());
        }
        check(&machine, &orders)?;
    }
    // In the end all that is ordered is true.
    machine.faults.set_link(Link::Up);
    tokio::time::sleep(Duration::from_secs(400)).await;
    check(&machine, &orders)?;
    let settled = machine.order(&orders.all()).await;
    // Where that took orders back only, nobody waits for it.
    tokio::time::sleep(Duration::from_secs(10)).await;
    prop_assert!(machine.head().await.is_some_and(|head| head.seen >= settled), "{:?}", machine.head().await);
    for (n, entries) in &orders.now {
        for e in entries {
            let report = machine.report(UNITS[*n], e.token.0).await;
            if e.departing.is_some() {
                prop_assert!(report.as_ref().is_some_and(|r| r.gone), "{report:?}");
            } else if e.target == Target::Launched {
                let report = report.expect("reported");
                prop_assert!(report.run == e.run && report.problem.is_none(), "{report:?}");
                let up = report.active == "active" || report.stopped_locally;
                prop_assert!(up || *n == 1, "neither a oneshot nor stopped by hand: {report:?}");
                prop_assert!(!(report.stopped_locally && *n == 1), "a oneshot that succeeded: {report:?}");
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_started_twice_nor_stopped_without_an_order(events in prop::collection::vec(event(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(run(events))?;
    }
}
