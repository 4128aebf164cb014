//! What is done inside a running machine: commands, files, its journal.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Component, Path},
    process::{Command, Output},
};

use anyhow::{Context, Result, bail};

use super::Machine;
use crate::command::{command, run, stdout_of, with_input};

/// Seconds that a command may take before it is ended; tests that need longer
/// start a unit.
const COMMAND_SECONDS: &str = "60";

/// What a command finds in its environment, whatever the caller's is.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Machine {
    /// Runs a command inside the machine as root and returns how it ended.
    ///
    /// # Errors
    ///
    /// Only if it could not be run: a command that fails is an `Ok` with its
    /// status. After 60 s it is ended, with status 124.
    pub fn exec(&self, words: &[&str]) -> Result<Output> {
        let mut entered = self.entering(words)?;
        entered.output().with_context(|| format!("running {words:?} in {}", self.name()))
    }

    /// Runs a command inside the machine and returns its standard output.
    ///
    /// # Errors
    ///
    /// Also if the command fails, with what it said.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        stdout_of(&format!("{words:?} in {}", self.name()), &self.exec(words)?)
    }

    /// Runs a line of shell inside the machine and returns its standard output.
    pub fn shell(&self, line: &str) -> Result<String> {
        self.run(&["sh", "-c", line])
    }

    /// A command that will run inside the machine as root, for as long as its caller lets it: for
    /// what is read while it runs. It ends when the process that the caller spawned is killed.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let mut entered = command(["nsenter"]);
        // The spawned process stays outside, and waits for a child inside that is to die with it.
        entered.args(self.nsenter()?).args(["setpriv", "--pdeathsig", "KILL", "--"]).args(words);
        entered.env_clear().env("PATH", PATH);
        Ok(entered)
    }

    /// Becomes a command inside the machine, with this process's terminal; returns
    /// only if that fails.
    pub fn become_command(&self, words: &[&str]) -> Result<std::convert::Infallible> {
        let mut entered = Command::new("nsenter");
        entered.args(self.nsenter()?).args(words).env_clear().env("PATH", PATH);
        entered.env("TERM", std::env::var_os("TERM").unwrap_or_else(|| "dumb".into()));
        Err(entered.exec()).with_context(|| format!("entering {}", self.name()))
    }

    /// Writes a file on the machine's disk, running or off, and the directories it
    /// is in.
    pub fn write_file(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let inner = inner(path)?;
        if self.init().is_err() {
            let path = self.disk().join(inner);
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            return fs::write(&path, content).with_context(|| format!("writing {}", path.display()));
        }
        // From inside: a link in the machine would lead the host to its own files.
        let script = r#"mkdir -p "${1%/*}/" && cat > "$1.lab-new" && mv "$1.lab-new" "$1""#;
        let mut entered = self.entering(&["sh", "-c", script, "sh", path])?;
        with_input(&mut entered, content.as_ref())
            .with_context(|| format!("writing {path} in {}", self.name()))?;
        Ok(())
    }

    /// Copies a file of the host into the machine, with its permissions.
    pub fn copy_in(&self, host: &Path, path: &str) -> Result<()> {
        let content = fs::read(host).with_context(|| format!("reading {}", host.display()))?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(host)?.permissions()) & 0o7777;
        self.write_file(path, content)?;
        if self.init().is_err() {
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
            return fs::set_permissions(self.disk().join(inner(path)?), permissions)
                .context("setting the mode");
        }
        self.run(&["chmod", &format!("{mode:o}"), path]).map(|_| ())
    }

    /// The machine's journal since it booted, or of some units only.
    ///
    /// It is kept in memory, so a machine that is off has none: its console is all
    /// that remains.
    pub fn journal(&self, units: &[&str]) -> Result<String> {
        let init = self.init()?.as_raw_nonzero();
        let directory = format!("--directory=/proc/{init}/root/run/log/journal");
        let mut words = vec!["journalctl", &directory, "--no-pager", "--output=short-precise", "--quiet"];
        words.extend(units.iter().flat_map(|unit| ["--unit", unit]));
        run(words).with_context(|| format!("reading the journal of {}", self.name()))
    }

    fn nsenter(&self) -> Result<Vec<String>> {
        let init = self.init()?.as_raw_nonzero();
        Ok(vec![format!("--target={init}"), "--all".into(), "--".into()])
    }

    fn entering(&self, words: &[&str]) -> Result<Command> {
        if words.is_empty() {
            bail!("no command to run in {}", self.name());
        }
        let mut entered = command(["timeout", "--kill-after=2", COMMAND_SECONDS, "nsenter"]);
        entered.args(self.nsenter()?).args(words).env_clear().env("PATH", PATH);
        Ok(entered)
    }
}

/// The path below the machine's root, which it may not leave.
fn inner(path: &str) -> Result<&Path> {
    let inner =
        Path::new(path).strip_prefix("/").with_context(|| format!("{path:?} does not begin with a slash"))?;
    if inner.components().any(|part| part == Component::ParentDir) {
        bail!("{path:?} leads out of where it begins");
    }
    Ok(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_the_machine() {
        assert_eq!(inner("/etc/hosts").unwrap(), Path::new("etc/hosts"));
        assert!(inner("etc/hosts").is_err());
        assert!(inner("/etc/../../passwd").is_err());
    }
}
