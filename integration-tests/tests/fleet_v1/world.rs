//! A whole cluster in this process behind real sockets: store, engine, agents and API are flotilla's own,
//! the systemd of each machine is pretended.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use flotilla_agent::{
    Agent, Known, Settings,
    journal::{Cursor, JournalError, LogEntry, LogSource, Query},
    systemd::fake::FakeSystemd,
};
use flotilla_engine::{Engine, EngineConfig, StateReader};
use flotilla_registry::{
    keys::Keys,
    operations::Operations,
    reads::Registry,
    records::Capacity,
    store::{Store, embedded::EmbeddedStore},
    timing::Timing,
    witness::SharedWitness,
};
use flotilla_server::{Health, Metrics, Node, Peers};
use flotilla_units::{MachineId, UnitName};
use futures_util::{StreamExt as _, stream::BoxStream};
use serde_json::Value;
use tokio::{runtime::Runtime, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    certificates::Certificates,
    wire::{Reply, Wire},
};

/// How long anything may take on a busy computer.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A cluster.
pub struct World {
    pub operations: Operations,
    pub machines: Vec<FakeSystemd>,
    pub unix: Wire,
    pub tcp: Wire,
    pub tls: Wire,
    pub certificates: Certificates,
    node: Arc<Node>,
    _engine: Engine,
    seat: watch::Sender<Option<StateReader>>,
    reader: StateReader,
    stop: CancellationToken,
    runtime: Option<Runtime>,
    folder: tempfile::TempDir,
}

#[derive(Debug)]
struct NoJournal;

#[async_trait]
impl LogSource for NoJournal {
    fn follow(&self, _query: Query) -> BoxStream<'static, Result<LogEntry, JournalError>> {
        futures_util::stream::empty().boxed()
    }

    async fn end(&self) -> Result<Option<Cursor>, JournalError> {
        Ok(None)
    }
}

/// The id of a machine by its number.
pub fn id(n: usize) -> String {
    format!("{n:032x}")
}

pub fn name(text: &str) -> UnitName {
    text.parse().unwrap()
}

impl World {
    /// Makes a cluster of as many machines, which are there.
    pub fn new(machines: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let mut world = runtime.block_on(Self::start(machines));
        world.runtime = Some(runtime);
        world.until("all machines", |world| {
            let listed = world.unix.get("/fleet/v1/machines").json();
            listed["machines"].as_array().map_or(0, Vec::len) == machines
        });
        world
    }

    async fn start(machines: usize) -> Self {
        let (stop, folder) = (CancellationToken::new(), tempfile::tempdir().unwrap());
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory());
        let engine = flotilla_engine::run(
            EngineConfig {
                store: Arc::clone(&store),
                keys: Keys::default(),
                machine: machine_id(1),
                boot_id: String::new(),
                api: None,
                timing: Timing::default(),
                witness: SharedWitness::default(),
            },
            stop.clone(),
        );
        let reader = engine.readers().wait_for(Option::is_some).await.unwrap().clone().unwrap();
        let seat = watch::Sender::new(Some(reader.clone()));
        let operations =
            || Operations::new(Registry::new(Arc::clone(&store), Keys::default()), Timing::default());
        let node = Node {
            machine: machine_id(1),
            host: "m1".to_owned(),
            version: "test",
            operations: operations(),
            readers: seat.subscribe(),
            hold: Some(engine.hold_release()),
            witness: SharedWitness::default(),
            journal: Arc::new(NoJournal),
            known: Known::default(),
            status: None,
            usage: None,
            sessions: None,
            adoption: None,
            peers: Peers::new(None),
            metrics: Metrics::default(),
            health: watch::Sender::new(Health::default()).subscribe(),
        };
        let node = Arc::new(node);
        let router = flotilla_server::router(Arc::clone(&node));
        let socket = folder.path().join("api.sock");
        let unix = flotilla_server::serve_unix(&socket, None, router.clone(), stop.clone()).await.unwrap();
        tokio::spawn(unix);
        let address = free_address();
        let tcp =
            flotilla_server::serve_insecure_loopback(address, router.clone(), stop.clone()).await.unwrap();
        tokio::spawn(tcp);
        let (certificates, guarded) = (Certificates::new(folder.path()), free_address());
        let files = certificates.machine(1);
        let tls = flotilla_server::serve_tls(guarded, &files, router, stop.clone()).await.unwrap();
        tokio::spawn(tls);
        let user = certificates.client(Some("urn:flotilla:user:ada"));
        let machines = (1..=machines).map(|n| {
            let systemd = FakeSystemd::new(n as u64);
            let agent = Agent::new(
                settings(n, folder.path()),
                Arc::clone(&store),
                Keys::default(),
                Arc::new(systemd.clone()),
            );
            tokio::spawn(agent.run(stop.clone()));
            systemd
        });
        Self {
            machines: machines.collect(),
            operations: operations(),
            unix: Wire::Unix(socket),
            tcp: Wire::Tcp(address),
            tls: Wire::Tls(guarded, user),
            certificates,
            node,
            _engine: engine,
            seat,
            reader,
            stop,
            runtime: None,
            folder,
        }
    }

    /// Runs something of the cluster's to its end.
    pub fn run<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(what)
    }

    /// Begins to serve without TLS on another address; says why not.
    pub fn serve_without_tls(&self, address: SocketAddr) -> Result<(), String> {
        let router = flotilla_server::router(Arc::clone(&self.node));
        let serving = flotilla_server::serve_insecure_loopback(address, router, self.stop.clone());
        self.run(async { serving.await.map(drop).map_err(|error| error.to_string()) })
    }

    /// Takes the seat from the server, or gives it back.
    pub fn seat(&self, seated: bool) {
        self.seat.send_replace(seated.then(|| self.reader.clone()));
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let from = Instant::now();
        while !holds(self) {
            assert!(from.elapsed() < LIMIT, "waited in vain for {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Every way to the API and every base of its paths.
    pub fn doors(&self) -> Vec<(&Wire, &'static str)> {
        [&self.unix, &self.tcp, &self.tls]
            .into_iter()
            .flat_map(|wire| [(wire, "/fleet/v1"), (wire, "/v1-alpha")])
            .collect()
    }

    pub fn get(&self, path: &str) -> Reply {
        self.unix.get(&format!("/fleet/v1{path}"))
    }

    pub fn put(&self, unit: &str, body: Value) -> Reply {
        self.unix.send("PUT", &format!("/fleet/v1/units/{unit}"), &body.to_string())
    }

    pub fn patch(&self, body: Value) -> Reply {
        self.unix.send("PATCH", "/fleet/v1/machines", &body.to_string())
    }

    pub fn delete(&self, unit: &str) -> Reply {
        self.unix.delete(&format!("/fleet/v1/units/{unit}"))
    }

    pub fn unit(&self, unit: &str) -> Value {
        self.get(&format!("/units/{unit}")).json()
    }

    /// Waits until a unit is in a state.
    #[track_caller]
    pub fn until_current(&self, unit: &str, state: &str) {
        self.until(&format!("{unit} to be {state}"), |world| world.unit(unit)["currentState"] == state);
    }

    /// Returns on which machines a unit runs, by number.
    pub fn runs_on(&self, unit: &str) -> Vec<usize> {
        let runs = |(_, systemd): &(usize, &FakeSystemd)| systemd.is_running(&name(unit));
        (1..).zip(&self.machines).filter(runs).map(|(n, _)| n).collect()
    }

    /// Returns how often the processes of a unit were begun, on all machines.
    pub fn starts(&self, unit: &str) -> usize {
        let starts = self.machines.iter().flat_map(FakeSystemd::starts);
        starts.filter(|start| start.unit == name(unit)).count()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
        assert!(self.folder.path().exists(), "the agents' folder outlives them");
    }
}

fn machine_id(n: usize) -> MachineId {
    id(n).parse().unwrap()
}

/// An address on which nobody listens a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn settings(n: usize, folder: &std::path::Path) -> Settings {
    Settings {
        machine: machine_id(n),
        host: format!("m{n}"),
        addresses: vec![format!("10.0.0.{n}"), format!("fd00::{n}")],
        api: None,
        metadata: BTreeMap::from([("host".to_owned(), format!("m{n}"))]),
        facts: BTreeMap::from([("kernel".to_owned(), "6.1".to_owned())]),
        capacity: Capacity::default(),
        boot_id: format!("boot-{n}"),
        version: "test".to_owned(),
        run: folder.join(format!("run-{n}")),
        state: folder.join(format!("state-{n}")),
        timing: Timing::default(),
        seed: n as u64,
    }
}
