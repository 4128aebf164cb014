//! One machine in memory: a store with faults, a fake systemd, and agents that come and go.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use flotilla_agent::{
    Agent, AgentError, Outlook, Registration, Settings,
    systemd::fake::{Cause, FakeSystemd},
};
use flotilla_registry::{
    keys::{Bucket, Key, Keys},
    records::{
        Capacity, Cluster, Departure, MachineRecord, ManifestBucket, ManifestEntry, Record as _,
        ReportBucket, ReportHead, Target, Token, UnitReport,
    },
    store::{
        KeyRange, LeaseId, Operation, RangeRequest, Revision, Store, Txn,
        embedded::EmbeddedStore,
        faults::{Faults, FaultyStore},
    },
    timing::Timing,
};
use flotilla_units::{ContentHash, MachineId, UnitName};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub type Ended = Result<(), AgentError>;

pub struct Machine {
    pub store: Arc<dyn Store>,
    pub faults: Faults,
    pub systemd: FakeSystemd,
    pub keys: Keys,
    pub id: MachineId,
    pub host: String,
    pub boot: u64,
    folder: tempfile::TempDir,
}

/// An agent that runs; dropping it is `kill -9`.
pub struct Running {
    pub outlook: Outlook,
    pub stop: CancellationToken,
    pub task: AbortOnDropHandle<Ended>,
}

pub fn unit(name: &str) -> UnitName {
    name.parse().expect("valid")
}

pub fn text(content: &str) -> String {
    format!("[Service]\nExecStart=/bin/{content}\n")
}

pub fn entry(name: &str, token: i64, run: u64) -> ManifestEntry {
    let hash = ContentHash::of(text("a").as_bytes());
    ManifestEntry {
        unit: unit(name),
        runtime: None,
        hash,
        target: Target::Launched,
        run,
        token: Token(token),
        departing: None,
        moving: None,
        adopt: false,
    }
}

pub fn departing(name: &str, token: i64) -> ManifestEntry {
    ManifestEntry { departing: Some(Departure::Unloaded), ..entry(name, token, 1) }
}

impl Machine {
    pub async fn new() -> Self {
        Self::on(Arc::new(EmbeddedStore::in_memory())).await
    }

    /// A machine on a store that the test keeps, to take copies of.
    pub async fn on(store: Arc<EmbeddedStore>) -> Self {
        let (store, faults) = FaultyStore::new(store, 1);
        let machine = Self::over(Arc::new(store), faults, 1, "alpha");
        let cluster = Cluster { v: 1, id: "c".to_owned(), epoch: 1, terms: vec![], tokens_reserved: 1_000 };
        machine.put(vec![(Key::Cluster, cluster.encode())]).await;
        for content in ["a", "b"] {
            let text = text(content);
            let key = Key::Content(ContentHash::of(text.as_bytes()));
            machine.put(vec![(key, text.into_bytes())]).await;
        }
        machine
    }

    pub fn over(store: Arc<dyn Store>, faults: Faults, number: u64, host: &str) -> Self {
        Self {
            store,
            faults,
            systemd: FakeSystemd::new(number),
            keys: Keys::default(),
            id: "113f16a7a0f84c4c8a3f9e3b2f4d6c01".parse().expect("valid"),
            host: host.to_owned(),
            boot: 0,
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    pub fn run_folder(&self) -> PathBuf {
        self.folder.path().join(format!("run-{}", self.boot))
    }

    pub fn settings(&self) -> Settings {
        Settings {
            machine: self.id,
            host: self.host.clone(),
            addresses: vec!["10.0.0.1".to_owned()],
            api: None,
            metadata: BTreeMap::new(),
            facts: BTreeMap::new(),
            capacity: Capacity::default(),
            boot_id: format!("boot-{}", self.boot),
            version: "0.1.0".to_owned(),
            run: self.run_folder(),
            state: self.folder.path().join("state"),
            timing: Timing::default(),
            seed: 7,
        }
    }

    pub fn start(&self) -> Running {
        self.start_with(self.settings())
    }

    pub fn start_with(&self, settings: Settings) -> Running {
        let agent =
            Agent::new(settings, self.store.clone(), self.keys.clone(), Arc::new(self.systemd.clone()));
        let (outlook, stop) = (agent.outlook(), CancellationToken::new());
        let task = AbortOnDropHandle::new(tokio::spawn(agent.run(stop.clone())));
        Running { outlook, stop, task }
    }

    pub fn reboot(&mut self) {
        self.systemd.reboot();
        self.boot += 1;
    }

    pub async fn put(&self, puts: Vec<(Key, Vec<u8>)>) -> Revision {
        let put = |(key, value)| Operation::Put { key: self.keys.spell(&key), value, lease: None };
        let then = puts.into_iter().map(put).collect();
        self.faults.store().txn(Txn { then, ..Txn::default() }).await.expect("written").revision
    }

    /// Writes the whole manifest, in one transaction.
    pub async fn order(&self, entries: &[ManifestEntry]) -> Revision {
        let bucket = |bucket| {
            let entries = entries.iter().filter(|e| Bucket::of(&e.unit) == bucket).cloned().collect();
            (Key::Manifest(self.id, bucket), ManifestBucket { v: 1, entries }.encode())
        };
        self.put(Bucket::all().map(bucket).collect()).await
    }

    async fn get(&self, key: &Key) -> Option<(Arc<[u8]>, Option<LeaseId>)> {
        let range = RangeRequest::all(KeyRange::key(self.keys.spell(key)));
        let answer = self.faults.store().range(range).await.expect("read");
        answer.kvs.into_iter().next().map(|kv| (kv.value, kv.lease))
    }

    pub async fn record(&self) -> Option<MachineRecord> {
        let (value, _) = self.get(&Key::Machine(self.id)).await?;
        Some(MachineRecord::decode("machine", &value).expect("a record"))
    }

    pub async fn head(&self) -> Option<ReportHead> {
        let (value, _) = self.get(&Key::ReportHead(self.id)).await?;
        Some(ReportHead::decode("head", &value).expect("a record"))
    }

    pub async fn report(&self, name: &str, token: i64) -> Option<UnitReport> {
        let (value, lease) = self.get(&Key::Report(self.id, Bucket::of(&unit(name)))).await?;
        assert!(lease.is_some(), "every agent write is under its lease");
        let bucket = ReportBucket::decode("bucket", &value).expect("a record");
        bucket.units.into_iter().find(|r| r.unit == unit(name) && r.token == Some(Token(token)))
    }

    pub async fn is(&self, name: &str, token: i64, active: &str) -> bool {
        self.report(name, token).await.is_some_and(|r| r.active == active)
    }

    pub async fn is_gone(&self, name: &str, token: i64, order: Revision) -> bool {
        let seen = self.head().await.is_some_and(|head| head.seen >= order);
        seen && self.report(name, token).await.is_some_and(|r| r.gone)
    }

    pub fn starts(&self, name: &str) -> Vec<(i64, u64)> {
        let starts =
            self.systemd.starts().into_iter().filter(|s| s.by == Cause::Agent && s.unit == unit(name));
        starts.map(|s| (s.token.0, s.run)).collect()
    }

    pub fn invocation(&self, name: &str) -> Option<String> {
        self.systemd.look().into_iter().find(|p| p.unit == unit(name)).and_then(|p| p.state.invocation)
    }
}

impl Running {
    /// Stops the agent in order.
    pub async fn stop(self) -> Ended {
        self.stop.cancel();
        timeout(Duration::from_secs(60), self.task).await.expect("it ends").expect("no panic")
    }

    pub fn is_registered(&self) -> bool {
        matches!(*self.outlook.registration.borrow(), Registration::Registered { .. })
    }
}

/// Waits until something holds; fails, naming it, when it does not within this many seconds.
#[macro_export]
macro_rules! within {
    ($seconds:expr, $what:expr) => {{
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs($seconds);
        while !$what {
            assert!(
                tokio::time::Instant::now() < deadline,
                "not within {} s: {}",
                $seconds,
                stringify!($what)
            );
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }};
}

/// Lets time pass.
pub async fn pass(seconds: u64) -> Instant {
    sleep(Duration::from_secs(seconds)).await;
    Instant::now()
}
