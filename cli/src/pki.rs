//! The cluster's certificate authorities and what they issue.
//!
//! There are two authorities: flotilla's, for machines and users, and etcd's, for
//! its members and the machines as its clients. Two, because whoever may write to
//! etcd is root everywhere without leaving a trace in flotilla: a user's
//! certificate must not open etcd.
//!
//! Who a certificate speaks for is in one place only, a URI among its subject's
//! alternative names (RFC 5280, section 4.2.1.6): `urn:flotilla:machine:<machine id>`
//! or `urn:flotilla:user:<name>`.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use flotilla_units::MachineId;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

/// How long an authority is valid, in days: ten years. It is made once, by hand.
const AUTHORITY_DAYS: i64 = 3_650;

/// How long a certificate is valid unless asked otherwise, in days: two years. There is no rotation
/// by itself yet, and a shorter life would end clusters that nobody watches.
pub(crate) const CERTIFICATE_DAYS: i64 = 730;

/// How far back validity begins, in hours, because clocks of new machines are often behind.
const BACKDATE_HOURS: i64 = 24;

/// One of the two authorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Authority {
    /// Signs machines and users.
    Flotilla,
    /// Signs etcd's members and clients.
    Etcd,
}

/// What to issue.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// The common name.
    pub(crate) name: String,
    /// Host names and addresses that it answers to.
    pub(crate) hosts: Vec<String>,
    /// Who it speaks for.
    pub(crate) identity: Option<Identity>,
    /// How long it is valid.
    pub(crate) days: i64,
    /// Whether it may serve, or only ask.
    pub(crate) serves: bool,
}

/// Who a certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A machine.
    Machine(MachineId),
    /// A user.
    User(String),
}

/// A certificate with its key, as PEM text.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    const fn stem(self) -> &'static str {
        match self {
            Self::Flotilla => "ca",
            Self::Etcd => "etcd-ca",
        }
    }

    /// Returns the name on its certificate: of this cluster, and of no other one even of the same
    /// name, so that a certificate of the wrong cluster is told as that, and not as badly signed.
    fn common_name(self, cluster: &str) -> String {
        let what = match self {
            Self::Flotilla => "flotilla",
            Self::Etcd => "etcd",
        };
        format!("{cluster} {what} {:08x}", rand::random::<u32>())
    }

    /// Returns where its certificate is, under the authorities' directory.
    pub(crate) fn certificate_path(self, directory: &Path) -> PathBuf {
        directory.join(format!("{}.pem", self.stem()))
    }

    fn key_path(self, directory: &Path) -> PathBuf {
        directory.join(format!("{}-key.pem", self.stem()))
    }

    /// Makes the authority of a cluster anew.
    pub(crate) fn create(self, directory: &Path, cluster: &str) -> anyhow::Result<()> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = named(&self.common_name(cluster));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, AUTHORITY_DAYS)?;
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        // The key first: a certificate without its key would look like an authority.
        write_new(&self.key_path(directory), &key.serialize_pem(), 0o600)?;
        write_new(&self.certificate_path(directory), &certificate.pem(), 0o644)
    }

    /// Reads the authority's certificate.
    pub(crate) fn certificate(self, directory: &Path) -> anyhow::Result<String> {
        let path = self.certificate_path(directory);
        fs::read_to_string(&path).with_context(|| {
            format!("cannot read the authority's certificate {}; `flotctl ca init` makes one", path.display())
        })
    }

    /// Issues a certificate.
    pub(crate) fn issue(self, directory: &Path, subject: &Subject) -> anyhow::Result<Issued> {
        let key_path = self.key_path(directory);
        let key = fs::read_to_string(&key_path)
            .with_context(|| format!("cannot read the authority's key {}", key_path.display()))?;
        let key = KeyPair::from_pem(&key)
            .with_context(|| format!("{} is not a private key in PEM", key_path.display()))?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate(directory)?, key).with_context(|| {
            format!("{} is not a certificate", self.certificate_path(directory).display())
        })?;
        let own_key = KeyPair::generate()?;
        let certificate = params_of(subject)?.signed_by(&own_key, &issuer)?;
        Ok(Issued { certificate: certificate.pem(), key: own_key.serialize_pem() })
    }
}

impl Issued {
    /// Writes `<stem>.pem` and `<stem>-key.pem`, the latter for its owner only.
    pub(crate) fn write(&self, directory: &Path, stem: &str) -> anyhow::Result<()> {
        write_new(&directory.join(format!("{stem}-key.pem")), &self.key, 0o600)?;
        write_new(&directory.join(format!("{stem}.pem")), &self.certificate, 0o644)
    }
}

fn params_of(subject: &Subject) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = named(&subject.name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if subject.serves {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    for host in &subject.hosts {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(
                host.as_str()
                    .try_into()
                    .with_context(|| format!("`{host}` is neither a host name nor an address"))?,
            ),
        });
    }
    if let Some(identity) = &subject.identity {
        let uri = match identity {
            Identity::Machine(id) => format!("urn:flotilla:machine:{id}"),
            Identity::User(name) => format!("urn:flotilla:user:{name}"),
        };
        params
            .subject_alt_names
            .push(SanType::URI(uri.as_str().try_into().with_context(|| format!("`{uri}` is not a URI"))?));
    }
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, subject.days)?;
    Ok(params)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Sets validity from a day ago to `days` from now; rcgen's own default is 1975 to 4096.
fn set_validity(params: &mut CertificateParams, days: i64) -> anyhow::Result<()> {
    let date = |at: Timestamp| {
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        Ok::<_, anyhow::Error>(date_time_ymd(
            i32::from(date.year()),
            u8::try_from(date.month())?,
            u8::try_from(date.day())?,
        ))
    };
    let now = Timestamp::now();
    params.not_before = date(now - SignedDuration::from_hours(BACKDATE_HOURS))?;
    let end = now.checked_add(SignedDuration::from_hours(days.saturating_mul(24)));
    params.not_after = date(end.with_context(|| format!("{days} days are too many"))?)?;
    Ok(())
}

/// Writes a file that must not be there yet: nobody's key is ever overwritten.
pub(crate) fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let open = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = match open {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("{} exists already; move it away first if it is to be made anew", path.display())
        }
        Err(e) => return Err(e).with_context(|| format!("cannot write {}", path.display())),
    };
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

    use super::*;

    fn names(pem: &str) -> Vec<String> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("PEM");
        let (_, certificate) = X509Certificate::from_der(&pem.contents).expect("DER");
        let names = certificate.subject_alternative_name().expect("readable").expect("present");
        names
            .value
            .general_names
            .iter()
            .map(|name| match name {
                GeneralName::DNSName(name) => (*name).to_owned(),
                GeneralName::URI(uri) => (*uri).to_owned(),
                GeneralName::IPAddress(bytes) => format!("{bytes:?}"),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_certificate_says_who_it_speaks_for_and_is_signed_by_its_authority() {
        let directory = tempfile::tempdir().expect("a directory");
        Authority::Flotilla.create(directory.path(), "test").expect("created");
        let id: MachineId = "113f16a7a0f84c4c8a3f9e3b2f4d6c01".parse().expect("valid");
        let subject = Subject {
            name: "a".to_owned(),
            hosts: vec!["a".to_owned(), "10.0.0.1".to_owned()],
            identity: Some(Identity::Machine(id)),
            days: 1,
            serves: true,
        };
        let issued = Authority::Flotilla.issue(directory.path(), &subject).expect("issued");
        assert_eq!(
            names(&issued.certificate),
            ["a", "[10, 0, 0, 1]", "urn:flotilla:machine:113f16a7a0f84c4c8a3f9e3b2f4d6c01"]
        );
        let der = |pem: &str| x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("PEM").1.contents;
        let (own, ca) = (
            der(&issued.certificate),
            der(&Authority::Flotilla.certificate(directory.path()).expect("readable")),
        );
        let (_, own) = X509Certificate::from_der(&own).expect("DER");
        let (_, ca) = X509Certificate::from_der(&ca).expect("DER");
        assert_eq!(own.issuer(), ca.subject());
        assert!(ca.subject().to_string().starts_with("CN=test flotilla "), "{}", ca.subject());
        assert!(own.validity().is_valid() && ca.validity().is_valid());
    }

    #[test]
    fn an_authority_is_never_overwritten_and_its_key_is_its_owners() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        Authority::Etcd.create(directory.path(), "test").expect("created");
        let refused = Authority::Etcd.create(directory.path(), "test").expect_err("exists");
        assert!(refused.to_string().contains("exists already"), "{refused}");
        let mode =
            fs::metadata(directory.path().join("etcd-ca-key.pem")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
