//! How etcd is reached: what was configured, checked and turned into connect options.

use std::{fmt, fs, path::PathBuf, time::Duration};

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use x509_parser::pem::parse_x509_pem;

use super::super::{CALL_TIMEOUT, StoreError};

/// How long a connection may be silent before it is asked for a sign of life.
///
/// etcd closes connections of clients that ask more often than every 5 s
/// (`--grpc-keepalive-min-time`), so a little above it.
const PING_AFTER: Duration = Duration::from_secs(6);

/// How long that sign may take. With [`PING_AFTER`] a watch on a dead server ends within 9 s.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// The same where there is no other member to go to: giving up a connection then only costs a new one, and ten
/// thousand clients that give theirs up because a member stood still for some seconds keep it from coming back. A
/// connection to a machine that is gone, and does not say so, still ends within 20 s.
const PING_TIMEOUT_ALONE: Duration = Duration::from_secs(14);

/// How long connecting may take; below [`CALL_TIMEOUT`] so that another endpoint can still be tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where etcd is and who we are to it.
#[derive(Clone, Default)]
pub struct EtcdConfig {
    /// Every member's client URL, `http://` or `https://`; any that lives serves.
    pub endpoints: Vec<String>,
    /// Certificates; needed for `https://`.
    pub tls: Option<EtcdTls>,
    /// A user name and its password, where etcd's authentication is on.
    pub user: Option<(String, String)>,
}

/// Certificates, PEM. Read again whenever a connection is made anew after a refusal, so that
/// renewed files are taken up.
#[derive(Debug, Clone)]
pub struct EtcdTls {
    /// The authority that etcd's own certificate is checked against.
    pub ca: Pem,
    /// Our certificate and its key, where etcd wants one (`--client-cert-auth`).
    pub identity: Option<(Pem, Pem)>,
}

/// A PEM document.
#[derive(Clone)]
pub enum Pem {
    /// In a file.
    File(PathBuf),
    /// Here.
    Bytes(Vec<u8>),
}

impl EtcdConfig {
    /// Refuses what can never work, before anything is tried.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.endpoints.is_empty() {
            return Err(StoreError::Invalid(
                "no etcd endpoint is configured; name at least one, as in https://10.0.0.1:2379".into(),
            ));
        }
        for endpoint in &self.endpoints {
            let secure = endpoint.starts_with("https://");
            if !secure && !endpoint.starts_with("http://") {
                return Err(StoreError::Invalid(format!(
                    "the etcd endpoint {endpoint:?} has no scheme; write http:// or https:// before it"
                )));
            }
            if secure != self.tls.is_some() {
                return Err(StoreError::Invalid(if secure {
                    format!("the etcd endpoint {endpoint} needs TLS, but no CA certificate is configured")
                } else {
                    format!("TLS is configured, but the etcd endpoint {endpoint} is not https://")
                }));
            }
        }
        self.options().map(drop)
    }

    /// Tells whether there is only one endpoint.
    pub(super) const fn is_alone(&self) -> bool {
        self.endpoints.len() == 1
    }

    /// Returns the options every connection is made with, certificates read afresh.
    pub(super) fn options(&self) -> Result<ConnectOptions, StoreError> {
        let mut options = ConnectOptions::new()
            .with_keep_alive(PING_AFTER, if self.is_alone() { PING_TIMEOUT_ALONE } else { PING_TIMEOUT })
            .with_keep_alive_while_idle(true)
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_timeout(CALL_TIMEOUT)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((user, password)) = &self.user {
            options = options.with_user(user, password);
        }
        if let Some(tls) = &self.tls {
            let mut client = TlsOptions::new()
                .timeout(CONNECT_TIMEOUT)
                .ca_certificate(Certificate::from_pem(tls.ca.certificate()?));
            if let Some((certificate, key)) = &tls.identity {
                client = client.identity(Identity::from_pem(certificate.certificate()?, key.read()?));
            }
            options = options.with_tls(client);
        }
        Ok(options)
    }

    /// Says what may be wrong with our own certificate, for an error that etcd leaves without a reason.
    pub(super) fn explain_refusal(&self) -> String {
        let Some((certificate, _)) = self.tls.as_ref().and_then(|tls| tls.identity.as_ref()) else {
            return "etcd wants a client certificate and none is configured".into();
        };
        match certificate.not_after() {
            Some((until, true)) => {
                format!("our client certificate {certificate} expired on {until}; issue a new one")
            }
            _ => format!(
                "etcd does not accept our client certificate {certificate}; it must be signed by the \
                 authority in etcd's --trusted-ca-file and be meant for clients"
            ),
        }
    }
}

impl Pem {
    fn read(&self) -> Result<Vec<u8>, StoreError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::File(path) => fs::read(path).map_err(|error| {
                StoreError::Invalid(format!("cannot read {}, needed to reach etcd: {error}", path.display()))
            }),
        }
    }

    fn certificate(&self) -> Result<Vec<u8>, StoreError> {
        let bytes = self.read()?;
        let readable = parse_x509_pem(&bytes).is_ok_and(|(_, pem)| pem.parse_x509().is_ok());
        if readable {
            Ok(bytes)
        } else {
            Err(StoreError::Invalid(format!("{self} is not a certificate in PEM")))
        }
    }

    /// Returns until when the certificate is valid, and whether that is past.
    fn not_after(&self) -> Option<(String, bool)> {
        let bytes = self.read().ok()?;
        let (_, pem) = parse_x509_pem(&bytes).ok()?;
        let validity = pem.parse_x509().ok()?.validity().clone();
        Some((validity.not_after.to_string(), !validity.is_valid()))
    }
}

/// Without the password.
impl fmt::Debug for EtcdConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("tls", &self.tls)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .finish()
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Bytes(_) => formatter.write_str("(given in the configuration)"),
        }
    }
}

/// A key must not reach a log.
impl fmt::Debug for Pem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Pem({self})")
    }
}
