//! Many units at once, and one unit under a condition.
//!
//! A bulk write is texts and orders, mixed, about many units: what fits into one transaction of the store
//! is done at once or not at all. A condition is the revision that whoever asks has seen (`ETag`): with
//! `If-Match` nothing is done to a unit that was changed since.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use flotilla_api::{
    action::{Action, BulkOutcome, BulkUnit, BulkWrite, Outcome, PutUnit},
    error::ErrorBody,
    unit::Target,
};
use flotilla_engine::StateReader;
use flotilla_registry::{
    operations::{NewText, UnitOrder, Word},
    records,
    store::Revision,
};
use flotilla_units::{SourceName, UnitFile, UnitName};

use super::{
    orders::{has_ended, runs_though_loaded},
    units::outcome,
};
use crate::{asked::Asked, error::ApiError, node::Node};

/// Gives texts and orders to many units at once: all of them or none, where one transaction of the store
/// can take them (some 60 texts, or 119 orders), else in several, one after the other. With `whole`, more
/// than fits is refused.
#[utoipa::path(post, path = "/v1/bulk", request_body = BulkWrite, responses(
    (status = OK, body = BulkOutcome),
    (status = BAD_REQUEST, body = ErrorBody),
    (status = FORBIDDEN, body = ErrorBody),
    (status = NOT_FOUND, body = ErrorBody),
    (status = CONFLICT, body = ErrorBody),
    (status = PRECONDITION_FAILED, body = ErrorBody),
    (status = PAYLOAD_TOO_LARGE, body = ErrorBody),
    (status = UNPROCESSABLE_ENTITY, body = ErrorBody),
))]
pub(super) async fn bulk(
    State(node): State<Arc<Node>>,
    asked: Asked,
    Json(bulk): Json<BulkWrite>,
) -> Result<Json<BulkOutcome>, ApiError> {
    asked.condition.refuse_for_several("a bulk write takes `if_match` for each of its units")?;
    let reader = node.seat()?;
    let orders = bulk.units.iter().map(|unit| order(&reader, unit)).collect::<Result<Vec<_>, _>>()?;
    if orders.is_empty() {
        return Err(ApiError::bad_request("the write names no unit"));
    }
    let written = node.operations.write(&orders, bulk.whole, asked.asker()?).await?;
    let transactions = written.transactions as u64;
    let Outcome { revision, units } = outcome(&node, written.written).await;
    Ok(Json(BulkOutcome { revision, transactions, units }))
}

/// Makes a unit what is said: its text, and what is wanted of it. What is not said stays as it is.
#[utoipa::path(put, path = "/v1/units/{name}", request_body = PutUnit,
    params(("name" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the unit's ETag as it was read, or `*`"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: the unit is to be new")),
    responses(
        (status = OK, body = Outcome, description = "it is as said"),
        (status = BAD_REQUEST, body = ErrorBody),
        (status = FORBIDDEN, body = ErrorBody),
        (status = NOT_FOUND, body = ErrorBody),
        (status = CONFLICT, body = ErrorBody),
        (status = PRECONDITION_FAILED, body = ErrorBody),
        (status = UNPROCESSABLE_ENTITY, body = ErrorBody),
    ))]
pub(super) async fn put_unit(
    State(node): State<Arc<Node>>,
    asked: Asked,
    Path(name): Path<String>,
    Json(put): Json<PutUnit>,
) -> Result<Json<Outcome>, ApiError> {
    let _seat = node.seat()?;
    let source = SourceName::mangle(&name)?;
    let unit = source.runtime().clone();
    let text = put.text.map(|text| checked(&source, text)).transpose()?;
    let target = put.target.map(|target| Word::Target { target: stored(target), raise_run: false });
    if text.is_none() && target.is_none() {
        return Err(ApiError::bad_request("nothing is said of the unit: expected `text`, `target` or both"));
    }
    let rollout = rollout(put.no_restart);
    let text = text.map(|text| NewText { rollout, ..NewText::replacing(text) });
    let order = asked.condition.on(UnitOrder { text, word: target, create: true, ..UnitOrder::default() });
    let written = node.operations.write(&[(unit, order)], true, asked.asker()?).await;
    let written = written.map_err(|error| asked.condition.judge(error))?;
    Ok(Json(outcome(&node, written.written).await))
}

/// Destroys a unit: it is stopped wherever it is, and then forgotten.
#[utoipa::path(delete, path = "/v1/units/{name}",
    params(("name" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the unit's ETag as it was read, or `*`")),
    responses(
        (status = ACCEPTED, body = Outcome, description = "it is being destroyed; a watch shows when it is gone"),
        (status = FORBIDDEN, body = ErrorBody),
        (status = NOT_FOUND, body = ErrorBody),
        (status = CONFLICT, body = ErrorBody),
        (status = PRECONDITION_FAILED, body = ErrorBody),
    ))]
pub(super) async fn delete_unit(
    State(node): State<Arc<Node>>,
    asked: Asked,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<Outcome>), ApiError> {
    let _seat = node.seat()?;
    let unit = SourceName::mangle(&name)?.runtime().clone();
    let order = asked.condition.on(UnitOrder::word(Word::Destroy));
    let written = node.operations.write(&[(unit, order)], true, asked.asker()?).await;
    let written = written.map_err(|error| asked.condition.judge(error))?;
    Ok((StatusCode::ACCEPTED, Json(outcome(&node, written.written).await)))
}

/// Makes the order about one unit of a bulk write.
fn order(reader: &StateReader, unit: &BulkUnit) -> Result<(UnitName, UnitOrder), ApiError> {
    let source = SourceName::mangle(&unit.name)?;
    let name = source.runtime().clone();
    let text = unit.text.clone().map(|text| checked(&source, text)).transpose()?;
    let (replace, rollout) = (unit.replace, rollout(unit.no_restart));
    let text = text.map(|text| NewText { replace, rollout, ..NewText::first(text) });
    if unit.take_over && unit.set.is_none() {
        return Err(ApiError::bad_request(format!(
            "`{name}` is to be taken over and not by whom: expected `set`"
        )));
    }
    if text.is_none() && unit.action.is_none() && !unit.take_over {
        return Err(ApiError::bad_request(format!(
            "nothing is asked of `{name}`: expected `text`, `action` or both, or `take_over`"
        )));
    }
    let order = unit.action.map(|action| word(reader, &name, action)).unwrap_or_default();
    let expected = unit.if_match.map(Revision);
    let set = unit.set.clone();
    Ok((name, UnitOrder { text, expected, set, take_over: unit.take_over, create: unit.create, ..order }))
}

/// Says in the registry's words how what runs gets to know of its text.
pub(super) const fn rollout(no_restart: bool) -> records::Rollout {
    if no_restart { records::Rollout::NextStart } else { records::Rollout::OneByOne }
}

/// Says in the registry's words what an action makes of a unit.
pub(super) fn word(reader: &StateReader, unit: &UnitName, action: Action) -> UnitOrder {
    let target = |target, raise_run| UnitOrder::word(Word::Target { target, raise_run });
    let row = reader.unit(unit).0;
    // What is ordered because of how it runs holds for the run that was seen: of two who start a unit that has
    // failed, the second finds it started.
    let seen_run = row.as_ref().and_then(|row| row.record.as_ref()).map(|record| record.run);
    let of_seen = |order| UnitOrder { seen_run, ..order };
    match action {
        Action::Unload => target(records::Target::Inactive, false),
        Action::Load => target(records::Target::Loaded, false),
        Action::Restart => target(records::Target::Launched, true),
        Action::Destroy => UnitOrder::word(Word::Destroy),
        Action::Start => of_seen(target(records::Target::Launched, row.as_ref().is_some_and(has_ended))),
        Action::Stop => {
            // To stop what is on no machine would be to place it, and what was never made, to make it.
            let anew = row.as_ref().is_some_and(runs_though_loaded);
            let record = row.and_then(|row| row.record);
            let rests = record.is_none_or(|record| record.target == records::Target::Inactive);
            of_seen(target(if rests { records::Target::Inactive } else { records::Target::Loaded }, anew))
        }
    }
}

fn checked(name: &SourceName, text: String) -> Result<String, ApiError> {
    let refuse = |problems| ApiError::invalid_unit(name.as_str(), &problems);
    let file = UnitFile::parse(name.as_str(), text.as_bytes()).map_err(refuse)?;
    file.validate(name.runtime()).map_err(refuse)?;
    Ok(text)
}

const fn stored(target: Target) -> records::Target {
    match target {
        Target::Inactive => records::Target::Inactive,
        Target::Loaded => records::Target::Loaded,
        Target::Launched => records::Target::Launched,
    }
}
