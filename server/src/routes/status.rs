//! What `systemctl status` would show, from wherever a unit runs.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, Query, State},
};
use flotilla_agent::status as source;
use flotilla_api::{
    error::{ErrorBody, ErrorKind},
    unit::{Process, UnitStatus},
};
use flotilla_units::UnitName;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::{machines::StatusQuery, units::find};
use crate::{error::ApiError, forward, identity::User, journal, node::Node};

/// The most machines asked for one status; a global unit on more is looked at machine by machine.
const MACHINES_MAX: usize = 100;

/// The most journal lines that come with a status.
const LINES_MAX: u32 = 1_000;

/// How long systemd may take to say how a unit is. It takes a millisecond; ten seconds are a machine in
/// trouble, and still leave time to say so before the client gives up.
const SYSTEMD_TIMEOUT: Duration = Duration::from_secs(10);

/// Shows what `systemctl status` would show of a unit, one for each machine that has it.
#[utoipa::path(get, path = "/v1/units/{name}/status",
    params(("name" = String, Path), StatusQuery),
    responses((status = OK, body = Vec<UnitStatus>), (status = NOT_FOUND, body = ErrorBody)))]
pub(super) async fn unit_status(
    State(node): State<Arc<Node>>,
    user: User,
    Path(name): Path<String>,
    Query(query): Query<StatusQuery>,
) -> Result<Json<Vec<UnitStatus>>, ApiError> {
    let row = find(&node.seat()?, &name)?;
    let asked = row.placements.iter().take(MACHINES_MAX);
    let ask = asked.map(|placement| of_a_machine(&node, &user, &row.name, placement, query.lines));
    let mut statuses = Vec::new();
    let mut refusal = None;
    for (answer, placement) in join_all(ask).await.into_iter().zip(&row.placements) {
        match answer {
            Ok(status) => statuses.push(status),
            // One machine that does not answer hides none of the others.
            Err(e) => {
                statuses.push(unknown(placement, &row.name, &e));
                refusal = Some(e);
            }
        }
    }
    match refusal {
        Some(e) if statuses.len() == 1 => Err(e),
        _ if statuses.is_empty() => {
            Err(ApiError::new(ErrorKind::NotPlaced, format!("{} is on no machine", row.name)))
        }
        _ => Ok(Json(statuses)),
    }
}

/// Asks the machine of one placement.
async fn of_a_machine(
    node: &Arc<Node>,
    user: &User,
    unit: &UnitName,
    placement: &flotilla_engine::PlacementRow,
    lines: u32,
) -> Result<UnitStatus, ApiError> {
    let mut status = if placement.machine == node.machine {
        of_this_machine(node, unit, lines).await?
    } else {
        let client = forward::to_machine(node, placement.machine, user).await?;
        client.machine_status(&placement.machine.to_string(), unit.as_str(), lines).await?
    };
    status.problem = placement.report.as_ref().and_then(|report| report.problem.clone());
    Ok(status)
}

fn unknown(placement: &flotilla_engine::PlacementRow, unit: &UnitName, error: &ApiError) -> UnitStatus {
    UnitStatus {
        unit: unit.to_string(),
        host: placement.host.clone().unwrap_or_default(),
        machine: placement.machine.to_string(),
        active: "unknown".to_owned(),
        problem: Some(error.0.message.clone()),
        ..UnitStatus::default()
    }
}

/// Asks this machine's systemd and journal.
pub(super) async fn of_this_machine(
    node: &Arc<Node>,
    unit: &UnitName,
    lines: u32,
) -> Result<UnitStatus, ApiError> {
    let source = node.status.as_ref().filter(|_| node.known.has(unit)).ok_or_else(|| {
        ApiError::not_found(format!("flotilla has, and had, no unit {unit} on {}", node.host))
    })?;
    let asked = timeout(SYSTEMD_TIMEOUT, source.status(unit)).await;
    let status = asked.map_err(|_| {
        ApiError::unavailable(format!(
            "the systemd of {} does not answer; if `systemctl list-jobs` hangs there too, look at the machine's load \
             and console",
            node.host
        ))
    })??;
    let journal = journal::last_lines(node, unit, lines.min(LINES_MAX)).await;
    Ok(write(node, unit, status, journal))
}

fn write(
    node: &Node,
    unit: &UnitName,
    status: source::UnitStatus,
    journal: Vec<flotilla_api::journal::JournalLine>,
) -> UnitStatus {
    let process = |process: source::Process| Process {
        pid: process.pid,
        command: process.command,
        group: process.group,
    };
    UnitStatus {
        unit: unit.to_string(),
        description: status.description,
        host: node.host.clone(),
        machine: node.machine.to_string(),
        load: status.load,
        fragment: status.path,
        drop_ins: status.drop_ins,
        active: status.active,
        sub: status.sub,
        result: status.result,
        since: status.since,
        invocation: status.invocation,
        status_text: status.status_text,
        main_pid: status.main.as_ref().map(|main| main.pid),
        main_command: status.main.map(|main| main.command),
        exit_status: status.exit.as_ref().map(|exit| exit.status),
        exit_code: status.exit.map(|exit| exit.how),
        tasks: status.tasks,
        memory_bytes: status.memory_bytes,
        cpu_ns: status.cpu_ns,
        restarts: status.restarts,
        control_group: (!status.cgroup.is_empty()).then_some(status.cgroup),
        processes: status.processes.into_iter().map(process).collect(),
        journal,
        problem: None,
    }
}
