//! How the API says no.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What kind of error, for programs.
    pub kind: ErrorKind,
    /// What is wrong and what to do, for people.
    pub message: String,
    /// Single findings, where there are several: one line each, with file, line and column for
    /// unit files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// What kind of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The request cannot be understood (400).
    BadRequest,
    /// A unit file is not valid (422).
    InvalidUnit,
    /// The peer may not do this (403).
    Forbidden,
    /// No such unit or machine (404).
    NotFound,
    /// It contradicts what is there (409).
    Conflict,
    /// It was asked for only at a revision that is not the present one (412).
    RevisionDiffers,
    /// The request is too large (413).
    TooLarge,
    /// The unit is on no machine, or not on one that can be asked (409).
    NotPlaced,
    /// The store, a seat or a machine could not be reached (503).
    Unavailable,
    /// The store went back or was wiped; everything is frozen until an operator says otherwise (503).
    Frozen,
    /// Whether the change took effect is not known; read before repeating (504).
    OutcomeUnknown,
    /// A fault in flotilla (500).
    Internal,
}

impl ErrorKind {
    /// Returns the HTTP status code that goes with it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict | Self::NotPlaced => 409,
            Self::RevisionDiffers => 412,
            Self::TooLarge => 413,
            Self::InvalidUnit => 422,
            Self::Internal => 500,
            Self::Unavailable | Self::Frozen => 503,
            Self::OutcomeUnknown => 504,
        }
    }
}

impl std::fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        self.details.iter().try_for_each(|detail| write!(f, "\n{detail}"))
    }
}

impl std::error::Error for ErrorBody {}
