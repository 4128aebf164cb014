//! Orders: start, stop, load, unload, restart, destroy.

pub(super) mod bulk;

use std::{collections::BTreeSet, sync::Arc};

use axum::{Json, extract::State};
use flotilla_api::{
    action::{Action, Order, Outcome},
    error::ErrorBody,
};
use flotilla_engine::{PAGE_MAX, StateReader, UnitRow, state::Life};
use flotilla_registry::{
    operations::{Asker, Effect, OperationError, Written},
    records::{Target, UnitReport},
};
use flotilla_units::UnitName;

use super::{bulk as writes, units::outcome};
use crate::{
    asked::{Asked, Condition},
    error::ApiError,
    node::Node,
    select::{Selector, stretches},
};

/// Changes what users want of units. The answer comes when it is written; a watch from its revision
/// shows what comes of it. All units are checked before the first is written, and up to 119 are written at once
/// or not at all; more in several transactions, one after the other. Should the store fail in between, the
/// error's details name those that were written, and the same again does the rest.
#[utoipa::path(post, path = "/v1/orders", request_body = Order,
    params(("If-Match" = Option<String>, Header,
        description = "the ETag of the unit as it was read, for an order about one unit")),
    responses(
    (status = OK, body = Outcome),
    (status = BAD_REQUEST, body = ErrorBody),
    (status = FORBIDDEN, body = ErrorBody),
    (status = NOT_FOUND, body = ErrorBody),
    (status = CONFLICT, body = ErrorBody),
    (status = PRECONDITION_FAILED, body = ErrorBody),
))]
pub(super) async fn order(
    State(node): State<Arc<Node>>,
    asked: Asked,
    Json(order): Json<Order>,
) -> Result<Json<Outcome>, ApiError> {
    let reader = node.seat()?;
    let units = select(&reader, order.action, &order.units)?;
    if asked.condition != Condition::Any {
        let [unit] = &units[..] else {
            return Err(ApiError::bad_request(
                "If-Match is about one unit; POST /v1/bulk takes a revision for each of several",
            ));
        };
        if order.dry_run {
            asked.condition.check(&reader, unit)?;
        } else {
            let order = asked.condition.on(writes::word(&reader, unit, order.action));
            let written = node.operations.write(&[(unit.clone(), order)], true, asked.asker()?).await;
            let written = written.map_err(|error| asked.condition.judge(error))?;
            return Ok(Json(outcome(&node, written.written).await));
        }
    }
    let written = if order.dry_run {
        units.iter().map(|unit| as_it_is(&reader, unit)).collect()
    } else {
        carry_out(&node, &reader, order.action, &units, asked.asker()?).await?
    };
    Ok(Json(outcome(&node, written).await))
}

/// Resolves what the user typed. A name need not be known (an instance is created by its first
/// order), but a pattern has to match something. Who restarts what a pattern matches means what is wanted on
/// machines, and starts nothing that rests.
fn select(reader: &StateReader, action: Action, words: &[String]) -> Result<Vec<UnitName>, ApiError> {
    let selectors = Selector::read_all(words.iter().map(String::as_str))?;
    if selectors.is_empty() {
        return Err(ApiError::bad_request("the order names no unit"));
    }
    let mut units = BTreeSet::new();
    for (word, selector) in words.iter().zip(&selectors) {
        match selector {
            Selector::Name(name) => {
                units.insert(name.clone());
            }
            Selector::Range(range) => {
                return Err(ApiError::bad_request(format!(
                    "{range} is a range of instances: POST /v1/orders/bulk takes it"
                )));
            }
            Selector::Pattern(_) => {
                // What other words name already counts as well.
                let mut any = false;
                // A template matches `web@*` too, and nobody means it.
                let matches = |name: &UnitName| selector.selects(name) && !name.is_template();
                let (names, mut after) = (stretches(std::slice::from_ref(selector)), None);
                loop {
                    let page = reader.units(&names, after.as_ref(), PAGE_MAX, matches);
                    let meant = page.rows.into_iter().filter(|row| action != Action::Restart || !rests(row));
                    for row in meant {
                        any = true;
                        units.insert(row.name);
                    }
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                if !any {
                    let which = if action == Action::Restart { " that is wanted on a machine" } else { "" };
                    return Err(ApiError::not_found(format!("no unit{which} matches {word}")));
                }
            }
        }
    }
    Ok(units.into_iter().collect())
}

/// Tells whether nobody wants a unit on a machine.
fn rests(row: &UnitRow) -> bool {
    row.record.as_ref().is_none_or(|record| record.target == Target::Inactive)
}

/// Carries out one order about units: all are checked before the first is written, whatever each of them needs.
pub(crate) async fn carry_out(
    node: &Node,
    reader: &StateReader,
    action: Action,
    units: &[UnitName],
    by: Asker<'_>,
) -> Result<Vec<Written>, OperationError> {
    let operations = &node.operations;
    let ordered = |unit: UnitName| {
        let order = writes::word(reader, &unit, action);
        (unit, order)
    };
    match action {
        Action::Unload => operations.set_target(units, Target::Inactive, false, by).await,
        Action::Load => operations.set_target(units, Target::Loaded, false, by).await,
        Action::Restart => operations.restart(units, by).await,
        Action::Destroy => operations.destroy(units, by).await,
        Action::Stop => {
            // To stop what was never made would be to make it, if it has a template.
            if let Some(unknown) = units.iter().find(|unit| reader.unit(unit).0.is_none()) {
                return Err(OperationError::NoSuchUnit(unknown.clone()));
            }
            // To stop what is on no machine would be to place it.
            let (resting, placed): (Vec<_>, Vec<_>) = units.iter().cloned().partition(|unit| {
                let record = reader.unit(unit).0.and_then(|row| row.record);
                record.is_some_and(|record| record.target == Target::Inactive)
            });
            let mut written: Vec<Written> = resting.iter().map(|unit| as_it_is(reader, unit)).collect();
            let orders: Vec<_> = placed.into_iter().map(ordered).collect();
            written.extend(operations.write(&orders, false, by).await?.written);
            Ok(written)
        }
        Action::Start => {
            let orders: Vec<_> = units.iter().cloned().map(ordered).collect();
            Ok(operations.write(&orders, false, by).await?.written)
        }
    }
}

/// Says of a unit to which nothing is done what it is.
fn as_it_is(reader: &StateReader, unit: &UnitName) -> Written {
    let record = reader.unit(unit).0.and_then(|row| row.record);
    Written {
        unit: unit.clone(),
        effect: Effect::Unchanged,
        revision: reader.revision(),
        generation: record.as_ref().map_or(0, |record| record.generation),
        run: record.as_ref().map_or(0, |record| record.run),
        adopted_from: record.and_then(|record| record.adopted).map(|adopted| adopted.from),
    }
}

/// Tells whether a unit that is only to be loaded runs, or may run: a timer, a socket or a person started
/// it. `stop` then means to stop it once more.
pub(super) fn runs_though_loaded(row: &UnitRow) -> bool {
    let at_rest = |report: &UnitReport| matches!(report.active.as_str(), "inactive" | "failed");
    row.record.as_ref().is_some_and(|record| record.target == Target::Loaded)
        && row.placements.iter().any(|placement| {
            let staying = placement.departing.is_none() && placement.life != Life::Lost;
            // What was ordered last has yet to be done: to order it once more adds nothing.
            let is_ordered =
                |report: &UnitReport| report.token != Some(placement.token) || report.run < placement.run;
            staying && placement.report.as_ref().is_none_or(|report| !at_rest(report) && !is_ordered(report))
        })
}

/// Tells whether a unit was started where it is and does not run any more: failed, done, or stopped
/// on its machine. `start` then means to start it anew.
pub(super) fn has_ended(row: &UnitRow) -> bool {
    let launched = row.record.as_ref().is_some_and(|record| record.target == Target::Launched);
    launched
        && row.placements.iter().filter(|placement| placement.departing.is_none()).any(|placement| {
            placement.report.as_ref().is_some_and(|report| {
                let current = report.token == Some(placement.token) && report.run >= placement.run;
                current
                    && (matches!(report.active.as_str(), "inactive" | "failed")
                        || report.sub.starts_with("auto-restart")
                        || report.stopped_locally)
            })
        })
}
