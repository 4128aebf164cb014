//! What a server knows of its own machine, and how it finds the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use flotilla_agent::{
    Known, adoption::AdoptionSource, journal::LogSource, status::StatusSource, usage::UsageSource,
};
use flotilla_api::{
    client::{Client, ClientError, Identity},
    error::{ErrorBody, ErrorKind},
};
use flotilla_engine::{HoldRelease, StateReader};
use flotilla_registry::{operations::Operations, witness::SharedWitness};
use flotilla_units::MachineId;
use tokio::sync::watch;

use crate::{
    TlsError, TlsFiles, error::ApiError, metrics::Metrics, session::Sessions, stream::Feed, tls::Watched,
};

/// The most clients kept for other machines; the whole set is dropped past it. Connections are made
/// again in a millisecond, and only seats talk to many machines.
const CLIENTS_MAX: usize = 1_024;

/// Whether the daemon is well, for load balancers and people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// What keeps it from being ready, one line each.
    pub not_ready: Vec<String>,
}

/// What the routes work with.
#[derive(Debug)]
pub struct Node {
    /// This machine.
    pub machine: MachineId,
    /// Its host name.
    pub host: String,
    /// The daemon's version.
    pub version: &'static str,
    /// What users do to units.
    pub operations: Operations,
    /// The engine's state while it has a seat; always `None` without the engine's role.
    pub readers: watch::Receiver<Option<StateReader>>,
    /// Ends a mass-loss hold, where an engine runs here.
    pub hold: Option<HoldRelease>,
    /// What this daemon has seen of the store.
    pub witness: SharedWitness,
    /// This machine's journal.
    pub journal: Arc<dyn LogSource>,
    /// Which units of this machine are flotilla's: of no other is anything shown.
    pub known: Known,
    /// What systemd says of this machine's units, where its agent runs here.
    pub status: Option<Arc<dyn StatusSource>>,
    /// What units take of this machine, where its agent runs here.
    pub usage: Option<Arc<dyn UsageSource>>,
    /// Commands and shells on this machine, where its agent runs here.
    pub sessions: Option<Sessions>,
    /// Which of the machine's own units can be taken over, where its agent runs here.
    pub adoption: Option<Arc<dyn AdoptionSource>>,
    /// The other machines.
    pub peers: Peers,
    /// Counters and gauges.
    pub metrics: Metrics,
    /// Whether the daemon is well.
    pub health: watch::Receiver<Health>,
}

/// Clients for other machines.
#[derive(Debug)]
pub struct Peers {
    known: Mutex<Clients>,
    /// The files of the certificate, where it may be renewed.
    watched: Option<Watched>,
}

#[derive(Debug, Default)]
struct Clients {
    identity: Option<IdentityOfMachine>,
    clients: HashMap<String, Client>,
}

/// Keeps the key out of debug output.
struct IdentityOfMachine(Identity);

impl std::fmt::Debug for IdentityOfMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a certificate and its key")
    }
}

impl Node {
    /// Returns the engine's state, if there is a seat here.
    pub(crate) fn reader(&self) -> Option<StateReader> {
        self.readers.borrow().clone()
    }

    /// Returns the engine's state for a route behind the forwarding layer, which has made sure of it
    /// a moment ago.
    pub(crate) fn seat(&self) -> Result<StateReader, ApiError> {
        self.reader()
            .ok_or_else(|| ApiError::unavailable("this machine has just given up its seat; try again"))
    }

    /// Waits until the seat that a reader reads is given up. What the reader shows stands still from
    /// then on, also if this machine has taken a seat again since.
    pub(crate) async fn unseated(&self, reader: &StateReader) {
        let mut readers = self.readers.clone();
        let gone = |now: &Option<StateReader>| !now.as_ref().is_some_and(|now| now.is_same(reader));
        // An engine that has ended has no seat either.
        let _ended = readers.wait_for(gone).await;
    }

    /// Ends a stream whose seat was given up: the client asks again, and another seat answers.
    pub(crate) async fn end_unseated(&self, feed: &Feed) {
        let message = format!("{} has given up its seat; ask again", self.host);
        feed.fail(&ErrorBody { kind: ErrorKind::Unavailable, message, details: Vec::new() }).await;
    }
}

impl Peers {
    /// Makes clients with this machine's certificate; without one, other machines cannot be asked.
    #[must_use]
    pub fn new(identity: Option<Identity>) -> Self {
        let identity = identity.map(IdentityOfMachine);
        Self { known: Mutex::new(Clients { identity, ..Clients::default() }), watched: None }
    }

    /// Makes clients with the certificate in these files, and with the one that is in them later.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn with(files: &TlsFiles) -> Result<Self, TlsError> {
        let watched = Watched::new(files);
        Ok(Self { watched: Some(watched), ..Self::new(Some(files.identity()?)) })
    }

    /// Returns the client for an API's URL.
    pub(crate) fn at(&self, url: &str) -> Result<Client, ClientError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(renewed) = self.watched.as_ref().and_then(Watched::renewed_identity) {
            *known = Clients { identity: Some(IdentityOfMachine(renewed)), ..Clients::default() };
        }
        let Clients { identity, clients } = &mut *known;
        if let Some(client) = clients.get(url) {
            return Ok(client.clone());
        }
        let client = Client::new(url.parse()?, identity.as_ref().map(|identity| &identity.0))?;
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(url.to_owned(), client.clone());
        Ok(client)
    }
}
