//! The way of a change from whoever notices it to the one reader of the stream.
//!
//! [`Outbox`] owns the changes that nobody has read yet. It holds each unit at most once, so a
//! unit that flaps while the reader is busy costs one entry, and nothing is dropped without a
//! [`Change::Everything`] in its place. It never calls systemd. The real and the fake systemd
//! post into it; [`Systemd::changes`](super::Systemd::changes) hands out the receiver.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use flotilla_units::UnitName;
use tokio::sync::{Notify, mpsc};

use super::Change;

/// Changes in the channel, a number of messages: enough for the reader to take a few in one go,
/// few enough that what comes later is still coalesced in the set behind it.
const CHANNEL: usize = 16;

/// Units waiting to be told about; beyond it one [`Change::Everything`] is cheaper for the reader
/// than as many single reads.
const MANY: usize = 1_000;

/// Where changes are posted.
#[derive(Debug, Clone, Default)]
pub struct Outbox(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    posted: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    everything: bool,
    units: BTreeSet<UnitName>,
    /// Counts the readers, so that the task of a former one ends.
    reader: u64,
}

impl Outbox {
    /// Posts that a unit's state may be another now.
    pub fn unit(&self, unit: &UnitName) {
        self.post(|waiting| {
            if waiting.everything || waiting.units.contains(unit) {
                return;
            }
            waiting.units.insert(unit.clone());
            if waiting.units.len() > MANY {
                waiting.units.clear();
                waiting.everything = true;
            }
        });
    }

    /// Posts that everything has to be read again.
    pub fn everything(&self) {
        self.post(|waiting| {
            waiting.units.clear();
            waiting.everything = true;
        });
    }

    /// Returns the stream of what is posted; it takes the place of an earlier reader's, and gets
    /// what that one has not taken out of the set.
    ///
    /// The task behind it ends when the receiver is dropped or replaced.
    #[must_use]
    pub fn reader(&self) -> mpsc::Receiver<Change> {
        let (sender, receiver) = mpsc::channel(CHANNEL);
        let number = self.waiting(|waiting| {
            waiting.reader += 1;
            waiting.reader
        });
        // Wakes the former reader's task, so that it sees that it has been replaced.
        self.0.posted.notify_waiters();
        tokio::spawn(forward(self.clone(), number, sender));
        receiver
    }

    fn post(&self, change: impl FnOnce(&mut Waiting)) {
        self.waiting(change);
        self.0.posted.notify_waiters();
    }

    fn waiting<T>(&self, f: impl FnOnce(&mut Waiting) -> T) -> T {
        f(&mut self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes what waits; `None` when another reader has come.
    fn take(&self, number: u64) -> Option<Vec<Change>> {
        self.waiting(|waiting| {
            if waiting.reader != number {
                return None;
            }
            if mem::take(&mut waiting.everything) {
                return Some(vec![Change::Everything]);
            }
            Some(mem::take(&mut waiting.units).into_iter().map(Change::Unit).collect())
        })
    }
}

async fn forward(outbox: Outbox, number: u64, sender: mpsc::Sender<Change>) {
    loop {
        // Registered before looking, so that a post between the two is not slept through.
        let posted = outbox.0.posted.notified();
        tokio::pin!(posted);
        posted.as_mut().enable();
        let Some(changes) = outbox.take(number) else { return };
        if changes.is_empty() {
            tokio::select! {
                () = posted => {}
                () = sender.closed() => return,
            }
        }
        let mut changes = changes.into_iter();
        while let Some(change) = changes.next() {
            if sender.send(change.clone()).await.is_err() {
                // The reader is gone; its successor shall still hear of what it left.
                for change in std::iter::once(change).chain(changes) {
                    match change {
                        Change::Unit(unit) => outbox.unit(&unit),
                        Change::Everything => outbox.everything(),
                    }
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> UnitName {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_unit_that_flaps_is_told_once() {
        let outbox = Outbox::default();
        for _ in 0..100 {
            outbox.unit(&name("a.service"));
            outbox.unit(&name("b.service"));
        }
        let mut reader = outbox.reader();
        assert_eq!(reader.recv().await, Some(Change::Unit(name("a.service"))));
        assert_eq!(reader.recv().await, Some(Change::Unit(name("b.service"))));
        assert!(reader.try_recv().is_err());
        outbox.unit(&name("a.service"));
        assert_eq!(reader.recv().await, Some(Change::Unit(name("a.service"))));
    }

    #[tokio::test]
    async fn too_many_units_become_everything() {
        let outbox = Outbox::default();
        for n in 0..=MANY {
            outbox.unit(&name(&format!("u{n}.service")));
        }
        let mut reader = outbox.reader();
        assert_eq!(reader.recv().await, Some(Change::Everything));
        assert!(reader.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_slow_reader_loses_nothing() {
        let outbox = Outbox::default();
        let mut reader = outbox.reader();
        let names: BTreeSet<UnitName> = (0..500).map(|n| name(&format!("u{n}.service"))).collect();
        for unit in &names {
            outbox.unit(unit);
            tokio::task::yield_now().await;
        }
        let mut seen = BTreeSet::new();
        while seen.len() < names.len() {
            match reader.recv().await.unwrap() {
                Change::Unit(unit) => seen.insert(unit),
                Change::Everything => panic!("500 units are not too many"),
            };
        }
        assert_eq!(seen, names);
    }

    #[tokio::test]
    async fn the_next_reader_hears_what_the_last_one_left() {
        let outbox = Outbox::default();
        drop(outbox.reader());
        outbox.unit(&name("a.service"));
        tokio::task::yield_now().await;
        let mut second = outbox.reader();
        assert_eq!(second.recv().await, Some(Change::Unit(name("a.service"))));
    }
}
