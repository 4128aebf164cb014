//! A pretend agent: it obeys its manifest at once and reports, as design.md section 6 says, with
//! nothing underneath. Cutting its link leaves its units running, as on a real machine.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use flotilla_registry::{
    keys::{Bucket, Key, Keys},
    records::{
        Capacity, MachineRecord, ManifestBucket, ManifestEntry, Record as _, ReportBucket, ReportHead, Token,
        UnitReport, VERSION,
    },
    session::Session,
    store::{Compare, Operation, Revision, Store, StoreError, Txn, WatchEvent},
    stream::{Change, ChangeStream},
    timing::Timing,
    witness::SharedWitness,
};
use flotilla_units::{ContentHash, MachineId, UnitName};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

/// What runs on a machine: each unit with its token.
pub(crate) type Running = Arc<Mutex<BTreeMap<UnitName, Token>>>;

/// A machine with a pretend agent.
pub(crate) struct Machine {
    pub(crate) running: Running,
    /// Units that do not stop when they are told to.
    pub(crate) stubborn: Arc<Mutex<Vec<UnitName>>>,
    /// How its units start.
    pub(crate) starts: Arc<Mutex<Starts>>,
    task: JoinHandle<()>,
}

/// How units start.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    /// How long it takes.
    pub(crate) takes: Duration,
    /// How long after its start one that was active has failed.
    pub(crate) dies: Option<Duration>,
    /// They have ended at once, well.
    pub(crate) end: bool,
    /// Their start is queued and nothing of them has begun.
    pub(crate) wait: bool,
    /// The texts with which they fail.
    pub(crate) bad: Vec<ContentHash>,
}

struct Agent {
    id: MachineId,
    store: Arc<dyn Store>,
    keys: Keys,
    metadata: BTreeMap<String, String>,
    running: Running,
    stubborn: Arc<Mutex<Vec<UnitName>>>,
    starts: Arc<Mutex<Starts>>,
    /// Since when units run under their token.
    since: BTreeMap<UnitName, (Token, Instant)>,
    manifest: BTreeMap<Bucket, Vec<ManifestEntry>>,
    incarnations: u32,
}

impl Machine {
    pub(crate) fn boot(
        id: MachineId,
        store: Arc<dyn Store>,
        metadata: &[(&str, &str)],
        running: Running,
    ) -> Self {
        let (stubborn, starts) = (Arc::default(), Arc::default());
        let agent = Agent {
            id,
            store,
            keys: Keys::default(),
            metadata: metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            running: Arc::clone(&running),
            stubborn: Arc::clone(&stubborn),
            starts: Arc::clone(&starts),
            since: BTreeMap::new(),
            manifest: BTreeMap::new(),
            incarnations: 0,
        };
        Self { running, stubborn, starts, task: tokio::spawn(agent.run()) }
    }

    /// The machine is gone, and what ran on it.
    pub(crate) fn kill(&self) {
        self.task.abort();
        self.running.lock().unwrap().clear();
    }

    pub(crate) fn runs(&self, unit: &UnitName) -> bool {
        self.running.lock().unwrap().contains_key(unit)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    async fn run(mut self) {
        loop {
            if let Err(error) = self.one_lease().await {
                assert!(
                    error.is_transient()
                        || matches!(error, StoreError::LeaseNotFound(_) | StoreError::Other(_)),
                    "{error}"
                );
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn one_lease(&mut self) -> Result<(), StoreError> {
        let timing = Timing::default();
        let session =
            Session::open("the test", Arc::clone(&self.store), timing.machine_lease, &timing).await?;
        self.incarnations += 1;
        let nonce = format!("{}-{}", self.id.short(), self.incarnations);
        let key = self.keys.spell(&Key::Machine(self.id));
        let record = MachineRecord {
            v: VERSION,
            host: format!("host-{}", self.id.short()),
            addresses: Vec::new(),
            api: None,
            metadata: self.metadata.clone(),
            facts: BTreeMap::new(),
            capacity: Capacity::default(),
            boot_id: "boot".to_owned(),
            nonce: nonce.clone(),
            version: "test".to_owned(),
            lease: session.lease(),
            lease_ttl_s: 10,
            stopped: false,
        };
        // The first report, made from what runs, comes with the registration.
        let mut then = self.report(&nonce, Revision(0), &session);
        then.push(Operation::Put { key: key.clone(), value: record.encode(), lease: Some(session.lease()) });
        let answer = self.store.txn(Txn { when: vec![Compare::Absent(key)], then, or_else: vec![] }).await?;
        if !answer.succeeded {
            return session.revoke().await;
        }
        let mut changes = ChangeStream::new(
            Arc::clone(&self.store),
            &self.keys,
            self.keys.manifest_of(self.id),
            SharedWitness::default(),
            &timing,
        );
        let lost = session.handle();
        let mut told = Revision(0);
        loop {
            let takes = {
                let starts = self.starts.lock().unwrap();
                starts.takes.max(starts.dies.unwrap_or_default())
            };
            let starting = self.since.values().any(|(_, since)| since.elapsed() < takes);
            let change = tokio::select! {
                change = changes.next() => change,
                () = sleep(takes.max(Duration::from_millis(1))), if starting => {
                    let then = self.report(&nonce, told, &session);
                    self.store.txn(Txn { then, ..Txn::default() }).await?;
                    continue;
                }
                _ = lost.lost() => return Ok(()),
            };
            let seen = match change {
                Ok(Change::Reset { kvs, revision }) => {
                    self.manifest.clear();
                    kvs.iter().for_each(|kv| self.take(&kv.key, &kv.value));
                    revision
                }
                Ok(Change::Changes { revision, events }) => {
                    for event in events {
                        match event {
                            WatchEvent::Put(kv) => self.take(&kv.key, &kv.value),
                            WatchEvent::Delete { .. } => {}
                        }
                    }
                    revision
                }
                Ok(Change::Progress(_)) | Err(_) => continue,
            };
            self.obey();
            told = seen;
            let then = self.report(&nonce, seen, &session);
            self.store.txn(Txn { then, ..Txn::default() }).await?;
        }
    }

    fn take(&mut self, key: &str, value: &[u8]) {
        let Some(Key::Manifest(_, bucket)) = self.keys.read(key) else { return };
        // What cannot be read orders nothing.
        if let Ok(record) = ManifestBucket::decode(key, value) {
            self.manifest.insert(bucket, record.entries);
        }
    }

    fn obey(&mut self) {
        let mut running = self.running.lock().unwrap();
        let stubborn = self.stubborn.lock().unwrap();
        let entries: Vec<_> = self.manifest.values().flatten().collect();
        for entry in entries.iter().filter(|entry| entry.departing.is_some()) {
            // What runs under an older token is what the newer entry replaced while this machine was
            // cut off: the order to leave is for it too.
            let runs = running.get(&entry.unit).is_some_and(|token| *token <= entry.token);
            if runs && !stubborn.contains(&entry.unit) {
                running.remove(&entry.unit);
            }
        }
        for entry in entries.iter().filter(|entry| entry.departing.is_none()) {
            running.insert(entry.unit.clone(), entry.token);
            let since = self.since.entry(entry.unit.clone()).or_insert((entry.token, Instant::now()));
            if since.0 != entry.token {
                *since = (entry.token, Instant::now());
            }
        }
    }

    fn report(&self, nonce: &str, seen: Revision, session: &Session) -> Vec<Operation> {
        let running = self.running.lock().unwrap();
        let mut buckets: BTreeMap<Bucket, Vec<UnitReport>> =
            Bucket::all().map(|bucket| (bucket, Vec::new())).collect();
        let mut reported: Vec<(UnitName, Token, bool)> = Vec::new();
        for entry in self.manifest.values().flatten() {
            let runs = running.get(&entry.unit).is_some_and(|token| *token <= entry.token);
            reported.push((entry.unit.clone(), entry.token, runs));
        }
        for (unit, token) in running.iter() {
            if !reported.iter().any(|(name, of, _)| name == unit && of == token) {
                reported.push((unit.clone(), *token, true));
            }
        }
        let starts = self.starts.lock().unwrap();
        let entries: Vec<_> = self.manifest.values().flatten().collect();
        for (unit, token, runs) in reported {
            let entry = entries.iter().find(|entry| entry.unit == unit && entry.token == token);
            let starting =
                self.since.get(&unit).is_some_and(|(of, at)| *of == token && at.elapsed() < starts.takes);
            let died = starts.dies.is_some_and(|time| {
                self.since.get(&unit).is_some_and(|(of, at)| *of == token && at.elapsed() >= time)
            });
            let fails = died || entry.is_some_and(|entry| starts.bad.contains(&entry.hash));
            buckets.entry(Bucket::of(&unit)).or_default().push(UnitReport {
                unit,
                token: Some(token),
                run: entry.map_or(1, |entry| entry.run),
                hash: None,
                load: "loaded".into(),
                active: match (starting, fails) {
                    _ if !runs || starts.end || starts.wait => "inactive".into(),
                    (true, _) => "activating".into(),
                    (false, true) => "failed".into(),
                    (false, false) => "active".into(),
                },
                sub: if runs { "running".into() } else { "dead".into() },
                since: None,
                invocation: None,
                result: None,
                exit_status: None,
                restarts: 0,
                gone: !runs,
                stray: false,
                starting: runs && starts.wait,
                stopped_locally: false,
                problem: None,
            });
        }
        let lease = Some(session.lease());
        let mut out: Vec<Operation> = buckets
            .into_iter()
            .map(|(bucket, mut units)| {
                units.sort_by(|a, b| (&a.unit, a.token).cmp(&(&b.unit, b.token)));
                let key = self.keys.spell(&Key::Report(self.id, bucket));
                Operation::Put { key, value: ReportBucket { v: VERSION, units }.encode(), lease }
            })
            .collect();
        let head = ReportHead { v: VERSION, incarnation: nonce.to_owned(), seen };
        let key = self.keys.spell(&Key::ReportHead(self.id));
        out.push(Operation::Put { key, value: head.encode(), lease });
        out
    }
}
