//! One client per endpoint, and the order in which they are tried.
//!
//! The client's own balancer picks endpoints at random, dead ones too, and does not try another. Here
//! every call goes to the endpoint that answered last; if that fails without effect the next is
//! tried, in rounds with jittered pauses, within the call's time. A write that was sent and not
//! answered is never sent again.

use std::{
    fmt,
    future::Future,
    sync::{
        Mutex, PoisonError,
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
}

struct Endpoint {
    url: String,
    client: Mutex<Option<Client>>,
    /// Whether it ever answered a call.
    answered: AtomicBool,
    /// Whether it answered the last call.
    proven: AtomicBool,
}

impl Endpoints {
    /// Returns the endpoints of a configuration; connects to none yet.
    pub(super) fn new(config: EtcdConfig) -> Result<Self, StoreError> {
        config.check()?;
        let endpoints: Vec<_> = config
            .endpoints
            .iter()
            .map(|url| Endpoint {
                url: url.trim_end_matches('/').to_owned(),
                client: Mutex::new(None),
                answered: AtomicBool::new(false),
                proven: AtomicBool::new(false),
            })
            .collect();
        // A random first one spreads the agents of a cluster over its etcd members.
        let preferred = AtomicUsize::new(rand::rng().random_range(0..endpoints.len()));
        Ok(Self { config, endpoints, preferred })
    }

    /// Makes a call at one endpoint after another until one answers.
    pub(super) async fn call<T, F>(&self, call: Call, attempt: impl Fn(Client) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + call.limit;
        let mut pause = PAUSE;
        let mut last = Tried::nothing();
        let first = self.preferred.load(Ordering::Relaxed);
        for round in 1.. {
            last.soon = false;
            for step in 0..self.endpoints.len() {
                let index = (first + step) % self.endpoints.len();
                let left = self.endpoints.len() - step;
                match self.attempt(index, left, deadline, call, &attempt).await {
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
                            tracing::warn!(endpoint = %self.endpoints[index].url, what = call.what, why, "no answer");
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
            let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.5));
            let hopeless = round >= REFUSED_ROUNDS && !last.soon;
            if hopeless || Instant::now() + jittered + ATTEMPT_MIN >= deadline {
                break;
            }
            sleep(jittered).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Err(self.failed(last))
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
        left: usize,
        deadline: Instant,
        call: Call,
        attempt: &impl Fn(Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let remaining = deadline.saturating_duration_since(Instant::now());
        // A server that hangs must leave time for the others.
        let limit = if left > 1 { remaining / 2 } else { remaining };
        let client = timeout(limit, self.client(index)).await.unwrap_or_else(|_| {
            let why = format!("connecting took longer than {limit:?}");
            Err(Failure::NotDone { why, soon: false, credentials: None })
        })?;
        if call.repeat == Repeat::Never && !self.endpoints[index].proven.load(Ordering::Relaxed) {
            self.prove(index, &client, limit).await?;
        }
        // What cannot be repeated has all the time there is: cutting it short gains nothing.
        let until =
            if call.repeat == Repeat::Never { deadline } else { deadline.min(Instant::now() + limit) };
        match timeout_at(until, attempt(client)).await {
            Ok(Ok(answer)) => {
                self.preferred.store(index, Ordering::Relaxed);
                self.endpoints[index].answers();
                Ok(answer)
            }
            Ok(Err(error)) => Err(classify(&error, call.subject)),
            Err(_) => {
                Err(Failure::Unanswered(format!("{} did not answer in time", self.endpoints[index].url)))
            }
        }
    }

    /// Asks an endpoint something harmless before it is given a write: one that hangs, or that closes
    /// the connection over our certificate only after the handshake, then costs no unknown outcome.
    async fn prove(&self, index: usize, client: &Client, limit: Duration) -> Result<(), Failure> {
        let not_done = |why| Failure::NotDone { why, soon: true, credentials: None };
        match timeout(limit, client.maintenance_client().status()).await {
            Ok(Ok(_)) => self.endpoints[index].answers(),
            Ok(Err(error)) => match classify(&error, Subject::default()) {
                // Whoever refuses has answered.
                Failure::Refused(_) => self.endpoints[index].answers(),
                Failure::Unanswered(why) => return Err(not_done(why)),
                failure @ Failure::NotDone { .. } => return Err(failure),
            },
            Err(_) => {
                let url = &self.endpoints[index].url;
                return Err(not_done(format!("{url} did not answer in time")));
            }
        }
        Ok(())
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
        *self.endpoints[index].client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Distrusts an endpoint and prefers the next from now on, unless another call already chose one.
    fn avoid(&self, index: usize) {
        let next = (index + 1) % self.endpoints.len();
        self.endpoints[index].proven.store(false, Ordering::Relaxed);
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

impl Endpoint {
    fn answers(&self) {
        self.answered.store(true, Ordering::Relaxed);
        self.proven.store(true, Ordering::Relaxed);
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
