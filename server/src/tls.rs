//! Mutual TLS: only certificates of this cluster's authority are let in.

mod renewal;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, RootCertStore, ServerConfig,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _};

pub(crate) use self::renewal::Watched;

use self::renewal::Renewed;

/// Where the certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The cluster's authority.
    pub ca: PathBuf,
    /// This machine's certificate, chain first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} is not {expected} in PEM: {why}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What was expected.
        expected: &'static str,
        /// What was found.
        why: String,
    },
    /// The parts do not fit together.
    #[error("{path} cannot be used: {why}")]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl TlsFiles {
    /// Reads the files as they are, for the client that asks other machines.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn identity(&self) -> Result<flotilla_api::client::Identity, TlsError> {
        Ok(flotilla_api::client::Identity {
            ca_pem: read(&self.ca)?,
            certificate_pem: read(&self.certificate)?,
            key_pem: read(&self.key)?,
        })
    }

    /// Says which machine the certificate is for.
    ///
    /// # Errors
    /// The file is not a certificate, or not a machine's.
    pub fn machine(&self) -> Result<flotilla_units::MachineId, TlsError> {
        let unusable = |why| TlsError::Unusable { path: self.certificate.clone(), why };
        let chain = certificates(&self.certificate)?;
        let own = chain.first().ok_or_else(|| unusable("it is empty".to_owned()))?;
        match crate::Peer::of_certificate(own).map_err(unusable)? {
            crate::Peer::Machine(id) => Ok(id),
            _ => Err(unusable("it is a user's, and a machine's was expected".to_owned())),
        }
    }

    /// Makes the configuration of the listener. A certificate that is renewed later is taken up by itself.
    ///
    /// # Errors
    /// A file cannot be read or is not what it should be, or key and certificate do not fit.
    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let watched = Watched::new(self);
        let own = Renewed::new(watched, self.certified()?);
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(self.verifier()?)
            .with_cert_resolver(Arc::new(own));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.ca)? {
            roots.add(authority).map_err(|e| unusable(&self.ca, e.to_string()))?;
        }
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
        verifier.map_err(|e| unusable(&self.ca, e.to_string()))
    }

    /// Reads this machine's certificate and key, if others can use them.
    pub(super) fn certified(&self) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&self.certificate)?;
        self.check_own(&*self.verifier()?, &chain)?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?).map_err(|e| TlsError::Pem {
            path: self.key.clone(),
            expected: "a private key",
            why: e.to_string(),
        })?;
        CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())
            .map_err(|e| unusable(&self.certificate, e.to_string()))
    }

    /// Looks at our own certificate as the other machines will: what they would refuse is told here,
    /// where somebody reads it.
    fn check_own(
        &self,
        verifier: &dyn ClientCertVerifier,
        chain: &[CertificateDer<'_>],
    ) -> Result<(), TlsError> {
        let unusable =
            |why: &str| Err(TlsError::Unusable { path: self.certificate.clone(), why: why.to_owned() });
        let Some((own, above)) = chain.split_first() else { return unusable("it is empty") };
        match verifier.verify_client_cert(own, above, UnixTime::now()) {
            Ok(_) => Ok(()),
            // The units of this machine need no API, so it goes on.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => {
                tracing::error!(
                    certificate = %self.certificate.display(),
                    "this machine's certificate has expired: nobody can reach its API, and it can reach no other's; \
                     issue a new one with `flotctl ca issue machine`, which is taken up by itself"
                );
                Ok(())
            }
            Err(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => unusable(&format!(
                "it was not issued by {}; use the certificate and the ca.pem of one cluster (wrong CA?)",
                self.ca.display()
            )),
            Err(e) => unusable(&e.to_string()),
        }
    }
}

fn unusable(path: &Path, why: String) -> TlsError {
    TlsError::Unusable { path: path.to_owned(), why }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.clone(), source })
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refuse = |why: String| TlsError::Pem { path: path.clone(), expected: "a certificate", why };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let found = found.map_err(|e| refuse(e.to_string()))?;
    if found.is_empty() {
        return Err(refuse("there is none in it".to_owned()));
    }
    Ok(found)
}
