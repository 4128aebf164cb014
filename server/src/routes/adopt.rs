//! Units of a machine's own that become the cluster's.
//!
//! A seat is asked. It lets the machine say what the units are made of, judges that as it would judge any
//! text that is submitted, and writes. Nothing is changed on the machine by a request: its agent does it
//! when the manifest says so.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
};
use flotilla_agent::adoption::{AdoptionError, Found};
use flotilla_api::{
    adopt::{Adopt, Adopted, AdoptedUnit, OwnUnit},
    error::{ErrorBody, ErrorKind},
};
use flotilla_engine::StateReader;
use flotilla_registry::operations::{NewText, UnitOrder};
use flotilla_units::{MachineId, SourceName, UnitFile, UnitName};
use tokio::time::timeout;

use super::units::outcome;
use crate::{
    asked::Asked,
    error::ApiError,
    forward::{self, BODY_BYTES_MAX},
    identity::User,
    node::Node,
};

/// The most units of one request: what fits into one transaction, all of them or none.
const UNITS_MAX: usize = 50;

/// How long a machine may take to say what its units are made of. Each takes systemd some milliseconds, the
/// first one a hundred.
const SURVEY_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes units over that run on a machine as the machine's own, without a restart: their files become the
/// cluster's, and are moved away on the machine. All of them, or none.
#[utoipa::path(post, path = "/v1/machines/{id}/adopt", params(("id" = String, Path)), request_body = Adopt,
    responses(
    (status = OK, body = Adopted),
    (status = BAD_REQUEST, body = ErrorBody),
    (status = FORBIDDEN, body = ErrorBody),
    (status = NOT_FOUND, body = ErrorBody),
    (status = CONFLICT, body = ErrorBody),
    (status = UNPROCESSABLE_ENTITY, body = ErrorBody),
))]
pub(super) async fn adopt(
    State(node): State<Arc<Node>>,
    asked: Asked,
    Path(word): Path<String>,
    Json(order): Json<Adopt>,
) -> Result<Json<Adopted>, ApiError> {
    let by = asked.asker()?;
    asked.condition.refuse("what is adopted is not in the cluster yet, and is never taken for what is")?;
    let reader = node.seat()?;
    let machine = reader.find_machine_to_change(&word)?;
    let names = names(&order.units)?;
    refuse_each(names.iter().filter_map(|unit| taken(&reader, unit)).collect())?;
    let found = if machine == node.machine {
        survey_here(&node, &names).await?
    } else {
        let client = forward::to_machine(&node, machine, asked.user()).await?;
        let units = names.iter().map(ToString::to_string).collect();
        let question = Adopt { units, dry_run: true };
        let asked = timeout(SURVEY_TIMEOUT, client.survey(&machine.to_string(), &question)).await;
        asked.map_err(|_| silent(&machine.short()))??
    };
    refuse_each(found.iter().filter_map(|own| forbidden(&reader, own, machine).err()).collect())?;
    let host = reader.machine(machine).and_then(|row| row.record).map(|record| record.host.clone());
    if order.dry_run {
        let units = found.into_iter().map(|found| AdoptedUnit { found, generation: 0, run: 0 }).collect();
        return Ok(Json(Adopted { revision: reader.revision().0, machine, host, units }));
    }
    let orders: Vec<(UnitName, UnitOrder)> = found
        .iter()
        .map(|own| (own.unit.clone(), UnitOrder::adopt(NewText::first(own.text.clone()), machine)))
        .collect();
    let bulk = node.operations.write(&orders, true, by).await?;
    let written = outcome(&node, bulk.written).await;
    let units = found.into_iter().filter_map(|found| {
        let of = written.units.iter().find(|unit| unit.unit == found.unit)?;
        Some(AdoptedUnit { found, generation: of.generation, run: of.run })
    });
    Ok(Json(Adopted { revision: written.revision, machine, host, units: units.collect() }))
}

/// Says of units that a machine has as its own what they are made of, if they can be taken over. It shows
/// texts that are not the cluster's yet, so it is answered only to those who may change something.
#[utoipa::path(post, path = "/v1/machines/{id}/survey", params(("id" = String, Path)), request_body = Adopt,
    responses(
    (status = OK, body = Vec<OwnUnit>),
    (status = BAD_REQUEST, body = ErrorBody),
    (status = FORBIDDEN, body = ErrorBody),
    (status = NOT_FOUND, body = ErrorBody),
    (status = CONFLICT, body = ErrorBody),
    (status = SERVICE_UNAVAILABLE, body = ErrorBody, description = "its machine or the store does not answer"),
))]
pub(super) async fn survey(
    State(node): State<Arc<Node>>,
    user: User,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    user.may_write()?;
    let id: MachineId = id.parse().map_err(|e| ApiError::bad_request(format!("{e}")))?;
    if id != node.machine {
        return forward::request_to_machine(&node, id, &user, request).await;
    }
    let body = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX).await;
    let body = body.map_err(|e| {
        ApiError::new(ErrorKind::TooLarge, format!("the request's body cannot be taken: {e}"))
    })?;
    let order: Adopt = serde_json::from_slice(&body)
        .map_err(|e| ApiError::bad_request(format!("the request's body cannot be read: {e}")))?;
    Ok(Json(survey_here(&node, &names(&order.units)?).await?).into_response())
}

/// Reads the names, each once.
fn names(words: &[String]) -> Result<BTreeSet<UnitName>, ApiError> {
    let mut names = BTreeSet::new();
    for word in words {
        names.insert(SourceName::mangle(word)?.runtime().clone());
    }
    match names.len() {
        0 => Err(ApiError::bad_request("the request names no unit")),
        1..=UNITS_MAX => Ok(names),
        many => Err(ApiError::bad_request(format!("{many} units are named; at most {UNITS_MAX} at once"))),
    }
}

/// Refuses a name that the cluster has.
fn taken(reader: &StateReader, unit: &UnitName) -> Option<ApiError> {
    let row = reader.unit(unit).0?;
    let adopted = row.record.and_then(|record| record.adopted);
    let why = match adopted {
        Some(_) => format!("{unit} was adopted already; `flotctl status {unit}` shows where it runs"),
        None => format!("the cluster has a unit {unit} already; destroy or rename one of the two"),
    };
    Some(ApiError::new(ErrorKind::Conflict, why))
}

/// Refuses what could not be submitted, or could not be placed where it runs.
fn forbidden(reader: &StateReader, own: &OwnUnit, machine: MachineId) -> Result<(), ApiError> {
    let refuse = |problems| ApiError::invalid_unit(own.unit.as_str(), &problems);
    let file = UnitFile::parse(own.unit.as_str(), own.text.as_bytes()).map_err(refuse)?;
    let asks = file.validate(&own.unit).map_err(refuse)?.for_unit(&own.unit);
    let asks = asks.map_err(|e| ApiError::bad_request(format!("{}: {e}", own.unit)))?;
    if asks.global {
        return Err(ApiError::new(
            ErrorKind::Conflict,
            format!("{} says Global=, and a unit of one machine's own is taken over by itself", own.unit),
        ));
    }
    let refusals = reader.refusals(&own.unit, &asks, machine);
    if refusals.is_empty() {
        return Ok(());
    }
    let why = format!("the cluster could not have {} where it runs: {}", own.unit, refusals.join("; "));
    Err(ApiError::new(ErrorKind::Conflict, why))
}

async fn survey_here(node: &Node, units: &BTreeSet<UnitName>) -> Result<Vec<OwnUnit>, ApiError> {
    let source = node.adoption.as_ref().ok_or_else(|| {
        ApiError::unavailable(format!("no agent runs on {}, so it has no units to give", node.host))
    })?;
    let ask = async {
        let (mut found, mut refused) = (Vec::new(), Vec::new());
        for unit in units {
            match source.survey(unit).await {
                Ok(own) => found.push(own_unit(unit, own)),
                Err(e @ AdoptionError::Refused { .. }) => {
                    refused.push(ApiError::new(ErrorKind::Conflict, e.to_string()));
                }
                Err(AdoptionError::Systemd(e)) => return Err(e.into()),
            }
        }
        refuse_each(refused).map(|()| found)
    };
    timeout(SURVEY_TIMEOUT, ask).await.map_err(|_| silent(&node.host))?
}

fn own_unit(unit: &UnitName, found: Found) -> OwnUnit {
    let Found { text, fragment, moves, kept, stays, shared } = found;
    OwnUnit { unit: unit.clone(), text, fragment, moves, kept, stays, shared }
}

/// Refuses all of them for each that cannot be.
fn refuse_each(mut refused: Vec<ApiError>) -> Result<(), ApiError> {
    match refused.len() {
        0 => Ok(()),
        1 => Err(refused.remove(0)),
        many => {
            let details = refused.into_iter().map(|e| e.0.to_string()).collect();
            let message = format!("{many} of the units cannot be taken over, so none is");
            Err(ApiError(ErrorBody { kind: ErrorKind::Conflict, message, details }))
        }
    }
}

fn silent(host: &str) -> ApiError {
    let limit = SURVEY_TIMEOUT.as_secs();
    ApiError::unavailable(format!("{host} does not say within {limit} s what its units are made of"))
}
