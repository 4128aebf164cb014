//! Waiting for a registration that is not this boot's, and refusing one that somebody renews.

use std::time::Duration;

use flotilla_registry::{
    records::MachineRecord,
    store::{KeyValue, LeaseStatus},
};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{Registrar, RegistrationError};

/// How often another's key is looked at while it is waited for. Half a second: a machine that was
/// cut off and rebooted joins half a second after its old lease ended.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How much longer than its TTL another's key is waited for: etcd's own expiry lags up to a second,
/// and clocks of a changing leader another.
const EXPIRY_LAG: Duration = Duration::from_secs(2);

/// How often a lease's remaining time must rise before somebody is said to renew it. Twice: once it may
/// have been the last renewal of the machine that is gone, which arrived late.
const RISES_OF_A_RENEWAL: u32 = 2;

/// How long after a change of the store's own leader a rise says nothing: the new one gives every lease its
/// whole time again, a moment after it is known to lead. Two seconds: etcd does so at once.
const LEADER_SETTLES: Duration = Duration::from_secs(2);

/// How much the remaining time must rise to count: it is told in whole seconds.
const RISE_MIN: Duration = Duration::from_millis(1_500);

/// The longest that another's record is believed to last. An hour: an agent that stops in order takes
/// five minutes, and whatever a record says, nobody waits for ever.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Returns how long another's registration may last that nobody renews.
pub(crate) fn longest(other: &MachineRecord) -> Duration {
    waited_for(other.lease_ttl_s)
}

fn waited_for(lease_ttl_s: u64) -> Duration {
    Duration::from_secs(lease_ttl_s).min(LONGEST) + EXPIRY_LAG
}

impl Registrar {
    /// Waits until another's key is likely to have ended.
    ///
    /// # Errors
    /// [`RegistrationError::Duplicate`], which is final, if somebody renews it; else what the store said.
    pub(crate) async fn wait_for_end(
        &self,
        kv: &KeyValue,
        other: &MachineRecord,
    ) -> Result<(), RegistrationError> {
        let lease = kv.lease.unwrap_or(other.lease);
        let longest = longest(other);
        warn!(
            host = %other.host, boot = %other.boot_id, ?lease, seconds = longest.as_secs(),
            "a machine with this id is registered already; waiting at most so long for that to end: if it does not, \
             two machines share one /etc/machine-id"
        );
        let mut watch = Watch::default();
        let mut deadline = Instant::now() + longest;
        while Instant::now() < deadline {
            let Some(status) = self.store.lease_status(lease).await? else {
                // The key goes with its lease, a moment later at most.
                sleep(LOOK_AGAIN).await;
                return Ok(());
            };
            if watch.has_risen(&status, Instant::now()) {
                deadline = Instant::now() + longest;
            }
            if watch.renewals >= RISES_OF_A_RENEWAL {
                return Err(RegistrationError::Duplicate {
                    machine: self.machine,
                    this: self.record.host.clone(),
                    other: other.host.clone(),
                    other_boot: other.boot_id.clone(),
                });
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

/// Watches a lease for renewals by somebody else.
#[derive(Debug, Default)]
struct Watch {
    /// The least that remained since the last rise.
    lowest: Option<Duration>,
    /// The term of the store's leader, and when it was first met.
    term: Option<(u64, Instant)>,
    /// How often somebody renewed it.
    renewals: u32,
}

impl Watch {
    /// Takes a look; true if more remains than before, whoever gave it that.
    fn has_risen(&mut self, status: &LeaseStatus, now: Instant) -> bool {
        let (_, since) = match self.term {
            Some(known) if known.0 == status.term => known,
            before => {
                // The first term of all has been there for whoever knows how long.
                let since = before.map_or(now.checked_sub(LEADER_SETTLES).unwrap_or(now), |_| now);
                *self.term.insert((status.term, since))
            }
        };
        let lowest = self.lowest.unwrap_or(status.remaining);
        let risen = lowest.checked_add(RISE_MIN).is_some_and(|risen| status.remaining >= risen);
        if risen && now.saturating_duration_since(since) >= LEADER_SETTLES {
            self.renewals += 1;
        }
        self.lowest = Some(if risen { status.remaining } else { lowest.min(status.remaining) });
        risen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at a lease of 30 s every half a second; `of` tells what remains, and the store's term.
    fn renewals(seconds: u64, of: impl Fn(u64) -> (u64, u64)) -> u32 {
        let (mut watch, start) = (Watch::default(), Instant::now());
        for look in 0..seconds * 2 {
            let (remaining, term) = of(look / 2);
            let granted = Duration::from_secs(30);
            let status = LeaseStatus { granted, remaining: Duration::from_secs(remaining), term };
            watch.has_risen(&status, start + LOOK_AGAIN * u32::try_from(look).expect("few"));
        }
        watch.renewals
    }

    #[test]
    fn who_renews_is_told_from_a_store_that_changes_its_leader() {
        assert_eq!(renewals(60, |second| (30 - second % 10, 1)), 5, "every ten seconds");
        assert_eq!(renewals(30, |second| (30 - second, 1)), 0, "nobody");
        assert_eq!(renewals(60, |second| (30 - second % 10, second / 10)), 0, "six restarts of the store");
        assert_eq!(renewals(60, |second| (30 - second % 10, (second + 1) / 10)), 0, "told a moment before");
        assert_eq!(renewals(60, |second| (30 - second % 10, second / 30)), 4, "one restart, and somebody");
    }

    #[test]
    fn a_record_that_says_for_ever_is_waited_for_an_hour() {
        assert_eq!(waited_for(10), Duration::from_secs(12));
        assert_eq!(waited_for(300), Duration::from_secs(302));
        assert_eq!(waited_for(u64::MAX), LONGEST + EXPIRY_LAG);
    }
}
