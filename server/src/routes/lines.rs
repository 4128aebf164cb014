//! Units as the lines of a table: what `flotctl list-units` shows, and nothing more.
//!
//! A line is written as the engine shows it, under its lock, into the answer itself; of units with more to say the
//! row is asked for, one by one.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Query, State},
    http::{
        HeaderValue, Uri,
        header::{CONTENT_TYPE, LINK},
    },
    response::{IntoResponse as _, Response},
};
use flotilla_api::{
    error::ErrorBody,
    lines::{LINES_MAX, Line, Lines, LinesQuery},
    page::UnitsQuery,
};
use flotilla_engine::{Glance, PAGE_MAX, StateReader};
use flotilla_units::UnitName;

use super::units::link;
use crate::{error::ApiError, filter, identity::User, node::Node, rows};

/// How many bytes a line has, about: what an answer is given room for at first.
const LINE_BYTES: usize = 64;

/// Lists units as the lines of a table, ascending by name. Where the next part is stands in the header `Link` too.
#[utoipa::path(get, path = "/v1/unit-lines", params(LinesQuery), responses(
    (status = OK, body = Lines<'static>),
    (status = BAD_REQUEST, body = ErrorBody),
))]
pub(super) async fn lines(
    State(node): State<Arc<Node>>,
    _user: User,
    uri: Uri,
    Query(query): Query<LinesQuery>,
) -> Result<Response, ApiError> {
    let reader = node.seat()?;
    let units = UnitsQuery { kind: query.kind.clone(), ..UnitsQuery::default() };
    let wanted = filter::Units::read(query.pattern.as_deref(), &units.filter())?;
    let revision = reader.revision().0;
    let after: Option<UnitName> = query.from.as_deref().map(str::parse).transpose()?;
    let limit = query.limit.unwrap_or(LINES_MAX).clamp(1, LINES_MAX);
    let mut text = Text(Vec::with_capacity(limit.min(PAGE_MAX) * LINE_BYTES));
    let next = text.list(&reader, &wanted, after, limit).await.map(|name| name.to_string());
    let next_link = next.as_deref().and_then(|next| link(&uri, next));
    let body = text.finish(revision, next);
    let mut answer =
        ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], Bytes::from(body)).into_response();
    answer.headers_mut().extend(next_link.map(|next| (LINK, next)));
    Ok(answer)
}

/// The lines, as JSON, separated by commas.
struct Text(Vec<u8>);

impl Text {
    /// Adds the lines of at most `limit` units. Returns after which name it goes on, if it does.
    async fn list(
        &mut self,
        reader: &StateReader,
        wanted: &filter::Units,
        mut after: Option<UnitName>,
        mut limit: usize,
    ) -> Option<UnitName> {
        let (names, is_wanted) =
            (wanted.stretches(), |name: &UnitName| !name.is_template() && wanted.names(name));
        while limit > 0 {
            let mut more = None;
            let show = |glance: Glance<'_>| match glance {
                Glance::Line { name, machine, host, active, sub } => {
                    let host = host.map_or_else(|| machine.short().into(), Into::into);
                    self.add(&Line(name.as_str().into(), host, active.into(), sub.into(), "".into()));
                }
                Glance::More(name) => more = Some(name.clone()),
            };
            let (shown, next) = reader.glance(&names, after.as_ref(), limit.min(PAGE_MAX), is_wanted, show);
            if let Some(name) = more {
                self.add_row(reader, &name);
            }
            limit -= shown.min(limit);
            after = Some(next?);
            // Others have their turn in between.
            tokio::task::yield_now().await;
        }
        after
    }

    /// Adds the lines of a unit of which there is more to say; none if it has gone meanwhile.
    fn add_row(&mut self, reader: &StateReader, name: &UnitName) {
        if let Some(row) = reader.unit(name).0 {
            let unit = rows::unit(reader, row);
            Line::of(&unit).for_each(|line| self.add(&line));
        }
    }

    fn add(&mut self, line: &Line<'_>) {
        if !self.0.is_empty() {
            self.0.push(b',');
        }
        // Texts always serialize, and a vector takes them.
        let _written = serde_json::to_writer(&mut self.0, line);
    }

    /// Puts the rest of an answer around the lines.
    fn finish(mut self, revision: i64, next: Option<String>) -> Vec<u8> {
        let rest = serde_json::to_vec(&Lines { lines: Vec::new(), revision, next }).unwrap_or_default();
        // `{"lines":[` and what is behind.
        let at = rest.iter().position(|byte| *byte == b']').unwrap_or_default();
        let (begin, end) = rest.split_at(at);
        self.0.splice(0..0, begin.iter().copied());
        self.0.extend_from_slice(end);
        self.0
    }
}
