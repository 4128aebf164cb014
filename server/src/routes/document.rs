//! What goes for all operations of a kind, said in the OpenAPI document of each.
//!
//! A route says what is its own; what every write may answer, or every route that needs a seat, stands here, so
//! that none forgets it.

use utoipa::openapi::{
    ContentBuilder, ObjectBuilder, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder,
    path::{HttpMethod, Operation, Parameter, ParameterBuilder, ParameterIn, PathItem},
    schema::Type,
};

/// What may be written under the condition that it is as it was seen, besides what says so itself.
const CONDITIONAL: [&str; 7] =
    ["put_content", "set_settings", "change_metadata", "cordon", "uncordon", "drain", "end_drain"];

/// What is asked with a method of writing and changes nothing.
const READS: [&str; 3] = ["plan", "survey", "open_session"];

/// Says what every route that needs a seat may answer.
pub(super) fn needs_seat(document: &mut OpenApi) {
    for (_, operation) in operations(document) {
        answer(operation, "503", "no engine has a seat, or the store or a machine does not answer");
    }
}

/// Says what goes for writes, streams and requests with a body.
pub(super) fn complete(document: &mut OpenApi) {
    for (method, operation) in operations(document) {
        let id = operation.operation_id.clone().unwrap_or_default();
        if CONDITIONAL.contains(&id.as_str()) {
            header(
                operation,
                "If-Match",
                "the ETag that it was read with: nothing is done if it was changed since",
            );
            answer(operation, "412", "it is at another revision");
        }
        if streams(operation) {
            header(
                operation,
                "Last-Event-ID",
                "the id of the last event that was read: what came since is told",
            );
        }
        header(operation, "X-Request-Id", "names the request in events and logs; made where there is none");
        if operation.request_body.is_some() {
            answer(operation, "413", "the body is more than 16 MiB, or more than one transaction takes");
        }
        if method != HttpMethod::Get && !READS.contains(&id.as_str()) {
            answer(operation, "409", "others kept changing the same; try again");
            answer(operation, "504", "it is not known whether it took effect; look before trying again");
        }
    }
}

fn operations(document: &mut OpenApi) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    document.paths.paths.values_mut().flat_map(of_path)
}

fn of_path(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    let PathItem { get, put, post, patch, delete, .. } = item;
    let all = [
        (HttpMethod::Get, get.as_mut()),
        (HttpMethod::Put, put.as_mut()),
        (HttpMethod::Post, post.as_mut()),
        (HttpMethod::Patch, patch.as_mut()),
        (HttpMethod::Delete, delete.as_mut()),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation?)))
}

fn streams(operation: &Operation) -> bool {
    let answers = operation.responses.responses.values();
    answers.into_iter().any(|answer| match answer {
        RefOr::T(response) => response.content.contains_key("text/event-stream"),
        RefOr::Ref(_) => false,
    })
}

/// Adds a header that an operation takes, if it does not say so itself.
fn header(operation: &mut Operation, name: &str, description: &str) {
    let parameters = operation.parameters.get_or_insert_default();
    let is_named = |it: &RefOr<Parameter>| matches!(it, RefOr::T(it) if it.name.eq_ignore_ascii_case(name));
    if parameters.iter().any(is_named) {
        return;
    }
    let text = ObjectBuilder::new().schema_type(Type::String).build();
    let header = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(text));
    parameters.push(header.build().into());
}

/// Adds a refusal, if an operation does not say itself what the status means there.
fn answer(operation: &mut Operation, status: &str, description: &str) {
    let answers = &mut operation.responses.responses;
    answers.entry(status.to_owned()).or_insert_with(|| refusal(description).into());
}

fn refusal(description: &str) -> Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
    ResponseBuilder::new().description(description).content("application/json", body).build()
}
