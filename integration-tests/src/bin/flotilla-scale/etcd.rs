//! One etcd with its data on disk, with its default limits.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

use crate::{
    http::{get_from_port, metric},
    process::{Process, Usage, quiet},
};

/// How long it may take to serve.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running etcd.
#[derive(Debug)]
pub(crate) struct Etcd {
    process: Process,
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    peer: u16,
}

/// What etcd has done since it started.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Work {
    /// Keys written.
    pub(crate) puts: f64,
    /// Ranges read.
    pub(crate) ranges: f64,
    /// Times that its log was synced to the disk.
    pub(crate) fsyncs: f64,
    /// Bytes of its database.
    pub(crate) size: f64,
    /// Bytes of it that are in use.
    pub(crate) in_use: f64,
}

impl Etcd {
    /// Starts it with its data in a folder.
    pub(crate) async fn start(program: &Path, folder: &Path) -> Result<Self> {
        let (port, peer) = (free_port()?, free_port()?);
        let process = Process::start("etcd", &mut command(program, folder, port, peer), folder)?;
        let (program, folder) = (program.to_owned(), folder.to_owned());
        let mut etcd = Self { process, program, folder, port, peer };
        etcd.serves().await?;
        Ok(etcd)
    }

    /// Kills it and starts it again, on its data and its ports.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        let mut command = command(&self.program, &self.folder, self.port, self.peer);
        self.process = Process::start("etcd", &mut command, &self.folder)?;
        self.serves().await
    }

    async fn serves(&mut self) -> Result<()> {
        let until = Instant::now() + START_LIMIT;
        while let Err(error) = self.work() {
            self.process.check()?;
            if Instant::now() > until {
                return Err(error).context("etcd does not serve");
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        url(self.port)
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        self.process.usage()
    }

    /// Reads its own account of itself.
    pub(crate) fn work(&self) -> Result<Work> {
        let text = get_from_port(self.port, "/metrics")?;
        let read = |name: &str| metric(&text, name).with_context(|| format!("etcd does not tell {name}"));
        Ok(Work {
            // 3.5 calls them so; 3.4 counted the same under another name.
            puts: read("etcd_mvcc_put_total").or_else(|_| read("etcd_debugging_mvcc_put_total"))?,
            ranges: read("etcd_mvcc_range_total").or_else(|_| read("etcd_debugging_mvcc_range_total"))?,
            fsyncs: read("etcd_disk_wal_fsync_duration_seconds_count")?,
            size: read("etcd_mvcc_db_total_size_in_bytes")?,
            in_use: read("etcd_mvcc_db_total_size_in_use_in_bytes")?,
        })
    }

    /// Writes all that it tells of itself into a file beside its log.
    pub(crate) fn keep_metrics(&self, name: &str) -> Result<()> {
        let text = get_from_port(self.port, "/metrics")?;
        Ok(std::fs::write(self.folder.join(format!("etcd-{name}.metrics")), text)?)
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn command(program: &Path, folder: &Path, port: u16, peer: u16) -> std::process::Command {
    let (client, peer) = (url(port), url(peer));
    let mut command = quiet(program);
    command.arg("--name=one").arg(format!("--initial-cluster=one={peer}"));
    command.arg(format!("--data-dir={}", folder.join("etcd").display()));
    command.arg(format!("--listen-client-urls={client}"));
    command.arg(format!("--advertise-client-urls={client}"));
    command.arg(format!("--listen-peer-urls={peer}"));
    command.arg(format!("--initial-advertise-peer-urls={peer}"));
    command.arg("--log-level=error").env("ETCD_UNSUPPORTED_ARCH", "arm64");
    command
}

/// Returns a port that nobody listens on now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
