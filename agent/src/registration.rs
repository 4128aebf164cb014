//! Making the machine known to the cluster, and telling two machines of one id apart.
//!
//! ```text
//!            absent                                      created by compare, with the
//!  ┌──────┐ ─────────────────────────────────────────▶ whole first report ──┐
//!  │ Look │   ours, and its lease lives                                      ▼
//!  │      │ ────────────────────────────────────────▶ adopt, rewrite ──▶ Registered
//!  └──────┘   somebody's
//!    ▲  │ ────────────▶ wait until it ends ── renewed twice ──▶ Refused: two machines, one id
//!    └──┴──────────────────────┘ ended
//! ```

use std::{path::PathBuf, sync::Arc, time::Duration};

use flotilla_registry::{
    keys::{Bucket, Key, Keys},
    records::{Cluster, MachineRecord, Record as _, RecordError, ReportHead, VERSION},
    session::{HandOverError, Session},
    store::{
        Compare, KeyRange, KeyValue, LeaseId, Operation, RangeRequest, Revision, Store, StoreError, Txn,
    },
    timing::Timing,
    witness::{SharedWitness, WentBack},
};
use flotilla_units::MachineId;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use crate::{board::Board, files::FileError, identity::Identity};

/// How often another's key is looked at while it is waited for. Half a second: a machine that was
/// cut off and rebooted joins half a second after its old lease ended.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How much longer than its TTL another's key is waited for: etcd's own expiry lags up to a second,
/// and clocks of a changing leader another.
const EXPIRY_LAG: Duration = Duration::from_secs(2);

/// How often a lease's remaining time must rise before somebody is said to renew it. Twice: a
/// change of etcd's leader gives every lease its whole time again, once.
const RISES_OF_A_RENEWAL: u32 = 2;

/// How much the remaining time must rise to count: it is told in whole seconds.
const RISE_MIN: Duration = Duration::from_millis(1_500);

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
}

/// The mod revisions of a machine's own keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acknowledged {
    pub(crate) machine: Revision,
    pub(crate) head: Option<Revision>,
    pub(crate) buckets: std::collections::BTreeMap<Bucket, Revision>,
}

/// What the store has of this machine.
struct Found {
    machine: Option<(KeyValue, MachineRecord)>,
    acknowledged: Acknowledged,
}

impl Registrar {
    /// Registers the machine with the whole first report that is on the board.
    ///
    /// # Errors
    /// [`RegistrationError::Duplicate`] is final; after the others it may be tried again.
    pub(crate) async fn register(
        &self,
        board: &watch::Sender<Board>,
    ) -> Result<Registered, RegistrationError> {
        loop {
            let found = self.find().await?;
            let Some((kv, record)) = found.machine else { return self.create(board).await };
            match Identity::read(&self.run).filter(|identity| identity.wrote(&record)) {
                Some(identity) => match self.adopt(identity, &kv, &record, found.acknowledged, board).await {
                    // Its keys are about to go.
                    Err(RegistrationError::Store(StoreError::LeaseNotFound(_))) => sleep(LOOK_AGAIN).await,
                    other => return other,
                },
                None => self.wait_for_end(&kv, &record).await?,
            }
        }
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
        for kv in gets.next().unwrap_or_default() {
            match self.keys.read(&kv.key) {
                Some(Key::ReportHead(_)) => acknowledged.head = Some(kv.mod_revision),
                Some(Key::Report(_, bucket)) => {
                    acknowledged.buckets.insert(bucket, kv.mod_revision);
                }
                _ => {}
            }
        }
        Ok(Found { machine, acknowledged })
    }

    /// Creates the key, under a new lease and nonce, with the whole report.
    async fn create(&self, board: &watch::Sender<Board>) -> Result<Registered, RegistrationError> {
        let session =
            Session::open("this machine", self.store.clone(), self.timing.machine_lease, &self.timing)
                .await?;
        let nonce = format!("{:032x}", rand::random::<u128>());
        let identity = Identity { nonce, leases: vec![session.lease()] };
        // Before the key: an agent that dies in between finds its own nonce in the store.
        self.keep(&identity);
        let record = self.filled(&identity, session.lease(), self.timing.machine_lease);
        let acknowledged = Acknowledged::default();
        let (mut txn, seen) = self.whole(board, &record, &acknowledged);
        txn.when.push(Compare::Absent(self.machine_key()));
        let wrote = match self.store.txn(txn).await {
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
        let acknowledged = Acknowledged::all_at(revision);
        Ok(Registered { session, identity, record, created: revision, acknowledged, seen })
    }

    /// Goes on with a registration of this boot's.
    async fn adopt(
        &self,
        identity: Identity,
        kv: &KeyValue,
        old: &MachineRecord,
        acknowledged: Acknowledged,
        board: &watch::Sender<Board>,
    ) -> Result<Registered, RegistrationError> {
        let session = Session::adopt("this machine", self.store.clone(), old.lease, &self.timing).await?;
        let record = self.filled(&identity, session.lease(), Duration::from_secs(old.lease_ttl_s));
        let (created, seen) = (kv.create_revision, Revision::default());
        let mut registered = Registered { session, identity, record, created, acknowledged, seen };
        if old.stopped || old.lease_ttl_s > self.timing.machine_lease.as_secs() {
            self.hand_over(&mut registered, self.timing.machine_lease, false, board).await?;
        } else {
            let (lease, ttl) = (registered.session.lease(), Duration::from_secs(old.lease_ttl_s));
            self.rewrite(&mut registered, lease, ttl, false, board).await?;
        }
        info!(lease = ?registered.session.lease(), incarnation = %registered.record.nonce, "took up this machine's registration again after a restart");
        Ok(registered)
    }

    /// Puts every key of this machine under a lease of another length.
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
        let mut written = None;
        let slot = &mut written;
        let moved = registered.session.hand_over(ttl, |lease, granted| {
            identity.add(lease);
            self.keep(&identity);
            let record = MachineRecord { stopped, ..self.filled(&identity, lease, granted) };
            let (txn, seen) = self.rewriting(board, &record, created, &acknowledged);
            async move {
                let revision = self.wrote(txn, &record).await?;
                *slot = Some((record, revision, seen));
                Ok(())
            }
        });
        moved.await.map_err(|error| match error {
            HandOverError::Grant { source, .. } => RegistrationError::Store(source),
            HandOverError::Move { source, .. } => source,
        })?;
        registered.identity = identity;
        if let Some((record, revision, seen)) = written {
            (registered.record, registered.seen) = (record, seen);
            registered.acknowledged = Acknowledged::all_at(revision);
        }
        Ok(())
    }

    async fn rewrite(
        &self,
        registered: &mut Registered,
        lease: LeaseId,
        ttl: Duration,
        stopped: bool,
        board: &watch::Sender<Board>,
    ) -> Result<(), RegistrationError> {
        let record = MachineRecord { stopped, ..self.filled(&registered.identity, lease, ttl) };
        let (txn, seen) = self.rewriting(board, &record, registered.created, &registered.acknowledged);
        let revision = self.wrote(txn, &record).await?;
        (registered.record, registered.seen) = (record, seen);
        registered.acknowledged = Acknowledged::all_at(revision);
        Ok(())
    }

    /// Waits until another's key is likely to have ended.
    async fn wait_for_end(&self, kv: &KeyValue, other: &MachineRecord) -> Result<(), RegistrationError> {
        let lease = kv.lease.unwrap_or(other.lease);
        let longest = Duration::from_secs(other.lease_ttl_s) + EXPIRY_LAG;
        warn!(
            host = %other.host, boot = %other.boot_id, ?lease, seconds = longest.as_secs(),
            "a machine with this id is registered already; waiting at most so long for that to end: if it does not, \
             two machines share one /etc/machine-id"
        );
        let (mut lowest, mut rises) = (Duration::MAX, 0);
        let mut deadline = Instant::now() + longest;
        while Instant::now() < deadline {
            let Some(status) = self.store.lease_status(lease).await? else {
                // The key goes with its lease, a moment later at most.
                sleep(LOOK_AGAIN).await;
                return Ok(());
            };
            if lowest.checked_add(RISE_MIN).is_some_and(|risen| status.remaining >= risen) {
                rises += 1;
                deadline = Instant::now() + longest;
                lowest = status.remaining;
            }
            if rises >= RISES_OF_A_RENEWAL {
                return Err(RegistrationError::Duplicate {
                    machine: self.machine,
                    this: self.record.host.clone(),
                    other: other.host.clone(),
                    other_boot: other.boot_id.clone(),
                });
            }
            lowest = lowest.min(status.remaining);
            sleep(LOOK_AGAIN).await;
        }
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

    /// Returns the transaction that writes the machine and its whole report, and the `seen` in it.
    fn whole(
        &self,
        board: &watch::Sender<Board>,
        record: &MachineRecord,
        known: &Acknowledged,
    ) -> (Txn, Revision) {
        board.send_if_modified(|board| {
            board.take_changed();
            false
        });
        let board = board.borrow();
        let lease = record.lease;
        let seen = board.seen;
        let head = ReportHead { v: VERSION, incarnation: record.nonce.clone(), seen };
        let puts = Bucket::all()
            .map(|b| (Key::Report(self.machine, b), board.bucket(b).encode(), known.buckets.get(&b).copied()))
            .chain([(Key::ReportHead(self.machine), head.encode(), known.head)]);
        let (when, mut then): (Vec<_>, Vec<_>) =
            puts.map(|(key, value, at)| self.put(self.keys.spell(&key), value, lease, at)).unzip();
        let (key, value) = (self.machine_key(), record.encode());
        then.push(Operation::Put { key, value, lease: Some(lease) });
        (Txn { when, then, or_else: Vec::new() }, seen)
    }

    fn rewriting(
        &self,
        board: &watch::Sender<Board>,
        record: &MachineRecord,
        created: Revision,
        known: &Acknowledged,
    ) -> (Txn, Revision) {
        let (mut txn, seen) = self.whole(board, record, known);
        txn.when.push(Compare::CreateRevision(self.machine_key(), created));
        txn.when.push(Compare::ModRevision(self.machine_key(), known.machine));
        (txn, seen)
    }

    /// Writes the whole registration, and resolves an unknown outcome by reading.
    async fn wrote(&self, txn: Txn, record: &MachineRecord) -> Result<Revision, RegistrationError> {
        match self.store.txn(txn).await {
            Ok(response) if response.succeeded => return Ok(response.revision),
            Ok(_) => {}
            Err(StoreError::OutcomeUnknown { .. }) => {
                if let Some((kv, found)) = self.find().await?.machine
                    && found == *record
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
    /// Everything was written at this revision.
    fn all_at(revision: Revision) -> Self {
        let buckets = Bucket::all().map(|bucket| (bucket, revision)).collect();
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
