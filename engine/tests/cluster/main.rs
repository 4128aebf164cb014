//! Clusters of real engines and pretend agents over a store in memory, in virtual time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code says what must hold in the shortest way"
)]

mod adopting;
mod agent;
mod brake;
mod checker;
mod events;
mod faults;
mod loss;
mod moves;
mod placing;
mod random;
mod ranges;
mod replaces;
mod rollouts;
mod texts;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use flotilla_engine::{Engine, EngineConfig, StateReader};
use flotilla_registry::{
    keys::{Key, Keys},
    operations::Operations,
    reads::Registry,
    records::{MachineRecord, MachineSettings, Record as _, Target, UnitRecord},
    store::{
        KeyRange, Operation, RangeRequest, Store, Txn,
        embedded::EmbeddedStore,
        faults::{Faults, FaultyStore},
    },
    timing::Timing,
    witness::SharedWitness,
};
use flotilla_units::{ContentHash, MachineId, UnitName};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use agent::Machine;
use checker::Checker;

/// The grain in which tests look at the cluster.
const TICK: Duration = Duration::from_millis(20);

pub(crate) fn id(n: usize) -> MachineId {
    format!("{n:032x}").parse().unwrap()
}

pub(crate) fn unit(name: &str) -> UnitName {
    name.parse().unwrap()
}

/// A service with lines for its `[X-Flotilla]` section.
pub(crate) fn service(options: &str) -> String {
    format!("[Service]\nExecStart=/bin/true\n[X-Flotilla]\n{options}\n")
}

/// An engine with its own way to the store.
pub(crate) struct Host {
    pub(crate) engine: Engine,
    pub(crate) faults: Faults,
    pub(crate) stop: CancellationToken,
    pub(crate) witness: SharedWitness,
}

/// A cluster.
pub(crate) struct Cluster {
    pub(crate) store: Arc<EmbeddedStore>,
    pub(crate) checker: Checker,
    pub(crate) operations: Operations,
    pub(crate) engines: Vec<Option<Host>>,
    pub(crate) machines: BTreeMap<usize, (Machine, Faults)>,
    pub(crate) keys: Keys,
}

impl Cluster {
    /// Starts engines and machines, and waits until they lead and have registered.
    pub(crate) async fn start(engines: usize, machines: usize) -> Self {
        let store = Arc::new(EmbeddedStore::in_memory());
        let checker = Checker::new(&*store).await;
        let registry = Registry::new(Arc::clone(&store) as Arc<dyn Store>, Keys::default());
        let operations = Operations::new(registry, Timing::default());
        let mut cluster = Self {
            store,
            checker,
            operations,
            engines: Vec::new(),
            machines: BTreeMap::new(),
            keys: Keys::default(),
        };
        for n in 1..=machines {
            cluster.boot(n, &[]);
        }
        for _ in 0..engines {
            cluster.engine();
        }
        cluster
            .until("all is up", |cluster| {
                cluster.leader().is_some() && cluster.checker.state.machines().len() == machines
            })
            .await;
        cluster
    }

    pub(crate) fn engine(&mut self) {
        let n = self.engines.len();
        let (store, faults) = FaultyStore::new(Arc::clone(&self.store) as Arc<dyn Store>, n as u64);
        let (stop, witness) = (CancellationToken::new(), SharedWitness::default());
        let config = EngineConfig {
            store: Arc::new(store),
            keys: self.keys.clone(),
            machine: id(900 + n),
            boot_id: String::new(),
            api: None,
            timing: Timing::default(),
            witness: witness.clone(),
        };
        let engine = flotilla_engine::run(config, stop.clone());
        self.engines.push(Some(Host { engine, faults, stop, witness }));
    }

    /// Boots a machine, or boots it again with nothing running.
    pub(crate) fn boot(&mut self, n: usize, metadata: &[(&str, &str)]) {
        let (store, faults) = FaultyStore::new(Arc::clone(&self.store) as Arc<dyn Store>, n as u64);
        let machine = Machine::boot(id(n), Arc::new(store), metadata, Arc::default());
        self.machines.insert(n, (machine, faults));
    }

    pub(crate) fn machine(&self, n: usize) -> &Machine {
        &self.machines[&n].0
    }

    pub(crate) fn link(&self, n: usize) -> &Faults {
        &self.machines[&n].1
    }

    pub(crate) fn host(&self, n: usize) -> &Host {
        self.engines[n].as_ref().unwrap()
    }

    /// Returns which engine says that it leads and is the one in the store.
    pub(crate) fn leader(&self) -> Option<usize> {
        let named = self.checker.state.leader()?.record()?.machine;
        (0..self.engines.len()).find(|n| {
            let reader = self.engines[*n].as_ref().and_then(|host| host.engine.reader());
            id(900 + n) == named && reader.is_some_and(|reader| reader.cluster().engine.leads)
        })
    }

    pub(crate) fn reader(&self) -> StateReader {
        let engines = self.engines.iter().flatten();
        engines.filter_map(|host| host.engine.reader()).next().unwrap()
    }

    /// Waits, checking every revision, until something holds; a minute of virtual time at most.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        let from = Instant::now();
        loop {
            self.checker.catch_up();
            if holds(self) {
                return from.elapsed();
            }
            assert!(from.elapsed() < Duration::from_secs(60), "waited a minute until {what}");
            sleep(TICK).await;
        }
    }

    /// Lets virtual time pass, checking every revision.
    pub(crate) async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            sleep(TICK.max(time / 1_000)).await;
            self.checker.catch_up();
        }
    }

    pub(crate) async fn submit(&self, name: &str, options: &str) {
        let units = [(unit(name), service(options))];
        self.operations.submit(&units, "test").await.unwrap();
    }

    pub(crate) async fn target(&self, name: &str, target: Target, raise_run: bool) {
        self.operations.set_target(&[unit(name)], target, raise_run, "test").await.unwrap();
    }

    /// Gives a unit another content, which has to be started anew.
    pub(crate) async fn update(&self, name: &str, options: &str) {
        let text = service(options).replace("/bin/true", "/bin/false");
        let hash = ContentHash::of(text.as_bytes());
        self.put(&Key::Content(hash), text.into_bytes()).await;
        let key = Key::Unit(unit(name));
        let mut record = UnitRecord::decode("", &self.value(&key).await).unwrap();
        record.current = Some(hash);
        self.put(&key, record.encode()).await;
    }

    /// Gives a unit to the cluster and launches it.
    pub(crate) async fn launch(&self, name: &str, options: &str) {
        self.submit(name, options).await;
        self.target(name, Target::Launched, true).await;
    }

    /// Launches units and waits until they run.
    pub(crate) async fn running(&mut self, names: &[&str]) {
        for name in names {
            self.launch(name, "").await;
        }
        self.until("the units run", |cluster| names.iter().all(|name| cluster.runs_on(name).is_some())).await;
    }

    /// Returns where a unit runs under its present token.
    pub(crate) fn runs_on(&self, name: &str) -> Option<usize> {
        let name = unit(name);
        let placed = self.checker.state.placed(&name);
        let on = placed.iter().find(|placed| placed.entry.stays())?;
        let report = self.checker.state.report_of(on)?;
        let (n, (machine, _)) = self.machines.iter().find(|(n, _)| id(**n) == on.machine)?;
        (report.active == "active" && machine.runs(&name)).then_some(*n)
    }

    /// Returns the token of a unit's entry that is not departing.
    pub(crate) fn token(&self, name: &str) -> Option<i64> {
        let name = unit(name);
        let placed = self.checker.state.placed(&name);
        placed.iter().find(|placed| placed.entry.stays()).map(|placed| placed.entry.token.0)
    }

    pub(crate) async fn settings(&self, n: usize, settings: &MachineSettings) {
        self.put(&Key::MachineSettings(id(n)), settings.encode()).await;
    }

    /// Writes a key past everybody.
    pub(crate) async fn put(&self, key: &Key, value: Vec<u8>) {
        let put = Operation::Put { key: self.keys.spell(key), value, lease: None };
        self.store.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
    }

    pub(crate) async fn delete(&self, key: &Key) {
        let delete = Operation::Delete(KeyRange::key(self.keys.spell(key)));
        self.store.txn(Txn { then: vec![delete], ..Txn::default() }).await.unwrap();
    }

    pub(crate) async fn value(&self, key: &Key) -> Vec<u8> {
        let range = KeyRange::key(self.keys.spell(key));
        self.store.range(RangeRequest::all(range)).await.unwrap().kvs[0].value.to_vec()
    }

    /// Ends a machine's lease, as the store does when nobody renews it.
    pub(crate) async fn end_lease(&self, n: usize) {
        let record = MachineRecord::decode("", &self.value(&Key::Machine(id(n))).await).unwrap();
        self.store.lease_revoke(record.lease).await.unwrap();
    }

    /// Tells whether an event of a kind was recorded.
    pub(crate) fn told(&self, kind: &str) -> bool {
        self.times_told(kind) > 0
    }

    pub(crate) fn times_told(&self, kind: &str) -> usize {
        let events = self.checker.state.events().values().filter_map(|event| event.record.record());
        events.flat_map(|record| &record.changes).filter(|change| change.kind == kind).count()
    }

    /// Stops an engine in order.
    pub(crate) async fn stop_engine(&mut self, n: usize) {
        let host = self.engines[n].take().unwrap();
        host.stop.cancel();
        host.engine.ended().await.unwrap();
    }
}
