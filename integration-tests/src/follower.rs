//! A command on a machine that goes on, whose output is read while it runs.

use std::{
    io::{Read, Write},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use flotilla_lab::{Machine, eventually};

use crate::LIMIT;

/// A command that goes on. It ends with its owner.
pub struct Follower {
    child: Child,
    output: Receiver<Vec<u8>>,
    /// What it has printed and nobody has taken.
    printed: Vec<u8>,
}

impl Follower {
    /// Starts a command on a machine, with nothing to read.
    ///
    /// # Errors
    /// That it could not be started.
    pub fn start(machine: &Machine, words: &[&str]) -> Result<Self> {
        Self::start_with(machine, words, Stdio::null())
    }

    /// Starts a command on a machine that is [typed](Self::write) to.
    ///
    /// # Errors
    /// That it could not be started.
    pub fn start_with_input(machine: &Machine, words: &[&str]) -> Result<Self> {
        Self::start_with(machine, words, Stdio::piped())
    }

    fn start_with(machine: &Machine, words: &[&str], input: Stdio) -> Result<Self> {
        let mut child = machine.command(words)?.stdin(input).stdout(Stdio::piped()).spawn()?;
        let mut stdout = child.stdout.take().context("its output is a pipe")?;
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut chunk = vec![0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut chunk)
                && sender.send(chunk[..count].to_vec()).is_ok()
            {}
        });
        Ok(Self { child, output, printed: Vec::new() })
    }

    /// Writes to its input.
    ///
    /// # Errors
    /// That it has none, or reads it no more.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.child.stdin.as_mut().context("it was started without input")?.write_all(bytes)?;
        Ok(())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.printed).into_owned()
    }

    /// Waits until it has printed this.
    ///
    /// # Errors
    /// That it has not within [`LIMIT`], or has ended before; what it has printed instead.
    pub fn until(&mut self, part: &str) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while !self.text().contains(part) {
            let Ok(more) = self.output.recv_timeout(end.saturating_duration_since(Instant::now())) else {
                bail!("no {part:?} was printed, but: {}", self.text());
            };
            self.printed.extend(more);
        }
        Ok(())
    }

    /// Takes the next line that it prints, with its end.
    ///
    /// # Errors
    /// As [`until`](Self::until).
    pub fn line(&mut self) -> Result<String> {
        self.until("\n")?;
        let end = self.printed.iter().position(|byte| *byte == b'\n').context("a line ends")?;
        Ok(String::from_utf8(self.printed.drain(..=end).collect())?)
    }

    /// Tells whether it has not ended.
    ///
    /// # Errors
    /// That it could not be asked for.
    pub fn goes_on(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end; returns how it ended and what it printed that nobody has taken.
    ///
    /// # Errors
    /// That it has not ended within [`LIMIT`].
    pub fn end(mut self) -> Result<(Option<i32>, String)> {
        let status = eventually(LIMIT, "the command's end", || Ok(self.child.try_wait()?))?;
        while let Ok(more) = self.output.recv_timeout(LIMIT) {
            self.printed.extend(more);
        }
        Ok((status.code(), self.text()))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
