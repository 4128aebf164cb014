//! Where pages begin of lists that are asked for by number, as fleet's API has them.
//!
//! A page that is served notes where the next one begins, so that a list is walked once and not from its first
//! row for every page. A number that nobody noted is counted up to. What comes or goes meanwhile moves nothing of
//! what is left to tell.

use std::{
    collections::VecDeque,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use flotilla_units::{MachineId, UnitName};
use tokio::time::Instant;

use super::StateReader;
use crate::state::{Life, Machine};

/// How many beginnings are kept of a list: one for each client that is walking it, and the last are used first.
const STARTS_MAX: usize = 256;

/// How long a beginning is kept. A minute: the next page is asked for at once, and a number that is asked for later
/// means what is there then.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// The beginnings that are known.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    units: Book<UnitName>,
    machines: Book<MachineId>,
    /// The last unit of the page before, and how many of its rows were in it.
    pub states: Book<(UnitName, usize)>,
}

/// The beginnings in one list: how many items are left out, and what is behind them.
#[derive(Debug)]
pub(crate) struct Book<T>(Mutex<VecDeque<(usize, T, Instant)>>);

impl<T> Default for Book<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Book<T> {
    /// Returns after what the page begins that leaves out so many items.
    pub fn find(&self, skip: usize) -> Option<T> {
        let starts = self.starts();
        let (_, after, at) = starts.iter().find(|(count, ..)| *count == skip)?;
        (at.elapsed() < KEPT_FOR).then(|| after.clone())
    }

    /// Notes after what a page begins.
    pub fn note(&self, skip: usize, after: T) {
        let mut starts = self.starts();
        starts.retain(|(count, ..)| *count != skip);
        starts.push_front((skip, after, Instant::now()));
        starts.truncate(STARTS_MAX);
    }

    fn starts(&self) -> MutexGuard<'_, VecDeque<(usize, T, Instant)>> {
        // A panic of somebody who held it is a defect that has been reported; what is noted is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateReader {
    /// Returns the names of units, leaving out so many, at most `limit`.
    #[must_use]
    pub fn unit_names(&self, skip: usize, limit: usize) -> Vec<UnitName> {
        let hot = self.shared().read();
        let book = &self.shared().starts.units;
        let (after, skipped) = match book.find(skip) {
            Some(after) => (Bound::Excluded(after), 0),
            None => (Bound::Unbounded, skip),
        };
        let names = hot.state.units().range((after, Bound::Unbounded)).map(|(name, _)| name);
        let page: Vec<UnitName> = names.skip(skipped).take(limit).cloned().collect();
        if let Some(last) = page.last() {
            book.note(skip + page.len(), last.clone());
        }
        page
    }

    /// Returns the ids of machines that live, those that were stopped in order included, leaving out so many, at
    /// most `limit`.
    #[must_use]
    pub fn living_ids(&self, skip: usize, limit: usize) -> Vec<MachineId> {
        let hot = self.shared().read();
        let book = &self.shared().starts.machines;
        let (after, skipped) = match book.find(skip) {
            Some(after) => (Bound::Excluded(after), 0),
            None => (Bound::Unbounded, skip),
        };
        let lives = |machine: &Machine| machine.life() != Life::Lost && machine.known().is_some();
        let machines = hot.state.machines().range((after, Bound::Unbounded));
        let living = machines.filter(|(_, machine)| lives(machine)).map(|(id, _)| *id);
        let page: Vec<MachineId> = living.skip(skipped).take(limit).collect();
        if let Some(last) = page.last() {
            book.note(skip + page.len(), *last);
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_beginning_is_known_for_a_minute_and_the_newest_count() {
        let book = Book::default();
        assert_eq!(book.find(100), None);
        book.note(100, "a");
        book.note(100, "b");
        assert_eq!((book.find(100), book.find(200)), (Some("b"), None));
        (0..STARTS_MAX).for_each(|skip| book.note(1_000 + skip, "c"));
        assert_eq!((book.find(100), book.find(1_000)), (None, Some("c")));
        tokio::time::advance(KEPT_FOR).await;
        assert_eq!(book.find(1_000), None);
    }
}
