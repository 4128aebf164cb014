//! How many jobs may be outstanding in systemd.
//!
//! PID 1 keeps a match rule on the bus for each job that a client asked for, and the bus drops it
//! at 512 of them: then systemd is deaf for everybody. Starts and stops have windows of their own,
//! so that stopping never waits for units that are slow to start; and a job that lasts gives its
//! place up, so that a hundred units that never get ready hold up nobody else.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Start jobs, and stop jobs, that have just been asked for. A window of 8 is already as fast as
/// systemd gets; 100 is what was measured to be safe.
const QUICK: usize = 100;

/// Jobs that have lasted for a while. With both windows full as well it is 400 rules of 512.
const SLOW: usize = 200;

/// The windows.
#[derive(Debug)]
pub(super) struct Windows {
    pub(super) starts: Window,
    pub(super) stops: Window,
}

/// One window.
#[derive(Debug)]
pub(super) struct Window {
    quick: Arc<Semaphore>,
    slow: Arc<Semaphore>,
}

/// A place in a window; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    slow: Option<Arc<Semaphore>>,
}

impl Default for Windows {
    fn default() -> Self {
        let slow = Arc::new(Semaphore::new(SLOW));
        let window = || Window { quick: Arc::new(Semaphore::new(QUICK)), slow: slow.clone() };
        Self { starts: window(), stops: window() }
    }
}

impl Window {
    /// Waits for a place; `None` never happens, because the window is never closed.
    pub(super) async fn enter(&self) -> Option<Place> {
        let permit = self.quick.clone().acquire_owned().await.ok()?;
        Some(Place { _permit: permit, slow: Some(self.slow.clone()) })
    }
}

impl Place {
    /// Moves to the places of jobs that last, if there is one.
    pub(super) fn lasts(&mut self) {
        if let Some(permit) = self.slow.as_ref().and_then(|slow| slow.clone().try_acquire_owned().ok()) {
            *self = Self { _permit: permit, slow: None };
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::task::unconstrained;

    use super::*;

    #[tokio::test]
    async fn slow_starts_hold_up_neither_stops_nor_other_starts_and_there_is_an_end() {
        let windows = Windows::default();
        let mut places = Vec::new();
        for _ in 0..SLOW + QUICK {
            let mut place = unconstrained(windows.starts.enter()).now_or_never().unwrap().unwrap();
            place.lasts();
            places.push(place);
        }
        assert!(unconstrained(windows.starts.enter()).now_or_never().is_none());
        assert!(unconstrained(windows.stops.enter()).now_or_never().is_some());
        places.clear();
        assert!(unconstrained(windows.starts.enter()).now_or_never().is_some());
    }
}
