//! What a daemon remembers of the store, and how it notices that the store went back.
//!
//! A store that was restored from a backup, or wiped, answers as readily as before.
//! Whoever acted on its newer state must not act on the older one: nothing is started
//! or stopped until an operator says so. The daemon keeps its [`Witness`] in
//! `/var/lib/flotilla`; streams and elections check and feed it through a
//! [`SharedWitness`]. Nothing here reads the store or a file.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    records::{Cluster, Token},
    store::Revision,
};

/// What a daemon has seen of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Witness {
    /// The cluster's id.
    pub cluster: Option<String>,
    /// The highest epoch.
    pub epoch: u16,
    /// The highest revision.
    pub revision: Revision,
    /// The newest leader term. Terms are only ever appended, so an older one says nothing more.
    pub term: Option<String>,
    /// The highest mark up to which leaders reserved tokens.
    pub tokens_reserved: u64,
    /// The highest epoch of any store that an operator replaced by accepting another. Tokens of it may
    /// be in use of which the accepted store knows nothing, so who leads next goes above it.
    pub left_behind: u16,
}

/// How the store shows that it is not the one seen before, or went back to an older state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the store went back: {0}. Nothing is started or stopped until an operator has compared what runs with \
     what the store says, and accepts it here with `flotctl cluster accept-store`"
)]
pub struct WentBack(pub WentBackReason);

/// The sign by which a store that went back was noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WentBackReason {
    /// Its revision is lower than one seen.
    Revision {
        /// The highest one seen.
        seen: Revision,
        /// The store's.
        now: Revision,
    },
    /// It has another cluster's record.
    OtherCluster {
        /// The id that was seen.
        seen: String,
        /// The store's.
        now: String,
    },
    /// It has no cluster record any more.
    ClusterMissing {
        /// The id that was seen.
        seen: String,
    },
    /// Its epoch is lower than one seen.
    Epoch {
        /// The highest one seen.
        seen: u16,
        /// The store's.
        now: u16,
    },
    /// A leader term that was seen is missing.
    TermMissing {
        /// The term.
        seen: String,
    },
    /// Fewer tokens are reserved than were.
    TokensReserved {
        /// The highest mark seen.
        seen: u64,
        /// The store's.
        now: u64,
    },
    /// A token is in use that no leader can have reserved.
    Token {
        /// The token.
        token: Token,
        /// The mark up to which they are reserved.
        reserved: u64,
    },
    /// One's own record is not as it was last acknowledged, though nobody else writes it.
    OwnRecord {
        /// Its key.
        key: String,
        /// The revision that the store acknowledged.
        acknowledged: Revision,
        /// The store's; zero if it is absent.
        now: Revision,
    },
}

/// One [`Witness`] for all tasks of a daemon, which is told of changes to keep them.
#[derive(Debug, Clone)]
pub struct SharedWitness {
    witness: Arc<watch::Sender<Witness>>,
    /// How often an operator accepted the store as it is.
    accepted: Arc<watch::Sender<u64>>,
}

impl fmt::Display for WentBackReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revision { seen, now } => {
                write!(f, "it is at revision {}, and revision {} was seen before", now.0, seen.0)
            }
            Self::OtherCluster { seen, now } => {
                write!(f, "it belongs to cluster {now}, and cluster {seen} was seen before")
            }
            Self::ClusterMissing { seen } => write!(f, "cluster {seen}, which was seen before, is not in it"),
            Self::Epoch { seen, now } => write!(f, "it is in epoch {now}, and epoch {seen} was seen before"),
            Self::TermMissing { seen } => {
                write!(
                    f,
                    "leader term {seen}, which was seen before, is not in its record (or more than a thousand leaders have come since)"
                )
            }
            Self::TokensReserved { seen, now } => {
                write!(f, "tokens are reserved up to {now}, and up to {seen} was seen before")
            }
            Self::Token { token, reserved } => {
                write!(f, "token {token} is in use, and tokens are reserved only up to {reserved}")
            }
            Self::OwnRecord { key, acknowledged, now } => write!(
                f,
                "`{key}` was last written at revision {}, and the store acknowledged revision {}",
                now.0, acknowledged.0
            ),
        }
    }
}

impl Witness {
    /// Checks a linearizable read of the store against what was seen before.
    ///
    /// # Errors
    /// The first sign that the store went back.
    pub fn check(&self, revision: Revision, cluster: Option<&Cluster>) -> Result<(), WentBack> {
        if revision < self.revision {
            return Err(WentBack(WentBackReason::Revision { seen: self.revision, now: revision }));
        }
        let Some(seen) = &self.cluster else { return Ok(()) };
        let Some(cluster) = cluster else {
            return Err(WentBack(WentBackReason::ClusterMissing { seen: seen.clone() }));
        };
        if cluster.id != *seen {
            let (seen, now) = (seen.clone(), cluster.id.clone());
            return Err(WentBack(WentBackReason::OtherCluster { seen, now }));
        }
        if cluster.epoch < self.epoch {
            return Err(WentBack(WentBackReason::Epoch { seen: self.epoch, now: cluster.epoch }));
        }
        if let Some(seen) = self.term.as_ref().filter(|seen| !cluster.terms.contains(seen)) {
            return Err(WentBack(WentBackReason::TermMissing { seen: seen.clone() }));
        }
        // A recovery raises the epoch and may start to count anew below it.
        if cluster.epoch == self.epoch && cluster.tokens_reserved < self.tokens_reserved {
            let (seen, now) = (self.tokens_reserved, cluster.tokens_reserved);
            return Err(WentBack(WentBackReason::TokensReserved { seen, now }));
        }
        Ok(())
    }

    /// Remembers what was seen at a revision; true if that was new. What an earlier revision says
    /// (a watch that lags behind a read) changes nothing.
    pub fn observe(&mut self, revision: Revision, cluster: Option<&Cluster>) -> bool {
        if revision < self.revision || (revision == self.revision && cluster.is_none()) {
            return false;
        }
        self.revision = revision;
        if let Some(cluster) = cluster {
            self.cluster = Some(cluster.id.clone());
            self.epoch = self.epoch.max(cluster.epoch);
            self.tokens_reserved = cluster.tokens_reserved;
            self.term = cluster.terms.last().cloned().or(self.term.take());
        }
        true
    }
}

/// Checks that a token is one that some leader can have given out.
///
/// # Errors
/// It is of a later epoch than the cluster's, or above the mark that leaders reserved up to.
pub fn check_token(token: Token, cluster: &Cluster) -> Result<(), WentBack> {
    let later = token.epoch() > cluster.epoch;
    if later || (token.epoch() == cluster.epoch && token.counter() > cluster.tokens_reserved) {
        return Err(WentBack(WentBackReason::Token { token, reserved: cluster.tokens_reserved }));
    }
    Ok(())
}

/// Checks that a record that only the caller writes is as the store last acknowledged it.
///
/// # Assumptions
/// The caller's lease holds: a record that ended with it is absent and the store did not go back.
///
/// # Errors
/// It was last written at another revision, or is absent (`now` zero).
pub fn check_own_record(key: &str, acknowledged: Revision, now: Revision) -> Result<(), WentBack> {
    if acknowledged == now {
        return Ok(());
    }
    Err(WentBack(WentBackReason::OwnRecord { key: key.to_owned(), acknowledged, now }))
}

impl SharedWitness {
    /// Starts from what the daemon kept.
    #[must_use]
    pub fn new(kept: Witness) -> Self {
        Self { witness: Arc::new(watch::Sender::new(kept)), accepted: Arc::default() }
    }

    /// Returns what was seen so far.
    #[must_use]
    pub fn get(&self) -> Witness {
        self.witness.borrow().clone()
    }

    /// Checks a linearizable read of the store, and remembers it if it is as it should be.
    ///
    /// `before` is what [`SharedWitness::get`] returned before the read was sent: what another
    /// task has seen since may well be newer than this read's answer.
    ///
    /// # Errors
    /// The store went back; nothing is remembered of it.
    pub fn check(
        &self,
        before: &Witness,
        revision: Revision,
        cluster: Option<&Cluster>,
    ) -> Result<(), WentBack> {
        before.check(revision, cluster)?;
        self.observe(revision, cluster);
        Ok(())
    }

    /// Remembers a change that a watch delivered.
    pub fn observe(&self, revision: Revision, cluster: Option<&Cluster>) {
        self.witness.send_if_modified(|witness| witness.observe(revision, cluster));
    }

    /// Forgets all but the epoch: an operator accepts the store as it is, and the next check remembers
    /// it. Streams list anew, a leader gives up its term, and the next one raises the epoch.
    pub fn accept(&self) {
        self.witness.send_modify(|witness| {
            let left_behind = witness.left_behind.max(witness.epoch);
            *witness = Witness { left_behind, ..Witness::default() };
        });
        self.accepted.send_modify(|times| *times += 1);
    }

    /// Returns a receiver that changes with each [`SharedWitness::accept`]. Make it before the
    /// check, so that no acceptance is missed.
    #[must_use]
    pub fn acceptances(&self) -> watch::Receiver<u64> {
        self.accepted.subscribe()
    }

    /// Returns a receiver for the task that keeps it. Revisions change often: keep it at once when
    /// cluster, epoch or term change, else at leisure.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Witness> {
        self.witness.subscribe()
    }
}

impl Default for SharedWitness {
    fn default() -> Self {
        Self::new(Witness::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(id: &str, epoch: u16, terms: &[&str], tokens_reserved: u64) -> Cluster {
        let terms = terms.iter().map(|&term| term.to_owned()).collect();
        Cluster { v: 1, id: id.to_owned(), epoch, terms, tokens_reserved }
    }

    /// Tells the sign by which a witness of (revision 10, cluster c, epoch 2, terms a b, 100
    /// tokens) notices a store.
    fn sign(revision: i64, now: Option<&Cluster>) -> Option<WentBackReason> {
        let mut witness = Witness::default();
        witness.check(Revision(10), None).expect("nothing was seen before");
        witness.observe(Revision(10), Some(&cluster("c", 2, &["a", "b"], 100)));
        let kept = serde_json::to_string(&witness).expect("JSON");
        let witness: Witness = serde_json::from_str(&kept).expect("JSON");
        witness.check(Revision(revision), now).err().map(|went_back| went_back.0)
    }

    #[test]
    fn a_store_that_went_on_is_accepted() {
        assert_eq!(sign(10, Some(&cluster("c", 2, &["a", "b"], 100))), None);
        assert_eq!(sign(11, Some(&cluster("c", 2, &["b", "d"], 101))), None, "old terms scroll out");
        assert_eq!(sign(11, Some(&cluster("c", 3, &["a", "b"], 0))), None, "a recovery counts anew");
    }

    #[test]
    fn every_way_back_is_noticed() {
        let same = cluster("c", 2, &["a", "b"], 100);
        assert!(matches!(sign(9, Some(&same)), Some(WentBackReason::Revision { .. })));
        assert!(matches!(sign(12, None), Some(WentBackReason::ClusterMissing { .. })));
        let is = |now: Cluster| sign(12, Some(&now));
        assert!(matches!(is(cluster("x", 2, &["a", "b"], 100)), Some(WentBackReason::OtherCluster { .. })));
        assert!(matches!(is(cluster("c", 1, &["a", "b"], 100)), Some(WentBackReason::Epoch { .. })));
        assert!(matches!(is(cluster("c", 2, &["a"], 100)), Some(WentBackReason::TermMissing { .. })));
        assert!(matches!(is(cluster("c", 2, &["a", "b"], 99)), Some(WentBackReason::TokensReserved { .. })));
    }

    #[test]
    fn tokens_and_own_records_are_checked() {
        let cluster = cluster("c", 2, &[], 100);
        let token = |epoch, counter| Token::new(epoch, counter).expect("in range");
        assert!(check_token(token(2, 100), &cluster).is_ok());
        assert!(check_token(token(1, 5_000), &cluster).is_ok(), "an earlier epoch's");
        assert!(check_token(token(2, 101), &cluster).is_err());
        assert!(check_token(token(3, 1), &cluster).is_err());
        assert!(check_own_record("k", Revision(4), Revision(4)).is_ok());
        assert!(check_own_record("k", Revision(4), Revision(0)).is_err());
    }

    #[test]
    fn an_operator_can_accept_the_store() {
        let witness = SharedWitness::default();
        witness.check(&witness.get(), Revision(10), Some(&cluster("c", 1, &[], 0))).expect("first");
        let seen = witness.get();
        assert!(witness.check(&seen, Revision(1), None).is_err());
        assert_eq!(witness.get(), seen, "a store that went back is not remembered");
        let mut acceptances = witness.acceptances();
        witness.accept();
        assert!(acceptances.has_changed().expect("sender lives"));
        acceptances.mark_unchanged();
        witness.check(&witness.get(), Revision(1), None).expect("accepted");
        assert_eq!(witness.get().revision, Revision(1));
        assert_eq!((witness.get().epoch, witness.get().left_behind), (0, 1));
    }

    #[test]
    fn a_read_is_judged_by_what_was_seen_before_it_was_sent() {
        let witness = SharedWitness::default();
        let before = witness.get();
        witness.observe(Revision(12), None);
        witness.check(&before, Revision(11), None).expect("sent before revision 12 was seen");
        assert_eq!(witness.get().revision, Revision(12));
    }
}
