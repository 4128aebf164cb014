//! The daemon's life: start the roles, tell systemd, feed its watchdog, stop in order.

use std::time::Duration;

use anyhow::Context as _;
use flotilla_agent::{Outlook, Registration};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
    time::{Instant, Interval, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    config::Config,
    roles::{self, Pulse, Running, Shared},
    tasks::Tasks,
};

/// How long the roles have to end after they were told to. Below the service's `TimeoutStopSec=`.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// How long READY waits for the engine of a machine that is a cluster by itself. It takes some tens of
/// milliseconds, or the 4 s of a lead whose end is awaited; past ten seconds something is wrong, which
/// `/readyz` tells, and the API has to be there to ask it.
const ORDERS_WITHIN: Duration = Duration::from_secs(10);

/// How many times the watchdog is fed within its time: two may be missed.
const FEEDINGS: u32 = 3;

/// Runs the daemon until SIGTERM, SIGINT, or a role's error.
///
/// # Errors
/// A role could not start or ended with an error.
pub(crate) async fn run(config: &Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be listened to")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be listened to")?;
    let hangup = signal(SignalKind::hangup()).context("SIGHUP cannot be listened to")?;
    let mut side = JoinSet::new();
    side.spawn(tell_hangups(hangup));
    let mut opening = std::pin::pin!(Shared::open(config, stop.clone()));
    let shared = loop {
        tokio::select! {
            shared = &mut opening => break shared?,
            _ = terminate.recv() => stop.cancel(),
            _ = interrupt.recv() => stop.cancel(),
        }
    };
    let Some(shared) = shared else { return Ok(()) };
    let mut tasks = Tasks::default();
    let running = roles::start(&shared, &mut tasks).await?;
    side.spawn(tell_systemd(running));

    let result = tokio::select! {
        ended = tasks.next() => ended.unwrap_or_else(|| Err(anyhow::anyhow!("no role is switched on; there is nothing to do"))),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    info!(failed = result.is_err(), "stopping; units run on");
    notify(&[NotifyState::Stopping]);
    stop.cancel();
    let rest = async {
        let mut result = result;
        while let Some(ended) = tasks.next().await {
            if let (Ok(()), Err(_)) = (&result, &ended) {
                result = ended;
            }
        }
        result
    };
    match timeout(STOP_TIMEOUT, rest).await {
        Ok(result) => result,
        Err(_) => {
            warn!(
                running = tasks.running(),
                seconds = STOP_TIMEOUT.as_secs(),
                "not everything ended in time; units run on, and what was not written is read at the next start"
            );
            Ok(())
        }
    }
}

/// Says of each SIGHUP that it does nothing: many daemons read their configuration anew on it, and whoever
/// sends it by habit must not end this one.
async fn tell_hangups(mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        info!(
            "SIGHUP has no effect; to have a changed configuration in force restart flotillad, units run on"
        );
    }
}

/// Tells systemd when the daemon is ready and how it is, and feeds its watchdog with the progress
/// of the roles' loops: a daemon one of whose loops stands still is started anew.
async fn tell_systemd(running: Running) {
    let Running { mut agent, engine, alone } = running;
    // Ready once what runs was read; no unit's start is waited for. In a cluster an engine has nothing to
    // read first: it may wait for its store, or for a seat, as long as that takes, and others take orders.
    if let Some(outlook) = &mut agent
        && outlook.ready.wait_for(|ready| *ready).await.is_err()
    {
        return;
    }
    if let Some(mut alone) = alone
        && timeout(ORDERS_WITHIN, alone.takes_orders()).await.is_err()
    {
        warn!(
            seconds = ORDERS_WITHIN.as_secs(),
            "no order can be taken yet, and nobody else takes any; `flotctl cluster` says what is in the way"
        );
    }
    notify(&[NotifyState::Ready]);
    let watchdog = sd_notify::watchdog_enabled();
    // Without a watchdog nobody is fed, and nobody is asked.
    let mut feeding = watchdog.map(|time| interval(time / FEEDINGS));
    let agents = agent.as_ref();
    let agents = agents.map(|it| Pulse { asked: it.asked.clone(), progress: it.progress.clone() });
    let pulses = [("agent", agents), ("engine", engine)];
    let loops = pulses.into_iter().filter_map(|(name, pulse)| Some(Loop::new(name, pulse?)));
    let mut loops: Vec<Loop> = loops.collect();
    loop {
        tokio::select! {
            () = tick(feeding.as_mut()) => {
                loops.iter_mut().for_each(Loop::look);
                if loops.iter().all(|it| it.moved) {
                    notify(&[NotifyState::Watchdog]);
                    loops.iter_mut().for_each(|it| it.moved = false);
                }
                let late = |it: &&Loop| watchdog.is_some_and(|time| it.last.elapsed() > time / 2);
                loops.iter().for_each(|it| it.pulse.asked.notify_one());
                for it in loops.iter().filter(late) {
                    error!(role = it.role, seconds = it.last.elapsed().as_secs(), "the role's loop stands still; systemd restarts flotillad when it has for WatchdogSec=, and units run on");
                }
            }
            () = changed(agent.as_mut()) => if let Some(outlook) = &agent {
                notify(&[NotifyState::Status(&status(outlook))]);
            },
        }
    }
}

/// Waits for the next tick; for ever where there is no clock.
async fn tick(clock: Option<&mut Interval>) {
    match clock {
        Some(clock) => drop(clock.tick().await),
        None => std::future::pending().await,
    }
}

/// A role's loop, as the watchdog sees it.
struct Loop {
    role: &'static str,
    pulse: Pulse,
    seen: u64,
    /// It went on since the watchdog was fed.
    moved: bool,
    /// When it was last seen to have gone on.
    last: Instant,
}

impl Loop {
    /// A loop has moved when it has begun.
    fn new(role: &'static str, pulse: Pulse) -> Self {
        let seen = *pulse.progress.borrow();
        Self { role, pulse, seen, moved: true, last: Instant::now() }
    }

    fn look(&mut self) {
        let now = *self.pulse.progress.borrow();
        if now != self.seen {
            (self.seen, self.moved, self.last) = (now, true, Instant::now());
        }
    }
}

/// Returns when the agent's outlook has changed: never without an agent, nor after it has ended,
/// which ends the daemon on another way.
async fn changed(outlook: Option<&mut Outlook>) {
    let Some(outlook) = outlook else { return std::future::pending().await };
    let changed = tokio::select! {
        changed = outlook.registration.changed() => changed,
        changed = outlook.frozen.changed() => changed,
    };
    if changed.is_err() {
        std::future::pending().await
    }
}

fn status(outlook: &Outlook) -> String {
    if let Some(why) = &*outlook.frozen.borrow() {
        return format!("FROZEN: {why}");
    }
    match &*outlook.registration.borrow() {
        Registration::Registered { incarnation, .. } => {
            format!("registered ({})", &incarnation[..8.min(incarnation.len())])
        }
        Registration::Pending(why) | Registration::Occupied { why, .. } => format!("not registered: {why}"),
    }
}

/// Tells systemd; outside of it this does nothing.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "systemd cannot be told how flotillad is; with Type=notify it may take it for dead and restart it");
    }
}
