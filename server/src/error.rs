//! How a route says no.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use flotilla_agent::systemd::SystemdError;
use flotilla_api::{
    client::ClientError,
    error::{ErrorBody, ErrorKind},
};
use flotilla_registry::{operations::OperationError, reads::ReadError, store::StoreError};
use flotilla_units::{NameError, Problems};

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct ApiError(pub(crate) ErrorBody);

impl ApiError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(ErrorBody { kind, message: message.into(), details: Vec::new() })
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadRequest, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// Refuses a unit file, with each finding as a detail.
    pub(crate) fn invalid_unit(name: &str, problems: &Problems) -> Self {
        let details = problems.as_slice().iter().map(ToString::to_string).collect();
        let message = format!("{name} is not a valid unit file");
        Self(ErrorBody { kind: ErrorKind::InvalidUnit, message, details })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if self.0.kind == ErrorKind::Internal {
            tracing::error!(error = %self.0, "internal error answering a request; please report it");
        }
        (status, Json(self.0)).into_response()
    }
}

/// Prints an error with its causes, which the wire has no field for.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn of_store(error: &StoreError) -> ErrorKind {
    match error {
        StoreError::OutcomeUnknown { .. } => ErrorKind::OutcomeUnknown,
        StoreError::Invalid(_) => ErrorKind::TooLarge,
        _ => ErrorKind::Unavailable,
    }
}

fn of_operation(error: &OperationError) -> ErrorKind {
    match error {
        OperationError::NoSuchUnit(_)
        | OperationError::NoSuchInstances(_)
        | OperationError::MissingTemplate { .. } => ErrorKind::NotFound,
        OperationError::TemplateStarted(_) | OperationError::InstanceSubmitted { .. } => {
            ErrorKind::BadRequest
        }
        OperationError::ContentDiffers { .. }
        | OperationError::BeingDestroyed(_)
        | OperationError::TemplateInUse { .. }
        | OperationError::TooScattered(_)
        | OperationError::Contended { .. } => ErrorKind::Conflict,
        OperationError::TooLarge { .. } => ErrorKind::TooLarge,
        OperationError::Unreadable(_) => ErrorKind::Internal,
        OperationError::OutcomeUnknown { .. } => ErrorKind::OutcomeUnknown,
        OperationError::Incomplete { source, .. } => of_operation(source),
        OperationError::Store(error) => of_store(error),
    }
}

impl From<OperationError> for ApiError {
    fn from(error: OperationError) -> Self {
        Self::new(of_operation(&error), chain(&error))
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        Self::new(ErrorKind::Unavailable, chain(&error))
    }
}

impl From<SystemdError> for ApiError {
    fn from(error: SystemdError) -> Self {
        Self::new(ErrorKind::Unavailable, chain(&error))
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<ClientError> for ApiError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(body) => Self(body),
            other => Self::unavailable(chain(&other)),
        }
    }
}
