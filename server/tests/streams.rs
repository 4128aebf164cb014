//! The streams of a real server over a store in memory: what they say first, what they lack, and how
//! they end. The engine is real too; systemd and the journal are pretended.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

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
    error::ErrorKind,
    journal::{JournalEvent, JournalLine, JournalNotice, JournalQuery, Position},
    watch::{EventsQuery, WatchQuery},
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
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long anything here may take on a busy computer.
const LIMIT: Duration = Duration::from_secs(20);

/// A journal in memory: what was written, in order.
#[derive(Debug, Clone)]
struct Written(watch::Sender<Vec<LogEntry>>);

impl Written {
    fn write(&self, unit: &str, text: &str) {
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
struct World {
    store: Arc<dyn Store>,
    operations: Operations,
    journal: Written,
    engine: Engine,
    /// What the server is told of the engine's seat.
    seat: watch::Sender<Option<StateReader>>,
    client: Client,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn name(text: &str) -> UnitName {
    text.parse().unwrap()
}

fn id(n: u8) -> MachineId {
    format!("{n:032x}").parse().unwrap()
}

impl World {
    async fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory());
        let (keys, stop) = (Keys::default(), CancellationToken::new());
        let operations =
            || Operations::new(Registry::new(Arc::clone(&store), Keys::default()), Timing::default());
        let engine = flotilla_engine::run(
            EngineConfig {
                store: Arc::clone(&store),
                keys,
                machine: id(1),
                api: None,
                timing: Timing::default(),
                witness: SharedWitness::default(),
            },
            stop.clone(),
        );
        let mut readers = engine.readers();
        let reader = timeout(LIMIT, readers.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
        let (journal, seat) = (Written(watch::Sender::default()), watch::Sender::new(reader));
        let node = Node {
            machine: id(1),
            host: "m1".to_owned(),
            version: "test",
            operations: operations(),
            readers: seat.subscribe(),
            hold: None,
            witness: SharedWitness::default(),
            journal: Arc::new(journal.clone()),
            known: Known::default(),
            status: Arc::new(NoStatus),
            peers: Peers::new(None),
            metrics: Metrics::default(),
            health: watch::Sender::new(Health::default()).subscribe(),
        };
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("api.sock");
        let router = flotilla_server::router(Arc::new(node));
        let serving = flotilla_server::serve_unix(&socket, None, router, stop.clone()).await.unwrap();
        tokio::spawn(serving);
        let client = Client::new(Endpoint::Unix(socket), None).unwrap();
        Self { operations: operations(), store, journal, engine, seat, client, stop, _folder: folder }
    }

    /// Lets a machine register that does nothing, and has no API.
    async fn register(&self, n: u8) {
        self.register_at(n, None).await;
    }

    async fn register_at(&self, n: u8, api: Option<String>) {
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

    /// Submits a unit, and waits until it is where it belongs: on a machine, or nowhere.
    async fn unit(&self, unit: &str, on: Option<u8>) {
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
    async fn event(&self, n: u64) {
        let change = EventChange {
            kind: "submitted".to_owned(),
            unit: Some(name(&format!("u{n}.service"))),
            machine: None,
            why: None,
        };
        let record =
            EventRecord { v: VERSION, at: Timestamp::now(), by: "test".to_owned(), changes: vec![change] };
        let key = Keys::default().spell(&Key::Event { writer: "test".to_owned(), sequence: n });
        let put = Operation::Put { key, value: record.encode(), lease: None };
        self.store.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
    }

    async fn journal(&self, query: &JournalQuery, from: Option<&Position>) -> Heard {
        Heard(self.client.journal(query, from).await.unwrap())
    }
}

/// A running journal.
struct Heard(SseStream<JournalEvent>);

impl Heard {
    async fn next(&mut self) -> Result<Option<JournalEvent>, ClientError> {
        Ok(timeout(LIMIT, self.0.next()).await.unwrap()?.map(|event| event.data))
    }

    async fn line(&mut self) -> JournalLine {
        match self.next().await.unwrap() {
            Some(JournalEvent::Line(line)) => *line,
            other => panic!("{other:?}"),
        }
    }

    async fn position(&mut self) -> Position {
        match self.next().await.unwrap() {
            Some(JournalEvent::Position(at)) => Position([(at.machine, at.cursor)].into()),
            other => panic!("{other:?}"),
        }
    }

    async fn notice(&mut self) -> JournalNotice {
        match self.next().await.unwrap() {
            Some(JournalEvent::Notice(notice)) => notice,
            other => panic!("{other:?}"),
        }
    }
}

fn query(units: &str, follow: bool, lines: Option<u32>) -> JournalQuery {
    JournalQuery { units: units.to_owned(), follow, lines, hold_ms: Some(10), ..JournalQuery::default() }
}

#[tokio::test]
async fn a_machine_has_a_position_before_it_has_a_line_and_nothing_is_lost_behind_it() {
    let world = World::new().await;
    world.register(1).await;
    world.unit("a.service", Some(1)).await;
    world.journal.write("other.service", "somebody else's");
    for lines in [0, 10] {
        let follow = query("a*", true, Some(lines));
        let mut stream = world.journal(&follow, None).await;
        let position = stream.position().await;
        drop(stream);
        for n in 0..30 {
            world.journal.write("a.service", &n.to_string());
        }
        // More than the newest ten came while nobody was connected.
        let mut stream = world.journal(&follow, Some(&position)).await;
        for n in 0..30 {
            assert_eq!(stream.line().await.message, n.to_string());
        }
        world.journal.write("other.service", "somebody else's");
        world.journal.write("a.service", "the next");
        assert_eq!(stream.line().await.message, "the next");
        // The others' lines are between the newest ones and what follows them.
        world.journal.0.send_replace(Vec::new());
        world.journal.write("other.service", "somebody else's");
    }
    (0..15).for_each(|n| world.journal.write("a.service", &n.to_string()));
    world.journal.write("other.service", "somebody else's");
    let mut stream = world.journal(&query("a.service", true, Some(10)), None).await;
    for n in 5..15 {
        assert_eq!(stream.line().await.message, n.to_string());
    }
    world.journal.write("a.service", "15");
    let next = stream.next().await.unwrap();
    let next =
        if matches!(next, Some(JournalEvent::Position(_))) { stream.next().await.unwrap() } else { next };
    assert!(matches!(next, Some(JournalEvent::Line(line)) if line.message == "15"));
}

#[tokio::test]
async fn a_journal_says_what_it_lacks() {
    let world = World::new().await;
    world.register(1).await;
    world.register(2).await;
    world.unit("b.service", Some(2)).await;
    world.unit("c.service", None).await;
    world.journal.write("b.service", "not on this machine");

    let refused = world.client.journal(&query("nobody", false, None), None).await.err().unwrap();
    assert_eq!(refused.kind(), Some(ErrorKind::NotFound), "{refused}");

    let mut stream = world.journal(&query("c", false, None), None).await;
    let notice = stream.notice().await;
    assert!(notice.machine.is_none() && notice.reason.contains("c.service is on no machine"), "{notice:?}");
    assert_eq!(stream.next().await.unwrap(), None);

    let mut stream = world.journal(&query("x*", true, None), None).await;
    assert!(stream.notice().await.reason.contains("x*"));

    for follow in [false, true] {
        let mut stream = world.journal(&query("b", follow, None), None).await;
        let notice = stream.notice().await;
        assert_eq!((notice.host.as_deref(), notice.machine), (Some("m2"), Some(id(2).to_string())));
        assert!(notice.reason.contains("serves no API"), "{}", notice.reason);
        if !follow {
            assert_eq!(stream.next().await.unwrap(), None);
        }
    }
}

/// A machine's API that says these lines to whoever asks for its journal.
async fn says(lines: Vec<JournalLine>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let lines = lines.iter().map(|line| format!("data: {}\n\n", serde_json::to_string(line).unwrap()));
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let answer = head.to_owned() + &lines.collect::<String>();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

#[tokio::test]
async fn a_machine_speaks_for_itself_only_and_its_cursors_are_not_believed_blindly() {
    let world = World::new().await;
    let line = |unit: &str, message: &str, cursor: &str| JournalLine {
        unit: unit.to_owned(),
        host: "m1".to_owned(),
        machine: id(1).to_string(),
        realtime_us: 1,
        priority: None,
        pid: None,
        identifier: None,
        message: message.to_owned(),
        invocation: None,
        cursor: cursor.to_owned(),
    };
    for (n, cursor) in [(2, "s=a;i=2\nid: s=b".to_owned()), (3, format!("s=a;i=2,{}~s=b", id(1)))] {
        let unit = format!("u{n}.service");
        let api = says(vec![line(&unit, "first", "s=a;i=1"), line(&unit, "second", &cursor)]).await;
        world.register_at(n, Some(api)).await;
        world.unit(&unit, Some(n)).await;
        let mut stream = world.journal(&query(&unit, false, None), None).await;
        let heard = stream.line().await;
        let whose = (heard.message.as_str(), heard.host, heard.machine);
        assert_eq!(whose, ("first", format!("m{n}"), id(n).to_string()));
        let notice = stream.notice().await;
        assert!(notice.machine == Some(id(n).to_string()) && notice.reason.contains("cursor"), "{notice:?}");
        assert_eq!(stream.next().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_pattern_that_cannot_be_understood_ends_the_journal() {
    let world = World::new().await;
    world.register(1).await;
    world.unit("a.service", Some(1)).await;
    for follow in [false, true] {
        let query = JournalQuery { grep: Some("(".to_owned()), ..query("a", follow, None) };
        let refused = world.journal(&query, None).await.next().await.unwrap_err();
        assert_eq!(refused.kind(), Some(ErrorKind::BadRequest), "{refused}");
    }
}

#[tokio::test]
async fn events_come_all_however_many_come_at_once() {
    let world = World::new().await;
    let follow = EventsQuery { follow: true, lines: Some(0), pattern: None };
    let mut stream = world.client.events(&follow, None).await.unwrap();
    // More than a page, before the reader takes the first.
    let count = 1_100;
    for n in 0..count {
        world.event(n).await;
    }
    for n in 0..count {
        let event = timeout(LIMIT, stream.next()).await.unwrap_or_else(|_| panic!("no event {n}"));
        assert_eq!(event.unwrap().unwrap().data.unit, Some(name(&format!("u{n}.service"))));
    }
    let last = stream.last_id().unwrap().to_owned();
    drop(stream);
    world.event(count).await;
    let mut stream = world.client.events(&follow, Some(&last)).await.unwrap();
    let event = timeout(LIMIT, stream.next()).await.unwrap().unwrap().unwrap().data;
    assert_eq!(event.unit, Some(name(&format!("u{count}.service"))));
}

#[tokio::test]
async fn streams_end_when_the_seat_is_lost_although_nothing_changes() {
    let world = World::new().await;
    world.register(1).await;
    world.unit("a.service", Some(1)).await;
    let mut watch = world.client.watch(&WatchQuery::default(), None).await.unwrap();
    let events = EventsQuery { follow: true, lines: Some(0), pattern: None };
    let mut events = world.client.events(&events, None).await.unwrap();
    let mut journal = world.journal(&query("a", true, Some(0)), None).await;
    world.journal.write("other.service", "a line, so that there is a place in the journal");
    // A seat that is lost and taken again is another one, even if nobody saw that there was none.
    let other = World::new().await;
    world.seat.send_replace(other.engine.reader());
    let given_up =
        |e: &ClientError| e.kind() == Some(ErrorKind::Unavailable) && e.to_string().contains("its seat");
    let end = async {
        loop {
            match watch.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a quiet end"),
                Err(e) => return e,
            }
        }
    };
    let e = timeout(LIMIT, end).await.unwrap();
    assert!(given_up(&e), "{e}");
    let e = timeout(LIMIT, events.next()).await.unwrap().unwrap_err();
    assert!(given_up(&e), "{e}");
    let e = loop {
        match journal.next().await {
            Ok(Some(JournalEvent::Position(_))) => {}
            Ok(other) => panic!("{other:?}"),
            Err(e) => break e,
        }
    };
    assert!(given_up(&e), "{e}");
}
