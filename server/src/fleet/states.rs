//! `/state`: what systemd says of units, one row for each machine that a unit is on.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
};
use flotilla_engine::{StateQuery, StateReader, StateRow};
use flotilla_units::{ContentHash, UnitName};

use super::{
    normal,
    page::ListRequest,
    refusal::Refusal,
    schema::{UnitState, UnitStatePage},
};
use crate::{identity::User, node::Node};

/// Lists states, one page, by unit and then machine; of one machine or unit where that is asked for.
pub(super) async fn list(
    State(node): State<Arc<Node>>,
    _user: User,
    request: ListRequest,
) -> Result<Json<UnitStatePage>, Refusal> {
    let reader = node.seat()?;
    let page = request.page();
    let nothing = Json(UnitStatePage { next_page_token: None, states: Vec::new() });
    // What is no name and no id is not one of anything there is.
    let unit: Option<UnitName> = match request.filter("unitName").map(str::parse).transpose() {
        Ok(unit) => unit,
        Err(_) => return Ok(nothing),
    };
    let machine = match request.filter("machineID").map(str::parse).transpose() {
        Ok(machine) => machine,
        Err(_) => return Ok(nothing),
    };
    let query = StateQuery { unit: unit.as_ref(), machine, skip: page.skip(), limit: page.limit() };
    let rows = reader.states(query);
    let next_page_token = page.next(rows.len());
    let mut hashes = Hashes { reader: &reader, known: HashMap::new() };
    let states = rows.into_iter().map(|row| hashes.state(row)).collect();
    Ok(Json(UnitStatePage { next_page_token, states }))
}

/// Returns the state of one unit: of a global one, that on the first machine by id.
pub(super) async fn get(
    State(node): State<Arc<Node>>,
    _user: User,
    Path(name): Path<String>,
) -> Result<Json<UnitState>, Refusal> {
    let reader = node.seat()?;
    let unit: UnitName = name.parse().map_err(|_| super::units::unknown())?;
    let query = StateQuery { unit: Some(&unit), limit: 1, ..StateQuery::default() };
    match reader.states(query).pop() {
        Some(row) => Ok(Json(Hashes { reader: &reader, known: HashMap::new() }.state(row))),
        None if reader.unit(&unit).0.is_none() => Err(super::units::unknown()),
        None => Err(Refusal::not_found("unit has no state: no machine reports it")),
    }
}

/// fleet's hashes of texts, of which many rows have the same.
struct Hashes<'a> {
    reader: &'a StateReader,
    known: HashMap<ContentHash, String>,
}

impl Hashes<'_> {
    fn state(&mut self, row: StateRow) -> UnitState {
        // What runs is what was started last; before the first start it is what is ordered.
        let of = row.report.hash.unwrap_or(row.ordered);
        let text = || self.reader.text(&of).map(|text| normal::hash(&text)).unwrap_or_default();
        UnitState {
            hash: self.known.entry(of).or_insert_with(text).clone(),
            machine_id: row.machine.to_string(),
            name: row.unit.to_string(),
            systemd_active_state: row.report.active.into(),
            systemd_load_state: row.report.load.into(),
            systemd_sub_state: row.report.sub.into(),
        }
    }
}
