//! A daemon with some of its roles only.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
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
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// It has nothing to ask a systemd: it runs where there is none, and makes none of the agent's directories.
#[test]
fn an_engine_alone_opens_no_bus() {
    let folder = tempfile::tempdir().unwrap();
    let in_folder = |name: &str| folder.path().join(name);
    let socket = in_folder("api.sock");
    let config = in_folder("flotilla.toml");
    std::fs::write(&config, "").unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_flotillad"))
        .args(["--roles", "engine", "--machine-id", "113f16a7a0f84c4c8a3f9e3b2f4d6c01"])
        .args([Path::new("--store-path"), &in_folder("store.redb"), Path::new("--socket"), &socket])
        .args([Path::new("--run-dir"), &in_folder("run"), Path::new("--state-dir"), &in_folder("state")])
        .env_clear()
        .env("FLOTILLA_CONFIG", &config)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut daemon = Daemon(child);
    let begun = Instant::now();
    let answer = loop {
        let answer = get(&socket, "/readyz").unwrap_or_default();
        if answer.contains("200 OK") {
            break answer;
        }
        assert_eq!(daemon.0.try_wait().unwrap(), None, "it has ended");
        assert!(begun.elapsed() < LIMIT, "{answer}");
        std::thread::yield_now();
    };
    assert!(answer.ends_with("ready\n"), "{answer}");
    assert!(get(&socket, "/v1/units").unwrap().contains("\"items\":[]"));
    let status = get(&socket, "/v1/machines/113f16a7a0f84c4c8a3f9e3b2f4d6c01/units/a/status").unwrap();
    assert!(status.contains("404 Not Found"), "{status}");
    assert!(!get(&socket, "/metrics").unwrap().contains("systemd_reloads"));
    assert!(!in_folder("run").exists(), "the agent's directories");
}
