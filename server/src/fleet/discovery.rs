//! The API's description of itself, in the form of Google's discovery documents, from which clients were
//! generated. fleet's lacked the change of metadata; here it is in.

use std::sync::Arc;

use axum::{
    Json,
    http::StatusCode,
    routing::{MethodRouter, get},
};
use serde_json::{Value, json};

use super::refusal::Refusal;
use crate::node::Node;

/// Serves the document; to any other method fleet answered 400.
pub(super) fn route() -> MethodRouter<Arc<Node>> {
    let document = document();
    let refuse = async || Refusal::new(StatusCode::BAD_REQUEST, "only GET supported against this resource");
    get(async move || Json(document.clone())).head(refuse).fallback(refuse)
}

fn document() -> Value {
    json!({
        "kind": "discovery#restDescription",
        "discoveryVersion": "v1",
        "id": "fleet:v1",
        "name": "schema",
        "version": "v1",
        "title": "fleet API",
        "description": "units and machines of a cluster, as CoreOS fleet served them; served by flotilla",
        "protocol": "rest",
        "rootUrl": "$ENDPOINT/",
        "servicePath": "fleet/v1/",
        "baseUrl": "$ENDPOINT/fleet/v1/",
        "basePath": "/fleet/v1/",
        "batchPath": "batch",
        "icons": { "x16": "", "x32": "" },
        "labels": [],
        "parameters": {},
        "auth": {},
        "schemas": schemas(),
        "resources": {
            "Machines": { "methods": {
                "List": list("fleet.Machine.List", "machines", "MachinePage", &[]),
                "Patch": {
                    "id": "fleet.Machine.Patch",
                    "description": "Change the metadata of machines, in JSON Patch.",
                    "httpMethod": "PATCH",
                    "path": "machines",
                    "request": { "$ref": "MachineMetadataPatch" },
                },
            } },
            "Units": { "methods": {
                "List": list("fleet.Unit.List", "units", "UnitPage", &[]),
                "Get": item("fleet.Unit.Get", "GET", "Retrieve a Unit.", json!({ "response": { "$ref": "Unit" } })),
                "Delete": item("fleet.Unit.Delete", "DELETE", "Destroy a Unit.", json!({})),
                "Set": item(
                    "fleet.Unit.Set",
                    "PUT",
                    "Create a Unit, or change its options or desired state.",
                    json!({ "request": { "$ref": "Unit" } }),
                ),
            } },
            "UnitState": { "methods": {
                "List": list("fleet.UnitState.List", "state", "UnitStatePage", &["machineID", "unitName"]),
                "Get": {
                    "id": "fleet.UnitState.Get",
                    "description": "Retrieve the state of a Unit.",
                    "httpMethod": "GET",
                    "path": "state/{unitName}",
                    "parameters": { "unitName": in_path() },
                    "parameterOrder": ["unitName"],
                    "response": { "$ref": "UnitState" },
                },
            } },
        },
    })
}

fn schemas() -> Value {
    let text = || json!({ "type": "string" });
    let list = |of: &str| json!({ "type": "array", "items": { "$ref": of } });
    let page = |id: &str, name: &str, of: &str| json!({ "id": id, "type": "object", "properties": { (name): list(of), "nextPageToken": text() } });
    let state = || json!({ "type": "string", "enum": ["inactive", "loaded", "launched"] });
    json!({
        "Machine": { "id": "Machine", "type": "object", "properties": {
            "id": text(),
            "primaryIP": text(),
            "metadata": { "type": "object", "additionalProperties": text() },
        } },
        "MachinePage": page("MachinePage", "machines", "Machine"),
        "MachineMetadataPatch": { "id": "MachineMetadataPatch", "type": "array", "items": {
            "type": "object",
            "properties": {
                "op": { "type": "string", "enum": ["add", "remove", "replace"] },
                "path": { "type": "string", "description": "/MACHINE/metadata/KEY" },
                "value": { "type": "string", "description": "or an object with the string in its member `value`" },
            },
        } },
        "UnitOption": { "id": "UnitOption", "type": "object", "properties": {
            "section": text(), "name": text(), "value": text(),
        } },
        "Unit": { "id": "Unit", "type": "object", "properties": {
            "name": text(),
            "options": list("UnitOption"),
            "desiredState": state(),
            "currentState": state(),
            "machineID": text(),
        } },
        "UnitPage": page("UnitPage", "units", "Unit"),
        "UnitState": { "id": "UnitState", "type": "object", "properties": {
            "name": text(),
            "hash": text(),
            "machineID": text(),
            "systemdLoadState": text(),
            "systemdActiveState": text(),
            "systemdSubState": text(),
        } },
        "UnitStatePage": page("UnitStatePage", "states", "UnitState"),
    })
}

fn list(id: &str, path: &str, response: &str, filters: &[&str]) -> Value {
    let mut method = json!({
        "id": id,
        "description": format!("Retrieve a page of a list, a {response}."),
        "httpMethod": "GET",
        "path": path,
        "parameters": {},
        "response": { "$ref": response },
    });
    for name in filters.iter().chain(&["nextPageToken"]) {
        method["parameters"][*name] = json!({ "type": "string", "location": "query" });
    }
    method
}

fn item(id: &str, method: &str, description: &str, more: Value) -> Value {
    let mut of = json!({
        "id": id,
        "description": description,
        "httpMethod": method,
        "path": "units/{unitName}",
        "parameters": { "unitName": in_path() },
        "parameterOrder": ["unitName"],
    });
    if let (Some(of), Value::Object(more)) = (of.as_object_mut(), more) {
        of.extend(more);
    }
    of
}

fn in_path() -> Value {
    json!({ "type": "string", "location": "path", "required": true })
}
