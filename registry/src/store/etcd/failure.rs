//! What an error of etcd's client means: whether the call had an effect, and what to tell the caller.
//!
//! The client gives a gRPC status whose code alone says little: a refused connection, a server without
//! leader and a proposal that may still be carried out are all `Unavailable`. So the words are read
//! too; they are those of etcd's `rpctypes` (stable since 3.0), rustls and tonic. Tests with a real
//! server hold each of them.

use std::error::Error as _;

use etcd_client::Error;

use super::super::{LeaseId, Revision, StoreError};

/// Why one attempt at one endpoint failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It certainly had no effect; another endpoint, or this one later, may do it.
    NotDone {
        /// What was said.
        why: String,
        /// Whether the server answers and will soon be able to (it has no leader just now).
        soon: bool,
        /// What is wrong with the credentials, if that is why.
        credentials: Option<Refusal>,
    },
    /// It was sent, and whether it had an effect is not known.
    Unanswered(String),
    /// The cluster said no; asking again changes nothing.
    Refused(StoreError),
}

/// What is wrong with the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// etcd does not accept our certificate, or misses it.
    OurCertificate,
    /// Anything else, explained.
    Other(String),
}

/// What the call was about, for errors that do not say it themselves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Subject {
    /// The revision that was asked for.
    pub(super) revision: Option<Revision>,
    /// The lease that was used.
    pub(super) lease: Option<LeaseId>,
}

/// gRPC's code for an answer that exceeds our limit, or a revision out of the history.
const OUT_OF_RANGE: i32 = 11;

/// Tells what an error means.
pub(super) fn classify(error: &Error, subject: Subject) -> Failure {
    match error {
        Error::GRpcStatus(status) => by_status(error, status.code() as i32, status.message(), subject),
        Error::LeaseKeepAliveError(why) if why.contains("not found") => lease_gone(subject),
        Error::InvalidArgs(why) => Failure::Refused(StoreError::Invalid(why.clone())),
        Error::InvalidUri(_) | Error::InvalidMetadataValue(_) | Error::Utf8Error(_) => {
            Failure::Refused(StoreError::Invalid(error.to_string()))
        }
        Error::TransportError(_) => {
            let why = chain(error);
            Failure::NotDone { credentials: tls_refusal(&why), why, soon: false }
        }
        other => Failure::Unanswered(other.to_string()),
    }
}

/// Tells what etcd meant by ending a watch with these words.
pub(super) fn classify_cancel(reason: &str) -> StoreError {
    if reason.contains("permission denied") || reason.contains("PermissionDenied") {
        StoreError::Unauthenticated(format!(
            "etcd does not let this user watch here ({reason}); grant its role"
        ))
    } else {
        StoreError::WatchEnded(format!("etcd ended it: {reason}"))
    }
}

fn by_status(error: &Error, code: i32, message: &str, subject: Subject) -> Failure {
    let says = |words: &str| message.contains(words);
    let refused = |error: StoreError| Failure::Refused(error);
    let credentials = |why: &str| refused(StoreError::Unauthenticated(format!("{why} (etcd: {message})")));
    let not_yet = |soon| Failure::NotDone { why: message.to_owned(), soon, credentials: None };

    if says("requested lease not found") {
        return lease_gone(subject);
    }
    if says("required revision has been compacted") {
        let wanted = subject.revision.unwrap_or_default();
        return refused(StoreError::Compacted { wanted, oldest: Revision(0) });
    }
    if says("future revision") || says("too large") || says("duplicate key") || says("too many operations") {
        return refused(StoreError::Invalid(message.to_owned()));
    }
    if code == OUT_OF_RANGE && says("decoded message length") {
        return refused(StoreError::Invalid(format!("the answer is too large, read in windows: {message}")));
    }
    if says("database space exceeded") {
        return refused(StoreError::NoSpace(format!(
            "{message}; compact and defragment etcd, or raise --quota-backend-bytes, then disarm its alarm"
        )));
    }
    if says("authentication failed") {
        return credentials("the user or the password is wrong; check the store's user and password");
    }
    if says("user name is empty") {
        return credentials("etcd wants a user and a password and none is configured");
    }
    if says("authentication is not enabled") {
        return credentials(
            "a user is configured but etcd's authentication is off; remove one or enable the other",
        );
    }
    if says("permission denied") {
        return credentials("this user may not do this; grant its role the key prefix");
    }
    if says("invalid auth token") {
        return credentials("etcd does not know our session any more");
    }
    // A proposal dropped by the member that was asked, which knows no leader to pass it on to.
    let dropped = says("raft proposal dropped");
    if dropped
        || says("auth store is old")
        || says("too many requests")
        || says("no leader")
        || says("learner")
    {
        return not_yet(true);
    }
    let whole = chain(error);
    if let Some(refusal) = tls_refusal(&whole) {
        return Failure::NotDone { why: whole, soon: false, credentials: Some(refusal) };
    }
    // Only the name of the type below tells that the connection was never made. A test that sends a
    // transaction to a dead endpoint fails if tonic ever renames it.
    if format!("{error:?}").contains("ConnectError(") {
        return Failure::NotDone { why: whole, soon: false, credentials: None };
    }
    Failure::Unanswered(whole)
}

fn lease_gone(subject: Subject) -> Failure {
    Failure::Refused(StoreError::LeaseNotFound(subject.lease.unwrap_or(LeaseId(0))))
}

/// Recognises a failed TLS handshake: rustls' words for what it refused, or for the other's alert.
fn tls_refusal(chain: &str) -> Option<Refusal> {
    const SERVER: [(&str, &str); 5] = [
        // Authorities of one name, as all of flotctl's are, are told apart by their keys alone.
        (
            "BadSignature",
            "etcd's certificate is not signed by the configured authority; check the CA file (wrong CA?)",
        ),
        (
            "UnknownIssuer",
            "etcd's certificate is not signed by the configured authority; check the CA file (wrong CA?)",
        ),
        ("certificate expired", "etcd's own certificate has expired; issue a new one for that member"),
        ("Expired", "etcd's own certificate has expired; issue a new one for that member"),
        (
            "not valid for name",
            "etcd's certificate does not name the address of this endpoint; use an address that it names",
        ),
    ];
    if chain.contains("invalid peer certificate") {
        let known = SERVER.iter().find(|(word, _)| chain.contains(word));
        let text = known.map_or("etcd's certificate was refused", |(_, text)| text);
        return Some(Refusal::Other(format!("{text} ({chain})")));
    }
    // An alert is etcd's word about our certificate; nothing else is alerted in a handshake that has
    // come so far.
    chain.contains("received fatal alert").then_some(Refusal::OurCertificate)
}

/// Returns an error with all that is beneath it, on one line, nothing twice.
fn chain(error: &Error) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut add = |text: String| {
        if !text.is_empty() && !words.iter().any(|known| known.contains(&text)) {
            words.push(text);
        }
    };
    let mut source: Option<&(dyn std::error::Error + 'static)> = match error {
        Error::GRpcStatus(status) => {
            add(status.message().to_owned());
            status.source()
        }
        Error::TransportError(transport) => Some(transport),
        other => {
            add(other.to_string());
            None
        }
    };
    while let Some(inner) = source {
        add(inner.to_string());
        source = inner.source();
    }
    words.join(": ")
}
