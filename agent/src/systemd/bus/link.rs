//! The two connections to the bus: one for signals, one for calls.
//!
//! One task owns the signals. It reads them as they come, forwards what they say and never calls
//! anything: a stream that is not read stops every reply on its connection too. The task that
//! looks after the connections makes them anew when the bus goes, and subscribes again when
//! another PID 1 takes systemd's name; after either, everything has to be read again.
//!
//! ```text
//! connecting ──▶ live ──(a connection ends, or a call finds it dead)──▶ waiting ──▶ connecting
//!                 │ ▲
//!                 └─┘ systemd's name has a new owner: subscribe, tell everything
//! ```

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use flotilla_units::UnitName;
use futures_util::StreamExt as _;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use zbus::{
    Connection, Message, MessageStream, connection::Builder, proxy::CacheProperties, wire::OwnedObjectPath,
};

use super::{
    METHOD_TIMEOUT,
    jobs::Jobs,
    proxy::{BusProxy, ManagerProxy, SYSTEMD},
    told::Told,
};
use crate::systemd::{Layout, Outbox, SystemdError, UnitState, escape};

/// How long to wait before the first new attempt after the bus went: dbus restarts in some 100 ms.
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);

/// The longest wait between attempts: a machine without its bus can do nothing else.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);

/// Signals queued by the connection before it stops reading, a number of messages. A start is 18
/// signals, so this is some 220 starts at once while the reader is off the processor.
const QUEUED: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// What is listened to. systemd sends a unit's changes once for each interface, always all of
/// them: what all units have is enough to know that something changed, and of services, which are
/// started by the hundred, both are enough to know what ([`told`](super::told)).
const MATCHES: [&str; 4] = [
    "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.DBus.Properties',\
     member='PropertiesChanged',path_namespace='/org/freedesktop/systemd1/unit',\
     arg0='org.freedesktop.systemd1.Unit'",
    "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.DBus.Properties',\
     member='PropertiesChanged',path_namespace='/org/freedesktop/systemd1/unit',\
     arg0='org.freedesktop.systemd1.Service'",
    "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',\
     member='JobRemoved',path='/org/freedesktop/systemd1'",
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',\
     member='NameOwnerChanged',arg0='org.freedesktop.systemd1'",
];

/// What both tasks and the callers share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) jobs: Jobs,
    pub(super) outbox: Outbox,
    /// The units that flotilla has here, by object path: signals of all others are dropped before
    /// they are decoded.
    ours: RwLock<HashMap<String, Ours>>,
    /// A call found its connection dead.
    pub(super) broken: Notify,
    /// systemd's name has a new owner.
    new_owner: Notify,
}

/// One unit that flotilla has here.
#[derive(Debug)]
struct Ours {
    unit: UnitName,
    told: Told,
    /// Counts what was told of it.
    changes: u64,
}

/// The connections, and the task that looks after them.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) live: watch::Receiver<Option<ManagerProxy<'static>>>,
    /// Ends the task with the link.
    _task: JoinSet<()>,
}

struct Connected {
    /// Kept for as long as it is subscribed.
    signals: Connection,
    manager: ManagerProxy<'static>,
    forward: JoinSet<()>,
}

impl Shared {
    pub(super) fn add(&self, unit: &UnitName) {
        let path = escape::object_path(unit.as_str());
        let mut ours = self.ours.write().unwrap_or_else(PoisonError::into_inner);
        ours.entry(path).or_insert_with(|| Ours { unit: unit.clone(), told: Told::default(), changes: 0 });
    }

    /// Returns a number that is another one after each change of a unit.
    pub(super) fn changes_of(&self, unit: &UnitName) -> u64 {
        self.change(unit, |ours| ours.changes).unwrap_or_default()
    }

    /// Returns the state of a service that runs, as systemd told it last.
    pub(super) fn running(&self, unit: &UnitName, layout: &Layout) -> Option<UnitState> {
        self.change(unit, |ours| ours.told.running(layout))?
    }

    /// Forgets what systemd told of a unit, so that it is asked before it is believed.
    pub(super) fn doubt(&self, unit: &UnitName) {
        self.change(unit, Ours::doubt);
    }

    /// Forgets all that systemd told, and has everything read anew.
    fn doubt_everything(&self) {
        let mut ours = self.ours.write().unwrap_or_else(PoisonError::into_inner);
        ours.values_mut().for_each(Ours::doubt);
        drop(ours);
        self.outbox.everything();
    }

    pub(super) fn forget(&self, unit: &UnitName) {
        let path = escape::object_path(unit.as_str());
        self.ours.write().unwrap_or_else(PoisonError::into_inner).remove(&path);
    }

    fn change<T>(&self, unit: &UnitName, change: impl FnOnce(&mut Ours) -> T) -> Option<T> {
        let path = escape::object_path(unit.as_str());
        self.ours.write().unwrap_or_else(PoisonError::into_inner).get_mut(&path).map(change)
    }

    /// Takes a `PropertiesChanged`.
    fn hear(&self, path: &str, signal: &Message) {
        // Most are of units that are none of flotilla's.
        if !self.ours.read().unwrap_or_else(PoisonError::into_inner).contains_key(path) {
            return;
        }
        let mut ours = self.ours.write().unwrap_or_else(PoisonError::into_inner);
        let complete = ours.get_mut(path).and_then(|ours| {
            ours.changes += 1;
            ours.told.hear(signal).then(|| ours.unit.clone())
        });
        drop(ours);
        if let Some(unit) = complete {
            self.outbox.unit(&unit);
        }
    }
}

impl Ours {
    fn doubt(&mut self) {
        self.told.forget();
        self.changes += 1;
    }
}

impl Link {
    /// Connects, and keeps connecting.
    pub(super) async fn open(address: String, shared: Arc<Shared>) -> Result<Self, SystemdError> {
        let connected = connect(&address, &shared).await.map_err(|e| no_bus(&address, &e))?;
        let (sender, live) = watch::channel(None);
        let mut task = JoinSet::new();
        task.spawn(look_after(address, shared, connected, sender));
        Ok(Self { live, _task: task })
    }
}

pub(super) fn no_bus(address: &str, why: &zbus::Error) -> SystemdError {
    SystemdError::NoBus { address: address.to_owned(), why: why.to_string() }
}

async fn look_after(
    address: String,
    shared: Arc<Shared>,
    first: Connected,
    live: watch::Sender<Option<ManagerProxy<'static>>>,
) {
    let mut connected = Some(first);
    let mut back_off = FIRST_BACK_OFF;
    loop {
        if let Some(connection) = connected.take() {
            back_off = FIRST_BACK_OFF;
            live.send_replace(Some(connection.manager.clone()));
            attend(connection, &shared).await;
            live.send_replace(None);
            shared.jobs.signals_were_lost();
            tracing::warn!(%address, "the bus is gone: no unit can be started or stopped here until it is back; is dbus.service running?");
        }
        sleep(back_off).await;
        back_off = (back_off * 2).min(LONGEST_BACK_OFF);
        match connect(&address, &shared).await {
            Ok(connection) => {
                connected = Some(connection);
                tracing::info!(%address, "the bus is back");
                shared.doubt_everything();
            }
            Err(why) => tracing::debug!(%address, %why, "the bus cannot be reached"),
        }
        if live.is_closed() {
            return;
        }
    }
}

/// Returns when the connections are of no use any more.
async fn attend(mut connected: Connected, shared: &Shared) {
    loop {
        tokio::select! {
            _ = connected.forward.join_next() => return,
            () = shared.broken.notified() => {
                if connected.manager.inner().connection().is_closed() || connected.signals.is_closed() {
                    return;
                }
            }
            () = shared.new_owner.notified() => {
                // The list of subscribers goes with a PID 1 that crashed; one that was executed
                // anew may still have it, and then refuses, which is as good.
                // Without a subscription no signal would ever come: all is begun anew.
                let late = zbus::Error::Failure(format!("no answer within {} s", METHOD_TIMEOUT.as_secs()));
                let subscribed = timeout(METHOD_TIMEOUT, subscribe(&connected.signals)).await;
                if let Err(why) = subscribed.unwrap_or(Err(late)) {
                    tracing::warn!(%why, "another systemd answers on the bus and tells nothing");
                    return;
                }
                tracing::info!("systemd was executed anew; reading all units again");
                shared.jobs.signals_were_lost();
                shared.doubt_everything();
            }
        }
    }
}

async fn connect(address: &str, shared: &Arc<Shared>) -> zbus::Result<Connected> {
    let build = async {
        let signals =
            Builder::address(address).method_timeout(METHOD_TIMEOUT).max_queued(QUEUED).build().await?;
        let mut forward = JoinSet::new();
        // Reads from now on, so that the calls below get their replies.
        forward.spawn(forward_signals(MessageStream::from(&signals), shared.clone()));
        let bus = BusProxy::builder(&signals).cache_properties(CacheProperties::No).build().await?;
        for rule in MATCHES {
            bus.add_match(rule).await?;
        }
        subscribe(&signals).await?;
        // Whoever calls counts the time; a call that is given up counts on the bus until its reply.
        let calls = Builder::address(address).build().await?;
        let manager = manager(&calls).await?;
        Ok(Connected { signals, manager, forward })
    };
    let late = |_| zbus::Error::Failure(format!("no answer within {} s", METHOD_TIMEOUT.as_secs()));
    timeout(METHOD_TIMEOUT, build).await.map_err(late)?
}

async fn manager(connection: &Connection) -> zbus::Result<ManagerProxy<'static>> {
    ManagerProxy::builder(connection).cache_properties(CacheProperties::No).build().await
}

async fn subscribe(signals: &Connection) -> zbus::Result<()> {
    match manager(signals).await?.subscribe().await {
        Err(zbus::Error::MethodError(name, ..)) if name.as_str() == ALREADY_SUBSCRIBED => Ok(()),
        other => other,
    }
}

const ALREADY_SUBSCRIBED: &str = "org.freedesktop.systemd1.AlreadySubscribed";

/// Reads signals until the connection ends.
async fn forward_signals(mut messages: MessageStream, shared: Arc<Shared>) {
    while let Some(message) = messages.next().await {
        match message {
            Ok(message) => forward_signal(&message, &shared),
            Err(why) => {
                tracing::warn!(%why, "a message from the bus cannot be read");
                shared.doubt_everything();
            }
        }
    }
}

fn forward_signal(message: &Message, shared: &Shared) {
    let header = message.header();
    let (Some(path), Some(member)) = (header.path(), header.member()) else { return };
    match member.as_str() {
        "PropertiesChanged" => shared.hear(path.as_str(), message),
        "JobRemoved" => {
            if let Ok((_id, job, _unit, result)) =
                message.body().deserialize::<(u32, OwnedObjectPath, String, String)>()
            {
                shared.jobs.ended(job.to_string(), result.as_str().into());
            }
        }
        "NameOwnerChanged" => {
            if let Ok((name, _old, new)) = message.body().deserialize::<(String, String, String)>()
                && name == SYSTEMD
                && !new.is_empty()
            {
                shared.new_owner.notify_one();
            }
        }
        _ => {}
    }
}
