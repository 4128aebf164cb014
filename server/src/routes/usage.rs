//! What units take of this machine, for as long as somebody watches.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::{Path, Query, Request, State},
    response::Response,
};
use flotilla_agent::usage as source;
use flotilla_api::{
    error::ErrorBody,
    usage::{INTERVAL_MAX, INTERVAL_MIN, INTERVAL_USUAL, UnitUsage, Usage, UsageQuery},
};
use flotilla_units::MachineId;
use tokio::time::{MissedTickBehavior, interval};

use crate::{error::ApiError, forward, identity::User, node::Node, session, stream};

/// How many watch a machine at once. Thirty-two: each reads for itself, and this many that read every second
/// are some hundredths of a processor.
const WATCHERS_MAX: usize = 32;

/// How many watch now.
static WATCHERS: AtomicUsize = AtomicUsize::new(0);

/// Streams what units take of one machine as server-sent events, read only while the stream is.
#[utoipa::path(get, path = "/v1/machines/{id}/usage", params(("id" = String, Path), UsageQuery), responses(
    (status = OK, body = Usage, content_type = "text/event-stream"),
    (status = BAD_REQUEST, body = ErrorBody),
    (status = NOT_FOUND, body = ErrorBody),
    (status = SERVICE_UNAVAILABLE, body = ErrorBody, description = "its machine or the store does not answer"),
))]
pub(super) async fn machine_usage(
    State(node): State<Arc<Node>>,
    user: User,
    Path(id): Path<String>,
    Query(query): Query<UsageQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let id: MachineId = id.parse().map_err(|e| ApiError::bad_request(format!("{e}")))?;
    let seconds = query.interval.unwrap_or(INTERVAL_USUAL);
    if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&seconds) {
        let message = format!("the interval is {INTERVAL_MIN} to {INTERVAL_MAX} seconds, not {seconds}");
        return Err(ApiError::bad_request(message));
    }
    if id != node.machine {
        return forward::request_to_machine(&node, id, &user, request).await;
    }
    let source = node.usage.clone().ok_or_else(|| session::no_agent(&node))?;
    let watching = Watching::begin(&node)?;
    Ok(stream::answer(|feed| async move {
        let _watching = watching;
        let mut tick = interval(Duration::from_secs(seconds.into()));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match source.usage().await {
                Ok(usage) => feed.say(None, &write(&node, usage)).await?,
                Err(error) => {
                    feed.fail(&ApiError::from(error).0).await;
                    return Ok(());
                }
            }
        }
    }))
}

/// One who watches.
struct Watching;

impl Watching {
    fn begin(node: &Node) -> Result<Self, ApiError> {
        let place = |now: usize| (now < WATCHERS_MAX).then_some(now + 1);
        match WATCHERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, place) {
            Ok(_) => Ok(Self),
            Err(_) => Err(ApiError::unavailable(format!(
                "{WATCHERS_MAX} watch {} already; end one of them",
                node.host
            ))),
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        WATCHERS.fetch_sub(1, Ordering::Relaxed);
    }
}

fn write(node: &Node, usage: source::Usage) -> Usage {
    let source::Usage { clock_ns, machine, units } = usage;
    let unit = |unit: source::UnitUsage| UnitUsage {
        unit: unit.unit,
        cpu_ns: unit.cpu_ns,
        memory_bytes: unit.memory_bytes,
        tasks: unit.tasks,
        read_bytes: unit.read_bytes,
        written_bytes: unit.written_bytes,
    };
    Usage {
        machine: node.machine,
        host: node.host.clone(),
        clock_ns,
        cpus: machine.cpus,
        cpu_ns: machine.cpu_ns,
        memory_used_bytes: machine.memory_used_bytes,
        memory_bytes: machine.memory_bytes,
        load: machine.load,
        units: units.into_iter().map(unit).collect(),
    }
}
