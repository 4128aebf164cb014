//! One client per endpoint, and the order in which they are tried.
//!
//! The client's own balancer picks endpoints at random, dead ones too, and does not try another. Here
//! every call goes to the endpoint that answered last; if that fails without effect, or gives no sign
//! of life, the next is tried, in rounds with jittered pauses, within the call's time. A write that was
//! sent and not answered is never sent again, but its caller is told as soon as no answer can be
//! expected any more, and finds out what became of it through another endpoint.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use etcd_client::{Client, Error};
use rand::RngExt;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    super::StoreError,
    config::EtcdConfig,
    failure::{Failure, Refusal, Subject, classify},
    life::{Life, Quiet},
};

/// The pause after the first round over all endpoints; doubled after each, +-50 %.
const PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between rounds.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Rounds over endpoints that refuse the connection: together about 0.4 s, enough for a server that
/// restarts, short enough that a person is told soon.
const REFUSED_ROUNDS: u32 = 4;

/// The shortest time worth giving an attempt.
const ATTEMPT_MIN: Duration = Duration::from_millis(200);

/// How long an endpoint is tried in the first round when another lives and only waits for its cluster's
/// next leader; as much longer in each later one. 500 ms: a fraction of what an election takes.
const BESIDE_ONE_THAT_LIVES: Duration = Duration::from_millis(500);

/// What may be done with a call that was sent and not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Send it again: it changes nothing, or the same thing.
    Freely,
    /// Never.
    Never,
}

/// A call: what it is, how long it may take, whether it may be repeated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// In words, for errors.
    pub(super) what: &'static str,
    /// All of it, every endpoint and pause.
    pub(super) limit: Duration,
    /// Whether it may be repeated.
    pub(super) repeat: Repeat,
    /// What it is about.
    pub(super) subject: Subject,
}

/// The members of one etcd cluster.
pub(super) struct Endpoints {
    config: EtcdConfig,
    endpoints: Vec<Endpoint>,
    /// The index of the one that answered last.
    preferred: AtomicUsize,
    /// The last call reached none: those who wait by themselves are told after one round.
    away: AtomicBool,
    /// How long a watched member may be quiet.
    pub(super) quiet: Arc<Quiet>,
}

struct Endpoint {
    url: String,
    client: Mutex<Option<Client>>,
    /// Whether it ever answered a call.
    answered: AtomicBool,
    life: Arc<Life>,
}

/// The connection to one endpoint, as a call is given it.
#[derive(Clone)]
pub(super) struct Link {
    /// The client of that endpoint alone.
    pub(super) client: Client,
    /// The member's signs of life.
    pub(super) life: Arc<Life>,
    index: usize,
}

impl Endpoints {
    /// Returns the endpoints of a configuration; connects to none yet.
    pub(super) fn new(config: EtcdConfig) -> Result<Self, StoreError> {
        config.check()?;
        let quiet: Arc<Quiet> = Arc::default();
        let alone = config.is_alone().then(|| Arc::clone(&quiet));
        let endpoints: Vec<_> = config
            .endpoints
            .iter()
            .map(|url| url.trim_end_matches('/').to_owned())
            .map(|url| Endpoint {
                client: Mutex::new(None),
                answered: AtomicBool::new(false),
                life: Arc::new(Life::new(url.clone(), alone.clone())),
                url,
            })
            .collect();
        // A random first one spreads the agents of a cluster over its etcd members.
        let preferred = AtomicUsize::new(rand::rng().random_range(0..endpoints.len()));
        let away = AtomicBool::new(false);
        Ok(Self { config, endpoints, preferred, away, quiet })
    }

    /// Makes a call at one endpoint after another until one answers.
    pub(super) async fn call<T, F>(&self, call: Call, attempt: impl Fn(Link) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + call.limit;
        let mut pause = PAUSE;
        let mut last = Tried::nothing();
        let rounds = if self.away.load(Ordering::Relaxed) { 1 } else { REFUSED_ROUNDS };
        for round in 1.. {
            last.soon = false;
            let (order, doubtful) = self.order();
            for (step, &index) in order.iter().enumerate() {
                // While another only waits for its cluster's next leader, none that hangs is worth the time.
                if step >= doubtful && last.soon {
                    break;
                }
                let remaining = deadline.saturating_duration_since(Instant::now());
                // A server that hangs must leave time for the others, the more so for one that will be
                // able to answer soon.
                let mut limit = if step + 1 < order.len() { remaining / 2 } else { remaining };
                if last.soon {
                    limit = limit.min(BESIDE_ONE_THAT_LIVES * round);
                }
                match self.attempt(index, limit, deadline, call, &attempt).await {
                    Ok(answer) => return Ok(answer),
                    Err(Failure::Refused(error)) => {
                        if matches!(error, StoreError::Unauthenticated(_)) {
                            self.forget(index);
                        }
                        return Err(error);
                    }
                    Err(Failure::NotDone { why, soon, credentials }) => {
                        let closed = self.is_unexplained_close(index, &why);
                        last.only_closed &= closed;
                        last.soon |= soon && !closed;
                        if credentials.is_some() {
                            last.credentials = credentials;
                        }
                        last.why = why;
                    }
                    Err(Failure::Unanswered(why)) => {
                        if call.repeat == Repeat::Never {
                            self.avoid(index);
                            tracing::warn!(endpoint = %self.endpoints[index].url, what = call.what, why, "etcd did not answer; the outcome is unknown");
                            return Err(StoreError::OutcomeUnknown { what: call.what.into() });
                        }
                        // An alert about our certificate can be lost with the connection it closes.
                        let closed = self.is_unexplained_close(index, &why);
                        last.only_closed &= closed;
                        last.soon |= !closed;
                        last.why = why;
                    }
                }
                self.avoid(index);
                if Instant::now() + ATTEMPT_MIN >= deadline {
                    return Err(self.failed(last));
                }
            }
            // A round is as quick as the quickest allows; where all are overloaded nobody is helped by haste.
            let overloaded = self.endpoints.iter().map(|endpoint| endpoint.life.overloaded()).min();
            let pause_now = pause.max(overloaded.unwrap_or_default());
            let jittered = pause_now.mul_f64(rand::rng().random_range(0.5..1.5));
            let hopeless = round >= rounds && !last.soon;
            if hopeless || Instant::now() + jittered + ATTEMPT_MIN >= deadline {
                break;
            }
            sleep(jittered).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Err(self.failed(last))
    }

    /// Returns the order in which endpoints are tried, and from where on they are those that hung lately.
    fn order(&self) -> (Vec<usize>, usize) {
        let (count, first) = (self.endpoints.len(), self.preferred.load(Ordering::Relaxed));
        let all = (0..count).map(|step| (first + step) % count);
        let (hung, mut order): (Vec<_>, Vec<_>) = all.partition(|&index| self.endpoints[index].life.hung());
        let doubtful = order.len();
        order.extend(hung);
        (order, doubtful)
    }

    /// Returns every URL, for errors.
    pub(super) fn urls(&self) -> String {
        self.endpoints.iter().map(|endpoint| endpoint.url.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Drops every connection, so that the next calls authenticate and read certificates anew.
    pub(super) fn forget_all(&self) {
        (0..self.endpoints.len()).for_each(|index| self.forget(index));
    }

    async fn attempt<T, F>(
        &self,
        index: usize,
        limit: Duration,
        deadline: Instant,
        call: Call,
        attempt: &impl Fn(Link) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let patience = limit.min(self.endpoints[index].life.patience());
        let client = timeout(patience, self.client(index)).await.unwrap_or_else(|_| {
            let why = format!("connecting took longer than {patience:?}");
            Err(Failure::NotDone { why, soon: false, credentials: None })
        })?;
        let endpoint = &self.endpoints[index];
        let (life, once) = (&endpoint.life, call.repeat == Repeat::Never);
        if once && !life.is_proven() {
            // Something harmless first: an endpoint that hangs, or that closes the connection over our
            // certificate only after the handshake, then costs no unknown outcome.
            life.ask(&client, patience).await.inspect_err(|_| self.forget(index))?;
            endpoint.answered.store(true, Ordering::Relaxed);
        }
        // What cannot be repeated has all the time there is, as long as an answer can be expected.
        let until = if once { deadline } else { deadline.min(Instant::now() + limit) };
        let link = Link { client: client.clone(), life: Arc::clone(life), index };
        tokio::select! {
            biased;
            answer = timeout_at(until, attempt(link)) => match answer {
                Ok(Ok(answer)) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    self.away.store(false, Ordering::Relaxed);
                    endpoint.answered.store(true, Ordering::Relaxed);
                    life.prove();
                    Ok(answer)
                }
                Ok(Err(error)) => Err(classify(&error, call.subject)),
                Err(_) => Err(Failure::Unanswered(format!("{} did not answer in time", endpoint.url))),
            },
            why = life.gone(&client) => {
                // Its connection may never be heard of again.
                self.forget(index);
                Err(Failure::Unanswered(why))
            }
            why = life.another_leader(&client), if once => Err(Failure::Unanswered(why)),
        }
    }

    async fn client(&self, index: usize) -> Result<Client, Failure> {
        let endpoint = &self.endpoints[index];
        let known = endpoint.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(client) = known {
            return Ok(client);
        }
        let options = self.config.options().map_err(Failure::Refused)?;
        // Connects lazily, but a user is authenticated here. Nothing of the call itself is sent yet.
        let client = match Client::connect([endpoint.url.as_str()], Some(options)).await {
            Ok(client) => client,
            Err(error) => {
                return Err(match classify(&error, Subject::default()) {
                    Failure::Unanswered(why) => Failure::NotDone { why, soon: false, credentials: None },
                    other => other,
                });
            }
        };
        *endpoint.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }

    fn forget(&self, index: usize) {
        self.endpoints[index].life.disconnect();
        *self.endpoints[index].client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Takes note that a stream of this link has failed, so that the next call goes elsewhere.
    pub(super) fn leave(&self, link: &Link) {
        self.avoid(link.index);
    }

    /// Distrusts an endpoint and prefers the next from now on, unless another call already chose one.
    fn avoid(&self, index: usize) {
        let next = (index + 1) % self.endpoints.len();
        self.endpoints[index].life.distrust();
        // Losing the race means that somebody else knows better.
        let _ = self.preferred.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Tells whether a TLS endpoint that never answered anything has closed the connection again.
    fn is_unexplained_close(&self, index: usize, why: &str) -> bool {
        let closed =
            ["connection closed", "broken pipe", "connection reset", "Connection reset", "Broken pipe"];
        self.config.tls.is_some()
            && !self.endpoints[index].answered.load(Ordering::Relaxed)
            && closed.iter().any(|words| why.contains(words))
    }

    fn failed(&self, last: Tried) -> StoreError {
        self.away.store(true, Ordering::Relaxed);
        if last.only_closed || last.credentials.is_some() {
            // The next connections read the certificates again.
            self.forget_all();
        }
        match last.credentials {
            Some(Refusal::OurCertificate) => StoreError::Unauthenticated(self.config.explain_refusal()),
            Some(Refusal::Other(why)) => StoreError::Unauthenticated(why),
            None if last.only_closed => {
                let explanation = self.config.explain_refusal();
                StoreError::Unauthenticated(format!(
                    "etcd closes every TLS connection unanswered: {explanation}"
                ))
            }
            None => StoreError::Unreachable { endpoints: self.urls(), why: last.why },
        }
    }
}

/// Without the client, which holds credentials.
impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Link").field("life", &self.life).finish_non_exhaustive()
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Endpoints").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What the attempts of one call have come to.
#[derive(Debug)]
struct Tried {
    /// What the last one said.
    why: String,
    /// What is wrong with the credentials, if anything is.
    credentials: Option<Refusal>,
    /// Whether a server in this round will be able to answer soon.
    soon: bool,
    /// Whether every attempt ended in a TLS connection closed without a word.
    only_closed: bool,
}

impl Tried {
    const fn nothing() -> Self {
        Self { why: String::new(), credentials: None, soon: false, only_closed: true }
    }
}
