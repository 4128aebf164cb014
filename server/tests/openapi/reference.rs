//! The API's reference for people, made from the OpenAPI document.

use std::fmt::Write as _;

use flotilla_api::error::ErrorKind;
use serde_json::{Map, Value};

/// One example of each kind of error, as the API answers it.
const EXAMPLES: [(&str, &str); 12] = [
    ("bad-request", "`running` is not a target; expected inactive, loaded or launched"),
    ("invalid-unit", "web.service is not a valid unit file"),
    ("forbidden", "the certificate of machine 113f16a7 may read only; use a user's"),
    ("not-found", "there is no unit web.service; `flotctl list-unit-files` shows those that there are"),
    (
        "conflict",
        "`web.service` is being destroyed; its name is free once it is proven gone from every machine (`flotctl \
         status` tells where it still is)",
    ),
    (
        "revision-differs",
        "`web.service` is at revision 42, not at 17 as asked for: it was changed meanwhile; look at it and decide again",
    ),
    ("too-large", "the unit file of `web.service` has 2000000 bytes; the store takes up to 1556480"),
    ("not-placed", "web.service is on no machine"),
    ("unavailable", "no engine leads, so nothing is held"),
    ("frozen", "the store went back; nothing is started or stopped until `flotctl cluster accept-store`"),
    (
        "outcome-unknown",
        "it is not known whether the change of `web.service` took effect, because the store stopped answering; look \
         at their status before trying again",
    ),
    (
        "internal",
        "a record that this is about cannot be read, so it is left alone; mend or delete it in the store",
    ),
];

const INTRODUCTION: &str = "# The HTTP API

Made from the code by `UPDATE_OPENAPI=1 cargo test -p flotilla-server --test openapi`; not to be edited. Every flotillad
serves the same as a document for programs at `/openapi.json`.

- **Where.** The unix socket `/run/flotilla/api.sock` (root and the group `flotilla`), and TCP port 7400 with a certificate of
  the cluster. Any machine may be asked; what it cannot answer itself it forwards.
- **Requests by name.** A request may have an `X-Request-Id` (letters, digits and `-_.:/+=@`, at most 128); one without
  gets one. It comes back with the answer, and stands in the events and in the journal of what the request changed.
- **Conditions.** What can be read with an `ETag` can be written with `If-Match`: nothing is done to what was changed
  since (412, with both revisions). `If-None-Match: *` asks that the unit is new.
- **Lists** come in pages: `next` of one is `from` of the following. Of units that stands in the header `Link` too, so that the
  next page can be asked for before this one has come. Filters are given as query parameters and all have to hold; an
  unknown one is refused. `fields` leaves out what is not needed, also within (`placements.host`).
- **Ranges** of a template's instances are written `web@{1..1000}.service`: where lists and watches take a pattern, and in
  `POST /v1/orders/bulk`, whose answer and `GET /v1/tally` are as long for a million as for ten.
- **Streams** are server-sent events. Each `id:` is a place to go on from: send it as `Last-Event-ID` after a lost connection,
  and nothing is missed.

```console
$ curl --unix-socket /run/flotilla/api.sock 'http://localhost/v1/units?failed=true&fields=name,placements'
$ curl --unix-socket /run/flotilla/api.sock -X PUT -H 'If-None-Match: *' -H 'Content-Type: application/json' \\
    -d '{\"text\": \"[Service]\\nExecStart=/bin/sleep 60\\n\", \"target\": \"launched\"}' http://localhost/v1/units/nap.service
```
";

/// Writes the page.
pub fn page(document: &Value) -> String {
    let mut out = INTRODUCTION.to_owned();
    let routes = routes(document);
    out.push_str("\n## Routes\n\n| route | what it does |\n| --- | --- |\n");
    for (method, path, operation) in &routes {
        let anchor = anchor(&format!("{method} {path}"));
        let _ = writeln!(out, "| [`{method} {path}`](#{anchor}) | {} |", cell(summary(operation)));
    }
    for (method, path, operation) in &routes {
        route(&mut out, method, path, operation);
    }
    errors(&mut out, document);
    types(&mut out, document);
    out
}

/// Returns every route with its method, as the document orders them.
fn routes(document: &Value) -> Vec<(String, &str, &Value)> {
    let mut found = Vec::new();
    for (path, item) in object(&document["paths"]) {
        for method in ["get", "post", "put", "patch", "delete"] {
            if let Some(operation) = item.get(method) {
                found.push((method.to_uppercase(), path.as_str(), operation));
            }
        }
    }
    found
}

fn route(out: &mut String, method: &str, path: &str, operation: &Value) {
    let _ = write!(out, "\n### {method} {path}\n\n{}\n", summary(operation));
    if let Some(more) = operation["description"].as_str() {
        let _ = write!(out, "\n{}\n", prose(more));
    }
    let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !parameters.is_empty() {
        out.push_str("\n| parameter | in | type | meaning |\n| --- | --- | --- | --- |\n");
    }
    for parameter in parameters {
        let text = |key: &str| parameter[key].as_str().unwrap_or_default();
        let kind = kind_of(&parameter["schema"]);
        let _ =
            writeln!(out, "| `{}` | {} | {kind} | {} |", text("name"), text("in"), cell(text("description")));
    }
    if let Some(schema) = operation.pointer("/requestBody/content/application~1json/schema") {
        let _ = write!(out, "\nBody: {}\n", kind_of(schema));
    }
    out.push_str("\n| answer | body | meaning |\n| --- | --- | --- |\n");
    for (status, response) in object(&operation["responses"]) {
        let content = object(&response["content"]).next();
        let body = content.map_or_else(String::new, |(media, content)| {
            let stream = if media == "text/event-stream" { "a stream of " } else { "" };
            format!("{stream}{}", kind_of(&content["schema"]))
        });
        let _ = writeln!(
            out,
            "| {status} | {body} | {} |",
            cell(response["description"].as_str().unwrap_or_default())
        );
    }
}

fn errors(out: &mut String, document: &Value) {
    let kinds = document.pointer("/components/schemas/ErrorKind/enum").and_then(Value::as_array).unwrap();
    out.push_str("\n## Errors\n\nEvery answer that is no success has an [ErrorBody](#errorbody).\n\n");
    out.push_str("| kind | status | an example of its `message` |\n| --- | --- | --- |\n");
    assert_eq!(kinds.len(), EXAMPLES.len(), "each kind of error has one example");
    for kind in kinds {
        let name = kind.as_str().unwrap();
        let status = serde_json::from_value::<ErrorKind>(kind.clone()).unwrap().status();
        let (_, example) = EXAMPLES.iter().find(|(of, _)| *of == name).unwrap();
        let _ = writeln!(out, "| `{name}` | {status} | {} |", cell(example));
    }
}

fn types(out: &mut String, document: &Value) {
    out.push_str("\n## Types\n");
    for (name, schema) in object(&document["components"]["schemas"]) {
        let _ =
            write!(out, "\n### {name}\n\n{}\n", prose(schema["description"].as_str().unwrap_or_default()));
        if let Some(branches) = schema["oneOf"].as_array() {
            for branch in branches {
                let _ = write!(out, "\n- {}", prose(branch["description"].as_str().unwrap_or_default()));
                let tag = object(&branch["properties"])
                    .find_map(|(key, of)| Some(format!(" (`{key}`: {})", of["enum"].as_array()?.first()?)));
                out.push_str(&tag.unwrap_or_default());
                for (field, of) in object(&branch["properties"]).filter(|(_, of)| of["enum"].is_null()) {
                    let about = prose(of["description"].as_str().unwrap_or_default());
                    let _ = write!(out, "\n  - `{field}`: {}. {about}", kind_of(of));
                }
            }
            out.push('\n');
        }
        if let Some(values) = schema["enum"].as_array() {
            let values: Vec<String> =
                values.iter().map(|value| format!("`{}`", value.as_str().unwrap())).collect();
            let _ = write!(out, "\nOne of {}.\n", values.join(", "));
        }
        fields(out, schema);
    }
}

fn fields(out: &mut String, schema: &Value) {
    let Some(properties) = schema["properties"].as_object() else { return };
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    out.push_str("\n| field | type | meaning |\n| --- | --- | --- |\n");
    for (field, of) in properties {
        let optional = if required.iter().any(|it| it == field) { "" } else { "; may be absent" };
        let about = cell(of["description"].as_str().unwrap_or_default());
        let _ = writeln!(out, "| `{field}` | {}{optional} | {about} |", kind_of(of));
    }
}

/// Says what a schema is, with a link where it has a name.
fn kind_of(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|it| it.rsplit('/').next()) {
        return format!("[{name}](#{})", anchor(name));
    }
    let many = schema["oneOf"].as_array().or_else(|| schema["allOf"].as_array());
    if let Some(first) = many.and_then(|many| many.iter().find(|it| it["type"] != "null")) {
        return kind_of(first);
    }
    let of = &schema["type"];
    let word = of.as_array().and_then(|all| all.iter().find(|it| *it != "null")).unwrap_or(of);
    match (word.as_str(), schema["format"].as_str()) {
        (Some("array"), _) => format!("list of {}", kind_of(&schema["items"])),
        (Some("string"), Some("date-time")) => "time (RFC 3339)".to_owned(),
        (Some("object"), _) if schema["additionalProperties"].is_object() => {
            format!("map of {}", kind_of(&schema["additionalProperties"]))
        }
        (Some(word), _) => word.to_owned(),
        (None, _) => "any".to_owned(),
    }
}

fn summary(operation: &Value) -> &str {
    operation["summary"].as_str().unwrap_or_default()
}

/// Puts a text into a cell of a table.
fn cell(text: &str) -> String {
    prose(text).replace('|', "\\|")
}

/// Writes a doc comment as text: in one line, its links as what they are about.
fn prose(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace("[`PAGE_ITEMS_MAX`]", "1000").replace("[`", "`").replace("`]", "`")
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}
