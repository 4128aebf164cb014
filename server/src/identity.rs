//! Who asks.
//!
//! A peer is a process on this machine (unix socket), or whoever holds a
//! certificate of this cluster (TLS). A machine may speak for any user, and is
//! believed: then the user counts. So a machine's key is worth every user's.

use std::sync::Arc;

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::request::Parts,
};
use flotilla_api::{ON_BEHALF_OF, error::ErrorKind};
use flotilla_registry::operations::Asker;
use flotilla_units::MachineId;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::{error::ApiError, request::RequestId};

/// The longest name of a user that is believed, from a header or a certificate, in bytes; login names have 32.
const USER_BYTES_MAX: usize = 256;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A process of this machine.
    Local {
        /// The number of its user, which the kernel tells.
        uid: u32,
        /// That user's name.
        name: Arc<str>,
    },
    /// A user with a certificate.
    User(Arc<str>),
    /// A machine of this cluster.
    Machine(MachineId),
    /// Somebody on loopback without any proof (`insecure-loopback`).
    Anonymous,
}

/// Who asks, after a machine's word for its user has been taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum User {
    /// A person or program.
    Named(Arc<str>),
    /// A machine on its own behalf: it may read.
    Machine(MachineId),
}

impl Peer {
    /// Reads who a certificate speaks for: the one `urn:flotilla:` URI among its alternative names.
    ///
    /// # Errors
    /// There is none, or several.
    pub(crate) fn of_certificate(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|e| format!("the certificate cannot be read: {e}"))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|e| format!("the certificate's alternative names cannot be read: {e}"))?;
        let uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("urn:flotilla:"),
            _ => None,
        });
        let found: Vec<&str> = uris.collect();
        match found.as_slice() {
            [one] => match one.split_once(':') {
                Some(("machine", id)) => id.parse().map(Self::Machine).map_err(|e| format!("{e}")),
                Some(("user", name)) if is_name(name) => Ok(Self::User(name.into())),
                Some(("user", _)) => Err(format!(
                    "the certificate's user has a name that is empty, longer than {USER_BYTES_MAX} bytes or not one \
                     line"
                )),
                _ => Err(format!("`urn:flotilla:{one}` names neither a machine nor a user")),
            },
            [] => Err("the certificate names neither a machine nor a user of flotilla; issue one with \
                       `flotctl ca issue`"
                .to_owned()),
            _ => Err("the certificate names several identities".to_owned()),
        }
    }

    /// Makes the peer of a unix socket's other end.
    pub(crate) fn of_uid(uid: u32) -> Self {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = name_of(uid, &passwd).unwrap_or_else(|| format!("uid {uid}")).into();
        Self::Local { uid, name }
    }
}

/// Tells whether this may be a user's name.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= USER_BYTES_MAX && !name.contains(char::is_control)
}

/// Finds a user's name in the text of passwd(5).
fn name_of(uid: u32, passwd: &str) -> Option<String> {
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

impl User {
    /// Takes a peer, and what it says of whom it speaks for.
    ///
    /// # Errors
    /// Only machines may speak for others.
    fn new(peer: &Peer, on_behalf_of: Option<&str>) -> Result<Self, ApiError> {
        match (peer, on_behalf_of) {
            (Peer::Machine(_), Some(user)) if is_name(user) => Ok(Self::Named(user.into())),
            (Peer::Machine(id), None) => Ok(Self::Machine(*id)),
            (_, Some(_)) => Err(ApiError::new(
                ErrorKind::Forbidden,
                format!("only a machine of this cluster may send the header {ON_BEHALF_OF}"),
            )),
            (Peer::Local { name, .. } | Peer::User(name), None) => Ok(Self::Named(Arc::clone(name))),
            (Peer::Anonymous, None) => Ok(Self::Named("anonymous".into())),
        }
    }

    /// Returns the user's name for a change.
    ///
    /// # Errors
    /// A machine on its own behalf may not change anything.
    pub(crate) fn may_write(&self) -> Result<&str, ApiError> {
        match self {
            Self::Named(name) => Ok(name),
            Self::Machine(id) => Err(ApiError::new(
                ErrorKind::Forbidden,
                format!("the certificate of machine {} may read only; use a user's", id.short()),
            )),
        }
    }

    /// Returns whom a request is forwarded for; `None` for a machine's own.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::Machine(_) => None,
        }
    }
}

/// Somebody who may run commands on machines: the holder of a user's certificate, or whoever this
/// flotillad runs as, root as a rule, on its own machine's socket.
///
/// A machine that speaks for a user has seen to it that this is such a one.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    user: User,
    request: Arc<str>,
}

impl Operator {
    /// Looks at a peer, and at the user whom it is or speaks for.
    ///
    /// # Errors
    /// That is nobody who may.
    fn check(peer: &Peer, user: &User, own_uid: u32) -> Result<(), ApiError> {
        let why = match (peer, user) {
            (Peer::User(_), _) | (Peer::Machine(_), User::Named(_)) => return Ok(()),
            (Peer::Local { uid, .. }, _) if *uid == 0 || *uid == own_uid => return Ok(()),
            (Peer::Local { name, .. }, _) => {
                format!("{name} may use the socket by its group, which is not enough")
            }
            (Peer::Machine(id), User::Machine(_)) => {
                format!("the certificate of machine {} is nobody's in person", id.short())
            }
            (Peer::Anonymous, _) => "nobody knows who asks on the insecure loopback address".to_owned(),
        };
        Err(ApiError::new(
            ErrorKind::Forbidden,
            format!(
                "commands on machines are run for the holder of a user's certificate, or for root on its machine's \
                 socket; {why}. Use sudo, or ask with a certificate: `flotctl ca issue user` makes one, and \
                 `--endpoint https://HOST:7400` with --ca, --certificate and --key uses it"
            ),
        ))
    }

    /// Returns the name that events carry.
    pub(crate) fn name(&self) -> &str {
        self.user.name().unwrap_or_default()
    }

    /// Returns who asks, for the event of what comes of it.
    pub(crate) fn asker(&self) -> Asker<'_> {
        Asker { by: self.name(), request: Some(&self.request) }
    }

    /// Returns the user, to be forwarded for.
    pub(crate) const fn user(&self) -> &User {
        &self.user
    }

    /// Returns the request's id.
    pub(crate) fn request(&self) -> &str {
        &self.request
    }
}

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Self::new(&peer_of(parts)?, on_behalf_of(parts)?.as_deref())
    }
}

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let peer = peer_of(parts)?;
        let user = User::new(&peer, on_behalf_of(parts)?.as_deref())?;
        Self::check(&peer, &user, rustix::process::geteuid().as_raw())?;
        Ok(Self { user, request: RequestId::of(parts) })
    }
}

fn peer_of(parts: &Parts) -> Result<Peer, ApiError> {
    let peer = parts.extensions.get::<ConnectInfo<Peer>>().map(|info| info.0.clone());
    peer.ok_or_else(|| ApiError::new(ErrorKind::Internal, "the peer is not known"))
}

/// Reads whom a machine speaks for: a name as [`flotilla_api::client::header_of_name`] writes it.
fn on_behalf_of(parts: &Parts) -> Result<Option<String>, ApiError> {
    let Some(value) = parts.headers.get(ON_BEHALF_OF) else { return Ok(None) };
    let name = value.to_str().ok().and_then(flotilla_api::client::name_of_header);
    let refuse = || ApiError::bad_request(format!("{ON_BEHALF_OF} is not a user's name"));
    name.map(Some).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "113f16a7a0f84c4c8a3f9e3b2f4d6c01";

    fn local(uid: u32, name: &str) -> Peer {
        Peer::Local { uid, name: name.into() }
    }

    #[test]
    fn commands_are_for_certificates_and_root_and_not_for_the_group_or_a_machine() {
        let machine = || Peer::Machine(MACHINE.parse().expect("valid"));
        let operator = |peer: Peer, on_behalf_of: Option<&str>, own_uid: u32| {
            let user = User::new(&peer, on_behalf_of).expect("believed");
            Operator::check(&peer, &user, own_uid)
                .map(|()| user.name().map(str::to_owned).unwrap_or_default())
        };
        assert_eq!(operator(Peer::User("ada".into()), None, 0).expect("allowed"), "ada");
        assert_eq!(operator(machine(), Some("ada"), 0).expect("allowed"), "ada");
        assert_eq!(operator(local(0, "root"), None, 0).expect("allowed"), "root");
        assert_eq!(operator(local(1000, "ada"), None, 1000).expect("their own"), "ada");
        // Whoever calls himself root is not.
        for peer in [local(1000, "ada"), local(1000, "root"), machine(), Peer::Anonymous] {
            let refused = operator(peer.clone(), None, 0).expect_err("refused");
            assert_eq!(refused.0.kind, ErrorKind::Forbidden, "{peer:?}");
            assert!(refused.0.message.contains("flotctl ca issue user"), "{}", refused.0.message);
        }
    }

    #[test]
    fn only_machines_speak_for_others_and_alone_they_may_not_write() {
        let machine = Peer::Machine(MACHINE.parse().expect("valid"));
        let user = User::new(&machine, Some("ada")).expect("allowed");
        assert_eq!(user.may_write().expect("allowed"), "ada");
        let alone = User::new(&machine, None).expect("allowed");
        assert_eq!(alone.may_write().expect_err("refused").0.kind, ErrorKind::Forbidden);
        for peer in [local(0, "root"), Peer::User("ada".into()), Peer::Anonymous] {
            let refused = User::new(&peer, Some("root")).expect_err("refused");
            assert_eq!(refused.0.kind, ErrorKind::Forbidden, "{peer:?}");
            assert!(User::new(&peer, None).expect("allowed").may_write().is_ok());
        }
    }

    #[test]
    fn local_users_are_named() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(name_of(1000, passwd), Some("ada".to_owned()));
        assert_eq!(name_of(7, passwd), None);
    }
}
