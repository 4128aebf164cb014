//! How long things take and how often they are done: every default duration of the registry.
//!
//! Tests and configuration change them through [`Timing`]; nothing else in the
//! registry spells a duration, except the limits that are part of the store's
//! contract ([`CALL_TIMEOUT`](crate::store::CALL_TIMEOUT)).

use std::time::Duration;

use rand::RngExt as _;

/// A machine's lease. Ten seconds: a dead machine's units run elsewhere after it plus two, and a
/// store that changes its leader (one to three seconds) does not end it.
pub const MACHINE_LEASE: Duration = Duration::from_secs(10);

/// A machine's lease in a large cluster. Thirty seconds: 10,000 leases renewed every three
/// seconds cost the store half a core, renewed every twelve seconds less than a fifth of one.
pub const MACHINE_LEASE_LARGE: Duration = Duration::from_secs(30);

/// How many machines a cluster has before new grants take [`MACHINE_LEASE_LARGE`].
pub const LARGE_CLUSTER_MACHINES: usize = 1_000;

/// The leader's lease. Four seconds: with the election and the first pass, another leads within
/// six; shorter ones would be lost to a store that pauses for a second or two.
pub const LEADER_LEASE: Duration = Duration::from_secs(4);

/// A seat's lease. Ten seconds: a seat that is gone is one of three, so there is no hurry.
pub const SEAT_LEASE: Duration = Duration::from_secs(10);

/// How many engines are hot. Three: the leader, one to follow it at once, and one that lets
/// either be upgraded; each costs the cluster's state in memory.
pub const SEATS: u8 = 3;

/// The lease that an orderly stop moves a machine's keys to. Five minutes: time to upgrade
/// flotillad by hand without its units being started elsewhere.
pub const ORDERLY_STOP_LEASE: Duration = Duration::from_secs(300);

/// How many renewals fit into a lease. Three: two may be lost before the lease is. Of a lease of more than 27 s
/// there are fewer, see [`RENEWAL_MARGIN`], and never fewer than two and a half, see [`RENEWAL_LATEST`].
pub const RENEWALS_PER_LEASE: u32 = 3;

/// How much of a lease is left when its renewal is due, at most. Eighteen seconds: for so long the store may be
/// silent, and the renewal that then comes is tried again all the while. A third more of it would cost a large
/// cluster's store a fifth more renewals, at rest and always.
pub const RENEWAL_MARGIN: Duration = Duration::from_secs(18);

/// How much of a lease may be over when its renewal is due, as a fraction of the lease. Two fifths: however long the
/// lease, with [`RENEWAL_JITTER`] one renewal may be lost and another still comes in time, and who stops leaves more
/// than half of it.
pub const RENEWAL_LATEST: f64 = 0.4;

/// How far a renewal may be from its due time, as a fraction of the interval: keeps leases that
/// were granted together from being renewed together for ever.
pub const RENEWAL_JITTER: f64 = 0.1;

/// How many times a failed renewal is tried again within one lease, at most. Twenty: a ten-second
/// lease tries twice a second, which a store that has just come back bears from every machine.
pub const RENEWAL_RETRIES_PER_LEASE: u32 = 20;

/// The first wait after a failed call. A tenth of a second: most failures are an endpoint that
/// closed its connection, and the next one answers.
pub const RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest wait after a failed call. Two seconds: what a person waits for a store that was started
/// again, which passes through three of these one after another (a seat, the state, the lead); ten
/// thousand machines that ask a dead store this often are some 20,000 refused connections a second.
pub const RETRY_MAX: Duration = Duration::from_secs(2);

/// How much of a wait after a failed call is left to chance, as a fraction of it: half keeps those
/// who failed together from coming back together, and none from coming back at once.
pub const RETRY_JITTER: f64 = 0.5;

/// The first wait of who was outrun by another flotillad that changed the same. Four milliseconds: about what a
/// transaction takes.
pub const RIVAL_FIRST: Duration = Duration::from_millis(4);

/// The longest wait of who was outrun. A quarter of a second: sixteen such waits are what a person bears.
pub const RIVAL_MAX: Duration = Duration::from_millis(250);

/// How long an operation looks for what became of a write that was not answered. Fifteen seconds:
/// three store calls, or a store that changes its leader and comes back.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(15);

/// Every duration that may be changed by configuration or by a test.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    /// [`MACHINE_LEASE`].
    pub machine_lease: Duration,
    /// [`MACHINE_LEASE_LARGE`].
    pub machine_lease_large: Duration,
    /// [`LARGE_CLUSTER_MACHINES`].
    pub large_cluster_machines: usize,
    /// [`LEADER_LEASE`].
    pub leader_lease: Duration,
    /// [`SEAT_LEASE`].
    pub seat_lease: Duration,
    /// [`SEATS`].
    pub seats: u8,
    /// [`ORDERLY_STOP_LEASE`].
    pub orderly_stop_lease: Duration,
    /// [`RENEWALS_PER_LEASE`].
    pub renewals_per_lease: u32,
    /// [`RENEWAL_JITTER`].
    pub renewal_jitter: f64,
    /// [`RENEWAL_RETRIES_PER_LEASE`].
    pub renewal_retries_per_lease: u32,
    /// [`RETRY_FIRST`].
    pub retry_first: Duration,
    /// [`RETRY_MAX`].
    pub retry_max: Duration,
    /// [`RETRY_JITTER`]; zero, with a zero `renewal_jitter`, makes every wait the same again.
    pub retry_jitter: f64,
    /// [`RESOLVE_TIMEOUT`].
    pub resolve_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            machine_lease: MACHINE_LEASE,
            machine_lease_large: MACHINE_LEASE_LARGE,
            large_cluster_machines: LARGE_CLUSTER_MACHINES,
            leader_lease: LEADER_LEASE,
            seat_lease: SEAT_LEASE,
            seats: SEATS,
            orderly_stop_lease: ORDERLY_STOP_LEASE,
            renewals_per_lease: RENEWALS_PER_LEASE,
            renewal_jitter: RENEWAL_JITTER,
            renewal_retries_per_lease: RENEWAL_RETRIES_PER_LEASE,
            retry_first: RETRY_FIRST,
            retry_max: RETRY_MAX,
            retry_jitter: RETRY_JITTER,
            resolve_timeout: RESOLVE_TIMEOUT,
        }
    }
}

impl Timing {
    /// Returns the lease that a machine takes at its next grant, in a cluster of this many.
    #[must_use]
    pub const fn machine_lease_for(&self, machines: usize) -> Duration {
        if machines > self.large_cluster_machines { self.machine_lease_large } else { self.machine_lease }
    }

    /// Returns how long a renewal of a lease may take, all endpoints together.
    #[must_use]
    pub fn renewal_timeout(&self, ttl: Duration) -> Duration {
        ttl / self.renewals_per_lease.max(1)
    }

    /// Returns when the next renewal of a lease is due, counted from the one before, with jitter.
    #[must_use]
    pub fn renewal_interval(&self, ttl: Duration) -> Duration {
        let jitter = self.renewal_jitter.clamp(0.0, 0.5);
        let latest = ttl.saturating_sub(RENEWAL_MARGIN).min(ttl.mul_f64(RENEWAL_LATEST));
        let due = (ttl / self.renewals_per_lease.max(1)).max(latest);
        due.mul_f64(1.0 + rand::rng().random_range(-jitter..=jitter))
    }

    /// Returns when the first renewal is due of a lease that was just granted, or after some failed: any time
    /// within the interval, so that leases that were granted together, or whose store came back, are
    /// never renewed in step. Without jitter it is a whole interval.
    #[must_use]
    pub fn renewal_phase(&self, ttl: Duration) -> Duration {
        let interval = self.renewal_interval(ttl);
        if self.renewal_jitter > 0.0 {
            interval.mul_f64(rand::rng().random_range(0.0..=1.0))
        } else {
            interval
        }
    }

    /// Returns how long to wait before a failed renewal is tried again.
    #[must_use]
    pub fn renewal_retry(&self, ttl: Duration) -> Duration {
        ttl / self.renewal_retries_per_lease.max(1)
    }

    /// Returns the waits after one failed call, two in a row, and so on.
    #[must_use]
    pub const fn backoff(&self) -> Backoff {
        Backoff { first: self.retry_first, max: self.retry_max, jitter: self.retry_jitter, failures: 0 }
    }

    /// Returns the waits of who was outrun by another that changed the same, once, twice, and so on: all of each
    /// is left to chance, so that two do not meet again and again.
    #[must_use]
    pub const fn rivalry() -> Backoff {
        Backoff { first: RIVAL_FIRST, max: RIVAL_MAX, jitter: 1.0, failures: 0 }
    }
}

/// Waits that double from a first to a longest, each made shorter by chance.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    jitter: f64,
    failures: u32,
}

impl Backoff {
    /// Returns how long to wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        // 2^16 times the first wait is far beyond any longest one.
        let whole = self.first.saturating_mul(1 << self.failures.min(16)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(1.0 - rand::rng().random_range(0.0..=self.jitter.clamp(0.0, 1.0)))
    }

    /// Forgets the failures: a call succeeded.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over() {
        let mut backoff = Timing::default().backoff();
        let mut longest = RETRY_FIRST;
        for _ in 0..40 {
            let wait = backoff.next_wait();
            assert!(wait >= longest / 2 && wait <= longest, "{wait:?} for {longest:?}");
            longest = (longest * 2).min(RETRY_MAX);
        }
        backoff.reset();
        assert!(backoff.next_wait() <= RETRY_FIRST);
    }

    #[test]
    fn renewals_stay_within_their_jitter() {
        let timing = Timing::default();
        for _ in 0..1_000 {
            let interval = timing.renewal_interval(Duration::from_secs(9));
            assert!(interval >= Duration::from_millis(2_700) && interval <= Duration::from_millis(3_300));
            let interval = timing.renewal_interval(MACHINE_LEASE_LARGE);
            assert!(interval >= Duration::from_millis(10_800) && interval <= Duration::from_millis(13_200));
        }
        // Of leases of every length one renewal may be lost, and half of each is left at the latest.
        for seconds in 1..1_000 {
            let ttl = Duration::from_secs(seconds);
            let interval = timing.renewal_interval(ttl);
            assert!(interval <= ttl.mul_f64(0.441), "{interval:?} of {ttl:?}");
        }
    }

    #[test]
    fn first_renewals_are_spread_over_the_interval() {
        let mut seconds = [0; 14];
        for _ in 0..12_000 {
            let phase = Timing::default().renewal_phase(Duration::from_secs(30));
            seconds[phase.as_secs() as usize] += 1;
        }
        assert!(seconds[..10].iter().all(|second| (800..1_200).contains(second)), "{seconds:?}");
        let timing = Timing { renewal_jitter: 0.0, ..Timing::default() };
        assert_eq!(timing.renewal_phase(Duration::from_secs(30)), Duration::from_secs(12));
    }

    #[test]
    fn machines_take_the_longer_lease_above_a_thousand() {
        let timing = Timing::default();
        assert_eq!(timing.machine_lease_for(1_000), MACHINE_LEASE);
        assert_eq!(timing.machine_lease_for(1_001), MACHINE_LEASE_LARGE);
    }
}
