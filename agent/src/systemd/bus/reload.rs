//! `Reload`, which costs PID 1 0.7 s at a thousand units, as seldom as can be.
//!
//! Whoever needs one while another is under way waits for the next, and all of them share it.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;

use crate::systemd::SystemdError;

/// Counts the reloads asked for and those carried out.
#[derive(Debug)]
pub(super) struct Reloads {
    one: Semaphore,
    asked: AtomicU64,
    /// All that were asked for up to this one are served.
    served: AtomicU64,
    done: AtomicU64,
}

impl Default for Reloads {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self { one: Semaphore::new(1), asked: zero(), served: zero(), done: zero() }
    }
}

impl Reloads {
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Returns after a reload that began after this call.
    pub(super) async fn coalesced(
        &self,
        reload: impl Future<Output = Result<(), SystemdError>> + Send,
    ) -> Result<(), SystemdError> {
        let mine = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        // Never closed, so always granted.
        let _turn = self.one.acquire().await.ok();
        if self.served.load(Ordering::SeqCst) >= mine {
            return Ok(());
        }
        let serves = self.asked.load(Ordering::SeqCst);
        reload.await?;
        self.served.store(serves, Ordering::SeqCst);
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_share_one() {
        let reloads = Reloads::default();
        let reload = || {
            reloads.coalesced(async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(())
            })
        };
        let (one, rest) = tokio::join!(reload(), futures_util::future::join_all((0..50).map(|_| reload())));
        assert!(one.is_ok() && rest.iter().all(Result::is_ok));
        assert!(reloads.done() <= 2, "{}", reloads.done());
        reload().await.unwrap();
        assert!(reloads.done() >= 2);
    }
}
