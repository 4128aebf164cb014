//! What users order of whoever leads: to even machines out.
//!
//! An order is given at the leader's own seat, and taken by its next step; nobody else hears of it. It is
//! answered once the moves are written, or when the lead is lost before.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use crate::reader::{Rebalanced, StateReader};

/// How many orders wait for the leader. Four: each is a person's, and a step takes milliseconds.
const ORDERS_MAX: usize = 4;

/// How long an order waits for its answer. Ten seconds: two calls of the store; a client waits for fifteen.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// Why machines were not evened out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRebalanced {
    /// This engine does not lead, or no more.
    #[error("this engine does not lead; ask the one that does")]
    NotLeading,
    /// Something keeps the leader from it.
    #[error("nothing is moved: {0}")]
    Refused(String),
    /// It did not answer in time.
    #[error(
        "the leader did not answer within {} s; `flotctl events` shows whether units are moving",
        ANSWERED_WITHIN.as_secs()
    )]
    NoAnswer,
}

/// An order to even machines out.
#[derive(Debug)]
pub(crate) struct RebalanceOrder {
    pub budget: usize,
    /// Who gave it, and by which request.
    pub by: String,
    pub request: Option<String>,
    pub reply: oneshot::Sender<Result<Rebalanced, String>>,
}

/// The orders that wait for the leader.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    queue: Mutex<VecDeque<RebalanceOrder>>,
    bell: watch::Sender<u64>,
}

impl Orders {
    /// Returns what rings when an order is given.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.bell.subscribe()
    }

    /// Takes the oldest.
    pub fn take(&self) -> Option<RebalanceOrder> {
        self.queue().pop_front()
    }

    /// Gives up all that wait: whoever gave them is told that nobody leads here.
    pub fn clear(&self) {
        self.queue().clear();
    }

    fn give(&self, order: RebalanceOrder) -> bool {
        let mut queue = self.queue();
        let has_room = queue.len() < ORDERS_MAX;
        if has_room {
            queue.push_back(order);
        }
        drop(queue);
        self.bell.send_modify(|count| *count += 1);
        has_room
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<RebalanceOrder>> {
        // A panic of somebody who held it is a defect that has been reported; the queue is whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateReader {
    /// Has the leader even machines out, by moving up to `budget` units; answered when the moves are
    /// written.
    ///
    /// # Errors
    /// This engine does not lead, or what keeps it from moving anything.
    pub async fn rebalance(
        &self,
        budget: usize,
        by: &str,
        request: Option<&str>,
    ) -> Result<Rebalanced, NotRebalanced> {
        let shared = self.shared();
        if !shared.read().engine.leads {
            return Err(NotRebalanced::NotLeading);
        }
        let (reply, answer) = oneshot::channel();
        let request = request.map(ToOwned::to_owned);
        if !shared.orders.give(RebalanceOrder { budget, by: by.to_owned(), request, reply }) {
            return Err(NotRebalanced::Refused(
                "other orders of this kind are waiting; try again".to_owned(),
            ));
        }
        match timeout(ANSWERED_WITHIN, answer).await {
            Ok(Ok(answer)) => answer.map_err(NotRebalanced::Refused),
            Ok(Err(_)) => Err(NotRebalanced::NotLeading),
            Err(_) => Err(NotRebalanced::NoAnswer),
        }
    }
}
