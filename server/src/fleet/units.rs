//! `/units`: lists, single units, destroys. What `PUT` does is in `put.rs`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use flotilla_engine::{StateReader, UnitRow};
use flotilla_registry::{records::Target, store::Revision};
use flotilla_units::UnitName;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    normal,
    page::ListRequest,
    refusal::Refusal,
    schema::{Unit, UnitOption, UnitPage},
};
use crate::{asked::Asked, identity::User, node::Node};

/// How long an answer waits until a destroyed unit has gone. A service that ends when it is asked to is
/// gone in a tenth of that; `ExecStop=` may take longer than any client waits, and then the answer is that
/// the order stands.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// How long an answer waits for the seat to show the writer's own write. The watch is a millisecond
/// behind; past two seconds the store is in trouble, and the answer is still true.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);

/// Lists units, one page, by name.
pub(super) async fn list(
    State(node): State<Arc<Node>>,
    _user: User,
    request: ListRequest,
) -> Result<Json<UnitPage>, Refusal> {
    let reader = node.seat()?;
    let page = request.page();
    let names = reader.unit_names(page.skip(), page.limit());
    let next_page_token = page.next(names.len());
    // One after the other: the row of a global unit may be large, and of it one machine is told.
    let units = names.iter().filter_map(|name| Some(unit(&reader, &reader.unit(name).0?))).collect();
    Ok(Json(UnitPage { next_page_token, units }))
}

/// Returns one unit.
pub(super) async fn get(
    State(node): State<Arc<Node>>,
    _user: User,
    Path(name): Path<String>,
) -> Result<Json<Unit>, Refusal> {
    let reader = node.seat()?;
    let row = find(&reader, &name)?;
    Ok(Json(unit(&reader, &row)))
}

/// Destroys a unit. The answer comes when it has gone, or when it takes long to stop.
pub(super) async fn destroy(
    State(node): State<Arc<Node>>,
    asked: Asked,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    let by = asked.asker()?;
    let reader = node.seat()?;
    let unit = find(&reader, &name)?.name;
    let written = node.operations.destroy(std::slice::from_ref(&unit), by).await?;
    shown(&reader, written.iter().map(|one| one.revision)).await;
    until_gone(&reader, &unit).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Waits until the seat shows what was written, so that whoever wrote it reads it. Late is not wrong.
pub(super) async fn shown(reader: &StateReader, written: impl Iterator<Item = Revision>) {
    let last = written.max().unwrap_or(Revision(0));
    let _in_time = timeout(SHOWN_WITHIN, reader.reached(last)).await;
}

/// Waits until nothing is known of a unit any more; false if it takes too long.
pub(super) async fn until_gone(reader: &StateReader, unit: &UnitName) -> bool {
    let until = Instant::now() + GONE_WITHIN;
    let mut changed = reader.changed();
    loop {
        changed.borrow_and_update();
        if reader.unit(unit).0.is_none() {
            return true;
        }
        // A seat that is lost will not show it.
        if !matches!(timeout_at(until, changed.changed()).await, Ok(Ok(()))) {
            return false;
        }
    }
}

/// Finds a unit by its whole name: fleet's clients complete names themselves.
pub(super) fn find(reader: &StateReader, name: &str) -> Result<UnitRow, Refusal> {
    let name: UnitName = name.parse().map_err(|_| unknown())?;
    reader.unit(&name).0.ok_or_else(unknown)
}

pub(super) fn unknown() -> Refusal {
    Refusal::not_found("unit does not exist")
}

/// Returns the options of a unit's text, of an instance its template's.
pub(super) fn options(reader: &StateReader, row: &UnitRow) -> Vec<UnitOption> {
    let text = row.hash.and_then(|hash| reader.text(&hash));
    text.map(|text| normal::options(&text)).unwrap_or_default()
}

/// Returns a unit's text in fleet's normal form.
pub(super) fn form(reader: &StateReader, row: &UnitRow) -> Option<String> {
    row.hash.and_then(|hash| reader.text(&hash)).map(|text| normal::form(&text))
}

fn unit(reader: &StateReader, row: &UnitRow) -> Unit {
    // fleet says neither of a global unit, which is on many machines.
    let standing = (!row.global).then(|| row.standing());
    Unit {
        current_state: standing.map(|(state, _)| word(state)),
        desired_state: row.wanted().map(word),
        machine_id: standing.and_then(|(_, machine)| machine).map(|machine| machine.to_string()),
        name: row.name.to_string(),
        options: options(reader, row),
    }
}

/// Returns fleet's word for a target.
const fn word(target: Target) -> &'static str {
    match target {
        Target::Inactive => "inactive",
        Target::Loaded => "loaded",
        Target::Launched => "launched",
    }
}
