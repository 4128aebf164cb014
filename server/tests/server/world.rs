//! A real server on a socket, over a store in memory. The engine is real too; systemd and the journal
//! are pretended.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use flotilla_agent::{
    Known,
    journal::{Cursor, JournalError, LogEntry, LogMessage, LogSource, Query},
    status::{StatusSource, UnitStatus},
    systemd::SystemdError,
};
use flotilla_api::{
    client::{Client, ClientError, Endpoint, SseStream},
    journal::{JournalEvent, JournalLine, JournalNotice, JournalQuery, Position},
};
use flotilla_engine::{Engine, EngineConfig, StateReader};
use flotilla_registry::{
    keys::{Bucket, Key, Keys},
    operations::Operations,
    reads::Registry,
    records::{
        Capacity, EventChange, EventRecord, MachineRecord, Record as _, ReportBucket, ReportHead, Target,
        VERSION,
    },
    store::{LeaseId, Operation, Revision, Store, Txn, embedded::EmbeddedStore},
    timing::Timing,
    witness::SharedWitness,
};
use flotilla_server::{Health, Metrics, Node, Peers};
use flotilla_units::{MachineId, UnitName};
use futures_util::{StreamExt as _, stream::BoxStream};
use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long anything here may take on a busy computer.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A journal in memory: what was written, in order.
#[derive(Debug, Clone)]
pub struct Written(pub watch::Sender<Vec<LogEntry>>);

impl Written {
    pub fn write(&self, unit: &str, text: &str) {
        self.0.send_modify(|entries| {
            let i = entries.len() + 1;
            entries.push(LogEntry {
                unit: name(unit),
                cursor: Cursor(format!("s=a;i={i:x};t={i:x}")),
                realtime_us: i as u64,
                monotonic_us: i as u64,
                priority: None,
                pid: None,
                identifier: None,
                message: LogMessage::Text(text.to_owned()),
                invocation: None,
            });
        });
    }
}

#[async_trait]
impl LogSource for Written {
    fn follow(&self, query: Query) -> BoxStream<'static, Result<LogEntry, JournalError>> {
        if query.grep.as_deref() == Some("(") {
            let said = "missing closing parenthesis".to_owned();
            return futures_util::stream::iter([Err(JournalError::Pattern { said })]).boxed();
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let mut written = self.0.subscribe();
        tokio::spawn(async move {
            let mut next = 0;
            loop {
                let entries = written.borrow_and_update().clone();
                let new = entries.iter().skip(next).filter(|e| query.wants(&e.unit));
                let new = new.filter(|e| query.after.as_ref().is_none_or(|after| e.cursor.is_after(after)));
                let mut new: Vec<_> = new.cloned().collect();
                if let (Some(lines), None, 0) = (query.lines, &query.after, next) {
                    new.drain(..new.len().saturating_sub(lines as usize));
                }
                next = entries.len();
                for entry in new {
                    if sender.send(Ok(entry)).await.is_err() {
                        return;
                    }
                }
                if !query.follow || written.changed().await.is_err() {
                    return;
                }
            }
        });
        tokio_stream::wrappers::ReceiverStream::new(receiver).boxed()
    }

    async fn end(&self) -> Result<Option<Cursor>, JournalError> {
        Ok(self.0.borrow().last().map(|entry| entry.cursor.clone()))
    }
}

#[derive(Debug)]
struct NoStatus;

#[async_trait]
impl StatusSource for NoStatus {
    async fn status(&self, unit: &UnitName) -> Result<UnitStatus, SystemdError> {
        Ok(UnitStatus { name: unit.to_string(), ..UnitStatus::default() })
    }
}

/// A server with a seat, on a socket.
pub struct World {
    pub store: Arc<dyn Store>,
    pub operations: Operations,
    pub journal: Written,
    pub engine: Engine,
    /// What the server is told of the engine's seat.
    pub seat: watch::Sender<Option<StateReader>>,
    pub client: Client,
    pub stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn name(text: &str) -> UnitName {
    text.parse().unwrap()
}

pub fn id(n: u8) -> MachineId {
    format!("{n:032x}").parse().unwrap()
}

impl World {
    /// The server of machine 1, over a store of its own.
    pub async fn new() -> Self {
        Self::of(1, Arc::new(EmbeddedStore::in_memory())).await
    }

    /// The server of a machine, whose engine has a seat at which others may ask.
    pub async fn of(n: u8, store: Arc<dyn Store>) -> Self {
        let (keys, stop) = (Keys::default(), CancellationToken::new());
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("api.sock");
        let operations =
            || Operations::new(Registry::new(Arc::clone(&store), Keys::default()), Timing::default());
        let engine = flotilla_engine::run(
            EngineConfig {
                store: Arc::clone(&store),
                keys,
                machine: id(n),
                boot_id: String::new(),
                api: Some(format!("unix://{}", socket.display())),
                timing: Timing::default(),
                witness: SharedWitness::default(),
            },
            stop.clone(),
        );
        let mut readers = engine.readers();
        let reader = timeout(LIMIT, readers.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
        let (journal, seat) = (Written(watch::Sender::default()), watch::Sender::new(reader));
        let node = Node {
            machine: id(n),
            host: format!("m{n}"),
            version: "test",
            operations: operations(),
            readers: seat.subscribe(),
            hold: Some(engine.hold_release()),
            witness: SharedWitness::default(),
            journal: Arc::new(journal.clone()),
            known: Known::default(),
            status: Some(Arc::new(NoStatus)),
            usage: None,
            sessions: None,
            adoption: None,
            peers: Peers::new(None),
            metrics: Metrics::default(),
            health: watch::Sender::new(Health::default()).subscribe(),
        };
        let router = flotilla_server::router(Arc::new(node));
        let serving = flotilla_server::serve_unix(&socket, None, router, stop.clone()).await.unwrap();
        tokio::spawn(serving);
        let client = Client::new(Endpoint::Unix(socket), None).unwrap();
        Self { operations: operations(), store, journal, engine, seat, client, stop, _folder: folder }
    }

    /// Lets a machine register that does nothing, and has no API.
    pub async fn register(&self, n: u8) {
        self.register_at(n, None).await;
    }

    /// As [`register`](Self::register), with an API at a URL.
    pub async fn register_at(&self, n: u8, api: Option<String>) {
        let keys = Keys::default();
        let record = MachineRecord {
            v: VERSION,
            host: format!("m{n}"),
            addresses: Vec::new(),
            api,
            metadata: [("host".to_owned(), format!("m{n}"))].into(),
            facts: BTreeMap::new(),
            capacity: Capacity::default(),
            boot_id: "boot".to_owned(),
            nonce: format!("n{n}"),
            version: "test".to_owned(),
            lease: LeaseId(0),
            lease_ttl_s: 10,
            stopped: false,
        };
        let mut puts = vec![
            (keys.spell(&Key::Machine(id(n))), record.encode()),
            (
                keys.spell(&Key::ReportHead(id(n))),
                ReportHead { v: VERSION, incarnation: format!("n{n}"), seen: Revision(0) }.encode(),
            ),
        ];
        puts.extend(Bucket::all().map(|bucket| {
            let report = ReportBucket { v: VERSION, units: Vec::new() };
            (keys.spell(&Key::Report(id(n), bucket)), report.encode())
        }));
        let then = puts.into_iter().map(|(key, value)| Operation::Put { key, value, lease: None }).collect();
        self.store.txn(Txn { then, ..Txn::default() }).await.unwrap();
    }

    /// Waits until the seat has seen that many machines.
    pub async fn see_machines(&self, count: usize) {
        let reader = self.engine.reader().unwrap();
        let mut rung = reader.changed();
        let seen = async {
            while reader.cluster().machines_alive < count {
                rung.changed().await.unwrap();
            }
        };
        timeout(LIMIT, seen).await.unwrap();
    }

    /// Submits a unit, and waits until it is where it belongs: on a machine, or nowhere.
    pub async fn unit(&self, unit: &str, on: Option<u8>) {
        let host = on.map_or_else(|| "nowhere".to_owned(), |n| format!("m{n}"));
        let text = format!("[Service]\nExecStart=/bin/true\n[X-Flotilla]\nMachineMetadata=host={host}\n");
        self.operations.submit(&[(name(unit), text)], "test").await.unwrap();
        self.operations.set_target(&[name(unit)], Target::Launched, true, "test").await.unwrap();
        let reader = self.engine.reader().unwrap();
        timeout(LIMIT, async {
            loop {
                let row = reader.unit(&name(unit)).0;
                let placed =
                    row.as_ref().map(|row| row.placements.iter().map(|p| p.machine).collect::<Vec<_>>());
                if placed == Some(on.map(id).into_iter().collect()) {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
    }

    /// Writes an event of its own revision.
    pub async fn event(&self, n: u64) {
        let unit = Some(name(&format!("u{n}.service")));
        self.event_of(n, EventChange { kind: "submitted".to_owned(), unit, ..EventChange::default() }).await;
    }

    /// Writes an event of one change.
    pub async fn event_of(&self, n: u64, change: EventChange) {
        let record = EventRecord {
            v: VERSION,
            at: Timestamp::now(),
            by: "test".to_owned(),
            request: None,
            changes: vec![change],
        };
        let key = Keys::default().spell(&Key::Event { writer: "test".to_owned(), sequence: n });
        let put = Operation::Put { key, value: record.encode(), lease: None };
        self.store.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
    }

    pub async fn journal(&self, query: &JournalQuery, from: Option<&Position>) -> Heard {
        Heard(self.client.journal(query, from).await.unwrap())
    }
}

/// A running journal.
pub struct Heard(SseStream<JournalEvent>);

impl Heard {
    pub async fn next(&mut self) -> Result<Option<JournalEvent>, ClientError> {
        Ok(timeout(LIMIT, self.0.next()).await.unwrap()?.map(|event| event.data))
    }

    pub async fn line(&mut self) -> JournalLine {
        match self.next().await.unwrap() {
            Some(JournalEvent::Line(line)) => *line,
            other => panic!("{other:?}"),
        }
    }

    pub async fn position(&mut self) -> Position {
        match self.next().await.unwrap() {
            Some(JournalEvent::Position(at)) => Position([(at.machine, at.cursor)].into()),
            other => panic!("{other:?}"),
        }
    }

    pub async fn notice(&mut self) -> JournalNotice {
        match self.next().await.unwrap() {
            Some(JournalEvent::Notice(notice)) => notice,
            other => panic!("{other:?}"),
        }
    }
}

pub fn query(units: &str, follow: bool, lines: Option<u32>) -> JournalQuery {
    JournalQuery { units: units.to_owned(), follow, lines, hold_ms: Some(10), ..JournalQuery::default() }
}
