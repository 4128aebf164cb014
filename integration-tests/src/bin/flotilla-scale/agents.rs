//! A process full of machines: flotilla's own agents, each over a systemd in memory.
//!
//! Owns the child process of a run. It is told what to do on its standard input, a JSON value a line
//! ([`Word`]), and answers each on its standard output; it ends when its input does.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufWriter, Write as _},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use flotilla_agent::{
    Agent, Outlook, Registration, Settings,
    systemd::fake::{Behaviour, FakeSystemd},
};
use flotilla_registry::{
    keys::Keys,
    records::Token,
    store::{
        Store,
        etcd::{EtcdConfig, EtcdStore},
    },
    timing::{MACHINE_LEASE_LARGE, Timing},
};
use flotilla_units::{ContentHash, MachineId, UnitName};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{process::end_with_parent, workload};

/// How many agents are registering at a time, and how often it is looked how many are: as many as etcd takes, so
/// that the registrations are not what is measured. All at once, on the two processors that etcd has too, keep each
/// other from it.
const REGISTERING_MAX: usize = 50;
const STAGGER: Duration = Duration::from_millis(2);

/// How long after its end an agent is started again, as systemd does it (`RestartSec=` of flotillad.service).
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Machines, for a run of which this is a part.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    etcd: String,
    /// The first one's number
    #[arg(long)]
    first: usize,
    #[arg(long)]
    count: usize,
    /// How many share a connection to etcd
    #[arg(long)]
    per_connection: usize,
    /// Where their identities and memories are
    #[arg(long)]
    folder: PathBuf,
    #[arg(long, value_parser = crate::milliseconds)]
    start_takes: Duration,
}

/// What the run tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Word {
    /// Say how many machines are registered.
    Count,
    /// Say what is on each machine: [`Truth`] a line, then an empty one.
    Tell,
    /// These lose their power.
    Crash(Vec<usize>),
    /// These boot.
    Boot(Vec<usize>),
}

/// How many machines there are, and how many of them take part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) up: usize,
    pub(crate) registered: usize,
}

/// What is on a machine, whatever anybody believes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Truth {
    pub(crate) machine: MachineId,
    /// What runs.
    pub(crate) runs: Vec<Runs>,
    /// How many starts there were, in all boots.
    pub(crate) starts: usize,
}

/// A unit that has processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Runs {
    pub(crate) unit: UnitName,
    /// Under which token it was started, and from which text; nothing if nobody wrote that down.
    pub(crate) token: Option<Token>,
    pub(crate) hash: Option<ContentHash>,
}

/// A machine: what stays when its agent, or its boot, ends.
struct Machine {
    number: usize,
    id: MachineId,
    systemd: FakeSystemd,
    store: Arc<dyn Store>,
    boot: u32,
    running: Option<Running>,
}

struct Running {
    /// The present agent's.
    outlook: Arc<Mutex<Outlook>>,
    _task: AbortOnDropHandle<()>,
}

/// Runs machines until the run ends.
pub(crate) fn run(options: &Options) -> Result<()> {
    end_with_parent()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: &Options) -> Result<()> {
    let mut machines: BTreeMap<usize, Machine> = BTreeMap::new();
    let mut registering = BTreeSet::new();
    let mut store: Option<Arc<dyn Store>> = None;
    for number in options.first..options.first + options.count {
        if (number - options.first).is_multiple_of(options.per_connection.max(1)) {
            let endpoints = vec![options.etcd.clone()];
            store = Some(Arc::new(EtcdStore::connect(EtcdConfig { endpoints, ..EtcdConfig::default() })?));
        }
        let store = store.clone().context("a store is made for the first")?;
        let systemd = FakeSystemd::new(number as u64);
        systemd.behave_by_default(Behaviour { start_takes: options.start_takes, ..Behaviour::default() });
        let id = workload::machine_id(number)?;
        let mut machine = Machine { number, id, systemd, store, boot: 0, running: None };
        machine.start(options);
        machines.insert(number, machine);
        registering.insert(number);
        while registering.len() >= REGISTERING_MAX {
            sleep(STAGGER).await;
            registering.retain(|number| !machines[number].is_registered());
        }
    }
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        answer(&serde_json::from_str(&line)?, &mut machines, options).await?;
    }
    Ok(())
}

async fn answer(word: &Word, machines: &mut BTreeMap<usize, Machine>, options: &Options) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match word {
        Word::Count => {
            let up = machines.values().filter_map(|machine| machine.running.as_ref());
            let (up, registered): (Vec<_>, Vec<_>) = up.map(|running| ((), running.is_registered())).unzip();
            let count = Count {
                up: up.len(),
                registered: registered.into_iter().filter(|registered| *registered).count(),
            };
            serde_json::to_writer(&mut out, &count)?;
        }
        Word::Tell => {
            for machine in machines.values() {
                serde_json::to_writer(&mut out, &machine.truth())?;
                writeln!(out)?;
            }
        }
        Word::Crash(numbers) => {
            for number in numbers {
                let Some(machine) = machines.get_mut(number) else { bail!("there is no machine {number}") };
                machine.running = None;
                machine.systemd.reboot();
                machine.boot += 1;
            }
        }
        Word::Boot(numbers) => {
            for number in numbers {
                let Some(machine) = machines.get_mut(number) else { bail!("there is no machine {number}") };
                machine.start(options);
            }
        }
    }
    writeln!(out)?;
    Ok(out.flush()?)
}

impl Machine {
    fn start(&mut self, options: &Options) {
        let folder = options.folder.join(format!("m{}", self.number));
        // The lease of a large cluster from the first grant on: what those after the first thousand take.
        let timing = Timing { machine_lease: MACHINE_LEASE_LARGE, ..Timing::default() };
        let settings = Settings {
            machine: self.id,
            host: format!("m{}", self.number),
            addresses: Vec::new(),
            api: None,
            metadata: workload::metadata(self.number),
            facts: BTreeMap::new(),
            capacity: workload::capacity(),
            boot_id: format!("boot-{}", self.boot),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            run: folder.join(format!("run-{}", self.boot)),
            state: folder.join("state"),
            timing,
            seed: self.number as u64,
        };
        let systemd = Arc::new(self.systemd.clone());
        let (store, host) = (Arc::clone(&self.store), settings.host.clone());
        let make = move || Agent::new(settings.clone(), Arc::clone(&store), Keys::default(), systemd.clone());
        let mut agent = make();
        let outlook = Arc::new(Mutex::new(agent.outlook()));
        let present = Arc::clone(&outlook);
        let task = tokio::spawn(async move {
            loop {
                // Never told to stop: machines here end by losing their power.
                if let Err(error) = agent.run(CancellationToken::new()).await {
                    eprintln!("{host}: the agent ended: {error}");
                }
                sleep(RESTART_AFTER).await;
                agent = make();
                *present.lock().unwrap_or_else(PoisonError::into_inner) = agent.outlook();
            }
        });
        self.running = Some(Running { outlook, _task: AbortOnDropHandle::new(task) });
    }

    fn is_registered(&self) -> bool {
        self.running.as_ref().is_some_and(Running::is_registered)
    }

    fn truth(&self) -> Truth {
        let there = self.systemd.look().into_iter();
        let there = there.filter(|present| !present.state.at_rest());
        let runs = there.map(|present| {
            let (token, hash) = present.evidence.map(|evidence| (evidence.token, evidence.hash)).unzip();
            Runs { unit: present.unit, token, hash }
        });
        Truth { machine: self.id, runs: runs.collect(), starts: self.systemd.starts().len() }
    }
}

impl Running {
    fn is_registered(&self) -> bool {
        let outlook = self.outlook.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(*outlook.registration.borrow(), Registration::Registered { .. })
    }
}
