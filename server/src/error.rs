//! How a route says no.

use std::sync::Arc;

use axum::{
    Json,
    extract::Request,
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use flotilla_agent::{session::SessionError, systemd::SystemdError};
use flotilla_api::{
    client::ClientError,
    error::{ErrorBody, ErrorKind},
};
use flotilla_engine::{NoSuchMachine, NotRebalanced};
use flotilla_registry::{
    operations::{MachineError, OperationError, Written},
    reads::ReadError,
    store::StoreError,
};
use flotilla_units::{NameError, Problems};

/// How many units an answer names that were written before the rest failed. A thousand: a page.
const WRITTEN_NAMED: usize = 1_000;

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct ApiError(pub(crate) ErrorBody);

/// What an answer with a fault of ours leaves to be logged where the request is known.
#[derive(Debug, Clone)]
struct InternalError(Arc<str>);

/// Logs faults of ours, with the request that met them.
pub(crate) async fn log_internal(request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let response = next.run(request).await;
    if let Some(InternalError(error)) = response.extensions().get() {
        // Without the query: it may be long, and the path says what was asked.
        let path = uri.path();
        tracing::error!(%method, path, %error, "internal error answering a request; please report it");
    }
    response
}

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
        let internal = (self.0.kind == ErrorKind::Internal).then(|| InternalError(self.0.to_string().into()));
        let mut response = (status, Json(self.0)).into_response();
        if let Some(internal) = internal {
            response.extensions_mut().insert(internal);
        }
        response
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
        OperationError::TemplateStarted(_)
        | OperationError::InstanceSubmitted { .. }
        | OperationError::Contradictory(_) => ErrorKind::BadRequest,
        OperationError::RevisionDiffers { .. } => ErrorKind::RevisionDiffers,
        OperationError::ContentDiffers { .. }
        | OperationError::NameTaken(_)
        | OperationError::BeingDestroyed(_)
        | OperationError::TemplateInUse { .. }
        | OperationError::TooScattered(_)
        | OperationError::Contended { .. } => ErrorKind::Conflict,
        OperationError::TooLarge { .. } | OperationError::TooManyAtOnce { .. } => ErrorKind::TooLarge,
        OperationError::Unreadable(_) | OperationError::Ended => ErrorKind::Internal,
        OperationError::OutcomeUnknown { .. } | OperationError::RangeUnknown { .. } => {
            ErrorKind::OutcomeUnknown
        }
        OperationError::Incomplete { source, .. } | OperationError::RangeIncomplete { source, .. } => {
            of_operation(source)
        }
        OperationError::Store(error) => of_store(error),
    }
}

impl From<OperationError> for ApiError {
    fn from(error: OperationError) -> Self {
        let mut refused = Self::new(of_operation(&error), chain(&error));
        if let OperationError::Incomplete { written, .. } = &error {
            refused.0.details = written.iter().take(WRITTEN_NAMED).map(was_written).collect();
            let more = written.len().saturating_sub(WRITTEN_NAMED);
            refused.0.details.extend((more > 0).then(|| format!("and {more} more were written")));
        }
        refused
    }
}

fn was_written(written: &Written) -> String {
    format!("{} was written at revision {}", written.unit, written.revision.0)
}

impl From<MachineError> for ApiError {
    fn from(error: MachineError) -> Self {
        let kind = match &error {
            MachineError::Key(_) | MachineError::Value(_) => ErrorKind::BadRequest,
            MachineError::TooManyKeys { .. } | MachineError::TooManyMachines(_) => ErrorKind::TooLarge,
            MachineError::RevisionDiffers { .. } => ErrorKind::RevisionDiffers,
            MachineError::Contended { .. } => ErrorKind::Conflict,
            MachineError::Unreadable(_) => ErrorKind::Internal,
            MachineError::OutcomeUnknown(_) => ErrorKind::OutcomeUnknown,
            MachineError::Store(error) => of_store(error),
        };
        Self::new(kind, chain(&error))
    }
}

impl From<NotRebalanced> for ApiError {
    fn from(error: NotRebalanced) -> Self {
        let kind = match &error {
            NotRebalanced::NotLeading | NotRebalanced::Refused(_) => ErrorKind::Unavailable,
            NotRebalanced::NoAnswer => ErrorKind::OutcomeUnknown,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<NoSuchMachine> for ApiError {
    fn from(error: NoSuchMachine) -> Self {
        let kind = match &error {
            NoSuchMachine::Unknown(_) | NoSuchMachine::TooShort { .. } => ErrorKind::NotFound,
            NoSuchMachine::Several { .. } => ErrorKind::Conflict,
        };
        Self::new(kind, error.to_string())
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

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        let kind = match error {
            SessionError::NoProcess { .. } => ErrorKind::NotPlaced,
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, chain(&error))
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
            path @ ClientError::Path(_) => Self::bad_request(path.to_string()),
            other => Self::unavailable(chain(&other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Mutex};

    use axum::{Router, body::Body, middleware::from_fn, routing::get};
    use tower::ServiceExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("nobody panics").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_fault_of_ours_is_logged_with_its_request() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        let _logged = tracing::subscriber::set_default(subscriber);
        let fault = get(async || ApiError::new(ErrorKind::Internal, "a record makes no sense"));
        let router = Router::new().route("/v1/x", fault).layer(from_fn(log_internal));
        let request = Request::get("/v1/x?pattern=long").body(Body::empty()).expect("valid");
        let answer = router.oneshot(request).await.expect("an answer");
        assert_eq!(answer.status(), 500);
        let text = String::from_utf8(log.0.lock().expect("nobody panics").clone()).expect("text");
        for part in ["method=GET", "path=\"/v1/x\"", "error=a record makes no sense"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
