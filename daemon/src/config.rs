//! What this daemon was told to do: the file, the environment and the options, checked.
//!
//! Two stages: `written` holds what was written, [`Config`] what is in force. Every error names the
//! file and line, or the option, and says what was expected.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use flotilla_api::DEFAULT_SOCKET;
use flotilla_registry::{
    keys::{DEFAULT_PREFIX, Keys},
    store::etcd::{EtcdConfig, EtcdTls, Pem},
};
use flotilla_units::MachineId;
use toml::Spanned;

pub(crate) use self::resources::Resources;
use self::written::{OneOrMore, Written, WrittenEmbedded, WrittenEtcd, WrittenStore, WrittenTls};
use crate::args::SettingArgs;

mod resources;
mod written;

#[cfg(test)]
mod tests;

/// The file that is read unless another is named; it alone may be missing.
pub(crate) const DEFAULT_FILE: &str = "/etc/flotilla/flotilla.toml";

const MACHINE_ID_FILE: &str = "/etc/machine-id";
const RUN_DIR: &str = "/run/flotilla";
const STATE_DIR: &str = "/var/lib/flotilla";

/// What `--dev` keeps below the directories above, as root: a cluster of its own, beside the one that
/// this machine may be of. Its socket is the usual one, so that two daemons never run at once.
const DEV_DIR: &str = "dev";

/// Everything in force.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) machine: MachineId,
    /// Its name, where it is not the kernel's.
    pub(crate) name: Option<String>,
    pub(crate) roles: Roles,
    pub(crate) store: StoreConfig,
    pub(crate) keys: Keys,
    pub(crate) api: ApiConfig,
    /// The address to show first, where that is not to be found out.
    pub(crate) address: Option<IpAddr>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) resources: Resources,
    pub(crate) run: PathBuf,
    pub(crate) state: PathBuf,
    /// The units are those of this user's own systemd, not the machine's.
    pub(crate) user: Option<UserDirs>,
}

/// Where a user's own systemd and flotilla keep things.
#[derive(Debug, Clone)]
pub(crate) struct UserDirs {
    /// `$XDG_RUNTIME_DIR`.
    pub(crate) runtime: PathBuf,
    /// `$HOME`.
    pub(crate) home: PathBuf,
}

/// What the daemon does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roles {
    pub(crate) agent: bool,
    pub(crate) engine: bool,
}

/// Where the cluster's state is.
#[derive(Debug, Clone)]
pub(crate) enum StoreConfig {
    Etcd(EtcdConfig),
    Embedded(PathBuf),
}

/// Where the API answers.
#[derive(Debug, Clone)]
pub(crate) struct ApiConfig {
    pub(crate) socket: PathBuf,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) advertise: Option<String>,
    pub(crate) tls: Option<TlsConfig>,
    pub(crate) insecure_loopback: bool,
}

/// This machine's certificate and the cluster's authority.
#[derive(Debug, Clone)]
pub(crate) struct TlsConfig {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A file cannot be read.
    #[error("{path} cannot be read; it has to be there, in UTF-8, and readable by flotillad's user")]
    Unreadable {
        path: String,
        #[source]
        source: io::Error,
    },
    /// The file is not TOML, or names an option that does not exist.
    #[error("{path}:{line}:{column}: {why}")]
    Syntax { path: String, line: usize, column: usize, why: String },
    /// A value cannot be.
    #[error("{place}: {why}")]
    Value {
        /// File and line, or where else it was said.
        place: String,
        why: String,
    },
}

/// A file's text, to tell lines by.
struct Source<'a> {
    path: &'a Path,
    text: String,
}

impl Config {
    /// Reads the file, lets environment and options win, and checks all.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) fn load(file: Option<&Path>, args: &SettingArgs) -> Result<Self, ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if file.is_none() && error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ConfigError::Unreadable { path: path.display().to_string(), source }),
        };
        let source = Source { path, text };
        let written: Written = toml::from_str(&source.text).map_err(|error| source.syntax(&error))?;
        source.check(written.overridden_by(args))
    }

    /// Makes the configuration of a cluster of this machine alone (`--dev`): as root of the machine's
    /// systemd, as anybody else of the user's own. No file is read.
    ///
    /// # Errors
    /// A setting is wrong, or the user has no systemd of their own.
    pub(crate) fn for_development(args: &SettingArgs) -> Result<Self, ConfigError> {
        let source = Source { path: Path::new("--dev"), text: String::new() };
        let mut written = Written::default().overridden_by(args);
        if written.store.embedded.is_none() {
            written.store.embedded = Some(Spanned::new(0..0, WrittenEmbedded::default()));
        }
        let user = if rustix::process::geteuid().is_root() { None } else { Some(user_dirs()?) };
        if let Some(user) = &user {
            let run = written.run_dir.get_or_insert_with(|| user.runtime.join("flotilla"));
            written.api.socket.get_or_insert_with(|| run.join("api.sock"));
            written.state_dir.get_or_insert_with(|| user.home.join(".local/state/flotilla"));
        } else {
            written.run_dir.get_or_insert_with(|| Path::new(RUN_DIR).join(DEV_DIR));
            written.state_dir.get_or_insert_with(|| Path::new(STATE_DIR).join(DEV_DIR));
        }
        Ok(Self { user, ..source.check(written)? })
    }
}

fn user_dirs() -> Result<UserDirs, ConfigError> {
    let directory = |name: &str, hint: &str| {
        std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from).ok_or_else(|| {
            ConfigError::Value { place: format!("${name}"), why: format!("it is not set; {hint}") }
        })
    };
    Ok(UserDirs {
        runtime: directory(
            "XDG_RUNTIME_DIR",
            "log in through PAM, or `loginctl enable-linger` and set it to /run/user/UID, so that there is a \
             systemd of your own",
        )?,
        home: directory("HOME", "flotilla keeps its store below it")?,
    })
}

/// What is in force, as `flotillad check` shows it. No secret is in it.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Roles { agent, engine } = self.roles;
        let roles: Vec<_> =
            [(agent, "agent"), (engine, "engine")].iter().filter(|r| r.0).map(|r| r.1).collect();
        writeln!(f, "machine   {}", self.machine)?;
        writeln!(f, "name      {}", self.name.as_deref().unwrap_or("(the kernel's host name)"))?;
        if let Some(address) = self.address {
            writeln!(f, "address   {address}")?;
        }
        writeln!(f, "roles     {}", if roles.is_empty() { "none".to_owned() } else { roles.join(", ") })?;
        match &self.store {
            StoreConfig::Etcd(etcd) => writeln!(f, "store     etcd at {}", etcd.endpoints.join(", "))?,
            StoreConfig::Embedded(path) => writeln!(f, "store     {}, this machine alone", path.display())?,
        }
        writeln!(f, "prefix    {}", self.keys.prefix())?;
        writeln!(f, "socket    {}", self.api.socket.display())?;
        for address in &self.api.listen {
            let open =
                if self.api.insecure_loopback && address.ip().is_loopback() { " WITHOUT TLS" } else { "" };
            writeln!(f, "listen    {address}{open}")?;
        }
        if let Some(url) = &self.api.advertise {
            writeln!(f, "advertise {url}")?;
        }
        if let Some(TlsConfig { ca, certificate, key }) = &self.api.tls {
            writeln!(f, "tls       {}, {}, {}", ca.display(), certificate.display(), key.display())?;
        }
        for (key, value) in &self.metadata {
            writeln!(f, "metadata  {key}={value}")?;
        }
        let Resources { cpu_milli, memory_bytes, named } = &self.resources;
        if let Some(milli) = cpu_milli {
            writeln!(f, "resource  cpu={}.{:03}", milli / 1_000, milli % 1_000)?;
        }
        if let Some(bytes) = memory_bytes {
            writeln!(f, "resource  memory={bytes}")?;
        }
        for (name, count) in named {
            writeln!(f, "resource  {name}={count}")?;
        }
        Ok(())
    }
}

impl Source<'_> {
    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let (line, column) = self.position(error.span().map_or(0, |span| span.start));
        let path = self.path.display().to_string();
        ConfigError::Syntax { path, line, column, why: error.message().to_owned() }
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        (line, before.len() - before.rfind('\n').map_or(0, |newline| newline + 1) + 1)
    }

    /// Says what is wrong with a value, and where it was written.
    fn wrong<T>(&self, at: &Spanned<T>, why: impl Into<String>) -> ConfigError {
        let place = if at.span().is_empty() {
            "the command line or the environment".to_owned()
        } else {
            format!("{}:{}", self.path.display(), self.position(at.span().start).0)
        };
        ConfigError::Value { place, why: why.into() }
    }

    fn missing(&self, why: &str) -> ConfigError {
        ConfigError::Value { place: self.path.display().to_string(), why: why.to_owned() }
    }

    fn check(&self, written: Written) -> Result<Config, ConfigError> {
        let machine = match &written.machine_id {
            Some(id) => id.get_ref().parse().map_err(|e| self.wrong(id, format!("{e}")))?,
            None => machine_id(Path::new(MACHINE_ID_FILE))?,
        };
        let keys = match &written.store.prefix {
            Some(prefix) => Keys::new(prefix.get_ref()).map_err(|e| self.wrong(prefix, e.to_string()))?,
            None => Keys::new(DEFAULT_PREFIX).map_err(|e| self.missing(&e.to_string()))?,
        };
        let state = written.state_dir.clone().unwrap_or_else(|| STATE_DIR.into());
        Ok(Config {
            machine,
            keys,
            roles: self.roles(written.roles.as_deref())?,
            address: written.address.as_ref().map(|address| self.address(address)).transpose()?,
            metadata: self.metadata(&written)?,
            resources: resources::read(&written.resources).map_err(|(at, why)| self.wrong(at, why))?,
            api: self.api(&written)?,
            store: self.store(written.store, &state)?,
            name: written.name,
            run: written.run_dir.unwrap_or_else(|| RUN_DIR.into()),
            state,
            user: None,
        })
    }

    fn roles(&self, written: Option<&[Spanned<String>]>) -> Result<Roles, ConfigError> {
        let Some(written) = written else { return Ok(Roles { agent: true, engine: true }) };
        let mut roles = Roles { agent: false, engine: false };
        for role in written {
            match role.get_ref().as_str() {
                "agent" => roles.agent = true,
                "engine" => roles.engine = true,
                other => {
                    return Err(
                        self.wrong(role, format!("`{other}` is not a role; there are `agent` and `engine`"))
                    );
                }
            }
        }
        Ok(roles)
    }

    fn address(&self, written: &Spanned<String>) -> Result<IpAddr, ConfigError> {
        let text = written.get_ref();
        let address = text.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast());
        address.ok_or_else(|| {
            self.wrong(written, format!("`{text}` is not an address of a machine, as 10.0.0.1 or fd00::1 is"))
        })
    }

    fn metadata(&self, written: &Written) -> Result<BTreeMap<String, String>, ConfigError> {
        let mut metadata = BTreeMap::new();
        for (key, value) in &written.metadata {
            check_metadata(key.get_ref(), value).map_err(|why| self.wrong(key, why))?;
            metadata.insert(key.get_ref().clone(), value.clone());
        }
        for pair in &written.metadata_given {
            let refuse =
                |why: String| ConfigError::Value { place: "--metadata or FLOTILLA_METADATA".to_owned(), why };
            let Some((key, value)) = pair.split_once('=') else {
                return Err(refuse(format!("`{pair}` has no `=`; write KEY=VALUE")));
            };
            check_metadata(key, value).map_err(refuse)?;
            metadata.insert(key.to_owned(), value.to_owned());
        }
        Ok(metadata)
    }

    fn api(&self, written: &Written) -> Result<ApiConfig, ConfigError> {
        let api = &written.api;
        let addresses: &[String] = match api.listen.as_ref().map(Spanned::get_ref) {
            None => &[],
            Some(OneOrMore::One(one)) => std::slice::from_ref(one),
            Some(OneOrMore::More(more)) => more,
        };
        let mut listen = Vec::new();
        for (text, at) in addresses.iter().zip(api.listen.iter().cycle()) {
            let address: SocketAddr = text.parse().map_err(|_| {
                self.wrong(at, format!("`{text}` is not an address with a port, as 10.0.0.1:7400 is"))
            })?;
            let open = api.insecure_loopback && address.ip().is_loopback();
            if written.tls.is_none() && !open {
                return Err(self.wrong(
                    at,
                    "listening needs certificates: write a [tls] table with ca, certificate and key, or pass --tls-ca, \
                     --tls-certificate and --tls-key",
                ));
            }
            listen.push(address);
        }
        if let Some(url) = api.advertise.as_ref().filter(|url| !url.get_ref().starts_with("https://")) {
            return Err(self.wrong(url, "the advertised address has to be an https:// URL"));
        }
        Ok(ApiConfig {
            socket: api.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into()),
            advertise: api.advertise.as_ref().map(|url| url.get_ref().clone()).or_else(|| {
                // Behind an address translation it has to be said; as a rule it is what is listened on.
                let usual =
                    |address: &&SocketAddr| !address.ip().is_unspecified() && !address.ip().is_loopback();
                listen.iter().find(usual).map(|address| format!("https://{address}"))
            }),
            listen,
            tls: written.tls.as_ref().map(|tls| self.tls(tls)).transpose()?,
            insecure_loopback: api.insecure_loopback,
        })
    }

    fn tls(&self, at: &Spanned<WrittenTls>) -> Result<TlsConfig, ConfigError> {
        let WrittenTls { ca, certificate, key } = at.get_ref();
        let need = |file: &Option<PathBuf>, what| {
            file.clone().ok_or_else(|| {
                self.wrong(at, format!("[tls] has no {what}; it needs ca, certificate and key, all three"))
            })
        };
        Ok(TlsConfig {
            ca: need(ca, "ca")?,
            certificate: need(certificate, "certificate")?,
            key: need(key, "key")?,
        })
    }

    fn store(&self, written: WrittenStore, state: &Path) -> Result<StoreConfig, ConfigError> {
        match (written.etcd, written.embedded) {
            (Some(etcd), None) => self.etcd(&etcd).map(StoreConfig::Etcd),
            (None, Some(embedded)) => {
                let path = embedded.into_inner().path.unwrap_or_else(|| state.join("store.redb"));
                Ok(StoreConfig::Embedded(path))
            }
            (Some(_), Some(embedded)) => {
                Err(self.wrong(&embedded, "there is a [store.etcd] too; a cluster has one store"))
            }
            (None, None) => Err(self.missing(
                "no store is configured: write a [store.etcd] table with endpoints, or pass --etcd-endpoints, or \
                 --store-path FILE for a cluster of this machine alone",
            )),
        }
    }

    fn etcd(&self, at: &Spanned<WrittenEtcd>) -> Result<EtcdConfig, ConfigError> {
        let etcd = at.get_ref();
        if etcd.endpoints.is_empty() {
            return Err(
                self.wrong(at, "[store.etcd] has no endpoints; name at least one, as https://10.0.0.1:2379")
            );
        }
        let identity = match (&etcd.certificate, &etcd.key) {
            (Some(certificate), Some(key)) => Some((Pem::File(certificate.clone()), Pem::File(key.clone()))),
            (None, None) => None,
            _ => {
                return Err(self.wrong(
                    at,
                    "[store.etcd] has a certificate without a key, or a key without a certificate",
                ));
            }
        };
        for endpoint in &etcd.endpoints {
            let url = endpoint.get_ref();
            if !url.starts_with("https://") && !url.starts_with("http://") {
                return Err(self
                    .wrong(endpoint, format!("`{url}` has no scheme; write http:// or https:// before it")));
            }
            if url.starts_with("https://") && etcd.ca.is_none() {
                return Err(
                    self.wrong(endpoint, format!("{url} needs `ca`, the authority of etcd's certificate"))
                );
            }
            if url.starts_with("http://") && etcd.ca.is_some() {
                return Err(self.wrong(
                    endpoint,
                    format!("{url} is not https://, so `ca` and the certificate are of no use"),
                ));
            }
        }
        let password = match (&etcd.password, &etcd.password_file) {
            (Some(password), None) => Some(password.clone()),
            (None, Some(file)) => {
                let text = fs::read_to_string(file.get_ref()).map_err(|error| {
                    self.wrong(file, format!("{} cannot be read: {error}", file.get_ref().display()))
                })?;
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            (Some(_), Some(file)) => {
                return Err(self.wrong(file, "there is a `password` too; write one of the two"));
            }
            (None, None) => None,
        };
        let user = match (&etcd.user, password) {
            (Some(user), Some(password)) => Some((user.clone(), password)),
            (None, None) => None,
            (Some(_), None) => return Err(self.wrong(at, "[store.etcd] has a user and no password-file")),
            (None, Some(_)) => return Err(self.wrong(at, "[store.etcd] has a password and no user")),
        };
        Ok(EtcdConfig {
            endpoints: etcd.endpoints.iter().map(|e| e.get_ref().clone()).collect(),
            tls: etcd.ca.clone().map(|ca| EtcdTls { ca: Pem::File(ca), identity }),
            user,
        })
    }
}

fn check_metadata(key: &str, value: &str) -> Result<(), String> {
    let plain = |text: &str| {
        !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '=')
    };
    if plain(key) && plain(value) {
        return Ok(());
    }
    Err(format!(
        "metadata `{key}` = `{value}` cannot be matched by MachineMetadata=; key and value have to be words without \
         spaces and `=`"
    ))
}

fn machine_id(path: &Path) -> Result<MachineId, ConfigError> {
    let place = path.display().to_string();
    let text =
        fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: place.clone(), source })?;
    text.trim().parse().map_err(|error| ConfigError::Value { place, why: format!("{error}") })
}
