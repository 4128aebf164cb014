//! Real etcd servers on loopback, on free ports, with their data in a folder that goes with them.

use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use flotilla_registry::store::etcd::{EtcdConfig, EtcdStore};
use rustix::process::{Pid, Signal, kill_process};

use crate::suite::Subject;

/// How long a server may take to serve on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running server; dropping it kills it.
pub struct Server {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
    arguments: Vec<String>,
    secure: bool,
}

/// Certificates of a server, as files.
pub struct ServerTls<'a> {
    pub certificate: &'a Path,
    pub key: &'a Path,
    pub client_ca: &'a Path,
}

impl Server {
    /// Starts a single member.
    pub async fn start() -> Self {
        Self::start_with(&[], None).await
    }

    /// Starts a single member with more arguments, and with TLS if certificates are given.
    pub async fn start_with(more: &[&str], tls: Option<ServerTls<'_>>) -> Self {
        let (port, peer) = (free_port(), free_port());
        let mut server = Self::spawn("one", port, peer, &format!("one=http://127.0.0.1:{peer}"), more, tls);
        server.wait_until_it_serves().await;
        server
    }

    /// Starts a cluster of three.
    pub async fn start_three() -> Vec<Self> {
        let names = ["a", "b", "c"];
        let ports: Vec<(u16, u16)> = names.iter().map(|_| (free_port(), free_port())).collect();
        let cluster: Vec<_> = names
            .iter()
            .zip(&ports)
            .map(|(name, (_, peer))| format!("{name}=http://127.0.0.1:{peer}"))
            .collect();
        let cluster = cluster.join(",");
        let mut servers: Vec<_> = names
            .iter()
            .zip(&ports)
            .map(|(name, (port, peer))| Self::spawn(name, *port, *peer, &cluster, &[], None))
            .collect();
        for server in &mut servers {
            server.wait_until_it_serves().await;
        }
        servers
    }

    fn spawn(
        name: &str,
        port: u16,
        peer: u16,
        cluster: &str,
        more: &[&str],
        tls: Option<ServerTls<'_>>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secure = tls.is_some();
        let scheme = if secure { "https" } else { "http" };
        let client = format!("{scheme}://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{peer}");
        let data = folder.path().join("data").display().to_string();
        let mut arguments: Vec<String> = [
            ("--name", name),
            ("--data-dir", &data),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", cluster),
        ]
        .iter()
        .flat_map(|(option, value)| [(*option).to_owned(), (*value).to_owned()])
        .collect();
        if let Some(tls) = tls {
            let file = |path: &Path| path.display().to_string();
            arguments.push("--client-cert-auth".into());
            arguments.extend(["--cert-file".into(), file(tls.certificate)]);
            arguments.extend(["--key-file".into(), file(tls.key)]);
            arguments.extend(["--trusted-ca-file".into(), file(tls.client_ca)]);
        }
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let child = launch(&arguments, folder.path());
        Self { child, folder, port, arguments, secure }
    }

    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.secure { "https" } else { "http" }, self.port)
    }

    /// A store over this server alone.
    pub fn store(&self) -> Subject {
        store_over([self.url()])
    }

    /// Stops it in its tracks: connections stay open, nothing answers.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on its data after a kill.
    pub async fn restart(&mut self) {
        self.child = launch(&self.arguments, self.folder.path());
        self.wait_until_it_serves().await;
    }

    /// One of etcd's own counters.
    pub fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    async fn wait_until_it_serves(&mut self) {
        let start = Instant::now();
        loop {
            let log = self.log();
            // Of 3.4, and of 3.5 and later.
            if log.contains("ready to serve client requests") {
                return;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "etcd ended:\n{log}");
            assert!(start.elapsed() < START_LIMIT, "etcd does not serve:\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn store_over(endpoints: impl IntoIterator<Item = String>) -> Subject {
    let config = EtcdConfig { endpoints: endpoints.into_iter().collect(), ..EtcdConfig::default() };
    Arc::new(EtcdStore::connect(config).unwrap())
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn launch(arguments: &[String], folder: &Path) -> Child {
    let binary = binary();
    let log = File::create(folder.join("log")).unwrap();
    let mut command = Command::new(&binary);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD_")) {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}; run `cargo xtask deps`", binary.display()))
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("FLOTILLA_ETCD") {
        return path.into();
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = workspace.join("target/lab/etcd/usr/bin/etcd");
    assert!(
        path.exists(),
        "{} is missing; run `cargo xtask deps`, or name it in FLOTILLA_ETCD",
        path.display()
    );
    path
}
