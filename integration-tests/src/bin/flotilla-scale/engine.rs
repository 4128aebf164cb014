//! flotillad in the role of the engine, with its API on a unix socket.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

use crate::{
    http::{get_from_socket, metric},
    process::{Process, Usage, quiet},
    workload,
};

/// How long one may take to answer, a full cluster to be read first.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A running engine.
#[derive(Debug)]
pub(crate) struct Engine {
    number: usize,
    process: Process,
    socket: PathBuf,
}

/// What its seat shows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct View {
    /// Whether it leads.
    pub(crate) leads: bool,
    /// Units that are reported active.
    pub(crate) active: usize,
}

impl Engine {
    /// Starts the engine of this number and waits until it has a seat.
    pub(crate) async fn start(number: usize, programs: &Path, etcd: &str, folder: &Path) -> Result<Self> {
        let mut engine = Self::spawn(number, programs, etcd, folder)?;
        let until = Instant::now() + START_LIMIT;
        loop {
            engine.process.check()?;
            match engine.view() {
                Ok(Some(_)) => return Ok(engine),
                Ok(None) => {}
                Err(error) if Instant::now() > until => {
                    return Err(error).context("the engine does not answer");
                }
                Err(_) => {}
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts the engine of this number, again if there was one.
    pub(crate) fn spawn(number: usize, programs: &Path, etcd: &str, folder: &Path) -> Result<Self> {
        let socket = folder.join(format!("engine-{number}.sock"));
        let config = folder.join(format!("engine-{number}.toml"));
        // Not one of the machines: it only decides.
        let id = workload::machine_id(usize::MAX - number)?;
        fs::write(
            &config,
            format!(
                "machine-id = \"{id}\"\nname = \"engine-{number}\"\nroles = [\"engine\"]\n\n[api]\n\
                 socket = \"{}\"\n\n[store.etcd]\nendpoints = [\"{etcd}\"]\n",
                socket.display()
            ),
        )?;
        let mut command = quiet(&programs.join("flotillad"));
        command.arg("--config").arg(&config).env("FLOTILLA_LOG", "warn");
        let process = Process::start(&format!("engine-{number}"), &mut command, folder)?;
        Ok(Self { number, process, socket })
    }

    pub(crate) const fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        self.process.usage()
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Returns what its seat shows; `None` while it has none.
    pub(crate) fn view(&self) -> Result<Option<View>> {
        let text = get_from_socket(&self.socket, "/metrics")?;
        let read =
            |name: &str| metric(&text, name).with_context(|| format!("the engine does not tell {name}"));
        if read("flotilla_engine_seat")? < 1.0 {
            return Ok(None);
        }
        Ok(Some(View {
            leads: read("flotilla_engine_leader")? > 0.0,
            active: read("flotilla_cluster_units{active=\"active\"}")? as usize,
        }))
    }
}
