//! Which flotillad to ask, and as whom.
//!
//! From the strongest: options, environment, the configuration file, the unix
//! socket of this machine; through a tunnel, its far side's socket unless an option or the
//! environment names another endpoint, as that side sees it. Any flotillad that takes part in its cluster gives the same
//! answer, so one that does is looked for first, and a read that got none or was cut
//! short goes on with the next one. An order is never given twice.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use flotilla_api::{
    DEFAULT_SOCKET,
    client::{Client, ClientError, Endpoint, Identity},
};
use serde::Deserialize;

use crate::{
    args::Global,
    exit::{Exit, Failure},
    paint, print,
    tunnel::Tunnel,
};

/// `flotctl.toml`, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    endpoints: Vec<String>,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// How long an endpoint may take to say that it is there, when there are others to ask: it answers
/// from memory, and past three seconds it is stuck.
const HERE_WITHIN: Duration = Duration::from_secs(3);

/// The flotillads that may be asked, and the one that is.
#[derive(Debug)]
pub(crate) struct Cluster {
    clients: Vec<Client>,
    asked: Cell<usize>,
    /// What every connection goes through, if anything.
    tunnel: Option<Tunnel>,
}

impl Cluster {
    /// Returns the one to ask.
    pub(crate) fn client(&self) -> &Client {
        &self.clients[self.asked.get()]
    }

    /// Ends what outlives a program that becomes another one. Nothing can be asked any more.
    pub(crate) fn leave(&self) {
        if let Some(tunnel) = &self.tunnel {
            tunnel.leave();
        }
    }

    /// Asks the next one from now on; `true` when all have had their turn since the first.
    pub(crate) fn move_on(&self) -> bool {
        let next = (self.asked.get() + 1) % self.clients.len();
        self.asked.set(next);
        next == 0
    }

    /// Asks what changes nothing: the next one too, and so on, where one does not answer or has itself
    /// no answer. Who has one is asked first from then on.
    ///
    /// # Errors
    /// Nobody has an answer; or somebody's is an error that the others have too.
    pub(crate) async fn read<T>(
        &self,
        ask: impl AsyncFn(&Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let begin = self.asked.get();
        let (mut at, mut last) = (begin, None);
        loop {
            let error = match ask(&self.clients[at]).await {
                Err(e) if e.is_unreachable() => e,
                answer => {
                    self.asked.set(at);
                    return answer;
                }
            };
            // Why the cluster has no answer says more than that a machine is away.
            let error = last.filter(|last: &ClientError| last.kind().is_some()).unwrap_or(error);
            at = (at + 1) % self.clients.len();
            if at == begin {
                return Err(error);
            }
            last = Some(error);
        }
    }

    /// Turns to the first one that takes part in its cluster, and stays where none says so: one that is cut
    /// off from the store answers too, but has nothing to say.
    pub(crate) async fn find_ready(&self) {
        let all = self.clients.len();
        if all < 2 {
            return;
        }
        let begin = self.asked.get();
        for at in (0..all).map(|n| (begin + n) % all) {
            if let Ok(Ok(true)) = tokio::time::timeout(HERE_WITHIN, self.clients[at].ready()).await {
                self.asked.set(at);
                return;
            }
        }
    }
}

/// Connects to the first endpoint that answers.
pub(crate) async fn connect(global: &Global) -> anyhow::Result<Cluster> {
    let file = read(global.config.as_deref())?;
    let endpoints = endpoints(global, &file)?;
    let tunnel = match &global.ssh.tunnel {
        Some(host) => Some(Tunnel::open(&global.ssh, host, &endpoints).await?),
        None => None,
    };
    let clients = clients(global, file, endpoints, tunnel.as_ref())?;
    let cluster = Cluster { clients, asked: Cell::new(0), tunnel };
    if cluster.clients.len() < 2 {
        return Ok(cluster);
    }
    loop {
        let client = cluster.client();
        let error = match tokio::time::timeout(HERE_WITHIN, client.version()).await {
            Ok(Ok(_)) => return Ok(cluster),
            Ok(Err(e)) if e.is_unreachable() => e,
            Ok(Err(e)) => return Err(e.into()),
            Err(_) => ClientError::Unreachable {
                endpoint: client.endpoint().to_string(),
                why: format!("nothing for {} s", HERE_WITHIN.as_secs()),
                sent: true,
            },
        };
        if cluster.move_on() {
            return Err(error.into());
        }
    }
}

/// Says where to ask.
fn endpoints(global: &Global, file: &File) -> anyhow::Result<Vec<Endpoint>> {
    let far = global.ssh.tunnel.is_some();
    let texts = match (global.endpoint.as_slice(), file.endpoints.as_slice()) {
        // What the file names is for those who can get there.
        ([], _) if far => vec![format!("unix://{DEFAULT_SOCKET}")],
        ([], []) => vec![default_socket()],
        ([], from_file) => from_file.to_vec(),
        (given, _) => given.to_vec(),
    };
    let endpoints: Result<Vec<Endpoint>, ClientError> = texts.iter().map(|text| text.parse()).collect();
    Ok(endpoints?)
}

fn clients(
    global: &Global,
    file: File,
    endpoints: Vec<Endpoint>,
    tunnel: Option<&Tunnel>,
) -> anyhow::Result<Vec<Client>> {
    let pick = |given: &Option<PathBuf>, from_file: Option<PathBuf>| given.clone().or(from_file);
    let paths =
        (pick(&global.ca, file.ca), pick(&global.certificate, file.certificate), pick(&global.key, file.key));
    let mut identity = None;
    let mut clients = Vec::new();
    for (number, endpoint) in endpoints.into_iter().enumerate() {
        let secure = matches!(&endpoint, Endpoint::Url(url) if url.scheme() == "https");
        if secure && identity.is_none() {
            identity = Some(load(&paths)?);
        }
        if global.debug {
            tell(global, &paths, &endpoint);
        }
        let identity = if secure { identity.as_ref() } else { None };
        let client = match tunnel {
            Some(tunnel) => Client::through(tunnel.socket(number), tunnel.name(), endpoint, identity)?,
            None => Client::new(endpoint, identity)?,
        };
        clients.push(match global.request_timeout {
            Some(within) => client.within(within),
            None => client,
        });
    }
    Ok(clients)
}

/// Tells which way a request goes.
fn tell(global: &Global, (ca, certificate, _): &Paths, endpoint: &Endpoint) {
    let shown = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let tunnel =
        global.ssh.tunnel.as_ref().map(|host| format!(", through ssh to {host}")).unwrap_or_default();
    let who = match endpoint {
        Endpoint::Url(url) if url.scheme() == "https" => {
            let shown = |path| shown(path).unwrap_or_else(|| "none".to_owned());
            format!(", as {} says, of the authority {}", shown(certificate), shown(ca))
        }
        _ => String::new(),
    };
    print::tell(paint::dim(format!("debug: endpoint {endpoint}{tunnel}{who}")));
}

/// Returns the socket of this user's own `flotillad --dev` where there is one, else the system's.
fn default_socket() -> String {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("flotilla/api.sock"));
    match own {
        Some(path) if path.exists() && !Path::new(DEFAULT_SOCKET).exists() => {
            format!("unix://{}", path.display())
        }
        _ => format!("unix://{DEFAULT_SOCKET}"),
    }
}

/// The authority, the certificate and its key.
type Paths = (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>);

fn load(paths: &Paths) -> anyhow::Result<Identity> {
    let read = |path: &Option<PathBuf>, option: &str| {
        let path = path.as_deref().ok_or_else(|| {
            let why =
                format!("an https endpoint needs certificates: give --{option} or write it to flotctl.toml");
            Failure::error(Exit::Usage, why)
        })?;
        fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    Ok(Identity {
        ca_pem: read(&paths.0, "ca")?,
        certificate_pem: read(&paths.1, "certificate")?,
        key_pem: read(&paths.2, "key")?,
    })
}

fn read(given: Option<&Path>) -> anyhow::Result<File> {
    let home = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".config")));
    let usual = home.map(|config| config.join("flotilla/flotctl.toml"));
    let candidates = [usual, Some(PathBuf::from("/etc/flotilla/flotctl.toml"))];
    let path = match given {
        Some(path) => path.to_owned(),
        None => match candidates.into_iter().flatten().find(|path| path.exists()) {
            Some(path) => path,
            None => return Ok(File::default()),
        },
    };
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut file: File = toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
    // Paths in the file are relative to it, so that its folder can be copied anywhere.
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    for path in [&mut file.ca, &mut file.certificate, &mut file.key].into_iter().flatten() {
        *path = folder.join(&*path);
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_file_are_relative_to_it_and_unknown_keys_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("flotctl.toml");
        fs::write(&path, "endpoints = [\"https://a:7400\"]\nca = \"ca.pem\"\n").expect("written");
        let file = read(Some(&path)).expect("valid");
        assert_eq!(file.ca, Some(directory.path().join("ca.pem")));
        fs::write(&path, "endpoint = \"https://a:7400\"\n").expect("written");
        let error = format!("{:#}", read(Some(&path)).expect_err("unknown key"));
        assert!(error.contains("endpoint") && error.contains("line 1"), "{error}");
    }

    #[test]
    fn the_guides_example_is_valid() {
        let page = include_str!("../../docs/guide/flotctl.md");
        let (_, block) = page.split_once("```toml flotctl.toml\n").expect("an example");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("flotctl.toml");
        fs::write(&path, block.split("```").next().expect("a text")).expect("written");
        let file = read(Some(&path)).expect("valid");
        assert!(file.endpoints.len() == 2 && file.key.is_some());
    }
}
