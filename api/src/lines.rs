//! Lists of units as the lines of a table: nothing but what `flotctl list-units` shows.
//!
//! A unit as `GET /v1/units` has it is 400 bytes and more, most of them for programs; a line is some 60, and
//! is read without copying. Who wants more, or filters by more than names, asks for units.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::unit::{Placement, Unit};

/// How many units an answer has at most. Ten thousand: some 600 kB, and a few milliseconds of the seat between which
/// others have their turn.
pub const LINES_MAX: usize = 10_000;

/// Which lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LinesQuery {
    /// Globs, separated by commas; a unit is listed when any of them matches its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Only units of these types (`service`, `timer`, ...), separated by commas.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The `next` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The most units of which there are lines; at most [`LINES_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Part of a list, as lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lines<'a> {
    /// For each unit that is no template, and each machine it is on: its name, the machine's host name (or the
    /// beginning of its id), its active state, its sub state, and what is not as it should be, in a few words; an
    /// empty text where there is nothing to say.
    #[serde(borrow)]
    #[schema(value_type = Vec<Vec<String>>)]
    pub lines: Vec<Line<'a>>,
    /// The store's revision that they show, or a later one.
    pub revision: i64,
    /// Where the next part starts; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Name, machine, active state, sub state, note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line<'a>(
    #[serde(borrow)] pub Cow<'a, str>,
    #[serde(borrow)] pub Cow<'a, str>,
    #[serde(borrow)] pub Cow<'a, str>,
    #[serde(borrow)] pub Cow<'a, str>,
    #[serde(borrow)] pub Cow<'a, str>,
);

impl<'a> Line<'a> {
    /// Makes the lines of a unit: one for each of its placements, and one if it has none.
    pub fn of(unit: &'a Unit) -> impl Iterator<Item = Self> {
        let places = (0..unit.placements.len().max(1)).map(|at| unit.placements.get(at));
        places.map(|placement| {
            let host =
                |it: &'a Placement| it.host.as_deref().map_or_else(|| it.machine.short().into(), Cow::from);
            let state = placement.and_then(|it| it.state.as_ref());
            Self(
                unit.name.as_str().into(),
                placement.map(host).unwrap_or_default(),
                active(placement).into(),
                state.map_or("", |state| &state.sub).into(),
                note(unit, placement).into(),
            )
        })
    }
}

/// Says how a unit is on a machine, as far as is known; without one it is inactive.
#[must_use]
pub fn active(placement: Option<&Placement>) -> &str {
    match placement {
        Some(placement) if !placement.machine_alive => "unknown",
        Some(placement) => placement.state.as_ref().map_or("", |state| &state.active),
        None => "inactive",
    }
}

/// Says what is not as it should be, in a few words.
#[must_use]
pub fn note(unit: &Unit, placement: Option<&Placement>) -> String {
    let why = unit.unplaced.as_ref().map(|why| format!("not placed: {why}"));
    let Some(placement) = placement else { return why.unwrap_or_default() };
    let state = placement.state.as_ref();
    let mut notes = Vec::new();
    if !placement.machine_alive {
        notes.push("machine lost".to_owned());
    }
    if let Some(why) = &placement.departing {
        notes.push(format!("leaving: {why}"));
    }
    if state.is_some_and(|s| s.stray) {
        notes.push("stray".to_owned());
    }
    if state.is_some_and(|s| s.stopped_locally) {
        notes.push("stopped on the machine".to_owned());
    }
    if let Some(problem) = state.and_then(|s| s.problem.as_ref()) {
        notes.push(problem.clone());
    }
    if placement.departing.is_none() && placement.hash.is_some() && placement.hash != unit.hash {
        notes.extend(unit.reason.clone().filter(|_| why.is_none()));
    }
    // Where it stays, it lacks no place.
    notes.extend(why.filter(|_| !placement.machine_alive || placement.departing.is_some()));
    notes.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_without_copying() {
        let json = r#"{"lines":[["web@1.service","m1","active","running",""],["a\\x2d.service","","inactive","","not placed"]],"revision":7}"#;
        let lines: Lines<'_> = serde_json::from_str(json).expect("lines");
        assert!(matches!(lines.lines[0].0, Cow::Borrowed("web@1.service")));
        assert_eq!((&*lines.lines[1].0, &*lines.lines[1].4), ("a\\x2d.service", "not placed"));
        assert_eq!(serde_json::to_string(&lines).expect("JSON"), json);
    }
}
