//! What users say of machines: metadata, cordon, drain.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
};
use flotilla_api::{
    error::ErrorBody,
    machine::{MachineOutcome, MetadataPatch},
};
use flotilla_engine::NoSuchMachine;
use flotilla_registry::operations::{Effect, MachineOrder, MachineWord, MetadataChange};
use flotilla_units::MachineId;

use crate::{asked::Asked, error::ApiError, node::Node};

/// Changes a machine's metadata while it runs. A machine named by its whole id need not be known yet.
#[utoipa::path(patch, path = "/v1/machines/{id}/metadata", params(("id" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the machine's ETag as it was read, or `*`: it is known")),
    request_body = MetadataPatch, responses(
    (status = OK, body = MachineOutcome),
    (status = BAD_REQUEST, body = ErrorBody),
    (status = FORBIDDEN, body = ErrorBody),
    (status = NOT_FOUND, body = ErrorBody),
    (status = PRECONDITION_FAILED, body = ErrorBody),
))]
pub(super) async fn change_metadata(
    State(node): State<Arc<Node>>,
    asked: Asked,
    Path(word): Path<String>,
    Json(patch): Json<MetadataPatch>,
) -> Result<Json<MachineOutcome>, ApiError> {
    let metadata = changes(patch)?;
    order(&node, &asked, &word, MachineOrder { metadata, ..MachineOrder::default() }).await
}

/// Keeps new units away from a machine.
#[utoipa::path(put, path = "/v1/machines/{id}/cordon", params(("id" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the machine's ETag as it was read, or `*`: it is known")), responses(
    (status = OK, body = MachineOutcome),
    (status = FORBIDDEN, body = ErrorBody),
    (status = NOT_FOUND, body = ErrorBody),
    (status = PRECONDITION_FAILED, body = ErrorBody),
))]
pub(super) async fn cordon(
    State(node): State<Arc<Node>>,
    asked: Asked,
    Path(word): Path<String>,
) -> Result<Json<MachineOutcome>, ApiError> {
    order(&node, &asked, &word, MachineWord::Cordon.into()).await
}

/// Lets new units come to a machine again; a drain ends with it.
#[utoipa::path(delete, path = "/v1/machines/{id}/cordon", params(("id" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the machine's ETag as it was read, or `*`: it is known")), responses(
    (status = OK, body = MachineOutcome),
    (status = FORBIDDEN, body = ErrorBody),
    (status = NOT_FOUND, body = ErrorBody),
    (status = PRECONDITION_FAILED, body = ErrorBody),
))]
pub(super) async fn uncordon(
    State(node): State<Arc<Node>>,
    asked: Asked,
    Path(word): Path<String>,
) -> Result<Json<MachineOutcome>, ApiError> {
    order(&node, &asked, &word, MachineWord::Uncordon.into()).await
}

/// Has everything leave a machine that can: each unit runs elsewhere before it stops here.
#[utoipa::path(put, path = "/v1/machines/{id}/drain", params(("id" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the machine's ETag as it was read, or `*`: it is known")), responses(
    (status = OK, body = MachineOutcome),
    (status = FORBIDDEN, body = ErrorBody),
    (status = NOT_FOUND, body = ErrorBody),
    (status = PRECONDITION_FAILED, body = ErrorBody),
))]
pub(super) async fn drain(
    State(node): State<Arc<Node>>,
    asked: Asked,
    Path(word): Path<String>,
) -> Result<Json<MachineOutcome>, ApiError> {
    order(&node, &asked, &word, MachineWord::Drain.into()).await
}

/// Ends a drain: what has not left stays. A cordon goes on.
#[utoipa::path(delete, path = "/v1/machines/{id}/drain", params(("id" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the machine's ETag as it was read, or `*`: it is known")), responses(
    (status = OK, body = MachineOutcome),
    (status = FORBIDDEN, body = ErrorBody),
    (status = NOT_FOUND, body = ErrorBody),
    (status = PRECONDITION_FAILED, body = ErrorBody),
))]
pub(super) async fn end_drain(
    State(node): State<Arc<Node>>,
    asked: Asked,
    Path(word): Path<String>,
) -> Result<Json<MachineOutcome>, ApiError> {
    order(&node, &asked, &word, MachineWord::EndDrain.into()).await
}

/// Finds the machine that a word names. One that was never here can be named by its whole id.
pub(super) fn named(node: &Node, word: &str) -> Result<MachineId, ApiError> {
    match node.seat()?.find_machine_to_change(word) {
        Ok(id) => Ok(id),
        Err(NoSuchMachine::Unknown(word)) => word.parse().map_err(|_| NoSuchMachine::Unknown(word).into()),
        Err(several) => Err(several.into()),
    }
}

async fn order(
    node: &Node,
    asked: &Asked,
    word: &str,
    order: MachineOrder,
) -> Result<Json<MachineOutcome>, ApiError> {
    let asker = asked.asker()?;
    let reader = node.seat()?;
    let machine = named(node, word)?;
    let expected = asked.condition.expected_of_machine(&reader, machine)?;
    let record = reader.machine(machine).and_then(|row| row.record);
    let host = record.map(|record| record.host.clone());
    let order = MachineOrder { expected, host: host.clone(), ..order };
    let orders = BTreeMap::from([(machine, order)]);
    let written = node.operations.order_machines(&orders, asker).await?;
    let written = written.first().ok_or_else(|| ApiError::unavailable("the order was about no machine"))?;
    Ok(Json(MachineOutcome {
        machine,
        host,
        changed: written.effect != Effect::Unchanged,
        revision: written.revision.0,
    }))
}

/// Reads a patch; a key is in it once.
fn changes(patch: MetadataPatch) -> Result<BTreeMap<String, MetadataChange>, ApiError> {
    let MetadataPatch { set, unset, reset } = patch;
    let set = set.into_iter().map(|(key, value)| (key, MetadataChange::Set(value)));
    let unset = unset.into_iter().map(|key| (key, MetadataChange::Unset));
    let reset = reset.into_iter().map(|key| (key, MetadataChange::Reset));
    let mut changes = BTreeMap::new();
    for (key, change) in set.chain(unset).chain(reset) {
        if changes.insert(key.clone(), change).is_some() {
            return Err(ApiError::bad_request(format!(
                "`{key}` is in more than one of set, unset and reset"
            )));
        }
    }
    if changes.is_empty() {
        return Err(ApiError::bad_request("the patch names no key; expected some of set, unset and reset"));
    }
    Ok(changes)
}
