//! Waiting for a registration that is not this boot's, and refusing one that somebody renews.

use std::time::Duration;

use flotilla_registry::{records::MachineRecord, store::KeyValue};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{Registrar, RegistrationError};

/// How often another's key is looked at while it is waited for. Half a second: a machine that was
/// cut off and rebooted joins half a second after its old lease ended.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How much longer than its TTL another's key is waited for: etcd's own expiry lags up to a second,
/// and clocks of a changing leader another.
const EXPIRY_LAG: Duration = Duration::from_secs(2);

/// How often a lease's remaining time must rise before somebody is said to renew it. Twice: a
/// change of etcd's leader gives every lease its whole time again, once.
const RISES_OF_A_RENEWAL: u32 = 2;

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
        let (mut lowest, mut rises) = (Duration::MAX, 0);
        let mut deadline = Instant::now() + longest;
        while Instant::now() < deadline {
            let Some(status) = self.store.lease_status(lease).await? else {
                // The key goes with its lease, a moment later at most.
                sleep(LOOK_AGAIN).await;
                return Ok(());
            };
            if lowest.checked_add(RISE_MIN).is_some_and(|risen| status.remaining >= risen) {
                rises += 1;
                deadline = Instant::now() + longest;
                lowest = status.remaining;
            }
            if rises >= RISES_OF_A_RENEWAL {
                return Err(RegistrationError::Duplicate {
                    machine: self.machine,
                    this: self.record.host.clone(),
                    other: other.host.clone(),
                    other_boot: other.boot_id.clone(),
                });
            }
            lowest = lowest.min(status.remaining);
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_says_for_ever_is_waited_for_an_hour() {
        assert_eq!(waited_for(10), Duration::from_secs(12));
        assert_eq!(waited_for(300), Duration::from_secs(302));
        assert_eq!(waited_for(u64::MAX), LONGEST + EXPIRY_LAG);
    }
}
