//! The door to systemd: every call on it goes through here.
//!
//! It bounds the calls outstanding ([`calls`](super::calls)) and the time that each takes, and waits for a
//! bus that went. It knows nothing of what is called.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    METHOD_TIMEOUT,
    calls::Calls,
    error::{self, is_full},
    link::Shared,
    proxy::ManagerProxy,
};
use crate::systemd::SystemdError;

/// How long a call waits for a bus that went. A restarted dbus is back in some 100 ms; past five
/// seconds whoever waits is told that it is away, and may try again.
const BUS_WITHIN: Duration = Duration::from_secs(5);

/// How long a call waits that the bus had no room for, before it is made again: some replies come
/// within it, unless systemd is stuck. That should never be needed, and costs nobody else anything.
const FULL: Duration = Duration::from_millis(100);

/// The way to the manager.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) address: String,
    pub(super) live: watch::Receiver<Option<ManagerProxy<'static>>>,
    pub(super) calls: Calls,
    pub(super) shared: Arc<Shared>,
}

impl Door {
    /// Makes one call on the manager.
    ///
    /// Dropped before its turn it sends nothing; dropped later it is carried to its end.
    pub(super) async fn call<T, F>(
        &self,
        call: &'static str,
        unit: &str,
        f: impl Fn(ManagerProxy<'static>) -> F + Send,
    ) -> Result<T, SystemdError>
    where
        T: Send,
        F: Future<Output = zbus::Result<T>> + Send + 'static,
    {
        let began = Instant::now();
        let whole = async {
            loop {
                let place = self.calls.place().await;
                let manager = self.manager().await?;
                let error = match place.carry(f(manager)).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                };
                // The bus did not pass it on, so nothing happened.
                if is_full(&error) && began.elapsed() + FULL < METHOD_TIMEOUT {
                    sleep(FULL).await;
                    continue;
                }
                self.shared.broken.notify_one();
                return Err(error::told(call, unit, &self.address, &error, began.elapsed()));
            }
        };
        let late = |_| SystemdError::NoAnswer { call, seconds: METHOD_TIMEOUT.as_secs() };
        timeout(METHOD_TIMEOUT, whole).await.map_err(late)?
    }

    /// Returns the manager on a bus that is there, and waits for one that went.
    async fn manager(&self) -> Result<ManagerProxy<'static>, SystemdError> {
        let mut live = self.live.clone();
        if let Ok(Ok(live)) = timeout(BUS_WITHIN, live.wait_for(Option::is_some)).await
            && let Some(manager) = live.clone()
        {
            return Ok(manager);
        }
        let why = format!("the connection was lost, and not made again within {} s", BUS_WITHIN.as_secs());
        Err(SystemdError::NoBus { address: self.address.clone(), why })
    }
}
