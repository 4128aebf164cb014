//! A whole cluster in one process: real engines, real agents, one store, faults in front of each.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use flotilla_agent::{
    Agent, AgentError, Settings,
    systemd::fake::{Behaviour, FakeSystemd, OnStart, OnStop},
};
use flotilla_engine::{Engine, EngineConfig, StateReader};
use flotilla_registry::{
    keys::{Key, Keys},
    operations::{NewText, Operations, UnitOrder},
    reads::Registry,
    records::{Capacity, MachineSettings, Record as _, Rollout, Target, VERSION},
    store::{
        Operation, Store, Txn,
        embedded::EmbeddedStore,
        faults::{Faults, FaultyStore},
    },
    timing::Timing,
    witness::SharedWitness,
};
use flotilla_units::{MachineId, UnitName};
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::checker::Checker;

/// The grain in which the cluster is looked at.
const TICK: Duration = Duration::from_millis(50);

pub(crate) fn id(n: usize) -> MachineId {
    format!("{n:032x}").parse().expect("valid")
}

pub(crate) fn unit(name: &str) -> UnitName {
    name.parse().expect("valid")
}

/// A machine: what stays when its agent, or its boot, ends.
pub(crate) struct Machine {
    number: usize,
    pub(crate) systemd: FakeSystemd,
    pub(crate) faults: Faults,
    store: Arc<dyn Store>,
    folder: tempfile::TempDir,
    boot: u32,
    /// What its configuration says as `zone` in its metadata.
    pub(crate) zone: &'static str,
    agent: Option<Running>,
}

struct Running {
    stop: CancellationToken,
    task: AbortOnDropHandle<Result<(), AgentError>>,
}

/// An engine, and its own way to the store.
pub(crate) struct Host {
    number: usize,
    pub(crate) faults: Faults,
    store: Arc<dyn Store>,
    witness: SharedWitness,
    engine: Option<(Engine, CancellationToken)>,
}

/// The cluster.
pub(crate) struct Cluster {
    pub(crate) checker: Checker,
    pub(crate) operations: Operations,
    pub(crate) hosts: Vec<Host>,
    pub(crate) machines: Vec<Machine>,
    store: Arc<EmbeddedStore>,
    /// What each unit's text asks for, as it was last accepted.
    options: BTreeMap<String, String>,
}

impl Machine {
    /// Starts the agent, unless it runs.
    pub(crate) fn start(&mut self) {
        if self.agent.as_ref().is_some_and(|agent| !agent.task.is_finished()) {
            return;
        }
        let settings = Settings {
            machine: id(self.number),
            host: format!("m{}", self.number),
            addresses: Vec::new(),
            api: None,
            metadata: BTreeMap::from([("zone".to_owned(), self.zone.to_owned())]),
            facts: BTreeMap::new(),
            capacity: Capacity::default(),
            boot_id: format!("boot-{}", self.boot),
            version: "test".to_owned(),
            run: self.folder.path().join(format!("run-{}", self.boot)),
            state: self.folder.path().join("state"),
            timing: Timing::default(),
            seed: self.number as u64,
        };
        let systemd = Arc::new(self.systemd.clone());
        let agent = Agent::new(settings, Arc::clone(&self.store), Keys::default(), systemd);
        let stop = CancellationToken::new();
        let task = AbortOnDropHandle::new(tokio::spawn(agent.run(stop.clone())));
        self.agent = Some(Running { stop, task });
    }

    /// Kills the agent, as `kill -9` does.
    pub(crate) fn kill_agent(&mut self) {
        self.agent = None;
    }

    /// Configures another zone, with which flotillad is started anew.
    pub(crate) fn rezone(&mut self, zone: &'static str) {
        self.zone = zone;
        self.kill_agent();
        self.start();
    }

    /// Stops the agent in order.
    pub(crate) async fn stop_agent(&mut self) {
        if let Some(Running { stop, task }) = self.agent.take() {
            stop.cancel();
            // With the store away an orderly stop takes as long as its calls; then it is killed.
            let _ = tokio::time::timeout(Duration::from_secs(30), task).await;
        }
    }

    /// Crashes the machine and boots it again.
    pub(crate) fn reboot(&mut self) {
        self.agent = None;
        self.systemd.reboot();
        self.boot += 1;
        self.start();
    }
}

impl Host {
    /// Starts the engine, unless it runs.
    pub(crate) fn start(&mut self) {
        if self.engine.is_some() {
            return;
        }
        let stop = CancellationToken::new();
        let config = EngineConfig {
            store: Arc::clone(&self.store),
            keys: Keys::default(),
            machine: id(900 + self.number),
            boot_id: String::new(),
            api: None,
            timing: Timing::default(),
            witness: self.witness.clone(),
        };
        self.engine = Some((flotilla_engine::run(config, stop.clone()), stop));
    }

    /// Stops the engine in order.
    pub(crate) async fn stop(&mut self) {
        if let Some((engine, stop)) = self.engine.take() {
            stop.cancel();
            engine.ended().await.expect("no panic");
        }
    }

    fn reader(&self) -> Option<StateReader> {
        self.engine.as_ref()?.0.reader()
    }
}

impl Cluster {
    /// Starts it, and waits until all is up.
    pub(crate) async fn start(seed: u64, hosts: usize, machines: usize) -> Self {
        let store = Arc::new(EmbeddedStore::in_memory());
        let plain: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
        let checker = Checker::new(&*store).await;
        let operations =
            Operations::new(Registry::new(Arc::clone(&plain), Keys::default()), Timing::default());
        let faulty = |n: usize| {
            let (store, faults) = FaultyStore::new(Arc::clone(&plain), seed.wrapping_mul(1_000) + n as u64);
            (Arc::new(store) as Arc<dyn Store>, faults)
        };
        let machines = (1..=machines).map(|number| {
            let (store, faults) = faulty(number);
            let folder = tempfile::tempdir().expect("a folder");
            let systemd = FakeSystemd::new(number as u64);
            let zone = ["a", "b"][number % 2];
            Machine { number, systemd, faults, store, folder, boot: 0, zone, agent: None }
        });
        let hosts = (0..hosts).map(|number| {
            let (store, faults) = faulty(100 + number);
            Host { number, faults, store, witness: SharedWitness::default(), engine: None }
        });
        let (machines, hosts) = (machines.collect(), hosts.collect());
        let mut cluster = Self { checker, operations, hosts, machines, store, options: BTreeMap::new() };
        cluster.hosts.iter_mut().for_each(Host::start);
        cluster.machines.iter_mut().for_each(Machine::start);
        let all = cluster.machines.len();
        cluster
            .until("all is up", |cluster| {
                cluster.checker.state.leader().is_some() && cluster.checker.state.machines().len() == all
            })
            .await;
        cluster
    }

    pub(crate) fn reader(&self) -> StateReader {
        self.hosts.iter().find_map(Host::reader).expect("a hot engine")
    }

    /// Waits until something holds, a minute of virtual time at most, checking all the while.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        let from = Instant::now();
        loop {
            self.check();
            if holds(self) {
                return from.elapsed();
            }
            assert!(from.elapsed() < Duration::from_secs(60), "waited a minute until {what}");
            sleep(TICK).await;
        }
    }

    /// Lets virtual time pass, checking all the while.
    pub(crate) async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            sleep(TICK).await;
            self.check();
        }
    }

    /// Checks every revision since, and that nothing runs that no manifest knows.
    fn check(&mut self) {
        self.checker.catch_up();
        for machine in &self.machines {
            for present in machine.systemd.look() {
                if machine.systemd.is_running(&present.unit) {
                    let placed = self.checker.state.placed(&present.unit);
                    let known = placed.iter().any(|placed| placed.machine == id(machine.number));
                    let starts = machine.systemd.starts().into_iter().filter(|s| s.unit == present.unit);
                    let stops = machine.systemd.stops().into_iter().filter(|s| s.unit == present.unit);
                    assert!(
                        known,
                        "{} runs on {} unaccounted for: {:#?} {:#?}",
                        present.unit,
                        machine.number,
                        starts.collect::<Vec<_>>(),
                        stops.collect::<Vec<_>>()
                    );
                }
            }
        }
    }

    /// Gives a unit to the cluster and launches it; what the cluster refuses is refused.
    pub(crate) async fn launch(&mut self, name: &str, options: &str) {
        let text = format!("[Service]\nExecStart=/bin/true\n[X-Flotilla]\n{options}\n");
        if self.operations.submit(&[(unit(name), text)], "test").await.is_ok() {
            self.options.insert(name.to_owned(), options.to_owned());
        }
        let _ = self.operations.set_target(&[unit(name)], Target::Launched, true, "test").await;
    }

    /// Gives a unit that there is another text that asks for the same: one that runs alike, or one that
    /// has to be started anew.
    pub(crate) async fn replace(&self, name: &str, number: u32) {
        let (comment, program) = (number % 3, ["true", "false"][number as usize % 2]);
        let options = self.options(name);
        let text = format!("# {comment}\n[Service]\nExecStart=/bin/{program}\n[X-Flotilla]\n{options}\n");
        let new = NewText { rollout: Rollout::OneByOne, ..NewText::replacing(text) };
        // Only what is there: `launch` notes what a unit asks for.
        if self.operations.registry().unit(&unit(name)).await.is_ok_and(|stored| stored.is_some()) {
            let _ = self.operations.write(&[(unit(name), UnitOrder::submit(new))], true, "test").await;
        }
    }

    pub(crate) async fn drain(&self, n: usize, draining: bool) {
        let settings = MachineSettings { v: VERSION, draining, ..MachineSettings::default() };
        let key = Keys::default().spell(&Key::MachineSettings(id(n)));
        let put = Operation::Put { key, value: settings.encode(), lease: None };
        self.store.txn(Txn { then: vec![put], ..Txn::default() }).await.expect("written");
    }

    /// Returns on which machines a unit runs.
    pub(crate) fn runs_on(&self, name: &str) -> Vec<usize> {
        let runs = |machine: &&Machine| machine.systemd.is_running(&unit(name));
        self.machines.iter().filter(runs).map(|machine| machine.number).collect()
    }

    /// Returns what a unit's text asks for.
    pub(crate) fn options(&self, name: &str) -> &str {
        self.options.get(name).map_or("", String::as_str)
    }

    /// Checks that nothing is left on any machine of a unit that its manifest does not name.
    pub(crate) fn check_leftovers(&self) {
        for machine in &self.machines {
            for present in machine.systemd.look() {
                let placed = self.checker.state.placed(&present.unit);
                let named = placed.iter().any(|placed| placed.machine == id(machine.number));
                assert!(named, "left behind on machine {}: {present:?}", machine.number);
            }
        }
    }

    /// Returns how often the processes of a unit were begun, on all machines.
    pub(crate) fn starts(&self, name: &str) -> usize {
        let starts = self.machines.iter().flat_map(|machine| machine.systemd.starts());
        starts.filter(|start| start.unit == unit(name)).count()
    }
}

/// A unit that takes its time to start, to stop and to be forgotten.
pub(crate) fn slow() -> Behaviour {
    Behaviour {
        waits: Duration::from_millis(500),
        start_takes: Duration::from_millis(800),
        start: OnStart::Runs,
        ends: None,
        stop: OnStop::Stops(Duration::from_secs(3)),
        lingers: Duration::from_secs(2),
    }
}
