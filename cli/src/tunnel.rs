//! `--tunnel`: every connection goes through one run of the system's ssh.
//!
//! ssh forwards a unix socket in a folder of ours to the far machine's socket or
//! port (`ssh -L`): one login, however many connections, and nothing of flotilla is
//! needed there but the daemon. What ssh runs there says that it is ready and then
//! waits for the end of its input: so the tunnel ends with this program, however that
//! ends. What ssh has to say it says itself, on standard error.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use flotilla_api::client::Endpoint;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    time::timeout,
};

use crate::{
    exit::{Exit, Failure},
    ssh::{Host, SshOptions},
};

/// How long logging in may take once there is a connection: sshd's own LoginGraceTime, in which a
/// person finds a password or a token.
const LOGIN_WITHIN: Duration = Duration::from_secs(120);

/// What the far side says when it is there. A shell's start-up files may say more before it.
const READY: &str = "flotctl: the tunnel is open";

/// An open tunnel; dropping it ends ssh.
#[derive(Debug)]
pub(crate) struct Tunnel {
    name: String,
    folder: PathBuf,
    _ssh: Child,
    /// Its end is what the far side waits for.
    _input: ChildStdin,
}

impl Tunnel {
    /// Opens a tunnel to these endpoints, as the far machine sees them.
    ///
    /// # Errors
    /// There is no ssh, it does not get there, or takes too long.
    pub(crate) async fn open(
        options: &SshOptions,
        host: &Host,
        endpoints: &[Endpoint],
    ) -> anyhow::Result<Self> {
        let folder = folder()?;
        match start(options, host, endpoints, &folder).await {
            Ok((ssh, input)) => Ok(Self { name: format!("ssh to {host}"), folder, _ssh: ssh, _input: input }),
            Err(e) => {
                remove(&folder);
                Err(e)
            }
        }
    }

    /// Removes what would stay when this program becomes another one; ssh ends with its input then.
    pub(crate) fn leave(&self) {
        remove(&self.folder);
    }

    /// Says which way it goes, in the words of an error.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the socket of this machine behind which the endpoint of this number is.
    pub(crate) fn socket(&self, number: usize) -> PathBuf {
        socket(&self.folder, number)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// Waits until somebody wants the program to end, so that it can end the tunnel before.
///
/// # Errors
/// Signals cannot be caught.
pub(crate) async fn interrupted() -> anyhow::Result<Exit> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(Exit::Interrupted)
}

async fn start(
    options: &SshOptions,
    host: &Host,
    endpoints: &[Endpoint],
    folder: &Path,
) -> anyhow::Result<(Child, ChildStdin)> {
    let mut ssh = Command::new("ssh");
    ssh.args(arguments(options, host, endpoints, folder)?);
    // It keeps the terminal, on which it asks for passwords and about keys that it does not know.
    ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = ssh.spawn().map_err(|e| {
        Failure::error(
            Exit::Unreachable,
            format!("--tunnel needs the system's ssh, which cannot be run: {e}"),
        )
    })?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        anyhow::bail!("ssh was started without its standard input and output");
    };
    let mut lines = BufReader::new(output).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await? {
            if line.trim_end() == READY {
                return Ok(true);
            }
        }
        std::io::Result::Ok(false)
    };
    let within = options.ssh_timeout.saturating_add(LOGIN_WITHIN);
    match timeout(within, ready).await {
        Ok(Ok(true)) => Ok((child, input)),
        Err(_) => Err(unreachable(host, format!("ssh did not log in within {} s", within.as_secs()))),
        Ok(told) => {
            let status = timeout(options.ssh_timeout, child.wait()).await;
            let why = match (told, status) {
                (Err(e), _) => format!("ssh cannot be heard: {e}"),
                (_, Ok(Ok(status))) => format!("ssh ended with {status}; what it says stands above"),
                _ => "ssh closed its output before it was ready".to_owned(),
            };
            Err(unreachable(host, why))
        }
    }
}

fn unreachable(host: &Host, why: String) -> anyhow::Error {
    Failure::error(Exit::Unreachable, format!("no tunnel to {host}: {why}"))
}

fn arguments(
    options: &SshOptions,
    host: &Host,
    endpoints: &[Endpoint],
    folder: &Path,
) -> anyhow::Result<Vec<OsString>> {
    let mut words = options.arguments(host);
    words.push("-T".into());
    for option in [
        // A socket that cannot be made is told, not passed over.
        "ExitOnForwardFailure=yes",
        // A connection shared with other runs of ssh would keep the socket after this program's end.
        "ControlMaster=no",
        "ControlPath=none",
        // Only what is asked for here is run and forwarded.
        "RemoteCommand=none",
        "PermitLocalCommand=no",
        "ClearAllForwardings=no",
    ] {
        words.extend(["-o".into(), option.into()]);
    }
    for (number, endpoint) in endpoints.iter().enumerate() {
        let mut forward = socket(folder, number).into_os_string();
        forward.push(":");
        forward.push(far(endpoint)?);
        words.extend(["-L".into(), forward]);
    }
    words.extend(["--".into(), OsString::from(&host.name)]);
    words.push(format!("echo '{READY}'; exec cat >/dev/null").into());
    Ok(words)
}

/// Says in ssh's words where an endpoint is.
fn far(endpoint: &Endpoint) -> anyhow::Result<OsString> {
    match endpoint {
        Endpoint::Unix(path) if path.is_absolute() => Ok(path.clone().into_os_string()),
        Endpoint::Unix(path) => Err(Failure::error(
            Exit::Usage,
            format!("{} is a path of the tunnel's far side, and has to begin with /", path.display()),
        )),
        Endpoint::Url(url) => {
            let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
                return Err(Failure::error(Exit::Usage, format!("{url} names no host and port")));
            };
            Ok(format!("{host}:{port}").into())
        }
    }
}

fn socket(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{number}.sock"))
}

/// Makes a folder that nobody else may look into. Its path is short: a unix socket's has 107 bytes.
fn folder() -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt as _;
    let above = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
    let above = above.unwrap_or_else(std::env::temp_dir);
    let name = format!("flotctl-{:016x}", rand::random::<u64>());
    let path = above.join(name);
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&path)
        .with_context(|| format!("cannot make {} for the tunnel's sockets", path.display()))?;
    Ok(path)
}

/// A folder that stays is some bytes in a folder for what is temporary, and nobody's trouble.
fn remove(folder: &Path) {
    let _stays = std::fs::remove_dir_all(folder);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_forwards_a_socket_for_each_endpoint() {
        let endpoints: Vec<Endpoint> =
            ["unix:///run/flotilla/api.sock", "https://[fd00::1]:7400", "http://127.0.0.1:49153"]
                .map(|text| text.parse().expect(text))
                .into();
        let options = SshOptions::default();
        let host = "m1:2222".parse().expect("a host");
        let words = arguments(&options, &host, &endpoints, Path::new("/tmp/x")).expect("words");
        let words: Vec<String> = words.into_iter().map(|word| word.into_string().expect("text")).collect();
        let forwards: Vec<&str> =
            words.windows(2).filter(|pair| pair[0] == "-L").map(|pair| pair[1].as_str()).collect();
        assert_eq!(
            forwards,
            [
                "/tmp/x/0.sock:/run/flotilla/api.sock",
                "/tmp/x/1.sock:[fd00::1]:7400",
                "/tmp/x/2.sock:127.0.0.1:49153"
            ]
        );
        let at = words.iter().position(|word| word == "--").expect("options end");
        assert_eq!(words[at + 1], "m1", "the host is no option, whatever it is called");
        assert!(far(&Endpoint::Unix("api.sock".into())).is_err());
    }
}
