//! `PUT /units/NAME`: a unit made, its options replaced, or its target set.
//!
//! What a client sends as options is stored as the text that fleet made of them. An instance whose options
//! are its template's becomes an instance of it; with others, or without a template, it has a text of its
//! own, as every instance had in fleet.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
};
use flotilla_api::action::Action;
use flotilla_engine::{StateReader, UnitRow};
use flotilla_registry::{
    operations::{Asker, NewText, UnitOrder, Word, Written},
    records::Target,
};
use flotilla_units::{UnitFile, UnitName};
use serde_json::{Map, Value};

use super::{
    normal,
    refusal::Refusal,
    schema::{UnitOption, WantedUnit, as_go_reads},
    units,
};
use crate::{asked::Asked, error::ApiError, node::Node, routes};

/// What a request comes to.
#[derive(Debug, PartialEq, Eq)]
enum Order {
    /// The unit stays what it is.
    Target(Target),
    /// An instance is made by its template.
    Instance(Target),
    /// The unit gets a text, in place of another or as its first.
    Text { text: String, target: Option<Target> },
}

/// Makes a unit, replaces its options, or sets its target.
pub(super) async fn set(
    State(node): State<Arc<Node>>,
    asked: Asked,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let by = asked.asker()?;
    check_content_type(&headers)?;
    let wanted = decode(&body)?;
    let unit = check_name(&name, wanted.name.as_deref())?;
    let target = wanted.desired_state.as_deref().filter(|word| !word.is_empty()).map(target).transpose()?;
    if unit.is_template() && target.is_some_and(|target| target != Target::Inactive) {
        return Err(Refusal::bad_request(format!("cannot activate template {:?}", unit.as_str())));
    }
    let options = wanted.options.unwrap_or_default();
    let reader = node.seat()?;
    let existing = existing(&reader, &unit).await?;
    let order = decide(&reader, &unit, existing.as_ref(), &options, target)?;
    let status = match order {
        Order::Target(_) => StatusCode::NO_CONTENT,
        Order::Instance(_) | Order::Text { .. } => StatusCode::CREATED,
    };
    let written = carry_out(&node, &reader, unit, order, by).await?;
    units::shown(&reader, written.iter().map(|one| one.revision)).await;
    Ok(status)
}

/// Takes exactly what fleet took.
fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    match (values.next(), values.count()) {
        (Some(one), 0) if one == "application/json" => Ok(()),
        (Some(_), 0) => refuse("only acceptable Content-Type is application/json".to_owned()),
        (None, _) => refuse("expected 1 Content-Type, got 0".to_owned()),
        (Some(_), more) => refuse(format!("expected 1 Content-Type, got {}", more + 1)),
    }
}

fn decode(body: &[u8]) -> Result<WantedUnit, Refusal> {
    // An object: serde would take a list of the members' values as well.
    let members: Result<Map<String, Value>, _> = serde_json::from_slice(body);
    members
        .and_then(|members| serde_json::from_value(as_go_reads(Value::Object(members))))
        .map_err(|e| Refusal::bad_request(format!("unable to decode body: {e}")))
}

fn check_name(path: &str, body: Option<&str>) -> Result<UnitName, Refusal> {
    if let Some(body) = body.filter(|body| !body.is_empty() && *body != path) {
        let message = format!("name in URL {path:?} differs from unit name in request body {body:?}");
        return Err(Refusal::bad_request(message));
    }
    path.parse().map_err(|e: flotilla_units::NameError| Refusal::bad_request(e.to_string()))
}

fn target(word: &str) -> Result<Target, Refusal> {
    match word {
        "inactive" => Ok(Target::Inactive),
        "loaded" => Ok(Target::Loaded),
        "launched" => Ok(Target::Launched),
        _ => Err(Refusal::bad_request(format!(
            "invalid desiredState {word:?}: expected inactive, loaded or launched"
        ))),
    }
}

/// Returns the unit if there is one; one that is being destroyed is waited for to go.
async fn existing(reader: &StateReader, unit: &UnitName) -> Result<Option<UnitRow>, Refusal> {
    let Some(row) = reader.unit(unit).0 else { return Ok(None) };
    match &row.record {
        Some(record) if record.deleting => {}
        Some(_) => return Ok(Some(row)),
        None => {
            let why =
                row.problem.unwrap_or_else(|| "only what is left of it on machines is known".to_owned());
            return Err(Refusal::conflict(format!("unit {unit} cannot be changed: {why}")));
        }
    }
    if units::until_gone(reader, unit).await {
        return Ok(None);
    }
    Err(Refusal::conflict(format!(
        "unit {unit} is being destroyed and has not stopped on every machine; try again when GET answers 404"
    )))
}

fn decide(
    reader: &StateReader,
    unit: &UnitName,
    existing: Option<&UnitRow>,
    options: &[UnitOption],
    target: Option<Target>,
) -> Result<Order, Refusal> {
    let template = || unit.template().and_then(|template| reader.unit(&template).0).filter(is_usable);
    if options.is_empty() {
        return match (existing, target) {
            (Some(_), Some(target)) => Ok(Order::Target(target)),
            (Some(_), None) => Err(no_target()),
            (None, target) if template().is_some() => Ok(Order::Instance(target.unwrap_or(Target::Inactive))),
            (None, _) => Err(Refusal::conflict("unit does not exist and options field empty")),
        };
    }
    let text = normal::text_of(options).map_err(Refusal::bad_request)?;
    let says_this = |row: &UnitRow| units::form(reader, row).as_ref() == Some(&text);
    match existing {
        Some(row) if says_this(row) => Ok(Order::Target(target.ok_or_else(no_target)?)),
        None if template().is_some_and(|row| says_this(&row)) => {
            Ok(Order::Instance(target.unwrap_or(Target::Inactive)))
        }
        _ => {
            let invalid = |problems| ApiError::invalid_unit(unit.as_str(), &problems);
            UnitFile::parse(unit.as_str(), text.as_bytes())
                .and_then(|file| file.validate(unit).map(drop))
                .map_err(invalid)?;
            Ok(Order::Text { text, target })
        }
    }
}

fn is_usable(template: &UnitRow) -> bool {
    template.record.as_ref().is_some_and(|record| !record.deleting)
}

fn no_target() -> Refusal {
    Refusal::conflict("must provide DesiredState to update existing unit")
}

async fn carry_out(
    node: &Node,
    reader: &StateReader,
    unit: UnitName,
    order: Order,
    by: Asker<'_>,
) -> Result<Vec<Written>, ApiError> {
    let order = match order {
        Order::Target(target) => {
            // Launched means that it is made to run, also where it was and has failed.
            let action = match target {
                Target::Inactive => Action::Unload,
                Target::Loaded => Action::Load,
                Target::Launched => Action::Start,
            };
            return Ok(routes::carry_out(node, reader, action, &[unit], by).await?);
        }
        Order::Instance(target) => UnitOrder::instance(target),
        Order::Text { text, target } => UnitOrder {
            text: Some(NewText { own: unit.is_instance(), ..NewText::replacing(text) }),
            word: target.map(|target| Word::Target { target, raise_run: false }),
            ..UnitOrder::default()
        },
    };
    Ok(node.operations.write(&[(unit, order)], true, by).await?.written)
}
