//! The lab's etcd: one or more members, each a process in a network namespace and
//! control groups of its own, so that it can be cut, frozen and killed like a
//! machine.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    ops::Deref,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, kill_process};

use crate::{
    command::{checked, command},
    control_group::Group,
    name::Territory,
    network::{Network, path_of},
    node::Node,
    wait::{eventually, tail},
};

/// The port for clients, etcd's usual one.
pub const CLIENT_PORT: u16 = 2379;

/// The port for the other members, etcd's usual one.
const PEER_PORT: u16 = 2380;

/// The port for health and metrics, which stays plain HTTP when the others do not.
const METRICS_PORT: u16 = 2381;

/// The files that [`Member::secure`] wants, as `flotctl cluster init` names them.
const CERTIFICATES: [&str; 3] = ["etcd-ca.pem", "etcd.pem", "etcd-key.pem"];

/// How long a member may take until it answers; an election on a busy disk is
/// most of it.
const START_TIME: Duration = Duration::from_secs(30);

/// How long one question to a member may take.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Joins the control groups in `$LAB_GROUPS`, then becomes the command.
const LAUNCH: &str = r#"set -eu
IFS='
'
for group in $LAB_GROUPS; do echo $$ > "$group/cgroup.procs"; done
exec "$@"
"#;

/// One member of the lab's etcd; what a [`Node`] can do, it can too.
#[derive(Debug, Clone)]
pub struct Member {
    node: Node,
    program: PathBuf,
    network: Network,
    /// Every member as etcd's `--initial-cluster` has them.
    cluster: String,
    /// The same for all members, so that they know each other for one cluster.
    token: String,
}

impl Deref for Member {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Member {
    pub(crate) fn new(
        territory: &Territory,
        group: &Group,
        name: &str,
        address: Ipv4Addr,
        program: PathBuf,
        cluster: &str,
    ) -> Self {
        let node = Node::new(territory, group, name.to_owned(), address);
        Self {
            node,
            program,
            network: Network::new(territory),
            cluster: cluster.to_owned(),
            token: territory.group().to_owned(),
        }
    }

    /// Where clients inside the lab's network reach it.
    pub fn endpoint(&self) -> String {
        format!("{}://{}:{CLIENT_PORT}", self.scheme(), self.address())
    }

    /// Stops the member and makes it one of a new, empty cluster that speaks TLS only, to clients
    /// and among members, and asks either for a certificate. Every member has to be secured before
    /// the first of them is started again.
    ///
    /// `folder` holds `etcd-ca.pem`, `etcd.pem` and `etcd-key.pem`.
    pub fn secure(&self, folder: &Path) -> Result<()> {
        self.stop()?;
        let certificates = self.certificates();
        fs::create_dir_all(&certificates).context("making the member's directory of certificates")?;
        for file in CERTIFICATES {
            let from = folder.join(file);
            fs::copy(&from, certificates.join(file))
                .with_context(|| format!("copying {}", from.display()))?;
        }
        // Its data names the members by their plain addresses.
        fs::remove_dir_all(self.data()).context("removing the member's data")
    }

    /// Gives a stopped member the data of a snapshot in place of its own, with Debian's `etcdctl`: what an
    /// administrator does with a backup. Every member has to be restored before the first is started again.
    pub fn restore(&self, snapshot: &Path) -> Result<()> {
        if self.is_running() {
            bail!("{} is running; stop it before its data is replaced", self.name());
        }
        fs::remove_dir_all(self.data()).context("removing the member's data")?;
        let mut etcdctl = command([self.program.with_file_name("etcdctl")]);
        etcdctl.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(snapshot);
        // Who the members are is not in a snapshot.
        for (option, value) in self.founding() {
            etcdctl.args([option, &value]);
        }
        checked(&mut etcdctl).map(|_| ())
    }

    /// Starts the process on the data it has. [`Member::wait_healthy`] waits for it.
    pub fn start(&self) -> Result<()> {
        if self.is_running() {
            bail!("{} is running already", self.name());
        }
        self.prepare()?;
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let groups: Vec<String> =
            self.group().directories().iter().map(|path| path.display().to_string()).collect();
        let mut launch = Command::new("setsid");
        launch
            .arg("nsenter")
            .arg(format!("--net={}", path_of(self.space()).display()))
            .args(["sh", "-c", LAUNCH, "launch"])
            .arg(&self.program)
            .args(self.arguments())
            .env("LAB_GROUPS", groups.join("\n"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if cfg!(target_arch = "aarch64") {
            // etcd 3.4 runs there, but wants to be told so.
            launch.env("ETCD_UNSUPPORTED_ARCH", "arm64");
        }
        let mut child = launch.spawn().context("starting etcd")?;
        // Somebody has to take note of its end, as long as this process lives.
        thread::spawn(move || child.wait());
        eventually(START_TIME, format_args!("{} to start", self.name()), || {
            Ok(self.is_running().then_some(()))
        })
    }

    /// Ends the process in order.
    pub fn stop(&self) -> Result<()> {
        for pid in self.group().processes() {
            kill_process(pid, Signal::TERM).with_context(|| format!("stopping {}", self.name()))?;
        }
        self.group().wait_empty()
    }

    /// Takes the power away: nothing more leaves the member, and it is gone at
    /// once. [`Member::start`] starts it again.
    pub fn kill(&self) -> Result<()> {
        self.unplug()?;
        self.group().kill()
    }

    /// Waits until the member answers, which takes a leader that it can reach.
    pub fn wait_healthy(&self) -> Result<()> {
        let healthy = eventually(START_TIME, format_args!("{} to be healthy", self.name()), || {
            let answer = self.get("/health")?;
            Ok(answer.contains("\"true\"").then_some(()))
        });
        healthy.with_context(|| format!("the end of the log of {}:\n{}", self.name(), tail(&self.log())))
    }

    /// What the member counts about itself, in Prometheus's format.
    pub fn metrics(&self) -> Result<String> {
        self.get("/metrics")
    }

    /// What the member has logged since the lab came up.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// What a client that asks this member has to be told of certificates: options of etcdctl.
    pub(crate) fn client_options(&self) -> Vec<String> {
        if !self.is_secure() {
            return Vec::new();
        }
        let [ca, certificate, key] = CERTIFICATES.map(|file| self.certificates().join(file));
        // A member's certificate is a client's, too: etcd asks itself with it.
        let options = [("--cacert", ca), ("--cert", certificate), ("--key", key)];
        options.iter().map(|(option, path)| format!("{option}={}", path.display())).collect()
    }

    fn is_secure(&self) -> bool {
        self.certificates().exists()
    }

    fn scheme(&self) -> &'static str {
        if self.is_secure() { "https" } else { "http" }
    }

    fn certificates(&self) -> PathBuf {
        self.directory().join("certificates")
    }

    fn data(&self) -> PathBuf {
        self.directory().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.directory().join("etcd.log")
    }

    /// The options that say which cluster's member it is: for its first start, and for a restored one.
    fn founding(&self) -> [(&'static str, String); 5] {
        [
            ("--name", self.name().to_owned()),
            ("--data-dir", self.data().display().to_string()),
            ("--initial-advertise-peer-urls", self.with_scheme(&peer_url(self.address()))),
            ("--initial-cluster", self.with_scheme(&self.cluster)),
            ("--initial-cluster-token", self.token.clone()),
        ]
    }

    fn arguments(&self) -> Vec<String> {
        let client = self.endpoint();
        let arguments = [
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", self.with_scheme(&peer_url(self.address()))),
            ("--listen-metrics-urls", format!("http://{}:{METRICS_PORT}", self.address())),
            ("--logger", "zap".to_owned()),
        ];
        let arguments = self.founding().into_iter().chain(arguments);
        let arguments = arguments.flat_map(|(option, value)| [option.to_owned(), value]);
        arguments.chain(self.secure_arguments()).collect()
    }

    fn with_scheme(&self, urls: &str) -> String {
        urls.replace("http://", &format!("{}://", self.scheme()))
    }

    fn secure_arguments(&self) -> Vec<String> {
        if !self.is_secure() {
            return Vec::new();
        }
        let [ca, certificate, key] = CERTIFICATES.map(|file| self.certificates().join(file));
        let options = |prefix: &str| {
            let paths = [("trusted-ca-file", &ca), ("cert-file", &certificate), ("key-file", &key)];
            let mut options: Vec<String> =
                paths.iter().map(|(option, path)| format!("--{prefix}{option}={}", path.display())).collect();
            options.push(format!("--{prefix}client-cert-auth"));
            options
        };
        [options(""), options("peer-")].concat()
    }

    /// Asks the member over plain HTTP; the whole answer, headers included.
    fn get(&self, path: &str) -> Result<String> {
        let address = SocketAddr::from((self.address(), METRICS_PORT));
        self.network.run(|| get(address, path))?
    }
}

/// Where the other members reach one.
pub(crate) fn peer_url(address: Ipv4Addr) -> String {
    format!("http://{address}:{PEER_PORT}")
}

fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIME)
        .with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    stream.set_write_timeout(Some(ANSWER_TIME))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("reading {path} of {address}"))?;
    Ok(answer)
}
