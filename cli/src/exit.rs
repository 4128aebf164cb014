//! What the program's exit status means, decided in one place.

use std::process::ExitCode;

use flotilla_api::{client::ClientError, error::ErrorKind};

use crate::{paint, print, text};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// It failed.
    Failed,
    /// The command line is wrong, in a way that only its parts together show; clap's own status.
    Usage,
    /// A unit is not active.
    NotActive,
    /// There is no such unit or machine.
    NoSuch,
    /// A unit cannot be placed.
    CannotBePlaced,
    /// The cluster could not be reached.
    Unreachable,
    /// The folder and the cluster differ, and whoever asks wanted to know.
    Differs,
    /// It took too long.
    TimedOut,
    /// Somebody ended it, as a shell says it: 128 and the number of SIGINT.
    Interrupted,
    /// Another program's, passed on.
    Passed(u8),
}

/// A failure whose exit status the command chose itself.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Exit {
    /// Returns the number that the program ends with.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotActive => 3,
            Self::NoSuch => 4,
            Self::CannotBePlaced => 5,
            Self::Unreachable => 6,
            Self::Differs => 7,
            Self::TimedOut => 124,
            Self::Interrupted => 130,
            Self::Passed(status) => status,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

impl Failure {
    /// Returns an error with this exit status.
    pub(crate) fn error(exit: Exit, message: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Self { exit, message: message.into() })
    }
}

/// Prints an error and returns its exit status.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    // Whoever closed the pipe has seen enough: `flotctl list-units | head` is a success.
    let broken = |e: &(dyn std::error::Error + 'static)| {
        e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(broken) {
        return Exit::Done.into();
    }
    // What others said may be in it, also over several lines.
    for (i, line) in text::lines(&format!("{error:#}")).enumerate() {
        match i {
            0 => print::tell(format_args!("{} {line}", paint::bad("error:"))),
            _ => print::tell(line),
        }
    }
    if let Some(hint) = hint(error) {
        print::tell(hint);
    }
    of(error).into()
}

/// Returns the exit status of an error.
pub(crate) fn of(error: &anyhow::Error) -> Exit {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.exit;
    }
    match error.downcast_ref::<ClientError>() {
        Some(e) if e.is_unreachable() => Exit::Unreachable,
        Some(ClientError::Endpoint(_)) => Exit::Usage,
        Some(e) => match e.kind() {
            Some(ErrorKind::NotFound) => Exit::NoSuch,
            Some(ErrorKind::NotPlaced) => Exit::NotActive,
            _ => Exit::Failed,
        },
        None => Exit::Failed,
    }
}

/// Says what to try next, where the error itself cannot know.
fn hint(error: &anyhow::Error) -> Option<String> {
    match error.downcast_ref::<ClientError>()? {
        ClientError::Unreachable { endpoint, why, .. } if tls_hint(why).is_some() => {
            tls_hint(why).map(|hint| format!("{endpoint}: {hint}"))
        }
        ClientError::Unreachable { endpoint, .. } if endpoint.contains(" through ssh to ") => Some(
            "Is flotillad running there (systemctl status flotillad), may the user that ssh logs in as use its \
             socket (group flotilla), and does sshd forward sockets (AllowStreamLocalForwarding)?"
                .to_owned(),
        ),
        ClientError::Unreachable { endpoint, .. } if endpoint.starts_with("unix://") => Some(
            "Is flotillad running on this machine (systemctl status flotillad)? From elsewhere, name a \
             machine of the cluster with --endpoint https://HOST:7400."
                .to_owned(),
        ),
        ClientError::Unreachable { endpoint, .. } => {
            Some(format!("Is flotillad running there, and is {endpoint} the address it listens on?"))
        }
        _ => None,
    }
}

/// Says what to do about a failed TLS handshake, in rustls' words for what it refused, or for the
/// other's alert.
fn tls_hint(why: &str) -> Option<&'static str> {
    const REFUSED: [(&str, &str); 4] = [
        // Authorities of one name, as those of early clusters are, are told apart by their keys alone.
        (
            "BadSignature",
            "its certificate is of another authority than --ca; give the ca.pem of that cluster",
        ),
        (
            "UnknownIssuer",
            "its certificate is of another authority than --ca; give the ca.pem of that cluster",
        ),
        (
            "expired",
            "its certificate has expired; issue that machine a new one with `flotctl ca issue machine`",
        ),
        ("not valid for name", "use a name or an address that its certificate is for"),
    ];
    if why.contains("invalid peer certificate") {
        let why = why.to_ascii_lowercase();
        let known = REFUSED.iter().find(|(word, _)| why.contains(&word.to_ascii_lowercase()));
        return Some(known.map_or("its certificate cannot be trusted", |(_, hint)| hint));
    }
    let alert = why.contains("received fatal alert");
    alert.then_some(
        "it does not accept your certificate, which has to be of its own cluster's authority and must not have \
         expired; `flotctl ca issue user` makes one",
    )
}

#[cfg(test)]
mod tests {
    use flotilla_api::error::ErrorBody;

    use super::*;

    fn refused(kind: ErrorKind) -> anyhow::Error {
        ClientError::Refused(ErrorBody { kind, message: "no".to_owned(), details: Vec::new() }).into()
    }

    #[test]
    fn exit_statuses_are_those_that_the_manual_promises() {
        assert_eq!(of(&refused(ErrorKind::NotFound)), Exit::NoSuch);
        assert_eq!(of(&refused(ErrorKind::Unavailable)), Exit::Unreachable);
        assert_eq!(of(&refused(ErrorKind::Frozen)), Exit::Unreachable);
        assert_eq!(of(&refused(ErrorKind::Conflict)), Exit::Failed);
        assert_eq!(of(&Failure::error(Exit::CannotBePlaced, "no").context("more")), Exit::CannotBePlaced);
        assert_eq!(of(&anyhow::anyhow!("any")), Exit::Failed);
    }

    #[test]
    fn failed_handshakes_say_whose_certificate_is_to_be_changed() {
        let hint = |why| tls_hint(why).expect("a failed handshake");
        assert!(hint("invalid peer certificate: BadSignature").contains("--ca"));
        assert!(
            hint("invalid peer certificate: certificate expired: verified at ..")
                .contains("ca issue machine")
        );
        assert!(hint("received fatal alert: DecryptError").contains("your certificate"));
        assert_eq!(tls_hint("Connection refused (os error 111)"), None);
    }
}
