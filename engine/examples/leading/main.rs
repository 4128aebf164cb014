//! What a leader costs: a real engine over a store in memory, with machines that are only said to be there and
//! report at once what they are told to run. For measuring processor time and memory of the engine alone:
//!
//!     cargo build --release -p flotilla-engine --example leading
//!     target/release/examples/leading fill --machines 1000 --units 100000
//!     target/release/examples/leading full --machines 10000 --units 1000000
//!
//! `fill` starts from machines that have nothing, and ends when all units are reported active. `full` starts an engine
//! where everything runs already, as when a standby takes its seat and then the lead. The engine has a thread of its
//! own, whose processor time is told; what it does in the store (a copy of what it writes) is in it, gRPC is not.
//! Memory is what is allocated, not what the system has given.

#![allow(clippy::expect_used, reason = "what is made here is known to be right")]
#![allow(clippy::disallowed_methods, reason = "the main thread has no runtime to block while it waits")]

mod count;
mod fleet;

use std::{
    error::Error,
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use flotilla_engine::{EngineConfig, StateReader};
use flotilla_registry::{
    keys::Keys,
    store::{Store, embedded::EmbeddedStore},
    timing::Timing,
    witness::SharedWitness,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::fleet::Fleet;

#[global_allocator]
static ALLOCATOR: count::Counting = count::Counting;

/// How often it is looked whether all is done.
const LOOK: Duration = Duration::from_millis(5);

struct Options {
    full: bool,
    machines: u64,
    units: u64,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let full = match args.next().as_deref() {
        Some("fill") => false,
        Some("full") => true,
        _ => return Err("expected `fill` or `full`".into()),
    };
    let mut options = Options { full, machines: 1_000, units: 100_000 };
    while let Some(arg) = args.next() {
        let number = args.next().ok_or("expected a number")?.parse()?;
        match arg.as_str() {
            "--machines" => options.machines = number,
            "--units" => options.units = number,
            _ => return Err(format!("`{arg}` is not known").into()),
        }
    }
    Ok(options)
}

/// Processor time of the thread of a name.
fn cpu(name: &str) -> Duration {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let read = |path: &std::path::Path, file| fs::read_to_string(path.join(file)).unwrap_or_default();
    let mut of_name = tasks.filter(|task| read(&task.path(), "comm").trim() == name);
    let schedstat = of_name.next().map(|task| read(&task.path(), "schedstat")).unwrap_or_default();
    let nanoseconds = schedstat.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// Resident memory, in MiB.
fn resident(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Waits until something is so.
fn until(what: impl Fn() -> bool) {
    while !what() {
        thread::sleep(LOOK);
    }
}

/// Starts the engine on a thread of its own; returns its reader once it has a picture.
fn engine(store: Arc<dyn Store>, stop: CancellationToken) -> Result<StateReader, Box<dyn Error>> {
    let (tell, reader) = oneshot::channel();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let config = EngineConfig {
                store,
                keys: Keys::default(),
                machine: fleet::id(0),
                boot_id: String::new(),
                api: None,
                timing: Timing::default(),
                witness: SharedWitness::default(),
            };
            let engine = flotilla_engine::run(config, stop);
            let mut readers = engine.readers();
            if let Ok(reader) = readers.wait_for(Option::is_some).await
                && let Some(reader) = reader.clone()
            {
                let _ = tell.send(reader);
            }
            let _ = engine.ended().await;
        });
    };
    thread::Builder::new().name("engine".to_owned()).spawn(run)?;
    Ok(reader.blocking_recv()?)
}

fn active(reader: &StateReader) -> usize {
    reader.tally().counts().find(|(state, _)| *state == "active").map_or(0, |(_, count)| count)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let embedded = Arc::new(EmbeddedStore::in_memory());
    let store: Arc<dyn Store> = Arc::clone(&embedded) as _;
    let fleet = Fleet { store: Arc::clone(&store), machines: options.machines, units: options.units };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(fleet.register(options.full))?;
    let (stop, before, begun) = (CancellationToken::new(), count::live(), Instant::now());
    let of_store = resident("VmRSS:");
    let reader = engine(Arc::clone(&store), stop.clone())?;
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let live = || mib(count::live().saturating_sub(before));
    println!(
        "seated after {:.2} s, processor {:.2} s, {:.0} MiB live, {:.0} MiB at most, {} MiB resident more",
        begun.elapsed().as_secs_f64(),
        cpu("engine").as_secs_f64(),
        live(),
        mib(count::most().saturating_sub(before)),
        resident("VmRSS:").saturating_sub(of_store),
    );
    until(|| reader.leads());
    println!(
        "leads after {:.2} s, processor {:.2} s",
        begun.elapsed().as_secs_f64(),
        cpu("engine").as_secs_f64()
    );
    if !options.full {
        let (begun, at_first) = (Instant::now(), cpu("engine"));
        runtime.block_on(fleet.order(options.machines, options.units))?;
        until(|| active(&reader) as u64 == options.units);
        let took = cpu("engine").saturating_sub(at_first);
        println!(
            "all active after {:.2} s, processor {:.2} s: {:.1} us a unit",
            begun.elapsed().as_secs_f64(),
            took.as_secs_f64(),
            took.as_secs_f64() * 1e6 / options.units as f64,
        );
    }
    thread::sleep(Duration::from_secs(2));
    println!(
        "at rest: {:.0} MiB live, store included if it was filled; {:.0} MiB at most, {} MiB resident more; leads: {}",
        live(),
        mib(count::most().saturating_sub(before)),
        resident("VmRSS:").saturating_sub(of_store),
        reader.leads(),
    );
    stop.cancel();
    Ok(())
}
