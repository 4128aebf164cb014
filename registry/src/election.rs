//! Who leads: one engine at a time, by a guarded key.
//!
//! Owns `engine/leader` and the creation of `cluster`. Not etcd's election API: that
//! hides the fence, and works on no other store. A leader that is deposed without
//! knowing it cannot write, because [`Leadership::fence`] goes into every transaction
//! of its term and compares the create revision of the leader key.
//!
//! ```text
//!  ┌─────────┐ vacant  ┌─────────┐ won   ┌─────────┐
//!  │ Looking │ ──────► │ Running │ ────► │ Leading │ until resigned or lost
//!  └─────────┘ ◄────── └─────────┘       └─────────┘
//!    │    ▲      lost
//!    ▼    │ the key went
//!  ┌─────────┐
//!  │ Waiting │ by a watch, never by polling
//!  └─────────┘
//! ```

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use flotilla_units::MachineId;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::{
    held_key::HeldKey,
    keys::{Key, Keys},
    records::{Cluster, LeaderRecord, Record as _, RecordError, VERSION},
    session::{SessionHandle, SessionState},
    store::{
        Compare, KeyRange, KeyValue, Operation, Revision, Store, StoreError, Txn, WatchEvent, WatchMessage,
    },
    timing::Timing,
    witness::{SharedWitness, WentBack, Witness},
};

pub use crate::held_key::KeyLost;

/// How many leader terms the `cluster` record remembers. A thousand ids are 32 kB, and a daemon
/// that was away for more leaders than that is better looked at by an operator.
pub const TERMS_MAX: usize = 1_000;

/// Why a campaign ended without the lead. It is safe to campaign again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ElectionError {
    /// The store refused for a reason that waiting does not mend.
    #[error("the store does not let this engine campaign")]
    Store(#[source] StoreError),
    /// The `cluster` record cannot be read: leading could overwrite what a newer engine wrote.
    #[error("this engine cannot lead")]
    Record(#[source] RecordError),
    /// The store went back; nobody leads until an operator accepts it
    /// ([`SharedWitness::acceptances`]).
    #[error(transparent)]
    WentBack(#[from] WentBack),
}

/// An engine that would lead.
#[derive(Debug)]
pub struct Candidate {
    store: Arc<dyn Store>,
    keys: Keys,
    machine: MachineId,
    boot_id: String,
    witness: SharedWitness,
    timing: Timing,
    /// This process has not looked yet: a leader key of its machine and boot is then from the process
    /// before it.
    fresh: AtomicBool,
    /// The term that it led last, and that term's session.
    last: Mutex<Option<(String, SessionHandle)>>,
}

/// The lead, held.
///
/// # Cancellation
/// Dropping it stops renewing: another leads when the lease has run out. [`Leadership::resign`]
/// lets another lead at once.
#[derive(Debug)]
pub struct Leadership {
    held: HeldKey,
    term: String,
    cluster: Cluster,
}

/// What a look at the store showed.
struct Sight {
    leader: Option<KeyValue>,
    cluster: Option<KeyValue>,
    revision: Revision,
    /// What was remembered before the look.
    before: Witness,
}

impl Candidate {
    /// Makes a candidate that runs on a machine.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        keys: Keys,
        machine: MachineId,
        witness: SharedWitness,
        timing: Timing,
    ) -> Self {
        Self {
            store,
            keys,
            machine,
            boot_id: String::new(),
            witness,
            timing,
            fresh: AtomicBool::new(true),
            last: Mutex::new(None),
        }
    }

    /// Sets the machine's boot: a lead of the same machine's other boot is not this one's to end, for it
    /// may be a living machine that has its id.
    #[must_use]
    pub fn of_boot(self, boot_id: String) -> Self {
        Self { boot_id, ..self }
    }

    /// Waits until this engine leads.
    ///
    /// A store that cannot be reached is waited for. The first leader ever creates the cluster.
    ///
    /// # Cancellation
    /// Dropping it leaves at most a leader key that nobody renews.
    ///
    /// # Errors
    /// The store went back, cannot be understood, or refuses for good.
    pub async fn campaign(&self) -> Result<Leadership, ElectionError> {
        let mut backoff = self.timing.backoff();
        loop {
            match self.try_once().await {
                Ok(Some(leadership)) => return Ok(leadership),
                // Another leads, or led for a moment; by the watch or the lost race the next look
                // is due now.
                Ok(None) => backoff.reset(),
                // A lease can end between its grant and its use when the store is slow.
                Err(ElectionError::Store(error))
                    if error.is_transient()
                        || matches!(error, StoreError::LeaseNotFound(_) | StoreError::Compacted { .. }) =>
                {
                    let wait = backoff.next_wait();
                    warn!(%error, ?wait, "the campaign was interrupted");
                    sleep(wait).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_once(&self) -> Result<Option<Leadership>, ElectionError> {
        let sight = self.look().await?;
        let cluster = match &sight.cluster {
            Some(kv) => Some(Cluster::from_kv(kv).map_err(ElectionError::Record)?),
            None => None,
        };
        self.witness.check(&sight.before, sight.revision, cluster.as_ref())?;
        let fresh = self.fresh.swap(false, Ordering::Relaxed);
        let Some(leader) = &sight.leader else { return self.run(&sight, cluster).await };
        let record = LeaderRecord::from_kv(leader);
        let own = |record: &LeaderRecord| {
            let here = (record.machine, &record.boot_id) == (self.machine, &self.boot_id);
            fresh && here || self.has_lost(&record.term)
        };
        if record.as_ref().is_ok_and(own) {
            info!("removing the key of a lead that this machine has lost");
            self.remove(leader).await?;
        } else {
            debug!(leader = ?record.map(|record| record.machine), "another engine leads");
            self.wait_until_gone(&leader.key, sight.revision).await?;
        }
        Ok(None)
    }

    /// Tells whether this engine led that term last, and has lost the lead: a store that was away for
    /// longer than a lease gives every lease its whole time again, and nobody renews that one.
    fn has_lost(&self, term: &str) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref()
            .is_some_and(|(led, session)| led == term && matches!(session.state(), SessionState::Lost(_)))
    }

    /// Reads the leader key and the cluster record, linearizably.
    async fn look(&self) -> Result<Sight, ElectionError> {
        let before = self.witness.get();
        let gets =
            [Key::Leader, Key::Cluster].map(|key| Operation::Get(KeyRange::key(self.keys.spell(&key))));
        let answer = self.store.txn(Txn { then: gets.into(), ..Txn::default() }).await?;
        let mut gets = answer.gets.into_iter().map(|kvs| kvs.into_iter().next());
        let (leader, cluster) = (gets.next().flatten(), gets.next().flatten());
        Ok(Sight { leader, cluster, revision: answer.revision, before })
    }

    /// Removes a leader key, if it is still that one. Whether it was is seen at the next look.
    async fn remove(&self, leader: &KeyValue) -> Result<(), ElectionError> {
        self.store
            .txn(Txn {
                when: vec![Compare::ModRevision(leader.key.clone(), leader.mod_revision)],
                then: vec![Operation::Delete(KeyRange::key(&*leader.key))],
                or_else: Vec::new(),
            })
            .await?;
        Ok(())
    }

    async fn wait_until_gone(&self, key: &str, seen: Revision) -> Result<(), ElectionError> {
        let mut watch = self.store.watch(KeyRange::key(key), Revision(seen.0 + 1)).await?;
        while let Some(message) = watch.next().await {
            if let WatchMessage::Events { events, .. } = message?
                && events.iter().any(|event| matches!(event, WatchEvent::Delete { .. }))
            {
                return Ok(());
            }
        }
        Err(StoreError::WatchEnded("it ended without a word".to_owned()).into())
    }

    /// Runs for the lead, which was vacant at the sight.
    async fn run(
        &self,
        sight: &Sight,
        cluster: Option<Cluster>,
    ) -> Result<Option<Leadership>, ElectionError> {
        let session = crate::session::Session::open(
            "the lead",
            self.store.clone(),
            self.timing.leader_lease,
            &self.timing,
        )
        .await?;
        let term = random_id();
        let (leader_key, cluster_key) = (self.keys.spell(&Key::Leader), self.keys.spell(&Key::Cluster));
        let cluster = with_term(cluster, &term, sight.before.left_behind);
        let leader = LeaderRecord {
            v: VERSION,
            machine: self.machine,
            boot_id: self.boot_id.clone(),
            term: term.clone(),
            since: Timestamp::now(),
        };
        let unchanged = match &sight.cluster {
            Some(kv) => Compare::ModRevision(cluster_key.clone(), kv.mod_revision),
            None => Compare::Absent(cluster_key.clone()),
        };
        let txn = Txn {
            when: vec![Compare::Absent(leader_key.clone()), unchanged],
            then: vec![
                Operation::Put {
                    key: leader_key.clone(),
                    value: leader.encode(),
                    lease: Some(session.lease()),
                },
                Operation::Put { key: cluster_key, value: cluster.encode(), lease: None },
            ],
            or_else: Vec::new(),
        };
        let created = match self.store.txn(txn).await {
            Ok(answer) => answer.succeeded.then_some(answer.revision),
            Err(StoreError::OutcomeUnknown { what }) => {
                warn!(what, "the campaign's write got no answer; reading who leads");
                self.look().await?.leader.filter(|kv| is_term(kv, &term)).map(|kv| kv.create_revision)
            }
            Err(error) => return Err(error.into()),
        };
        let Some(created) = created else {
            // Ends the lease, so that a transaction still under way can only fail.
            session.revoke().await?;
            return Ok(None);
        };
        self.witness.observe(created, Some(&cluster));
        info!(term, revision = created.0, "this engine leads");
        let last = Some((term.clone(), session.handle()));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
        let held = HeldKey::new(self.store.clone(), session, leader_key, created, created, &self.timing);
        Ok(Some(Leadership { held, term, cluster }))
    }
}

impl Leadership {
    /// Returns the condition that goes into every transaction of this leader.
    #[must_use]
    pub fn fence(&self) -> Compare {
        self.held.fence()
    }

    /// Returns this term's random id.
    #[must_use]
    pub fn term(&self) -> &str {
        &self.term
    }

    /// Returns the create revision of the leader key. The leader decides nothing before its state
    /// has reached it.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.held.created()
    }

    /// Returns the cluster's record as this leader wrote it when it was elected.
    #[must_use]
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Returns a handle of the session that the lead is under.
    #[must_use]
    pub fn session(&self) -> SessionHandle {
        self.held.session().handle()
    }

    /// Waits until the lead is lost, and tells why.
    ///
    /// # Cancellation
    /// Nothing is lost by dropping it.
    pub async fn lost(&self) -> KeyLost {
        self.held.lost().await
    }

    /// Gives the lead up, so that another engine leads at once.
    ///
    /// # Errors
    /// What the store said; the lead then ends with its lease.
    pub async fn resign(self) -> Result<(), StoreError> {
        info!(term = self.term, "this engine gives up the lead");
        self.held.release().await
    }
}

impl From<StoreError> for ElectionError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Appends a term to the cluster's record, or makes the record of a new cluster. Its epoch is above the
/// one of the store that was left behind, if an operator accepted this one in its place: tokens only grow.
fn with_term(cluster: Option<Cluster>, term: &str, left_behind: u16) -> Cluster {
    let mut cluster = cluster.unwrap_or_else(|| Cluster {
        v: VERSION,
        id: random_id(),
        epoch: 1,
        terms: Vec::new(),
        tokens_reserved: 0,
    });
    if cluster.epoch <= left_behind {
        cluster.epoch = left_behind.saturating_add(1);
        cluster.tokens_reserved = 0;
    }
    cluster.terms.push(term.to_owned());
    let old = cluster.terms.len().saturating_sub(TERMS_MAX);
    cluster.terms.drain(..old);
    cluster
}

fn is_term(leader: &KeyValue, term: &str) -> bool {
    LeaderRecord::from_kv(leader).is_ok_and(|record| record.term == term)
}

/// Returns a random id: 128 bits in hexadecimal.
#[must_use]
pub fn random_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
