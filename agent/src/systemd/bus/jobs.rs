//! Which jobs are waited for, and how the last ones ended.
//!
//! The signal that a job has ended comes on another connection than the reply that names the job,
//! so it may come first: the last results are kept for a while.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use tokio::sync::oneshot;

use crate::systemd::JobResult;

/// Results kept for replies that are still under way, a number of jobs. At most a few hundred of
/// our calls are outstanding, and all of the machine's other jobs end in here too.
const KEPT: usize = 2_000;

/// The jobs that somebody waits for, by object path.
#[derive(Debug, Default)]
pub(super) struct Jobs(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: HashMap<String, Vec<oneshot::Sender<Ended>>>,
    ended: HashMap<String, JobResult>,
    order: VecDeque<String>,
}

/// What a job's waiter is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// It ended so.
    With(JobResult),
    /// Signals were lost: it may have ended.
    Perhaps,
}

impl Jobs {
    /// Returns what will tell how a job ends.
    pub(super) fn wait(&self, job: &str) -> oneshot::Receiver<Ended> {
        let (sender, receiver) = oneshot::channel();
        self.inner(|inner| match inner.ended.get(job) {
            // The receiver is at hand, so this cannot fail.
            Some(result) => _ = sender.send(Ended::With(result.clone())),
            None => {
                let waiting = inner.waiting.entry(job.to_owned()).or_default();
                waiting.retain(|earlier| !earlier.is_closed());
                waiting.push(sender);
            }
        });
        receiver
    }

    /// Notes that a job has ended.
    pub(super) fn ended(&self, job: String, result: JobResult) {
        self.inner(|inner| {
            for waiting in inner.waiting.remove(&job).unwrap_or_default() {
                // Whoever waited may have gone.
                let _ = waiting.send(Ended::With(result.clone()));
            }
            if inner.ended.insert(job.clone(), result).is_none() {
                inner.order.push_back(job);
            }
            if inner.order.len() > KEPT {
                let oldest = inner.order.pop_front();
                oldest.and_then(|oldest| inner.ended.remove(&oldest));
            }
        });
    }

    /// Notes that signals were lost, and perhaps that another manager counts its jobs anew.
    pub(super) fn signals_were_lost(&self) {
        self.inner(|inner| {
            for (_, waiting) in inner.waiting.drain() {
                for waiting in waiting {
                    let _ = waiting.send(Ended::Perhaps);
                }
            }
            inner.ended.clear();
            inner.order.clear();
        });
    }

    fn inner<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl From<&str> for JobResult {
    fn from(text: &str) -> Self {
        match text {
            "done" => Self::Done,
            "canceled" => Self::Canceled,
            "timeout" => Self::Timeout,
            "failed" => Self::Failed,
            "dependency" => Self::Dependency,
            "skipped" => Self::Skipped,
            other => Self::Other(other.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_result_that_comes_before_the_reply_is_kept() {
        let jobs = Jobs::default();
        jobs.ended("/job/1".to_owned(), JobResult::Done);
        assert_eq!(jobs.wait("/job/1").await.unwrap(), Ended::With(JobResult::Done));
        let (one, two) = (jobs.wait("/job/2"), jobs.wait("/job/2"));
        jobs.ended("/job/2".to_owned(), "failed".into());
        assert_eq!(one.await.unwrap(), Ended::With(JobResult::Failed));
        assert_eq!(two.await.unwrap(), Ended::With(JobResult::Failed));
    }

    #[tokio::test]
    async fn lost_signals_wake_everybody_and_little_is_kept() {
        let jobs = Jobs::default();
        let waiting = jobs.wait("/job/1");
        jobs.signals_were_lost();
        assert_eq!(waiting.await.unwrap(), Ended::Perhaps);
        for n in 0..KEPT * 2 {
            jobs.ended(format!("/job/{n}"), JobResult::Done);
        }
        jobs.inner(|inner| assert_eq!((inner.ended.len(), inner.order.len()), (KEPT, KEPT)));
        jobs.signals_were_lost();
        jobs.inner(|inner| assert!(inner.ended.is_empty() && inner.order.is_empty()));
    }
}
