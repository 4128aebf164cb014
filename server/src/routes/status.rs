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
use flotilla_engine::{PlacementRow, UnitRow, state::Life};
use flotilla_units::UnitName;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::{machines::StatusQuery, units::find};
use crate::{error::ApiError, forward, identity::User, journal, node::Node};

/// The most machines asked for one status; a global unit on more is looked at machine by machine.
const MACHINES_MAX: usize = 100;

/// The most journal lines that come with a status.
const LINES_MAX: u32 = 1_000;

/// How long systemd may take to say how a unit is. It takes a millisecond; two seconds are a machine in
/// trouble, and with the journal's last lines still leave time to say so before another machine that
/// asks gives up.
const SYSTEMD_TIMEOUT: Duration = Duration::from_secs(2);

/// How long another machine may take to say how a unit is. A connection to one that died a moment ago
/// says nothing at all; a client gives the whole request 15 s, and it may be forwarded in between.
const MACHINE_TIMEOUT: Duration = Duration::from_secs(5);

/// What is said of a machine whose lease has ended.
const MACHINE_LOST: &str = "machine lost";

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
    let ask = asked.map(|placement| of_a_machine(&node, &user, &row, placement, query.lines));
    let mut statuses = Vec::new();
    let mut refusal = None;
    for (answer, placement) in join_all(ask).await.into_iter().zip(&row.placements) {
        match answer {
            Ok(status) => statuses.push(status),
            // One machine that does not answer hides none of the others.
            Err(e) => {
                // Its own word of what is wrong says more than that it does not answer.
                let told = placement.report.as_ref().and_then(|report| report.problem.as_ref());
                statuses.push(unknown(placement, &row, told.unwrap_or(&e.0.message)));
                refusal = Some(e);
            }
        }
    }
    let more = row.placements.len().saturating_sub(MACHINES_MAX);
    if more > 0 {
        let unit = &row.name;
        let why = format!(
            "{unit} is on {more} more machines, which were not asked: `flotctl status {unit}@MACHINE` asks one, and \
             `flotctl list-units -o wide {unit}` shows all"
        );
        let (host, active) = (format!("{more} more"), "unknown".to_owned());
        statuses.push(UnitStatus {
            unit: unit.to_string(),
            host,
            active,
            problem: Some(why),
            ..UnitStatus::default()
        });
    }
    match refusal {
        Some(e) if statuses.len() == 1 && e.0.kind != ErrorKind::Unavailable => Err(e),
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
    row: &UnitRow,
    placement: &PlacementRow,
    lines: u32,
) -> Result<UnitStatus, ApiError> {
    let unit = &row.name;
    let mut status = if placement.machine == node.machine {
        of_this_machine(node, unit, lines).await?
    } else if placement.life == Life::Lost {
        // Where it answered last, as a rule nobody is.
        return Ok(unknown(placement, row, MACHINE_LOST));
    } else {
        let client = forward::to_machine(node, placement.machine, user).await?;
        let machine = placement.machine.to_string();
        let asked = timeout(MACHINE_TIMEOUT, client.machine_status(&machine, unit.as_str(), lines)).await;
        asked.map_err(|_| {
            let (host, limit) = (placement.host.as_ref().unwrap_or(&machine), MACHINE_TIMEOUT.as_secs());
            ApiError::unavailable(format!("{host} does not answer within {limit} s"))
        })??
    };
    status.problem = placement.report.as_ref().and_then(|report| report.problem.clone());
    if status.problem.is_none() && status.active == "active" && row.hash != Some(placement.hash) {
        status.problem.clone_from(&row.waits);
    }
    Ok(status)
}

fn unknown(placement: &PlacementRow, row: &UnitRow, why: &str) -> UnitStatus {
    UnitStatus {
        unit: row.name.to_string(),
        description: row.description.clone().unwrap_or_default(),
        host: placement.host.clone().unwrap_or_default(),
        machine: placement.machine.to_string(),
        active: "unknown".to_owned(),
        problem: Some(why.to_owned()),
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
