//! Lists of which a reader wants a few fields of each item only.

use std::collections::BTreeSet;

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use flotilla_api::page::Page;
use serde::Serialize;
use serde_json::Value;
use utoipa::{
    PartialSchema,
    openapi::{RefOr, Schema},
};

use crate::{error::ApiError, filter::words};

/// Reads the fields that are wanted, and the one that is always there; `None` means all.
///
/// # Errors
/// An item has no field of that name.
pub(super) fn read<T: PartialSchema>(
    text: Option<&str>,
    key: &str,
) -> Result<Option<BTreeSet<String>>, ApiError> {
    let mut wanted: BTreeSet<String> = words(text).map(str::to_owned).collect();
    if wanted.is_empty() {
        return Ok(None);
    }
    let known: Vec<String> = match T::schema() {
        RefOr::T(Schema::Object(object)) => object.properties.keys().cloned().collect(),
        _ => Vec::new(),
    };
    if let Some(odd) = wanted.iter().find(|field| !known.contains(field)) {
        let known = known.join(", ");
        return Err(ApiError::bad_request(format!("there is no field `{odd}`; expected some of {known}")));
    }
    wanted.insert(key.to_owned());
    Ok(Some(wanted))
}

/// Answers with a page, and with these fields of each item.
pub(super) fn answer<T: Serialize>(page: Page<T>, fields: Option<&BTreeSet<String>>) -> Response {
    let Some(fields) = fields else { return Json(page).into_response() };
    let items = page.items.into_iter().map(|item| match serde_json::to_value(item) {
        Ok(Value::Object(mut object)) => {
            object.retain(|name, _| fields.contains(name));
            Value::Object(object)
        }
        // The wire's items are objects: there is nothing else to leave out of.
        Ok(other) => other,
        Err(_) => Value::Null,
    });
    Json(Page { items: items.collect(), revision: page.revision, next: page.next }).into_response()
}
