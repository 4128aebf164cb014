//! Lists of which a reader wants a few fields of each item only.
//!
//! A field within another is named with a dot: `placements.host`. What is not wanted is left out where the item
//! is written, and costs nothing.

mod only;

use std::collections::BTreeMap;

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use flotilla_api::page::Page;
use utoipa::{
    PartialSchema,
    openapi::{RefOr, Schema},
};

use only::Only;

use crate::{error::ApiError, filter::words};

/// Which fields are wanted of an item, by name; of one that has some below it, only those.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields(BTreeMap<String, Self>);

/// The fields of what is within an item, by where it is.
pub(super) type Within = [(&'static str, fn() -> RefOr<Schema>)];

impl Fields {
    /// Tells whether everything is wanted that there is.
    fn is_all(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads the fields that are wanted, and the one that is always there; `None` means all.
///
/// # Errors
/// An item has no field of that name.
pub(super) fn read<T: PartialSchema>(
    text: Option<&str>,
    key: &str,
    within: &Within,
) -> Result<Option<Fields>, ApiError> {
    let mut wanted = Fields::default();
    for path in words(text) {
        let mut at = &mut wanted;
        let mut schema = Some(T::schema());
        let mut is_new = true;
        for (depth, field) in path.split('.').enumerate() {
            let known = schema.as_ref().map(names).unwrap_or_default();
            if !known.iter().any(|name| name == field) {
                let known = known.join(", ");
                return Err(ApiError::bad_request(format!(
                    "there is no field `{path}`; expected some of {known}"
                )));
            }
            let until: usize = path.split('.').take(depth + 1).map(|field| field.len() + 1).sum();
            schema =
                within.iter().find(|(place, _)| *place == &path[..until - 1]).map(|(_, schema)| schema());
            // All of it was asked for before: a part of it is in it.
            if !is_new && at.is_all() {
                break;
            }
            is_new = !at.0.contains_key(field);
            at = at.0.entry(field.to_owned()).or_default();
        }
        // All of it is wanted, whatever part was before.
        at.0.clear();
    }
    if wanted.is_all() {
        return Ok(None);
    }
    wanted.0.entry(key.to_owned()).or_default();
    Ok(Some(wanted))
}

fn names(schema: &RefOr<Schema>) -> Vec<String> {
    match schema {
        RefOr::T(Schema::Object(object)) => object.properties.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

/// Answers with a page, and with these fields of each item.
pub(super) fn answer<T: serde::Serialize>(page: Page<T>, fields: Option<&Fields>) -> Response {
    let Some(fields) = fields else { return Json(page).into_response() };
    let items = page.items.iter().map(|item| Only::new(item, fields)).collect();
    Json(Page { items, revision: page.revision, next: page.next }).into_response()
}

#[cfg(test)]
mod tests {
    use flotilla_api::unit::{Placement, Unit, UnitState};

    use super::*;

    const WITHIN: &Within = &[("placements", Placement::schema), ("placements.state", UnitState::schema)];

    fn only(text: &str) -> serde_json::Value {
        let unit: Unit = serde_json::from_value(serde_json::json!({
            "name": "a.service", "target": "launched", "generation": 1, "run": 1, "by": "ann",
            "at": "2026-11-22T14:00:00Z", "placements": [{
                "machine": "00000000000000000000000000000001", "host": "m1", "machine_alive": true, "token": 7, "run": 1,
                "state": { "load": "loaded", "active": "active", "sub": "running" },
            }],
        }))
        .expect("a unit");
        let fields = read::<Unit>(Some(text), "name", WITHIN).expect("fields").expect("some");
        serde_json::to_value(Only::new(&unit, &fields)).expect("JSON")
    }

    #[test]
    fn a_part_of_an_item_is_what_was_named_of_it() {
        assert_eq!(only("target"), serde_json::json!({ "name": "a.service", "target": "launched" }));
        assert_eq!(
            only("placements.host,placements.state.active"),
            serde_json::json!({ "name": "a.service", "placements": [{ "host": "m1", "state": { "active": "active" } }] })
        );
        let whole = only("placements");
        assert_eq!(whole["placements"][0]["token"], 7);
        for both in ["placements.host,placements", "placements,placements.host"] {
            assert_eq!(only(both), whole, "{both}");
        }
        assert_eq!(only("reason"), serde_json::json!({ "name": "a.service" }), "it has none");
    }

    #[test]
    fn what_there_is_not_is_refused() {
        let refused = |text: &str| read::<Unit>(Some(text), "name", WITHIN).expect_err(text).0.message;
        assert!(refused("colour").contains("no field `colour`; expected some of at, by"));
        assert!(refused("placements.colour").contains("`placements.colour`; expected some of"));
        assert!(refused("placements.state.colour").contains("active"));
        assert!(refused("name.first").contains("`name.first`"));
        assert_eq!(read::<Unit>(None, "name", WITHIN).expect("valid"), None);
    }
}
