//! What the lab's etcd remembers, read to its end with Debian's own tool.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{Lab, etcd_program, random_id};
use crate::command::command;

/// Seconds that reading may take; what is remembered is told in a fraction of one.
const READ_SECONDS: &str = "60";

/// The key that is written to know where the history ends: nobody's but the lab's.
const END: &str = "flotilla-lab/history-end";

impl Lab {
    /// Every change of every key that etcd remembers, oldest first, as `etcdctl watch` writes them
    /// with `--write-out=fields`.
    ///
    /// # Errors
    ///
    /// Also if not all of it could be read: a part of a history proves nothing.
    pub fn etcd_history(&self) -> Result<String> {
        // A watch has no end of its own. This value is the last of what has happened until now.
        let mark = random_id()?;
        self.etcdctl(&["put", END, &mark])?;
        let program = etcd_program(&self.territory, "etcdctl");
        let mut watch =
            self.asking(command(["timeout".as_ref(), READ_SECONDS.as_ref(), program.as_os_str()]));
        watch.args(["watch", "--prefix", "--rev=1", "--write-out=fields", ""]);
        self.in_network(|| read_to(&mut watch, &format!("\"Value\" : \"{mark}\"")))?
    }
}

/// Reads what a command prints, up to a line.
fn read_to(command: &mut Command, end: &str) -> Result<String> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("starting etcdctl")?;
    let output = child.stdout.take().context("a pipe has two ends")?;
    let mut text = String::new();
    let found = BufReader::new(output).lines().map_while(|line| line.ok()).any(|line| {
        text.push_str(&line);
        text.push('\n');
        line == end
    });
    stop(&mut child)?;
    if !found {
        bail!("etcd's history ended before its last change, after {} lines", text.lines().count());
    }
    Ok(text)
}

/// Ends it with what it has started, for which `timeout` passes the signal on.
fn stop(child: &mut Child) -> Result<()> {
    if child.try_wait()?.is_none() {
        kill_process(Pid::from_child(child), Signal::TERM).context("ending etcdctl")?;
    }
    child.wait().map(|_| ()).context("ending etcdctl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_without_its_end_is_an_error() {
        let mut endless = command(["timeout", "60", "sh", "-c", "echo one; echo two; sleep 60"]);
        assert_eq!(read_to(&mut endless, "two").unwrap(), "one\ntwo\n");
        let mut short = command(["timeout", "60", "sh", "-c", "echo one"]);
        assert!(read_to(&mut short, "two").is_err());
    }
}
