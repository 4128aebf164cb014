//! When the store is told that a burst of writes is over.

use std::time::Duration;

use flotilla_registry::store::Revision;

/// How many revisions are a burst. A hundred: with a hundred keys each they are what etcd 3.4's buffer of writes
/// holds at most, and a person's orders of a day are fewer.
const REVISIONS: i64 = 100;

/// How long nothing may have changed. Three seconds: longer than anybody puts anything off.
const QUIET: Duration = Duration::from_secs(3);

/// Follows how far the store's revision went.
#[derive(Debug, Default)]
pub struct Burst {
    /// As of the last time that it was told, or the beginning of the term.
    told: Option<Revision>,
    /// The present revision, and when it was first seen.
    now: (Revision, Duration),
}

impl Burst {
    /// Takes in the present revision.
    pub fn see(&mut self, revision: Revision, now: Duration) {
        self.told.get_or_insert(Revision(revision.0 - REVISIONS));
        if revision != self.now.0 {
            self.now = (revision, now);
        }
    }

    /// Returns when the burst is over if nothing changes until then.
    #[must_use]
    pub fn over_at(&self) -> Option<Duration> {
        let (revision, since) = self.now;
        self.told.is_some_and(|told| revision.0 - told.0 >= REVISIONS).then_some(since + QUIET)
    }

    /// Tells whether it is over now, once.
    pub fn is_over(&mut self, now: Duration) -> bool {
        let over = self.over_at().is_some_and(|at| at <= now);
        if over {
            self.told = Some(self.now.0);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_over_once_after_three_quiet_seconds() {
        let at = Duration::from_secs;
        let mut burst = Burst::default();
        burst.see(Revision(1_000), at(0));
        assert_eq!(burst.over_at(), Some(at(3)), "what was before the term is not known");
        assert!(!burst.is_over(at(2)) && burst.is_over(at(3)) && !burst.is_over(at(4)), "once");
        burst.see(Revision(1_099), at(10));
        assert_eq!(burst.over_at(), None, "too few");
        burst.see(Revision(1_100), at(11));
        burst.see(Revision(1_200), at(13));
        assert!(!burst.is_over(at(15)), "it went on");
        burst.see(Revision(1_200), at(15));
        assert!(burst.is_over(at(16)));
        assert_eq!(burst.over_at(), None, "nothing wakes at rest");
    }
}
