//! What comes with every request that changes something: who asks, by which request, and at which
//! revision of what it changes.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, header, request::Parts},
};
use flotilla_api::error::ErrorKind;
use flotilla_engine::StateReader;
use flotilla_registry::{
    operations::{Asker, OperationError, UnitOrder},
    store::Revision,
};
use flotilla_units::{MachineId, UnitName};

use crate::{error::ApiError, identity::User, request::RequestId};

/// Who asks for a change, and how.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    user: User,
    request: Arc<str>,
    /// At which revision.
    pub(crate) condition: Condition,
}

/// What a request says of the revision of what it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Nothing.
    Any,
    /// It is there (`If-Match: *`).
    There,
    /// It is at this revision; zero: it is not there (`If-None-Match: *`).
    At(Revision),
}

impl Asked {
    /// Returns who asks, for the event of what comes of it.
    ///
    /// # Errors
    /// They may not change anything.
    pub(crate) fn asker(&self) -> Result<Asker<'_>, ApiError> {
        Ok(Asker { by: self.user.may_write()?, request: Some(&self.request) })
    }

    /// Returns who asks, to ask another in their name.
    pub(crate) const fn user(&self) -> &User {
        &self.user
    }
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let user = User::from_request_parts(parts, state).await?;
        Ok(Self { user, request: RequestId::of(parts), condition: Condition::read(&parts.headers)? })
    }
}

impl Condition {
    /// Reads the two headers. A revision may stand in the quotes that an `ETag` has or without them.
    ///
    /// # Errors
    /// They are not what this server gives as `ETag`.
    fn read(headers: &HeaderMap) -> Result<Self, ApiError> {
        let text = |name: HeaderName| -> Result<Option<&str>, ApiError> {
            let value = headers.get(&name).map(|value| value.to_str().map(str::trim));
            value.transpose().map_err(|_| ApiError::bad_request(format!("{name} is not text")))
        };
        match (text(header::IF_MATCH)?, text(header::IF_NONE_MATCH)?) {
            (None, None) => Ok(Self::Any),
            (None, Some("*")) => Ok(Self::At(Revision(0))),
            (Some("*"), None) => Ok(Self::There),
            (Some(tag), None) => {
                let revision = tag.trim_matches('"').parse().ok().filter(|revision| *revision >= 0);
                revision.map(|at| Self::At(Revision(at))).ok_or_else(|| {
                    ApiError::bad_request(format!(
                        "If-Match `{tag}` is not a revision: expected the ETag of an answer, a number in quotes or \
                         without"
                    ))
                })
            }
            (None, Some(other)) => Err(ApiError::bad_request(format!(
                "If-None-Match `{other}` is not known here; `*` says that it is to be new"
            ))),
            (Some(_), Some(_)) => Err(ApiError::bad_request(
                "If-Match and If-None-Match contradict each other; send one of them",
            )),
        }
    }

    /// Returns the revision to compare, where one was said.
    pub(crate) const fn revision(self) -> Option<Revision> {
        match self {
            Self::Any | Self::There => None,
            Self::At(revision) => Some(revision),
        }
    }

    /// Makes an order about a unit hold under this condition only. It is the store's record that decides: a
    /// seat may be a moment behind it.
    pub(crate) fn on(self, order: UnitOrder) -> UnitOrder {
        let must_exist = order.must_exist || self == Self::There;
        UnitOrder { expected: self.revision(), must_exist, ..order }
    }

    /// Returns the revision to compare for what users say of a machine.
    ///
    /// # Errors
    /// The machine has to be known, and is not: it was never here, and nobody said anything of it.
    pub(crate) fn expected_of_machine(
        self,
        reader: &StateReader,
        machine: MachineId,
    ) -> Result<Option<Revision>, ApiError> {
        if self == Self::There && reader.machine(machine).is_none() {
            let why =
                format!("machine {machine} is not known to the cluster, and If-Match: * asks that it is");
            return Err(ApiError::new(ErrorKind::RevisionDiffers, why));
        }
        Ok(self.revision())
    }

    /// Compares a unit's revision as the seat shows it, for a request that writes nothing.
    ///
    /// # Errors
    /// The unit is at another one.
    pub(crate) fn check(self, reader: &StateReader, unit: &UnitName) -> Result<(), ApiError> {
        let found = reader.unit(unit).0.map_or(Revision(0), |row| row.written);
        if self == Self::There && found == Revision(0) {
            return Err(not_there(unit));
        }
        match self.revision().filter(|expected| *expected != found) {
            Some(expected) => {
                Err(OperationError::RevisionDiffers { unit: unit.clone(), expected, found }.into())
            }
            None => Ok(()),
        }
    }

    /// Refuses a condition of a request that is about nothing with a revision: `why` says so.
    ///
    /// # Errors
    /// There is one.
    pub(crate) fn refuse(self, why: &str) -> Result<(), ApiError> {
        match self {
            Self::Any => Ok(()),
            Self::There | Self::At(_) => Err(ApiError::bad_request(format!(
                "If-Match and If-None-Match have no meaning here: {why}; leave them out"
            ))),
        }
    }

    /// Says what a refusal of a write under this condition means: that it is not there is what
    /// `If-Match: *` asked to be told of.
    pub(crate) fn judge(self, error: OperationError) -> ApiError {
        match error {
            OperationError::NoSuchUnit(unit) if self == Self::There => not_there(&unit),
            other => other.into(),
        }
    }

    /// Refuses a condition of a request that is about several units: `instead` says how one is put
    /// there. To pass it over would be to do what was not to be done.
    ///
    /// # Errors
    /// There is one.
    pub(crate) fn refuse_for_several(self, instead: &str) -> Result<(), ApiError> {
        match self {
            Self::Any => Ok(()),
            Self::There | Self::At(_) => Err(ApiError::bad_request(format!(
                "If-Match and If-None-Match are about one unit; {instead}"
            ))),
        }
    }
}

fn not_there(unit: &UnitName) -> ApiError {
    let why = format!("`{unit}` is not in the cluster, and If-Match: * asks that it is");
    ApiError::new(ErrorKind::RevisionDiffers, why)
}

/// Writes the `ETag` of a revision.
pub(crate) fn etag(revision: Revision) -> [(HeaderName, String); 1] {
    [(header::ETAG, format!("\"{}\"", revision.0))]
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(pairs: &[(HeaderName, &'static str)]) -> Result<Condition, ErrorKind> {
        let headers = pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        Condition::read(&headers.collect()).map_err(|error| error.0.kind)
    }

    #[test]
    fn conditions_are_revisions_or_stars() {
        assert_eq!(read(&[]), Ok(Condition::Any));
        for text in ["\"12\"", "12"] {
            assert_eq!(read(&[(header::IF_MATCH, text)]), Ok(Condition::At(Revision(12))), "{text}");
        }
        assert_eq!(read(&[(header::IF_MATCH, "0")]), Ok(Condition::At(Revision(0))));
        assert_eq!(read(&[(header::IF_MATCH, "*")]), Ok(Condition::There));
        assert_eq!(read(&[(header::IF_NONE_MATCH, "*")]), Ok(Condition::At(Revision(0))));
        for text in ["\"a\"", "W/\"1\"", "1, 2", "-1", ""] {
            assert_eq!(read(&[(header::IF_MATCH, text)]), Err(ErrorKind::BadRequest), "{text}");
        }
        assert_eq!(read(&[(header::IF_NONE_MATCH, "\"3\"")]), Err(ErrorKind::BadRequest));
        let both = [(header::IF_MATCH, "*"), (header::IF_NONE_MATCH, "*")];
        assert_eq!(read(&both), Err(ErrorKind::BadRequest));
    }
}
