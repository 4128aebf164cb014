//! Machines that are only said to be there.

use std::{collections::BTreeMap, error::Error, sync::Arc, thread};

use flotilla_registry::{
    keys::{Bucket, Key, Keys},
    records::{
        Cluster, MachineRecord, ManifestBucket, ManifestEntry, RangeGuard, RangeRecord, Record as _,
        ReportBucket, ReportHead, Target, Token, UnitRecord, UnitReport, VERSION, Without,
    },
    store::{
        KeyRange, KeyValue, LeaseId, Operation, RangeRequest, Revision, Store, StoreError, Txn, WatchEvent,
        WatchMessage,
    },
};
use flotilla_units::{ContentHash, MachineId, RANGE_MAX, UnitName};
use futures_util::StreamExt as _;
use jiff::Timestamp;

const TEXT: &str = "[Unit]\nDescription=One of many\n[Service]\nExecStart=/bin/sleep infinity\n";

/// How many operations one transaction has here.
const OPERATIONS: usize = 100;

/// The machines, and what they are to run.
pub(crate) struct Fleet {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) machines: u64,
    pub(crate) units: u64,
}

/// Returns a machine's id: they are spread as real ones are.
pub(crate) fn id(n: u64) -> MachineId {
    let hash = ContentHash::of(&n.to_le_bytes()).to_string();
    hash[..32].parse().expect("digits")
}

fn template() -> UnitName {
    "web@.service".parse().expect("a name")
}

fn nonce(machine: MachineId) -> String {
    format!("n{}", machine.short())
}

fn put(key: &Key, value: Vec<u8>) -> Operation {
    Operation::Put { key: Keys::default().spell(key), value, lease: None }
}

fn reported(entry: &ManifestEntry, at: Timestamp) -> UnitReport {
    let mut report: UnitReport = serde_json::from_value(serde_json::json!({
        "unit": entry.unit, "load": "loaded", "active": "active", "sub": "running",
        "invocation": format!("{:032x}", entry.token.counter()),
    }))
    .expect("a report");
    (report.token, report.run, report.hash) = (Some(entry.token), entry.run, Some(entry.hash));
    report.since = Some(at);
    report
}

impl Fleet {
    async fn write(&self, operations: Vec<Operation>) -> Result<Revision, StoreError> {
        let mut revision = Revision(0);
        for some in operations.chunks(OPERATIONS) {
            revision = self.store.txn(Txn { then: some.to_vec(), ..Txn::default() }).await?.revision;
        }
        Ok(revision)
    }

    /// Writes what there is of a cluster with machines, and the units too, running, if it is a full one.
    pub(crate) async fn register(&self, full: bool) -> Result<(), Box<dyn Error>> {
        let hash = ContentHash::of(TEXT.as_bytes());
        let reserved = if full { 1 << 40 } else { 0 };
        let (id_of, epoch, terms) = ("leading".to_owned(), 1, Vec::new());
        let cluster = Cluster { v: VERSION, id: id_of, epoch, terms, tokens_reserved: reserved };
        let record: UnitRecord = serde_json::from_value(serde_json::json!({
            "v": VERSION, "runtime": template(), "current": hash, "target": "inactive", "generation": 1, "run": 0,
            "by": "bench", "at": Timestamp::now(),
        }))?;
        self.write(vec![
            put(&Key::Cluster, cluster.encode()),
            put(&Key::Content(hash), TEXT.as_bytes().to_vec()),
            put(&Key::Unit(template()), record.encode()),
            put(&Key::RangeGuard(template()), RangeGuard { v: VERSION, generation: 1 }.encode()),
        ])
        .await?;
        for n in 0..self.machines {
            let machine = id(n);
            let record: MachineRecord = serde_json::from_value(serde_json::json!({
                "v": VERSION, "host": format!("m{n}"), "addresses": ["10.0.0.1"], "boot_id": "boot",
                "nonce": nonce(machine), "version": "bench", "lease": LeaseId(0), "lease_ttl_s": 30,
                "facts": { "kernel": "6.1.0-32-amd64", "os.id": "debian", "os.version": "12" },
            }))?;
            let head = ReportHead { v: VERSION, incarnation: nonce(machine), seen: Revision(0) };
            let keys = [(Key::Machine(machine), record.encode()), (Key::ReportHead(machine), head.encode())];
            self.write(keys.iter().map(|(key, value)| put(key, value.clone())).collect()).await?;
            if full {
                self.run_already(n, hash).await?;
            }
        }
        if full {
            self.say().await?;
        }
        Ok(())
    }

    async fn run_already(&self, n: u64, hash: ContentHash) -> Result<(), Box<dyn Error>> {
        let (machine, at) = (id(n), Timestamp::now());
        let mut manifest: BTreeMap<Bucket, Vec<ManifestEntry>> = BTreeMap::new();
        for number in (n + 1..=self.units).step_by(usize::try_from(self.machines)?) {
            let (unit, token) = (template().with_number(number)?, Token::new(1, number).ok_or("a token")?);
            let (target, run, adopt) = (Target::Launched, 1, false);
            let (runtime, departing, moving) = (None, None, None);
            let bucket = manifest.entry(Bucket::of(&unit)).or_default();
            bucket.push(ManifestEntry { unit, runtime, hash, target, run, token, departing, moving, adopt });
        }
        let mut all = Vec::new();
        for (bucket, mut entries) in manifest {
            entries.sort_by(|a, b| a.unit.cmp(&b.unit));
            let units = entries.iter().map(|entry| reported(entry, at)).collect();
            all.push(put(&Key::Report(machine, bucket), ReportBucket { v: VERSION, units }.encode()));
            all.push(put(&Key::Manifest(machine, bucket), ManifestBucket { v: VERSION, entries }.encode()));
        }
        self.write(all).await?;
        Ok(())
    }

    /// Says of all units that they are to run.
    async fn say(&self) -> Result<(), Box<dyn Error>> {
        let mut from = 1;
        while from <= self.units {
            let to = self.units.min(from + RANGE_MAX - 1);
            let (target, at, by) = (Target::Launched, Timestamp::now(), "bench".to_owned());
            let without = Without::default();
            let said =
                RangeRecord { v: VERSION, target, generation: 1, run: 1, by, at, deleting: false, without };
            self.write(vec![put(&Key::Range { template: template(), from, to }, said.encode())]).await?;
            from = to + 1;
        }
        Ok(())
    }

    /// Says of all units that they are to run, with machines that report them so at once, from a thread of their own.
    pub(crate) async fn order(&self, machines: u64, units: u64) -> Result<(), Box<dyn Error>> {
        let now = self.store.range(RangeRequest::all(KeyRange::key("/flotilla/cluster"))).await?.revision;
        let fleet = Self { store: Arc::clone(&self.store), machines, units };
        thread::Builder::new().name("machines".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(fleet.obey(Revision(now.0 + 1))))
        })?;
        self.say().await
    }

    async fn obey(&self, from: Revision) -> Result<(), StoreError> {
        let keys = Keys::default();
        let mut watch = self.store.watch(keys.all_of("manifests"), from).await?;
        while let Some(message) = watch.next().await {
            let WatchMessage::Events { revision, events } = message? else { continue };
            let mut by_machine: BTreeMap<MachineId, Vec<Operation>> = BTreeMap::new();
            for event in events {
                let WatchEvent::Put(kv) = event else { continue };
                let Some(Key::Manifest(machine, bucket)) = keys.read(&kv.key) else { continue };
                by_machine.entry(machine).or_default().push(report(machine, bucket, &kv));
            }
            for (machine, mut all) in by_machine {
                let head = ReportHead { v: VERSION, incarnation: nonce(machine), seen: revision };
                all.push(put(&Key::ReportHead(machine), head.encode()));
                self.write(all).await?;
            }
        }
        Ok(())
    }
}

/// Reports a bucket's units as its entries ask.
fn report(machine: MachineId, bucket: Bucket, kv: &KeyValue) -> Operation {
    let at = Timestamp::now();
    let entries = ManifestBucket::from_kv(kv).map(|record| record.entries).unwrap_or_default();
    let units = entries.iter().map(|entry| reported(entry, at)).collect();
    put(&Key::Report(machine, bucket), ReportBucket { v: VERSION, units }.encode())
}
