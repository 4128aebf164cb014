//! Signs of life of one etcd member: tells one that is slow from one that is gone.
//!
//! A killed process closes its connections, but a dead machine, a cut cable and a frozen process close
//! nothing: whatever waits for them waits until the HTTP/2 ping fails, and etcd closes the connections of
//! clients that ping more often than every 5 s. So whoever waits keeps a vigil: when nothing at all was
//! heard from the member for a while, it is asked for its status, which needs neither leader nor disk,
//! and a member that does not answer that is gone. Every answer counts as a sign, whoever got it, so a
//! member whose leases are renewed is hardly ever asked; and all who wait learn of the loss at once.
//!
//! Belongs to an endpoint; `endpoints` keeps a vigil over calls, `watching` one over each watch.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use etcd_client::Client;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    super::CALL_TIMEOUT,
    failure::{Failure, Subject, classify},
};

/// How long a call waits before its member is asked whether it lives. 300 ms: a hundred times what a
/// healthy member needs, and little for a person who waits.
const OF_A_CALL: Duration = Duration::from_millis(300);

/// How long the member of a watch may be unheard of before it is asked: this part of the shortest lease
/// that is renewed. A tenth: a second for a lease of ten, so that with [`PATIENCE`] an order is late by
/// two because a machine watched a dead member.
const OF_A_WATCH: u32 = 10;

/// From which lease on a member is not asked between two renewals. Thirty seconds, which the machines of a
/// large cluster have: ten thousand that ask every three seconds are 3,300 questions a second at rest, a tenth
/// of a core of each member. Their renewals and the HTTP/2 pings find a dead member within 9 s.
const OF_A_LONG_LEASE: Duration = Duration::from_secs(30);

/// How long such a member may be unheard of. Twelve seconds: a little longer than the time between two
/// renewals of [`OF_A_LONG_LEASE`], with their jitter.
const OF_A_LONG_WATCH: Duration = Duration::from_secs(12);

/// The shortest of that, and what holds when nothing is renewed.
const OF_A_WATCH_MIN: Duration = Duration::from_secs(1);

/// The longest of that.
const OF_A_WATCH_MAX: Duration = Duration::from_secs(3);

/// How long a member may take to say that it lives. A second: a thousand times what it needs, so only
/// one that is gone, frozen or useless takes longer; or one that is overloaded, see [`Patience`].
const PATIENCE: Duration = Duration::from_secs(1);

/// The same for a member that has to be connected to first.
const PATIENCE_TO_CONNECT: Duration = Duration::from_secs(2);

/// The same for a member that is the only one of a large cluster, whose leases outlast it ([`OF_A_LONG_LEASE`]). Fifteen
/// seconds: there is none to go to instead, and ten thousand that connect, watch and renew anew because it stood still
/// for a moment keep it from coming back. Calls end by their own time, and what is gone by the HTTP/2 ping.
const PATIENCE_ALONE: Duration = Duration::from_secs(15);

/// How many times the time of its last answer a member may take for the next.
const PATIENCE_TIMES: u32 = 4;

/// The most that a member is ever given: what a call is.
const PATIENCE_MAX: Duration = CALL_TIMEOUT;

/// How long to wait for an answer that somebody else asked for.
const ASKED_ALREADY: Duration = Duration::from_millis(100);

/// How long a write may still be answered after the cluster has changed its leader. 300 ms: what the old
/// leader had spread the new one commits within a heartbeat or two; what it had not is lost.
const AFTER_A_NEW_LEADER: Duration = Duration::from_millis(300);

/// How long a member that hung once is tried after the others. Ten seconds: a call that fails everywhere else
/// still tries it, and so does every call once this is over.
const AFTER_A_LOSS: Duration = Duration::from_secs(10);

/// One member's signs of life.
#[derive(Debug)]
pub(super) struct Life {
    url: String,
    /// Where there is no other member: how long a watched one may be quiet.
    alone: Option<Arc<Quiet>>,
    /// When it was last heard.
    heard: Mutex<Instant>,
    /// Whether it answered the last call.
    proven: AtomicBool,
    /// Whether its present connection has brought an answer.
    connected: AtomicBool,
    /// When it was last found gone, unless it was heard since.
    lost: Mutex<Option<Instant>>,
    /// Somebody is asking it.
    asked: AtomicBool,
    /// When it last told its status.
    told: Mutex<Option<Instant>>,
    /// The highest raft term that it told of: another term, another leader.
    term: AtomicU64,
    /// What it is given to answer.
    given: Mutex<Patience>,
    /// How often it was found gone.
    losses: watch::Sender<u64>,
}

/// How long a member may take to answer: longer after each time that it did not, and after each slow answer.
///
/// Without it an overloaded member is left by all at once: ten thousand who connect, watch and ask anew are a
/// greater load than the one that made it slow, and it never answers anybody in time again. This is what TCP's
/// retransmission timer does for the same reason (RFC 6298: a multiple of what was measured, doubled when nothing
/// came back).
#[derive(Debug, Clone, Copy)]
struct Patience(Duration);

impl Patience {
    /// It answered, after this time.
    fn answered(&mut self, after: Duration) {
        // Down by half at a time: one quick answer between slow ones is no proof.
        self.0 = (after * PATIENCE_TIMES).max(self.0 / 2).clamp(PATIENCE, PATIENCE_MAX);
    }

    /// It did not, within this time.
    fn silent(&mut self, for_long: Duration) {
        self.0 = (for_long * 2).max(self.0).clamp(PATIENCE, PATIENCE_MAX);
    }

    /// Returns how long it is tried after the others once it hung, in proportion: what trying it costs grew.
    fn shunned(self) -> Duration {
        AFTER_A_LOSS.mul_f64(self.0.as_secs_f64() / PATIENCE.as_secs_f64())
    }
}

/// How long the member of a watch may be unheard of; one for all members.
#[derive(Debug)]
pub(super) struct Quiet(AtomicU64);

impl Default for Quiet {
    fn default() -> Self {
        Self(AtomicU64::new(OF_A_WATCH_MIN.as_secs()))
    }
}

impl Quiet {
    /// Takes note of the shortest lease that is renewed now.
    pub(super) fn for_lease(&self, ttl: Duration) {
        let quiet = if ttl >= OF_A_LONG_LEASE {
            OF_A_LONG_WATCH
        } else {
            (ttl / OF_A_WATCH).clamp(OF_A_WATCH_MIN, OF_A_WATCH_MAX)
        };
        self.0.store(quiet.as_secs(), Ordering::Relaxed);
    }

    /// Tells whether all leases that are renewed are those of a large cluster.
    fn is_long(&self) -> bool {
        self.get() >= OF_A_LONG_WATCH
    }

    fn get(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// Resets the flag also when whoever asks is dropped while asking.
struct Asking<'a>(&'a Life);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asked.store(false, Ordering::Relaxed);
    }
}

impl Life {
    /// Returns the life of a member that was not heard yet.
    pub(super) fn new(url: String, alone: Option<Arc<Quiet>>) -> Self {
        Self {
            url,
            alone,
            heard: Mutex::new(Instant::now()),
            proven: AtomicBool::new(false),
            connected: AtomicBool::new(false),
            lost: Mutex::new(None),
            asked: AtomicBool::new(false),
            told: Mutex::new(None),
            term: AtomicU64::new(0),
            given: Mutex::new(Patience(PATIENCE)),
            losses: watch::Sender::new(0),
        }
    }

    /// Notes that the member said something, whatever it was.
    pub(super) fn hear(&self) {
        self.connected.store(true, Ordering::Relaxed);
        *self.lost() = None;
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Notes that the member answered a call.
    pub(super) fn prove(&self) {
        self.hear();
        self.proven.store(true, Ordering::Relaxed);
    }

    /// Tells whether it hung lately and was not heard since: trying it costs seconds.
    pub(super) fn hung(&self) -> bool {
        let shunned = self.given().shunned();
        self.lost().is_some_and(|lost| lost.elapsed() < shunned)
    }

    /// Returns how much more than usual it is given to answer: how long a call that found it silent waits before
    /// it is sent again.
    pub(super) fn overloaded(&self) -> Duration {
        self.given().0.saturating_sub(PATIENCE)
    }

    /// Notes that a call failed there: it has to prove itself before it is given a write.
    pub(super) fn distrust(&self) {
        self.proven.store(false, Ordering::Relaxed);
    }

    /// Notes that the connection was given up.
    pub(super) fn disconnect(&self) {
        self.connected.store(false, Ordering::Relaxed);
    }

    /// Tells whether it answered the last call.
    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Returns how long it may take to answer.
    pub(super) fn patience(&self) -> Duration {
        let least = match self.connected.load(Ordering::Relaxed) {
            true if self.alone.as_ref().is_some_and(|quiet| quiet.is_long()) => PATIENCE_ALONE,
            true => PATIENCE,
            false => PATIENCE_TO_CONNECT,
        };
        self.given().0.max(least)
    }

    fn given(&self) -> MutexGuard<'_, Patience> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self) -> Instant {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether its last status is too old to say who leads.
    fn is_untold(&self) -> bool {
        let told = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.is_none_or(|told| told.elapsed() >= OF_A_CALL)
    }

    fn lost(&self) -> MutexGuard<'_, Option<Instant>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a sign.
    ///
    /// # Errors
    /// It gave none, not to others either; nothing else was done.
    pub(super) async fn ask(&self, client: &Client, limit: Duration) -> Result<(), Failure> {
        let begun = Instant::now();
        match timeout(limit, client.maintenance_client().status()).await {
            Ok(Ok(status)) => {
                self.given().answered(begun.elapsed());
                self.term.fetch_max(status.raft_term(), Ordering::Relaxed);
                *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
            Ok(Err(error)) => match classify(&error, Subject::default()) {
                // Whoever refuses has answered.
                Failure::Refused(_) => {}
                Failure::Unanswered(why) => {
                    return Err(Failure::NotDone { why, soon: true, credentials: None });
                }
                failure @ Failure::NotDone { .. } => return Err(failure),
            },
            // It is busy, and answers others: to leave it would only make it busier.
            Err(_) if self.heard() > begun => {
                self.given().silent(limit);
                return Ok(());
            }
            Err(_) => {
                self.given().silent(limit);
                *self.lost() = Some(Instant::now());
                let why = format!("{} did not answer within {limit:?}", self.url);
                return Err(Failure::NotDone { why, soon: true, credentials: None });
            }
        }
        self.prove();
        Ok(())
    }

    /// Keeps a vigil over a call: returns, with the reason in words, when the member has to be taken for
    /// gone.
    pub(super) async fn gone(&self, client: &Client) -> String {
        self.vigil(client, || OF_A_CALL).await
    }

    /// The same over a watch, which may be quiet for long.
    pub(super) async fn gone_while_watched(&self, client: &Client, quiet: &Quiet) -> String {
        self.vigil(client, || quiet.get()).await
    }

    /// Asks the member when it was not heard for a while.
    async fn vigil(&self, client: &Client, quiet: impl Fn() -> Duration) -> String {
        let mut losses = self.losses.subscribe();
        let begun = Instant::now();
        let mut look_at = begun + quiet();
        loop {
            tokio::select! {
                // Whoever asked last tells all.
                _ = losses.changed() => return format!("{} gives no sign of life", self.url),
                () = sleep_until(look_at) => {}
            }
            look_at = self.heard().max(begun) + quiet();
            if look_at > Instant::now() {
                continue;
            }
            if self.asked.swap(true, Ordering::Relaxed) {
                look_at = Instant::now() + ASKED_ALREADY;
                continue;
            }
            let asking = Asking(self);
            let answer = self.ask(client, self.patience()).await;
            drop(asking);
            if let Err(failure) = answer {
                self.distrust();
                self.losses.send_modify(|losses| *losses += 1);
                let why = match failure {
                    Failure::NotDone { why, .. } | Failure::Unanswered(why) => why,
                    Failure::Refused(error) => error.to_string(),
                };
                return format!("{} gives no sign of life: {why}", self.url);
            }
            look_at = Instant::now() + quiet();
        }
    }

    /// Returns when a write that this member was just given can hardly be answered any more: the cluster
    /// has got another leader since, and what the one before did not spread is lost without a word.
    pub(super) async fn another_leader(&self, client: &Client) -> String {
        let before = self.term.load(Ordering::Relaxed);
        loop {
            sleep(OF_A_CALL).await;
            // One of all whose writes wait asks for all of them: a busy member is not asked by each.
            if self.is_untold() && !self.asked.swap(true, Ordering::Relaxed) {
                let _asking = Asking(self);
                // That it says nothing is the vigil's business.
                let _ = self.ask(client, self.patience()).await;
            }
            if self.term.load(Ordering::Relaxed) > before {
                sleep(AFTER_A_NEW_LEADER).await;
                return "etcd has got another leader since".to_owned();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overloaded_member_is_given_more_time_and_a_quick_one_less() {
        let seconds = Duration::from_secs;
        let mut patience = Patience(PATIENCE);
        patience.answered(Duration::from_millis(2));
        assert_eq!(patience.0, PATIENCE);
        patience.answered(Duration::from_millis(900));
        assert_eq!(patience.0, Duration::from_millis(3_600));
        patience.answered(Duration::from_millis(2));
        assert_eq!(patience.0, Duration::from_millis(1_800));
        let mut patience = Patience(PATIENCE);
        let given = [0; 4].map(|_| {
            patience.silent(patience.0);
            patience.0
        });
        assert_eq!(given, [seconds(2), seconds(4), PATIENCE_MAX, PATIENCE_MAX]);
        assert_eq!(patience.shunned(), seconds(50));
        // One that connects slowly is not given less by what it was given before.
        patience.silent(PATIENCE);
        assert_eq!(patience.0, PATIENCE_MAX);
    }
}
