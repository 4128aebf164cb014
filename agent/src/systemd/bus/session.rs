//! Starts sessions: transient services of PID 1, each kept by flotillad in another of its parts.

use std::{
    collections::HashMap,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use rand::RngExt as _;
use zbus::wire::{Fd, Variant};

use super::DbusSystemd;
use crate::{
    session::{
        EXEC_PREFIX, Given, Inside, Life, SHELL_PREFIX, Session, SessionError, SessionOrder, SessionSource,
        Spec, VERSION, pipes, pty, send,
    },
    status::StatusSource as _,
};

/// What the kernel adds to the path of a program that another was put in the place of.
const REPLACED: &str = " (deleted)";

/// How long systemd lets a keeper end what it keeps. Ten seconds: the keeper gives it two, and what was killed
/// five more.
const STOP_WITHIN: Duration = Duration::from_secs(10);

#[async_trait]
impl SessionSource for DbusSystemd {
    async fn open(&self, order: SessionOrder) -> Result<Session, SessionError> {
        let inside = match &order.unit {
            None => None,
            Some(unit) => {
                let status = self.status(unit).await?;
                let pid = status.main.map(|main| main.pid);
                let pid = pid.or_else(|| status.processes.first().map(|process| process.pid));
                let active = status.active;
                let pid = pid.ok_or_else(|| SessionError::NoProcess { unit: unit.clone(), active })?;
                Some(Inside { pid, group: status.cgroup })
            }
        };
        let files = |action| move |source| SessionError::Files { action, source };
        let given = match &order.terminal {
            Some(terminal) => pty(terminal.rows, terminal.cols).map_err(files("make a terminal"))?,
            None => pipes().map_err(files("make pipes"))?,
        };
        let Given { input, output, errors, terminal, far } = given;
        let (near, line) = UnixStream::pair().map_err(files("make a pair of sockets"))?;
        near.set_nonblocking(true).map_err(files("make a pair of sockets"))?;
        let mut near = tokio::net::UnixStream::from_std(near).map_err(files("make a pair of sockets"))?;
        let service = self.start_keeper(&order, line.into()).await?;
        let spec = Spec {
            version: VERSION,
            inside,
            command: order.command,
            term: order.terminal.map(|terminal| terminal.term),
        };
        send(&mut near, &spec, &far).await.map_err(files("tell its keeper what to run"))?;
        // Held here too, they would never be at their end.
        drop(far);
        let mut life = Life::new(near);
        life.begun(&service).await?;
        Ok(Session { service, input, output, errors, terminal, life })
    }
}

impl DbusSystemd {
    /// Asks for the transient service, and returns its name. That it runs is not waited for: its keeper
    /// says so.
    async fn start_keeper(&self, order: &SessionOrder, line: OwnedFd) -> Result<String, SessionError> {
        let program = std::env::current_exe()
            .map_err(|source| SessionError::Files { action: "find flotillad's own program", source })?;
        let program = program.display().to_string();
        let program = program.strip_suffix(REPLACED).unwrap_or(&program).to_owned();
        let prefix = if order.unit.is_some() { EXEC_PREFIX } else { SHELL_PREFIX };
        let service = format!("{prefix}{:016x}.service", rand::rng().random::<u64>());
        let description = match &order.unit {
            Some(unit) => format!("flotilla: a command in {unit}"),
            None => "flotilla: a shell".to_owned(),
        };
        let (line, name) = (Arc::new(line), service.clone());
        self.call("StartTransientUnit", &service, move |manager| {
            let (line, name, program, description) =
                (Arc::clone(&line), name.clone(), program.clone(), description.clone());
            async move {
                let properties = properties(&program, &description, &line)?;
                let properties: Vec<(&str, Variant<'_>)> = properties.into_iter().collect();
                manager.start_transient_unit(&name, "fail", &properties, &[]).await
            }
        })
        .await?;
        Ok(service)
    }
}

/// Returns the properties of a keeper's service.
fn properties(
    program: &str,
    description: &str,
    line: &OwnedFd,
) -> zbus::Result<HashMap<&'static str, Variant<'static>>> {
    let words = vec![program.to_owned(), "session".to_owned()];
    // What systemd.service(5) calls ExecStart=: path, words, and whether a failure counts for nothing.
    let start = vec![(program.to_owned(), words, false)];
    let stop_within = u64::try_from(STOP_WITHIN.as_micros()).unwrap_or(u64::MAX);
    Ok(HashMap::from([
        ("Description", Variant::from(description.to_owned())),
        ("Type", Variant::from("exec")),
        ("ExecStart", Variant::from(start)),
        ("StandardInputFileDescriptor", Variant::from(Fd::from(line.try_clone()?))),
        ("StandardOutput", Variant::from("null")),
        ("StandardError", Variant::from("journal")),
        // Nothing is left of it in systemd, however it ended.
        ("CollectMode", Variant::from("inactive-or-failed")),
        ("SendSIGHUP", Variant::from(true)),
        ("TimeoutStopUSec", Variant::from(stop_within)),
    ]))
}
