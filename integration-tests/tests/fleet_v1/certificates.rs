//! An authority and what it issues, for the listener with mutual TLS and those who knock there.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use flotilla_server::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

/// An authority.
pub struct Certificates {
    folder: PathBuf,
    authority: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    /// Makes an authority of its own, whose files go to a folder.
    pub fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap().pem();
        Self { folder: folder.to_owned(), authority, issuer: Issuer::new(params, key) }
    }

    /// Issues a certificate for a URN, and returns it with its key, in PEM.
    fn issue(&self, urn: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(urn.try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Writes what a machine serves with.
    pub fn machine(&self, n: usize) -> TlsFiles {
        let (certificate, key) = self.issue(&format!("urn:flotilla:machine:{n:032x}"));
        let [ca, certificate, key] =
            [("ca.pem", &self.authority), ("machine.pem", &certificate), ("machine.key", &key)].map(
                |(name, text)| {
                    let path = self.folder.join(name);
                    fs::write(&path, text).unwrap();
                    path
                },
            );
        TlsFiles { ca, certificate, key }
    }

    /// Makes a client who believes this authority, with a certificate of it or with none.
    pub fn client(&self, urn: Option<&str>) -> Arc<ClientConfig> {
        self.client_of(urn.map(|urn| (self, urn)))
    }

    /// Makes a client who believes this authority, with a certificate that any authority has issued.
    pub fn client_of(&self, own: Option<(&Self, &str)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder().with_root_certificates(roots);
        Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some((issuer, urn)) => {
                let (certificate, key) = issuer.issue(urn);
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        })
    }
}
