//! What would come of things, and the moves that even machines out.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, Query, Request, State},
    response::{IntoResponse as _, Response},
};
use flotilla_api::{
    error::{ErrorBody, ErrorKind},
    plan::{AfterQuery, Drain, PlanOutcome, PlanRequest, Rebalance, RebalanceOutcome},
    unit::Target,
};
use flotilla_engine::{CannotForesee, Imagined, NoSuchMachine, StateReader};
use flotilla_registry::{records, store::Revision};
use flotilla_units::{SourceName, UnitFile, UnitName};
use tokio::time::timeout;

use super::{no_such_unit, units::OWN_WRITE_TIMEOUT};
use crate::{asked::Asked, error::ApiError, forward, identity::User, node::Node, rows};

/// How long a request waits for its turn to have something foreseen. Five seconds: a client waits for fifteen, and a
/// million units take two or three.
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// Says what would come of units that are only imagined: what would be created, updated or left, and
/// where each would be. Nothing is changed.
#[utoipa::path(post, path = "/v1/plan", request_body = PlanRequest, responses(
    (status = OK, body = PlanOutcome),
    (status = BAD_REQUEST, body = ErrorBody),
    (status = NOT_FOUND, body = ErrorBody),
    (status = UNPROCESSABLE_ENTITY, body = ErrorBody),
))]
pub(super) async fn plan(
    State(node): State<Arc<Node>>,
    _user: User,
    Json(request): Json<PlanRequest>,
) -> Result<Json<PlanOutcome>, ApiError> {
    let reader = node.seat()?;
    let imagined = imagine(request)?;
    let foreseen =
        foreseen(reader, move |reader| reader.foresee(&imagined)).await?.map_err(|error| match error {
            CannotForesee::NoSuchUnit(unit) => no_such_unit(&unit),
            error => ApiError::bad_request(error.to_string()),
        })?;
    Ok(Json(rows::plan(foreseen)))
}

/// Foresees something where it keeps nobody waiting, when it is its turn: whoever asks may ask as often as they
/// like, and the placement model of a large cluster is hundreds of megabytes to copy.
async fn foreseen<T: Send + 'static>(
    reader: StateReader,
    ask: impl FnOnce(&StateReader) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let turn = timeout(TURN_WITHIN, reader.foresight()).await.map_err(|_| {
        let limit = TURN_WITHIN.as_secs();
        ApiError::unavailable(format!("others have asked what would come of things for {limit} s; try again"))
    })?;
    let thought = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        ask(&reader)
    });
    thought.await.map_err(|error| ApiError::new(ErrorKind::Internal, error.to_string()))
}

fn imagine(request: PlanRequest) -> Result<Imagined, ApiError> {
    let mut imagined = Imagined::default();
    let mut seen = BTreeSet::new();
    for unit in request.units {
        let source = SourceName::mangle(&unit.name)?;
        let name: UnitName = source.runtime().clone();
        if !seen.insert(name.clone()) {
            return Err(ApiError::bad_request(format!("{name} is in the request twice")));
        }
        if let Some(text) = unit.text {
            let refuse = |problems| ApiError::invalid_unit(&unit.name, &problems);
            let file = UnitFile::parse(source.as_str(), text.as_bytes()).map_err(refuse)?;
            file.validate(source.runtime()).map_err(refuse)?;
            imagined.texts.insert(name.clone(), text);
        }
        imagined.targets.extend(unit.target.map(|target| (name.clone(), of_wire(target))));
        if unit.destroy {
            imagined.destroyed.insert(name.clone());
        }
        imagined.asked.insert(name);
    }
    Ok(imagined)
}

const fn of_wire(target: Target) -> records::Target {
    match target {
        Target::Inactive => records::Target::Inactive,
        Target::Loaded => records::Target::Loaded,
        Target::Launched => records::Target::Launched,
    }
}

/// Says how far a machine's drain is; of one that is not drained, what a drain would do.
#[utoipa::path(get, path = "/v1/machines/{id}/drain", params(("id" = String, Path), AfterQuery), responses(
    (status = OK, body = Drain),
    (status = NOT_FOUND, body = ErrorBody),
    (status = CONFLICT, body = ErrorBody, description = "several machines are named so"),
))]
pub(super) async fn get_drain(
    State(node): State<Arc<Node>>,
    _user: User,
    Path(word): Path<String>,
    Query(query): Query<AfterQuery>,
) -> Result<Json<Drain>, ApiError> {
    let reader = node.seat()?;
    if let Some(after) = query.after {
        // Late is not wrong: the answer says what it was foreseen from.
        let _in_time = timeout(OWN_WRITE_TIMEOUT, reader.reached(Revision(after))).await;
    }
    let id = reader.find_machine(&word)?;
    let drain =
        foreseen(reader, move |reader| reader.drain(id)).await?.ok_or(NoSuchMachine::Unknown(word))?;
    Ok(Json(rows::drain(drain)))
}

/// Evens machines out, by the leader, or says what that would move.
#[utoipa::path(post, path = "/v1/rebalance", request_body = Rebalance, responses(
    (status = OK, body = RebalanceOutcome),
    (status = BAD_REQUEST, body = ErrorBody),
    (status = FORBIDDEN, body = ErrorBody),
))]
pub(super) async fn rebalance(
    State(node): State<Arc<Node>>,
    asked: Asked,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, forward::BODY_BYTES_MAX).await.map_err(|e| {
        ApiError::new(ErrorKind::TooLarge, format!("the request's body cannot be taken: {e}"))
    })?;
    let order: Rebalance =
        serde_json::from_slice(&bytes).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let reader = node.seat()?;
    if !order.apply {
        let budget = order.budget as usize;
        let foreseen = foreseen(reader, move |reader| reader.foresee_rebalance(budget)).await?;
        return Ok(Json(rows::rebalance(foreseen, false)).into_response());
    }
    let asker = asked.asker()?;
    asked.condition.refuse("evening machines out is about all of them")?;
    let leader = reader.cluster().leader.map(|leader| leader.machine);
    let leader = leader.ok_or_else(|| ApiError::unavailable("no engine leads, so nothing is moved"))?;
    if leader != node.machine {
        let request = Request::from_parts(parts, bytes.into());
        return forward::request_to_machine(&node, leader, asked.user(), request).await;
    }
    let moved = reader.rebalance(order.budget as usize, asker.by, asker.request).await?;
    // Late is not wrong: then the units are shown as they were.
    let _in_time = timeout(OWN_WRITE_TIMEOUT, reader.reached(moved.revision)).await;
    Ok(Json(rows::rebalance(moved, true)).into_response())
}
