//! When the store's history is forgotten: while there is activity, never at rest.

use std::{collections::VecDeque, time::Duration};

use flotilla_registry::store::Revision;

/// How much history is kept. Ten minutes: longer than any watch that is worth resuming is away.
const KEEP: Duration = Duration::from_secs(600);

/// How often it is compacted at most. Five minutes: each compaction costs etcd a walk of its keys.
const EVERY: Duration = Duration::from_secs(300);

/// How far apart the revisions are that are remembered. A minute: the grain of what is kept.
const GRAIN: Duration = Duration::from_secs(60);

/// Remembers which revision was when.
#[derive(Debug, Default)]
pub struct Compaction {
    seen: VecDeque<(Duration, Revision)>,
    last: Option<(Duration, Revision)>,
}

impl Compaction {
    /// Takes in the present revision; returns the one to compact to, if it is time.
    pub fn due(&mut self, revision: Revision, now: Duration) -> Option<Revision> {
        let newest = self.seen.back();
        if newest.is_none_or(|(at, seen)| *at + GRAIN <= now && *seen < revision) {
            self.seen.push_back((now, revision));
        }
        if self.last.is_some_and(|(at, _)| at + EVERY > now) {
            return None;
        }
        let mut old = None;
        while let Some((at, revision)) = self.seen.front().copied()
            && at + KEEP <= now
        {
            old = Some(revision);
            self.seen.pop_front();
        }
        let old = old.filter(|old| self.last.is_none_or(|(_, done)| done < *old))?;
        self.last = Some((now, old));
        Some(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_minutes_of_history_are_kept_and_nothing_is_done_twice() {
        let mut compaction = Compaction::default();
        let mut done = Vec::new();
        for minute in 0..30_u64 {
            let now = Duration::from_secs(minute * 60);
            let revision = Revision(i64::try_from(minute).expect("small") * 100);
            done.extend(compaction.due(revision, now).map(|to| (minute, to.0)));
        }
        assert_eq!(done, [(10, 0), (15, 500), (20, 1_000), (25, 1_500)]);
        let later = Duration::from_secs(3_600 * 5);
        assert_eq!(compaction.due(Revision(2_900), later), Some(Revision(2_900)));
        assert_eq!(compaction.due(Revision(2_900), later * 2), None, "nothing happened since");
    }
}
