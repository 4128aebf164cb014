//! A daemon with some of its roles only.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long anything here may take on a busy computer.
const LIMIT: Duration = Duration::from_secs(30);

/// A running flotillad; it ends with its owner.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended_by_itself = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn get(socket: &Path, path: &str) -> std::io::Result<String> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    ask(stream, path)
}

fn ask(mut stream: impl Read + Write, path: &str) -> std::io::Result<String> {
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

const MACHINE: &str = "113f16a7a0f84c4c8a3f9e3b2f4d6c01";

/// Starts an engine with this configuration, and waits until it is ready. Returns it with its socket.
fn engine(folder: &Path, text: &str) -> (Daemon, PathBuf) {
    let in_folder = |name: &str| folder.join(name);
    let (socket, config) = (in_folder("api.sock"), in_folder("flotilla.toml"));
    std::fs::write(&config, text).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_flotillad"))
        .args(["--roles", "engine", "--machine-id", MACHINE])
        .args([Path::new("--store-path"), &in_folder("store.redb"), Path::new("--socket"), &socket])
        .args([Path::new("--run-dir"), &in_folder("run"), Path::new("--state-dir"), &in_folder("state")])
        .env_clear()
        .env("FLOTILLA_CONFIG", &config)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut daemon = Daemon(child);
    until(&mut daemon, || get(&socket, "/readyz").unwrap_or_default().ends_with("ready\n"));
    (daemon, socket)
}

/// Waits until something holds, as long as the daemon lives.
#[track_caller]
fn until(daemon: &mut Daemon, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert_eq!(daemon.0.try_wait().unwrap(), None, "it has ended");
        assert!(begun.elapsed() < LIMIT, "waited in vain");
        std::thread::yield_now();
    }
}

/// It has nothing to ask a systemd: it runs where there is none, and makes none of the agent's directories.
#[test]
fn an_engine_alone_opens_no_bus() {
    let folder = tempfile::tempdir().unwrap();
    let (_daemon, socket) = engine(folder.path(), "");
    assert!(get(&socket, "/readyz").unwrap().contains("200 OK"));
    assert!(get(&socket, "/v1/units").unwrap().contains("\"items\":[]"));
    let status = get(&socket, &format!("/v1/machines/{MACHINE}/units/a/status")).unwrap();
    assert!(status.contains("404 Not Found"), "{status}");
    assert!(!get(&socket, "/metrics").unwrap().contains("systemd_reloads"));
    assert!(!folder.path().join("run").exists(), "the agent's directories");
}

/// fleet lost its socket and its lead by it.
#[test]
fn a_hangup_ends_nothing_and_its_socket_answers_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut daemon, socket) = engine(folder.path(), "");
    for _ in 0..3 {
        let pid = daemon.0.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    }
    // Whoever is ended by a signal has ended when it is asked to and nothing answers.
    let end = Instant::now() + Duration::from_millis(500);
    until(&mut daemon, || {
        assert!(get(&socket, "/fleet/v1/machines").unwrap().contains("200 OK"));
        Instant::now() > end
    });
    assert!(get(&socket, "/v1/cluster").unwrap().contains(MACHINE), "it leads");
}

/// By TCP without TLS it is root's for everybody on the machine: nobody has it who has not asked for it.
#[test]
fn fleets_api_is_on_the_socket_and_by_tcp_only_where_that_is_switched_on() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let list = "/fleet/v1/machines";
    let folder = tempfile::tempdir().unwrap();
    {
        let (_daemon, socket) = engine(folder.path(), "");
        assert!(get(&socket, list).unwrap().contains("200 OK"));
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "nobody listens");
    }
    let on = format!("[api]\nlisten = \"127.0.0.1:{port}\"\n");
    std::fs::write(folder.path().join("off.toml"), &on).unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_flotillad"))
        .env_clear()
        .args([Path::new("--config"), &folder.path().join("off.toml")])
        .output()
        .unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("listening needs certificates"), "{said}");
    let (mut daemon, socket) = engine(folder.path(), &format!("{on}insecure-loopback = true\n"));
    assert!(get(&socket, list).unwrap().contains("200 OK"));
    until(&mut daemon, || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let answer = ask(TcpStream::connect(("127.0.0.1", port)).unwrap(), list).unwrap();
    assert!(answer.contains("200 OK"), "{answer}");
}

/// `fleet version` ran a second daemon, which stopped the units of the first.
#[test]
fn words_that_mean_nothing_start_nothing() {
    for words in [&["version"][..], &["--verison"], &["check", "more"], &["--roles"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flotillad"));
        let output = command.env_clear().args(words).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains("error:"), "{words:?}: {said}");
    }
}
