//! Somebody who works inside a machine: root, or an ordinary user with a systemd of their own.

use std::process::Output;

use anyhow::{Context, Result, bail};
use flotilla_lab::Machine;

/// The service that runs [`Person::start_dev`]'s daemon.
const SERVICE: &str = "flotillad.service";

/// The daemon without configuration, as a newcomer starts it, in a service so that it has a journal and
/// can be killed and restarted.
const DEV: &str = "[Service]\nType=notify\nExecStart=/usr/local/bin/flotillad --dev\nRestart=always\n\
                   RestartSec=100ms\nNoNewPrivileges=yes\n";

/// Somebody, and the machine they are on.
#[derive(Debug, Clone, Copy)]
pub struct Person<'a> {
    /// Where they work.
    pub machine: &'a Machine,
    /// Their login name, unless it is root.
    user: Option<&'static str>,
}

impl<'a> Person<'a> {
    /// root, with the machine's own systemd.
    pub fn root(machine: &'a Machine) -> Self {
        Self { machine, user: None }
    }

    /// Makes an ordinary user whose own systemd runs without a login. The machine has to be one with
    /// user managers.
    ///
    /// # Errors
    /// The user cannot be made, or has no systemd.
    pub fn user(machine: &'a Machine, name: &'static str) -> Result<Self> {
        machine.run(&["useradd", "--create-home", "--shell", "/bin/sh", name])?;
        machine.run(&["loginctl", "enable-linger", name])?;
        let person = Self { machine, user: Some(name) };
        crate::eventually(crate::LIMIT, format_args!("a systemd of {name}'s own"), || {
            let state = person.exec(&["systemctl", "--user", "is-system-running"])?;
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            Ok(matches!(state.as_str(), "running" | "degraded").then_some(()))
        })?;
        Ok(person)
    }

    /// Where their files lie.
    pub fn home(&self) -> String {
        self.user.map_or_else(|| "/root".to_owned(), |user| format!("/home/{user}"))
    }

    /// Runs a command as they would type it.
    ///
    /// # Errors
    /// As [`Machine::exec`]: not when the command fails.
    pub fn exec(&self, words: &[&str]) -> Result<Output> {
        let home = format!("HOME={}", self.home());
        let Some(user) = self.user else {
            return self.machine.exec(&[&["env", &home], words].concat());
        };
        let id = self.machine.run(&["id", "--user", user])?;
        let runtime = format!("XDG_RUNTIME_DIR=/run/user/{}", id.trim());
        self.machine.exec(&[&["runuser", "-u", user, "--", "env", &home, &runtime], words].concat())
    }

    /// Runs a command and returns what it printed.
    ///
    /// # Errors
    /// Also if it fails, with what it said.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.exec(words)?;
        if !output.status.success() {
            bail!("{words:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        String::from_utf8(output.stdout).with_context(|| format!("{words:?} printed no text"))
    }

    /// Asks their own systemd, or the machine's where they are root.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn systemctl(&self, words: &[&str]) -> Result<String> {
        let manager: &[&str] = if self.user.is_some() { &["systemctl", "--user"] } else { &["systemctl"] };
        self.run(&[manager, words].concat())
    }

    /// Writes a file that is theirs.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        self.machine.write_file(path, content)?;
        if let Some(user) = self.user {
            self.machine.run(&["chown", "--recursive", user, &self.home()])?;
        }
        Ok(())
    }

    /// Starts `flotillad --dev`, which takes orders when it is ready.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_dev(&self) -> Result<()> {
        let directory = match self.user {
            Some(_) => format!("{}/.config/systemd/user", self.home()),
            None => "/etc/systemd/system".to_owned(),
        };
        self.write(&format!("{directory}/{SERVICE}"), DEV)?;
        self.systemctl(&["daemon-reload"])?;
        self.systemctl(&["start", SERVICE])?;
        Ok(())
    }
}
