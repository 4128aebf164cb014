//! What comes with every request that changes something: who asks, the request's id, and at which
//! revision it is meant.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::IF_MATCH, request::Parts},
};
use flotilla_api::REQUEST_ID;
use flotilla_registry::{operations::Asker, store::Revision};

use crate::{error::ApiError, identity::User};

/// The longest request id that is taken, in bytes: a UUID has 36, and it is kept with every event.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Who asks for a change, and how.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    user: User,
    request: String,
    /// `If-Match`: only if what it is about was last written at this revision.
    pub(crate) expected: Option<Revision>,
}

impl Asked {
    /// Returns who asks, for the event of what comes of it.
    ///
    /// # Errors
    /// They may not change anything.
    pub(crate) fn asker(&self) -> Result<Asker<'_>, ApiError> {
        Ok(Asker { by: self.user.may_write()?, request: Some(&self.request) })
    }
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let user = User::from_request_parts(parts, state).await?;
        Ok(Self { user, request: request_id(&parts.headers)?, expected: if_match(&parts.headers)? })
    }
}

/// Returns the request's id, or makes one.
fn request_id(headers: &HeaderMap) -> Result<String, ApiError> {
    let Some(value) = headers.get(REQUEST_ID) else {
        return Ok(format!("{:032x}", rand::random::<u128>()));
    };
    let text = value.to_str().ok().filter(|text| !text.is_empty() && text.len() <= REQUEST_ID_BYTES_MAX);
    text.map(ToOwned::to_owned).ok_or_else(|| {
        ApiError::bad_request(format!(
            "{REQUEST_ID} has to be a text of at most {REQUEST_ID_BYTES_MAX} bytes"
        ))
    })
}

/// Reads `If-Match`: a revision, in the quotes that an `ETag` has or without them; `*` says nothing.
fn if_match(headers: &HeaderMap) -> Result<Option<Revision>, ApiError> {
    let Some(value) = headers.get(IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim().trim_matches('"');
    if text == "*" {
        return Ok(None);
    }
    let revision = text.parse().ok().filter(|revision| *revision >= 0);
    revision.map(|revision| Some(Revision(revision))).ok_or_else(|| {
        ApiError::bad_request(
            "If-Match has to be one revision, as the ETag of an answer gives it: a number, in quotes or without",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(axum::http::HeaderName::from_static(name), value.parse().expect("a value"))])
    }

    #[test]
    fn a_revision_is_read_as_etags_have_it() {
        for (text, expected) in [("\"12\"", Some(12)), ("12", Some(12)), ("0", Some(0)), ("*", None)] {
            assert_eq!(if_match(&headers("if-match", text)).expect(text), expected.map(Revision), "{text}");
        }
        for text in ["\"a\"", "W/\"1\"", "1, 2", "-1", ""] {
            assert!(if_match(&headers("if-match", text)).is_err(), "{text}");
        }
        assert_eq!(if_match(&HeaderMap::new()).expect("nothing"), None);
    }

    #[test]
    fn a_request_has_an_id() {
        assert_eq!(request_id(&headers(REQUEST_ID, "r-7")).expect("taken"), "r-7");
        assert_eq!(request_id(&HeaderMap::new()).expect("made").len(), 32);
        assert!(request_id(&headers(REQUEST_ID, &"x".repeat(129))).is_err());
    }
}
