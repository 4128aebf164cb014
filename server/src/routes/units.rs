//! Units: lists, texts, submissions.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{HeaderValue, Uri, header::LINK},
    response::{IntoResponse as _, Response},
};
use flotilla_api::{
    action::{Outcome, Submit, UnitOutcome},
    error::{ErrorBody, ErrorKind},
    page::{PAGE_ITEMS_MAX, Page, UnitsQuery},
    unit::{Placement, Unit, UnitContent, UnitState, UnitText, Versions},
    why::Why,
};
use flotilla_engine::{PAGE_MAX, PLACEMENTS_MAX, StateReader, UnitRow};
use flotilla_registry::{
    operations::{Effect, NewText, UnitOrder, Written},
    reads::Stored,
    records::UnitRecord,
    store::Revision,
};
use flotilla_units::{SourceName, UnitFile, UnitName};
use utoipa::PartialSchema as _;

use super::fields;
use crate::{
    asked::{Asked, etag},
    error::ApiError,
    filter,
    identity::User,
    node::Node,
    rows,
};

/// How long an answer waits for the seat to show the writer's own write. The watch is a
/// millisecond behind; past two seconds the store is in trouble, and the answer is still true.
pub(super) const OWN_WRITE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// What has fields within a unit.
const WITHIN: &fields::Within = &[
    ("placements", Placement::schema),
    ("placements.state", UnitState::schema),
    ("versions", Versions::schema),
];

/// Lists units, one page, ascending by name. Where the next one is stands in the header `Link` too.
#[utoipa::path(get, path = "/v1/units", params(UnitsQuery), responses(
    (status = OK, body = Page<Unit>),
    (status = BAD_REQUEST, body = ErrorBody),
    (status = CONFLICT, body = ErrorBody, description = "the list is not as of `revision` any more: begin anew"),
))]
pub(super) async fn list_units(
    State(node): State<Arc<Node>>,
    _user: User,
    uri: Uri,
    Query(query): Query<UnitsQuery>,
) -> Result<Response, ApiError> {
    let reader = node.seat()?;
    let wanted = filter::Units::read(query.pattern.as_deref(), &query.filter())?;
    let fields = fields::read::<Unit>(query.fields.as_deref(), "name", WITHIN)?;
    let mut page = list(&reader, &query, &wanted).await?;
    if let Some(revision) = query.revision {
        // Looked at after the page was made: what came in between is seen too.
        let changed = reader
            .since(Revision(revision))
            .map_or(true, |delta| delta.units.iter().any(|name| wanted.names(name)));
        if changed {
            return Err(ApiError::new(
                ErrorKind::Conflict,
                format!(
                    "units changed since revision {revision}, or it is too long ago; begin anew without it"
                ),
            ));
        }
        page.revision = revision;
    }
    let next = page.next.as_deref().and_then(|next| link(&uri, next));
    let mut answer = fields::answer(page, fields.as_ref());
    // Whoever reads on can ask for the next page before this one has come.
    answer.headers_mut().extend(next.map(|next| (LINK, next)));
    Ok(answer)
}

/// Says where the next page is, beside the query of this one.
pub(super) fn link(uri: &Uri, from: &str) -> Option<HeaderValue> {
    let others = uri.query().unwrap_or_default().split('&');
    let others = others.filter(|pair| !pair.is_empty() && !pair.starts_with("from="));
    // Of what a unit's name may have only these two mean something else in a query; a `+` it cannot have.
    let from = format!("from={}", from.replace('\\', "%5C").replace('@', "%40"));
    let query: Vec<&str> = others.chain([&*from]).collect();
    HeaderValue::from_str(&format!("<{}?{}>; rel=\"next\"", uri.path(), query.join("&"))).ok()
}

/// Makes a page: what the filter does not let through is skipped, however much it is.
async fn list(
    reader: &StateReader,
    query: &UnitsQuery,
    wanted: &filter::Units,
) -> Result<Page<Unit>, ApiError> {
    let mut after: Option<UnitName> = query.from.as_deref().map(str::parse).transpose()?;
    let limit = query.limit.unwrap_or(PAGE_ITEMS_MAX).clamp(1, PAGE_ITEMS_MAX);
    let (mut items, mut revision, mut placements) = (Vec::<Unit>::new(), None, 0);
    let names = wanted.stretches();
    loop {
        let most = (limit - items.len()).min(PAGE_MAX);
        let rows = reader.units(&names, after.as_ref(), most, |name| wanted.names(name));
        let revision = *revision.get_or_insert(rows.revision.0);
        for unit in rows.rows.into_iter().map(|row| rows::unit(reader, row)).filter(|it| wanted.select(it)) {
            placements += unit.placements.len();
            items.push(unit);
        }
        after = rows.next;
        if after.is_none() || items.len() >= limit || placements >= PLACEMENTS_MAX {
            return Ok(Page { items, revision, next: after.map(|name| name.to_string()) });
        }
        // Where little of much is wanted, others have their turn in between.
        tokio::task::yield_now().await;
    }
}

/// Returns one unit.
#[utoipa::path(get, path = "/v1/units/{name}", params(("name" = String, Path)), responses(
    (status = OK, body = Unit, headers(("ETag", description = "its revision, for `If-Match`"))),
    (status = NOT_FOUND, body = ErrorBody),
))]
pub(super) async fn get_unit(
    State(node): State<Arc<Node>>,
    _user: User,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let reader = node.seat()?;
    let row = find(&reader, &name)?;
    Ok((etag(row.written), Json(rows::unit(&reader, row))).into_response())
}

/// Returns a unit's text.
#[utoipa::path(get, path = "/v1/units/{name}/content", params(("name" = String, Path)), responses(
    (status = OK, body = UnitContent, headers(("ETag", description = "the unit's revision, for `If-Match`"))),
    (status = NOT_FOUND, body = ErrorBody),
))]
pub(super) async fn get_content(
    State(node): State<Arc<Node>>,
    _user: User,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let reader = node.seat()?;
    let row = find(&reader, &name)?;
    // A seat may be a moment behind the store: text and revision have to be of one record. While the store
    // is away the seat's text is as good as any, and nothing can be changed anyway.
    let read = async |name: &UnitName| node.operations.registry().unit(name).await.ok().flatten();
    let has_text = |stored: &Stored<UnitRecord>| stored.record.current.is_some();
    let seen_own = row.record.as_ref().is_some_and(|record| record.current.is_some());
    let (template, stored) = match row.name.template() {
        None => (None, read(&row.name).await),
        // An instance has its template's, unless it was given one of its own.
        Some(template) => match read(&row.name).await {
            Some(own) if has_text(&own) => (None, Some(own)),
            None if seen_own => (None, None),
            _ => (Some(template.clone()), read(&template).await),
        },
    };
    let revision = stored.as_ref().map(|stored| stored.written.0);
    let hash = stored.and_then(|stored| stored.record.current).or(row.hash);
    let hash = hash.ok_or_else(|| ApiError::not_found(format!("the content of {} is missing", row.name)))?;
    let text = match reader.text(&hash) {
        Some(text) => text,
        None => node
            .operations
            .registry()
            .content(&hash)
            .await?
            .ok_or_else(|| ApiError::not_found(format!("the content {hash} is missing")))?,
    };
    let tag = etag(revision.map_or(row.written, Revision));
    Ok((tag, Json(UnitContent { name: row.name, template, hash, text, revision })).into_response())
}

/// Gives a unit that there is another text. Where it runs it is started anew with it, on the same machine;
/// the same text changes nothing.
#[utoipa::path(put, path = "/v1/units/{name}/content", params(("name" = String, Path)), request_body = UnitText,
    responses(
    (status = OK, body = Outcome),
    (status = BAD_REQUEST, body = ErrorBody),
    (status = FORBIDDEN, body = ErrorBody),
    (status = NOT_FOUND, body = ErrorBody),
    (status = CONFLICT, body = ErrorBody),
    (status = PRECONDITION_FAILED, body = ErrorBody),
    (status = UNPROCESSABLE_ENTITY, body = ErrorBody),
))]
pub(super) async fn put_content(
    State(node): State<Arc<Node>>,
    asked: Asked,
    Path(name): Path<String>,
    Json(body): Json<UnitText>,
) -> Result<Json<Outcome>, ApiError> {
    let by = asked.asker()?;
    let reader = node.seat()?;
    let name = find(&reader, &name)?.name;
    let refuse = |problems| ApiError::invalid_unit(name.as_str(), &problems);
    let file = UnitFile::parse(name.as_str(), body.text.as_bytes()).map_err(refuse)?;
    file.validate(&name).map_err(refuse)?;
    let text = NewText::replacing(body.text);
    // Whoever destroyed it meanwhile meant it.
    let order = asked.condition.on(UnitOrder { must_exist: true, ..UnitOrder::submit(text) });
    let bulk = node.operations.write(&[(name, order)], true, by).await;
    let bulk = bulk.map_err(|error| asked.condition.judge(error))?;
    Ok(Json(outcome(&node, bulk.written).await))
}

/// Says why a unit is where it is, or nowhere.
#[utoipa::path(get, path = "/v1/units/{name}/why", params(("name" = String, Path)), responses(
    (status = OK, body = Why),
    (status = NOT_FOUND, body = ErrorBody),
))]
pub(super) async fn get_why(
    State(node): State<Arc<Node>>,
    _user: User,
    Path(name): Path<String>,
) -> Result<Json<Why>, ApiError> {
    let reader = node.seat()?;
    let row = find(&reader, &name)?;
    Ok(Json(rows::why(reader.why(&row.name))))
}

/// Takes units in; new ones run nowhere yet. With `replace` a unit that there is gets the new text, and what
/// runs of it gets it in place: several instances one after the other. All are checked before the first is
/// written, and what fits into one transaction of the store (some 60 texts) is written at once or not at all;
/// more is written in several, one after the other. Should the store fail in between, the error's details name
/// those that were written, and the same again does the rest. `POST /v1/bulk` with `whole` is all or none.
#[utoipa::path(post, path = "/v1/units", request_body = Submit, responses(
    (status = OK, body = Outcome),
    (status = BAD_REQUEST, body = ErrorBody),
    (status = FORBIDDEN, body = ErrorBody),
    (status = CONFLICT, body = ErrorBody),
    (status = UNPROCESSABLE_ENTITY, body = ErrorBody),
))]
pub(super) async fn submit(
    State(node): State<Arc<Node>>,
    asked: Asked,
    Json(submit): Json<Submit>,
) -> Result<Json<Outcome>, ApiError> {
    asked
        .condition
        .refuse_for_several("PUT /v1/units/{name} takes it, and POST /v1/bulk `if_match` for each")?;
    let mut units = Vec::with_capacity(submit.units.len());
    for unit in submit.units {
        let name: SourceName = unit.name.parse()?;
        let refuse = |problems| ApiError::invalid_unit(&unit.name, &problems);
        let file = UnitFile::parse(name.as_str(), unit.text.as_bytes()).map_err(refuse)?;
        file.validate(name.runtime()).map_err(refuse)?;
        let rollout = super::bulk::rollout(submit.no_restart);
        let text = NewText { replace: submit.replace, rollout, ..NewText::first(unit.text) };
        let set = submit.set.clone();
        units.push((name.runtime().clone(), UnitOrder { set, ..UnitOrder::submit(text) }));
    }
    let bulk = node.operations.write(&units, false, asked.asker()?).await?;
    Ok(Json(outcome(&node, bulk.written).await))
}

/// Finds a unit as users name it.
pub(super) fn find(reader: &StateReader, name: &str) -> Result<UnitRow, ApiError> {
    let name = SourceName::mangle(name)?;
    let (row, _) = reader.unit(name.runtime());
    row.ok_or_else(|| no_such_unit(name.runtime()))
}

/// Says that the cluster knows no such unit.
pub(crate) fn no_such_unit(name: &UnitName) -> ApiError {
    let hint = "`flotctl list-unit-files` shows those that there are";
    ApiError::not_found(format!("there is no unit {name}; {hint}"))
}

/// Says what was written, once the seat shows it.
pub(super) async fn outcome(node: &Node, written: Vec<Written>) -> Outcome {
    let revision = written.iter().map(|one| one.revision).max().unwrap_or(Revision(0));
    if let Some(reader) = &node.reader() {
        // Late is not wrong: whoever asks next may see the units as they were, and the answer is of the write.
        let _in_time = tokio::time::timeout(OWN_WRITE_TIMEOUT, reader.reached(revision)).await;
    }
    let units = written.into_iter().map(|one| UnitOutcome {
        unit: one.unit,
        changed: one.effect != Effect::Unchanged,
        generation: one.generation,
        run: one.run,
        adopted_from: one.adopted_from,
    });
    Outcome { revision: revision.0, units: units.collect() }
}
