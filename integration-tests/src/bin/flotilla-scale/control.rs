//! The run's side of the processes that are full of machines.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep};

use crate::{
    Options,
    agents::{Count, Truth, Word},
    process::{Process, Usage, quiet},
    say,
};

/// How long it may take until every machine has registered.
const REGISTER_LIMIT: Duration = Duration::from_secs(180);

/// Memory that is a file system: identities and agents' memories of ten thousand machines on one disk would
/// measure that disk.
const MEMORY: &str = "/dev/shm";

/// All the machines.
#[derive(Debug)]
pub(crate) struct Fleet {
    hosts: Vec<Host>,
    folder: PathBuf,
}

#[derive(Debug)]
struct Host {
    process: Process,
    numbers: std::ops::Range<usize>,
    says: ChildStdin,
    hears: BufReader<ChildStdout>,
}

impl Fleet {
    /// Starts them and waits until all have registered.
    pub(crate) async fn start(options: &Options, etcd: &str, logs: &Path) -> Result<Self> {
        let folder = Path::new(MEMORY).join(format!("flotilla-scale-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        let mut fleet = Self { hosts: Vec::new(), folder };
        let mut first = 0;
        while first < options.machines {
            let count = options.per_process.min(options.machines - first);
            fleet.add(options, etcd, logs, first..first + count)?;
            first += count;
            // One process after the other: ten thousand registrations at once, with all their agents on the two
            // processors that etcd has, are not what is measured.
            fleet.registered(first, options.machines).await?;
        }
        Ok(fleet)
    }

    /// Waits until this many have registered.
    async fn registered(&mut self, wanted: usize, of: usize) -> Result<()> {
        let until = Instant::now() + REGISTER_LIMIT;
        loop {
            let count = self.count()?;
            if count.registered == wanted {
                return Ok(());
            }
            ensure!(Instant::now() < until, "only {} of {wanted} registered", count.registered);
            say(format_args!("{} of {of} machines are registered", count.registered));
            sleep(Duration::from_secs(1)).await;
        }
    }

    fn add(
        &mut self,
        options: &Options,
        etcd: &str,
        logs: &Path,
        numbers: std::ops::Range<usize>,
    ) -> Result<()> {
        // Behind etcd and the engines: real machines have processors of their own for their agents.
        let mut command = quiet(Path::new("nice"));
        command
            .args(["-n", "10"])
            .arg(std::env::current_exe()?)
            .arg("agents")
            .args(["--etcd", etcd])
            .arg("--folder")
            .arg(&self.folder);
        command.args(["--first", &numbers.start.to_string(), "--count", &numbers.len().to_string()]);
        command.args(["--per-connection", &options.per_connection.to_string()]);
        command.args(["--start-takes", &options.start_takes.as_millis().to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(&format!("agents-{}", self.hosts.len()), &mut command, logs)?;
        let (says, hears) = process.pipes()?;
        self.hosts.push(Host { process, numbers, says, hears: BufReader::new(hears) });
        Ok(())
    }

    /// Counts those that are up and those that are registered.
    pub(crate) fn count(&mut self) -> Result<Count> {
        let mut sum = Count::default();
        for host in &mut self.hosts {
            host.tell(&Word::Count)?;
            let count: Count = serde_json::from_str(&host.line()?)?;
            sum.up += count.up;
            sum.registered += count.registered;
        }
        Ok(sum)
    }

    /// Asks what is on each machine.
    pub(crate) fn truths(&mut self, mut take: impl FnMut(Truth)) -> Result<()> {
        for host in &mut self.hosts {
            host.tell(&Word::Tell)?;
            loop {
                let line = host.line()?;
                if line.trim().is_empty() {
                    break;
                }
                take(serde_json::from_str(&line)?);
            }
        }
        Ok(())
    }

    /// Takes the power from machines.
    pub(crate) fn crash(&mut self, numbers: &[usize]) -> Result<()> {
        self.tell_those(numbers, Word::Crash)
    }

    /// Boots machines that lost their power.
    pub(crate) fn boot(&mut self, numbers: &[usize]) -> Result<()> {
        self.tell_those(numbers, Word::Boot)
    }

    fn tell_those(&mut self, numbers: &[usize], word: impl Fn(Vec<usize>) -> Word) -> Result<()> {
        for host in &mut self.hosts {
            let here: Vec<usize> = numbers.iter().copied().filter(|n| host.numbers.contains(n)).collect();
            if !here.is_empty() {
                host.tell(&word(here))?;
                host.line()?;
            }
        }
        Ok(())
    }

    /// What all of them have used together.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let mut sum = Usage::default();
        for host in &self.hosts {
            let usage = host.process.usage()?;
            sum.cpu += usage.cpu;
            sum.memory += usage.memory;
            sum.memory_peak += usage.memory_peak;
        }
        Ok(sum)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // They write there until they are gone.
        self.hosts.clear();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Host {
    fn tell(&mut self, word: &Word) -> Result<()> {
        let text = serde_json::to_string(word)?;
        writeln!(self.says, "{text}").with_context(|| format!("telling {}", self.process.name()))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.hears.read_line(&mut line)?;
        ensure!(read > 0, "{} ended; its log says why", self.process.name());
        Ok(line)
    }
}
