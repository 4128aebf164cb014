//! A real server and a real engine over a store in memory with as many units as asked for, all of them running
//! on machines that are only said to be there. For measuring lists and orders by hand:
//!
//!     cargo run --release -p flotilla-server --example many_units -- --units 1000000 /tmp/many.sock
//!     flotctl --endpoint unix:///tmp/many.sock list-units | wc -l
//!
//! It tells how much memory it takes without the store. With `--placed 0` the units are there and no machine has
//! them.

use std::{
    error::Error,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use flotilla_agent::{
    Known,
    journal::{Cursor, JournalError, LogEntry, LogSource, Query},
};
use flotilla_engine::EngineConfig;
use flotilla_registry::{
    keys::{Bucket, Key, Keys},
    operations::Operations,
    reads::Registry,
    records::{
        Cluster, MachineRecord, ManifestBucket, ManifestEntry, RangeGuard, RangeRecord, Record as _,
        ReportBucket, ReportHead, Target, Token, UnitRecord, UnitReport, VERSION, Without,
    },
    store::{LeaseId, Operation, Revision, Store, Txn, embedded::EmbeddedStore},
    timing::Timing,
    witness::SharedWitness,
};
use flotilla_server::{Health, Metrics, Node, Peers};
use flotilla_units::{ContentHash, MachineId, RANGE_MAX, UnitName};
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The engine's leases. An hour: nobody is waiting for them.
const LEASE: Duration = Duration::from_secs(3_600);

const TEXT: &str = "[Unit]\nDescription=One of many\n[Service]\nExecStart=/bin/sleep infinity\n";

#[derive(Debug)]
struct NoJournal;

#[async_trait]
impl LogSource for NoJournal {
    fn follow(&self, _query: Query) -> BoxStream<'static, Result<LogEntry, JournalError>> {
        Box::pin(futures_util::stream::empty())
    }

    async fn end(&self) -> Result<Option<Cursor>, JournalError> {
        Ok(None)
    }
}

struct Options {
    units: u64,
    machines: u64,
    placed: bool,
    socket: PathBuf,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options =
        Options { units: 1_000_000, machines: 0, placed: true, socket: PathBuf::from("/tmp/many.sock") };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--units" => options.units = args.next().ok_or("expected a number")?.parse()?,
            "--machines" => options.machines = args.next().ok_or("expected a number")?.parse()?,
            "--placed" => options.placed = args.next().as_deref() != Some("0"),
            socket => options.socket = socket.into(),
        }
    }
    if options.machines == 0 {
        options.machines = options.units.div_ceil(100);
    }
    Ok(options)
}

fn id(n: u64) -> Result<MachineId, Box<dyn Error>> {
    Ok(format!("{:032x}", n + 1).parse()?)
}

/// Resident memory, in MiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Puts keys into the store, as many at once as it takes.
struct Puts<'a> {
    store: &'a EmbeddedStore,
    waiting: Vec<Operation>,
    bytes: usize,
}

impl Puts<'_> {
    async fn put(&mut self, key: Key, value: Vec<u8>) -> Result<(), Box<dyn Error>> {
        self.bytes += value.len() + 200;
        self.waiting.push(Operation::Put { key: Keys::default().spell(&key), value, lease: None });
        if self.waiting.len() == 100 || self.bytes > 1_000_000 {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Box<dyn Error>> {
        self.bytes = 0;
        let then = std::mem::take(&mut self.waiting);
        self.store.txn(Txn { then, ..Txn::default() }).await?;
        Ok(())
    }
}

async fn fill(store: &EmbeddedStore, options: &Options) -> Result<(), Box<dyn Error>> {
    let (template, hash): (UnitName, _) = ("web@.service".parse()?, ContentHash::of(TEXT.as_bytes()));
    let (by, at) = ("bench".to_owned(), Timestamp::now());
    let mut puts = Puts { store, waiting: Vec::new(), bytes: 0 };
    let cluster =
        Cluster { v: VERSION, id: "many".to_owned(), epoch: 1, terms: Vec::new(), tokens_reserved: 1 << 40 };
    puts.put(Key::Cluster, cluster.encode()).await?;
    puts.put(Key::Content(hash), TEXT.as_bytes().to_vec()).await?;
    let record: UnitRecord = serde_json::from_value(serde_json::json!({
        "v": VERSION, "runtime": template, "current": hash, "target": "inactive", "generation": 1, "run": 0,
        "by": by, "at": at,
    }))?;
    puts.put(Key::Unit(template.clone()), record.encode()).await?;
    puts.put(Key::RangeGuard(template.clone()), RangeGuard { v: VERSION, generation: 1 }.encode()).await?;
    let target = if options.placed { Target::Launched } else { Target::Inactive };
    let mut from = 1;
    while from <= options.units {
        let to = options.units.min(from + RANGE_MAX - 1);
        let (run, deleting) = (u64::from(options.placed), false);
        let (by, without) = (by.clone(), Without::default());
        let said = RangeRecord { v: VERSION, target, generation: 1, run, by, at, deleting, without };
        puts.put(Key::Range { template: template.clone(), from, to }, said.encode()).await?;
        from = to + 1;
    }
    for machine in 0..options.machines {
        let id = id(machine)?;
        let nonce = format!("n{machine}");
        let record: MachineRecord = serde_json::from_value(serde_json::json!({
            "v": VERSION, "host": format!("m{machine}"), "addresses": ["10.0.0.1"], "boot_id": "boot", "nonce": nonce,
            "version": "bench", "lease": LeaseId(0), "lease_ttl_s": 30,
            "facts": { "kernel": "6.1.0-32-amd64", "os.id": "debian", "os.version": "12" },
        }))?;
        puts.put(Key::Machine(id), record.encode()).await?;
        let (mut manifest, mut report) = (vec![Vec::new(); 16], vec![Vec::new(); 16]);
        let units = (1..=options.units).skip(machine as usize).step_by(options.machines as usize);
        for number in units.filter(|_| options.placed) {
            let (unit, token) = (template.with_number(number)?, Token::new(1, number).ok_or("a token")?);
            let bucket = usize::from(Bucket::of(&unit).number());
            manifest[bucket].push(ManifestEntry {
                unit: unit.clone(),
                runtime: None,
                hash,
                target: Target::Launched,
                run: 1,
                token,
                departing: None,
                moving: None,
                adopt: false,
            });
            let said: UnitReport = serde_json::from_value(serde_json::json!({
                "unit": unit, "token": token, "run": 1, "hash": hash, "load": "loaded", "active": "active",
                "sub": "running", "since": at, "invocation": format!("{number:032x}"),
            }))?;
            report[bucket].push(said);
        }
        for (bucket, (mut entries, mut units)) in Bucket::all().zip(manifest.into_iter().zip(report)) {
            entries.sort_by(|a, b| a.unit.cmp(&b.unit));
            units.sort_by(|a, b| a.unit.cmp(&b.unit));
            puts.put(Key::Manifest(id, bucket), ManifestBucket { v: VERSION, entries }.encode()).await?;
            puts.put(Key::Report(id, bucket), ReportBucket { v: VERSION, units }.encode()).await?;
        }
        let head = ReportHead { v: VERSION, incarnation: nonce, seen: Revision(0) };
        puts.put(Key::ReportHead(id), head.encode()).await?;
    }
    puts.flush().await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let begun = Instant::now();
    let store = Arc::new(EmbeddedStore::in_memory());
    fill(&store, &options).await?;
    let of_store = memory();
    println!("stored after {:.1} s, {of_store} MiB", begun.elapsed().as_secs_f64());
    let (stop, machine) = (CancellationToken::new(), id(0)?);
    let store: Arc<dyn Store> = store;
    let config = EngineConfig {
        store: Arc::clone(&store),
        keys: Keys::default(),
        machine,
        boot_id: String::new(),
        api: None,
        // Taking a million units in takes longer than a lease, on a computer that does all of it.
        timing: Timing { leader_lease: LEASE, seat_lease: LEASE, ..Timing::default() },
        witness: SharedWitness::default(),
    };
    let engine = flotilla_engine::run(config, stop.clone());
    let mut readers = engine.readers();
    readers.wait_for(Option::is_some).await?;
    let state = memory().saturating_sub(of_store);
    println!("seated after {:.1} s, {state} MiB more", begun.elapsed().as_secs_f64());
    let node = Node {
        machine,
        host: "m0".to_owned(),
        version: "bench",
        operations: Operations::new(Registry::new(store, Keys::default()), Timing::default()),
        readers,
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
    let router = flotilla_server::router(Arc::new(node));
    let serving = flotilla_server::serve_unix(&options.socket, None, router, stop.clone()).await?;
    println!("serving {} units at {}", options.units, options.socket.display());
    Ok(serving.await?)
}
