//! Which installs are under way, so that starts go after them and not between them.
//!
//! systemd keeps an index of all unit files, and builds it anew for the first unit that it loads
//! after one of its directories has changed: some 450 files opened, 4 ms of PID 1. Installed and
//! started in turn, each of a hundred units costs that; installed first and then started, the
//! hundred cost it once.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};

/// How long a start waits for installs at most. Three hundred installs take some 0.1 s, and three
/// times that on a busy machine; what lasts longer would delay units that it has nothing to do with.
const WAITS: Duration = Duration::from_millis(500);

/// Counts the installs under way: those that change files soon, not those that wait for another
/// unit or for a reload.
#[derive(Debug)]
pub(super) struct Installs {
    under_way: watch::Sender<usize>,
}

/// One install under way; it is over when this is dropped.
#[derive(Debug)]
pub(super) struct UnderWay<'a>(&'a watch::Sender<usize>);

impl Default for Installs {
    fn default() -> Self {
        Self { under_way: watch::Sender::new(0) }
    }
}

impl Installs {
    /// Notes that an install begins.
    pub(super) fn begin(&self) -> UnderWay<'_> {
        self.under_way.send_modify(|count| *count += 1);
        UnderWay(&self.under_way)
    }

    /// Waits until no install is under way, but not for long.
    pub(super) async fn settled(&self) {
        let mut under_way = self.under_way.subscribe();
        // Neither outcome is an error: after the time it costs more, and is right all the same.
        let _ = timeout(WAITS, under_way.wait_for(|count| *count == 0)).await;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn starts_wait_for_installs_but_not_for_ever() {
        let installs = Installs::default();
        assert!(installs.settled().now_or_never().is_some(), "nothing is under way");
        let (one, other) = (installs.begin(), installs.begin());
        let mut settled = std::pin::pin!(installs.settled());
        assert!(settled.as_mut().now_or_never().is_none());
        drop(one);
        assert!(settled.as_mut().now_or_never().is_none(), "one is left");
        drop(other);
        assert!(settled.as_mut().now_or_never().is_some());
        let _stuck = installs.begin();
        let began = tokio::time::Instant::now();
        installs.settled().await;
        assert_eq!(began.elapsed(), WAITS);
    }
}
