//! What zbus says, in the words of [`SystemdError`].

use std::{io, time::Duration};

use zbus::fdo;

use super::{METHOD_TIMEOUT, link::no_bus};
use crate::systemd::SystemdError;

/// Errors of the bus that mean that systemd is not there to answer, by the last part of their name.
const NOBODY: [&str; 6] =
    ["NoReply", "ServiceUnknown", "Disconnected", "Timeout", "TimedOut", "NameHasNoOwner"];

/// Puts an error of a call into words.
pub(super) fn told(
    call: &'static str,
    unit: &str,
    bus: &str,
    e: &zbus::Error,
    took: Duration,
) -> SystemdError {
    match e {
        zbus::Error::InputOutput(io) if io.kind() == io::ErrorKind::TimedOut => {
            SystemdError::NoAnswer { call, seconds: METHOD_TIMEOUT.as_secs() }
        }
        zbus::Error::InputOutput(_) => no_bus(bus, e),
        zbus::Error::MethodError(name, why, _) => {
            answered(call, unit, name.as_str(), why.as_deref().unwrap_or_default(), took)
        }
        zbus::Error::FDO(e) => {
            let (name, why) = (fdo_name(e), e.to_string());
            answered(call, unit, &name, &why, took)
        }
        other => SystemdError::Refused { call, unit: unit.to_owned(), why: other.to_string() },
    }
}

/// Returns whether the bus had no room for a call, and so did not pass it on.
pub(super) fn is_full(e: &zbus::Error) -> bool {
    match e {
        zbus::Error::FDO(e) => matches!(**e, fdo::Error::LimitsExceeded(_)),
        zbus::Error::MethodError(name, ..) => name.as_str() == "org.freedesktop.DBus.Error.LimitsExceeded",
        _ => false,
    }
}

/// Returns whether systemd has no unit or no job of that name loaded.
pub(super) fn is_no_such(e: &SystemdError) -> bool {
    matches!(e, SystemdError::Refused { why, .. }
        if why.starts_with("org.freedesktop.systemd1.NoSuch"))
}

fn answered(call: &'static str, unit: &str, name: &str, why: &str, took: Duration) -> SystemdError {
    if NOBODY.iter().any(|nobody| name.rsplit('.').next() == Some(nobody)) {
        return SystemdError::NoAnswer { call, seconds: took.as_secs() };
    }
    SystemdError::Refused { call, unit: unit.to_owned(), why: format!("{name}: {why}") }
}

fn fdo_name(e: &fdo::Error) -> String {
    use zbus::DBusError as _;
    e.name().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_from_refusal() {
        let told =
            |e: zbus::Error| told("StartUnit", "a.service", "unix:path=/x", &e, Duration::from_secs(3));
        let late = zbus::Error::InputOutput(io::Error::from(io::ErrorKind::TimedOut).into());
        assert!(matches!(told(late), SystemdError::NoAnswer { seconds: 25, .. }));
        let broken = zbus::Error::InputOutput(io::Error::from(io::ErrorKind::BrokenPipe).into());
        assert!(matches!(told(broken), SystemdError::NoBus { .. }));
        let gone = fdo::Error::NoReply("gone".to_owned());
        assert!(matches!(told(gone.into()), SystemdError::NoAnswer { seconds: 3, .. }));
        let denied = told(fdo::Error::AccessDenied("no".to_owned()).into());
        assert!(denied.to_string().contains("AccessDenied"), "{denied}");
        assert!(!is_no_such(&denied));
        let full = zbus::Error::from(fdo::Error::LimitsExceeded("pending replies".to_owned()));
        assert!(is_full(&full) && !is_full(&fdo::Error::NoReply("gone".to_owned()).into()));
    }
}
