//! Starts units on machines' own systemds, directly over their buses: what the rates are held
//! against.
//!
//! It does what org.freedesktop.systemd1(5) asks of whoever starts units and wants to know how that
//! ended, and nothing else: subscribe, `StartUnit`, wait for `JobRemoved`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use flotilla_lab::Lab;
use futures_util::{StreamExt as _, future::try_join_all};
use tokio::sync::{Semaphore, oneshot};
use zbus::wire::OwnedObjectPath;

/// Jobs outstanding on each machine, as many as flotilla's: systemd is no faster with more.
const OUTSTANDING: usize = 100;

/// The units whose end is awaited, with whoever waits.
type Waiting = Mutex<HashMap<String, oneshot::Sender<String>>>;

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;

    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;

    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
}

/// Starts `plain@1.service` to `plain@UNITS.service`, a third on each of three machines, and returns
/// when all have started. Gives when the first was asked for, in microseconds since 1970.
pub fn start(lab: &Lab, units: usize) -> Result<i64> {
    let machines = lab.machines();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut buses = Vec::new();
        for (index, machine) in machines.iter().enumerate() {
            let names: Vec<String> =
                (index + 1..=units).step_by(machines.len()).map(|n| format!("plain@{n}.service")).collect();
            let bus = zbus::connection::Builder::address(machine.bus_address()?.as_str()).build().await;
            let bus = bus.with_context(|| format!("connecting to the bus of {}", machine.name()))?;
            let manager = ManagerProxy::new(&bus).await?;
            manager.subscribe().await?;
            buses.push((manager, names));
        }
        let begun = jiff::Timestamp::now().as_microsecond();
        try_join_all(buses.into_iter().map(|(manager, names)| all(manager, names))).await?;
        Ok(begun)
    })
}

/// Starts the units of one machine.
async fn all(manager: ManagerProxy<'static>, names: Vec<String>) -> Result<()> {
    let waiting = Arc::new(Waiting::default());
    let mut removed = manager.receive_job_removed().await?;
    let heard = waiting.clone();
    let listener = tokio::spawn(async move {
        while let Some(signal) = removed.next().await {
            let Ok(job) = signal.args() else { continue };
            let waits = heard.lock().unwrap_or_else(PoisonError::into_inner).remove(&job.unit);
            // Whoever waited has failed with another unit.
            let _ = waits.map(|waits| waits.send(job.result.clone()));
        }
    });
    let places = Semaphore::new(OUTSTANDING);
    let done = try_join_all(names.iter().map(|name| one(&manager, &waiting, &places, name))).await;
    listener.abort();
    done.map(drop)
}

async fn one(
    manager: &ManagerProxy<'static>,
    waiting: &Waiting,
    places: &Semaphore,
    name: &str,
) -> Result<()> {
    let _place = places.acquire().await?;
    let (ended, result) = oneshot::channel();
    waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), ended);
    manager.start_unit(name, "replace").await.with_context(|| format!("starting {name}"))?;
    let result = result.await?;
    ensure!(result == "done", "the start of {name} ended in {result}");
    Ok(())
}
