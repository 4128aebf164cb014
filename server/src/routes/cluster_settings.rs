//! What operators set for the whole cluster.

use std::sync::Arc;

use axum::{Json, extract::State, http::HeaderName};
use flotilla_api::{
    cluster::{ClusterSettings, SettingsChange},
    error::{ErrorBody, ErrorKind},
};
use flotilla_registry::{
    operations::{SettingsError, SettingsOrder},
    records,
    store::Revision,
};

use crate::{
    asked::{Asked, etag},
    error::{ApiError, chain},
    identity::User,
    node::Node,
};

/// Settings, with their revision as `ETag`.
type Answer = ([(HeaderName, String); 1], Json<ClusterSettings>);

/// Says what is set for the whole cluster.
#[utoipa::path(get, path = "/v1/cluster/settings", responses(
    (status = OK, body = ClusterSettings, headers(("ETag", description = "their revision, for `If-Match`"))),
))]
pub(super) async fn get_settings(State(node): State<Arc<Node>>, _user: User) -> Result<Answer, ApiError> {
    Ok(answer(node.operations.settings().await?))
}

/// Sets something for the whole cluster: every engine goes by it from now on.
#[utoipa::path(patch, path = "/v1/cluster/settings", request_body = SettingsChange,
    params(("If-Match" = Option<String>, Header, description = "the ETag of the settings as they were read")),
    responses(
        (status = OK, body = ClusterSettings),
        (status = BAD_REQUEST, body = ErrorBody),
        (status = FORBIDDEN, body = ErrorBody),
        (status = PRECONDITION_FAILED, body = ErrorBody),
    ))]
pub(super) async fn set_settings(
    State(node): State<Arc<Node>>,
    asked: Asked,
    Json(change): Json<SettingsChange>,
) -> Result<Answer, ApiError> {
    let expected = asked.condition.revision();
    // More than fits is out of bounds too, and refused with them.
    let events_max = change.events_max.map(|max| usize::try_from(max).unwrap_or(usize::MAX));
    let order = SettingsOrder { events_kept_s: change.events_kept_s, events_max, expected };
    Ok(answer(node.operations.configure(order, asked.asker()?).await?))
}

fn answer((settings, written): (records::ClusterSettings, Revision)) -> Answer {
    let body = ClusterSettings {
        events_kept_s: settings.events_kept_s,
        events_max: settings.events_max as u64,
        revision: written.0,
    };
    (etag(written), Json(body))
}

impl From<SettingsError> for ApiError {
    fn from(error: SettingsError) -> Self {
        let kind = match &error {
            SettingsError::EventsKept(_) | SettingsError::EventsMax(_) => ErrorKind::BadRequest,
            SettingsError::RevisionDiffers { .. } => ErrorKind::RevisionDiffers,
            SettingsError::Unreadable(_) => ErrorKind::Internal,
            SettingsError::Contended(_) => ErrorKind::Conflict,
            SettingsError::Store(_) => ErrorKind::Unavailable,
        };
        Self::new(kind, chain(&error))
    }
}
