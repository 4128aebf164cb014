//! Making the machine known to the cluster, and telling two machines of one id apart.
//!
//! ```text
//!            absent                                   created by compare, with the
//!  ┌───────┐ ───────────────────────────────────────▶ whole first report ──┐
//!  │ Claim │   ours, and its lease lives                                    ▼
//!  │       │ ──────────────────────▶ renew from now on, rewrite ──▶ Registered
//!  └───────┘   somebody's
//!    ▲  │ ────────────▶ wait until it ends ── renewed twice ──▶ Refused: two machines, one id
//!    └──┴──────────────────────┘ ended
//! ```
//!
//! The claim needs no report: a registration that lives is renewed before anything is known of
//! what runs here. Only writing waits for the whole report.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use flotilla_registry::{
    keys::{Bucket, Key, Keys},
    records::{Cluster, MachineRecord, Record as _, RecordError, ReportHead, VERSION},
    session::{HandOverError, LostReason, Session},
    store::{
        Compare, KeyRange, KeyValue, LeaseId, Operation, RangeRequest, Revision, Store, StoreError, Txn,
    },
    timing::Timing,
    witness::{SharedWitness, WentBack},
};
use flotilla_units::MachineId;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{board::Board, files::FileError, identity::Identity};

mod another;

pub(crate) use another::{LOOK_AGAIN, longest};

/// Why a machine is not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// Another machine with the same id lives.
    #[error(
        "machine id {machine} is in use by {other} (boot {other_boot}), which renews its lease; this machine is \
         {this}. Two machines share an id, probably copies of one disk image: on one of them remove \
         /etc/machine-id, run systemd-machine-id-setup, and start flotillad again"
    )]
    Duplicate {
        /// The id.
        machine: MachineId,
        /// This machine's host name.
        this: String,
        /// The other's.
        other: String,
        /// The other's boot id.
        other_boot: String,
    },
    /// The store failed.
    #[error("the machine's registration cannot be written")]
    Store(#[from] StoreError),
    /// The record there cannot be read.
    #[error("the machine's record cannot be read")]
    Record(#[from] RecordError),
    /// The store went back.
    #[error(transparent)]
    WentBack(#[from] WentBack),
    /// The identity cannot be kept.
    #[error("the machine's identity cannot be kept")]
    Identity(#[from] FileError),
    /// Somebody else wrote what only this machine writes.
    #[error("{0} changed under the agent's hands; it registers again")]
    Overtaken(String),
    /// The lease ended while the report was put together.
    #[error("the machine's lease was lost while its units were read: {0}")]
    Lost(LostReason),
    /// A write of this agent's own, the answer to which was not heard, arrived after the store was read.
    #[error("a write of {0} arrived late; it is written again")]
    Late(String),
}

/// What is needed to register.
#[derive(Debug, Clone)]
pub(crate) struct Registrar {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: Keys,
    pub(crate) machine: MachineId,
    /// What this machine says of itself; nonce, lease and its TTL are filled in here.
    pub(crate) record: MachineRecord,
    pub(crate) run: PathBuf,
    pub(crate) witness: SharedWitness,
    pub(crate) timing: Timing,
}

/// A machine that is registered: its lease, and what is in the store under it.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) session: Session,
    pub(crate) identity: Identity,
    pub(crate) record: MachineRecord,
    /// The machine key's create revision: the incarnation.
    pub(crate) created: Revision,
    /// The mod revision of each of this machine's keys, as last acknowledged.
    pub(crate) acknowledged: Acknowledged,
    /// The `seen` of the head that was written with the whole report: the board's may be newer.
    pub(crate) seen: Revision,
    /// The whole report as an earlier process left it in the store; `None` once this one has written its own.
    left: Option<Vec<KeyValue>>,
}

/// What the store has under this machine's id.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Nothing: it may be created.
    Free,
    /// This boot's registration, renewed from now on; record and report are as an earlier process left them.
    Own(Box<Registered>),
    /// Another machine's, or this one's from before its boot.
    Another(KeyValue, Box<MachineRecord>),
}

/// The mod revisions of a machine's own keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acknowledged {
    pub(crate) machine: Revision,
    pub(crate) head: Option<Revision>,
    pub(crate) buckets: BTreeMap<Bucket, Revision>,
}

/// A whole registration to write.
struct Whole {
    txn: Txn,
    /// The `seen` in it.
    seen: Revision,
    /// The buckets that it writes: what the store has after it.
    buckets: Vec<Bucket>,
}

/// What the store has of this machine.
struct Found {
    machine: Option<(KeyValue, MachineRecord)>,
    acknowledged: Acknowledged,
    report: Vec<KeyValue>,
}

impl Registrar {
    /// Looks whose registration there is, and renews it from now on if it is this boot's.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`] if it is this boot's and its keys are about to go.
    pub(crate) async fn claim(&self) -> Result<Claim, RegistrationError> {
        let found = self.find().await?;
        let Some((kv, record)) = found.machine else { return Ok(Claim::Free) };
        let Some(identity) = Identity::read(&self.run).filter(|identity| identity.wrote(&record)) else {
            return Ok(Claim::Another(kv, Box::new(record)));
        };
        let session = Session::adopt("this machine", self.store.clone(), record.lease, &self.timing).await?;
        Ok(Claim::Own(Box::new(Registered {
            session,
            identity,
            record,
            created: kv.create_revision,
            acknowledged: found.acknowledged,
            seen: Revision::default(),
            left: Some(found.report),
        })))
    }

    /// Reads this machine's keys and checks that the store has not gone back.
    async fn find(&self) -> Result<Found, RegistrationError> {
        let before = self.witness.get();
        let read = |range| Operation::Get(range);
        let answer = self
            .store
            .txn(Txn {
                then: vec![
                    read(KeyRange::key(self.keys.spell(&Key::Cluster))),
                    read(KeyRange::key(self.machine_key())),
                    read(self.keys.report_of(self.machine)),
                ],
                ..Txn::default()
            })
            .await?;
        let mut gets = answer.gets.into_iter();
        let cluster = gets.next().unwrap_or_default().first().map(Cluster::from_kv).transpose()?;
        self.witness.check(&before, answer.revision, cluster.as_ref())?;
        let machine = match gets.next().unwrap_or_default().into_iter().next() {
            Some(kv) => {
                let record = MachineRecord::from_kv(&kv)?;
                Some((kv, record))
            }
            None => None,
        };
        let mut acknowledged = Acknowledged {
            machine: machine.as_ref().map_or(Revision(0), |(kv, _)| kv.mod_revision),
            ..Acknowledged::default()
        };
        let report = gets.next().unwrap_or_default();
        for kv in &report {
            match self.keys.read(&kv.key) {
                Some(Key::ReportHead(_)) => acknowledged.head = Some(kv.mod_revision),
                Some(Key::Report(_, bucket)) => {
                    acknowledged.buckets.insert(bucket, kv.mod_revision);
                }
                _ => {}
            }
        }
        Ok(Found { machine, acknowledged, report })
    }

    /// Creates the key, under a new lease and nonce, with the whole report that is on the board.
    ///
    /// # Errors
    /// [`RegistrationError::Overtaken`] if there is one by now; else what the store said.
    pub(crate) async fn create(&self, board: &watch::Sender<Board>) -> Result<Registered, RegistrationError> {
        let ttl = self.lease_now().await?;
        let session = Session::open("this machine", self.store.clone(), ttl, &self.timing).await?;
        let nonce = format!("{:032x}", rand::random::<u128>());
        let identity = Identity { nonce, leases: vec![session.lease()] };
        // Before the key: an agent that dies in between finds its own nonce in the store.
        self.keep(&identity);
        let record = self.filled(&identity, session.lease(), ttl);
        let acknowledged = Acknowledged::default();
        let mut whole = self.whole(board, &record, &acknowledged);
        whole.txn.when.push(Compare::Absent(self.machine_key()));
        let wrote = match self.store.txn(whole.txn).await {
            Ok(response) => response.succeeded.then_some(response.revision),
            Err(StoreError::OutcomeUnknown { .. }) => {
                let found = self.find().await?;
                found.machine.filter(|(_, found)| found.nonce == record.nonce).map(|(kv, _)| kv.mod_revision)
            }
            Err(error) => return Err(error.into()),
        };
        let Some(revision) = wrote else {
            let _ = session.revoke().await;
            return Err(RegistrationError::Overtaken(self.machine_key()));
        };
        info!(lease = ?session.lease(), incarnation = %record.nonce, "this machine is registered in the cluster");
        let acknowledged = Acknowledged::at(revision, whole.buckets);
        let seen = whole.seen;
        Ok(Registered { session, identity, record, created: revision, acknowledged, seen, left: None })
    }

    /// Returns the lease that a grant takes now: a longer one in a large cluster.
    ///
    /// The store counts a sixteenth of the machines, those whose ids begin as this one's does: counting takes it
    /// time for each, and ten thousand that boot together would have it count ten thousand each. Machine ids are
    /// random, machine-id(5).
    async fn lease_now(&self) -> Result<Duration, RegistrationError> {
        let machine = self.machine.to_string();
        let alike = format!("{}{}", self.keys.all_of("machines").start, &machine[..1]);
        let sixteenth = self.store.range(RangeRequest::all(KeyRange::prefix(alike)).count()).await?.count;
        Ok(self.timing.machine_lease_for(sixteenth * 16))
    }

    /// Goes on with a claimed registration: writes it anew, with the whole report that is on the board.
    ///
    /// # Errors
    /// [`RegistrationError::Overtaken`] if it is not as it was claimed; else what the store said.
    pub(crate) async fn take_up(
        &self,
        mut claimed: Registered,
        board: &watch::Sender<Board>,
    ) -> Result<Registered, RegistrationError> {
        let (lease, ttl) = (claimed.session.lease(), Duration::from_secs(claimed.record.lease_ttl_s));
        let now = self.lease_now().await?;
        if claimed.record.stopped || ttl > now {
            claimed.left = None;
            self.hand_over(&mut claimed, now, false, board).await?;
        } else {
            self.rewrite(&mut claimed, lease, ttl, board).await?;
        }
        info!(lease = ?claimed.session.lease(), incarnation = %claimed.record.nonce, "took up this machine's registration again after a restart");
        Ok(claimed)
    }

    /// Puts every key of this machine under a lease of another length: with the report on the board, or
    /// with the one that was left in the store if this process has not written its own.
    ///
    /// # Errors
    /// No lease was granted or the keys were not moved; the old lease goes on.
    pub(crate) async fn hand_over(
        &self,
        registered: &mut Registered,
        ttl: Duration,
        stopped: bool,
        board: &watch::Sender<Board>,
    ) -> Result<(), RegistrationError> {
        let mut identity = registered.identity.clone();
        let (created, acknowledged) = (registered.created, registered.acknowledged.clone());
        let left = registered.left.clone();
        // Before there is a systemd its version is not known: it stays as an earlier process found it.
        let found = if left.is_some() { registered.record.facts.clone() } else { BTreeMap::new() };
        let mut written = None;
        let slot = &mut written;
        let moved = registered.session.hand_over(ttl, |lease, granted| {
            identity.add(lease);
            self.keep(&identity);
            let mut record = MachineRecord { stopped, ..self.filled(&identity, lease, granted) };
            for (key, value) in found {
                record.facts.entry(key).or_insert(value);
            }
            let Whole { txn, seen, buckets } = match left {
                Some(left) => self.leaving(left, &record, created, &acknowledged),
                None => self.rewriting(board, &record, created, &acknowledged),
            };
            async move {
                let revision = self.wrote(txn, &record, acknowledged.machine).await?;
                *slot = Some((record, Acknowledged::at(revision, buckets), seen));
                Ok(())
            }
        });
        moved.await.map_err(|error| match error {
            HandOverError::Grant { source, .. } => RegistrationError::Store(source),
            HandOverError::Move { source, .. } => source,
        })?;
        registered.identity = identity;
        if let Some((record, acknowledged, seen)) = written {
            (registered.record, registered.acknowledged, registered.seen) = (record, acknowledged, seen);
        }
        Ok(())
    }

    async fn rewrite(
        &self,
        registered: &mut Registered,
        lease: LeaseId,
        ttl: Duration,
        board: &watch::Sender<Board>,
    ) -> Result<(), RegistrationError> {
        let record = self.filled(&registered.identity, lease, ttl);
        let Whole { txn, seen, buckets } =
            self.rewriting(board, &record, registered.created, &registered.acknowledged);
        let revision = self.wrote(txn, &record, registered.acknowledged.machine).await?;
        (registered.record, registered.seen, registered.left) = (record, seen, None);
        registered.acknowledged = Acknowledged::at(revision, buckets);
        Ok(())
    }

    /// Reads the acknowledged revisions anew, after a write that did not succeed.
    ///
    /// # Errors
    /// The registration is not this incarnation's any more, or the store went back.
    pub(crate) async fn resolve(&self, registered: &mut Registered) -> Result<(), RegistrationError> {
        let found = self.find().await?;
        match found.machine {
            Some((kv, _)) if kv.create_revision == registered.created => {
                registered.acknowledged = found.acknowledged;
                registered.left = registered.left.take().map(|_| found.report);
                Ok(())
            }
            _ => Err(RegistrationError::Overtaken(self.machine_key())),
        }
    }

    /// Returns the put of a bucket, or of the head, with the compare that guards it.
    pub(crate) fn put(
        &self,
        key: String,
        value: Vec<u8>,
        lease: LeaseId,
        acknowledged: Option<Revision>,
    ) -> (Compare, Operation) {
        let compare = match acknowledged {
            Some(revision) => Compare::ModRevision(key.clone(), revision),
            None => Compare::Absent(key.clone()),
        };
        (compare, Operation::Put { key, value, lease: Some(lease) })
    }

    /// Returns the transaction that writes the machine and its whole report. A bucket that has nothing in it and is
    /// not in the store is not written: ten thousand machines that register would write sixteen such each.
    fn whole(&self, board: &watch::Sender<Board>, record: &MachineRecord, known: &Acknowledged) -> Whole {
        let mut seen = Revision::default();
        let mut buckets = BTreeMap::new();
        board.send_if_modified(|board| {
            board.take_changed();
            seen = board.seen;
            buckets = board.buckets(&Bucket::all().collect());
            false
        });
        let lease = record.lease;
        let head = ReportHead { v: VERSION, incarnation: record.nonce.clone(), seen };
        let key = |key: Key| self.keys.spell(&key);
        let (compare, put) = self.put(key(Key::ReportHead(self.machine)), head.encode(), lease, known.head);
        let (mut when, mut then, mut written) = (vec![compare], vec![put], Vec::new());
        for (bucket, report) in buckets {
            let (at, is_empty) = (known.buckets.get(&bucket).copied(), report.units.is_empty());
            let (compare, put) = self.put(key(Key::Report(self.machine, bucket)), report.encode(), lease, at);
            when.push(compare);
            if at.is_some() || !is_empty {
                then.push(put);
                written.push(bucket);
            }
        }
        let (key, value) = (self.machine_key(), record.encode());
        then.push(Operation::Put { key, value, lease: Some(lease) });
        Whole { txn: Txn { when, then, or_else: Vec::new() }, seen, buckets: written }
    }

    /// Returns the transaction that puts record and report under the record's lease, the report as it is.
    fn leaving(
        &self,
        left: Vec<KeyValue>,
        record: &MachineRecord,
        created: Revision,
        known: &Acknowledged,
    ) -> Whole {
        let lease = record.lease;
        let bucket = |kv: &KeyValue| match self.keys.read(&kv.key) {
            Some(Key::Report(_, bucket)) => Some(bucket),
            _ => None,
        };
        let buckets = left.iter().filter_map(bucket).collect();
        let puts =
            left.into_iter().map(|kv| self.put(kv.key, kv.value.to_vec(), lease, Some(kv.mod_revision)));
        let (mut when, mut then): (Vec<_>, Vec<_>) = puts.unzip();
        when.push(Compare::CreateRevision(self.machine_key(), created));
        when.push(Compare::ModRevision(self.machine_key(), known.machine));
        then.push(Operation::Put { key: self.machine_key(), value: record.encode(), lease: Some(lease) });
        Whole { txn: Txn { when, then, or_else: Vec::new() }, seen: Revision::default(), buckets }
    }

    fn rewriting(
        &self,
        board: &watch::Sender<Board>,
        record: &MachineRecord,
        created: Revision,
        known: &Acknowledged,
    ) -> Whole {
        let mut whole = self.whole(board, record, known);
        whole.txn.when.push(Compare::CreateRevision(self.machine_key(), created));
        whole.txn.when.push(Compare::ModRevision(self.machine_key(), known.machine));
        whole
    }

    /// Writes the whole registration, and resolves an unknown outcome by reading.
    ///
    /// A record that is as this one and no newer than `before` is an earlier process's: then the write
    /// did not arrive, or will later, and is given up to be made again, with which it is void.
    async fn wrote(
        &self,
        txn: Txn,
        record: &MachineRecord,
        before: Revision,
    ) -> Result<Revision, RegistrationError> {
        match self.store.txn(txn).await {
            Ok(response) if response.succeeded => return Ok(response.revision),
            Ok(_) => {}
            Err(StoreError::OutcomeUnknown { .. }) => {
                if let Some((kv, found)) = self.find().await?.machine
                    && found == *record
                    && kv.mod_revision > before
                {
                    return Ok(kv.mod_revision);
                }
            }
            Err(error) => return Err(error.into()),
        }
        Err(RegistrationError::Overtaken(self.machine_key()))
    }

    fn filled(&self, identity: &Identity, lease: LeaseId, ttl: Duration) -> MachineRecord {
        let nonce = identity.nonce.clone();
        MachineRecord { nonce, lease, lease_ttl_s: ttl.as_secs(), stopped: false, ..self.record.clone() }
    }

    /// Keeps the identity. Without it a restart has to wait for the old registration to end, which
    /// is no reason not to run: a full `/run` is reported and gone on with.
    fn keep(&self, identity: &Identity) {
        if let Err(error) = identity.write(&self.run) {
            warn!(%error, source = %error.source, "the machine's identity is not kept; a restart of flotillad will wait for its lease to end");
        }
    }

    pub(crate) fn machine_key(&self) -> String {
        self.keys.spell(&Key::Machine(self.machine))
    }
}

impl Acknowledged {
    /// The machine, its head and these buckets were written at this revision; there are no others.
    fn at(revision: Revision, buckets: Vec<Bucket>) -> Self {
        let buckets = buckets.into_iter().map(|bucket| (bucket, revision)).collect();
        Self { machine: revision, head: Some(revision), buckets }
    }
}

/// Gives a machine's lease up, for good: at its shutdown, after its units have stopped. Does
/// nothing if the registration in the store is not this machine's present one.
///
/// # Errors
/// The store cannot be asked; the lease runs out by itself.
pub async fn hand_back(
    store: &dyn Store,
    keys: &Keys,
    machine: MachineId,
    run: &std::path::Path,
) -> Result<bool, RegistrationError> {
    let Some(identity) = Identity::read(run) else { return Ok(false) };
    let key = keys.spell(&Key::Machine(machine));
    let answer = store.range(RangeRequest::all(KeyRange::key(key))).await?;
    let Some(kv) = answer.kvs.first() else { return Ok(false) };
    let record = MachineRecord::from_kv(kv)?;
    if !identity.wrote(&record) {
        return Ok(false);
    }
    store.lease_revoke(record.lease).await?;
    Ok(true)
}
