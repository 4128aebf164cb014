//! `/machines`: machines that live, and changes of their metadata.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use flotilla_engine::MachineRow;
use flotilla_registry::operations::{MACHINES_MAX, MachineOrder, MetadataChange};
use flotilla_units::MachineId;
use serde_json::Value;

use super::{
    page::ListRequest,
    refusal::Refusal,
    schema::{Machine, MachinePage, MetadataPatch, as_go_reads},
    units,
};
use crate::{asked::Asked, error::ApiError, identity::User, node::Node};

/// Lists machines, one page, by id. One that was stopped in order is listed as long as it is known to come
/// back: its units run.
pub(super) async fn list(
    State(node): State<Arc<Node>>,
    _user: User,
    request: ListRequest,
) -> Result<Json<MachinePage>, Refusal> {
    let reader = node.seat()?;
    let page = request.page();
    let ids = reader.living_ids(page.skip(), page.limit());
    let next_page_token = page.next(ids.len());
    let machines = ids.into_iter().filter_map(|id| reader.machine(id)).map(machine).collect();
    Ok(Json(MachinePage { machines, next_page_token }))
}

/// Writes a machine. What it found out about itself is not metadata to fleet's clients, which show all of
/// it in one column; where somebody has set such a key, it is.
fn machine(row: MachineRow) -> Machine {
    let Some(record) = row.record else { return Machine { id: row.id.to_string(), ..Machine::default() } };
    let is_said = |key: &String| {
        let by_user = row.settings.as_ref().is_some_and(|settings| settings.metadata.contains_key(key));
        by_user || record.metadata.contains_key(key)
    };
    let found = |(key, value): (&String, &String)| record.facts.get(key) == Some(value) && !is_said(key);
    Machine {
        id: row.id.to_string(),
        metadata: row.metadata.into_iter().filter(|(key, value)| !found((key, value))).collect(),
        primary_ip: record.addresses.first().cloned().unwrap_or_default(),
    }
}

/// Changes metadata of machines, which need not be known. Everything is looked at before anything is
/// written; what is written of up to 50 machines is written at once.
pub(super) async fn patch(
    State(node): State<Arc<Node>>,
    asked: Asked,
    body: Bytes,
) -> Result<Response, Refusal> {
    let by = asked.asker()?;
    let patches: Vec<MetadataPatch> = serde_json::from_slice(&body)
        .and_then(|patches| serde_json::from_value(as_go_reads(patches)))
        .map_err(|e| Refusal::bad_request(format!("unable to decode body: {e}")))?;
    let reader = node.seat()?;
    let mut orders: BTreeMap<MachineId, MachineOrder> = BTreeMap::new();
    for patch in &patches {
        let (machine, key, change) = read(patch)?;
        change.check(key).map_err(ApiError::from)?;
        // A later word about a key wins.
        orders.entry(machine).or_default().metadata.insert(key.to_owned(), change);
    }
    for (machine, order) in &mut orders {
        let record = reader.machine(*machine).and_then(|row| row.record);
        order.host = record.map(|record| record.host.clone());
    }
    let orders: Vec<_> = orders.into_iter().collect();
    for some in orders.chunks(MACHINES_MAX) {
        let some = some.iter().cloned().collect();
        let written = node.operations.order_machines(&some, by).await.map_err(ApiError::from)?;
        units::shown(&reader, written.iter().map(|one| one.revision)).await;
    }
    Ok((StatusCode::NO_CONTENT, [(CONTENT_TYPE, "application/json")]).into_response())
}

/// Reads one change.
fn read(patch: &MetadataPatch) -> Result<(MachineId, &str, MetadataChange), Refusal> {
    if !matches!(patch.op.as_str(), "add" | "replace" | "remove") {
        return Err(Refusal::bad_request("invalid op: expect add, remove, or replace"));
    }
    let (machine, key) = path(&patch.path).ok_or_else(|| {
        Refusal::bad_request(format!(
            "machine metadata path invalid: expected /MACHINE/metadata/KEY with a machine's whole id, and got {:?}",
            patch.path
        ))
    })?;
    if patch.op == "remove" {
        // What the machine's own configuration says shows again. fleet hid it for ever.
        return Ok((machine, key, MetadataChange::Reset));
    }
    match patch.value.as_str().or_else(|| patch.value.get("value").and_then(Value::as_str)) {
        Some(value) if !value.is_empty() => Ok((machine, key, MetadataChange::Set(value.to_owned()))),
        _ => Err(Refusal::bad_request("invalid value: add and replace require a value")),
    }
}

/// Takes a path apart: `/MACHINE/metadata/KEY`.
fn path(path: &str) -> Option<(MachineId, &str)> {
    let (machine, key) = path.strip_prefix('/')?.split_once("/metadata/")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (!key.is_empty() && key.chars().all(plain)).then_some((machine.parse().ok()?, key))
}
