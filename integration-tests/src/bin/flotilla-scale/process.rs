//! Processes of a run: started with it, looked at, and gone with it.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// Ticks of a process's time in a second, on every architecture that Debian has.
const TICKS: f64 = 100.0;

/// A process; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Seconds of the processor.
    pub(crate) cpu: f64,
    /// Resident memory now, MiB.
    pub(crate) memory: f64,
    /// The most that it ever was, MiB.
    pub(crate) memory_peak: f64,
}

impl Process {
    /// Starts a command; what it says goes to a file of its name.
    pub(crate) fn start(name: &str, command: &mut Command, logs: &Path) -> Result<Self> {
        let path = logs.join(format!("{name}.log"));
        let log = fs::OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("{}", path.display()))?;
        command.stderr(log.try_clone()?);
        Ok(Self {
            name: name.to_owned(),
            child: command.spawn().with_context(|| format!("starting {name}"))?,
        })
    }

    /// Takes what the process is told through.
    pub(crate) fn pipes(&mut self) -> Result<(std::process::ChildStdin, std::process::ChildStdout)> {
        let pipes = self.child.stdin.take().zip(self.child.stdout.take());
        pipes.with_context(|| format!("{} has no pipes", self.name))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Fails if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}; its log says why", self.name),
        }
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        let pid = self.child.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        usage(&stat, &status).with_context(|| format!("what the kernel says of {}: {stat}", self.name))
    }

    /// Kills it, as `kill -9` does, and waits until it is gone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            // A process that has just ended is none to be killed.
            let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
            let _ = self.child.wait();
        }
    }
}

/// Ends this process with the one that started it, also if that is killed.
pub(crate) fn end_with_parent() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("asking to end with the run")
}

/// Reads what proc(5) has of a process.
fn usage(stat: &str, status: &str) -> Option<Usage> {
    // The name is in parentheses and may hold anything; the state is the third field.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let kib = |key: &str| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let (memory, memory_peak) = (kib("VmRSS:")? / 1024.0, kib("VmHWM:")? / 1024.0);
    Some(Usage { cpu: (field(14)? + field(15)?) / TICKS, memory, memory_peak })
}

/// A command with nothing to read and nobody who reads what it prints.
pub(crate) fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_be_called_anything() {
        let stat = "77 (a) b (c)) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 5 0 0";
        let found = usage(stat, "Name:\tx\nVmHWM:\t 4096 kB\nVmRSS:\t 2048 kB\n").expect("a process");
        assert_eq!((found.cpu, found.memory, found.memory_peak), (2.0, 2.0, 4.0));
    }
}
