//! Collects texts that no unit has had for an hour, with what is written anyway.
//!
//! Who comes to have a text writes it in the same transaction, so a text goes only if it was not written
//! since it was seen to be nobody's: of a collection and a submit at the same moment the submit wins,
//! whichever comes first. The hour is counted by this leader's own clock, from when it saw the text to be
//! nobody's; the next leader begins anew, so that a text may stay longer, and never goes earlier.

use std::{collections::VecDeque, time::Duration};

use flotilla_registry::{
    keys::Key,
    store::{Compare, KeyRange, Operation, Revision, TXN_OPERATIONS_MAX},
};

use super::batch::Transaction;
use crate::state::{ClusterState, UnusedText};

/// How long a text is nobody's before it goes. An hour: who destroys a unit by mistake, or looks into why
/// it is gone, still finds what it said.
pub const KEPT: Duration = Duration::from_secs(3_600);

/// How far apart the revisions are that are remembered. A minute: the grain of [`KEPT`].
const GRAIN: Duration = Duration::from_secs(60);

/// How many texts one transaction collects at most, if it has the room. Sixteen: a transaction leaves
/// behind fewer texts as a rule, and each costs a compare, a deletion and, if another was written, a read.
const COLLECTED: usize = 16;

/// How long the texts that one transaction collects are together. A megabyte: when a compare fails, the
/// answer brings them all, and beside what else it brings they have to fit into the 4 MiB of an answer.
const BYTES: usize = 1 << 20;

/// Remembers which revision was when.
#[derive(Debug, Default)]
pub struct Texts {
    seen: VecDeque<(Duration, Revision)>,
    /// The newest revision that was seen long enough ago.
    horizon: Option<Revision>,
}

impl Texts {
    /// Takes in that the state is at a revision.
    pub fn note(&mut self, revision: Revision, now: Duration) {
        if self.seen.back().is_none_or(|(_, seen)| *seen < revision) {
            let before_last = self.seen.len().checked_sub(2).and_then(|at| self.seen.get(at));
            if before_last.is_some_and(|(at, _)| *at + GRAIN > now) {
                // A mark may stand for those shortly before it: they count from a little later then.
                self.seen.pop_back();
            }
            self.seen.push_back((now, revision));
        }
        while let Some((at, revision)) = self.seen.front().copied()
            && at + KEPT <= now
        {
            self.horizon = Some(revision);
            self.seen.pop_front();
        }
    }

    /// Adds to transactions that are written anyway the collection of what is old enough.
    pub fn collect(&self, state: &ClusterState, transactions: &mut [Transaction]) {
        let Some(horizon) = self.horizon.filter(|_| !transactions.is_empty()) else { return };
        let mut old = state.unused_texts(horizon).peekable();
        for transaction in transactions {
            let Transaction { when, then, .. } = &mut *transaction;
            let room = TXN_OPERATIONS_MAX.saturating_sub(when.len().max(then.len())).min(COLLECTED);
            let mut bytes = 0;
            for _ in 0..room {
                let fits = |text: &UnusedText| bytes == 0 || bytes + text.bytes <= BYTES;
                let Some(text) = old.next_if(fits) else { break };
                bytes += text.bytes;
                let key = state.keys().spell(&Key::Content(text.hash));
                when.push(Compare::ModRevision(key.clone(), text.written));
                then.push(Operation::Delete(KeyRange::key(key)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_counts_as_old_an_hour_after_it_was_seen_and_at_most_a_minute_later() {
        let (mut texts, minutes) = (Texts::default(), |n: u64| Duration::from_secs(n * 60));
        let mut first = None;
        for second in 0..10_000_u64 {
            // Something happens all the time.
            let now = Duration::from_secs(second);
            texts.note(Revision(i64::try_from(second).expect("small")), now);
            if texts.horizon.is_some_and(|old| old >= Revision(100)) {
                first.get_or_insert(now);
            }
            assert!(texts.seen.len() <= 122, "{} marks", texts.seen.len());
        }
        let first = first.expect("an hour has passed").saturating_sub(Duration::from_secs(100));
        assert!(first >= KEPT && first <= KEPT + GRAIN, "{first:?}");
        // What is seen last before a long rest is not given the time at which it ends.
        let mut texts = Texts::default();
        texts.note(Revision(1), minutes(0));
        texts.note(Revision(2), minutes(0) + Duration::from_secs(10));
        texts.note(Revision(3), minutes(500));
        assert_eq!(texts.horizon, Some(Revision(2)));
    }
}
